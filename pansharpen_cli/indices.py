"""The quality indices on plain numpy arrays: `pansharpen.indices.q2n(reference, fused)`.

Images are arrays (bands, rows, cols) in DN, PAN is (rows, cols) or (1, rows, cols). `valid` is a bool array (rows,
cols); what a masked array masks in any band is invalid, too. Every function raises InputError where the index is
undefined, for a peak, ratio, scale or gain that can be none, and for shapes that do not fit. Definitions
and sources are in docs/metrics.md. A function has the name of the key that reports use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike

from . import physics
from .arguments import plain_arguments, positive
from .errors import InputError, reason_of
from .quality import metrics
from .raster.geometry import Phase, Window
from .raster.source import nearest_valid

__all__ = [
    "bias", "cc", "d_lambda", "d_lambda_k", "d_s", "ergas", "expand", "flat_area_activity", "hqnr", "low_passed_pan",
    "pan_detail_correlation", "psnr", "q", "q2n", "qnr", "rmse", "sam", "scc", "ssim",
]  # fmt: skip

P = ParamSpec("P")
R = TypeVar("R")
Mask = ArrayLike | None


def _index(function: Callable[P, R]) -> Callable[P, R]:
    """A function whose arguments are plain values, and which raises InputError for images that do not fit."""
    of_plain = plain_arguments(function)

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return of_plain(*args, **kwargs)
        except ValueError as error:
            raise InputError(reason_of(error)) from error

    return called


hqnr, qnr = _index(metrics.hqnr), _index(metrics.qnr)

# Against a reference ------------------------------------------------------------------------------------------------


@_index
def q2n(reference: ArrayLike, fused: ArrayLike, valid: Mask = None, *, scale: float = 1.0) -> float:
    """Q2n, 1 is best; values times `scale` are rounded to integers (Garzelli and Nencini 2009)."""
    return _measured(metrics.Q2n(positive("scale", scale)).of, [reference, fused], valid)


@_index
def q(reference: ArrayLike, fused: ArrayLike, valid: Mask = None) -> float:
    """Universal index of all sliding 32 x 32 windows, mean over bands, 1 is best (Wang and Bovik 2002)."""
    return _measured(metrics.QAverage().of, [reference, fused], valid)


@_index
def sam(reference: ArrayLike, fused: ArrayLike, valid: Mask = None) -> float:
    """Spectral angle in degrees, mean over pixels, 0 is best."""
    return _measured(metrics.Angles().of, [reference, fused], valid)


@_index
def ergas(reference: ArrayLike, fused: ArrayLike, ratio: float, valid: Mask = None) -> float:
    """ERGAS, 0 is best; `ratio`: MS pixel size in PAN pixels (Wald 2000)."""
    return _errors(reference, fused, valid).ergas(ratio)


@_index
def scc(reference: ArrayLike, fused: ArrayLike, valid: Mask = None) -> float:
    """Correlation of Sobel gradient magnitudes, 1 is best."""
    return _measured(metrics.SpatialCorrelation().of, [reference, fused], valid)


@_index
def psnr(reference: ArrayLike, fused: ArrayLike, peak: float, valid: Mask = None) -> float:
    """PSNR in dB, mean over bands; `peak`: full value in DN. Infinite for equal images."""
    return _errors(reference, fused, valid).psnr(peak)


@_index
def ssim(reference: ArrayLike, fused: ArrayLike, peak: float, valid: Mask = None) -> float:
    """Structural similarity, 11 x 11 Gaussian windows, mean over bands, 1 is best (Wang et al. 2004)."""
    return _measured(metrics.StructuralSimilarity(peak).of, [reference, fused], valid)


@_index
def cc(reference: ArrayLike, fused: ArrayLike, valid: Mask = None) -> float:
    """Pearson correlation, mean over bands, 1 is best."""
    return _errors(reference, fused, valid).cross_correlation()


@_index
def rmse(reference: ArrayLike, fused: ArrayLike, valid: Mask = None) -> np.ndarray:
    """Root mean square error of each band (bands,), DN."""
    return _errors(reference, fused, valid).rmse().numpy()


@_index
def bias(reference: ArrayLike, fused: ArrayLike, valid: Mask = None) -> np.ndarray:
    """Mean of fused - reference of each band (bands,), DN."""
    return _errors(reference, fused, valid).bias().numpy()


# Without a reference ------------------------------------------------------------------------------------------------


@_index
def expand(ms: ArrayLike, shape: tuple[int, int], ratio: float, offset: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """The MS (bands, MS rows, MS cols) up-sampled to a PAN grid of `shape`: (bands, rows, cols), float64.

    `ratio`: MS pixel size in PAN pixels; `offset`: origin of the MS in PAN pixels (rows, columns) from the PAN's.
    """
    image = _image(ms)[0]
    phase = Phase.of((ratio, ratio), offset)
    up = physics.upsampler(phase, _whole(shape), _whole(image.shape[1:]))
    return up.to("cpu", torch.float64)(image).numpy()


@_index
def low_passed_pan(
    pan: ArrayLike, ms_shape: tuple[int, int], ratio: float, offset: tuple[float, float] = (0.0, 0.0)
) -> np.ndarray:
    """PAN reduced to an MS grid of `ms_shape` and expanded again, for `d_s`: (rows, cols), float64."""
    image = _image(_pan(pan))[0]
    phase, ms, full = Phase.of((ratio, ratio), offset), _whole(ms_shape), _whole(image.shape[1:])
    low = physics.cubic_reducer(phase, ms, full).to("cpu", torch.float64)(image)
    return physics.upsampler(phase, full, ms).to("cpu", torch.float64)(low)[0].numpy()


@_index
def d_lambda_k(
    expanded: ArrayLike, fused: ArrayLike, gains: float | Sequence[float], ratio: float, valid: Mask = None
) -> float:
    """Spectral distortion of Khan, 0 is best: 1 - Q2n of the expanded MS and the fused image blurred with the MTF.

    `expanded`: of `expand`. `gains`: MTF gains at the MS Nyquist frequency, one per band or one for all. `ratio`: MS
    pixel size in PAN pixels (Khan et al. 2009). The blur takes the nearest valid pixel for one that is not.
    """
    (sharp, soft), whole = _read([fused, expanded], valid)
    each = [gains] * len(sharp) if isinstance(gains, float) else list(gains)
    if len(each) != len(sharp):
        raise InputError(f"{len(each)} gains do not fit {len(sharp)} bands")
    if whole is not None and whole.any():
        every_row, every_col = np.ogrid[: whole.shape[0], : whole.shape[1]]
        rows, cols = nearest_valid(whole.numpy(), (every_row, every_col))
        sharp = sharp[:, rows, cols]
    return metrics.d_lambda_k(soft, sharp, each, ratio, whole)


@_index
def d_s(fused: ArrayLike, expanded: ArrayLike, pan: ArrayLike, pan_low: ArrayLike, valid: Mask = None) -> float:
    """Spatial distortion, 0 is best (Alparone et al. 2008); `pan_low`: of `low_passed_pan`."""
    return _measured(metrics.d_s, [fused, expanded, _pan(pan), _pan(pan_low)], valid)


@_index
def d_lambda(fused: ArrayLike, expanded: ArrayLike, valid: Mask = None) -> float:
    """Spectral distortion of QNR, 0 is best (Alparone et al. 2008)."""
    return _measured(metrics.d_lambda, [fused, expanded], valid)


@_index
def pan_detail_correlation(fused: ArrayLike, pan: ArrayLike, valid: Mask = None) -> float:
    """Correlation of the high passes of the bands and of PAN; best near that of the true bands."""
    return _measured(metrics.DetailCorrelation().of, [fused, _pan(pan)], valid)


@_index
def flat_area_activity(fused: ArrayLike, pan: ArrayLike, valid: Mask = None) -> float:
    """Detail of the result where PAN is flat, over detail elsewhere, divided by the same of PAN; best about 1."""
    return _measured(metrics.FlatArea().of, [fused, _pan(pan)], valid)


# From numpy ---------------------------------------------------------------------------------------------------------


def _measured(index: Callable[..., Any], images: Sequence[ArrayLike], valid: Mask, **options: Any) -> Any:
    """An index of arrays."""
    read, whole = _read(images, valid)
    return index(*read, valid=whole, **options)


def _read(images: Sequence[ArrayLike], valid: Mask) -> tuple[list[torch.Tensor], torch.Tensor | None]:
    """The images, and where all of them are valid."""
    read = [_image(image) for image in images]
    masks = [mask for _, mask in read if mask is not None]
    if valid is not None:
        masks.append(np.asarray(valid, bool))
    shape = read[0][0].shape[1:]
    for other in (*(tensor.shape[1:] for tensor, _ in read), *(mask.shape for mask in masks)):
        if tuple(other) != tuple(shape):
            raise InputError(f"images and masks of {tuple(shape)} and {tuple(other)} pixels do not fit")
    whole = torch.from_numpy(np.logical_and.reduce(masks)) if masks else None
    return [tensor for tensor, _ in read], whole


def _errors(reference: ArrayLike, fused: ArrayLike, valid: Mask) -> metrics.Errors:
    return _measured(metrics.Errors().of, [reference, fused], valid)


def _pan(image: ArrayLike) -> ArrayLike:
    """Raises InputError for several bands."""
    if np.ndim(image) == 3 and np.shape(image)[0] != 1:
        raise InputError(f"PAN is one band, not {np.shape(image)[0]}")
    return image


def _image(image: ArrayLike) -> tuple[torch.Tensor, np.ndarray | None]:
    """(bands, rows, cols) in float64, and where a masked array is valid (rows, cols)."""
    array = np.ma.asarray(image) if isinstance(image, np.ma.MaskedArray) else np.asarray(image)
    bands = array[None] if array.ndim == 2 else array
    if bands.dtype.kind not in "biuf":
        raise InputError(f"an image holds numbers, not {bands.dtype}")
    if bands.ndim != 3:
        raise InputError(f"an image is (bands, rows, cols) or (rows, cols), not {array.shape}")
    if not bands.size:
        raise InputError(f"an image of {array.shape} has no pixels")
    mask: np.ndarray | None = None
    if isinstance(bands, np.ma.MaskedArray):
        mask = np.logical_not(np.ma.getmaskarray(bands).any(0))
        bands = bands.filled(0)
    return torch.from_numpy(np.array(bands, np.float64)), mask


def _whole(shape: Sequence[int]) -> Window:
    return Window(0, int(shape[0]), 0, int(shape[1]))
