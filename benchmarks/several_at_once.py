"""`fuse` beside other runs of itself: what two and four processes at a time get done, against one after the other.

    python benchmarks/several_at_once.py [--side 1024] [--bands 4] [--repeat 3]
        [--processes 1,2,4] [--option=--threads=1]

Makes a scene by repeating a simulated one. In each round it runs one process, then two at a time, then four, with
scores, and prints for each number the median seconds until the last has ended, the scenes an hour, and the ratio of
these to one process's: 1 or more where runs beside each other do not stall. With more processes than cores each is
slower, all together are not. Meant for an idle machine.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from speed import repeated_scene


def seconds_of(processes: int, pan: str, ms: str, folder: Path, options: list[str]) -> float:
    """Wall seconds until so many runs, started together, have ended. Raises RuntimeError if one fails."""
    command = [sys.executable, "-m", "pansharpen_cli", "fuse", pan, ms, "--overwrite", "--quiet", *options]
    clock = time.perf_counter()
    runs = [subprocess.Popen([*command, "-o", str(folder / f"fused{i}.tif")]) for i in range(processes)]
    if any([run.wait() for run in runs]):  # noqa: C419 - all are waited for
        raise RuntimeError("a run failed")
    return time.perf_counter() - clock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--bands", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--processes", default="1,2,4")
    parser.add_argument("--option", action="append", default=[], help="passed to fuse, e.g. --option=--threads=1")
    parser.add_argument("--folder", help="where the scene is made; default: the system's temporary folder")
    args = parser.parse_args()
    counts = [int(n) for n in args.processes.split(",")]
    taken: dict[int, list[float]] = {n: [] for n in counts}
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        pan, ms = repeated_scene(Path(folder), args.side, args.bands)
        seconds_of(1, pan, ms, Path(folder), args.option)  # what is read from disk for the first time
        for _ in range(args.repeat):
            for count in counts:
                taken[count].append(seconds_of(count, pan, ms, Path(folder), args.option))
    base = counts[0] / statistics.median(taken[counts[0]])
    for count, seconds in taken.items():
        median = statistics.median(seconds)
        rate = count / median
        print(
            f"{count} at a time, {args.side} x {args.side} x {args.bands}: {median:6.2f} s"
            f" ({min(seconds):.2f} to {max(seconds):.2f}), {3600 * rate:.0f} scenes an hour, {rate / base:.2f} x"
        )


if __name__ == "__main__":
    main()
