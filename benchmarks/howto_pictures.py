"""The pictures of docs/howto/strips.md and docs/howto/pictures.md, of two halves of the sample pair.

python benchmarks/howto_pictures.py [FOLDER]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image
from rasterio.windows import Window

import pansharpen_cli as pansharpen

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "sample_data"
WHOLE = SAMPLE / "pan.tif", SAMPLE / "ms.tif"
CUT = 116
"""Column of the MS in which the pair is cut; of the PAN it is twice as much."""
GAP, GREY = 8, 500.0
"""Pixels between panels, and the difference in DN that is shown as black or white."""


def half(folder: Path, first: int, last: int | None) -> tuple[Path, Path]:
    """PAN and MS of some columns of the MS."""
    folder.mkdir()
    for name, ratio in (("pan.tif", 2), ("ms.tif", 1)):
        with rasterio.open(SAMPLE / name) as source:
            end = source.width if last is None else ratio * last
            window = Window(ratio * first, 0, end - ratio * first, source.height)
            place = {"width": window.width, "transform": source.window_transform(window)}
            with rasterio.open(folder / name, "w", **source.profile | place) as part:
                part.write(source.read(window=window))
                part.descriptions, part.scales, part.offsets = source.descriptions, source.scales, source.offsets
                part.update_tags(ns="IMAGERY", **source.tags(ns="IMAGERY"))
    return folder / "pan.tif", folder / "ms.tif"


def joined(paths: Sequence[Path]) -> np.ndarray:
    """Two files as one image (bands, rows, cols) on the grid of the sample's PAN; the later one on top."""
    with rasterio.open(SAMPLE / "pan.tif") as pan:
        image, back = None, ~pan.transform
        for path in paths:
            with rasterio.open(path) as part:
                image = np.zeros((part.count, *pan.shape), part.dtypes[0]) if image is None else image
                col, row = map(round, back @ (part.transform.c, part.transform.f))
                image[:, row : row + part.height, col : col + part.width] = part.read()
    assert image is not None
    return image


def beside(panels: Sequence[np.ndarray], path: Path) -> None:
    """Pictures (3, rows, cols) side by side."""
    rows, cols = panels[0].shape[1:]
    sheet = Image.new("RGB", (len(panels) * cols + (len(panels) - 1) * GAP, rows), "white")
    for i, panel in enumerate(panels):
        sheet.paste(Image.fromarray(panel.transpose(1, 2, 0)), (i * (cols + GAP), 0))
    sheet.save(path, quality=88, optimize=True)
    print(f"{path}  {path.stat().st_size / 1e3:.0f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "docs/pictures")
    target = parser.parse_args().folder
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        room = Path(name)
        halves = {"west": half(room / "west", 0, CUT), "east": half(room / "east", CUT, None)}

        def mosaic(case: str, end: str = "", **options) -> np.ndarray:
            for side, pair in halves.items():
                pansharpen.fuse(*pair, output=room / f"{side}_{case}.tif", score=False, **options)
            return joined([room / f"{side}_{case}{end}.tif" for side in halves])

        kept = room / "strip.safetensors"
        pansharpen.fuse(*WHOLE, score=False, save_fit=kept, output=room / "whole.tif")
        whole = joined([room / "whole.tif"]).astype(float)
        differences = []
        for case, options in (("own", {}), ("shared", {"fit": kept})):
            apart = mosaic(case, **options) - whole
            away = np.abs(np.arange(apart.shape[2]) - 2 * CUT) > 64
            print(f"{case}: {np.sqrt((apart[..., away] ** 2).mean()):.2f} DN RMS from the whole, away from the cut")
            differences.append(np.clip(128 + 127 * apart[2::-1] / GREY, 0, 255).astype("uint8"))
        beside(differences, target / "strips.jpg")
        stretches = [mosaic("each", "_rgb", fit=kept, rgb="true")]
        for bands in ("true", "nir,red,green"):
            asked = {"fit": kept, "rgb": bands, "stretch": str(room / f"{bands[:4]}.json")}
            pansharpen.fuse(*WHOLE, output=room / f"{bands[:4]}.tif", score=False, **asked)
            stretches.append(mosaic(bands[:4], "_rgb", **asked))
        beside(stretches, target / "stretch.jpg")


if __name__ == "__main__":
    main()
