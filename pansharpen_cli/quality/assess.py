"""Scores a fused scene at full resolution, tile by tile, whoever fused it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor

from .. import physics
from ..device import one_thread_each
from ..errors import InputError
from ..fusion.shifts import displaced
from ..physics import Reach
from ..progress import Progress, quiet
from ..raster.blocks import lift_to_usual, read_ahead
from ..raster.geometry import Window
from ..raster.scene import Scene, TileData
from ..raster.source import Pixels, Reader, filled
from ..raster.tiles import OUTPUT_BLOCK, plan_tiles
from ..raster.values import Lift
from . import metrics
from .fidelity import FIGURES as FIDELITY
from .fidelity import KERNEL_GAINS, Fidelity
from .metrics.blocks import or_note

SCORED_TILE = 512
"""Side of the tiles that are scored together, in pixels: whole blocks of the indices."""

SAMPLED_TILE = 256
"""Side of a sampled tile. Smaller tiles spread better but read relatively more margin. A tile in the middle of a block
of the output has its margin there, too: one block is decoded for it, not four."""

SAMPLED_PIXELS = 1 << 21
"""PAN pixels that a sample scores, which tell a scene's figures well enough (docs/lab/sampling.md)."""

MARGIN = physics.MTF_REACH + 1
"""PAN pixels around a tile that are read for the MTF filter."""

SWAPPED = 0.25
"""Bands count as swapped if another order leaves less than this share of the squared reprojection error."""

OTHER_UNITS = 30.0
"""Factor between the largest values of PAN and MS from which on they are in different units."""


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
    MS, where the whole kernel lies on valid pixels, in DN per band. Bands of the MS that lie apart are moved to where
    the scene has them (`band_offsets`), others are left: that changes the figures less than moving them. With
    `sampling` they are those of a sample where the window is larger.
    Raises InputError if no block is valid.
    """
    window = window or scene.window
    tiles, count = tiles_to_score(window, sampling)
    pieces, done = _Pieces(scene, read, window), 0
    with one_thread_each(1) as reader, one_thread_each(1) as filtering:
        for (core, _), piece in read_ahead(filtering, pieces.filtered, read_ahead(reader, pieces.load, tiles)):
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
    where tiles are invalid there are others. Tiles that lie within a block of the output come before those that do not.
    """
    if sampling is None or window.area <= sampling.pixels:
        # of one tile nothing is read while another one is measured
        size = SCORED_TILE if window.area > SCORED_TILE**2 else SCORED_TILE // 2
        tiles = [t.core for t in plan_tiles(window, size)]
        return tiles, len(tiles)
    shift = SAMPLED_TILE // 2 // metrics.INDEX_BLOCK * metrics.INDEX_BLOCK
    lattice = Window(window.top - shift, window.bottom, window.left - shift, window.right)
    tiles = [tile for t in plan_tiles(lattice, SAMPLED_TILE) if not (tile := t.core & window).is_empty]
    rows, cols = (-(-side // SAMPLED_TILE) for side in lattice.shape)
    count = min(len(tiles), max(1, sampling.pixels // SAMPLED_TILE**2))
    down = min(rows, max(1, round((count * rows / cols) ** 0.5)))
    across = min(cols, max(1, count // down))
    drawn: dict[tuple[int, int, bool], int] = {}
    ranks = []
    for place, i in enumerate(np.random.default_rng(sampling.seed).permutation(len(tiles))):
        row, col = divmod(int(i), cols)
        crosses = not _in_one_block(tiles[i], window)
        cell = row * down // rows, col * across // cols, crosses
        drawn[cell] = drawn.get(cell, 0) + 1
        ranks.append((crosses, drawn[cell], place, tiles[i]))
    return [tile for *_, tile in sorted(ranks)], count


def _in_one_block(tile: Window, window: Window) -> bool:
    """Whether a tile is a whole one and lies, with its margin, within a block of the output for a window."""
    wide = tile.widened(MARGIN).seen_from(window)
    alike = all(start // OUTPUT_BLOCK == (stop - 1) // OUTPUT_BLOCK for start, stop in wide.spans)
    return alike and tile.area == SAMPLED_TILE**2


@dataclass(frozen=True)
class _LowPiece:
    """Pixels of the MS grid: the image and PAN, the last band, through the kernels of fidelity and, last, the MS's MTF
    (bands + 1, kernels + 1, rows, cols); the MS (bands, rows, cols); and where they are valid."""

    degraded: Tensor
    ms: Tensor
    valid: Tensor


@dataclass(frozen=True)
class _Piece:
    """A tile with what its figures are made of; `images` as `FullResolution` takes them, `core` are its own pixels,
    `details` their high passes, `aside` what `Fidelity` makes of them; `extremes`: least and largest values of the MS's
    bands and, last, of PAN, in DN."""

    images: tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
    valid: Tensor
    core: Window
    details: metrics.Details
    aside: tuple[metrics.Details, Tensor | None]
    low: _LowPiece | None
    extremes: tuple[np.ndarray, np.ndarray]


class _Pieces:
    """Adds up all full-resolution figures of a fused image tile by tile: `load` reads, `filtered` filters, `add`
    measures, each in a thread of its own."""

    def __init__(self, scene: Scene, read: Reader, window: Window) -> None:
        self.scene, self.read, self.window = scene, read, window
        self.phase, self.ratio, self.offsets = scene.phase, scene.phase.mean_ratio, displaced(scene.band_offsets)
        margin = physics.UPSAMPLE_REACH * (2 if self.offsets else 1)
        self.reach = Reach(scene.phase, margin, self.offsets)
        scale, self.lift = _index_scale(scene)
        self.indices = metrics.FullResolution(window.shape, scale=math.ldexp(scale, -self.lift))
        self.reprojection, self.fidelity = metrics.Reprojection(), Fidelity(scene.bands, self.ratio)
        self.gains = (*((gain,) for gain in KERNEL_GAINS), (*scene.gains, scene.gains[0]))
        self.crossed = torch.zeros(scene.bands, scene.bands, dtype=torch.float64)
        self.low, self.high = np.full(scene.bands + 1, np.inf), np.full(scene.bands + 1, -np.inf)

    def load(self, core: Window) -> tuple[TileData, np.ndarray, np.ndarray] | None:
        """What a tile and its margin hold: the pair, the image and where that is known; None where nothing is valid."""
        wide = core.widened(MARGIN)
        around = wide & self.window
        values, seen = self.read(wide)
        inside = seen[around.within(wide)]
        data = self.scene.read(around, *self.reach.windows(around), mirrored=False) if inside.any() else None
        if data is None or not (data.valid & inside).any():
            return None
        if self.offsets:
            moved = physics.in_place(self.phase, torch.from_numpy(data.ms).double(), self.offsets)
            data = replace(data, ms=moved.float().numpy())
        if around == wide and seen.all() and data.valid.all():
            values = values.astype(np.float32)
        else:
            values, seen = filled(self._read_of_pair, wide)
        return data, values, seen

    def filtered(self, read: tuple[Window, tuple[TileData, np.ndarray, np.ndarray] | None]) -> _Piece | None:
        """The piece of a tile that was read; None where nothing is valid."""
        core, loaded = read
        if loaded is None:
            return None
        wide = core.widened(MARGIN)
        around = wide & self.window
        data, values, seen = loaded
        extremes = np.append(data.ms.min((1, 2)), data.pan.min()), np.append(data.ms.max((1, 2)), data.pan.max())
        data, values = data.lifted(Lift(self.lift, self.lift)), np.ldexp(values, self.lift) if self.lift else values
        inside = seen[around.within(wide)]
        valid, fused, pan = data.valid & inside, torch.from_numpy(values), torch.from_numpy(data.pan)[None]
        rim = MARGIN - physics.MTF_REACH
        blurred = metrics.mtf_filter(fused[:, rim:-rim, rim:-rim], self.scene.gains, self.ratio, "valid")
        expanded = self._expanded(core, data)
        own_fused, own_pan = fused[:, *around.within(wide)], pan[:, *around.within(data.pan_window)]
        images = own_fused, blurred, expanded[:-1], own_pan, expanded[-1:]
        centred = self.phase.centred(core)
        low = None if centred.is_empty else self._degraded(centred, wide, data, fused, valid)
        own, known = core.seen_from(around), torch.from_numpy(valid)
        details = metrics.Details.of(own_fused, own_pan, known, own)
        aside = self.fidelity.details(own_fused, own_pan, known, own, details)
        return _Piece(images, known, own, details, aside, low, extremes)

    def _read_of_pair(self, window: Window) -> Pixels:
        """The image where the pair is valid: a file of others may hold fill values elsewhere, and no tag tells."""
        values, seen = self.read(window)
        inside = window & self.scene.full
        known = np.zeros_like(seen)
        if not inside.is_empty:
            known[inside.within(window)] = self.scene.valid(inside)
        return values, seen & known

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
        degrade = _degradations(self.phase.seen_from(wide, own), own.shape, wide.shape, self.gains)
        degraded = degrade(image.sub_(level)).double().add_(level[:, None])
        target = torch.from_numpy(data.ms)[:, *own.within(data.ms_window)].double()
        whole = np.zeros(wide.shape, bool)
        whole[data.window.within(wide)] = valid
        inside = self.phase.covered(own, wide, whole, reach=physics.MTF_REACH)
        return _LowPiece(degraded, target, torch.from_numpy(inside))

    def add(self, core: Window, piece: _Piece) -> None:
        self.low, self.high = np.minimum(self.low, piece.extremes[0]), np.maximum(self.high, piece.extremes[1])
        at = core.seen_from(self.window).corner
        self.indices.update(*piece.images, piece.valid, core=piece.core, at=at, details=piece.details)
        self.fidelity.add_detail(*piece.aside)
        if piece.low is not None:
            ms, valid = piece.low.ms, piece.low.valid
            seen, as_sensed = piece.low.degraded[:, :-1], piece.low.degraded[:-1, -1]
            self.reprojection.update(ms * 2.0**-self.lift, as_sensed * 2.0**-self.lift, valid)  # in DN
            self.fidelity.add_colour(seen[:-1], ms, seen[-1], valid)
            self.crossed += _squared_errors(as_sensed[:, valid], ms[:, valid])

    def score(self, sampled: bool) -> Score:
        """The figures of all tiles so far. Raises InputError if no block was valid, or the bands are out of order."""
        figures: dict = dict(self.indices.compute())
        *constant, flat = self.low == self.high
        notes = [f"band {i + 1} of the MS is constant ({self.low[i]:g}): the indices suffer" for i in
                 np.flatnonzero(constant)]  # fmt: skip
        notes += self.indices.notes
        highest, brightest = float(self.high[:-1].max()), float(self.high[-1])
        if min(highest, brightest) > 0 and not 1 / OTHER_UNITS < highest / brightest < OTHER_UNITS:
            notes.append(
                f"PAN (up to {brightest:.4g}) and MS (up to {highest:.4g}) are in different units: D_s, HQNR and "
                "QNR compare their levels and tell nothing here; fidelity does not depend on them"
            )
        figures["reprojection"] = or_note(self.reprojection.compute, notes)
        figures |= or_note(partial(self.fidelity.compute, not flat), notes) or dict.fromkeys(FIDELITY)
        _check_order(self.crossed)
        return Score(figures, self.indices.maps, self.window, notes, sampled)


_degradations = lru_cache(maxsize=8)(physics.Degradations)
"""Those of a tile: tiles inside a scene are often alike."""


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


def _index_scale(scene: Scene) -> tuple[float, int]:
    """Q2n rounds to integers: small-valued float data is brought to an 11-bit range first. And the power of two that
    lifts tiny values to where squares do not vanish in single precision."""
    if all(s.dataset.dtypes[b - 1].startswith(("int", "uint")) for s in scene.ms for b in s.bands):
        return 1.0, 0
    values, _ = survey(scene.read_ms, scene.ms_grid.whole)
    return scale_to_11_bits(values), lift_to_usual(float(np.abs(values).max(initial=0.0)))


def survey(read: Reader, window: Window) -> tuple[np.ndarray, float]:
    """Valid values of a raster at equal steps, about a million per band, and the largest of all."""
    step, largest, found = max(1, window.area >> 20), 0.0, [np.empty(0)]
    for tile in plan_tiles(window, 2 * SCORED_TILE):
        values, valid = read(tile.core)
        values = values[:, valid]
        largest = max(largest, float(values.max(initial=0)))
        found.append(values[:, ::step].ravel())
    return np.concatenate(found), largest


def scale_to_11_bits(values: np.ndarray) -> float:
    """What brings 99 % of some values into 11 bits; one for values that fill them."""
    bulk = float(np.quantile(np.abs(values), 0.99)) if values.size else 0.0
    return 2047.0 / bulk if 0 < bulk < 2047 else 1.0
