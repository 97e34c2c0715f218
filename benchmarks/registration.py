"""How well the shift of an MS against its PAN is measured, what correcting it brings, and how long it takes.

    python benchmarks/registration.py simulated
    python benchmarks/registration.py scenes FOLDER          # of SCENE/pan.tif and SCENE/ms.tif
    python benchmarks/registration.py quality [FOLDER]       # where a SCENE has gt.tif, figures against it as well
    python benchmarks/registration.py speed --side 1024 --side 4096

`simulated` and `scenes` inject shifts by moving the MS's origin: simulated scenes are aligned but for that, of real
ones the shift that they have without it counts as theirs. `quality` fuses with the MS where it belongs (the scene's own
shift corrected), and with 2.5 pixels injected, with `--align auto` and with `--align off`.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from speed import repeated_scene

from pansharpen_cli.fusion import fit, loop, register, shifts
from pansharpen_cli.fusion.options import Options
from pansharpen_cli.quality import assess
from pansharpen_cli.quality.rasters import Raster, array_reader
from pansharpen_cli.quality.reference import radiometry
from pansharpen_cli.raster.options import OpenOptions
from pansharpen_cli.raster.scene import Scene
from pansharpen_cli.training.simulate import Simulation, simulate, write_scene

RATIOS = (2.0, 2.76, 3.0, 4.0, 6.0)
CASES = [(side, ratio, 4) for side in (256, 512) for ratio in RATIOS] + [(256, 4.0, 1), (512, 4.0, 1), (256, 4.0, 8)]
SIZES = (1.0, 2.5, 5.0)
"""PAN pixels that are injected, in each of four directions; and none."""

DIRECTIONS = [(np.sin(a), np.cos(a)) for a in np.arange(4) * np.pi / 2 + 0.3]


def injected() -> list[tuple[float, float]]:
    """Shifts (rows, columns) in PAN pixels, of all directions, whole and sub-pixel."""
    return [(0.0, 0.0)] + [(round(s * r, 2), round(s * c, 2)) for s in SIZES for r, c in DIRECTIONS]


def measured(pan: Path, ms: Path, shift: tuple[float, float]) -> shifts.Shift:
    """With the MS's origin moved by `shift`, as a wrong geotransform would."""
    with Scene.open(pan, [ms]) as scene:
        scene = scene.shifted(shift)
        return register.measure(scene)


def errors(pan: Path, ms: Path, own: tuple[float, float]) -> tuple[list[float], list[float]]:
    """Larger error on either axis of each injected shift, against the scene's `own`; and the confidences."""
    found = [(measured(pan, ms, s), s) for s in injected()]
    wrong = [max(abs(m.rows + s[0] - own[0]), abs(m.cols + s[1] - own[1])) for m, s in found]
    return wrong, [m.confidence for m, _ in found]


def simulated(folder: Path) -> None:
    print("| PAN | ratio | bands | largest error | mean error | with none injected | not confident |")
    print("|---|---|---|---|---|---|---|")
    for side, ratio, bands in CASES:
        wrong, none, doubts, count = [], [], 0, 0
        for seed in range(1, 5):
            spec = Simulation(side, side, bands, ratio, offset=(1.37, -2.2), seed=seed)
            pan, ms, _ = write_scene(simulate(spec), folder / f"{side}-{ratio}-{bands}-{seed}")
            found, confidence = errors(pan, ms, (0.0, 0.0))
            sure = [e for e, c in zip(found, confidence, strict=True) if c >= 0.5]
            wrong += sure
            none += found[:1] if confidence[0] >= 0.5 else []
            doubts, count = doubts + len(found) - len(sure), count + len(found)
        cells = f"{max(wrong):.3f} | {np.mean(wrong):.3f} | {max(none):.3f} | {doubts} of {count} |"
        print(f"| {side} x {side} | {ratio:g} | {bands} | {cells}", flush=True)


def scenes(folder: Path) -> None:
    print("| scene | own shift | confidence | varies by | bands, rows and columns | largest error | least confidence |")
    print("|---|---|---|---|---|---|---|")
    for at in sorted(folder.glob("*/pan.tif")):
        pan, ms = at, at.with_name("ms.tif")
        own = measured(pan, ms, (0.0, 0.0))
        wrong, confidence = errors(pan, ms, (own.rows, own.cols))
        bands = "; ".join(f"{r:+.2f} {c:+.2f}" for r, c in own.bands)
        print(
            f"| {at.parent.name} | {own.rows:+.2f} {own.cols:+.2f} | {own.confidence:.2f} | {own.varies:.2f} | {bands} "
            f"| {max(wrong):.3f} | {min(confidence):.2f} |",
            flush=True,
        )


def figures(pan: Path, ms: Path, truth: Path | None, shift, apply: bool, own, method: str) -> dict[str, float]:
    """Quality of a fusion with `shift` injected beside the scene's own, corrected as `--align auto` does or not."""
    base = (own[0] + shift[0], own[1] + shift[1])
    if apply:
        found = measured(pan, ms, base)
        if shifts.is_correctable(found):
            base = (base[0] + found.rows, base[1] + found.cols)
    with Scene.open(pan, [ms]) as scene, Scene.open(pan, [ms], OpenOptions(extent="pan")) as true:
        scene, true = scene.shifted(base), true.shifted(own)
        fused, valid = loop.fuse_array(scene, fit.fit(scene, Options(method, seed=0)).fuser)
        # all are judged on the same pixels, with the MS where it belongs
        common = (true.pan_grid.overlap(true.phase, true.ms_grid) & true.full).widened(-8)
        read = array_reader(fused, valid, scene.window.corner)
        made = {"HQNR": assess.full_resolution(true, read, common).figures["hqnr"]}
        if truth is not None:
            made |= against(truth, fused, valid, scene.window, common, scene.phase.ratio[0])
    return made


def against(truth: Path, fused: np.ndarray, valid: np.ndarray, window, common, ratio: float) -> dict[str, float]:
    from pansharpen_cli.quality import metrics

    with Raster.open(truth) as raster:
        expected, there = raster.read(common)
        peak = radiometry(raster).peak
    own = common.within(window)
    indices = metrics.ReducedResolution(common.shape, ratio, peak, 1.0)
    indices.update(
        torch.from_numpy(expected.astype(np.float64)), torch.from_numpy(fused[:, *own]).double(),
        torch.from_numpy(there & valid[own]), core=common.within(common), at=(0, 0),
    )  # fmt: skip
    found = indices.compute()
    return {"Q2n": found["q2n"], "ERGAS": found["ergas"]}


def quality(folder: Path | None, temporary: Path, methods: list[str]) -> None:
    pairs = []
    for seed in (1, 2, 3):  # their truth is known as well
        spec = Simulation(512, 512, 4, offset=(1.37, -2.2), seed=seed)
        pairs.append((f"simulated {seed}", *write_scene(simulate(spec), temporary / str(seed))))
    for at in sorted([*folder.glob("*/pan.tif"), *folder.glob("*/rr/pan.tif")]) if folder else ():
        truth = at.with_name("gt.tif")
        pairs.append(
            (str(at.parent.relative_to(folder)), at, at.with_name("ms.tif"), truth if truth.exists() else None)
        )
    print("| scene | method | figure | unshifted | 2.5 pixels off, auto | change | 2.5 pixels off, off |")
    print("|---|---|---|---|---|---|---|")
    for (name, pan, ms, truth), method in itertools.product(pairs, methods):
        found = measured(pan, ms, (0.0, 0.0))
        own = (0.0, 0.0) if name.startswith("simulated") else tuple(np.nan_to_num((found.rows, found.cols)))
        shift = (2.0, -1.5)
        straight = figures(pan, ms, truth, (0.0, 0.0), False, own, method)
        auto = figures(pan, ms, truth, shift, True, own, method)
        off = figures(pan, ms, truth, shift, False, own, method)
        for key, value in straight.items():
            change = f"{100 * (auto[key] / value - 1):+.2f} %"
            print(
                f"| {name} | {method} | {key} | {value:.4f} | {auto[key]:.4f} | {change} | {off[key]:.4f} |", flush=True
            )


def speed(sides: list[int], bands: int, temporary: Path) -> None:
    for side in sides:
        pan, ms = repeated_scene(temporary, side, bands)
        seconds = []
        for _ in range(3):
            with Scene.open(pan, [ms]) as scene:
                clock = time.perf_counter()
                register.measure(scene)
                seconds.append(time.perf_counter() - clock)
        print(f"{side} x {side} x {bands}: {min(seconds):.2f} s, first time {seconds[0]:.2f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("simulated", "scenes", "quality", "speed"))
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--side", type=int, action="append")
    parser.add_argument("--bands", type=int, default=4)
    parser.add_argument("--method", action="append")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        if args.what == "simulated":
            simulated(Path(temporary))
        elif args.what == "scenes":
            if args.folder is None:
                parser.error("scenes needs a folder")
            scenes(args.folder)
        elif args.what == "quality":
            quality(args.folder, Path(temporary), args.method or ["mtf-glp-fs"])
        else:
            speed(args.side or [1024, 4096], args.bands, Path(temporary))


if __name__ == "__main__":
    main()
