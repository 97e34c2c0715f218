"""The grid of a raster as an immutable value, and the exact phase between two of them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.transform import array_bounds
from rasterio.warp import transform, transform_bounds

from ..errors import InputError
from .geometry import Box, Phase, Span, Window, whole_turns
from .messages import GDAL_ERRORS

SAME_PLACE = 0.01
"""Pixels within which two CRSs put the same coordinates in the same place."""

_NOWHERE = (math.nan,) * 4


def crs_name(crs: CRS | None) -> str:
    """What a CRS is called in a message: its code, or its name where it has none; nothing without one."""
    if not crs:
        return ""
    text = crs.to_string()
    named = re.search(r'\["([^"]{1,80})"', text)
    return named[1] if named else text[:80]


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
    def bounds(self) -> Box:
        """Left, bottom, right, top in the CRS."""
        return Box(*array_bounds(self.height, self.width, self.transform))

    @property
    def whole(self) -> Window:
        """All pixels."""
        return Window(0, self.height, 0, self.width)

    def lonlat_bounds(self) -> Box | None:
        """West, south, east, north in degrees; None without a CRS, or where it does not reach. East is the greater,
        and beyond 180 where the grid crosses that meridian."""
        try:
            west, south, east, north = transform_bounds(self.crs, "EPSG:4326", *self.bounds) if self.crs else _NOWHERE
        except RasterioError:
            return None
        if not all(map(math.isfinite, (west, south, east, north))):
            return None
        return Box(west, south, east + 360 * (east < west), north)

    def called_as(self, other: Grid) -> Grid:
        """This grid with the CRS of another one where both CRSs put its pixels in the same place; else itself.

        The same place is one to a hundredth of the other's pixels: CRSs of one meaning differ by name, authority,
        height system, the realisation of a datum or the unit. Units are counted as the other's are, and degrees:
        from 0 or from -180.
        """
        if self.crs is None or other.crs is None:
            return self
        if self.crs == other.crs:
            return replace(self, crs=other.crs).turned_towards(other)
        places = [self.transform * (c * self.width / 4, r * self.height / 4) for r in range(5) for c in range(5)]
        try:
            xs, ys = transform(self.crs, other.crs, *map(list, zip(*places, strict=True)))
        except (*GDAL_ERRORS, ValueError):
            return self
        back = ~other.transform
        there = [back * place for place in zip(xs, ys, strict=True)]
        for unit in {1.0, self._unit_in(other)}:
            moved = [(back * (unit * x, unit * y), place) for (x, y), place in zip(places, there, strict=True)]
            if all(abs(a - b) < SAME_PLACE for pair in moved for a, b in zip(*pair, strict=True)):
                return replace(self, crs=other.crs, transform=Affine.scale(unit) * self.transform).turned_towards(other)
        return self

    def _unit_in(self, other: Grid) -> float:
        """The unit of this CRS in that of another one, if both are projected; else 1."""
        if not (self.crs and other.crs and self.crs.is_projected and other.crs.is_projected):
            return 1.0
        try:
            return float(self.crs.units_factor[1] / other.crs.units_factor[1])
        except (*GDAL_ERRORS, ValueError, ZeroDivisionError):
            return 1.0

    def turned(self, longitudes: Sequence[float]) -> list[float]:
        """Longitudes by whole turns as close to the middle of this grid, which is in degrees, as can be."""
        left, _, right, _ = self.bounds
        return [x + 360 * whole_turns((left + right) / 2 - x) for x in longitudes]

    def turned_towards(self, other: Grid) -> Grid:
        """This grid by whole turns as close to another one as can be, if both are in degrees."""
        if not (self.crs and other.crs and self.crs.is_geographic and other.crs.is_geographic):
            return self
        (left, _, right, _), (own_left, _, own_right, _) = other.bounds, self.bounds
        turns = whole_turns((left + right - own_left - own_right) / 2)
        return replace(self, transform=Affine.translation(360 * turns, 0) * self.transform) if turns else self

    def place_of(self, tile: Grid) -> Window | None:
        """The pixels of this grid, beyond its ends too, that another one lies on; None for one that lies on none to a
        hundredth."""
        tile = tile.called_as(self)
        relative = ~self.transform * tile.transform
        col, row, size = round(relative.c), round(relative.f), max(tile.width, tile.height)
        turned = max(abs(relative.a - 1), abs(relative.e - 1), abs(relative.b), abs(relative.d)) * size
        if tile.crs != self.crs or max(turned, abs(relative.c - col), abs(relative.f - row)) > SAME_PLACE:
            return None
        return Window.at(row, col, (tile.height, tile.width))

    @property
    def is_like_degrees(self) -> bool:
        """Whether its coordinates may be degrees, although its CRS counts in metres or feet."""
        left, bottom, right, top = self.bounds
        near = max(abs(left), abs(right)) <= 360 and max(abs(bottom), abs(top)) <= 90
        return near and self.pixel < 0.01 and bool(self.crs and self.crs.is_projected)

    @property
    def is_beyond_degrees(self) -> bool:
        """Whether its coordinates are none of degrees, although its CRS counts in them."""
        far = max(map(abs, self.bounds)) > 1000 and not self.transform.is_identity  # RPCs locate such a one
        return far and bool(self.crs and self.crs.is_geographic)

    @property
    def pixel(self) -> float:
        """Side of a pixel of the same area in units of the CRS."""
        return abs(self.transform.determinant) ** 0.5

    def describe(self) -> str:
        """Extent for a message."""
        left, bottom, right, top = self.bounds
        return f"{left:.10g} {bottom:.10g} {right:.10g} {top:.10g} ({crs_name(self.crs) or 'no CRS'})"

    def window(self, window: Window) -> Grid:
        """The part of the grid inside a pixel window."""
        return Grid(self.crs, self.transform * Affine.translation(window.left, window.top), *window.shape)

    def coarser(self, phase: Phase, window: Window) -> Grid:
        """A window of the grid that lies on this one as an MS grid of that phase lies on its PAN grid."""
        ratio, offset = phase.ratio, phase.offset
        transform = self.transform * Affine.translation(offset[1], offset[0]) * Affine.scale(ratio[1], ratio[0])
        return Grid(self.crs, transform, window.bottom, window.right).window(window)

    def blocks(self, size: int, shape: tuple[int, int]) -> Grid:
        """The grid whose pixels are blocks of size x size pixels from this one's corner."""
        return Grid(self.crs, self.transform * Affine.scale(size), *shape)

    def pixels_of(self, bounds: Box) -> Window:
        """The pixels whose centres lie inside CRS bounds (left, bottom, right, top), not clipped.

        Degrees are taken by whole turns as close to this grid as can be; where right is less than left by half a
        turn or more the bounds lie across 180 degrees; a whole turn holds all of it. Raises InputError for bounds whose
        sides are swapped, unless those of the grid are, which is mirrored then, and for those that hold either end of
        the grid and not its middle.
        """
        left, bottom, right, top = bounds
        own_left, own_bottom, own_right, own_top = self.bounds
        if self.crs is not None and self.crs.is_geographic:
            right += 360 if 180 <= left - right < 360 and own_left <= own_right else 0
            left, right = _around(left, right, min(own_left, own_right), max(own_left, own_right))
        sides = (
            ("LEFT", left, "RIGHT", right, own_left <= own_right),
            ("BOTTOM", bottom, "TOP", top, own_bottom <= own_top),
        )
        for low, first, high, last, usual in sides:
            if last < first and usual:
                raise InputError(
                    f"--bbox takes LEFT,BOTTOM,RIGHT,TOP: its {low} {first:.10g} lies beyond its {high} {last:.10g}"
                )
        corners = [~self.transform * xy for xy in ((left, top), (left, bottom), (right, top), (right, bottom))]
        cols, rows = zip(*corners, strict=True)
        return Window.of(_centres(min(rows), max(rows)), _centres(min(cols), max(cols)))

    def phase_of(self, ms: Grid) -> Phase | None:
        """Exact phase of an MS grid on this PAN grid; None if it is rotated or mirrored against it."""
        relative = ~self.transform * ms.transform
        span = max(ms.height, ms.width)
        if relative.a <= 0 or relative.e <= 0 or max(abs(relative.b), abs(relative.d)) * span > 1e-3:
            return None
        return Phase.of(
            (snapped(relative.e, ms.height), snapped(relative.a, ms.width)), (snapped(relative.f), snapped(relative.c))
        )

    def overlap(self, phase: Phase, ms: Grid) -> Window:
        """The pixels whose centres lie in the MS footprint; empty (stop <= start) without an overlap."""
        rows = _centres(phase.offset[0], phase.offset[0] + phase.ratio[0] * ms.height)
        cols = _centres(phase.offset[1], phase.offset[1] + phase.ratio[1] * ms.width)
        return Window.of(rows, cols) & self.whole


def _around(left: float, right: float, own_left: float, own_right: float) -> tuple[float, float]:
    """Longitudes of a box by whole turns as close to another one as can be. Raises InputError if it meets that from two
    sides."""
    if right - left >= 360:
        return min(left, own_left), max(right, own_right)
    turn = 360 * whole_turns((own_left + own_right - left - right) / 2)
    left, right = left + turn, right + turn
    other = -360 if left + right > own_left + own_right else 360
    parts = [min(right + turned, own_right) - max(left + turned, own_left) for turned in (0, other)]
    if min(parts) > 1e-9:  # less is rounding
        raise InputError(
            f"--bbox reaches around the globe and meets the scene, from {own_left:.10g} to {own_right:.10g}, at both "
            "of its ends: give the box of one part"
        )
    return left, right


def _centres(first: float, last: float) -> Span:
    """Pixels whose centres lie between two edges."""
    return math.ceil(first - 0.5 - 1e-6), math.floor(last - 0.5 - 1e-6) + 1


def snapped(value: float, length: int = 1) -> float:
    """Geotransforms carry rounding noise: a value within 1e-3 pixel of a simple one over the whole length is that."""
    for denominator in (1, 2, 3, 4, 5, 8, 10):
        simple = round(value * denominator) / denominator
        if abs(simple - value) * length < 1e-3:
            return simple
    return value
