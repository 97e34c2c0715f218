"""The pictures of docs/howto and of the tutorial's comparison, of the sample pair and of simulated scenes.

    python benchmarks/howto_pictures.py [FOLDER] [--page grids --page train ...]

`train` trains twice, 150 steps each, which takes longer than all others together.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from PIL import Image, ImageDraw, ImageFont
from rasterio.windows import Window
from scipy import ndimage

import pansharpen_cli as pansharpen
from pansharpen_cli.training.simulate import Simulation, simulate, write_scene

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "sample_data"
WHOLE = SAMPLE / "pan.tif", SAMPLE / "ms.tif"
CUT = 116
"""Column of the MS in which the pair is cut; of the PAN it is twice as much."""
GAP, GREY = 8, 500.0
"""Pixels between panels, and the difference in DN that is shown as black or white."""
TRUE = 3, 2, 1

Panel = tuple[str, np.ndarray]
"""A label, which may be empty, and a picture (3, rows, cols) uint8."""


def sheet(rows: Sequence[Sequence[Panel]], path: Path) -> None:
    """Panels in rows, each under its label; all pictures of one size."""
    font = ImageFont.load_default(15)
    height, width = rows[0][0][1].shape[1:]
    head = 22 if rows[0][0][0] else 0
    across, down = max(map(len, rows)), len(rows)
    size = across * (width + GAP) - GAP, down * (height + head + GAP) - GAP
    paper = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(paper)
    for i, row in enumerate(rows):
        for k, (label, panel) in enumerate(row):
            left, top = k * (width + GAP), i * (height + head + GAP)
            draw.text((left, top + 1), label, "black", font)
            paper.paste(Image.fromarray(panel.transpose(1, 2, 0)), (left, top + head))
    paper.save(path, quality=88, optimize=True)
    print(f"{path}  {path.stat().st_size / 1e3:.0f} kB")


class View:
    """A part of the PAN, `zoom` times as large, in which files of the same place are shown pixel by pixel."""

    def __init__(self, pan: Path, row: int, col: int, rows: int, cols: int, zoom: int) -> None:
        with rasterio.open(pan) as source:
            self.place = source.transform @ Affine.translation(col, row) @ Affine.scale(1 / zoom)
        self.shape = rows * zoom, cols * zoom

    def of(self, path: Path, bands: Sequence[int] = TRUE, like: tuple[Path, Sequence[int]] | None = None) -> np.ndarray:
        """Bands of a file, stretched between the percentiles of the part, or of that of other bands: `like`."""
        low, high = np.percentile(self._pixels(*(like or (path, bands))), (1, 99), axis=(1, 2))[..., None, None]
        scaled = np.clip((self._pixels(path, bands) - low) / (high - low), 0, 1) ** 0.7 * 255
        return np.broadcast_to(scaled.astype("uint8"), (3, *self.shape))

    def _pixels(self, path: Path, bands: Sequence[int]) -> np.ndarray:
        with rasterio.open(path) as source:
            to = ~source.transform @ self.place
            rows, cols = (np.arange(n) + 0.5 for n in self.shape)
            rows, cols = np.floor(to.e * rows + to.f).astype(int), np.floor(to.a * cols + to.c).astype(int)
            return source.read(list(bands))[:, rows[:, None], cols].astype(float)


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


def command(*words: str) -> str:
    """What `pansharpen` prints on stdout."""
    return subprocess.run(
        [sys.executable, "-m", "pansharpen_cli", *words], stdout=subprocess.PIPE, text=True, check=True
    ).stdout


# Pages ----------------------------------------------------------------------------------------------------------------


def choose_a_method(room: Path, target: Path) -> None:
    pan, ms, truth = write_scene(simulate(Simulation(rows=480, cols=480, seed=5)), room)
    view = View(pan, 150, 300, 80, 80, 3)
    like = truth, TRUE
    results = {}
    for method in ("exp", "brovey", "gsa", "mtf-glp-fs", "glpnet"):
        results[method] = room / f"{method}.tif"
        pansharpen.fuse(pan, ms, output=results[method], method=method, score=False)
    first = [("PAN", view.of(pan, [1])), ("MS", view.of(ms, like=like)), ("truth", view.of(truth))]
    panels = first + [(name, view.of(path, like=like)) for name, path in results.items()]
    sheet([panels[:4], panels[4:]], target / "methods.jpg")


def tutorial(room: Path, target: Path) -> None:
    view, (pan, ms) = View(WHOLE[0], 386, 296, 84, 84, 5), WHOLE
    panels = []
    for method in ("exp", "gsa", "glpnet"):
        pansharpen.fuse(pan, ms, output=(fused := room / f"{method}.tif"), method=method, score=False)
        panels.append((method, view.of(fused, like=(ms, TRUE))))
    sheet([panels], target / "tutorial.jpg")


def landsat(room: Path, target: Path) -> None:
    pan, ms = WHOLE
    fused = room / "fused.tif"
    pansharpen.fuse(pan, ms, output=fused, score=False)
    rows, infrared = [], (4, 3, 2)
    for name, bands, row, col in (
        ("red, green, blue", TRUE, 380, 296),
        ("near infrared, red, green", infrared, 36, 240),
    ):
        view = View(pan, row, col, 84, 160, 3)
        rows.append([(f"MS, 30 m: {name}", view.of(ms, bands)), ("fused, 15 m", view.of(fused, bands, (ms, bands)))])
    sheet(rows, target / "landsat.jpg")


def grids(room: Path, target: Path) -> None:
    pan, vnir, _ = write_scene(simulate(Simulation(rows=768, cols=768, seed=1)), room)
    coarse = simulate(Simulation(rows=768, cols=768, seed=1, ratio=12, gains=0.25))
    _, swir, _ = write_scene(coarse, room / "coarse")
    with rasterio.open(swir) as source:
        profile, infrared = source.profile, source.read(4)
    patches = ndimage.zoom(np.random.default_rng(5).uniform(500, 900, (16, 16)), 4, order=3)
    for name, pixels in (("SWIR1", infrared), ("Thermal", patches)):
        with rasterio.open(room / f"{name}.tif", "w", **profile | {"count": 1}) as part:
            part.write(pixels.astype("uint16"), 1)
            part.set_band_description(1, name)
    files, fused = [vnir, room / "SWIR1.tif", room / "Thermal.tif"], room / "fused.tif"
    result = pansharpen.fuse(pan, files, output=fused, score=False)
    print([(told["band"], round(told["r2"], 2)) for told in result.report["pan_tells"]])
    view = View(pan, 330, 180, 160, 160, 2)

    def both(name: str, band: int, done: str) -> list[Panel]:
        like = room / f"{name}.tif", [1]
        return [(f"{name}, ratio 12", view.of(*like)), (f"{name}, {done}", view.of(fused, [band], like))]

    above = [("PAN", view.of(pan, [1])), *both("SWIR1", 5, "fused")]
    below = [("MS, fused", view.of(fused, like=(vnir, TRUE))), *both("Thermal", 6, "up-sampled only")]
    sheet([above, below], target / "grids.jpg")


def deliveries(room: Path, target: Path) -> None:
    pan, ms, truth = write_scene(simulate(Simulation(rows=400, cols=400, seed=21)), room)
    with rasterio.open(ms, "r+") as moved:
        moved.transform = Affine.translation(2.0, 1.5) @ moved.transform
    view, like = View(pan, 120, 262, 80, 80, 4), (truth, TRUE)
    panels = [("MS as it lies in the file", view.of(ms, like=like))]
    for align in ("off", "auto"):
        path = room / f"{align}.tif"
        pansharpen.fuse(pan, ms, output=path, align=align, score=False)
        panels.append((f"--align {align}", view.of(path, like=like)))
    sheet([panels], target / "registration.jpg")


def archives(room: Path, target: Path) -> None:
    for k in range(6):
        spec = Simulation(rows=400, cols=400, seed=20 + k, border=40 * (k % 3 == 1))
        write_scene(simulate(spec), room / f"archive/scene_{k + 1}")[2].unlink()
    command("batch", str(room / "archive"), "-o", str(room / "fused"))
    scenes = [json.loads(line) for line in (room / "fused/batch.jsonl").read_text().splitlines()]
    panels = []
    for scene in sorted(scenes, key=lambda s: s["figures"]["fidelity"]):
        look = Image.open(room / "fused" / scene["quicklook"]).convert("RGB").resize((224, 224), Image.Resampling.BOX)
        label = f"{Path(scene['scene']).stem}   fidelity {scene['figures']['fidelity']:.2f}"
        panels.append((label, np.asarray(look).transpose(2, 0, 1)))
    sheet([panels[:3], panels[3:]], target / "archive.jpg")


def train(room: Path, target: Path) -> None:
    from matplotlib.figure import Figure

    scenes, held_out = room / "scenes", room / "held_out"
    for seed in range(1, 7):
        scene = simulate(Simulation(rows=512, cols=512, seed=seed, gains=0.25))
        write_scene(scene, (held_out if seed == 6 else scenes) / str(seed))
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.add_subplot()
    for label, rate, start in (("--from glpnet", 5e-4, ["--from", "glpnet"]), ("from nothing", 1e-3, [])):
        config = room / "short.toml"
        config.write_text(
            f"[budget]\nchecks = 12\n[samples]\nvalidation = 8\n[optimiser]\nrate = {rate}\nwarmup = 20\n"
        )
        words = [str(scenes), "--validation", str(held_out), "--config", str(config), "--steps", "150", *start]
        history = json.loads(command("train", *words, "--json", "-o", str(room / f"{rate}.safetensors")))["history"]
        axes.plot([h["step"] for h in history], [h["validation"] for h in history], marker=".", label=label)
    axes.set(xlabel="steps", ylabel="validation loss")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(target / "train.png", dpi=130)


def strips_and_pictures(room: Path, target: Path) -> None:
    """The pair in halves: what fits of their own change, and what stretches of their own do."""
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
    sheet([[("", picture) for picture in differences]], target / "strips.jpg")
    stretches = [mosaic("each", "_rgb", fit=kept, rgb="true")]
    for bands in ("true", "nir,red,green"):
        asked = {"fit": kept, "rgb": bands, "stretch": str(room / f"{bands[:4]}.json")}
        pansharpen.fuse(*WHOLE, output=room / f"{bands[:4]}.tif", score=False, **asked)
        stretches.append(mosaic(bands[:4], "_rgb", **asked))
    sheet([[("", picture) for picture in stretches]], target / "stretch.jpg")


PAGES: tuple[Callable[[Path, Path], None], ...] = (
    tutorial, choose_a_method, landsat, grids, deliveries, archives, train, strips_and_pictures,
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "docs/pictures")
    names = [page.__name__ for page in PAGES]
    parser.add_argument("--page", action="append", choices=names, metavar="NAME", help=", ".join(names))
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    for page in PAGES:
        if not given.page or page.__name__ in given.page:
            with tempfile.TemporaryDirectory() as room:
                page(Path(room), given.folder)


if __name__ == "__main__":
    main()
