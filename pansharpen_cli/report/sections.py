"""The sections of a page with pictures: overviews, details, histograms and maps, within a limit of bytes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from . import charts
from .pictures import FUSED, Panel, Pictures, View

PICTURE_BYTES = 1_900_000
"""All pictures of a page together, before base64 adds a third: the page stays below 3 MB."""

ENCODINGS = (
    (92, 1.0), (88, 1.0), (82, 1.0), (75, 1.0), (66, 1.0), (60, 0.75), (50, 0.75), (50, 0.5), (35, 0.4), (20, 0.3),
    (8, 0.2),
)  # fmt: skip
"""JPEG quality, and scale of the overviews, from what is wanted to what fits any few results."""

SERIES = len(charts.COLOURS) - 1
"""Results in one chart: as many as there are colours."""

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


def short_names(names: Sequence[str]) -> list[str]:
    """File names without their folders where that keeps them apart."""
    short = [os.path.basename(n) or n for n in names]
    return short if len(set(short)) == len(short) else list(names)


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
    names = short_names([name for name, _ in pictures])
    groups: dict[tuple, _Group] = {}
    for name, shown in zip(names, (p for _, p in pictures), strict=True):
        places = (shown.part, shown.overview.window, *(v.window for v in (*shown.details, *shown.closeups)))
        groups.setdefault(places, _Group(name, [])).parts.append((name, shown))
    single = len(groups) == 1
    return [replace(g, title="" if single else _listed(g)) for g in groups.values()]


def _listed(group: _Group) -> str:
    part, names = group.parts[0][1].part, ", ".join(name for name, _ in group.parts)
    return f"{part}: {names}" if part else names


def sections(pictures: Sequence[tuple[str, Pictures]]) -> list[dict]:
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
    shown = group.parts[0][1]
    total = 0

    def pictured(views: Sequence[View], encode: Callable[[np.ndarray], bytes]) -> dict:
        nonlocal total
        view = group.merged(views)
        panels = []
        for panel in view.panels:
            pictures, grey = [], panel.false is None
            for kind, pixels in (("" if grey else "true", panel.true), ("false", panel.false)):
                if pixels is not None:
                    content = encode(pixels)
                    total += len(content)
                    pictures.append(_picture(content, pixels.shape, kind))
            panels.append({"label": panel.label, "pictures": pictures})
        r0, r1, c0, c1 = view.window
        return {"title": view.title, "place": f"rows {r0}–{r1}, columns {c0}–{c1}", "panels": panels}

    overview = pictured([p.overview for _, p in group.parts], lambda p: charts.photograph(p, quality, scale))
    places = [
        {
            "mark": _inside(detail.window, shown.overview.window),
            "box": _inside(closeup.window, detail.window),
            "detail": pictured([p.details[k] for _, p in group.parts], lambda p: charts.photograph(p, quality)),
            "closeup": pictured([p.closeups[k] for _, p in group.parts], charts.exact),
        }
        for k, (detail, closeup) in enumerate(zip(shown.details, shown.closeups, strict=True))
    ]
    reduction = round(1 / (shown.overview.scale * scale), 1)
    return {"bytes": total, "overview": overview, "reduction": reduction, "places": places, "shown": shown}


def _inside(inner: Sequence[int], outer: Sequence[int]) -> str:
    """Where a window lies in another, in percent, as CSS."""
    (top, bottom, left, right), rows, cols = inner, outer[1] - outer[0], outer[3] - outer[2]
    sides = {"top": (top - outer[0]) / rows, "left": (left - outer[2]) / cols}
    sides |= {"width": (right - left) / cols, "height": (bottom - top) / rows}
    return ";".join(f"{side}:{part:.3%}" for side, part in sides.items())


def _histograms(group: _Group) -> dict:
    """A chart per band: the input of all results as an area, each result as a line."""
    parts = [(name, p.histograms) for name, p in group.parts if p.histograms][: SERIES - 1]
    if not parts:
        return {"histograms": [], "legend": [], "histogram_pixels": 0}
    before, after = list(parts[0][1][0].shares)
    names = [name if len(parts) > 1 else after for name, _ in parts]
    made = []
    for k, first in enumerate(parts[0][1]):
        series = [(before, first), *((after, each[k]) for _, each in parts)]
        made.append((first.band, charts.histogram(first.band, series)))
    legend = [(name, k) for k, name in enumerate([before, *names])]
    return {"histograms": made, "legend": legend, "histogram_pixels": group.parts[0][1].histogram_pixels}


def _maps(group: _Group) -> list[dict]:
    """Maps by figure, the results side by side on one scale."""
    keys = dict.fromkeys(k for _, p in group.parts for k in p.maps)
    made, side, several = [], round(MAP_SIDE / len(group.parts) ** 0.5), len(group.parts) > 1
    for key in sorted(keys, key=lambda k: list(MAPS).index(k) if k in MAPS else len(MAPS)):
        title, better = MAPS.get(key, (key, "high"))
        blocks = [(name, np.asarray(p.maps[key], float)) for name, p in group.parts if key in p.maps]
        seen = np.concatenate([b[np.isfinite(b)] for _, b in blocks])
        if not seen.size:
            continue
        low, high = (float(v) for v in np.percentile(seen, (2, 98)))
        pictures = [
            _picture(charts.map_picture(b, low, high, better == "low", side), b.shape, name if several else "")
            for name, b in blocks
        ]
        ends = {"low": f"{low:.3g}", "high": f"{high:.3g}", "gradient": charts.gradient(better == "low")}
        made.append({"title": title, "pictures": pictures, **ends})
    return made


def _picture(content: bytes, shape: Sequence[int], name: str) -> dict:
    """A picture for the template. `name`: of a panel `true`, `false` or nothing where one stands for both; of a map the
    result, where there are several."""
    return {"name": name, "uri": charts.data_uri(content), "height": shape[0], "width": shape[1]}
