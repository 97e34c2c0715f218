"""The document of quality.py: rows of figures as tables, and the rows of such a document again.

A row is what one method reached on one scene at one level (`true`, `reduced`, `full`): figures by name, or `error`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

Key = tuple[str, str, str]
"""Scene, level and method of a row."""

Rows = dict[Key, dict]


@dataclass(frozen=True)
class Level:
    """A kind of measurement: its name in headings, its figures by the heads of their columns, what orders them."""

    title: str
    columns: Mapping[str, str]
    order: str
    descending: bool

    def worth(self, row: Mapping) -> float:
        """Sort key, the best first; what is undefined comes last."""
        value = row.get(self.order)
        return math.inf if value is None else -value if self.descending else value


LEVELS = {
    "true": Level(
        "true scale",
        {
            "ERGAS": "ergas",
            "SAM": "sam",
            "Q2n": "q2n",
            "beside edges": "edge_error",
            "sharpness": "sharpness",
            "SCC": "scc",
            "PSNR": "psnr",
        },
        "ergas",
        descending=False,
    ),
    "reduced": Level(
        "reduced resolution",
        {
            "Q2n": "q2n",
            "Q": "q",
            "SAM": "sam",
            "ERGAS": "ergas",
            "SCC": "scc",
            "PSNR": "psnr",
            "SSIM": "ssim",
            "CC": "cc",
            "RR detail": "rr_detail",
        },
        "q2n",
        descending=True,
    ),
    "full": Level(
        "full resolution",
        {
            "fidelity": "fidelity",
            "sharpness": "pan_sharpness",
            "HQNR": "hqnr",
            "D_lambda_K": "d_lambda_k",
            "D_s": "d_s",
            "QNR": "qnr",
            "D_lambda": "d_lambda",
            "PAN detail": "pan_detail_correlation",
            "flat": "flat_area_activity",
            "reprojection %": "reprojection",
        },
        "fidelity",
        descending=True,
    ),
}
"""In the order of the document."""

BLIND = "Blind comparisons"
"""Heading of the section that people write; it stays as it is."""

TOOLS = "Other tools: "


def cell(row: Mapping, key: str) -> str:
    value = row.get(key)
    return "" if value is None else f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"


def mean(rows: Iterable[Mapping], key: str) -> float | None:
    values = [r[key] for r in rows if r.get(key) is not None and math.isfinite(r[key])]
    return float(np.mean(values)) if values else None


# Rows of a document


@dataclass
class Document:
    """What is taken over from a document: its rows, the section that people write, the other tools' versions."""

    rows: Rows = field(default_factory=dict)
    blind: str = ""
    tools: str = ""

    @classmethod
    def parse(cls, text: str) -> Document:
        """The rows have the digits of the tables; `seconds` is the method's mean, which no table has by scene."""
        found = cls()
        seconds: dict[tuple[str, str], float] = {}
        for heading, body in _sections(text):
            for name, level in LEVELS.items():
                if heading.lower() == f"{level.title}, mean over scenes":
                    for method, row in _table(body).items():
                        seconds[name, method] = float(row["seconds"])
                elif heading.endswith(f", {level.title}"):
                    scene = heading.removesuffix(f", {level.title}")
                    found.rows |= {(scene, name, m): r for m, r in _scene_rows(body, level).items()}
        for (_, name, method), row in found.rows.items():
            if (name, method) in seconds and "error" not in row:
                row["seconds"] = seconds[name, method]
        blind = re.search(f"^## {BLIND}\\n(.*?)(?=^## |\\Z)", text, re.MULTILINE | re.DOTALL)
        found.blind = blind[1].strip() if blind else ""
        tools = re.search(f"^{TOOLS}(.+)\\.$", text, re.MULTILINE)
        found.tools = tools[1] if tools else ""
        return found


def _sections(text: str) -> list[tuple[str, str]]:
    parts = re.split(r"^##+ (.+)\n", text, flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def _table(body: str) -> dict[str, dict[str, str]]:
    """Cells by the first cell of the row and the head of the column."""
    lines = [[c.strip() for c in line.strip("|").split("|")] for line in body.splitlines() if line.startswith("|")]
    return {cells[0]: dict(zip(lines[0], cells, strict=True)) for cells in lines[2:]}


def _scene_rows(body: str, level: Level) -> dict[str, dict]:
    made: dict[str, dict] = {}
    for method, cells in _table(body).items():
        made[method] = {key: float(cells[head]) if cells.get(head) else None for head, key in level.columns.items()}
    errors = re.findall(r"^- (.+?): no result: (.+)$", body, re.MULTILINE)
    return made | {method: {"error": error} for method, error in errors}


# Tables


@dataclass(frozen=True)
class Tables:
    """Rows as tables: of the methods `names`, on the scenes that any of them was measured on.

    `classical`: the methods that the others are held against; `presets`: kinds of scenes by scene.
    """

    rows: Rows
    names: Sequence[str]
    classical: Sequence[str]
    presets: Mapping[str, str]

    def scenes(self, level: str) -> list[str]:
        return sorted({s for s, at, n in self.rows if at == level and n in self.names})

    def good(self, level: str, name: str) -> dict[str, dict]:
        """Rows with a result by scene."""
        return {s: r for (s, at, n), r in self.rows.items() if (at, n) == (level, name) and "error" not in r}

    def means(self, level: str) -> list[str]:
        """Means over scenes; methods without a result on some of them stand below."""
        kind = LEVELS[level]
        extra = self._against_classical if level == "true" else lambda own: {}
        table = []
        for name in self.names:
            own = self.good(level, name)
            if own:
                values = {k: mean(own.values(), k) for k in (*kind.columns.values(), "seconds")}
                table.append((name, len(own), values, extra(own)))
        if not table:
            return ["Not measured yet."]
        most = max(count for _, count, *_ in table)
        table.sort(key=lambda t: (t[1] < most, kind.worth(t[2])))
        lines = _head("method", "scenes", *kind.columns, *table[0][3], "seconds")
        for name, count, values, others in table:
            cells = [cell(values, k) for k in kind.columns.values()]
            lines.append(_line(name, str(count), *cells, *others.values(), f"{values['seconds'] or 0:.2f}"))
        return lines

    def _against_classical(self, own: Mapping[str, Mapping]) -> dict[str, str]:
        """ERGAS over that of the classical method that is best by its mean, and on how many scenes it is under all."""
        every = self._best_classical()
        whole = {n: [r["ergas"] for r in g.values()] for n in self.classical if (g := self.good("true", n))}
        most = max(map(len, whole.values()), default=0)
        means = {n: float(np.mean(v)) for n, v in whole.items() if len(v) == most}
        shared = [s for s in own if s in every]
        if not means or not shared:
            return {"of the best classical": "", "under all classical": ""}
        best = self.good("true", min(means, key=lambda n: means[n]))
        shared = [s for s in shared if s in best]
        ratio = sum(own[s]["ergas"] for s in shared) / sum(best[s]["ergas"] for s in shared)
        under = sum(own[s]["ergas"] < every[s][1] for s in shared)
        return {"of the best classical": f"{ratio:.3f}", "under all classical": str(under)}

    def _best_classical(self) -> dict[str, tuple[str, float]]:
        """By scene the classical method of the lowest ERGAS, and that."""
        best: dict[str, tuple[str, float]] = {}
        for name in self.classical:
            for scene, row in self.good("true", name).items():
                if scene not in best or row["ergas"] < best[scene][1]:
                    best[scene] = name, row["ergas"]
        return best

    def by_preset(self) -> list[str]:
        """Mean ERGAS at the true scale by kind of scene."""
        scenes = self.scenes("true")
        kinds = sorted({self.presets[s] for s in scenes})
        table = []
        for name in self.names:
            own = self.good("true", name)
            of_kind = {k: [r for s, r in own.items() if self.presets[s] == k] for k in kinds}
            counts = {k: sum(self.presets[s] == k for s in scenes) for k in kinds}
            values = {k: mean(rows, "ergas") for k, rows in of_kind.items() if len(rows) == counts[k]}
            if values:
                table.append((len(own) < len(scenes), mean(own.values(), "ergas") or math.inf, name, values))
        lines = _head("method", *kinds)
        return lines + [
            _line(name, *(cell(values, k) for k in kinds)) for *_, name, values in sorted(table, key=_first)
        ]

    def by_scene(self, shown: Sequence[str]) -> list[str]:
        """ERGAS at the true scale by scene: the best classical method, some others, and the best of all."""
        best, shown = self._best_classical(), [n for n in shown if self.good("true", n)]
        lines = _head("scene", "best classical", *shown, "best of all")
        for scene in self.scenes("true"):
            found = {n: r for (s, at, n), r in self.rows.items() if (s, at) == (scene, "true") and "error" not in r}
            if not found:
                continue
            first = min(found, key=lambda n, f=found: f[n]["ergas"])  # type: ignore[misc]
            classical = f"{best[scene][1]:.4f} ({best[scene][0]})" if scene in best else ""
            own = [cell(found.get(n, {}), "ergas") for n in shown]
            lines.append(_line(scene, classical, *own, f"{found[first]['ergas']:.4f} ({first})"))
        return lines

    def whole_scene(self, scene: str, level: str) -> list[str]:
        """All figures of all methods on a scene, with a heading; empty where there are none."""
        kind, own = LEVELS[level], {n: r for n in self.names if (r := self.rows.get((scene, level, n)))}
        good = sorted((n for n in own if "error" not in own[n]), key=lambda n: kind.worth(own[n]))
        if not good:
            return []
        lines = [f"### {scene}, {kind.title}", ""]
        lines += _head("method", *kind.columns)
        lines += [_line(n, *(cell(own[n], k) for k in kind.columns.values())) for n in good]
        failed = [n for n in own if "error" in own[n]]
        lines += [""] * bool(failed) + [f"- {n}: no result: {own[n]['error'][:200]}" for n in failed]
        return [*lines, ""]


def _first(row: Sequence) -> tuple:
    return tuple(row[:3])


def _head(*names: str) -> list[str]:
    return [_line(*names), "|" + "---|" * len(names)]


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def document(tables: Tables, command: str, threads: int, tools: str, blind: str, shown: Sequence[str]) -> str:
    """The whole page; `shown`: the methods of the table by scene."""
    lines = [
        "# Quality",
        "",
        f"`{command}`, {threads} thread(s). Every result was written to a file in the type of the MS and scored by "
        "`pansharpen evaluate`, other tools' results too. Rows stay until they are measured again, so they may be of "
        "different runs. All of ours run with the default `--align auto`. Means over fewer scenes (a network for other "
        "band counts, a tool that failed) stand below and are not comparable with the others. Seconds are those of "
        "fusing and writing, with the start of the program for other tools, in some rows beside other work: a hint, no "
        "benchmark.",
        "",
        *([f"{TOOLS}{tools}.", ""] if tools else []),
        "## True scale, mean over scenes",
        "",
        "Aerial images seen by simulated sensors: the truth is known at the PAN's scale, as sharp as the PAN. No "
        "network was trained on these scenes. Ordered by ERGAS; SAM in degrees, PSNR in dB; *beside edges* (the error "
        "there) and *sharpness* (1 is right) are those of [metrics.md](metrics.md). *Of the best classical*: mean "
        "ERGAS over that of the classical method with the lowest mean. *Under all classical*: scenes on which ERGAS is "
        "lower than that of every classical method measured here.",
        "",
        *tables.means("true"),
        "",
        "## True scale, ERGAS by preset",
        "",
        "`soft`: MS with an MTF gain of 0.07; `plain`: 0.3; `crisp`: 0.4 and sharpened on the ground; `aliased`: 0.5; "
        "`apart`: bands displaced by 0.35 PAN pixels; `ratio2`: ratio 2.",
        "",
        *tables.by_preset(),
        "",
        "## True scale, ERGAS by scene",
        "",
        *tables.by_scene(shown),
        "",
        f"## {BLIND}",
        "",
        blind or "None yet.",
        "",
        "## Reduced resolution, mean over scenes",
        "",
        "Real scenes, against the true MS; SAM in degrees, PSNR in dB.",
        "",
        *tables.means("reduced"),
        "",
        "## Full resolution, mean over scenes",
        "",
        "Real scenes without a truth. Ordered by fidelity (docs/metrics.md). HQNR rewards softness, and up-sampling "
        "has it for nothing: do not rank by it. Flat-area activity: 1 is as calm as PAN. `reprojection %`: RMSE of the "
        "result, degraded to the MS, over the band's mean.",
        "",
        *tables.means("full"),
        "",
        "## Per scene",
        "",
    ]
    for level in LEVELS:
        for scene in tables.scenes(level):
            lines += tables.whole_scene(scene, level)
    return "\n".join(lines).rstrip() + "\n"
