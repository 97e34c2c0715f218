"""Scores a fused raster on the PAN grid at full resolution, tile by tile, whoever made it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from . import metrics, physics
from .errors import InputError
from .fuse import Progress, Reach, axes_of, part_of, quiet, spans_of
from .grid import Grid, Window, intersect, is_empty
from .scene import Scene, Source, filled, open_raster
from .tiles import plan_tiles

TILE = 512

Reader = Callable[[Window], tuple[np.ndarray, np.ndarray]]
"""Reads a window in PAN pixels: values (bands, rows, cols) and valid (rows, cols); outside is invalid."""


def full_resolution(scene: Scene, read: Reader, window: Window | None = None, progress: Progress = quiet) -> dict:
    """HQNR, D_lambda_K, D_s and PAN detail correlation of a fused image over a window of the scene.

    The indices are the reference toolbox's with its 32 x 32 blocks, the MS expanded at the scene's true phase; blocks
    with an invalid pixel are left out. Raises InputError if no block is valid.
    """
    window = window or scene.window
    axes = axes_of(scene)
    reach = Reach(axes)
    ratio = (scene.phase.ratio[0] * scene.phase.ratio[1]) ** 0.5
    accumulator = metrics.FullResolution(scale=_index_scale(scene))
    tiles = plan_tiles(window, TILE)
    for i, tile in enumerate(tiles):
        progress("scoring", i, len(tiles))
        core = tile.core
        pan_window, ms_window = reach.windows(core)
        data = scene.read(core, pan_window, ms_window)
        if data is None:
            continue
        margin = physics.MTF_REACH
        around = (core[0] - margin, core[1] + margin, core[2] - margin, core[3] + margin)
        wide, wide_valid = filled(read, around)
        inner = part_of(around, core)
        valid = data.valid & wide_valid[inner]
        if not valid.any():
            continue
        up = physics.upsampler(axes, spans_of(core), spans_of(ms_window))
        reduce = physics.cubic_reducer(axes, spans_of(ms_window), spans_of(pan_window))
        pan = torch.from_numpy(data.pan).double()[None]
        fused = torch.from_numpy(wide)
        accumulator.update(
            fused[(slice(None), *inner)].double(),
            metrics.mtf_filter(fused, scene.gains, ratio, "valid").double(),
            up(torch.from_numpy(data.ms).double()),
            pan[(slice(None), *part_of(pan_window, core))],
            up(reduce(pan)),
            torch.from_numpy(valid),
        )
    progress("scoring", len(tiles), len(tiles))
    return accumulator.compute()


def _index_scale(scene: Scene) -> float:
    """Q2n rounds to integers: small-valued float data is brought to an 11-bit range first."""
    if all(s.dataset.dtypes[b - 1].startswith(("int", "uint")) for s in scene.ms for b in s.bands):
        return 1.0
    grid = scene.ms_grid
    step_rows, step_cols = max(1, grid.height // 256), max(1, grid.width // 256)
    peak = 0.0
    for row in range(0, grid.height, 32 * step_rows):
        values, valid = scene.read_ms((row, min(row + 1, grid.height), 0, grid.width))
        seen = np.abs(values[:, valid][:, ::step_cols])
        peak = max(peak, float(seen.max()) if seen.size else 0.0)
    return 2047.0 / peak if 0 < peak < 2047 else 1.0


@dataclass(frozen=True)
class FusedRaster:
    """A fused file seen from the PAN grid: `window` is what it covers there."""

    source: Source
    origin: tuple[int, int]
    window: Window

    @classmethod
    def open(cls, path: str | os.PathLike, scene: Scene) -> FusedRaster:
        """Raises InputError if the file is not on the PAN grid or has other bands than the MS."""
        dataset = open_raster(os.fspath(path))
        grid = Grid.of(dataset)
        phase = scene.pan_grid.phase_of(grid) if grid.crs == scene.pan_grid.crs else None
        label = os.fspath(path)
        if phase is None:
            raise InputError(
                f"{label} is not on the PAN grid: it covers {grid.describe()}, the PAN {scene.pan_grid.describe()}"
            )
        rows, cols = round(phase.offset[0]), round(phase.offset[1])
        if (
            max(abs(r - 1) for r in phase.ratio) > 1e-5
            or max(abs(phase.offset[0] - rows), abs(phase.offset[1] - cols)) > 1e-2
        ):
            raise InputError(
                f"{label} is not on the PAN grid: its pixels are {phase.ratio[0]:.4g} x {phase.ratio[1]:.4g} PAN "
                f"pixels, its origin is {phase.offset[0]:.3f}, {phase.offset[1]:.3f} PAN pixels off"
            )
        bands = [
            b
            for b, c in zip(dataset.indexes, dataset.colorinterp, strict=True)
            if c.name != "alpha" or dataset.count == scene.bands
        ]
        if len(bands) != scene.bands:
            raise InputError(
                f"{label} has {len(bands)} bands, the MS has {scene.bands}; choose the MS bands with --bidx"
            )
        alpha = next((b for b in dataset.indexes if b not in bands), None)
        covered = intersect((rows, rows + grid.height, cols, cols + grid.width), scene.full)
        if is_empty(covered):
            raise InputError(
                f"{label} does not overlap the scene: it covers {grid.describe()}, the PAN {scene.pan_grid.describe()}"
            )
        return cls(Source(dataset, bands, label, None, alpha), (rows, cols), covered)

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        r, c = self.origin
        return self.source.read((window[0] - r, window[1] - r, window[2] - c, window[3] - c))

    def close(self) -> None:
        self.source.dataset.close()


def array_reader(fused: np.ndarray, valid: np.ndarray, origin: tuple[int, int]) -> Reader:
    """Reader of a fused image in memory whose first pixel is at `origin` of the PAN grid."""

    def read(window: Window) -> tuple[np.ndarray, np.ndarray]:
        at = (window[0] - origin[0], window[1] - origin[0], window[2] - origin[1], window[3] - origin[1])
        rows, cols = window[1] - window[0], window[3] - window[2]
        data, mask = np.zeros((len(fused), rows, cols), np.float32), np.zeros((rows, cols), bool)
        inner = intersect(at, (0, fused.shape[1], 0, fused.shape[2]))
        if not is_empty(inner):
            here, there = part_of(at, inner), (slice(inner[0], inner[1]), slice(inner[2], inner[3]))
            data[(slice(None), *here)], mask[here] = fused[(slice(None), *there)], valid[there]
        return data, mask

    return read
