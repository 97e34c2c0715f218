"""Scenes of any size: memory and time of `fuse`, `evaluate` and `check`, and how reading, fusing and writing overlap.

    python benchmarks/scale.py sizes --side 4096 --side 16384 [--bands 4 --bands 8] [--swath 0.1] [--driver COG]
    python benchmarks/scale.py timeline --side 4096 -o docs/timeline.svg

`sizes` prints rows of the table in docs/benchmarks.md. It makes a scene of each side by repeating a simulated one, with
--swath only in a diagonal swath of that share of the width (the rest is nodata, in blocks that take no place in the
file), and runs each command in a process of its own.
`timeline` notes when each tile is read, fused and written, and by which thread, and draws the first of them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import wraps
from itertools import product
from pathlib import Path

import rasterio
from gsa import metered
from speed import repeated_scene

from pansharpen_cli.fusion import fit as fitting
from pansharpen_cli.fusion import loop
from pansharpen_cli.fusion.options import Options
from pansharpen_cli.raster.scene import Scene
from pansharpen_cli.raster.writer import SceneWriter

PROGRAM = [sys.executable, "-m", "pansharpen_cli"]


HEAD = "| command | scene | valid, Mpx | s | Mpx / s | peak memory, GB | file, MB | fusing, s |"


def sizes(args: argparse.Namespace) -> None:
    print(f"{HEAD}\n|{'---|' * HEAD.count(' | ')}---|")
    for side, bands in product(args.side or [4096], args.bands):
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            pan, ms = repeated_scene(Path(folder), side, bands, args.swath)
            fused, notes = Path(folder, "fused.tif"), Path(folder, "report.json")
            common = ["--quiet", "--device", args.device]
            making = [*PROGRAM, "fuse", pan, ms, "-o", str(fused), "--overwrite", *common, "--no-score"]
            making += ["--method", args.method, "--driver", args.driver, "--report", str(notes)]
            commands = {
                "fuse": making,
                "evaluate": [*PROGRAM, "evaluate", str(fused), "--pan", pan, "--ms", ms, "--quiet"],
                "check": [*PROGRAM, "check", pan, ms, "--method", args.method, "--quiet"],
            }
            for name in args.command or commands:
                wall, _, memory = metered(commands[name])
                facts = json.loads(notes.read_text())
                pixels = facts["output"]["valid_pixels"] / 1e6
                cells = [name, f"{side} x {side} x {bands}", f"{pixels:.0f}", f"{wall:.1f}", f"{pixels / wall:.2f}"]
                more = [f"{fused.stat().st_size / 1e6:.0f}", f"{facts['seconds']['fusing']:.1f}"]
                cells += [f"{memory / 1e9:.2f}", *(more if name == "fuse" else ["", ""])]
                print(f"| {' | '.join(cells)} |", flush=True)


# The timeline --------------------------------------------------------------------------------------------------------

Event = tuple[str, int, float, float]
COLOURS = {"read": "#4477aa", "fuse": "#ccbb44", "write": "#ee6677"}


def timeline(args: argparse.Namespace) -> None:
    events: list[Event] = []

    def noted(kind: str, function: Callable) -> Callable:
        @wraps(function)
        def call(*given, **named):
            clock = time.perf_counter()
            try:
                return function(*given, **named)
            finally:
                events.append((kind, threading.get_ident(), clock, time.perf_counter()))

        return call

    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        pan, ms = repeated_scene(Path(folder), args.side[0] if args.side else 4096, args.bands[0])
        with Scene.open(pan, [ms]) as scene, SceneWriter(Path(folder, "fused.tif"), scene) as writer:
            fit = fitting.fit(scene, Options(method=args.method, device=args.device))
            fuser = type(fit.fuser)
            fuser.__call__ = noted("fuse", fuser.__call__)  # type: ignore[method-assign]
            Scene.read = noted("read", Scene.read)  # type: ignore[method-assign]
            SceneWriter.write = noted("write", SceneWriter.write)  # type: ignore[method-assign]
            begin = time.perf_counter()
            loop.write_fused(scene, fit.fuser, writer, 512)
            wall = time.perf_counter() - begin
    busy = {kind: sum(e[3] - e[2] for e in events if e[0] == kind) for kind in COLOURS}
    told = ", ".join(f"{kind} {seconds:.2f} s" for kind, seconds in busy.items())
    print(f"{args.method} on {scene.grid.width} x {scene.grid.height} x {scene.bands}: {wall:.2f} s wall; {told}")
    if args.output:
        args.output.write_text(drawn(events, begin, args.seconds))


def drawn(events: list[Event], begin: float, seconds: float) -> str:
    """The first seconds as SVG: a lane for each thread, readers above, writers below."""
    order = {kind: i for i, kind in enumerate(COLOURS)}
    lanes = list(dict.fromkeys(e[1] for e in sorted(events, key=lambda e: (order[e[0]], e[2]))))
    width, height, left = 960, 34, 60
    parts = []
    for kind, thread, start, end in events:
        if start - begin < seconds:
            x, y = left + (start - begin) / seconds * width, 8 + lanes.index(thread) * height
            long = max(0.6, (min(end - begin, seconds) - (start - begin)) / seconds * width)
            parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{long:.1f}" height="{height - 10}" fill="{COLOURS[kind]}" '
                'stroke="#fff" stroke-width="0.5"/>'
            )
    for kind in COLOURS:
        lane = [lanes.index(e[1]) for e in events if e[0] == kind]
        if lane:
            y = 8 + min(lane) * height + (height - 10) / 2 + 4
            parts.append(f'<text x="4" y="{y:.0f}">{kind}</text>')
    bottom = 8 + len(lanes) * height + 12
    for tick in range(int(seconds * 2) + 1):
        x = left + tick / 2 / seconds * width
        parts.append(f'<text x="{x:.0f}" y="{bottom}" text-anchor="middle">{tick / 2:g} s</text>')
    size = f'width="{left + width + 24}" height="{bottom + 8}"'
    style = 'font-family="sans-serif" font-size="12" fill="#444"'
    lines = "\n".join(parts)
    background = '<rect width="100%" height="100%" fill="#fff"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{background}<g {style}>\n{lines}\n</g></svg>\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, run in (("sizes", sizes), ("timeline", timeline)):
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        command.add_argument("--side", type=int, action="append")
        command.add_argument("--bands", type=int, action="append")
        command.add_argument("--method", default="glpnet")
        command.add_argument("--device", default="cpu")
        command.add_argument("--folder", help="where the files are made; default: the system's temporary folder")
        if name == "sizes":
            command.add_argument("--swath", type=float, default=1.0, help="share of the width that is valid")
            command.add_argument("--driver", default="GTiff")
            command.add_argument("--command", action="append", help="only this command; again for more")
        else:
            command.add_argument("-o", "--output", type=Path)
            command.add_argument("--seconds", type=float, default=4.0, help="how much of it is drawn")
    args = parser.parse_args()
    args.bands = args.bands or [4]
    with rasterio.Env(GDAL_CACHEMAX=64 << 20):
        args.run(args)


if __name__ == "__main__":
    main()
