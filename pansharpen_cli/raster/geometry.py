"""Windows and phases: where pixels lie; pure arithmetic, no files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

Span = tuple[int, int]
"""First and one-past-last pixel index of a range on one axis."""

Offset = tuple[float, float]
"""By how much a grid lies off another place: rows and columns in PAN pixels."""


class Box(NamedTuple):
    """A rectangle of a CRS; in degrees its right side may lie beyond 180."""

    left: float
    bottom: float
    right: float
    top: float

    @property
    def sides(self) -> tuple[float, float]:
        """Width and height, below 0 for what two boxes do not have in common."""
        return self.right - self.left, self.top - self.bottom

    @property
    def area(self) -> float:
        width, height = self.sides
        return max(0.0, width) * max(0.0, height)

    def __and__(self, other: Box) -> Box:
        """What both have in common; its area is 0 where that is nothing."""
        low, high = map(max, self[:2], other[:2]), map(min, self[2:], other[2:])
        return Box(*low, *high)

    def turned(self, towards: Box) -> Box:
        """The box by whole turns of the globe as close to another one as can be."""
        turn = 360 * whole_turns((towards.left + towards.right - self.left - self.right) / 2)
        return self._replace(left=self.left + turn, right=self.right + turn)


def whole_turns(degrees: float) -> int:
    """How many whole turns of the globe degrees are, about."""
    return round(degrees / 360) if math.isfinite(degrees) else 0


class Window(NamedTuple):
    """A rectangle of pixels: first row, one past the last row, first column, one past the last column."""

    top: int
    bottom: int
    left: int
    right: int

    def __str__(self) -> str:
        return f"rows {self.top}-{self.bottom}, columns {self.left}-{self.right}"

    @classmethod
    def of(cls, rows: Span, cols: Span) -> Window:
        return cls(*rows, *cols)

    @classmethod
    def at(cls, row: int, col: int, shape: tuple[int, int]) -> Window:
        """The window of that shape whose first pixel is there."""
        return cls(row, row + shape[0], col, col + shape[1])

    @classmethod
    def holding(cls, rows: np.ndarray, cols: np.ndarray) -> Window:
        """From the first to the last of increasing row and column indices."""
        return cls(int(rows[0]), int(rows[-1]) + 1, int(cols[0]), int(cols[-1]) + 1)

    @property
    def rows(self) -> Span:
        return self.top, self.bottom

    @property
    def cols(self) -> Span:
        return self.left, self.right

    @property
    def spans(self) -> tuple[Span, Span]:
        return self.rows, self.cols

    @property
    def corner(self) -> tuple[int, int]:
        """First row and first column."""
        return self.top, self.left

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and of columns; below 1 where it is empty."""
        return self.bottom - self.top, self.right - self.left

    @property
    def area(self) -> int:
        """Number of pixels; 0 where it is empty."""
        return max(0, self.bottom - self.top) * max(0, self.right - self.left)

    @property
    def is_empty(self) -> bool:
        return self.area == 0

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of this window in an array (..., rows, cols) of the whole raster."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def __and__(self, other: Window) -> Window:
        """The common part, which may be empty."""
        return Window(
            max(self.top, other.top), min(self.bottom, other.bottom),
            max(self.left, other.left), min(self.right, other.right),
        )  # fmt: skip

    def __or__(self, other: Window) -> Window:
        """The smallest window that holds both."""
        return Window(
            min(self.top, other.top), max(self.bottom, other.bottom),
            min(self.left, other.left), max(self.right, other.right),
        )  # fmt: skip

    def widened(self, margin: int) -> Window:
        """With `margin` more pixels on every side."""
        return Window(self.top - margin, self.bottom + margin, self.left - margin, self.right + margin)

    def aligned(self, multiple: int, corner: tuple[int, int]) -> Window:
        """The least window around this one whose sides lie multiples of so many pixels from a corner."""
        sides = (
            ((a - at) // multiple, -(-(b - at) // multiple), at) for (a, b), at in zip(self.spans, corner, strict=True)
        )
        return Window.of(*((first * multiple + at, last * multiple + at) for first, last, at in sides))

    def moved(self, rows: int, cols: int) -> Window:
        """The window so many pixels further down and to the right."""
        return Window(self.top + rows, self.bottom + rows, self.left + cols, self.right + cols)

    def seen_from(self, origin: Window) -> Window:
        """This window, counted from the first pixel of another one."""
        return self.moved(-origin.top, -origin.left)

    def within(self, outer: Window) -> tuple[slice, slice]:
        """Index of this window in an array (..., rows, cols) that covers `outer`."""
        return self.seen_from(outer).slices


@dataclass(frozen=True)
class Axis:
    """Phase of the MS grid on the PAN grid along one image axis. `ratio`: MS pixel size in PAN pixels. `offset`:
    position of the MS grid's origin (its edge, not a centre) in PAN pixels from the PAN grid's origin."""

    ratio: float
    offset: float = 0.0

    def ms_centres(self, span: Span) -> np.ndarray:
        """Centres of MS pixels in PAN pixel indices (0 is the centre of the first PAN pixel)."""
        return self.offset + self.ratio * (np.arange(*span) + 0.5) - 0.5

    def pan_centres(self, span: Span) -> np.ndarray:
        """Centres of PAN pixels in MS pixel indices."""
        return (np.arange(*span) + 0.5 - self.offset) / self.ratio - 0.5

    def nearest(self, pan: Span) -> np.ndarray:
        """The MS pixels in which the centres of PAN pixels lie."""
        return np.floor((np.arange(*pan) + 0.5 - self.offset) / self.ratio + 1e-9).astype(int)

    def ms_span(self, pan: Span, reach: float = 0.0) -> Span:
        """MS pixels that touch the PAN span, widened by `reach` MS pixels on each side."""
        first = np.floor((pan[0] - self.offset) / self.ratio - reach + 1e-6)
        last = np.ceil((pan[1] - self.offset) / self.ratio + reach - 1e-6)
        return int(first), int(last)

    def pan_span(self, ms: Span, reach: float = 0.0) -> Span:
        """PAN pixels that touch the MS span, widened by `reach` PAN pixels on each side."""
        first = np.floor(self.offset + self.ratio * ms[0] - reach + 1e-6)
        last = np.ceil(self.offset + self.ratio * ms[1] + reach - 1e-6)
        return int(first), int(last)

    def centred(self, pan: Span) -> Span:
        """MS pixels whose centres lie in a PAN span, so that spans that follow each other share none."""
        first, last = (int(np.ceil((end - self.offset) / self.ratio - 0.5 - 1e-9)) for end in pan)
        return first, last

    def contained(self, pan: Span) -> Span:
        """MS pixels that lie in a PAN span with all of their area, to half a PAN pixel."""
        first = int(np.ceil((pan[0] - self.offset - 0.5) / self.ratio - 1e-6))
        return first, int(np.floor((pan[1] - self.offset + 0.5) / self.ratio + 1e-6))

    def shifted(self, pan_origin: int, ms_origin: int) -> Axis:
        """This axis counted from windows that start at the given pixels."""
        return Axis(self.ratio, self.offset + self.ratio * ms_origin - pan_origin)


class Phase(NamedTuple):
    """Where the MS grid lies on the PAN grid: along rows and along columns."""

    rows: Axis
    cols: Axis

    @classmethod
    def of(cls, ratio: tuple[float, float], offset: Offset = (0.0, 0.0)) -> Phase:
        return cls(Axis(ratio[0], offset[0]), Axis(ratio[1], offset[1]))

    @property
    def ratio(self) -> tuple[float, float]:
        """MS pixel size in PAN pixels."""
        return self.rows.ratio, self.cols.ratio

    @property
    def offset(self) -> Offset:
        """The MS grid's origin (its edge) in PAN pixels from the PAN grid's."""
        return self.rows.offset, self.cols.offset

    @property
    def mean_ratio(self) -> float:
        return (self.rows.ratio * self.cols.ratio) ** 0.5

    def moved(self, offset: Offset) -> Phase:
        """The phase of a grid that lies `offset` PAN pixels further."""
        return Phase.of(self.ratio, (self.rows.offset + offset[0], self.cols.offset + offset[1]))

    def seen_from(self, pan: Window, ms: Window) -> Phase:
        """This phase, counted from the first pixels of a PAN and an MS window."""
        return Phase(self.rows.shifted(pan.top, ms.top), self.cols.shifted(pan.left, ms.left))

    def ms_window(self, pan: Window, reach: float = 0.0, far: float = 0.0) -> Window:
        """MS pixels that touch a PAN window, and `reach` MS pixels and `far` PAN pixels more on each side."""
        rows, cols = (a.ms_span(s, reach + far / a.ratio) for a, s in zip(self, pan.spans, strict=True))
        return Window.of(rows, cols)

    def pan_window(self, ms: Window, reach: float = 0.0) -> Window:
        """PAN pixels that touch an MS window, and `reach` PAN pixels more on each side."""
        return Window.of(self.rows.pan_span(ms.rows, reach), self.cols.pan_span(ms.cols, reach))

    def centred(self, pan: Window) -> Window:
        """MS pixels whose centres lie in a PAN window, so that windows that tile a scene share none."""
        return Window.of(self.rows.centred(pan.rows), self.cols.centred(pan.cols))

    def contained(self, pan: Window) -> Window:
        """MS pixels that lie in a PAN window with all of their area, to half a PAN pixel."""
        return Window.of(self.rows.contained(pan.rows), self.cols.contained(pan.cols))

    def nearest(self, pan: Window) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the MS pixels in which the centres of a window's PAN pixels lie."""
        return self.rows.nearest(pan.rows), self.cols.nearest(pan.cols)

    def covered(self, ms: Window, pan: Window, valid: np.ndarray, *, reach: int = 0, slack: int = 0) -> np.ndarray:
        """MS pixels of a window with none but valid PAN pixels under them, or within `reach` of their centres. `valid`
        (rows, cols) is that of the PAN pixels `pan`; an MS pixel may stick out of them by `slack` PAN pixels."""
        ends = []
        for axis, span, (first, last) in zip(self, ms.spans, pan.spans, strict=True):
            centre, half = axis.ms_centres(span), max(reach + 1e-6, axis.ratio / 2 + 0.5 - 1e-6)
            lower, upper = np.ceil(centre - half).astype(int) - first, np.floor(centre + half).astype(int) + 1 - first
            inside = (lower >= -slack) & (upper <= last - first + slack)
            ends.append(((lower.clip(0, last - first), upper.clip(0, last - first)), inside))
        (rows, rows_in), (cols, cols_in) = ends
        inside = rows_in[:, None] & cols_in[None, :]
        return inside if valid.all() else (sums_between(~valid, rows, cols) == 0) & inside


def _summed(values: np.ndarray) -> np.ndarray:
    """Sums of (rows, cols) over all above and to the left, exclusive; booleans are counted."""
    return np.pad(values, ((1, 0), (1, 0))).cumsum(0).cumsum(1)


def sums_between(values: np.ndarray, rows: tuple[np.ndarray, ...], cols: tuple[np.ndarray, ...]) -> np.ndarray:
    """Sums (n, m) of (rows, cols) over boxes from the first to one past the last of `rows` (n,) and `cols` (m,)."""
    sums, (top, bottom), (left, right) = _summed(values), rows, cols
    return sums[np.ix_(bottom, right)] - sums[np.ix_(top, right)] - sums[np.ix_(bottom, left)] + sums[np.ix_(top, left)]


def box_sums(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Sums of (rows, cols) over all boxes of that size, by their first pixel: (rows - height + 1, cols - width + 1)."""
    sums = _summed(values)
    upper, lower = sums[:-height], sums[height:]
    return lower[:, width:] - upper[:, width:] - lower[:, :-width] + upper[:, :-width]
