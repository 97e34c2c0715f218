"""Pairs that differ from the usual in one thing each: how the default does against classical methods on them.

    python benchmarks/presets.py ../shared/data/val
    python benchmarks/presets.py ../shared/data/val --only "very soft" --only "up-sampled twice" --method glpnet

Aerial images (`VHR_*_ms.tif`) and a Sentinel-2 stack are the truth, seen by sensors that differ from the usual one
(ratio 4, an MTF gain of 0.3, a PAN of all bands). Printed are mean ERGAS against the truth (without a border of 8
pixels), and its ratio to that of the best classical method by its mean.
"""

from __future__ import annotations

import argparse
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from scipy import ndimage

import pansharpen_cli as pansharpen

SIDE, BORDER = 480, 8
CLASSICAL = ("gsa", "bt-h", "mtf-glp-fs", "bdsd-pc")
RESPONSE = {"red": 0.33, "green": 0.33, "blue": 0.16, "nir": 0.18}

Image = Callable[[np.ndarray], np.ndarray]


def same(image: np.ndarray) -> np.ndarray:
    return image


def sharpened(strength: float) -> Image:
    return lambda image: image + strength * (image - ndimage.gaussian_filter(image, 1.0))


def resampled(image: np.ndarray) -> np.ndarray:
    """Twice, bilinearly, by half a pixel there and back."""
    there = ndimage.shift(image, (0.5, 0.3), order=1, mode="reflect")
    return ndimage.shift(there, (-0.5, -0.3), order=1, mode="reflect")


@dataclass(frozen=True)
class Preset:
    """How a sensor differs from the usual one; lengths in PAN pixels, noise in deviations of a band."""

    ratio: float = 4.0
    gain: float = 0.3
    response: Mapping[str, float] = field(default_factory=lambda: RESPONSE)
    unseen: bool = False
    """The PAN is the last band, which the MS then lacks."""
    off: float = 0.0
    apart: float = 0.0
    noise: float = 0.008
    pan: Image = same
    ms: Image = same
    enlarged: int = 1
    """Times by which the MS is up-sampled, by a cubic kernel, once it is made."""


PRESETS = {
    "as usual": Preset(),
    "ratio 2": Preset(ratio=2.0),
    "ratio 2.5": Preset(ratio=2.5),
    "ratio 3": Preset(ratio=3.0),
    "ratio 6": Preset(ratio=6.0),
    "ratio 8": Preset(ratio=8.0),
    "soft": Preset(gain=0.1),
    "very soft": Preset(gain=0.03),
    "softer than any optics": Preset(gain=0.005),
    "resampled twice": Preset(ms=resampled),
    "up-sampled twice": Preset(enlarged=2),
    "crisp": Preset(gain=0.6),
    "very crisp": Preset(gain=0.85),
    "sharpened": Preset(ms=sharpened(1.0)),
    "sharpened a lot": Preset(ms=sharpened(2.0)),
    "PAN mostly infrared": Preset(response={"red": 0.25, "green": 0.15, "blue": 0.05, "nir": 0.55}),
    "PAN mostly red": Preset(response={"red": 0.9, "green": 0.05, "blue": 0.05, "nir": 0.0}),
    "PAN that no band sees": Preset(unseen=True),
    "PAN of another contrast": Preset(pan=lambda pan: pan.max() * (pan / pan.max()) ** 1.5),
    "2.3 pixels off": Preset(off=2.3),
    "bands apart by a pixel": Preset(apart=1.0),
    "noise": Preset(noise=0.03),
}


def pair_of(
    scene: np.ndarray, names: list[str], preset: Preset, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """PAN (rows, cols), MS and truth (bands, rows, cols) of a part of a scene."""
    rng = np.random.default_rng(seed)
    count = min(int(SIDE // preset.ratio), *(int(side // preset.ratio) for side in scene.shape[1:]))
    side = int(count * preset.ratio)
    top, left = (int(rng.integers(0, whole - side + 1)) for whole in scene.shape[1:])
    truth = scene[:, top : top + side, left : left + side]
    weights = np.array([preset.response[name] for name in names])
    pan = truth[-1] if preset.unseen else np.tensordot(weights / weights.sum(), truth, 1)
    truth = truth[:-1] if preset.unseen else truth
    pan = preset.pan(pan) + rng.normal(0, 0.005 * pan.std(), pan.shape)
    width, bands = preset.ratio / np.pi * np.sqrt(-2 * np.log(preset.gain)), []
    centres = (np.arange(count) + 0.5) * preset.ratio - 0.5
    for band in truth:
        rows, cols = preset.off * np.array([1.0, -0.6]) + preset.apart * rng.normal(0, 1, 2)
        at = np.meshgrid(centres + rows, centres + cols, indexing="ij")
        seen = ndimage.map_coordinates(
            ndimage.gaussian_filter(band, width, mode="reflect"), at, order=3, mode="reflect"
        )
        bands.append(preset.ms(seen) + rng.normal(0, preset.noise * seen.std(), seen.shape))
    ms = np.array(bands)
    if preset.enlarged > 1:
        ms = ndimage.zoom(ms, (1, preset.enlarged, preset.enlarged), order=3, grid_mode=True, mode="nearest")
    return pan, ms, truth


def write(path: Path, bands: np.ndarray, pixel: float) -> Path:
    values = np.clip(np.round(np.atleast_3d(bands.T).T), 1, 65535).astype("uint16")
    known = {"count": len(values), "height": values.shape[1], "width": values.shape[2], "dtype": "uint16"}
    transform = Affine(pixel, 0, 500_000, 0, -pixel, 5_000_000)
    with rasterio.open(path, "w", driver="GTiff", crs="EPSG:32631", transform=transform, **known) as dataset:
        dataset.write(values)
    return path


def ergas_of(folder: Path, truth: np.ndarray, ratio: float, method: str) -> float:
    """Against the truth; the border of a result is left out, and what of the truth its window is not."""
    fused = pansharpen.fuse(folder / "pan.tif", folder / "ms.tif", method=method, sensor="generic", score=False)
    top, left = round(5_000_000 - fused.transform.f), round(fused.transform.c - 500_000)
    rows, cols = fused.data.shape[1:]
    inner = (slice(None), slice(BORDER, -BORDER), slice(BORDER, -BORDER))
    known = truth[:, top : top + rows, left : left + cols][inner]
    return pansharpen.indices.ergas(known, fused.data[inner].astype(float), ratio=ratio)


def scenes(folder: Path) -> dict[str, tuple[np.ndarray, list[str]]]:
    """Bands that a PAN sees, in the range of 11 bits, and their names."""
    found = {}
    for path in sorted([*folder.glob("VHR_*_ms.tif"), *folder.glob("S2_geotrellis*_ms.tif")]):
        with rasterio.open(path) as dataset:
            values = dataset.read().astype(float) * (8 if dataset.dtypes[0] == "uint8" else 1)
            infrared = "nir" if dataset.count == 4 else None
            names = (
                ["red", "green", "blue", infrared] if path.name.startswith("VHR") else ["blue", "green", "red", "nir"]
            )
            found[path.stem] = values, [name for name in names if name]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", action="append", choices=PRESETS)
    parser.add_argument("--method", action="append", help="default: glpnet and some classical ones")
    given = parser.parse_args()
    methods, known = given.method or ["glpnet", *CLASSICAL], scenes(given.folder)
    print(f"| pairs | {' | '.join(methods)} | of the best classical |\n|---|{'---|' * (len(methods) + 1)}")
    for name in given.only or PRESETS:
        preset, figures = PRESETS[name], []
        for scene, (values, names) in known.items():
            pan, ms, truth = pair_of(values, names, preset, zlib.crc32(f"{name} {scene}".encode()))
            with tempfile.TemporaryDirectory() as folder:
                write(Path(folder) / "pan.tif", pan, 1.0)
                write(Path(folder) / "ms.tif", ms, preset.ratio / preset.enlarged)
                figures.append([ergas_of(Path(folder), truth, preset.ratio, method) for method in methods])
        mean = dict(zip(methods, np.mean(figures, 0), strict=True))
        best = min((mean[method] for method in methods if method in CLASSICAL), default=np.nan)
        row = " | ".join(f"{value:.3f}" for value in mean.values())
        print(f"| {name} | {row} | {mean[methods[0]] / best:.2f} |", flush=True)


if __name__ == "__main__":
    main()
