"""One pass over blocks of a scene: its statistics, and the tiles that a tailor is trained on and judged with."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from .. import physics
from ..models.base import Inputs, SceneMoments, SceneStats, concatenate, inputs_at
from ..physics import Reach
from ..progress import Progress, quiet
from ..raster.blocks import LARGE, MAX_BLOCKS, Lifter, check_range, nothing_valid, read_ahead, sample_blocks
from ..raster.geometry import Axis, Phase, Span, Window
from ..raster.scene import Scene, TileData
from ..raster.values import Lift
from .tailor import Settings, Tiles

FULL_TILE, WIDE_TILE = 64, 96
REDUCED_TILE, NARROW_TILE = 40, 16
"""Sides of the sampled tiles: PAN pixels at full resolution, MS pixels at reduced resolution; the second ones for
ratios beyond `LARGE`."""
LEAST_TILES = 8
"""Tiles to adapt on: with fewer a single one would judge, and its say is chance."""


def tile_inputs(
    phase: Phase,
    gains: tuple[float, ...],
    tile: TileData,
    window: Window,
    device: torch.device,
    offsets: tuple[physics.Offset, ...] = (),
) -> Inputs:
    """Network inputs of `window`, a part of what was read for a tile; the operators run in float64."""
    where = device if device.type == "cuda" else torch.device("cpu")
    pan, ms = torch.from_numpy(tile.pan).to(where)[None, None], torch.from_numpy(tile.ms).to(where)[None]
    inputs = inputs_at(phase, window, pan, tile.pan_window, ms, tile.ms_window, gains, offsets)
    return inputs.map(lambda t: t.to(device))


@dataclass
class Sample:
    """What one pass over sampled blocks of a scene yields."""

    stats: SceneStats
    training: Tiles | None = None
    held_out: Tiles | None = None


def sample(
    scene: Scene, settings: Settings | None, seed: int, device: torch.device, progress: Progress = quiet
) -> Sample:
    """Statistics of the scene and, if `settings` is given, tiles to train a tailor on and to judge it with.

    Raises InputError if the scene has no valid pixel, PansharpenError if statistics of its values would overflow.
    """
    phase, rng, offsets = scene.phase, np.random.default_rng(seed), scene.band_offsets
    moments = SceneMoments(scene.bands)
    reach = Reach(phase, 24 if settings else physics.UPSAMPLE_REACH, offsets)
    blocks = sample_blocks(scene, seed)
    wanted, large = min(len(blocks), MAX_BLOCKS), len(blocks) > MAX_BLOCKS
    whole, seen = wanted / len(blocks) * sum(b.area for b in blocks), 0
    picked: list[Tiles] = []
    used, lifter = 0, Lifter()

    def load(block: Window) -> tuple[TileData, Inputs] | None:
        data = scene.read(block, *reach.windows(block))
        if data is None:
            return None
        check_range(scene, data)
        data = lifter(data)
        return data, tile_inputs(phase, scene.effective_gains, data, block, torch.device("cpu"), offsets)

    one = torch.set_num_threads, (1,)
    with ThreadPoolExecutor(1, "sample", *one) as reader, ThreadPoolExecutor(1, "moments", *one) as summing:
        taken: Future | None = None
        for tried, (block, loaded) in enumerate(read_ahead(reader, load, blocks)):
            progress("reading", min(used, wanted), wanted)
            if loaded is None:
                whole -= 0 if large else block.area
                continue
            data, inputs = loaded
            if large and data.valid.mean() <= 0.25 and tried <= 200:
                continue
            if taken is not None:
                taken.result()
            step = 2 if min(data.valid.shape) >= 256 else 1
            taken = summing.submit(moments.update, inputs, torch.from_numpy(data.valid)[None], step)
            if settings:
                # each block its share by area, and what blocks before it could not give
                seen += block.area
                due = _due(settings, picked, min(1.0, seen / whole))
                picked.append(_pick_tiles(scene, data, inputs, due, wanted == 1, rng))
            used += 1
            if used == wanted:
                break
        if taken is not None:
            taken.result()
    progress("reading", wanted, wanted)
    if moments.count == 0:
        raise nothing_valid(scene)
    stats = replace(moments.stats(), lift=lifter.lift or Lift())
    if settings is None:
        return Sample(stats)
    return Sample(stats, *_split(picked, settings, rng, device))


def _due(settings: Settings, picked: Sequence[Tiles], share: float) -> tuple[int, ...]:
    """How many tiles at full and at reduced resolution a share of the scene is to give beside those picked so far."""
    wants = 4 / 3 * settings.tiles, 4 / 3 * settings.reduced_tiles
    has = (sum(len(getattr(p, k)) for p in picked) for k in ("ms", "target"))
    return tuple(int(np.ceil(share * n - 1e-9)) - m for n, m in zip(wants, has, strict=True))


def _pick_tiles(scene: Scene, data: TileData, inputs: Inputs, counts: tuple[int, ...], only: bool, rng) -> Tiles:
    """Valid tiles of a block, drawn without replacement: likelier the more PAN varies in them.

    At most `counts` at full and at reduced resolution; `only`: there is no other block.
    """
    window, phase, gains, offsets = data.window, scene.phase, scene.effective_gains, scene.band_offsets
    length = FULL_TILE if max(phase.ratio) <= LARGE else WIDE_TILE
    corners = _draw(data.valid, length, counts[0], rng, data.pan[window.within(data.pan_window)])
    margin = int(np.ceil(3 * max(physics.mtf_sigma(min(gains), max(phase.ratio)), 1.0)))
    if length - 2 * margin - 1 < max(phase.ratio):
        corners = []  # not one MS pixel would be seen by PAN pixels of the tile alone
    side = Window(0, length, 0, length)
    parts, ms_parts, rows, cols = [], [], [], []
    for r, c in corners:
        tile = side.moved(window.top + r, window.left + c)
        at = tile.within(window)
        parts.append(inputs.map(lambda t, at=at: t[..., *at]))
        own = Window.of(_inner_ms(phase.rows, tile.rows, margin), _inner_ms(phase.cols, tile.cols, margin))
        ms_parts.append(torch.from_numpy(data.ms)[:, *own.within(data.ms_window)])
        # seen from the tile's own corner, so that tiles of equal phase share their matrices
        down = physics.degrader(phase.seen_from(tile, own), own.seen_from(own), side, gains, offsets).to("cpu")
        rows.append(down.rows.view(-1, *down.rows.shape[-2:]))  # with an axis of bands, also where all share one
        cols.append(down.cols.view(-1, *down.cols.shape[-2:]))
    blur = physics.blurrer(phase.ratio, side, side, gains).to("cpu")
    empty = inputs.map(lambda t: t[..., :0, :length, :length][:0])
    ms, down_rows, down_cols = (torch.stack(each) if each else torch.empty(0) for each in (ms_parts, rows, cols))
    reduced, target = _reduced_tiles(scene, data, counts[1], only, rng)
    inputs = concatenate(parts) if parts else empty
    return Tiles(inputs, ms, physics.Separable(down_rows, down_cols), blur, reduced, target)


def _inner_ms(axis: Axis, span: Span, margin: int) -> Span:
    """MS pixels whose blur stays `margin` PAN pixels inside a span: a fixed number for a tile size."""
    first = int(np.ceil((span[0] + margin + 0.5 - axis.offset) / axis.ratio - 0.5 - 1e-9))
    return first, first + int((span[1] - span[0] - 2 * margin - 1) // axis.ratio)


def _draw(valid: np.ndarray, size: int, count: int, rng, pan: np.ndarray | None = None) -> list[tuple[int, int]]:
    """Upper-left corners of `count` wholly valid tiles on a randomly shifted lattice, likelier where `pan` varies."""
    rows, cols = valid.shape
    if rows < size or cols < size:
        return []
    start = rng.integers(0, rows % size + 1), rng.integers(0, cols % size + 1)

    def cells(image: np.ndarray) -> np.ndarray:
        down, across = (rows - start[0]) // size, (cols - start[1]) // size
        cut = image[start[0] : start[0] + down * size, start[1] : start[1] + across * size]
        return cut.reshape(down, size, across, size)

    whole = cells(valid).all((1, 3))
    corners = [(start[0] + size * r, start[1] + size * c) for r, c in np.argwhere(whole)]
    if len(corners) <= count:
        return corners
    interest = np.ones(len(corners)) if pan is None else cells(pan).std((1, 3))[whole].astype(float)
    chance = np.sqrt(interest + 1e-6 * (interest.max() + 1e-9))
    return [corners[i] for i in rng.choice(len(corners), count, replace=False, p=chance / chance.sum())]


def _reduced_tiles(scene: Scene, data: TileData, count: int, only: bool, rng) -> tuple[Inputs, Tensor]:
    """Tiles of the pair degraded once more: PAN on the MS grid, MS on a grid coarser by the same ratio.

    PAN is seen as the MS sees it, and the bands are put in their place: what is asked for there is what is wanted at
    full resolution, bands as sharp as the PAN and where it is.
    """
    phase, gains, ms_window = scene.phase, scene.effective_gains, data.ms_window
    core = phase.ms_window(data.window) & ms_window
    down_pan = physics.degrader(phase, ms_window, data.pan_window, [float(np.mean(gains))])
    pan = down_pan(torch.from_numpy(data.pan).double()[None])[None]
    ms = physics.in_place(phase, torch.from_numpy(data.ms).double()[None], scene.band_offsets)
    coarse, at = phase.ms_window(ms_window), core.within(ms_window)
    inside = phase.covered(core, data.window, data.valid, slack=1)
    whole = np.zeros(ms_window.shape, bool)
    whole[at] = inside
    pan = _as_seen(pan, ms, whole)
    low = physics.degrader(phase, coarse, ms_window, gains)(ms)
    inputs = inputs_at(phase, core, pan, ms_window, low, coarse, gains)
    target = ms[..., *at].float()
    size = REDUCED_TILE if max(phase.ratio) <= LARGE else NARROW_TILE
    if only:
        size = min(size, max(16, min(inside.shape) // 2 // 8 * 8))
    corners = _draw(inside, size, count, rng, inputs.pan[0, 0].numpy())
    cuts = [np.s_[..., r : r + size, c : c + size] for r, c in corners]
    if not cuts:
        return inputs.map(lambda t: t[:0, :, :size, :size]), target[:0, :, :size, :size]
    return concatenate([inputs.map(lambda t, at=at: t[at]) for at in cuts]), torch.cat([target[at] for at in cuts])


SEEN = 2
"""MS pixels that the filter of PAN at the scale of the MS reaches."""


def _as_seen(pan: Tensor, ms: Tensor, inside: np.ndarray) -> Tensor:
    """PAN on the MS grid (1, 1, rows, cols) through the filter with which it is most like the bands together.

    No Gaussian describes the MTF of an MS that was sharpened on the ground: least squares find the weights of PAN's
    neighbours, which sum to one, and those of the bands. PAN stays as it is where too few pixels are `inside`.
    """
    size = 2 * SEEN + 1
    known = torch.nn.functional.max_pool2d(torch.from_numpy(~inside)[None].float(), size, 1, SEEN)[0] == 0
    if int(known.sum()) < 50 * size**2:
        return pan
    padded = torch.nn.functional.pad(pan, (SEEN,) * 4, mode="replicate")
    rows, cols = pan.shape[-2:]
    around = [padded[0, 0, r : r + rows, c : c + cols] for r in range(size) for c in range(size)]
    steps = torch.stack(around[: size**2 // 2] + around[size**2 // 2 + 1 :]) - pan[0]
    at = known.flatten().nonzero()[:, 0]
    regressors = torch.cat([steps.flatten(1), ms[0].flatten(1)]).index_select(1, at)
    regressors[len(steps) :] -= regressors[len(steps) :].mean(1, keepdim=True)
    wanted = pan.flatten()[at]
    normal = regressors @ regressors.T / len(at)
    scale = normal.diagonal().sqrt().clamp(min=1e-12)
    normal = normal / scale.outer(scale) + 1e-4 * torch.eye(len(regressors), dtype=pan.dtype)
    found = torch.linalg.solve(normal, regressors @ (wanted - wanted.mean()) / len(at) / scale) / scale
    return pan - torch.einsum("k,krc->rc", found[: len(steps)], steps)


def _split(picked: list[Tiles], settings: Settings, rng, device: torch.device) -> tuple[Tiles, Tiles] | tuple[()]:
    """Three quarters of the drawn tiles for training, one quarter to judge with; none if too few."""
    usable, reduced = [p for p in picked if len(p.ms)], [p for p in picked if len(p.target)]
    least = min(LEAST_TILES, settings.tiles)
    if sum(len(p.ms) for p in usable) < least or sum(len(p.target) for p in reduced) < 3:
        return ()
    down_rows, down_cols = (torch.cat([getattr(p.down, axis) for p in usable]) for axis in ("rows", "cols"))
    every = Tiles(
        concatenate([p.inputs for p in usable]).map(lambda t: t.to(device)),
        torch.cat([p.ms for p in usable]).to(device),
        physics.Separable(down_rows, down_cols).to(device),
        usable[0].blur.to(device),
        concatenate([p.reduced for p in reduced]).map(lambda t: t.to(device)),
        torch.cat([p.target for p in reduced]).to(device),
    )
    counts = len(every.ms), len(every.target)
    order, reduced_order = (torch.from_numpy(rng.permutation(n)).to(device) for n in counts)
    cut, reduced_cut = (max(1, n // 4) for n in counts)
    training = every.part(order[cut:][: settings.tiles], reduced_order[reduced_cut:][: settings.reduced_tiles])
    return training, every.part(order[:cut], reduced_order[:reduced_cut])
