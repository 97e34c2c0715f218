"""Classical methods by name."""

from __future__ import annotations

from ..errors import InputError
from .bdsd import BDSD, BDSDPC, CBDSD
from .layers import Setup
from .method import Exp, Method
from .multiresolution import ATWT, AWLP, HPF, MF, MTFGLP, MTFGLPCBD, MTFGLPFS, MTFGLPHPM, MTFGLPHPMR, SFIM
from .substitution import BTH, GS, GSA, IHS, PCA, PRACS, Brovey

METHODS: dict[str, type[Method]] = {
    "exp": Exp,
    "brovey": Brovey,
    "ihs": IHS,
    "pca": PCA,
    "gs": GS,
    "gsa": GSA,
    "bt-h": BTH,
    "pracs": PRACS,
    "hpf": HPF,
    "sfim": SFIM,
    "atwt": ATWT,
    "awlp": AWLP,
    "mtf-glp": MTFGLP,
    "mtf-glp-fs": MTFGLPFS,
    "mtf-glp-cbd": MTFGLPCBD,
    "mtf-glp-hpm": MTFGLPHPM,
    "mtf-glp-hpm-r": MTFGLPHPMR,
    "mf": MF,
    "bdsd": BDSD,
    "bdsd-pc": BDSDPC,
    "c-bdsd": CBDSD,
}
"""The classical methods by name."""

ALIASES = {"none": "exp", "prs": "pracs"}

NAMES = (*METHODS, *ALIASES)
"""All that --method takes for a classical method."""


def create(name: str, setup: Setup) -> Method:
    """Make the named method, not fitted yet. Raises InputError for an unknown name."""
    name = ALIASES.get(name, name)
    if name not in METHODS:
        raise InputError(f"no classical method named '{name}'; there is {', '.join(NAMES)}")
    return METHODS[name](setup)
