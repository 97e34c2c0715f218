"""Wald's protocol: a pair degraded by its own ratio, whose MS the fusion of it ought to give."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .. import physics
from ..errors import InputError
from ..progress import Progress, quiet
from ..raster.geometry import Window
from ..raster.plain import raster_writer
from ..raster.scene import MIN_MS_PIXELS, Scene
from ..raster.source import filled
from ..raster.tiles import plan_tiles
from .assess import MARGIN, SCORED_TILE


def _reduced(scene: Scene, around: Window) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """PAN degraded to a window of the MS grid (1, rows, cols), the MS there, and where both are wholly valid."""
    pan_window = scene.phase.pan_window(around, MARGIN)
    values, pan_valid = filled(scene.pan.read, pan_window)
    ms, ms_valid = filled(scene.read_ms, around)
    through = physics.degrader(scene.phase, around, pan_window, [scene.sensor.pan_gain])
    pan = through(torch.from_numpy(values).double()).float()  # in which a constant PAN stays constant
    return pan, ms, ms_valid & scene.phase.covered(around, pan_window, pan_valid)


@dataclass(frozen=True)
class ReducedPair:
    """A pair degraded by its own ratio, and the MS that a fusion of it ought to give: paths of GeoTIFFs."""

    pan: Path
    ms: Path
    reference: Path


def degrade(scene: Scene, folder: Path, progress: Progress = quiet) -> ReducedPair:
    """Wald's protocol at the exact phase: PAN on the MS grid, MS on a grid coarser by the same ratio and offset.

    Wald et al., "Fusion of satellite images of different spatial resolutions", 1997; each band and PAN through its
    MTF (gains at Nyquist), rounded to integers if the files hold them, in float32 with NaN for nodata. Raises
    InputError if the scene is too small for it.
    """
    phase = scene.phase
    fine = phase.contained(scene.window)
    coarse = phase.contained(fine)
    if min(coarse.shape) < MIN_MS_PIXELS:
        raise InputError(
            f"{scene.ms[0].label} is too small for Wald's protocol: {fine.shape[0]} x {fine.shape[1]} MS "
            f"pixels make less than {MIN_MS_PIXELS} when degraded once more"
        )
    pair = ReducedPair(folder / "pan.tif", folder / "ms.tif", folder / "reference.tif")
    fine_grid = scene.ms_grid.window(fine)
    coarse_grid = scene.ms_grid.coarser(phase, coarse)
    pan_type = scene.pan.dtype_of(0)
    ms_type = np.result_type(*(s.dataset.dtypes[b - 1] for s in scene.ms for b in s.bands))
    with (
        raster_writer(pair.pan, fine_grid, 1, _FLOAT, ("PAN",)) as write_pan,
        raster_writer(pair.reference, fine_grid, scene.bands, _FLOAT, scene.called) as write_reference,
    ):
        tiles = plan_tiles(fine, SCORED_TILE // 2)
        for i, tile in enumerate(tiles):
            progress("degrading", i, len(tiles))
            pan, ms, valid = _reduced(scene, tile.core)
            at = tile.core.seen_from(fine)
            write_pan(at, _rounded(pan.numpy(), valid, pan_type))
            write_reference(at, _rounded(ms, valid, ms_type))
    with raster_writer(pair.ms, coarse_grid, scene.bands, _FLOAT, scene.called) as write_ms:
        for tile in plan_tiles(coarse, SCORED_TILE // 4):
            around = phase.pan_window(tile.core, MARGIN)
            ms, ms_valid = filled(scene.read_ms, around)
            through = physics.degrader(phase, tile.core, around, scene.gains)
            low = through(torch.from_numpy(ms).double()).float().numpy()
            valid = phase.covered(tile.core, around, ms_valid)
            write_ms(tile.core.seen_from(coarse), _rounded(low, valid, ms_type))
    return pair


_FLOAT = np.dtype("float32")


def _rounded(values: np.ndarray, valid: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Values as a file of that type would hold them, but in float32, so that NaN and no value stands for nodata."""
    if dtype.kind != "f":
        values = np.clip(np.rint(values), np.iinfo(dtype).min, np.iinfo(dtype).max)
    return np.where(valid, values, np.nan).astype(_FLOAT)
