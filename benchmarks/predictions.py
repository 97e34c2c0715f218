"""What `pansharpen check` predicts of a run against that very run: seconds, peak memory, size of the file.

    python benchmarks/predictions.py SCENE... [--side 4096] [--with="--method gsa --no-score"]

SCENE is a folder with pan.tif and ms.tif; with --side a simulated scene of that size comes last. Each is predicted and
then fused, without options and with those of every --with.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from gsa import measured
from speed import repeated_scene

PROGRAM = [sys.executable, "-m", "pansharpen_cli"]


def compared(name: str, pan: str, ms: str, options: str, folder: Path) -> str:
    """A row of the table: predicted and measured seconds, and the ratios predicted / measured."""
    given, target = shlex.split(options), folder / "fused.tif"
    check = [*PROGRAM, "check", pan, ms, "--json", "--quiet", *given]
    told = json.loads(subprocess.run(check, check=True, capture_output=True, text=True).stdout)["prediction"]
    run = measured([*PROGRAM, "fuse", pan, ms, "-o", str(target), "--quiet", *given], target)
    seconds = told["seconds"]["total"]
    ratios = seconds / run.wall, told["memory_bytes"] / 1e6 / run.memory, told["stored_bytes"] / 1e6 / run.size
    cells = [name, f"`{options}`" if options else "", f"{seconds:.1f} / {run.wall:.1f}", *(f"{r:.2f}" for r in ratios)]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", nargs="*", type=Path)
    parser.add_argument("--side", type=int)
    parser.add_argument("--bands", type=int, default=4)
    parser.add_argument("--with", dest="options", action="append", default=[], help="options of both; again for more")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        pairs = [(s.name, str(s / "pan.tif"), str(s / "ms.tif")) for s in args.scene]
        if args.side:
            name = f"{args.side} x {args.side} x {args.bands}"
            pairs.append((name, *repeated_scene(Path(made), args.side, args.bands)))
        print("| scene | OPTIONS | seconds | ratio | memory | size |\n|---|---|---|---|---|---|")
        for pair in pairs:
            for options in ("", *args.options):
                print(compared(*pair, options, Path(made)), flush=True)


if __name__ == "__main__":
    main()
