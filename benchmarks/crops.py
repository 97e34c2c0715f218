"""Crops of PAN, up-sampled MS and results side by side, to look at.

    python benchmarks/crops.py SCENE [SCENE ...] OUT.png [--at ROW COL] [--size 120] [--zoom 3] [--case NAME ...]

SCENE: a folder with `pan.tif` and `ms.tif`. Columns: PAN, then a method each; `glpnet` is the default network as the
command calls it, `glpnet:off` frozen, `glpnet:off:FILE` with other weights. Two rows a scene: true colour, and near
infrared in red. The stretch of a row is that of the up-sampled MS around the crop.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import rasterio

import pansharpen_cli as pansharpen
from pansharpen_cli.raster.plain import picture_bytes

CASES = ("exp", "glpnet", "gsa", "bt-h")
COLOURS = {3: ([0, 1, 2],), 4: ([2, 1, 0], [3, 2, 1]), 8: ([4, 2, 1], [6, 4, 2])}


def fused_of(folder: Path, case: str) -> np.ndarray:
    method, adapt, weights = (*case.split(":", 2), "", "")[:3]
    options = {"method": method, "adapt": adapt or "fast", "weights": weights or None, "score": False}
    return pansharpen.fuse(folder / "pan.tif", folder / "ms.tif", **options).data.astype(float)


def rows_of(folder: Path, cases: list[str], at: tuple[int, int], size: int) -> list[list[np.ndarray]]:
    """Rows of pictures (3, size, size): PAN, then one of each case."""
    part = np.s_[..., at[0] : at[0] + size, at[1] : at[1] + size]
    around = np.s_[..., max(0, at[0] - size) : at[0] + 2 * size, max(0, at[1] - size) : at[1] + 2 * size]
    up = fused_of(folder, "exp")
    with rasterio.open(folder / "pan.tif") as source:  # of scenes whose PAN and MS begin at one place
        pan = source.read().astype(float).repeat(3, 0)
    results = [fused_of(folder, case) for case in cases]
    rows = []
    for colours in COLOURS.get(len(up), ([2, 1, 0],)):
        row = [stretch(pan[part], pan[around])]
        rows.append(row + [stretch(r[colours][part], up[colours][around]) for r in results])
    return rows


def stretch(image: np.ndarray, known: np.ndarray) -> np.ndarray:
    low, high = np.percentile(known, (1, 99), axis=(-2, -1))[..., None, None]
    return (np.clip((image - low) / (high - low), 0, 1) ** 0.8 * 255).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", type=Path, nargs="+")
    parser.add_argument("output", type=Path)
    parser.add_argument("--at", type=int, nargs=2, default=(100, 100))
    parser.add_argument("--size", type=int, default=120)
    parser.add_argument("--zoom", type=int, default=3)
    parser.add_argument("--case", action="append", help=f"default: {', '.join(CASES)}")
    args = parser.parse_args()
    rows = [r for s in args.scene for r in rows_of(s, args.case or list(CASES), tuple(args.at), args.size)]
    picture = np.concatenate([np.concatenate(row, axis=2) for row in rows], axis=1)
    args.output.write_bytes(picture_bytes(picture.repeat(args.zoom, 1).repeat(args.zoom, 2), args.output.suffix))


if __name__ == "__main__":
    main()
