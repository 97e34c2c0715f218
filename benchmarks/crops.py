"""Crops of PAN, up-sampled MS and results side by side, to look at.

    python benchmarks/crops.py SCENE_FOLDER OUT.png [--at ROW COL] [--size 160] [--zoom 3]

Columns: PAN, up-sampling, MTF-GLP-FS, the default network frozen and adapted; rows: true colour, near infrared in red.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from quality import CASES, run

from pansharpen_cli.writer import write_png


def stretch(image: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    scaled = (image - low[:, None, None]) / (high - low)[:, None, None]
    return (np.clip(scaled, 0, 1) ** 0.8 * 255).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--at", type=int, nargs=2, default=(100, 100))
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--zoom", type=int, default=3)
    parser.add_argument("--case", action="append")
    args = parser.parse_args()
    r, c = args.at
    part = np.s_[:, r : r + args.size, c : c + args.size]
    rows: list[list[np.ndarray]] = [[], []]
    for case in args.case or ("up-sampling", "mtf-glp-fs", "glpnet off", "glpnet fast"):
        scene, fused, _, _, _ = run(case, CASES[case], args.scene / "pan.tif", args.scene / "ms.tif")
        with scene:
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
    picture = np.concatenate([np.concatenate(row, axis=2) for row in rows], axis=1)
    args.output.write_bytes(write_png(picture.repeat(args.zoom, 1).repeat(args.zoom, 2)))
    print(args.output)


if __name__ == "__main__":
    main()
