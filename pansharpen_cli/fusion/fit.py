"""Fitting: from a scene and options to a fuser of its tiles, classical or deep."""

from __future__ import annotations

import copy
import math
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch

from .. import classical, models, physics, untrusted
from .. import device as devices
from ..adapt import tailor
from ..adapt.sampling import sample, tile_inputs
from ..adapt.tailor import ADAPT, FeatureTailor, Outcome, Settings
from ..classical import layers
from ..classical.method import Method
from ..device import choose_device, choose_precision
from ..errors import InputError
from ..models import weights
from ..models.base import Backbone, Inputs, SceneStats, channels_last
from ..models.weights import Card
from ..physics import Reach
from ..progress import Progress, quiet
from ..raster.blocks import SAMPLED_BLOCK, check_range, lift_of, read_ahead
from ..raster.geometry import Window
from ..raster.scene import Scene, TileData
from ..raster.tiles import plan_tiles
from .options import Options, check_method
from .saved_fit import Known, SavedFit, origin_of

OutOfMemory = torch.cuda.OutOfMemoryError
"""An accelerator's memory does not suffice."""

_BATCH_PIXELS = 1 << 19

SMALL_PART = 64
"""Least side, in PAN pixels, of the parts of a tile that an accelerator is given when its memory does not suffice."""

ADAPT_LOSS: dict[str, dict[str, float]] = {
    "sharp": {},
    "paper": {
        "reduced": 0.0, "colour": 0.0, "sharpness": 0.0, "spectral": 1.0, "spatial": 0.1, "consistency": 0.1,
    },
}  # fmt: skip
"""Loss weights of --adapt-loss: ours, which keep a result sharp and clean, and the terms of ERFT (eq. 7-10)."""


class Fuser(Protocol):
    """What `fit` makes: fuses the pixels of a tile, those of a window with a margin of `windows` around it."""

    halo: int
    multiple_of: int
    overlap: int

    @property
    def on_cpu(self) -> bool: ...

    def windows(self, window: Window) -> tuple[Window, Window, Window]: ...

    def __call__(self, tile: TileData, window: Window) -> np.ndarray: ...


class ClassicalFuser:
    """A classical method, fitted, on tiles of a scene."""

    halo, multiple_of, overlap, on_cpu = 0, 1, 0, True

    def __init__(self, setup: layers.Setup, method: Method, lift: int = 0) -> None:
        self.setup, self.method, self.lift = setup, method, lift

    def windows(self, window: Window) -> tuple[Window, Window, Window]:
        return (window, *layers.windows(self.setup.phase, window, self.method.applies))

    @torch.no_grad()
    def __call__(self, tile: TileData, window: Window) -> np.ndarray:
        """Fused (bands, rows, cols) of the window, in DN: float64 rounded to float32 at the very end, so that a pixel
        is the same to the last bit whatever the window around it."""
        fused = self.method.apply(_layers(self.setup, tile.lifted(self.lift), window)).float().numpy()
        return lowered(fused, self.lift)


def setup_of(scene: Scene, seed: int = 0) -> layers.Setup:
    """What a classical method is told about a scene."""
    names = scene.standard_names
    return layers.Setup(scene.phase, scene.gains, scene.sensor.pan_gain, names, scene.full.area, seed)


def _layers(
    setup: layers.Setup, tile: TileData, window: Window, ms_valid: np.ndarray | None = None
) -> layers.TileLayers:
    """The layers of a window, a part of what was read for a tile."""
    return layers.TileLayers(
        setup,
        window,
        torch.from_numpy(tile.pan)[None],
        tile.pan_window,
        torch.from_numpy(tile.ms),
        tile.ms_window,
        torch.from_numpy(tile.valid[window.within(tile.window)]),
        None if ms_valid is None else torch.from_numpy(ms_valid),
    )


@torch.no_grad()
def fit_classical(scene: Scene, name: str, seed: int = 0, progress: Progress = quiet) -> ClassicalFuser:
    """Fit a classical method on all valid pixels of a scene, also of those beyond the window that is to be written.

    Raises InputError if there are too few, PansharpenError if statistics of their values would overflow.
    """
    setup = setup_of(scene, seed)
    method = classical.create(name, setup)
    blocks = [t.core for t in plan_tiles(scene.full, SAMPLED_BLOCK)] if method.passes else []
    total = method.passes * len(blocks)
    margin = int(np.ceil(max(setup.phase.ratio))) + 1
    lift: int | None = None

    def load(block: Window) -> TileData | None:
        nonlocal lift
        wide = block.widened(margin)
        data = scene.read(wide, *layers.windows(setup.phase, wide, method.observes))
        if data is None:
            return None
        check_range(scene, data)
        lift = lift_of(data) if lift is None else lift
        return data.lifted(lift)

    low, high = np.inf, -np.inf
    with ThreadPoolExecutor(1) as reader, devices.threads(torch.get_num_threads() // 2):
        for number in range(method.passes):
            for i, (block, data) in enumerate(read_ahead(reader, load, blocks)):
                progress("fitting", number * len(blocks) + i, total)
                if data is not None:
                    if not low < high:
                        pan = data.pan[data.window.within(data.pan_window)][data.valid]
                        low, high = min(low, pan.min(initial=np.inf)), max(high, pan.max(initial=-np.inf))
                    whole = setup.phase.covered(setup.phase.centred(block), data.window, data.valid)
                    method.observe(_layers(setup, data, block, whole))
            if low == high:
                scene.warnings.append(f"{scene.pan.label} is constant: it has no detail, the MS is up-sampled only")
                method = classical.create("exp", setup)
                break
            method.settle()
        scene.warnings.extend(method.doubts() if method.passes else ())
    progress("fitting", total, total)
    return ClassicalFuser(setup, method, lift or 0)


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
        lattice: tuple[int, int] = (0, 0),
    ) -> None:
        """`lattice`: row and column of a pixel at which a tile of `multiple_of` pixels begins."""
        self.phase, self.gains, self.offsets = scene.phase, scene.effective_gains, scene.band_offsets
        self.backbone, self.stats, self.tailored = backbone, stats, tailored
        self.device, self.precision = device, precision
        self.multiple_of, self.on_cpu = backbone.multiple_of, device.type == "cpu"
        self.halo = backbone.halo + FeatureTailor.halo * backbone.stride
        self.overlap = 32 if backbone.stitch == "blend" else 0
        self._reach = Reach(self.phase, offsets=self.offsets)
        self._turn, self._warnings = threading.Lock(), scene.warnings
        self._side, self._lattice = sys.maxsize, lattice

    def windows(self, window: Window) -> tuple[Window, Window, Window]:
        """The window with its halo, and the PAN and MS windows that it is computed from."""
        out = window.widened(self.halo).aligned(self.multiple_of, self._lattice)
        return (out, *self._reach.windows(out))

    def inputs(self, tile: TileData) -> Inputs:
        return tile_inputs(self.phase, self.gains, tile, tile.window, self.device, self.offsets)

    def __call__(self, tile: TileData, window: Window) -> np.ndarray:
        """Fused (bands, rows, cols) of the window, in DN, float32.

        An accelerator fuses one tile at a time; where its memory does not suffice, in parts, and in the end the CPU
        does the rest, with a warning.
        """
        return lowered(self._fuse_lifted(tile.lifted(self.stats.lift), window), self.stats.lift)

    def _fuse_lifted(self, tile: TileData, window: Window) -> np.ndarray:
        if not self.on_cpu:
            with self._turn:
                while not self.on_cpu:
                    try:
                        return self._fuse(tile, window)
                    except OutOfMemory:
                        pass  # what its traceback holds is free only outside of this block
                    self._want_less(tile.window)
        return self._fuse(tile, window)

    def _want_less(self, window: Window) -> None:
        """Halve the sides of the parts; where they would be small, or leave a trace, go over to the CPU."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        half = min(self._side, max(window.shape)) // 2
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

    def _fuse(self, tile: TileData, window: Window) -> np.ndarray:
        """The window of a tile as a whole, or of parts with their halo, which give the same pixels."""
        if max(tile.window.shape) <= self._side:
            return self._fuse_part(tile, tile.window, window)
        fused = np.empty((len(self.gains), *window.shape), np.float32)
        margin = -(-self.halo // self.multiple_of) * self.multiple_of
        for part in plan_tiles(tile.window, self._side):
            own, wide = part.core & window, part.core.widened(margin) & tile.window
            if not own.is_empty:
                fused[:, *own.within(window)] = self._fuse_part(tile, wide, own)
        return fused

    @torch.no_grad()
    def _fuse_part(self, tile: TileData, wide: Window, window: Window) -> np.ndarray:
        """The window from what is `wide` around it."""
        inputs = tile_inputs(self.phase, self.gains, tile, wide, self.device, self.offsets)
        residual = self._residual(inputs)
        # the last stage sees less far than what is before it
        near = window.widened(self.backbone.last_halo).aligned(self.multiple_of, wide.corner) & wide
        rows, cols = near.within(wide)
        step = wide.shape[0] // residual.shape[-2]
        residual = residual[..., rows.start // step : rows.stop // step, cols.start // step : cols.stop // step]
        inputs = inputs.map(lambda t: t[..., rows, cols])
        fused = self.backbone.finish(residual, self.backbone.base(inputs, self.stats), inputs, self.stats)
        if self.tailored is not None:
            fused = self.tailored.inject(fused, inputs.expanded, out=fused)
        return fused[0, :, *window.within(near)].cpu().numpy()

    def _residual(self, inputs: Inputs) -> torch.Tensor:
        with devices.autocast(self.device, self.precision):
            encoded = self.backbone.encode(inputs, self.stats)
            entries = max(1, _BATCH_PIXELS // (encoded.shape[-1] * encoded.shape[-2]))
            parts = [self.backbone.extract(part) for part in encoded.split(entries)]
            del encoded  # the largest of a tile
            features = torch.cat(parts) if len(parts) > 1 else parts[0]
            return self.backbone.map(features if self.tailored is None else self.tailored(features))


class Sparing:
    """A fuser whose result is left alone in some bands of a scene: these are up-sampled at their exact phase."""

    def __init__(self, scene: Scene, fuser: ClassicalFuser | NetworkFuser, spared: Sequence[int]) -> None:
        self.fuser, self.spared = fuser, list(spared)
        self.halo, self.multiple_of, self.overlap = fuser.halo, fuser.multiple_of, fuser.overlap
        self._phase = scene.phase
        self._offsets = [scene.band_offsets[b] for b in self.spared] if scene.band_offsets else []

    @property
    def on_cpu(self) -> bool:
        return self.fuser.on_cpu

    def windows(self, window: Window) -> tuple[Window, Window, Window]:
        return self.fuser.windows(window)

    @torch.no_grad()
    def __call__(self, tile: TileData, window: Window) -> np.ndarray:
        """Fused (bands, rows, cols) of the window, in DN, float32."""
        fused = self.fuser(tile, window)
        up = physics.upsampler(self._phase, window, tile.ms_window, self._offsets)
        fused[self.spared] = up(torch.from_numpy(tile.ms[self.spared]).double()).float().numpy()
        return fused


def lowered(fused: np.ndarray, lift: int) -> np.ndarray:
    """Fused pixels in DN again."""
    return np.ldexp(fused, -lift) if lift else fused


@dataclass
class Fit:
    """A fuser and how it came about."""

    fuser: ClassicalFuser | NetworkFuser | Sparing
    precision: str
    device: str
    card: Card | None = None
    stats: SceneStats | None = None
    outcome: Outcome | None = None
    seconds: dict[str, float] | None = None
    spared: tuple[int, ...] = ()

    def kept(self, scene: Scene, options: Options, shift: tuple[float, float]) -> SavedFit:
        """The fit apart from its scene, whose MS was moved by `shift`."""
        known, fuser = Known.of(scene, options), self.fuser
        spared = {"spared": np.array(self.spared, float)} if self.spared else {}
        if isinstance(fuser, Sparing):
            fuser = fuser.fuser
        if isinstance(fuser, ClassicalFuser):
            arrays = {name: value.numpy() for name, value in fuser.method.found().items()}
            if isinstance(fuser.method, classical.method_class("exp")) and known.method != "exp":
                arrays["constant_pan"] = np.ones(1)
            return SavedFit(known, origin_of(scene), shift, lift=fuser.lift, arrays=arrays | spared)
        assert self.stats is not None
        numbers = {name: float(getattr(self.stats, name)) for name in STATS_NUMBERS}
        arrays = {f"stats.{name}": getattr(self.stats, name).numpy() for name in STATS_ARRAYS}
        if fuser.tailored is not None:
            arrays |= {f"tailor.{k}": v.detach().cpu().numpy() for k, v in fuser.tailored.state_dict().items()}
        known_and_place = known, origin_of(scene), shift
        return SavedFit(
            *known_and_place, scene.fitted_gains, scene.band_offsets, self.stats.lift, numbers, arrays | spared
        )


STATS_ARRAYS = {"mean": 0, "std": 0, "gain": 0, "intensity": 1, "haze": 0}
STATS_NUMBERS = ("pan_mean", "pan_std", "scale", "pan_factor", "pan_offset", "agreement")
"""Of a scene's statistics, what a kept fit holds; of arrays, by how many they are longer than the bands."""


def settings_of(options: Options) -> Settings | None:
    """Schedule and loss weights of an adaptation; None for `off`."""
    if options.adapt == "off" or options.fit is not None:
        return None
    if options.adapt not in ADAPT:
        raise InputError(f"unknown --adapt '{options.adapt}'; choose from off, {', '.join(ADAPT)}")
    if options.adapt_loss not in ADAPT_LOSS:
        raise InputError(f"unknown --adapt-loss '{options.adapt_loss}'; choose from {', '.join(ADAPT_LOSS)}")
    ours = options.method in models.REGISTRY and options.adapt_loss == "sharp"
    own = models.network_class(options.method).adaptation if ours else {}
    settings = replace(ADAPT[options.adapt], **ADAPT_LOSS[options.adapt_loss], **own)  # type: ignore[arg-type]
    return settings if options.adapt_seconds is None else replace(settings, seconds=options.adapt_seconds)


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


def preload(options: Options, bands: int | None = None) -> None:
    """Load what the scenes to come, or one of so many bands, are fused with. Raises InputError for options and weights
    that fit none."""
    check_method(options)
    if options.method in models.REGISTRY:
        device = choose_device(options.device)
        every = weights.cards(options.method, options.weights)
        for card in every if bands is None else [weights.find(options.method, bands, options.weights)]:
            _network(card, card.bands or 0 if bands is None else bands, device)


def fit(scene: Scene, options: Options, progress: Progress = quiet, spared: Sequence[int] = ()) -> Fit:
    """Make the fuser of a scene: take the scene's statistics; for a network also load and adapt it.

    `spared`: places of bands that are up-sampled and no more; where they are all, there is nothing else to fit. Those
    of a fit that is taken are its own.
    Where the memory of an accelerator does not suffice for that, the CPU does it all, with a warning.
    Raises InputError for an unknown method, or a scene that it cannot be fitted on, PansharpenError for values too
    large to take statistics of.
    """
    if options.fit is not None:
        spared = SavedFit.read_for(options.fit, scene, options).spared
    if len(spared) == scene.bands:
        made = _fit(scene, replace(options, method="exp", weights=None, fit=None), progress)
    else:
        made = _fit(scene, options, progress)
        if spared and not isinstance(made.fuser, Sparing):
            made.fuser = Sparing(scene, made.fuser, spared)
    made.spared = tuple(spared)
    return made


def _fit(scene: Scene, options: Options, progress: Progress) -> Fit:
    device = choose_device(options.device)
    precision = choose_precision(options.precision, device)
    if options.fit is not None:
        return _restored(scene, options, device, precision)
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


def _restored(scene: Scene, options: Options, device: torch.device, precision: torch.dtype) -> Fit:
    """The fit that a file keeps. Raises InputError if it is none for this scene and method."""
    assert options.fit is not None
    clock, kept = time.perf_counter(), SavedFit.read_for(options.fit, scene, options)
    with untrusted.boundary(options.fit, "is damaged"):
        if kept.known.method in classical.NAMES:
            setup = setup_of(scene, options.seed)
            method = classical.create("exp" if "constant_pan" in kept.arrays else kept.known.method, setup)
            method.restore(lambda name, shape: torch.from_numpy(kept.array(name, shape)).double())
            fuser: ClassicalFuser | NetworkFuser = ClassicalFuser(setup, method, kept.lift)
            return Fit(fuser, "float64", "cpu", seconds={"fitting": time.perf_counter() - clock})
        card = weights.find(options.method, scene.bands, options.weights)
        backbone, n = _network(card, scene.bands, device), scene.bands
        found: dict[str, Any] = {name: kept.number(name) for name in STATS_NUMBERS} | {"lift": kept.lift}
        for name, more in STATS_ARRAYS.items():
            found[name] = torch.from_numpy(kept.array(f"stats.{name}", (n + more,))).float()
        stats = SceneStats(**found)
        if min(float(stats.std.min()), stats.pan_std, stats.scale) <= 0:
            raise ValueError("its deviations or its scale are not positive")
        tailored = None
        if any(name.startswith("tailor.") for name in kept.arrays):
            tailored = FeatureTailor(backbone.features, n)
            state = {k: kept.array(f"tailor.{k}", tuple(v.shape)) for k, v in tailored.state_dict().items()}
            tailored.load_state_dict({k: torch.from_numpy(a).float() for k, a in state.items()})
            tailored = channels_last(tailored.to(device)).eval().requires_grad_(False)
        lattice = kept.lattice(scene, backbone.multiple_of)
        fuser = NetworkFuser(scene, backbone, stats.to(device), tailored, device, precision, lattice)
    seconds = {"fitting": time.perf_counter() - clock}
    return Fit(fuser, str(precision).removeprefix("torch."), str(device), card, stats, None, seconds)


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
    scene.notes.append(f"{scene.pan.label} and the MS are in different units: PAN is brought to those of the MS")
    return replace(stats, scale=scale)
