"""Fuse a panchromatic and a multispectral GeoTIFF into one sharp multispectral GeoTIFF.

`import pansharpen_cli as pansharpen` is the Python interface (docs/python.md). Nothing large is imported before it is
used.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # typing's own takes longer to import than all that is needed to act on a signal

__version__ = "0.2.0"

# Threads of OpenMP and of numpy's OpenBLAS that wait actively take the cores from other processes, and from ours. They
# read this when they are loaded; of OpenBLAS it is the power of two of the cycles that they wait so.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
# Of another number than a whole one, or of several, libgomp complains at each start, and takes all cores.
for _value in os.environ.get("OMP_NUM_THREADS", "1").split(","):
    _value = _value.strip()
    if not (_value.isascii() and _value.isdecimal() and len(_value) < 10 and int(_value)):
        os.environ.pop("OMP_NUM_THREADS", None)
# Large tensors in pages of 2 MB where the system has them: the first touch of 4 kB ones takes longer than the sums.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

# A server that is silent, slow or never ends: GDAL waits for it without end otherwise. Seconds, and bytes per second.
for _option, _value in {
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_LOW_SPEED_TIME": "15",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1000",
    "GDAL_HTTP_TIMEOUT": "120",
}.items():
    os.environ.setdefault(_option, _value)

__all__ = [
    "Fused", "GeoArray", "InputError", "PansharpenError", "ReadError", "WeightsError", "__version__", "check",
    "evaluate", "evaluate_against", "evaluate_wald", "fuse", "indices",
]  # fmt: skip

if TYPE_CHECKING:
    from typing import Any

    from . import indices
    from .api import Fused, GeoArray, check, evaluate, evaluate_against, evaluate_wald, fuse
    from .errors import InputError, PansharpenError, ReadError, WeightsError


def __getattr__(name: str) -> Any:
    """The interface's names, found when they are asked for: torch and rasterio take a second to import."""
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from importlib import import_module

    if name == "indices":
        return import_module(".indices", __name__)
    return getattr(import_module(".errors" if name.endswith("Error") else ".api", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
