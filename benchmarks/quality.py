"""Quality of every method and network, and of other tools: on scenes of known truth, and on real ones.

    python benchmarks/quality.py ../shared/data/dev --truescale ../shared/data/dev_truescale -o docs/quality.md
    python benchmarks/quality.py --truescale ../shared/data/dev_truescale --only "glpnet off" [--weights FILE, --seed N]

The second form measures one network on all scenes in one process and prints its tables: for judging a training.

A scene of `--truescale` holds `pan.tif`, `ms.tif` and `gt.tif`, the truth at the PAN's scale; `scenes.json` beside them
names their presets, else the end of the scene's name does. A real one holds `pan.tif`, `ms.tif` and, for reduced
resolution, `rr/pan.tif`, `rr/ms.tif`, `rr/gt.tif` (or `gt.tif` beside the pair). All results are written as files and
scored by the same code, `pansharpen evaluate`'s. Other tools run where they are installed: `gdal_pansharpen.py`,
`otbcli_BundleToPerfectSensor` and Orthority's `oty` (on the PATH or named with --oty).

Rows that the document (-o, else docs/quality.md) or `runs/quality.jsonl` holds are taken over, with the section on
blind comparisons, which is written by hand. What they lack is measured, and what --only names is measured anew.
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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import rasterio
import torch
from quality_tables import LEVELS, Document, Key, Rows, Tables, document

from pansharpen_cli import classical, models
from pansharpen_cli.errors import PansharpenError
from pansharpen_cli.fusion.options import Options
from pansharpen_cli.jobs import evaluate, fuse
from pansharpen_cli.jobs.request import FusionOutput, Pair
from pansharpen_cli.models import weights
from pansharpen_cli.raster.options import OpenOptions

DOCUMENT = Path(__file__).parent.parent / "docs" / "quality.md"

Maker = Callable[[Path, Path, Path], None]
"""Fuses a PAN and an MS into a file; raises PansharpenError or CalledProcessError."""


def ours(method: str, adapt: str = "off", align: str = "auto", weights: str | None = None, seed: int = 0) -> Maker:
    def make(pan: Path, ms: Path, out: Path) -> None:
        options = Options(method=method, weights=weights, adapt=adapt, align=align, seed=seed)
        fuse.fuse_scene(Pair(str(pan), [str(ms)]), FusionOutput(out), options, score=False)

    return make


def tool(template: str, environment: dict[str, str] | None = None) -> Maker:
    """Another program; its command line with {pan}, {ms}, {out} and {dtype} to fill in."""

    def make(pan: Path, ms: Path, out: Path) -> None:
        dtype = {"uint8": "uint8", "uint16": "uint16"}.get(str(read_dtype(ms)), "float")
        command = [t.format(pan=pan, ms=ms, out=out, dtype=dtype) for t in shlex.split(template)]
        subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | (environment or {}))

    return make


def read_dtype(path: Path) -> np.dtype:
    with rasterio.open(path) as dataset:
        return np.dtype(dataset.dtypes[0])


def cases(oty: str | None, file: str | None = None, seed: int = 0) -> dict[str, Maker]:
    """All rows; `file`: weights that the networks take instead of their own; `seed`: of their adaptations."""
    made = {name: ours(name) for name in classical.METHODS}
    trained = {card.network for card in weights.manifest().values()}
    for network in (name for name in models.REGISTRY if name in trained):
        for adapt in ("off", "fast", "best") if network in (models.DEFAULT, "fusionnet") else ("off", "fast"):
            made[f"{network} {adapt}"] = ours(network, adapt, weights=file, seed=seed)
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
            row = {"seconds": time.perf_counter() - started}
            if level != "true":
                row |= without_truth(out, pan, ms, level)
            if level != "full":
                row |= against_truth(out, pan, ms, truth, level)
            return row
        except PansharpenError as error:
            return {"error": str(error).replace(f"{temporary}/", "")}
        except subprocess.CalledProcessError as error:
            lines = (error.stderr or error.stdout or str(error)).strip().splitlines()
            return {"error": (lines[-1] if lines else f"exit code {error.returncode}").replace(f"{temporary}/", "")}


def without_truth(out: Path, pan: Path, ms: Path, level: str) -> dict:
    facts = evaluate.evaluate([str(out)], Pair(str(pan), [str(ms)], OpenOptions(extent="pan")), align="auto")
    quality = facts["results"][0]["quality"]
    if level == "reduced":
        return {"rr_detail": quality["pan_detail_correlation"]}
    row = {k: quality[k] for k in LEVELS["full"].columns.values() if k != "reprojection"}
    errors = quality["reprojection"]
    reprojection = 100 * float(np.mean(errors["relative"])) if errors else None
    return row | {"reprojection": reprojection}


def against_truth(out: Path, pan: Path, ms: Path, truth: Path, level: str) -> dict:
    with rasterio.open(pan) as fine, rasterio.open(ms) as coarse:
        ratio = math.prod(c / f for c, f in zip(coarse.res, fine.res, strict=True)) ** 0.5
    facts = evaluate.evaluate_against(str(truth), [str(out)], ratio, pan=str(pan))
    quality = facts["results"][0]["quality"]
    return {k: quality[k] for k in LEVELS[level].columns.values() if k in quality}


def selected(makers: Mapping[str, Maker], only: Sequence[str]) -> list[str]:
    """Rows by their names or by their networks, with any adaptation; all if none is named."""
    names = [n for n in makers if not only or n in only or n.split()[0] in only]
    unknown = [o for o in only if o not in names and o not in {n.split()[0] for n in names}]
    if unknown:
        raise SystemExit(f"no row is called '{unknown[0]}'; there is {', '.join(makers)}")
    return names


def places(args: argparse.Namespace) -> list[tuple[Path, str]]:
    """Folders of scenes, and the levels that they are measured at."""
    found = []
    for root, levels in ((args.truescale, ("true",)), (args.folder, ("reduced", "full"))):
        folders = sorted(p for p in root.iterdir() if (p / "pan.tif").is_file()) if root else []
        for folder in (f for f in folders if not args.scene or f.name in args.scene):
            known = (folder / "rr").is_dir() or (folder / "gt.tif").is_file()
            found += [(folder, level) for level in levels if known or level == "full"]
    return found


def presets(root: Path | None, scenes: Sequence[str]) -> dict[str, str]:
    named = {}
    if root and (root / "scenes.json").is_file():
        named = {scene["id"]: scene["preset"] for scene in json.loads((root / "scenes.json").read_text())}
    return {s: named.get(s, s.rpartition("_")[2]) for s in scenes}


def kept(path: Path) -> Rows:
    lines = path.read_text().splitlines() if path.is_file() else []
    return {(r["scene"], r["level"], r["method"]): r["row"] for r in map(json.loads, lines)}


def add_missing(rows: Rows, wanted: Sequence[tuple[Key, Path]], makers: Mapping[str, Maker], args) -> None:
    """Measure rows, log them unless they are a trial's, and stop in time."""
    started = time.monotonic()
    for done, (key, folder) in enumerate(wanted):
        if time.monotonic() - started > 60 * args.minutes:
            print(f"out of time: {len(wanted) - done} rows are missing; run it again to go on", file=sys.stderr)
            return
        rows[key] = row = measure(folder, key[1], makers[key[2]])
        if not args.trial:
            args.rows.parent.mkdir(parents=True, exist_ok=True)
            with open(args.rows, "a") as log:
                log.write(json.dumps(dict(zip(("scene", "level", "method"), key, strict=True)) | {"row": row}) + "\n")
        print(*key, row, file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="real scenes")
    parser.add_argument("--truescale", type=Path, help="scenes whose truth is known at the PAN's scale")
    parser.add_argument("-o", "--output", type=Path, help="write the document here instead of to stdout")
    parser.add_argument("--rows", type=Path, default=Path("runs/quality.jsonl"), help="where the rows are kept")
    parser.add_argument("--scene", action="append", help="measure only this scene; again for more")
    parser.add_argument("--only", action="append", default=[], help="measure this row or network anew; again for more")
    parser.add_argument("--weights", help="with --only: a weights file, whose rows are printed and not kept")
    parser.add_argument("--seed", type=int, default=0, help="of adaptations; but for 0 with --only, rows are not kept")
    parser.add_argument("--minutes", type=float, default=60, help="stop then, to be resumed")
    parser.add_argument("--oty", default=shutil.which("oty"), help="Orthority's command")
    args = parser.parse_args()
    args.trial = bool(args.weights or args.seed)
    if args.trial and (args.output or not args.only):
        parser.error("--weights and --seed go with --only, and without -o")
    makers = cases(args.oty, args.weights, args.seed)
    names = selected(makers, args.only)
    before = args.output or DOCUMENT
    old = Document.parse(before.read_text() if before.is_file() else "")
    rows = old.rows | kept(args.rows)
    if args.trial:
        rows = {key: row for key, row in rows.items() if key[2] not in names}
    wanted = []
    for folder, level in places(args):
        with rasterio.open(folder / "ms.tif") as ms:
            bands = ms.count
        keys = [(folder.name, level, name) for name in names if args.trial or fits(name, bands)]
        wanted += [(key, folder) for key in keys if args.only or key not in rows]
    add_missing(rows, wanted, makers, args)
    kinds = presets(args.truescale, [scene for scene, level, _ in rows if level == "true"])
    if args.only and not args.output:
        tables = Tables(rows, names, list(classical.METHODS), kinds)
        print("\n\n".join("\n".join(t) for t in (tables.means("true"), tables.by_preset(), tables.by_scene(names))))
        return
    tables = Tables(rows, list(dict.fromkeys([*makers, *(n for *_, n in rows)])), list(classical.METHODS), kinds)
    command = "python benchmarks/quality.py" + "".join(
        f"{option} {os.path.relpath(folder)}"
        for option, folder in (("", args.folder), (" --truescale", args.truescale))
        if folder
    )
    tools = versions(args.oty) or old.tools
    default = ["gsa", "bt-h", f"{models.DEFAULT} off", f"{models.DEFAULT} fast"]
    text = document(tables, command, torch.get_num_threads(), tools, old.blind, default)
    if args.output:
        args.output.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
