"""Errors pixel by pixel against a reference: per band, and the angle between spectra."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ...errors import InputError
from ...raster.geometry import Window
from .blocks import Paired, not_nan


class Errors(Paired):
    """Sums per band over the valid pixels, for the indices that compare pixel with pixel."""

    pixels = 0
    _origin: Tensor | None = None
    _sums = torch.zeros(7, 1, dtype=torch.float64)

    def _add(self, g: Tensor, f: Tensor, mask: Tensor, own: Window) -> None:
        g, f = g[:, mask], f[:, mask]
        if not g.shape[1]:
            return
        if self._origin is None:
            # Values from one pixel of the image: exactly zero for a constant band, and hardly any cancellation.
            self._origin = torch.stack([g[:, :1], f[:, :1]])
        error, g, f = f - g, g - self._origin[0], f - self._origin[1]
        products = [torch.linalg.vecdot(x, y) for x, y in ((error, error), (g, g), (f, f), (g, f))]
        self._add_up(error.sum(1), g.sum(1), f.sum(1), *products)
        self.pixels += g.shape[1]

    def compute(self) -> Any:
        """Itself: it has many figures."""
        return self

    def _means(self) -> Tensor:
        """Means per band of the error, g, f, error^2, g^2, f^2 and g f, g and f from `_origin`: (7, bands)."""
        if not self.pixels:
            raise InputError("there is no valid pixel to compare the images at")
        not_nan(self._sums.sum(), "the error of a band")
        return self._sums / self.pixels

    def bias(self) -> Tensor:
        """Mean of fused - reference per band (bands,), DN; like all figures, `InputError` without a valid pixel."""
        return self._means()[0]

    def rmse(self) -> Tensor:
        """Root mean square error per band (bands,), DN."""
        return self._means()[3].sqrt()

    def reference_mean(self) -> Tensor:
        """Mean of the reference per band (bands,), DN."""
        means = self._means()[1]
        return means if self._origin is None else self._origin[0, :, 0] + means

    def ergas(self, ratio: float) -> float:
        """100 / ratio * sqrt(mean over bands of MSE / mean(reference band)^2); `ratio`: MS pixel size in PAN pixels.

        Wald, "Quality of high resolution synthesised images", 2000. `InputError` when a reference band has mean 0.
        """
        mean = self.reference_mean()
        if (mean == 0).any():
            raise InputError("ERGAS is undefined: a reference band has a mean of zero")
        return not_nan(100 / ratio * (self.rmse() / mean).square().mean().sqrt(), "ERGAS")

    def psnr(self, peak: float) -> float:
        """Mean over bands of 10 log10(peak^2 / MSE), dB, `peak` in DN.

        A band without any error would make it infinite, and is left out; it is infinite if no band has one.
        """
        decibels = 20 * torch.log10(peak / self.rmse())
        finite = decibels[decibels.isfinite()]
        return float(finite.mean()) if len(finite) else math.inf

    def reference_deviation(self) -> Tensor:
        """Standard deviation of the reference per band (bands,), DN."""
        means = self._means()
        return (means[4] - means[1].square()).clamp(min=0).sqrt()

    def reference_varies(self) -> bool:
        """Whether any band of the reference is not constant."""
        means = self._means()
        return bool((means[4] > means[1].square()).any())

    def cross_correlation(self) -> float:
        """Mean over bands of Pearson's correlation; a fused band that is constant counts 0.

        `InputError` when a reference band is constant.
        """
        _, g, f, _, gg, ff, gf = self._means()
        return mean_correlation(ff - f * f, gg - g * g, gf - g * f, "the cross-correlation", "a reference band")


def mean_correlation(var_x: Tensor, var_y: Tensor, cov: Tensor, what: str, of: str) -> float:
    """Mean over bands of Pearson's correlation; a band of x that does not vary counts 0, one of y is an error."""
    if (var_y <= 0).any():
        raise InputError(f"{what} is undefined: {of} is constant")
    return not_nan(torch.where(var_x <= 0, 0.0, cov / (var_x * var_y).sqrt()).mean(), what)


class Reprojection(Errors):
    """How far the fused image, degraded to the MS grid with the MTF and at the exact phase, is from the MS itself: the
    reference."""

    def compute(self) -> dict[str, Any]:
        """Per band `rmse` and `bias` (degraded - MS) in DN and `relative` (rmse / |mean of the MS|), and `pixels`.

        `relative` is None for a band of mean zero. `InputError` when there was no valid pixel.
        """
        errors, means = self.rmse().tolist(), self.reference_mean().tolist()
        return {
            "rmse": errors,
            "bias": self.bias().tolist(),
            "relative": [error / abs(mean) if mean else None for error, mean in zip(errors, means, strict=True)],
            "pixels": self.pixels,
        }


class Angles(Paired):
    """SAM, the spectral angle mapper in degrees: mean over pixels of acos(<g, f> / (|g| |f|)), 0 is best.

    Yuhas et al. 1992. Pixels with a norm of zero have no angle and are left out, like the invalid ones.
    """

    def _add(self, g: Tensor, f: Tensor, mask: Tensor, own: Window) -> Tensor:
        """The angles of the piece's pixels, NaN where there is none."""
        angles, exists = spectral_angles(g, f)
        mask = mask & exists
        self._add_up(torch.where(mask, angles, 0.0).sum(), mask.sum())
        return angles.masked_fill(~mask, math.nan)

    def compute(self) -> float:
        """SAM of all pieces so far, in degrees; `InputError` when no pixel is left."""
        return self._mean("SAM", "valid pixel that is not zero in one of the images")


def spectral_angles(g: Tensor, f: Tensor) -> tuple[Tensor, Tensor]:
    """Angles in degrees between the spectra of (bands, ...), and where they exist: both (...)."""
    lengths, chord = [torch.zeros_like(x[0]) for x in (g, f)], torch.zeros_like(g[0])
    for length, x in zip(lengths, (g, f), strict=True):
        for band in x:
            length.addcmul_(band, band)
        length.sqrt_()
    # by the chord between the two directions, which is exact for small angles, too
    for a, b in zip(g, f, strict=True):
        difference = (a / lengths[0]).addcdiv_(b, lengths[1], value=-1)
        chord.addcmul_(difference, difference)
    return chord.sqrt_().div_(2).clamp_(max=1).asin_().mul_(2).rad2deg_(), (lengths[0] != 0) & (lengths[1] != 0)
