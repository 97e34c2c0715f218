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
from .geometry import Box
from .messages import gdal_messages
from .source import Source, bounded_cache, open_raster
from .tags import scale_of
from .warper_view import seen_by_the_warper


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
        return Footprint(dataset.crs, Box(*dataset.bounds), pixel, dataset.descriptions)


def averaged(path: str, crs: Any, box: Box, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Means (bands, rows, cols) of a raster's values, in DN, on a grid of that shape over a box, and where all bands
    are valid (rows, cols). Raises InputError for a raster that cannot be read."""
    width, height = box.sides
    transform = Affine(width / shape[1], 0, box.left, 0, -height / shape[0], box.top)
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
