"""Quality of every method and network, and of other tools, over a folder of real scenes, at both resolutions.

    python benchmarks/quality.py ../shared/data/dev -o docs/quality.md

Each scene folder holds `pan.tif`, `ms.tif` and, for reduced resolution, `rr/pan.tif`, `rr/ms.tif`, `rr/gt.tif` (or
`gt.tif` beside the pair). All results are written as files and scored by the same code, `pansharpen evaluate`'s. Other
tools run where they are installed: `gdal_pansharpen.py`, `otbcli_BundleToPerfectSensor` and Orthority's `oty` (on the
PATH or named with --oty). Rows are kept in `runs/quality.jsonl` and not measured again; delete it to start afresh.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from pansharpen_cli import classical, job, models, weights
from pansharpen_cli.errors import PansharpenError
from pansharpen_cli.fuse import Options
from pansharpen_cli.scene import read_stack

FULL = {
    "fidelity": "fidelity",
    "sharpness": "pan_sharpness",
    "HQNR": "hqnr",
    "D_lambda_K": "d_lambda_k",
    "D_s": "d_s",
    "QNR": "qnr",
    "D_lambda": "d_lambda",
    "PAN detail": "pan_detail_correlation",
    "flat": "flat_area_activity",
    "reprojection %": "reprojection",
}
REDUCED = {
    "Q2n": "q2n",
    "Q": "q",
    "SAM": "sam",
    "ERGAS": "ergas",
    "SCC": "scc",
    "PSNR": "psnr",
    "SSIM": "ssim",
    "CC": "cc",
    "RR detail": "rr_detail",
}

Maker = Callable[[Path, Path, Path], None]
"""Fuses a PAN and an MS into a file; raises PansharpenError or CalledProcessError."""


def ours(method: str, adapt: str = "off", align: str = "auto") -> Maker:
    def make(pan: Path, ms: Path, out: Path) -> None:
        options = Options(method=method, adapt=adapt, align=align)
        job.fuse_scene(job.Pair(str(pan), [str(ms)]), job.Output(out), options, score=False)

    return make


def tool(template: str, environment: dict[str, str] | None = None) -> Maker:
    """Another program; its command line with {pan}, {ms}, {out} and {dtype} to fill in."""

    def make(pan: Path, ms: Path, out: Path) -> None:
        dtype = {"uint8": "uint8", "uint16": "uint16"}.get(str(read_dtype(ms)), "float")
        command = [t.format(pan=pan, ms=ms, out=out, dtype=dtype) for t in shlex.split(template)]
        subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | (environment or {}))

    return make


def read_dtype(path: Path) -> np.dtype:
    import rasterio

    with rasterio.open(path) as dataset:
        return np.dtype(dataset.dtypes[0])


def cases(oty: str | None) -> dict[str, Maker]:
    made = {name: ours(name) for name in classical.METHODS}
    trained = {card.network for card in weights.manifest().values()}
    for network in (name for name in models.REGISTRY if name in trained):
        for adapt in ("off", "fast", "best") if network in (models.DEFAULT, "fusionnet") else ("off", "fast"):
            made[f"{network} {adapt}"] = ours(network, adapt)
    if shutil.which("gdal_pansharpen.py"):
        made["GDAL weighted Brovey"] = tool("gdal_pansharpen.py -q -r cubic {pan} {ms} {out} -co COMPRESS=DEFLATE")
    if shutil.which("otbcli_BundleToPerfectSensor"):
        quiet = {"OTB_LOGGER_LEVEL": "FATAL"}
        for method in ("rcs", "lmvm", "bayes"):
            command = "otbcli_BundleToPerfectSensor -inp {pan} -inxs {ms} -method " + method + " -out {out} {dtype}"
            made[f"OTB {method}"] = tool(command, quiet)
    if oty:
        options = "-q sharpen -p {pan} -ms {ms} -of {out} -cm deflate -nbo"
        made["Orthority Gram-Schmidt"] = tool(f"{shlex.quote(oty)} {options}")
    return made


def fits(name: str, bands: int) -> bool:
    """Whether a row of the table takes so many bands."""
    network = name.split()[0]
    cards = [card for card in weights.manifest().values() if card.network == network]
    return not cards or any(card.bands in (None, bands) for card in cards)


def versions(oty: str | None) -> str:
    """What the other tools say of themselves."""
    found = []
    for command in (["gdalinfo", "--version"], [oty or "", "--version"], ["dpkg-query", "-W", "otb-bin"]):
        if shutil.which(command[0]):
            said = subprocess.run(command, capture_output=True, text=True).stdout.strip().replace("\t", " ")
            found += [f"Orthority {said}" if command[0] == oty else said] * bool(said)
    return "; ".join(found)


def measure(folder: Path, level: str, make: Maker) -> dict:
    """One row: figures of a fused file, or the reason why there is none."""
    pair = folder / "rr" if level == "reduced" and (folder / "rr").is_dir() else folder
    pan, ms, truth = pair / "pan.tif", pair / "ms.tif", pair / "gt.tif"
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary, "fused.tif")
        started = time.perf_counter()
        try:
            make(pan, ms, out)
            seconds = time.perf_counter() - started
            against_pan = job.evaluate([str(out)], job.Pair(str(pan), [str(ms)], {"extent": "pan"}), align="auto")
            quality = against_pan["results"][0]["quality"]
            row = {"seconds": seconds}
            if level == "full":
                row |= {k: quality[k] for k in FULL.values() if k != "reprojection"}
                reprojection = quality["reprojection"]
                row["reprojection"] = 100 * float(np.mean(reprojection["relative"])) if reprojection else None
            else:
                ratio = math.prod(against_pan["scene"]["ratio"]) ** 0.5
                facts = job.evaluate_against(str(truth), [str(out)], ratio)
                row |= {k: facts["results"][0]["quality"][k] for k in REDUCED.values() if k != "rr_detail"}
                row["rr_detail"] = quality["pan_detail_correlation"]
            return row
        except PansharpenError as error:
            return {"error": str(error).replace(f"{temporary}/", "")}
        except subprocess.CalledProcessError as error:
            lines = (error.stderr or error.stdout or str(error)).strip().splitlines()
            return {"error": (lines[-1] if lines else f"exit code {error.returncode}").replace(f"{temporary}/", "")}


def cell(row: dict, key: str) -> str:
    value = row.get(key)
    return "" if value is None else f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"


def mean(rows: list[dict], key: str) -> float | None:
    values = [r[key] for r in rows if r.get(key) is not None and math.isfinite(r[key])]
    return float(np.mean(values)) if values else None


def means(rows: dict, names: list[str], scenes: list[str], level: str, keys: dict[str, str], order: str) -> list[str]:
    """A table of means over the scenes on which all but the tools that fail somewhere gave a result."""
    lines = [f"| method | scenes | {' | '.join(keys)} | seconds |", "|---|---|" + "---|" * (len(keys) + 1)]
    table = []
    for name in names:
        own = [rows[s, level, name] for s in scenes if (s, level, name) in rows and "error" not in rows[s, level, name]]
        if own:
            table.append((name, len(own), {k: mean(own, k) for k in (*keys.values(), "seconds")}))
    full = max((count for _, count, _ in table), default=0)
    table.sort(key=lambda t: (t[1] < full, -(t[2][order] or 0.0)))
    for name, count, values in table:
        cells = " | ".join(cell(values, k) for k in keys.values())
        lines.append(f"| {name} | {count} | {cells} | {values['seconds']:.2f} |")
    return lines


def document(rows: dict, names: list[str], scenes: list[str], command: str, others: str) -> str:
    reduced = [s for s in scenes if any((s, "reduced", n) in rows for n in names)]
    lines = [
        "# Quality on real scenes",
        "",
        f"`{command}`, {torch.get_num_threads()} threads; every result was written to a file in the type of the MS and "
        f"scored by `pansharpen evaluate`, other tools' results too ({others or 'none here'}). "
        "The networks were trained on none of these scenes, but the schedule and the loss weights of their "
        "adaptation, how far PAN lies off in the default network's samples and how much of a measured MTF gain is "
        "taken were chosen on them, and one of the terms of that loss is built on the index that D_s is built on: for "
        "them HQNR is no "
        "independent evidence, the reduced resolution is. All of ours run with the default `--align auto`, which "
        "moves the MS where it is measured to lie off; the full-resolution figures see it where a file says that it "
        "was moved to, and for other tools' files where it is measured. Means over fewer scenes (a network for other "
        "band counts, a tool that failed) stand below and are not comparable with the others. Seconds are those of "
        "fusing and writing, with the start of the program for other tools, in some rows beside other work: a hint, no "
        "benchmark.",
        "",
        "## Full resolution, mean over scenes",
        "",
        *means(rows, names, scenes, "full", FULL, "fidelity"),
        "",
        "Ordered by fidelity (docs/metrics.md). HQNR and QNR are what published tables have; they reward softness, and "
        "up-sampling has them for nothing. Flat: 1 is as calm as PAN. `reprojection %`: RMSE of the result, degraded "
        "to the MS with the table's MTF, over the band's mean.",
        "",
        "## Reduced resolution, mean over scenes",
        "",
        "Against the true MS; SAM in degrees, PSNR in dB.",
        "",
        *means(rows, names, reduced, "reduced", REDUCED, "q2n"),
        "",
        "## Per scene",
    ]
    for scene in scenes:
        for level, keys, order in (("full", FULL, "fidelity"), ("reduced", REDUCED, "q2n")):
            own = {n: rows[scene, level, n] for n in names if (scene, level, n) in rows}
            good = sorted(
                (n for n in own if "error" not in own[n]), key=lambda n, o=own, k=order: -(o[n].get(k) or 0.0)
            )
            if not good:
                continue
            lines += ["", f"### {scene}, {level} resolution", ""]
            lines += [f"| method | {' | '.join(keys)} |", "|---|" + "---|" * len(keys)]
            lines += [f"| {n} | {' | '.join(cell(own[n], k) for k in keys.values())} |" for n in good]
            failed = [n for n in own if "error" in own[n]]
            lines += [""] * bool(failed) + [f"- {n}: no result: {own[n]['error'][:200]}" for n in failed]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, help="write the tables here instead of to stdout")
    parser.add_argument("--rows", type=Path, default=Path("runs/quality.jsonl"), help="where the rows are kept")
    parser.add_argument("--scene", action="append", help="only this scene; again for more")
    parser.add_argument("--method", action="append", help="only this row of the table; again for more")
    parser.add_argument("--minutes", type=float, default=60, help="stop then, to be resumed")
    parser.add_argument("--oty", default=shutil.which("oty"), help="Orthority's command")
    args = parser.parse_args()
    makers = cases(args.oty)
    names = [n for n in makers if not args.method or n in args.method]
    folders = sorted(p for p in args.folder.iterdir() if (p / "pan.tif").is_file())
    folders = [f for f in folders if not args.scene or f.name in args.scene]
    rows: dict[tuple[str, str, str], dict] = {}
    if args.rows.is_file():
        for line in args.rows.read_text().splitlines():
            kept = json.loads(line)
            rows[kept["scene"], kept["level"], kept["method"]] = kept["row"]
    args.rows.parent.mkdir(parents=True, exist_ok=True)
    started, missing = time.monotonic(), 0
    with open(args.rows, "a") as log:
        for folder in folders:
            bands = len(read_stack(folder / "ms.tif")[0])
            for level in ("full", "reduced"):
                if level == "reduced" and not ((folder / "rr").is_dir() or (folder / "gt.tif").is_file()):
                    continue
                for name in names:
                    if (folder.name, level, name) in rows or not fits(name, bands):
                        continue
                    if time.monotonic() - started > 60 * args.minutes:
                        missing += 1
                        continue
                    row = measure(folder, level, makers[name])
                    rows[folder.name, level, name] = row
                    log.write(json.dumps({"scene": folder.name, "level": level, "method": name, "row": row}) + "\n")
                    log.flush()
                    print(folder.name, level, name, row, file=sys.stderr)
    if missing:
        print(f"out of time: {missing} rows are missing; run it again to go on", file=sys.stderr)
    command = f"python benchmarks/quality.py {args.folder}" + (f" -o {args.output}" if args.output else "")
    text = document(rows, names, [f.name for f in folders], command, versions(args.oty))
    if args.output:
        args.output.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
