"""Scores rasters tile by tile, whoever made them: at full resolution, against a reference, and by Wald's protocol."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import physics
from ..adapt.sampling import read_ahead
from ..device import threads
from ..errors import InputError
from ..physics import Reach
from ..progress import Progress, quiet
from ..raster.geometry import Phase, Window
from ..raster.grid import Grid
from ..raster.opening import Scaling
from ..raster.plain import raster_writer
from ..raster.scene import MIN_MS_PIXELS, Scene, TileData
from ..raster.sensors import band_name
from ..raster.source import Reader, Source, check_size, data_bands, filled, open_raster, rpcs_of
from ..raster.tags import scale_of
from ..raster.tiles import plan_tiles
from . import metrics
from .fidelity import FIGURES as FIDELITY
from .fidelity import KERNEL_GAINS, Fidelity

SCORED_TILE = 512
"""Side of the tiles that are scored together, in pixels: whole blocks of the indices."""

SAMPLED_TILE = 256
"""The same of a sample: the smaller, the better spread, and the more of what is read is margin."""

SAMPLED_PIXELS = 1 << 21
"""PAN pixels that a sample scores: so many tell a scene's figures well enough (docs/lab/sampling.md)."""

MARGIN = physics.MTF_REACH + 1
"""PAN pixels around a tile that are read for the MTF filter."""

SWAPPED = 0.25
"""Bands count as swapped if another order leaves less than this share of the squared reprojection error."""


@dataclass(frozen=True)
class Score:
    """Figures by name, None where one is undefined; `notes` say why.

    `maps`: figures per 32 x 32 block of `window`, NaN where not measured; `sampled`: they are those of a sample of it.
    """

    figures: dict
    maps: dict[str, np.ndarray]
    window: Window
    notes: list[str]
    sampled: bool = False

    @property
    def blocks_in_all(self) -> int:
        """Whole 32 x 32 blocks of the window, valid or not."""
        rows, cols = self.window.shape
        return rows // metrics.INDEX_BLOCK * (cols // metrics.INDEX_BLOCK)


# Full resolution


def full_resolution(
    scene: Scene,
    read: Reader,
    window: Window | None = None,
    progress: Progress = quiet,
    sampling: Sampling | None = None,
) -> Score:
    """All full-resolution figures of a fused image over a window of the scene.

    The indices are the reference toolbox's with its 32 x 32 blocks from the window's corner, the MS expanded at the
    scene's true phase; blocks with an invalid pixel are left out. `fidelity` and what it is made of are those of
    `Fidelity`. `reprojection` compares the image, blurred with the MS's MTF and sampled at the exact phase, with the
    MS, where the whole kernel lies on valid pixels, in DN per band. With `sampling` they are those of a sample where
    the window is larger.
    Raises InputError if no block is valid.
    """
    window = window or scene.window
    tiles, count = tiles_to_score(window, sampling)
    pieces, done = _Pieces(scene, read, window), 0
    with threads(1), ThreadPoolExecutor(1, "score", torch.set_num_threads, (1,)) as reader:
        for core, piece in read_ahead(reader, pieces.load, tiles):
            if done == count:
                break
            progress("scoring", done, count)
            if piece is not None:
                pieces.add(core, piece)
            done += piece is not None or count == len(tiles)
    progress("scoring", count, count)
    return pieces.score(sampled=count < len(tiles))


@dataclass(frozen=True)
class Sampling:
    """Scores whole tiles that are spread over the scene, up to `pixels` PAN pixels of it, in an order of `seed`."""

    seed: int = 0
    pixels: int = SAMPLED_PIXELS


def tiles_to_score(window: Window, sampling: Sampling | None) -> tuple[list[Window], int]:
    """Windows of whole blocks in the order in which to score them, and how many of them that have valid pixels.

    The sample takes a tile at random from each cell of a grid over the window, then a second one from each, and so on:
    where tiles are invalid there are others.
    """
    if sampling is None or window.area <= sampling.pixels:
        tiles = [t.core for t in plan_tiles(window, SCORED_TILE)]
        return tiles, len(tiles)
    tiles = [t.core for t in plan_tiles(window, SAMPLED_TILE)]
    rows, cols = (-(-side // SAMPLED_TILE) for side in window.shape)
    count = min(len(tiles), max(1, sampling.pixels // SAMPLED_TILE**2))
    down = min(rows, max(1, round((count * rows / cols) ** 0.5)))
    across = min(cols, max(1, count // down))
    drawn: dict[tuple[int, int], int] = {}
    ranks = []
    for place, i in enumerate(np.random.default_rng(sampling.seed).permutation(len(tiles))):
        row, col = divmod(int(i), cols)
        cell = row * down // rows, col * across // cols
        drawn[cell] = drawn.get(cell, 0) + 1
        ranks.append((drawn[cell], place, tiles[i]))
    return [tile for _, _, tile in sorted(ranks)], count


@dataclass(frozen=True)
class _LowPiece:
    """Pixels of the MS grid: the image and PAN, the last band, through the kernels of fidelity and, last, the MS's MTF
    (bands + 1, kernels + 1, rows, cols); the MS (bands, rows, cols); and where they are valid."""

    degraded: Tensor
    ms: Tensor
    valid: Tensor


@dataclass(frozen=True)
class _Piece:
    """A tile with what its figures are made of; `images` as `FullResolution` takes them, `core` are its own pixels."""

    images: tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
    valid: Tensor
    core: metrics.Core
    low: _LowPiece | None
    extremes: tuple[np.ndarray, np.ndarray]


class _Pieces:
    """Adds up all full-resolution figures of a fused image tile by tile: `load` reads and filters, `add` measures."""

    def __init__(self, scene: Scene, read: Reader, window: Window) -> None:
        self.scene, self.read, self.window = scene, read, window
        self.phase, self.reach, self.ratio = scene.phase, Reach(scene.phase), scene.phase.mean_ratio
        self.indices = metrics.FullResolution(window.shape, scale=_index_scale(scene))
        self.reprojection, self.fidelity = metrics.Reprojection(), Fidelity(scene.bands, self.ratio)
        self.gains = (*((gain,) for gain in KERNEL_GAINS), (*scene.gains, scene.gains[0]))
        self.crossed = torch.zeros(scene.bands, scene.bands, dtype=torch.float64)
        self.low, self.high = np.full(scene.bands, np.inf), np.full(scene.bands, -np.inf)

    def load(self, core: Window) -> _Piece | None:
        """A tile; None where nothing is valid."""
        wide = core.widened(MARGIN)
        around = wide & self.window
        values, seen = filled(self.read, wide)
        inside = seen[around.within(wide)]
        data = self.scene.read(around, *self.reach.windows(around)) if inside.any() else None
        if data is None or not (data.valid & inside).any():
            return None
        valid, fused, pan = data.valid & inside, torch.from_numpy(values), torch.from_numpy(data.pan)[None]
        rim = MARGIN - physics.MTF_REACH
        blurred = metrics.mtf_filter(fused[:, rim:-rim, rim:-rim], self.scene.gains, self.ratio, "valid")
        expanded = self._expanded(core, data)
        own_fused, own_pan = fused[:, *around.within(wide)], pan[:, *around.within(data.pan_window)]
        images = own_fused, blurred, expanded[:-1], own_pan, expanded[-1:]
        centred = self.phase.centred(core)
        low = None if centred.is_empty else self._degraded(centred, wide, data, fused, valid)
        extremes = data.ms.min((1, 2)), data.ms.max((1, 2))
        return _Piece(images, torch.from_numpy(valid), core.within(around), low, extremes)

    def _expanded(self, core: Window, data: TileData) -> Tensor:
        """The MS, and PAN reduced to its grid, up-sampled to the tile: float32, what is constant stays constant."""
        pan, ms = torch.from_numpy(data.pan)[None], torch.from_numpy(data.ms)
        level = torch.cat([ms[:, :1, :1], pan[:, :1, :1]])
        reduced = physics.cubic_reducer(self.phase, data.ms_window, data.pan_window).to("cpu")(pan - level[-1])
        up = physics.upsampler(self.phase, core, data.ms_window).to("cpu")
        return up(torch.cat([ms - level[:-1], reduced])).add_(level)

    def _degraded(self, own: Window, wide: Window, data: TileData, fused: Tensor, valid: np.ndarray) -> _LowPiece:
        """The tile at the MS's scale, of the MS pixels `own`; `fused` is that of the window `wide`."""
        # what of PAN reaches beyond the tile's pixels is not covered
        pan = torch.from_numpy(data.pan[wide.within(data.pan_window)])[None]
        image = torch.cat([fused, pan])
        level = image[:, :1, :1].clone()
        degrade = _side_by_side(self.phase.seen_from(wide, own), own.shape, wide.shape, self.gains)
        degraded = degrade(image.sub_(level)).double().add_(level[:, None])
        target = torch.from_numpy(data.ms)[:, *own.within(data.ms_window)].double()
        whole = np.zeros(wide.shape, bool)
        whole[data.window.within(wide)] = valid
        inside = self.phase.covered(own, wide, whole, reach=physics.MTF_REACH)
        return _LowPiece(degraded, target, torch.from_numpy(inside))

    def add(self, core: Window, piece: _Piece) -> None:
        self.low, self.high = np.minimum(self.low, piece.extremes[0]), np.maximum(self.high, piece.extremes[1])
        at = core.seen_from(self.window).corner
        details = self.indices.update(*piece.images, piece.valid, core=piece.core, at=at)
        self.fidelity.add_detail(piece.images[0], piece.images[3], piece.valid, piece.core, details)
        if piece.low is not None:
            ms, valid = piece.low.ms, piece.low.valid
            seen, as_sensed = piece.low.degraded[:, :-1], piece.low.degraded[:-1, -1]
            self.reprojection.update(as_sensed, ms, valid)
            self.fidelity.add_colour(seen[:-1], ms, seen[-1], valid)
            self.crossed += _squared_errors(as_sensed[:, valid], ms[:, valid])

    def score(self, sampled: bool) -> Score:
        """The figures of all tiles so far. Raises InputError if no block was valid, or the bands are out of order."""
        figures: dict = dict(self.indices.compute())
        constant = np.flatnonzero(self.low == self.high)
        notes = [f"band {i + 1} of the MS is constant ({self.low[i]:g}): the indices suffer" for i in constant]
        notes += self.indices.notes
        figures["reprojection"] = _noted(self.reprojection.compute, notes)
        figures |= _noted(self.fidelity.compute, notes) or dict.fromkeys(FIDELITY)
        _check_order(self.crossed)
        return Score(figures, self.indices.maps, self.window, notes, sampled)


def _noted(measure: Callable[[], dict], notes: list[str]) -> dict | None:
    """What `measure` returns, or None with its reason in `notes`."""
    try:
        return measure()
    except InputError as error:
        notes.append(str(error))
        return None


def _reduced(scene: Scene, around: Window) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """PAN degraded to a window of the MS grid (1, rows, cols), the MS there, and where both are wholly valid."""
    pan_window = scene.phase.pan_window(around, MARGIN)
    values, pan_valid = filled(scene.pan.read, pan_window)
    ms, ms_valid = filled(scene.read_ms, around)
    # in float32 a constant PAN stays constant
    pan = _degraded(scene.phase, around, pan_window, torch.from_numpy(values), [scene.sensor.pan_gain]).float()
    return pan, ms, ms_valid & scene.phase.covered(around, pan_window, pan_valid)


def _degraded(phase: Phase, ms: Window, pan: Window, image: Tensor, gains: Sequence[float]) -> Tensor:
    """An image on the PAN pixels `pan` through the MTF, at the MS pixels `ms`: (bands, rows, cols), float64."""
    return physics.degrader(phase, ms, pan, gains)(image.double())


@lru_cache(maxsize=8)
def _side_by_side(
    phase: Phase, ms: tuple[int, int], pan: tuple[int, int], gains: tuple[tuple[float, ...], ...]
) -> physics.Degradations:
    """The degradations of a tile: tiles inside a scene are often alike."""
    return physics.Degradations(phase, ms, pan, gains)


def _squared_errors(x: Tensor, y: Tensor) -> Tensor:
    """Sums over pixels of (x_i - y_j)^2 of all pairs of bands of (bands, pixels)."""
    return x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T


def _check_order(errors: Tensor) -> None:
    """Raises InputError if the bands, degraded, fit those of the MS far better in another order."""
    given, best = float(errors.diagonal().sum()), float(errors.amin(1).sum())
    if not best < SWAPPED * given:  # an assignment cannot be better than the best of each band
        return
    from scipy.optimize import linear_sum_assignment  # takes a third of a second to import

    rows, order = linear_sum_assignment(errors.numpy())
    if errors[rows, order].sum() < SWAPPED * given:
        raise InputError(
            f"the bands are in another order than the MS's: they fit its bands {','.join(str(b + 1) for b in order)}; "
            "give the MS bands in that order with --bidx"
        )


def _index_scale(scene: Scene) -> float:
    """Q2n rounds to integers: small-valued float data is brought to an 11-bit range first."""
    if all(s.dataset.dtypes[b - 1].startswith(("int", "uint")) for s in scene.ms for b in s.bands):
        return 1.0
    return _scale_of(_surveyed(scene.read_ms, scene.ms_grid.whole)[0])


def _surveyed(read: Reader, window: Window) -> tuple[np.ndarray, float]:
    """Every so many of the valid values of a raster, about a million per band, and the largest of all."""
    step, largest, found = max(1, window.area >> 20), 0.0, [np.empty(0)]
    for tile in plan_tiles(window, 2 * SCORED_TILE):
        values, valid = read(tile.core)
        values = values[:, valid]
        largest = max(largest, float(values.max(initial=0)))
        found.append(values[:, ::step].ravel())
    return np.concatenate(found), largest


def _scale_of(values: np.ndarray) -> float:
    """What brings 99 % of some values into 11 bits; one for values that fill them."""
    bulk = float(np.quantile(np.abs(values), 0.99)) if values.size else 0.0
    return 2047.0 / bulk if 0 < bulk < 2047 else 1.0


# Files


@dataclass(frozen=True)
class Raster:
    """A file on a grid. `origin`: its first pixel there; `window`: the part to score; `scale`: how DN are stored in the
    file; `read` gives DN."""

    source: Source
    names: tuple[str | None, ...]
    grid: Grid
    origin: tuple[int, int]
    window: Window
    scale: Scaling = Scaling()

    @classmethod
    def open(cls, path: str | os.PathLike, nodata: float | None = None) -> Raster:
        """A file on its own grid; `nodata` replaces the file's own value. Raises InputError if GDAL cannot open it."""
        dataset, label = open_raster(os.fspath(path), rpcs=True), os.fspath(path)
        try:
            check_size(label, dataset.height, dataset.width)
            bands, alpha = data_bands(dataset, label, [])
            if any(np.dtype(dataset.dtypes[b - 1]).kind not in "uif" for b in bands):
                raise InputError(f"{label} holds {dataset.dtypes[0]} values; real ones are needed")
        except InputError:
            dataset.close()
            raise
        names = tuple(dataset.descriptions[b - 1] for b in bands)
        grid = Grid.of(dataset)
        return cls(Source(dataset, bands, label, nodata, alpha), names, grid, (0, 0), grid.whole)

    @classmethod
    def on_scene(cls, path: str | os.PathLike, scene: Scene) -> Raster:
        """A fused file on the PAN grid. Raises InputError if its grid or its bands are not those of the scene."""
        nodata, hint = scene.pan.nodata, "choose the MS bands with --bidx"
        rpcs = rpcs_of(scene.pan.dataset) if scene.by_rpcs else None
        raster = cls._on(path, nodata, scene.pan_grid, scene.full, scene.band_names, "PAN", "MS", hint, rpcs)
        return replace(raster, scale=scale_of(raster.source.dataset) or scene.scale)

    @classmethod
    def on_reference(cls, path: str | os.PathLike, reference: Raster) -> Raster:
        """A fused file on the grid of a reference. Raises InputError if its grid or its bands are others."""
        nodata, grid = reference.source.nodata, reference.grid
        return cls._on(path, nodata, grid, reference.window, reference.names, "reference", "reference", "")

    @classmethod
    def pan_on(cls, path: str | os.PathLike, reference: Raster) -> Raster:
        """A PAN on the grid of a reference. Raises InputError if its grid is another or it has several bands."""
        nodata, grid = reference.source.nodata, reference.grid
        return cls._on(path, nodata, grid, reference.window, (None,), "reference", "PAN", "")

    @classmethod
    def _on(
        cls,
        path,
        nodata,
        grid: Grid,
        within: Window,
        names: Sequence[str | None],
        place: str,
        bands_of: str,
        hint: str,
        rpcs: Any = None,
    ) -> Raster:
        raster = cls.open(path, nodata)
        label, own = raster.source.label, raster.grid.called_as(grid)
        if rpcs is not None and (known := rpcs_of(raster.source.dataset)) is not None:
            # a part of the PAN has its RPCs, counted from its own corner
            row, col = round(rpcs.line_off - known.line_off), round(rpcs.samp_off - known.samp_off)
            own = grid.window(Window.at(row, col, (own.height, own.width)))
        try:
            if own.crs != grid.crs:
                raise InputError(
                    f"{label} is not on the {place} grid: its CRS is {own.crs or 'missing'}, the {place}'s "
                    f"{grid.crs or 'missing'}"
                )
            phase = grid.phase_of(own)
            if phase is None:
                raise InputError(
                    f"{label} is not on the {place} grid: it is rotated or mirrored against it; it covers "
                    f"{own.describe()}, the {place} {grid.describe()}"
                )
            rows, cols = round(phase.offset[0]), round(phase.offset[1])
            if (
                max(abs(r - 1) for r in phase.ratio) > 1e-5
                or max(abs(phase.offset[0] - rows), abs(phase.offset[1] - cols)) > 1e-2
            ):
                raise InputError(
                    f"{label} is not on the {place} grid: its pixels are {phase.ratio[0]:.4g} x {phase.ratio[1]:.4g} "
                    f"{place} pixels, its origin is {phase.offset[0]:.3f}, {phase.offset[1]:.3f} {place} pixels off"
                )
            count = len(raster.source.bands)
            if count != len(names):
                raise InputError(
                    f"{label} has {count} bands, the {bands_of} has {len(names)}" + (f"; {hint}" if hint else "")
                )
            _check_names(label, raster.names, names, bands_of, hint)
            covered = own.whole.moved(rows, cols) & within
            if covered.is_empty:
                raise InputError(
                    f"{label} does not overlap the scene: it covers {own.describe()}, the {place} {grid.describe()}"
                )
        except BaseException:
            raster.close()
            raise
        return cls(raster.source, raster.names, grid, (rows, cols), covered)

    def only(self, places: Sequence[int] | None) -> Raster:
        """Some of its bands, by place (from 0); all for None."""
        if places is None:
            return self
        source = replace(self.source, bands=[self.source.bands[i] for i in places])
        return replace(self, source=source, names=tuple(self.names[i] for i in places))

    def called(self, name: str) -> Raster:
        """The raster by another name in messages."""
        return replace(self, source=replace(self.source, label=name))

    @property
    def integral(self) -> bool:
        return all(np.dtype(self.source.dataset.dtypes[b - 1]).kind in "ui" for b in self.source.bands)

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        values, valid = self.source.read(window.moved(-self.origin[0], -self.origin[1]))
        return self.scale.read(values), valid

    def close(self) -> None:
        self.source.dataset.close()

    def __enter__(self) -> Raster:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def _check_names(
    label: str, given: Sequence[str | None], wanted: Sequence[str | None], bands_of: str, hint: str
) -> None:
    """Raises InputError if both files name their bands and the names say that the order differs."""
    ours, theirs = [band_name(n) for n in given], [band_name(n) for n in wanted]
    if None in ours or None in theirs or ours == theirs:
        return
    raise InputError(
        f"the bands of {label} are {', '.join(map(str, ours))}, those of the {bands_of} {', '.join(map(str, theirs))}"
        + (f"; {hint}" if hint else "")
    )


def array_reader(fused: np.ndarray, valid: np.ndarray, origin: tuple[int, int]) -> Reader:
    """Reader of a fused image in memory whose first pixel is at `origin` of the PAN grid."""

    def read(window: Window) -> tuple[np.ndarray, np.ndarray]:
        at = window.moved(-origin[0], -origin[1])
        data, mask = np.zeros((len(fused), *window.shape), np.float32), np.zeros(window.shape, bool)
        inner = at & Window(0, fused.shape[1], 0, fused.shape[2])
        if not inner.is_empty:
            here, there = inner.within(at), inner.slices
            data[:, *here], mask[here] = fused[:, *there], valid[there]
        return data, mask

    return read


# Against a reference


@dataclass(frozen=True)
class Radiometry:
    """What is known of a reference's values. `peak`: the DN that PSNR and SSIM count as full; `scale`: that of Q2n;
    `notes`: a warning where the peak lies far above nearly all values, which flatters both."""

    peak: float
    scale: float
    notes: list[str]


def radiometry(reference: Raster, peak: float | None = None) -> Radiometry:
    """Survey a reference in one pass. The default peak is the least 2^n - 1 that no value exceeds, or the largest value
    of floats.

    Raises InputError if a peak is wanted and no value is positive.
    """
    values, largest = _surveyed(reference.read, reference.window)
    integral = reference.integral or bool((values == np.rint(values)).all())
    scale = 1.0 if integral else _scale_of(values)
    if peak is not None:
        return Radiometry(peak, scale, [])
    label = reference.source.label
    if largest <= 0:
        raise InputError(f"{label} has no positive value to measure against")
    bulk, notes = float(np.quantile(values, 0.999)), []
    if largest > 16 * bulk:
        notes.append(
            f"the largest value of {label} is {largest:.6g}, far above nearly all others ({bulk:.6g}): "
            "PSNR and SSIM flatter; give --peak, or --nodata if it is none"
        )
    return Radiometry(float((1 << int(largest).bit_length()) - 1) if integral else largest, scale, notes)


def against_reference(
    reference: Raster,
    fused: Raster,
    ratio: float,
    known: Radiometry,
    pan: Raster | None = None,
    progress: Progress = quiet,
) -> Score:
    """All figures of a fused image against the true bands, over what both cover.

    `ratio`: MS pixel size in PAN pixels, for ERGAS and the error beside edges, which `pan` is needed for; `known`: the
    reference's `radiometry`. Raises InputError if no pixel is valid in both images.
    """
    window = fused.window
    indices = metrics.ReducedResolution(window.shape, ratio, known.peak, known.scale, with_pan=pan is not None)
    expected = scored = 0
    tiles = plan_tiles(window, SCORED_TILE)
    for i, tile in enumerate(tiles):
        progress("scoring", i, len(tiles))
        core = tile.core
        around = core.widened(indices.reach) & window
        truth, there = filled(reference.read, around)
        values, seen = filled(fused.read, around)
        valid = there & seen
        own = core.within(around)
        expected, scored = expected + int(there[own].sum()), scored + int(valid[own].sum())
        detail = [torch.from_numpy(x) for x in filled(pan.read, around)] if pan else (None, None)
        indices.update(
            torch.from_numpy(truth).double(),
            torch.from_numpy(values).double(),
            torch.from_numpy(valid),
            core=own,
            at=core.seen_from(window).corner,
            pan=detail[0],
            pan_valid=detail[1],
        )
    progress("scoring", len(tiles), len(tiles))
    figures: dict = dict(indices.compute())
    notes = list(indices.notes)
    if scored < 0.95 * expected:
        notes.append(f"{fused.source.label}: only {100 * scored / expected:.0f} % of the reference's pixels are valid")
    share = window.area / reference.window.area
    if share < 0.95:
        notes.append(f"{fused.source.label} covers only {100 * share:.2g} % of the reference")
    return Score(figures, indices.maps, window, notes)


# Wald's protocol


@dataclass(frozen=True)
class ReducedPair:
    """A pair degraded by its own ratio, and the MS that a fusion of it ought to give: paths of GeoTIFFs."""

    pan: Path
    ms: Path
    reference: Path


def degrade(scene: Scene, folder: Path, progress: Progress = quiet) -> ReducedPair:
    """Wald's protocol at the exact phase: PAN on the MS grid, MS on a grid coarser by the same ratio and offset.

    Wald et al., "Fusion of satellite images of different spatial resolutions", 1997; each band and PAN through its
    MTF (gains at Nyquist), rounded to integers if the files hold them, in float32 with NaN for nodata. Raises
    InputError if the scene is too small for it.
    """
    phase = scene.phase
    fine = phase.contained(scene.window)
    coarse = phase.contained(fine)
    if min(coarse.shape) < MIN_MS_PIXELS:
        raise InputError(
            f"{scene.ms[0].label} is too small for Wald's protocol: {fine.shape[0]} x {fine.shape[1]} MS "
            f"pixels make less than {MIN_MS_PIXELS} when degraded once more"
        )
    pair = ReducedPair(folder / "pan.tif", folder / "ms.tif", folder / "reference.tif")
    fine_grid = scene.ms_grid.window(fine)
    coarse_grid = scene.ms_grid.coarser(phase, coarse)
    pan_type = scene.pan.dtype_of(0)
    ms_type = np.result_type(*(s.dataset.dtypes[b - 1] for s in scene.ms for b in s.bands))
    with (
        raster_writer(pair.pan, fine_grid, 1, _FLOAT, ("PAN",)) as write_pan,
        raster_writer(pair.reference, fine_grid, scene.bands, _FLOAT, scene.band_names) as write_reference,
    ):
        tiles = plan_tiles(fine, SCORED_TILE // 2)
        for i, tile in enumerate(tiles):
            progress("degrading", i, len(tiles))
            pan, ms, valid = _reduced(scene, tile.core)
            at = tile.core.seen_from(fine)
            write_pan(at, _rounded(pan.numpy(), valid, pan_type))
            write_reference(at, _rounded(ms, valid, ms_type))
    names = [n or s for n, s in zip(scene.band_names, scene.standard_names, strict=True)]
    with raster_writer(pair.ms, coarse_grid, scene.bands, _FLOAT, names) as write_ms:
        for tile in plan_tiles(coarse, SCORED_TILE // 4):
            around = phase.pan_window(tile.core, MARGIN)
            ms, ms_valid = filled(scene.read_ms, around)
            low = _degraded(phase, tile.core, around, torch.from_numpy(ms), scene.gains).float().numpy()
            valid = phase.covered(tile.core, around, ms_valid)
            write_ms(tile.core.seen_from(coarse), _rounded(low, valid, ms_type))
    return pair


_FLOAT = np.dtype("float32")


def _rounded(values: np.ndarray, valid: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Values as a file of that type would hold them, but in float32, so that NaN and no value stands for nodata."""
    if dtype.kind != "f":
        values = np.clip(np.rint(values), np.iinfo(dtype).min, np.iinfo(dtype).max)
    return np.where(valid, values, np.nan).astype(_FLOAT)
