"""Windows, spans and phases: where pixels lie; pure arithmetic, no files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def spans_of(window: Window) -> tuple[Span, Span]:
    return (window[0], window[1]), (window[2], window[3])


def joined(spans: Sequence[Span]) -> Window:
    return (*spans[0], *spans[1])


def part_of(outer: Window, inner: Window) -> tuple[slice, slice]:
    """Index of `inner` in an array that covers `outer`."""
    return slice(inner[0] - outer[0], inner[1] - outer[0]), slice(inner[2] - outer[2], inner[3] - outer[2])


def covered(
    axes: tuple[Axis, Axis], ms: Window, pan: Window, valid: np.ndarray, *, reach: int = 0, slack: int = 0
) -> np.ndarray:
    """MS pixels of a window with none but valid PAN pixels under them, or within `reach` of their centres.

    `valid` (rows, cols) is that of the PAN pixels `pan`; an MS pixel may stick out of them by `slack` PAN pixels.
    """
    counts = None if valid.all() else np.pad((~valid).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    bounds = []
    for axis, span, (first, last) in zip(axes, spans_of(ms), spans_of(pan), strict=True):
        centre, half = axis.ms_centres(span), max(reach + 1e-6, axis.ratio / 2 + 0.5 - 1e-6)
        lower, upper = np.ceil(centre - half).astype(int) - first, np.floor(centre + half).astype(int) + 1 - first
        inside = (lower >= -slack) & (upper <= last - first + slack)
        bounds.append((lower.clip(0, last - first), upper.clip(0, last - first), inside))
    (r0, r1, rows), (c0, c1, cols) = bounds
    inside = rows[:, None] & cols[None, :]
    if counts is None:
        return inside
    invalid = counts[np.ix_(r1, c1)] - counts[np.ix_(r0, c1)] - counts[np.ix_(r1, c0)] + counts[np.ix_(r0, c0)]
    return (invalid == 0) & inside


Window = tuple[int, int, int, int]
"""First row, one past the last row, first column, one past the last column."""


@dataclass(frozen=True)
class Phase:
    """Where the MS grid lies on the PAN grid, per axis (rows, columns).

    `ratio`: MS pixel size in PAN pixels; `offset`: MS origin (edge) in PAN pixels from the PAN origin.
    """

    ratio: tuple[float, float]
    offset: tuple[float, float]


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


Span = tuple[int, int]
"""First and one-past-last pixel index of a range on one axis."""


@dataclass(frozen=True)
class Axis:
    """Phase of the MS grid on the PAN grid along one image axis.

    `ratio`: MS pixel size in PAN pixels. `offset`: position of the MS grid's origin (its edge, not a centre) in PAN
    pixels from the PAN grid's origin.
    """

    ratio: float
    offset: float = 0.0

    def ms_centres(self, span: Span) -> np.ndarray:
        """Centres of MS pixels in PAN pixel indices (0 is the centre of the first PAN pixel)."""
        return self.offset + self.ratio * (np.arange(*span) + 0.5) - 0.5

    def pan_centres(self, span: Span) -> np.ndarray:
        """Centres of PAN pixels in MS pixel indices."""
        return (np.arange(*span) + 0.5 - self.offset) / self.ratio - 0.5

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

    def moved(self, offset: float) -> Axis:
        """The grid that lies so many PAN pixels further."""
        return Axis(self.ratio, self.offset + offset)

    def shifted(self, pan_origin: int, ms_origin: int) -> Axis:
        """The same phase seen from windows that start at the given pixels."""
        return Axis(self.ratio, self.offset + self.ratio * ms_origin - pan_origin)
