"""The universal quality index, of all bands together (Q2n) and of each (Q average), against a reference."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...physics import sum_along
from ...raster.geometry import Window
from .blocks import (
    INDEX_BLOCK,
    Index,
    Paired,
    block_moments,
    into_blocks,
    mirrored,
    same_shape,
    same_size,
    whole_blocks,
    whole_of,
)


@dataclass(eq=False)
class Q2n(Index):
    """Q2n (Q4, Q8) against a reference: the mean over the 32 x 32 blocks of an image, mirrored up to whole blocks.

    Garzelli and Nencini, "Hypercomplex Quality Assessment of Multi/Hyperspectral Images", 2009, as the toolbox codes
    it: both images, (bands, rows, cols) in DN, are rounded half up to integers and negative values become 0 (values
    above 65535 stay, where the toolbox saturates). The index is not symmetric. `scale` multiplies both images before
    the rounding, for data in units that integers do not resolve (reflectances). Blocks with an invalid pixel are left
    out.
    """

    scale: float = 1.0
    reach = INDEX_BLOCK - 1

    def update(self, reference: Tensor, fused: Tensor, valid: Tensor | None = None, core: Window | None = None) -> Any:
        """Add a piece whose own pixels begin on the image's lattice of blocks and end on it or with the image.

        Returns the index of each of its blocks (block rows, block cols), NaN for those left out.
        """
        same_shape(reference, fused)
        same_size(reference, valid)
        own = core or whole_of(reference)
        values = q2n_of_blocks(into_blocks(mirrored(reference, own)), into_blocks(mirrored(fused, own)), self.scale)
        whole = torch.ones_like(values, dtype=torch.bool) if valid is None else whole_blocks(mirrored(valid, own))
        self._add_up(values[whole].sum(), whole.sum())
        return values.masked_fill(~whole, math.nan)

    @property
    def blocks(self) -> int:
        """Number of blocks measured."""
        return int(self._sums[1])

    def compute(self) -> float:
        """Q2n of all pieces so far, 1 is best; `InputError` when there is no block of valid pixels."""
        return self._mean("Q2n", f"{INDEX_BLOCK} x {INDEX_BLOCK} block of valid pixels")


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
    return (x + 0.5 if scale == 1 else (x * scale).add_(0.5)).floor_().clamp_(min=0)


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


class QAverage(Paired):
    """Q average: the universal index over all sliding 32 x 32 windows inside the image, mean over windows and bands.

    Wang and Bovik 2002. Images (bands, rows, cols) in DN. A window that is constant in both images counts
    2 ma mb / (ma^2 + mb^2), and 1 when both means are zero, as in the toolbox's `img_qi`. Windows with an invalid pixel
    are left out. A window belongs to the piece that has its upper left pixel, so that a piece needs its margin at the
    lower and right side only.
    """

    reach = INDEX_BLOCK - 1

    def _add(self, g: Tensor, f: Tensor, mask: Tensor, own: Window) -> None:
        g, f, mask = (x[..., own.top :, own.left :] for x in (g, f, mask))
        if min(mask.shape) < INDEX_BLOCK:
            return
        kept = _box((~mask).double()) == 0
        for a, b in zip(g, f, strict=True):
            self._add_up(_sliding(a, b)[kept].sum(), kept.sum())

    def compute(self) -> float:
        """Q of all pieces so far, 1 is best; `InputError` when there is no window of valid pixels."""
        return self._mean("Q", f"{INDEX_BLOCK} x {INDEX_BLOCK} window of valid pixels")


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
    """Sums of all 32 x 32 windows of (rows, cols): exact for integers and constant windows."""
    return sum_along(sum_along(x, INDEX_BLOCK, 0), INDEX_BLOCK, 1)
