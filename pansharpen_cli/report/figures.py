"""The figures of a report: names, units, which is better, how they are written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import tables


@dataclass(frozen=True)
class Figure:
    """How a figure is named, written and read: a table of figures.toml. `better`: high, low, one (the nearer to 1) or
    no (none is best)."""

    name: str
    symbol: str
    digits: int
    better: str
    meaning: str
    unit: str = ""

    def rank(self, value: float) -> float:
        """The lower, the better; NaN where none is better."""
        return {"high": -value, "low": value, "one": abs(value - 1)}.get(self.better, math.nan)


FIGURES = {key: Figure(**{"symbol": row["name"], **row}) for key, row in tables.read(__file__).items()}
"""All figures in the order in which they are shown."""


def value_of(key: str, quality: Mapping) -> float | None:
    """A figure as one number: that of a band list is the mean of the sizes; None if it was not measured."""
    value = quality.get(key)
    if key == "reprojection":
        value = [None if v is None else 100 * v for v in (value or {}).get("relative") or ()]
    if key in ("colour_error", "detail_error") and value is not None:
        value = [100 * v for v in (value if isinstance(value, list | tuple) else [value])]
    if isinstance(value, list | tuple):
        return sum(map(abs, value)) / len(value) if value and all(map(is_number, value)) else None
    return float(value) if value is not None and (is_number(value) or value == math.inf) else None


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def text_of(key: str, quality: Mapping, missing: str = "-") -> str:
    """A figure as it is shown."""
    value, figure = value_of(key, quality), FIGURES[key]
    if value is None:
        return missing
    text = f"{value:.4g}" if key in ("rmse", "bias") else f"{value:.{figure.digits}f}"
    return text + figure.unit


def shown_figures(qualities: Iterable[Mapping]) -> list[str]:
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
