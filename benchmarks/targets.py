"""How fast the commands are that people use, beside GDAL, Orthority and Orfeo ToolBox: the table of docs/benchmarks.md.

    python benchmarks/targets.py [--rounds 5] [--oty oty] [--only NAME] [--memory] [--write docs/benchmarks.md]

Scenes are simulated and repeated. The programs of a row run in turn, as processes of their own, `--rounds` times after
one round that warms the caches: medians of the wall time and of the processor time (user and system), and the ratio of
the medians. Run it on an idle machine; on a busy one the processor times still tell. A program that is not there is
left out and named above the table, and so is a target that is a ratio to it. `--memory` adds time and peak memory at
4096 and 16384 pixels, which takes minutes. `--write` puts the table in the page, between its marks.

GDAL's gdal_pansharpen.py and Orfeo ToolBox's otbcli_BundleToPerfectSensor are looked for on the PATH, Orthority's oty
too or where --oty says (pip install orthority).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gsa import CREATION, metered
from speed import repeated_scene

from pansharpen_cli import __version__
from pansharpen_cli.training import simulate

MARKS = "<!-- table of benchmarks/targets.py -->", "<!-- end of the table -->"

PROGRAM = [sys.executable, "-m", "pansharpen_cli"]


@dataclass(frozen=True)
class Run:
    """Seconds of wall and of processor time, peak memory in GB."""

    wall: float
    processor: float
    memory: float


@dataclass(frozen=True)
class Row:
    """A line of the table: `command` in words, what is run, and what it is to be against the row named `beside`."""

    name: str
    command: str
    run: Callable[[], Run]
    beside: str = ""
    target: str = ""


def environment() -> dict[str, str]:
    """Modules are compiled in the first round only, as if they had been installed."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {"PYTHONPYCACHEPREFIX": os.path.join(tempfile.gettempdir(), "pansharpen-targets")} | kept


def process(command: list[str]) -> Run:
    """Run a command to its end."""
    wall, processor, memory = metered(command, environment())
    return Run(wall, processor, memory / 1e9)


def part(key: str, command: list[str]) -> Run:
    """The seconds of one step of `fuse`, as its report has them."""
    done = subprocess.run([*command, "--json"], check=True, capture_output=True, text=True, env=environment())
    facts = json.loads(done.stdout)
    return Run(facts["seconds"][key], float("nan"), float("nan"))


def fresh_batch(scenes: Path, target: Path, jobs: int) -> Run:
    """Its wall time alone: what its workers take is not seen from outside."""
    shutil.rmtree(target, ignore_errors=True)
    run = process([*PROGRAM, "batch", str(scenes), "-o", str(target), "-j", str(jobs), "--quiet"])
    return Run(run.wall, float("nan"), float("nan"))


def others(args: argparse.Namespace) -> dict[str, str]:
    """Other tools, and the programs that are looked for."""
    return {"Orthority": args.oty, "GDAL": "gdal_pansharpen.py", "Orfeo ToolBox": "otbcli_BundleToPerfectSensor"}


def large_rows(folder: Path, args: argparse.Namespace) -> list[Row]:
    rows = []
    for bands in (4, 8):
        place = folder / f"large{bands}"
        place.mkdir()
        pan, ms = repeated_scene(place, args.side, bands)
        out, size = str(place / "fused.tif"), f"{args.side} x {args.side} x {bands}"
        fuse = [*PROGRAM, "fuse", pan, ms, "-o", out, "--overwrite", "--quiet"]
        oty, gdal, otb = (shutil.which(program) for program in others(args).values())
        theirs, plain = f"Orthority, {size}", f"Orthority without overviews, {size}"
        if oty:
            sharpen = [oty, "-q", "sharpen", "-p", pan, "-ms", ms, "-of", out, "-cm", "deflate", "-o"]
            rows.append(Row(theirs, "oty sharpen -cm deflate", partial(process, sharpen)))
            rows.append(Row(plain, "oty sharpen -cm deflate -nbo", partial(process, [*sharpen, "-nbo"])))
        if otb:
            to = f"{out}?&gdal:co:COMPRESS=DEFLATE&gdal:co:PREDICTOR=2&gdal:co:TILED=YES"
            bundle = [otb, "-inp", pan, "-inxs", ms, "-method", "rcs", "-out", to, "uint16"]
            words = "otbcli_BundleToPerfectSensor -method rcs"
            rows.append(Row(f"Orfeo ToolBox, {size}", words, partial(process, bundle), plain))
        rows.append(Row(f"default, {size}", "pansharpen fuse", partial(process, fuse), theirs, "1.0"))
        scoring = partial(part, "scoring", fuse)
        rows.append(Row(f"of it scoring, {size}", "pansharpen fuse --json", scoring, target="0.5 s"))
        for words in ("--no-overviews", "--no-overviews --no-score"):
            command = partial(process, [*fuse, *words.split()])
            rows.append(Row(f"default {words}, {size}", f"pansharpen fuse {words}", command, plain))
        if bands == 4:
            made = [word for option in CREATION for word in ("-co", option)]
            beside = f"GDAL, {size}"
            if gdal:
                command = [args.python, gdal, "-q", pan, ms, out, "-threads", "ALL_CPUS", *made]
                rows.append(Row(beside, "gdal_pansharpen.py", partial(process, command)))
            gsa = [*fuse, "--no-score", "--method", "gsa", *(w.replace("-co", "--co") for w in made)]
            rows.append(Row(f"gsa, {size}", "fuse --method gsa --no-score", partial(process, gsa), beside, "1.2"))
            seconds = args.side**2 / 4e6
            evaluate = [*PROGRAM, "evaluate", out, "--pan", pan, "--ms", ms]
            rows.append(
                Row(f"evaluate, {size}", "pansharpen evaluate", partial(process, evaluate), target=f"{seconds:.1f} s")
            )
    return rows


def small_rows(folder: Path, args: argparse.Namespace) -> list[Row]:
    rows = []
    for bands, target in ((4, "0.3 s"), (8, "0.5 s")):
        place = folder / f"small{bands}"
        place.mkdir()
        made = simulate.simulate(simulate.Simulation(rows=512, cols=512, bands=bands, seed=7))
        pan, ms, _ = map(str, simulate.write_scene(made, place))
        fuse = [*PROGRAM, "fuse", pan, ms, "-o", str(place / "fused.tif"), "--overwrite", "--quiet"]
        size = f"512 x 512 x {bands}"
        if bands == 8:
            rows.append(Row(f"default, {size}", "pansharpen fuse", partial(process, fuse), target="1.5 s"))
        rows.append(Row(f"of it adapting, {size}", "fuse --json", partial(part, "adapting", fuse), target=target))
    return rows


def batch_rows(folder: Path, args: argparse.Namespace) -> list[Row]:
    scenes = folder / "scenes"
    for number in range(12):
        place = scenes / f"{number:02}"
        place.mkdir(parents=True)
        repeated_scene(place, 1024, 4)
    one, two = "batch -j 1, 12 scenes of 1024 x 1024 x 4", "batch -j 2, the same scenes"
    return [
        Row(one, "pansharpen batch -j 1", partial(fresh_batch, scenes, folder / "done", 1)),
        Row(
            two, "pansharpen batch -j 2", partial(fresh_batch, scenes, folder / "done", 2), one, "0.56 (1 / 1.8), 12 s"
        ),
    ]


def memory_rows(folder: Path, args: argparse.Namespace) -> list[Row]:
    rows = []
    for side in (4096, 16384):
        for bands in (4, 8):
            place = folder / f"memory{side}x{bands}"
            place.mkdir()
            pan, ms = repeated_scene(place, side, bands)
            fuse = [*PROGRAM, "fuse", pan, ms, "-o", str(place / "fused.tif"), "--overwrite", "--quiet"]
            name = f"memory, {side} x {side} x {bands}"
            rows.append(Row(name, "pansharpen fuse", partial(process, fuse), target="0.9 GB"))
    return rows


KINDS = {"large": large_rows, "small": small_rows, "batch": batch_rows}


def measured(rows: list[Row], rounds: int) -> list[str]:
    """The table's lines: all rows in turn, the first round to warm the caches."""
    done: dict[str, list[Run]] = {row.name: [] for row in rows}
    for number in range(rounds + 1):
        for row in rows:
            run = row.run()
            print(f"round {number}: {row.name}: {run}", file=sys.stderr, flush=True)
            done[row.name] += [run] if number or not rounds else []
    lines = []
    for row in rows:
        wall, processor, memory = (
            statistics.median(getattr(r, key) for r in done[row.name]) for key in ("wall", "processor", "memory")
        )
        spread = f"{min(r.wall for r in done[row.name]):.2f} to {max(r.wall for r in done[row.name]):.2f}"
        beside = done.get(row.beside)
        ratio = f"{wall / statistics.median(r.wall for r in beside):.2f} x {row.beside.split(',')[0]}" if beside else ""
        cells = [row.name, f"`{row.command}`", f"{wall:.2f} ({spread})"]
        cells += ["" if x != x else f"{x:.2f}" for x in (processor, memory)]
        cells += [ratio, "" if row.beside and not beside else row.target]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def machine(args: argparse.Namespace) -> str:
    model = "an unknown processor"
    if Path("/proc/cpuinfo").is_file():
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        model = found[1] if found else model
    load = os.getloadavg()[0]
    absent = [name for name, program in others(args).items() if not shutil.which(program)]
    there = f"Measured with {__version__} on {os.cpu_count()} cores of {model}, Python {platform.python_version()}"
    rounds = f"medians of {max(args.rounds, 1)} rounds in turn, the least and the most"
    left_out = f" Not installed there: {', '.join(absent)}." if absent else ""
    return f"{there}: {rounds}; load average {load:.1f} at the end.{left_out}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="0: one, and no other to warm the caches")
    parser.add_argument("--side", type=int, default=4096, help="of the large scenes")
    parser.add_argument("--only", action="append", choices=[*KINDS, "memory"], help="these rows; may be repeated")
    parser.add_argument("--memory", action="store_true", help="also peak memory at 4096 and 16384 pixels")
    parser.add_argument("--oty", default="oty", help="Orthority's command")
    parser.add_argument("--python", default="/usr/bin/python3", help="the Python that has GDAL's bindings")
    parser.add_argument("--folder", help="where files are made; default: the system's temporary folder")
    parser.add_argument("--write", type=Path, help="page to put the table in")
    args = parser.parse_args()
    lines = ["| what | command | wall, s | processor, s | peak memory, GB | ratio | target |", "|---" * 7 + "|"]
    for kind in args.only or [*KINDS, *(["memory"] if args.memory else [])]:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            rows = {**KINDS, "memory": memory_rows}[kind](Path(folder), args)
            lines += measured(rows, 0 if kind == "memory" else args.rounds)
    text = "\n".join([machine(args), "", *lines])
    if args.write is None:
        print(text)
        return
    page = args.write.read_text()
    if any(page.count(mark) != 1 for mark in MARKS):
        raise SystemExit(f"{args.write} does not hold the marks of the table once each")
    before, rest = page.split(MARKS[0])
    args.write.write_text(f"{before}{MARKS[0]}\n\n{text}\n\n{MARKS[1]}{rest.split(MARKS[1])[1]}")


if __name__ == "__main__":
    main()
