"""Scene: a PAN and its MS on a common grid, read by window with every invalid pixel marked and filled."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import and_
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from . import mean_pan, rpc, sensors
from .band_choice import by_product, chosen_places, chosen_sources, place_of, standard_names, told_names
from .files import OpenFiles, Remarks
from .geometry import Box, Offset, Phase, Window
from .grid import Grid, crs_name
from .masks import masked
from .options import OpenOptions, Scaling
from .projections import lost_epoch
from .references import plain_name
from .sensors import Sensor
from .source import FILL_REACH, Pixels, Source, check_size, filled, metadata, nodata_of, open_raster, rpcs_of
from .values import Lift, default_nodata, fits, is_written
from .warping import Aligned, aligned

_DEFAULTS = OpenOptions()

MIN_RATIO, MAX_RATIO = 1.5, 16.0
MIN_MS_PIXELS = 8
"""Smallest side of the overlap in MS pixels: below it there is nothing to fit a scene on."""

UNSAID = 0.95
"""Share of a file of the MS that is read without a warning where the other files cover less."""

_PER_BAND = ("band_names", "standard_names", "gains", "fitted_gains", "band_offsets", "numbers")
"""Fields of a scene with a value for each band."""

MOST_BANDS = 512
"""Most bands of an MS: memory grows with bands as it does with the area of tiles."""


@dataclass(frozen=True)
class TileData:
    """Pixels around a window: `pan` (rows, cols) of `pan_window`, `ms` (bands, rows, cols) of `ms_window` in MS
    pixels, float32 with invalid pixels filled; `valid` (rows, cols) of `window`."""

    window: Window
    pan: np.ndarray
    pan_window: Window
    ms: np.ndarray
    ms_window: Window
    valid: np.ndarray

    def lifted(self, lift: Lift) -> TileData:
        if not any(lift):
            return self
        return replace(self, pan=np.ldexp(self.pan, lift.pan), ms=np.ldexp(self.ms, lift.ms))


@dataclass(frozen=True)
class Scene:
    """A PAN and its MS: a value, open as long as the context of `open`. All windows are in pixels of the PAN file.

    `full`: pixels covered by both PAN and MS (and inside `own`, if set); `window`: the part to write.
    `phase`: of the MS grid on the PAN grid.
    `standard_names`: of the bands by their descriptions, else by the names of their files, else by the order in which
    the sensor's products come.
    `gains`: the bands' MTF gains at Nyquist by the sensor's table, which the indices are defined with.
    `fitted_gains`: those that the scene shows, which networks take; empty if they were not measured.
    `band_offsets`: by how many PAN pixels (rows, cols) the grid of each band lies off the phase; empty likewise.
    `dtype`, `nodata`: of the output, whose values are DN after `scale`.
    `numbers`: of the bands, 1-based over all MS files; `written`: places of those to write, None for all in order.
    `by_rpcs`: RPCs locate the pair, and nothing else does. `options`: those that it was opened with.
    `opened`: the owner of the files; `remarks`: the collector of what a user is told.
    """

    opened: OpenFiles = field(repr=False)
    remarks: Remarks = field(repr=False)
    pan: Source
    ms: tuple[Source, ...]
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
    options: OpenOptions
    scale: Scaling = Scaling()
    warped: bool = False
    band_offsets: tuple[tuple[float, float], ...] = ()
    fitted_gains: tuple[float, ...] = ()
    numbers: tuple[int, ...] = ()
    written: tuple[int, ...] | None = None
    by_rpcs: bool = False

    @property
    def warnings(self) -> list[str]:
        """What a user ought to look at, a line each."""
        return self.remarks.warnings

    @property
    def notes(self) -> list[str]:
        """What was corrected as usual, a line each."""
        return self.remarks.notes

    def on(self, window: Window) -> Scene:
        """The scene of which that window is written."""
        return replace(self, window=window)

    def part(self, window: Window | None, bbox: Box | None) -> Scene:
        """The scene of which what lies in both is written. Raises InputError where nothing does."""
        _check_has_crs(bbox, self.by_rpcs, self.pan.label)
        return self.on(_output_window(self.full, window, bbox, self.pan_grid, self.warnings))

    def shifted(self, shift: Offset) -> Scene:
        """The whole scene with its MS `shift` PAN pixels off its georeferencing: the grid moves, no pixel is resampled.
        Raises InputError where too little of PAN and MS overlaps then."""
        phase = self.phase.moved(shift)
        ms_grid = self.pan_grid.coarser(phase, self.ms_grid.whole)
        full = _full(self.pan_grid, ms_grid, phase, self.options, self.pan.label, self.ms[0].label)
        return replace(self, phase=phase, ms_grid=ms_grid, full=full, window=full)

    def with_gains(self, gains: tuple[float, ...], offsets: tuple[Offset, ...]) -> Scene:
        """The scene with the MTF gains that it shows, and the offsets of its bands."""
        return replace(self, fitted_gains=gains, band_offsets=offsets)

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
        sources = tuple(replace(s, notes=[]) for s in chosen_sources(self.ms, self.written))
        return replace(self, ms=sources, written=None, **per_band)

    def places_of(self, option: str, asked: Sequence[int | str]) -> list[int]:
        """Places (from 0) of the bands that an option's numbers or names ask for. Raises InputError for others."""
        return [place_of(option, each, self.numbers, self.band_names, self.standard_names) for each in asked]

    @property
    def called(self) -> tuple[str | None, ...]:
        """What people call the bands, and the output: by their own names, else by the standard ones."""
        return tuple(own or known for own, known in zip(self.band_names, self.standard_names, strict=True))

    @property
    def effective_gains(self) -> tuple[float, ...]:
        """MTF gains that networks fuse with: of what was measured, else the sensor's."""
        return self.fitted_gains or self.gains

    @property
    def paths(self) -> list[str]:
        return list(dict.fromkeys([*self.pan.labels, *(label for s in self.ms for label in s.labels)]))

    def files(self) -> set[str]:
        """Every file that is read: also the sources of a VRT and side files."""
        model = set() if self.options.dem is None else {plain_name(self.options.dem)}
        return model.union(*(source.files for source in (self.pan, *self.ms)))

    def check_unchanged(self) -> None:
        """Raises ReadError if a file is no longer the one that was opened."""
        self.opened.check_unchanged()

    @classmethod
    @contextmanager
    def open(
        cls,
        pan: str | os.PathLike,
        ms: Sequence[str | os.PathLike],
        options: OpenOptions = _DEFAULTS,
        *,
        labels: Mapping[str, str] | None = None,
        files: OpenFiles | None = None,
        remarks: Remarks | None = None,
    ) -> Iterator[Scene]:
        """Open and check a pair. Raises InputError, in one line, for everything that cannot be fused.

        `labels`: what paths are called in messages and reports, if not as they are. `files`: the owner of what is
        opened, its own without; `remarks`: what collects warnings.
        """
        with nullcontext(files) if files is not None else OpenFiles() as owner, ExitStack() as stack:
            remarks = remarks or Remarks()
            paths = os.fspath(pan), [os.fspath(p) for p in ms]
            pan_source, ms_sources = _sources(owner, *paths, options.nodata, labels, remarks)
            pan_grid = Grid.of(pan_source.dataset)
            remarks.warnings.extend(lost_epoch(pan_source.dataset.name))
            pan_source, ms_sources = _with_pan(pan_source, ms_sources, options.pan_from, remarks)
            choice = _chosen_bands(pan_source, ms_sources, options)
            if choice.fitted != list(range(len(choice.names))):
                ms_sources = chosen_sources(ms_sources, choice.fitted)
            own_type = _check_types([pan_source, *ms_sources])
            dtype = options.dtype or own_type
            placed, by_rpcs = _placed(pan_grid, pan_source, ms_sources, options, stack, remarks)
            _check_ratio(placed.phase, pan_source.label, ms_sources[0].label)
            ends = placed.pan, placed.ms, placed.phase
            full = _full(*ends, options, pan_source.label, _label_in(placed.ms, ms_sources[0]))
            scene = cls(
                opened=owner,
                remarks=remarks,
                pan=pan_source,
                ms=tuple(placed.sources),
                pan_grid=placed.pan,
                ms_grid=placed.ms,
                phase=placed.phase,
                full=full,
                window=_output_window(full, options.window, options.bbox, placed.pan, remarks.warnings),
                sensor=choice.sensor,
                sensor_source=choice.sensor_source,
                band_names=tuple(choice.names[i] for i in choice.fitted),
                standard_names=standard_names(choice.told, choice.fitted, choice.sensor),
                gains=choice.sensor.gains_of(choice.told, choice.fitted),
                dtype=dtype,
                nodata=_output_nodata(dtype, options, placed.sources, pan_source, remarks),
                options=options,
                scale=options.scale,
                by_rpcs=by_rpcs,
                warped=placed.warped,
                numbers=tuple(i + 1 for i in choice.fitted),
                written=None if choice.chosen == choice.fitted else tuple(choice.chosen),
            )
            owner.remember(scene.files())
            yield scene

    def read_ms(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """MS values (bands, rows, cols) of a window in MS pixels, and where all bands are valid (rows, cols)."""
        parts = [s.read(window) for s in self.ms]
        return np.concatenate([p[0] for p in parts]), np.logical_and.reduce([p[1] for p in parts])

    def ms_at(self, window: Window) -> Pixels:
        """MS pixels in a window of PAN pixels: each has the values of the MS pixel in which its centre lies."""
        rows, cols = self.phase.nearest(window)
        values, valid = self.read_ms(Window.holding(rows, cols))
        rows, cols = rows[:, None] - rows[0], cols - cols[0]
        return values[:, rows, cols], valid[rows, cols]

    def valid(self, window: Window) -> np.ndarray:
        """Where PAN and all bands of the MS are valid (rows, cols), in PAN pixels."""
        return self.ms_at(window)[1] & self.pan.read(window)[1]

    def read(self, window: Window, pan_window: Window, ms_window: Window, mirrored: bool = True) -> TileData | None:
        """A tile with the surroundings that its operators ask for; None if no pixel of it is valid.

        Beyond what is valid PAN and MS are `mirrored`, so that they fit each other there, too: of repeated pixels one
        of the MS would stand for many of the PAN. The indices are defined with repeated ones.
        """
        rows, cols = self.phase.nearest(window)
        ms = self.read_ms(ms_window)
        valid = ms[1][np.ix_(rows - ms_window.top, cols - ms_window.left)]
        if not valid.any():
            return None
        pan = self.pan.read(pan_window)
        valid &= pan[1][window.within(pan_window)]
        if not valid.any():
            return None
        seen, _ = filled(self.pan.read, pan_window, _fill_reach(pan_window, window), pan, mirrored)
        reach = _fill_reach(ms_window, Window.holding(rows, cols))
        bands, _ = filled(self.read_ms, ms_window, reach, ms, mirrored)
        return TileData(window, seen[0], pan_window, bands, ms_window, valid)


def _full(pan_grid: Grid, ms_grid: Grid, phase: Phase, options: OpenOptions, pan: str, ms: str) -> Window:
    """The pixels that a pair determines, or all of the PAN, of its own. Raises InputError where PAN and MS share too
    little."""
    own = options.own or pan_grid.whole
    common = pan_grid.overlap(phase, ms_grid) & own
    if common.is_empty:
        raise InputError(f"no overlap: {pan} covers {pan_grid.describe()}, {ms} covers {ms_grid.describe()}")
    for side, ratio in zip(common.shape, phase.ratio, strict=True):
        if side / ratio < MIN_MS_PIXELS:
            raise InputError(
                f"the overlap of {pan} and {ms} is only {side / ratio:.1f} MS pixels wide; "
                f"at least {MIN_MS_PIXELS} are needed"
            )
    full = own if options.extent == "pan" else common
    check_size(pan, *full.shape)
    return full


def _label_in(grid: Grid, source: Source) -> str:
    """A file's label, with its CRS where it is described on a grid of another one."""
    crs = source.dataset.crs
    return source.label if crs == grid.crs or not crs else f"{source.label} ({crs_name(crs)})"


def _fill_reach(around: Window, window: Window) -> int:
    """Pixels to look around for fill values. The distance covers a network's halo and the corner of the surroundings,
    so that every tile fills the pixels of `window` alike."""
    return FILL_REACH + 3 * max(abs(a - w) for a, w in zip(around, window, strict=True)) // 2


def _unique(sources: Sequence[Source]) -> list[Source]:
    return list({s.label: s for s in sources}.values())


def are_tiles(one: Grid, other: Grid) -> bool:
    """Whether two grids are parts of one, whole pixels apart, that overlap by less than half of the smaller one."""
    place, smaller = one.place_of(other), min(one.whole.area, other.whole.area)
    return place is not None and (place & one.whole).area < smaller / 2


def place_on(grid: Grid, source: Source) -> Window | None:
    """The pixels of an MS grid, beyond its ends too, that a file with more of its bands lies on; None for a file on
    another lattice, a tile beside it, or one of the same size elsewhere: it may be misplaced, and is measured apart."""
    other = Grid.of(source.dataset).called_as(grid)
    if other == grid:
        return grid.whole
    without = source.dataset.transform.is_identity or rpcs_of(source.dataset) is not None
    alike = (other.height, other.width) == (grid.height, grid.width)
    elsewhere = without or alike or are_tiles(other, grid)
    return None if elsewhere else grid.place_of(other)


def _on_one_grid(pan_grid: Grid, ms: list[Source], remarks: Remarks) -> tuple[Grid, list[Source]]:
    """The grid of the common part of MS files on one lattice, and the files as sources of that part. Raises InputError
    for files on others."""
    grid = Grid.of(ms[0].dataset).called_as(pan_grid)
    places = []
    for source in ms:
        place = place_on(grid, source)
        if place is None:
            other = Grid.of(source.dataset).called_as(grid)
            raise InputError(
                f"{source.label} lies on another grid than {ms[0].label}: "
                + ("they are tiles of one raster: join them first (gdalbuildvrt ms.vrt TILES)"
                   if are_tiles(other, grid) else "all MS files need the same CRS, pixel size and lattice")
            )  # fmt: skip
        places.append(place)
    common = reduce(and_, places)
    if common.is_empty:
        raise InputError(f"no overlap: {', '.join(s.label for s in _unique(ms))} have no part in common")
    larger = dict.fromkeys(os.path.basename(s.label) for s, place in zip(ms, places, strict=True) if place != common)
    if larger:
        least = min(common.area / place.area for place in places)
        (remarks.notes if least > UNSAID else remarks.warnings).append(
            f"the MS files cover different parts: {' '.join(larger)} is read where all of them lie"
        )
    parts = [None if place == common else common.moved(-place.top, -place.left) for place in places]
    return grid.window(common), [replace(s, part=part) for s, part in zip(ms, parts, strict=True)]


def _check_named_once(pan: str, ms: Sequence[str]) -> None:
    """Raises InputError for a file that is named twice."""
    seen: dict[object, str] = {}
    for role, path in (("PAN", pan), *(("MS", p) for p in ms)):
        place = _place(path)
        if seen.setdefault(place, role) != role:
            raise InputError(f"{path} is named as PAN and as MS: it can be one of them only")
        if [_place(p) for p in ms].count(place) > 1:
            raise InputError(f"{path} is named twice among the MS files; choose and order bands with --bidx")


def _place(path: str) -> tuple[int, int] | str:
    """What tells a file from others, whatever it is called."""
    try:
        known = os.stat(plain_name(path))
        return (known.st_dev, known.st_ino) if known.st_ino else os.path.realpath(plain_name(path))
    except OSError:
        return os.path.realpath(plain_name(path))
    except ValueError:  # no path at all
        return path


def _sources(
    owner: OpenFiles, pan: str, ms: list[str], nodata: float | None, labels: Mapping[str, str] | None, remarks: Remarks
) -> tuple[Source, list[Source]]:
    """All bands of the PAN's file and of each of the MS's that is no mask."""
    _check_named_once(pan, ms)
    sources = []
    for path, dataset in [(path, owner.open(path)) for path in (pan, *ms)]:
        label = (labels or {}).get(path, path)
        _check_placed_as_tiles(dataset, label)
        sources.append(Source.of(dataset, label, nodata, remarks.warnings))
    return masked(sources[0], sources[1:], remarks.notes)


def _check_placed_as_tiles(dataset, label: str) -> None:
    """Raises InputError for a list of tiles (.TIL) that GDAL places elsewhere than its tiles: by an .IMD beside it, or
    nowhere without a map projection there."""
    if dataset.driver != "TIL":
        return
    for path in sorted(f for f in dataset.files if f.lower().endswith((".tif", ".tiff", ".ntf", ".jp2"))):
        with open_raster(path, rpcs=True) as tile:
            if Grid.of(dataset).place_of(Grid.of(tile)) is None:
                raise InputError(
                    f"{label} is not placed as its tile {os.path.basename(path)}: fuse its folder with `pansharpen "
                    "batch`, which takes the tiles as they lie, or make one file of them (gdalbuildvrt)"
                )


class _Choice(NamedTuple):
    """Bands of all MS files by place (from 0): the `chosen` ones are written, the `fitted` ones read. `names` are their
    descriptions, `told` what else tells their names."""

    names: tuple[str | None, ...]
    told: Sequence[str | None]
    sensor: Sensor
    sensor_source: str
    chosen: list[int]
    fitted: list[int]


def _chosen_bands(pan: Source, ms: list[Source], options: OpenOptions) -> _Choice:
    names = tuple(s.dataset.descriptions[b - 1] for s in ms for b in s.bands)
    told = told_names(ms, names)
    sensor, where = _sensor(options.sensor, ms, pan, told)
    told = by_product(ms, told, sensor)
    chosen = chosen_places(options.bidx, told, sensor)
    fitted = chosen if options.fit_bands == "bidx" else list(range(len(names)))
    if len(chosen) > max(MOST_BANDS, len(names)):
        raise InputError(f"--bidx names {len(chosen)} bands, at most {MOST_BANDS} are written")
    if len(fitted) > MOST_BANDS:
        raise InputError(
            f"the MS has {len(fitted)} bands, at most {MOST_BANDS} are fused: choose with --bidx and --fit-bands bidx"
        )
    return _Choice(names, told, sensor, where, chosen, fitted)


def _placed(
    pan_grid: Grid, pan: Source, ms: list[Source], options: OpenOptions, stack: ExitStack, remarks: Remarks
) -> tuple[Aligned, bool]:
    """Where PAN and MS lie, and whether RPCs alone tell that."""
    _check_degrees(pan_grid, pan, ms)
    ms_grid, ms = _on_one_grid(pan_grid, ms, remarks)
    if rpc.locates([pan, *ms]):
        _check_has_crs(options.bbox, True, pan.label)
        terrain = rpc.terrain_of(pan, options.height, options.dem, remarks.warnings)
        return Aligned(pan_grid, *rpc.placed(pan, ms, terrain, remarks.notes)), True
    if options.height is not None or options.dem is not None:
        asked = "--dem" if options.height is None else "--height"
        remarks.warnings.append(f"{asked} has no effect: {pan.label} is placed by its grid, not by RPCs")
    return aligned(pan_grid, ms_grid, pan, ms, stack, remarks.warnings), False


def _with_pan(
    pan: Source, others: list[Source], asked: Sequence[int | str] | None, remarks: Remarks
) -> tuple[Source, list[Source]]:
    """The PAN, of bands that `asked` names on its grid or of all, and the sources of the MS. Raises InputError for
    several bands that are no finer than the MS."""
    parts, ms = mean_pan.divided(pan, others)
    count = sum(len(p.bands) for p in parts)
    if asked is None and len(pan.bands) > 1 and not all(mean_pan.is_finer(pan, s) for s in ms):
        hint = "; are PAN and MS swapped?" if all(s.dataset.count == 1 for s in ms) or len(ms) == 1 else ""
        raise InputError(f"{pan.label} has {len(pan.bands)} bands, a PAN has one{hint}")
    if asked is None and count == 1:
        return pan, ms
    names = tuple(p.dataset.descriptions[b - 1] for p in parts for b in p.bands)
    told = told_names(parts, names)
    standard = tuple(sensors.band_name(name) for name in told)
    numbers = range(1, count + 1)
    owner = f"the PAN ({' '.join(dict.fromkeys(os.path.basename(p.label) for p in parts))})"
    places = (
        None if asked is None else [place_of("--pan-from", each, numbers, names, standard, owner) for each in asked]
    )
    made = mean_pan.pan_of(parts, places)
    chosen = range(count) if places is None else places
    listed = ", ".join(names[i] or told[i] or f"band {i + 1}" for i in chosen)
    if isinstance(made, mean_pan.Mean):
        unasked = asked is None and len(pan.bands) > 1
        (remarks.warnings if unasked else remarks.notes).append(
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


def _check_degrees(pan_grid: Grid, pan: Source, ms: Sequence[Source]) -> None:
    """Raises InputError for one of PAN and MS in degrees, with a CRS in metres: pixels of another order of size; and
    for one in metres with a CRS in degrees."""
    for label, grid in [(pan.label, pan_grid), *((each.label, Grid.of(each.dataset)) for each in ms)]:
        if grid.is_beyond_degrees:
            raise InputError(
                f"{label} has coordinates of metres and the CRS {grid.crs}, which counts in degrees: give it the CRS "
                f"of its metres (gdal_edit.py -a_srs EPSG:CODE {os.path.basename(label)})"
            )
    for other in ms:
        grids = {pan.label: pan_grid, other.label: Grid.of(other.dataset)}
        (label, grid), (_, larger) = sorted(grids.items(), key=lambda each: each[1].pixel)
        if grid.is_like_degrees and larger.pixel > 100 * MAX_RATIO * grid.pixel:
            raise InputError(
                f"{label} has coordinates of degrees and the CRS {grid.crs}, which has none: give it the CRS of its "
                f"degrees (gdal_edit.py -a_srs EPSG:4326 {os.path.basename(label)})"
            )


def _check_ratio(phase: Phase, pan: str, ms: str) -> None:
    low, high = min(phase.ratio), max(phase.ratio)
    if high < 1 / MIN_RATIO:
        raise InputError(f"{pan} has larger pixels than {ms} (ratio {low:.3g}): are PAN and MS swapped?")
    if low < MIN_RATIO or high > MAX_RATIO:
        raise InputError(
            f"MS pixels of {ms} are {phase.ratio[0]:.4g} x {phase.ratio[1]:.4g} PAN pixels of {pan}; "
            f"the ratio must lie between {MIN_RATIO:g} and {MAX_RATIO:g}"
        )


def _check_has_crs(bbox: Box | None, by_rpcs: bool, pan: str) -> None:
    if bbox is not None and by_rpcs:
        raise InputError(f"{pan} is located by RPCs: it has no CRS for --bbox; use --window")


def _output_window(full: Window, window: Window | None, bbox, grid: Grid, notes: list[str]) -> Window:
    chosen = full
    for name, part in (("--window", window), ("--bbox", grid.pixels_of(bbox) if bbox else None)):
        if part is None:
            continue
        part = Window(*part)
        if part.is_empty and not (full & Window.at(*part.corner, (1, 1))).is_empty:
            raise InputError("--bbox holds the centre of no pixel: make it larger")
        chosen &= part
        if chosen.is_empty:
            raise InputError(f"{name} does not touch the scene, which is {full} of the PAN, "
                             f"{grid.window(full).describe()}")  # fmt: skip
        within = full & part
        rounded = 1 if name == "--bbox" else 0
        if max(abs(a - b) for a, b in zip(within, part, strict=True)) > rounded:
            notes.append(
                f"{name} reaches beyond the scene: of its {part.shape[1]} x {part.shape[0]} pixels "
                f"{within.shape[1]} x {within.shape[0]} are fused"
            )
    return chosen


def _output_nodata(dtype: str, options: OpenOptions, ms: list[Source], pan: Source, remarks: Remarks) -> float:
    """The given value, else the MS's, else the PAN's, else the dtype's own: 0, the minimum of signed types, NaN."""
    kind, asked = np.dtype(dtype), options.nodata
    if asked is not None and not is_written(kind, asked) and not options.measured:
        raise InputError(f"--nodata {asked:g} does not fit the output type {dtype}")
    known = [v for v in (asked, *(nodata_of(s.dataset) for s in ms), nodata_of(pan.dataset)) if v is not None]
    chosen = next((float(value) for value in known if is_written(kind, value)), default_nodata(kind))
    for value in () if options.measured else known:
        if is_written(kind, value):
            break
        reason = "cannot be written as" if fits(kind, value) else "does not fit"
        line = f"the nodata value {value:g} {reason} {dtype}; {chosen:.17g} stands for it in the output"
        told = remarks.notes if np.isnan(value) else remarks.warnings  # what NaN becomes in whole numbers is usual
        if line not in told:
            told.append(line)
    return chosen
