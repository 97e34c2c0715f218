"""The unsupervised losses of ERFT (arXiv 2508.07369, eq. 7-10) and the scene's own reduced-resolution pair.

All are mean absolute errors in units of each band's standard deviation, so that bands and terms are comparable; arrays
are (tiles, bands, rows, cols) in DN and `std` is (bands,).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from .physics import Separable


def _l1(difference: Tensor, std: Tensor) -> Tensor:
    return (difference.abs() / std[:, None, None]).mean()


def _inner(image: Tensor) -> Tensor:
    """Without the margin in which a tile's own border shows."""
    margin = 4 if image.shape[-1] >= 32 else 2
    return image[..., margin:-margin, margin:-margin]


def spectral(fused: Tensor, ms: Tensor, down: Separable, std: Tensor) -> Tensor:
    """|| Down(blur(X)) - Y || (eq. 8): the degraded result against the MS at the exact phase."""
    return _l1(down(fused) - ms, std)


def spatial(fused: Tensor, pan: Tensor, pan_low: Tensor, blur: Separable, std: Tensor) -> Tensor:
    """|| X - blur(X) o (P / blur(P)) || (eq. 9), with `pan_low` = blur(P) per band.

    The quotient is kept between 1/4 and 4: a PAN near zero has no meaningful one.
    """
    floor = 1e-6 + 1e-3 * pan_low.abs().mean()
    quotient = (pan / pan_low.clamp(min=floor)).clamp(0.25, 4.0)
    return _l1(_inner(fused - blur(fused) * quotient), std)


def consistency(fused: Tensor, frozen: Tensor, std: Tensor) -> Tensor:
    """|| X* - X || (eq. 10): the tailored against the frozen network's output."""
    return _l1(_inner(fused - frozen), std)


def reduced(fused: Tensor, ms: Tensor, std: Tensor) -> Tensor:
    """The pair degraded once more by the ratio: its fusion against the MS itself (Wald's protocol)."""
    return _l1(_inner(fused - ms), std)


@lru_cache
def _window_means(length: int, window: int) -> Tensor:
    """The means (windows, length) over windows a third apart: as a product far faster than pooling."""
    starts = torch.arange(0, length - window + 1, max(1, window // 3))[:, None]
    at = torch.arange(length)
    return ((at >= starts) & (at < starts + window)).double() / window


def quality_index(a: Tensor, b: Tensor, window: int = 32) -> Tensor:
    """Mean universal quality index over windows: (tiles, bands), of images (tiles, bands, rows, cols) in DN; `b` may be
    one band that all of `a` are compared with.

    Wang and Bovik, "A universal image quality index", SPL 2002; the index that D_s of HQNR compares across scales.
    """
    rows, cols = (_window_means(n, min(window, *a.shape[-2:])).to(a) for n in a.shape[-2:])

    def windows(product: Tensor) -> Tensor:
        return rows @ product @ cols.T

    centre_a, centre_b = (t.mean((-2, -1), keepdim=True) for t in (a, b))
    a, b = a - centre_a, b - centre_b
    mean_a, mean_b = windows(a), windows(b)
    # what float32 leaves of a window's variance is noise below this share of the whole image's
    floor = 1e-5 * (a.square() + b.square()).mean((-2, -1), keepdim=True) + 1e-12
    variances = windows(a.square()) - mean_a.square() + windows(b.square()) - mean_b.square()
    contrast = (2 * (windows(a * b) - mean_a * mean_b) + floor) / (variances.clamp(min=0) + floor)
    mean_a, mean_b = mean_a + centre_a, mean_b + centre_b
    level = 2 * mean_a * mean_b / (mean_a.square() + mean_b.square() + 1e-12)
    return (contrast * level).mean((-2, -1))


def similarity(index: Tensor, before: Tensor, gap: Tensor) -> Tensor:
    """How far the relation of each band with PAN is from that at the scale of the MS (D_s of QNR, Alparone et al.,
    PE&RS 2008), of tiles whose quality index with PAN (tiles, bands) was `before` when it lay `gap` (bands) too high.

    A tile says how much the index changed; what is missing is known from the whole scene, and asked of every tile
    alike: a few tiles that are changed much cost more than they bring.
    """
    return (gap + index - before).abs().mean()


def activity(fused: Tensor, pan: Tensor, flat: Tensor, low: Tensor) -> Tensor:
    """Flat-area activity of tiles: mean over bands of rms(flat) / rms(elsewhere) of the detail, over the same of PAN.

    1 is as calm as PAN, more is ringing or noise that PAN does not show. `flat` marks the pixels (tiles, 1, rows, cols)
    where PAN is flat, `low` (side, side) is the Gaussian low pass of one axis; a margin of its reach is left out.
    """
    inner = (..., slice(8, -8), slice(8, -8)) if fused.shape[-1] > 32 else (...,)
    flat = flat[inner]
    ratios = []
    for image in (fused, pan):
        energy = (image - low @ image @ low.T)[inner].square()
        total, inside = energy.sum((0, 2, 3)), (energy * flat).sum((0, 2, 3))
        outside = (total - inside) / (flat.numel() - flat.sum()).clamp(min=1)
        ratios.append((inside / flat.sum().clamp(min=1) / outside.clamp(min=1e-12) + 1e-12).sqrt())
    return (ratios[0] / ratios[1].clamp(min=1e-6)).mean()


def excess(value: Tensor, ceiling: float) -> Tensor:
    """How far a flat-area activity lies above its ceiling, as a share of it."""
    return (value / ceiling - 1).clamp(min=0)
