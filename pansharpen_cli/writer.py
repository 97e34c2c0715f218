"""SceneWriter: a GeoTIFF or COG that appears at its path complete, or not at all."""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile
from rasterio.windows import Window as RasterWindow

from . import sensors
from .errors import InputError, PansharpenError
from .grid import Window
from .scene import Scene

BLOCK = 512
PROVENANCE = "PANSHARPEN"
"""Tag domain of the provenance."""

_GEOMETRY_TAGS = re.compile(r"^(AREA_OR_POINT|STATISTICS_.*|OVR_.*|TIFFTAG_[XY]RESOLUTION|TIFFTAG_RESOLUTIONUNIT|.*GDAL.*)$")
_PAN_TAGS = re.compile(r"(DATE|TIME|SATELLITE|SPACECRAFT|SENSOR|SUN|VIEW|OFF_?NADIR|CATALOG|CLOUD)", re.IGNORECASE)
_CREATION = {"compress": "deflate", "tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "bigtiff": "IF_SAFER"}
_DRIVERS = ("GTiff", "COG")


def parse_creation_options(options: Sequence[str]) -> dict[str, str]:
    """`KEY=VALUE` pairs as of --co. Raises InputError for anything else."""
    parsed = {}
    for option in options:
        key, sign, value = option.partition("=")
        if not sign or not key.strip():
            raise InputError(f"--co takes KEY=VALUE, not '{option}'")
        parsed[key.strip().lower()] = value.strip()
    return parsed


def check_target(path: Path, inputs: Sequence[str], overwrite: bool) -> None:
    """Raises InputError if nothing may or can be written at the path."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; name an output file")
    for source in inputs:
        if os.path.exists(source) and path.exists() and os.path.samefile(source, path):
            raise InputError(f"the output {path} is one of the inputs")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists; use --overwrite to replace it")
    folder = path.parent
    if not folder.is_dir():
        raise InputError(f"the folder {folder} does not exist")
    try:
        handle, probe = tempfile.mkstemp(prefix=".pansharpen-", dir=folder)
    except OSError as error:
        raise InputError(f"cannot write in {folder}: {error.strerror}") from error
    os.close(handle)
    os.unlink(probe)


class SceneWriter:
    """Writes a fused scene to a temporary folder beside the target; `commit` moves the finished file there.

    As a context manager it removes everything it made unless it was committed.
    """

    def __init__(
        self,
        path: Path,
        scene: Scene,
        *,
        driver: str = "GTiff",
        creation_options: Mapping[str, str] | None = None,
        overviews: bool = False,
    ) -> None:
        if driver not in _DRIVERS:
            raise InputError(f"unknown driver '{driver}'; there is {' and '.join(_DRIVERS)}")
        self.path, self.driver, self.overviews = path, driver, overviews or driver == "COG"
        self.options = dict(creation_options or {})
        self.nodata, self.dtype = scene.nodata, np.dtype(scene.dtype)
        self._origin = scene.window[0], scene.window[2]
        self._folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        self._file = self._folder / "fused.tif"
        try:
            self._dataset = self._create(scene)
        except BaseException:
            self.discard()
            raise

    def _create(self, scene: Scene):
        grid = scene.grid
        predictor = {"f": 3}.get(self.dtype.kind, 2)
        given = {} if self.driver == "COG" else self.options
        compress = given.get("compress", "deflate").lower()
        profile: dict[str, object] = {**_CREATION, "photometric": "MINISBLACK", "num_threads": "ALL_CPUS"}
        if compress in ("deflate", "lzw", "zstd"):
            profile["predictor"] = predictor
        if self.driver == "COG":
            profile["zlevel"] = 1
        profile.update({k: v for k, v in given.items() if k != "photometric" or self.driver == "GTiff"})
        if str(profile.get("tiled", "")).lower() in ("false", "no", "off"):
            profile = {k: v for k, v in profile.items() if k not in ("tiled", "blockxsize", "blockysize") or k in given}
        _check_creation_options(self.driver, self.options, self.dtype, self._folder)
        with rasterio.Env(GDAL_CACHEMAX=256):
            try:
                dataset = rasterio.open(
                    self._file, "w", driver="GTiff", width=grid.width, height=grid.height, count=scene.bands,
                    dtype=self.dtype, crs=grid.crs, transform=grid.transform, nodata=self.nodata, **profile,
                )  # fmt: skip
            except (RasterioError, ValueError) as error:
                raise InputError(f"cannot create {self.path}: {str(error).splitlines()[0]}") from error
        _carry(dataset, scene)
        return dataset

    def write(self, window: Window, fused: np.ndarray, valid: np.ndarray) -> None:
        """Write (bands, rows, cols) at a window in PAN pixels: rounded, clipped to the dtype, nodata where not valid."""
        data = to_dtype(fused, valid, self.dtype, self.nodata)
        r, c = window[0] - self._origin[0], window[2] - self._origin[1]
        try:
            self._dataset.write(data, window=RasterWindow(c, r, data.shape[2], data.shape[1]))
        except (RasterioError, OSError) as error:
            raise PansharpenError(self._failure(error)) from error

    def finish(self) -> Path:
        """Flush everything to the temporary file and return it, for scoring before `commit`."""
        try:
            if self.overviews and self.driver == "GTiff":
                factors = [2**k for k in range(1, 12) if min(self._dataset.shape) >> k >= 128]
                if factors:
                    self._dataset.build_overviews(factors, Resampling.average)
            self._dataset.close()
            self._verify()
        except (RasterioError, OSError) as error:
            raise PansharpenError(self._failure(error)) from error
        return self._file

    def _verify(self) -> None:
        """GDAL reports a full disk late or never: the last block has to be there."""
        with rasterio.open(self._file) as written:
            rows, cols = written.shape
            for r, c in ((0, 0), (rows - 1, cols - 1)):
                written.read(1, window=RasterWindow(c, r, 1, 1))
            size = os.path.getsize(self._file)
        if size == 0:
            raise OSError("nothing was written")

    def commit(self, provenance: Mapping[str, str]) -> None:
        """Add the provenance tags and move the file to its place."""
        final = self._file
        try:
            with rasterio.open(self._file, "r+") as dataset:
                dataset.update_tags(ns=PROVENANCE, **provenance)
            if self.driver == "COG":
                final = self._folder / "cog.tif"
                options = {"compress": "deflate", "predictor": "YES", "bigtiff": "IF_SAFER", "num_threads": "ALL_CPUS"}
                options |= {"overview_resampling": "average", **self.options}
                rasterio.shutil.copy(self._file, final, driver="COG", **options)
            with open(final, "rb") as handle:
                os.fsync(handle.fileno())
            os.chmod(final, 0o666 & ~_umask())
            os.replace(final, self.path)
        except (RasterioError, OSError) as error:
            raise PansharpenError(self._failure(error)) from error
        self.discard()

    def discard(self) -> None:
        """Remove what is left of the temporary files."""
        dataset = getattr(self, "_dataset", None)
        if dataset is not None and not dataset.closed:
            try:
                dataset.close()
            except (RasterioError, OSError):
                pass
        shutil.rmtree(self._folder, ignore_errors=True)

    def _failure(self, error: Exception) -> str:
        free = shutil.disk_usage(self.path.parent).free
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        hint = " (the disk is full)" if free < 1 << 20 else ""
        return f"cannot write {self.path}: {reason}{hint}"

    def __enter__(self) -> SceneWriter:
        return self

    def __exit__(self, *_) -> None:
        self.discard()


def to_dtype(fused: np.ndarray, valid: np.ndarray, dtype: np.dtype, nodata: float) -> np.ndarray:
    """Round half to even and clip to the dtype; nodata where `valid` is false and nowhere else."""
    if dtype.kind == "f":
        data = fused.astype(dtype)
        beside = np.nextafter(dtype.type(nodata), dtype.type(0 if nodata else 1)) if np.isfinite(nodata) else None
    else:
        limits = np.iinfo(dtype)
        data = np.clip(np.rint(fused), limits.min, limits.max).astype(dtype)
        beside = dtype.type(nodata + 1 if nodata < limits.max else nodata - 1)
    if beside is not None:
        data[data == dtype.type(nodata)] = beside
    data[:, ~valid] = nodata
    return data


class _Complaints(logging.Handler):
    """Collects what GDAL says about creation options; it warns about the wrong ones and goes on."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if "CPLE_NotSupported" in message or "CPLE_IllegalArg" in message:
            self.lines.append(message.partition(" in ")[2])


def _check_creation_options(driver: str, options: Mapping[str, str], dtype: np.dtype, folder: Path) -> None:
    """Try the options on a tiny file: InputError for one that the driver does not know or take."""
    if not options:
        return
    complaints, log = _Complaints(), logging.getLogger("rasterio._env")
    tiny, copy = folder / "options.tif", folder / "options-copy.tif"
    given = dict(options) if driver == "GTiff" else {}
    log.addHandler(complaints)
    propagate, log.propagate = log.propagate, False
    try:
        with rasterio.open(
            tiny, "w", driver="GTiff", width=64, height=64, count=1, dtype=dtype, crs="EPSG:3857",
            transform=Affine(2, 0, 0, 0, -2, 0), **given,
        ) as dataset:  # fmt: skip
            dataset.write(np.ones((1, 64, 64), dtype))
        if driver == "COG":
            rasterio.shutil.copy(tiny, copy, driver="COG", **options)
    except (RasterioError, ValueError) as error:
        complaints.lines.append(str(error).splitlines()[0] if str(error) else type(error).__name__)
    finally:
        log.removeHandler(complaints)
        log.propagate = propagate
        tiny.unlink(missing_ok=True)
        copy.unlink(missing_ok=True)
    if complaints.lines:
        raise InputError(f"--co: {complaints.lines[0]}")


def _carry(target, scene: Scene) -> None:
    """Take over what describes the bands and the acquisition; what describes the old grid stays behind."""
    index = 0
    interpretation = []
    for source in scene.ms:
        ds = getattr(source.dataset, "src_dataset", source.dataset)
        for band in source.bands:
            index += 1
            if ds.descriptions[band - 1]:
                target.set_band_description(index, ds.descriptions[band - 1])
            if ds.units[band - 1]:
                target.set_band_unit(index, ds.units[band - 1])
            interpretation.append(_interpretation(ds, band))
            tags = {k: v for k, v in ds.tags(band).items() if not _GEOMETRY_TAGS.match(k)}
            if tags:
                target.update_tags(index, **tags)
    target.scales = [s.dataset.scales[b - 1] for s in scene.ms for b in s.bands]
    target.offsets = [s.dataset.offsets[b - 1] for s in scene.ms for b in s.bands]
    target.colorinterp = interpretation
    for source in reversed(scene.ms):
        ds = getattr(source.dataset, "src_dataset", source.dataset)
        target.update_tags(**{k: v for k, v in ds.tags().items() if not _GEOMETRY_TAGS.match(k)})
        for domain in ("IMAGERY", "IMD"):
            if ds.tags(ns=domain):
                target.update_tags(ns=domain, **ds.tags(ns=domain))
    pan = scene.pan.dataset
    useful = {f"PAN_{k}": v for k, v in pan.tags().items() if _PAN_TAGS.search(k)}
    useful |= {f"PAN_{k}": v for k, v in pan.tags(ns="IMAGERY").items()}
    target.update_tags(**useful, AREA_OR_POINT="Area")


def _interpretation(ds, band: int) -> ColorInterp:
    """The band's own, unless GDAL guessed an alpha or grey where the band's name says otherwise."""
    interpretation = ds.colorinterp[band - 1]
    name = sensors.band_name(ds.descriptions[band - 1])
    if interpretation == ColorInterp.alpha:
        return ColorInterp.undefined
    if name is not None and interpretation in (ColorInterp.red, ColorInterp.green, ColorInterp.blue):
        return {"red": ColorInterp.red, "green": ColorInterp.green, "blue": ColorInterp.blue}.get(
            name, ColorInterp.undefined
        )
    return interpretation


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read_reduced(path: str | os.PathLike, bands: Sequence[int], side: int) -> tuple[np.ndarray, np.ndarray]:
    """Bands of a raster averaged down to at most `side` pixels, as float (bands, rows, cols), and the valid mask."""
    with rasterio.open(path) as dataset:
        factor = max(1.0, max(dataset.shape) / side)
        shape = tuple(max(1, round(n / factor)) for n in dataset.shape)
        values = dataset.read(list(bands), out_shape=(len(bands), *shape), resampling=Resampling.average, masked=True)
        return values.filled(0).astype(float), ~np.ma.getmaskarray(values).any(0)


def write_png(picture: np.ndarray) -> bytes:
    """(3, rows, cols) uint8 as the bytes of a PNG file."""
    with MemoryFile() as memory:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with memory.open(
                driver="PNG", width=picture.shape[2], height=picture.shape[1], count=3, dtype="uint8"
            ) as dataset:
                dataset.write(picture)
        return memory.read()
