"""The Python interface: `import pansharpen_cli as pansharpen` gives what `__all__` lists here.

Every function runs the job of the command line of the same name, so the pixels, the figures and the reports are those
of the command line. Options have the names and the defaults of docs/cli.md; docs/python.md has examples.
"""

from .. import indices
from ..errors import InputError, PansharpenError, ReadError, WeightsError
from .fusing import check, fuse
from .inputs import GeoArray
from .measuring import evaluate, evaluate_against, evaluate_wald
from .result import Fused

__all__ = [
    "Fused", "GeoArray", "InputError", "PansharpenError", "ReadError", "WeightsError", "check", "evaluate",
    "evaluate_against", "evaluate_wald", "fuse", "indices",
]  # fmt: skip
