"""Plain rasters: a GeoTIFF written window by window, a raster read small, a picture as bytes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile
from rasterio.windows import Window as RasterWindow

from ..publish import Publication
from .creation import FAILURES, verify, writing
from .geometry import Window
from .grid import Grid
from .messages import gdal_messages
from .values import default_nodata


def raster_versions() -> dict[str, str]:
    """Versions of the libraries that read and write."""
    return {"rasterio": rasterio.__version__, "gdal": rasterio.__gdal_version__}


@contextmanager
def raster_writer(
    path: Path,
    grid: Grid,
    count: int,
    dtype: np.dtype,
    names: Sequence[str | None] = (),
    files: Publication | None = None,
) -> Iterator[Callable[[Window, np.ndarray], None]]:
    """A plain GeoTIFF: yields `write(window, (bands, rows, cols))`.

    When the block ends it is complete at its path, or ready in `files` to be published with others. Raises
    PansharpenError if it cannot be written; after any error nothing is left.
    """

    def failure(reason: str) -> str:
        return f"cannot write {path}: {reason}"

    with nullcontext(files) if files is not None else Publication() as publication:
        partial = publication.part(path)
        with writing(failure):
            dataset = rasterio.open(
                partial, "w", driver="GTiff", count=count, dtype=dtype, nodata=default_nodata(dtype), crs=grid.crs,
                width=grid.width, height=grid.height, transform=grid.transform, compress="deflate", tiled=True,
            )  # fmt: skip
            for i, name in enumerate(names, 1):
                if name:
                    dataset.set_band_description(i, name)

        def write(window: Window, data: np.ndarray) -> None:
            with writing(failure):
                dataset.write(data, window=RasterWindow.from_slices(*window.spans))

        try:
            yield write
        except BaseException:
            with gdal_messages(), suppress(*FAILURES):
                dataset.close()
            raise
        with writing(failure):
            dataset.close()
            verify(partial)
        if files is None:
            publication.publish()


def read_reduced(path: str | os.PathLike, bands: Sequence[int], side: int) -> tuple[np.ndarray, np.ndarray]:
    """Bands of a raster averaged down to at most `side` pixels, as float (bands, rows, cols), and the valid mask."""
    with rasterio.open(path) as dataset:
        factor = max(1.0, max(dataset.shape) / side)
        shape = tuple(max(1, round(n / factor)) for n in dataset.shape)
        values = dataset.read(list(bands), out_shape=(len(bands), *shape), resampling=Resampling.average, masked=True)
        return values.filled(0).astype(float), np.logical_not(np.ma.getmaskarray(values).any(0))


def picture_bytes(picture: np.ndarray, ending: str) -> bytes:
    """(3, rows, cols) uint8 as the bytes of a file whose name ends so: .png, .jpg or .jpeg."""
    kind: dict[str, str] = {"driver": "PNG"} if ending.lower() == ".png" else {"driver": "JPEG", "QUALITY": "90"}
    with MemoryFile() as memory:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with memory.open(
                width=picture.shape[2], height=picture.shape[1], count=3, dtype="uint8", **kind
            ) as dataset:
                dataset.write(picture)
        return memory.read()
