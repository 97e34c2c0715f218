"""What indices share: filters, blocks, moments, sums over valid pixels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import InputError
from ...physics import MTF_REACH, MTF_SIZE, mtf_kernel
from ...raster.geometry import Window

INDEX_BLOCK = 32
"""Side of the blocks of Q2n and of the universal index, in PAN pixels."""

DETAIL_SIGMA = 2.0
"""Standard deviation, in PAN pixels, of the Gaussian that the high pass takes away."""

DETAIL_REACH = 8
"""PAN pixels on each side that one high-passed value depends on (4 sigma)."""

ENERGY_SIZE = 9
"""Side of the window of the local energy of PAN, in PAN pixels."""

FLAT_SHARE = 0.2
"""Share of the valid pixels that counts as flat."""

SSIM_SIGMA = 1.5
"""Standard deviation, in pixels, of the Gaussian window of SSIM."""

SSIM_REACH = 5
"""Pixels on each side of the centre of a window of SSIM."""

MAPS = ("hqnr", "d_lambda_k", "d_s", "sam", "detail")

_SEGMENT = 32

_ENERGY_BITS = 13
"""Low bits of a float32 that a bin of the local energy does not tell apart: it keeps 10 bits of the mantissa."""

_ENERGY_RANGE = (-64, 128)
"""Exponents of two of the bins: finer than the detail of reflectances, as large as float32 has them."""

BINS = (_ENERGY_RANGE[1] - _ENERGY_RANGE[0]) << (23 - _ENERGY_BITS)
_FIRST_BIN = (127 + _ENERGY_RANGE[0]) << (23 - _ENERGY_BITS)

# Filters


def mtf_filter(
    x: Tensor, gains: Sequence[float], ratio: float, border: Literal["replicate", "valid"] = "replicate"
) -> Tensor:
    """Correlate each band with the toolbox's own 41 x 41 MTF kernel of its gain (not normalised to DC 1).

    `x`: (bands, rows, cols), floating, DN; `gains` at the MS Nyquist frequency, one per band; `ratio`: MS pixel size in
    PAN pixels. "replicate" repeats the edge pixel and keeps the size; "valid" returns what needs no border, 20 pixels
    less on each side. The kernel is nearly of rank one, so a few separable passes do the work of its 1681 taps. The
    dropped rest is below 1e-10 of the kernel's norm in float64 and 1e-5 in float32.
    Raises ValueError for a wrong number of gains, or too small an image for "valid".
    """
    if border == "replicate":
        x = _replicate(x, MTF_REACH)
    elif min(x.shape[-2:]) <= 2 * MTF_REACH:
        raise ValueError(f"a valid MTF filter needs more than {2 * MTF_REACH} rows and columns, not {tuple(x.shape)}")
    if len(gains) != len(x):
        raise ValueError(f"{len(gains)} MTF gains for {len(x)} bands")
    tolerance = 1e-10 if x.dtype == torch.float64 else 1e-5
    alike = itertools.groupby(zip(gains, x.split(1), strict=True), lambda pair: float(pair[0]))
    parts = []
    for gain, pairs in alike:
        down, across = _mtf_terms(gain, float(ratio), tolerance)
        cut = MTF_REACH - down.shape[1] // 2
        bands = torch.cat([band for _, band in pairs])
        parts.append(correlate(bands[:, cut : bands.shape[1] - cut, cut : bands.shape[2] - cut], down, across))
    return torch.cat(parts)


@lru_cache(maxsize=64)
def _mtf_terms(gain: float, ratio: float, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """The MTF kernel as a sum of outer products: taps along rows and along columns, (terms, taps) each.

    Rims are left out that hold less than a tenth of the tolerance.
    """
    kernel = mtf_kernel(gain, ratio)
    left, weight, right = np.linalg.svd(kernel)
    kept = weight > tolerance * weight[0]
    rims = np.abs(kernel).max(0).cumsum() / np.abs(kernel).max(0).sum()
    cut = min(int((rims < tolerance / 10).sum()), MTF_REACH - 1)
    inner = slice(cut, MTF_SIZE - cut)
    return (left[:, kept] * weight[kept]).T[:, inner], right[kept][:, inner]


def correlate(x: Tensor, down: np.ndarray, across: np.ndarray) -> Tensor:
    """Correlate (rows, cols) or (bands, rows, cols) with a sum of separable kernels (terms, taps), without borders.

    Segments times small banded matrices: several times faster than a convolution, in float64 above all.
    """
    bands = as_bands(x)
    rows, cols = x.shape[-2] - down.shape[1] + 1, x.shape[-1] - across.shape[1] + 1
    out: Tensor | None = None
    for down_taps, across_taps in zip(down, across, strict=True):
        band = _banded(across_taps.tobytes(), x.dtype).to(x.device)
        passed = torch.cat([bands[..., i : i + len(b)] @ b for i, b in _segments(band, cols)], dim=-1)
        band = _banded(down_taps.tobytes(), x.dtype).to(x.device)
        term = torch.cat([b.mT @ passed[:, i : i + len(b)] for i, b in _segments(band, rows)], dim=-2)
        out = term if out is None else out.add_(term)
    assert out is not None
    return out if x.ndim == 3 else out[0]


@lru_cache(maxsize=64)
def _banded(taps: bytes, dtype: torch.dtype) -> Tensor:
    """Matrix that correlates a segment with float64 taps: (segment + taps - 1, segment)."""
    weights = np.frombuffer(taps)
    matrix = np.zeros((_SEGMENT + len(weights) - 1, _SEGMENT))
    for k, weight in enumerate(weights):
        np.fill_diagonal(matrix[k:], weight)
    return torch.from_numpy(matrix).to(dtype)


def _segments(band: Tensor, length: int) -> list[tuple[int, Tensor]]:
    """First output pixel of each segment of an axis, with the matrix cut to the segment's size."""
    cut = [(i, min(_SEGMENT, length - i)) for i in range(0, length, _SEGMENT)]
    return [(i, band[: len(band) - _SEGMENT + n, :n]) for i, n in cut]


def _replicate(x: Tensor, reach: int) -> Tensor:
    """Repeat the edge pixels of (bands, rows, cols) `reach` times on each side."""
    return F.pad(x[None], (reach,) * 4, mode="replicate")[0]


def gaussian(sigma: float, reach: int) -> np.ndarray:
    """Taps of a Gaussian cut at `reach` pixels, summing to one: (1, 2 reach + 1)."""
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return (taps / taps.sum())[None]


def eroded(valid: Tensor, reach: int) -> Tensor:
    """Pixels of (rows, cols) with no invalid pixel within `reach` rows and columns; outside the image is valid."""
    return valid if valid.all() else widest((~valid).float(), reach) == 0


def widest(x: Tensor, reach: int) -> Tensor:
    """Largest value of (rows, cols) within `reach` rows and columns."""
    size = 2 * reach + 1
    x = F.max_pool2d(x[None], (1, size), stride=1, padding=(0, reach))
    return F.max_pool2d(x, (size, 1), stride=1, padding=(reach, 0))[0]


# Pieces of an image


class Index:
    """An index that is added up piece by piece. A piece has its own pixels, `core`, all without one, and around them a
    margin, if the image has more there; `reach`: PAN pixels that the margin needs."""

    reach = 0
    update: Callable[..., Any]
    compute: Callable[..., Any]
    _sums = torch.zeros(2, dtype=torch.float64)

    def of(self, *images: Any, **more: Any) -> Any:
        """The index of whole images: what `update` takes, then what `compute` returns."""
        self.update(*images, **more)
        return self.compute()

    def _add_up(self, *sums: Tensor) -> None:
        """Add to the running totals, which move to the device of the new ones."""
        new = torch.stack([x.double() for x in sums])
        self._sums = self._sums.to(new.device) + new

    def _mean(self, what: str, of: str) -> float:
        """A sum divided by a number; `InputError` when nothing was summed."""
        if not self._sums[1]:
            raise InputError(f"{what} is undefined: there is no {of}")
        return not_nan(self._sums[0] / self._sums[1], what)


class Paired(Index):
    """An index of a fused image against a reference."""

    def update(self, reference: Tensor, fused: Tensor, valid: Tensor | None = None, core: Window | None = None) -> Any:
        """Add a piece: images (bands, rows, cols) in DN, `valid` bool (rows, cols)."""
        return self._add(*prepared_pair(reference, fused, valid, core, self.reach))

    def _add(self, g: Tensor, f: Tensor, mask: Tensor, own: Window) -> Any:
        raise NotImplementedError


def whole_of(x: Tensor) -> Window:
    """All pixels of (..., rows, cols)."""
    return Window(0, x.shape[-2], 0, x.shape[-1])


def with_margin(core: Window | None, x: Tensor, reach: int) -> tuple[Window, Window]:
    """The own pixels of (..., rows, cols) with at most `reach` pixels of margin, and where they lie in that."""
    own = core or whole_of(x)
    area = own.widened(reach) & whole_of(x)
    return area, own.seen_from(area)


def inside_border(own: Window, shape: Sequence[int], border: int) -> tuple[slice, slice]:
    """Own pixels that are not within `border` pixels of the array's edge, as indices of the array without it."""
    inner = own.moved(-border, -border) & Window(0, shape[0] - 2 * border, 0, shape[1] - 2 * border)
    return inner.slices if not inner.is_empty else (slice(0, 0), slice(0, 0))


def prepared_pair(
    reference: Tensor, fused: Tensor, valid: Tensor | None, core: Window | None, reach: int
) -> tuple[Tensor, Tensor, Tensor, Window]:
    """Both images in float64 with at most `reach` pixels of margin, 0 where invalid; their mask; the own pixels."""
    same_shape(reference, fused)
    same_size(reference, valid)
    area, own = with_margin(core, reference, reach)
    g, f = reference[:, *area.slices].double(), fused[:, *area.slices].double()
    mask = torch.ones_like(g[0], dtype=torch.bool) if valid is None else valid[area.slices]
    if not mask.all():
        g, f = (torch.where(mask, x, 0.0) for x in (g, f))
    return g, f, mask, own


def block_area(own: Window, at: tuple[int, int], shape: tuple[int, int]) -> Window:
    """Blocks of the image that a piece covers; ValueError unless it keeps to the image and its lattice of blocks."""
    piece = Window.at(*at, own.shape)
    for (first, last), size in zip(piece.spans, shape, strict=True):
        if first < 0 or last > size or first % INDEX_BLOCK or (last % INDEX_BLOCK and last != size):
            raise ValueError(
                f"a piece of {last - first} pixels at {first} of {size} is not on the lattice of {INDEX_BLOCK} x "
                f"{INDEX_BLOCK}"
            )
    return Window.of(*((first // INDEX_BLOCK, -(-last // INDEX_BLOCK)) for first, last in piece.spans))


def same_shape(*images: Tensor) -> None:
    if len({image.shape for image in images}) > 1:
        raise ValueError(f"images of different shapes: {', '.join(str(tuple(i.shape)) for i in images)}")


def same_size(*images: Tensor | None) -> None:
    if len({image.shape[-2:] for image in images if image is not None}) > 1:
        raise ValueError("images or masks of different numbers of rows and columns")


def not_nan(value: float | Tensor, what: str) -> float:
    """The value, unless it is NaN."""
    value = float(value)
    if math.isnan(value):
        raise InputError(f"{what} is undefined: there are pixels that are not numbers; mark them as invalid")
    return value


def or_note(measure: Callable[[], Any], notes: list[str]) -> Any:
    """What `measure` returns, or None with its reason in `notes`."""
    try:
        return measure()
    except InputError as error:
        notes.append(str(error))
        return None


# Block statistics


@dataclass(frozen=True)
class _Moments:
    """Statistics of two images per block: `mean_*` and `var_*` (..., bands), `cov` (..., bands a, bands b)."""

    mean_a: Tensor
    mean_b: Tensor
    var_a: Tensor
    var_b: Tensor
    cov: Tensor


def block_moments(a: Tensor, b: Tensor) -> _Moments:
    """Means, variances and covariances (n - 1) of blocks (..., bands, pixels), float64."""
    pixels = a.shape[-1]
    da, mean_a = _centred(a)
    db, mean_b = (da, mean_a) if b is a else _centred(b)
    cov = (da @ db.mT).double() / (pixels - 1)
    variances = cov.diagonal(dim1=-2, dim2=-1) if b is a else None
    return _Moments(
        mean_a=mean_a,
        mean_b=mean_b,
        var_a=torch.linalg.vecdot(da, da).double() / (pixels - 1) if variances is None else variances,
        var_b=torch.linalg.vecdot(db, db).double() / (pixels - 1) if variances is None else variances,
        cov=cov,
    )


def _centred(x: Tensor) -> tuple[Tensor, Tensor]:
    """Differences of (..., pixels) from their mean, and the mean in float64.

    By way of differences from the first pixel: exactly zero in a constant block.
    """
    first = x[..., :1]
    differences = x - first
    rest = differences.mean(-1, keepdim=True)
    return differences.sub_(rest), (first.double() + rest)[..., 0]


def as_bands(x: Tensor) -> Tensor:
    """(rows, cols) or (bands, rows, cols) as (bands, rows, cols)."""
    return x[None] if x.ndim == 2 else x


def into_blocks(x: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """The whole blocks of (bands, rows, cols): (block rows, block cols, bands, pixels)."""
    rows, cols = x.shape[1] // INDEX_BLOCK, x.shape[2] // INDEX_BLOCK
    x = x[:, : rows * INDEX_BLOCK, : cols * INDEX_BLOCK].reshape(len(x), rows, INDEX_BLOCK, cols, INDEX_BLOCK)
    out = torch.empty((rows, cols, len(x), INDEX_BLOCK, INDEX_BLOCK), dtype=dtype, device=x.device)
    return out.copy_(x.permute(1, 3, 0, 2, 4)).flatten(-2)


def whole_blocks(valid: Tensor) -> Tensor:
    """Blocks of (rows, cols) without an invalid pixel: (block rows, block cols), bool."""
    return into_blocks(valid[None], torch.bool)[:, :, 0].all(-1)


def mirrored(x: Tensor, own: Window) -> Tensor:
    """The own pixels of (..., rows, cols), continued by mirroring (edge pixel included) up to whole blocks.

    Only the image ends inside a block: ValueError when an incomplete block has a margin beyond it.
    """
    for axis, (first, last) in zip((-2, -1), own.spans, strict=True):
        size, missing = x.shape[axis], -(last - first) % INDEX_BLOCK
        if missing and last != size:
            raise ValueError(f"own pixels {first} to {last} of {size} end inside a {INDEX_BLOCK} x {INDEX_BLOCK} block")
        index = torch.arange(first, last + missing, device=x.device) % (2 * size)
        index = torch.minimum(index, 2 * size - 1 - index)
        x = x.index_select(axis, index) if missing else x.narrow(axis, first, last - first)
    return x


# Universal index


def universal_index(a: Tensor, b: Tensor) -> Tensor:
    """Universal index of every band of blocks `a` (..., bands, pixels) with every band of `b`: (..., bands a, bands b).

    Wang and Bovik, "A Universal Image Quality Index", 2002, with variances of n - 1 and without guards:
    4 cov mean_a mean_b / ((var_a + var_b) (mean_a^2 + mean_b^2)). Infinite where there is none, in a block that is
    constant in both or whose means are zero, so that NaN stands for pixels that are not numbers alone.
    """
    m = block_moments(a, b)
    mean_a, mean_b = m.mean_a[..., :, None], m.mean_b[..., None, :]
    below = (m.var_a[..., :, None] + m.var_b[..., None, :]) * (mean_a**2 + mean_b**2)
    return torch.where(below == 0, math.inf, 4 * m.cov * mean_a * mean_b / below)


def high_pass(x: Tensor, valid: Tensor, sigma: float = DETAIL_SIGMA, reach: int = DETAIL_REACH) -> Tensor:
    """x - gauss(x, sigma) of (bands, rows, cols), cut at `reach` pixels, edges repeated.

    Wrong within `reach` of invalid pixels: those of `valid` (rows, cols) that are not set.
    """
    x = differences(x, valid)
    taps = gaussian(sigma, reach)
    return x - correlate(_replicate(x, reach), taps, taps)


def differences(x: Tensor, valid: Tensor) -> Tensor:
    """Differences of (bands, rows, cols) from one valid pixel, 0 where invalid.

    So a constant image has a high pass and a variance of zero, not of rounding noise.
    """
    whole = bool(valid.all())
    x = x - x.flatten(1)[:, 0 if whole else valid.flatten().int().argmax()][:, None, None]
    return x if whole else torch.where(valid, x, 0.0)


def local_energy(detail: Tensor) -> Tensor:
    """9 x 9 mean of the squared high pass (rows, cols), edges repeated."""
    taps = np.full((1, ENERGY_SIZE), 1 / ENERGY_SIZE)
    return correlate(_replicate(detail.square()[None], ENERGY_SIZE // 2)[0], taps, taps)


class EnergySums:
    """Sums of figures of pixels by bins of a local energy: the upper bits of a positive float32 grow with its value."""

    def __init__(self) -> None:
        self.counts, self.sums = torch.zeros(BINS, dtype=torch.float64), torch.empty(0, dtype=torch.float64)

    def add(self, energy: Tensor, figures: Tensor) -> None:
        """Add pixels: `energy` (pixels,), `figures` (figures, pixels)."""
        bits = energy.float().contiguous().view(torch.int32) >> _ENERGY_BITS
        bins = (bits - _FIRST_BIN).clamp(0, BINS - 1)
        if not len(self.sums):
            self.sums = torch.zeros(len(figures), BINS, dtype=torch.float64)
        self.counts, self.sums = self.counts.to(bins.device), self.sums.to(bins.device)
        for total, figure in zip((self.counts, *self.sums), (torch.ones_like(energy), *figures), strict=True):
            total.index_add_(0, bins, figure.double())

    def lowest(self, wanted: float) -> Tensor:
        """Which share of each bin belongs to the `wanted` pixels of lowest energy."""
        missing = wanted - (self.counts.cumsum(0) - self.counts)
        return (missing / self.counts.clamp(min=1)).clamp(0, 1)


def kept_of(x: Tensor, kept: Tensor, own: Window) -> Tensor:
    """The own pixels of (bands, rows, cols) where `kept` (rows, cols) holds: (bands, pixels)."""
    x, kept = x[:, *own.slices], kept[own.slices]
    return x.flatten(1) if kept.all() else x[:, kept]
