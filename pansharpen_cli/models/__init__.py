"""Networks: the protocol in `base`, one file per network, and the registry."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ..errors import InputError, reason_of

if TYPE_CHECKING:
    from .base import Backbone

REGISTRY: dict[str, str] = {
    "glpnet": "glpnet.GLPNet",
    "fusionnet": "fusionnet.FusionNet",
    "pnn": "pnn.PNN",
    "pannet": "pannet.PanNet",
    "msdcnn": "msdcnn.MSDCNN",
    "u2net": "u2net.U2Net",
    "pantiny": "pantiny.PanTiny",
    "pantiny-small": "pantiny.PanTinySmall",
    "pancrafter": "pancrafter.PanCrafter",
}
"""Networks by name: module and class. Torch is imported with the first that is asked for."""

DEFAULT = "glpnet"
"""The method where none is chosen, and the one that is advised: in all that is warned of, none is better on the mean.
The other networks are there for comparison."""


def network_class(name: str) -> type[Backbone]:
    """The class of a network; it takes the `config` of the weights' card."""
    module, kind = REGISTRY[name].split(".")
    return getattr(import_module(f".{module}", __name__), kind)


def create(name: str, config: dict[str, int]) -> Backbone:
    """Make the named network. Raises InputError for an unknown name or a config that it does not take."""
    if name not in REGISTRY:
        raise InputError(f"no network named '{name}'; choose from {', '.join(REGISTRY)}")
    try:
        network = network_class(name)(**config)
        if network.bands is not None and network.bands < 1:
            raise ValueError("it is made for at least one band")
        return network
    except (TypeError, ValueError, RuntimeError, LookupError, ArithmeticError) as error:
        reason = reason_of(error)
        raise InputError(f"network '{name}' does not take the options {config}: {reason}") from error
