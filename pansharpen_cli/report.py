"""Renders what was found: terminal tables, JSON, CSV, quicklook, HTML. Computes nothing about quality."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import math
import os
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .gallery import FUSED, Panel, Pictures, View, display_bands, label_of, quick_picture
from .raster.writer import read_reduced

QUICKLOOK_SIDE = 1024

# Figures


@dataclass(frozen=True)
class Figure:
    """How a figure is named, written and read. `better`: high, low, one (the nearer to 1) or no (none is best)."""

    name: str
    symbol: str
    digits: int
    better: str
    meaning: str
    unit: str = ""

    def rank(self, value: float) -> float:
        """The lower, the better; NaN where none is better."""
        return {"high": -value, "low": value, "one": abs(value - 1)}.get(self.better, math.nan)


FIGURES = {
    "fidelity": Figure(
        "fidelity", "fidelity", 4, "high",
        "How near the result is to the true bands, as far as PAN and MS tell: in the colours of the MS at its scale, "
        "and with the detail of the PAN below it. 1 is best; right colours without any detail have 0.5. It ranks the "
        "results.",
    ),
    "colour_error": Figure(
        "colour error", "colour error", 2, "low",
        "Result seen through the MTF that the scene shows and sampled on the MS grid, minus the MS: root mean square "
        "relative to the band’s, mean of the bands; 0 is best.",
        " %",
    ),
    "detail_error": Figure(
        "detail error", "detail error", 2, "low",
        "What is finer than the MS: weighted sum of the bands, which the PAN shows, minus the PAN: root mean square "
        "relative to the sum’s; 0 is best.",
        " %",
    ),
    "pan_sharpness": Figure(
        "sharpness", "sharpness", 3, "one",
        "Gain of the detail of that weighted sum on the PAN’s: 1 is as sharp as the PAN, less is softer, more is "
        "sharpened or has detail in the wrong place.",
    ),
    "hqnr": Figure(
        "HQNR", "HQNR", 4, "high",
        "Hybrid quality with no reference (Aiazzi et al. 2014): (1 − D_λ,K)(1 − D_S), from 0 to 1; higher is better. "
        "It rewards what resembles the up-sampled MS, its softness and ringing included: plain up-sampling reaches 0.8 "
        "to 0.9. Published tables have it; of two results it names the better one little more often than a coin.",
    ),
    "d_lambda_k": Figure(
        "D_lambda_K", "D_λ,K", 4, "low",
        "Spectral distortion (Khan et al. 2009): one minus the Q2n between the MS and the fused image blurred with the "
        "sensor’s MTF; 0 is best.",
    ),
    "d_s": Figure(
        "D_s", "D_S", 4, "low",
        "Spatial distortion (Alparone et al. 2008): how much the similarity of each band to PAN changes between the "
        "two resolutions; 0 is best.",
    ),
    "qnr": Figure(
        "QNR", "QNR", 4, "high",
        "Quality with no reference (Alparone et al. 2008): (1 − D_λ)(1 − D_S), from 0 to 1; higher is better. It "
        "rewards softness as HQNR does.",
    ),
    "d_lambda": Figure(
        "D_lambda", "D_λ", 4, "low",
        "Spectral distortion (Alparone et al. 2008): how much the similarity between the bands changes; 0 is best.",
    ),
    "pan_detail_correlation": Figure(
        "PAN detail", "PAN detail", 3, "no",
        "Correlation of the bands’ fine detail with PAN’s: low where the image is blurred or noisy. The true bands do "
        "not reach 1: what they differ in, no PAN shows.",
    ),
    "flat_area_activity": Figure(
        "flat-area activity", "flat-area activity", 2, "low",
        "Fine detail where PAN is flat against that elsewhere, relative to PAN’s own: 1 is as calm as PAN; well above "
        "1 is ringing or noise.",
    ),
    "reprojection": Figure(
        "reprojection", "reprojection", 2, "low",
        "Fused image blurred with the MTF and sampled on the MS grid, minus the MS: root mean square, relative to each "
        "band’s mean, mean of the bands; 0 is perfect consistency with what the sensor measured.",
        " %",
    ),
    "q2n": Figure(
        "Q2n", "Q2n", 4, "high",
        "Vector quality index over all bands (Alparone et al. 2004; Garzelli and Nencini 2009), from 0 to 1; higher is "
        "better.",
    ),
    "q": Figure(
        "Q", "Q", 4, "high",
        "Universal image quality index (Wang and Bovik 2002), mean of the bands, up to 1; higher is better.",
    ),
    "sam": Figure(
        "SAM", "SAM", 3, "low",
        "Spectral angle mapper (Kruse et al. 1993): mean angle between the spectra, in degrees; 0 is best.",
        "°",
    ),
    "ergas": Figure(
        "ERGAS", "ERGAS", 3, "low",
        "Relative global error (Wald 2000): root mean square error relative to the bands’ means, scaled by the ratio; "
        "0 is best.",
    ),
    "sharpness": Figure(
        "sharpness", "sharpness", 3, "one",
        "Energy of the finest detail (high pass, sigma 1 pixel) relative to the reference’s, mean of the bands; 1 is "
        "right, below it the image is soft, above it over-sharpened or noisy.",
    ),
    "edge_error": Figure(
        "beside edges", "error beside edges", 3, "low",
        "Error where PAN is calm beside its strong edges, less its mean nearby: halos, ringing, coloured glow. Root "
        "mean square in units of the band’s standard deviation, mean of the bands; 0 is best.",
    ),
    "scc": Figure(
        "SCC", "SCC", 4, "high", "Spatial correlation (Zhou et al. 1998): of the edges, up to 1; higher is better."
    ),
    "psnr": Figure("PSNR", "PSNR", 2, "high", "Peak signal to noise ratio; higher is better.", " dB"),
    "ssim": Figure(
        "SSIM", "SSIM", 4, "high", "Structural similarity (Wang et al. 2004), up to 1; higher is better."
    ),
    "cc": Figure("CC", "CC", 4, "high", "Correlation coefficient, mean of the bands, up to 1; higher is better."),
    "rmse": Figure(
        "RMSE", "RMSE", 4, "low", "Root mean square error in DN, mean of the bands; 0 is best."
    ),
    "bias": Figure(
        "bias", "|bias|", 4, "low", "Size of the mean difference in DN, mean of the bands; 0 is best."
    ),
}  # fmt: skip
"""All figures in the order in which they are shown."""


def value_of(key: str, quality: Mapping) -> float | None:
    """A figure as one number: that of a band list is the mean of the sizes; None if it was not measured."""
    value = quality.get(key)
    if key == "reprojection":
        value = [None if v is None else 100 * v for v in (value or {}).get("relative") or ()]
    if key in ("colour_error", "detail_error") and value is not None:
        value = [100 * v for v in (value if isinstance(value, list | tuple) else [value])]
    if isinstance(value, list | tuple):
        return sum(map(abs, value)) / len(value) if value and all(map(_known, value)) else None
    return float(value) if value is not None and (_known(value) or value == math.inf) else None


def _known(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def text_of(key: str, quality: Mapping, missing: str = "-") -> str:
    """A figure as it is shown."""
    value, figure = value_of(key, quality), FIGURES[key]
    if value is None:
        return missing
    text = f"{value:.4g}" if key in ("rmse", "bias") else f"{value:.{figure.digits}f}"
    return text + figure.unit


def _shown(qualities: Iterable[Mapping]) -> list[str]:
    """The figures that any of the results has."""
    qualities = list(qualities)
    return [k for k in FIGURES if any(value_of(k, q) is not None for q in qualities)]


def best_of(key: str, qualities: Sequence[Mapping]) -> set[int]:
    """Which of the results are best, as far as the shown digits tell; none where there is nothing to compare."""
    ranks = {}
    for i, quality in enumerate(qualities):
        value = value_of(key, quality)
        rank = math.nan if value is None else FIGURES[key].rank(value)
        if not math.isnan(rank):
            ranks[i] = rank
    if not ranks:
        return set()
    first = text_of(key, qualities[min(ranks, key=lambda i: ranks[i])])
    best = {i for i in ranks if text_of(key, qualities[i]) == first}
    return best if len(best) < len(ranks) else set()


# Terminal, JSON, CSV


def table(facts: dict) -> str:
    """The short table of `fuse` on stdout."""
    scene = facts["scene"]
    rows = [("verdict" if i == 0 else "", remark["text"]) for i, remark in enumerate(facts.get("verdict") or [])]
    rows += [
        ("ratio", " x ".join(f"{v:.6g}" for v in dict.fromkeys(scene["ratio"]))),
        ("offset", "{:.4g}, {:.4g} PAN pixels (rows, columns)".format(*scene["offset"])),
        ("sensor", f"{scene['sensor']} ({scene['sensor_recognised_in']})"),
    ]
    if "registration" in facts:
        rows.append(("registration", _registration(facts["registration"])))
    method, output = facts["method"], facts["output"]
    if "mtf_gains" in method:
        rows.append(("MTF", _gains(method)))
    if method["scale"]:
        rows.append(("scale", f"{method['scale']:.6g} DN"))
    weights = f" ({method['weights']}, {method['precision']} on {method['device']})" if method["weights"] else ""
    rows.append(("method", method["name"] + weights))
    rows.append(("adaptation", _adaptation(facts["adaptation"])))
    if facts.get("quality"):
        rows += _quality_rows(facts["quality"])
    rows.append(("time", f"{facts['seconds']['total']:.2f} s ({_stages(facts['seconds'])})"))
    rows.append(("throughput", f"{facts['megapixels_per_second']:.2f} Mpx/s"))
    size = f"{output['cols']} x {output['rows']} x {scene['bands']} {scene['dtype']}"
    rows.append(("output", f"{output['path']} ({size})"))
    return _aligned(rows)


WIDTH = 100
"""Columns of the report of `check`, where file names allow."""


def check_table(facts: Mapping) -> str:
    """The report of `check` and `fuse --dry-run` on stdout: facts, figures of the bands, what was found."""
    rows = [(f["role"].upper(), _file_line(f)) for f in facts["files"]]
    if facts["scene"]:
        rows += _pair_rows(facts)
    lines = [_wrapped(rows)] if rows else []
    if facts["bands"]:
        lines += ["", _bands_table(facts["bands"])]
    if facts["prediction"]:
        lines += ["", _wrapped(_plan_rows(facts))]
    if facts["findings"]:
        lines += ["", _wrapped([(f["level"], f["text"]) for f in facts["findings"]])]
    elif not facts["refused"]:
        lines += ["", "nothing to complain of"]
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


def _file_line(file: Mapping) -> str:
    bands = f" x {file['bands']}" if file["bands"] > 1 else ""
    nodata = "NaN" if file["nodata_is_nan"] else _plain(file["nodata"])
    storage = " ".join(filter(None, (file["driver"], (file["compression"] or "").lower())))
    parts = [
        f"{file['path']}: {file['cols']} x {file['rows']}{bands} {file['dtype']}",
        f"nodata {nodata}",
        file["crs"] or "no CRS",
        " x ".join(f"{v:.6g}" for v in dict.fromkeys(file["pixel_size"])) + " per pixel",
        storage,
        f"acquired {file['acquired']}" if file["acquired"] else "",
    ]
    return ", ".join(filter(None, parts))


def _pair_rows(facts: Mapping) -> list[tuple[str, str]]:
    scene, overlap, sample = facts["scene"], facts["overlap"], facts["sample"]
    names = scene["band_names"]
    assumed = [a or "?" for a in scene["assumed_names"]]
    bands = (
        ", ".join(names)
        if all(names)
        else f"{scene['bands']}, " + (f"taken for {', '.join(assumed)}" if any(scene["assumed_names"]) else "not named")
    )
    shares = f"{overlap['pan_share']:.1%} of PAN, {overlap['ms_share']:.1%} of MS"
    rows = [
        ("bands", bands),
        ("sensor", f"{scene['sensor']} ({scene['sensor_recognised_in']})"),
        ("ratio", " x ".join(f"{v:.6g}" for v in dict.fromkeys(scene["ratio"]))),
        ("offset", "{:.4g}, {:.4g} PAN pixels (rows, columns)".format(*scene["offset"])),
        ("overlap", f"{overlap['cols']} x {overlap['rows']} PAN pixels: {shares}"),
    ]
    if sample:
        some = "all" if sample["blocks"] == sample["blocks_in_all"] else f"of {sample['blocks_in_all']}"
        plural, side = "s" * (sample["blocks"] > 1), sample["side"]
        looked = f"{sample['blocks']} block{plural} ({some}) of {side} x {side} PAN pixels"
        rows.append(("looked at", f"{looked}: {sample['valid_share']:.1%} valid in PAN and MS"))
    agreement = facts["agreement"]
    if agreement and agreement["r2"] is not None:
        each = " ".join("-" if v is None else f"{v:.2f}" for v in agreement["correlations"])
        rows.append(("agreement", f"R2 {agreement['r2']:.3f} of low-passed PAN by the bands; correlations {each}"))
    shift = facts["shift"]
    if shift:
        known = _known(shift["rows"])
        text = f"MS {shift['rows']:+.2f} rows, {shift['cols']:+.2f} columns (PAN pixels)" if known else NOT_MEASURABLE
        text += f", confidence {shift['confidence']:.2f} from {shift['tiles']} tiles"
        if known:
            text += f", varies by {shift['varies']:.2f}"
        offsets = [math.hypot(*b) for b in shift["bands"]]
        if any(map(_known, offsets)):
            text += "; bands off by " + " ".join(f"{v:.2f}" if _known(v) else "-" for v in offsets)
        rows.append(("shift", f"{text}; fuse: {shift['action']}"))
    if facts["mtf"]:
        table, measured, gains = (_gain_list(facts["mtf"][k]) for k in ("table", "measured", "gains"))
        rows.append(("MTF", f"gain at Nyquist {measured or NOT_MEASURABLE}, the sensor's {table}; fuse: {gains}"))
    return rows


def _bands_table(bands: Sequence[Mapping]) -> str:
    """One line per band: what its valid pixels are like."""
    heads = ("", "bits", "min", "max", "mean", "std", "dark", "haze", "floor", "ceiling", "nodata")
    rows = [heads]
    for band in bands:
        if not band["pixels"]:
            rows.append((band["name"], *["-"] * 9, "100.0%"))
            continue
        depth = "-" if band["bits"] is None else f"{band['bits']} of {8 * np.dtype(band['dtype']).itemsize}"
        values = [f"{band[k]:.5g}" for k in ("minimum", "maximum", "mean", "std", "dark")]
        shares = ["-" if band[k] is None else f"{band[k]:.1%}"
                  for k in ("haze", "floor_share", "ceiling_share", "nodata_share")]  # fmt: skip
        rows.append((band["name"], depth, *values, *shares))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            f"{c:<{w}}" if i == 0 else f"{c:>{w}}" for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _plan_rows(facts: Mapping) -> list[tuple[str, str]]:
    method, output, predicted = facts["method"], facts["output"], facts["prediction"]
    adaptation, seconds = facts["adaptation"], predicted["seconds"]
    weights = f" ({method['weights']}, {method['precision']} on {method['device']})" if method["weights"] else ""
    how = "off"
    if adaptation["mode"] != "off":
        how = f"{adaptation['mode']}, {adaptation['tiles']} tiles, {adaptation['epochs']} epochs at most"
        how = how if adaptation["possible"] else "none: too few valid tiles"
    size = f"{output['cols']} x {output['rows']} x {output['bands']} {output['dtype']}, nodata "
    size += "NaN" if output["nodata"] is None else f"{output['nodata']:g}"
    raw, stored = byte_size(predicted["raw_bytes"]), byte_size(predicted["stored_bytes"])
    at_once = f", {method['tiles_at_once']} at once" if method["tiles_at_once"] > 1 else ""
    stages = ", ".join(f"{k} {_duration(v)}" for k, v in seconds.items() if k != "total" and v >= 0.05)
    trial = predicted["trial"]
    return [
        ("output", (f"{output['path']}: " if output["path"] else "") + f"{size}, {output['driver']}"),
        ("size", f"{raw} of pixels, about {stored} in the file"),
        ("method", method["name"] + weights),
        ("adaptation", how),
        ("tiles", f"{method['tiles']} of {method['tile_size']} x {method['tile_size']}{at_once}"),
        ("time", f"about {_duration(seconds['total'])} on this machine as busy as it is now ({stages}); measured on "
                 f"{trial['cols']} x {trial['rows']} pixels"),
        ("memory", f"about {byte_size(predicted['memory_bytes'])}"),
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


def _aligned(rows: Sequence[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _quality_rows(quality: Mapping) -> list[tuple[str, str]]:
    """The figures by what they tell; what a report does not have is left out."""

    def line(*keys: str) -> str:
        return "  ".join(f"{FIGURES[k].name} {text_of(k, quality)}" for k in keys if value_of(k, quality) is not None)

    rows = [
        ("quality", line("fidelity", "colour_error", "detail_error", "pan_sharpness")),
        ("indices", line("hqnr", "d_lambda_k", "d_s", "qnr", "d_lambda") + f"  ({quality['blocks']} blocks)"),
        ("detail", line("pan_detail_correlation", "flat_area_activity")),
        ("reprojection", ""),
    ]
    reprojection = quality.get("reprojection")
    if reprojection:
        each = " ".join(_number(v) for v in reprojection["rmse"])
        rows[-1] = ("reprojection", f"RMSE per band {each} DN, {text_of('reprojection', quality)} of the mean")
    return [row for row in rows if row[1]]


NOT_MEASURABLE = "not measurable"


def _registration(found: Mapping | None) -> str:
    """By how much the MS is off, how sure that is, and what was done."""
    if found is None:
        return "not measured"
    known = all(map(_known, found["shift"]))
    text = "MS {:+.2f}, {:+.2f} PAN pixels off (rows, columns)".format(*found["shift"]) if known else NOT_MEASURABLE
    if found["source"] != "measured":
        return f"{text}, as recorded in {found['source']}"
    verdict = "corrected" if any(found["applied"]) else "not corrected"
    if not known:
        verdict = f"{verdict}: none of up to {found['searched']:g} PAN pixels fits"
    return f"{text}, confidence {found['confidence']:.2f}, {verdict}"


def _gains(method: Mapping) -> str:
    """The MTF gains at Nyquist that were fused with."""
    source = "the sensor's" if method["mtf"] == "sensor" else "measured"
    return f"gain at Nyquist {_gain_list(method['mtf_gains'])} ({source})"


def _gain_list(gains: Sequence[float]) -> str:
    """One gain, where all bands have the same."""
    return " ".join(f"{g:.3g}" for g in (gains if len(set(gains)) > 1 else gains[:1]))


def _number(value: object, digits: int = 3) -> str:
    return f"{value:.{digits}g}" if _known(value) else "-"


def _stages(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{k} {v:.2f}" for k, v in seconds.items() if k != "total" and v)


def _adaptation(adaptation: Mapping) -> str:
    if "kept" not in adaptation:
        return f"off: {adaptation['reason']}" if "reason" in adaptation else "off"
    verdict = "kept" if adaptation["kept"] else f"dropped: {adaptation['reason']}"
    text = f"{adaptation['mode']}, {adaptation['tiles']} + {adaptation['reduced_tiles']} tiles, "
    text += f"{adaptation['epochs']} epochs, {adaptation['seconds']:.2f} s"
    before, after = adaptation["before"].get("total"), adaptation["after"].get("total")
    if before is not None and after is not None:
        text += f", held-out loss {before:.4f} -> {after:.4f}"
    return f"{text}, {verdict}"


def ranking(facts: Mapping) -> str:
    """The table of an evaluation on stdout: one line per result, best first; * marks the best of a column."""
    results = facts["results"]
    qualities = [r["quality"] for r in results]
    columns = [["", *(str(r["rank"]) for r in results)], ["name", *(" ".join(r["name"].splitlines()) for r in results)]]
    for key in _shown(qualities):
        best = best_of(key, qualities)
        cells = [text_of(key, q) + ("*" if i in best else " ") for i, q in enumerate(qualities)]
        columns.append([FIGURES[key].name + " ", *cells])
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for row in zip(*columns, strict=True):
        name, *figures = row[1:]
        cells = [f"{row[0]:>{widths[0]}}", f"{name:<{widths[1]}}"]
        cells += [f"{c:>{w}}" for c, w in zip(figures, widths[2:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    places = dict.fromkeys(str(q["measured_on"]) for q in qualities if q.get("measured_on"))
    lines += [f"measured on: {p}" for p in places]
    return "\n".join(lines + ["* best of its column"] * any("*" in line for line in lines))


def ranking_csv(facts: Mapping) -> str:
    """An evaluation as CSV, one row per result; values per band are in numbered columns (`rmse_1`)."""
    rows = [
        {"rank": r["rank"], "name": _cell(r["name"]), "path": _cell(r["path"])} | _flat(finite(r["quality"]))
        for r in facts["results"]
    ]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(dict.fromkeys(k for row in rows for k in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula: an apostrophe before it says that it is none."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _flat(value: Mapping, prefix: str = "") -> dict:
    """Nested values by joined names; list entries are numbered from 1."""
    flat: dict = {}
    for key, entry in value.items():
        if isinstance(entry, Mapping):
            flat |= _flat(entry, f"{prefix}{key}_")
        elif isinstance(entry, list):
            flat |= {f"{prefix}{key}_{i}": v for i, v in enumerate(entry, 1)}
        else:
            flat[f"{prefix}{key}"] = entry
    return flat


def to_json(facts: Mapping) -> str:
    """The report as JSON; what could not be measured (NaN) is null."""
    return json.dumps(finite(facts), indent=2, allow_nan=False)


def finite(value):
    """Facts with null for what is not finite, as JSON wants it."""
    if isinstance(value, Mapping):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_bytes(facts: Mapping) -> bytes:
    """A report as the content of a .json file."""
    return to_json(facts).encode() + b"\n"


# Quicklook


def quicklook(fused: str | os.PathLike, names: Sequence[str | None]) -> np.ndarray:
    """True-colour (or first-bands) picture (3, rows, cols) uint8 of a fused file, between percentiles 1 and 99."""
    return quick_picture(*read_reduced(fused, display_bands(names), QUICKLOOK_SIDE)).transpose(2, 0, 1)


# HTML

PICTURE_BYTES = 1_900_000
"""All pictures of a page together, before base64 adds a third: the page stays below 3 MB."""

ENCODINGS = (
    (92, 1.0),
    (88, 1.0),
    (82, 1.0),
    (75, 1.0),
    (66, 1.0),
    (60, 0.75),
    (50, 0.75),
    (50, 0.5),
    (35, 0.4),
    (20, 0.3),
)
"""JPEG quality, and scale of the overviews, from what is wanted to what fits any few results."""

MAP_SIDE = 240
"""Largest side of the map of a single result in pixels."""

MAPS = {
    "hqnr": ("HQNR", "high"),
    "d_lambda_k": ("D_λ,K", "low"),
    "d_s": ("D_S", "low"),
    "q2n": ("Q2n", "high"),
    "sam": ("SAM in degrees", "low"),
}
"""Title of a map and what is better in it."""

TERMS = {
    "total": "weighted sum, its excess over all tiles",
    "reduced": "against the MS itself, one level down",
    "colour": "fused, blurred and sampled, against the MS, means over 3 x 3 MS pixels",
    "sharpness": "energy of the finest detail against the frozen network's",
    "consistency": "distance from the frozen network",
    "spectral": "fused, blurred and sampled, against the MS",
    "spatial": "detail against PAN",
}


def html_bytes(facts: Mapping, pictures: Sequence[tuple[str, Pictures]]) -> bytes:
    """A report as the content of a .html file."""
    return to_html(facts, pictures).encode("utf-8", "replace")


def to_html(facts: Mapping, pictures: Sequence[tuple[str, Pictures]]) -> str:
    """One page that needs nothing but itself, of a fusion or an evaluation; pictures by the name of what they show.

    Names and tags in `facts` are untrusted text and are escaped.
    """
    facts = finite(facts)
    return render(
        "report",
        page=_evaluation_page(facts) if "results" in facts else _fusion_page(facts),
        sections=_sections(pictures),
        facts=facts,
        json=to_json(facts),
    )


def render(name: str, **values: Any) -> str:
    """A page of the template `name`.html.j2 with the script `name`.js and the style of all reports put into it."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup, escape

    folder = Path(__file__).parent
    style, script = (Markup((folder / file).read_text("utf-8")) for file in ("report.css", f"{name}.js"))
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["symbols"] = lambda text: Markup(re.sub(r"D_(λ,K|λ|S)", r"D<sub>\1</sub>", str(escape(text))))
    return environment.get_template(f"{name}.html.j2").render(
        style=style,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        **values,
    )


def _fusion_page(facts: Mapping) -> dict:
    quality, comparison = facts.get("quality"), facts.get("comparison")
    rows = [(r["name"], "", r) for r in comparison["rows"]] if comparison else []
    if quality and not rows:
        rows = [("this result", "", quality)]
    return {
        "title": os.path.basename(facts["output"]["path"]),
        "kind": "Pansharpening report",
        "lead": _lead(facts["scene"], facts["output"]),
        "verdict": facts.get("verdict") or [],
        "tiles": _tiles(quality) if quality else [],
        "measured_on": _measured(quality) if quality else "",
        "table": _figures_table(rows) if rows else None,
        "table_note": f"Measured on {comparison['measured_on']}." if comparison else "",
        "meanings": _meanings([r[2] for r in rows]),
        "bands": _reprojection(quality, facts["scene"]["band_names"]) if quality else None,
        "adaptation": _adaptation_view(facts["adaptation"]),
        "groups": _fact_groups(facts),
        "warnings": facts.get("warnings") or [],
    }


def _evaluation_page(facts: Mapping) -> dict:
    results = facts["results"]
    names = _short_names([r["name"] for r in results])
    rows = [(name, r["path"] or "", r["quality"]) for name, r in zip(names, results, strict=True)]
    kinds = {
        "full": "full resolution, without a reference",
        "reference": "against a reference",
        "wald": "reduced resolution, by Wald’s protocol: the pair degraded, the MS itself as the reference",
    }
    places = dict.fromkeys(str(r["quality"]["measured_on"]) for r in results if r["quality"].get("measured_on"))
    return {
        "title": names[0] if len(names) == 1 else f"{len(names)} results compared",
        "kind": "Evaluation, " + kinds.get(facts["kind"], facts["kind"]),
        "lead": _lead(facts["scene"], None) if facts.get("scene") else [],
        "tiles": [],
        "measured_on": "",
        "table": _figures_table(rows),
        "table_note": "Measured on: " + "; ".join(places) + "." if places else "",
        "meanings": _meanings([r[2] for r in rows]),
        "bands": _errors_per_band(names, results, facts.get("scene")),
        "adaptation": None,
        "groups": _fact_groups(facts),
        "warnings": facts.get("warnings") or [],
    }


def _short_names(names: Sequence[str]) -> list[str]:
    """File names without their folders where that keeps them apart."""
    short = [os.path.basename(n) or n for n in names]
    return short if len(set(short)) == len(short) else list(names)


def _lead(scene: Mapping, output: Mapping | None) -> list[str]:
    """The scene in a few words."""
    rows, cols = scene["window"][1] - scene["window"][0], scene["window"][3] - scene["window"][2]
    ratio = " × ".join(dict.fromkeys(f"{v:.4g}" for v in scene["ratio"]))
    sensor = "unknown sensor" if scene["sensor"] == "generic" else scene["sensor"]
    lead = [sensor, f"{scene['bands']} bands, {scene['dtype']}", f"{cols} × {rows} pixels", f"ratio {ratio}"]
    if output and output.get("valid_pixels") is not None:
        lead.append(f"{100 * output['valid_pixels'] / max(rows * cols, 1):.4g} % valid")
    return [*lead, scene["crs"] or "no CRS"]


def _tiles(quality: Mapping) -> list[dict]:
    """The figures at the head of the page."""
    tiles = []
    for key in ("fidelity", "colour_error", "detail_error", "pan_sharpness", "flat_area_activity", "hqnr"):
        if value_of(key, quality) is None:
            continue
        note = {"high": "higher is better", "low": "lower is better"}.get(FIGURES[key].better, "")
        if key == "pan_sharpness":
            note = "1 is as sharp as PAN"
        elif key == "flat_area_activity":
            note = "1 is as calm as PAN"
        tiles.append(
            {"name": FIGURES[key].symbol, "value": text_of(key, quality), "note": note, "title": FIGURES[key].meaning}
        )
    return tiles


def _measured(quality: Mapping) -> str:
    blocks = f", {quality['blocks']} blocks" if quality.get("blocks") is not None else ""
    gains = quality.get("mtf_gains")
    mtf = f"; MTF gains at Nyquist {', '.join(f'{g:.3g}' for g in gains)}" if gains else ""
    return f"Basis: {quality['measured_on']}{blocks}{mtf}."


def _figures_table(rows: Sequence[tuple[str, str, Mapping]]) -> dict:
    """Heads and rows of cells; rows are (name, note, figures)."""
    qualities = [quality for _, _, quality in rows]
    keys = _shown(qualities)
    best = {k: best_of(k, qualities) for k in keys}
    arrows = {"high": "↑", "low": "↓", "one": "→ 1", "no": ""}
    return {
        "heads": [
            {
                "name": FIGURES[k].symbol,
                "arrow": arrows[FIGURES[k].better],
                "title": FIGURES[k].meaning,
            }
            for k in keys
        ],
        "rows": [
            {
                "name": name,
                "note": note if note != name else "",
                "cells": [{"text": text_of(k, quality, "–"), "best": i in best[k]} for k in keys],
            }
            for i, (name, note, quality) in enumerate(rows)
        ],
    }


def _meanings(qualities: Sequence[Mapping]) -> list[tuple[str, str]]:
    return [(FIGURES[k].symbol, FIGURES[k].meaning) for k in _shown(qualities)]


def _band_labels(names: Sequence[str | None] | None, count: int) -> list[str]:
    return [label_of(names or [None] * count, band) for band in range(1, count + 1)]


def _reprojection(quality: Mapping, names: Sequence[str | None]) -> dict | None:
    """Errors per band against the MS, as a table and a chart."""
    errors = quality.get("reprojection")
    if not errors:
        return None
    labels = _band_labels(names, len(errors["rmse"]))
    rows = [("RMSE (DN)", [_number(v, 4) for v in errors["rmse"]])]
    if errors.get("bias"):
        rows.append(("bias (DN)", [_signed(v) for v in errors["bias"]]))
    relative = errors.get("relative")
    if relative:
        rows.append(("RMSE of the band’s mean", [f"{v:.2%}" if _known(v) else "–" for v in relative]))
    series = [("RMSE", [v and 100 * v for v in relative])] if relative else [("RMSE", errors["rmse"])]
    pixels = f", {errors['pixels']:,} MS pixels" if errors.get("pixels") else ""
    return {
        "title": "Reprojection error per band",
        "note": "The fused image, blurred with the sensor’s MTF and sampled on the MS grid at its exact phase, minus "
        f"the MS{pixels}. What the sensor measured ought to be found again: errors near 0.",
        "labels": labels,
        "rows": rows,
        "chart": _bars(labels, series, "% of the mean" if relative else "DN"),
        "legend": [],
    }


def _errors_per_band(names: Sequence[str], results: Sequence[Mapping], scene: Mapping | None) -> dict | None:
    """RMSE and bias of each result per band, against the reference or, at full resolution, against the MS."""
    found = []
    for name, result in zip(names, results, strict=True):
        quality = result["quality"]
        errors = quality if isinstance(quality.get("rmse"), list) else quality.get("reprojection")
        if errors and errors.get("rmse"):
            found.append((name, errors))
    if not found:
        return None
    labels = _band_labels(scene["band_names"] if scene else None, len(found[0][1]["rmse"]))
    rows = [(f"{n}: RMSE (DN)", [_number(v, 4) for v in e["rmse"]]) for n, e in found]
    rows += [(f"{n}: bias (DN)", [_signed(v) for v in e["bias"]]) for n, e in found if e.get("bias")]
    reprojected = "rmse" not in results[0]["quality"]
    shown = found[:SERIES]
    return {
        "title": "Reprojection error per band" if reprojected else "Error per band",
        "note": "Each image, blurred with the sensor’s MTF and sampled on the MS grid, minus the MS."
        if reprojected
        else "Each image minus the reference.",
        "labels": labels,
        "rows": rows,
        "chart": _bars(labels, [(n, e["rmse"]) for n, e in shown], "RMSE (DN)"),
        "legend": [(n, k + 1) for k, (n, _) in enumerate(shown)],
    }


SERIES = 5
"""Results in one chart: as many as there are colours."""


def _bars(labels: Sequence[str], series: Sequence[tuple[str, Sequence[float | None]]], unit: str):
    from markupsafe import Markup

    from . import charts

    coloured = [(name, values, charts.COLOURS[k + 1]) for k, (name, values) in enumerate(series)]
    return Markup(charts.bars(labels, coloured, unit))


def _signed(value: object) -> str:
    return f"{value:+.3g}" if _known(value) else "–"


def _adaptation_view(adaptation: Mapping) -> dict | None:
    """Verdict, terms before and after, curves."""
    from markupsafe import Markup

    from . import charts

    if "kept" not in adaptation:
        return None
    before, after, history = adaptation["before"], adaptation["after"], adaptation.get("history") or []
    terms = [t for t in TERMS if t in before or (history and t in history[0])]
    terms += [t for t in before if t not in TERMS]
    return {
        "summary": _adaptation(adaptation).replace("->", "→"),
        "rows": [
            (t, TERMS.get(t, ""), _number(before.get(t), 4), _number(after.get(t), 4)) for t in terms if t in before
        ],
        "curves": [
            (t, Markup(charts.curve(t, history, before.get(t), after.get(t))))
            for t in terms
            if any(_known(h.get(t)) for h in history)
        ],
        "kept": adaptation["kept"],
    }


def _fact_groups(facts: Mapping) -> list[tuple[str, list[tuple[str, str]]]]:
    """Names and values of everything that makes the run repeatable, by subject."""
    groups: list[tuple[str, list[tuple[str, str]]]] = []
    scene = facts.get("scene")
    if scene:
        groups.append(("Scene", _scene_rows(scene)))
    if facts.get("registration"):
        groups.append(("Registration", _registration_rows(facts["registration"])))
    if "method" in facts:
        method, output = facts["method"], facts["output"]
        rows = [(k.replace("_", " "), _plain(v)) for k, v in method.items() if v is not None]
        size = f"{output['cols']} × {output['rows']} pixels, {output['driver']}"
        groups.append(("Method", [*rows, ("output", f"{output['path']} ({size})")]))
        groups.append(("Options", [(k.replace("_", " "), _plain(v)) for k, v in facts.get("options", {}).items()]))
    if "seconds" in facts:
        rows = [(k, f"{v:.2f} s") for k, v in facts["seconds"].items() if v]
        groups.append(("Time", [*rows, ("throughput", f"{facts['megapixels_per_second']:.2f} Mpx/s")]))
    software = {"pansharpen": facts["version"]} | dict(facts.get("software") or {})
    groups.append(("Software", [(k, _plain(v)) for k, v in software.items()]))
    return groups


def _registration_rows(found: Mapping) -> list[tuple[str, str]]:
    rows = [("mode", found["mode"]), ("shift", _registration(found))]
    if "bands" in found:
        bands = "; ".join(f"{_signed(r)}, {_signed(c)}" for r, c in found["bands"])
        rows += [
            ("tiles", str(found["tiles"])),
            ("varies by", f"{_number(found['varies'])} PAN pixels"),
            ("bands", bands),
        ]
    return rows


def _scene_rows(scene: Mapping) -> list[tuple[str, str]]:
    r0, r1, c0, c1 = scene["window"]
    names = ", ".join(_band_labels(scene["band_names"], scene["bands"]))
    return [
        ("PAN", scene["pan"]),
        *(("MS", path) for path in scene["ms"]),
        ("bands", names),
        ("type", f"{scene['dtype']}, nodata {_plain(scene['nodata'])}"),
        ("CRS", (scene["crs"] or "none") + (", MS warped" if scene["warped"] else "")),
        ("ratio", " × ".join(f"{v:.9g}" for v in scene["ratio"])),
        ("offset of the MS", "{:.6g}, {:.6g} PAN pixels (rows, columns)".format(*scene["offset"])),
        ("sensor", f"{scene['sensor']} ({scene['sensor_recognised_in']})"),
        ("window", f"rows {r0}–{r1}, columns {c0}–{c1} of the PAN"),
    ]


def _plain(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return "none" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


# HTML: pictures


@dataclass(frozen=True)
class _Group:
    """Pictures of the same places, by the name of what they show."""

    title: str
    parts: list[tuple[str, Pictures]]

    def merged(self, views: Sequence[View]) -> View:
        """What the views share once, and each one's own panels under its own name."""
        panels: dict[str, Panel] = {}
        for (name, _), view in zip(self.parts, views, strict=True):
            for panel in view.panels:
                own = len(self.parts) > 1 and panel.label.startswith(FUSED)
                label = panel.label.replace(FUSED, name, 1) if own else panel.label
                panels.setdefault(label, replace(panel, label=label))
        return replace(views[0], panels=tuple(panels.values()))


def _groups(pictures: Sequence[tuple[str, Pictures]]) -> list[_Group]:
    """Results that are shown at the same places stand side by side."""
    names = _short_names([name for name, _ in pictures])
    groups: dict[tuple, _Group] = {}
    for name, shown in zip(names, (p for _, p in pictures), strict=True):
        places = (shown.overview.window, *(v.window for v in (*shown.details, *shown.closeups)))
        groups.setdefault(places, _Group(name, [])).parts.append((name, shown))
    single = len(groups) == 1
    return [replace(g, title="" if single else ", ".join(n for n, _ in g.parts)) for g in groups.values()]


def _sections(pictures: Sequence[tuple[str, Pictures]]) -> list[dict]:
    """Views for the template, with pictures as data: URIs that all together stay below `PICTURE_BYTES`."""
    groups = _groups(pictures)
    maps = [_maps(group) for group in groups]
    budget = PICTURE_BYTES - sum(len(m["uri"]) * 3 // 4 for ms in maps for each in ms for m in each["pictures"])
    for quality, scale in ENCODINGS:
        views = [_views(group, quality, scale) for group in groups]
        if sum(v["bytes"] for v in views) <= budget:
            break
    return [{"title": g.title, "maps": m, **v, **_histograms(g)} for g, m, v in zip(groups, maps, views, strict=True)]


def _views(group: _Group, quality: int, scale: float) -> dict:
    """Overview, details and close-ups of a group as the template shows them, and their size in bytes."""
    from . import charts

    shown = group.parts[0][1]
    total = 0

    def pictured(views: Sequence[View], encode: Callable[[np.ndarray], bytes]) -> dict:
        nonlocal total
        view = group.merged(views)
        panels = []
        for panel in view.panels:
            pictures = []
            for kind, pixels in _kinds(panel, shown):
                content = encode(pixels)
                total += len(content)
                size = {"height": pixels.shape[0], "width": pixels.shape[1]}
                pictures.append({"kind": kind, "uri": charts.data_uri(content), **size})
            panels.append({"label": panel.label, "pictures": pictures})
        r0, r1, c0, c1 = view.window
        return {"title": view.title, "place": f"rows {r0}–{r1}, columns {c0}–{c1}", "panels": panels}

    overview = pictured([p.overview for _, p in group.parts], lambda p: charts.photograph(p, quality, scale))
    places = []
    for k, (detail, closeup) in enumerate(zip(shown.details, shown.closeups, strict=True)):
        places.append(
            {
                "mark": _inside(detail.window, shown.overview.window),
                "box": _inside(closeup.window, detail.window),
                "detail": pictured([p.details[k] for _, p in group.parts], lambda p: charts.photograph(p, quality)),
                "closeup": pictured([p.closeups[k] for _, p in group.parts], charts.exact),
            }
        )
    return {
        "bytes": total,
        "overview": overview,
        "reduction": round(1 / (shown.overview.scale * scale), 1),
        "places": places,
        "true": shown.true,
        "false": shown.false,
        "error_white": shown.error_white,
    }


def _kinds(panel: Panel, shown: Pictures) -> list[tuple[str, np.ndarray]]:
    """Pictures of a panel: `true`, `false`, or `` for one that stands for both."""
    if panel.false is None or shown.false is None:
        return [("", panel.true)]
    return [("true", panel.true), ("false", panel.false)]


def _inside(inner: Sequence[int], outer: Sequence[int]) -> dict[str, float]:
    """Where a window lies in another, in percent."""
    rows, cols = outer[1] - outer[0], outer[3] - outer[2]
    return {
        "top": 100 * (inner[0] - outer[0]) / rows,
        "left": 100 * (inner[2] - outer[2]) / cols,
        "height": 100 * (inner[1] - inner[0]) / rows,
        "width": 100 * (inner[3] - inner[2]) / cols,
    }


def _histograms(group: _Group) -> dict:
    """A chart per band: the input of all results as an area, each result as a line."""
    from markupsafe import Markup

    from . import charts

    parts = [(name, p.histograms) for name, p in group.parts if p.histograms][: SERIES - 1]
    if not parts:
        return {"histograms": [], "legend": [], "histogram_pixels": 0}
    before, after = list(parts[0][1][0].shares)
    names = [name if len(parts) > 1 else after for name, _ in parts]
    made = []
    for k, first in enumerate(parts[0][1]):
        series = [(before, first, charts.COLOURS[0])]
        series += [(after, each[k], charts.COLOURS[n + 1]) for n, (_, each) in enumerate(parts)]
        made.append((first.band, Markup(charts.histogram(first.band, series))))
    legend = [(name, k) for k, name in enumerate([before, *names])]
    return {"histograms": made, "legend": legend, "histogram_pixels": group.parts[0][1].histogram_pixels}


def _maps(group: _Group) -> list[dict]:
    """Maps by figure, the results side by side on one scale."""
    from . import charts

    keys = dict.fromkeys(k for _, p in group.parts for k in p.maps)
    made, side = [], round(MAP_SIDE / len(group.parts) ** 0.5)
    for key in sorted(keys, key=lambda k: list(MAPS).index(k) if k in MAPS else len(MAPS)):
        title, better = MAPS.get(key, (key, "high"))
        blocks = [(name, np.asarray(p.maps[key], float)) for name, p in group.parts if key in p.maps]
        seen = np.concatenate([b[np.isfinite(b)] for _, b in blocks])
        if not seen.size:
            continue
        low, high = (float(v) for v in np.percentile(seen, (2, 98)))
        pictures = [
            {
                "label": name if len(group.parts) > 1 else "",
                "uri": charts.data_uri(charts.map_picture(b, low, high, better == "low", side)),
                "height": b.shape[0],
                "width": b.shape[1],
            }
            for name, b in blocks
        ]
        made.append(
            {
                "title": title,
                "better": better,
                "low": f"{low:.3g}",
                "high": f"{high:.3g}",
                "gradient": charts.gradient(better == "low"),
                "pictures": pictures,
            }
        )
    return made
