"""Where files lie, and what each shows of a common place, averaged: for comparing neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT

from ..errors import InputError, reason_of
from .messages import gdal_messages
from .source import bounded_cache, open_raster
from .tags import scale_of

Box = tuple[float, float, float, float]
"""Left, bottom, right, top."""


@dataclass(frozen=True)
class Footprint:
    """The box of a north-up raster in its CRS, the side of its pixels, and its bands' names."""

    crs: Any
    box: Box
    pixel: float
    names: tuple[str | None, ...]


def footprint(path: str) -> Footprint | None:
    """Where a raster lies; None for one that has no CRS or is rotated. Raises InputError if it cannot be opened."""
    with gdal_messages(), open_raster(path) as dataset:
        transform = dataset.transform
        if dataset.crs is None or transform.b or transform.d:
            return None
        pixel = max(abs(transform.a), abs(transform.e))
        return Footprint(dataset.crs, tuple(dataset.bounds), pixel, dataset.descriptions)


def common(one: Box, other: Box) -> Box | None:
    """The box that two have in common; None where they have none."""
    left, bottom = max(one[0], other[0]), max(one[1], other[1])
    right, top = min(one[2], other[2]), min(one[3], other[3])
    return (left, bottom, right, top) if left < right and bottom < top else None


def averaged(path: str, crs: Any, box: Box, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Means (bands, rows, cols) of a raster's values, in DN, on a grid of that shape over a box, and where all bands
    are valid (rows, cols). Raises InputError for a raster that cannot be read."""
    left, bottom, right, top = box
    transform = Affine((right - left) / shape[1], 0, left, 0, (bottom - top) / shape[0], top)
    grid = {"crs": crs, "transform": transform, "height": shape[0], "width": shape[1]}
    try:
        with gdal_messages(), bounded_cache(), open_raster(path) as dataset:
            bands = [b for b in dataset.indexes if dataset.colorinterp[b - 1] != rasterio.enums.ColorInterp.alpha]
            with WarpedVRT(dataset, resampling=Resampling.average, **grid) as seen:
                values = seen.read(bands, out_dtype="float64", masked=True)
            scale = scale_of(dataset)
    except (RasterioError, OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {reason_of(error)}") from error
    valid: np.ndarray = np.logical_not(np.ma.getmaskarray(values).any(0))
    data: np.ndarray = values.filled(0.0)
    return (data if scale is None else scale.read(data).astype(np.float64)), valid
