"""The one pass: open, fit on samples of the scene, fuse tile by tile, write; the bridge between rasters and torch."""

from __future__ import annotations

import copy
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from . import classical, models, physics, tailor, weights
from . import device as devices
from .device import OutOfMemory, choose_device, choose_precision, one_thread_each
from .errors import InputError, PansharpenError
from .models import Backbone
from .models.base import Inputs, SceneMoments, SceneStats, TileOperators, channels_last, concatenate
from .physics import Reach
from .raster.geometry import Axis, Span, Window, area, covered, intersect, is_empty, joined, part_of, spans_of, widened
from .raster.scene import Scene, TileData, axes_of
from .raster.source import plain
from .raster.tiles import Stitcher, Tile, plan_tiles
from .raster.writer import SceneWriter
from .tailor import FeatureTailor, Outcome, Settings, Tiles
from .weights import Card

BLOCK = 512
"""PAN pixels of a side of the output's blocks, and of the blocks that statistics and tiles are sampled from."""
MAX_BLOCKS = 12
TILE = 64
REDUCED_TILE = 40
"""Sides of the sampled tiles: PAN pixels at full resolution, MS pixels at reduced resolution."""
LEAST_TILES = 8
"""Tiles to adapt on: with fewer a single one would judge, and its say is chance."""
_BATCH_PIXELS = 1 << 19
_LARGEST = float(np.finfo(np.float32).max) ** 0.5
"""Beyond it squares overflow in single precision."""

SMALL = 2.0**-7
"""Scenes without larger values are lifted to a usual range for networks: their arithmetic has floors in DN."""
_USUAL = 10

SMALL_PART = 64
"""Least side, in PAN pixels, of the parts of a tile that an accelerator is given when its memory does not suffice."""

ADAPT = {
    "fast": Settings(),
    "best": Settings(tiles=64, reduced_tiles=32, epochs=40, seconds=120.0, patience=5),
}
"""Schedules of --adapt."""

ADAPT_LOSS: dict[str, dict[str, float]] = {
    "sharp": {},
    "paper": {
        "reduced": 0.0, "colour": 0.0, "sharpness": 0.0, "spectral": 1.0, "spatial": 0.1, "consistency": 0.1,
    },
}  # fmt: skip
"""Loss weights of --adapt-loss: ours, which keep a result sharp and clean, and the terms of ERFT (eq. 7-10)."""

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, what is done and what there is to do."""


def quiet(stage: str, done: int, total: int) -> None: ...


class Fuser(Protocol):
    """What `fit` makes: fuses the pixels of a tile."""

    halo: int
    multiple_of: int
    overlap: int
    on_cpu: bool

    def windows(self, window: Window) -> tuple[Window, Window, Window]: ...

    def __call__(self, tile: TileData) -> np.ndarray: ...


class ClassicalFuser:
    """A classical method, fitted, on tiles of a scene."""

    halo, multiple_of, overlap, on_cpu = 0, 1, 0, True

    def __init__(self, setup: classical.Setup, method: classical.Method, lift: int = 0) -> None:
        self.setup, self.method, self.lift = setup, method, lift

    def windows(self, window: Window) -> tuple[Window, Window, Window]:
        pan, ms = classical.windows(self.setup.axes, spans_of(window), self.method.applies)
        return window, joined(pan), joined(ms)

    @torch.no_grad()
    def __call__(self, tile: TileData) -> np.ndarray:
        """Fused (bands, rows, cols) of the tile's window, in DN: float64 rounded to float32 at the very end, so that
        a pixel is the same to the last bit whatever the window around it."""
        fused = self.method.apply(_layers(self.setup, tile.lifted(self.lift), tile.window)).float().numpy()
        return lowered(fused, self.lift)


def setup_of(scene: Scene, seed: int = 0) -> classical.Setup:
    """What a classical method is told about a scene."""
    rows, cols = scene.full[1] - scene.full[0], scene.full[3] - scene.full[2]
    names = scene.standard_names
    return classical.Setup(axes_of(scene), scene.gains, scene.sensor.pan_gain, names, rows * cols, seed)


def _layers(
    setup: classical.Setup, tile: TileData, window: Window, ms_valid: np.ndarray | None = None
) -> classical.Layers:
    """The layers of a window, a part of what was read for a tile."""
    return classical.Layers(
        setup,
        spans_of(window),
        torch.from_numpy(tile.pan)[None],
        spans_of(tile.pan_window),
        torch.from_numpy(tile.ms),
        spans_of(tile.ms_window),
        torch.from_numpy(tile.valid[part_of(tile.window, window)]),
        None if ms_valid is None else torch.from_numpy(ms_valid),
    )


@torch.no_grad()
def fit_classical(scene: Scene, name: str, seed: int = 0, progress: Progress = quiet) -> ClassicalFuser:
    """Fit a classical method on all valid pixels of a scene, also of those beyond the window that is to be written.

    Raises InputError if there are too few, PansharpenError if statistics of their values would overflow.
    """
    setup = setup_of(scene, seed)
    method = classical.create(name, setup)
    blocks = [t.core for t in plan_tiles(scene.full, BLOCK)] if method.passes else []
    total = method.passes * len(blocks)
    margin = int(np.ceil(max(a.ratio for a in setup.axes))) + 1
    lift: int | None = None

    def load(block: Window) -> TileData | None:
        nonlocal lift
        wide = widened(block, margin)
        pan, ms = classical.windows(setup.axes, spans_of(wide), method.observes)
        data = scene.read(wide, joined(pan), joined(ms))
        if data is None:
            return None
        check_range(scene, data)
        lift = lift_of(data) if lift is None else lift
        return data.lifted(lift)

    low, high = np.inf, -np.inf
    with ThreadPoolExecutor(1) as reader, devices.threads(torch.get_num_threads() // 2):
        for number in range(method.passes):
            for i, (block, data) in enumerate(_ahead(reader, load, blocks)):
                progress("fitting", number * len(blocks) + i, total)
                if data is not None:
                    if not low < high:
                        pan = data.pan[part_of(data.pan_window, data.window)][data.valid]
                        low, high = min(low, pan.min(initial=np.inf)), max(high, pan.max(initial=-np.inf))
                    own = joined(classical.own_ms(setup.axes, spans_of(block)))
                    whole = covered(setup.axes, own, data.window, data.valid)
                    method.observe(_layers(setup, data, block, whole))
            if low == high:
                scene.warnings.append(f"{scene.pan.label} is constant: it has no detail, the MS is up-sampled only")
                method = classical.create("exp", setup)
                break
            method.settle()
    progress("fitting", total, total)
    return ClassicalFuser(setup, method, lift or 0)


def _ahead(reader: ThreadPoolExecutor, load: Callable, items: list) -> Iterator[tuple]:
    """Pairs of an item and what `load` makes of it, made one ahead in the reader's thread."""
    pending = reader.submit(load, items[0]) if items else None
    for i, item in enumerate(items):
        assert pending is not None
        loaded = pending.result()
        pending = reader.submit(load, items[i + 1]) if i + 1 < len(items) else None
        yield item, loaded


class NetworkFuser:
    """A frozen network, tailored or not, on tiles of a scene."""

    def __init__(
        self,
        scene: Scene,
        backbone: Backbone,
        stats: SceneStats,
        tailored: FeatureTailor | None,
        device: torch.device,
        precision: torch.dtype,
    ) -> None:
        self.axes, self.gains, self.offsets = axes_of(scene), scene.effective_gains, scene.band_offsets
        self.backbone, self.stats, self.tailored = backbone, stats, tailored
        self.device, self.precision = device, precision
        self.multiple_of, self.on_cpu = backbone.multiple_of, device.type == "cpu"
        self.halo = backbone.halo + FeatureTailor.halo * backbone.stride
        self.overlap = 32 if backbone.stitch == "blend" else 0
        self._reach = Reach(self.axes, offsets=self.offsets)
        self._turn, self._warnings = threading.Lock(), scene.warnings
        self._side = sys.maxsize

    def windows(self, window: Window) -> tuple[Window, Window, Window]:
        """The window with its halo, and the PAN and MS windows that it is computed from."""
        m = self.multiple_of
        spans = []
        for first, last in spans_of(window):
            spans.append(((first - self.halo) // m * m, -(-(last + self.halo) // m) * m))
        out = joined((spans[0], spans[1]))
        return (out, *self._reach.windows(out))

    def inputs(self, tile: TileData) -> Inputs:
        return tile_inputs(self.axes, self.gains, tile, tile.window, self.device, self.offsets)

    def __call__(self, tile: TileData) -> np.ndarray:
        """Fused (bands, rows, cols) of the tile's window, in DN, float32.

        An accelerator fuses one tile at a time; where its memory does not suffice, in parts, and in the end the CPU
        does the rest, with a warning.
        """
        return lowered(self._fuse_lifted(tile.lifted(self.stats.lift)), self.stats.lift)

    def _fuse_lifted(self, tile: TileData) -> np.ndarray:
        if not self.on_cpu:
            with self._turn:
                while not self.on_cpu:
                    try:
                        return self._fuse(tile)
                    except OutOfMemory:
                        pass  # what its traceback holds is free only outside of this block
                    self._want_less(tile.window)
        return self._fuse(tile)

    def _want_less(self, window: Window) -> None:
        """Halve the sides of the parts; where they would be small, or leave a trace, go over to the CPU."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        half = min(self._side, max(window[1] - window[0], window[3] - window[2])) // 2
        if half >= SMALL_PART and not self.overlap:
            self._side = half // self.multiple_of * self.multiple_of
            note = f"{self.device} ran out of memory: it was given smaller parts"
        else:
            note = f"{self.device} ran out of memory: what was left was fused on the CPU"
            self.device, self._side = torch.device("cpu"), sys.maxsize
            self.backbone = copy.deepcopy(self.backbone).to("cpu")  # the next scene finds it where it was
            self.stats, self.on_cpu = self.stats.to("cpu"), True
            self.tailored = None if self.tailored is None else self.tailored.to("cpu")
        if note not in self._warnings:
            self._warnings.append(note)

    def _fuse(self, tile: TileData) -> np.ndarray:
        """The tile as a whole, or of parts with their halo, which give the same pixels."""
        window = tile.window
        if max(window[1] - window[0], window[3] - window[2]) <= self._side:
            return self._fuse_part(tile, window)
        fused = np.empty((len(self.gains), window[1] - window[0], window[3] - window[2]), np.float32)
        margin = -(-self.halo // self.multiple_of) * self.multiple_of
        for part in plan_tiles(window, self._side):
            wide = intersect(widened(part.core, margin), window)
            fused[(slice(None), *part_of(window, part.core))] = self._fuse_part(tile, wide)[
                (slice(None), *part_of(wide, part.core))
            ]
        return fused

    @torch.no_grad()
    def _fuse_part(self, tile: TileData, window: Window) -> np.ndarray:
        inputs = tile_inputs(self.axes, self.gains, tile, window, self.device, self.offsets)
        encoded = self.backbone.encode(inputs, self.stats)
        entries = max(1, _BATCH_PIXELS // (encoded.shape[-1] * encoded.shape[-2]))
        with devices.autocast(self.device, self.precision):
            features = torch.cat([self.backbone.extract(part) for part in encoded.split(entries)])
            residual = self.backbone.map(features if self.tailored is None else self.tailored(features))
        fused = self.backbone.spread(residual, inputs, self.stats).add_(self.backbone.base(inputs, self.stats))
        if self.tailored is not None:
            fused = self.tailored.inject(fused, inputs.expanded)
        return fused[0].cpu().numpy()


def tile_inputs(
    axes: tuple[Axis, Axis],
    gains: tuple[float, ...],
    tile: TileData,
    window: Window,
    device: torch.device,
    offsets: tuple[physics.Offset, ...] = (),
) -> Inputs:
    """Network inputs of `window`, a part of what was read for a tile; the operators run in float64."""
    where = device if device.type == "cuda" else torch.device("cpu")
    spans = spans_of(window), spans_of(tile.pan_window), spans_of(tile.ms_window)
    operators = TileOperators.build(axes, *spans, gains, device=where, offsets=offsets)
    pan = torch.from_numpy(tile.pan).to(where)[None, None]
    ms = torch.from_numpy(tile.ms).to(where)[None]
    inputs = operators.inputs(pan, pan[(..., *part_of(tile.pan_window, window))], ms)
    return inputs.map(lambda t: t.to(device))


def nothing_valid(scene: Scene) -> InputError:
    return InputError(f"{scene.pan.label} and {scene.ms[0].label} have no valid pixel in common (all nodata)")


def lift_of(tile: TileData) -> int:
    """The power of two that brings values as small as a tile's to a usual range; 0 for usual ones and for none."""
    largest = max(float(np.abs(tile.pan).max()), float(np.abs(tile.ms).max()))
    return _USUAL - math.frexp(largest)[1] if 0 < largest < SMALL else 0


def lowered(fused: np.ndarray, lift: int) -> np.ndarray:
    """Fused pixels in DN again."""
    return np.ldexp(fused, -lift) if lift else fused


def check_range(scene: Scene, tile: TileData) -> None:
    """Raises PansharpenError for values too large to take statistics of: nodata that no tag names, no radiance."""
    bands = [(scene.pan.label, scene.pan.bands[0]), *((s.label, b) for s in scene.ms for b in s.bands)]
    for (label, band), pixels in zip(bands, (tile.pan, *tile.ms), strict=True):
        largest = max(float(pixels.min()), float(pixels.max()), key=abs)
        if abs(largest) > _LARGEST:
            raise PansharpenError(
                f"{label} holds values too large to take statistics of ({plain(largest)} in band {band}): if they are "
                f"nodata, name them with --nodata {plain(largest)}"
            )


@dataclass
class Sample:
    """What one pass over sampled blocks of a scene yields."""

    stats: SceneStats
    training: Tiles | None = None
    held_out: Tiles | None = None


def sample_blocks(scene: Scene, seed: int) -> list[Window]:
    """All blocks of a small scene; of a large one a seeded order in which to try them."""
    blocks = [t.core for t in plan_tiles(scene.full, BLOCK)]
    if len(blocks) > MAX_BLOCKS:
        blocks = [blocks[i] for i in np.random.default_rng(seed).permutation(len(blocks))]
    return blocks


def sample(
    scene: Scene, settings: Settings | None, seed: int, device: torch.device, progress: Progress = quiet
) -> Sample:
    """Statistics of the scene and, if `settings` is given, tiles to train a tailor on and to judge it with.

    Raises InputError if the scene has no valid pixel, PansharpenError if statistics of its values would overflow.
    """
    axes, rng = axes_of(scene), np.random.default_rng(seed)
    moments = SceneMoments(scene.bands)
    offsets = scene.band_offsets
    reach = Reach(axes, 24 if settings else physics.UPSAMPLE_REACH, offsets)
    blocks = sample_blocks(scene, seed)
    wanted, large = min(len(blocks), MAX_BLOCKS), len(blocks) > MAX_BLOCKS
    whole, seen = wanted / len(blocks) * sum(map(area, blocks)), 0
    picked: list[_Picked] = []
    used = 0
    lift: int | None = None

    def load(block: Window) -> tuple[TileData, Inputs] | None:
        nonlocal lift
        data = scene.read(block, *reach.windows(block))
        if data is None:
            return None
        check_range(scene, data)
        lift = lift_of(data) if lift is None else lift
        data = data.lifted(lift)
        return data, tile_inputs(axes, scene.effective_gains, data, block, torch.device("cpu"), offsets)

    with ThreadPoolExecutor(1, "sample", torch.set_num_threads, (1,)) as reader:
        for tried, (block, loaded) in enumerate(_ahead(reader, load, blocks)):
            progress("reading", min(used, wanted), wanted)
            if loaded is None:
                whole -= 0 if large else area(block)
                continue
            data, inputs = loaded
            if large and data.valid.mean() <= 0.25 and tried <= 200:
                continue
            moments.update(inputs, torch.from_numpy(data.valid)[None], step=2 if min(data.valid.shape) >= 256 else 1)
            if settings:
                # each block its share by area, and what blocks before it could not give
                seen += area(block)
                share = min(1.0, seen / whole)
                wants = 4 / 3 * settings.tiles, 4 / 3 * settings.reduced_tiles
                has = (sum(len(getattr(p, k)) for p in picked) for k in ("ms", "target"))
                due = tuple(int(np.ceil(share * n - 1e-9)) - m for n, m in zip(wants, has, strict=True))
                picked.append(_pick_tiles(scene, axes, data, inputs, due, wanted == 1, rng))
            used += 1
            if used == wanted:
                break
    progress("reading", wanted, wanted)
    if moments.count == 0:
        raise nothing_valid(scene)
    stats = replace(moments.stats(), lift=lift or 0)
    if settings is None:
        return Sample(stats)
    return Sample(stats, *_split(picked, settings, rng, device))


@dataclass
class _Picked:
    """Tiles of one block, each entry with a leading dimension of tiles."""

    inputs: Inputs
    ms: Tensor
    down: physics.Separable
    blur: physics.Separable
    reduced: Inputs
    target: Tensor


def _pick_tiles(scene, axes, data: TileData, inputs: Inputs, counts: tuple[int, ...], only: bool, rng) -> _Picked:
    """Valid tiles of a block, drawn without replacement: likelier the more PAN varies in them.

    At most so many at full and at reduced resolution; `only`: there is no other block.
    """
    window, gains, offsets = data.window, scene.effective_gains, scene.band_offsets
    corners = _draw(data.valid, TILE, counts[0], rng, data.pan[part_of(data.pan_window, window)])
    margin = int(np.ceil(3 * max(physics.mtf_sigma(min(gains), max(a.ratio for a in axes)), 1.0)))
    parts, ms_parts, rows, cols = [], [], [], []
    for r, c in corners:
        tile = (window[0] + r, window[0] + r + TILE, window[2] + c, window[2] + c + TILE)
        at = part_of(window, tile)
        parts.append(inputs.map(lambda t, at=at: t[(..., *at)]))
        spans = [_inner_ms(a, s, margin) for a, s in zip(axes, spans_of(tile), strict=True)]
        ms_at = part_of(data.ms_window, (*spans[0], *spans[1]))
        ms_parts.append(torch.from_numpy(data.ms)[(slice(None), *ms_at)])
        # seen from the tile's own corner, so that tiles of equal phase share their matrices
        local = tuple(a.shifted(t[0], m[0]) for a, t, m in zip(axes, spans_of(tile), spans, strict=True))
        here = ((0, spans[0][1] - spans[0][0]), (0, spans[1][1] - spans[1][0]))
        down = physics.degrader((local[0], local[1]), here, ((0, TILE), (0, TILE)), gains, offsets).to("cpu")
        rows.append(down.rows)
        cols.append(down.cols)
    tile_span: tuple[Span, Span] = ((0, TILE), (0, TILE))
    ratios = axes[0].ratio, axes[1].ratio
    blur = physics.blurrer(ratios, tile_span, tile_span, gains).to("cpu")
    empty = inputs.map(lambda t: t[..., :0, :TILE, :TILE][:0])
    count = min((m.shape[-2] for m in ms_parts), default=0), min((m.shape[-1] for m in ms_parts), default=0)
    ms = [m[:, : count[0], : count[1]] for m in ms_parts]
    down = physics.Separable(
        torch.stack([_with_band_axis(r)[:, : count[0]] for r in rows]) if rows else torch.empty(0),
        torch.stack([_with_band_axis(c)[:, : count[1]] for c in cols]) if cols else torch.empty(0),
    )
    reduced, target = _reduced_tiles(scene, axes, data, counts[1], only, rng)
    return _Picked(
        concatenate(parts) if parts else empty,
        torch.stack(ms) if ms else torch.empty(0),
        down,
        blur,
        reduced,
        target,
    )


def _with_band_axis(matrix: Tensor) -> Tensor:
    return matrix if matrix.ndim == 3 else matrix[None]


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
    corners, interest = [], []
    for r in range(start[0], rows - size + 1, size):
        for c in range(start[1], cols - size + 1, size):
            if valid[r : r + size, c : c + size].all():
                corners.append((r, c))
                interest.append(1.0 if pan is None else float(pan[r : r + size, c : c + size].std()))
    if len(corners) <= count:
        return corners
    chance = np.sqrt(np.array(interest) + 1e-6 * (max(interest) + 1e-9))
    return [corners[i] for i in rng.choice(len(corners), count, replace=False, p=chance / chance.sum())]


def _reduced_tiles(scene, axes, data: TileData, count: int, only: bool, rng) -> tuple[Inputs, Tensor]:
    """Tiles of the pair degraded once more: PAN on the MS grid, MS on a grid coarser by the same ratio.

    PAN is seen as the MS sees it, and the bands are put in their place: what is asked for there is what is wanted at
    full resolution, bands as sharp as the PAN and where it is.
    """
    gains = scene.effective_gains
    rows, cols = (a.ms_span(s) for a, s in zip(axes, spans_of(data.window), strict=True))
    ms_core = intersect((*rows, *cols), data.ms_window)
    ms_spans = spans_of(data.ms_window)
    down_pan = physics.degrader(axes, ms_spans, spans_of(data.pan_window), [float(np.mean(gains))])
    pan = down_pan(torch.from_numpy(data.pan).double()[None])[None]
    ms = _in_place(axes, torch.from_numpy(data.ms).double()[None], scene.band_offsets)
    coarse = [(a.ms_span(s)) for a, s in zip(axes, ms_spans, strict=True)]
    coarse_spans: tuple[Span, Span] = ((coarse[0][0], coarse[0][1]), (coarse[1][0], coarse[1][1]))
    inside = covered(axes, ms_core, data.window, data.valid, slack=1)
    pan = _as_seen(pan, ms, np.pad(inside, _margins(data.ms_window, ms_core)))
    down_ms = physics.degrader(axes, coarse_spans, ms_spans, gains)
    operators = TileOperators.build(axes, spans_of(ms_core), ms_spans, coarse_spans, gains)
    inputs = operators.inputs(pan, pan[(..., *part_of(data.ms_window, ms_core))], down_ms(ms))
    target = ms[(..., *part_of(data.ms_window, ms_core))].float()
    size = REDUCED_TILE
    if only:
        size = min(size, max(16, min(inside.shape) // 2 // 8 * 8))
    corners = _draw(inside, size, count, rng, inputs.pan[0, 0].numpy())
    cuts = [np.s_[..., r : r + size, c : c + size] for r, c in corners]
    if not cuts:
        return inputs.map(lambda t: t[:0, :, :size, :size]), target[:0, :, :size, :size]
    return concatenate([inputs.map(lambda t, at=at: t[at]) for at in cuts]), torch.cat([target[at] for at in cuts])


def _margins(outer: Window, inner: Window) -> tuple[tuple[int, int], tuple[int, int]]:
    return (inner[0] - outer[0], outer[1] - inner[1]), (inner[2] - outer[2], outer[3] - inner[3])


def _in_place(axes: tuple[Axis, Axis], ms: Tensor, offsets: Sequence[physics.Offset]) -> Tensor:
    """MS (1, bands, rows, cols) whose single bands lie off, each moved to the grid of the whole."""
    if not offsets:
        return ms
    here = [(0, n) for n in ms.shape[-2:]]
    moved = [(rows / axes[0].ratio, cols / axes[1].ratio) for rows, cols in offsets]
    return physics.upsampler((Axis(1.0), Axis(1.0)), (here[0], here[1]), (here[0], here[1]), moved)(ms)


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
    steps = torch.stack([padded[0, 0, r : r + rows, c : c + cols] for r in range(size) for c in range(size)]) - pan[0]
    steps = torch.cat([steps[: size**2 // 2], steps[size**2 // 2 + 1 :]])
    level = ms[0][:, known].mean(1)
    regressors = torch.cat([-steps[:, known], ms[0][:, known] - level[:, None]])
    wanted = pan[0, 0][known]
    scale = regressors.square().mean(1).sqrt().clamp(min=1e-12)
    regressors = regressors / scale[:, None]
    normal = regressors @ regressors.T / regressors.shape[1] + 1e-4 * torch.eye(len(regressors), dtype=pan.dtype)
    found = torch.linalg.solve(normal, regressors @ (wanted - wanted.mean()) / regressors.shape[1]) / scale
    return pan + torch.einsum("k,krc->rc", found[: len(steps)], steps)


def _split(picked: list[_Picked], settings: Settings, rng, device: torch.device) -> tuple[Tiles, Tiles] | tuple[()]:
    """Three quarters of the drawn tiles for training, one quarter to judge with; none if too few."""
    usable, reduced = [p for p in picked if len(p.ms)], [p for p in picked if len(p.target)]
    least = min(LEAST_TILES, settings.tiles)
    if sum(len(p.ms) for p in usable) < least or sum(len(p.target) for p in reduced) < 3:
        return ()
    ms_rows = min(p.ms.shape[-2] for p in usable)
    ms_cols = min(p.ms.shape[-1] for p in usable)
    inputs = concatenate([p.inputs for p in usable])
    ms = torch.cat([p.ms[..., :ms_rows, :ms_cols] for p in usable])
    down_rows = torch.cat([p.down.rows[..., :ms_rows, :] for p in usable])
    down_cols = torch.cat([p.down.cols[..., :ms_cols, :] for p in usable])
    red = concatenate([p.reduced for p in reduced])
    target = torch.cat([p.target for p in reduced])
    order, reduced_order = torch.from_numpy(rng.permutation(len(ms))), torch.from_numpy(rng.permutation(len(target)))
    cut, reduced_cut = max(1, len(ms) // 4), max(1, len(target) // 4)

    def take(part: Tensor, reduced_part: Tensor) -> Tiles:
        return Tiles(
            inputs.map(lambda t: t[part].to(device)),
            ms[part].to(device),
            physics.Separable(down_rows[part], down_cols[part]).to(device),
            usable[0].blur.to(device),
            red.map(lambda t: t[reduced_part].to(device)),
            target[reduced_part].to(device),
        )

    training = take(order[cut:][: settings.tiles], reduced_order[reduced_cut:][: settings.reduced_tiles])
    return training, take(order[:cut], reduced_order[:reduced_cut])


@dataclass(frozen=True)
class Options:
    """How to fuse: the options of `pansharpen fuse` that change pixels.

    `align` and `mtf` are settled where a scene is opened (`job.opened`): `fit` takes its phase and gains as they are.
    """

    method: str = "glpnet"
    weights: str | None = None
    adapt: str = "fast"
    adapt_seconds: float | None = None
    device: str = "auto"
    precision: str = "auto"
    tile_size: int = 512
    seed: int = 0
    align: str = "auto"
    mtf: str = "auto"
    adapt_loss: str = "sharp"


MTF = ("auto", "sensor")
"""Where a network's MTF gains come from: measured on the scene, the table's where they cannot be; or the table."""


@dataclass
class Fit:
    """A fuser and how it came about."""

    fuser: Fuser
    precision: str
    device: str
    card: Card | None = None
    stats: SceneStats | None = None
    outcome: Outcome | None = None
    seconds: dict[str, float] | None = None


def settings_of(options: Options) -> Settings | None:
    """Schedule and loss weights of an adaptation; None for `off`."""
    if options.adapt == "off":
        return None
    if options.adapt not in ADAPT:
        raise InputError(f"unknown --adapt '{options.adapt}'; there is off, {', '.join(ADAPT)}")
    if options.adapt_loss not in ADAPT_LOSS:
        raise InputError(f"unknown --adapt-loss '{options.adapt_loss}'; there is {', '.join(ADAPT_LOSS)}")
    settings = replace(ADAPT[options.adapt], **ADAPT_LOSS[options.adapt_loss])  # type: ignore[arg-type]
    return settings if options.adapt_seconds is None else replace(settings, seconds=options.adapt_seconds)


def check_method(options: Options) -> None:
    """Raises InputError for options that no scene can be fused with: they are known to be wrong without one."""
    choose_precision(options.precision, torch.device("cpu"))
    if options.mtf not in MTF:
        raise InputError(f"unknown --mtf '{options.mtf}'; there is {', '.join(MTF)}")
    if options.method in classical.NAMES:
        if options.weights is not None:
            raise InputError(f"--weights belongs to the networks; {options.method} has none, leave it out")
        return
    if options.method not in models.REGISTRY:
        listed = ", ".join((*models.REGISTRY, *classical.NAMES))
        raise InputError(f"unknown method '{options.method}'; there is {listed}")
    if options.weights is not None:
        weights.cards(options.method, options.weights)


_NETWORKS: dict[tuple, Backbone] = {}


def _network(card: Card, bands: int, device: torch.device) -> Backbone:
    """The frozen network of a card: read and checked once, and kept for a process's next scenes."""
    key = card.path, card.sha256, device, card.bands and bands
    if key not in _NETWORKS:
        network = channels_last(weights.load(card, bands).to(device))
        if len(_NETWORKS) == 4:
            _NETWORKS.clear()
        _NETWORKS[key] = network
    return _NETWORKS[key]


def preload(options: Options) -> None:
    """Load what the scenes to come are fused with. Raises InputError for options and weights that fit no scene."""
    check_method(options)
    if options.method in models.REGISTRY:
        device = choose_device(options.device)
        for card in weights.cards(options.method, options.weights):
            _network(card, card.bands or 0, device)


def fit(scene: Scene, options: Options, progress: Progress = quiet) -> Fit:
    """Make the fuser of a scene: take the scene's statistics; for a network also load and adapt it.

    Where the memory of an accelerator does not suffice for that, the CPU does it all, with a warning.
    Raises InputError for an unknown method, or a scene that it cannot be fitted on, PansharpenError for values too
    large to take statistics of.
    """
    device = choose_device(options.device)
    precision = choose_precision(options.precision, device)
    if options.method in classical.NAMES:
        clock = time.perf_counter()
        fitted = fit_classical(scene, options.method, options.seed, progress)
        return Fit(fitted, "float64", "cpu", seconds={"fitting": time.perf_counter() - clock})
    check_method(options)
    card = weights.find(options.method, scene.bands, options.weights)
    try:
        return _fit_network(scene, card, options, device, precision, progress)
    except OutOfMemory:
        scene.warnings.append(f"{device} ran out of memory while adapting: the CPU did all")
    return _fit_network(scene, card, options, torch.device("cpu"), precision, progress)


def _fit_network(
    scene: Scene, card: Card, options: Options, device: torch.device, precision: torch.dtype, progress: Progress
) -> Fit:
    backbone = _network(card, scene.bands, device)
    settings = settings_of(options)
    clock = time.perf_counter()
    with devices.threads(1):
        drawn = sample(scene, settings, options.seed, device, progress)
    if card.scale is not None:
        drawn.stats = _in_units_of(math.ldexp(card.scale, drawn.stats.lift), drawn.stats, scene)
    stats = drawn.stats.to(device)
    sampled = time.perf_counter() - clock
    tailored, outcome = None, None
    if settings is not None:
        if drawn.training is None or drawn.held_out is None:
            reason = "too few valid tiles to train and judge a tailor on"
            outcome = Outcome(False, 0, 0, 0, 0.0, {}, {}, reason)
        else:
            tailored, outcome = tailor.adapt(
                backbone, stats, drawn.training, drawn.held_out, settings,
                seed=options.seed, precision=precision, progress=lambda done, total: progress("adapting", done, total),
            )  # fmt: skip
            if not np.isfinite(outcome.before["total"]):
                tailored, outcome = None, replace(outcome, kept=False, reason="the losses are not finite")
                scene.warnings.append(f"the network is not adapted to the scene: {outcome.reason}")
    fuser = NetworkFuser(scene, backbone, stats, tailored, device, precision)
    seconds = {"reading": sampled, "adapting": time.perf_counter() - clock - sampled}
    return Fit(fuser, str(precision).removeprefix("torch."), str(device), card, drawn.stats, outcome, seconds)


ALIKE = 4.0
"""Factor by which PAN and MS may differ on the mean and still be taken for values in one unit."""


def _in_units_of(scale: float, stats: SceneStats, scene: Scene) -> SceneStats:
    """Statistics for a network that was trained on values divided by `scale`, PAN and MS in one unit."""
    if 1 / ALIKE < stats.pan_mean / max(float(stats.mean.mean()), 1e-12) < ALIKE:
        return replace(stats, scale=scale, pan_factor=1.0, pan_offset=0.0)
    scene.warnings.append(f"{scene.pan.label} and the MS are in different units: PAN is brought to those of the MS")
    return replace(stats, scale=scale)


_TILES_AT_ONCE = 1 << 24
"""Pixels of all bands that may be in the making at once: bounds the memory where there are many cores."""


def tiles_at_once(fuser: Fuser, bands: int, tiles: int, size: int, cores: int) -> int:
    """How many tiles to fuse at once; a fuser may come over to the CPU in the middle of a scene."""
    if not fuser.on_cpu:
        return 1
    fitting = _TILES_AT_ONCE // (bands * (size + 2 * fuser.halo) ** 2)
    return max(1, min(cores, tiles, fitting))


def fused_tiles(
    scene: Scene, fuser: Fuser, tile_size: int, progress: Progress = quiet
) -> Iterator[tuple[Window, np.ndarray, np.ndarray]]:
    """THE tile loop: (window, fused float32 (bands, rows, cols), valid (rows, cols)), reading and fusing ahead.

    On a CPU several tiles are fused at once, each by one thread: that wastes less than many threads on one tile, and a
    pixel is the same to the last bit on any number of cores.
    """
    size = max(tile_size, 2 * fuser.overlap)
    tiles = plan_tiles(scene.window, size, fuser.overlap)
    stitcher = Stitcher(tiles)
    masks: dict[Window, np.ndarray] = {}

    def load(tile: Tile) -> tuple[TileData | None, Window]:
        out, pan, ms = fuser.windows(tile.outer)
        return scene.read(out, pan, ms), out

    def fuse(loading: Future) -> tuple[np.ndarray | None, np.ndarray | None, Window]:
        data, out = loading.result()
        return (None, None, out) if data is None else (fuser(data), data.valid, out)

    cores = torch.get_num_threads()
    most = tiles_at_once(fuser, scene.bands, len(tiles), size, cores) if fuser.on_cpu else cores
    with ThreadPoolExecutor(1) as reader, one_thread_each(most) as pool:
        ahead: deque[Future] = deque()
        for i, tile in enumerate(tiles):
            workers = tiles_at_once(fuser, scene.bands, len(tiles), size, cores)
            for later in tiles[i + len(ahead) : i + workers + 1]:
                ahead.append(pool.submit(fuse, reader.submit(load, later)))
            made, mask_of_all, out = ahead.popleft().result()
            shape = tile.outer[1] - tile.outer[0], tile.outer[3] - tile.outer[2]
            inner = part_of(out, tile.outer)
            if made is None or mask_of_all is None:
                fused, valid = np.zeros((scene.bands, *shape), np.float32), np.zeros(shape, bool)
            else:
                fused, valid = made[(slice(None), *inner)], mask_of_all[inner]
            masks[tile.core] = valid[part_of(tile.outer, tile.core)]
            for window, pixels in stitcher.add(tile, fused):
                mask = np.zeros(pixels.shape[1:], bool)
                for core in list(masks):
                    common = intersect(core, window)
                    if not is_empty(common):
                        mask[part_of(window, common)] = masks[core][part_of(core, common)]
                    if core[1] <= window[1] and core[3] <= window[3]:
                        del masks[core]
                yield window, pixels, mask
            progress("fusing", i + 1, len(tiles))


def fuse_array(scene: Scene, fuser: Fuser, tile_size: int = 512) -> tuple[np.ndarray, np.ndarray]:
    """The fused scene in memory: (bands, rows, cols) float32 and its valid mask."""
    grid = scene.grid
    fused = np.zeros((scene.bands, grid.height, grid.width), np.float32)
    valid = np.zeros((grid.height, grid.width), bool)
    for window, pixels, mask in fused_tiles(scene, fuser, tile_size):
        at = part_of(scene.window, window)
        fused[(slice(None), *at)], valid[at] = pixels, mask
    return fused, valid


def write_fused(scene: Scene, fuser: Fuser, writer: SceneWriter, tile_size: int, progress: Progress = quiet) -> int:
    """Run the loop into a writer, writing beside the next tile's fusion; returns the number of valid pixels.

    The tile size is rounded to a part or a multiple of the output block, so that no block is written twice.
    """
    count = 0
    tile_size = -(-tile_size // BLOCK) * BLOCK if tile_size > BLOCK else 1 << (tile_size.bit_length() - 1)
    with ThreadPoolExecutor(1) as pool:
        pending: Future | None = None
        for window, pixels, valid in fused_tiles(scene, fuser, tile_size, progress):
            if pending is not None:
                pending.result()
            count += int(valid.sum())
            pending = pool.submit(writer.write, window, pixels, valid)
        if pending is not None:
            pending.result()
    if count == 0:
        raise nothing_valid(scene)
    return count
