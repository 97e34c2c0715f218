"""How the two grids of a scene see each other: the upsampler, the MTF blur and the degradation.

Every operator is separable and linear: a small matrix for rows and one for columns, built from the exact phase of the
two grids, applied as ``R @ x @ C.T``. Indices are integers on each grid; beyond the given source range the edge pixel
is repeated. Matrices are float64 numpy; `apply` runs them on any device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .raster.geometry import Axis, Offset, Phase, Span, Window

UPSAMPLE_REACH = 11
"""MS pixels on each side that one up-sampled value depends on."""

MTF_SIZE = 41
"""Taps of the MTF kernel at PAN scale, as in the reference toolbox."""

MTF_REACH = MTF_SIZE // 2
"""PAN pixels on each side that one blurred value depends on."""

PART, REDUCED_PART = 128, 48
"""Rows of a matrix that are multiplied at a time; of one that makes fewer pixels, each of which is made of many."""

SHORT_PART = 16
"""Rows multiplied at a time for degradations side by side."""

SPANS = 40
"""Matrices of each kind that are kept, a megabyte each: those of a row of tiles of 16 384 columns, 32, are met again in
the next one."""

NEGLIGIBLE = 1e-12
"""Weights of degradations in float32 that are left out; products with far smaller ones take many times as long."""

# Half of the 23-tap half-band filter (Aiazzi et al. 2002): weights of the samples at distance 1/2, 3/2, ... 11/2.
_HALF_BAND = 2 * np.array(
    [0.305334091185, -0.072698593239, 0.021809577942, -0.005192756653, 0.000807762146, -0.000060081482]
)
_TABLE_LEVELS = 12


@lru_cache(maxsize=1)
def _interpolator() -> np.ndarray:
    """Limit function of repeated doubling with the 23-tap filter, sampled at 2**-12 on [-11, 11].

    At quarter phases it equals the two-step x4 interpolation of the reference toolbox; it is defined at any phase.
    """
    taps = np.zeros(23)
    taps[11] = 1.0
    for k, weight in enumerate(_HALF_BAND):
        taps[11 - 1 - 2 * k] = taps[11 + 1 + 2 * k] = weight
    table = np.zeros(2 * UPSAMPLE_REACH + 1)
    table[UPSAMPLE_REACH] = 1.0
    for _ in range(_TABLE_LEVELS):
        fine = np.zeros(2 * len(table) - 1)
        fine[::2] = table
        table = np.convolve(fine, taps, mode="same")
    return table


def upsample_kernel(distance: np.ndarray) -> np.ndarray:
    """Weight of an MS sample at `distance` MS pixels (any real number)."""
    grid = np.linspace(-UPSAMPLE_REACH, UPSAMPLE_REACH, 2 * UPSAMPLE_REACH * 2**_TABLE_LEVELS + 1)
    return np.interp(distance, grid, _interpolator(), left=0.0, right=0.0)


def _mtf_alpha(gain: float, ratio: float) -> float:
    """Width of the MTF in frequency bins for a gain at the MS Nyquist frequency (oracle: (N-1)/(2r)/sqrt(-2 ln G))."""
    if not 0 < gain < 1:
        raise ValueError(f"an MTF gain lies between 0 and 1, not {gain}")
    return (MTF_SIZE - 1) / (2 * ratio) / np.sqrt(-2 * np.log(gain))


def mtf_sigma(gain: float, ratio: float) -> float:
    """Standard deviation of the MTF kernel in PAN pixels."""
    return MTF_SIZE / (2 * np.pi * _mtf_alpha(gain, ratio))


def mtf_kernel(gain: float, ratio: float) -> np.ndarray:
    """The reference toolbox's 41 x 41 MTF kernel: frequency-sampled Gaussian times a rotated Kaiser window.

    Vivone et al., "A Critical Comparison Among Pansharpening Algorithms", 2015, with the toolbox's constants; its sum
    is a little under one, as there.
    """
    alpha = _mtf_alpha(gain, ratio)
    k = np.arange(MTF_SIZE) - MTF_REACH
    response = np.exp(-(k**2) / (2 * alpha**2))
    profile = np.cos(2 * np.pi * np.outer(k, k) / MTF_SIZE) @ response / MTF_SIZE
    radius = np.hypot(*np.meshgrid(k, k))
    window = np.interp(radius, np.arange(MTF_REACH + 1), np.kaiser(MTF_SIZE, 0.5)[MTF_REACH:], right=0.0)
    return np.outer(profile, profile) * window


def _mtf_profile(distance: np.ndarray, gain: float, ratio: float) -> np.ndarray:
    """The MTF kernel along one axis at any real distance in PAN pixels, not normalised."""
    inside = np.clip(1 - (distance / MTF_REACH) ** 2, 0, None)
    window = np.i0(0.5 * np.sqrt(inside)) / np.i0(0.5)
    sigma = mtf_sigma(gain, ratio)
    gauss = np.exp(-(distance**2) / (2 * sigma**2)) / (np.sqrt(2 * np.pi) * sigma)
    return np.where(np.abs(distance) <= MTF_REACH, gauss * window, 0.0)


def _bicubic(distance: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel with a = -0.5."""
    d = np.abs(distance)
    near = 1.5 * d**3 - 2.5 * d**2 + 1
    far = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def _gather(weights_at, centres: np.ndarray, source: Span, reach: float) -> np.ndarray:
    """Rows of normalised weights around `centres`; what falls outside `source` goes to the edge pixel."""
    first = np.floor(centres - reach).astype(int)
    index = first[:, None] + np.arange(int(np.ceil(2 * reach)) + 2)
    weights = weights_at(index - centres[:, None])
    weights /= weights.sum(axis=1, keepdims=True)
    columns = np.clip(index, source[0], source[1] - 1) - source[0]
    matrix = np.zeros((len(centres), source[1] - source[0]))
    np.add.at(matrix, (np.arange(len(centres))[:, None], columns), weights)
    return matrix


@lru_cache(maxsize=SPANS)
def upsample_matrix(axis: Axis, pan: Span, ms: Span) -> np.ndarray:
    """Up-sampling of MS pixels `ms` to PAN pixels `pan`: (PAN pixels, MS pixels), shared."""
    return _gather(upsample_kernel, axis.pan_centres(pan), ms, UPSAMPLE_REACH)


@lru_cache(maxsize=SPANS)
def degrade_matrix(axis: Axis, ms: Span, pan: Span, gain: float) -> np.ndarray:
    """MTF blur of PAN pixels `pan` sampled at the centres of MS pixels `ms`: (MS pixels, PAN pixels), shared."""
    return _gather(lambda d: _mtf_profile(d, gain, axis.ratio), axis.ms_centres(ms), pan, MTF_REACH)


def blur_matrix(ratio: float, out: Span, source: Span, gain: float) -> np.ndarray:
    """MTF blur on the PAN grid: (out pixels, source pixels)."""
    return _gather(lambda d: _mtf_profile(d, gain, ratio), np.arange(*out).astype(float), source, MTF_REACH)


def gaussian_matrix(length: int, sigma: float = 2.0) -> np.ndarray:
    """Gaussian low pass of a whole axis, cut at 4 sigma, edges repeated; `x - low(x)` is the detail of the figures."""
    span = (0, length)
    reach = int(4 * sigma)
    return _gather(
        lambda d: np.exp(-0.5 * (d / sigma) ** 2) * (np.abs(d) <= reach), np.arange(length).astype(float), span, reach
    )


def bicubic_matrix(axis: Axis, ms: Span, pan: Span) -> np.ndarray:
    """Antialiased bicubic reduction to the MS grid, the low-pass of D_s: (MS pixels, PAN pixels)."""
    ratio = max(axis.ratio, 1.0)
    return _gather(lambda d: _bicubic(d / ratio), axis.ms_centres(ms), pan, 2 * ratio)


def binomial_matrix(centres: np.ndarray, source: Span, levels: int) -> np.ndarray:
    """The low-pass of an "a trous" decomposition at any real `centres`: (centres, source pixels).

    Each level convolves with [1 4 6 4 1] / 16 once in analysis and once in synthesis, as the reference toolbox codes
    it (not dilated), which makes a binomial kernel of 8 * levels + 1 taps; between pixels its factorials become gamma
    functions.
    """
    half = 4 * levels

    def weights(distance: np.ndarray) -> np.ndarray:
        d = torch.from_numpy(np.clip(np.abs(distance), 0, half + 1 - 1e-12))
        log = -torch.lgamma(half + d + 1) - torch.lgamma(half - d + 1)
        peak = -2 * torch.lgamma(torch.tensor(half + 1.0, dtype=torch.float64))
        return np.where(np.abs(distance) < half + 1, torch.exp(log - peak).numpy(), 0.0)

    return _gather(weights, centres, source, half + 1)


def box_matrix(out: Span, source: Span, size: int) -> np.ndarray:
    """Mean of `size` pixels, an odd number, around each: (out pixels, source pixels)."""
    return _gather(lambda d: (np.abs(d) <= size // 2) * 1.0, np.arange(*out).astype(float), source, size // 2)


def linear_matrix(positions: np.ndarray, samples: int) -> np.ndarray:
    """Linear interpolation between `samples` samples at 0, 1, 2, ...: (positions, samples), edges repeated."""
    return _gather(lambda d: np.clip(1 - np.abs(d), 0, None), positions, (0, samples), 1)


def sum_along(x: Tensor, size: int, dim: int) -> Tensor:
    """Sums of `size` neighbours along an axis, of those that have so many: sums of sums, in one order wherever it is.

    They are exact for integers, and fast where `size` has small factors."""
    step = 1
    while step < size:
        count = next(n for n in range(2, size + 1) if size // step % n == 0)
        length = x.shape[dim] - (count - 1) * step
        first, second, *others = (x.narrow(dim, k * step, length) for k in range(count))
        x = first + second
        for other in others:
            x += other
        step *= count
    return x


@dataclass(frozen=True)
class Separable:
    """A separable operator: `rows` (out rows, rows) and `cols` (out cols, cols), or one of each per band."""

    rows: Tensor
    cols: Tensor

    def __call__(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Apply to (..., bands, rows, cols); the result in `dtype`, that of the operator where none is named."""
        rows, cols = self._parts
        shape = np.broadcast_shapes(x.shape[:-2], self.rows.shape[:-2])  # torch's own loads sympy
        made = x.new_empty(*shape, self.rows.shape[-2], self.cols.shape[-2], dtype=dtype or x.dtype)
        for out, held in rows:
            some = self.rows[..., out, held] @ x[..., held, :]
            for part, taken in cols:
                made[..., out, part] = some[..., taken] @ self.cols[..., part, taken].mT
        return made

    @cached_property
    def _parts(self) -> tuple[list[tuple[slice, slice]], list[tuple[slice, slice]]]:
        return nonzero_parts(self.rows), nonzero_parts(self.cols)

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Separable:
        return Separable(self.rows.to(device, dtype), self.cols.to(device, dtype))


def nonzero_parts(matrix: Tensor) -> list[tuple[slice, slice]]:
    """Parts of the rows of a matrix with the columns that are not zero there.

    A kernel is short and a window is long, so that most of a matrix is zero; an accelerator has no use for small parts.
    """
    rows, cols = matrix.shape[-2:]
    size = PART if rows > cols // 2 else REDUCED_PART
    if rows <= size or matrix.device.type != "cpu":
        return [(slice(0, rows), slice(0, cols))]
    used, parts = matrix.numpy().reshape(-1, rows, cols), []
    for first in range(0, rows, size):
        held = np.flatnonzero(used[:, first : first + size].any((0, 1)))
        span = slice(held[0], held[-1] + 1) if held.size else slice(0, 0)
        parts.append((slice(first, first + size), span))
    return parts


def separable(rows: np.ndarray | Sequence[np.ndarray], cols: np.ndarray | Sequence[np.ndarray]) -> Separable:
    """Make an operator of numpy matrices; a sequence holds one matrix per band."""
    return Separable(torch.from_numpy(np.array(rows)), torch.from_numpy(np.array(cols)))


def _along_both(build: Callable[..., np.ndarray], *pairs: tuple, gain: tuple = ()) -> tuple[np.ndarray, ...]:
    """Matrices for rows and for columns, of what each pair has for them."""
    return tuple(build(*each, *gain) for each in zip(*pairs, strict=True))


def upsampler(phase: Phase, pan: Window, ms: Window, offsets: Sequence[Offset] = ()) -> Separable:
    """THE upsampler between two windows; `offsets` are those of the bands, none where all lie on the one grid."""
    drawn = list(offsets) if any(map(any, offsets)) else [(0.0, 0.0)]
    return _per_band(lambda offset: _along_both(upsample_matrix, phase.moved(offset), pan.spans, ms.spans), drawn)


def in_place(phase: Phase, ms: Tensor, offsets: Sequence[Offset]) -> Tensor:
    """MS (..., bands, rows, cols) whose single bands lie off, each moved to the grid of the whole."""
    if not offsets:
        return ms
    here = Window(0, ms.shape[-2], 0, ms.shape[-1])
    moved = [(rows / phase.rows.ratio, cols / phase.cols.ratio) for rows, cols in offsets]
    return upsampler(Phase.of((1.0, 1.0)), here, here, moved)(ms)


def _per_band(build: Callable[[Any], tuple[np.ndarray, ...]], drawn: Sequence) -> Separable:
    """One matrix pair per band; bands of equal gain and offset share the work, and equal ones need no band axis."""
    made = {key: build(key) for key in dict.fromkeys(drawn)}
    if len(made) == 1:
        return separable(*made[drawn[0]])
    return separable([made[key][0] for key in drawn], [made[key][1] for key in drawn])


def degrader(
    phase: Phase, ms: Window, pan: Window, gains: Sequence[float], offsets: Sequence[Offset] = ()
) -> Separable:
    """THE degradation: MTF blur of each band and sampling on its MS grid at the exact phase."""
    offsets = offsets if any(map(any, offsets)) else [(0.0, 0.0)] * len(gains)
    gains = [gains[0]] * len(offsets) if len(gains) == 1 else gains
    return _per_band(
        lambda band: _along_both(degrade_matrix, phase.moved(band[1]), ms.spans, pan.spans, gain=(band[0],)),
        list(zip(gains, offsets, strict=True)),
    )


class Degradations:
    """Several degradations of one image side by side, in float32: each with one gain, or with one for each band.

    `phase` is that of windows that start at 0, of `ms` and `pan` rows and columns. The rows of all operators are one
    product, of a few MS pixels at a time with the PAN pixels that they reach.
    """

    def __init__(
        self, phase: Phase, ms: tuple[int, int], pan: tuple[int, int], gains: Sequence[Sequence[float]]
    ) -> None:
        self.shape, bands = ms, max(map(len, gains))
        alike = [list(each) * (bands // len(each)) for each in gains]
        self._rows, self._cols = (
            _short_parts(
                np.array([[degrade_matrix(a, (0, m), (0, p), each[b]) for each in alike] for b in range(bands)])
            )
            for a, m, p in zip(phase, ms, pan, strict=True)
        )

    def __call__(self, x: Tensor) -> Tensor:
        """(bands, rows, cols) to (bands, operators, MS rows, MS cols), float32."""
        bands, operators = len(x), self._rows[0][2].shape[1]
        short = (weights.flatten(1, 2).expand(bands, -1, -1) @ x[:, held] for _, held, weights in self._rows)
        middle = torch.cat([part.unflatten(1, (operators, -1)) for part in short], 2)
        return torch.cat([middle[..., held] @ weights.mT for _, held, weights in self._cols], -1)


def _short_parts(matrices: np.ndarray) -> list[tuple[slice, slice, Tensor]]:
    """Some rows at a time of matrices (bands, operators, rows, cols) that are zero in most columns: the rows, the
    columns that they hold, and these weights in float32, none of them so small that it slows the product down."""
    matrices = np.where(np.abs(matrices) < NEGLIGIBLE, 0, matrices)
    parts = []
    for first in range(0, matrices.shape[-2], SHORT_PART):
        part = matrices[..., first : first + SHORT_PART, :]
        used = np.flatnonzero(part.any((0, 1, 2)))
        held = slice(int(used[0]), int(used[-1]) + 1)
        parts.append((slice(first, first + part.shape[-2]), held, torch.from_numpy(part[..., held]).float()))
    return parts


def blurrer(ratios: tuple[float, float], out: Window, source: Window, gains: Sequence[float]) -> Separable:
    """THE MTF blur on the PAN grid."""
    return _per_band(lambda gain: _along_both(blur_matrix, ratios, out.spans, source.spans, gain=(gain,)), gains)


def cubic_reducer(phase: Phase, ms: Window, pan: Window) -> Separable:
    """Antialiased bicubic reduction of PAN to the MS grid (for D_s)."""
    return separable(*_along_both(bicubic_matrix, phase, ms.spans, pan.spans))


@dataclass(frozen=True)
class Reach:
    """Which PAN and MS windows the operators of a tile ask for."""

    phase: Phase
    ms_reach: int = UPSAMPLE_REACH
    offsets: tuple[Offset, ...] = ()

    def windows(self, window: Window) -> tuple[Window, Window]:
        """(PAN window, MS window) around a window of PAN pixels."""
        far = max((abs(d) for o in self.offsets for d in o), default=0.0)
        ms = self.phase.ms_window(window, self.ms_reach, far)
        return self.phase.pan_window(ms, MTF_REACH + 1 + far) | window, ms
