"""How much PAN can tell about each band of an MS, seen at the scale of the MS.

PAN is degraded to the MS grid through the MTF of each band, and both lose their slow changes. In cells of the scene the
band is a multiple of PAN, each cell its own: R2 is the part of the band's detail that this explains, less what PAN's
detail of another cell explains, which is chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .. import physics
from ..device import one_thread_each
from ..progress import Progress, quiet
from ..raster.blocks import MAX_BLOCKS, in_range, sample_blocks
from ..raster.geometry import Window
from ..raster.scene import Scene, TileData

LEAST_R2 = 0.03
"""R2 below which PAN tells nothing about a band, so that it is up-sampled and no more."""

FOLLOWED = 0.2
"""R2 from which on a band counts as one that runs with PAN, or against it."""

CLEAR = 0.8
"""R2 from which on a single band that runs against PAN tells that PAN is a negative: no thermal band has so much."""

CELL = 16
"""Side of the cells in MS pixels; of a scene with less than `_CELLS` of them half of its shorter side."""

LOW = 2.0
"""Standard deviation, in MS pixels, of the Gaussian whose low pass is taken off."""

FLAT = 1e-6
"""Standard deviation of the detail, in parts of the largest value, up to which it is rounding."""

_PIXELS, _BLOCKS = 50_000, 3
"""MS pixels that are looked at, and blocks of them, at least, where the scene has so many."""

_CELLS = 4
"""Cells below which nothing is said."""


@dataclass(frozen=True)
class PanRelation:
    """What PAN tells about a band: `r2` from 0 to 1, and `gain`, DN of the band for a DN of PAN; NaN where unknown."""

    r2: float = math.nan
    gain: float = math.nan

    @property
    def nothing(self) -> bool:
        return self.r2 < LEAST_R2


@torch.no_grad()
def measure(scene: Scene, seed: int = 0, progress: Progress = quiet) -> tuple[PanRelation, ...]:
    """What PAN tells about each band of a scene, from blocks drawn with `seed`; not from those with values too large to
    take statistics of, which the methods that take some refuse."""
    scene = replace(scene, full=scene.full & scene.pan_grid.overlap(scene.phase, scene.ms_grid))
    cells: list[Tensor] = []
    seen, used, levels = 0, 0, [0.0, 0.0]
    reach = physics.Reach(scene.phase, 2, scene.band_offsets)
    size = _cell_of(scene)
    with one_thread_each(1):
        for tried, block in enumerate(sample_blocks(scene, seed)):
            progress("comparing", used, _BLOCKS)
            if used == MAX_BLOCKS or tried == 4 * MAX_BLOCKS or (used >= _BLOCKS and seen >= _PIXELS):
                break
            data = scene.read(block, *reach.windows(block))
            if data is not None and in_range(data) and len(found := _cells(scene, data, block, size)):
                cells.append(found)
                levels = [max(level, float(abs(x).max())) for level, x in zip(levels, (data.pan, data.ms), strict=True)]
                seen, used = seen + len(found) * size**2, used + 1
    told = _regressed(torch.cat(cells), *levels) if cells else (PanRelation(),) * scene.bands
    # of few pixels chance is as large as what PAN tells of many a band
    return told if size == CELL else tuple(each if each.r2 >= FOLLOWED else PanRelation() for each in told)


def _cell_of(scene: Scene) -> int:
    """Side of the cells of a scene."""
    sides = [side / ratio for side, ratio in zip(scene.full.shape, scene.phase.ratio, strict=True)]
    whole = int(sides[0] // CELL) * int(sides[1] // CELL)
    return CELL if whole >= _CELLS else max(4, min(CELL, int(min(sides)) // 2))


def pan_is_constant(scene: Scene, seed: int = 0) -> bool:
    """Has PAN one value wherever it and the MS are valid? Reads until two differ."""
    low, high = math.inf, -math.inf
    reach = physics.Reach(scene.phase)
    for block in sample_blocks(scene, seed):
        data = scene.read(block, *reach.windows(block))
        if data is not None:
            pan = data.pan[data.window.within(data.pan_window)][data.valid]
            low, high = min(low, pan.min(initial=math.inf)), max(high, pan.max(initial=-math.inf))
            if low < high:
                return False
    return low == high


def _cells(scene: Scene, data: TileData, block: Window, size: int) -> Tensor:
    """Detail of PAN and of the bands in the valid cells of a block: (cells, 2, bands, pixels); `size`: their side."""
    own = scene.phase.centred(block) & data.ms_window
    rows, cols = (n // size for n in own.shape)
    if min(rows, cols) < 1:
        return torch.empty(0)
    valid = scene.phase.covered(own, data.window, data.valid)[: rows * size, : cols * size]
    down = physics.degrader(scene.phase, own, data.pan_window, scene.effective_gains, scene.band_offsets)
    pan = down(torch.from_numpy(data.pan).double()[None])
    ms = torch.from_numpy(data.ms)[:, *own.within(data.ms_window)].double()
    both = torch.stack([pan.expand_as(ms), ms])
    low = [torch.from_numpy(physics.gaussian_matrix(n, LOW)) for n in both.shape[-2:]]
    both = (both - low[0] @ both @ low[1].mT)[..., : rows * size, : cols * size]
    cells = (
        both.unflatten(-1, (cols, size)).unflatten(-3, (rows, size)).movedim((2, 4), (0, 1)).flatten(0, 1).flatten(3)
    )
    whole = torch.from_numpy(valid).reshape(rows, size, cols, size).movedim(2, 1).flatten(0, 1).flatten(1).all(1)
    return cells[whole]


def _regressed(cells: Tensor, highest: float, level: float) -> tuple[PanRelation, ...]:
    """R2 and gain of each band from details (cells, 2, bands, pixels) of values of PAN up to `highest` and of the MS up
    to `level` DN."""
    if len(cells) < _CELLS or not highest or not level:
        return (PanRelation(),) * cells.shape[2]
    # the floors below are for values of usual size, and PAN may be in other units
    pan, ms = (x - x.mean(-1, keepdim=True) for x in (cells[:, 0] / highest, cells[:, 1] / level))
    energy, wanted = pan.square().sum(-1), ms.square().sum(-1)

    def explained(other: Tensor, strength: Tensor) -> Tensor:
        cross = (other * ms).sum(-1)
        return (cross.square() / strength.clamp(min=1e-30)).sum(0)

    chance = explained(pan.roll(1, 0), energy.roll(1, 0))
    total = wanted.sum(0)
    r2 = ((explained(pan, energy) - chance) / (total - chance).clamp(min=1e-30)).clamp(0, 1)
    gain = (pan * ms).sum((0, 2)) / energy.sum(0).clamp(min=1e-30) * (level / highest)
    least = cells.shape[0] * cells.shape[-1] * FLAT**2
    flat = (energy.sum(0) <= least) | (total <= least)
    return tuple(
        PanRelation() if none else PanRelation(round(float(r), 3), float(f"{float(g):.3g}"))
        for r, g, none in zip(r2, gain, flat, strict=True)
    )


def unrelated(found: Sequence[PanRelation]) -> list[int]:
    """The bands that PAN tells nothing about."""
    return [i for i, each in enumerate(found) if each.nothing]


def is_negative(found: Sequence[PanRelation]) -> bool:
    """Do all bands that PAN tells of run against it? A single one, which may be a thermal band, has to be clear."""
    told = [each for each in found if each.r2 >= FOLLOWED]
    return bool(told) and max(each.gain for each in told) < 0 and (len(told) > 1 or told[0].r2 >= CLEAR)


def negative(pan: str) -> str:
    """What is to be said of such a PAN."""
    return f"{pan} is dark where all bands are bright, and the other way round: if it is a negative, invert it first"
