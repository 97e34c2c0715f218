"""Tile plans, blend weights and the stitcher, for any window, tile size and overlap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pansharpen_cli.raster.geometry import Window
from pansharpen_cli.raster.tiles import Stitcher, Tile, blend_weights, plan_tiles


@st.composite
def plans(draw, overlapping: bool = True) -> tuple[Window, list[Tile], int]:
    """A window, its plan and the overlap."""
    r, c = draw(st.integers(-50, 5000)), draw(st.integers(-50, 5000))
    rows, cols = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    size = draw(st.integers(1, 100))
    overlap = draw(st.integers(0, size // 2)) if overlapping else 0
    window = Window.at(r, c, (rows, cols))
    return window, plan_tiles(window, size, overlap), overlap


def part(outer: Window, inner: Window) -> tuple[slice, slice]:
    assert outer[0] <= inner[0] <= inner[1] <= outer[1]
    assert outer[2] <= inner[2] <= inner[3] <= outer[3]
    return inner.within(outer)


def stitched(window: Window, tiles: list[Tile], image: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[Window]]:
    """What comes out of the stitcher for tiles cut from an image: pixels, how often each came, and the windows."""
    stitcher = Stitcher(tiles)
    out, times, windows = np.zeros_like(image), np.zeros(window.shape, int), []
    for tile in tiles:
        for done, pixels in stitcher.add(tile, image[(slice(None), *part(window, tile.outer))]):
            assert pixels.shape == (len(image), *done.shape)
            out[(slice(None), *part(window, done))] = pixels
            times[part(window, done)] += 1
            windows.append(done)
    return out, times, windows


@settings(max_examples=50)
@given(plans())
def test_every_pixel_is_in_exactly_one_core(plan):
    window, tiles, overlap = plan
    times = np.zeros(window.shape, int)
    for tile in tiles:
        times[part(window, tile.core)] += 1
        part(tile.outer, tile.core)  # outer holds core
        part(window, tile.outer)  # and lies in the window
        grown = [a - b for a, b in zip(tile.outer, tile.core, strict=True)]
        assert max(map(abs, grown)) <= overlap
    assert (times == 1).all()


@settings(max_examples=50)
@given(plans())
def test_blend_weights_sum_to_one(plan):
    window, tiles, overlap = plan
    total = np.zeros(window.shape)
    for tile in tiles:
        weights = blend_weights(tile)
        assert weights.shape == tile.outer.shape
        assert (weights > 0).all()
        total[part(window, tile.outer)] += weights
    np.testing.assert_allclose(total, 1.0, rtol=0, atol=1e-12)


@settings(max_examples=50)
@given(plans())
def test_blend_weights_have_no_steps(plan):
    """Along a seam with an overlap, a tile's weight changes by at most 1 / (2 overlap) per pixel and fades to zero."""
    _, tiles, overlap = plan
    for tile in tiles:
        weights, step = blend_weights(tile), 1 / (2 * overlap) if overlap else 0.0
        for axis, (before, after) in enumerate(((0, 1), (2, 3))):
            assert abs(np.diff(weights, axis=axis)).max(initial=0) <= step + 1e-12
            if tile.outer[before] < tile.core[before]:
                assert weights.take(0, axis).max() <= step
            if tile.outer[after] == tile.core[after] + overlap != tile.core[after]:
                assert weights.take(-1, axis).max() <= step


@settings(max_examples=50)
@given(plans(), st.integers(1, 3))
def test_the_stitcher_gives_the_image_back(plan, bands):
    window, tiles, overlap = plan
    rng = np.random.default_rng(0)
    image = rng.uniform(1, 2047, (bands, *window.shape)).astype(np.float32)
    out, times, _ = stitched(window, tiles, image)
    assert (times == 1).all()
    if overlap:
        np.testing.assert_allclose(out, image, rtol=1e-6)
    else:
        np.testing.assert_array_equal(out, image)


@settings(max_examples=50)
@given(plans())
def test_finished_windows_come_in_order(plan):
    """Row by row, from the top left corner, each row of windows below the one before."""
    window, tiles, _ = plan
    windows = stitched(window, tiles, np.zeros((1, *window.shape), np.float32))[2]
    assert windows[0][0] == window[0]
    assert windows[0][2] == window[2]
    assert windows[-1][1] == window[1]
    assert windows[-1][3] == window[3]
    for before, after in zip(windows, windows[1:], strict=False):
        beside = after[:2] == before[:2] and after[2] == before[3]
        below = after[0] == before[1] and after[2] == window[2] and before[3] == window[3]
        assert beside or below


@settings(max_examples=50)
@given(plans(overlapping=False))
def test_without_overlap_tiles_pass_through_at_once(plan):
    _, tiles, _ = plan
    stitcher = Stitcher(tiles)
    for tile in tiles:
        pixels = np.ones((2, *tile.core.shape), np.float32)
        ((done, out),) = stitcher.add(tile, pixels)
        assert done == tile.core
        assert out is pixels


def test_what_was_handed_out_does_not_change_later():
    """A writer may still hold the pixels while the next tiles are added."""
    window = Window(0, 60, 0, 50)
    tiles = plan_tiles(window, 20, 5)
    stitcher, held = Stitcher(tiles), []
    for k, tile in enumerate(tiles):
        for _, pixels in stitcher.add(tile, np.full((1, *tile.outer.shape), k + 1, np.float32)):
            held.append((pixels, pixels.copy()))
    assert len(held) == 3
    for pixels, copy in held:
        np.testing.assert_array_equal(pixels, copy)


def test_the_stitcher_holds_one_row_of_tiles():
    window = Window(0, 1000, 0, 64)
    tiles = plan_tiles(window, 32, 8)
    stitcher, rows = Stitcher(tiles), []
    for tile in tiles:
        rows += [done.shape[0] for done, _ in stitcher.add(tile, np.zeros((1, *tile.outer.shape), np.float32))]
    assert max(rows) <= 32 + 2 * 8
    assert len(rows) == 32


def test_cores_start_at_the_corner_in_whole_tiles():
    tiles = plan_tiles(Window(10, 1300, 20, 1100), 512)
    assert [t.core for t in tiles[:3]] == [(10, 522, 20, 532), (10, 522, 532, 1044), (10, 522, 1044, 1100)]
    assert all(t.core == t.outer for t in tiles)
    assert tiles[-1].core == (1034, 1300, 1044, 1100)


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (-4, 0), (16, -1), (16, 9), (1, 1)])
def test_impossible_plans_are_refused(size, overlap):
    with pytest.raises(ValueError, match="overlap"):
        plan_tiles(Window(0, 10, 0, 10), size, overlap)
