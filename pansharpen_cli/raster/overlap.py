"""Where files lie, and what each shows of a common place, averaged: for comparing neighbours."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from affine import Affine
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT

from ..errors import InputError, reason_of
from .messages import gdal_messages
from .source import Source, bounded_cache, open_raster
from .tags import scale_of
from .warper_view import seen_by_the_warper

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
        with ExitStack() as stack, gdal_messages(), bounded_cache(), open_raster(path) as dataset:
            alpha = tuple(b for b in dataset.indexes if dataset.colorinterp[b - 1] == ColorInterp.alpha)
            source = Source(dataset, [b for b in dataset.indexes if b not in alpha], path, alpha=alpha)
            view = seen_by_the_warper(source, source.bands, dataset.transform, stack)
            options = {"resampling": Resampling.average, "add_alpha": True}
            seen = stack.enter_context(WarpedVRT(view, src_crs=dataset.crs, **options, **grid))
            data: np.ndarray = seen.read(list(range(1, view.count + 1)), out_dtype="float64")
            valid: np.ndarray = seen.read(seen.count) > 0
            scale = scale_of(dataset)
    except (RasterioError, OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {reason_of(error)}") from error
    return (data if scale is None else scale.read(data).astype(np.float64)), valid
