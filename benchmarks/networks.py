"""Size, cost, speed and quality of every network, and the default one against another tool on a large scene.

    python benchmarks/networks.py --sizes docs/quality.md
    python benchmarks/networks.py [../shared/data/dev] [-o networks.md] [--bands 8] [--network glpnet] [--device cuda]
    python benchmarks/networks.py --config u2net:bands=8 --config pancrafter:bands=8,width=128
    python benchmarks/networks.py --large 4096 [--oty oty] [--repeat 5]

The first is the table of docs/benchmarks.md, without times: parameters, multiply-accumulates, and errors as the page
of quality.py has them. The second writes a table for each band count: parameters, multiply-accumulates, the time of
`--adapt fast` and of fusing a simulated 512 x 512 scene from open to array, each network in a process of its own with
its peak memory, and HQNR (full resolution) and Q2n (reduced) of `--adapt fast` over the folder's scenes of that band
count, read from quality.py's rows; with --measure, what is missing there is measured as quality.py does. --config adds
a network as it is before any training, for its cost alone. The last runs `pansharpen fuse` and Orthority's `oty
sharpen` in turn, both to a pixel-interleaved deflate GeoTIFF without predictor.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import rasterio
import torch
from gsa import Run, measured
from quality import measure, ours
from quality_tables import cell, mean
from safetensors.torch import save_file
from speed import repeated_scene
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pansharpen_cli import models
from pansharpen_cli.adapt.tailor import FeatureTailor
from pansharpen_cli.fusion import fit as fitting
from pansharpen_cli.fusion import loop
from pansharpen_cli.fusion.options import Options
from pansharpen_cli.models import weights
from pansharpen_cli.models.base import Backbone, Inputs, SceneStats
from pansharpen_cli.raster.scene import Scene
from pansharpen_cli.training import simulate

COUNTED = 128
"""Side of the tile that multiply-accumulates are counted on: attention between all its pixels is done in full there."""
SIDE = 512


@dataclass(frozen=True)
class Subject:
    """A network to measure: installed weights, or a configuration of it that has none."""

    label: str
    network: str
    path: str
    bands: int | None
    trained: bool


def installed() -> list[Subject]:
    cards = weights.manifest().values()
    return [Subject(c.name, c.network, str(c.path), c.bands, True) for c in cards]


def untrained(text: str, folder: Path) -> Subject:
    """NETWORK:key=value,...: the network as it is made, saved as weights are."""
    name, _, options = text.partition(":")
    config = {k: int(v) for k, _, v in (pair.partition("=") for pair in options.split(",") if pair)}
    torch.manual_seed(0)
    network = models.create(name, config)
    path = folder / f"{text.translate(str.maketrans(':=,', '___'))}.safetensors"
    state = {k: v.contiguous() for k, v in network.state_dict().items()}
    save_file(state, path, {"network": name, "config": json.dumps(config)})
    return Subject(text, name, str(path), network.bands, False)


def accumulates(network: Backbone, bands: int, tailored: bool) -> float:
    """Multiply-accumulates per PAN pixel of convolutions and matrix products, the latter also within attention."""
    generator = torch.Generator().manual_seed(0)
    pan, expanded, low = (
        100 + 900 * torch.rand(1, n, COUNTED, COUNTED, generator=generator) for n in (1, bands, bands)
    )
    inputs = Inputs(pan, expanded, low)
    stats = SceneStats.fit(inputs)
    tailor = FeatureTailor(network.features, bands) if tailored else torch.nn.Identity()
    # as plain products, and with gradients: the counter does not know the CPU's fused attention and convolutions
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        residual = network.map(tailor(network.extract(network.encode(inputs, stats))))
        network.spread(residual, inputs, stats)
        network.base(inputs, stats)
    return counter.get_total_flops() / 2 / COUNTED**2


def cost(subject: Subject, pan: str, ms: str, bands: int, device: str, threads: int, repeat: int) -> dict:
    """Times, memory and size; meant for a process of its own."""
    if threads:
        torch.set_num_threads(threads)
    options = Options(subject.network, subject.path, "fast", device=device)
    times: list[dict[str, float]] = []
    for _ in range(repeat + 1):
        clock = time.perf_counter()
        with Scene.open(pan, [ms]) as scene:
            fit = fitting.fit(scene, options)
            fitted = time.perf_counter()
            loop.fuse_array(scene, fit.fuser)
        done = time.perf_counter()
        assert fit.seconds is not None
        times.append({"adapting": fit.seconds["adapting"], "fusing": done - fitted, "total": done - clock})
    load = os.getloadavg()[0]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    found = {key: statistics.median(t[key] for t in times[1:]) for key in times[0]}
    if torch.cuda.is_available() and device != "cpu":
        found["device memory"] = torch.cuda.max_memory_allocated() / 1e9
    network = weights.load(weights.find(subject.network, bands, subject.path), bands)
    return found | {
        "memory": memory,
        "parameters": sum(p.numel() for p in network.parameters()),
        "tailor": sum(p.numel() for p in FeatureTailor(network.features, bands).parameters()),
        "accumulates": accumulates(network, bands, False),
        "tailored": accumulates(network, bands, True),
        "precision": fit.precision,
        "threads": torch.get_num_threads(),
        "load": load,
    }


def write_simulated(folder: str, bands: int) -> tuple[str, str]:
    made = simulate.simulate(simulate.Simulation(rows=SIDE, cols=SIDE, bands=bands, seed=7))
    pan, ms, _ = simulate.write_scene(made, Path(folder))
    return str(pan), str(ms)


def alone(function, *args):
    """The function's result, from a fresh process, so that its peak memory is its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


# Quality ------------------------------------------------------------------------------------------------------------


class Quality:
    """The rows of quality.py over the scenes of a folder."""

    def __init__(self, folder: Path | None, path: Path, missing: bool) -> None:
        self.path, self.missing = path, missing
        folders = sorted(p.parent for p in folder.glob("*/pan.tif")) if folder else []
        self.scenes = [(f, rasterio.open(f / "ms.tif").count) for f in folders]
        self.rows: dict[tuple[str, str, str], dict] = {}
        if path.is_file():
            for line in path.read_text().splitlines():
                kept = json.loads(line)
                self.rows[kept["scene"], kept["level"], kept["method"]] = kept["row"]

    def row(self, folder: Path, level: str, network: str) -> dict:
        """Empty where there is none, or no result."""
        key = folder.name, level, f"{network} fast"
        if key not in self.rows and self.missing:
            row = self.rows[key] = measure(folder, level, ours(network, "fast"))
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a") as log:
                log.write(json.dumps({"scene": key[0], "level": level, "method": key[2], "row": row}) + "\n")
            print(*key, row, file=sys.stderr)
        row = self.rows.get(key, {})
        return {} if "error" in row else row

    def means(self, subject: Subject, bands: int) -> dict:
        if not subject.trained or str(weights.find(subject.network, bands, None).path) != subject.path:
            return {}  # the rows are of the weights that a network takes unless others are named
        own = [f for f, count in self.scenes if count == bands]
        full = [r for f in own if (r := self.row(f, "full", subject.network))]
        known = [f for f in own if (f / "rr").is_dir() or (f / "gt.tif").is_file()]
        reduced = [r for f in known if (r := self.row(f, "reduced", subject.network))]
        counts = {"scenes": f"{len(full)} + {len(reduced)}"} if full or reduced else {}
        return {"hqnr": mean(full, "hqnr"), "q2n": mean(reduced, "q2n")} | counts


# Tables -------------------------------------------------------------------------------------------------------------


def table(rows: list[tuple[Subject, dict]]) -> list[str]:
    heads = ["network", "parameters", "tailor's", "MAC / pixel", "with tailor"]
    heads += ["adapting s", "fusing s", "total s", "peak memory GB"]
    device = any("device memory" in facts for _, facts in rows)
    heads += ["device memory GB"] * device + ["HQNR", "Q2n", "scenes"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for subject, facts in sorted(rows, key=lambda row: row[1]["total"]):
        cells = [subject.label if subject.trained else f"{subject.label} (untrained)"]
        cells += [f"{facts[key]:,}".replace(",", " ") for key in ("parameters", "tailor")]
        cells += [f"{facts[key]:,.0f}".replace(",", " ") for key in ("accumulates", "tailored")]
        cells += [f"{facts[key]:.3f}" for key in ("adapting", "fusing", "total")] + [f"{facts['memory']:.2f}"]
        cells += [f"{facts.get('device memory', 0):.2f}"] * device
        cells += [cell(facts, "hqnr"), cell(facts, "q2n"), facts.get("scenes", "")]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def true_scale(page: Path) -> dict[str, list[tuple[float, float]]]:
    """ERGAS and Q2n of each method on the scenes of true scale that networks of four bands were measured on."""
    found: dict[str, list[tuple[float, float]]] = {}
    for section in page.read_text().split("\n### ")[1:]:
        title, *lines = section.splitlines()
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
        if title.endswith(", true scale") and any(row[0] == "fusionnet off" for row in rows):
            places = [rows[0].index(figure) for figure in ("ERGAS", "Q2n")]
            for row in rows[2:]:
                ergas, q2n = (float(row[place]) for place in places)
                found.setdefault(row[0], []).append((ergas, q2n))
    return found


def sizes(page: Path) -> str:
    """A row for each network: with its weights for four and for eight bands."""
    figures = true_scale(page)
    heads = ["network", "parameters, 4 bands", "8 bands", "tailor's", "MAC / pixel, 4 bands", "8 bands"]
    heads += ["ERGAS frozen", "adapted", "Q2n frozen", "adapted", "scenes"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]

    def errors(methods: Sequence[str]) -> list[str]:
        every = [figures.get(method, []) for method in methods]
        means = [f"{statistics.mean(f[k] for f in done):.3f}" if done else "" for k in (0, 1) for done in every]
        return [*means, str(max(map(len, every))) if any(every) else ""]

    for name in dict.fromkeys(subject.network for subject in installed()):
        made = [weights.load(weights.find(name, bands, None), bands) for bands in (4, 8)]
        numbers = [sum(p.numel() for p in network.parameters()) for network in made]
        numbers += [sum(p.numel() for p in FeatureTailor(made[0].features, 4).parameters())]
        numbers += [round(accumulates(network, bands, False)) for network, bands in zip(made, (4, 8), strict=True)]
        cells = [name, *(f"{number:,}".replace(",", " ") for number in numbers)]
        lines.append(f"| {' | '.join([*cells, *errors([f'{name} off', f'{name} fast'])])} |")
    lines.append(f"| {' | '.join(['`gsa`', *[''] * 5, *errors(['gsa', ''])])} |")
    return "\n".join(lines) + "\n"


def networks(args: argparse.Namespace) -> str:
    quality = Quality(args.folder, args.rows, args.measure)
    command = "python benchmarks/networks.py" + (f" {args.folder}" if args.folder else "")
    for option in ("network", "config", "bands"):
        command += "".join(f" --{option} {value}" for value in getattr(args, option) or ())
    command += f" --device {args.device}" * (args.device != "cpu") + f" --threads {args.threads}" * bool(args.threads)
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        subjects = [s for s in installed() if not args.network or {s.network, s.label} & set(args.network)]
        subjects += [untrained(text, folder) for text in args.config or ()]
        facts: dict = {}
        for bands in args.bands or (8, 4):
            (folder / str(bands)).mkdir()
            pan, ms = alone(write_simulated, str(folder / str(bands)), bands)
            rows = []
            for subject in subjects:
                if subject.bands in (None, bands):
                    facts = alone(cost, subject, pan, ms, bands, args.device, args.threads, args.repeat)
                    rows.append((subject, facts | quality.means(subject, bands)))
                    print(bands, subject.label, rows[-1][1], file=sys.stderr)
            if rows:
                lines += [f"### {SIDE} x {SIDE} x {bands}", "", *table(rows), ""]
    if not facts:
        raise SystemExit("no such network")
    note = (
        f"`{command}`; {args.device}, {facts['threads']} thread(s), {facts['precision']}, median of {args.repeat} "
        "after a warm-up. Times are those of `--adapt fast` on a simulated scene: of training the tailor, of fusing "
        "with it, and of all from opening the scene to an array. Multiply-accumulates (MAC) are those of "
        "convolutions and matrix products per PAN pixel, all bands together, on a tile without its halo. Peak "
        "memory is that of the process, with Python and torch. HQNR and Q2n: means over real scenes of that band "
        "count (full + reduced resolution), adapted `fast`; empty where they were not measured."
    )
    if facts["load"] > facts["threads"] + 0.5:
        note += f" **The machine was busy with other work** (load average {facts['load']:.1f}): times are too long."
    return "\n".join([note, "", *lines]).rstrip() + "\n"


def large(args: argparse.Namespace) -> str:
    """The default network and Orthority in turn, as processes of their own."""
    oty = shutil.which(args.oty or "oty")
    if oty is None:
        raise SystemExit("Orthority's oty is not on the PATH: name it with --oty")
    bands = (args.bands or [4])[0]
    if args.threads:
        os.environ["OMP_NUM_THREADS"] = str(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        pan, ms = alone(repeated_scene, Path(folder), args.large, bands)
        target = Path(folder, "fused.tif")
        theirs = [oty, "-q", "sharpen", "-p", pan, "-ms", ms, "-of", str(target), "-cm", "deflate", "-nbo", "-o"]
        common = [sys.executable, "-m", "pansharpen_cli", "fuse", pan, ms, "-o", str(target), "--overwrite"]
        common += ["--quiet", "--no-score", "--device", args.device]
        for option in ("COMPRESS=DEFLATE", "PREDICTOR=1", "INTERLEAVE=PIXEL"):  # oty's
            common += ["--co", option]
        programs = {"Orthority": theirs}
        for network in args.network or [models.DEFAULT]:
            for adapt in args.adapt or ["fast"]:
                programs[f"{network} {adapt}"] = [*common, "--method", network, "--adapt", adapt]
        runs: dict[str, list[Run]] = {name: [] for name in programs}
        for _ in range(args.repeat + 1):
            for name, command in programs.items():
                runs[name].append(measured(command, target))
                print(name, runs[name][-1], file=sys.stderr)
    lines = []
    rounds = {name: done[1:] for name, done in runs.items()}  # the first warms the caches
    for name, done in rounds.items():
        wall, processor, memory, size = (
            statistics.median(getattr(r, key) for r in done) for key in ("wall", "processor", "memory", "size")
        )
        line = f"{name:15} {args.large} x {args.large} x {bands}: {wall:.2f} s wall, {processor:.2f} s processor, "
        line += f"peak memory {memory:.0f} MB, file {size:.0f} MB"
        if name != "Orthority":
            ratios = [b.wall / a.wall for a, b in zip(rounds["Orthority"], done, strict=True)]
            line += f"; wall / Orthority's: median {statistics.median(ratios):.2f} ("
            line += " ".join(f"{r:.2f}" for r in ratios) + ")"
        lines.append(line)
    load = os.getloadavg()[0]
    lines.append(f"{os.cpu_count()} cores, {args.threads or 'all'} OpenMP threads, load average {load:.1f} at the end")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="scenes whose quality is shown; see quality.py")
    parser.add_argument("--sizes", type=Path, help="no times, and the errors that this page of quality.py has")
    parser.add_argument("-o", "--output", type=Path, help="write here instead of to stdout")
    parser.add_argument("--rows", type=Path, default=Path("runs/quality.jsonl"), help="rows of quality.py")
    parser.add_argument("--measure", action="store_true", help="measure the rows that are missing there")
    parser.add_argument("--network", action="append", help="only this network; again for more")
    parser.add_argument("--config", action="append", help="an untrained network, e.g. u2net:bands=8; again for more")
    parser.add_argument("--bands", type=int, action="append", help="band count of the scene; default: 8, then 4")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--threads", type=int, default=0, help="of torch; with --large OMP_NUM_THREADS of both programs"
    )
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--large", type=int, help="compare with Orthority on a scene of that side")
    parser.add_argument("--adapt", action="append", help="--adapt of --large, default: fast; again for more")
    parser.add_argument("--oty", default=shutil.which("oty"), help="Orthority's command")
    args = parser.parse_args()
    text = sizes(args.sizes) if args.sizes else large(args) if args.large else networks(args)
    if args.output:
        args.output.write_text(text)
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
