"""Findings: what is wrong or odd with what was looked at; judge.toml has their levels and words."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np

from .. import tables
from ..fusion import pan_relation, shifts
from ..fusion.options import Options
from ..jobs.facts import pan_relation_facts
from ..jobs.opened import Registration, is_unseen_by_pan
from ..jobs.request import Pair
from ..progress import Progress
from ..raster import sensors
from ..raster.scene import Scene
from ..raster.source import CUSTOMARY_NODATA, Source, number_text
from ..raster.tails import UNTAGGED
from ..report.facts import BandValues, CheckFacts, FileFacts, Finding, MtfFacts, PanRelationFacts, ShiftFacts
from .look import ABSURD, Band, Look

LEVELS = ("error", "warning", "note")
"""Levels of findings, the most serious first: the result will be wrong; it may be worse; good to know."""

SOFT, CRISP = 0.15, 0.5
"""Mean MTF gains at Nyquist that no optics have less, or more, than."""


_TOLD = tables.read(__file__)


class Findings(list[Finding]):
    def add(self, what: str, level: str = "", /, **values: object) -> None:
        """Add what judge.toml says of it, with these values; of a `level` of its own where it has none there."""
        told = _TOLD[what]
        self.append(Finding(level or told["level"], told.get("code", what), told["text"].format(**values)))

    def ranked(self) -> list[Finding]:
        """The most serious first, each once."""
        return sorted(dict.fromkeys(self), key=lambda f: LEVELS.index(f.level))


def _name(path: str) -> str:
    return os.path.basename(path.rstrip("/")) or path


def judge_file(file: FileFacts, found: Findings) -> None:
    name = _name(file.path)
    if file.lossy:
        found.add("lossy", name=name, how=file.compression or file.driver)
    rows, cols = file.block
    if rows * cols > 1 << 24:
        found.add("blocks", name=name, rows=rows, cols=cols)


def judge_headers(scene: Scene, facts: CheckFacts, pair: Pair, found: Findings) -> None:
    for warning in scene.warnings:
        if UNTAGGED not in warning:  # the pixels will tell more
            found.add("scene", "warning", text=warning)
    for note in scene.notes:
        found.add("scene", "note", text=note)
    files, overlap = facts.files, facts.overlap
    assert overlap is not None and facts.scene is not None
    for share, who in ((overlap.pan_share, "PAN"), (overlap.ms_share, "MS")):
        if share < 0.5:
            found.add("overlap", share=share, who=who)
    if scene.sensor == sensors.GENERIC:
        found.add("sensor", source=scene.sensor_source)
    elif scene.sensor.ratio and any(abs(r / scene.sensor.ratio - 1) > 0.1 for r in scene.phase.ratio):
        ratios = " x ".join(f"{r:.4g}" for r in dict.fromkeys(scene.phase.ratio))
        found.add("sensor-ratio", ratios=ratios, sensor=scene.sensor)
    names, assumed = facts.scene["band_names"], facts.scene["assumed_names"]
    if not any(names) and any(assumed):
        found.add("band-names-assumed", order=", ".join(a or "?" for a in assumed), sensor=scene.sensor.name)
    elif not any(names):
        found.add("band-names")
    elif unknown := [n or f"band {i}" for i, (n, a) in enumerate(zip(names, assumed, strict=True), 1) if a is None]:
        found.add("band-names-unknown", names=", ".join(unknown))
    for source in {s.label: s for s in (scene.pan, *scene.ms) if s.alpha}.values():
        found.add("alpha", name=_name(source.label), bands=" and ".join(map(str, source.alpha)))
    _judge_nodata_tags(files, pair, found)
    pan, ms = (next(f for f in files if f.role == role) for role in ("pan", "ms"))
    if pan.dtype != ms.dtype:
        found.add("dtype", pan=pan.dtype, ms=ms.dtype)
    if pan.acquired and ms.acquired:
        between = abs(datetime.fromisoformat(pan.acquired) - datetime.fromisoformat(ms.acquired))
        if between >= timedelta(minutes=1):
            what = "times-days" if between >= timedelta(days=1) else "times-minutes"
            found.add(what, pan=pan.acquired, ms=ms.acquired)


def _judge_nodata_tags(files: Sequence[FileFacts], pair: Pair, found: Findings) -> None:
    if pair.options.nodata is not None:
        return
    tags = {f.path: "NaN" if f.nodata_is_nan else "none" if f.nodata is None else f"{f.nodata:g}" for f in files}
    if len(set(tags.values())) > 1:
        listed = ", ".join(f"{_name(path)} {tag}" for path, tag in tags.items())
        found.add("nodata-tags", listed=listed)


def explain_refusal(files: Sequence[FileFacts], found: Findings) -> None:
    """What may lie behind a refusal, as far as the headers tell."""
    pans, multi = [f for f in files if f.role == "pan"], [f for f in files if f.role == "ms"]
    if not pans or not multi:
        return
    pan, ms = pans[0], multi[0]
    if pan.bands > 1 and all(f.bands == 1 for f in multi):
        found.add("swapped-bands", bands=pan.bands)
    elif pan.crs == ms.crs and pan.bands == 1:
        ratio = ms.pixel_size[0] / pan.pixel_size[0] if pan.pixel_size[0] else 0.0
        if 1e-3 < ratio < 1 / 1.5:  # less is a CRS that is none of its own
            found.add("swapped-pixels", ratio=ratio)
        elif 1 / 1.5 <= ratio < 1.5 and pan.crs:
            found.add("same-resolution", ratio=ratio)


def judge_pixels(
    scene: Scene, look: Look, facts: CheckFacts, registration: Registration | None, found: Findings
) -> None:
    for source in (scene.pan, *scene.ms):
        _judge_fills(source, next(b.fills for b in look.bands if b.source is source), found)
    seen = [(b, f.values) for b, f in zip(look.bands, facts.bands or (), strict=True) if f.values is not None]
    for band in (b for b in look.bands if not b.count):
        found.add("dead-band", band=_which(band))
    _judge_flatness(scene, seen, found)
    _judge_clipping(seen, found)
    _judge_depth(seen, found)
    for what, key in (("dead-lines", "dead_lines"), ("stripes", "stripes")):
        if listed := ", ".join(f"{b.label} {getattr(f, key)}" for b, f in seen if getattr(f, key)):
            found.add(what, listed=listed)
    hazy = [f"{b.label} {f.haze:.0%}" for b, f in seen[1:] if f.haze and f.std > 0 and f.haze > _usual(b)]
    if hazy:
        found.add("haze", listed=", ".join(hazy))
    if (share := look.valid_share) < 0.5:
        found.add("nodata-share", "warning" if share < 0.1 else "note", share=share)
    lone = [b for b in look.bands if b.nodata > 50 and b.lone_nodata > 0.5 * b.nodata]
    for tagged, what in ((True, "lone-nodata"), (False, "lone-nodata-masked")):
        if named := ", ".join(_which(b) for b in lone if _has_value(b.source) == tagged):
            found.add(what, bands=named)
    judge_agreement(scene, facts, registration, found)


def judge_agreement(scene: Scene, facts: CheckFacts, registration: Registration | None, found: Findings) -> None:
    """By the lower R2 of what was looked at and of what `fuse` warns by."""
    shift = registration.found if registration is not None else None
    told = [
        facts.agreement.r2 if facts.agreement else None,
        registration.agreement if registration is not None else None,
    ]
    known = [r2 for r2 in told if r2 is not None and not math.isnan(r2)]
    if known and not is_unseen_by_pan(scene):
        doubts = shifts.doubt(min(known), shift is not None and shift.confident)
        if doubts and shift is not None and shift.confident and registration is not None and registration.mismatched:
            doubts = shifts.mismatch(shift)  # the cause is known
        if doubts:
            found.add("agreement", "error" if min(known) < shifts.WRONG else "warning", text=doubts)


def _has_value(source: Source) -> bool:
    """Whether a number stands for nodata in a file."""
    value = source.dataset.nodata if source.nodata is None else source.nodata
    return value is not None and not math.isnan(value)


def _usual(band: Band) -> float:
    """Share of the mean that the darkest pixels may have before it is reported; blue light is always scattered."""
    return 0.9 if sensors.band_name(band.label) in ("coastal", "blue") else 0.75


def _which(band: Band) -> str:
    return "PAN" if band.label == "PAN" else f"MS {band.label}"


def _judge_fills(source: Source, fills: dict[float, float], found: Findings) -> None:
    for value, share in sorted(fills.items()):
        text = number_text(value)
        what = f"areas of {text} in all bands ({share:.1%} of the pixels)" if share else f"values of {text}"
        level = "error" if value in CUSTOMARY_NODATA or abs(value) >= ABSURD else "warning"
        found.add("untagged-nodata", level, name=_name(source.label), what=what, value=text)


def _judge_flatness(scene: Scene, seen: Sequence[tuple[Band, BandValues]], found: Findings) -> None:
    for band, f in seen:
        most = int(band.counts.max()) / band.count
        if len(band.levels) == 1:
            what = "flat-pan-constant" if band.label == "PAN" else "dead-band-constant"
            found.add(what, band=_which(band), mean=f.mean)
        elif band.label == "PAN" and f.std < 0.01 * abs(f.mean):
            found.add("flat-pan", std=f.std)
        elif most > 0.9:
            found.add("flat-band", band=_which(band), value=float(band.levels[band.counts.argmax()]), share=most)


def _judge_clipping(seen: Sequence[tuple[Band, BandValues]], found: Findings) -> None:
    for what in ("ceiling", "floor"):
        shares = {b.label: getattr(f, f"{what}_share") for b, f in seen if len(b.levels) > 2}
        worst = {label: share for label, share in shares.items() if share > 0.001}
        if worst:
            listed = ", ".join(f"{label} {share:.1%}" for label, share in worst.items())
            found.add(what, "warning" if max(worst.values()) > 0.02 else "note", listed=listed)


def _judge_depth(seen: Sequence[tuple[Band, BandValues]], found: Findings) -> None:
    stepped = {b.label: f.step for b, f in seen if f.step and f.step > 1 and len(b.levels) > 2}
    if stepped:
        listed = ", ".join(f"of {step} in {label}" for label, step in stepped.items())
        if len(stepped) == len(seen) and len(set(stepped.values())) == 1:
            listed = f"of {next(iter(stepped.values()))}"
        found.add("step", listed=listed)
    combed = [f"{b.label} {f.missing_levels:.0%}" for b, f in seen if f.missing_levels and f.missing_levels > 0.1]
    if combed:
        found.add("stretched", listed=", ".join(combed))
    depths = [f.bits for _, f in seen]
    pan, ms = depths[0] if seen and seen[0][0].label == "PAN" else None, [d for d in depths[1:] if d]
    if pan and ms and abs(pan - max(ms)) >= 3:
        found.add("depth", pan=pan, ms=max(ms))


def shift_facts(scene: Scene, shift: shifts.Shift, align: str, found: Findings) -> ShiftFacts:
    """The measured shift as facts, with what `fuse --align` does about it."""
    size = math.hypot(shift.rows, shift.cols)
    called = [name or f"band {i}" for i, name in enumerate(scene.called, 1)]
    moved = zip(called, scene.band_offsets, strict=False)
    placed = ", ".join(f"{name} by {math.hypot(*offset):.2f}" for name, offset in moved if any(offset))
    if shift.confidence < shifts.MEASURABLE:
        action = "nothing"
    elif not shift.confident:
        action = "nothing: it is not certain enough"
    elif not shifts.is_correctable(shift):
        done = f"moves {placed} and leaves the rest" if placed else "nothing"
        action = f"{done}: it is within what may be noise"
    elif align == "auto":
        action = "moves the MS by it" + (f", and {placed}" if placed else "")
    else:
        action = f"nothing (--align {align})"
    varies = shift.varies >= shifts.VARIES
    if not shift.confident and not varies:
        found.add("shift-unknown", shift=shift)
    elif shifts.is_correctable(shift) and align == "auto":
        found.add("shift", "note" if size < shifts.SEARCH else "warning", size=size, shift=shift)
    elif shifts.is_correctable(shift):
        found.add("shift-left", size=size, shift=shift, align=align)
    if varies:
        found.add("shift-varies", text=shifts.varied(shift))
    if bands := shifts.shifted_bands(shift):
        listed = ", ".join(f"{called[band]} {math.hypot(*shift.bands[band]):.2f}" for band in bands)
        displaced = any(shifts.is_displaced(shift.bands[band], scene.band_offsets) for band in bands)
        done = "corrects" if placed else "does not correct"
        found.add("band-offsets", "warning" if displaced else "note", listed=listed, done=done)
    return ShiftFacts(shift, align, action)


def tells_facts(
    scene: Scene, options: Options, progress: Progress, mismatched: bool, found: Findings
) -> list[PanRelationFacts]:
    """What PAN tells about each band, with a note where that is nothing."""
    told = pan_relation.measure(scene, options.seed, progress)
    only_upsampled = [] if options.method == "exp" or mismatched else pan_relation.unrelated(told)
    if pan_relation.is_negative(told) and options.method != "exp":
        found.add("pan-negative", text=pan_relation.negative(scene.pan.label))
    if options.method != "exp" and pan_relation.pan_is_constant(scene, options.seed):
        return pan_relation_facts(scene, told, range(scene.bands))  # of which `_judge_flatness` has told
    facts = pan_relation_facts(scene, told, only_upsampled)
    if silent := ", ".join(each["band"] for each in facts if not each["sharpened"]):
        found.add("pan-tells-nothing", bands=silent)
    return facts


def mtf_facts(scene: Scene, measured: Sequence[float], found: Findings) -> MtfFacts:
    """MTF gains as facts, with a note where the MS is softer or crisper than optics are."""
    if measured:
        gain, usual = float(np.mean(measured)), float(np.mean(scene.gains))
        if not SOFT <= gain <= CRISP:
            what, how = ("softer", "resampled") if gain < SOFT else ("crisper", "sharpened or resampled")
            found.add("mtf", what=what, how=how, gain=gain, usual=usual)
    return MtfFacts(list(scene.effective_gains), list(scene.gains), list(measured))


def judge_scene(scene: Scene, found: Findings) -> None:
    known = any(f.code == "untagged-nodata" for f in found)
    for warning in scene.warnings:
        if not (known and UNTAGGED in warning):
            found.add("scene", "warning", text=warning)
