"""Fitting: from a scene and options to a fuser of its tiles, classical or deep."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from .. import classical, models, untrusted
from .. import device as devices
from ..adapt import tailor
from ..adapt.sampling import sample
from ..adapt.tailor import ADAPT, FeatureTailor, Outcome, Settings
from ..classical import layers
from ..device import choose_device, choose_precision
from ..errors import InputError
from ..models import weights
from ..models.base import Adaptation, Backbone, SceneStats, channels_last
from ..models.weights import Card
from ..physics import Reach
from ..progress import Progress, quiet
from ..raster.blocks import SAMPLED_BLOCK, Lifter, check_range, nothing_valid, read_ahead, sample_blocks
from ..raster.geometry import Window
from ..raster.scene import Scene, TileData
from ..raster.tiles import plan_tiles
from ..raster.values import Lift
from .fusers import ClassicalFuser, Fuser, NetworkFuser, OutOfMemory, UpSampledBands, layers_of, setup_of
from .options import Options, check_method
from .pan_relation import pan_is_constant
from .saved_fit import Known, SavedFit, origin_of

ADAPT_LOSS: dict[str, Adaptation] = {
    "sharp": {},
    "paper": {
        "reduced": 0.0, "colour": 0.0, "sharpness": 0.0, "spectral": 1.0, "spatial": 0.1, "consistency": 0.1,
        "held_to": "frozen", "epochs": 12, "rate": 4e-3,
    },
}  # fmt: skip
"""Loss weights of --adapt-loss: ours, which keep a result sharp and clean, and the terms of ERFT (eq. 7-10)."""


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
    lifter = Lifter(as_one=method.compares)

    def load(block: Window) -> TileData | None:
        wide = block.widened(margin)
        data = scene.read(wide, *layers.windows(setup.phase, wide, method.observes))
        if data is None:
            return None
        check_range(scene, data)
        return lifter(data)

    with ThreadPoolExecutor(1) as reader, devices.threads(torch.get_num_threads() // 2):
        for number in range(method.passes):
            for i, (block, data) in enumerate(read_ahead(reader, load, blocks)):
                progress("fitting", number * len(blocks) + i, total)
                if data is not None:
                    whole = setup.phase.covered(setup.phase.centred(block), data.window, data.valid)
                    method.observe(layers_of(setup, data, block, whole))
            if lifter.lift is None:  # no block had a valid pixel
                raise nothing_valid(scene)
            method.settle()
        scene.warnings.extend(method.doubts() if method.passes else ())
    progress("fitting", total, total)
    return ClassicalFuser(setup, method, lifter.lift or Lift())


@dataclass(frozen=True)
class Fit:
    """A fuser and how it came about."""

    fuser: Fuser
    precision: str
    device: str
    card: Card | None = None
    stats: SceneStats | None = None
    outcome: Outcome | None = None
    seconds: dict[str, float] | None = None
    only_upsampled: tuple[int, ...] = ()

    def kept(self, scene: Scene, options: Options, shift: tuple[float, float]) -> SavedFit:
        """The fit apart from its scene, whose MS was moved by `shift`."""
        known, fuser = Known.of(scene, options), self.fuser
        more = {"spared": np.array(self.only_upsampled, float)} if self.only_upsampled else {}
        if isinstance(fuser, UpSampledBands):
            fuser = fuser.fuser
        if isinstance(fuser, ClassicalFuser):
            arrays = {name: value.numpy() for name, value in fuser.method.found().items()}
            return SavedFit(known, origin_of(scene), shift, lift=fuser.lift, arrays=arrays | more)
        assert self.stats is not None
        numbers = {name: float(getattr(self.stats, name)) for name in STATS_NUMBERS}
        arrays = {f"stats.{name}": getattr(self.stats, name).numpy() for name in STATS_ARRAYS}
        if fuser.tailored is not None:
            arrays |= {f"tailor.{k}": v.detach().cpu().numpy() for k, v in fuser.tailored.state_dict().items()}
        return SavedFit(
            known, origin_of(scene), shift, scene.fitted_gains, scene.band_offsets, self.stats.lift, numbers,
            arrays | more,
        )  # fmt: skip


STATS_ARRAYS = {"mean": 0, "std": 0, "gain": 0, "intensity": 1, "haze": 0}
STATS_NUMBERS = ("pan_mean", "pan_std", "scale", "pan_factor", "pan_offset", "agreement", "spanned")
"""Fields of `SceneStats` that a kept fit stores. `STATS_ARRAYS`: name -> entries beyond one per band."""


def settings_of(options: Options) -> Settings | None:
    """Schedule and loss weights of an adaptation; None for `off`."""
    if options.adapt == "off" or options.fit is not None:
        return None
    if options.adapt not in ADAPT:
        raise InputError(f"unknown --adapt '{options.adapt}'; choose from off, {', '.join(ADAPT)}")
    if options.adapt_loss not in ADAPT_LOSS:
        raise InputError(f"unknown --adapt-loss '{options.adapt_loss}'; choose from {', '.join(ADAPT_LOSS)}")
    ours = options.method in models.REGISTRY and options.adapt_loss == "sharp"
    own: Adaptation = models.network_class(options.method).adaptation if ours else {}
    settings = replace(replace(ADAPT[options.adapt], **ADAPT_LOSS[options.adapt_loss]), **own)
    return settings if options.adapt_seconds is None else replace(settings, seconds=options.adapt_seconds)


LOADED: dict[tuple, Backbone] = {}


def network_of(card: Card, bands: int, device: torch.device) -> Backbone:
    """The frozen network of a card: read and checked once, and kept for a process's next scenes."""
    key = card.path, card.sha256, device, card.bands and bands
    if key not in LOADED:
        network = channels_last(weights.load(card, bands).to(device))
        if len(LOADED) == 4:
            LOADED.clear()
        LOADED[key] = network
    return LOADED[key]


def preload(options: Options, bands: int | None = None) -> None:
    """Load what the scenes to come, or one of so many bands, are fused with. Raises InputError for options and weights
    that fit none."""
    check_method(options)
    if options.method in models.REGISTRY:
        device = choose_device(options.device)
        every = weights.cards(options.method, options.weights)
        for card in every if bands is None else [weights.find(options.method, bands, options.weights)]:
            network_of(card, card.bands or 0 if bands is None else bands, device)


def fit(scene: Scene, options: Options, progress: Progress = quiet, only_upsampled: Sequence[int] = ()) -> Fit:
    """Make the fuser of a scene: take the scene's statistics; for a network also load and adapt it.

    `only_upsampled`: places of bands that are not sharpened; where they are all, there is nothing else to fit. A fit
    that is taken has its own. So are all where PAN is constant, with a warning.
    Where the memory of an accelerator does not suffice for that, the CPU does it all, with a warning.
    Raises InputError for an unknown method, or a scene that it cannot be fitted on, PansharpenError for values too
    large to take statistics of.
    """
    if options.method != "exp" and pan_is_constant(scene, options.seed):
        told = f"{scene.pan.label} is constant: it has no detail, the MS is up-sampled only"
        scene.warnings.extend([told] if told not in scene.warnings else [])
        options, only_upsampled = replace(options, fit=None), range(scene.bands)
    if options.fit is not None:
        only_upsampled = SavedFit.read_for(options.fit, scene, options).only_upsampled
    if len(only_upsampled) == scene.bands:
        made = _fit(scene, replace(options, method="exp", weights=None, fit=None), progress)
    else:
        made = _fit(scene, options, progress)
        if only_upsampled and not isinstance(made.fuser, UpSampledBands):
            made = replace(made, fuser=UpSampledBands(scene, made.fuser, only_upsampled))
    return replace(made, only_upsampled=tuple(only_upsampled))


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
    _check_units(options.fit, kept, scene, options.seed)
    with untrusted.boundary(options.fit, "is damaged"):
        if kept.known.method in classical.NAMES:
            setup = setup_of(scene, options.seed)
            method = classical.create(kept.known.method, setup)
            method.restore(lambda name, shape: torch.from_numpy(kept.array(name, shape)).double())
            fuser: ClassicalFuser | NetworkFuser = ClassicalFuser(setup, method, kept.lift)
            return Fit(fuser, "float64", "cpu", seconds={"fitting": time.perf_counter() - clock})
        card = weights.find(options.method, scene.bands, options.weights)
        backbone, n = network_of(card, scene.bands, device), scene.bands
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
    backbone = network_of(card, scene.bands, device)
    settings = settings_of(options)
    clock = time.perf_counter()
    with devices.threads(1):
        drawn = sample(scene, settings, options.seed, device, progress)
    found = drawn.stats
    _check_bands_alike(scene, found)
    if card.scale is not None:
        found = _in_units_of(math.ldexp(card.scale, found.lift.ms), found, scene)
    stats = found.to(device)
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
    return Fit(fuser, str(precision).removeprefix("torch."), str(device), card, found, outcome, seconds)


OTHER_UNITS = 12
"""Powers of two by which PAN may lie otherwise to the MS than in a fit: those of units are more, of scenes far less."""


def _check_units(path: str, kept: SavedFit, scene: Scene, seed: int) -> None:
    """Raises InputError where PAN, or the MS, is in other units than those of a fit, by the first block with pixels."""
    reach, lifter = Reach(scene.phase), Lifter()
    for block in sample_blocks(scene, seed):
        data = scene.read(block, *reach.windows(block))
        if data is not None:
            lifter(data)
            break
    own = lifter.lift or kept.lift
    difference = (kept.lift.pan - kept.lift.ms) - (own.pan - own.ms)
    if abs(difference) >= OTHER_UNITS:
        raise InputError(
            f"{path} is a fit of a PAN in other units beside its MS, by a factor of about {2.0**-difference:.0e}, than "
            f"{scene.pan.label}: scale that (gdal_translate -scale), or fit anew"
        )


VANISHING = 1e-6
"""Share of the values' size that deviations have at least in the statistics: a band that is all below it is noise."""


def _check_bands_alike(scene: Scene, stats: SceneStats) -> None:
    """Raises InputError for a band of floats in a unit so much larger than the others' that networks make noise of
    it."""
    kinds = [s.dataset.dtypes[b - 1] for s in scene.ms for b in s.bands]
    least = 1.001 * VANISHING * stats.scale
    for i, (kind, mean, std) in enumerate(zip(kinds, stats.mean.tolist(), stats.std.tolist(), strict=True)):
        if kind.startswith("float") and 0 < abs(mean) < least and std <= least:
            named = scene.called[i] or f"band {scene.numbers[i]}"
            raise InputError(
                f"{scene.ms[0].label}: {named} is in another unit than the others (its mean is "
                f"{math.ldexp(mean, -stats.lift.ms):.1e}, and they reach {stats.scale_in_dn:.1e}): bring them to one "
                "unit, or fuse with --method gsa"
            )


ALIKE = 4.0
"""Factor by which PAN and MS may differ on the mean and still be taken for values in one unit."""


def _in_units_of(scale: float, stats: SceneStats, scene: Scene) -> SceneStats:
    """Statistics for a network that was trained on values divided by `scale`, PAN and MS in one unit."""
    in_one = stats.lift.pan == stats.lift.ms
    if in_one and 1 / ALIKE < stats.pan_mean / max(float(stats.mean.mean()), 1e-12) < ALIKE:
        return replace(stats, scale=scale, pan_factor=1.0, pan_offset=0.0)
    scene.notes.append(f"{scene.pan.label} and the MS are in different units: PAN is brought to those of the MS")
    return replace(stats, scale=scale)
