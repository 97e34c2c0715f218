"""A PAN that is made of bands: the mean of those that lie on one grid, such as the 10 m bands of Sentinel-2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..errors import InputError
from .geometry import Window
from .grid import Grid
from .source import Source, rpcs_of


@dataclass(frozen=True)
class Mean(Source):
    """The mean of all bands of `parts`, float32, valid where all of them are; otherwise as the first of them."""

    parts: list[Source] = field(default_factory=list)

    @property
    def files(self) -> set[str]:
        return {f for part in self.parts for f in part.files}

    @property
    def labels(self) -> list[str]:
        return list(dict.fromkeys(part.label for part in self.parts))

    def dtype_of(self, index: int) -> np.dtype:
        return np.dtype("float32")

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """The mean (1, rows, cols) and where all bands are valid (rows, cols)."""
        read = [part.read(window) for part in self.parts]
        total = sum(values.sum(0, dtype=np.float64) for values, _ in read)
        mean = total / sum(len(values) for values, _ in read)
        return np.asarray(mean, np.float32)[None], np.logical_and.reduce([valid for _, valid in read])


def divided(pan: Source, others: Sequence[Source]) -> tuple[list[Source], list[Source]]:
    """The sources that lie on the PAN's own grid, the PAN first, and those that lie on coarser ones. All others are
    coarser where none is: their ratio is refused later."""
    grid = Grid.of(pan.dataset)
    on_grid = [
        s for s in others if Grid.of(s.dataset).called_as(grid) == grid and rpcs_of(s.dataset) == rpcs_of(pan.dataset)
    ]
    if len(on_grid) == len(others):
        on_grid = []
    return [pan, *on_grid], [s for s in others if s not in on_grid]


def is_finer(one: Source, other: Source) -> bool:
    """Whether the pixels of a raster are clearly smaller than those of another one, as far as headers tell."""
    a, b = one.dataset, other.dataset
    if a.transform.is_identity and b.transform.is_identity:
        return a.width >= 1.5 * b.width
    return a.crs != b.crs or abs(b.transform.determinant) >= 1.5**2 * abs(a.transform.determinant)


def pan_of(parts: list[Source], places: Sequence[int] | None) -> Source:
    """The PAN of the bands at `places` (from 0) over all parts: a band as it is, or their mean; all without places."""
    flat = [(part, band) for part in parts for band in part.bands]
    chosen = [flat[i] for i in places] if places is not None else flat
    if not chosen:
        raise InputError("--pan-from names no band")
    first, band = chosen[0]
    if len(chosen) == 1:
        return replace(first, bands=[band])
    made = [replace(p, bands=[b]) for p, b in chosen]
    return Mean(first.dataset, [band], first.label, first.nodata, first.alpha, first.notes, parts=made)
