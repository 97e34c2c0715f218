"""What scoring a sample of a scene costs in accuracy, and what it saves.

    python benchmarks/sampling.py ../shared/data/dev [--side 4096] [--seeds 8] [--share 0.25]

Each scene of the folder is fused by GSA and scored as a whole, and from a share of its blocks with several seeds. Then
a large scene, made of simulated landscapes side by side, is scored as a whole and from the sample that `fuse` takes.
Prints, by figure, the value of the whole and, of what samples differ from it, mean, root mean square and the largest;
then the processor time of both, in turn.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import rasterio
from affine import Affine
from rasterio.windows import Window

from pansharpen_cli.fusion.options import Options
from pansharpen_cli.jobs import fuse
from pansharpen_cli.jobs.request import FusionOutput, Pair
from pansharpen_cli.quality import assess
from pansharpen_cli.quality.assess import Sampling, Score
from pansharpen_cli.quality.rasters import Raster
from pansharpen_cli.raster.scene import Scene
from pansharpen_cli.report.figures import value_of
from pansharpen_cli.training import simulate

SHOWN = ("fidelity", "colour_error", "detail_error", "pan_sharpness", "hqnr", "flat_area_activity", "reprojection")
LANDSCAPE = 1024
"""Side of the landscapes that the large scene is made of, in PAN pixels."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path, nargs="?", help="folder of scenes: <id>/pan.tif, <id>/ms.tif")
    parser.add_argument("--side", type=int, default=4096, help="of the large scene, in PAN pixels; 0: none")
    parser.add_argument("--method", default="gsa")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--share", type=float, default=0.25, help="of the blocks of a small scene")
    parser.add_argument("--tile", type=int, default=64, help="side of the tiles that small scenes are sampled by")
    parser.add_argument(
        "--sample", action="append", default=[], help="SIDE:PIXELS of other samples of the large scene; may be repeated"
    )
    args = parser.parse_args()
    heads = ("scene", "sample, blocks", *SHOWN, "whole, s", "sample, s")
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    with tempfile.TemporaryDirectory() as folder:
        fused = Path(folder, "fused.tif")
        for pan in sorted(args.scenes.glob("*/pan.tif")) if args.scenes else ():
            compare(pan.parent.name, pan, pan.with_name("ms.tif"), fused, args, [(args.tile, 0)])
        if args.side:
            kinds = [tuple(map(int, each.split(":"))) for each in args.sample]
            kinds = kinds or [(assess.SAMPLED_TILE, assess.SAMPLED_PIXELS)]
            compare(f"{args.side} x {args.side}", *large_scene(Path(folder), args.side), fused, args, kinds)


def compare(
    name: str, pan: Path, ms: Path, fused: Path, args: argparse.Namespace, kinds: Sequence[tuple[int, int]]
) -> None:
    """Print a row of a scene for each kind of sample, the side of its tiles and its pixels (0: the share that is asked
    for): the scene's figures, and by how much those of samples differ."""
    pair, target = Pair(str(pan), [str(ms)]), FusionOutput(fused, overwrite=True)
    fuse.fuse_scene(pair, target, Options(method=args.method, align="off"), score=False)
    with Scene.open(pan, [ms]) as scene, Raster.on_scene(fused, scene) as raster:
        score = partial(assess.full_resolution, scene, raster.read, raster.window)
        took: list[float] = []
        whole = timed(score, took)
        for side, pixels in kinds:
            samples, taken = [], list[float]()
            with mock.patch.object(assess, "SAMPLED_TILE", side):
                for seed in range(args.seeds):
                    sampling = Sampling(seed, pixels or int(args.share * scene.window.area))
                    samples.append(timed(partial(score, sampling=sampling), taken))
            cells = [cell(key, whole, samples) for key in SHOWN]
            blocks = f"{np.mean([s.figures['blocks'] for s in samples]):.0f} of {whole.figures['blocks']}, side {side}"
            seconds = f"{took[0]:.2f} | {np.median(taken):.2f}"
            print(f"| {name} | {blocks} | " + " | ".join([*cells, seconds]) + " |", flush=True)


def timed(run: Callable[[], Score], took: list[float]) -> Score:
    clock = time.process_time()
    score = run()
    took.append(time.process_time() - clock)
    return score


def cell(key: str, whole: Score, samples: Sequence[Score]) -> str:
    """A figure of the whole, then mean, root mean square and largest of the samples' differences from it."""
    true = value_of(key, whole.figures)
    found = [value_of(key, s.figures) for s in samples]
    if true is None or None in found:
        return "-"
    off = np.array(found) - true
    return f"{true:.4f} {off.mean():+.4f} ± {np.sqrt((off**2).mean()):.4f} ({np.abs(off).max():.4f})"


def large_scene(folder: Path, side: int) -> tuple[Path, Path]:
    """PAN and MS of simulated landscapes side by side, each another one."""
    paths = folder / "pan.tif", folder / "ms.tif"
    made = None
    for number, (row, col) in enumerate(np.ndindex(side // LANDSCAPE, side // LANDSCAPE)):
        made = simulate.simulate(simulate.Simulation(LANDSCAPE, LANDSCAPE, 4, seed=number, nodata=None))
        for path, image in zip(paths, (made.pan[None], made.ms), strict=True):
            unit = image.shape[1]
            if number == 0:
                transform = made.pan_transform if path == paths[0] else made.ms_transform
                with rasterio.open(
                    path, "w", driver="GTiff", width=unit * side // LANDSCAPE, height=unit * side // LANDSCAPE,
                    count=len(image), dtype="uint16", crs=made.crs, transform=Affine(*transform[:6]), tiled=True,
                ):  # fmt: skip
                    pass
            with rasterio.open(path, "r+") as target:
                target.write(image, window=Window(col * unit, row * unit, unit, unit))
    return paths


if __name__ == "__main__":
    main()
