"""Registration: how far the MS lies from where its georeferencing puts it, measured against the PAN."""

from __future__ import annotations

from dataclasses import dataclass

from .fuse import Progress, quiet
from .scene import Scene


@dataclass(frozen=True)
class Shift:
    """Where the MS content lies, in PAN pixels (rows down, columns right) from where the georeferencing says.

    Correcting it adds (`rows`, `cols`) to the MS's phase offset. `confidence` is 0 to 1; `confident` says whether it is
    to be relied on (and `fuse --align auto` corrects it). `field` are (row, col, rows, cols) of single tiles, the
    place in PAN pixels; `varies` is how much the shift changes over the scene, in PAN pixels; `bands` are the offsets
    of each MS band from the others, (rows, cols) in PAN pixels.
    """

    rows: float
    cols: float
    confidence: float
    confident: bool
    tiles: int
    varies: float = 0.0
    field: tuple[tuple[float, float, float, float], ...] = ()
    bands: tuple[tuple[float, float], ...] = ()


def measure(scene: Scene, seed: int = 0, progress: Progress = quiet) -> Shift:
    """Measure how far the MS lies from the PAN."""
    raise NotImplementedError
