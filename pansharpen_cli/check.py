"""What can be told of a pair before it is fused: `pansharpen check` and `fuse --dry-run`.

`check` goes on where reading or the trial fails, and says so: what is known by then is what the user needs.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import torch

from . import __version__, classical, device, physics
from .adapt import sampling
from .adapt.sampling import Progress, quiet
from .archive import pairs
from .errors import InputError, PansharpenError
from .fusion import fit as fitting
from .fusion import loop, register
from .fusion.fit import Fit, Fuser, Options
from .jobs.facts import scene_facts
from .jobs.fuse import Output, check_targets
from .jobs.opened import Pair, opened, takes_measured_mtf
from .moments import Moments
from .quality import assess
from .raster import geometry, sensors
from .raster.geometry import Window, area, intersect, is_empty, joined, part_of, spans_of
from .raster.messages import gdal_messages
from .raster.scene import Scene, axes_of
from .raster.source import CUSTOMARY_NODATA, UNTAGGED, Source, bounded_cache, open_raster, plain, solid
from .raster.tiles import plan_tiles
from .raster.writer import SceneWriter, parse_creation_options
from .report.text import byte_size

SCHEMA = "pansharpen-check/1"
LEVELS = ("error", "warning", "note")
"""Of what is found, the most serious first: the result will be wrong; it may be worse; good to know."""

LOOKED_AT = 12
"""Blocks of 512 x 512 PAN pixels that the pixels' figures are taken from, in the order in which `fuse` samples them."""

TRIED = 200
"""Blocks that are tried to find them."""

TRIAL_TILE = 512
TRIAL_SECONDS = 0.8
"""Side of the tiles that are fused to measure the speed, and the time of adaptation for the same purpose."""

START_SECONDS = 1.5
"""Start of Python, torch and GDAL."""

BASE_BYTES = 400_000_000
BUFFER_BYTES = 100_000_000
"""Resident memory of a process with everything imported, and of the caches and queues that a larger scene fills."""

NETWORK_BYTES = 80_000_000
ADAPTATION_BYTES = 200_000_000
SCORING_BYTES = 50_000_000
"""What a network takes besides, adapting it, and scoring (once, and for each band)."""

TILE_BYTES = {
    "classical": (0, 25),
    "glpnet": (50, 137),
    "pantiny": (100, 210),
    "pantiny-small": (100, 210),
    "u2net": (2800, 45),
    "pancrafter": (4000, 45),
    "networks": (320, 45),
}
"""Bytes per PAN pixel of a tile in the making: of all bands together, and per band; by network."""

SOFT, CRISP = 0.15, 0.5
"""Mean MTF gains at Nyquist that no optics have less, or more, than."""

_ABSURD = 1e15
"""No radiance is that large."""


@dataclass(frozen=True)
class Finding:
    """Something that the user should know, and what to do about it; `code` names it for programs."""

    level: str
    code: str
    text: str


class Findings(list[Finding]):
    def error(self, code: str, text: str) -> None:
        self.append(Finding("error", code, text))

    def warning(self, code: str, text: str) -> None:
        self.append(Finding("warning", code, text))

    def note(self, code: str, text: str) -> None:
        self.append(Finding("note", code, text))

    def ranked(self) -> list[dict[str, str]]:
        """The most serious first, each once."""
        return [asdict(f) for f in sorted(dict.fromkeys(self), key=lambda f: LEVELS.index(f.level))]


# The two reports


def check(pair: Pair, options: Options, score: bool = True, progress: Progress = quiet) -> dict:
    """All that can be told of a pair without fusing it; statistics are those of sampled blocks.

    What `fuse` would refuse is in `refused`, with its words; where it would fail while running is among the findings.
    What is not known then is None.
    """
    found = Findings()
    facts = _frame("check")
    facts["files"] = _files(pair, found)
    try:
        with _noting_failure(found), gdal_messages() as said, bounded_cache(), ExitStack() as stack:
            fitting.check_method(options)
            look: _Look | None = None
            seconds: dict[str, float] = {}
            scene = stack.enter_context(pair.open())
            with _noting_failure(found):
                scene, seconds = _aligned(facts, pair, options, stack, None, progress, found)
            _describe(facts, scene, pair, options, found)
            with _noting_failure(found):
                look = _look(scene, options.seed, progress, survey=True)
                facts["sample"] = look.facts()
                facts["bands"] = [_band_facts(band) for band in look.bands]
                facts["agreement"] = look.agreement()
                _judge_pixels(scene, look, facts, found)
            if look is not None:
                with _noting_failure(found):
                    facts |= _predict(scene, look, options, score, None, seconds, progress, found)
            _judge_scene(scene, found)
            for message in said.notes():
                found.warning("gdal", message)
    except InputError as error:
        facts["refused"] = str(error)
        _explain_refusal(facts["files"], found)
    facts["findings"] = found.ranked()
    return facts


@contextmanager
def _noting_failure(found: Findings) -> Iterator[None]:
    """Makes a finding of what would end `fuse` while it runs (exit code 1). What it would refuse is raised."""
    try:
        yield
    except PansharpenError as error:
        if error.exit_code == InputError.exit_code:
            raise
        found.error("fails", f"fuse fails here: {error}")


def plan(pair: Pair, output: Output, options: Options, score: bool = True, progress: Progress = quiet) -> dict:
    """What `job.fuse_scene` is going to do with the same arguments; nothing is written.

    Raises InputError where it would refuse.
    """
    found = Findings()
    facts = _frame("plan")
    parse_creation_options(output.creation_options)
    fitting.check_method(options)
    device.choose_device(options.device)
    facts["files"] = _files(pair, found)
    with gdal_messages() as said, ExitStack() as stack:
        scene, aligning = _aligned(facts, pair, options, stack, output, progress, found)
        _describe(facts, scene, pair, options, found)
        look = _look(scene, options.seed, progress, survey=False)
        facts["sample"] = look.facts()
        facts |= _predict(scene, look, options, score, output, aligning, progress, found)
        _judge_scene(scene, found)
    for message in said.notes():
        found.warning("gdal", message)
    facts["findings"] = found.ranked()
    return facts


def _frame(kind: str) -> dict:
    keys = (
        "scene", "overlap", "sample", "bands", "agreement", "shift", "mtf", "method", "adaptation", "output",
        "prediction",
    )  # fmt: skip
    return {"schema": SCHEMA, "version": __version__, "kind": kind, "refused": None, "files": []} | dict.fromkeys(keys)


def _describe(facts: dict, scene: Scene, pair: Pair, options: Options, found: Findings) -> None:
    facts["scene"] = scene_facts(scene) | {"assumed_names": list(fitting.setup_of(scene).names)}
    common = intersect(scene.pan_grid.overlap(scene.phase, scene.ms_grid), scene.full)
    rows, cols = common[1] - common[0], common[3] - common[2]
    ratio, ms = scene.phase.ratio, scene.ms_grid
    facts["overlap"] = {
        "rows": rows,
        "cols": cols,
        "pan_share": rows * cols / (scene.pan_grid.height * scene.pan_grid.width),
        "ms_share": min(1.0, rows * cols / (ms.height * ratio[0] * ms.width * ratio[1])),
    }
    _judge_headers(scene, facts, pair, found)


# What the headers say


def _files(pair: Pair, found: Findings) -> list[dict]:
    """Facts of each file that can be opened."""
    files = []
    for role, path in [("pan", pair.pan), *(("ms", p) for p in pair.ms)]:
        try:
            with gdal_messages(), bounded_cache(), open_raster(path) as dataset:
                files.append(_file_facts(path, role, dataset))
        except InputError:
            continue  # opening the scene says it
        _judge_file(files[-1], found)
    return files


def _file_facts(path: str, role: str, dataset) -> dict:
    structure = dataset.tags(ns="IMAGE_STRUCTURE")
    acquired = pairs.acquired(Source(dataset, list(dataset.indexes), path))
    block = dataset.block_shapes[0]
    compression = structure.get("COMPRESSION")
    reversibility = structure.get("COMPRESSION_REVERSIBILITY", "")
    lossy = dataset.driver in ("JPEG", "ECW") or reversibility.upper().startswith("LOSSY")
    return {
        "path": path,
        "role": role,
        "driver": dataset.driver,
        "rows": dataset.height,
        "cols": dataset.width,
        "bands": dataset.count,
        "dtype": dataset.dtypes[0],
        "nodata": None if dataset.nodata is None or dataset.nodata != dataset.nodata else dataset.nodata,
        "nodata_is_nan": dataset.nodata is not None and dataset.nodata != dataset.nodata,
        "crs": dataset.crs.to_string() if dataset.crs else None,
        "pixel_size": [math.hypot(dataset.transform.a, dataset.transform.d),
                       math.hypot(dataset.transform.b, dataset.transform.e)],
        "band_names": list(dataset.descriptions),
        "compression": compression,
        "lossy": lossy or ("JPEG" in (compression or "") and "2000" not in (compression or "")),
        "block": list(block),
        "acquired": acquired.isoformat(" ") if acquired else None,
    }  # fmt: skip


def _name(path: str) -> str:
    return os.path.basename(path.rstrip("/")) or path


def _judge_file(file: dict, found: Findings) -> None:
    name = _name(file["path"])
    if file["lossy"]:
        how = file["compression"] or file["driver"]
        found.warning(
            "lossy",
            f"{name} is compressed with losses ({how}): its block artefacts are detail to every method; take "
            "the original delivery if there is one",
        )
    rows, cols = file["block"]
    if rows * cols > 1 << 24:
        found.note(
            "blocks",
            f"{name} is stored in blocks of {cols} x {rows} pixels: every access decodes one whole; gdal_translate "
            "-co TILED=YES makes reading faster",
        )


def _judge_headers(scene: Scene, facts: dict, pair: Pair, found: Findings) -> None:
    for warning in scene.warnings:
        if UNTAGGED not in warning:  # the pixels will tell more
            found.warning("scene", warning)
    files, overlap = facts["files"], facts["overlap"]
    for share, who in ((overlap["pan_share"], "PAN"), (overlap["ms_share"], "MS")):
        if share < 0.5:
            found.note("overlap", f"only {share:.1%} of the {who} lies in the overlap; the rest is not fused")
    if scene.sensor == sensors.GENERIC:
        found.note(
            "sensor",
            f"{scene.sensor_source}: MTF gains of 0.3 (MS, unless measured) and 0.15 (PAN) are assumed; "
            "name the sensor with --sensor",
        )
    elif any(abs(r / scene.sensor.ratio - 1) > 0.1 for r in scene.phase.ratio):
        ratios = " x ".join(f"{r:.4g}" for r in dict.fromkeys(scene.phase.ratio))
        found.warning(
            "sensor-ratio",
            f"the ratio is {ratios}, that of {scene.sensor.name} products is {scene.sensor.ratio:g}: one of the files "
            "has been resampled, or --sensor is wrong; its MTF does not fit resampled pixels",
        )
    names, assumed = facts["scene"]["band_names"], facts["scene"]["assumed_names"]
    if not any(names):
        order = ", ".join(a or "?" for a in assumed)
        how = (
            f"taken for {order}, the usual order of {scene.sensor.name}"
            if any(assumed)
            else "not known: bt-h, which asks for them, does without"
        )
        found.note("band-names", f"the MS bands have no names; they are {how}")
    elif unknown := [n or f"band {i}" for i, (n, a) in enumerate(zip(names, assumed, strict=True), 1) if a is None]:
        found.note("band-names", f"no standard name in: {', '.join(unknown)}")
    for source in {s.label: s for s in (scene.pan, *scene.ms) if s.alpha and not scene.warped}.values():
        bands = " and ".join(map(str, source.alpha))
        found.note("alpha", f"{_name(source.label)}: band {bands} is a mask (alpha) and not fused")
    _judge_nodata_tags(files, pair, found)
    pan, ms = (next(f for f in files if f["role"] == role) for role in ("pan", "ms"))
    if pan["dtype"] != ms["dtype"]:
        found.note("dtype", f"PAN is {pan['dtype']}, MS is {ms['dtype']}")
    if pan["acquired"] and ms["acquired"]:
        apart = abs(datetime.fromisoformat(pan["acquired"]) - datetime.fromisoformat(ms["acquired"]))
        text = f"PAN was acquired {pan['acquired']}, MS {ms['acquired']}"
        if apart >= timedelta(days=1):
            found.error("times", f"{text}: not the same image; land, sun and shadows have changed")
        elif apart >= timedelta(minutes=1):
            found.warning("times", f"{text}: clouds, shadows and cars have moved, and they were seen at other angles")


def _judge_nodata_tags(files: Sequence[dict], pair: Pair, found: Findings) -> None:
    if pair.open_options.get("nodata") is not None:
        return
    tags = {f["path"]: "NaN" if f["nodata_is_nan"] else _tag(f["nodata"]) for f in files}
    if len(set(tags.values())) > 1:
        listed = ", ".join(f"{_name(path)} {tag}" for path, tag in tags.items())
        found.note("nodata-tags", f"the files disagree on nodata ({listed}); each counts for its own file")


def _tag(nodata: float | None) -> str:
    return "none" if nodata is None else f"{nodata:g}"


def _explain_refusal(files: Sequence[dict], found: Findings) -> None:
    """What may lie behind a refusal, as far as the headers tell."""
    pans, multi = [f for f in files if f["role"] == "pan"], [f for f in files if f["role"] == "ms"]
    if not pans or not multi:
        return
    pan, ms = pans[0], multi[0]
    if pan["bands"] > 1 and all(f["bands"] == 1 for f in multi):
        found.error("swapped", f"PAN has {pan['bands']} bands and MS has one: the two seem to be swapped")
    elif pan["crs"] == ms["crs"] and pan["bands"] == 1:
        ratio = ms["pixel_size"][0] / pan["pixel_size"][0] if pan["pixel_size"][0] else 0.0
        if ratio < 1 / 1.5:
            found.error("swapped", f"MS pixels are {ratio:.3g} times the PAN's: the two seem to be swapped")
        elif ratio < 1.5 and pan["crs"]:
            found.error(
                "same-resolution",
                f"MS pixels are {ratio:.3g} times the PAN's: this MS is sharpened or resampled already; take the "
                "original MS",
            )


# What sampled pixels say


@dataclass
class _Band:
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
class _Look:
    """What the sampled blocks yielded. `blocks`: those with many valid pixels, the most valid first."""

    total: int
    tried: int = 0
    valid: int = 0
    pixels: int = 0
    empty: int = 0
    blocks: list[tuple[int, Window]] = field(default_factory=list)
    bands: list[_Band] = field(default_factory=list)
    relation: Moments | None = None

    @property
    def valid_share(self) -> float:
        return self.valid / max(self.pixels, 1)

    def facts(self) -> dict:
        return {
            "blocks": self.tried,
            "blocks_in_all": self.total,
            "side": sampling.BLOCK,
            "pixels": self.pixels,
            "valid_share": self.valid_share,
        }

    def agreement(self) -> dict | None:
        """How well the MS bands explain the low-passed PAN."""
        return register.agreement(self.relation) if self.relation is not None else None


def _look(scene: Scene, seed: int, progress: Progress, survey: bool) -> _Look:
    """Look at blocks in the order in which `fuse` samples them. Raises InputError if the scene has no valid pixel.

    Without `survey` only how much is valid is measured.
    """
    axes = axes_of(scene)
    order = sampling.sample_blocks(scene, seed)
    look = _Look(len(order))
    candidates = _fill_candidates(scene)
    if survey:
        look.relation = Moments(pan=1, ms=scene.bands)
        look.bands = [_Band("PAN", _dtype(scene.pan, 0), scene.pan)]
        names = [n or f"band {i}" for i, n in enumerate(scene.band_names, 1)]
        pairs = [(s, k) for s in scene.ms for k in range(len(s.bands))]
        look.bands += [_Band(n, _dtype(s, k), s) for n, (s, k) in zip(names, pairs, strict=True)]
    wanted = min(len(order), LOOKED_AT)
    ms_extent = (0, scene.ms_grid.height, 0, scene.ms_grid.width)
    for block in order:
        progress("looking", min(len(look.blocks), wanted), wanted)
        ms_window = intersect(joined([a.ms_span(s) for a, s in zip(axes, spans_of(block), strict=True)]), ms_extent)
        pan, pan_valid = scene.pan.read(block)
        look.tried += 1
        look.pixels += pan_valid.size
        valid = np.zeros_like(pan_valid)
        if not is_empty(ms_window):
            parts = [s.read(ms_window) for s in scene.ms]
            ms_valid = np.logical_and.reduce([p[1] for p in parts])
            nearest = [scene.nearest_ms(np.arange(*s), axis) for axis, s in enumerate(spans_of(block))]
            inside = [(n >= w[0]) & (n < w[1]) for n, w in zip(nearest, spans_of(ms_window), strict=True)]
            at = [n.clip(w[0], w[1] - 1) - w[0] for n, w in zip(nearest, spans_of(ms_window), strict=True)]
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
        raise sampling.nothing_valid(scene)
    look.blocks.sort(key=lambda b: -b[0])
    for band in look.bands:
        band.settle()
    for source in {id(b.source): b.source for b in look.bands}.values():
        own = [b for b in look.bands if b.source is source]
        fills = _fills(own)
        for band in own:
            band.take_out(fills)
    return look


def _dtype(source: Source, index: int) -> np.dtype:
    return np.dtype(source.dataset.dtypes[source.bands[index] - 1])


def _survey(scene: Scene, look: _Look, block: Window, pan_read, ms_window: Window, parts, candidates) -> None:
    """Take a block's pixels into the statistics of each band and into the relation of PAN and MS."""
    axes = axes_of(scene)
    own = intersect(joined([a.centred(s) for a, s in zip(axes, spans_of(block), strict=True)]), ms_window)
    bands = iter(look.bands)
    for read, crop in [(pan_read, None), *((p, own) for p in parts)]:
        values, valid = read
        if crop is not None:
            at = part_of(ms_window, crop)
            values, valid = values[(slice(None), *at)], valid[at]
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
    whole = geometry.covered(axes, own, block, pan_read[1], reach=physics.MTF_REACH)
    whole &= np.logical_and.reduce([p[1][part_of(ms_window, own)] for p in parts])
    if whole.any():
        pan = torch.from_numpy(np.where(pan_read[1], pan_read[0][0], 0).astype(np.float64))[None]
        low = physics.degrader(axes, spans_of(own), spans_of(block), [scene.sensor.pan_gain])(pan)
        ms = np.concatenate([p[0][(slice(None), *part_of(ms_window, own))] for p in parts]).astype(np.float64)
        look.relation.update(torch.from_numpy(whole), pan=low, ms=torch.from_numpy(ms))


def _near(mask: np.ndarray) -> np.ndarray:
    """Pixels with a set pixel above, below, left or right of them."""
    wide = np.pad(mask, 1)
    return wide[:-2, 1:-1] | wide[2:, 1:-1] | wide[1:-1, :-2] | wide[1:-1, 2:]


def _odd_lines(x: np.ndarray, valid: np.ndarray) -> tuple[int, int]:
    """Rows that are brighter (or darker) than both their neighbours nearly everywhere, and rows of one value.

    In a natural image about a third of a row's pixels are. A constant row counts where a neighbour lies elsewhere.
    """
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
    apart = ((above != middle) & (below != middle) & all_valid).sum(1) / count
    constant = (low == high) & (enough >= 64) & (apart > 0.5)
    striped = (np.maximum(brighter, darker) > 0.95) & (enough >= 64) & ~constant
    return int(striped.sum()), int(constant.sum())


def _fill_candidates(scene: Scene) -> dict[str, list[float]]:
    """Values by file that may stand for nodata and that the file does not name as such."""
    tagged = {float(s.dataset.nodata) for s in (scene.pan, *scene.ms) if s.dataset.nodata is not None}
    made = {}
    for source in (scene.pan, *scene.ms):
        dtype = _dtype(source, 0)
        values = {0.0, *CUSTOMARY_NODATA, *(t for t in tagged if t == t)}
        if dtype.kind in "iu":
            info = np.iinfo(dtype)
            values |= {float(info.max)} if dtype.itemsize == 2 and dtype.kind == "u" else set()
            values = {v for v in values if info.min <= v <= info.max}
        own = source.nodata if source.nodata is not None else source.dataset.nodata
        made[source.label] = sorted(values - {own})
    return made


def _band_facts(band: _Band) -> dict:
    """Figures of one band's valid pixels, in DN; shares are of the valid pixels."""
    levels, counts, total = band.levels.astype(float), band.counts, band.count
    facts: dict = {"name": band.label, "dtype": band.dtype.name, "pixels": total,
                   "nodata_share": band.nodata / max(band.pixels, 1)}  # fmt: skip
    if not total:
        return facts
    sums = counts.cumsum()
    mean = float((levels * counts).sum() / total)
    std = float(np.sqrt((np.square(levels - mean) * counts).sum() / total))
    low, median, high = (float(levels[np.searchsorted(sums, q * total)]) for q in (0.001, 0.5, 0.98))
    facts |= {"minimum": levels[0], "maximum": levels[-1], "mean": mean, "std": std, "median": median, "p98": high}
    integer = band.dtype.kind in "iu"
    largest = int(max(abs(levels[0]), abs(levels[-1]))) if integer else 0
    facts["bits"] = largest.bit_length() + int(levels[0] < 0) if integer else None
    facts["step"] = int(np.gcd.reduce(levels.astype(np.int64))) or 1 if integer else None
    facts["ceiling_share"] = _pile(levels, counts, band.dtype, top=True) / total
    facts["floor_share"] = _pile(-levels[::-1], counts[::-1], band.dtype, top=False) / total
    facts |= {"dark": low, "haze": low / mean if mean > 0 else None}
    facts["missing_levels"] = _missing_levels(levels, counts, facts["step"]) if integer else None
    facts |= {"stripes": band.stripes, "dead_lines": band.dead_lines}
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
    """Share of the levels between the 5th and 95th percentile that no pixel has though levels close by are full; None
    where chance could do that."""
    sums = counts.cumsum()
    first, last = (int(np.searchsorted(sums, q * sums[-1])) for q in (0.05, 0.95))
    gaps = np.diff(levels[first : last + 1]) / step - 1
    gaps = gaps[gaps <= 3]  # wider ones lie between things of their own, such as water and land
    if len(gaps) < 10 or counts[first : last + 1].mean() < 50:
        return None
    return float(gaps.sum() / (len(gaps) + gaps.sum()))


def _judge_pixels(scene: Scene, look: _Look, facts: dict, found: Findings) -> None:
    bands = [(band, f) for band, f in zip(look.bands, facts["bands"], strict=True)]
    for source in (scene.pan, *scene.ms):
        _judge_fills(source, next(b.fills for b, _ in bands if b.source is source), found)
    seen = [(b, f) for b, f in bands if b.count]
    for band, _ in ((b, f) for b, f in bands if not b.count):
        found.error("dead-band", f"{_which(band)} has no valid pixel in what was looked at; leave it out with --bidx")
    _judge_flatness(scene, seen, found)
    _judge_clipping(seen, found)
    _judge_depth(seen, found)
    for code, key, what in (
        ("dead-lines", "dead_lines", "lines of one value"),
        ("stripes", "stripes", "lines brighter or darker than both neighbours all along"),
    ):
        listed = ", ".join(f"{b.label} {f[key]}" for b, f in seen if f[key])
        if listed:
            found.warning(code, f"{what} in the sampled blocks: {listed}; fusion keeps or sharpens them")
    hazy = [f"{b.label} {f['haze']:.0%}" for b, f in seen[1:] if f["haze"] and f["std"] > 0 and f["haze"] > _usual(b)]
    if hazy:
        found.note(
            "haze",
            f"the darkest pixels are not dark (share of the mean: {', '.join(hazy)}): haze; methods that multiply "
            "(brovey, sfim, *-hpm) tint unless they correct for it (bt-h, mtf-glp-hpm-r)",
        )
    share = look.valid_share
    if share < 0.5:
        level = found.warning if share < 0.1 else found.note
        level("nodata-share", f"only {share:.1%} of the pixels looked at are valid in both PAN and MS")
    lone = [b for b in look.bands if b.nodata > 50 and b.lone_nodata > 0.5 * b.nodata]
    for tagged, text in (
        (True, "most nodata are single pixels: dark pixels that happen to have the nodata value? They become holes; "
               "give another value with --nodata"),
        (False, "most invalid pixels are single ones (NaN, infinite or masked): they become holes"),
    ):  # fmt: skip
        if named := ", ".join(_which(b) for b in lone if _has_value(b.source) == tagged):
            found.warning("lone-nodata", f"{named}: {text}")
    agreement = facts["agreement"]
    r2 = agreement["r2"] if agreement else None
    if r2 is not None and (doubts := register.doubt(r2)):
        level = found.error if r2 < register.WRONG else found.warning
        level("agreement", doubts)


def _has_value(source: Source) -> bool:
    """Whether a number stands for nodata in a file."""
    value = source.dataset.nodata if source.nodata is None else source.nodata
    return value is not None and not math.isnan(value)


def _usual(band: _Band) -> float:
    """Share of the mean that the darkest pixels may have before it is worth a word; blue light is always scattered."""
    return 0.9 if sensors.band_name(band.label) in ("coastal", "blue") else 0.75


def _which(band: _Band) -> str:
    return "PAN" if band.label == "PAN" else f"MS {band.label}"


def _fills(bands: Sequence[_Band]) -> dict[float, float]:
    """Values that look like nodata, and their share where they fill areas in all bands of a source.

    Absurd numbers and those that stand for nodata by custom count wherever they are.
    """
    found = {}
    for value in set().union(*(b.blank for b in bands)):
        share = min(b.blank.get(value, 0) / max(b.pixels, 1) for b in bands)
        if share > 0.002 or (value in CUSTOMARY_NODATA and bands[0].dtype.kind == "f"):
            found[value] = share
    if bands[0].dtype.kind == "f":
        found |= {float(v): 0.0 for b in bands for v in b.levels[np.abs(b.levels) >= _ABSURD][:3]}
    return found


def _judge_fills(source: Source, fills: dict[float, float], found: Findings) -> None:
    for value, share in sorted(fills.items()):
        text = plain(value)
        areas = f"areas of {text} in all bands ({share:.1%} of the pixels)" if share else f"values of {text}"
        level = found.error if value in CUSTOMARY_NODATA or abs(value) >= _ABSURD else found.warning
        level(
            "untagged-nodata",
            f"{_name(source.label)}: {areas} look like nodata and are not tagged so; give it with --nodata {text}",
        )


def _judge_flatness(scene: Scene, seen: Sequence[tuple[_Band, dict]], found: Findings) -> None:
    for band, f in seen:
        most = int(band.counts.max()) / band.count
        if len(band.levels) == 1:
            if band.label == "PAN":
                found.error("flat-pan", f"PAN is constant ({f['mean']:g}) in what was looked at: it has no detail")
            else:
                found.error(
                    "dead-band", f"{_which(band)} is constant ({f['mean']:g}): a dead band; leave it out with --bidx"
                )
        elif band.label == "PAN" and f["std"] < 0.01 * abs(f["mean"]):
            found.warning("flat-pan", f"PAN hardly varies (standard deviation {f['std']:.3g} DN): nothing to sharpen")
        elif most > 0.9:
            value = float(band.levels[band.counts.argmax()])
            found.warning("flat-band", f"{_which(band)} is {value:g} in {most:.0%} of its pixels")


def _judge_clipping(seen: Sequence[tuple[_Band, dict]], found: Findings) -> None:
    for key, what, cause in (
        ("ceiling_share", "saturated", "clouds, roofs or a stretch; no method brings that detail back"),
        ("floor_share", "cut off at their lowest value", "water, shadow or a stretch"),
    ):
        worst = {b.label: f[key] for b, f in seen if f[key] > 0.001 and len(b.levels) > 2}
        if worst:
            listed = ", ".join(f"{label} {share:.1%}" for label, share in worst.items())
            level = found.warning if max(worst.values()) > 0.02 else found.note
            level(key.replace("_share", ""), f"pixels {what}: {listed} ({cause})")


def _judge_depth(seen: Sequence[tuple[_Band, dict]], found: Findings) -> None:
    stepped = {b.label: f["step"] for b, f in seen if f["step"] and f["step"] > 1 and len(b.levels) > 2}
    if stepped:
        listed = ", ".join(f"of {step} in {label}" for label, step in stepped.items())
        if len(stepped) == len(seen) and len(set(stepped.values())) == 1:
            listed = f"of {next(iter(stepped.values()))}"
        found.note("step", f"all values are multiples {listed}: the data have fewer levels than their bits suggest")
    combed = [f"{b.label} {f['missing_levels']:.0%}" for b, f in seen if (f["missing_levels"] or 0) > 0.1]
    if combed:
        found.warning(
            "stretched",
            f"levels are missing from the histogram ({', '.join(combed)} of them): the data were stretched, perhaps "
            "not linearly, so that radiance ratios no longer hold; take the unstretched delivery if there is one",
        )
    depths = [f["bits"] for _, f in seen]
    pan, ms = depths[0] if seen and seen[0][0].label == "PAN" else None, [d for d in depths[1:] if d]
    if pan and ms and abs(pan - max(ms)) >= 3:
        found.note("depth", f"PAN uses {pan} bits, MS {max(ms)}: were they processed differently?")


# Registration


def _aligned(
    facts: dict,
    pair: Pair,
    options: Options,
    stack: ExitStack,
    output: Output | None,
    progress: Progress,
    found: Findings,
) -> tuple[Scene, dict[str, float]]:
    """The scene as `fuse` sees it, and the seconds that the alignment takes; its shift is measured in any case."""
    clock = time.perf_counter()
    asked = replace(options, align="measure") if options.align == "off" else options
    ready = partial(check_targets, output) if output else lambda scene: None
    scene, registration = opened(pair, asked, stack, ready, progress=progress)
    told = set(registration.notes())
    scene.warnings[:] = [w for w in scene.warnings if w not in told]  # `_shift` has words of its own for it
    assert registration.found is not None
    facts["shift"] = _shift(scene, registration.found, options.align, found)
    facts["mtf"] = _mtf(scene, registration.found.gains, found)
    measures = options.align != "off" or takes_measured_mtf(options)
    return scene, {"aligning": time.perf_counter() - clock} if measures else {}


def _shift(scene: Scene, shift: register.Shift, align: str, found: Findings) -> dict:
    """The measured shift as facts, with what `fuse --align` does about it."""
    size = math.hypot(shift.rows, shift.cols)
    if shift.confidence < register.MEASURABLE:
        action = "nothing"
    elif not shift.confident:
        action = "nothing: it is not certain enough"
    elif not register.is_off(shift):
        action = "nothing: it is within what may be noise"
    elif align == "auto":
        action = "moves the MS by it"
    else:
        action = f"nothing (--align {align})"
    if not shift.confident:
        found.note(
            "shift-unknown",
            f"no certain measure of the shift of the MS against PAN (confidence {shift.confidence:.2f}, "
            f"{shift.tiles} tiles; looked for up to {shift.searched:g} PAN pixels): too little detail, or the two show "
            "different things",
        )
    elif register.is_off(shift):
        text = f"the MS lies {size:.2f} PAN pixels off ({shift.rows:+.2f} rows, {shift.cols:+.2f} columns)"
        if align == "auto":
            level = found.warning if size >= 1 else found.note
            level("shift", f"{text}; fuse --align auto corrects it, other tools do not see it")
        else:
            found.warning("shift", f"{text} and --align {align} leaves it so; --align auto corrects it")
    if shift.confident and shift.varies >= register.VARIES:
        found.warning(
            "shift-varies", f"the shift changes by {shift.varies:.2f} PAN pixels over the scene: terrain or attitude"
        )
    apart = [
        f"{name or f'band {i}'} {math.hypot(*offset):.2f}"
        for i, (name, offset) in enumerate(zip(scene.band_names, shift.bands, strict=False), 1)
        if math.hypot(*offset) >= register.APART
    ]
    if apart:
        found.warning("band-offsets", f"MS bands lie apart from the others (PAN pixels): {', '.join(apart)}")
    return asdict(shift) | {"align": align, "action": action}


def _mtf(scene: Scene, measured: Sequence[float], found: Findings) -> dict:
    """MTF gains as facts, with a note where the MS is softer or crisper than optics are."""
    if measured:
        gain, usual = float(np.mean(measured)), float(np.mean(scene.gains))
        if not SOFT <= gain <= CRISP:
            what, how = ("softer", "resampled") if gain < SOFT else ("crisper", "sharpened or resampled")
            text = f"MTF gain {gain:.2f} at Nyquist, its sensor's {usual:.2f}"
            found.note("mtf", f"the MS is {what} than optics make it ({text}): it was {how}")
    return {"gains": list(scene.effective_gains), "table": list(scene.gains), "measured": list(measured)}


# What the run will take


def _predict(
    scene: Scene,
    look: _Look,
    options: Options,
    score: bool,
    output: Output | None,
    known: dict[str, float],
    progress: Progress,
    found: Findings,
) -> dict:
    """Method, output and prediction: a part of the scene is adapted to, fused, written and scored for a trial.

    `known`: seconds by stage of what is measured already. Raises InputError where `fuse` would refuse.
    """
    rows, cols = scene.window[1] - scene.window[0], scene.window[3] - scene.window[2]
    pixels = rows * cols
    part = replace(scene, window=_trial_window(scene, look), warnings=[])
    fit, seconds = _trial_fit(scene, part, options, progress)
    trial = _trial_run(part, fit.fuser, options, score, output or Output(Path("fused.tif")))
    busy = pixels * (1 - look.empty / max(look.tried, 1))
    seconds |= {"fusing": trial.fusing * busy}
    if score:
        seconds["scoring"] = trial.scoring * busy
    seconds = {"start": START_SECONDS} | known | seconds
    raw = pixels * scene.bands * np.dtype(scene.dtype).itemsize
    stored = int(trial.stored * pixels * look.valid_share)
    tile = max(options.tile_size, 2 * fit.fuser.overlap)
    tiles = len(plan_tiles(scene.window, tile, fit.fuser.overlap))
    at_once = loop.tiles_at_once(fit.fuser, scene.bands, tiles, tile, torch.get_num_threads())
    memory = _memory(scene, fit, min(tile, max(rows, cols)), at_once, score)
    _judge_resources(stored, memory, output, found)
    if fit.outcome is not None and fit.outcome.tiles == 0:
        found.note("adaptation", f"the network is not adapted to the scene: {fit.outcome.reason}")
    settings = fitting.settings_of(options) if fit.card is not None else None
    return {
        "method": {
            "name": options.method,
            "weights": fit.card.path.name if fit.card else None,
            "device": fit.device,
            "precision": fit.precision,
            "tile_size": options.tile_size,
            "tiles": tiles,
            "tiles_at_once": at_once,
        },
        "adaptation": {
            "mode": options.adapt if fit.card is not None else "off",
            "tiles": settings.tiles if settings else 0,
            "epochs": settings.epochs if settings else 0,
            "possible": settings is not None and fit.outcome is not None and fit.outcome.tiles > 0,
        },
        "output": {
            "path": str(output.path) if output else None,
            "driver": output.driver if output else "GTiff",
            "rows": rows,
            "cols": cols,
            "bands": scene.bands,
            "dtype": scene.dtype,
            "nodata": None if scene.nodata != scene.nodata else scene.nodata,
        },
        "prediction": {
            "seconds": seconds | {"total": sum(seconds.values())},
            "memory_bytes": memory,
            "raw_bytes": raw,
            "stored_bytes": stored,
            "trial": {"rows": part.grid.height, "cols": part.grid.width},
        },
    }  # fmt: skip


def _trial_window(scene: Scene, look: _Look) -> Window:
    """A part of the window with valid pixels at its corner, of so many tiles that all threads have work.

    Raises InputError if nothing in the window is valid.
    """
    whole, reach = scene.window, physics.Reach(axes_of(scene))
    count = 2 * min(torch.get_num_threads(), 16) + 2
    shape = 2 * TRIAL_TILE, -(-count // 2) * TRIAL_TILE
    for place in (*(b for _, b in look.blocks), *(t.core for t in plan_tiles(whole, TRIAL_TILE))):
        at = intersect(place, whole)
        if is_empty(at) or scene.read(at, *reach.windows(at)) is None:
            continue
        spans = []
        for (first, _), size, (low, high) in zip(spans_of(at), shape, spans_of(whole), strict=True):
            first = max(low, min(first, high - size))
            spans.append((first, min(first + size, high)))
        return joined(spans)
    raise sampling.nothing_valid(scene)


def _trial_fit(scene: Scene, part: Scene, options: Options, progress: Progress) -> tuple[Fit, dict[str, float]]:
    """A fuser and the seconds by stage that it takes to make it with the full schedule on the whole scene.

    Sampling runs in full; of the adaptation the first epochs; a classical method is fitted to the part.
    """
    stamps: list[float] = []

    def timed(stage: str, done: int, total: int) -> None:
        progress("trying", done, total)
        if stage == "adapting":
            stamps.append(time.perf_counter())

    if options.method in classical.NAMES:
        small, corner = replace(part, full=part.window), _corner(part.window, TRIAL_TILE)
        try:
            fitting.fit(replace(part, full=corner, window=corner), options, timed)  # to warm up
            fit = fitting.fit(small, options, timed)
        except InputError:  # too few pixels, perhaps in this part only
            fit = fitting.fit(scene, options, timed)
            return fit, dict(fit.seconds or {})
        passes = (fit.seconds or {})["fitting"] * area(scene.full) / area(small.full)
        return fit, {"fitting": passes}
    limit = TRIAL_SECONDS if options.adapt_seconds is None else min(TRIAL_SECONDS, options.adapt_seconds)
    fit = fitting.fit(replace(scene, warnings=[]), replace(options, adapt_seconds=limit), timed)
    seconds = dict(fit.seconds or {})
    settings = fitting.settings_of(options) if fit.card else None
    if settings is not None and fit.outcome is not None and fit.outcome.epochs:
        done = fit.outcome.epochs
        each = (stamps[-1] - stamps[0]) / (done - 1) if done > 1 else seconds["adapting"] / 12
        rest = (settings.epochs - done) * each
        seconds["adapting"] += max(0.0, min(rest, settings.seconds - (seconds["adapting"])))
    return fit, seconds


@dataclass(frozen=True)
class _Trial:
    """Seconds per PAN pixel of fusing and writing and of scoring, and bytes per valid pixel in the output."""

    fusing: float
    scoring: float
    stored: float


def _trial_run(part: Scene, fuser: Fuser, options: Options, score: bool, output: Output) -> _Trial:
    """Fuse, write and score a part into a temporary folder. Raises InputError for creation options that do not do."""
    stamps: list[float] = []

    def timed(stage: str, done: int, total: int) -> None:
        stamps.append(time.perf_counter())

    warm = replace(part, window=_corner(part.window, TRIAL_TILE))
    for _ in loop.fused_tiles(warm, fuser, TRIAL_TILE):
        pass
    with tempfile.TemporaryDirectory(prefix="pansharpen-") as folder:
        with SceneWriter(
            Path(folder, "part.tif"),
            part,
            driver=output.driver,
            creation_options=parse_creation_options(output.creation_options),
            overviews=output.overviews,
        ) as writer:
            began = time.perf_counter()
            valid = loop.write_fused(part, fuser, writer, min(options.tile_size, TRIAL_TILE), timed)
            written = writer.finish()
            fused = time.perf_counter()
            scoring = 0.0
            if score:
                with assess.Raster.on_scene(str(written), part) as raster:
                    for window in (_corner(part.window, TRIAL_TILE // 4), part.window):  # to warm up, and to measure
                        clock = time.perf_counter()
                        with suppress(InputError):  # nothing to measure here; `fuse` goes on, too
                            assess.full_resolution(part, raster.read, window)
                        scoring = (time.perf_counter() - clock) / area(window)
            clock = time.perf_counter()
            writer.commit({})
            if output.driver == "COG":  # a second file; else the time is no matter of size
                fused += time.perf_counter() - clock
        stored = os.path.getsize(Path(folder, "part.tif"))
    # the first tiles wait for the reader and for each other: counted where there are later ones
    threads = loop.tiles_at_once(fuser, part.bands, len(stamps), TRIAL_TILE, torch.get_num_threads())
    skipped = threads if len(stamps) >= 2 * threads else 0
    if skipped:
        began = stamps[skipped - 1]
    done = area(part.window) * (1 - skipped / len(stamps))
    return _Trial((fused - began) / done, scoring, stored / max(valid, 1))


def _corner(window: Window, size: int) -> Window:
    return window[0], min(window[0] + size, window[1]), window[2], min(window[2] + size, window[3])


def _memory(scene: Scene, fit: Fit, side: int, at_once: int, score: bool) -> int:
    """Peak resident memory in bytes, by a model of what was measured (docs/check.md): a tile's intermediates, what
    scoring adds to what of them the allocator keeps, and the rows of tiles that a blending network waits for."""
    bands, network = scene.bands, fit.card.network if fit.card else ""
    fixed, per_band = TILE_BYTES.get(network, TILE_BYTES["networks"]) if network else TILE_BYTES["classical"]
    fusing = at_once * (side + 2 * fit.fuser.halo) ** 2 * (fixed + per_band * bands)
    if fit.fuser.overlap:
        fusing += 4 * bands * side * (scene.window[3] - scene.window[2])
    adapting = ADAPTATION_BYTES if fit.outcome is not None and fit.outcome.tiles else 0
    scoring = (1 + bands) * SCORING_BYTES + fusing * 4 // 5 if score else 0
    raw = bands * area(scene.window) * np.dtype(scene.dtype).itemsize
    return (
        BASE_BYTES
        + min(BUFFER_BYTES, raw * 3 // 4)
        + (NETWORK_BYTES if network else 0)
        + max(fusing + adapting, scoring)
    )


def _judge_resources(stored: int, memory: int, output: Output | None, found: Findings) -> None:
    if output is not None:
        free = shutil.disk_usage(output.path.resolve().parent).free
        if stored > free:
            found.error(
                "disk", f"about {byte_size(stored)} will be written, but only {byte_size(free)} are free on the disk"
            )
    available = _available_memory()
    if available is not None and memory > available:
        found.warning(
            "memory",
            f"about {byte_size(memory)} of memory is needed, {byte_size(available)} are free; try --tile-size 256",
        )


def _available_memory() -> int | None:
    try:
        with open("/proc/meminfo") as info:
            found = re.search(r"MemAvailable:\s+(\d+) kB", info.read())
    except OSError:
        return None
    return int(found[1]) << 10 if found else None


def _judge_scene(scene: Scene, found: Findings) -> None:
    known = any(f.code == "untagged-nodata" for f in found)
    for warning in scene.warnings:
        if not (known and UNTAGGED in warning):
            found.warning("scene", warning)
