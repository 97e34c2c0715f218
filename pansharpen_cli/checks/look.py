"""Looking at a file: values, missing lines, fills, flat areas, from a sample of blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from .. import physics
from ..covariance import Covariance
from ..fusion import register
from ..progress import Progress
from ..raster import blocks
from ..raster.geometry import Window
from ..raster.scene import Scene
from ..raster.source import CUSTOMARY_NODATA, FILLED, Source, solid
from ..report.facts import AgreementFacts, BandFacts, BandValues, SampleFacts

LOOKED_AT = 12
"""Blocks of 512 x 512 PAN pixels that the pixels' figures are taken from, in the order in which `fuse` samples them."""

TRIED = 200
"""Blocks that are tried to find them."""

ABSURD = 1e15
"""No radiance is that large."""

# What sampled pixels say


@dataclass
class Band:
    """Valid values of one band in the sampled blocks, and what was counted on the way."""

    label: str
    dtype: np.dtype
    source: Source
    values: list[np.ndarray] = field(default_factory=list)
    stripes: int = 0
    dead_lines: int = 0
    blank: dict[float, int] = field(default_factory=dict)
    nodata: int = 0
    lone_nodata: int = 0
    pixels: int = 0
    levels: np.ndarray = field(default_factory=lambda: np.zeros(0))
    counts: np.ndarray = field(default_factory=lambda: np.zeros(0, int))

    fills: dict[float, float] = field(default_factory=dict)

    def settle(self) -> None:
        if self.values:
            self.levels, self.counts = np.unique(np.concatenate(self.values), return_counts=True)
            self.values = []

    def take_out(self, fills: dict[float, float]) -> None:
        """Leave values that look like nodata out of all figures."""
        self.fills = fills
        keep = ~np.isin(self.levels, list(fills))
        self.levels, self.counts = self.levels[keep], self.counts[keep]

    @property
    def count(self) -> int:
        return int(self.counts.sum())


@dataclass
class Look:
    """What the sampled blocks yielded. `blocks`: those with many valid pixels, the most valid first."""

    total: int
    tried: int = 0
    valid: int = 0
    pixels: int = 0
    empty: int = 0
    blocks: list[tuple[int, Window]] = field(default_factory=list)
    bands: list[Band] = field(default_factory=list)
    relation: Covariance | None = None

    @property
    def valid_share(self) -> float:
        return self.valid / max(self.pixels, 1)

    def facts(self) -> SampleFacts:
        return SampleFacts(self.tried, self.total, blocks.SAMPLED_BLOCK, self.pixels, self.valid_share)

    def agreement(self) -> AgreementFacts | None:
        """How well the MS bands explain the low-passed PAN."""
        found = register.agreement(self.relation) if self.relation is not None else None
        return None if found is None else AgreementFacts(**found)


def look_at(scene: Scene, seed: int, progress: Progress, survey: bool) -> Look:
    """Look at blocks in the order in which `fuse` samples them. Raises InputError if the scene has no valid pixel.
    Without `survey` only how much is valid is measured."""
    order = blocks.sample_blocks(scene, seed)
    look = Look(len(order))
    candidates = _fill_candidates(scene)
    if survey:
        look.relation = Covariance(pan=1, ms=scene.bands)
        look.bands = [Band("PAN", scene.pan.dtype_of(0), scene.pan)]
        names = [n or f"band {i}" for i, n in enumerate(scene.called, 1)]
        pairs = [(s, k) for s in scene.ms for k in range(len(s.bands))]
        look.bands += [Band(n, s.dtype_of(k), s) for n, (s, k) in zip(names, pairs, strict=True)]
    wanted = min(len(order), LOOKED_AT)
    for block in order:
        progress("looking", min(len(look.blocks), wanted), wanted)
        ms_window = scene.phase.ms_window(block) & scene.ms_grid.whole
        pan, pan_valid = scene.pan.read(block)
        look.tried += 1
        look.pixels += pan_valid.size
        valid = np.zeros_like(pan_valid)
        if not ms_window.is_empty:
            parts = [s.read(ms_window) for s in scene.ms]
            ms_valid = np.logical_and.reduce([p[1] for p in parts])
            nearest = list(zip(scene.phase.nearest(block), ms_window.spans, strict=True))
            inside = [(n >= first) & (n < last) for n, (first, last) in nearest]
            at = [n.clip(first, last - 1) - first for n, (first, last) in nearest]
            valid = pan_valid & ms_valid[np.ix_(*at)] & np.outer(*inside)
            if survey:
                _survey(scene, look, block, (pan, pan_valid), ms_window, parts, candidates)
        count = int(valid.sum())
        look.valid += count
        look.empty += count == 0
        if count > valid.size // 4 or (count and len(order) <= LOOKED_AT):
            look.blocks.append((count, block))
        if len(look.blocks) == wanted or (look.tried >= TRIED and look.valid):
            break
    progress("looking", wanted, wanted)
    if not look.valid:
        raise blocks.nothing_valid(scene)
    look.blocks.sort(key=lambda b: -b[0])
    for band in look.bands:
        band.settle()
    for source in {id(b.source): b.source for b in look.bands}.values():
        own = [b for b in look.bands if b.source is source]
        fills = _fills(own)
        for band in own:
            band.take_out(fills)
    return look


def _survey(scene: Scene, look: Look, block: Window, pan_read, ms_window: Window, parts, candidates) -> None:
    """Take a block's pixels into the statistics of each band and into the relation of PAN and MS."""
    phase = scene.phase
    own = phase.centred(block) & ms_window
    at = own.within(ms_window)
    bands = iter(look.bands)
    for values, valid in [pan_read, *((values[:, *at], valid[at]) for values, valid in parts)]:
        alone = int((~valid & ~_near(~valid)).sum())
        for layer in values:
            band = next(bands)
            seen = layer[valid]
            band.pixels += valid.size
            band.nodata += valid.size - len(seen)
            band.lone_nodata += alone
            band.values.append(seen[:: max(1, len(seen) >> 20)])
            for value in candidates[band.source.label]:
                blank = valid & (layer == value)
                if blank.any():
                    band.blank[value] = band.blank.get(value, 0) + int(solid(blank).sum())
            for x, mask in ((layer, valid), (layer.T, valid.T)):
                stripes, dead = _odd_lines(x.astype(np.float32), mask)
                band.stripes += stripes
                band.dead_lines += dead
    assert look.relation is not None
    whole = phase.covered(own, block, pan_read[1], reach=physics.MTF_REACH)
    whole &= np.logical_and.reduce([valid[at] for _, valid in parts])
    if whole.any():
        pan = torch.from_numpy(np.where(pan_read[1], pan_read[0][0], 0).astype(np.float64))[None]
        low = physics.degrader(phase, own, block, [scene.sensor.pan_gain])(pan)
        ms = np.concatenate([values[:, *at] for values, _ in parts]).astype(np.float64)
        look.relation.update(torch.from_numpy(whole), pan=low, ms=torch.from_numpy(ms))


def _near(mask: np.ndarray) -> np.ndarray:
    """Pixels with a set pixel above, below, left or right of them."""
    wide = np.pad(mask, 1)
    return wide[:-2, 1:-1] | wide[2:, 1:-1] | wide[1:-1, :-2] | wide[1:-1, 2:]


def _odd_lines(x: np.ndarray, valid: np.ndarray) -> tuple[int, int]:
    """Rows that are brighter (or darker) than both their neighbours nearly everywhere, and rows of one value. In a
    natural image about a third of a row's pixels are. A constant row counts where a neighbour lies elsewhere."""
    if len(x) < 3:
        return 0, 0
    middle, above, below = x[1:-1], x[:-2], x[2:]
    all_valid = valid[1:-1] & valid[:-2] & valid[2:]
    enough = all_valid.sum(1)
    count = np.maximum(enough, 1)
    brighter = ((middle > above) & (middle > below) & all_valid).sum(1) / count
    darker = ((middle < above) & (middle < below) & all_valid).sum(1) / count
    with np.errstate(invalid="ignore"):
        low = np.where(all_valid, middle, np.inf).min(1)
        high = np.where(all_valid, middle, -np.inf).max(1)
    differs = ((above != middle) & (below != middle) & all_valid).sum(1) / count
    constant = (low == high) & (enough >= 64) & (differs > 0.5)
    striped = (np.maximum(brighter, darker) > 0.95) & (enough >= 64) & ~constant
    return int(striped.sum()), int(constant.sum())


def _fill_candidates(scene: Scene) -> dict[str, list[float]]:
    """Values by file that may stand for nodata and that the file does not name as such."""
    tagged = {float(s.dataset.nodata) for s in (scene.pan, *scene.ms) if s.dataset.nodata is not None}
    made = {}
    for source in (scene.pan, *scene.ms):
        dtype = source.dtype_of(0)
        values = {0.0, *CUSTOMARY_NODATA, *(t for t in tagged if t == t)}
        if dtype.kind in "iu":
            info = np.iinfo(dtype)
            values |= {float(info.max)} if dtype.itemsize == 2 and dtype.kind == "u" else set()
            values = {v for v in values if info.min <= v <= info.max}
        own = source.nodata if source.nodata is not None else source.dataset.nodata
        made[source.label] = sorted(values - {own})
    return made


def band_facts(band: Band) -> BandFacts:
    """Figures of one band."""
    levels, counts, total = band.levels.astype(float), band.counts, band.count
    facts = BandFacts(band.label, band.dtype.name, total, band.nodata / max(band.pixels, 1))
    if not total:
        return facts
    sums = counts.cumsum()
    mean = float((levels * counts).sum() / total)
    std = float(np.sqrt((np.square(levels - mean) * counts).sum() / total))
    low, median, high = (float(levels[np.searchsorted(sums, q * total)]) for q in (0.001, 0.5, 0.98))
    bits = step = missing = None
    if band.dtype.kind in "iu":
        bits = int(max(abs(levels[0]), abs(levels[-1]))).bit_length() + int(levels[0] < 0)
        step = int(np.gcd.reduce(levels.astype(np.int64))) or 1
        missing = _missing_levels(levels, counts, step)
    top = _pile(levels, counts, band.dtype, top=True) / total
    bottom = _pile(-levels[::-1], counts[::-1], band.dtype, top=False) / total
    haze = low / mean if mean > 0 else None
    facts.values = BandValues(
        float(levels[0]), float(levels[-1]), mean, std, median, high, bits, step, top, bottom, low, haze, missing,
        band.stripes, band.dead_lines,
    )  # fmt: skip
    return facts


def _pile(levels: np.ndarray, counts: np.ndarray, dtype: np.dtype, top: bool) -> int:
    """Pixels at the largest level if that is where values were cut off: the dtype's end, or a spike at the end."""
    if len(levels) < 3:
        return 0
    if dtype.kind in "iu" and levels[-1] == (np.iinfo(dtype).max if top else -np.iinfo(dtype).min):
        return int(counts[-1])
    near = (levels >= levels[-1] - 0.02 * (levels[-1] - levels[0])) & (levels < levels[-1])
    usual = counts[near].mean() if near.any() else 0.0
    return int(counts[-1]) if counts[-1] >= 20 and counts[-1] > 10 * usual else 0


def _missing_levels(levels: np.ndarray, counts: np.ndarray, step: int) -> float | None:
    """Share of empty levels between the 5th and 95th percentile whose neighbours are full; None where chance explains
    them."""
    sums = counts.cumsum()
    first, last = (int(np.searchsorted(sums, q * sums[-1])) for q in (0.05, 0.95))
    gaps = np.diff(levels[first : last + 1]) / step - 1
    gaps = gaps[gaps <= 3]  # wider ones lie between things of their own, such as water and land
    if len(gaps) < 10 or counts[first : last + 1].mean() < 50:
        return None
    return float(gaps.sum() / (len(gaps) + gaps.sum()))


def _fills(bands: Sequence[Band]) -> dict[float, float]:
    """Values that look like nodata, and their share where they fill areas in all bands of a source. Absurd numbers and
    those that stand for nodata by custom count wherever they are."""
    found = {}
    for value in set().union(*(b.blank for b in bands)):
        share = min(b.blank.get(value, 0) / max(b.pixels, 1) for b in bands)
        if share > FILLED or (value in CUSTOMARY_NODATA and bands[0].dtype.kind == "f"):
            found[value] = share
    if bands[0].dtype.kind == "f":
        found |= {float(v): 0.0 for b in bands for v in b.levels[np.abs(b.levels) >= ABSURD][:3]}
    return found
