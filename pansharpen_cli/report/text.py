"""Reports as text for the terminal."""

from __future__ import annotations

import csv
import io
import math
import os
import re
import textwrap
from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np

from ..columns import in_columns
from .facts import (
    AdaptationFacts,
    BandFacts,
    CheckFacts,
    EvaluationFacts,
    FileFacts,
    FusedFacts,
    FusionFacts,
    MethodFacts,
    OutputFacts,
    PanRelationFacts,
    Quality,
    RegistrationFacts,
    ResultFacts,
    SceneFacts,
    plain,
)
from .figures import FIGURES, best_of, is_number, shown_figures, text_of, value_of
from .files import plain_text

# Terminal, JSON, CSV


SHORT = ("verdict", "", "PAN", "MS", "up-sampled", "sensor", "method", "quality", "time", "output")
"""Rows of the table of `fuse` that are shown without -v."""


def table(facts: FusionFacts, full: bool = True) -> str:
    """The table of `fuse` on stdout: the verdict and five lines, or all."""
    rows = _fusion_rows(facts)
    return in_columns(rows if full else [row for row in rows if row[0] in SHORT], "l")


def _fusion_rows(facts: FusionFacts) -> list[tuple[str, str]]:
    scene, output, several, rgb = facts["scene"], facts["output"], facts["groups"], facts.get("rgb")
    rows = [("verdict" if i == 0 else "", remark["text"]) for i, remark in enumerate(facts["verdict"])]
    if len(scene["pan_files"]) > 1:
        rows.append(("PAN", f"mean of bands of {', '.join(map(os.path.basename, scene['pan_files']))}"))
    parts: Sequence[FusedFacts] = several or [facts]
    for group in parts:
        if several:
            rows.append(("MS", ", ".join(map(os.path.basename, group["scene"]["ms"]))))
        rows += _fused_rows(group)
    seconds = facts["seconds"]
    stages = ", ".join(f"{k} {v:.2f}" for k, v in seconds.items() if k != "total" and v)
    rows.append(("time", f"{seconds['total']:.2f} s ({stages})"))
    rows.append(("throughput", f"{facts['megapixels_per_second']:.2f} Mpx/s"))
    held = "3 uint8, the picture" if rgb and rgb["path"] == output["path"] else f"{scene['bands']} {scene['dtype']}"
    rows.append(("output", f"{output['path']} ({output['cols']} x {output['rows']} x {held}{_invalid(output)})"))
    if rgb:
        ranges = ", ".join(f"{name} {low:.5g} to {high:.5g}" for name, (low, high) in rgb["stretch"].items())
        rows.append(("picture", f"{rgb['path']} ({ranges} DN)"))
    return rows


def _invalid(output: OutputFacts) -> str:
    """The share of the pixels that are invalid; nothing if none is."""
    pixels = output["rows"] * output["cols"]
    share = 1 - output["valid_pixels"] / pixels
    return f", {share:.1%} invalid" if share >= 0.0005 else f", {pixels - output['valid_pixels']} invalid" * (share > 0)


def _fused_rows(facts: FusedFacts) -> list[tuple[str, str]]:
    """What was fused together, and how it came out."""
    scene, method, quality = facts["scene"], facts["method"], facts["quality"]
    left = ", ".join(each["band"] for each in facts["pan_tells"] if not each["sharpened"])
    weights = f" ({method['weights']}, {method['precision']} on {method['device']})" if method["weights"] else ""
    rows = [
        *geometry_rows(scene),
        ("registration", registration_text(facts["registration"])),
        ("bands", bands_text(scene)),
        ("PAN tells", tells_text(facts["pan_tells"])),
        ("up-sampled", f"{left}: PAN tells nothing about it" if left else ""),
        ("MTF", _gains(method)),
        ("scale", f"{method['scale']:.6g} DN" if method["scale"] else ""),
        ("method", method["name"] + weights),
        ("adaptation", adaptation_text(facts["adaptation"])),
        *(_quality_rows(quality) if quality else []),
    ]
    return [row for row in rows if row[1]]


def geometry_rows(scene: SceneFacts) -> list[tuple[str, str]]:
    """How MS pixels lie to those of the PAN, and whose they are."""
    return [
        ("ratio", " x ".join(f"{v:.6g}" for v in dict.fromkeys(scene["ratio"]))),
        ("offset", "{:.4g}, {:.4g} PAN pixels (rows, columns)".format(*scene["offset"])),
        ("sensor", f"{scene['sensor']} ({scene['sensor_recognised_in']})"),
    ]


def tells_text(told: Sequence[PanRelationFacts]) -> str:
    """What PAN tells about each band; nothing where that was not measured."""
    if not any(is_number(each["r2"]) for each in told):
        return ""
    bands = [
        f"{each['band']} {number_text(each['r2'], 2)}" + ("" if each["sharpened"] else " (up-sampled only)")
        for each in told
    ]
    return f"R2 of the bands' detail: {', '.join(bands)}"


def called(scene: SceneFacts) -> list[str | None]:
    """What people call the bands: by their own names, else by the standard ones."""
    return [own or known for own, known in zip(scene["band_names"], scene["standard_names"], strict=True)]


def bands_text(scene: SceneFacts) -> str:
    """Which bands are written and measured, of those that the scene is fitted with; nothing where they are all."""
    if scene.get("fitted_bands", scene["bands"]) == scene["bands"]:
        return ""
    listed = ", ".join(name or f"band {n}" for name, n in zip(called(scene), scene["band_numbers"], strict=True))
    return f"{listed} are written and measured; the scene is fitted with all {scene['fitted_bands']}"


WIDTH = 100
"""Columns of the report of `check`, where file names allow."""


def check_table(facts: CheckFacts) -> str:
    """The report of `check` and `fuse --dry-run` on stdout: facts, figures of the bands, what was found."""
    rows = [(f.role.upper(), _file_line(f)) for f in facts.files]
    groups = [group for group in facts.groups or [facts] if group.scene]
    if len(groups) == 1:
        rows += _pair_rows(groups[0])
    lines = [_wrapped(rows)] if rows else []
    for group in groups:
        if len(groups) > 1 and group.scene:
            names = ", ".join(map(os.path.basename, group.scene["ms"]))
            lines += ["", _wrapped([("MS", names), *_pair_rows(group)])]
        if group.bands:
            lines += ["", _bands_table(group.bands)]
    if facts.prediction:
        lines += ["", _wrapped(_plan_rows(facts))]
    if facts.findings:
        lines += ["", _wrapped([(f.level, f.text) for f in facts.findings])]
    elif not facts.refused:
        lines += ["", "no faults found"]
    return "\n".join(lines)


def _wrapped(rows: Sequence[tuple[str, str]]) -> str:
    """Aligned rows, broken between words."""
    width = max(len(name) for name, _ in rows) + 2
    lines = []
    for name, value in rows:
        value = re.sub(r"(\d) (s|min|h|bytes|[kMG]B)\b", "\\1\u00a0\\2", value)  # a number stays with its unit
        parts = textwrap.wrap(value, WIDTH - width, break_long_words=False, break_on_hyphens=False) or [""]
        lines += [
            f"{label:<{width}}{part}".rstrip()
            for label, part in zip([name, *[""] * (len(parts) - 1)], parts, strict=True)
        ]
    return "\n".join(lines).replace("\u00a0", " ")


def _file_line(file: FileFacts) -> str:
    bands = f" x {file.bands}" if file.bands > 1 else ""
    nodata = "NaN" if file.nodata_is_nan else plain_text(file.nodata)
    storage = " ".join(filter(None, (file.driver, (file.compression or "").lower())))
    parts = [
        f"{file.path}: {file.cols} x {file.rows}{bands} {file.dtype}",
        f"nodata {nodata}",
        file.crs or "no CRS",
        " x ".join(f"{v:.6g}" for v in dict.fromkeys(file.pixel_size)) + " per pixel",
        storage,
        f"acquired {file.acquired}" if file.acquired else "",
    ]
    return ", ".join(filter(None, parts))


def _pair_rows(facts: CheckFacts) -> list[tuple[str, str]]:
    scene, overlap, sample, agreement = facts.scene, facts.overlap, facts.sample, facts.agreement
    assert scene is not None and overlap is not None
    names = scene["band_names"]
    assumed = [a or "?" for a in scene["assumed_names"]]
    bands = (
        ", ".join(map(str, names))
        if all(names)
        else f"{scene['bands']}, " + (f"taken for {', '.join(assumed)}" if any(scene["assumed_names"]) else "not named")
    )
    shares = f"{overlap.pan_share:.1%} of PAN, {overlap.ms_share:.1%} of MS"
    rows = [
        ("bands", bands),
        *geometry_rows(scene),
        ("overlap", f"{overlap.cols} x {overlap.rows} PAN pixels: {shares}"),
    ]
    if sample:
        some = "all" if sample.blocks == sample.blocks_in_all else f"of {sample.blocks_in_all}"
        plural, side = "s" * (sample.blocks > 1), sample.side
        looked = f"{sample.blocks} block{plural} ({some}) of {side} x {side} PAN pixels"
        rows.append(("looked at", f"{looked}: {sample.valid_share:.1%} valid in PAN and MS"))
    if agreement and agreement.r2 is not None:
        each = " ".join("-" if v is None else f"{v:.2f}" for v in agreement.correlations)
        rows.append(("agreement", f"R2 {agreement.r2:.3f} of low-passed PAN by the bands; correlations {each}"))
    if text := tells_text(facts.pan_tells or []):
        rows.append(("PAN tells", text))
    if told := facts.shift:
        shift = told.found
        known = is_number(shift.rows)
        text = f"MS {shift.rows:+.2f} rows, {shift.cols:+.2f} columns (PAN pixels)" if known else NOT_MEASURABLE
        text += f", confidence {shift.confidence:.2f} from {shift.tiles} tiles"
        if is_number(shift.varies):
            text += f", varies by {shift.varies:.2f}"
        offsets = [math.hypot(*b) for b in shift.bands]
        if any(map(is_number, offsets)):
            text += "; bands off by " + " ".join(f"{v:.2f}" if is_number(v) else "-" for v in offsets)
        rows.append(("shift", f"{text}; fuse: {told.action}"))
    if mtf := facts.mtf:
        table, measured, gains = map(_gain_list, (mtf.table, mtf.measured, mtf.gains))
        rows.append(("MTF", f"gain at Nyquist {measured or NOT_MEASURABLE}, the sensor's {table}; fuse: {gains}"))
    return rows


def _bands_table(bands: Sequence[BandFacts]) -> str:
    """One line per band: what its valid pixels are like."""
    heads = ("", "bits", "min", "max", "mean", "std", "dark", "haze", "floor", "ceiling", "nodata")
    rows: list[tuple[str, ...]] = [heads]
    for band in bands:
        if (of := band.values) is None:
            rows.append((band.name, *["-"] * 9, "100.0%"))
            continue
        depth = "-" if of.bits is None else f"{of.bits} of {8 * np.dtype(band.dtype).itemsize}"
        values = [f"{v:.5g}" for v in (of.minimum, of.maximum, of.mean, of.std, of.dark)]
        each = (of.haze, of.floor_share, of.ceiling_share, band.nodata_share)
        rows.append((band.name, depth, *values, *("-" if v is None else f"{v:.1%}" for v in each)))
    return in_columns(rows, "lr")


def _plan_rows(facts: CheckFacts) -> list[tuple[str, str]]:
    method, output, predicted, adaptation = facts.method, facts.output, facts.prediction, facts.adaptation
    assert method and output and predicted and adaptation
    seconds = predicted.seconds
    weights = f" ({method.weights}, {method.precision} on {method.device})" if method.weights else ""
    how = "off"
    if adaptation.mode != "off":
        how = f"{adaptation.mode}, {adaptation.tiles} tiles, {adaptation.epochs} epochs at most"
        how = how if adaptation.possible else "none: too few valid tiles"
    size = f"{output.cols} x {output.rows} x {output.bands} {output.dtype}, nodata "
    size += "NaN" if output.nodata is None else f"{output.nodata:g}"
    raw, stored = byte_size(predicted.raw_bytes), byte_size(predicted.stored_bytes)
    at_once = f", {method.tiles_at_once} at once" if method.tiles_at_once > 1 else ""
    stages = ", ".join(f"{k} {_duration(v)}" for k, v in seconds.items() if k != "total" and v >= 0.05)
    trial = predicted.trial
    return [
        ("output", (f"{output.path}: " if output.path else "") + f"{size}, {output.driver}"),
        ("size", f"{raw} of pixels, about {stored} in the file"),
        ("method", method.name + weights),
        ("adaptation", how),
        ("tiles", f"{method.tiles} of {method.tile_size} x {method.tile_size}{at_once}"),
        ("time", f"about {_duration(seconds['total'])} on this machine as busy as it is now ({stages}); measured on "
                 f"{trial.cols} x {trial.rows} pixels"),
        ("memory", f"about {byte_size(predicted.memory_bytes)}"),
    ]  # fmt: skip


def _duration(seconds: float) -> str:
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def byte_size(count: float) -> str:
    """A number of bytes to read, in decimal units."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def _quality_rows(quality: Quality) -> list[tuple[str, str]]:
    """The figures by what they tell; nothing where there is none."""

    def line(*keys: str) -> str:
        return "  ".join(f"{FIGURES[k].name} {text_of(k, quality)}" for k in keys if value_of(k, quality) is not None)

    errors = quality["reprojection"]
    each = " ".join(map(number_text, errors["rmse"])) if errors else ""
    rows = [
        ("quality", line("fidelity", "colour_error", "detail_error", "pan_sharpness")),
        ("indices", line("hqnr", "d_lambda_k", "d_s", "qnr", "d_lambda") + f"  ({blocks_text(quality)})"),
        ("detail", line("pan_detail_correlation", "flat_area_activity")),
        ("reprojection", f"RMSE per band {each} DN, {text_of('reprojection', quality)} of the mean" if each else ""),
    ]
    rows = [row for row in rows if row[1]]
    return [(rows[0][0], f"{rows[0][1]}  (sampled)"), *rows[1:]] if quality["sampled"] else rows


def blocks_text(quality: Quality) -> str:
    """How many blocks were measured, and of how many, if they are a sample."""
    if quality["sampled"]:
        return f"sampled: {quality['blocks']} of {quality['blocks_in_all']} blocks"
    return f"{quality['blocks']} blocks"


NOT_MEASURABLE = "not measurable"


def registration_text(found: RegistrationFacts | None) -> str:
    """By how much the MS is off, how sure that is, and what was done."""
    if found is None:
        return "not measured"
    known = all(map(is_number, found["shift"]))
    text = "MS {:+.2f}, {:+.2f} PAN pixels off (rows, columns)".format(*found["shift"]) if known else NOT_MEASURABLE
    if found["source"] != "measured":
        return f"{text}, as recorded in {found['source']}"
    verdict = "corrected" if any(found["applied"]) else "not corrected"
    if not known:
        verdict = f"{verdict}: none of up to {found['searched']:g} PAN pixels fits"
    return f"{text}, confidence {found['confidence']:.2f}, {verdict}"


def _gains(method: MethodFacts) -> str:
    """The MTF gains at Nyquist that were fused with."""
    source = "the sensor's" if method["mtf"] == "sensor" else "measured"
    return f"gain at Nyquist {_gain_list(method['mtf_gains'])} ({source})"


def _gain_list(gains: Sequence[float]) -> str:
    """One gain, where all bands have the same."""
    return " ".join(f"{g:.3g}" for g in (gains if len(set(gains)) > 1 else gains[:1]))


def number_text(value: object, digits: int = 3) -> str:
    return f"{value:.{digits}g}" if is_number(value) else "-"


def adaptation_text(adaptation: AdaptationFacts) -> str:
    if "kept" not in adaptation:
        return f"off: {adaptation['reason']}" if "reason" in adaptation else "off"
    verdict = "kept" if adaptation["kept"] else f"dropped: {adaptation['reason']}"
    text = f"{adaptation['mode']}, {adaptation['tiles']} + {adaptation['reduced_tiles']} tiles, "
    text += f"{adaptation['epochs']} epochs, {adaptation['seconds']:.2f} s"
    before, after = adaptation["before"].get("total"), adaptation["after"].get("total")
    if before is not None and after is not None:
        text += f", held-out loss {before:.4f} -> {after:.4f}"
    return f"{text}, {verdict}"


def ranking(facts: EvaluationFacts) -> str:
    """The table of an evaluation on stdout: one line per result, best first; * marks the best of a column. Of MS files
    on several grids a table each."""
    results = facts["results"]
    tables = ["\n".join([f"MS  {ms}"] * bool(ms) + _ranked(part) + _verdicts(part)) for ms, part in by_ms(results)]
    places = dict.fromkeys(r["quality"]["measured_on"] for r in results)
    lines = [f"measured on: {p}" for p in places]
    return "\n".join(["\n\n".join(tables), *lines, *["* best of its column"] * any("*" in each for each in tables)])


def by_ms(results: Sequence[ResultFacts]) -> list[tuple[str, list[ResultFacts]]]:
    """Names of MS files, and the results of their bands; one without a name where all files lie on one grid."""
    grouped = groupby(results, lambda result: ", ".join(map(os.path.basename, result.get("ms", ()))))
    return [(ms, list(part)) for ms, part in grouped]


def _ranked(results: Sequence[ResultFacts]) -> list[str]:
    """The lines of a table of results."""
    qualities = [r["quality"] for r in results]
    columns = [["", *(str(r["rank"]) for r in results)], ["name", *(" ".join(r["name"].splitlines()) for r in results)]]
    for key in shown_figures(qualities):
        best = best_of(key, qualities)
        cells = [text_of(key, q) + ("*" if i in best else " ") for i, q in enumerate(qualities)]
        columns.append([FIGURES[key].name + " ", *cells])
    return in_columns(zip(*columns, strict=True), "rlr").splitlines()


def _verdicts(results: Sequence[ResultFacts]) -> list[str]:
    """What each result's figures mean, a line each."""
    lines = [
        (str(r["rank"]), " ".join(r["name"].splitlines()), "; ".join(remark["text"] for remark in r["verdict"]))
        for r in results
        if r["verdict"]
    ]
    return ["verdict", *in_columns(lines, "rll").splitlines()] if lines else []


def ranking_csv(facts: EvaluationFacts) -> str:
    """An evaluation as CSV, one row per result; values per band are in numbered columns (`rmse_1`)."""
    rows = [
        {"rank": r["rank"], "name": _cell(r["name"]), "path": _cell(r["path"])}
        | ({"ms": _cell(";".join(r["ms"]))} if "ms" in r else {})
        | _flat(plain(r["quality"]))
        for r in facts["results"]
    ]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(dict.fromkeys(k for row in rows for k in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _cell(text: str | None) -> str:
    """Text that no spreadsheet takes for a formula: an apostrophe before it says that it is none."""
    text = text or ""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _flat(value: Mapping, prefix: str = "") -> dict:
    """Nested values by joined names; list entries are numbered from 1."""
    flat: dict = {}
    for key, entry in value.items():
        if isinstance(entry, Mapping):
            flat |= _flat(entry, f"{prefix}{key}_")
        elif isinstance(entry, list):
            flat |= _flat(dict(enumerate(entry, 1)), f"{prefix}{key}_")
        else:
            flat[f"{prefix}{key}"] = entry
    return flat
