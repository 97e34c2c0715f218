"""How a simulated sensor sees a scene: all that a training sample varies stands here.

The truth is each band through the optics of the PAN, in register with the PAN: as sharp as the PAN and where the PAN
is. Everything else that real products show is put into the MS (its MTF per band and axis, sharpening on the ground,
displacement of the whole and of single bands, noise, aliasing, rounding) or into the PAN (response, also beyond the
bands, contrast, noise, rounding). All lengths are PAN pixels unless said, all gains are MTF gains at Nyquist.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from ..physics import mtf_sigma
from ..raster.geometry import Axis, Phase, Window

OPTICS = (0.12, 0.8)
"""Range of the gain, at the PAN's Nyquist frequency, of the optics that PAN and truth share; drawn by its logarithm."""
SHARED_SHARPENING, PAN_OFF = 0.2, 0.04
"""Share of the samples whose PAN and truth are sharpened alike, and the deviation by which PAN lies off the truth."""
SOFT, USUAL, CRISP = (0.03, 0.2), (0.2, 0.42), (0.42, 0.65)
"""Ranges of the MS's gain: products that were resampled, optics as they are built, and aliased ones."""
SHARPENED, OVERSHOOT = 0.35, (0.2, 1.2)
"""Share of the MS that are sharpened on the ground, ms + a (ms - gauss(ms)), and the range of a: it overshoots."""
MS_OFF, BANDS_OFF, BANDS_FAR = 0.12, 0.08, 0.35
"""Deviations by which the MS lies off as a whole, and its bands from each other: usually, and in three of ten samples.
Registration corrects what is more."""
UNKNOWN = 0.1
"""Share of the samples whose gain is not measured: the table of sensors stands in, with 0.3."""
EVEN = 6.0
"""Concentration of the PAN's weights on its channels in two of three samples: detectors see their span about evenly. In
the others one channel may count for most of it."""
BENT = 0.03
"""Deviation of the logarithm of the power that PAN's contrast is raised to: detectors are nearly linear."""
UNSEEN, HIDDEN = 0.15, (0.02, 0.3)
"""Share of the samples whose PAN sees what no band does, and the range of how much of it that is, drawn by its
logarithm. Of real scenes, the bands explain 99.5 to 99.9 % of the PAN once details of a few MS pixels are left out."""
RESAMPLED, TURNED, PITCH = 0.2, 45.0, (0.9, 1.15)
"""Share of the MS that the sensor sampled on a grid of its own, the largest angle in degrees between that and the
product's, and the range of its pixels' side relative to the product's. What was aliased there cannot cancel against the
PAN seen on the product's grid: in the finest details that an MS shows, between 0.4 and 0.55 cycles a pixel, a fifth to
three quarters of the PAN's energy is unlike that of real bands, and a fiftieth of bands simulated without."""
KERNELS = {"bicubic": 0.7, "bilinear": 0.22, "nearest": 0.08}
"""How such an MS was brought to the product's grid, and how often."""
WARPED, WARP, KNOTS = 0.3, 0.2, 4
"""Share of the samples whose MS lies off here and there (parallax, terrain), the largest deviation of that in MS
pixels, and how many places of a side it is drawn for."""
PAN_NOISE, MS_NOISE = 0.01, 0.03
"""Largest deviation of the noise, relative to that of the image."""
RATIOS, SPAN = ((4.0, 0.6), (2.0, 0.17), (3.0, 0.05)), (1.5, 8.0)
"""Usual ratios and how often they are drawn; the rest of the samples have any ratio of the span."""
BITS = ((8, 0.15), (10, 0.15), (11, 0.4), (14, 0.3))
"""Digits that PAN and MS are rounded to, and how often."""
GAINS = tuple(0.03 * 1.4**i for i in range(11))
"""MTF gains that are tried where that of a sample is measured."""
EDGE = 12
"""Pixels at the border of a scene that sensors see beyond: what is simulated there is not right."""


@dataclass(frozen=True)
class SensedPair:
    """PAN (size, size) and MS (bands, rows, cols) of one scene, the truth (bands, size, size), the MS's phase as a file
    would state it, and the MTF gain that a measurement of the scene would find."""

    pan: np.ndarray
    ms: np.ndarray
    truth: np.ndarray
    phase: Phase
    gain: float

    @property
    def windows(self) -> tuple[Window, Window]:
        """All pixels of the PAN and of the MS."""
        return Window.at(0, 0, self.pan.shape), Window(0, self.ms.shape[1], 0, self.ms.shape[2])

    def ended(self, fill: int) -> SensedPair:
        """The pair without its outermost `EDGE` pixels, and with `fill` ones around that mirror it, as those around
        a file do."""
        size, cuts, pads, axes = len(self.pan), [], [], []
        for axis, count in zip(self.phase, self.ms.shape[1:], strict=True):
            first = round((EDGE - axis.offset) / axis.ratio)
            last = min(int((size - EDGE - axis.offset) / axis.ratio + 0.5), count)
            more = math.ceil(fill / axis.ratio) + 1
            cuts.append(slice(first, last))
            pads.append((more, more + math.ceil((size - EDGE - axis.offset) / axis.ratio) - last))
            axes.append(Axis(axis.ratio, axis.offset + axis.ratio * (first - more) - EDGE + fill))
        inner, around = slice(EDGE, -EDGE), (fill, fill)
        pan = np.pad(self.pan[inner, inner], around, mode="symmetric")
        truth = np.pad(self.truth[:, inner, inner], ((0, 0), around, around), mode="symmetric")
        ms = np.pad(self.ms[:, *cuts], ((0, 0), *pads), mode="symmetric")
        return SensedPair(pan, ms, truth, Phase(axes[0], axes[1]), self.gain)


def observe(scene: np.ndarray, others: np.ndarray, rng: np.random.Generator, ends: bool = False) -> SensedPair:
    """What a sensor drawn with `rng` makes of a scene.

    `scene` (bands, size, size) are the bands that the MS shall have, sharper than any sensor sees them; `others`
    (channels, size, size) are all channels that its PAN may see, those of the scene among them. `ends`: the MS begins
    where the PAN does once `EDGE` pixels are cut off.
    """
    size = scene.shape[-1]
    pan = pan_response(others, rng)
    optics = np.exp(rng.uniform(*np.log(OPTICS))) * np.exp(rng.normal(0, 0.1, 2))
    optics = np.clip(optics, *OPTICS)
    truth = seen(scene, optics, np.zeros(2))
    pan = seen(pan[None], optics, rng.normal(0, PAN_OFF, 2))[0]
    if rng.random() < SHARED_SHARPENING:
        strength, width = rng.uniform(0.1, 0.6), rng.uniform(0.7, 1.2)
        truth, pan = sharpened(truth, strength, width), sharpened(pan[None], strength, width)[0]
    pan = pan + rng.normal(0, rng.uniform(0, PAN_NOISE) * pan.std() + 1e-9, pan.shape)
    ratio, phase = geometry(size, rng, ends)
    if rng.random() < WARPED:
        scene = warped(scene, ratio * rng.uniform(0, WARP), rng)
    ms = ms_of(scene, phase, rng)
    relative = measured_gain(truth, ms, phase)
    known = rng.random() >= UNKNOWN or relative < 0.15
    gain = np.clip(relative * np.exp(rng.normal(0, 0.08)), 0.035, 0.9) if known else 0.3
    return SensedPair(rounded(pan[None], rng)[0], rounded(ms, rng), truth, phase, float(gain))


def measured_gain(truth: np.ndarray, ms: np.ndarray, phase: Phase) -> float:
    """The MTF gain through which the mean of the truth is most like that of the MS, as registration finds it."""
    size, side = truth.shape[-1], ms.shape[-1]
    inner = (slice(EDGE // 4, -(EDGE // 4)),) * 2
    target = ms.mean(0)[inner].ravel()
    target = target - target.mean()
    alike = []
    for gain in GAINS:
        rows, cols = (_gaussian(a.ms_centres((0, side)), size, mtf_sigma(gain, a.ratio)) for a in phase)
        seen_so = _applied(truth.mean(0), rows, cols)[inner].ravel()
        seen_so = seen_so - seen_so.mean()
        alike.append(float(seen_so @ target) / (float(np.linalg.norm(seen_so)) + 1e-9))
    best, off = int(np.argmax(alike)), 0.0
    if 0 < best < len(GAINS) - 1:  # the vertex of the parabola through the three
        before, at, after = alike[best - 1 : best + 2]
        off = 0.5 * (before - after) / min(before - 2 * at + after, -1e-12)
    return float(GAINS[0] * (GAINS[1] / GAINS[0]) ** (best + off))


def pan_response(channels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """PAN (size, size): a mean of the channels, now and then with something that none of them shows, with a
    contrast and an offset of its own."""
    picked = channels[rng.choice(len(channels), min(len(channels), 8), replace=False)]
    evenness = EVEN if rng.random() < 0.65 else 0.9
    pan = np.tensordot(rng.dirichlet(np.full(len(picked), evenness)), picked, 1)
    if rng.random() < UNSEEN:
        deviations = picked - picked.mean((1, 2), keepdims=True)
        deviations /= picked.std((1, 2), keepdims=True) + 1e-9
        mixed = np.tensordot(rng.normal(0, 0.4, len(picked)), np.clip(deviations, -2.5, 2.5), 1)
        share = np.exp(rng.uniform(*np.log(HIDDEN)))
        pan = (1 - share) * pan + share * pan.mean() * np.exp(mixed)
    level = pan.mean() + 1e-6
    pan = level * (np.clip(pan, 0, None) / level) ** np.exp(rng.normal(0, BENT))
    return rng.uniform(0.7, 1.4) * pan + rng.uniform(-0.1, 0.3) * level


def lit(channels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A scene's channels in another light: contrasts as of linear detectors and of stretched pictures, saturated bright
    roofs, haze."""
    if rng.random() < 0.6:
        level = channels.mean((1, 2), keepdims=True) + 1e-6
        power = np.exp(rng.normal(0.1, 0.25) + rng.normal(0, 0.06, (len(channels), 1, 1)))
        channels = level * (np.clip(channels, 0, None) / level) ** power
    if rng.random() < 0.12:
        channels = np.minimum(channels, np.percentile(channels, rng.uniform(95, 99.8), axis=(1, 2), keepdims=True))
    if rng.random() < 0.4:
        channels = channels + rng.uniform(0, 0.6) * channels.mean((1, 2), keepdims=True)
    return channels


def geometry(size: int, rng: np.random.Generator, ends: bool = False) -> tuple[float, Phase]:
    """A ratio and the phase of the MS in a PAN of `size` pixels: any, or with an edge at `EDGE`, or near it."""
    ratios, chances = zip(*RATIOS, strict=True)
    drawn = rng.choice(len(ratios) + 1, p=[*chances, 1 - sum(chances)])
    ratio = float(ratios[drawn]) if drawn < len(ratios) else float(rng.uniform(*SPAN))
    offsets = rng.uniform(0, size - int(size // ratio) * ratio + 1e-9, 2) + rng.uniform(-0.5, 0.5, 2)
    if ends:
        offsets = EDGE - ratio * math.ceil(EDGE / ratio) + rng.uniform(-0.5, 0.5, 2) * (rng.random() < 0.5)
    return ratio, Phase.of((ratio, ratio), (float(offsets[0]), float(offsets[1])))


def ms_of(scene: np.ndarray, phase: Phase, rng: np.random.Generator) -> np.ndarray:
    """The MS (bands, rows, cols) of a scene, sampled on the product's grid or on one of its own."""
    size, ratio = scene.shape[-1], phase.rows.ratio
    side = int(size // ratio)
    kind = (SOFT, USUAL, CRISP)[rng.choice(3, p=[0.3, 0.45, 0.25])]
    middle = float(np.exp(rng.uniform(*np.log(kind))))
    gains = np.clip(middle * np.exp(rng.normal(0, 0.08, (len(scene), 2))) * np.exp(rng.normal(0, 0.08, 2)), 0.02, 0.8)
    spread = BANDS_FAR if rng.random() < 0.3 else BANDS_OFF
    off = rng.normal(0, MS_OFF, 2) + rng.normal(0, spread, (len(scene), 2))
    grid = RawGrid.drawn(phase, side, rng) if rng.random() < RESAMPLED else None
    pitch, at = (1.0, [a.ms_centres((0, side)) for a in phase]) if grid is None else (grid.pitch, [np.arange(size)] * 2)
    drawn = list(zip(gains, off, strict=True))
    rows, cols = (
        np.stack([_gaussian(at[i] + o[i], size, pitch * mtf_sigma(g[i], ratio)) for g, o in drawn]) for i in range(2)
    )
    ms = _applied(scene, rows, cols)
    if grid is not None:
        ms = _at(ms, grid.centres, "bicubic")
    if rng.random() < SHARPENED:
        ms = np.clip(sharpened(ms, rng.uniform(*OVERSHOOT), rng.uniform(0.6, 1.0)), 0, None)
    noise = rng.uniform(0, MS_NOISE) * ms.std((1, 2), keepdims=True)
    ms = ms + rng.normal(0, 1, ms.shape) * noise
    return ms if grid is None else _at(ms, grid.places, grid.kernel)


@dataclass(frozen=True)
class RawGrid:
    """The grid that a sensor samples on, turned against the product's, and how it is brought there.

    `centres` (2, n, n) are its pixels' places in the PAN, rows and columns; `places` (2, side, side) those of the
    product's pixels in it.
    """

    pitch: float
    centres: np.ndarray
    places: np.ndarray
    kernel: str

    @classmethod
    def drawn(cls, phase: Phase, side: int, rng: np.random.Generator) -> RawGrid:
        angle = math.radians(rng.uniform(-TURNED, TURNED) if rng.random() < 0.6 else rng.normal(0, 3))
        pitch = float(rng.uniform(*PITCH))
        product = np.stack(np.meshgrid(*(a.ms_centres((0, side)) for a in phase), indexing="ij"))
        middle = product.mean((1, 2)) + rng.uniform(-1, 1, 2) * phase.rows.ratio
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        step = np.array([a.ratio for a in phase]).mean() * pitch
        places = np.tensordot(turn, (product - middle[:, None, None]) / step, 1)
        reach = math.ceil(np.abs(places).max()) + 2
        raw = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 2, indexing="ij"))
        centres = np.tensordot(turn.T, raw * step, 1) + middle[:, None, None]
        return cls(pitch, centres, places + reach, str(rng.choice(list(KERNELS), p=list(KERNELS.values()))))


def _at(image: np.ndarray, places: np.ndarray, kernel: str) -> np.ndarray:
    """Bands (bands, n, n) at places (2, rows, cols) in pixels; beyond the border the nearest."""
    size = image.shape[-1]
    grid = torch.from_numpy(np.ascontiguousarray((places[::-1] / (size - 1) * 2 - 1).transpose(1, 2, 0))).float()
    bands = torch.from_numpy(np.asarray(image, np.float32))[None]
    sampled = torch.nn.functional.grid_sample(bands, grid[None], kernel, padding_mode="border", align_corners=True)
    return sampled[0].numpy()


def _gaussian(centres: np.ndarray, size: int, sigma: float) -> np.ndarray:
    """Weights (centres, size) of pixels around centres: an MTF kernel is one but for its window (`physics.mtf_kernel`).
    Beyond the border there is nothing: the loss leaves a margin out."""
    weights = np.exp(-0.5 * ((np.arange(size) - centres[:, None]) / sigma) ** 2) + 1e-30
    return weights / weights.sum(1, keepdims=True)


def _applied(image: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """rows @ image @ cols.T in single precision and by torch, which keeps to the threads that a training may have."""
    left, middle, right = (torch.from_numpy(np.asarray(a, np.float32)) for a in (rows, image, cols))
    return (left @ middle @ right.mT).numpy()


def seen(image: np.ndarray, gains: np.ndarray, off: np.ndarray) -> np.ndarray:
    """Square bands through an MTF with these gains of rows and of columns at their own Nyquist, displaced by `off`."""
    size = image.shape[-1]
    at = np.arange(size)
    rows, cols = (_gaussian(at + o, size, mtf_sigma(g, 1.0)) for g, o in zip(gains, off, strict=True))
    return _applied(image, rows, cols)


def warped(image: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """Square bands displaced by a smooth field of that deviation in pixels."""
    size = image.shape[-1]
    knots = torch.from_numpy(rng.normal(0, 2 * deviation / size, (1, 2, KNOTS, KNOTS))).float()
    field = torch.nn.functional.interpolate(knots, (size, size), mode="bicubic", align_corners=True)
    at = torch.linspace(-1, 1, size)
    where = torch.stack(torch.meshgrid(at, at, indexing="ij"), -1) + field[0].movedim(0, -1)
    return _at(image, (where.movedim(-1, 0).numpy() + 1) / 2 * (size - 1), "bicubic")


def sharpened(image: np.ndarray, strength: float, width: float) -> np.ndarray:
    """Square bands and `strength` times what a Gaussian of that width takes from them."""
    rows, cols = (_gaussian(np.arange(n), n, width) for n in image.shape[-2:])
    return image + strength * (image - _applied(image, rows, cols))


def rounded(bands: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Bands in whole numbers of a drawn depth, of which the brightest pixel uses a third or more."""
    depths, chances = zip(*BITS, strict=True)
    step = np.abs(bands).max() / (rng.uniform(0.35, 1.0) * 2.0 ** rng.choice(depths, p=chances)) + 1e-12
    return np.round(bands / step) * step
