"""What networks are trained towards: the composite loss against the truth of samples, and validation with indices."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor

from ..device import autocast
from ..errors import InputError
from ..models.base import Backbone
from ..physics import gaussian_matrix
from ..quality import metrics
from .sampler import TrainingSample
from .settings import LossWeights

EXTREMES, POWER, DARKEST = (0.01, 0.99), 0.62, 0.03
"""The picture that a band is shown as: the quantiles that are black and white, its power, and the brightness below
which nothing shows any more."""
EASIEST = 0.02
"""Least error that others are relative to, in units of the bands' deviations."""


def fused_of(network: Backbone, samples: Sequence[TrainingSample], precision: torch.dtype) -> list[Tensor]:
    """What the network makes of samples of one size and band count, each (1, bands, rows, cols) in DN."""
    encoded = torch.cat([network.encode(s.inputs, s.stats) for s in samples])
    with autocast(encoded.device, precision):
        residual = network.map(network.extract(encoded))
    parts = residual.float().chunk(len(samples))
    return [
        network.finish(part, network.base(s.inputs, s.stats), s.inputs, s.stats)
        for part, s in zip(parts, samples, strict=True)
    ]


def auxiliary(network: Backbone, samples: Sequence[TrainingSample], precision: torch.dtype) -> Tensor:
    """Mean of the term of its own that a network may have; zero for one without."""
    with autocast(samples[0].truth.device, precision):
        terms = [network.auxiliary(s.inputs, s.stats) for s in samples]
    return torch.stack([samples[0].truth.new_zeros(()) if t is None else t.float() for t in terms]).mean()


def loss_terms(fused: Sequence[Tensor], samples: Sequence[TrainingSample], weights: LossWeights) -> dict[str, Tensor]:
    """Means over the samples of the terms of the loss that weigh something; see `LossWeights` for their units."""
    wanted = [f.name for f in fields(weights) if getattr(weights, f.name)]
    terms: dict[str, list[Tensor]] = {name: [] for name in wanted}
    lows = tuple(torch.from_numpy(gaussian_matrix(fused[0].shape[-1], s)).to(fused[0]) for s in (2.0, 1.0))
    for image, sample in zip(fused, samples, strict=True):
        known = _in_deviations(image, sample, *lows) | _of_the_scale(image, sample)
        for name in wanted:
            terms[name].append(known[name]())
    return {name: torch.stack(values).mean() for name, values in terms.items()}


def _in_deviations(image: Tensor, sample: TrainingSample, low: Tensor, near: Tensor) -> dict[str, Callable[[], Tensor]]:
    """The terms in units of each band's standard deviation, errors relative to those of the sample's injection."""
    inner = sample.inner
    std, truth, pan = sample.stats.std[:, None, None], sample.truth, sample.inputs.pan
    error = (image - truth) / (std * difficulty(sample)) * slope(truth, inner)
    clamped = error[inner].abs().clamp(max=10)

    def flat() -> Tensor:
        detail = pan - low @ pan @ low.T
        activity = torch.nn.functional.avg_pool2d(detail**2, 9, 1, 4, count_include_pad=False)[inner]
        calm = (activity <= torch.quantile(activity.flatten(), 0.3)).float()
        return ((error - low @ error @ low.T)[inner].abs().clamp(max=10) * calm).mean() / calm.mean()

    def windowed() -> Tensor:
        level = truth[inner].mean((-2, -1), keepdim=True)  # variances of values far from zero would drown in rounding
        return 1 - structure((image[inner] - level) / std, (truth[inner] - level) / std)

    return {
        "l1": lambda: clamped.mean(),
        "squared": lambda: clamped.square().mean(),
        "flat": flat,
        "structure": windowed,
        "sharpness": lambda: (energy(image, near, std, inner) / energy(truth, near, std, inner)).log().abs().mean(),
    }


def slope(truth: Tensor, inner: tuple) -> Tensor:
    """How much a change of a pixel shows in a picture, relative to the mean over its band: more where it is dark.
    Pictures show values between robust extremes, raised to a power below one."""
    low, high = (truth[inner].flatten(-2).quantile(q, -1)[..., None, None] for q in EXTREMES)
    shown = ((truth - low) / (high - low).clamp(min=1e-9)).clamp(0, 1)
    rise = (shown + DARKEST).pow(POWER - 1)
    return rise / rise[inner].mean((-2, -1), keepdim=True)


def difficulty(sample: TrainingSample) -> Tensor:
    """Error of MTF-GLP-FS on a sample, in units of the bands' deviations: easy scenes count as much as hard ones."""
    inner = sample.inner
    inputs, stats = sample.inputs, sample.stats
    injected = inputs.expanded + stats.gain[:, None, None] * (inputs.pan - inputs.pan_low)
    error = ((injected - sample.truth) / stats.std[:, None, None])[inner]
    return error.square().mean().sqrt().clamp(min=EASIEST)


def _of_the_scale(image: Tensor, sample: TrainingSample) -> dict[str, Callable[[], Tensor]]:
    """The terms of PanTiny's composite loss, of values in units of the scene's scale ("Rethinking Pan-sharpening")."""
    inner = sample.inner
    a, b = (t[inner] / sample.stats.scale for t in (image, sample.truth))
    error = (a - b).abs()
    return {
        "charbonnier": lambda: (error.square() + 1e-6).sqrt().mean(),
        "similarity": lambda: 1 - metrics.similarity(a.flatten(0, 1), b.flatten(0, 1), 1.0).mean(),
        "focal": lambda: (((255 * error + 1e-6) ** 1.1 / 255) * error).mean(),  # eq. 8
    }


def energy(image: Tensor, low: Tensor, std: Tensor, inner: tuple) -> Tensor:
    """Energy of what a low pass takes from each band, in units of its deviation, and a little that stands for noise."""
    return (((image - low @ image @ low.T) / std)[inner]).square().mean((-2, -1)) + 1e-4


def composite(terms: Mapping[str, Tensor], weights: LossWeights) -> Tensor:
    """The weighted sum of the terms."""
    return torch.stack([getattr(weights, name) * value for name, value in terms.items()]).sum()


def structure(fused: Tensor, truth: Tensor) -> Tensor:
    """Mean over 16 x 16 windows of 2 cov / (var + var): the correlation and contrast of the universal quality index."""

    def windows(product: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(product, 16, 8)

    a, b = windows(fused), windows(truth)
    variances = windows(fused.square()) - a.square() + windows(truth.square()) - b.square()
    return ((2 * (windows(fused * truth) - a * b) + 5e-3) / (variances.clamp(min=0) + 5e-3)).mean()


def validate(
    network: Backbone, held_out: Sequence[TrainingSample], weights: LossWeights, precision: torch.dtype
) -> dict[str, float]:
    """Means over samples: the `validation` loss and its terms, `q2n` and `ergas`."""
    seen: list[dict[str, float]] = []
    for sample in held_out:
        with torch.no_grad():
            fused = fused_of(network, [sample], precision)
            terms = loss_terms(fused, [sample], weights)
        figures = {"validation": float(composite(terms, weights))} | {k: float(v) for k, v in terms.items()}
        truth, image = (t[sample.inner][0].double().cpu() for t in (sample.truth, fused[0]))
        # Q2n rounds to integers: reflectances are brought to an 11-bit range first
        scale = 1.0 if sample.stats.scale >= 100 else 2047 / sample.stats.scale
        figures |= {"q2n": math.nan, "ergas": math.nan}
        with suppress(InputError):  # of figures that a sample does not define
            figures["q2n"] = metrics.Q2n(scale).of(truth, image)
            figures["ergas"] = metrics.Errors().of(truth, image).ergas(sample.ratio)
        seen.append(figures)
    return {key: mean_of([s[key] for s in seen]) for key in seen[0]}


def mean_of(values: Sequence[float]) -> float:
    """Mean of those that are numbers."""
    known = [v for v in values if not math.isnan(v)]
    return float(np.mean(known)) if known else math.nan
