"""Detail against a reference: edges, structure, sharpness, and what lies beside edges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import InputError
from ...physics import sum_along
from ...raster.geometry import Window
from .blocks import (
    SSIM_REACH,
    SSIM_SIGMA,
    EnergySums,
    Index,
    Paired,
    as_bands,
    correlate,
    differences,
    eroded,
    gaussian,
    high_pass,
    inside_border,
    kept_of,
    not_nan,
    prepared_pair,
    same_size,
    widest,
    with_margin,
)
from .errors import Errors

SHARPNESS_SIGMA = 1.0
"""Standard deviation, in PAN pixels, of the Gaussian that the high pass of the sharpness takes away."""

SHARPNESS_REACH = 4
"""PAN pixels on each side that one value of that high pass depends on (4 sigma)."""

DEVIATION_SIZE = 5
"""Side of the window of PAN's local deviation, in PAN pixels."""

CALM = 0.12
"""PAN is calm beside an edge where its local deviation is under this share of the largest nearby."""

EDGE_SHARE = 0.4
"""Share of the pixels, those with the largest local deviation nearby, that counts as beside an edge."""


class SpatialCorrelation(Paired):
    """SCC: sum(g f) / sqrt(sum g^2 sum f^2) of Sobel gradient magnitudes g and f, over pixels and bands.

    Zhou et al. 1998, as the toolbox codes it: one pixel is dropped all around the image, zeros surround the rest, means
    are not removed. Pixels whose 3 x 3 window touches an invalid one are left out.
    """

    reach = 2
    _sums = torch.zeros(3, dtype=torch.float64)

    def _add(self, g: Tensor, f: Tensor, mask: Tensor, own: Window) -> None:
        inner = inside_border(own, mask.shape, 1)
        kept = eroded(mask[1:-1, 1:-1], 1)[inner]
        for a, b in zip(g, f, strict=True):
            x, y = (_gradient(band[1:-1, 1:-1])[inner][kept] for band in (a, b))
            self._add_up(x @ y, x @ x, y @ y)

    def compute(self) -> float:
        """SCC of all pieces so far, 1 is best; `InputError` when no pixel is left or an image has no gradient."""
        both, g, f = self._sums
        if g == 0 or f == 0:
            raise InputError("SCC is undefined: no valid pixel, or an image without any gradient")
        return not_nan(both / (g * f).sqrt(), "SCC")


def _gradient(x: Tensor) -> Tensor:
    """Sobel gradient magnitude of (rows, cols), surrounded by zeros."""
    x = F.pad(x, (1, 1, 1, 1))
    across, down = x[:, 2:] - x[:, :-2], x[2:] - x[:-2]
    across = across[:-2] + 2 * across[1:-1] + across[2:]
    down = down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]
    return (across.square() + down.square()).sqrt()


@dataclass(eq=False)
class StructuralSimilarity(Paired):
    """SSIM: mean over bands and over the 11 x 11 Gaussian windows (sigma 1.5) inside the image.

    Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004, with K1 = 0.01 and
    K2 = 0.03, as their `ssim.m`; `peak` is their L, in DN. Windows with an invalid pixel are left out.
    """

    peak: float
    reach = SSIM_REACH

    def _add(self, g: Tensor, f: Tensor, mask: Tensor, own: Window) -> None:
        if min(mask.shape) <= 2 * self.reach:
            return
        inside = slice(self.reach, -self.reach)
        inner = inside_border(own, mask.shape, self.reach)
        kept = eroded(mask, self.reach)[inside, inside][inner]
        for a, b in zip(g, f, strict=True):
            self._add_up(similarity(a, b, self.peak)[inner][kept].sum(), kept.sum())

    def compute(self) -> float:
        """SSIM of all pieces so far, 1 is best; `InputError` when there is no window of valid pixels."""
        size = 2 * self.reach + 1
        return self._mean("SSIM", f"{size} x {size} window of valid pixels")


def similarity(a: Tensor, b: Tensor, peak: float) -> Tensor:
    """SSIM of all windows inside two images (rows, cols) or (bands, rows, cols)."""
    taps = gaussian(SSIM_SIGMA, SSIM_REACH)
    mean_a, mean_b, squares, product = (correlate(x, taps, taps) for x in (a, b, a * a + b * b, a * b))
    squared_means, means = mean_a**2 + mean_b**2, mean_a * mean_b
    first, second = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    above = (2 * means + first) * (2 * (product - means) + second)
    return above / ((squared_means + first) * (squares - squared_means + second))


class Sharpness(Paired):
    """Energy of the high pass relative to the reference's, mean over bands: 1 is right, below it soft, above it crisp.

    High pass: x - gauss(x, sigma 1 pixel), cut at 4 sigma, edges of the image repeated; energy: sum of its squares.
    Pixels whose kernel touches an invalid one are left out, and so are bands whose reference is constant.
    """

    reach = SHARPNESS_REACH
    _sums = torch.zeros(2, 1, dtype=torch.float64)

    def _add(self, g: Tensor, f: Tensor, mask: Tensor, own: Window) -> None:
        kept = eroded(mask, self.reach)
        details = (kept_of(high_pass(x, mask, SHARPNESS_SIGMA, SHARPNESS_REACH), kept, own) for x in (g, f))
        self._add_up(*(torch.linalg.vecdot(x, x) for x in details))

    def compute(self) -> float:
        """The figure of all pieces so far; `InputError` when no pixel is left or the reference has no detail."""
        wanted, found = self._sums
        varying = wanted != 0
        if not varying.any():
            raise InputError(
                f"sharpness is undefined: no detail in the reference {self.reach} pixels from invalid ones"
            )
        return not_nan((found / wanted)[varying].mean(), "sharpness")


@dataclass(eq=False)
class EdgeError(Index):
    """Error beside edges: halos, ringing and glow that strong edges throw on calm ground; 0 is best.

    Error per band less its mean over the valid pixels of a window of 8 ratio + 1; root mean square in units of the
    reference band's standard deviation, mean over bands (those whose reference is constant are left out). It is taken
    where PAN's local deviation (5 x 5 windows of valid pixels) is under 12 % of its largest within 2 ratio pixels and
    that largest is among the upper 40 % of the image. `ratio`: MS pixel size in PAN pixels.

    The quantile comes from a histogram as in `FlatArea`; of the bin on the border, a share counts.
    """

    ratio: float

    def __post_init__(self) -> None:
        self._around, self._near = round(4 * self.ratio), round(2 * self.ratio)
        self.reach = max(self._around, self._near + DEVIATION_SIZE // 2)
        self._errors, self._binned = Errors(), EnergySums()

    def update(
        self, reference: Tensor, fused: Tensor, pan: Tensor, valid: Tensor | None = None, core: Window | None = None
    ) -> None:
        """Add a piece: images (bands, rows, cols) and `pan`, one band, in DN; `valid` holds for all three."""
        self._errors.update(reference, fused, valid, core)
        pan = as_bands(pan)
        same_size(pan, fused)
        area, _ = with_margin(core, fused, self.reach)
        g, f, mask, own = prepared_pair(reference, fused, valid, core, self.reach)
        known, variance = _local_variance(differences(pan[:, *area.slices].double(), mask)[0], mask)
        largest = widest(variance, self._near)
        calm = variance < CALM**2 * largest
        weights = _box_sum(mask.double()[None], self._around).clamp(min=1)
        error = f - g
        error = torch.where(calm, (error - _box_sum(error, self._around) / weights).square(), 0.0)
        self._binned.add(kept_of(largest[None], known, own)[0], kept_of(torch.cat([calm[None], error]), known, own))

    def compute(self) -> float:
        """The figure of all pieces so far; `InputError` when PAN has no calm pixel beside an edge."""
        share = 1 - self._binned.lowest((1 - EDGE_SHARE) * float(self._binned.counts.sum()))
        pixels, *squares = self._binned.sums @ share
        if not pixels:
            raise InputError("the error beside edges is undefined: PAN has no calm pixel beside an edge")
        deviation = self._errors.reference_deviation()
        varying = deviation != 0
        if not varying.any():
            raise InputError("the error beside edges is undefined: the reference is constant")
        error = (torch.stack(squares) / pixels).sqrt()
        return not_nan((error.to(deviation.device) / deviation)[varying].mean(), "the error beside edges")


def _local_variance(x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Variance of the 5 x 5 window around each pixel of (rows, cols), and where all of that is valid and inside.

    Elsewhere it is zero.
    """
    reach = DEVIATION_SIZE // 2
    known = F.pad(torch.zeros_like(valid)[2 * reach :, 2 * reach :], (reach,) * 4)
    variance = torch.zeros_like(x)
    if min(x.shape) <= 2 * reach:
        return known, variance
    inside = (slice(reach, -reach),) * 2
    known[inside] = eroded(valid, reach)[inside]
    taps = np.full((1, DEVIATION_SIZE), 1 / DEVIATION_SIZE)
    mean, square = correlate(x, taps, taps), correlate(x * x, taps, taps)
    found = square - mean * mean
    # less is rounding noise, which a constant PAN must not be measured by
    variance[inside] = torch.where(known[inside] & (found > 1e-12 * square), found, 0.0)
    return known, variance


def _box_sum(x: Tensor, reach: int) -> Tensor:
    """Sums of (bands, rows, cols) over windows of 2 reach + 1, cut at the edges of the image."""
    return sum_along(sum_along(F.pad(x, (reach,) * 4), 2 * reach + 1, 1), 2 * reach + 1, 2)
