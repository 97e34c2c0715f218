"""Charts as SVG and pictures as data: URIs, for a report that opens without a network."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any

import numpy as np

from .pictures import Histogram, reduce_map

GREY = "#8a919c"
"""Colour of the axes and of the input; it reads on a light and on a dark page."""

COLOURS = (GREY, "#2b7bd0", "#e0851a", "#1f9d83", "#b25cc7", "#c9485b")
"""Colours of the input and of the results, in order, in charts and legends; they read on both pages, too."""

MAP_LEVELS = 64

_STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "pansharpen", "text.parse_math": False, "font.size": 8,
    "axes.edgecolor": GREY, "axes.linewidth": 0.6, "axes.spines.top": False, "axes.spines.right": False,
    "xtick.color": GREY, "ytick.color": GREY, "xtick.major.width": 0.6, "ytick.major.width": 0.6,
    "axes.formatter.limits": (-4, 6),
}  # fmt: skip


@contextmanager
def _axes(width: float, height: float, label: str) -> Iterator[tuple]:
    """A figure of that size (inches) and its axes; the finished SVG is appended to the list that is yielded, marked as
    safe for a page."""
    import matplotlib
    from markupsafe import Markup
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        made: list[str] = []
        yield figure.add_subplot(), made
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    made.append(Markup(_inline(buffer.getvalue(), label)))


def _inline(svg: str, label: str) -> str:
    """SVG for the middle of a page: no prologue, no namespaces, no ids but those that are referred to."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r' id="[\w.]+_\d+"', "", svg)
    svg = re.sub(r"\n\s*", "\n", svg)
    return svg.replace("<svg", f'<svg class="chart" role="img" aria-label="{escape(label)}"', 1)


def histogram(band: str, parts: Sequence[tuple[str, Histogram]]) -> str:
    """SVG of one band's distributions, in DN: (label, histogram that holds it) each, the input first."""
    with _axes(2.7, 1.5, f"Histogram of {band}: " + " and ".join(p[0] for p in parts)) as (axes, made):
        for k, (label, held) in enumerate(parts):
            density = held.shares[label] / np.diff(held.edges)
            axes.stairs(density, held.edges, color=COLOURS[k], fill=not k, alpha=1 if k else 0.45, linewidth=1.2)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_ylim(bottom=0)
        axes.locator_params(axis="x", nbins=5)
    return made[0]


def bars(names: Sequence[str], series: Sequence[tuple[str, Sequence[float | None]]], unit: str) -> str:
    """SVG of values per band, side by side: (label, values) of each result."""
    label = ", ".join(s[0] for s in series) + f" per band in {unit}"
    with _axes(max(3.6, min(8.0, 1 + 0.75 * len(names))), 1.9, label) as (axes, made):
        width = 0.8 / len(series)
        for k, (_, values) in enumerate(series):
            heights = [np.nan if v is None else v for v in values]
            axes.bar(np.arange(len(names)) + (k + 0.5) * width - 0.4, heights, width * 0.92, color=COLOURS[k + 1])
        axes.axhline(0, color=GREY, linewidth=0.6)
        axes.set_xticks(range(len(names)), names, rotation=30 if len(names) > 5 else 0)
        axes.set_ylabel(unit)
        axes.locator_params(axis="y", nbins=5)
    return made[0]


def curve(term: str, history: Sequence[Mapping], before: float | None, after: float | None) -> str:
    """SVG of one loss term per epoch on the training tiles, and on held-out tiles before and after."""
    epochs = [h["epoch"] for h in history]
    with _axes(2.7, 1.5, f"{term} per epoch") as (axes, made):
        axes.plot(epochs, [h.get(term, np.nan) for h in history], color=COLOURS[1], marker=".", linewidth=1.4)
        if term == "total":
            held = [(h["epoch"], h["held_out"]) for h in history if h.get("held_out") is not None]
            if held and before is not None:
                held.insert(0, (0, before))
            if held:
                axes.plot(*zip(*held, strict=True), color=COLOURS[2], marker=".", linewidth=1.2)
        for at, value, filled in ((0, before, False), (epochs[-1] + 1, after, True)):
            if value is not None:
                axes.plot([at], [value], "o", color=COLOURS[2], fillstyle="full" if filled else "none", markersize=5)
        axes.set_ylim(bottom=0)
        axes.set_xlim(-0.04 * (epochs[-1] + 1), 1.04 * (epochs[-1] + 1))  # the first point is the frozen network's
        axes.xaxis.get_major_locator().set_params(integer=True, nbins=6)
        axes.locator_params(axis="y", nbins=4)
    return made[0]


def map_picture(blocks: np.ndarray, low: float, high: float, bright_is_low: bool, side: int = 240) -> bytes:
    """PNG, of at most `side` pixels a side, of a map between two values; transparent where nothing was measured."""
    from PIL import Image

    blocks = reduce_map(blocks, side)
    part = np.clip((blocks - low) / max(high - low, 1e-12), 0, 1)
    part = 1 - part if bright_is_low else part
    seen = np.isfinite(part)
    index = np.where(seen, np.nan_to_num(part) * (MAP_LEVELS - 1) + 0.5, MAP_LEVELS).astype(np.uint8)
    picture = Image.frombytes("P", index.shape[::-1], index.tobytes())
    picture.putpalette(_palette().tobytes() + bytes(3))
    return _png(picture, transparency=MAP_LEVELS)


def gradient(bright_is_low: bool) -> str:
    """The colours of a map from its low to its high end, for CSS."""
    colours = _palette()[:: (MAP_LEVELS - 1) // 7][:: -1 if bright_is_low else 1]
    return "linear-gradient(90deg," + ",".join("#{:02x}{:02x}{:02x}".format(*c) for c in colours.tolist()) + ")"


def _palette() -> np.ndarray:
    from matplotlib import colormaps

    return colormaps["viridis"](np.linspace(0, 1, MAP_LEVELS), bytes=True)[:, :3]


def photograph(picture: np.ndarray, quality: int, scale: float = 1.0) -> bytes:
    """JPEG of (rows, cols, 3) uint8 without colour subsampling, reduced by `scale`."""
    from PIL import Image

    image = Image.fromarray(picture)
    if scale < 1:
        image = image.resize(
            (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BOX
        )
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=0)  # optimize=True fails on noise: too small a buffer
    return buffer.getvalue()


def exact(picture: np.ndarray) -> bytes:
    """PNG of (rows, cols, 3) uint8: for pixels that are shown enlarged."""
    from PIL import Image

    return _png(Image.fromarray(picture))


def _png(image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True, **options)
    return buffer.getvalue()


def data_uri(content: bytes) -> str:
    kind = "png" if content.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
