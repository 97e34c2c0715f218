"""`fuse --method gsa` against `gdal_pansharpen.py`, both to the same deflate GeoTIFF, in turn.

    python benchmarks/gsa.py [--side 4096] [--bands 4] [--repeat 5] [--folder DIR]

Makes a scene by repeating a simulated one, runs both programs alternately as processes of their own with the same
creation options, and prints the medians of wall time, processor time and peak resident memory, and the ratio of the
wall times of each round. Needs gdal_pansharpen.py (Debian: gdal-bin, python3-gdal); it is looked for on the PATH and
run with the system's Python.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from speed import repeated_scene

CREATION = (
    "COMPRESS=DEFLATE", "PREDICTOR=2", "TILED=YES", "BLOCKXSIZE=512", "BLOCKYSIZE=512", "BIGTIFF=IF_SAFER",
)  # fmt: skip


@dataclass
class Run:
    """One run of a program: seconds of wall and of processor time, peak memory in MB, size of its output in MB."""

    wall: float
    processor: float
    memory: float
    size: float


METER = """
import os, sys, time
clock = time.perf_counter()
_, status, used = os.wait4(os.spawnvp(os.P_NOWAIT, sys.argv[1], sys.argv[1:]), 0)
unit = 1 if sys.platform == "darwin" else 1024
print(time.perf_counter() - clock, used.ru_utime + used.ru_stime, used.ru_maxrss * unit)
sys.exit(status != 0)
"""
"""Runs a command. A process's peak memory counts that of the one it was started by, so that one has to be small."""


def metered(command: list[str], env: Mapping[str, str] | None = None) -> tuple[float, float, float]:
    """Seconds of wall and of processor time, and peak memory in bytes, of a command. Raises SystemExit if it fails."""
    meter = [sys.executable, "-S", "-c", METER, *command]
    done = subprocess.run(meter, capture_output=True, env=env, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {done.stderr}")
    wall, processor, memory = done.stdout.splitlines()[-1].split()
    return float(wall), float(processor), float(memory)


def measured(command: list[str], target: Path) -> Run:
    """Run a command that writes `target`."""
    target.unlink(missing_ok=True)
    wall, processor, memory = metered(command)
    return Run(wall, processor, memory / 1e6, target.stat().st_size / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--bands", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--method", default="gsa")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--python", default="/usr/bin/python3", help="the Python that has GDAL's bindings")
    parser.add_argument("--folder", help="where the files are made; default: the system's temporary folder")
    args = parser.parse_args()
    script = shutil.which("gdal_pansharpen.py")
    if script is None:
        raise SystemExit("gdal_pansharpen.py is not on the PATH")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        pan, ms = repeated_scene(Path(folder), args.side, args.bands)
        target = Path(folder) / "fused.tif"
        creation = [*CREATION, f"NUM_THREADS={args.threads}"]
        theirs = [args.python, script, "-q", pan, ms, str(target), "-threads", str(args.threads)]
        theirs += [word for option in creation for word in ("-co", option)]
        ours = [sys.executable, "-m", "pansharpen_cli", "fuse", pan, ms, "-o", str(target)]
        ours += ["--quiet", "--no-score", "--method", args.method]
        ours += [word for option in creation for word in ("--co", option)]
        programs = {"gdal_pansharpen.py": theirs, f"pansharpen {args.method}": ours}
        runs: dict[str, list[Run]] = {name: [] for name in programs}
        for _ in range(args.repeat + 1):
            for name, command in programs.items():
                runs[name].append(measured(command, target))
    rounds = {name: done[1:] for name, done in runs.items()}  # the first warms the caches
    for name, done in rounds.items():
        wall, processor, memory, size = (
            statistics.median(getattr(r, field) for r in done) for field in ("wall", "processor", "memory", "size")
        )
        print(
            f"{name:20} {args.side} x {args.side} x {args.bands}: {wall:.2f} s wall, {processor:.2f} s processor,"
            f" peak memory {memory:.0f} MB, file {size:.0f} MB"
        )
    first, second = rounds.values()
    ratios = [b.wall / a.wall for a, b in zip(first, second, strict=True)]
    print(
        f"ratio of wall times: median {statistics.median(ratios):.2f}, rounds " + " ".join(f"{r:.2f}" for r in ratios)
    )


if __name__ == "__main__":
    main()
