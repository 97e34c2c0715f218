"""Samples that networks are trained on, drawn from loaded ones.

A sample of a multispectral stack is simulated: a crop at a random scale is the scene, which a drawn sensor sees
(`sensing.py`). A scene with its PAN also gives real samples, by Wald's protocol at the exact phase: PAN and MS degraded
by their own ratio through the sensor's MTFs, the MS itself the truth.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..models.base import Inputs, SceneStats, inputs_at
from ..raster.geometry import Window
from . import sensing, simulate
from .scenes import SIZES, LoadedScene, RealPair, room

COUNTS = ((3, 4, 5, 6, 8), (0.15, 0.55, 0.1, 0.1, 0.1))
"""Band counts that a network for any number of them is trained with, and how often."""
CONTEXT = 24
"""Pixels around the crop of a real pair that its operators see, where the scene has them."""
VALIDATION_SIZE = 128
COARSEST = 1.3
"""Metres up to which such scenes are averaged down."""
WHOLE = 0.85
"""Share of the samples whose weights of the bands in the PAN are as good as a whole scene gives them, which has some
hundred times the pixels."""
UNLIKE = 0.35
"""Deviation of the logarithm by which a sample's contrast differs from that of the scene that it is normalised with."""
DARKER = 0.4
"""By how many deviations a scene's haze may be below the darkest that a sample shows."""
TRIES = 2000
BORDERED, FILL = 0.4, 20
"""Share of the batches of scenes that end within the sample, and the pixels around them, filled as those around a file
are. Networks do there what they like otherwise, and a file has many borders where nodata lies in it."""


def landscapes(count: int, seed: int) -> list[LoadedScene]:
    """Simulated landscapes with sharp man-made edges, which 10 m imagery lacks."""
    made = (simulate.truth(512, 512, 8, seed=seed + i).astype(np.float32) for i in range(count))
    return [LoadedScene(t, np.ones(t.shape[1:], bool)) for t in made]


class TrainingSample(NamedTuple):
    """Network inputs of one scene (1, bands, size, size), its statistics, the truth, the ratio of the pair, whether it
    is a real one, and by how many pixels at its border it is not judged: the truth is not known there, or the
    degradation saw repeated edges."""

    inputs: Inputs
    stats: SceneStats
    truth: Tensor
    ratio: float
    real: bool = False
    margin: int = sensing.EDGE

    @property
    def inner(self) -> tuple:
        """The part that is judged."""
        return (..., slice(self.margin, -self.margin), slice(self.margin, -self.margin))

    def to(self, device: torch.device) -> TrainingSample:
        def move(t: Tensor) -> Tensor:
            return t.to(device)

        return self._replace(inputs=self.inputs.map(move), stats=self.stats.to(device), truth=move(self.truth))


def balanced(scenes: Sequence[LoadedScene], fine: float = 0.0) -> np.ndarray:
    """Chance of each: sensors with many are drawn more often, but only by the root of how many. `fine` is the share of
    the scenes with fine pixels, where there are both; among them each counts by the root of its valid pixels."""
    root = np.sqrt([s.valid.sum() for s in scenes])
    total = {s.sensor: sum(r for r, t in zip(root, scenes, strict=True) if t.sensor == s.sensor) for s in scenes}
    chance = np.array([r / total[s.sensor] ** 0.5 for r, s in zip(root, scenes, strict=True)])
    is_fine = np.array([s.is_fine for s in scenes])
    if fine and is_fine.any() and not is_fine.all():
        chance = np.where(is_fine, root, chance)
        for part, share in ((is_fine, fine), (~is_fine, 1 - fine)):
            chance[part] *= share / chance[part].sum()
    return chance / chance.sum()


def unlike(stats: SceneStats, rng: np.random.Generator) -> SceneStats:
    """Statistics as of a scene that the sample is a part of: its contrast, level and gains differ a little."""

    def factor(deviation: float, count: int = 1) -> Tensor:
        return torch.from_numpy(np.exp(rng.normal(0, deviation, count))).float()

    contrast, bands = factor(UNLIKE), len(stats.mean)
    level = torch.from_numpy(rng.normal(0, 0.4, bands)).float()
    weights = stats.intensity[:-1] * factor(0.02, bands)
    constant = stats.intensity[-1] + (stats.intensity[:-1] - weights) @ stats.mean
    return replace(
        stats,
        mean=stats.mean + level * stats.std,
        std=stats.std * contrast * factor(0.1, bands),
        gain=stats.gain * factor(0.03) * factor(0.03, bands),
        intensity=torch.cat([weights, constant[None]]),
        haze=stats.haze - float(rng.uniform(0, DARKER)) * stats.std,
        pan_mean=stats.pan_mean + float(level.mean()) * stats.pan_std,
        pan_std=stats.pan_std * float(contrast) * float(factor(0.1)),
        agreement=1.0,  # all that a network adds is judged
        spanned=1.0,
    )


class Sampler:
    """Draws samples; the state of its generator is the whole state.

    `share` of them are of `synthetic` scenes; of the others that would be of a scene with a pair, `real` are the pair
    itself. `fine` is the share of scenes with fine pixels among them, where there are both. `bands` is the count that
    the network takes, None for any.
    """

    def __init__(
        self,
        scenes: Sequence[LoadedScene],
        synthetic: Sequence[LoadedScene] = (),
        share: float = 0.0,
        bands: int | None = None,
        seed: int = 0,
        real: float = 0.0,
        fine: float = 0.0,
    ) -> None:
        self.rng, self.seed = np.random.default_rng(seed), seed
        self.scenes, self.synthetic, self.share, self.bands = scenes, synthetic, share, bands
        self.chance = balanced(scenes, fine)
        rooms = [room(s.valid) for s in scenes]
        self.sizes = [s for s in SIZES if s[0] <= max(rooms)] or list(SIZES[:1])
        paired = [
            (s.pair, c) for s, c in zip(scenes, self.chance, strict=True) if s.pair and s.pair.bands >= (bands or 0)
        ]
        self.pairs = [p for p, _ in paired]
        self.rooms = np.array([room(p.valid) for p in self.pairs])
        self.pair_chance = np.array([c for _, c in paired])
        self.real = real * (1 - share) * float(self.pair_chance.sum())
        self.pair_chance = self.pair_chance / (self.pair_chance.sum() or 1.0)

    def at(self, step: int) -> Sampler:
        """This sampler as it stands before a step, whatever was drawn before."""
        other = copy.copy(self)
        other.rng = np.random.default_rng((self.seed, step))
        return other

    def batch(self) -> list[TrainingSample]:
        """Samples of one size and band count."""
        size, number = self.sizes[int(self.rng.integers(len(self.sizes)))]
        count, bordered = self.count(), bool(self.rng.random() < BORDERED)
        return [self.sample(size, count, bordered) for _ in range(number)]

    def count(self) -> int:
        """A number of bands that the network takes; that of a pair as often as pairs are drawn."""
        if not self.bands and self.real and self.rng.random() < self.real:
            return self.drawn_pair().bands
        return self.bands or int(self.rng.choice(COUNTS[0], p=COUNTS[1]))

    def drawn_pair(self) -> RealPair:
        return self.pairs[int(self.rng.choice(len(self.pairs), p=self.pair_chance))]

    def sample(self, size: int, count: int, bordered: bool) -> TrainingSample:
        """A real or a simulated sample; a simulated one where no pair has the bands or the room."""
        drawn = None
        if self.real and self.rng.random() < self.real:
            drawn = self.real_pair(size, count)
        return drawn or self.pair(size, count, bordered)

    def truth(self, size: int) -> tuple[np.ndarray, int]:
        """A valid crop (all bands of its stack, size, size) at a random scale and orientation, and the number of its
        bands that PAN can see. Raises InputError if none is found."""
        rng = self.rng
        for _ in range(TRIES):
            synthetic = bool(self.synthetic) and rng.random() < self.share
            if synthetic:
                stack = self.synthetic[int(rng.integers(len(self.synthetic)))]
            else:
                stack = self.scenes[int(rng.choice(len(self.scenes), p=self.chance))]
            factor = self._factor(stack, synthetic)
            side = size * factor
            rows, cols = stack.valid.shape
            if min(rows, cols) < side:
                continue
            r, c = rng.integers(rows - side + 1), rng.integers(cols - side + 1)
            window = np.s_[r : r + side, c : c + side]
            if not stack.valid[window].all():
                continue
            crop = stack.data[:, *window]
            crop = crop.reshape(len(crop), size, factor, size, factor).mean((2, 4))
            if (crop.reshape(len(crop), -1).std(1) < 1e-3 * crop.max()).any():
                continue
            crop = np.rot90(crop, int(rng.integers(4)), (1, 2))
            crop = np.ascontiguousarray(crop[:, :, ::-1] if rng.random() < 0.5 else crop, dtype=np.float32)
            return crop, stack.visible
        raise InputError(
            f"no usable {size} x {size} crop in {TRIES} tries: the scenes are nearly all nodata or constant"
        )

    def _factor(self, stack: LoadedScene, synthetic: bool) -> int:
        """By how much a crop is averaged down: fine images as far as their edges stay those of a PAN."""
        if synthetic:
            return int(self.rng.choice([1, 2], p=[0.8, 0.2]))
        if not stack.is_fine:
            return int(self.rng.choice([1, 2, 3], p=[0.4, 0.4, 0.2]))
        assert stack.pixel is not None
        most = int(np.clip(COARSEST / stack.pixel, 1, 4))
        return 1 if most == 1 or self.rng.random() < 0.3 else int(self.rng.integers(2, most + 1))

    def choose_bands(self, crop: np.ndarray, count: int) -> np.ndarray:
        """`count` bands in order of wavelength; missing ones are mixed from their neighbours."""
        rng, have = self.rng, len(crop)
        if have >= count:
            picked = crop[np.sort(rng.choice(have, count, replace=False))]
            return picked[[2, 1, 0, 3]] if count == 4 and self.bands and rng.random() < 0.2 else picked
        position = np.clip(np.linspace(0, have - 1, count) + rng.normal(0, 0.2, count), 0, have - 1)
        lower = np.clip(np.floor(position).astype(int), 0, have - 2)
        part = (position - lower)[:, None, None]
        return (1 - part) * crop[lower] + part * crop[lower + 1]

    def pair(self, size: int, count: int, bordered: bool = False) -> TrainingSample:
        """A simulated sample with `count` bands, of a scene that ends within it if it is `bordered`."""
        rng, margin = self.rng, FILL if bordered else sensing.EDGE
        crop, visible = self.truth(size - 2 * (margin - sensing.EDGE))
        crop = sensing.lit(crop, rng)
        if visible >= 3 and rng.random() < 0.6:
            crop = crop[:visible]
        seen = sensing.observe(self.choose_bands(crop, count), crop, rng, ends=bordered)
        if bordered:
            seen = seen.ended(FILL)
        pan_window, ms_window = seen.windows
        pan, ms = torch.from_numpy(seen.pan).float()[None, None], torch.from_numpy(seen.ms).float()[None]
        inputs = inputs_at(seen.phase, pan_window, pan, pan_window, ms, ms_window, [seen.gain])
        truth = torch.from_numpy(seen.truth).float()[None]
        sample = TrainingSample(inputs, SceneStats.fit(inputs), truth, seen.phase.rows.ratio, margin=margin)
        known = inputs.map(lambda t: t[sample.inner])
        stats = SceneStats.fit(known)
        if rng.random() < WHOLE:
            ideal = Inputs(known.pan, truth[sample.inner], known.pan.expand_as(known.expanded))
            stats = replace(stats, intensity=SceneStats.fit(ideal).intensity)
        return sample._replace(stats=unlike(stats, rng))

    def real_pair(self, size: int, count: int) -> TrainingSample | None:
        """A real sample with `count` bands in the files' order, wholly valid; None if no pair has one."""
        rng = self.rng
        chance = self.pair_chance * [p.bands >= count for p in self.pairs] * (self.rooms >= size)
        if not chance.any():
            return None
        for _ in range(TRIES // 40):
            pair = self.pairs[int(rng.choice(len(self.pairs), p=chance / chance.sum()))]
            rows, cols = pair.valid.shape
            r, c = int(rng.integers(rows - size + 1)), int(rng.integers(cols - size + 1))
            bands = np.sort(rng.choice(pair.bands, count, replace=False))
            sample = crop_pair(pair, Window.at(r, c, (size, size)), bands)
            turns, flip = int(rng.integers(4)), bool(rng.random() < 0.5)
            if sample is None:
                continue

            def turned(t: Tensor, turns: int = turns, flip: bool = flip) -> Tensor:
                t = t.rot90(turns, (-2, -1))
                return (t.flip(-1) if flip else t).contiguous()

            return sample._replace(inputs=sample.inputs.map(turned), truth=turned(sample.truth))
        return None


def crop_pair(pair: RealPair, window: Window, bands: np.ndarray) -> TrainingSample | None:
    """The sample of a window of the truth's grid; None if it, or what the operators see around it, is not valid."""
    wide = window.widened(CONTEXT) & Window.at(0, 0, pair.valid.shape)
    coarse = pair.phase.ms_window(wide) & Window.at(0, 0, pair.ms_valid.shape)
    if not pair.valid[wide.slices].all() or not pair.ms_valid[coarse.slices].all():
        return None
    truth = pair.truth[:, *window.slices][bands]
    if (truth.reshape(len(truth), -1).std(1) < 1e-3 * truth.max()).any():
        return None
    pan = torch.from_numpy(pair.pan[:, *wide.slices])[None]
    ms = torch.from_numpy(pair.ms[:, *coarse.slices][bands])[None]
    inputs = inputs_at(pair.phase, window, pan, wide, ms, coarse, [pair.gains[b] for b in bands])
    truth = torch.from_numpy(truth).float()[None]
    return TrainingSample(inputs, SceneStats.fit(inputs), truth, pair.phase.mean_ratio, True)


def drawn_for_validation(sampler: Sampler, number: int) -> list[TrainingSample]:
    """Samples to judge a network on: the same for the same scenes, real ones as often as in training."""
    size = min(VALIDATION_SIZE, sampler.sizes[-1][0])
    made = []
    for i in range(number):
        drawn = None
        if sampler.real and sampler.rng.random() < sampler.real:
            drawn = sampler.real_pair(size, sampler.bands or sampler.drawn_pair().bands)
        made.append(drawn or sampler.pair(size, sampler.bands or 4, bordered=i % 5 < 5 * BORDERED))
    return made
