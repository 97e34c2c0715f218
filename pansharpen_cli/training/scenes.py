"""The scenes that networks are trained on: found in folders, globs and CSVs, split, and read into memory."""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import untrusted
from ..archive.lists import read_table
from ..errors import InputError
from ..progress import Say
from ..publish import TIFF
from ..quality.wald import degrade
from ..raster import sensors
from ..raster.band_kinds import data_bands
from ..raster.geometry import Phase, Window, box_sums
from ..raster.options import OpenOptions
from ..raster.scene import Scene
from ..raster.sensors import WAVELENGTHS, Sensor, band_name
from ..raster.side_files import tags_of
from ..raster.source import Source, open_raster

VISIBLE = 0.95
"""Wavelength in um up to which a panchromatic detector sees."""
SIZES = ((96, 6), (128, 4), (192, 2))
"""Sides of the crops in pixels, and how many of them make a batch."""
FINE = 2.0
"""Metres: scenes of smaller pixels show the sharp man-made edges that satellites with a PAN of 0.3 to 2 m see."""
MIN_BANDS = 3
"""Least number of bands of an MS to train on."""


# Finding scenes


@dataclass(frozen=True)
class Item:
    """A scene to be read. `pan`: its PAN, if any; `named`: the user named the PAN, it does not just lie beside the MS;
    `sensor` and `split` ("train", "val"): from a list."""

    ms: Path
    pan: Path | None = None
    named: bool = False
    sensor: str = ""
    split: str = ""


def find(sources: Sequence[str]) -> list[Item]:
    """The scenes of folders (all below them), globs, CSVs and single files, each MS once. Raises InputError for a
    source that does not exist or holds no scene, and for what is wrong in a CSV."""
    found: dict[str, Item] = {}
    for source in sources:
        path = Path(source)
        if path.is_dir():
            below = (Path(here, name) for here, _, names in untrusted.walked(path) for name in names)
            items = _classified(sorted(p for p in below if p.suffix.lower() in TIFF and p.is_file()))
        elif path.suffix.lower() == ".csv":
            items = _listed(path)
        elif path.is_file():
            items = [Item(path, _pan_beside(path))]
        else:
            files = [Path(p) for p in sorted(glob.glob(source, recursive=True))]
            if not files and not glob.has_magic(source):
                raise InputError(f"no such file or folder: {source}")
            items = _classified([p for p in files if p.is_file()])
        if not items:
            raise InputError(
                f"no scene in {source}: no *_ms.tif or ms.tif, and no GeoTIFF of {MIN_BANDS} bands or more"
            )
        for item in items:
            found.setdefault(os.path.realpath(item.ms), item)
    return list(found.values())


def _is(path: Path, role: str) -> bool:
    return path.stem.lower() == role or path.stem.lower().endswith(f"_{role}")


def _pan_beside(ms: Path) -> Path | None:
    """`x_pan.tif` of `x_ms.tif`, `pan.tif` of `ms.tif`."""
    if _is(ms, "ms"):
        for ending in dict.fromkeys((ms.suffix, ".tif", ".tiff", ".TIF")):
            for role in ("pan", "PAN"):
                pan = ms.with_name(ms.stem[:-2] + role + ending)
                if pan.is_file():
                    return pan
    return None


def _classified(files: Sequence[Path]) -> list[Item]:
    """MS files with the PAN beside them; other files of enough bands are MS without a PAN."""
    items = [Item(p, _pan_beside(p)) for p in files if _is(p, "ms")]
    for path in files:
        if not _is(path, "ms") and not _is(path, "pan"):
            with open_raster(str(path)) as dataset:
                if dataset.count >= MIN_BANDS:
                    items.append(Item(path))
    return sorted(items, key=lambda item: item.ms)


def _listed(path: Path) -> list[Item]:
    """The rows of a CSV with the columns ms and, if wanted, pan, sensor, split; its paths begin at its own folder."""
    columns, rows = read_table(path)
    if "ms" not in columns:
        raise InputError(f"{path} has no column 'ms' (columns: {', '.join(columns)[:200] or 'none'})")
    items = []
    for line, row in rows:
        cells = {key: row.get(key, "") for key in ("ms", "pan", "sensor", "split")}
        split = {"training": "train", "validation": "val"}.get(cells["split"].lower(), cells["split"].lower())
        if split not in ("", "train", "val"):
            raise InputError(f"{path}, line {line}: split is train or val, not '{cells['split']}'")
        for key in ("ms", "pan"):
            if (cells[key] or key == "ms") and not (path.parent / cells[key]).is_file():
                raise InputError(f"{path}, line {line}: no {key} file '{cells[key]}'")
        pan = path.parent / cells["pan"] if cells["pan"] else None
        items.append(Item(path.parent / cells["ms"], pan, True, cells["sensor"], split))
    return items


def split(items: Sequence[Item], share: float, seed: int) -> tuple[list[Item], list[Item]]:
    """Scenes to train on, and those held out: the ones told to be, else a seeded share of at least one. Raises
    InputError if either would be empty."""
    if any(i.split for i in items):
        held_out = [i for i in items if i.split == "val"]
    else:
        count = min(max(1, round(share * len(items))) if share > 0 else 0, len(items) - 1)
        chosen = set(np.random.default_rng(seed).permutation(len(items))[:count].tolist())
        held_out = [item for i, item in enumerate(items) if i in chosen]
    training = [i for i in items if i not in held_out]
    if not held_out:
        raise InputError(f"none of {len(items)} scenes is held out for validation: name others with --validation")
    if not training:
        raise InputError("all scenes are held out for validation, none is left to train on")
    return training, held_out


# Reading scenes


@dataclass
class RealPair:
    """A pair degraded by Wald's protocol: `pan` (1, rows, cols) on the grid of `truth` (bands, rows, cols), `ms` on the
    coarser one that `phase` places on it, their masks, and the MTF gains of the bands. Bands in the files' order."""

    pan: np.ndarray
    ms: np.ndarray
    truth: np.ndarray
    valid: np.ndarray
    ms_valid: np.ndarray
    phase: Phase
    gains: tuple[float, ...]

    @property
    def bands(self) -> int:
        return len(self.ms)


@dataclass
class LoadedScene:
    """A truth image (bands, rows, cols), bands in order of wavelength, with the mask of its valid pixels.

    `sensor` groups scenes that are to be drawn alike; `visible` counts the bands below 0.95 um, which come first.
    `pair` is that of the scene, if it has a PAN; `pixel` the side of its pixels in metres, where a CRS tells.
    """

    data: np.ndarray
    valid: np.ndarray
    sensor: str = ""
    visible: int = 0
    pair: RealPair | None = None
    pixel: float | None = None

    @property
    def is_fine(self) -> bool:
        """Whether its pixels are as fine as those of a satellite's PAN."""
        return self.pixel is not None and self.pixel < FINE


def load(items: Sequence[Item], real: bool, warn: Say) -> list[LoadedScene]:
    """Read scenes: the bands of each in memory, with its degraded pair if it has a PAN and `real` ones are wanted.

    Scenes without room for a crop are left out with a warning. Raises InputError for a file that cannot be read or
    used, and if nothing is left.
    """
    loaded = []
    for item in items:
        stack, sensor = _read_stack(item, warn)
        if room(stack.valid) == 0:
            rows, cols = stack.valid.shape
            warn(f"{item.ms} is left out: {rows} x {cols} pixels hold no valid {SIZES[0][0]} x {SIZES[0][0]}")
            continue
        if real and item.pan is not None:
            try:
                stack.pair = _read_pair(item.pan, item.ms, sensor, warn)
            except InputError as error:
                if item.named:
                    raise
                warn(f"{error}; its MS is used without the PAN")
        loaded.append(stack)
    if not loaded:
        raise InputError(
            f"no scene is large enough to train on, {items[0].ms} for one: "
            f"at least {SIZES[0][0]} x {SIZES[0][0]} valid MS pixels are needed"
        )
    return loaded


def _read_stack(item: Item, warn: Say) -> tuple[LoadedScene, Sensor]:
    """The MS of a scene as a stack, and the sensor that its MTFs are those of."""
    label, notes = str(item.ms), list[str]()
    with open_raster(label) as dataset:
        bands, alpha = data_bands(dataset, label, notes)
        if len(bands) < MIN_BANDS:
            raise InputError(f"{label} has {len(bands)} bands; MS to train on has at least {MIN_BANDS}")
        names = [dataset.descriptions[b - 1] for b in bands]
        data, valid = Source(dataset, bands, label, alpha=alpha).read(Window(0, dataset.height, 0, dataset.width))
        if np.iscomplexobj(data):
            raise InputError(f"{label} holds complex values; train on their magnitude instead")
        undeclared, metric = dataset.nodata is None, dataset.crs is not None and dataset.crs.is_projected
        pixel = abs(dataset.transform.a) * dataset.crs.linear_units_factor[1] if metric else None
        domains = [(label, tags_of(dataset, ns="IMAGERY")), (label, dataset.tags())]
    for note in notes:
        warn(note)
    sensor, group = _sensor_of(item, domains, names, warn)
    waves = [WAVELENGTHS.get(band_name(n) or "", 0.0) for n in names]
    order = sorted(range(len(data)), key=lambda i: (waves[i], i))
    if undeclared:
        valid &= (data != 0).any(0)  # what zeros in all bands mean
    visible = sum(0 < w < VISIBLE for w in waves)
    return LoadedScene(np.nan_to_num(data[order].astype(np.float32)), valid, group, visible, pixel=pixel), sensor


def _sensor_of(item: Item, domains, names: Sequence[str | None], warn: Say) -> tuple[Sensor, str]:
    """The sensor whose MTFs are used, and what the scene is balanced with."""
    told = None
    if item.sensor:
        try:
            told = sensors.named(item.sensor)
        except InputError:
            if item.pan is not None:
                warn(f"{item.ms}: the MTFs of '{item.sensor}' are not known; generic ones are used")
            return sensors.GENERIC, item.sensor
    found = told or sensors.recognise(domains, names)[0]
    name = item.ms.absolute().parent.name if item.ms.stem.lower() == "ms" else item.ms.stem
    group = item.sensor or (name.split("_")[0] if found is sensors.GENERIC else found.name)
    try:
        found.gains_of(names)
    except InputError as error:
        if told is not None:
            raise InputError(f"{item.ms}: {error}") from error
        found = sensors.GENERIC
    return found, group


def _read_pair(pan: Path, ms: Path, sensor: Sensor, warn: Say) -> RealPair | None:
    """The degraded pair in memory; None, with a warning, if it is too small."""
    with Scene.open(pan, [ms], OpenOptions(sensor=sensor.name)) as scene, tempfile.TemporaryDirectory() as folder:
        for note in scene.warnings:
            warn(note)
        try:
            reduced = degrade(scene, Path(folder))
        except InputError as error:
            warn(f"{error}; its MS is used without its PAN")
            return None
        with (
            Scene.open(reduced.pan, [reduced.ms], OpenOptions(sensor=sensor.name)) as low,
            open_raster(str(reduced.reference)) as gt,
        ):
            pixels, valid = low.pan.read(low.pan_grid.whole)
            coarse, ms_valid = low.read_ms(low.ms_grid.whole)
            truth, gains, phase = gt.read(), low.gains, low.phase
    valid = valid & np.isfinite(truth).all(0)
    if room(valid) == 0:
        warn(f"{ms} has no valid {SIZES[0][0]} x {SIZES[0][0]} pixels under its PAN; its MS is used without it")
        return None
    pixels, coarse, truth = (np.nan_to_num(a) for a in (pixels, coarse, truth))
    fine, low_part = _box(valid), _box(ms_valid)
    return RealPair(
        pixels[:, *fine.slices], coarse[:, *low_part.slices], truth[:, *fine.slices], valid[fine.slices],
        ms_valid[low_part.slices], phase.seen_from(fine, low_part), gains,
    )  # fmt: skip


def _box(valid: np.ndarray) -> Window:
    """The rows and columns that hold all valid pixels: those at a border often cover PAN only in part."""
    return Window.holding(np.flatnonzero(valid.any(1)), np.flatnonzero(valid.any(0)))


def room(valid: np.ndarray) -> int:
    """The largest of the crops' sides that fits into the valid pixels somewhere, 0 if none does."""
    return next((size for size, _ in reversed(SIZES) if (box_sums(valid, size, size) == size * size).any()), 0)
