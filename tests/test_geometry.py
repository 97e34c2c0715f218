"""Windows, phases and sums over boxes: pure arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pansharpen_cli.raster.geometry import Axis, Phase, Window, box_sums, sums_between

PHASE = Phase.of((4.0, 2.76), (0.5, -3.2))


def windows() -> st.SearchStrategy[Window]:
    side, first = st.integers(1, 40), st.integers(-30, 30)
    return st.builds(lambda r, c, h, w: Window.at(r, c, (h, w)), first, first, side, side)


def mask(window: Window) -> np.ndarray:
    """The pixels of a window in a raster that begins 100 pixels before the first one."""
    seen = np.zeros((300, 300), bool)
    seen[window.moved(100, 100).slices] = True
    return seen


@given(windows(), windows())
def test_windows_are_sets_of_pixels(a: Window, b: Window) -> None:
    common = a & b
    assert common.area == (mask(a) & mask(b)).sum() and common.is_empty == (common.area == 0)
    assert (mask(a | b) >= (mask(a) | mask(b))).all() and (a | a) == a
    rows, cols = np.nonzero(mask(a) | mask(b))
    assert a | b == (rows.min() - 100, rows.max() - 99, cols.min() - 100, cols.max() - 99)


@given(windows(), st.integers(0, 9))
def test_a_window_is_found_in_what_is_read_around_it(window: Window, margin: int) -> None:
    wide = window.widened(margin)
    assert wide.shape == (window.shape[0] + 2 * margin, window.shape[1] + 2 * margin)
    raster = np.arange(300 * 300).reshape(300, 300)
    around = raster[wide.moved(100, 100).slices]
    np.testing.assert_array_equal(around[window.within(wide)], raster[window.moved(100, 100).slices])
    assert window.seen_from(wide).corner == (margin, margin) and window.area == window.shape[0] * window.shape[1]


def test_a_window_does_not_change_and_says_where_it_is() -> None:
    window = Window.of((3, 7), (10, 12))
    with pytest.raises(AttributeError):
        window.top = 4
    assert str(window) == "rows 3-7, columns 10-12" and window.spans == ((3, 7), (10, 12))


@given(windows())
def test_the_phase_of_parts_is_that_of_the_whole(pan: Window) -> None:
    """Places in PAN pixels stay the same, whatever windows they are counted from."""
    ms = PHASE.ms_window(pan, 2)
    part = PHASE.seen_from(pan, ms)
    for own, whole, mine, first in zip(part, PHASE, ms.spans, pan.corner, strict=True):
        np.testing.assert_allclose(own.ms_centres((0, mine[1] - mine[0])), whole.ms_centres(mine) - first, atol=1e-9)


@given(windows())
def test_ms_pixels_are_nearest_where_they_are_centred(pan: Window) -> None:
    centred, contained, touched = PHASE.centred(pan), PHASE.contained(pan), PHASE.ms_window(pan)
    assert (touched | centred | contained) == touched or centred.is_empty or contained.is_empty
    for axis, index, span in zip(PHASE, PHASE.nearest(pan), pan.spans, strict=True):
        own = axis.ms_centres((int(index[0]), int(index[-1]) + 1))[index - index[0]]
        assert (np.abs(own - np.arange(*span)) <= axis.ratio / 2 + 1e-9).all()


def test_a_moved_phase_has_its_grid_elsewhere() -> None:
    assert PHASE.moved((1.0, -0.5)) == Phase(Axis(4.0, 1.5), Axis(2.76, -3.7))
    assert PHASE.ratio == (4.0, 2.76) and PHASE.mean_ratio == pytest.approx(np.sqrt(4 * 2.76))


@pytest.mark.parametrize("values", [np.random.default_rng(0).random((30, 41)), np.arange(1230).reshape(30, 41) % 7 < 3])
def test_sums_over_boxes_are_those_of_the_pixels(values: np.ndarray) -> None:
    boxes = np.lib.stride_tricks.sliding_window_view(values, (5, 9)).sum((2, 3))
    np.testing.assert_allclose(box_sums(values, 5, 9), boxes, atol=1e-9)
    assert box_sums(values, 31, 5).size == 0
    rows, cols = (np.array([0, 3, 7]), np.array([2, 3, 30])), (np.array([4, 40]), np.array([9, 41]))
    expected = [[values[a:b, c:d].sum() for c, d in zip(*cols, strict=True)] for a, b in zip(*rows, strict=True)]
    np.testing.assert_allclose(sums_between(values, rows, cols), expected, atol=1e-9)


def test_ms_pixels_are_covered_where_all_below_is_valid() -> None:
    """Naively: each PAN pixel that the square around an MS centre touches."""
    rng = np.random.default_rng(1)
    pan, valid = Window(10, 90, -5, 70), rng.random((80, 75)) > 0.02
    ms = PHASE.ms_window(pan, 2)
    for reach in (0, 6):
        found = PHASE.covered(ms, pan, valid, reach=reach)
        for i, row in enumerate(PHASE.rows.ms_centres(ms.rows)):
            for j, col in enumerate(PHASE.cols.ms_centres(ms.cols)):
                half = [max(reach + 1e-6, a.ratio / 2 + 0.5 - 1e-6) for a in PHASE]
                rows = [r for r in range(-40, 120) if abs(r - row) <= half[0]]
                cols = [c for c in range(-40, 120) if abs(c - col) <= half[1]]
                under = [valid[r - 10, c + 5] if 10 <= r < 90 and -5 <= c < 70 else False for r in rows for c in cols]
                assert found[i, j] == all(under)
