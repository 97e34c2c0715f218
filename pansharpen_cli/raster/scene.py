"""Scene: a PAN and its MS on a common grid, read by window with every invalid pixel marked and filled."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.enums import ColorInterp, Resampling
from rasterio.vrt import WarpedVRT

from ..errors import InputError, ReadError, reason_of
from . import composed, rpc, sensors
from .geometry import Phase, Window
from .grid import Grid
from .messages import GDAL_ERRORS
from .sensors import Sensor
from .source import (
    FILL_REACH,
    Source,
    bounded_cache,
    check_size,
    data_bands,
    default_nodata,
    filled,
    metadata,
    open_raster,
)

MIN_RATIO, MAX_RATIO = 1.5, 16.0
MIN_MS_PIXELS = 8
"""Smallest side of the overlap in MS pixels: below it there is nothing to fit a scene on."""

LOST = 0.05
"""Share of the MS's pixels on the PAN that may be lost by warping without a word: the rim and a place or two."""

_PER_BAND = ("band_names", "standard_names", "gains", "fitted_gains", "band_offsets", "numbers")
"""Fields of a scene with a value for each band."""

MOST_BANDS = 512
"""Of the MS: memory grows with bands as it does with the area of tiles."""


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
    `standard_names`: of the bands by their descriptions, else by the names of their files, else by the order in which
    the sensor's products come;
    `gains`: the bands' MTF gains at Nyquist by the sensor's table, which the indices are defined with;
    `fitted_gains`: those that the scene shows, which networks take, and `band_offsets`: by how many PAN pixels (rows,
    cols) the grid of each band lies off the phase; both empty if they were not measured.
    `numbers`: of the bands, 1-based over all MS files; `written`: places of those to write, None for all in order.
    `warnings`: what a user ought to look at; `notes`: what was corrected as usual. A line each.
    `by_rpcs`: RPCs locate the pair, and nothing else does.
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
    numbers: tuple[int, ...] = ()
    written: tuple[int, ...] | None = None
    notes: list[str] = field(default_factory=list)
    by_rpcs: bool = False
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
        part = self.pan_grid.window(self.window)
        return replace(part, transform=self.pan_grid.transform) if self.by_rpcs else part

    @property
    def bands(self) -> int:
        return sum(len(s.bands) for s in self.ms)

    def as_written(self) -> Scene:
        """The scene of the bands that are written: what the output, its figures and its report are about."""
        if self.written is None:
            return self

        per_band: dict[str, Any] = {}
        for name in _PER_BAND:
            values = getattr(self, name)
            per_band[name] = tuple(values[i] for i in self.written) if values else ()
        sources = [replace(s, notes=[]) for s in _choose(self.ms, self.written)]
        return replace(self, ms=sources, written=None, **per_band)

    def places_of(self, option: str, asked: Sequence[int | str]) -> list[int]:
        """Places (from 0) of the bands that an option's numbers or names ask for. Raises InputError for others."""
        return [_place(option, each, self.numbers, self.band_names, self.standard_names) for each in asked]

    @property
    def effective_gains(self) -> tuple[float, ...]:
        """MTF gains that networks fuse with: of what was measured, else the sensor's."""
        return self.fitted_gains or self.gains

    @property
    def paths(self) -> list[str]:
        return [*self.pan.labels, *dict.fromkeys(s.label for s in self.ms)]

    def files(self) -> set[str]:
        """Every file that is read: also the sources of a VRT and side files."""
        return {f for source in (self.pan, *self.ms) for f in source.files}

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
        bidx: Sequence[int | str] | None = None,
        fit_bands: str = "all",
        nodata: float | None = None,
        extent: Literal["intersection", "pan"] = "intersection",
        window: tuple[int, int, int, int] | None = None,
        bbox: tuple[float, float, float, float] | None = None,
        dtype: str | None = None,
        shift: tuple[float, float] = (0.0, 0.0),
        pan_from: Sequence[int | str] | None = None,
        height: float | None = None,
        dem: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Scene:
        """Open and check a pair. Raises InputError, in one line, for everything that cannot be fused.

        `bidx`: bands to write, by 1-based number over all MS files in order or by name. `fit_bands`: "bidx" leaves the
        others out of the scene altogether. `window`: rows and columns of the PAN file. `bbox`: left,
        bottom, right, top in the PAN's CRS. `nodata`: replaces the files' own nodata values.
        `shift`: rows and columns in PAN pixels by which the MS lies off its georeferencing: its grid moves, no pixel is
        resampled. `pan_from`: bands whose mean is the PAN, by number over the files on the PAN's grid or by name, by
        default all. `height` in metres, or a raster `dem` of heights, by default the height that the PAN's RPCs are
        made for: where these alone locate the pair. `labels`: what paths are called in messages and reports, if not as
        they are.
        """
        with ExitStack() as stack:
            notes: list[str] = []
            routine: list[str] = []
            _check_named_once(os.fspath(pan), [os.fspath(p) for p in ms])
            stack.enter_context(bounded_cache())
            pan_ds = stack.enter_context(open_raster(os.fspath(pan), rpcs=True))
            ms_ds = [stack.enter_context(open_raster(os.fspath(p), rpcs=True)) for p in ms]
            pan_label, *ms_labels = ((labels or {}).get(os.fspath(p), os.fspath(p)) for p in (pan, *ms))
            pan_source, ms_sources = _sources(pan_ds, ms_ds, pan_label, ms_labels, nodata, notes)
            pan_source, ms_sources = _with_pan(pan_source, ms_sources, pan_from, notes, routine)
            all_names = tuple(s.dataset.descriptions[b - 1] for s in ms_sources for b in s.bands)
            told = _told_names(ms_sources, all_names)
            found, where = _sensor(sensor, ms_sources, pan_source, told)
            chosen = _chosen(bidx, told, found)
            fitted = chosen if fit_bands == "bidx" else list(range(len(all_names)))
            if len(fitted) > MOST_BANDS:
                raise InputError(
                    f"the MS has {len(fitted)} bands, at most {MOST_BANDS} are fused: "
                    "choose with --bidx and --fit-bands bidx"
                )
            if fitted != list(range(len(all_names))):
                ms_sources = _choose(ms_sources, fitted)
            ms_dtype = _check_types([pan_source, *ms_sources])
            pan_grid = Grid.of(pan_ds)
            ms_grid = Grid.of(ms_sources[0].dataset).called_as(pan_grid)
            for source in ms_sources[1:]:
                if (other := Grid.of(source.dataset).called_as(ms_grid)) != ms_grid:
                    raise InputError(
                        f"{source.label} lies on another grid than {ms_sources[0].label}: "
                        + ("they are tiles of one raster: join them first (gdalbuildvrt ms.vrt TILES)"
                           if are_tiles(other, ms_grid) else "all MS files need the same size, CRS and origin")
                    )  # fmt: skip
            if by_rpcs := rpc.locates([pan_source, *ms_sources]):
                if bbox is not None:
                    raise InputError(f"{pan_source.label} is located by RPCs: it has no CRS for --bbox; use --window")
                pair = rpc.Located(pan_source, ms_sources, rpc.terrain_of(pan_ds, height, dem))
                ms_grid, phase, ms_sources, warped = pair.settle()
                routine += pair.notes
            else:
                if height is not None or dem is not None:
                    routine.append("--height and --dem are for pairs that RPCs locate: this one has grids")
                pan_grid, ms_grid, phase, warped = _align(pan_grid, ms_grid, pan_source, ms_sources, stack, notes)
            if any(shift):
                phase = phase.moved(shift)
                ms_grid = pan_grid.coarser(phase, ms_grid.whole)
            _check_ratio(phase, pan_source.label, ms_sources[0].label)
            full = pan_grid.overlap(phase, ms_grid)
            if full.is_empty:
                raise InputError(
                    f"no overlap: {pan_source.label} covers {pan_grid.describe()}, "
                    f"{ms_sources[0].label} covers {ms_grid.describe()}"
                )
            for side, ratio in zip(full.shape, phase.ratio, strict=True):
                if side / ratio < MIN_MS_PIXELS:
                    raise InputError(
                        f"the overlap of {pan_source.label} and {ms_sources[0].label} is only {side / ratio:.1f} MS "
                        f"pixels wide; at least {MIN_MS_PIXELS} are needed"
                    )
            if extent == "pan":
                full = pan_grid.whole
            check_size(pan_source.label, *full.shape)
            scene = cls(
                pan=pan_source,
                ms=ms_sources,
                pan_grid=pan_grid,
                ms_grid=ms_grid,
                phase=phase,
                full=full,
                window=_output_window(full, Window(*window) if window else None, bbox, pan_grid, notes),
                sensor=found,
                sensor_source=where,
                band_names=tuple(all_names[i] for i in fitted),
                standard_names=_standard_names(told, fitted, found),
                gains=found.gains_of(told, fitted),
                dtype=dtype or ms_dtype,
                nodata=_output_nodata(dtype or ms_dtype, nodata, ms_sources, pan_source, notes),
                warnings=notes,
                notes=routine,
                by_rpcs=by_rpcs,
                warped=warped,
                numbers=tuple(i + 1 for i in fitted),
                written=None if chosen == fitted else tuple(chosen),
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
        rows, cols = self.phase.nearest(window)
        inner = Window(int(rows[0]), int(rows[-1]) + 1, int(cols[0]), int(cols[-1]) + 1)
        ms = self.read_ms(ms_window)
        valid = ms[1][np.ix_(rows - ms_window.top, cols - ms_window.left)]
        if not valid.any():
            return None
        pan = self.pan.read(pan_window)
        valid &= pan[1][window.within(pan_window)]
        if not valid.any():
            return None
        seen, _ = filled(self.pan.read, pan_window, _fill_reach(pan_window, window), pan)
        bands, _ = filled(self.read_ms, ms_window, _fill_reach(ms_window, inner), ms)
        return TileData(window, seen[0], pan_window, bands, ms_window, valid)


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


def _unique(sources: Sequence[Source]) -> list[Source]:
    return list({s.label: s for s in sources}.values())


def are_tiles(one: Grid, other: Grid) -> bool:
    """Whether two grids are parts of one, whole pixels apart, that overlap by less than half of the smaller one."""
    phase = other.phase_of(one) if one.crs == other.crs else None
    if phase is None or phase.ratio != (1.0, 1.0) or any(abs(o - round(o)) > 0.01 for o in phase.offset):
        return False
    return other.overlap(phase, one).area < min(one.height * one.width, other.height * other.width) / 2


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
    sources = []
    for ds, path in zip(ms_ds, ms, strict=True):
        bands, alpha = data_bands(ds, path, notes)
        sources.append(Source(ds, bands, path, nodata, alpha, notes))
    return Source(pan_ds, pan_bands, pan, nodata, pan_alpha, notes), sources


def _with_pan(
    pan: Source, others: list[Source], asked: Sequence[int | str] | None, notes: list[str], routine: list[str]
) -> tuple[Source, list[Source]]:
    """The PAN, of bands that `asked` names on its grid or of all, and the sources of the MS.

    Raises InputError for several bands that are no finer than the MS.
    """
    parts, ms = composed.divided(pan, others)
    count = sum(len(p.bands) for p in parts)
    if asked is None and len(pan.bands) > 1 and not all(composed.is_finer(pan, s) for s in ms):
        hint = "; are PAN and MS swapped?" if all(s.dataset.count == 1 for s in ms) or len(ms) == 1 else ""
        raise InputError(f"{pan.label} has {len(pan.bands)} bands, a PAN has one{hint}")
    if asked is None and count == 1:
        return pan, ms
    names = tuple(p.dataset.descriptions[b - 1] for p in parts for b in p.bands)
    told = _told_names(parts, names)
    standard = tuple(sensors.band_name(name) for name in told)
    numbers = range(1, count + 1)
    places = None if asked is None else [_place("--pan-from", each, numbers, names, standard) for each in asked]
    made = composed.pan_of(parts, places)
    chosen = range(count) if places is None else places
    listed = ", ".join(names[i] or told[i] or f"band {i + 1}" for i in chosen)
    if isinstance(made, composed.Mean):
        unasked = asked is None and len(pan.bands) > 1
        (notes if unasked else routine).append(
            f"PAN is the mean of {listed} of {' '.join(map(os.path.basename, made.labels))}"
            + (" (--pan-from chooses its bands)" if asked is None else "")
        )
    return made, ms


def _sensor(name: str, ms: Sequence[Source], pan: Source, names: Sequence[str | None]) -> tuple[Sensor, str]:
    """The sensor of that name, or the one that the files give away, and where it was found."""
    if name != "auto":
        return sensors.named(name), "--sensor"
    paths = [s.label for s in (*_unique(ms), pan)]
    return sensors.recognise([d for s in (*_unique(ms), pan) for d in metadata(s)], names, paths)


def _standard_names(names: Sequence[str | None], places: Sequence[int], sensor: Sensor) -> tuple[str | None, ...]:
    """Of the bands at these places: by their names, else by the order in which the sensor's products come."""
    standard = tuple(sensors.band_name(names[i]) for i in places)
    return standard if any(standard) else sensor.usual_names(len(names), places) or standard


def _chosen(bidx: Sequence[int | str] | None, names: Sequence[str | None], sensor: Sensor) -> list[int]:
    """Places (from 0) among the bands of all MS files in order: all, or those that `bidx` asks for."""
    every = range(len(names))
    if not bidx:
        return list(every)
    standard = _standard_names(names, every, sensor)
    return [_place("--bidx", each, [i + 1 for i in every], names, standard) for each in bidx]


def _place(
    option: str,
    asked: int | str,
    numbers: Sequence[int],
    names: Sequence[str | None],
    standard: Sequence[str | None],
) -> int:
    """Place (from 0) of a band by its number, its description or its standard name. Raises InputError for others."""
    if isinstance(asked, int):
        if asked in numbers:
            return numbers.index(asked)
        if list(numbers) == list(range(1, len(numbers) + 1)):
            raise InputError(f"{option} {asked} is out of range: the MS has bands 1 to {len(numbers)}")
        raise InputError(f"{option} {asked}: the band is not one of those of --bidx ({', '.join(map(str, numbers))})")
    word, meant = asked.strip().casefold(), sensors.band_name(asked)
    found = [i for i, name in enumerate(names) if name and name.strip().casefold() == word]
    found = found or [i for i, name in enumerate(standard) if meant and name == meant]
    if len({numbers[i] for i in found}) == 1:
        return found[0]
    if found:
        raise InputError(f"{option} '{asked}' names bands {', '.join(str(numbers[i]) for i in found)}: give the number")
    known = [name or other for name, other in zip(names, standard, strict=True)]
    listed = ", ".join(name or f"{number} (no name)" for name, number in zip(known, numbers, strict=True))
    if not any(known):
        raise InputError(
            f"{option} '{asked}': nothing names the bands of the MS; give numbers from {min(numbers)} to {max(numbers)}"
        )
    raise InputError(f"{option} '{asked}' is no band of the MS; it has {listed}")


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


def _told_names(sources: Sequence[Source], names: Sequence[str | None]) -> Sequence[str | None]:
    """Names of the bands by their descriptions, or by the names of their files where no description tells one."""
    if any(map(sensors.band_name, names)):
        return names
    return sensors.bands_by_files([(s.label, len(s.bands)) for s in sources]) or names


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
    except (*GDAL_ERRORS, ValueError, OverflowError) as error:
        text = reason_of(error)[:200]
        raise InputError(f"{ms_sources[0].label} {why} {pan_source.label} and cannot be warped: {text}") from error


def _warped(pan: Grid, ms: Grid, ms_sources: list[Source], stack: ExitStack) -> tuple[Grid, Phase]:
    """Put one WarpedVRT per MS file in the place of the datasets; their grid and its phase."""
    target = _warp_target(pan, ms)
    vrts: dict[str, Any] = {}
    for source in ms_sources:
        if source.label not in vrts:
            own = source.nodata if source.nodata is not None else _one_nodata(source)
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


def _one_nodata(source: Source) -> float | None:
    """The nodata value of a file's bands. Raises InputError if they have several: GDAL's warper knows one."""
    every = source.dataset.nodatavals
    told = {repr(every[band - 1]): every[band - 1] for band in range(1, len(every) + 1) if band not in source.alpha}
    if len(told) > 1:
        raise InputError(
            f"{source.label} has to be warped and its bands have different nodata values ({', '.join(told)}): give "
            "them one first (gdalwarp -dstnodata)"
        )
    return next(iter(told.values()))


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

    rows, cols = ((np.arange(8) + 0.5) / 8 * (last - first) + first for first, last in pan.overlap(phase, target).spans)
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
    return Window.at(int(row), int(col), (1, 1)).widened(reach)


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


def _output_window(full: Window, window: Window | None, bbox, grid: Grid, notes: list[str]) -> Window:
    chosen = full
    for name, part in (("--window", window), ("--bbox", grid.pixels_of(bbox) if bbox else None)):
        if part is None:
            continue
        chosen &= part
        if chosen.is_empty:
            raise InputError(f"{name} does not touch the scene, which is {full} of the PAN, "
                             f"{grid.window(full).describe()}")  # fmt: skip
        within = full & part
        if max(abs(a - b) for a, b in zip(within, part, strict=True)) > 1:  # --bbox is rounded outwards
            notes.append(
                f"{name} reaches beyond the scene: of its {part.shape[1]} x {part.shape[0]} pixels "
                f"{within.shape[1]} x {within.shape[0]} are fused"
            )
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


def _fits(kind: np.dtype, value: float) -> bool:
    if kind.kind == "f":
        return True
    limits = np.iinfo(kind)
    return bool(limits.min <= value <= limits.max and float(value).is_integer())
