"""Reports as one HTML page that needs nothing beside it."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import tables
from ..raster.plain import read_reduced
from ..untrusted import printable
from . import charts
from .facts import (
    AdaptationFacts,
    EvaluationFacts,
    FusionFacts,
    Quality,
    SceneFacts,
    plain,
)
from .figures import FIGURES, Figure, best_of, is_number, shown_figures, text_of, value_of
from .files import plain_text, signed_text, to_json
from .pictures import Pictures, label_of, quick_picture, true_colour
from .sections import SERIES, sections, short_names
from .text import (
    adaptation_text,
    bands_text,
    blocks_text,
    by_ms,
    called,
    geometry_rows,
    number_text,
    registration_text,
)

QUICKLOOK_SIDE = 1024


def quicklook(fused: str | os.PathLike, names: Sequence[str | None]) -> np.ndarray:
    """True-colour (or first-bands) picture (3, rows, cols) uint8 of a fused file, between percentiles 1 and 99."""
    return quick_picture(*read_reduced(fused, true_colour(names).bands, QUICKLOOK_SIDE)).transpose(2, 0, 1)


_WORDS = tables.read(__file__)
TERMS: dict[str, str] = _WORDS["terms"]


def html_bytes(facts: FusionFacts | EvaluationFacts, pictures: Sequence[tuple[str, Pictures]]) -> bytes:
    """A report as the content of a .html file."""
    return to_html(facts, pictures).encode("utf-8", "replace")


def to_html(facts: FusionFacts | EvaluationFacts, pictures: Sequence[tuple[str, Pictures]]) -> str:
    """One page that needs nothing but itself, of a fusion or an evaluation; pictures by the name of what they show.
    Names and tags in `facts` are untrusted text and are escaped."""
    made: Any = plain(facts)
    return render(
        "report",
        page=_evaluation_page(made) if "results" in made else _fusion_page(made),
        sections=sections(pictures),
        colours=charts.COLOURS,
        series=SERIES,
        arrows={"high": "↑", "low": "↓", "one": "→ 1", "no": ""},
        adaptation_text=adaptation_text,
        bands_of=_bands_of,
        blocks_text=blocks_text,
        geometry_rows=geometry_rows,
        ms_names=_ms_names,
        number_text=number_text,
        plain_text=plain_text,
        registration_text=registration_text,
        signed_text=signed_text,
        terms=TERMS,
        facts=made,
        json=to_json(made),
    )


def render(name: str, **values: Any) -> str:
    """A page of the template `name`.html.j2 with the script `name`.js and the style of all reports put into it."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup, escape

    folder = Path(__file__).parent / "templates"
    style, script = (Markup((folder / file).read_text("utf-8")) for file in ("report.css", f"{name}.js"))
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["symbols"] = lambda text: Markup(re.sub(r"D_(λ,K|λ|S)", r"D<sub>\1</sub>", str(escape(text))))
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = environment.get_template(f"{name}.html.j2").render(
        style=style, script=script, script_hash=script_hash, **values
    )
    return printable(page)  # names may hold what HTML does not


def _fusion_page(facts: FusionFacts) -> dict:
    quality, comparison, groups = facts["quality"], facts["comparison"], facts["groups"]
    rows, note = [("this result", "", quality)] if quality else [], ""
    if comparison:
        rows, note = [(r["name"], "", r) for r in comparison["rows"]], f"Measured on {comparison['measured_on']}."
    if groups:
        rows = [(_ms_names(group), "", group["quality"]) for group in groups if group["quality"]]
        note = "A row is of the bands of MS files on one grid. The tiles above and the pictures are of the first."
    return {
        "title": os.path.basename(facts["output"]["path"]),
        "kind": "Pansharpening report",
        "tiles": _tiles(quality) if quality else [],
        "tables": [("", _figures_table(rows), [])] if rows else [],
        "table_note": note,
        "meanings": _figures([r[2] for r in rows]),
        "bands": _errors([("", quality)], groups[0]["scene"] if groups else facts["scene"]) if quality else [],
        "curves": _curves(facts["adaptation"]),
    }


def _evaluation_page(facts: EvaluationFacts) -> dict:
    results = facts["results"]
    short = dict(zip(names := list(dict.fromkeys(r["name"] for r in results)), short_names(names), strict=True))
    tables, bands = [], []
    for title, part in by_ms(results):
        scene = next((g["scene"] for g in facts["groups"] if g["scene"]["ms"] == part[0].get("ms")), facts["scene"])
        rows = [(short[r["name"]], r["path"] or "", r["quality"]) for r in part]
        verdicts = [(short[r["name"]], r["verdict"]) for r in part if r["verdict"]]
        tables.append((title, _figures_table(rows), verdicts))
        bands += _errors([(name, quality) for name, _, quality in rows], scene)
    places = dict.fromkeys(r["quality"]["measured_on"] for r in results)
    return {
        "title": short[names[0]] if len(names) == 1 else f"{len(names)} results compared",
        "kind": f"Evaluation, {_WORDS['kinds'][facts['kind']]}",
        "tiles": [],
        "tables": tables,
        "table_note": f"Measured on: {'; '.join(places)}.",
        "meanings": _figures([r["quality"] for r in results]),
        "bands": bands,
    }


def _tiles(quality: Quality) -> list[tuple[Figure, str, str]]:
    """The figures at the head of the page, as text, and what is good in each."""
    hints: dict[str, str] = _WORDS["tiles"]
    return [(FIGURES[k], text_of(k, quality), hint) for k, hint in hints.items() if value_of(k, quality) is not None]


def _figures(qualities: Iterable[Mapping]) -> list[Figure]:
    return [FIGURES[k] for k in shown_figures(qualities)]


def _figures_table(rows: Sequence[tuple[str, str, Mapping]]) -> dict:
    """The figures that are shown, and rows of name, note and cells: text, and whether it is the best of its column.
    `rows` are (name, note, figures)."""
    qualities = [quality for *_, quality in rows]
    keys = shown_figures(qualities)
    best = {k: best_of(k, qualities) for k in keys}
    cells = [[(text_of(k, quality, "–"), i in best[k]) for k in keys] for i, quality in enumerate(qualities)]
    named = [(name, note if note != name else "") for name, note, _ in rows]
    return {"figures": _figures(qualities), "rows": [(*of, each) for of, each in zip(named, cells, strict=True)]}


def _errors(results: Sequence[tuple[str, Mapping]], scene: SceneFacts | None) -> list[dict]:
    """What results (name, figures) are off by per band, against the reference or, at full resolution, against the MS;
    that of a fusion has no name."""
    every = [(name, quality.get("reprojection") or quality) for name, quality in results]
    found = [(name, errors) for name, errors in every if errors.get("rmse")]
    if not found:
        return []
    (first, errors), count = found[0], len(found[0][1]["rmse"])
    labels = [label_of(called(scene) if scene else [None] * count, band) for band in range(1, count + 1)]
    if first:
        chart = charts.bars(labels, [(name, each["rmse"]) for name, each in found[:SERIES]], "RMSE (DN)")
    else:
        chart = charts.bars(labels, [("RMSE", [v and 100 * v for v in errors["relative"]])], "% of the mean")
    return [{"labels": labels, "results": found, "reprojected": "rmse" not in results[0][1], "chart": chart}]


def _curves(adaptation: AdaptationFacts) -> list[tuple[str, str]]:
    """Charts of the terms of the loss."""
    before, after, history = adaptation.get("before", {}), adaptation.get("after", {}), adaptation.get("history") or []
    shown = (term for term in {**TERMS, **before} if any(is_number(each.get(term)) for each in history))
    return [(term, charts.curve(term, history, before.get(term), after.get(term))) for term in shown]


def _ms_names(group: Mapping) -> str:
    return ", ".join(map(os.path.basename, group["scene"]["ms"]))


def _bands_of(scene: SceneFacts) -> str:
    return bands_text(scene) or ", ".join(label_of(called(scene), band) for band in range(1, scene["bands"] + 1))
