"""Registration: how far the MS lies from where its georeferencing puts it, and how soft it is, against the PAN.

PAN is seen through the MTF of the MS on the MS grid at a tried phase, both are high-passed, and the share of PAN's
variance that the best weighted sum of the bands explains (R2) is a function of the shift between the two: their
cross-spectra over all tiles, weighted by frequency, give it at every shift at once, each with its own least-squares
intensity. PAN is then sampled again at the shift found, so that in the end the two are aliased alike.

There PAN is seen through MTFs of other gains, and the one through which it explains the bands best is theirs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from .. import physics
from ..covariance import Covariance
from ..device import one_thread_each
from ..progress import Progress, quiet
from ..raster.blocks import LARGE, MAX_BLOCKS, SAMPLED_BLOCK, Lifter, read_ahead
from ..raster.geometry import Offset, Phase, Window
from ..raster.scene import Scene, TileData
from ..raster.tiles import plan_tiles
from .shifts import DOUBTFUL, FAR, MEASURABLE, SEARCH, VARIES, Shift

WIDE = 2.0
"""`SEARCH` in MS pixels, for ratios beyond `LARGE`."""

MATCHED_TILE = 64
"""Largest side of the tiles whose shifts are compared, in MS pixels."""

_TRIED = 48
"""Blocks of a large scene that are looked into for valid pixels."""

_SOFT_BLOCKS, _SOFTNESS = 4, np.linspace(0.1, 3.4, 14)
"""Blocks that the MTF is measured on, and the -log(gain) that are tried: as the square of the width of its kernel."""

_SOFTER = _SOFTNESS[-1] + (_SOFTNESS[1] - _SOFTNESS[0]) * np.arange(1, 14)
"""Those that are tried where the last one fits best: an MS that was resampled more than once, or up-sampled."""

_ROUNDS, _SWEEPS = 6, 6
"""Most rounds for the shift, and most rounds over the bands for their offsets."""

_ENOUGH = 9
"""Tiles from which on a shift that is there is found. Those of a far one lie `FAR` pixels from the border."""

NEIGHBOURS, TURNS = 16, 200
"""Bands that the offset of a single one is measured against, and in how many steps all are: hundreds take minutes to
hours otherwise, as the time grows with their cube."""


@torch.no_grad()
def measure(scene: Scene, seed: int = 0, progress: Progress = quiet) -> Shift:
    """The shift of a scene's MS against its PAN, from up to `MAX_BLOCKS` blocks drawn with `seed`.

    Not confident, with a shift of NaN where there is none to name, if too few tiles are valid or they disagree. The
    same on any number of cores, to a hundredth of a PAN pixel.
    """
    with one_thread_each(torch.get_num_threads()) as pool:
        widest = max(scene.phase.ratio)
        near = SEARCH if widest <= LARGE else WIDE * widest
        found, _ = _looked_for(scene, near, seed, progress, pool)
        if found is None:
            return Shift(math.nan, math.nan, 0.0, False, 0, math.nan)
        if not found.confident and not found.agreement >= DOUBTFUL:
            far, tiles = _looked_for(scene, FAR, seed, progress, pool)
            reach = FAR if tiles >= _ENOUGH else near
            found = far if far is not None and far.confident else replace(found, searched=reach)
        return found


def _looked_for(
    scene: Scene, search: float, seed: int, progress: Progress, pool: ThreadPoolExecutor
) -> tuple[Shift | None, int]:
    """The shift of up to `search` PAN pixels, and of how many tiles; None where none is valid within that reach."""
    size, blocks = _load_all(scene, search, seed, progress)
    found = _measured(scene, blocks, _Frequencies(size), search, pool) if blocks else None
    return found, sum(len(block.corners) for block in blocks)


def agreement(moments: Covariance) -> dict | None:
    """How well MS bands (`ms`) explain the low-passed PAN (`pan`): R2 of a regression with a constant, correlations."""
    if moments.count < 100:
        return None
    cov, var = moments.cov("ms"), float(moments.cov("pan")[0, 0])
    cross, r2 = moments.cov("ms", "pan")[:, 0], moments.explained("pan", "ms")
    if r2 is None:
        return {"r2": None, "correlations": [None] * len(cross), "pixels": moments.count}
    deviation = (cov.diagonal() * var).sqrt()
    each = [float(c / d) if d > 0 else None for c, d in zip(cross, deviation, strict=True)]
    return {"r2": r2, "correlations": each, "pixels": moments.count}


@dataclass
class _Block:
    """Tiles of one block of the scene: PAN around them, the MS's spectra (tiles, bands, size, size // 2 + 1), its
    values (bands, rows, cols) and where they and PAN are valid (rows, cols)."""

    pan: Tensor
    pan_window: Window
    ms_window: Window
    corners: list[tuple[int, int]]
    tapers: Tensor
    ms: Tensor
    values: Tensor
    usable: Tensor


def _load_all(scene: Scene, search: float, seed: int, progress: Progress) -> tuple[int, list[_Block]]:
    """Side of the tiles in MS pixels, and the blocks: all of a small scene, of a large one some drawn with `seed`."""
    common = scene.pan_grid.overlap(scene.phase, scene.ms_grid)  # whatever the extent of the output
    sides = common.shape
    side = -(-max(sides) // -(-max(sides) // SAMPLED_BLOCK))
    least = min(min(side, n) / ratio for n, ratio in zip(sides, scene.phase.ratio, strict=True))
    size = next(
        (n for n in (MATCHED_TILE, MATCHED_TILE // 2) if least >= 1.5 * n),
        MATCHED_TILE // 4 if least >= MATCHED_TILE // 3 - 1 else 0,
    )
    windows = [t.core for t in plan_tiles(common, side)] if size else []
    if len(windows) > MAX_BLOCKS:
        windows = [windows[i] for i in np.random.default_rng(seed).permutation(len(windows))[:_TRIED]]
    blocks: list[_Block] = []
    wanted = min(len(windows), MAX_BLOCKS)
    lifter = Lifter()
    with ThreadPoolExecutor(1) as reader:
        for window, data in read_ahead(reader, partial(_read, scene, search), windows):
            progress("aligning", len(blocks), wanted)
            block = None if data is None else _tiles(scene.phase, window, data, size, search, lifter)
            if block is not None:
                blocks.append(block)
            if len(blocks) == wanted:
                break
    progress("aligning", wanted, wanted)
    return size, blocks


def _read(scene: Scene, search: float, window: Window) -> TileData | None:
    """A block of PAN pixels with what a search needs around it; None if none is valid."""
    phase, wide = scene.phase, window.widened(_reach(scene.phase, search))
    own = phase.centred(window)
    if own.is_empty:
        return None
    pan_window = phase.pan_window(own, physics.MTF_REACH + 2 + search + _reach(phase, search))
    return scene.read(wide, pan_window, phase.ms_window(wide, 1))


def _reach(phase: Phase, search: float) -> int:
    return int(np.ceil(search + max(phase.ratio)))


def _tiles(phase: Phase, window: Window, data: TileData, size: int, search: float, lifter: Lifter) -> _Block | None:
    """The tiles of a block of PAN pixels; None if none is valid."""
    reach, own = _reach(phase, search), phase.centred(window)
    if min(own.shape) < size:
        return None
    data = lifter(data)
    usable = torch.from_numpy(phase.covered(own, data.window, data.valid, reach=reach))
    hann = torch.hann_window(size + 2, periodic=False, dtype=torch.float64)[1:-1]
    whole = torch.outer(hann, hann)
    corners, tapers = [], []
    for r in _starts(own.shape[0], size):
        for c in _starts(own.shape[1], size):
            taper = whole * usable[r : r + size, c : c + size]
            if taper.square().sum() > 0.5 * whole.square().sum():
                corners.append((r, c))
                tapers.append(taper)
    if not corners:
        return None
    ms = torch.from_numpy(data.ms[:, *own.within(data.ms_window)])
    stacked = torch.stack(tapers)
    spectra = _spectra(ms.double(), corners, stacked)
    return _Block(torch.from_numpy(data.pan), data.pan_window, own, corners, stacked, spectra, ms, usable)


def _starts(length: int, size: int) -> list[int]:
    """First pixels of up to five tiles that overlap by half or less and reach both ends."""
    return [round(i) for i in np.linspace(0, length - size, min(5, -(-2 * (length - size) // size) + 1))]


def _spectra(image: Tensor, corners: Sequence[tuple[int, int]], tapers: Tensor) -> Tensor:
    """Spectra (tiles, bands, size, size // 2 + 1) of an image (bands, rows, cols), high-passed before it is tapered."""
    low_rows, low_cols = (torch.from_numpy(physics.gaussian_matrix(n, 3.0)) for n in image.shape[-2:])
    image = image - low_rows @ image @ low_cols.mT
    size, weights = tapers.shape[-1], tapers[:, None]
    tiles = torch.stack([image[..., r : r + size, c : c + size] for r, c in corners])
    means = (tiles * weights).sum((-2, -1), keepdim=True) / weights.sum((-2, -1), keepdim=True)
    return torch.fft.rfft2((tiles - means) * weights).to(torch.complex64)


@torch.no_grad()
def _seen(block: _Block, phase: Phase, gains: Sequence[float], shift: Offset) -> tuple[Tensor, Tensor]:
    """PAN as MS of these MTF gains that lie `shift` PAN pixels off see it (gains, rows, cols), and its spectra in the
    tiles (tiles, gains, ...)."""
    pan, ms = block.pan_window, block.ms_window
    # seen from the block's own corner, so that blocks of equal phase share their matrices
    local = phase.seen_from(pan, ms).moved(shift)
    low = physics.Degradations(local, ms.shape, pan.shape, [[gain] for gain in gains])(block.pan[None])[0].double()
    return low, _spectra(low, block.corners, block.tapers)


class _Frequencies:
    """Weights of the frequencies of a tile (size, size // 2 + 1), and cycles per MS pixel along rows and columns."""

    def __init__(self, size: int) -> None:
        self.rows, self.cols = torch.fft.fftfreq(size).double(), torch.fft.rfftfreq(size).double()
        radius = torch.hypot(self.rows[:, None], self.cols)
        # the spectra of scenes fall with the frequency: this whitens what is left of them, up to the aliased part
        weights = radius.square() * torch.cos(np.pi / 2 * (radius / 0.6).clamp(max=1)).square()
        weights[:, 1 : (size + 1) // 2] *= 2  # these stand for their mirror images as well
        self.weights = weights.float()

    def moved(self, displacements: Tensor) -> Tensor:
        """What spectra are multiplied with to move their images back by displacements (n, 2) in MS pixels."""
        turns = displacements[:, 0, None, None] * self.rows[:, None] + displacements[:, 1, None, None] * self.cols
        return torch.exp(2j * np.pi * turns)

    def at(self, cross: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        """Correlation (..., rows, cols) at displacements in MS pixels, of weighted cross-spectra."""
        e_rows = torch.exp(2j * np.pi * torch.outer(rows, self.rows)).to(cross.dtype)
        e_cols = torch.exp(2j * np.pi * torch.outer(cols, self.cols)).to(cross.dtype)
        return (e_rows @ cross @ e_cols.mT).real.double()


@dataclass
class _Statistics:
    """Per tile: PAN's energy (tiles,), the bands' products (tiles, bands, bands) and their cross-spectra with PAN."""

    energy: Tensor
    products: Tensor
    cross: Tensor

    @classmethod
    def of(cls, pan: Tensor, ms: Tensor, frequencies: _Frequencies) -> _Statistics:
        flat = (ms * frequencies.weights.sqrt()).flatten(2)
        energy = (frequencies.weights * pan.abs().square()).sum((-2, -1))
        products = (flat @ flat.mH).real
        return cls(energy.double(), products.double(), frequencies.weights * ms * pan.conj()[:, None])

    def sums(self, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Weighted sums over the tiles."""
        energy, products = (self.energy * weights).sum(), (self.products * weights[:, None, None]).sum(0)
        return energy, products, torch.einsum("t,tbrc->brc", weights.to(self.cross.dtype), self.cross)


def _regressed(products: Tensor, correlation: Tensor) -> Tensor:
    """Least-squares weights of the bands (bands, rows, cols), at each displacement on its own."""
    scale = products.diagonal().clamp(min=0).sqrt()
    scale = torch.where(scale > 1e-6 * scale.max(), scale, torch.inf)  # a dead band weighs nothing
    normal = products / torch.outer(scale, scale) + 1e-4 * torch.eye(len(scale), dtype=torch.float64)
    flat = correlation.flatten(1) / scale[:, None]
    return (torch.linalg.solve(normal, flat) / scale[:, None]).reshape(correlation.shape)


def explained_share(energy: Tensor, products: Tensor, correlation: Tensor) -> Tensor:
    """R2 (rows, cols) at each displacement: the part of the energy that the best weighted sum of the bands explains."""
    return (_regressed(products, correlation) * correlation).sum(0) / energy.clamp(min=1e-12)


def _peaks(surfaces: Tensor, rows: Tensor, cols: Tensor) -> tuple[Tensor, Tensor]:
    """Displacements (n, 2) of the largest values of surfaces (n, rows, cols) by parabolas, and these values (n,)."""
    values, index = surfaces.flatten(1).max(1)
    i, j, n = index // len(cols), index % len(cols), torch.arange(len(surfaces))

    def moved(at: Tensor, grid: Tensor, before: Tensor, after: Tensor) -> Tensor:
        bend = before + after - 2 * values
        inner = (at > 0) & (at < len(grid) - 1) & (bend < 0)
        step = torch.where(inner, (before - after) / (2 * torch.where(inner, bend, -1.0)), 0.0)
        return grid[at] + step * (grid[1] - grid[0])

    up, down = (surfaces[n, (i + k).clamp(0, len(rows) - 1), j] for k in (-1, 1))
    left, right = (surfaces[n, i, (j + k).clamp(0, len(cols) - 1)] for k in (-1, 1))
    return torch.stack([moved(i, rows, up, down), moved(j, cols, left, right)], 1), values


_NEAR = torch.arange(-12, 13).double() / 16
"""Displacements in MS pixels at which a peak is measured."""

_OFF, _TELLING, _DISTINCT = 0.5, 0.5, 0.2
"""MS pixels from which on the content of a band is moved back before anything else is measured, R2 there, and by which
share it exceeds those of other displacements. A band of another place has an R2 of up to 0.4, with a share of 0.06."""

_CERTAIN, _ALONE = 0.8, 0.2
"""Correlation of a tile with PAN where it fits best, and by which share it exceeds that a MS pixel and more away, from
which on the tile is certain of its own shift. On real scenes such tiles lie within 0.8 PAN pixels of each other."""

_AGREES = 0.25
"""MS pixels by which the shift of a tile may differ from the scene's: by chance one of twenty does not."""


@dataclass
class _Found:
    """Where the rounds of the measurement have come to; shifts in PAN pixels, of tiles (tiles, 2)."""

    shift: Tensor
    step: Tensor
    r2: float
    distinct: float
    tiles: Tensor
    trust: Tensor
    stats: _Statistics
    pan: Tensor


def _measured(
    scene: Scene,
    blocks: list[_Block],
    frequencies: _Frequencies,
    search: float,
    pool: ThreadPoolExecutor,
    displaced: Tensor | None = None,
) -> Shift:
    """The shift, by spectra of the bands; those that are `displaced` (bands, 2), in MS pixels, were moved back."""
    phase, ratio = scene.phase, torch.tensor(scene.phase.ratio, dtype=torch.float64)
    gain = float(np.mean(scene.gains))
    ms = torch.cat([b.ms for b in blocks])
    found, agreed = None, math.nan
    for _ in range(_ROUNDS):
        at = (0.0, 0.0) if found is None else (float(found.shift[0]), float(found.shift[1]))
        seen = list(pool.map(partial(_seen, phase=phase, gains=[gain], shift=at), blocks))
        if found is None:
            agreed = _r2(blocks, seen)
        pan = torch.cat([spectra[:, 0] for _, spectra in seen])
        found = _round(pan, _Statistics.of(pan, ms, frequencies), frequencies, ratio, search, found)
        if found.step.abs().max() < 0.005:
            break
    assert found is not None
    products = _products(ms, found, frequencies)
    if displaced is None and (off := _displaced(products, frequencies)).any():  # they pull the others with them
        blocks = [replace(b, ms=(b.ms * frequencies.moved(off)).to(b.ms.dtype)) for b in blocks]
        return _measured(scene, blocks, frequencies, search, pool, off)
    size = blocks[0].tapers.shape[-1]
    places = torch.tensor([_place(phase, b, corner, size) for b in blocks for corner in b.corners]).double()
    off = found.tiles - found.shift
    weights = found.trust / (1 + (off / ratio / _AGREES).square().sum(1))
    smooth, varies = fitted_plane(places, found.tiles, weights) if len(off) >= 9 else (found.shift, 0.0)
    confidence = _confidence(found, found.tiles - smooth, ratio, search)
    rows, cols = (round(float(v), 2) + 0.0 if confidence >= MEASURABLE else math.nan for v in found.shift)
    kept = (found.trust > 0.1) & ((off / ratio).abs().amax(1) < float(_NEAR[-1]))
    agreed_aligned = _r2(blocks, seen)
    spread = _spread(found, frequencies, ratio)
    gains = () if max(varies, spread) >= VARIES else _gains(phase, blocks, frequencies, found, scene.gains, pool)
    if gains:  # PAN that is crisper or softer than the bands draws those that follow it least to one side
        alike = partial(_seen, phase=phase, gains=[float(np.mean(gains))], shift=at)
        found = replace(found, pan=torch.cat([spectra[:, 0] for _, spectra in pool.map(alike, blocks)]))
        products = _products(ms, found, frequencies)
    shown = torch.cat([places, found.tiles], 1)[kept].tolist()
    return Shift(
        rows,
        cols,
        round(confidence, 2),
        confidence >= 0.5,
        len(shown),
        _varies(varies if confidence >= MEASURABLE else math.nan, spread),
        tuple((round(r, 1), round(c, 1), round(y, 2) + 0.0, round(x, 2) + 0.0) for r, c, y, x in shown),
        _band_offsets(products, frequencies, ratio, displaced),
        agreed,
        gains,
        search,
        agreed_aligned,
    )


def _r2(blocks: Sequence[_Block], seen: Sequence[tuple[Tensor, Tensor]]) -> float:
    """R2 of PAN, as it is `seen` in the blocks, by the bands; NaN where there is none."""
    relation = Covariance(pan=1, ms=len(blocks[0].values))
    for block, (low, _) in zip(blocks, seen, strict=True):
        relation.update(block.usable, pan=low, ms=block.values)
    agreed = agreement(relation)
    return math.nan if agreed is None or agreed["r2"] is None else round(agreed["r2"], 3)


def _gains(
    phase: Phase,
    blocks: list[_Block],
    frequencies: _Frequencies,
    found: _Found,
    table: Sequence[float],
    pool: ThreadPoolExecutor,
) -> tuple[float, ...]:
    """MTF gains of the bands: those of the `table`, their kernels all wider or narrower by the factor that fits best.

    It is that of the MTF through which the best weighted sum of the bands explains most of PAN; of an MS that is softer
    or crisper than all that are tried, the last of them. Empty where the bands explain little of PAN.
    """
    trusts = found.trust.split([len(b.corners) for b in blocks])
    best = sorted(range(len(blocks)), key=lambda i: -float(trusts[i].sum()))[:_SOFT_BLOCKS]
    blocks, trust = [blocks[i] for i in best], torch.cat([trusts[i] for i in best])
    ms, at = torch.cat([b.ms for b in blocks]), (float(found.shift[0]), float(found.shift[1]))
    here = torch.zeros(1, dtype=torch.float64)

    @torch.no_grad()
    def explained(pan: Tensor) -> float:
        stats = _Statistics.of(pan, ms, frequencies)
        energy, products, cross = stats.sums(trust / (stats.energy + stats.energy.median()).clamp(min=1e-12))
        return float(explained_share(energy, products, frequencies.at(cross, here, here)))

    def explained_by(softness: np.ndarray) -> list[float]:
        seen = pool.map(partial(_seen, phase=phase, gains=np.exp(-softness).tolist(), shift=at), blocks)
        return list(pool.map(explained, torch.cat([spectra for _, spectra in seen]).unbind(1)))

    softness, r2 = _SOFTNESS, explained_by(_SOFTNESS)
    if not max(r2) >= DOUBTFUL:
        return ()
    if np.argmax(r2) == len(r2) - 1:
        softness, r2 = np.append(softness, _SOFTER), r2 + explained_by(_SOFTER)
    top = int(np.argmax(r2))
    usual, fitting = -np.log(table), float(softness[top])
    if 0 < top < len(r2) - 1:
        near = slice(max(0, top - 2), top + 3)  # a quartic through five of them
        tried = np.linspace(softness[top - 1], softness[top + 1], 400) - softness[top]
        curve = np.polyfit(softness[near] - softness[top], r2[near], min(4, len(r2[near]) - 1))
        fitting += float(tried[np.argmax(np.polyval(curve, tried))])
    factor = fitting / usual.mean()
    return tuple(max(0.001, round(float(g), 3)) for g in np.exp(-factor * usual))


def _confidence(found: _Found, off: Tensor, ratio: Tensor, search: float) -> float:
    """The weakest of what speaks for a shift; `off` are those of the tiles from it, in PAN pixels (tiles, 2)."""
    agree = found.trust * ((off / ratio).abs().amax(1) < _AGREES)
    total = agree.sum().clamp(min=1e-9)
    agreeing = float(total / found.trust.sum().clamp(min=1e-9))
    count = float(total.square() / agree.square().sum().clamp(min=1e-9))
    scatter = float(((agree[:, None] * off.square()).sum(0) / total).sqrt().max())
    error = scatter / (max(count, 1.0) / 2) ** 0.5  # tiles overlap
    error /= max(1.0, float(ratio.max()) / 4) if float(ratio.max()) > LARGE else 1.0  # what counts is the MS pixel
    signs = (
        (agreeing - 0.4) / 0.4,
        (found.r2 - 0.05) / 0.45,
        found.distinct / 0.15,
        (0.13 - error) / 0.1,
        count / 4,
        float(found.shift.abs().max() <= search + 0.5),
    )
    return min(1.0, max(0.0, min(signs)))


def _round(
    pan: Tensor, stats: _Statistics, frequencies: _Frequencies, ratio: Tensor, search: float, before: _Found | None
) -> _Found:
    """One round: the scene's displacement, and that of each tile by the intensity that fits the scene best."""
    first = before is None
    shift = torch.zeros(2, dtype=torch.float64) if before is None else before.shift
    agreement = torch.ones(len(stats.energy), dtype=torch.float64)
    if before is not None:
        agreement = before.trust / (1 + ((before.tiles - shift) / ratio / _AGREES).square().sum(1)) + 1e-9
    energy, products, cross = stats.sums(agreement / (stats.energy + stats.energy.median()).clamp(min=1e-12))
    start, distinct = torch.zeros(2, dtype=torch.float64), 1.0 if before is None else before.distinct
    if first:
        grids = [_quarters(search / r) for r in ratio.tolist()]
        surface = explained_share(energy, products, frequencies.at(cross, *grids))
        (start,), (top,) = _peaks(surface[None], *grids)
        far = torch.hypot(grids[0][:, None] - start[0], grids[1] - start[1]) > 1
        distinct = 1 - float(surface[far].amax() / top.clamp(min=1e-12))
    near = [_NEAR + c for c in start]
    (moved,), (r2,) = _peaks(explained_share(energy, products, frequencies.at(cross, *near))[None], *near)
    intensity = _regressed(products, frequencies.at(cross, *moved[:, None]))[:, 0, 0]
    near = [_NEAR + c for c in moved]
    surfaces, possible = _of_tiles(stats, intensity, frequencies, *near)
    each, tops = _peaks(surfaces, *near)
    likeness = torch.where(possible > 0, tops / possible.clamp(min=1e-12), 0.0).clamp(0, 0.99)
    trust = (likeness.square() / (1 - likeness.square())).clamp(max=4)
    step = -moved * ratio
    return _Found(shift + step, step, float(r2), distinct, shift - each * ratio, trust, stats, pan)


def _spread(found: _Found, frequencies: _Frequencies, ratio: Tensor) -> float:
    """By how many PAN pixels the shifts of tiles differ that are certain of their own, wherever within `SEARCH` it is;
    0 where fewer than half of them are. The tenths at both ends, as of clouds that move, do not count."""
    here, (rows, cols) = torch.zeros(1, dtype=torch.float64), (_quarters(SEARCH / r) for r in ratio.tolist())
    stats = found.stats
    _, products, cross = stats.sums(found.trust / (stats.energy + stats.energy.median()).clamp(min=1e-12))
    intensity = _regressed(products, frequencies.at(cross, here, here))[:, 0, 0]
    surfaces, possible = _of_tiles(stats, intensity, frequencies, rows, cols)
    each, tops = _peaks(surfaces, rows, cols)
    far = torch.hypot(rows[:, None] - each[:, 0, None, None], cols - each[:, 1, None, None]) > 1
    second = torch.where(far, surfaces, -torch.inf).amax((1, 2))
    certain = (tops >= _CERTAIN * possible) & (possible > 0) & (second <= (1 - _ALONE) * tops)
    if certain.sum() < max(4, len(certain) / 2):
        return 0.0
    low, high = (each[certain] * ratio).quantile(torch.tensor([0.1, 0.9], dtype=torch.float64), dim=0)
    return float((high - low).norm())


def _varies(smooth: float, spread: float) -> float:
    """By how much the shift changes: as a plane, NaN where that is not known, or that which tiles are certain of."""
    return round(smooth if spread < VARIES or smooth > spread else spread, 2)


def _quarters(reach: float) -> Tensor:
    """Displacements in MS pixels, at most a quarter apart, up to `reach`."""
    return torch.arange(-math.ceil(4 * reach), math.ceil(4 * reach) + 1).double() / 4


def _of_tiles(
    stats: _Statistics, intensity: Tensor, frequencies: _Frequencies, rows: Tensor, cols: Tensor
) -> tuple[Tensor, Tensor]:
    """Correlation of each tile's intensity with its PAN at displacements (tiles, rows, cols), and the most possible."""
    surfaces = frequencies.at(torch.einsum("b,tbrc->trc", intensity.to(stats.cross.dtype), stats.cross), rows, cols)
    own = torch.einsum("b,tbc,c->t", intensity, stats.products, intensity)
    return surfaces, (stats.energy * own).clamp(min=0).sqrt()


def _place(phase: Phase, block: _Block, corner: tuple[int, int], size: int) -> Offset:
    """Centre of a tile in PAN pixels."""
    row, col = (
        a.offset + a.ratio * (first + c + size / 2)
        for a, first, c in zip(phase, block.ms_window.corner, corner, strict=True)
    )
    return row, col


def fitted_plane(places: Tensor, shifts: Tensor, weights: Tensor) -> tuple[Tensor, float]:
    """A plane through the tiles' shifts, at the tiles (tiles, 2), and by how much it puts two of them apart, less what
    their scatter makes of it."""
    around = places - places.mean(0)
    design = torch.cat([torch.ones(len(places), 1, dtype=torch.float64), around / around.abs().amax().clamp(min=1)], 1)
    root = weights.sqrt()[:, None]
    smooth = design @ torch.linalg.lstsq(design * root, shifts * root, driver="gelsd").solution
    spread = (smooth.amax(0) - smooth.amin(0)).square().sum()
    scatter = (weights[:, None] * (shifts - smooth).square()).sum() / weights.sum().clamp(min=1e-9)
    count = weights.sum().square() / weights.square().sum().clamp(min=1e-9)
    return smooth, float((spread - 24 * scatter / count.clamp(min=1)).clamp(min=0).sqrt())


def _products(ms: Tensor, found: _Found, frequencies: _Frequencies) -> Tensor:
    """Weighted cross-spectra of all bands and, last, PAN with each other (bands + 1, bands + 1, ...)."""
    weights = (found.trust / (found.stats.energy + found.stats.energy.median()).clamp(min=1e-12)).to(ms.dtype)
    images = torch.cat([ms, found.pan[:, None]], 1)
    return torch.einsum("t,tbrc,tkrc->bkrc", weights, images.conj(), images) * frequencies.weights


def _explained(products: Tensor, band: int, others: list[int], moved: Tensor, frequencies: _Frequencies, at: Tensor):
    """R2 of a band by the best weighted sum of `others`, `moved` in MS pixels, at displacements `at` on both axes."""
    turned = frequencies.moved(moved[others]).to(products.dtype)
    normal = (products[others][:, others] * turned.conj()[:, None] * turned).sum((-2, -1)).real.double()
    energy = products[band, band].sum().real.double()
    return explained_share(energy, normal, frequencies.at(products[band, others] * turned, at, at))


def _predictors(band: int, known: Sequence[bool]) -> list[int]:
    """The known bands nearest to a band, and PAN."""
    others = [b for b in range(len(known)) if b != band and known[b]]
    return [*sorted(sorted(others, key=lambda b: abs(b - band))[:NEIGHBOURS]), len(known)]


def _displaced(products: Tensor, frequencies: _Frequencies) -> Tensor:
    """By how many MS pixels (bands, 2) the content of bands lies off that of most, if by `_OFF` or more; else 0.

    A band lies where PAN explains it best or, if PAN says little about it, PAN and the other bands.
    """
    bands, reach = len(products) - 1, min(8, len(frequencies.rows) // 4)
    wide = torch.arange(-2 * reach, 2 * reach + 1).double() / 2
    still, found = torch.zeros(bands + 1, 2, dtype=torch.float64), torch.zeros(bands, 2, dtype=torch.float64)
    for band in range(bands):
        for others in ([bands], _predictors(band, [True] * bands)):
            surface = _explained(products, band, others, still, frequencies, wide)
            (at,), (top,) = _peaks(surface[None], wide, wide)
            away = torch.hypot(wide[:, None] - at[0], wide - at[1]) > 1
            if top >= _TELLING and surface[away].amax() <= (1 - _DISTINCT) * top:
                found[band] = at if at.abs().max() >= _OFF else 0.0
                break
    disagreed = torch.cdist(found, found).sum(1) + found.norm(dim=1) / 2  # of two halves, that where the shift is
    return found[disagreed.argmin()] - found


def _band_offsets(
    products: Tensor, frequencies: _Frequencies, ratio: Tensor, displaced: Tensor | None
) -> tuple[Offset, ...]:
    """Offset of each band from the middle of all, in PAN pixels; NaN where the others and PAN explain little of it.

    Band by band is laid on the best weighted sum of PAN and the other bands as they lie by then, and again; of many
    bands on that of PAN and the nearest ones.
    """
    bands = len(products) - 1
    moved, known = torch.zeros(len(products), 2, dtype=torch.float64), [True] * bands
    for _ in range(min(_SWEEPS, max(2, TURNS // bands))):
        for band in range(bands):
            surface = _explained(products, band, _predictors(band, known), moved, frequencies, _NEAR)
            (at,), (r2,) = _peaks(surface[None], _NEAR, _NEAR)
            known[band] = bool(r2 > 0.1 and at.abs().max() < _NEAR[-1])
            moved[band] = -at
    offsets = -moved[:bands] * ratio
    offsets -= offsets[known].quantile(0.5, dim=0) if any(known) else 0.0
    if displaced is not None:
        offsets -= displaced * ratio
    return tuple(
        (round(float(r), 2) + 0.0, round(float(c), 2) + 0.0) if k else (float("nan"),) * 2
        for (r, c), k in zip(offsets, known, strict=True)
    )
