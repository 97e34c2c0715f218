"""Crops of PAN, up-sampled MS and results side by side, to look at.

    python benchmarks/crops.py SCENE [SCENE ...] OUT.png [--at ROW COL] [--size 160] [--zoom 3]

SCENE: a folder with `pan.tif` and `ms.tif`, or a multispectral stack, from which a pair of ratio 4 is simulated (PAN =
mean of its bands). Columns: PAN, up-sampling, MTF-GLP-FS, the default network frozen and adapted; two rows for each
scene: true colour, near infrared in red.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import rasterio
import torch
from affine import Affine

from pansharpen_cli import physics
from pansharpen_cli.fusion import fit, loop
from pansharpen_cli.raster import geometry
from pansharpen_cli.raster.scene import Scene
from pansharpen_cli.raster.writer import write_png

CASES = {
    "exp": {"method": "exp"},
    "mtf-glp-fs": {"method": "mtf-glp-fs"},
    "glpnet off": {"adapt": "off"},
    "glpnet fast": {"adapt": "fast"},
    "glpnet best": {"adapt": "best"},
}


def stretch(image: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    scaled = (image - low[:, None, None]) / (high - low)[:, None, None]
    return (np.clip(scaled, 0, 1) ** 0.8 * 255).astype(np.uint8)


def pair_of(stack: Path, folder: Path) -> Path:
    """A folder with the simulated pair of a stack whose bands are red, green, blue, near infrared."""
    with rasterio.open(stack) as source:
        truth = source.read()[[2, 1, 0, 3]].astype(float)
        dtype = source.dtypes[0]
    side = [n // 4 * 4 for n in truth.shape[1:]]
    truth = truth[:, : side[0], : side[1]]
    axis, spans = geometry.Axis(4.0), ((0, side[0]), (0, side[1]))
    down = physics.degrader((axis, axis), ((0, side[0] // 4), (0, side[1] // 4)), spans, [0.3] * 4)
    ms = down(torch.from_numpy(truth)[None])[0].numpy()
    for name, image, scale in (("pan", truth.mean(0, keepdims=True), 1), ("ms", ms, 4)):
        profile = {"driver": "GTiff", "count": len(image), "height": image.shape[1], "width": image.shape[2]}
        profile |= {"dtype": dtype, "crs": "EPSG:32617", "transform": Affine(scale, 0, 0, 0, -scale, 0)}
        with rasterio.open(folder / f"{name}.tif", "w", **profile) as target:
            target.write(image.round().astype(dtype))
    return folder


def rows_of(scene_folder: Path, cases: list[str], at: tuple[int, int], size: int) -> list[list[np.ndarray]]:
    """Rows of pictures (3, size, size): PAN, then one of each case."""
    r, c = at
    part = np.s_[:, r : r + size, c : c + size]
    rows: list[list[np.ndarray]] = [[], []]
    for case in cases:
        with Scene.open(scene_folder / "pan.tif", [scene_folder / "ms.tif"]) as scene:
            fused, _ = loop.fuse_array(scene, fit.fit(scene, fit.Options(**CASES[case])).fuser)
            if not rows[0]:
                pan = scene.pan.read(scene.window)[0].astype(float)
                low, high = (np.repeat(np.percentile(pan[part], q), 3) for q in (1, 99))
                for row in rows:
                    row.append(stretch(np.repeat(pan[part], 3, 0), low, high))
                colours = ([2, 1, 0], [min(3, scene.bands - 1), 2, 1]) if scene.bands < 8 else ([4, 2, 1], [6, 4, 2])
                limits = [[np.percentile(fused[i][part[1:]], (1, 99), axis=(-2, -1)).T for i in c] for c in colours]
            for row, chosen, limit in zip(rows, colours, limits, strict=True):
                low, high = np.array(limit).T
                row.append(stretch(fused[chosen][part], low, high))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", type=Path, nargs="+")
    parser.add_argument("output", type=Path)
    parser.add_argument("--at", type=int, nargs=2, default=(100, 100))
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--zoom", type=int, default=3)
    parser.add_argument("--case", action="append", choices=list(CASES), help="default: all but the last")
    args = parser.parse_args()
    rows = []
    for scene in args.scene:
        with tempfile.TemporaryDirectory() as folder:
            place = scene if scene.is_dir() else pair_of(scene, Path(folder))
            rows += rows_of(place, args.case or list(CASES)[:-1], tuple(args.at), args.size)
    picture = np.concatenate([np.concatenate(row, axis=2) for row in rows], axis=1)
    args.output.write_bytes(write_png(picture.repeat(args.zoom, 1).repeat(args.zoom, 2)))
    print(args.output)


if __name__ == "__main__":
    main()
