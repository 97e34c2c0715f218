"""Findings: what is wrong or odd with what was looked at."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np

from ..fusion import pan_relation, shifts
from ..fusion.options import Options
from ..jobs.facts import pan_relation_facts
from ..jobs.opened import is_unseen_by_pan
from ..jobs.request import Pair
from ..progress import Progress
from ..raster import sensors
from ..raster.scene import Scene
from ..raster.source import CUSTOMARY_NODATA, UNTAGGED, Source, number_text
from ..report.facts import BandValues, CheckFacts, FileFacts, Finding, MtfFacts, PanRelationFacts, ShiftFacts
from .look import ABSURD, Band, Look

LEVELS = ("error", "warning", "note")
"""Levels of findings, the most serious first: the result will be wrong; it may be worse; good to know."""

_LEAVE_OUT = "leave it out with --bidx and --fit-bands bidx"

SOFT, CRISP = 0.15, 0.5
"""Mean MTF gains at Nyquist that no optics have less, or more, than."""


class Findings(list[Finding]):
    def error(self, code: str, text: str) -> None:
        self.append(Finding("error", code, text))

    def warning(self, code: str, text: str) -> None:
        self.append(Finding("warning", code, text))

    def note(self, code: str, text: str) -> None:
        self.append(Finding("note", code, text))

    def ranked(self) -> list[Finding]:
        """The most serious first, each once."""
        return sorted(dict.fromkeys(self), key=lambda f: LEVELS.index(f.level))


def _name(path: str) -> str:
    return os.path.basename(path.rstrip("/")) or path


def judge_file(file: FileFacts, found: Findings) -> None:
    name = _name(file.path)
    if file.lossy:
        how = file.compression or file.driver
        found.warning(
            "lossy",
            f"{name} is compressed with losses ({how}): methods take its block artefacts for detail; use the original "
            "delivery",
        )
    rows, cols = file.block
    if rows * cols > 1 << 24:
        found.note(
            "blocks",
            f"{name} is stored in blocks of {cols} x {rows} pixels: each read decodes a whole block; rewrite it with "
            "gdal_translate -co TILED=YES",
        )


def judge_headers(scene: Scene, facts: CheckFacts, pair: Pair, found: Findings) -> None:
    for warning in scene.warnings:
        if UNTAGGED not in warning:  # the pixels will tell more
            found.warning("scene", warning)
    for note in scene.notes:
        found.note("scene", note)
    files, overlap = facts.files, facts.overlap
    assert overlap is not None and facts.scene is not None
    for share, who in ((overlap.pan_share, "PAN"), (overlap.ms_share, "MS")):
        if share < 0.5:
            found.note("overlap", f"only {share:.1%} of the {who} lies in the overlap; the rest is not fused")
    if scene.sensor == sensors.GENERIC:
        found.note(
            "sensor",
            f"{scene.sensor_source}: MTF gains of 0.3 (MS, unless measured) and 0.15 (PAN) are assumed; "
            "name the sensor with --sensor",
        )
    elif scene.sensor.ratio and any(abs(r / scene.sensor.ratio - 1) > 0.1 for r in scene.phase.ratio):
        ratios = " x ".join(f"{r:.4g}" for r in dict.fromkeys(scene.phase.ratio))
        found.warning(
            "sensor-ratio",
            f"the ratio is {ratios}, {scene.sensor.name} products have {scene.sensor.ratio:g}: one of the files was "
            "resampled, or --sensor is wrong. The sensor's MTF does not fit resampled pixels",
        )
    names, assumed = facts.scene["band_names"], facts.scene["assumed_names"]
    if not any(names):
        order = ", ".join(a or "?" for a in assumed)
        usual = f"they are taken for {order}, the usual order of {scene.sensor.name}"
        found.note("band-names", f"the MS bands have no names; {usual if any(assumed) else 'bt-h works without them'}")
    elif unknown := [n or f"band {i}" for i, (n, a) in enumerate(zip(names, assumed, strict=True), 1) if a is None]:
        found.note("band-names", f"no standard name in: {', '.join(unknown)}")
    for source in {s.label: s for s in (scene.pan, *scene.ms) if s.alpha}.values():
        bands = " and ".join(map(str, source.alpha))
        found.note("alpha", f"{_name(source.label)}: band {bands} is a mask (alpha) and not fused")
    _judge_nodata_tags(files, pair, found)
    pan, ms = (next(f for f in files if f.role == role) for role in ("pan", "ms"))
    if pan.dtype != ms.dtype:
        found.note("dtype", f"PAN is {pan.dtype}, MS is {ms.dtype}")
    if pan.acquired and ms.acquired:
        between = abs(datetime.fromisoformat(pan.acquired) - datetime.fromisoformat(ms.acquired))
        text = f"PAN was acquired {pan.acquired}, MS {ms.acquired}"
        if between >= timedelta(days=1):
            found.error("times", f"{text}: not the same image; land, sun and shadows have changed")
        elif between >= timedelta(minutes=1):
            found.warning("times", f"{text}: clouds, shadows and cars have moved in between")


def _judge_nodata_tags(files: Sequence[FileFacts], pair: Pair, found: Findings) -> None:
    if pair.options.nodata is not None:
        return
    tags = {f.path: "NaN" if f.nodata_is_nan else "none" if f.nodata is None else f"{f.nodata:g}" for f in files}
    if len(set(tags.values())) > 1:
        listed = ", ".join(f"{_name(path)} {tag}" for path, tag in tags.items())
        found.note("nodata-tags", f"the files have different nodata values ({listed}); each is that of its own file")


def explain_refusal(files: Sequence[FileFacts], found: Findings) -> None:
    """What may lie behind a refusal, as far as the headers tell."""
    pans, multi = [f for f in files if f.role == "pan"], [f for f in files if f.role == "ms"]
    if not pans or not multi:
        return
    pan, ms = pans[0], multi[0]
    if pan.bands > 1 and all(f.bands == 1 for f in multi):
        found.error("swapped", f"PAN has {pan.bands} bands and MS has one: the two seem to be swapped")
    elif pan.crs == ms.crs and pan.bands == 1:
        ratio = ms.pixel_size[0] / pan.pixel_size[0] if pan.pixel_size[0] else 0.0
        if 1e-3 < ratio < 1 / 1.5:  # less is a CRS that is none of its own
            found.error("swapped", f"MS pixels are {ratio:.3g} times the PAN's: the two seem to be swapped")
        elif 1 / 1.5 <= ratio < 1.5 and pan.crs:
            found.error(
                "same-resolution",
                f"MS pixels are {ratio:.3g} times the PAN's: this MS is sharpened or resampled already; take the "
                "original MS",
            )


def judge_pixels(scene: Scene, look: Look, facts: CheckFacts, found: Findings) -> None:
    for source in (scene.pan, *scene.ms):
        _judge_fills(source, next(b.fills for b in look.bands if b.source is source), found)
    seen = [(b, f.values) for b, f in zip(look.bands, facts.bands or (), strict=True) if f.values is not None]
    for band in (b for b in look.bands if not b.count):
        found.error("dead-band", f"{_which(band)} has no valid pixel in the sampled blocks; {_LEAVE_OUT}")
    _judge_flatness(scene, seen, found)
    _judge_clipping(seen, found)
    _judge_depth(seen, found)
    for code, key, what in (
        ("dead-lines", "dead_lines", "lines of one value"),
        ("stripes", "stripes", "lines brighter or darker than both neighbours all along"),
    ):
        listed = ", ".join(f"{b.label} {getattr(f, key)}" for b, f in seen if getattr(f, key))
        if listed:
            found.warning(code, f"{what} in the sampled blocks: {listed}; fusion keeps or sharpens them")
    hazy = [f"{b.label} {f.haze:.0%}" for b, f in seen[1:] if f.haze and f.std > 0 and f.haze > _usual(b)]
    if hazy:
        found.note(
            "haze",
            f"haze: the darkest pixels are not dark (share of the mean: {', '.join(hazy)}). Methods that multiply "
            "(brovey, sfim, *-hpm) tint the result; bt-h and mtf-glp-hpm-r correct for haze",
        )
    share = look.valid_share
    if share < 0.5:
        level = found.warning if share < 0.1 else found.note
        level("nodata-share", f"only {share:.1%} of the sampled pixels are valid in both PAN and MS")
    lone = [b for b in look.bands if b.nodata > 50 and b.lone_nodata > 0.5 * b.nodata]
    for tagged, text in (
        (True, "most nodata pixels are single ones, perhaps dark pixels with the nodata value. They become holes; "
               "give another value with --nodata"),
        (False, "most invalid pixels are single ones (NaN, infinite or masked): they become holes"),
    ):  # fmt: skip
        if named := ", ".join(_which(b) for b in lone if _has_value(b.source) == tagged):
            found.warning("lone-nodata", f"{named}: {text}")
    r2 = facts.agreement.r2 if facts.agreement else None
    if r2 is not None and not is_unseen_by_pan(scene) and (doubts := shifts.doubt(r2)):
        level = found.error if r2 < shifts.WRONG else found.warning
        level("agreement", doubts)


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
        areas = f"areas of {text} in all bands ({share:.1%} of the pixels)" if share else f"values of {text}"
        level = found.error if value in CUSTOMARY_NODATA or abs(value) >= ABSURD else found.warning
        level(
            "untagged-nodata",
            f"{_name(source.label)}: {areas} look like nodata and are not tagged: use --nodata {text}",
        )


def _judge_flatness(scene: Scene, seen: Sequence[tuple[Band, BandValues]], found: Findings) -> None:
    for band, f in seen:
        most = int(band.counts.max()) / band.count
        if len(band.levels) == 1:
            if band.label == "PAN":
                found.error("flat-pan", f"PAN is constant ({f.mean:g}) in the sampled blocks: it has no detail")
            else:
                found.error("dead-band", f"{_which(band)} is constant ({f.mean:g}): a dead band; {_LEAVE_OUT}")
        elif band.label == "PAN" and f.std < 0.01 * abs(f.mean):
            found.warning("flat-pan", f"PAN hardly varies (standard deviation {f.std:.3g} DN): nothing to sharpen")
        elif most > 0.9:
            value = float(band.levels[band.counts.argmax()])
            found.warning("flat-band", f"{_which(band)} is {value:g} in {most:.0%} of its pixels")


def _judge_clipping(seen: Sequence[tuple[Band, BandValues]], found: Findings) -> None:
    for key, what, cause in (
        ("ceiling_share", "saturated", "clouds, roofs or a stretch; no method brings that detail back"),
        ("floor_share", "cut off at their lowest value", "water, shadow or a stretch"),
    ):
        worst = {b.label: getattr(f, key) for b, f in seen if getattr(f, key) > 0.001 and len(b.levels) > 2}
        if worst:
            listed = ", ".join(f"{label} {share:.1%}" for label, share in worst.items())
            level = found.warning if max(worst.values()) > 0.02 else found.note
            level(key.replace("_share", ""), f"pixels {what}: {listed} ({cause})")


def _judge_depth(seen: Sequence[tuple[Band, BandValues]], found: Findings) -> None:
    stepped = {b.label: f.step for b, f in seen if f.step and f.step > 1 and len(b.levels) > 2}
    if stepped:
        listed = ", ".join(f"of {step} in {label}" for label, step in stepped.items())
        if len(stepped) == len(seen) and len(set(stepped.values())) == 1:
            listed = f"of {next(iter(stepped.values()))}"
        found.note("step", f"all values are multiples {listed}: the data have fewer levels than their bits suggest")
    combed = [f"{b.label} {f.missing_levels:.0%}" for b, f in seen if f.missing_levels and f.missing_levels > 0.1]
    if combed:
        found.warning(
            "stretched",
            f"levels are missing from the histogram ({', '.join(combed)} of them): the data were stretched, perhaps "
            "not linearly, and ratios of radiance may no longer hold; use the unstretched delivery",
        )
    depths = [f.bits for _, f in seen]
    pan, ms = depths[0] if seen and seen[0][0].label == "PAN" else None, [d for d in depths[1:] if d]
    if pan and ms and abs(pan - max(ms)) >= 3:
        found.note("depth", f"PAN uses {pan} bits, MS {max(ms)}: were they processed differently?")


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
        found.note(
            "shift-unknown",
            f"the shift of the MS against PAN is uncertain (confidence {shift.confidence:.2f}, {shift.tiles} tiles, "
            f"searched up to {shift.searched:g} PAN pixels): too little detail, other things in them, or it varies",
        )
    elif shifts.is_correctable(shift):
        text = f"the MS lies {size:.2f} PAN pixels off ({shift.rows:+.2f} rows, {shift.cols:+.2f} columns)"
        if align == "auto":
            level = found.note if size < shifts.SEARCH else found.warning
            level("shift", f"{text}; fuse --align auto corrects it; other tools do not")
        else:
            found.warning("shift", f"{text} and --align {align} leaves it so; --align auto corrects it")
    if varies:
        found.warning("shift-varies", shifts.varied(shift))
    if apart := shifts.apart(shift):
        done = "corrects" if placed else "does not correct"
        listed = ", ".join(f"{called[band]} {math.hypot(*shift.bands[band]):.2f}" for band in apart)
        displaced = any(shifts.is_displaced(shift.bands[band], scene.band_offsets) for band in apart)
        level = found.warning if displaced else found.note
        level("band-offsets", f"MS bands lie apart from the others (PAN pixels): {listed}; fuse {done} that")
    return ShiftFacts(shift, align, action)


def tells_facts(
    scene: Scene, options: Options, progress: Progress, mismatched: bool, found: Findings
) -> list[PanRelationFacts]:
    """What PAN tells about each band, with a note where that is nothing."""
    told = pan_relation.measure(scene, options.seed, progress)
    only_upsampled = [] if options.method == "exp" or mismatched else pan_relation.unrelated(told)
    if options.method != "exp" and pan_relation.pan_is_constant(scene, options.seed):
        return pan_relation_facts(scene, told, range(scene.bands))  # of which `_judge_flatness` has told
    facts = pan_relation_facts(scene, told, only_upsampled)
    if silent := ", ".join(each["band"] for each in facts if not each["sharpened"]):
        found.note("pan-tells-nothing", f"PAN tells nothing about {silent}: fuse up-samples and does not sharpen there")
    return facts


def mtf_facts(scene: Scene, measured: Sequence[float], found: Findings) -> MtfFacts:
    """MTF gains as facts, with a note where the MS is softer or crisper than optics are."""
    if measured:
        gain, usual = float(np.mean(measured)), float(np.mean(scene.gains))
        if not SOFT <= gain <= CRISP:
            what, how = ("softer", "resampled") if gain < SOFT else ("crisper", "sharpened or resampled")
            text = f"MTF gain {gain:.2g} at Nyquist, its sensor's {usual:.2g}"
            found.note("mtf", f"the MS is {what} than optics make it ({text}): it was {how}")
    return MtfFacts(list(scene.effective_gains), list(scene.gains), list(measured))


def judge_scene(scene: Scene, found: Findings) -> None:
    known = any(f.code == "untagged-nodata" for f in found)
    for warning in scene.warnings:
        if not (known and UNTAGGED in warning):
            found.warning("scene", warning)
