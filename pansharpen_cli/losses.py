"""The unsupervised losses of ERFT (arXiv 2508.07369, eq. 7-10) and the scene's own reduced-resolution pair.

All are mean absolute errors in units of each band's standard deviation, so that bands and terms are comparable; arrays
are (tiles, bands, rows, cols) in DN and `std` is (bands,).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .physics import Separable


def _l1(difference: Tensor, std: Tensor) -> Tensor:
    return (difference.abs() / std[:, None, None]).mean()


def spectral(fused: Tensor, ms: Tensor, down: Separable, std: Tensor) -> Tensor:
    """|| Down(blur(X)) - Y || (eq. 8): the degraded result against the MS at the exact phase."""
    return _l1(down(fused) - ms, std)


def spatial(fused: Tensor, pan: Tensor, pan_low: Tensor, blur: Separable, std: Tensor) -> Tensor:
    """|| X - blur(X) o (P / blur(P)) || (eq. 9), with `pan_low` = blur(P) per band.

    The quotient is kept between 1/4 and 4: a PAN near zero has no meaningful one.
    """
    floor = 1e-6 + 1e-3 * pan_low.abs().mean()
    quotient = (pan / pan_low.clamp(min=floor)).clamp(0.25, 4.0)
    return _l1(fused - blur(fused) * quotient, std)


def consistency(fused: Tensor, frozen: Tensor, std: Tensor) -> Tensor:
    """|| X* - X || (eq. 10): the tailored against the frozen network's output."""
    return _l1(fused - frozen, std)


def reduced(fused: Tensor, ms: Tensor, std: Tensor) -> Tensor:
    """The pair degraded once more by the ratio: its fusion against the MS itself (Wald's protocol)."""
    return _l1(fused - ms, std)


def calm(fused: Tensor, expected: Tensor, flat: Tensor, blur: Separable, std: Tensor) -> Tensor:
    """High-pass difference from `expected` where PAN is flat (`flat` weights (tiles, 1, rows, cols) in 0..1).

    The spectral term follows the ringing of an interpolated MS into places where PAN shows nothing; this one does not
    let it. `expected` is the high pass that PAN's own detail accounts for.
    """
    detail = fused - blur(fused)
    weight = flat / flat.mean().clamp(min=1e-6)
    return _l1(weight * (detail - expected), std)
