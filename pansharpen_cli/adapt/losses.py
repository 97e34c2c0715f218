"""The unsupervised losses of ERFT (arXiv 2508.07369, eq. 7-10) and the scene's own reduced-resolution pair.

All are mean absolute errors in units of each band's standard deviation, so that bands and terms are comparable; arrays
are (tiles, bands, rows, cols) in DN and `std` is (bands,).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..physics import Separable


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


def consistency(fused: Tensor, anchor: Tensor, std: Tensor) -> Tensor:
    """|| X* - X || (eq. 10): the tailored network's output against the frozen one's, or what else it is held to."""
    return _l1(_inner(fused - anchor), std)


def reduced(fused: Tensor, ms: Tensor, std: Tensor) -> Tensor:
    """The pair degraded once more by the ratio: its fusion against the MS itself (Wald's protocol)."""
    return _l1(_inner(fused - ms), std)


def sharpness(fused: Tensor, anchor: Tensor, low: Tensor, std: Tensor) -> Tensor:
    """How far the energy of each band's finest detail is from that of what it is held to, as a logarithm.

    An error that is asked for in the mean is lowest for bands that are softer than PAN. `low` (side, side) is the
    Gaussian low pass of one axis; energies of less than a hundredth of a band's deviation count as noise.
    """
    energies = [_inner((t - low @ t @ low.T) / std[:, None, None]).square().mean((0, 2, 3)) for t in (fused, anchor)]
    return ((energies[0] + 1e-4) / (energies[1] + 1e-4)).log().abs().mean()


def colour(fused: Tensor, ms: Tensor, down: Separable, std: Tensor) -> Tensor:
    """The spectral term (eq. 8) on means over 3 x 3 MS pixels. They average out the MS's aliasing and any sharpening on
    the ground, so that a clean result is not penalised for leaving them out."""
    difference = torch.nn.functional.avg_pool2d(down(fused) - ms, 3, 1)
    return _l1(difference, std)
