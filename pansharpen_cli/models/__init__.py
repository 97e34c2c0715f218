"""Networks: the protocol in `base`, one file per network, and the registry."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import InputError
from .base import Backbone
from .fusionnet import FusionNet
from .glpnet import GLPNet
from .msdcnn import MSDCNN
from .pancrafter import PanCrafter
from .pannet import PanNet
from .pantiny import PanTiny, PanTinySmall
from .pnn import PNN
from .u2net import U2Net

REGISTRY: dict[str, Callable[..., Backbone]] = {
    "glpnet": GLPNet,
    "fusionnet": FusionNet,
    "pnn": PNN,
    "pannet": PanNet,
    "msdcnn": MSDCNN,
    "u2net": U2Net,
    "pantiny": PanTiny,
    "pantiny-small": PanTinySmall,
    "pancrafter": PanCrafter,
}
"""Networks by name; the values take the `config` of the weights' card."""

DEFAULT = "glpnet"


def create(name: str, config: dict[str, int]) -> Backbone:
    """Make the named network. Raises InputError for an unknown name or a config that it does not take."""
    if name not in REGISTRY:
        raise InputError(f"no network named '{name}'; there is {', '.join(REGISTRY)}")
    try:
        network = REGISTRY[name](**config)
        if network.bands is not None and network.bands < 1:
            raise ValueError("it is made for at least one band")
        return network
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"network '{name}' does not take the options {config}: {reason}") from error
