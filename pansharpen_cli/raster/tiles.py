"""Tiles of a scene: which pixels to fuse together and how to put the results together without a trace."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .geometry import Span, Window

OUTPUT_BLOCK = 512
"""Side of the blocks of an output, in PAN pixels."""


@dataclass(frozen=True)
class Tile:
    """`core` windows partition the scene; `outer` adds the overlap that is blended (equal to `core` without one).
    `overlap`: half the width of the ramp across a seam; `outer` has less of it where the scene ends."""

    core: Window
    outer: Window
    overlap: int = 0


def plan_tiles(window: Window, size: int, overlap: int = 0) -> list[Tile]:
    """Tiles that cover a window, row by row; every pixel is in exactly one core.

    Cores start at the window's corner and are `size` pixels wide but for the last of a row or column. `overlap` pixels
    are added on every side, within the window. Raises ValueError unless 0 <= 2 * overlap <= size.
    """
    if size < 1 or overlap < 0 or 2 * overlap > size:
        raise ValueError(f"tile size {size} does not fit an overlap of {overlap}")
    corners = ((row, col) for row in range(*window.rows, size) for col in range(*window.cols, size))
    cores = [Window.at(row, col, (size, size)) & window for row, col in corners]
    return [Tile(core, core.widened(overlap) & window, overlap) for core in cores]


def blend_weights(tile: Tile) -> np.ndarray:
    """Weights (rows, cols) of a tile's outer window; over all tiles of a plan they sum to one at every pixel."""
    rows = _ramp(tile.core.rows, tile.outer.rows, tile.overlap)
    return np.outer(rows, _ramp(tile.core.cols, tile.outer.cols, tile.overlap))


def _ramp(core: Span, outer: Span, overlap: int) -> np.ndarray:
    """Linear ramps, one half on the seam, on each side that has an overlap."""
    position = np.arange(*outer) + 0.5
    weight = np.ones(len(position))
    if outer[0] < core[0]:
        weight = np.minimum(weight, 0.5 + (position - core[0]) / (2 * overlap))
    if outer[1] > core[1]:
        weight = np.minimum(weight, 0.5 + (core[1] - position) / (2 * overlap))
    return weight


class Stitcher:
    """Adds up overlapping tiles given in the order of the plan and hands out what is complete.

    Without overlap a tile is handed out as it is. With it, the rows that no later tile touches are handed out when a
    row of tiles is complete, so that the buffer holds one row of tiles.
    """

    def __init__(self, tiles: list[Tile]) -> None:
        self._row_end = {t.core.top: t.core for t in tiles}
        self._left = min(t.core.left for t in tiles)
        self._right = max(t.core.right for t in tiles)
        self._next_row = {}
        starts = sorted(self._row_end)
        for here, after in zip(starts, [*starts[1:], None], strict=True):
            following = None if after is None else min(t.outer.top for t in tiles if t.core.top == after)
            self._next_row[here] = following
        self._buffer: np.ndarray | None = None
        self._top = 0

    def add(self, tile: Tile, fused: np.ndarray) -> Iterator[tuple[Window, np.ndarray]]:
        """Take a tile's outer window (bands, rows, cols); yield finished windows with their pixels."""
        following = self._next_row[tile.core.top]
        if tile.core == tile.outer and self._buffer is None and following in (None, tile.core.bottom):
            yield tile.core, fused
            return
        if self._buffer is None:
            self._top = tile.outer.top
            self._buffer = np.zeros((len(fused), 0, self._right - self._left), np.float32)
        missing = tile.outer.bottom - self._top - self._buffer.shape[1]
        if missing > 0:
            self._buffer = np.pad(self._buffer, ((0, 0), (0, missing), (0, 0)))
        rows = slice(tile.outer.top - self._top, tile.outer.bottom - self._top)
        cols = slice(tile.outer.left - self._left, tile.outer.right - self._left)
        self._buffer[:, rows, cols] += fused * blend_weights(tile).astype(np.float32)
        if tile.core == self._row_end[tile.core.top]:
            done = self._buffer.shape[1] if following is None else following - self._top
            yield Window(self._top, self._top + done, self._left, self._right), self._buffer[:, :done]
            self._buffer = self._buffer[:, done:]
            self._top += done
