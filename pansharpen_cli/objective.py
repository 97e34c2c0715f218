"""What networks are trained towards: the composite loss against the truth of samples, and validation with indices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor

from . import metrics
from .errors import InputError
from .models.base import Backbone
from .physics import gaussian_matrix
from .recipe import LossWeights
from .samples import Sample
from .tailor import autocast

MARGIN = 12
"""Pixels at the border of a training crop that the loss leaves out: the degradation saw repeated edges there."""


def fused_of(network: Backbone, samples: Sequence[Sample], precision: torch.dtype) -> list[Tensor]:
    """What the network makes of samples of one size and band count, each (1, bands, rows, cols) in DN."""
    encoded = torch.cat([network.encode(s.inputs, s.stats) for s in samples])
    with autocast(encoded.device, precision):
        residual = network.map(network.extract(encoded))
    parts = residual.float().chunk(len(samples))
    return [
        network.base(s.inputs, s.stats) + network.spread(part, s.inputs, s.stats)
        for part, s in zip(parts, samples, strict=True)
    ]


def auxiliary(network: Backbone, samples: Sequence[Sample], precision: torch.dtype) -> Tensor:
    """Mean of the term of its own that a network may have; zero for one without."""
    with autocast(samples[0].truth.device, precision):
        terms = [network.auxiliary(s.inputs, s.stats) for s in samples]
    return torch.stack([samples[0].truth.new_zeros(()) if t is None else t.float() for t in terms]).mean()


def loss_terms(fused: Sequence[Tensor], samples: Sequence[Sample]) -> dict[str, Tensor]:
    """Means over the samples of the terms of the loss, in units of each band's standard deviation."""
    terms: dict[str, list[Tensor]] = {f.name: [] for f in fields(LossWeights)}
    inner = (..., slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
    low, near = (torch.from_numpy(gaussian_matrix(fused[0].shape[-1], s)).to(fused[0]) for s in (2.0, 1.0))
    for image, sample in zip(fused, samples, strict=True):
        std, pan = sample.stats.std[:, None, None], sample.inputs.pan
        error = (image - sample.truth) / std
        detail = pan - low @ pan @ low.T
        activity = torch.nn.functional.avg_pool2d(detail**2, 9, 1, 4, count_include_pad=False)[inner]
        flat = (activity <= torch.quantile(activity.flatten(), 0.3)).float()
        error_detail = (error - low @ error @ low.T)[inner].abs().clamp(max=10)
        clamped = error[inner].abs().clamp(max=10)
        terms["l1"].append(clamped.mean())
        terms["squared"].append(clamped.square().mean())
        terms["flat"].append((error_detail * flat).mean() / flat.mean())
        # variances of values far from zero would drown in float32's rounding
        level = sample.truth[inner].mean((-2, -1), keepdim=True)
        terms["structure"].append(1 - structure((image[inner] - level) / std, (sample.truth[inner] - level) / std))
        terms["sharpness"].append((energy(image, near, std) / energy(sample.truth, near, std)).log().abs().mean())
    return {name: torch.stack(values).mean() for name, values in terms.items()}


def energy(image: Tensor, low: Tensor, std: Tensor) -> Tensor:
    """Energy of what a low pass takes from each band, in units of its deviation, and a little that stands for noise."""
    inner = (..., slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
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
    network: Backbone, held_out: Sequence[Sample], weights: LossWeights, precision: torch.dtype
) -> dict[str, float]:
    """Means over samples: the `validation` loss and its terms, `q2n` and `ergas`."""
    seen: list[dict[str, float]] = []
    inner = (0, slice(None), slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
    for sample in held_out:
        with torch.no_grad():
            fused = fused_of(network, [sample], precision)
            terms = loss_terms(fused, [sample])
        figures = {"validation": float(composite(terms, weights))} | {k: float(v) for k, v in terms.items()}
        truth, image = (t[inner].double().cpu() for t in (sample.truth, fused[0]))
        # Q2n rounds to integers: reflectances are brought to an 11-bit range first
        scale = 1.0 if sample.stats.scale >= 100 else 2047 / sample.stats.scale
        figures |= {"q2n": math.nan, "ergas": math.nan}
        with suppress(InputError):  # of figures that a sample does not define
            figures["q2n"] = metrics.q2n(truth, image, scale=scale)
            figures["ergas"] = metrics.ergas(truth, image, sample.ratio)
        seen.append(figures)
    return {key: mean_of([s[key] for s in seen]) for key in seen[0]}


def mean_of(values: Sequence[float]) -> float:
    """Mean of those that are numbers."""
    known = [v for v in values if not math.isnan(v)]
    return float(np.mean(known)) if known else math.nan
