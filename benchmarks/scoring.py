"""Time and memory of `pansharpen evaluate` on scenes of any size, at full resolution and against a reference.

    python benchmarks/scoring.py --side 4096 --side 12288 [--bands 4]

Makes a scene by repeating a simulated one, up-samples it (`fuse --method exp`), and scores the result in a process of
its own: with all full-resolution figures, and against itself as a reference (the figures cost the same whatever they
come to).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from gsa import metered
from speed import repeated_scene

PROGRAM = [sys.executable, "-m", "pansharpen_cli"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, action="append")
    parser.add_argument("--bands", type=int, default=4)
    parser.add_argument("--folder", help="where the files are made; default: the system's temporary folder")
    args = parser.parse_args()
    for side in args.side or [4096]:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            pan, ms = repeated_scene(Path(folder), side, args.bands)
            fused = str(Path(folder, "fused.tif"))
            subprocess.run([*PROGRAM, "fuse", pan, ms, "-o", fused, "--method", "exp", "--no-score", "-q"], check=True)
            for what, options in (
                ("full resolution", ["--pan", pan, "--ms", ms]),
                ("reference", ["--reference", fused]),
            ):
                wall, _, memory = metered([*PROGRAM, "evaluate", fused, *options, "-q"])
                print(
                    f"{what:16} {side} x {side} x {args.bands}: {wall:6.1f} s, {side**2 / 1e6 / wall:.2f} Mpx/s, "
                    f"peak memory {memory / 1e9:.2f} GB",
                    flush=True,
                )


if __name__ == "__main__":
    main()
