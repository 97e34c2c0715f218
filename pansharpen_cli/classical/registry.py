"""Classical methods by name."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from .layers import Setup
    from .method import Method

METHODS: dict[str, str] = {
    "exp": "method.Exp",
    "brovey": "substitution.Brovey",
    "ihs": "substitution.IHS",
    "pca": "substitution.PCA",
    "gs": "substitution.GS",
    "gsa": "substitution.GSA",
    "bt-h": "substitution.BTH",
    "pracs": "substitution.PRACS",
    "hpf": "multiresolution.HPF",
    "sfim": "multiresolution.SFIM",
    "atwt": "multiresolution.ATWT",
    "awlp": "multiresolution.AWLP",
    "mtf-glp": "multiresolution.MTFGLP",
    "mtf-glp-fs": "multiresolution.MTFGLPFS",
    "mtf-glp-cbd": "multiresolution.MTFGLPCBD",
    "mtf-glp-hpm": "multiresolution.MTFGLPHPM",
    "mtf-glp-hpm-r": "multiresolution.MTFGLPHPMR",
    "mf": "multiresolution.MF",
    "bdsd": "bdsd.BDSD",
    "bdsd-pc": "bdsd.BDSDPC",
    "c-bdsd": "bdsd.CBDSD",
}
"""The classical methods by name: module and class. Torch is imported with the first that is asked for."""

ALIASES = {"none": "exp", "prs": "pracs"}

NAMES = (*METHODS, *ALIASES)
"""All that --method takes for a classical method."""


def method_class(name: str) -> type[Method]:
    """The class of a method."""
    module, kind = METHODS[name].split(".")
    return getattr(import_module(f".{module}", __package__), kind)


def create(name: str, setup: Setup) -> Method:
    """Make the named method, not fitted yet. Raises InputError for an unknown name."""
    name = ALIASES.get(name, name)
    if name not in METHODS:
        raise InputError(f"no classical method named '{name}'; choose from {', '.join(NAMES)}")
    return method_class(name)(setup)
