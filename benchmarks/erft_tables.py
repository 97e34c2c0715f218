"""What adapting to the scene (ERFT) brings each network, and what each part of it brings, over a folder of real scenes.

    python benchmarks/erft_tables.py ../shared/data/dev --truescale ../shared/data/dev_truescale -o docs/lab/erft.md
        [--part plug] [--network glpnet] [--scene gf2_1]

Parts, after the tables and figures of arXiv 2508.07369:

    terms      frozen, adapted with our loss terms and with the paper's, also where the truth is known (--truescale)
    plug       every network with weights: adapt off, fast, best, at full and reduced resolution (tables 2 and 3)
    placement  the tailor before the channel mapper, and after it (figure 3)
    ablation   frozen; tailor trained on the whole scene; tiles alone; both (table 4); the networks of --ablate
    sweep      number of tiles, number of epochs (figure 6); the networks of --ablate

Scenes are laid out as for quality.py, every result is written to a file and scored as there. Rows are kept in
`runs/erft.jsonl`, each with a fingerprint of the weights, the settings and the variant: those of other weights or
settings are neither used nor deleted. After a change of the code itself delete the file; the document says so where it
holds rows of several states of the code.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import rasterio
import torch
from erft_variants import (
    ABLATION,
    EPOCH_SWEEP,
    LEVELS_OF,
    PARTS,
    PLACEMENT,
    PLUG,
    SIDE,
    TERMS,
    TILE_SWEEP,
    Variant,
    maker,
    seeded,
)
from quality import measure
from quality_tables import mean

import pansharpen_cli
from pansharpen_cli.models import weights
from pansharpen_cli.models.weights import Card

ABLATED = ("glpnet", "fusionnet")
"""Networks of the ablation and the sweeps, unless others are named."""
BRIEF = 120
"""Minutes of training below which weights are called briefly trained: the paper's networks train for hours on a GPU."""

FULL = {"HQNR": "hqnr", "D_lambda_K": "d_lambda_k", "D_s": "d_s", "PAN detail": "pan_detail_correlation"}
FULL |= {"flat": "flat_area_activity"}
REDUCED = {"Q2n": "q2n", "ERGAS": "ergas", "SAM": "sam"}
TRUE = {"ERGAS": "ergas", "SAM": "sam", "Q2n": "q2n", "beside edges": "edge_error", "sharpness": "sharpness"}


@dataclass(frozen=True)
class SceneFolder:
    path: Path
    bands: int
    levels: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.path.name


def scenes_in(folder: Path, truescale: Path | None, named: Sequence[str] | None) -> list[SceneFolder]:
    """Real scenes, of which --scene may name some, and all of true scale."""
    found = []
    for path in sorted(p.parent for p in folder.glob("*/pan.tif")):
        if not named or path.name in named:
            reduced = (path / "rr").is_dir() or (path / "gt.tif").is_file()
            levels = ("full", "reduced") if reduced else ("full",)
            found.append(SceneFolder(path, rasterio.open(path / "ms.tif").count, levels))
    for path in sorted(p.parent for p in truescale.glob("*/gt.tif")) if truescale else ():
        found.append(SceneFolder(path, rasterio.open(path / "ms.tif").count, ("true",)))
    return found


@dataclass(frozen=True)
class Job:
    scene: SceneFolder
    level: str
    card: Card
    variant: Variant

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.scene.name, self.level, self.card.name, self.variant.fingerprint(self.card)


def jobs_of(
    parts: Sequence[str], scenes: list[SceneFolder], cards: list[Card], ablated: Sequence[str], seeds: int
) -> list[Job]:
    """What the parts need, each row once."""
    jobs: dict[tuple, Job] = {}
    for part in PARTS:
        for card in cards if part in parts else ():
            if part in ("ablation", "sweep") and not named(card, ablated):
                continue
            for scene in scenes:
                if card.bands not in (None, scene.bands):
                    continue
                for level in (level for level in scene.levels if level in LEVELS_OF[part]):
                    for variant in PARTS[part]:
                        for one in seeded(variant, seeds):
                            job = Job(scene, level, card, one)
                            jobs.setdefault(job.key, job)
    return list(jobs.values())


def named(card: Card, names: Sequence[str] | None) -> bool:
    return not names or card.name in names or card.network in names


@dataclass
class Rows:
    """The rows measured so far by scene, level, weights and fingerprint."""

    path: Path
    kept: dict[tuple, dict] = field(default_factory=dict)

    def read(self) -> None:
        if self.path.is_file():
            for line in self.path.read_text().splitlines():
                entry = json.loads(line)
                if "error" not in entry["row"]:  # else it is tried again
                    self.kept[tuple(entry["key"])] = entry["row"]

    def add(self, job: Job, row: dict) -> None:
        self.kept[job.key] = row
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a") as log:
            log.write(json.dumps({"key": job.key, "variant": asdict(job.variant), "row": row}) + "\n")

    def good(self, job: Job) -> dict | None:
        row = self.kept.get(job.key)
        return None if row is None or "error" in row else row


def seconds_left(jobs: list[Job], rows: Rows) -> str:
    """What the jobs without a row will take, judged by rows of the same kind, or as like it as there are."""

    def kinds(job: Job) -> list[tuple]:
        level, name, variant = job.level, job.card.name, job.variant
        return [(level, name, variant), (level, name, variant.adapt), (level, variant.adapt), (level,), ()]

    times: dict[tuple, list[float]] = {}
    for job in jobs:
        row = rows.good(job)
        if row is not None:
            for kind in kinds(job):
                times.setdefault(kind, []).append(row["wall"])
    left = [j for j in jobs if j.key not in rows.kept]
    if not times:
        return f"{len(left)} rows to go"
    total = sum(np.mean(next(times[kind] for kind in kinds(job) if kind in times)) for job in left)
    return f"{len(left)} rows to go, about {total / 60:.0f} minutes"


# Tables -------------------------------------------------------------------------------------------------------------


class Tables:
    """The document's tables of the rows of some scenes and networks."""

    def __init__(self, rows: Rows, scenes: list[SceneFolder], cards: list[Card], seeds: int) -> None:
        self.rows, self.scenes, self.cards, self.seeds = rows, scenes, cards, seeds

    def own(self, card: Card, variants: Sequence[Variant], level: str, bands: int | None = None) -> list[list[dict]]:
        """Rows of each variant, scene by scene and seed by seed, over the scenes on which all gave a result."""
        own: list[list[dict]] = [[] for _ in variants]
        for scene in self.scenes:
            if card.bands in (None, scene.bands) and bands in (None, scene.bands) and level in scene.levels:
                found = [[self.rows.good(Job(scene, level, card, v)) for v in seeded(w, self.seeds)] for w in variants]
                if all(row is not None for rows in found for row in rows):
                    for all_of, rows in zip(own, found, strict=True):
                        all_of += [row | {"scene": scene.name} for row in rows if row is not None]
        return own

    def terms(self) -> list[str]:
        body = []
        for card in self.cards:
            true, full = (self.own(card, [*TERMS.values()], level) for level in ("true", "full"))
            for name, t, f in zip(TERMS, true, full, strict=True):
                if t:
                    cells = [number(mean(t, key)) for key in TRUE.values()]
                    seen = [number(mean(f, key)) for key in ("hqnr", "flat_area_activity")]
                    body.append([card.name, name, str(count(t)), kept(t), *cells, str(count(f)), *seen])
        heads = ["weights", "terms", "scenes", "kept", *TRUE, "real scenes", "HQNR", "flat"]
        return [*table(heads, body), ""] if body else []

    def plug(self) -> list[str]:
        lines = []
        for bands in sorted({s.bands for s in self.scenes if "full" in s.levels}):
            names = [s.name for s in self.scenes if s.bands == bands and "full" in s.levels]
            body = []
            for card in self.cards:
                full = self.own(card, [*PLUG.values()], "full", bands)
                reduced = self.own(card, [*PLUG.values()], "reduced", bands)
                for name, f, r in zip(PLUG, full, reduced, strict=True):
                    if f:
                        body.append([card.name, name, scenes_cell(f, r), kept(f), *figures(f, r), *times(f)])
            if body:
                lines += [f"### Scenes of {bands} bands ({', '.join(names)})", ""]
                heads = ["weights", "adapt", "scenes", "kept", *FULL, *REDUCED, "adapting s", "total s"]
                lines += [*table(heads, body), ""]
        return lines

    def placement(self) -> list[str]:
        body = []
        variants = [PLUG["off"], *PLACEMENT.values()]
        for card in self.cards:
            full, reduced = self.own(card, variants, "full"), self.own(card, variants, "reduced")
            for name, f, r in zip(("frozen", *PLACEMENT), full, reduced, strict=True):
                if f:
                    body.append(
                        [card.name, name, size_of(f), scenes_cell(f, r), kept(f), *figures(f, r), *times(f)[:1]]
                    )
        heads = ["weights", "tailor", "its parameters", "scenes", "kept", *FULL, *REDUCED, "adapting s"]
        return [*table(heads, body), ""] if body else []

    def ablation(self) -> list[str]:
        body = []
        for card in self.cards:
            for name, f in zip(ABLATION, self.own(card, [*ABLATION.values()], "full"), strict=True):
                if f:
                    body.append([card.name, name, str(count(f)), kept(f), trained_on(f), *figures(f), *times(f)])
        heads = ["weights", "what is done", "scenes", "kept", "tiles trained on", *FULL, "adapting s", "total s"]
        return [*table(heads, body), ""] if body else []

    def sweep(self, sweep: dict[str, Variant], what: str) -> list[str]:
        lines = []
        variants = [PLUG["off"], *sweep.values()]
        for card in self.cards:
            rows = self.own(card, variants, "full")
            body = []
            for name, f in zip(("frozen", *sweep), rows, strict=True):
                if f:
                    body.append([name, trained_on(f), kept(f), *figures(f), times(f)[0]])
            if body:
                heads = [what, "tiles trained on", "kept", *FULL, "adapting s"]
                lines += [f"`{card.name}`, {count(rows[0])} scenes:", "", *table(heads, body), ""]
        return lines


def state_of_code() -> str:
    """A digest of the sources of adaptation, fusion and scoring, as they are now."""
    names = ("adapt/*", "fusion/*", "raster/*", "quality/**/*", "models/*", "physics", "covariance")
    found = sorted(path for name in names for path in Path(pansharpen_cli.__file__).parent.glob(f"{name}.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in found)).hexdigest()[:12]


def table(heads: list[str], body: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (heads, ["---"] * len(heads), *body)]


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def figures(full: list[dict], reduced: list[dict] | None = None) -> list[str]:
    """Means, at reduced resolution too unless None; HQNR with its spread over the seeds."""
    cells = [number(mean(full, key)) for key in FULL.values()]
    seeds = len(full) // count(full)
    if seeds > 1:
        cells[0] += f" ± {np.std([mean(full[k::seeds], 'hqnr') or 0.0 for k in range(seeds)], ddof=1):.4f}"
    return cells + [number(mean(reduced, key)) for key in REDUCED.values() if reduced is not None]


def times(rows: list[dict]) -> list[str]:
    """Mean seconds of adapting, and of everything from opening the scene to an array."""
    adapting = [r["adapting"] for r in rows]
    total = [r["reading"] + r["adapting"] + r["fusing"] for r in rows]
    return [f"{np.mean(adapting):.2f}", f"{np.mean(total):.2f}"]


def kept(rows: list[dict]) -> str:
    """On how many scenes the tailor was kept."""
    tailored = [r["kept"] for r in rows if "kept" in r]
    return f"{sum(tailored)} / {len(tailored)}" if tailored else ""


def count(rows: list[dict]) -> int:
    return len({r["scene"] for r in rows})


def scenes_cell(full: list[dict], reduced: list[dict]) -> str:
    return f"{count(full)} + {count(reduced)}"


def trained_on(rows: list[dict]) -> str:
    value = mean(rows, "tiles")
    return "" if value is None else f"{value:.0f}"


def size_of(rows: list[dict]) -> str:
    sizes = {r["tailor"] for r in rows if "tailor" in r}
    return f"{max(sizes)}" if sizes else ""


def busy(rows: list[dict]) -> str:
    """A warning where the rows were measured on a machine that did other work as well."""
    load, cores = np.mean([r["load"] for r in rows]) if rows else 0.0, os.cpu_count() or 1
    if load <= max(r["threads"] for r in rows) + 0.5 if rows else True:
        return ""
    return (
        f" **The machine was busy with other work** (load average {load:.1f} on {cores} cores): seconds are too long."
    )


def mixed(rows: list[dict]) -> str:
    """A warning where the code changed between rows."""
    states = {r["code"] for r in rows}
    return f" **Rows of {len(states)} different states of the code are mixed.**" if len(states) > 1 else ""


def provenance(card: Card) -> str:
    """One line on the weights, from their card."""
    found = re.search(r"minutes[ =](\d+(?:\.\d+)?)", card.command)
    bands = f"{card.bands} bands" if card.bands else "any number of bands"
    line = f"- `{card.name}` ({card.network}, {bands}, sha256 {card.sha256[:12]}): "
    if found is None:
        return line + (f"`{card.command}`" if card.command else "how they were made is not on their card") + "."
    how = "**briefly trained**, " if float(found[1]) < BRIEF else "trained "
    return line + f"{how}for {found[1]} minutes by its card, `{card.command}`."


def sections_of(tables: Tables) -> dict[str, tuple[str, list[str], str]]:
    """Heading, tables and note of each part."""
    return {
        "terms": (
            "Our terms and the paper's",
            tables.terms(),
            "`sharp`, the default, asks for the scene's own pair at reduced resolution, the colours of the MS and the "
            "sharpness of the frozen network; `paper` (`--adapt-loss paper`) for the terms of arXiv 2508.07369 alone. "
            "ERGAS to sharpness are against the truth at the PAN's scale, on aerial images seen by simulated sensors; "
            "HQNR and flat-area activity are of real scenes.",
        ),
        "plug": (
            "Off, fast and best",
            tables.plug(),
            "As `fuse --adapt` does it, with the schedule and the loss weights of each network. At reduced "
            "resolution, against the true MS, scenes are smaller by the ratio, and several are too small to adapt to: "
            "there, adapted is frozen.",
        ),
        "placement": (
            "The tailor before or after the channel mapper",
            tables.placement(),
            "`before` is what `fuse --adapt fast` does: Z + G(Z) between feature extractor and channel mapper. "
            "`after`: the same tailor, loss and schedule on the mapper's output, with as many channels as that has. "
            "`after, widened`: with zeros added to the mapper's output until the tailor has as many channels as before "
            "it, to tell its place from its size.",
        ),
        "ablation": (
            "What the tailor and the tiles bring",
            tables.ablation(),
            f"`whole scene`: fused in one piece; `tiles`: in tiles of {SIDE} pixels. `all tiles`: every valid tile of "
            "the scene, but for the quarter that judges, is trained on in every epoch; `sampled`: as many as `fast` "
            "takes. Epochs and loss are those of `fast`, without its limit of time. Tiles that are cut with their "
            "halo give the same pixels as the whole, so for networks that are not blended the tiles change time and "
            "memory alone.",
        ),
        "sweep": (
            "Number of tiles and of epochs",
            [
                *tables.sweep(TILE_SWEEP, "tiles M"),
                *tables.sweep(EPOCH_SWEEP, "epochs"),
            ],
            "At full resolution; everything else as in `fast`, without its early end, and with as many tiles at "
            "reduced resolution per tile as there. `tiles trained on`: small scenes have fewer than were asked for.",
        ),
    }  # fmt: skip


def document(
    rows: Rows, scenes: list[SceneFolder], cards: list[Card], parts: Sequence[str], seeds: int, command: str
) -> str:
    tables = Tables(rows, scenes, cards, seeds)
    jobs = jobs_of(parts, scenes, cards, [c.name for c in cards], seeds)
    used = [row for job in jobs if (row := rows.good(job)) is not None]
    threads, devices = ({str(r[key]) for r in used} for key in ("threads", "device"))
    precisions = {r["precision"] for r in used}
    lines = [
        "# Adapting networks to the scene",
        "",
        f"`{command}`; {' or '.join(sorted(threads))} thread(s), {' and '.join(sorted(devices))}, "
        f"{' and '.join(sorted(precisions))}. Networks stay frozen; a small Feature Tailor is trained on tiles of the "
        "scene itself and kept only where it does better on tiles that it was not trained on (ERFT, arXiv 2508.07369, "
        "with the changes that `pansharpen_cli/adapt/tailor.py` names). Every result was written to a file in the type "
        "of the MS and scored by `pansharpen evaluate`. Means are over the scenes on which every row of a network gave "
        "a result, so rows of one network are comparable; two networks are where they have the same scenes. `scenes` "
        "counts those at full + reduced resolution, `kept` how many tailors were, at full resolution. Seconds are "
        "those of adapting, and of all from opening the scene to an array; writing and scoring are not in them. "
        + (f"Means over {seeds} seeds, ± the standard deviation over them." if seeds > 1 else "One seed.")
        + busy(used)
        + mixed(used),
        "",
        "None of these scenes was trained on, but the adaptation's schedule and the weights of its loss terms were "
        "chosen on scenes of this folder. HQNR alone is not quality: up-sampling the MS scores well in it. Read it "
        "with the flat-area activity (1 is as calm as PAN) and the reduced resolution.",
        "",
        "Weights:",
        "",
        *(provenance(card) for card in cards if any(j.card == card and rows.good(j) for j in jobs)),
        "",
    ]
    for part, (title, body, note) in sections_of(tables).items():
        if part in parts and body:
            lines += [f"## {title}", "", note, "", *body]
    wrong = [(j, rows.kept[j.key]["error"]) for j in jobs if "error" in rows.kept.get(j.key, {})]
    if wrong:
        lines += ["## No result", ""]
        lines += [f"- `{j.card.name}`, {j.scene.name}, {j.level}, {j.variant}: {why[:160]}" for j, why in wrong]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--truescale", type=Path, help="folder of scenes whose truth at the PAN's scale is known")
    parser.add_argument("-o", "--output", type=Path, help="write the document here instead of to stdout")
    parser.add_argument("--rows", type=Path, default=Path("runs/erft.jsonl"), help="where the rows are kept")
    parser.add_argument("--part", action="append", choices=list(PARTS), help="only this part; again for more")
    parser.add_argument("--scene", action="append", help="only this scene; again for more")
    parser.add_argument("--network", action="append", help="only this network, or weights of this name; again for more")
    parser.add_argument(
        "--ablate", action="append", help="network of the ablation and the sweeps; again for more, default: "
        + ", ".join(ABLATED),
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=1, help="seeds to adapt with and to take the mean over")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=600, help="stop then, to be resumed")
    parser.add_argument("--dry-run", action="store_true", help="say how much is to do, measure and write nothing")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    parts, ablated = args.part or list(PARTS), args.ablate or ABLATED
    scenes = scenes_in(args.folder, args.truescale, args.scene)
    cards = [c for c in weights.manifest().values() if named(c, args.network)]
    rows = Rows(args.rows)
    rows.read()
    jobs = jobs_of(parts, scenes, cards, ablated, args.seeds)
    print(seconds_left(jobs, rows), file=sys.stderr)
    if args.dry_run:
        return
    started, code, warm = time.monotonic(), state_of_code(), set()
    for job in jobs:
        if job.key in rows.kept:
            continue
        if time.monotonic() - started > 60 * args.minutes:
            sys.exit("out of time; run it again to go on")
        if (job.card.name, job.scene.bands) not in warm:  # the first pass of a network also sets up its kernels
            warm.add((job.card.name, job.scene.bands))
            measure(job.scene.path, job.level, maker(job.card, PLUG["fast"], args.device, {}))
        facts: dict = {
            "threads": torch.get_num_threads(),
            "device": args.device,
            "load": os.getloadavg()[0],
            "code": code,
        }
        clock = time.perf_counter()
        row = measure(job.scene.path, job.level, maker(job.card, job.variant, args.device, facts))
        row |= facts | {"wall": time.perf_counter() - clock}
        rows.add(job, row)
        shown = row.get("error") or f"{row.get('ergas', row.get('hqnr', math.nan)):.4f}, {row['wall']:.1f} s"
        print(f"{'/'.join(job.key[:3])} ({job.variant}): {shown}; {seconds_left(jobs, rows)}", file=sys.stderr)
    command = f"python benchmarks/erft_tables.py {args.folder}"
    command += (f" --truescale {args.truescale}" if args.truescale else "") + (
        f" -o {args.output}" if args.output else ""
    )
    command += f" --seeds {args.seeds}" * (args.seeds > 1) + f" --threads {args.threads}" * bool(args.threads)
    for option in ("part", "scene", "network", "ablate"):
        command += "".join(f" --{option} {value}" for value in getattr(args, option) or ())
    text = document(rows, scenes, cards, parts, args.seeds, command)
    if args.output:
        args.output.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
