"""What is handed in: paths, open datasets and arrays, all of which the jobs read as files."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import rasterio
from affine import Affine
from rasterio.io import DatasetReader, MemoryFile
from rasterio.vrt import WarpedVRT

from .. import untrusted
from ..errors import InputError, PansharpenError
from ..jobs.request import Pair
from ..raster.options import OpenOptions
from ..raster.values import DTYPES, fits
from ..report import facts as report_facts
from .result import Fused


@dataclass(frozen=True)
class GeoArray:
    """Pixels in memory and their place.

    `data`: (rows, cols) or (bands, rows, cols), in DN or reflectance; what a masked array masks in any band, or NaN, is
    invalid. `transform`: affine, of pixel corners. `crs`: whatever rasterio takes, or None. `nodata`: the value of
    invalid pixels, if one stands for them. `band_names`: such as ("blue", "green", "red", "nir").
    """

    data: np.ndarray
    transform: Affine
    crs: Any = None
    nodata: float | None = None
    band_names: Sequence[str | None] = ()


Input: TypeAlias = "str | os.PathLike[str] | DatasetReader | GeoArray"
"""A path or name that GDAL opens, an open dataset of rasterio, or an array with its place."""


_SAME_PIXELS = {"num_threads"}
"""Options of opening that change nothing of what is read."""


class GivenFiles:
    """What was handed in as paths: arrays become files in memory. `labels`: what paths are called in reports."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.labels: dict[str, str] = {}

    def __enter__(self) -> GivenFiles:
        return self

    def __exit__(self, _, error: BaseException | None, __) -> None:
        self._stack.close()
        if isinstance(error, PansharpenError) and (text := self.named(str(error))) != str(error):
            raise type(error)(text) from error

    def path(self, given: Input | Fused, name: str) -> str:
        """The path of an input; `name` is what an array is called."""
        if isinstance(given, Fused):
            path = os.fspath(given.path)
            if given.is_temporary:
                self.labels[path] = name
            return path
        if isinstance(given, GeoArray):
            with untrusted.boundary(name, "cannot be used"):
                path = self._file_of(given, name)
            self.labels[path] = name
            return path
        if isinstance(given, WarpedVRT):
            raise InputError(f"{name} is a WarpedVRT, which has no path: hand in a GeoArray of what it reads")
        if isinstance(given, DatasetReader):
            if given.mode != "r":
                raise InputError(f"{given.name} is open for writing; close it and hand in its path")
            if options := sorted({key.lower() for key in given.options} - _SAME_PIXELS):
                raise InputError(
                    f"{given.name} was opened with {', '.join(options)}, and is read by its path without: hand in a "
                    "GeoArray of what it reads"
                )
            return given.name
        if isinstance(given, str | os.PathLike):
            path = os.fspath(given)
            if "\0" in path:
                raise InputError(f"{name} is {path!r}: no path has a NUL in it")
            return path
        raise InputError(
            f"{name} is a {type(given).__name__}; a path, an open rasterio dataset or a GeoArray is needed"
        )

    def pair(self, pan: Input, ms: Input | Sequence[Input], opening: OpenOptions) -> Pair:
        """The pair for the jobs."""
        several = list(ms) if isinstance(ms, list | tuple) else [ms]
        if not several:
            raise InputError("no MS is given")
        names = ["ms array", *(f"ms array {i}" for i in range(2, len(several) + 1))]
        paths = [self.path(each, name) for each, name in zip(several, names, strict=True)]
        return Pair(self.path(pan, "pan array"), paths, opening, self.labels)

    def named(self, text: str) -> str:
        """A text with labels in the place of paths that mean nothing to the caller."""
        for path, label in self.labels.items():
            text = text.replace(path, label)
        return text

    def called(self, names: Sequence[str]) -> tuple[str, ...]:
        """The paths of what is called so in reports; other names as they are."""
        paths = {name: path for path, name in self.labels.items()}
        return tuple(paths.get(name, name) for name in names)

    def facts(self, facts: Any) -> dict:
        """A report as `--json` prints it."""

        def plain(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: plain(each) for key, each in value.items()}
            if isinstance(value, list):
                return [plain(each) for each in value]
            return self.named(value) if isinstance(value, str) else value

        return plain(json.loads(json.dumps(report_facts.plain(facts))))

    def _file_of(self, given: GeoArray, name: str) -> str:
        pixels = np.ma.asarray(given.data)
        bands = pixels[None] if pixels.ndim == 2 else pixels
        if bands.ndim != 3 or 0 in bands.shape:
            raise InputError(f"{name} has the shape {pixels.shape}; (bands, rows, cols) or (rows, cols) is needed")
        if bands.dtype.name not in DTYPES:
            raise InputError(f"{name} holds {bands.dtype.name} values; convert it to one of {', '.join(DTYPES)}")
        if given.band_names and len(given.band_names) != len(bands):
            raise InputError(f"{name} has {len(bands)} bands and {len(given.band_names)} band names")
        if not isinstance(given.transform, Affine):
            raise InputError(
                f"transform of {name} is a {type(given.transform).__name__}; an affine.Affine is needed: "
                "Affine(a, b, c, d, e, f), of values in GDAL's order Affine.from_gdal(...)"
            )
        nodata = _nodata_of(given, bands.dtype, name)
        memory = self._stack.enter_context(MemoryFile(ext=".tif"))
        masked = np.ma.getmaskarray(bands).any(0) & (nodata is None)  # a value stands for the mask where there is one
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            memory.open(
                driver="GTiff", count=len(bands), height=bands.shape[1], width=bands.shape[2], dtype=bands.dtype,
                crs=given.crs, transform=given.transform, nodata=nodata,
                photometric="minisblack", alpha="no", bigtiff="if_safer",
            ) as dataset,
        ):  # fmt: skip
            dataset.write(bands.filled(0 if nodata is None else nodata))
            if masked.any():
                dataset.write_mask(~masked)
            for i, band_name in enumerate(given.band_names, 1):
                if band_name:
                    dataset.set_band_description(i, band_name)
        return memory.name


def _nodata_of(given: GeoArray, dtype: np.dtype, name: str) -> float | None:
    """The nodata value of an array. Raises InputError for what is no number, or none of the array's type."""
    if given.nodata is None:
        return None
    if isinstance(given.nodata, str | bytes | bool) or not np.isscalar(given.nodata) or np.iscomplexobj(given.nodata):
        raise InputError(f"nodata of {name} is a number or None, not {given.nodata!r}")
    value = float(given.nodata)  # type: ignore[arg-type]
    if not fits(dtype, value):
        raise InputError(
            f"nodata of {name} is {value:g}, which {dtype} does not hold: leave it out, or convert the array first"
        )
    return value
