"""Quality of every network over a folder of real scenes, at full and at reduced resolution.

    python benchmarks/quality.py ../shared/data/dev [-o docs/quality.json] [--scene NAME] [--case NAME]

Each scene folder holds `pan.tif`, `ms.tif` and, for reduced resolution, `rr/pan.tif`, `rr/ms.tif`, `rr/gt.tif` (or
`gt.tif` beside the pair). Cases: up-sampling, mtf-glp-fs (the default network with its correction at zero), and every
network frozen and adapted. Prints one line per scene and case, then means, as Markdown.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pansharpen_cli import assess, fuse, metrics, weights
from pansharpen_cli.errors import PansharpenError
from pansharpen_cli.scene import Scene, read_stack

CASES = {
    "up-sampling": fuse.Options(method="none"),
    "mtf-glp-fs": fuse.Options(method="glpnet", adapt="off"),
    "glpnet off": fuse.Options(method="glpnet", adapt="off"),
    "glpnet fast": fuse.Options(method="glpnet", adapt="fast"),
    "fusionnet off": fuse.Options(method="fusionnet", adapt="off"),
    "fusionnet fast": fuse.Options(method="fusionnet", adapt="fast"),
}
FULL = ("HQNR", "D_lambda_K", "D_s", "PAN detail", "flat")
REDUCED = ("Q2n", "ERGAS", "SAM", "RR detail", "GT detail")


def run(case: str, options: fuse.Options, pan: Path, ms: Path):
    """(scene, fused, valid, adaptation outcome, seconds)"""
    scene = Scene.open(pan, [ms])
    started = time.perf_counter()
    fit = fuse.fit(scene, options)
    if case == "mtf-glp-fs":
        fit.fuser.backbone.tail.weight.zero_()
        fit.fuser.backbone.tail.bias.zero_()
    fused, valid = fuse.fuse_array(scene, fit.fuser)
    return scene, fused, valid, fit.outcome, time.perf_counter() - started


def as_written(fused: np.ndarray, dtype: str) -> np.ndarray:
    """Rounded and clipped as a file of that type would hold it."""
    if np.dtype(dtype).kind == "f":
        return fused
    limits = np.iinfo(dtype)
    return np.clip(np.rint(fused), limits.min, limits.max).astype(np.float32)


def score(folder: Path, case: str, options: fuse.Options) -> dict:
    row: dict = {}
    scene, fused, valid, outcome, seconds = run(case, options, folder / "pan.tif", folder / "ms.tif")
    with scene:
        fused = as_written(fused, scene.dtype)
        figures = assess.full_resolution(scene, assess.array_reader(fused, valid, (scene.window[0], scene.window[2])))
        pan = torch.from_numpy(scene.pan.read(scene.window)[0][0].astype(np.float64))
        inside = torch.from_numpy(valid)
        row |= {"HQNR": figures["hqnr"], "D_lambda_K": figures["d_lambda_k"], "D_s": figures["d_s"]}
        row["PAN detail"] = metrics.pan_detail_correlation(torch.from_numpy(fused).double(), pan, inside)
        row["flat"] = metrics.flat_area_activity(torch.from_numpy(fused).double(), pan, inside)
        row["seconds"] = seconds
        if outcome is not None:
            row["kept"] = outcome.kept
    pair = folder / "rr" if (folder / "rr").is_dir() else folder
    if (pair / "gt.tif").is_file():
        scene, fused, valid, _, _ = run(case, options, pair / "pan.tif", pair / "ms.tif")
        with scene:
            truth = torch.from_numpy(read_stack(pair / "gt.tif")[0])
            w = scene.window
            truth = truth[:, w[0] : w[1], w[2] : w[3]].double()
            x, inside = torch.from_numpy(as_written(fused, scene.dtype)).double(), torch.from_numpy(valid)
            pan = torch.from_numpy(scene.pan.read(scene.window)[0][0].astype(np.float64))
            row["Q2n"] = metrics.q2n(truth, x, valid=inside)
            row["ERGAS"] = metrics.ergas(truth, x, scene.phase.ratio[0], inside)
            row["SAM"] = metrics.sam(truth, x, inside)
            row["RR detail"] = metrics.pan_detail_correlation(x, pan, inside)
            row["GT detail"] = metrics.pan_detail_correlation(truth, pan, inside)
    return row


def markdown(results: dict[str, dict[str, dict]]) -> str:
    """Means per case over the scenes that every case of its kind ran on, then every scene."""
    keys = (*FULL, *REDUCED)
    lines = ["| case | scenes | " + " | ".join(keys) + " |", "|---|---|" + "---|" * len(keys)]
    for case in CASES:
        rows = [r[case] for r in results.values() if case in r]
        if rows:
            cells = [np.mean([r[k] for r in rows if k in r]) if any(k in r for r in rows) else np.nan for k in keys]
            lines.append(f"| {case} | {len(rows)} | " + " | ".join(f"{c:.4f}" for c in cells) + " |")
    lines += ["", "| scene | case | " + " | ".join(keys) + " |", "|---|---|" + "---|" * len(keys)]
    for scene, cases in results.items():
        for case, row in cases.items():
            cells = " | ".join(f"{row[k]:.4f}" if k in row else "" for k in keys)
            lines.append(f"| {scene} | {case} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scene", action="append")
    parser.add_argument("--case", action="append", choices=list(CASES))
    parser.add_argument("--weights", help="weights file instead of the installed ones")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, help="figures as JSON")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    results: dict[str, dict[str, dict]] = {}
    for folder in sorted(p for p in args.folder.iterdir() if (p / "pan.tif").is_file()):
        if args.scene and folder.name not in args.scene:
            continue
        results[folder.name] = {}
        bands = len(read_stack(folder / "ms.tif")[0])
        for case in args.case or CASES:
            options = CASES[case]
            if args.weights:
                options = replace(options, weights=args.weights)
            elif options.method != "none":
                try:
                    weights.find(options.method, bands)
                except PansharpenError:
                    continue
            results[folder.name][case] = score(folder, case, options)
            print(folder.name, case, {k: round(v, 4) for k, v in results[folder.name][case].items()}, file=sys.stderr)
    if args.output:
        args.output.write_text(json.dumps(results, indent=1))
    print(markdown(results))


if __name__ == "__main__":
    main()
