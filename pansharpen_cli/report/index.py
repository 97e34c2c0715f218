"""One HTML page of all scenes of a batch: quicklooks, figures to sort by, failures, links to each scene's report."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .. import __version__, untrusted
from ..publish import check_own, read_own
from ..publish import write as write_file
from . import charts
from .facts import LeftOver, Record, Seam
from .figures import FIGURES
from .html import render
from .verdict import in_short

PAGE = "index.html"
GENERATOR = b'<meta name="generator" content="pansharpen '
"""In the head of each page that this tool makes."""
MOST_PIXELS = 1 << 24
"""Most pixels of a quicklook that is unpacked for the page: the tool's own are far smaller."""
THUMBNAIL = 192
"""Largest side of the pictures in the table in pixels; they are shown at half of it."""

VISIBLE = 0.01
"""Share of the mean from which on a step between neighbours is seen as a line."""


def write(folder: Path, records: Iterable[Record], left: Sequence[LeftOver] = (), seams: Sequence[Seam] = ()) -> Path:
    """Write the page of a batch's records, of the files that are `left` over and why, and of the `seams` between its
    outputs into its folder.

    Raises PansharpenError if it cannot be written, InputError if there is one of another origin.
    """
    path = folder / PAGE
    check_own(path, lambda content: GENERATOR in content[:4096] or not content)
    write_file(path, to_html(folder, list(records), left, seams).encode("utf-8", "replace"))
    return path


def to_html(folder: Path, records: Sequence[Record], left: Sequence[LeftOver] = (), seams: Sequence[Seam] = ()) -> str:
    """The page, the scene of the lowest fidelity first; all that the records say is untrusted text and is escaped."""
    shown = [k for k in FIGURES if any(k in (r.figures or {}) for r in records)]
    counts = Counter(_status(r) for r in records)
    lead = [f"{len(records)} scenes", *(f"{n} {status}" for status, n in sorted(counts.items()))]
    seconds = [r.seconds for r in records if r.seconds is not None]
    if seconds:
        lead.append(f"{sum(seconds) / len(seconds):.3g} s per scene")
    return render(
        "index",
        version=__version__,
        title=folder.resolve().name,
        lead=lead,
        figures=[FIGURES[k] for k in shown],
        rows=[_row(folder, r, shown) for r in sorted(records, key=_worth)],
        failures=[r for r in records if r.has_failed],
        left=left,
        seams=seams,
        percent=lambda share: _cell(None if share is None else 100 * share, 2, " %")["text"],
        visible=VISIBLE,
    )


def _status(record: Record) -> str:
    return "interrupted" if record.status == "started" else record.status


def _worth(record: Record) -> float:
    """Sort key: the scenes that ought to be looked at first, those without a fidelity last."""
    value = (record.figures or {}).get("fidelity")
    return float(value) if isinstance(value, int | float) and abs(value) < 1e15 else float("inf")


def _row(folder: Path, record: Record, shown: Sequence[str]) -> dict[str, Any]:
    figures = record.figures or {}
    verdict: Mapping[str, object] = record.verdict or {}
    cells = [_cell(figures.get(k), FIGURES[k].digits, FIGURES[k].unit) for k in shown]
    pixels, valid = (record.rows or 0) * (record.cols or 0), record.valid_pixels
    share = 100 * valid / pixels if pixels and valid is not None else None
    cells += [_cell(pixels / 1e6 or None, 2, " Mpx"), _cell(share, 1, " %"), _cell(record.seconds, 1, " s")]
    quicklook = record.quicklook or ""
    return {
        "scene": record.scene,
        "status": _status(record),
        "error": record.error or "",
        "verdict": {key: str(verdict.get(key, "")) for key in ("text", "level")},
        "short": in_short(str(verdict.get("text", ""))),
        "link": quote(os.fsencode(record.page or record.report or "")),
        "quicklook": quote(os.fsencode(quicklook)),
        "picture": _thumbnail(folder / quicklook) if quicklook else "",
        "cells": cells,
    }


def _cell(value: Any, digits: int, unit: str) -> dict[str, str]:
    if not isinstance(value, int | float) or not abs(value) < 1e15:
        return {"value": "", "text": "–"}
    return {"value": repr(value), "text": f"{value:.{digits}f}{unit}"}


def _thumbnail(path: Path) -> str:
    """A small JPEG as a data: URI; nothing where there is no picture."""
    from PIL import Image

    if untrusted.file_kind(path):
        return ""
    try:
        with Image.open(io.BytesIO(read_own(path, 1 << 26)), formats=["PNG", "JPEG"]) as image:
            if image.width * image.height > MOST_PIXELS:
                return ""
            small = image.convert("RGB")
            small.thumbnail((THUMBNAIL, THUMBNAIL))
    except Exception:  # what a damaged picture runs into can be anything
        return ""
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=75)
    return charts.data_uri(buffer.getvalue())
