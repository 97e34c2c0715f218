"""Networks: the protocol in `base`, one file per network, and the registry."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import InputError
from .base import Backbone
from .fusionnet import FusionNet
from .glpnet import GLPNet

REGISTRY: dict[str, Callable[..., Backbone]] = {"glpnet": GLPNet, "fusionnet": FusionNet}
"""Networks by name; the values take the `config` of the weights' card."""

DEFAULT = "glpnet"


def create(name: str, config: dict[str, int]) -> Backbone:
    """Make the named network. Raises InputError for an unknown name or a config that it does not take."""
    if name not in REGISTRY:
        raise InputError(f"no network named '{name}'; there is {', '.join(REGISTRY)}")
    try:
        return REGISTRY[name](**config)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"network '{name}' does not take the options {config}: {reason}") from error
