"""The picture of README and docs/tutorial.md: PAN, MS and result of the sample pair, a part of them, side by side.

python benchmarks/picture.py [OUT.png] [--at 290 200] [--size 220] [--zoom 2]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image

import pansharpen_cli as pansharpen

ROOT = Path(__file__).parent.parent
PAIR = ROOT / "sample_data/pan.tif", ROOT / "sample_data/ms.tif"
GAP = 8


def stretched(image: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """(3, rows, cols) between two values per band as (rows, cols, 3) uint8."""
    scaled = (image - low[:, None, None]) / (high - low)[:, None, None]
    return (np.clip(scaled, 0, 1) ** 0.8 * 255).astype(np.uint8).transpose(1, 2, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", nargs="?", type=Path, default=ROOT / "docs/pictures/pair.png")
    parser.add_argument("--at", nargs=2, type=int, default=(290, 200), metavar=("ROW", "COL"))
    parser.add_argument("--size", type=int, default=220, help="PAN pixels of a side")
    parser.add_argument("--zoom", type=int, default=2)
    given = parser.parse_args()
    result = pansharpen.fuse(*PAIR, score=False)
    with rasterio.open(PAIR[0]) as dataset:
        pan, origin = dataset.read(), ~dataset.transform @ (result.transform.c, result.transform.f)
    with rasterio.open(PAIR[1]) as dataset:
        ms = dataset.read([3, 2, 1]).repeat(2, 1).repeat(2, 2)
    pan = pan[:, round(origin[1]) :, round(origin[0]) :].repeat(3, 0)
    fused = result.data[[2, 1, 0]].astype(float)
    colours, greys = (np.percentile(x, (1, 99), axis=(1, 2)) for x in (fused, pan))
    part = np.s_[given.at[0] : given.at[0] + given.size, given.at[1] : given.at[1] + given.size]
    pictures = (stretched(pan, *greys), stretched(ms.astype(float), *colours), stretched(fused, *colours))
    side = given.size * given.zoom
    sheet = Image.new("RGB", (3 * side + 2 * GAP, side), "white")
    for i, picture in enumerate(pictures):
        sheet.paste(
            Image.fromarray(picture[part]).resize((side, side), Image.Resampling.NEAREST), (i * (side + GAP), 0)
        )
    sheet.save(given.output, optimize=True)
    print(f"{given.output}  {given.output.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
