"""The Python interface: `import pansharpen_cli as pansharpen` gives what `__all__` lists here.

Every function runs the job of the command line of the same name, so the pixels, the figures and the reports are those
of the command line. Options have the names and the defaults of docs/cli.md; docs/python.md has examples.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import rasterio
from affine import Affine
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader, MemoryFile
from rasterio.vrt import WarpedVRT

from . import indices
from .adapt.sampling import ADAPT
from .check import check as checking
from .errors import InputError, PansharpenError, ReadError, WeightsError
from .fusion.options import Options
from .jobs import evaluate as evaluation
from .jobs import fuse as fusion_job
from .jobs import opened, picture
from .jobs.request import FusionOutput, Pair
from .progress import Progress, quiet
from .publish import Publication, check_target
from .raster.geometry import Window
from .raster.opening import OpenOptions, Scaling
from .raster.values import check_dtype
from .report import facts as report_facts

if TYPE_CHECKING:
    import xarray

__all__ = [
    "Fused",
    "GeoArray",
    "InputError",
    "PansharpenError",
    "ReadError",
    "WeightsError",
    "check",
    "evaluate",
    "evaluate_against",
    "evaluate_wald",
    "fuse",
    "indices",
]

_TYPES = ("uint8", "uint16", "int16", "uint32", "int32", "float32", "float64")

# Inputs -------------------------------------------------------------------------------------------------------------


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


class _Inputs:
    """What was handed in as paths: arrays become files in memory. `labels`: what paths are called in reports."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.labels: dict[str, str] = {}

    def __enter__(self) -> _Inputs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
            path = self._stored(given, name)
            self.labels[path] = name
            return path
        if isinstance(given, WarpedVRT):
            raise InputError(f"{name} is a WarpedVRT, which has no path: hand in a GeoArray of what it reads")
        if isinstance(given, DatasetReader):
            if given.mode != "r":
                raise InputError(f"{given.name} is open for writing; close it and hand in its path")
            return given.name
        if isinstance(given, str | os.PathLike):
            return os.fspath(given)
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

    def _stored(self, given: GeoArray, name: str) -> str:
        pixels = np.ma.asarray(given.data)
        bands = pixels[None] if pixels.ndim == 2 else pixels
        if bands.ndim != 3 or 0 in bands.shape:
            raise InputError(f"{name} has the shape {pixels.shape}; (bands, rows, cols) or (rows, cols) is needed")
        if bands.dtype.name not in _TYPES:
            raise InputError(f"{name} holds {bands.dtype.name} values; convert it to one of {', '.join(_TYPES)}")
        if given.band_names and len(given.band_names) != len(bands):
            raise InputError(f"{name} has {len(bands)} bands and {len(given.band_names)} band names")
        memory = self._stack.enter_context(MemoryFile(ext=".tif"))
        masked = np.ma.getmaskarray(bands).any(0)
        try:
            with (
                rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
                memory.open(
                    driver="GTiff", count=len(bands), height=bands.shape[1], width=bands.shape[2], dtype=bands.dtype,
                    crs=given.crs, transform=given.transform, nodata=None if masked.any() else given.nodata,
                    photometric="minisblack", alpha="no", bigtiff="if_safer",
                ) as dataset,
            ):  # fmt: skip
                dataset.write(bands.filled(given.nodata or 0) if masked.any() else bands.data)
                if masked.any():
                    dataset.write_mask(~masked & _has_values(bands.data, given.nodata))
                for i, band_name in enumerate(given.band_names, 1):
                    if band_name:
                        dataset.set_band_description(i, band_name)
        except (RasterioError, TypeError, ValueError) as error:
            raise InputError(f"{name} cannot be used: {' '.join(str(error).split())}") from error
        return memory.name


def _has_values(bands: np.ndarray, nodata: float | None) -> np.ndarray:
    """Where (rows, cols) no band holds the nodata value."""
    if nodata is None:
        return np.ones(bands.shape[1:], bool)
    return ~(np.isnan(bands) if np.isnan(nodata) else bands == nodata).any(0)


def _window(window: Sequence[int] | None) -> Window | None:
    """(COL_OFF, ROW_OFF, WIDTH, HEIGHT), or a window of rasterio, as rows and columns."""
    if window is None:
        return None
    values = window.flatten() if hasattr(window, "flatten") else window
    if len(values) != 4 or any(v != int(v) for v in values) or min(values[2:]) < 1:
        raise InputError(f"window takes (col_off, row_off, width, height) in whole PAN pixels, not {window}")
    col, row, width, height = map(int, values)
    return Window.at(row, col, (height, width))


def _one_of(name: str, value: object, known: Sequence[str]) -> None:
    if value not in known:
        raise InputError(f"{name} is one of {', '.join(known)}, not '{value}'")


def _checked(options: Options) -> Options:
    """The options with the name of the method in lower case. Raises InputError for what the command line refuses."""
    _one_of("adapt", options.adapt, ("off", *ADAPT))
    _one_of("align", options.align, opened.ALIGN)
    for name, value, low, high in (
        ("tile_size", options.tile_size, 64, 8192),
        ("seed", options.seed, 0, 2**32 - 1),
    ):
        if not isinstance(value, int | np.integer) or not low <= value <= high:
            raise InputError(f"{name} is a whole number from {low} to {high}, not {value}")
    if options.adapt_seconds is not None and not options.adapt_seconds >= 0:
        raise InputError(f"adapt_seconds is a number of seconds, not {options.adapt_seconds}")
    weights = None if options.weights is None else os.fspath(options.weights)
    fit = None if options.fit is None else os.fspath(options.fit)
    return replace(options, method=options.method.lower(), weights=weights, fit=fit)


# Fusing -------------------------------------------------------------------------------------------------------------


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
        with rasterio.open(path) as dataset:
            self.transform: Affine = dataset.transform
            self.crs = dataset.crs
            self.band_names: tuple[str | None, ...] = dataset.descriptions
            self.nodata: float | None = dataset.nodata
            self.shape: tuple[int, int, int] = (dataset.count, dataset.height, dataset.width)

    @cached_property
    def data(self) -> np.ndarray:
        """The pixels (bands, rows, cols) in the output's type, DN; `nodata` where not valid. Read at first use."""
        with rasterio.open(self.path) as dataset:
            return dataset.read()

    @cached_property
    def valid(self) -> np.ndarray:
        """Where (rows, cols) PAN and all MS bands are valid, bool. Read at first use."""
        with rasterio.open(self.path) as dataset:
            return dataset.read_masks(1) > 0

    @property
    def warnings(self) -> list[str]:
        """What the report warns of, one line each."""
        return self.report["warnings"]

    def write(self, path: str | os.PathLike, overwrite: bool = False) -> Path:
        """Write the file, with the bytes of `pansharpen fuse -o PATH`. It appears complete or not at all.

        Raises InputError if nothing may be written there, PansharpenError if it cannot be written.
        """
        target = Path(path)
        check_target(target, self._inputs | {os.fspath(self.path)}, overwrite)
        with Publication() as files:
            try:
                shutil.copyfile(self.path, files.part(target))
            except OSError as error:
                raise PansharpenError(f"cannot write {target}: {error.strerror}") from error
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


def fuse(
    pan: Input,
    ms: Input | Sequence[Input],
    *,
    output: str | os.PathLike | None = None,
    method: str = "glpnet",
    weights: str | os.PathLike | None = None,
    sensor: str = "auto",
    adapt: str = "fast",
    adapt_seconds: float | None = None,
    adapt_loss: str = "sharp",
    device: str = "auto",
    precision: str = "auto",
    tile_size: int = 512,
    seed: int = 0,
    bidx: Sequence[int | str] | None = None,
    fit_bands: str = "all",
    window: Sequence[int] | None = None,
    bbox: tuple[float, float, float, float] | None = None,
    extent: str = "intersection",
    align: str = "auto",
    mtf: str = "auto",
    nodata: float | None = None,
    dtype: str | None = None,
    scale: float | tuple[float, float] = 1.0,
    pan_from: Sequence[int | str] | None = None,
    height: float | None = None,
    dem: str | os.PathLike | None = None,
    driver: str = "GTiff",
    creation_options: Mapping[str, object] | None = None,
    overviews: bool | None = None,
    overwrite: bool = False,
    score: bool = True,
    report: str | os.PathLike | Sequence[str | os.PathLike] | None = None,
    quicklook: str | os.PathLike | None = None,
    rgb: str | Sequence[int | str] | None = None,
    stretch: str = "auto",
    save_fit: str | os.PathLike | None = None,
    fit: str | os.PathLike | None = None,
    progress: Progress = quiet,
) -> Fused:
    """Fuse a PAN and its MS, as `pansharpen fuse` does: the same pixels, the same report, the same file.

    `ms`: one raster, or a list of several with the bands in order, which may lie on grids of their own. `pan_from`:
    bands whose mean is the PAN, by number or name over the rasters on its grid. `height` or `dem`: of a pair that RPCs
    alone locate. `output`: the file to write; without it the result
    holds a temporary one (in `TMPDIR`). `window`: (col_off, row_off, width, height) in PAN pixels, or a window of
    rasterio; `bbox`: (left, bottom, right, top) in the PAN's CRS. `bidx`: MS bands to write, counted from 1, or
    their names. `report` (one or several paths), `quicklook`: further files to write, and `rgb`: an 8-bit picture
    beside the output, "true" or three bands. `save_fit`: a file that keeps what the fit found, `fit`: one whose fit
    is taken. `progress` is called with a stage, what is done and what there is to do. The other options are those of
    docs/cli.md.

    Raises InputError for inputs and options that cannot be fused, PansharpenError for what fails while running.
    """
    options = _checked(Options(
        method, weights, adapt, adapt_seconds, device, precision, tile_size, seed, align, mtf, adapt_loss, fit,  # type: ignore[arg-type]
    ))  # fmt: skip
    opening = _open_options(sensor, bidx, fit_bands, nodata, extent, dtype, window, bbox, scale, pan_from, height, dem)
    creation = tuple(f"{key}={value}" for key, value in (creation_options or {}).items())
    target = FusionOutput(
        Path(f"{options.method}.tif" if output is None else output), driver, creation, overviews, overwrite,
        _path(quicklook), _reports(report), rgb=_rgb(rgb, stretch), save_fit=_path(save_fit),
    )  # fmt: skip
    return _run(pan, ms, opening, target, options, score, progress, output is None)


def _run(pan, ms, opening: OpenOptions, target: FusionOutput, options: Options, score, progress, temporary) -> Fused:
    """Fuse into a temporary folder, which goes with the result, or where the target says."""
    folder = tempfile.mkdtemp(prefix="pansharpen-") if temporary else None
    if folder is not None:
        target = replace(target, path=Path(folder, target.path))
    try:
        with _Inputs() as inputs:
            pair = inputs.pair(pan, ms, opening)
            facts = fusion_job.fuse_scene(pair, target, options, score, progress)
            files = frozenset(p for p in (pair.pan, *pair.ms) if p not in inputs.labels)
            return Fused(target.path, inputs.facts(facts), files, folder)
    except BaseException:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _reports(report: str | os.PathLike | Sequence[str | os.PathLike] | None) -> tuple[Path, ...]:
    several = report if isinstance(report, list | tuple) else () if report is None else (report,)
    return tuple(map(Path, several))


def _rgb(rgb: str | Sequence[int | str] | None, stretch: str | os.PathLike) -> picture.Request | None:
    bands = [int(b) if b.strip().isdigit() else b.strip() for b in rgb.split(",")] if isinstance(rgb, str) else rgb
    return picture.request_of(bands, os.fspath(stretch))


def check(
    pan: Input,
    ms: Input | Sequence[Input],
    *,
    method: str = "glpnet",
    weights: str | os.PathLike | None = None,
    sensor: str = "auto",
    adapt: str = "fast",
    adapt_seconds: float | None = None,
    adapt_loss: str = "sharp",
    device: str = "auto",
    precision: str = "auto",
    tile_size: int = 512,
    seed: int = 0,
    bidx: Sequence[int | str] | None = None,
    fit_bands: str = "all",
    window: Sequence[int] | None = None,
    bbox: tuple[float, float, float, float] | None = None,
    extent: str = "intersection",
    align: str = "auto",
    mtf: str = "auto",
    nodata: float | None = None,
    dtype: str | None = None,
    scale: float | tuple[float, float] = 1.0,
    pan_from: Sequence[int | str] | None = None,
    height: float | None = None,
    dem: str | os.PathLike | None = None,
    score: bool = True,
    progress: Progress = quiet,
) -> dict:
    """What a pair is like, what is wrong with it and what fusing it will take: the dict of `pansharpen check --json`.

    Arguments as in `fuse`. `refused` holds the words of `fuse` where it would refuse, else None; `findings` lists what
    to know. Raises InputError for options that no pair can be checked with.
    """
    options = _checked(
        Options(
            method, weights, adapt, adapt_seconds, device, precision, tile_size, seed, align, mtf, adapt_loss,  # type: ignore[arg-type]
        )
    )  # fmt: skip
    opening = _open_options(sensor, bidx, fit_bands, nodata, extent, dtype, window, bbox, scale, pan_from, height, dem)
    with _Inputs() as inputs:
        return inputs.facts(checking.check(inputs.pair(pan, ms, opening), options, score, progress))


def _open_options(
    sensor, bidx, fit_bands, nodata, extent, dtype, window, bbox, scale=1.0, pan_from=None, height=None, dem=None
) -> OpenOptions:
    """Raises InputError for what the command line refuses."""
    _one_of("extent", extent, ("intersection", "pan"))
    _one_of("fit_bands", fit_bands, ("all", "bidx"))
    bands = None if bidx is None else [b if isinstance(b, str) else int(b) for b in bidx]
    box = None if bbox is None else (float(bbox[0]), float(bbox[1]), float(bbox[2]), float(bbox[3]))
    kind = None if dtype is None else check_dtype(np.dtype(dtype).name)
    parts = None if pan_from is None else [b if isinstance(b, str) else int(b) for b in pan_from]
    if height is not None and dem is not None:
        raise InputError("height and dem exclude each other")
    heights = None if height is None else float(height), None if dem is None else os.fspath(dem)
    factor, offset = map(float, scale if isinstance(scale, tuple | list) else (scale, 0.0))
    if not 0 < factor < math.inf or not math.isfinite(offset):
        raise InputError(f"scale is a factor above 0, or a factor and an offset, not {scale}")
    scaling = Scaling(factor, offset)
    return OpenOptions(sensor, bands, fit_bands, nodata, extent, _window(window), box, kind, scaling, parts, *heights)


def _path(path: str | os.PathLike | None) -> Path | None:
    return None if path is None else Path(path)


# Measuring ----------------------------------------------------------------------------------------------------------

Results: TypeAlias = "Input | Fused | Sequence[Input | Fused] | Mapping[str, Input | Fused]"
"""One fused image, a list of several, or several by the names that the report calls them by."""


def _fused(inputs: _Inputs, fused: Results) -> list[str]:
    """The paths of fused images. Raises InputError if there is none."""
    if isinstance(fused, Mapping):
        named = list(fused.items())
    else:
        several = list(fused) if isinstance(fused, list | tuple) else [fused]
        named = [(_name_of(each, i), each) for i, each in enumerate(several, 1)]
    if not named:
        raise InputError("no fused image is given")
    paths = [inputs.path(each, name) for name, each in named]
    if isinstance(fused, Mapping):
        inputs.labels |= {path: name for path, (name, _) in zip(paths, named, strict=True)}
    return paths


def _name_of(each: Input | Fused, number: int) -> str:
    method = each.report["method"]["name"] if isinstance(each, Fused) else "fused array"
    return f"{method} {number}"


def evaluate(
    fused: Results,
    pan: Input,
    ms: Input | Sequence[Input],
    *,
    sensor: str = "auto",
    bidx: Sequence[int | str] | None = None,
    nodata: float | None = None,
    align: str = "auto",
    maps: str | os.PathLike | None = None,
    report: str | os.PathLike | None = None,
    show: Sequence[str] = (),
    overwrite: bool = False,
    progress: Progress = quiet,
) -> dict:
    """Figures at full resolution of fused images, whoever made them: the dict of `pansharpen evaluate --json`.

    `fused`: an image, a list, or a dict of names and images, each on the PAN grid with the bands of the MS. `maps`: a
    folder for figures per block; `report`: an .html or .json file to write; `show`: names of up to eight images whose
    pictures are in the page. Raises InputError for an image that does not fit the pair.
    """
    _one_of("align", align, opened.ALIGN)
    with _Inputs() as inputs:
        opening = _open_options(sensor, bidx, "bidx", nodata, "pan", None, None, None)
        pair, paths = inputs.pair(pan, ms, opening), _fused(inputs, fused)
        output = evaluation.EvaluationOutput(_path(report), _path(maps), overwrite, show=inputs.called(show))
        return inputs.facts(evaluation.evaluate(paths, pair, output, progress, align))


def evaluate_against(
    fused: Results,
    reference: Input,
    *,
    ratio: float = 4.0,
    peak: float | None = None,
    nodata: float | None = None,
    maps: str | os.PathLike | None = None,
    report: str | os.PathLike | None = None,
    show: Sequence[str] = (),
    overwrite: bool = False,
    progress: Progress = quiet,
) -> dict:
    """Figures of fused images against the true bands on the same grid: `pansharpen evaluate --reference --json`.

    `ratio`: MS pixel size in PAN pixels, for ERGAS; `peak`: full value in DN, for PSNR and SSIM, by default that of the
    bit depth. The others as in `evaluate`. Raises InputError for an image that does not fit the reference.
    """
    if not 1 <= ratio <= 100:
        raise InputError(f"ratio is a number from 1 to 100, not {ratio}")
    _check_peak(peak)
    with _Inputs() as inputs:
        truth, paths = inputs.path(reference, "reference"), _fused(inputs, fused)
        output = evaluation.EvaluationOutput(_path(report), _path(maps), overwrite, show=inputs.called(show))
        return inputs.facts(evaluation.evaluate_against(truth, paths, ratio, peak, output, progress, nodata))


def evaluate_wald(
    pan: Input,
    ms: Input | Sequence[Input],
    methods: str | Sequence[str],
    *,
    adapt: str = "fast",
    device: str = "auto",
    peak: float | None = None,
    sensor: str = "auto",
    bidx: Sequence[int | str] | None = None,
    nodata: float | None = None,
    align: str = "auto",
    maps: str | os.PathLike | None = None,
    report: str | os.PathLike | None = None,
    show: Sequence[str] = (),
    overwrite: bool = False,
    progress: Progress = quiet,
) -> dict:
    """Wald's protocol: methods on the degraded pair against the MS itself: `pansharpen evaluate --wald --json`.

    `methods`: names, or "all". The others as in `evaluate_against`. Raises InputError for a method that does not take
    this scene.
    """
    _check_peak(peak)
    names = [methods] if isinstance(methods, str) else list(methods)
    options = _checked(Options(adapt=adapt, device=device, align=align, mtf="sensor"))
    with _Inputs() as inputs:
        pair = inputs.pair(pan, ms, _open_options(sensor, bidx, "bidx", nodata, "intersection", None, None, None))
        output = evaluation.EvaluationOutput(_path(report), _path(maps), overwrite, show=inputs.called(show))
        lowered = [name.lower() for name in names]
        return inputs.facts(evaluation.evaluate_wald(pair, lowered, options, peak, output, progress))


def _check_peak(peak: float | None) -> None:
    if peak is not None and not 0 < peak < 1e15:
        raise InputError(f"peak is a positive value in DN, not {peak}")
