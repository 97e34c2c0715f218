"""The grid of a raster as an immutable value, and the exact phase between two of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.transform import array_bounds
from rasterio.warp import transform_bounds

Window = tuple[int, int, int, int]
"""First row, one past the last row, first column, one past the last column."""


@dataclass(frozen=True)
class Phase:
    """Where the MS grid lies on the PAN grid, per axis (rows, columns).

    `ratio`: MS pixel size in PAN pixels; `offset`: MS origin (edge) in PAN pixels from the PAN origin.
    """

    ratio: tuple[float, float]
    offset: tuple[float, float]


@dataclass(frozen=True)
class Grid:
    """CRS, affine transform and shape; a pixel is an area and the transform maps pixel corners."""

    crs: CRS | None
    transform: Affine
    height: int
    width: int

    @classmethod
    def of(cls, dataset) -> Grid:
        return cls(dataset.crs, dataset.transform, dataset.height, dataset.width)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right, top in the CRS."""
        return array_bounds(self.height, self.width, self.transform)

    def lonlat_bounds(self) -> tuple[float, float, float, float] | None:
        """West, south, east, north in degrees; None without a CRS, or where it does not reach."""
        try:
            return transform_bounds(self.crs, "EPSG:4326", *self.bounds) if self.crs else None
        except RasterioError:
            return None

    def describe(self) -> str:
        """Extent for a message."""
        left, bottom, right, top = self.bounds
        return f"{left:.10g} {bottom:.10g} {right:.10g} {top:.10g} ({self.crs or 'no CRS'})"

    def window(self, window: Window) -> Grid:
        """The part of the grid inside a pixel window."""
        r0, r1, c0, c1 = window
        return Grid(self.crs, self.transform * Affine.translation(c0, r0), r1 - r0, c1 - c0)

    def coarser(self, phase: Phase, window: Window) -> Grid:
        """A window of the grid that lies on this one as an MS grid of that phase lies on its PAN grid."""
        ratio, offset = phase.ratio, phase.offset
        transform = self.transform * Affine.translation(offset[1], offset[0]) * Affine.scale(ratio[1], ratio[0])
        return Grid(self.crs, transform, window[1], window[3]).window(window)

    def blocks(self, size: int, shape: tuple[int, int]) -> Grid:
        """The grid whose pixels are blocks of size x size pixels from this one's corner."""
        return Grid(self.crs, self.transform * Affine.scale(size), *shape)

    def pixels_of(self, bounds: tuple[float, float, float, float]) -> Window:
        """The pixels whose centres lie inside CRS bounds (left, bottom, right, top), not clipped."""
        left, bottom, right, top = bounds
        corners = [~self.transform * xy for xy in ((left, top), (left, bottom), (right, top), (right, bottom))]
        cols, rows = zip(*corners, strict=True)
        return _centres(min(rows), max(rows)) + _centres(min(cols), max(cols))

    def phase_of(self, ms: Grid) -> Phase | None:
        """Exact phase of an MS grid on this PAN grid; None if it is rotated or mirrored against it."""
        relative = ~self.transform * ms.transform
        span = max(ms.height, ms.width)
        if relative.a <= 0 or relative.e <= 0 or max(abs(relative.b), abs(relative.d)) * span > 1e-3:
            return None
        return Phase(
            (_snap(relative.e, ms.height), _snap(relative.a, ms.width)), (_snap(relative.f), _snap(relative.c))
        )

    def overlap(self, phase: Phase, ms: Grid) -> Window:
        """The pixels whose centres lie in the MS footprint; empty (stop <= start) without an overlap."""
        rows = _centres(phase.offset[0], phase.offset[0] + phase.ratio[0] * ms.height)
        cols = _centres(phase.offset[1], phase.offset[1] + phase.ratio[1] * ms.width)
        return intersect((*rows, *cols), (0, self.height, 0, self.width))


def intersect(a: Window, b: Window) -> Window:
    """Common part of two windows; stop may be below start where there is none."""
    return max(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), min(a[3], b[3])


def widened(window: Window, margin: int) -> Window:
    """A window with `margin` more pixels on every side."""
    return window[0] - margin, window[1] + margin, window[2] - margin, window[3] + margin


def area(window: Window) -> int:
    """Number of pixels; 0 of an empty window."""
    return max(0, window[1] - window[0]) * max(0, window[3] - window[2])


def is_empty(window: Window) -> bool:
    return window[1] <= window[0] or window[3] <= window[2]


def _centres(first: float, last: float) -> tuple[int, int]:
    """Pixels whose centres lie between two edges."""
    return math.ceil(first - 0.5 - 1e-6), math.floor(last - 0.5 - 1e-6) + 1


def _snap(value: float, length: int = 1) -> float:
    """Geotransforms carry rounding noise: a value within 1e-3 pixel of a simple one over the whole length is that."""
    for denominator in (1, 2, 3, 4, 5, 8, 10):
        simple = round(value * denominator) / denominator
        if abs(simple - value) * length < 1e-3:
            return simple
    return value
