"""Speed and memory of `fuse`.

    python benchmarks/speed.py small            512 x 512 x 8, scene open to array out, against the plain forward pass
    python benchmarks/speed.py large --side 4096 [--method glpnet]     end to end to a deflate GeoTIFF, with peak memory

`small` runs everything in one process, after one warm-up, and prints medians. `large` makes a scene by repeating a
simulated one, then runs `pansharpen fuse --no-score` in a process of its own and reads its peak resident memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
import torch
from affine import Affine
from rasterio.windows import Window

from pansharpen_cli.fusion import fit as fitting
from pansharpen_cli.fusion import loop
from pansharpen_cli.fusion.options import Options
from pansharpen_cli.models.base import Inputs, SceneStats
from pansharpen_cli.raster.scene import Scene
from pansharpen_cli.training import simulate


def small(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        spec = simulate.Simulation(rows=512, cols=512, bands=args.bands, seed=7)
        pan, ms, _ = simulate.write_scene(simulate.simulate(spec), Path(folder))
        for method in args.method or ("fusionnet", "glpnet"):
            results, arrays = {}, {}
            for precision in ("auto", "float32"):
                for adapt in ("off", "fast"):
                    options = Options(method=method, adapt=adapt, precision=precision, device=args.device)
                    times, fit = [], None
                    for _ in range(args.repeat + 1):
                        clock = time.perf_counter()
                        with Scene.open(pan, [ms]) as scene:
                            fit = fitting.fit(scene, options)
                            arrays[precision, adapt], valid = loop.fuse_array(scene, fit.fuser)
                        times.append(time.perf_counter() - clock)
                    assert fit is not None and fit.seconds is not None
                    results[precision, adapt] = statistics.median(times[1:]), fit.precision, fit.seconds
                    print(
                        f"{method:10} {fit.precision:9} adapt {adapt:4}  {results[precision, adapt][0]:6.3f} s  "
                        + "  ".join(f"{k} {v:.3f}" for k, v in fit.seconds.items())
                    )
            plain = plain_forward(fit.fuser.backbone, args.bands, args.repeat)
            print(f"{method:10} plain float32 forward, 512 x 512 x {args.bands}: {plain:.3f} s")
            print(f"{method:10} adapted and fused / plain forward: {results['auto', 'fast'][0] / plain:.2f}")
            difference = (arrays["auto", "off"] - arrays["float32", "off"])[:, valid]
            print(
                f"{method:10} {results['auto', 'off'][1]} against float32: RMS {np.sqrt((difference**2).mean()):.3f} DN"
            )


def plain_forward(backbone, bands: int, repeat: int) -> float:
    """Median time of the network alone in float32, contiguous, on an input of its own size."""
    backbone = backbone.to(memory_format=torch.contiguous_format)
    device = next(backbone.parameters()).device
    made = Inputs(*(1000 * torch.rand(1, n, 512, 512, device=device) for n in (1, bands, bands)))
    x = backbone.encode(made, SceneStats.fit(made).to(device))
    times = []
    with torch.no_grad():
        for _ in range(repeat + 1):
            clock = time.perf_counter()
            backbone.map(backbone.extract(x))
            if x.is_cuda:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - clock)
    return statistics.median(times[1:])


def large(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        pan, ms = repeated_scene(Path(folder), args.side, args.bands)
        for method in args.method or ("glpnet", "fusionnet"):
            target = Path(folder) / "fused.tif"
            command = [sys.executable, "-m", "pansharpen_cli", "fuse", pan, ms, "-o", str(target), "--overwrite"]
            command += ["--no-score", "--json", "--method", method, "--device", args.device, *args.option]
            before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
            clock = time.perf_counter()
            facts = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            wall = time.perf_counter() - clock
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
            note = "" if peak * 1e6 > before else " (at most: an earlier child reached it)"
            rate = args.side**2 / 1e6 / wall
            print(
                f"{method:10} {args.side} x {args.side} x {args.bands}: {wall:.1f} s wall, {rate:.2f} Mpx/s,"
                f" peak memory {peak:.2f} GB{note}, file {target.stat().st_size / 1e6:.0f} MB; "
                + ", ".join(f"{k} {v:.1f}" for k, v in facts["seconds"].items()),
                flush=True,
            )


def repeated_scene(folder: Path, side: int, bands: int, swath: float = 1.0) -> tuple[str, str]:
    """A scene of any size from mirrored copies of a simulated one of 1024 x 1024.

    `swath`: share of the width that is valid, along the diagonal; the rest is nodata (0) and takes no place.
    """
    made = simulate.simulate(simulate.Simulation(rows=1024, cols=1024, bands=bands, seed=11))
    paths = []
    for name, image, unit in (("pan", made.pan[None], 1024), ("ms", made.ms, 256)):
        total = side * unit // 1024
        transform = made.pan_transform if name == "pan" else made.ms_transform
        path = folder / f"{name}.tif"
        with rasterio.open(
            path, "w", driver="GTiff", width=total, height=total, count=len(image), dtype="uint16", crs=made.crs,
            transform=Affine(*transform[:6]), tiled=True, blockxsize=256, blockysize=256, compress="deflate",
            nodata=None if swath >= 1 else 0, sparse_ok=True, bigtiff="if_safer",
        ) as target:  # fmt: skip
            for i in range(0, total, unit):
                for j in range(0, total, unit):
                    if swath < 1 and abs(i - j) > swath * total / 2:
                        continue
                    block = image[:, :: -1 if (i // unit) % 2 else 1, :: -1 if (j // unit) % 2 else 1]
                    height, width = min(unit, total - i), min(unit, total - j)
                    target.write(block[:, :height, :width], window=Window(j, i, width, height))
        paths.append(str(path))
    return paths[0], paths[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, run, bands in (("small", small, 8), ("large", large, 4)):
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        command.add_argument("--method", action="append")
        command.add_argument("--bands", type=int, default=bands)
        command.add_argument("--device", default="cpu")
        command.add_argument("--threads", type=int, default=0)
        if name == "small":
            command.add_argument("--repeat", type=int, default=5)
        else:
            command.add_argument("--side", type=int, default=4096)
            command.add_argument("--folder", help="where the scene is made; default: the system's temporary folder")
            command.add_argument(
                "--option", action="append", default=[], help="passed to fuse, e.g. --option=--adapt=off"
            )
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    args.run(args)


if __name__ == "__main__":
    main()
