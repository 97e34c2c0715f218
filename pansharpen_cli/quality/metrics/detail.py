"""Detail against a reference: edges, structure, sharpness, and what lies beside edges."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import InputError
from .blocks import (
    BINS,
    SSIM_REACH,
    SSIM_SIGMA,
    Core,
    Index,
    _kept,
    added_up,
    as_bands,
    correlate,
    differences,
    energy_bins,
    eroded,
    gaussian,
    high_pass,
    inside_border,
    lowest,
    mean_of_sums,
    not_nan,
    own_pixels,
    prepared_pair,
    same_size,
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


@dataclass(eq=False)
class SpatialCorrelation(Index):
    """SCC: sum(g f) / sqrt(sum g^2 sum f^2) of Sobel gradient magnitudes g and f, over pixels and bands.

    Zhou et al. 1998, as the toolbox codes it: one pixel is dropped all around the image, zeros surround the rest, means
    are not removed. Pixels whose 3 x 3 window touches an invalid one are left out.
    """

    reach: ClassVar[int] = 2
    _sums: Tensor = field(default_factory=lambda: torch.zeros(3, dtype=torch.float64), init=False, repr=False)

    def update(self, reference: Tensor, fused: Tensor, valid: Tensor | None = None, core: Core | None = None) -> None:
        """Add a piece: images (bands, rows, cols) in DN."""
        g, f, mask, own = prepared_pair(reference, fused, valid, core, self.reach)
        inner = inside_border(own, mask.shape, 1)
        kept = eroded(mask[1:-1, 1:-1], 1)[inner]
        for a, b in zip(g, f, strict=True):
            x, y = (_gradient(band[1:-1, 1:-1])[inner][kept] for band in (a, b))
            self._sums = added_up(self._sums, [x @ y, x @ x, y @ y])

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
class StructuralSimilarity(Index):
    """SSIM: mean over bands and over the 11 x 11 Gaussian windows (sigma 1.5) inside the image.

    Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004, with K1 = 0.01 and
    K2 = 0.03, as their `ssim.m`; `peak` is their L, in DN. Windows with an invalid pixel are left out.
    """

    peak: float
    reach: ClassVar[int] = SSIM_REACH
    _sums: Tensor = field(default_factory=lambda: torch.zeros(2, dtype=torch.float64), init=False, repr=False)

    def update(self, reference: Tensor, fused: Tensor, valid: Tensor | None = None, core: Core | None = None) -> None:
        """Add a piece: images (bands, rows, cols) in DN."""
        g, f, mask, own = prepared_pair(reference, fused, valid, core, self.reach)
        if min(mask.shape) <= 2 * self.reach:
            return
        inside = slice(self.reach, -self.reach)
        inner = inside_border(own, mask.shape, self.reach)
        kept = eroded(mask, self.reach)[inside, inside][inner]
        for a, b in zip(g, f, strict=True):
            self._sums = added_up(self._sums, [similarity(a, b, self.peak)[inner][kept].sum(), kept.sum()])

    def compute(self) -> float:
        """SSIM of all pieces so far, 1 is best; `InputError` when there is no window of valid pixels."""
        size = 2 * self.reach + 1
        return mean_of_sums(self._sums, "SSIM", f"{size} x {size} window of valid pixels")


def similarity(a: Tensor, b: Tensor, peak: float) -> Tensor:
    """SSIM of all windows inside two images (rows, cols) or (bands, rows, cols)."""
    taps = gaussian(SSIM_SIGMA, SSIM_REACH)
    mean_a, mean_b, squares, product = (correlate(x, taps, taps) for x in (a, b, a * a + b * b, a * b))
    squared_means, means = mean_a**2 + mean_b**2, mean_a * mean_b
    first, second = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    above = (2 * means + first) * (2 * (product - means) + second)
    return above / ((squared_means + first) * (squares - squared_means + second))


@dataclass(eq=False)
class Sharpness(Index):
    """Energy of the high pass relative to the reference's, mean over bands: 1 is right, below it soft, above it crisp.

    High pass: x - gauss(x, sigma 1 pixel), cut at 4 sigma, edges of the image repeated; energy: sum of its squares.
    Pixels whose kernel touches an invalid one are left out, and so are bands whose reference is constant.
    """

    reach: ClassVar[int] = SHARPNESS_REACH
    _energies: Tensor = field(default_factory=lambda: torch.zeros(2, 1, dtype=torch.float64), init=False, repr=False)

    def update(self, reference: Tensor, fused: Tensor, valid: Tensor | None = None, core: Core | None = None) -> None:
        """Add a piece: images (bands, rows, cols) in DN."""
        g, f, mask, own = prepared_pair(reference, fused, valid, core, self.reach)
        kept = eroded(mask, self.reach)
        details = (_kept(high_pass(x, mask, SHARPNESS_SIGMA, SHARPNESS_REACH), kept, own) for x in (g, f))
        self._energies = added_up(self._energies, [torch.linalg.vecdot(x, x) for x in details])

    def compute(self) -> float:
        """The figure of all pieces so far; `InputError` when no pixel is left or the reference has no detail."""
        wanted, found = self._energies
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
        self._errors = Errors()
        self._counts = torch.zeros(2, BINS, dtype=torch.float64)
        self._squares = torch.zeros(1, BINS, dtype=torch.float64)

    @property
    def reach(self) -> int:
        """Pixels of margin that a piece needs."""
        return max(self._around, self._near + DEVIATION_SIZE // 2)

    def update(
        self, reference: Tensor, fused: Tensor, pan: Tensor, valid: Tensor | None = None, core: Core | None = None
    ) -> None:
        """Add a piece: images (bands, rows, cols) and `pan`, one band, in DN; `valid` holds for all three."""
        self._errors.update(reference, fused, valid, core)
        pan = as_bands(pan)
        same_size(pan, fused)
        area, _ = with_margin(own_pixels(core, fused), fused.shape[-2:], self.reach)
        g, f, mask, own = prepared_pair(reference, fused, valid, core, self.reach)
        known, variance = _local_variance(differences(pan[:, *area].double(), mask)[0], mask)
        largest = _widest(variance, self._near)
        seen = known[own]
        calm = (variance < CALM**2 * largest)[own][seen]
        bins = energy_bins(largest[own][seen])
        weights = mask.double()
        error = f - g
        error = (error - _box_sum(error, self._around) / _box_sum(weights[None], self._around).clamp(min=1))[:, *own]
        self._counts, self._squares = self._counts.to(bins.device), self._squares.to(bins.device)
        self._counts[0].index_add_(0, bins, torch.ones_like(bins, dtype=torch.float64))
        self._counts[1].index_add_(0, bins, calm.double())
        new = torch.zeros(len(error), BINS, dtype=torch.float64, device=bins.device)
        self._squares = self._squares + new.index_add_(1, bins, torch.where(calm, error[:, seen].square(), 0.0))

    def compute(self) -> float:
        """The figure of all pieces so far; `InputError` when PAN has no calm pixel beside an edge."""
        share = 1 - lowest(self._counts[0], (1 - EDGE_SHARE) * float(self._counts[0].sum()))
        pixels = self._counts[1] @ share
        if not pixels:
            raise InputError("the error beside edges is undefined: PAN has no calm pixel beside an edge")
        deviation = self._errors.reference_deviation()
        varying = deviation != 0
        if not varying.any():
            raise InputError("the error beside edges is undefined: the reference is constant")
        error = (self._squares @ share / pixels).sqrt()
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


def _widest(x: Tensor, reach: int) -> Tensor:
    """Largest value of (rows, cols) within `reach` rows and columns."""
    size = 2 * reach + 1
    x = F.max_pool2d(x[None], (1, size), stride=1, padding=(0, reach))
    return F.max_pool2d(x, (size, 1), stride=1, padding=(reach, 0))[0]


def _box_sum(x: Tensor, reach: int) -> Tensor:
    """Sums of (bands, rows, cols) over windows of 2 reach + 1, cut at the edges of the image."""
    for axis, pad in ((1, (0, 0, reach + 1, reach)), (2, (reach + 1, reach))):
        size, sums = x.shape[axis], F.pad(x, pad).cumsum(axis)
        x = sums.narrow(axis, 2 * reach + 1, size) - sums.narrow(axis, 0, size)
    return x
