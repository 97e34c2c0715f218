"""Synthetic georeferenced sensor scenes whose sharp multispectral truth is known.

`landscape` paints the ground; `simulate` turns it into a PAN / MS pair at any ratio and phase. `python -m
pansharpen_cli.simulate sample_data/simulated` writes the scene that the repository ships.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

from ..physics import MTF_REACH, degrade_matrix
from ..raster.geometry import Phase, Window
from .landscape import MAXIMUM, Point, landscape

BAND_NAMES = ("Coastal", "Blue", "Green", "Yellow", "Red", "Red edge", "NIR1", "NIR2")
_SUBSETS = {
    1: (2,),
    2: (4, 6),
    3: (1, 2, 4),
    4: (1, 2, 4, 6),
    5: (1, 2, 4, 5, 6),
    6: (0, 1, 2, 4, 5, 6),
    7: (0, 1, 2, 3, 4, 5, 6),
    8: (0, 1, 2, 3, 4, 5, 6, 7),
}

_PAN_WEIGHTS = np.array([0.02, 0.10, 0.19, 0.16, 0.16, 0.10, 0.05, 0.0, 0.22])
_PAN_POWER = 0.98
_PAN_OFFSET = 24.0  # DN


def _subset(bands: int) -> tuple[int, ...]:
    if bands not in _SUBSETS:
        raise ValueError(f"a simulated scene has 1 to 8 bands, not {bands}")
    return _SUBSETS[bands]


def truth(rows: int, cols: int, bands: int, seed: int) -> np.ndarray:
    """The bands (bands, rows, cols) of a landscape in DN of an 11-bit sensor, not rounded. Four bands are blue, green,
    red and NIR."""
    return landscape(rows, cols, seed)[list(_subset(bands))]


# Sensing ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Simulation:
    """What to simulate: the two grids, the sensor and the landscape.

    `rows`, `cols`: PAN size. `ratio`: MS pixel size in PAN pixels, any real number of at least 1. `offset`: (row, col)
    of the MS origin in PAN pixels from the PAN origin, any fraction. `ms_shape`: MS size; by default the least that
    reaches the PAN's far edges. `gains`: MTF gain of the bands at the MS Nyquist frequency, one for all or one each.
    `border`: depth in PAN pixels of the slanted nodata wedges along the left and the lower edge. `nodata` may be None
    when there is no border. `noise`: standard deviation of PAN and MS in DN. `gsd`: PAN pixel size in metres.
    """

    rows: int = 256
    cols: int = 256
    bands: int = 4
    ratio: float = 4.0
    offset: Point = (0.0, 0.0)
    ms_shape: tuple[int, int] | None = None
    gains: float | tuple[float, ...] = 0.3
    seed: int = 0
    nodata: float | None = 0
    border: float = 0.0
    dtype: str = "uint16"
    noise: float = 1.0
    gsd: float = 1.0


@dataclass(frozen=True)
class SimulatedScene:
    """A PAN / MS pair and its truth, as in the files: arrays of the scene's dtype in DN, nodata where not valid.

    `pan` (rows, cols), `ms` (bands, MS rows, MS cols), `pan_valid` and `ms_valid` boolean masks of the same rows and
    cols. `truth` (bands, rows, cols) on the PAN grid is known everywhere, also where PAN is nodata.
    """

    spec: Simulation
    pan: np.ndarray
    ms: np.ndarray
    truth: np.ndarray
    pan_valid: np.ndarray
    ms_valid: np.ndarray
    pan_transform: Affine
    ms_transform: Affine
    crs: str
    band_names: tuple[str, ...]


CRS = "EPSG:32631"
_ORIGIN = (431200.0, 4583600.0)  # easting and northing of the PAN corner in metres

LEVEL = 9
"""Level of deflate, the smallest files: the sample data are shipped."""


def _inside_border(r: np.ndarray, c: np.ndarray, spec: Simulation, left: float, lower: float) -> np.ndarray:
    """Whether places (PAN pixels, broadcast) lie inside the slanted edges, moved inwards by `left` and `lower`."""
    if not spec.border:
        return np.ones(np.broadcast_shapes(r.shape, c.shape), bool)
    depth = spec.border
    # Ragged, since the swath of a real sensor ends line by line.
    first = depth * (0.15 + 0.85 * r / spec.rows) + 0.04 * depth * np.sin(r / 11.0) + left
    last = spec.rows - depth * (1.0 - 0.8 * c / spec.cols) + 0.03 * depth * np.sin(c / 7.0) - lower
    return (c >= first) & (r <= last)


def _quantise(values: np.ndarray, spec: Simulation) -> np.ndarray:
    """Values in the scene's dtype; none equals nodata."""
    dtype = np.dtype(spec.dtype)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        values = np.clip(np.round(values), max(info.min, 0), info.max)
    if spec.nodata is not None:
        values = np.where(values == spec.nodata, values + (1 if spec.nodata <= 0 else -1), values)
    return values.astype(dtype)


def simulate(spec: Simulation) -> SimulatedScene:
    """Simulate the scene: truth, PAN as a mixture that no sum of the bands equals, MS as the MTF-degraded truth. The
    landscape goes on beyond the PAN grid, so that MS pixels at and over its edges are true as well."""
    chosen = list(_subset(spec.bands))
    gains = (spec.gains,) * spec.bands if isinstance(spec.gains, int | float) else spec.gains
    if len(gains) != spec.bands:
        raise ValueError(f"{len(gains)} MTF gains for {spec.bands} bands")
    if spec.border and spec.nodata is None:
        raise ValueError("a nodata border needs a nodata value")
    phase, own = Phase.of((spec.ratio, spec.ratio), spec.offset), Window(0, spec.rows, 0, spec.cols)
    touched = phase.ms_window(own)
    low = Window.at(0, 0, spec.ms_shape or (touched.bottom, touched.right))
    around = phase.pan_window(low, MTF_REACH + 1) | own

    channels = landscape(*around.shape, spec.seed)
    full = 255 if np.dtype(spec.dtype) == np.uint8 else MAXIMUM
    channels *= full / MAXIMUM
    wide = _quantise(channels[chosen], spec)
    rng = np.random.default_rng([spec.seed, 2])

    seen = channels[:, *own.within(around)]
    pan = _PAN_OFFSET * full / MAXIMUM + np.tensordot(_PAN_WEIGHTS, seen, axes=1) ** _PAN_POWER
    pan = _quantise(pan + spec.noise * rng.standard_normal(own.shape), spec)

    ms = np.empty((spec.bands, *low.shape))
    for band, gain in enumerate(gains):
        rows, cols = (degrade_matrix(*each, gain) for each in zip(phase, low.spans, around.spans, strict=True))
        ms[band] = rows @ wide[band].astype(float) @ cols.T
    ms = _quantise(ms + spec.noise * rng.standard_normal(ms.shape), spec)

    # The two detectors' swaths end at different places: at the left PAN sees more, at the bottom MS does.
    r, c = np.arange(spec.rows)[:, None] + 0.5, np.arange(spec.cols)[None, :] + 0.5
    pan_valid = _inside_border(r, c, spec, 0.0, 0.0)
    r, c = phase.rows.ms_centres(low.rows)[:, None] + 0.5, phase.cols.ms_centres(low.cols)[None, :] + 0.5
    ms_valid = _inside_border(r, c, spec, 1.5 * spec.ratio, -1.5 * spec.ratio)
    if spec.border:
        pan[~pan_valid] = spec.nodata
        ms[:, ~ms_valid] = spec.nodata

    pan_transform = Affine.translation(*_ORIGIN) * Affine.scale(spec.gsd, -spec.gsd)
    ms_transform = pan_transform * Affine.translation(*spec.offset[::-1]) * Affine.scale(spec.ratio)
    sharp, names = wide[:, *own.within(around)].copy(), tuple(BAND_NAMES[k] for k in chosen)
    return SimulatedScene(spec, pan, ms, sharp, pan_valid, ms_valid, pan_transform, ms_transform, CRS, names)


def _write(
    path: Path, image: np.ndarray, transform: Affine, scene: SimulatedScene, names: Sequence[str], predictor: int = 2
) -> None:
    count, height, width = image.shape
    with rasterio.open(
        path, "w", driver="GTiff", dtype=image.dtype.name, count=count, height=height, width=width, crs=scene.crs,
        transform=transform, nodata=scene.spec.nodata, tiled=True, blockxsize=128, blockysize=128, interleave="pixel",
        compress="deflate", zlevel=LEVEL, predictor=predictor if image.dtype.kind in "iu" else 3,
    ) as target:  # fmt: skip
        target.write(image)
        target.descriptions = tuple(names)
        target.update_tags(TIFFTAG_DATETIME="2024:06:21 10:52:07")
        target.update_tags(ns="IMAGERY", SATELLITEID="SIMULATED", ACQUISITIONDATETIME="2024-06-21 10:52:07")


def write_scene(scene: SimulatedScene, folder: Path | str) -> tuple[Path, Path, Path]:
    """Write `pan.tif`, `ms.tif` and `truth.tif` into a folder, made if need be, and return their paths. The same scene
    gives the same bytes. In the file, truth is nodata where PAN is."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    pan, ms, truth_path = (folder / name for name in ("pan.tif", "ms.tif", "truth.tif"))
    _write(pan, scene.pan[None], scene.pan_transform, scene, ("PAN",))
    _write(ms, scene.ms, scene.ms_transform, scene, scene.band_names)
    known = scene.truth.copy()
    if not scene.pan_valid.all():
        known[:, ~scene.pan_valid] = scene.spec.nodata
    # Free of noise, neighbouring pixels repeat each other as a whole: that compresses better than differences do.
    _write(truth_path, known, scene.pan_transform, scene, scene.band_names, predictor=1)
    return pan, ms, truth_path


SAMPLE = Simulation(rows=960, cols=960, bands=8, ratio=4.0, offset=(1.37, 2.61), seed=3, border=90.0)
"""The scene of `sample_data/simulated/`."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the sample scene into the given folder."""
    parser = argparse.ArgumentParser(prog="python -m pansharpen_cli.simulate", description=main.__doc__)
    parser.add_argument("folder", type=Path, help="where pan.tif, ms.tif and truth.tif go (sample_data/simulated)")
    for path in write_scene(simulate(SAMPLE), parser.parse_args(arguments).folder):
        print(f"{path}  {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
