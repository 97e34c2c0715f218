"""Indices against a reference."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import InputError
from .blocks import (
    BINS,
    INDEX_BLOCK,
    SSIM_REACH,
    SSIM_SIGMA,
    Core,
    _kept,
    added_up,
    as_bands,
    block_area,
    block_moments,
    correlate,
    differences,
    energy_bins,
    eroded,
    gaussian,
    high_pass,
    inside_border,
    into_blocks,
    lowest,
    mean_of_sums,
    mirrored,
    not_nan,
    or_note,
    own_pixels,
    prepared_pair,
    same_shape,
    same_size,
    whole_blocks,
    with_margin,
)

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

# Q2n


@dataclass(eq=False)
class Q2n:
    """Q2n (Q4, Q8) against a reference: the mean over the 32 x 32 blocks of an image, mirrored up to whole blocks.

    Garzelli and Nencini, "Hypercomplex Quality Assessment of Multi/Hyperspectral Images", 2009, as the toolbox codes
    it: both images, (bands, rows, cols) in DN, are rounded half up to integers and negative values become 0 (values
    above 65535 stay, where the toolbox saturates). The index is not symmetric. `scale` multiplies both images before
    the rounding, for data in units that integers do not resolve (reflectances). Blocks with an invalid pixel are left
    out.
    """

    scale: float = 1.0
    reach: ClassVar[int] = INDEX_BLOCK - 1
    _sums: Tensor = field(default_factory=lambda: torch.zeros(2, dtype=torch.float64), init=False, repr=False)

    def update(self, reference: Tensor, fused: Tensor, valid: Tensor | None = None, core: Core | None = None) -> Tensor:
        """Add a piece whose own pixels begin on the image's lattice of blocks and end on it or with the image.

        Returns the index of each of its blocks (block rows, block cols), NaN for those left out.
        """
        same_shape(reference, fused)
        same_size(reference, valid)
        own = own_pixels(core, reference)
        values = q2n_of_blocks(into_blocks(mirrored(reference, own)), into_blocks(mirrored(fused, own)), self.scale)
        whole = torch.ones_like(values, dtype=torch.bool) if valid is None else whole_blocks(mirrored(valid, own))
        self._sums = added_up(self._sums, [values[whole].sum(), whole.sum()])
        return values.masked_fill(~whole, math.nan)

    @property
    def blocks(self) -> int:
        """Number of blocks measured."""
        return int(self._sums[1])

    def compute(self) -> float:
        """Q2n of all pieces so far, 1 is best; `InputError` when there is no block of valid pixels."""
        return mean_of_sums(self._sums, "Q2n", f"{INDEX_BLOCK} x {INDEX_BLOCK} block of valid pixels")


def q2n(reference: Tensor, fused: Tensor, valid: Tensor | None = None, *, scale: float = 1.0) -> float:
    """Q2n of two images (bands, rows, cols) in DN, 1 is best; definition and errors as in `Q2n`."""
    index = Q2n(scale)
    index.update(reference, fused, valid)
    return index.compute()


def q2n_blocks(reference: Tensor, fused: Tensor, *, scale: float = 1.0) -> Tensor:
    """Q2n of each whole block: (block rows, block cols), float64; a block with a pixel that is not a number is NaN.

    Definition and `scale` as in `Q2n`, but trailing partial blocks are left out. Raises ValueError for different
    shapes.
    """
    same_shape(reference, fused)
    return q2n_of_blocks(into_blocks(reference), into_blocks(fused), scale)


def q2n_of_blocks(a: Tensor, b: Tensor, scale: float = 1.0) -> Tensor:
    """Q2n of blocks (..., bands, pixels): (...)."""
    bands = a.shape[-2]
    product = _conjugate_product(bands)
    m = block_moments(_integers(a, scale), _integers(b, scale))
    deviation = m.var_a.sqrt().clamp(min=np.finfo(np.float64).eps)
    empty = m.mean_a == 0
    unit_b = torch.where(empty, 1.0, 1 / deviation)
    # Both are normalised by the mean and deviation of A's band, plus one: every band of A, padding too, has mean 1.
    mean_b = torch.where(empty, m.mean_b, (m.mean_b - m.mean_a) / deviation) + 1
    padding = product.shape[1] - bands
    norm_a, norm_b = math.sqrt(bands + padding), (mean_b.square().sum(-1) + padding).sqrt()
    bias = 2 * norm_a * norm_b / (norm_a**2 + norm_b**2)
    variance = (m.var_a / deviation**2).sum(-1) + (m.var_b * unit_b**2).sum(-1)
    cov = m.cov / deviation[..., :, None] * unit_b[..., None, :]
    covariance = torch.linalg.vector_norm(cov.flatten(-2) @ torch.from_numpy(product).to(cov), dim=-1)
    return torch.where(variance == 0, bias, 2 * covariance / variance * bias)


def _integers(x: Tensor, scale: float) -> Tensor:
    """Round half up, negative values to 0, like MATLAB's uint16 but without its upper end."""
    return (x * scale).add_(0.5).floor_().clamp_(min=0)


@lru_cache(maxsize=16)
def _conjugate_product(bands: int) -> np.ndarray:
    """What the product of the units e_i and conj(e_j) adds to each component: (bands * bands, components), 0 and +-1.

    The hypercomplex product of whole images is not needed: its mean is this contraction of the band covariances.
    """
    size = 1 << (bands - 1).bit_length()
    signs = _unit_signs(size) * _conjugate(size)
    i, j = np.divmod(np.arange(bands * bands), bands)
    table = np.zeros((bands * bands, size))
    table[np.arange(bands * bands), i ^ j] = signs[i, j]
    return table


def _unit_signs(size: int) -> np.ndarray:
    """Sign of e_i e_j = +-e_(i xor j), by Cayley-Dickson doubling: (a, b)(c, d) = (ac - d* b, da + b c*)."""
    signs = np.ones((1, 1))
    while (half := len(signs)) < size:
        conjugate = _conjugate(half)
        signs = np.block([[signs, signs.T], [signs * conjugate, -signs.T * conjugate]])
    return signs


def _conjugate(size: int) -> np.ndarray:
    """Signs of the components under conjugation."""
    return np.where(np.arange(size) == 0, 1.0, -1.0)


@dataclass(eq=False)
class QAverage:
    """Q average: the universal index over all sliding 32 x 32 windows inside the image, mean over windows and bands.

    Wang and Bovik 2002. Images (bands, rows, cols) in DN. A window that is constant in both images counts
    2 ma mb / (ma^2 + mb^2), and 1 when both means are zero, as in the toolbox's `img_qi`. Windows with an invalid pixel
    are left out. A window belongs to the piece that has its upper left pixel.
    """

    reach: ClassVar[int] = INDEX_BLOCK - 1
    _sums: Tensor = field(default_factory=lambda: torch.zeros(2, dtype=torch.float64), init=False, repr=False)

    def update(self, reference: Tensor, fused: Tensor, valid: Tensor | None = None, core: Core | None = None) -> None:
        """Add a piece, which needs its margin at the lower and right side only."""
        g, f, mask, (rows, cols) = prepared_pair(reference, fused, valid, core, self.reach)
        g, f, mask = (x[..., rows.start :, cols.start :] for x in (g, f, mask))
        if min(mask.shape) < INDEX_BLOCK:
            return
        kept = _box((~mask).double()) == 0
        for a, b in zip(g, f, strict=True):
            self._sums = added_up(self._sums, [_sliding(a, b)[kept].sum(), kept.sum()])

    def compute(self) -> float:
        """Q of all pieces so far, 1 is best; `InputError` when there is no window of valid pixels."""
        return mean_of_sums(self._sums, "Q", f"{INDEX_BLOCK} x {INDEX_BLOCK} window of valid pixels")


def q_average(reference: Tensor, fused: Tensor, valid: Tensor | None = None) -> float:
    """Q average of two images (bands, rows, cols) in DN, 1 is best; definition and errors as in `QAverage`."""
    index = QAverage()
    index.update(reference, fused, valid)
    return index.compute()


def _sliding(a: Tensor, b: Tensor) -> Tensor:
    """Universal index of all windows of two bands (rows, cols)."""
    pixels = INDEX_BLOCK * INDEX_BLOCK
    sum_a, sum_b = _box(a), _box(b)
    squared_means = sum_a**2 + sum_b**2
    means = sum_a * sum_b
    variance = pixels * _box(a * a + b * b) - squared_means
    covariance = pixels * _box(a * b) - means
    constant = torch.where(squared_means == 0, 1.0, 2 * means / squared_means)
    full = 4 * covariance * means / (variance * squared_means)
    return torch.where((variance == 0) | (squared_means == 0), constant, full)


def _box(x: Tensor) -> Tensor:
    """Sums of all 32 x 32 windows of (rows, cols), by doubling: exact for integers and constant windows."""
    for axis in (0, 1):
        step = 1
        while step < INDEX_BLOCK:
            length = x.shape[axis] - step
            x = x.narrow(axis, 0, length) + x.narrow(axis, step, length)
            step *= 2
    return x


# Errors per band


@dataclass(eq=False)
class Errors:
    """Sums per band over the valid pixels, for the indices that compare pixel with pixel; reach 0."""

    bands: int
    pixels: int = field(default=0, init=False)
    reach: ClassVar[int] = 0
    _origin: Tensor | None = field(default=None, init=False, repr=False)
    _sums: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._sums = torch.zeros(7, self.bands, dtype=torch.float64)

    def update(self, reference: Tensor, fused: Tensor, valid: Tensor | None = None, core: Core | None = None) -> None:
        """Add a piece: images (bands, rows, cols) in DN."""
        g, f, mask, _ = prepared_pair(reference, fused, valid, core, self.reach)
        g, f = g[:, mask], f[:, mask]
        if not g.shape[1]:
            return
        if self._origin is None:
            # Values from one pixel of the image: exactly zero for a constant band, and hardly any cancellation.
            self._origin = torch.stack([g[:, :1], f[:, :1]])
        error, g, f = f - g, g - self._origin[0], f - self._origin[1]
        products = [torch.linalg.vecdot(x, y) for x, y in ((error, error), (g, g), (f, f), (g, f))]
        self._sums = added_up(self._sums, [error.sum(1), g.sum(1), f.sum(1), *products])
        self.pixels += g.shape[1]

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


def _errors(reference: Tensor, fused: Tensor, valid: Tensor | None) -> Errors:
    errors = Errors(len(reference))
    errors.update(reference, fused, valid)
    return errors


def rmse(reference: Tensor, fused: Tensor, valid: Tensor | None = None) -> Tensor:
    """Root mean square error of each band (bands,), in DN; images (bands, rows, cols), `valid`: bool (rows, cols).

    `InputError` when no pixel is left or one is not a number.
    """
    return _errors(reference, fused, valid).rmse()


def bias(reference: Tensor, fused: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean of fused - reference of each band (bands,), in DN; arguments and errors as in `rmse`."""
    return _errors(reference, fused, valid).bias()


def ergas(reference: Tensor, fused: Tensor, ratio: float, valid: Tensor | None = None) -> float:
    """ERGAS, 0 is best: `Errors.ergas`. Images (bands, rows, cols) in DN; `valid`: bool (rows, cols)."""
    return _errors(reference, fused, valid).ergas(ratio)


def psnr(reference: Tensor, fused: Tensor, peak: float, valid: Tensor | None = None) -> float:
    """PSNR in dB: `Errors.psnr`. Images (bands, rows, cols) and `peak` in DN; `valid`: bool (rows, cols)."""
    return _errors(reference, fused, valid).psnr(peak)


def cross_correlation(reference: Tensor, fused: Tensor, valid: Tensor | None = None) -> float:
    """Cross-correlation, 1 is best: `Errors.cross_correlation`. Images (bands, rows, cols); `valid`: (rows, cols)."""
    return _errors(reference, fused, valid).cross_correlation()


def mean_correlation(var_x: Tensor, var_y: Tensor, cov: Tensor, what: str, of: str) -> float:
    """Mean over bands of Pearson's correlation; a band of x that does not vary counts 0, one of y is an error."""
    if (var_y <= 0).any():
        raise InputError(f"{what} is undefined: {of} is constant")
    return not_nan(torch.where(var_x <= 0, 0.0, cov / (var_x * var_y).sqrt()).mean(), what)


@dataclass(eq=False)
class Reprojection:
    """How far the fused image, degraded to the MS grid with the MTF and at the exact phase, is from the MS itself."""

    bands: int
    reach: ClassVar[int] = 0
    _errors: Errors = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._errors = Errors(self.bands)

    def update(self, degraded: Tensor, ms: Tensor, valid: Tensor | None = None) -> None:
        """Add pixels of the MS grid: images (bands, rows, cols) in DN, `valid` bool (rows, cols)."""
        self._errors.update(ms, degraded, valid)

    def compute(self) -> dict[str, Any]:
        """Per band `rmse` and `bias` (degraded - MS) in DN and `relative` (rmse / |mean of the MS|), and `pixels`.

        `relative` is None for a band of mean zero. `InputError` when there was no valid pixel.
        """
        errors, means = self._errors.rmse().tolist(), self._errors.reference_mean().tolist()
        return {
            "rmse": errors,
            "bias": self._errors.bias().tolist(),
            "relative": [error / abs(mean) if mean else None for error, mean in zip(errors, means, strict=True)],
            "pixels": self._errors.pixels,
        }


# Spectral angle


@dataclass(eq=False)
class Angles:
    """SAM, the spectral angle mapper in degrees: mean over pixels of acos(<g, f> / (|g| |f|)), 0 is best.

    Yuhas et al. 1992. Pixels with a norm of zero have no angle and are left out, like the invalid ones.
    """

    reach: ClassVar[int] = 0
    _sums: Tensor = field(default_factory=lambda: torch.zeros(2, dtype=torch.float64), init=False, repr=False)

    def update(self, reference: Tensor, fused: Tensor, valid: Tensor | None = None, core: Core | None = None) -> Tensor:
        """Add a piece, images (bands, rows, cols). Returns the angles of its own pixels, NaN where there is none."""
        g, f, mask, _ = prepared_pair(reference, fused, valid, core, self.reach)
        angles, exists = spectral_angles(g, f)
        mask = mask & exists
        self._sums = added_up(self._sums, [torch.where(mask, angles, 0.0).sum(), mask.sum()])
        return angles.masked_fill(~mask, math.nan)

    def compute(self) -> float:
        """SAM of all pieces so far, in degrees; `InputError` when no pixel is left."""
        return mean_of_sums(self._sums, "SAM", "valid pixel that is not zero in one of the images")


def sam(reference: Tensor, fused: Tensor, valid: Tensor | None = None) -> float:
    """SAM of two images (bands, rows, cols) in degrees, 0 is best; definition and errors as in `Angles`."""
    index = Angles()
    index.update(reference, fused, valid)
    return index.compute()


def spectral_angles(g: Tensor, f: Tensor) -> tuple[Tensor, Tensor]:
    """Angles in degrees between the spectra of (bands, ...), and where they exist: both (...)."""
    norm = (g.square().sum(0) * f.square().sum(0)).sqrt()
    return ((g * f).sum(0) / norm).clamp(-1, 1).acos().rad2deg(), norm != 0


# Spatial correlation


@dataclass(eq=False)
class SpatialCorrelation:
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


def scc(reference: Tensor, fused: Tensor, valid: Tensor | None = None) -> float:
    """SCC of two images (bands, rows, cols) in DN, 1 is best; definition and errors as in `SpatialCorrelation`."""
    index = SpatialCorrelation()
    index.update(reference, fused, valid)
    return index.compute()


def _gradient(x: Tensor) -> Tensor:
    """Sobel gradient magnitude of (rows, cols), surrounded by zeros."""
    x = F.pad(x, (1, 1, 1, 1))
    across, down = x[:, 2:] - x[:, :-2], x[2:] - x[:-2]
    across = across[:-2] + 2 * across[1:-1] + across[2:]
    down = down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]
    return (across.square() + down.square()).sqrt()


# Structural similarity


@dataclass(eq=False)
class StructuralSimilarity:
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
            self._sums = added_up(self._sums, [_similarity(a, b, self.peak)[inner][kept].sum(), kept.sum()])

    def compute(self) -> float:
        """SSIM of all pieces so far, 1 is best; `InputError` when there is no window of valid pixels."""
        size = 2 * self.reach + 1
        return mean_of_sums(self._sums, "SSIM", f"{size} x {size} window of valid pixels")


def ssim(reference: Tensor, fused: Tensor, peak: float, valid: Tensor | None = None) -> float:
    """SSIM of two images (bands, rows, cols), 1 is best; definition and errors as in `StructuralSimilarity`."""
    index = StructuralSimilarity(peak)
    index.update(reference, fused, valid)
    return index.compute()


def _similarity(a: Tensor, b: Tensor, peak: float) -> Tensor:
    """SSIM of all windows inside two bands (rows, cols)."""
    taps = gaussian(SSIM_SIGMA, SSIM_REACH)
    mean_a, mean_b, squares, product = (correlate(x, taps, taps) for x in (a, b, a * a + b * b, a * b))
    squared_means, means = mean_a**2 + mean_b**2, mean_a * mean_b
    first, second = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    above = (2 * means + first) * (2 * (product - means) + second)
    return above / ((squared_means + first) * (squares - squared_means + second))


# Detail against a reference


@dataclass(eq=False)
class Sharpness:
    """Energy of the high pass relative to the reference's, mean over bands: 1 is right, below it soft, above it crisp.

    High pass: x - gauss(x, sigma 1 pixel), cut at 4 sigma, edges of the image repeated; energy: sum of its squares.
    Pixels whose kernel touches an invalid one are left out, and so are bands whose reference is constant.
    """

    bands: int
    reach: ClassVar[int] = SHARPNESS_REACH
    _energies: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._energies = torch.zeros(2, self.bands, dtype=torch.float64)

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
class EdgeError:
    """Error beside edges: halos, ringing and glow that strong edges throw on calm ground; 0 is best.

    Error per band less its mean over the valid pixels of a window of 8 ratio + 1; root mean square in units of the
    reference band's standard deviation, mean over bands (those whose reference is constant are left out). It is taken
    where PAN's local deviation (5 x 5 windows of valid pixels) is under 12 % of its largest within 2 ratio pixels and
    that largest is among the upper 40 % of the image. `ratio`: MS pixel size in PAN pixels.

    The quantile comes from a histogram as in `FlatArea`; of the bin on the border, a share counts.
    """

    bands: int
    ratio: float

    def __post_init__(self) -> None:
        self._around, self._near = round(4 * self.ratio), round(2 * self.ratio)
        self._errors = Errors(self.bands)
        self._counts = torch.zeros(2, BINS, dtype=torch.float64)
        self._squares = torch.zeros(self.bands, BINS, dtype=torch.float64)

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
        self._squares.index_add_(1, bins, torch.where(calm, error[:, seen].square(), 0.0))

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


def sharpness(reference: Tensor, fused: Tensor, valid: Tensor | None = None) -> float:
    """`Sharpness` of a whole image: images (bands, rows, cols) in DN; `valid` (rows, cols)."""
    figure = Sharpness(len(reference))
    figure.update(reference, fused, valid)
    return figure.compute()


def edge_error(reference: Tensor, fused: Tensor, pan: Tensor, ratio: float, valid: Tensor | None = None) -> float:
    """`EdgeError` of a whole image: images (bands, rows, cols), `pan` one band, DN; `valid` (rows, cols)."""
    figure = EdgeError(len(reference), ratio)
    figure.update(reference, fused, pan, valid)
    return figure.compute()


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


# Reduced resolution: against a reference


@dataclass(eq=False)
class ReducedResolution:
    """All indices against a reference, piece by piece.

    `shape`: rows and columns of the image; `ratio`: MS pixel size in PAN pixels (ERGAS, error beside edges); `peak` in
    DN (PSNR, SSIM); `scale` as in `Q2n`; `with_pan`: PAN comes with every piece, for the error beside edges. `notes`
    tells after `compute` why a figure is None.
    """

    shape: tuple[int, int]
    ratio: float
    peak: float
    scale: float = 1.0
    with_pan: bool = False
    notes: list[str] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._q2n, self._q, self._angles = Q2n(self.scale), QAverage(), Angles()
        self._scc, self._ssim = SpatialCorrelation(), StructuralSimilarity(self.peak)
        self._errors: Errors | None = None
        self._sharpness: Sharpness | None = None
        self._edges: EdgeError | None = None
        self.reach = max(INDEX_BLOCK - 1, EdgeError(0, self.ratio).reach if self.with_pan else 0)
        self._maps = np.full((2, -(-self.shape[0] // INDEX_BLOCK), -(-self.shape[1] // INDEX_BLOCK)), np.nan)

    def update(
        self,
        reference: Tensor,
        fused: Tensor,
        valid: Tensor | None = None,
        core: Core | None = None,
        at: tuple[int, int] = (0, 0),
        pan: Tensor | None = None,
        pan_valid: Tensor | None = None,
    ) -> None:
        """Add a piece whose first own pixel is at `at`, multiples of 32; it ends on multiples of 32 or with the image.

        Images (bands, rows, cols) and `pan` (1, rows, cols) in DN. Raises ValueError for shapes that do not match or a
        piece off the lattice.
        """
        area = block_area(own_pixels(core, reference), at, self.shape)
        self._errors = self._errors or Errors(len(reference))
        self._sharpness = self._sharpness or Sharpness(len(reference))
        for index in (self._errors, self._q, self._scc, self._ssim, self._sharpness):
            index.update(reference, fused, valid, core)
        if self.with_pan:
            if pan is None:
                raise ValueError("PAN is missing")
            self._edges = self._edges or EdgeError(len(reference), self.ratio)
            both = valid if pan_valid is None else pan_valid if valid is None else valid & pan_valid
            self._edges.update(reference, fused, pan, both, core)
        q2n = self._q2n.update(reference, fused, valid, core)
        angles = self._angles.update(reference, fused, valid, core)
        rows, cols = angles.shape
        angles = F.pad(angles, (0, -cols % INDEX_BLOCK, 0, -rows % INDEX_BLOCK), value=math.nan)
        means = into_blocks(angles[None])[:, :, 0].nanmean(-1)
        self._maps[:, *area] = torch.stack([q2n, means]).cpu().numpy()

    @property
    def maps(self) -> dict[str, np.ndarray]:
        """`q2n` and `sam` (degrees, mean of the valid pixels) of each block of the image, NaN where not measured."""
        return dict(zip(("q2n", "sam"), self._maps, strict=True))

    def compute(self) -> dict[str, Any]:
        """`q2n`, `q`, `sam`, `ergas`, `sharpness`, `edge_error` (None without PAN), `scc`, `psnr`, `ssim`, `cc`; per
        band `rmse` and `bias`; `pixels`, `blocks`.

        A figure that this image does not define is None and its reason is in `notes`. `InputError` when there was no
        valid pixel at all.
        """
        errors, sharp, edges = self._errors, self._sharpness, self._edges
        if errors is None or sharp is None or not errors.pixels:
            raise InputError("no quality figure: there is no valid pixel to compare the images at")
        measures: dict[str, Callable[[], Any]] = {
            "q2n": lambda: self._of_varying(errors, self._q2n.compute, "Q2n"),
            "q": lambda: self._of_varying(errors, self._q.compute, "Q"),
            "sam": self._angles.compute,
            "ergas": lambda: errors.ergas(self.ratio),
            "sharpness": sharp.compute,
            "edge_error": lambda: edges and edges.compute(),
            "scc": self._scc.compute,
            "psnr": lambda: errors.psnr(self.peak),
            "ssim": lambda: self._of_varying(errors, self._ssim.compute, "SSIM"),
            "cc": errors.cross_correlation,
            "rmse": lambda: errors.rmse().tolist(),
            "bias": lambda: errors.bias().tolist(),
        }
        self.notes.clear()
        figures = {name: or_note(measure, self.notes) for name, measure in measures.items()}
        return {**figures, "pixels": errors.pixels, "blocks": self._q2n.blocks}

    @staticmethod
    def _of_varying(errors: Errors, measure: Callable[[], float], what: str) -> float:
        if not errors.reference_varies():  # there is nothing in it that could get lost
            raise InputError(f"{what} is undefined: the reference is constant")
        return measure()
