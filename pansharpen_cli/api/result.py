"""Fused: what `fuse` returns."""

from __future__ import annotations

import os
import shutil
import weakref
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from affine import Affine

from ..arguments import plain_arguments
from ..errors import InputError
from ..publish import TIFF, Publication, check_target, writing
from ..raster.messages import gdal_messages

if TYPE_CHECKING:
    import xarray


class Fused:
    """A fused scene: a finished file, and its report.

    `path`: the file; without `output` it `is_temporary` and goes when the result does. `report`: the dict of
    docs/report.md. `transform`, `crs`: the place of the pixels, on the PAN grid. `band_names`: one per band, or None.
    `nodata`: the value of invalid pixels; None where a mask in the file stands for it.
    """

    def __init__(self, path: Path, report: dict, inputs: frozenset[str], folder: str | None = None) -> None:
        self.path, self.report, self.is_temporary = path, report, folder is not None
        self._inputs = inputs
        if folder is not None:
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        with gdal_messages(), rasterio.open(path) as dataset:  # libgeotiff writes to stderr of a CRS in km
            self.transform: Affine = dataset.transform
            self.crs = dataset.crs
            self.band_names: tuple[str | None, ...] = dataset.descriptions
            self.nodata: float | None = dataset.nodata
            self.shape: tuple[int, int, int] = (dataset.count, dataset.height, dataset.width)

    @cached_property
    def data(self) -> np.ndarray:
        """The pixels (bands, rows, cols) in the output's type, DN; `nodata` where not valid. Read at first use."""
        with gdal_messages(), rasterio.open(self.path) as dataset:
            return dataset.read()

    @cached_property
    def valid(self) -> np.ndarray:
        """Where (rows, cols) PAN and all MS bands are valid, bool. Read at first use."""
        # of MS files on several grids each band has a mask of its own
        with gdal_messages(), rasterio.open(self.path) as dataset:
            return np.logical_and.reduce([dataset.read_masks(band) > 0 for band in dataset.indexes])

    @property
    def warnings(self) -> list[str]:
        """What the report warns of, one line each."""
        return self.report["warnings"]

    @plain_arguments
    def write(self, path: str | os.PathLike, overwrite: bool = False) -> Path:
        """Write the file, with the bytes of `pansharpen fuse -o PATH`. It appears complete or not at all.

        Raises InputError if nothing may be written there, PansharpenError if it cannot be written.
        """
        target = Path(path)
        check_target(target, self._inputs | {os.fspath(self.path)}, overwrite, TIFF)
        with Publication(lambda path: not overwrite) as files:
            with writing(target):
                shutil.copyfile(self.path, files.part(target))
            files.publish()
        return target

    def to_xarray(self) -> xarray.DataArray:
        """A DataArray (band, y, x) with the coordinates of the pixels' centres, and `valid` (y, x).

        The CRS is in the coordinate `spatial_ref` and nodata in `_FillValue`, where rioxarray looks for them. A rotated
        grid has no coordinates `x` and `y`. Raises InputError where xarray is not installed.
        """
        try:
            import xarray
        except ImportError as error:
            raise InputError("to_xarray needs xarray: python -m pip install 'pansharpen[xarray]'") from error
        bands, rows, cols = self.shape
        names = [name or f"band {i}" for i, name in enumerate(self.band_names, 1)]
        place = {"GeoTransform": " ".join(f"{v:.17g}" for v in self.transform.to_gdal())}
        if self.crs is not None:
            place |= {"crs_wkt": self.crs.to_wkt(), "spatial_ref": self.crs.to_wkt()}
        coords: dict[str, Any] = {
            "band": np.arange(1, bands + 1),
            "band_name": ("band", names),
            "valid": (("y", "x"), self.valid),
            "spatial_ref": ((), 0, place),
        }
        if self.transform.b == self.transform.d == 0:
            coords["x"] = self.transform.c + self.transform.a * (np.arange(cols) + 0.5)
            coords["y"] = self.transform.f + self.transform.e * (np.arange(rows) + 0.5)
        attributes = {"grid_mapping": "spatial_ref"} | ({} if self.nodata is None else {"_FillValue": self.nodata})
        return xarray.DataArray(self.data, coords, ("band", "y", "x"), "fused", attributes)

    def __repr__(self) -> str:
        bands, rows, cols = self.shape
        fidelity = (self.report["quality"] or {}).get("fidelity")
        score = "" if fidelity is None else f", fidelity {fidelity:.3f}"
        method = self.report["method"]["name"]
        return f"<Fused by {method}: {bands} bands of {rows} x {cols} pixels{score}, {len(self.warnings)} warnings>"
