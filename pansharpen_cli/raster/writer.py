"""SceneWriter: a GeoTIFF or COG that appears at its path complete, or not at all."""

from __future__ import annotations

import mmap
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Interleaving, Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile
from rasterio.windows import Window as RasterWindow

from ..errors import InputError, PansharpenError, reason_of
from ..publish import Publication
from .geometry import Window
from .grid import Grid
from .messages import GDAL_ERRORS, gdal_messages
from .opening import Scaling
from .scene import Scene
from .source import default_nodata, rpcs_of
from .tiles import OUTPUT_BLOCK

PROVENANCE = "PANSHARPEN"
"""Tag domain of the provenance."""

_STAND_IN = "PANSHARPEN_BAND"
"""Domain in which the bands' own tags get into a COG: GDAL 3.8 to 3.10 drops them where it copies all domains."""

_GEOMETRY_TAGS = re.compile(
    r"^(AREA_OR_POINT|STATISTICS_.*|OVR_.*|TIFFTAG_[XY]RESOLUTION|TIFFTAG_RESOLUTIONUNIT|.*GDAL.*)$"
)
_PAN_TAGS = re.compile(r"(DATE|TIME|SATELLITE|SPACECRAFT|SENSOR|SUN|VIEW|OFF_?NADIR|CATALOG|CLOUD)", re.IGNORECASE)
_CREATION = {
    "COMPRESS": "DEFLATE",
    "TILED": "YES",
    "BLOCKXSIZE": str(OUTPUT_BLOCK),
    "BLOCKYSIZE": str(OUTPUT_BLOCK),
    "BIGTIFF": "IF_SAFER",
    "PHOTOMETRIC": "MINISBLACK",
}
_COG_CREATION = {
    "COMPRESS": "DEFLATE",
    "PREDICTOR": "YES",
    "BIGTIFF": "IF_SAFER",
    "OVERVIEW_RESAMPLING": "AVERAGE",
    "COPY_SRC_MDD": "YES",  # all tag domains
}
_PREDICTABLE = ("DEFLATE", "LZW", "ZSTD")
DRIVERS = ("GTiff", "COG")
OVERVIEWS_FROM = 4096
"""Longer side in pixels of the least file that has overviews unless it is asked for without."""
DTYPES = ("uint8", "uint16", "int16", "uint32", "int32", "float32", "float64")
"""Types of the output."""

CLIPPED, STEPS = 1e-3, 16.0
"""Share of the values beyond another type than the MS's that is worth a word, and the range in its whole numbers."""
_Failed = (*GDAL_ERRORS, OSError, ValueError)


def parse_creation_options(options: Sequence[str]) -> dict[str, str]:
    """`KEY=VALUE` pairs as of --co, keys in capitals. Raises InputError for anything else."""
    parsed = {}
    for option in options:
        key, sign, value = option.partition("=")
        if not sign or not key.strip():
            raise InputError(f"--co takes KEY=VALUE, not '{option}'")
        parsed[key.strip().upper()] = value.strip()
    return parsed


def check_dtype(name: str) -> str:
    """The name of an output type. Raises InputError for one that there is not."""
    if name not in DTYPES:
        raise InputError(f"unknown --dtype '{name}'; there is {', '.join(DTYPES)}")
    return name


def check_creation_options(driver: str, options: Mapping[str, str], count: int, dtype: np.dtype, nodata: float) -> bool:
    """Do the options keep apart what is nodata and what is not? They are tried on a tiny file.

    Raises InputError for options that do not do, or that change more than how pixels are stored: GDAL only warns of
    those that it does not know or take, and goes on.
    """
    if driver not in DRIVERS:
        raise InputError(f"unknown driver '{driver}'; there is {' and '.join(DRIVERS)}")
    if not options:
        return True
    if "NBITS" in options and dtype.kind == "f":
        raise InputError(f"--co NBITS={options['NBITS']} rounds {dtype} to half of its digits: leave it out")
    threads = {"NUM_THREADS": "1"}  # compression threads complain on stderr
    grid = Grid(CRS.from_epsg(3857), Affine(2, 0, 0, 0, -2, 0), 64, 64)
    place = {"width": 64, "height": 64, "crs": grid.crs, "transform": grid.transform}
    kind = {"count": count, "dtype": dtype, "nodata": nodata}
    random, center = np.random.default_rng(0), nodata if np.isfinite(nodata) else 0
    noise = center + random.uniform(-2, 2, (count, 64, 64))
    noise = to_dtype(noise, random.random((64, 64)) < 0.5, dtype, nodata)
    changed = ""
    with gdal_messages() as said, MemoryFile(ext=".tif") as tiny, MemoryFile(ext=".tif") as copy:
        try:
            with tiny.open(driver="GTiff", **place, **kind, **_profile(driver, options, dtype) | threads) as dataset:
                dataset.write(noise)
            if driver == "COG":
                rasterio.shutil.copy(tiny.name, copy.name, driver="COG", **_COG_CREATION | dict(options) | threads)
            with rasterio.open((copy if driver == "COG" else tiny).name) as dataset:
                changed = _difference(dataset, grid, count, dtype, nodata)
                written = dataset.read() if not changed else noise
        except _Failed as error:
            said.errors.insert(0, reason_of(error))
    wrong = [m.partition(" in ")[2] for m in said.warnings if re.match("CPLE_(NotSupported|IllegalArg)", m)]
    for message in wrong + said.errors:
        raise InputError(f"--co: {re.sub(r'^[0-9a-f-]+.tif: ', '', message)}")
    if changed:
        given = " ".join(f"{k}={v}" for k, v in options.items())
        raise InputError(f"--co {given}: the file would have {changed}; fuse without, and use gdalwarp on its output")
    before, after = (np.isnan(a) if np.isnan(nodata) else a == dtype.type(nodata) for a in (noise, written))
    return bool((before == after).all())


def _difference(dataset, grid: Grid, count: int, dtype: np.dtype, nodata: float | None) -> str:
    """What a written file has that it was not meant to have, or nothing."""
    told = dataset.nodata
    if dataset.shape != (grid.height, grid.width):
        return f"{dataset.height} x {dataset.width} pixels, not {grid.height} x {grid.width}"
    if not _same_crs(dataset.crs, grid.crs):
        return f"the CRS {dataset.crs.to_string()[:80]}" if dataset.crs else "no CRS"
    if not dataset.transform.almost_equals(grid.transform, 1e-6 * abs(grid.transform.determinant) ** 0.5):
        return f"another place ({tuple(dataset.transform)[:6]})"
    if dataset.count != count:
        return f"{dataset.count} bands, not {count}"
    if set(dataset.dtypes) != {str(dtype)}:
        return f"values of {dataset.dtypes[0]}, not {dtype}"
    same = told is nodata if told is None or nodata is None else np.isclose(told, nodata, 1e-6, equal_nan=True)
    if not same:
        return f"the nodata value {told}, not {nodata}"
    return ""


def _same_crs(one, other) -> bool:
    """By EPSG code where both have one: the same CRS may be written in many ways."""
    if not one or not other:
        return bool(one) == bool(other)
    codes = one.to_epsg(), other.to_epsg()
    return one == other or None in codes or codes[0] == codes[1]


def _threads() -> dict[str, str]:
    """As many as torch may use: `--threads` and who limits OpenMP mean the compression, too."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return {"NUM_THREADS": given if given.isdigit() and int(given) > 0 else "ALL_CPUS"}


def _profile(driver: str, options: Mapping[str, str], dtype: np.dtype) -> dict[str, str]:
    """Creation options of the GeoTIFF; that of a COG is an intermediate one."""
    given = dict(options) if driver == "GTiff" else {"ZLEVEL": "1", "SPARSE_OK": "TRUE"}
    profile = _CREATION | _threads() | given
    if profile["COMPRESS"].upper() in _PREDICTABLE and "NBITS" not in given:
        profile = {"PREDICTOR": "3" if dtype.kind == "f" else "2"} | profile
    if profile["TILED"].upper() in ("NO", "FALSE", "OFF"):
        profile = {k: v for k, v in profile.items() if k in given or k not in ("BLOCKXSIZE", "BLOCKYSIZE")}
    return profile


class SceneWriter:
    """Writes a fused scene beside the target; `commit` publishes it together with what else is in `files`.

    Where a compression with losses would blur what is nodata, a mask within the file stands for the nodata value.
    `overviews`: by default from `OVERVIEWS_FROM` on; a COG always has them. `files`: what the file is published with by
    whoever made it. `parts`: bands are written apart from each other, so that the file keeps them apart, too, and each
    has its nodata. `picture`: three bands are red, green and blue, whatever their names, and their values no DN.
    As a context manager it removes everything it made unless it was committed.
    """

    def __init__(
        self,
        path: Path,
        scene: Scene,
        *,
        driver: str = "GTiff",
        creation_options: Mapping[str, str] | None = None,
        overviews: bool | None = None,
        files: Publication | None = None,
        picture: bool = False,
        parts: bool = False,
    ) -> None:
        if overviews is None:
            overviews = max(scene.grid.height, scene.grid.width) >= OVERVIEWS_FROM
        self.path, self.driver, self.overviews, self._picture = path, driver, overviews or driver == "COG", picture
        self.options = dict(creation_options or {})
        if parts and self.options.get("INTERLEAVE", "BAND").upper() != "BAND":
            raise InputError("--co INTERLEAVE: MS files on several grids are written one after the other, band by band")
        self._parts = parts
        self.bands, self.nodata, self.dtype, self.grid = scene.bands, scene.nodata, np.dtype(scene.dtype), scene.grid
        self._window = scene.window
        source = scene.ms[0]
        kind = source.dataset.dtypes[source.bands[0] - 1]
        self.scale = Scaling() if picture else scene.scale
        kept = picture or self.dtype.kind == "f" or (scene.dtype == kind and not self.scale.changes)
        self._losses = None if kept else _Losses(self.dtype, kind)
        self._statistics = _Statistics(self.bands)
        self._warnings = scene.warnings
        self.files, self._shared = files or Publication(), files is not None
        try:
            self._final = self.files.part(path)
            self._file = self.files.room(path) / "fused.tif" if driver == "COG" else self._final
            self._dataset = self._create(scene)
        except BaseException:
            self.discard()
            raise

    def _create(self, scene: Scene):
        self._masked = not check_creation_options(self.driver, self.options, self.bands, self.dtype, self.nodata)
        if self._masked and self._parts:
            raise InputError("--co: with MS files on several grids each band keeps its nodata, which this compression "
                             "blurs; fuse without it")  # fmt: skip
        kind = {"count": self.bands, "dtype": self.dtype, "nodata": None if self._masked else self.nodata}
        grid = scene.grid
        profile = _profile(self.driver, self.options, self.dtype) | ({"INTERLEAVE": "BAND"} if self._parts else {})
        with gdal_messages():
            try:
                dataset = rasterio.open(
                    self._file, "w", driver="GTiff", width=grid.width, height=grid.height, crs=grid.crs,
                    transform=grid.transform, **kind, **profile,
                )  # fmt: skip
            except _Failed as error:
                raise PansharpenError(self._failure(reason_of(error))) from error
            _carry(dataset, scene, self._picture)
        return dataset

    def write(self, window: Window, fused: np.ndarray, valid: np.ndarray, places: Sequence[int] | None = None) -> None:
        """Write (bands, rows, cols) at a window in PAN pixels: rounded, clipped, nodata where not valid; `places` (from
        0) of the bands in the file, None for all of them."""
        if not valid.any():
            return  # GDAL fills blocks that were never written with nodata, far faster
        if not np.isfinite(fused).all() and not np.isfinite(fused[:, valid]).all():
            raise PansharpenError(
                "the fused values are not finite: is an untagged nodata value among the inputs (--nodata)?"
            )
        fused = self.scale.written(fused)
        data = to_dtype(fused, valid, self.dtype, self.nodata)
        if self._losses is not None:
            self._losses.update(fused[:, valid])
        places = range(self.bands) if places is None else places
        self._statistics.update(data[:, valid], places)
        at = RasterWindow.from_slices(*window.seen_from(self._window).spans)
        with self._writing():
            self._dataset.write(data, [place + 1 for place in places], window=at)
            if self._masked:
                with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
                    self._dataset.write_mask(valid, window=at)

    def finish(self) -> Path:
        """Flush everything to the temporary file and return it, for scoring before `commit`.

        What another type than the MS's loses is added to the scene's warnings.
        """
        if self._losses is not None:
            self._warnings += self._losses.notes()
        with self._writing():
            if self.overviews and self.driver == "GTiff":
                factors = [2**k for k in range(1, 12) if min(self._dataset.shape) >> k >= 128]
                if factors:
                    with self._overview_chunks():
                        self._dataset.build_overviews(factors, Resampling.average)
            self._dataset.close()
            _verify(self._file)
        return self._file

    def ready(self, provenance: Mapping[str, str]) -> int:
        """Add the provenance tags and make the file that `commit` publishes; its size in bytes."""
        with self._writing():
            with rasterio.open(self._file, "r+") as dataset:
                dataset.update_tags(ns=PROVENANCE, **provenance)
                area = self.grid.height * self.grid.width
                for band, tags in zip(dataset.indexes, self._statistics.tags(area), strict=True):
                    dataset.update_tags(band, **tags)
                for band in dataset.indexes if self.driver == "COG" else ():
                    dataset.update_tags(band, ns=_STAND_IN, **dataset.tags(band))
            if self.driver == "COG":
                with self._overview_chunks():
                    rasterio.shutil.copy(
                        self._file, self._final, driver="COG", **_COG_CREATION | _threads() | self.options
                    )
                _blank_stand_in(self._final)
            _verify(self._final)
            with rasterio.open(self._final) as dataset:
                nodata = None if self._masked else self.nodata
                if changed := _difference(dataset, self.grid, self.bands, self.dtype, nodata):
                    raise OSError(f"GDAL has given it {changed}")
        return os.path.getsize(self._final)  # what GDAL did not raise has stopped us by now

    def commit(self, provenance: Mapping[str, str]) -> None:
        """Publish the file with its provenance. Raises PansharpenError with everything as it was."""
        self.ready(provenance)
        self.files.publish()

    def discard(self) -> None:
        """Remove what is left of the temporary files."""
        dataset = getattr(self, "_dataset", None)
        if dataset is not None and not dataset.closed:
            with gdal_messages(), suppress(*_Failed):
                dataset.close()
        if not self._shared:
            self.files.close()

    def _overview_chunks(self) -> rasterio.Env:
        """Lets GDAL average the blocks of all bands together.

        Where 2 x 2 blocks with their neighbours exceed its limit (10 MB; 16.8 MB of 8 bands of uint16), it averages the
        whole width band by band instead and decodes each block once per band: 7 times slower, and memory grows with
        the width.
        """
        pixels, working = (2 * OUTPUT_BLOCK + 64) ** 2, max(self.dtype.itemsize, 4) + 1  # float32 and a mask
        limit = (
            {}
            if "GDAL_OVR_CHUNK_MAX_SIZE" in os.environ
            else {"GDAL_OVR_CHUNK_MAX_SIZE": pixels * working * self.bands}
        )
        return rasterio.Env(**limit)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns whatever goes wrong meanwhile, raised or not, into a PansharpenError."""
        with gdal_messages() as said:
            try:
                yield
            except _Failed as error:
                raise PansharpenError(self._failure(reason_of(error))) from error
        if said.errors:
            raise PansharpenError(self._failure(said.errors[0]))
        if clipped := [text for text in said.warnings if "clipped to fit" in text]:
            raise PansharpenError(self._failure(f"{clipped[0].rpartition(': ')[2]} Leave out --co NBITS"))

    def _failure(self, reason: str) -> str:
        free = shutil.disk_usage(self.path.resolve().parent).free
        if free < 1 << 20:
            reason = "no space left on the disk"
        elif free < 1 << 27:
            reason += f" ({free >> 20} MB left on the disk)"
        return f"cannot write {self.path}: {reason}"

    def __enter__(self) -> SceneWriter:
        return self

    def __exit__(self, *_) -> None:
        self.discard()


class _Statistics:
    """Minimum, maximum, mean and standard deviation of each band's valid values, as GDAL keeps them in a file.

    Sums over whole numbers of 16 bits are exact, whatever the tiles; of other types nine digits are kept.
    """

    def __init__(self, bands: int) -> None:
        self.count, self.sums, self.squares = [0] * bands, [0.0] * bands, [0.0] * bands
        self.low, self.high = [np.inf] * bands, [-np.inf] * bands

    def update(self, values: np.ndarray, places: Sequence[int]) -> None:
        """Take in (bands, pixels) of the bands at these places."""
        exact = values.astype(np.int64 if values.dtype.itemsize <= 2 else np.float64)
        low, high = values.min(1).tolist(), values.max(1).tolist()
        sums, squares = exact.sum(1).tolist(), np.einsum("bn,bn->b", exact, exact).tolist()
        for k, band in enumerate(places):
            self.count[band] += values.shape[1]
            self.low[band], self.high[band] = min(self.low[band], low[k]), max(self.high[band], high[k])
            self.sums[band] += sums[k]
            self.squares[band] += squares[k]

    def tags(self, area: int) -> Iterator[dict[str, str]]:
        """Of each band; `area`: pixels of the file."""
        for i, count in enumerate(self.count):
            mean = self.sums[i] / count
            yield {
                "STATISTICS_MINIMUM": f"{self.low[i]:.14g}",
                "STATISTICS_MAXIMUM": f"{self.high[i]:.14g}",
                "STATISTICS_MEAN": f"{mean:.9g}",
                "STATISTICS_STDDEV": f"{max(0.0, self.squares[i] / count - mean**2) ** 0.5:.9g}",
                "STATISTICS_VALID_PERCENT": f"{100 * count / area:.4g}",
            }


class _Losses:
    """What becomes of values that are written as whole numbers of another type than the MS's."""

    def __init__(self, dtype: np.dtype, source: str) -> None:
        self.dtype, self.source = dtype, source
        self.count, self.beyond, self.low, self.high = 0, 0, np.inf, -np.inf

    def update(self, values: np.ndarray) -> None:
        limits = np.iinfo(self.dtype)
        self.count += values.size
        self.beyond += int(((values < limits.min - 0.5) | (values > limits.max + 0.5)).sum())
        self.low = min(self.low, float(values.min(initial=np.inf)))
        self.high = max(self.high, float(values.max(initial=-np.inf)))

    def notes(self) -> list[str]:
        limits = np.iinfo(self.dtype)
        advice = f"--scale FACTOR brings them into its range, without --dtype they keep the MS's type ({self.source})"
        if self.beyond > CLIPPED * self.count:
            return [
                f"{self.beyond / self.count:.1%} of the values lie outside of {limits.min} to {limits.max} and are "
                f"clipped to {self.dtype}: {advice}; for 8-bit pictures use --rgb"
            ]
        if np.dtype(self.source).kind == "f" and self.high - self.low < STEPS:
            return [
                f"values from {self.low:.4g} to {self.high:.4g} are rounded to whole numbers of {self.dtype}, which "
                f"keep little of them: {advice}"
            ]
        return []


SCALE_TAG = "WRITTEN_SCALE"
"""Tag of a file whose values are DN times a factor, plus an offset."""


def scale_of(dataset) -> Scaling | None:
    """How DN were written in a file of ours; None where it does not tell."""
    told = dataset.tags(ns=PROVENANCE).get(SCALE_TAG, "").split()
    with suppress(ValueError):
        factor, offset = map(float, told)
        if 0 < factor < np.inf and np.isfinite(offset):
            return Scaling(factor, offset)
    return None


def to_dtype(fused: np.ndarray, valid: np.ndarray, dtype: np.dtype, nodata: float) -> np.ndarray:
    """Round half to even and clip to the dtype; nodata where `valid` is false and nowhere else."""
    if dtype.kind == "f":
        data = fused.astype(dtype)
        beside = np.nextafter(dtype.type(nodata), dtype.type(0 if nodata else 1)) if np.isfinite(nodata) else None
    else:
        limits = np.iinfo(dtype)
        exact = fused if dtype.itemsize < 4 else fused.astype(np.float64)
        with np.errstate(invalid="ignore"):
            data = np.clip(np.rint(exact), limits.min, limits.max).astype(dtype)
        beside = dtype.type(nodata + 1 if nodata < limits.max else nodata - 1)
    if beside is not None:
        data[data == dtype.type(nodata)] = beside
    data[:, ~valid] = nodata
    return data


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

    @contextmanager
    def writing() -> Iterator[None]:
        with gdal_messages() as said:
            try:
                yield
            except _Failed as error:
                raise PansharpenError(f"cannot write {path}: {reason_of(error)}") from error
        if said.errors:
            raise PansharpenError(f"cannot write {path}: {said.errors[0]}")

    with nullcontext(files) if files is not None else Publication() as publication:
        partial = publication.part(path)
        with writing():
            dataset = rasterio.open(
                partial, "w", driver="GTiff", count=count, dtype=dtype, nodata=default_nodata(dtype), crs=grid.crs,
                width=grid.width, height=grid.height, transform=grid.transform, compress="deflate", tiled=True,
            )  # fmt: skip
            for i, name in enumerate(names, 1):
                if name:
                    dataset.set_band_description(i, name)

        def write(window: Window, data: np.ndarray) -> None:
            with writing():
                dataset.write(data, window=RasterWindow.from_slices(*window.spans))

        try:
            yield write
        except BaseException:
            with gdal_messages(), suppress(*_Failed):
                dataset.close()
            raise
        with writing():
            dataset.close()
            _verify(partial)
        if files is None:
            publication.publish()


def _blank_stand_in(path: Path) -> None:
    """Make the tags of the domain `_STAND_IN` the bands' own, in the XML at the head of a COG."""
    name = f' domain="{_STAND_IN}"'.encode()
    with open(path, "r+b") as handle, mmap.mmap(handle.fileno(), 0) as content:
        at = -1
        while (at := content.find(name, at + 1, 1 << 24)) >= 0:
            content[at : at + len(name)] = b" " * len(name)


def _verify(path: Path) -> None:
    """Raises OSError unless every block lies within the file: GDAL reports a full disk late or never."""
    size = os.path.getsize(path)
    with rasterio.open(path) as written:
        rows, cols = (-(-n // b) for n, b in zip(written.shape, written.block_shapes[0], strict=True))
        for band in written.indexes if written.interleaving == Interleaving.band else (1,):
            for at in (f"{c}_{r}" for r in range(rows) for c in range(cols)):
                first, length = (written.get_tag_item(f"BLOCK_{k}_{at}", "TIFF", bidx=band) for k in ("OFFSET", "SIZE"))
                if first is not None and int(first) + int(length) > size:
                    raise OSError("the file is incomplete")


def _carry(target, scene: Scene, picture: bool) -> None:
    """Take over what describes the bands and the acquisition; what describes the old grid stays behind."""
    index = 0
    interpretation = []
    for source in scene.ms:
        ds = getattr(source.dataset, "src_dataset", source.dataset)
        for band in source.bands:
            index += 1
            if name := ds.descriptions[band - 1] or scene.standard_names[index - 1]:
                target.set_band_description(index, name)
            if ds.units[band - 1] and not picture:
                target.set_band_unit(index, ds.units[band - 1])
            interpretation.append(ds.colorinterp[band - 1])
            tags = {k: v for k, v in ds.tags(band).items() if not _GEOMETRY_TAGS.match(k)}
            if tags:
                target.update_tags(index, **tags)
            if ds.tags(band, ns="IMAGERY"):
                target.update_tags(index, ns="IMAGERY", **ds.tags(band, ns="IMAGERY"))
    if picture:
        target.colorinterp = _COLOURS.values()
    else:
        factor, offset = scene.scale  # what GDAL makes of the values is what it makes of the MS's
        known = [(s.dataset.scales[b - 1], s.dataset.offsets[b - 1]) for s in scene.ms for b in s.bands]
        target.scales = [own / factor for own, _ in known]
        target.offsets = [base - own * offset / factor for own, base in known]
        target.colorinterp = _named_colours(scene.standard_names, interpretation)
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
    if (rpcs := rpcs_of(pan)) is not None:  # they count from the centre of the PAN's first pixel
        rows, cols = scene.window.corner
        rpcs.line_off, rpcs.samp_off = rpcs.line_off - rows, rpcs.samp_off - cols
        target.rpcs = rpcs


_COLOURS = {"red": ColorInterp.red, "green": ColorInterp.green, "blue": ColorInterp.blue}


def _named_colours(names: Sequence[str | None], own: Sequence[ColorInterp]) -> list[ColorInterp]:
    """Red, green and blue by the bands' standard names, once each; else the bands' own interpretation.

    What GDAL guesses of band 1 (grey) or 4 (alpha), and colours of bands whose names say otherwise, are dropped.
    """
    colours: list[ColorInterp] = []
    for name, interpretation in zip(names, own, strict=True):
        colour = _COLOURS.get(name or "")
        guessed = interpretation == ColorInterp.alpha
        guessed |= name is not None and interpretation in (*_COLOURS.values(), ColorInterp.gray)
        colours.append(colour if colour and colour not in colours
                       else ColorInterp.undefined if guessed else interpretation)  # fmt: skip
    return colours


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
