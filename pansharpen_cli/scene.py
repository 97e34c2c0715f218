"""Scene: a PAN and its MS on a common grid, read by window with every invalid pixel marked and filled."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError, RasterioIOError
from rasterio.rpc import RPC
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RasterWindow

from . import foreign, sensors
from .errors import InputError, ReadError, reason_of
from .grid import Grid, Phase, Window, area, intersect, is_empty, widened
from .messages import gdal_messages
from .references import check_raw
from .sensors import Sensor
from .whole import cut_off

MIN_RATIO, MAX_RATIO = 1.5, 8.0
MIN_MS_PIXELS = 8
"""Smallest side of the overlap in MS pixels: below it there is nothing to fit a scene on."""

MAX_PIXELS = 1 << 36
"""Pixels of the largest overlap: damaged headers claim any size, and the plan of the tiles grows with it."""

LOST = 0.05
"""Share of the MS's pixels on the PAN that may be lost by warping without a word: the rim and a place or two."""

EXACT = 1 << 24
"""Up to it single precision holds every whole number."""
MOST_BANDS = 512
"""Of the MS: memory grows with bands as it does with the area of tiles."""

MOST_BLOCK = 1 << 29
"""Bytes of a block, which GDAL reads and unpacks as a whole however small the window is."""

MOST_BESIDE = 64 << 20
"""Bytes of a text file beside a raster: GDAL reads some of them as a whole."""

FILL_REACH = 24
"""Least distance, in pixels of the raster, within which a valid pixel is looked for to fill an invalid one."""


CACHE_BYTES = 64 << 20
"""GDAL's block cache, shared by reading and writing."""


Pixels = tuple[np.ndarray, np.ndarray]
"""Values (bands, rows, cols) and where they are valid (rows, cols)."""

Reader = Callable[[Window], Pixels]
"""Reads a window; what lies outside of the raster is invalid."""


@contextmanager
def bounded_cache() -> Iterator[None]:
    """Rasters read in this context share a block cache of `CACHE_BYTES`, unless the user has set GDAL_CACHEMAX."""
    if "GDAL_CACHEMAX" in os.environ:
        yield
        return
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):  # GDAL's own default is a share of all memory
        yield


def open_raster(path: str):
    """Open a raster; InputError in one line if GDAL cannot, and for what would wait or grow without end, or takes bytes
    of another file for pixels."""
    _check_place(path)
    check_raw(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            dataset = rasterio.open(path)
    except (RasterioError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "://" not in path and not path.startswith("/vsi") and not os.path.exists(path):
            reason = "no such file"
        elif os.path.isfile(path) and os.path.getsize(path) == 0:
            reason = "the file is empty (0 bytes)"
        raise InputError(f"cannot open {path}: {reason}") from error
    if dataset.count == 0:
        dataset.close()
        raise InputError(f"cannot use {path}: it has no bands of its own (a container? name one of its subdatasets)")
    if dataset.gcps[0] and dataset.transform.is_identity:
        dataset.close()
        raise InputError(f"{path} is located by ground control points only; warp it to a grid first (gdalwarp)")
    if dataset.transform.is_identity and rpcs_of(dataset) is not None:
        dataset.close()
        raise InputError(f"{path} is located by RPCs only; orthorectify it first (gdalwarp -rpc)")
    if not np.isfinite(dataset.transform).all() or dataset.transform.determinant == 0:
        dataset.close()
        raise InputError(f"{path} has a geotransform that places no pixels: {tuple(dataset.transform)[:6]}")
    for file in dataset.files:
        if reason := cut_off(file):
            dataset.close()
            raise InputError(f"{file} is cut off: {reason}; copy it again")
    try:
        _check_blocks(dataset, path)
    except InputError:
        dataset.close()
        raise
    return dataset


def rpcs_of(dataset) -> RPC | None:
    """The rational polynomials that locate a raster's pixels; None without any that can be read."""
    try:
        return dataset.rpcs
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None


def _check_place(path: str) -> None:
    """Raises InputError for pipes and devices, there or among the files beside it that GDAL looks into."""
    if kind := foreign.kind_of(path):
        raise InputError(f"cannot open {path}: it is {kind}; only files are read")
    if not foreign.gives_parts(path):
        raise InputError(f"cannot open {path}: its server gives whole files only; download it first")
    folder, name = os.path.split(path)
    stem = os.path.splitext(name)[0].lower()
    try:
        with os.scandir(folder or ".") as entries:
            own = [e for e in entries if e.name.lower().startswith(stem) and not e.is_dir()]
    except (OSError, ValueError):
        return
    for entry in own:
        if not entry.is_file() and (kind := foreign.kind_of(entry.path)):
            raise InputError(f"cannot open {path}: {entry.path} beside it is {kind}; move it away")
        if _SIDE_FILES.search(entry.name) and entry.is_file() and entry.stat().st_size > MOST_BESIDE:
            size = f"{entry.stat().st_size:,} bytes"
            raise InputError(f"cannot open {path}: {entry.path} beside it has {size}, more than {MOST_BESIDE:,}")


def _check_blocks(dataset, path: str) -> None:
    """Raises InputError for blocks of more than `MOST_BLOCK` bytes."""
    together = dataset.count if str(dataset.profile.get("interleave", "")).lower() == "pixel" else 1
    for (rows, cols), kind in dict.fromkeys(zip(dataset.block_shapes, dataset.dtypes, strict=True)):
        size = rows * cols * together * np.dtype(kind if kind != "complex_int16" else "complex64").itemsize
        if size > MOST_BLOCK:
            raise InputError(
                f"{path} has blocks of {rows} x {cols} pixels, {size / 1e9:.1f} GB that are read as a whole: "
                "write it with smaller ones first (gdal_translate -co TILED=YES)"
            )


def check_size(path: str, rows: int, cols: int) -> None:
    """Raises InputError for more than `MAX_PIXELS`."""
    if rows * cols > MAX_PIXELS:
        raise InputError(
            f"{path} claims {rows} x {cols} pixels, more than {MAX_PIXELS:.2g}: "
            "if it is not damaged, cut it with gdal_translate -srcwin"
        )


def read_stack(path: Path) -> tuple[np.ndarray, tuple[str | None, ...], float | None]:
    """All bands of a file as float32 (bands, rows, cols), their descriptions and the nodata value."""
    with open_raster(str(path)) as dataset:
        return dataset.read().astype(np.float32), dataset.descriptions, dataset.nodata


@dataclass
class Source:
    """Some bands of one raster, read with their mask; pixels outside the raster are invalid.

    `notes` receives what reading finds suspicious.
    """

    dataset: Any
    bands: list[int]
    label: str
    nodata: float | None = None
    alpha: tuple[int, ...] = ()
    notes: list[str] = field(default_factory=list)

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Values (bands, rows, cols) in the file's dtype and the valid mask (rows, cols); outside is 0 and invalid."""
        ds = self.dataset
        rows, cols = window[1] - window[0], window[3] - window[2]
        inner = intersect(window, (0, ds.height, 0, ds.width))
        data = np.zeros((len(self.bands), rows, cols), ds.dtypes[self.bands[0] - 1])
        valid = np.zeros((rows, cols), bool)
        if is_empty(inner):
            return data, valid
        at = RasterWindow(inner[2], inner[0], inner[3] - inner[2], inner[1] - inner[0])
        place = np.s_[inner[0] - window[0] : inner[1] - window[0], inner[2] - window[2] : inner[3] - window[2]]
        with gdal_messages() as said:
            try:
                values = ds.read(self.bands, window=at)
                mask = self._mask(values, at)
            except RasterioIOError as error:
                raise ReadError(f"cannot read {self.label}: {reason_of(error)}") from error
        # of a warp these are points of its border that have no place in the other CRS
        if said.errors and not isinstance(ds, WarpedVRT):
            raise ReadError(f"cannot read {self.label}: {said.errors[0]}")
        self._suspect(values, mask)
        data[(slice(None), *place)] = values
        valid[place] = mask
        return data, valid

    def _mask(self, values: np.ndarray, at: RasterWindow) -> np.ndarray:
        """Alpha, and each band's nodata value or mask; `nodata` stands for the file's own value."""
        ds = self.dataset
        mask = np.ones(values.shape[1:], bool)
        every, own = ds.mask_flag_enums, ds.nodatavals  # of all bands, and gathered at each look
        for band in self.alpha:
            mask &= ds.read(band, window=at) > 0
        for i, band in enumerate(self.bands):
            flags = every[band - 1]
            nodata = own[band - 1] if self.nodata is None else self.nodata
            if nodata is not None:
                mask &= ~_equals(values[i], nodata)
            if not {MaskFlags.nodata, MaskFlags.alpha, MaskFlags.all_valid} & set(flags):
                mask &= ds.read_masks(band, window=at) > 0
        if values.dtype.kind == "f":
            mask &= np.isfinite(values).all(0)
        self._check_exact(values, mask)
        return mask

    def _check_exact(self, values: np.ndarray, mask: np.ndarray) -> None:
        """Raises InputError for valid values that single precision, in which all is computed, does not hold."""
        if values.dtype == np.float64:
            if (np.abs(values[:, mask]) > np.finfo(np.float32).max).any():
                raise InputError(f"{self.label} holds values beyond 3.4e38: name them as nodata (--nodata)")
        elif values.dtype.kind in "iu" and values.dtype.itemsize >= 4:
            held = values[:, mask]
            odd = [int(v) for v in (held.min(), held.max()) if abs(int(v)) > EXACT] if held.size else []
            if odd:
                raise InputError(
                    f"{self.label} holds whole numbers beyond {EXACT} ({odd[-1]} for one), which single precision does "
                    "not tell apart: name them with --nodata if they stand for nodata, else subtract an offset or "
                    "scale them (gdal_translate -scale)"
                )

    def _suspect(self, values: np.ndarray, mask: np.ndarray) -> None:
        """Note, once, what looks like a nodata value that no tag names: a value in a band of floats, or areas of 0 or
        65535 in all bands of a file without any nodata value."""
        text = f"{self.label} {UNTAGGED}"
        if any(note.startswith(text) for note in self.notes):
            return
        if values.dtype.kind == "f":
            for band, pixels in zip(self.bands, values, strict=True):
                odd = untagged_nodata(pixels[mask])
                if odd is not None:
                    self.notes.append(f"{text} ({plain(odd)} in band {band}): name them with --nodata")
                    return
        elif self.nodata is None and self.dataset.nodata is None:
            for value in (0, _FULL) if values.dtype == np.uint16 else (0,):
                fill = mask & (values == value).all(0)
                least = _FILLED * fill.size if value == 0 else 0  # zeros may be dark
                if fill.any() and solid(fill).sum() > least:
                    self.notes.append(f"{text} (areas of {value} in all bands): name them with --nodata {value}")
                    return


CUSTOMARY_NODATA = (-99.0, -999.0, -9999.0, -99999.0, -32767.0, -32768.0)
"""Values that stand for nodata by custom."""
UNTAGGED = "holds values that look like nodata and are not tagged as such"
_SHARED = 3
_FULL = 65535
_FILLED = 0.002
"""Share of what is read from which on areas of one value are worth a word; `check` takes the same."""


def untagged_nodata(pixels: np.ndarray) -> float | None:
    """The least or largest of some values if it looks like nodata, else None.

    Several pixels share it, and it is a customary nodata value and the only one below zero, or lies farther from the
    others than three times (positive: a thousand times, so that no saturated cloud does) the range that those have.
    """
    if pixels.size == 0:
        return None
    low, high = float(pixels.min()), float(pixels.max())
    thin = pixels[:: max(1, pixels.size // 1000)]
    for odd in (low, high):
        known, reach = odd in CUSTOMARY_NODATA, 3.0 if odd < 0 else 1000.0
        if not known and ((thin != odd) & (np.abs(thin - thin.dtype.type(odd)) < 0.7 * (high - low))).any():
            continue  # spares the look at every value
        rest = pixels[pixels != odd]
        if rest.size == 0 or pixels.size - rest.size < _SHARED:
            continue
        nearest, farthest = float(rest.min()), float(rest.max())
        gap = min(abs(nearest - odd), abs(farthest - odd))
        if (known and nearest >= 0) or gap > reach * (farthest - nearest) > 0:
            return odd
    return None


def solid(mask: np.ndarray, size: int = 9) -> np.ndarray:
    """Upper-left corners of squares of `size` pixels that are set throughout."""
    sums = np.pad(mask, ((1, 0), (1, 0))).astype(np.int64).cumsum(0).cumsum(1)
    filled = sums[size:, size:] - sums[:-size, size:] - sums[size:, :-size] + sums[:-size, :-size]
    return filled == size * size


def plain(value: float) -> str:
    """The shortest text from which the same single-precision value is read."""
    text = f"{value:g}"
    return text if np.float32(text) == np.float32(value) else str(np.float32(value))


def _equals(values: np.ndarray, nodata: float) -> np.ndarray:
    return np.isnan(values) if np.isnan(nodata) else values == nodata


@dataclass(frozen=True)
class TileData:
    """Pixels around a window: `pan` (rows, cols) of `pan_window`, `ms` (bands, rows, cols) of `ms_window` in MS
    pixels, float32 with invalid pixels filled from their nearest valid neighbour; `valid` (rows, cols) of `window`."""

    window: Window
    pan: np.ndarray
    pan_window: Window
    ms: np.ndarray
    ms_window: Window
    valid: np.ndarray

    def lifted(self, exponent: int) -> TileData:
        """With all values times 2^exponent, which loses nothing."""
        if exponent == 0:
            return self
        return replace(self, pan=np.ldexp(self.pan, exponent), ms=np.ldexp(self.ms, exponent))


@dataclass
class Scene:
    """A PAN and its MS. All windows are in pixels of the PAN file.

    `full`: the pixels that the pair determines; `window`: the part to write; `phase`: of the MS grid on the PAN grid;
    `standard_names`: of the bands by their descriptions, else by the order in which the sensor's products come;
    `gains`: the bands' MTF gains at Nyquist by the sensor's table, which the indices are defined with;
    `fitted_gains`: those that the scene shows, which networks take, and `band_offsets`: by how many PAN pixels (rows,
    cols) the grid of each band lies off the phase; both empty if they were not measured.
    """

    pan: Source
    ms: list[Source]
    pan_grid: Grid
    ms_grid: Grid
    phase: Phase
    full: Window
    window: Window
    sensor: Sensor
    sensor_source: str
    band_names: tuple[str | None, ...]
    standard_names: tuple[str | None, ...]
    gains: tuple[float, ...]
    dtype: str
    nodata: float
    warnings: list[str]
    warped: bool = False
    band_offsets: tuple[tuple[float, float], ...] = ()
    fitted_gains: tuple[float, ...] = ()
    _stack: ExitStack = field(default_factory=ExitStack, repr=False)
    stamps: dict[str, tuple[int, ...]] = field(default_factory=dict, repr=False)

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        self._stack.close()

    @property
    def grid(self) -> Grid:
        """The output grid."""
        return self.pan_grid.window(self.window)

    @property
    def bands(self) -> int:
        return sum(len(s.bands) for s in self.ms)

    @property
    def effective_gains(self) -> tuple[float, ...]:
        """MTF gains that networks fuse with: of what was measured, else the sensor's."""
        return self.fitted_gains or self.gains

    @property
    def paths(self) -> list[str]:
        return [self.pan.label, *dict.fromkeys(s.label for s in self.ms)]

    def files(self) -> set[str]:
        """Every file that is read: also the sources of a VRT and side files."""
        datasets = (self.pan.dataset, *(s.dataset for s in self.ms))
        return {*self.paths, *(f for d in datasets for f in getattr(d, "src_dataset", d).files)}

    def check_unchanged(self) -> None:
        """Raises ReadError if a file is no longer the one that was opened."""
        for path, stamp in self.stamps.items():
            if _stamp(path) != stamp:
                raise ReadError(f"{path} changed while it was read; run again when it is complete")

    @classmethod
    def open(
        cls,
        pan: str | os.PathLike,
        ms: Sequence[str | os.PathLike],
        *,
        sensor: str = "auto",
        bidx: Sequence[int] | None = None,
        nodata: float | None = None,
        extent: Literal["intersection", "pan"] = "intersection",
        window: Window | None = None,
        bbox: tuple[float, float, float, float] | None = None,
        dtype: str | None = None,
        shift: tuple[float, float] = (0.0, 0.0),
        labels: Mapping[str, str] | None = None,
    ) -> Scene:
        """Open and check a pair. Raises InputError, in one line, for everything that cannot be fused.

        `bidx`: 1-based bands over all MS files in order. `window`: rows and columns of the PAN file. `bbox`: left,
        bottom, right, top in the PAN's CRS. `nodata`: replaces the files' own nodata values.
        `shift`: rows and columns in PAN pixels by which the MS lies off its georeferencing: its grid moves, no pixel is
        resampled. `labels`: what paths are called in messages and reports, if not as they are.
        """
        with ExitStack() as stack:
            notes: list[str] = []
            _check_named_once(os.fspath(pan), [os.fspath(p) for p in ms])
            stack.enter_context(bounded_cache())
            pan_ds = stack.enter_context(open_raster(os.fspath(pan)))
            ms_ds = [stack.enter_context(open_raster(os.fspath(p))) for p in ms]
            pan_label, *ms_labels = ((labels or {}).get(os.fspath(p), os.fspath(p)) for p in (pan, *ms))
            pan_source, ms_sources = _sources(pan_ds, ms_ds, pan_label, ms_labels, nodata, notes)
            every, chosen = ms_sources, _chosen(ms_sources, bidx)
            if len(chosen) > MOST_BANDS:
                raise InputError(f"the MS has {len(chosen)} bands, at most {MOST_BANDS} are fused: choose with --bidx")
            ms_sources = _choose(ms_sources, chosen) if bidx else ms_sources
            all_names = tuple(s.dataset.descriptions[b - 1] for s in every for b in s.bands)
            ms_dtype = _check_types([pan_source, *ms_sources])
            pan_grid = Grid.of(pan_ds)
            ms_grid = Grid.of(ms_ds[0]).called_as(pan_grid)
            for source in ms_sources[1:]:
                if (other := Grid.of(source.dataset).called_as(ms_grid)) != ms_grid:
                    raise InputError(
                        f"{source.label} lies on another grid than {ms_sources[0].label}: "
                        + ("they are tiles of one raster: join them first (gdalbuildvrt ms.vrt TILES)"
                           if _are_tiles(other, ms_grid) else "all MS files need the same size, CRS and origin")
                    )  # fmt: skip
            pan_grid, ms_grid, phase, warped = _align(pan_grid, ms_grid, pan_source, ms_sources, stack, notes)
            if any(shift):
                phase = Phase(phase.ratio, (phase.offset[0] + shift[0], phase.offset[1] + shift[1]))
                ms_grid = pan_grid.coarser(phase, (0, ms_grid.height, 0, ms_grid.width))
            _check_ratio(phase, pan_source.label, ms_sources[0].label)
            full = pan_grid.overlap(phase, ms_grid)
            if is_empty(full):
                raise InputError(
                    f"no overlap: {pan_source.label} covers {pan_grid.describe()}, "
                    f"{ms_sources[0].label} covers {ms_grid.describe()}"
                )
            for side, ratio in ((full[1] - full[0], phase.ratio[0]), (full[3] - full[2], phase.ratio[1])):
                if side / ratio < MIN_MS_PIXELS:
                    raise InputError(
                        f"the overlap of {pan_source.label} and {ms_sources[0].label} is only {side / ratio:.1f} MS "
                        f"pixels wide; at least {MIN_MS_PIXELS} are needed"
                    )
            if extent == "pan":
                full = (0, pan_grid.height, 0, pan_grid.width)
            check_size(pan_source.label, full[1] - full[0], full[3] - full[2])
            if sensor == "auto":
                domains = [d for s in (*_unique(every), pan_source) for d in metadata(s)]
                found, where = sensors.recognise(domains, all_names)
            else:
                found, where = sensors.named(sensor), "--sensor"
            names = tuple(all_names[i] for i in chosen)
            standard: tuple[str | None, ...] = tuple(map(sensors.band_name, names))
            if not any(standard):
                standard = found.usual_names(len(all_names), chosen) or standard
            scene = cls(
                pan=pan_source,
                ms=ms_sources,
                pan_grid=pan_grid,
                ms_grid=ms_grid,
                phase=phase,
                full=full,
                window=_output_window(full, window, bbox, pan_grid),
                sensor=found,
                sensor_source=where,
                band_names=names,
                standard_names=standard,
                gains=found.gains_of(all_names, chosen),
                dtype=dtype or ms_dtype,
                nodata=_output_nodata(dtype or ms_dtype, nodata, ms_sources, pan_source, notes),
                warnings=notes,
                warped=warped,
            )
            scene.stamps = {path: stamp for path in scene.files() if (stamp := _stamp(path)) is not None}
            scene._stack = stack.pop_all()
            return scene

    def read_ms(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """MS values (bands, rows, cols) of a window in MS pixels, and where all bands are valid (rows, cols)."""
        parts = [s.read(window) for s in self.ms]
        return np.concatenate([p[0] for p in parts]), np.logical_and.reduce([p[1] for p in parts])

    def read(self, window: Window, pan_window: Window, ms_window: Window) -> TileData | None:
        """A tile with the surroundings that its operators ask for; None if no pixel of it is valid."""
        rows = np.arange(window[0], window[1])
        cols = np.arange(window[2], window[3])
        nearest_row = self.nearest_ms(rows, 0) - ms_window[0]
        nearest_col = self.nearest_ms(cols, 1) - ms_window[2]
        inner = (int(nearest_row[0]), int(nearest_row[-1]) + 1, int(nearest_col[0]), int(nearest_col[-1]) + 1)
        own = (0, ms_window[1] - ms_window[0], 0, ms_window[3] - ms_window[2])
        ms = self.read_ms(ms_window)
        valid = ms[1][np.ix_(nearest_row, nearest_col)]
        if not valid.any():
            return None
        pan = self.pan.read(pan_window)
        valid &= pan[1][np.ix_(rows - pan_window[0], cols - pan_window[2])]
        if not valid.any():
            return None
        seen, _ = filled(self.pan.read, pan_window, _fill_reach(pan_window, window), pan)
        bands, _ = filled(self.read_ms, ms_window, _fill_reach(own, inner), ms)
        return TileData(window, seen[0], pan_window, bands, ms_window, valid)

    def nearest_ms(self, index: np.ndarray, axis: int) -> np.ndarray:
        """The MS pixel in which the centre of a PAN pixel lies."""
        position = (index + 0.5 - self.phase.offset[axis]) / self.phase.ratio[axis]
        return np.floor(position + 1e-9).astype(int)


def _stamp(path: str) -> tuple[int, ...] | None:
    """What tells whether a file has changed; None for what is no file of the system, such as /vsi paths."""
    try:
        known = os.stat(path)
    except (OSError, ValueError):
        return None
    return known.st_size, known.st_mtime_ns, known.st_ino


def _fill_reach(around: Window, window: Window) -> int:
    """How far to look for what fills a pixel, so that all that a valid pixel of `window` depends on is filled alike in
    every tile: as far as from there to the corner of its surroundings, and a network's halo."""
    return FILL_REACH + 3 * max(abs(a - w) for a, w in zip(around, window, strict=True)) // 2


def filled(read: Reader, window: Window, reach: int = FILL_REACH, known: Pixels | None = None) -> Pixels:
    """Read a window as float32 with invalid pixels replaced by their nearest valid neighbour, and its valid mask.

    `known`: what reading it gave, if that was done. A pixel with a valid one within `reach` pixels is filled the same
    in every window; zeros if nothing is valid.
    """
    data, valid = known or read(window)
    if valid.all():
        return data.astype(np.float32), valid
    data, wide = read(widened(window, reach))
    data = data.astype(np.float32)
    if not wide.any():
        data[:] = 0
    elif not wide.all():
        rows, cols = np.flatnonzero(wide.any(1)), np.flatnonzero(wide.any(0))
        box = np.s_[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
        if wide[box].all():
            pads = ((rows[0], len(wide) - 1 - rows[-1]), (cols[0], wide.shape[1] - 1 - cols[-1]))
            data = np.pad(data[(slice(None), *box)], ((0, 0), *pads), mode="edge")
        else:
            from scipy import ndimage  # takes a fifth of a second to import

            nearest = ndimage.distance_transform_edt(~wide, return_distances=False, return_indices=True)
            data = data[(slice(None), *nearest)]
    inner = np.s_[reach : data.shape[1] - reach, reach : data.shape[2] - reach]
    return np.ascontiguousarray(data[(slice(None), *inner)]), valid


def _unique(sources: Sequence[Source]) -> list[Source]:
    return list({s.label: s for s in sources}.values())


def _are_tiles(one: Grid, other: Grid) -> bool:
    """Whether two grids are parts of one, whole pixels apart, that overlap by less than half of the smaller one."""
    phase = other.phase_of(one) if one.crs == other.crs else None
    if phase is None or phase.ratio != (1.0, 1.0) or any(abs(o - round(o)) > 0.01 for o in phase.offset):
        return False
    return area(other.overlap(phase, one)) < min(one.height * one.width, other.height * other.width) / 2


def _check_named_once(pan: str, ms: Sequence[str]) -> None:
    """Raises InputError for a file that is named twice."""
    seen: dict[str, str] = {}
    for role, path in (("PAN", pan), *(("MS", p) for p in ms)):
        if (before := seen.setdefault(os.path.realpath(path), role)) != role:
            raise InputError(f"{path} is named as PAN and as MS: it can be one of them only")
        if before == "MS" and list(ms).count(path) > 1:
            raise InputError(f"{path} is named twice among the MS files; choose and order bands with --bidx")


def _sources(pan_ds, ms_ds, pan: str, ms: list[str], nodata, notes) -> tuple[Source, list[Source]]:
    pan_bands, pan_alpha = data_bands(pan_ds, pan, notes)
    if len(pan_bands) != 1:
        hint = "; are PAN and MS swapped?" if all(d.count == 1 for d in ms_ds) or len(ms_ds) == 1 else ""
        raise InputError(f"{pan} has {len(pan_bands)} bands, a PAN has one{hint}")
    sources = []
    for ds, path in zip(ms_ds, ms, strict=True):
        bands, alpha = data_bands(ds, path, notes)
        sources.append(Source(ds, bands, path, nodata, alpha, notes))
    return Source(pan_ds, pan_bands, pan, nodata, pan_alpha, notes), sources


def data_bands(ds, path: str, notes: list[str]) -> tuple[list[int], tuple[int, ...]]:
    """Data bands and alpha bands. GDAL calls the fourth of four 8-bit bands alpha by default, so a band counts as
    alpha only if its name is no spectral band's and it holds nothing but 'off' and 'on'.

    Raises InputError for bands that hold indices of colours.
    """
    alpha = []
    for band, interpretation in zip(ds.indexes, ds.colorinterp, strict=True):
        if interpretation == ColorInterp.palette:
            _check_palette(ds, band, path)
        if interpretation != ColorInterp.alpha or ds.count == 1:
            continue
        if sensors.band_name(ds.descriptions[band - 1]) is not None:
            continue
        try:
            held = _some_values(ds, band)
        except RasterioIOError as error:
            raise ReadError(f"cannot read {path}: {reason_of(error)}") from error
        if len(held) <= 2:
            alpha.append(band)
        else:
            notes.append(f"{path}: band {band} is tagged alpha but holds image values; it is used as a spectral band")
    if len(alpha) == ds.count:
        raise InputError(f"{path} holds nothing but masks (alpha)")
    return [b for b in ds.indexes if b not in alpha], tuple(alpha)


def _check_palette(ds, band: int, path: str) -> None:
    """Raises InputError unless a band's colours are the greys of its values, in order: others make it an index."""
    try:
        colours = np.array([colour[:3] for _, colour in sorted(ds.colormap(band).items())], float)
    except ValueError:
        return  # tagged as a palette without one
    grey = bool((np.ptp(colours, axis=1) == 0).all())
    # a nodata value makes its entry transparent, so that alpha tells nothing
    if grey and np.abs(colours[:, 0] - np.linspace(0, 255, len(colours))).max() <= 1:
        return
    raise InputError(
        f"{path} holds indices of a colour table in band {band}, not radiance: expand it first "
        f"(gdal_translate -expand {'gray' if grey else 'rgb'} {os.path.basename(path)} expanded.tif)"
    )


def _some_values(ds, band: int) -> set[float]:
    """Different values of a band, of 16 places of a large one."""
    held: set[float] = set()
    for row in range(0, ds.height, max(512, -(-ds.height // 4))):
        for col in range(0, ds.width, max(512, -(-ds.width // 4))):
            part = RasterWindow(col, row, min(512, ds.width - col), min(512, ds.height - row))
            held.update(np.unique(ds.read(band, window=part)).tolist())
            if len(held) > 2:
                return held
    return held


def _chosen(sources: list[Source], bidx: Sequence[int] | None) -> list[int]:
    """Places (from 0) among the bands of all MS files in order: all, or those that 1-based `bidx` names."""
    count = sum(len(s.bands) for s in sources)
    for i in bidx or ():
        if not 1 <= i <= count:
            raise InputError(f"--bidx {i} is out of range: the MS has bands 1 to {count}")
    return [i - 1 for i in bidx] if bidx else list(range(count))


def _choose(sources: list[Source], chosen: Sequence[int]) -> list[Source]:
    """The bands at these places; one Source per run within a file."""
    flat = [(s, b) for s in sources for b in s.bands]
    made: list[Source] = []
    for source, band in (flat[i] for i in chosen):
        if made and made[-1].dataset is source.dataset:
            made[-1].bands.append(band)
        else:
            made.append(replace(source, bands=[band]))
    return made


def _check_types(sources: list[Source]) -> str:
    """The MS dtype; InputError for complex data or MS files of different dtypes."""
    kinds: dict[str, str] = {}
    for source in sources:
        for band in source.bands:
            kind = source.dataset.dtypes[band - 1]
            if "complex" in kind:
                raise InputError(f"{source.label} holds complex values ({kind}); fuse their magnitude instead")
            if source is not sources[0]:
                kinds.setdefault(kind, source.label)
    if len(kinds) > 1:
        raise InputError("MS bands of different types: " + ", ".join(f"{p} is {k}" for k, p in kinds.items()))
    return next(iter(kinds))


def _align(pan: Grid, ms: Grid, pan_source: Source, ms_sources: list[Source], stack: ExitStack, notes: list[str]):
    """Grids and phase; MS in another CRS or rotated is wrapped in one WarpedVRT per file."""
    if (pan.crs is None) != (ms.crs is None):
        missing, other = (pan_source, ms_sources[0]) if pan.crs is None else (ms_sources[0], pan_source)
        raise InputError(
            f"{missing.label} has no CRS but {other.label} has ({other.dataset.crs}); "
            "set it with gdal_edit.py -a_srs or rio edit-info --crs"
        )
    if pan.crs is None:
        ratios = pan.height / ms.height, pan.width / ms.width
        if pan.transform.is_identity and ms.transform.is_identity:
            ratio = round(ratios[0])
            if max(abs(r - ratio) * n for r, n in zip(ratios, (ms.height, ms.width), strict=True)) > ratio:
                raise InputError(
                    f"{pan_source.label} and {ms_sources[0].label} have no georeferencing and their shapes have no "
                    f"integral ratio ({ratios[0]:.4g} x {ratios[1]:.4g})"
                )
            notes.append(f"no georeferencing: upper-left corners taken as equal, ratio {ratio} from the shapes")
            ms = Grid(None, Affine.scale(ratio), ms.height, ms.width)
        else:
            notes.append("no CRS on PAN and MS: their transforms are taken to be in the same one")
    placeless = [s for s in (pan_source, ms_sources[0]) if s.dataset.transform.is_identity]
    if len(placeless) == 1:
        without, placed = placeless[0], pan_source if placeless[0] is ms_sources[0] else ms_sources[0]
        raise InputError(
            f"{without.label} has no georeferencing and {placed.label} has: is its world file (.tfw, .wld, .j2w) or "
            ".aux.xml lost? Put it back, or set the corners with gdal_edit.py -a_ullr"
        )
    ms = ms.turned_towards(pan)
    if pan.crs == ms.crs:
        phase = pan.phase_of(ms)
        if phase is not None:
            return pan, ms, phase, False
        why = "is rotated or mirrored against"
    else:
        alike = str(ms.crs) == str(pan.crs)
        why = f"has the CRS's name ({ms.crs}) and not the meaning of" if alike else f"is in another CRS ({ms.crs}) than"
    if pan.crs is None:
        raise InputError(f"{ms_sources[0].label} {why} {pan_source.label} and there is no CRS to warp it with")
    notes.append(f"{ms_sources[0].label} {why} {pan_source.label}: warped (cubic) to the PAN's orientation")
    original = replace(ms_sources[0])
    try:
        target, phase = _warped(pan, ms, ms_sources, stack)
        lost = _lost(pan, ms, phase, target, original, ms_sources[0])
        if lost > LOST:
            notes.append(
                f"warping loses about {lost:.0%} of the pixels of {original.label} that lie on the PAN: they are nodata"
            )
        return pan, target, phase, True
    except (CPLE_BaseError, RasterioError, ValueError, OverflowError) as error:
        text = reason_of(error)[:200]
        raise InputError(f"{ms_sources[0].label} {why} {pan_source.label} and cannot be warped: {text}") from error


def _warped(pan: Grid, ms: Grid, ms_sources: list[Source], stack: ExitStack) -> tuple[Grid, Phase]:
    """Put one WarpedVRT per MS file in the place of the datasets; their grid and its phase."""
    target = _warp_target(pan, ms)
    vrts: dict[str, Any] = {}
    for source in ms_sources:
        if source.label not in vrts:
            own = source.nodata if source.nodata is not None else source.dataset.nodata
            dataset, crs = _for_the_warper(source, ms, stack)
            vrts[source.label] = stack.enter_context(
                WarpedVRT(
                    dataset,
                    src_crs=crs,
                    crs=pan.crs,
                    transform=target.transform,
                    height=target.height,
                    width=target.width,
                    resampling=Resampling.cubic,
                    tolerance=1e-6,
                    src_nodata=own,
                    nodata=own,
                    add_alpha=own is None and not source.alpha,
                )
            )
        vrt = vrts[source.label]
        if not source.alpha and vrt.count > source.dataset.count:
            source.alpha = (vrt.count,)
        source.dataset = vrt
    phase = pan.phase_of(target)
    assert phase is not None
    return target, phase


def _for_the_warper(source: Source, grid: Grid, stack: ExitStack) -> tuple[Any, Any]:
    """The source's dataset, or a view of it that GDAL's warper understands, and its CRS.

    In the view one band at most is called alpha, which the warper takes for a mask, and longitudes are counted from the
    middle of the raster where they leave the range from -180 to 180, beyond which it finds nothing.
    """
    dataset, kept = source.dataset, source.alpha[:1]
    called = [b for b, c in zip(dataset.indexes, dataset.colorinterp, strict=True) if c == ColorInterp.alpha]
    transform, crs = grid.transform, grid.crs
    if crs is not None and crs.is_geographic and not -180 <= grid.bounds[0] <= grid.bounds[2] <= 180:
        middle = (grid.bounds[0] + grid.bounds[2]) / 2
        transform = Affine.translation(-middle, 0) * transform
        text = re.sub(r'PRIMEM\["[^"]*",([^],]+)(,AUTHORITY\[[^]]*\])?\]', f'PRIMEM["middle",{middle!r}]', crs.to_wkt())
        crs = type(crs).from_wkt(re.sub(r',AUTHORITY\["[^"]*","[^"]*"\]\]$', "]", text))
    if called == list(kept) and transform == dataset.transform:
        return dataset, crs
    with rasterio.MemoryFile(ext=".vrt") as memory:
        rasterio.shutil.copy(dataset, memory.name, driver="VRT")
        view = memory.read().decode()
    terms = ", ".join(map(repr, transform.to_gdal()))
    view = re.sub(r"<GeoTransform>[^<]*</GeoTransform>", f"<GeoTransform>{terms}</GeoTransform>", view)
    bands = re.split(r"(?=<VRTRasterBand )", view)
    for band in called:
        if band not in kept:
            bands[band] = bands[band].replace("<ColorInterp>Alpha</ColorInterp>", "")
    return stack.enter_context(rasterio.open("".join(bands))), crs


def _lost(pan: Grid, ms: Grid, phase: Phase, target: Grid, original: Source, warped: Source) -> float:
    """Share of 64 places on the PAN that are valid in the MS as it is and not as it was warped; 0 where none is."""
    from rasterio.warp import transform

    r0, r1, c0, c1 = pan.overlap(phase, target)
    rows, cols = ((np.arange(8) + 0.5) / 8 * (b - a) + a for a, b in ((r0, r1), (c0, c1)))
    places = [pan.transform * (c, r) for r in rows for c in cols]
    xs, ys = map(list, zip(*places, strict=True))
    if pan.crs != ms.crs:
        xs, ys = transform(pan.crs, ms.crs, xs, ys)
    if ms.crs is not None and ms.crs.is_geographic:
        xs = ms.turned(xs)
    there, seen = 0, 0
    for x, y, (px, py) in zip(xs, ys, places, strict=True):
        if not np.isfinite([x, y]).all():
            continue
        (col, row), (tc, tr) = ~ms.transform * (x, y), ~target.transform * (px, py)
        if not (2 <= col < ms.width - 2 and 2 <= row < ms.height - 2):
            continue
        if original.read(_pixels(row, col, 2))[1].all():
            there += 1
            seen += bool(warped.read(_pixels(tr, tc, 0))[1].all())
    return 1 - seen / there if there else 0.0


def _pixels(row: float, col: float, reach: int) -> Window:
    """The pixel of a place and its neighbours."""
    return widened((int(row), int(row) + 1, int(col), int(col) + 1), reach)


def _warp_target(pan: Grid, ms: Grid) -> Grid:
    """A grid in the PAN's orientation with the MS's pixel size, over the MS's footprint."""
    from rasterio.warp import transform

    def project(x, y):
        if pan.crs == ms.crs:
            return x, y
        px, py = transform(ms.crs, pan.crs, [x], [y])
        return (pan.turned(px) if pan.crs is not None and pan.crs.is_geographic else px)[0], py[0]

    def in_pan(col, row):
        return ~pan.transform * project(*(ms.transform * (col, row)))

    middle = ms.width / 2, ms.height / 2
    origin = in_pan(*middle)
    steps = [np.subtract(in_pan(middle[0] + dc, middle[1] + dr), origin) for dc, dr in ((1, 0), (0, 1))]
    size = [float(np.hypot(*step)) for step in steps]
    ratio = float(np.sqrt(size[0] * size[1]))
    edge = np.linspace(0, 1, 21)
    border = [(c * ms.width, r * ms.height) for c, r in [(e, s) for e in edge for s in (0, 1)]]
    border += [(c * ms.width, r * ms.height) for c, r in [(s, e) for e in edge for s in (0, 1)]]
    cols, rows = np.array([in_pan(*p) for p in border]).T
    if not np.isfinite([cols, rows]).all() or not 0 < ratio < np.inf:
        raise ValueError("its footprint has no place in the PAN's CRS")
    first = np.floor([cols.min(), rows.min()])
    count = np.ceil((np.array([cols.max(), rows.max()]) - first) / ratio).astype(int)
    return Grid(pan.crs, pan.transform * Affine.translation(*first) * Affine.scale(ratio), int(count[1]), int(count[0]))


def _check_ratio(phase: Phase, pan: str, ms: str) -> None:
    low, high = min(phase.ratio), max(phase.ratio)
    if high < 1 / MIN_RATIO:
        raise InputError(f"{pan} has larger pixels than {ms} (ratio {low:.3g}): are PAN and MS swapped?")
    if low < MIN_RATIO or high > MAX_RATIO:
        raise InputError(
            f"MS pixels of {ms} are {phase.ratio[0]:.4g} x {phase.ratio[1]:.4g} PAN pixels of {pan}; "
            f"the ratio has to lie between {MIN_RATIO:g} and {MAX_RATIO:g}"
        )


def _output_window(full: Window, window: Window | None, bbox, grid: Grid) -> Window:
    chosen = full
    for name, part in (("--window", window), ("--bbox", grid.pixels_of(bbox) if bbox else None)):
        if part is None:
            continue
        chosen = intersect(chosen, part)
        if is_empty(chosen):
            raise InputError(f"{name} does not touch the scene, which is rows {full[0]}-{full[1]}, columns "
                             f"{full[2]}-{full[3]} of the PAN, {grid.window(full).describe()}")  # fmt: skip
    return chosen


def _output_nodata(dtype: str, nodata: float | None, ms: list[Source], pan: Source, notes: list[str]) -> float:
    """The given value, else the MS's, else the PAN's, else the dtype's own: 0, the minimum of signed types, NaN."""
    kind = np.dtype(dtype)
    candidates = [nodata, *(s.dataset.nodata for s in ms), pan.dataset.nodata]
    for value in candidates:
        if value is not None:
            if _fits(kind, value):
                return float(value)
            if value is nodata:
                raise InputError(f"--nodata {nodata:g} does not fit the output type {dtype}")
            notes.append(f"the nodata value {value:g} does not fit {dtype}; another one is used in the output")
    return default_nodata(kind)


def default_nodata(dtype: np.dtype) -> float:
    """What stands for nodata where no file says: 0, the minimum of signed types that a float holds exactly, NaN.

    GDAL would write the least of 64 bits with an exponent and read it as -9.
    """
    if dtype.kind == "f":
        return float("nan")
    return 0.0 if dtype.kind == "u" else float(max(np.iinfo(dtype).min, -(1 << 53)))


def _fits(kind: np.dtype, value: float) -> bool:
    if kind.kind == "f":
        return True
    limits = np.iinfo(kind)
    return bool(limits.min <= value <= limits.max and float(value).is_integer())


_KEY = re.compile("[A-Za-z_]+")
_SIDE_FILES = re.compile(r"\.(imd|rpb|xml|txt|dim|json)$", re.IGNORECASE)


def metadata(source: Source) -> list[tuple[str, dict[str, str]]]:
    """The tags that may name a sensor, most trusted first, with the place where they stand."""
    name, ds = os.path.basename(source.label), source.dataset
    ds = getattr(ds, "src_dataset", ds)
    found = []
    for domain in ("IMAGERY", "IMD", "DIMAP", None):
        tags = ds.tags(ns=domain) if domain else ds.tags()
        if tags:
            found.append((f"{domain or 'TIFF'} metadata of {name}", tags))
    found += [(f"{os.path.basename(p)}", _side_tags(p)) for p in _side_files(source.label, ds.files)]
    return found


def _side_files(path: str, listed: Sequence[str]) -> list[str]:
    """Text files that belong to a raster: those GDAL lists, and Landsat's MTL or DigitalGlobe's IMD beside it."""
    names = [p for p in listed if p != path and _SIDE_FILES.search(p)]
    folder = Path(path).parent
    if "://" not in path and not path.startswith("/vsi") and folder.is_dir():
        stem = re.sub(r"_B\d+$", "", Path(path).stem, flags=re.IGNORECASE)
        names += [str(folder / f"{stem}{ending}") for ending in ("_MTL.txt", ".IMD", ".imd")]
        names += _dimap_files(folder, {os.path.basename(p) for p in (path, *listed)})
    return [p for p in dict.fromkeys(names) if os.path.isfile(p) and os.path.getsize(p) < foreign.MOST_SIDE]


_TILE = re.compile(r"_R\d+C\d+$", re.IGNORECASE)


def _dimap_files(folder: Path, rasters: set[str]) -> list[str]:
    """The DIM_*.XML of a folder that are those of one of the rasters: by their names, IMG_ for DIM_ and without a tile,
    or as what they list. Others in the folder are of other scenes."""
    products = {_TILE.sub("", Path(r).stem)[4:].lower() for r in rasters if re.match("(IMG|DIM)_", r, re.IGNORECASE)}
    found = []
    try:
        names = sorted(folder.iterdir())
    except OSError:  # a folder that may be passed through and not be listed
        return []
    for path in names:
        if not re.match(r"DIM_.*\.XML$", path.name, re.IGNORECASE) or not path.is_file():
            continue
        if path.stem[4:].lower() in products:
            found.append(str(path))
        elif path.stat().st_size < foreign.MOST_SIDE:
            listed = re.findall(r'href="([^"]+)"', path.read_text(errors="replace"))
            found += [str(path)] if rasters & {os.path.basename(name) for name in listed} else []
    return found


def _side_tags(path: str) -> dict[str, str]:
    """KEY = "value" and <KEY>value</KEY> pairs of a side file."""
    text = foreign.read_text(path, foreign.MOST_SIDE, "replace")
    pairs = []
    for line in text.splitlines():  # no pattern over all of it: they are slow on text that is made for it
        key, _, value = line.partition("=")
        pairs.append((key.strip(), value.strip().removeprefix('"').partition('"')[0].partition(";")[0]))
    elements = text.split("<")
    for element, after in zip(elements, elements[1:], strict=False):
        key, _, value = element.partition(">")
        if after.startswith("/"):
            pairs.append((key, value))
    tags: dict[str, str] = {}
    for key, value in pairs:
        if value and _KEY.fullmatch(key):
            tags.setdefault(key, value.strip())
    return tags
