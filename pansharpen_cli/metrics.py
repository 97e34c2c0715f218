"""Quality indices as short functions, and the streaming accumulator that scores a scene at full resolution.

Images are tensors `(bands, rows, cols)` in DN, PAN is `(1, rows, cols)` or `(rows, cols)`. Statistics are taken in
float64 whatever the dtype of the images. The definitions are those of the DLPan-Toolbox (Vivone et al., "A New
Benchmark Based on Recent Advances in Multispectral Pansharpening", 2021), which the golden tests check; the expanded MS
is an argument, so its phase and its borders are the caller's. Nothing here returns NaN for a score: what cannot be
measured raises `InputError`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pansharpen_cli.errors import InputError
from pansharpen_cli.physics import MTF_REACH, mtf_kernel

BLOCK = 32
"""Side of the blocks of Q2n and of the universal index, in PAN pixels."""

DETAIL_SIGMA = 2.0
"""Standard deviation, in PAN pixels, of the Gaussian that the high pass takes away."""

DETAIL_REACH = 8
"""PAN pixels on each side that one high-passed value depends on (4 sigma)."""

ENERGY_SIZE = 9
"""Side of the window of the local energy of PAN, in PAN pixels."""

FLAT_SHARE = 0.2
"""Share of the valid pixels that counts as flat."""

_SEGMENT = 64


# Filters


def mtf_filter(
    x: Tensor, gains: Sequence[float], ratio: float, border: Literal["replicate", "valid"] = "replicate"
) -> Tensor:
    """Correlate each band with the toolbox's own 41 x 41 MTF kernel of its gain (not normalised to DC 1).

    `x`: (bands, rows, cols), floating, DN; `gains` at the MS Nyquist frequency, one per band; `ratio`: MS pixel size in
    PAN pixels. "replicate" repeats the edge pixel and keeps the size; "valid" returns what needs no border, 20 pixels
    less on each side. The kernel is nearly of rank one, so a few separable passes do the work of its 1681 taps. The
    dropped rest is below 1e-10 of the kernel's norm in float64 and 1e-6 in float32.
    Raises ValueError for a wrong number of gains, or too small an image for "valid".
    """
    if border == "replicate":
        x = _replicate(x, MTF_REACH)
    elif min(x.shape[-2:]) <= 2 * MTF_REACH:
        raise ValueError(f"a valid MTF filter needs more than {2 * MTF_REACH} rows and columns, not {tuple(x.shape)}")
    tolerance = 1e-10 if x.dtype == torch.float64 else 1e-6
    terms = [_mtf_terms(float(gain), float(ratio), tolerance) for gain in gains]
    return torch.stack([_correlate(band, *term) for band, term in zip(x, terms, strict=True)])


@lru_cache(maxsize=64)
def _mtf_terms(gain: float, ratio: float, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """The MTF kernel as a sum of outer products: taps along rows and along columns, (terms, 41) each."""
    left, weight, right = np.linalg.svd(mtf_kernel(gain, ratio))
    kept = weight > tolerance * weight[0]
    return (left[:, kept] * weight[kept]).T, right[kept]


def _correlate(x: Tensor, down: np.ndarray, across: np.ndarray) -> Tensor:
    """Correlate (rows, cols) with a sum of separable kernels (terms, taps), without borders.

    Segments times small banded matrices: several times faster than a convolution, in float64 above all.
    """
    rows, cols = x.shape[0] - down.shape[1] + 1, x.shape[1] - across.shape[1] + 1
    out = x.new_zeros(rows, cols)
    for down_taps, across_taps in zip(down, across, strict=True):
        band = _banded(across_taps, x)
        parts = [x[:, i : i + len(b)] @ b for i, b in _segments(band, cols)]
        passed = torch.cat(parts, dim=1)
        band = _banded(down_taps, x)
        for i, b in _segments(band, rows):
            out[i : i + b.shape[1]].addmm_(b.mT, passed[i : i + len(b)])
    return out


def _banded(taps: np.ndarray, like: Tensor) -> Tensor:
    """Matrix that correlates a segment: (segment + taps - 1, segment)."""
    matrix = np.zeros((_SEGMENT + len(taps) - 1, _SEGMENT))
    for k, weight in enumerate(taps):
        np.fill_diagonal(matrix[k:], weight)
    return torch.from_numpy(matrix).to(like)


def _segments(band: Tensor, length: int) -> list[tuple[int, Tensor]]:
    """First output pixel of each segment of an axis, with the matrix cut to the segment's size."""
    cut = [(i, min(_SEGMENT, length - i)) for i in range(0, length, _SEGMENT)]
    return [(i, band[: len(band) - _SEGMENT + n, :n]) for i, n in cut]


def _replicate(x: Tensor, reach: int) -> Tensor:
    """Repeat the edge pixels of (bands, rows, cols) `reach` times on each side."""
    return F.pad(x[None], (reach,) * 4, mode="replicate")[0]


def _gaussian(sigma: float, reach: int) -> np.ndarray:
    """Taps of a Gaussian cut at `reach` pixels, summing to one: (1, 2 reach + 1)."""
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return (taps / taps.sum())[None]


def _high_pass(x: Tensor, valid: Tensor | None) -> Tensor:
    """x - gauss(x, sigma 2), edges repeated, of one band (rows, cols) in float64; wrong near invalid pixels."""
    x = x.double()
    if valid is not None:
        x = torch.where(valid, x, x[valid][0])
    x = x - x[0, 0]  # so that a constant image has a high pass of zero, not of rounding noise
    taps = _gaussian(DETAIL_SIGMA, DETAIL_REACH)
    return x - _correlate(_replicate(x[None], DETAIL_REACH)[0], taps, taps)


def _eroded(valid: Tensor, reach: int) -> Tensor:
    """Pixels of (rows, cols) with no invalid pixel within `reach` rows and columns; outside the image is valid."""
    invalid = (~valid).float()[None]
    size = 2 * reach + 1
    invalid = F.max_pool2d(invalid, (1, size), stride=1, padding=(0, reach))
    return F.max_pool2d(invalid, (size, 1), stride=1, padding=(reach, 0))[0] == 0


# Block statistics


@dataclass(frozen=True)
class _Moments:
    """Statistics of two images per block: `mean_*` and `var_*` (..., bands), `cov` (..., bands a, bands b)."""

    mean_a: Tensor
    mean_b: Tensor
    var_a: Tensor
    var_b: Tensor
    cov: Tensor


def _moments(a: Tensor, b: Tensor) -> _Moments:
    """Means, variances and covariances (n - 1) of blocks (..., bands, pixels)."""
    pixels = a.shape[-1]
    # Differences from the first pixel: exactly zero in a constant block, and no cancellation elsewhere.
    da, db = a - a[..., :1], b - b[..., :1]
    sum_a, sum_b = da.sum(-1), db.sum(-1)
    squares_a, squares_b = da.square().sum(-1), db.square().sum(-1)
    return _Moments(
        mean_a=a[..., 0] + sum_a / pixels,
        mean_b=b[..., 0] + sum_b / pixels,
        var_a=((squares_a - sum_a**2 / pixels) / (pixels - 1)).clamp(min=0),
        var_b=((squares_b - sum_b**2 / pixels) / (pixels - 1)).clamp(min=0),
        cov=(da @ db.mT - sum_a[..., :, None] * sum_b[..., None, :] / pixels) / (pixels - 1),
    )


def _image(x: Tensor) -> Tensor:
    """(rows, cols) or (bands, rows, cols) as (bands, rows, cols)."""
    return x[None] if x.ndim == 2 else x


def _blocks(x: Tensor, block: int) -> Tensor:
    """The whole blocks of (bands, rows, cols) in float64: (block rows, block cols, bands, pixels)."""
    rows, cols = x.shape[1] // block, x.shape[2] // block
    x = x[:, : rows * block, : cols * block].reshape(len(x), rows, block, cols, block)
    out = torch.empty((rows, cols, len(x), block, block), dtype=torch.float64, device=x.device)
    return out.copy_(x.permute(1, 3, 0, 2, 4)).flatten(-2)


def _whole_blocks(valid: Tensor, block: int) -> Tensor:
    """Blocks without an invalid pixel: (block rows, block cols), bool."""
    return _blocks(valid[None], block)[:, :, 0].amin(-1) > 0


def _same_shape(*images: Tensor) -> None:
    if len({image.shape for image in images}) > 1:
        raise ValueError(f"images of different shapes: {', '.join(str(tuple(i.shape)) for i in images)}")


def _same_size(*images: Tensor | None) -> None:
    if len({image.shape[-2:] for image in images if image is not None}) > 1:
        raise ValueError("images or masks of different numbers of rows and columns")


def _defined(value: float | Tensor, what: str) -> float:
    """The value, unless it is NaN."""
    value = float(value)
    if math.isnan(value):
        raise InputError(f"{what} is undefined: there are pixels that are not numbers; mark them as invalid")
    return value


# Q2n


def q2n_blocks(
    reference: Tensor,
    fused: Tensor,
    block: int = BLOCK,
    *,
    pad: bool = False,
    scale: float = 1.0,
) -> Tensor:
    """Q2n of each block: (block rows, block cols), float64; a block with a pixel that is not a number is NaN.

    Garzelli and Nencini, "Hypercomplex Quality Assessment of Multi/Hyperspectral Images", 2009, as the toolbox codes
    it: both images, (bands, rows, cols) in DN, are rounded half up to integers and negative values become 0 (values
    above 65535 stay, where the toolbox saturates). The index is not symmetric. `scale` multiplies both images before
    the rounding, for data in units that integers do not resolve (reflectances). Only whole blocks are returned, unless
    `pad` mirrors the right and lower edges up to the next whole block. Raises ValueError for different shapes.
    """
    _same_shape(reference, fused)
    if pad:
        reference, fused = _mirrored(reference, block), _mirrored(fused, block)
    return _q2n(_blocks(reference, block), _blocks(fused, block), scale)


def q2n(
    reference: Tensor, fused: Tensor, block: int = BLOCK, *, scale: float = 1.0, valid: Tensor | None = None
) -> float:
    """Q2n (Q4, Q8) of two images (bands, rows, cols) in DN: the mean of `q2n_blocks`, padded to whole blocks.

    Blocks with an invalid pixel in `valid` (rows, cols) are left out; `InputError` when none is left.
    """
    values = q2n_blocks(reference, fused, block, pad=True, scale=scale)
    if valid is not None:
        _same_size(reference, valid)
        values = values[_whole_blocks(_mirrored(valid[None], block)[0], block)]
    return _mean_q2n(values, block)


def _mean_q2n(values: Tensor, block: int) -> float:
    if not values.numel():
        raise InputError(f"Q2n is undefined: there is no {block} x {block} block of valid pixels")
    return _defined(values.mean(), "Q2n")


def _mirrored(x: Tensor, block: int) -> Tensor:
    """Mirror the last rows and columns (edge pixel included) up to whole blocks."""
    for axis in (-2, -1):
        size = x.shape[axis]
        index = torch.arange(-(-size // block) * block, device=x.device) % (2 * size)
        x = x.index_select(axis, torch.minimum(index, 2 * size - 1 - index))
    return x


def _q2n(a: Tensor, b: Tensor, scale: float = 1.0) -> Tensor:
    """Q2n of blocks (..., bands, pixels): (...)."""
    bands = a.shape[-2]
    product = _conjugate_product(bands)
    m = _moments(_integers(a, scale), _integers(b, scale))
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


# Universal index


def universal_blocks(a: Tensor, b: Tensor, block: int = BLOCK) -> Tensor:
    """Universal image quality index of each distinct block: (bands, block rows, block cols), float64.

    Wang and Bovik, "A Universal Image Quality Index", 2002, with variances of n - 1 and without guards:
    4 cov mean_a mean_b / ((var_a + var_b) (mean_a^2 + mean_b^2)). `a`: (bands, rows, cols); `b`: the same, or one band
    (PAN) for all of them. Whole blocks only. A block that is constant in both images (or where both means are zero)
    has no index and is NaN: leave it out. Raises ValueError for shapes that do not match.
    """
    a, b = _image(a), _image(b)
    _same_size(a, b)
    quality = _universal(_blocks(a, block), _blocks(b, block))
    if len(b) == 1:
        return quality[..., 0].permute(2, 0, 1)
    _same_shape(a, b)
    return quality.diagonal(dim1=-2, dim2=-1).permute(2, 0, 1)


def _universal(a: Tensor, b: Tensor) -> Tensor:
    """Universal index of every band of `a` with every band of `b`: (..., bands a, bands b)."""
    m = _moments(a, b)
    mean_a, mean_b = m.mean_a[..., :, None], m.mean_b[..., None, :]
    variance = m.var_a[..., :, None] + m.var_b[..., None, :]
    return 4 * m.cov * mean_a * mean_b / (variance * (mean_a**2 + mean_b**2))


def universal_sliding(reference: Tensor, fused: Tensor, block: int = BLOCK, *, valid: Tensor | None = None) -> float:
    """Q average: the universal index over all sliding windows inside the image, mean over windows and bands.

    Images (bands, rows, cols) in DN. A window that is constant in both images counts 2 ma mb / (ma^2 + mb^2), and 1
    when both means are zero, as in the toolbox's `img_qi`. Windows with an invalid pixel in `valid` (rows, cols) are
    left out; `InputError` when no window is left.
    """
    _same_shape(reference, fused)
    _same_size(reference, valid)
    kept = None if valid is None else _box((~valid).double(), block) == 0
    if min(reference.shape[-2:]) < block or (kept is not None and not kept.any()):
        raise InputError(f"Q is undefined: there is no {block} x {block} window of valid pixels")
    means = []
    for a, b in zip(reference, fused, strict=True):
        quality = _sliding(a.double(), b.double(), block)
        means.append((quality if kept is None else quality[kept]).mean())
    return _defined(torch.stack(means).mean(), "Q")


def _sliding(a: Tensor, b: Tensor, size: int) -> Tensor:
    """Universal index of all windows of two bands (rows, cols)."""
    pixels = size * size
    sum_a, sum_b = _box(a, size), _box(b, size)
    squared_means = sum_a**2 + sum_b**2
    means = sum_a * sum_b
    variance = pixels * _box(a * a + b * b, size) - squared_means
    covariance = pixels * _box(a * b, size) - means
    constant = torch.where(squared_means == 0, 1.0, 2 * means / squared_means)
    full = 4 * covariance * means / (variance * squared_means)
    return torch.where((variance == 0) | (squared_means == 0), constant, full)


def _box(x: Tensor, size: int) -> Tensor:
    """Sums of all size x size windows of (rows, cols), by doubling: exact for integers and constant windows."""
    for axis in (-2, -1):
        x = _window_sums(x, size, axis)
    return x


def _window_sums(x: Tensor, size: int, axis: int) -> Tensor:
    """Sums of `size` neighbours along an axis."""
    if size == 1:
        return x
    first = size // 2 if size % 2 == 0 else 1
    rest = _window_sums(x, size - first, axis)
    start = rest if first == size - first else x
    length = x.shape[axis] - size + 1
    return start.narrow(axis, 0, length) + rest.narrow(axis, first, length)


# Full resolution


def d_lambda_k(expanded: Tensor, fused: Tensor, gains: Sequence[float], ratio: float, *, scale: float = 1.0) -> float:
    """Spectral distortion of Khan: 1 - Q2n(expanded MS, fused blurred with the MS MTF), at PAN scale.

    Khan et al., "Pansharpening Quality Assessment Using the Modulation Transfer Functions of Instruments", 2009, as in
    the toolbox: not decimated. Images (bands, rows, cols) in DN; `gains` and `ratio` as in `mtf_filter`, `scale` as in
    `q2n_blocks`. Trailing partial blocks are left out (the toolbox refuses them); `InputError` when no block is left.
    """
    return 1 - _mean_q2n(q2n_blocks(expanded, mtf_filter(fused, gains, ratio), scale=scale), BLOCK)


def d_s(fused: Tensor, expanded: Tensor, pan: Tensor, pan_low: Tensor) -> float:
    """Spatial distortion: mean over bands of |q(fused band, PAN) - q(expanded band, low-passed PAN)|, exponent 1.

    Alparone et al., "Multispectral and Panchromatic Data Fusion Assessment Without Reference", 2008; q is the mean of
    `universal_blocks`. `fused`, `expanded`: (bands, rows, cols); `pan` and `pan_low` (PAN reduced to the MS grid and
    expanded again) one band; all in DN on the PAN grid. Blocks without an index in one of the two terms, where the
    toolbox returns NaN, are left out of both; `InputError` when a band has no block left.
    """
    _same_shape(fused, expanded)
    return _gap(_gap_sums(universal_blocks(fused, pan), universal_blocks(expanded, pan_low)), "D_s")


def hqnr(d_lambda_k: float, d_s: float) -> float:
    """Hybrid QNR, (1 - D_lambda_K) (1 - D_s): Aiazzi et al., "Full-scale assessment of pansharpening methods", 2014."""
    return (1 - d_lambda_k) * (1 - d_s)


def d_lambda(fused: Tensor, expanded: Tensor) -> float:
    """Spectral distortion of QNR: mean over band pairs of |q(F_i, F_j) - q(E_i, E_j)|, exponent 1.

    Alparone et al. 2008. Images (bands, rows, cols) in DN on the PAN grid; q and the blocks left out as in `d_s`.
    `InputError` when there is one band only, or a pair without a block.
    """
    _same_shape(fused, expanded)
    if len(fused) < 2:
        raise InputError("D_lambda compares pairs of bands: it needs two bands or more")
    first, second = torch.triu_indices(len(fused), len(fused), 1)
    q, p = (
        _universal(x, x)[..., first, second].permute(2, 0, 1) for x in (_blocks(fused, BLOCK), _blocks(expanded, BLOCK))
    )
    return _gap(_gap_sums(q, p), "D_lambda")


def qnr(d_lambda: float, d_s: float) -> float:
    """QNR, (1 - D_lambda) (1 - D_s), both exponents 1: Alparone et al. 2008."""
    return (1 - d_lambda) * (1 - d_s)


def _gap_sums(q: Tensor, p: Tensor) -> Tensor:
    """Sums over blocks of two indices (bands, ...) where both exist, and their number: (3, bands)."""
    q, p = q.flatten(1), p.flatten(1)
    both = q.isfinite() & p.isfinite()
    return torch.stack([torch.where(both, q, 0.0).sum(1), torch.where(both, p, 0.0).sum(1), both.double().sum(1)])


def _gap(sums: Tensor, what: str) -> float:
    """Mean over bands of the absolute difference of the two means."""
    if not sums[2].all():
        raise InputError(f"{what} is undefined: a band has no {BLOCK} x {BLOCK} block of valid pixels that vary")
    return float((sums[0] - sums[1]).div(sums[2]).abs().mean())


@dataclass(eq=False)
class FullResolution:
    """HQNR, its two distortions and the PAN detail correlation of a scene, tile by tile.

    `scale` as in `q2n_blocks`. Blocks with an invalid pixel never enter a figure. Sums are kept in float64, so the
    tiling does not change the result. For that reason the detail correlation takes the middle 16 x 16 pixels of each
    block, whose high pass needs no pixel of another block; `pan_detail_correlation` takes them all.
    """

    scale: float = 1.0
    blocks: int = field(default=0, init=False)
    _q2n: float = field(default=0.0, init=False, repr=False)
    _quality: Tensor | float = field(default=0.0, init=False, repr=False)
    _detail: Tensor | float = field(default=0.0, init=False, repr=False)

    def update(
        self, fused: Tensor, blurred: Tensor, expanded: Tensor, pan: Tensor, pan_low: Tensor, valid: Tensor
    ) -> None:
        """Add a tile that starts on the scene's lattice of 32 x 32 blocks; trailing partial blocks are left out.

        `fused`, `blurred` (fused through `mtf_filter`), `expanded`: (bands, rows, cols) in DN; `pan` and `pan_low`
        (PAN reduced to the MS grid and expanded again): one band; `valid`: bool (rows, cols), false wherever one of the
        images is nodata or was filtered from nodata. Raises ValueError for shapes that do not match.
        """
        pan, pan_low = _image(pan), _image(pan_low)
        _same_shape(fused, blurred, expanded)
        _same_shape(pan, pan_low)
        _same_size(fused, pan, valid)
        whole = _whole_blocks(valid, BLOCK)
        if not whole.any():
            return
        f, m, e, p, low = (_blocks(x, BLOCK)[whole] for x in (fused, blurred, expanded, pan, pan_low))
        self.blocks += len(f)
        self._q2n += float(_q2n(e, m, self.scale).sum())
        self._quality += _gap_sums(_universal(f, p)[..., 0].mT, _universal(e, low)[..., 0].mT).cpu()
        self._detail += _correlation_sums(_core_detail(f), _core_detail(p)).cpu()

    def compute(self) -> dict[str, float | int]:
        """`hqnr`, `d_lambda_k`, `d_s`, `blocks` (number used) and `pan_detail_correlation` of all tiles so far.

        Raises `InputError` when there was no whole valid block, or none that varies.
        """
        if not isinstance(self._quality, Tensor) or not isinstance(self._detail, Tensor):
            raise InputError(f"no quality figure: the scene has no {BLOCK} x {BLOCK} block of valid pixels")
        spectral = 1 - _defined(self._q2n / self.blocks, "D_lambda_K")
        spatial = _gap(self._quality, "D_s")
        return {
            "hqnr": hqnr(spectral, spatial),
            "d_lambda_k": spectral,
            "d_s": spatial,
            "blocks": self.blocks,
            "pan_detail_correlation": _mean_correlation(self._detail),
        }


# PAN detail


def pan_detail_correlation(fused: Tensor, pan: Tensor, valid: Tensor | None = None) -> float:
    """Mean over bands of the Pearson correlation of the high passes of each band and of PAN.

    High pass: x - gauss(x, sigma 2 pixels), cut at 4 sigma, edges repeated. `fused`: (bands, rows, cols), `pan`: one
    band, DN; `valid`: bool (rows, cols), and pixels whose kernel touches an invalid one are left out. The true bands of
    a scene reach 0.81 to 0.94, so the largest figure is not the best. A band without any detail counts 0; `InputError`
    when PAN has none or no pixel is left.
    """
    pan = _image(pan)[0]
    _same_size(fused, pan, valid)
    inside = _inside(pan, valid, DETAIL_REACH)
    pan_detail = _high_pass(pan, valid)[inside][None]
    sums = [_correlation_sums(_high_pass(band, valid)[inside][None], pan_detail) for band in fused]
    return _mean_correlation(torch.cat(sums, dim=1))


def flat_area_activity(fused: Tensor, pan: Tensor, valid: Tensor | None = None) -> float:
    """Detail of the fused image where PAN is flat, against PAN itself: 1 is as calm as PAN, more is ringing or noise.

    High pass as in `pan_detail_correlation`; flat are the 20 % of the valid pixels with the lowest 9 x 9 mean of PAN's
    squared high pass. Mean over bands of rms(flat) / rms(elsewhere), divided by the same of PAN. `fused`: (bands, rows,
    cols), `pan`: one band, DN; `valid`: bool (rows, cols), and pixels whose kernels touch an invalid one are left out.
    Raises `InputError` when no pixel is left, when PAN is constant over the flat pixels, or a band over the others.
    """
    pan = _image(pan)[0]
    _same_size(fused, pan, valid)
    inside = _inside(pan, valid, DETAIL_REACH + ENERGY_SIZE // 2)
    pan_detail = _high_pass(pan, valid)
    energy = _local_energy(pan_detail)[inside]
    flat = energy <= energy.kthvalue(math.ceil(FLAT_SHARE * len(energy))).values
    pan_ratio = _rms_ratio(pan_detail[inside], flat)
    if pan_ratio < 1e-6:  # below that it is rounding noise
        raise InputError("flat-area activity is undefined: PAN is constant over its flattest fifth")
    ratios = [_rms_ratio(_high_pass(band, valid)[inside], flat) for band in fused]
    return sum(ratios) / len(ratios) / pan_ratio


def _inside(pan: Tensor, valid: Tensor | None, reach: int) -> Tensor:
    """Pixels whose kernel touches valid pixels only; `InputError` when there is none."""
    if valid is None:
        return torch.ones_like(pan, dtype=torch.bool)
    inside = _eroded(valid, reach)
    if not inside.any():
        raise InputError(f"no detail figure: no pixel is {reach} pixels or more away from invalid ones")
    return inside


def _local_energy(detail: Tensor) -> Tensor:
    """9 x 9 mean of the squared high pass (rows, cols), edges repeated."""
    taps = np.full((1, ENERGY_SIZE), 1 / ENERGY_SIZE)
    return _correlate(_replicate(detail.square()[None], ENERGY_SIZE // 2)[0], taps, taps)


def _rms_ratio(detail: Tensor, flat: Tensor) -> float:
    """rms(flat) / rms(elsewhere) of a high pass (pixels,)."""
    elsewhere = float(detail[~flat].square().mean().sqrt()) if not flat.all() else 0.0
    if elsewhere == 0:
        raise InputError("flat-area activity is undefined: an image is constant outside the flat pixels")
    return _defined(detail[flat].square().mean().sqrt() / elsewhere, "flat-area activity")


def _core_detail(blocks: Tensor) -> Tensor:
    """High pass of the pixels of blocks (n, bands, 1024) whose kernel stays inside: (bands, pixels)."""
    x = (blocks - blocks[..., :1]).unflatten(-1, (BLOCK, BLOCK))
    core = BLOCK - 2 * DETAIL_REACH
    low = _banded(_gaussian(DETAIL_SIGMA, DETAIL_REACH)[0], x)[:BLOCK, :core]
    inner = slice(DETAIL_REACH, BLOCK - DETAIL_REACH)
    return (x[..., inner, inner] - low.mT @ x @ low).flatten(-2).transpose(0, 1).flatten(1)


def _correlation_sums(x: Tensor, y: Tensor) -> Tensor:
    """Sums for the correlation of (bands, pixels) with one band (1, pixels): n, x, y, xx, yy, xy; (6, bands)."""
    n = torch.full_like(x[:, 0], x.shape[1])
    y_sums = [torch.ones_like(n) * total for total in (y.sum(), y.square().sum())]
    return torch.stack([n, x.sum(1), y_sums[0], x.square().sum(1), y_sums[1], x @ y[0]])


def _mean_correlation(sums: Tensor) -> float:
    """Mean over bands of the Pearson correlation; a band that does not vary counts 0."""
    n, x, y, xx, yy, xy = sums
    var_x, var_y, cov = xx - x * x / n, yy - y * y / n, xy - x * y / n
    if (var_y <= 0).any():
        raise InputError("the PAN detail correlation is undefined: PAN is constant")
    correlation = torch.where(var_x == 0, 0.0, cov / (var_x * var_y).sqrt())
    return _defined(correlation.mean(), "the PAN detail correlation")


# Reduced resolution: against a reference


def sam(reference: Tensor, fused: Tensor, valid: Tensor | None = None) -> float:
    """Spectral angle mapper in degrees: mean over pixels of acos(<g, f> / (|g| |f|)), 0 is best.

    Yuhas et al. 1992. Images (bands, rows, cols); `valid`: bool (rows, cols). Pixels with a norm of zero have no angle
    and are left out; `InputError` when no pixel is left.
    """
    g, f = _pixels(reference, fused, valid)
    norm = (g.square().sum(0) * f.square().sum(0)).sqrt()
    kept = norm != 0
    if not kept.any():
        raise InputError("SAM is undefined: every pixel is zero in one of the images")
    angle = ((g * f).sum(0)[kept] / norm[kept]).clamp(-1, 1).acos()
    return math.degrees(_defined(angle.mean(), "SAM"))


def ergas(reference: Tensor, fused: Tensor, ratio: float, valid: Tensor | None = None) -> float:
    """ERGAS: 100 / ratio * sqrt(mean over bands of MSE / mean(reference band)^2), 0 is best.

    Wald, "Quality of high resolution synthesised images", 2000. Images (bands, rows, cols) in DN; `ratio`: MS pixel
    size in PAN pixels; `valid`: bool (rows, cols). `InputError` when no pixel is left or a reference band has mean 0.
    """
    g, f = _pixels(reference, fused, valid)
    mean = g.mean(1)
    if (mean == 0).any():
        raise InputError("ERGAS is undefined: a reference band has a mean of zero")
    return _defined(100 / ratio * ((g - f).square().mean(1) / mean**2).mean().sqrt(), "ERGAS")


def rmse(reference: Tensor, fused: Tensor, valid: Tensor | None = None) -> Tensor:
    """Root mean square error of each band (bands,), in DN; images (bands, rows, cols), `valid`: bool (rows, cols).

    `InputError` when no pixel is left or one is not a number.
    """
    g, f = _pixels(reference, fused, valid)
    errors = (g - f).square().mean(1).sqrt()
    _defined(errors.sum(), "RMSE")
    return errors


def psnr(reference: Tensor, fused: Tensor, peak: float, valid: Tensor | None = None) -> float:
    """Mean over bands of 10 log10(peak^2 / MSE), in dB; infinite when a band has no error at all.

    Images (bands, rows, cols) and `peak` in DN; `valid`: bool (rows, cols). `InputError` when no pixel is left.
    """
    return float((20 * torch.log10(peak / rmse(reference, fused, valid))).mean())


def scc(reference: Tensor, fused: Tensor, valid: Tensor | None = None) -> float:
    """Spatial correlation of Sobel gradient magnitudes g and f: sum(g f) / sqrt(sum g^2 sum f^2) over pixels and bands.

    Zhou et al. 1998, as the toolbox codes it: one pixel is dropped all around, zeros surround the rest, means
    are not removed. Images (bands, rows, cols) in DN; pixels whose 3 x 3 window touches an invalid one in `valid`
    (rows, cols) are left out. `InputError` when no pixel is left or an image has no gradient.
    """
    _same_shape(reference, fused)
    _same_size(reference, valid)
    inner = slice(1, -1)
    kept = None if valid is None else _eroded(valid[inner, inner], 1)
    sums = torch.zeros(3, dtype=torch.float64, device=reference.device)
    for pair in zip(reference, fused, strict=True):
        g, f = (_gradient(band[inner, inner].double(), valid) for band in pair)
        if kept is not None:
            g, f = g[kept], f[kept]
        sums += torch.stack([(g * f).sum(), g.square().sum(), f.square().sum()])
    if (sums[1:] == 0).any():
        raise InputError("SCC is undefined: no valid pixel, or an image without any gradient")
    return _defined(sums[0] / (sums[1] * sums[2]).sqrt(), "SCC")


def _gradient(x: Tensor, valid: Tensor | None) -> Tensor:
    """Sobel gradient magnitude of (rows, cols), surrounded by zeros."""
    if valid is not None:
        x = torch.where(valid[1:-1, 1:-1], x, 0.0)
    x = F.pad(x, (1, 1, 1, 1))
    across, down = x[:, 2:] - x[:, :-2], x[2:] - x[:-2]
    across = across[:-2] + 2 * across[1:-1] + across[2:]
    down = down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]
    return torch.hypot(across, down)


def _pixels(reference: Tensor, fused: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """The valid pixels of two images in float64: (bands, pixels) each."""
    _same_shape(reference, fused)
    _same_size(reference, valid)
    if valid is None:
        return reference.double().flatten(1), fused.double().flatten(1)
    if not valid.any():
        raise InputError("no valid pixel to compare the images at")
    return reference[:, valid].double(), fused[:, valid].double()
