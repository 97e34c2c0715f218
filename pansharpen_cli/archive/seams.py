"""Seams: by how much neighbouring outputs differ where they overlap, and how much of that their MS differ by."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..raster.bands import band_name
from ..raster.geometry import Box
from ..raster.overlap import Footprint, averaged, footprint
from ..report.facts import Record, Seam
from .mosaic import raster_of
from .tar_zip import archive_of

MOST_SEAMS = 300
"""Pairs of neighbours that are measured, those that overlap most first."""
SIDE, LEAST_PIXELS = 256, 64
"""Largest side of the grid that they are compared on, and its cells that both have to show."""
CELL = 8.0
"""Side of a cell in pixels of the output, at least: finer, registration and moving things show, and no seam."""


@dataclass(frozen=True)
class _Scene:
    record: Record
    path: str
    place: Footprint


def measure(folder: Path, records: Sequence[Record]) -> list[Seam]:
    """The seams between a batch's outputs, those that the fusion adds most to first. Outputs and MS that cannot be
    read, that are no files of this machine or lie in another CRS are left out, and so are neighbours of other bands."""
    scenes = [s for record in records if record.is_done and (s := _scene(folder, record)) is not None]
    scenes.sort(key=lambda scene: scene.place.box.left)
    pairs: list[tuple[Box, _Scene, _Scene]] = []
    for i, one in enumerate(scenes):
        for other in scenes[i + 1 :]:
            if other.place.box.left >= one.place.box.right:
                break
            box, alike = one.place.box & other.place.box, _of_one_kind(one.place.names, other.place.names)
            if box.area and one.place.crs == other.place.crs and alike:
                pairs.append((box, one, other))
    pairs.sort(key=lambda pair: -pair[0].area)
    found: list[Seam] = []
    with tempfile.TemporaryDirectory(prefix="pansharpen-") as room:
        for box, one, other in pairs[:MOST_SEAMS]:
            with suppress(InputError):
                if (seam := _seam(box, one, other, Path(room))) is not None:
                    found.append(seam)
    return sorted(found, key=lambda seam: -(seam.step if seam.added is None else seam.added))


def _scene(folder: Path, record: Record) -> _Scene | None:
    path = folder / record.scene
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)) or not path.is_file():
        return None
    with suppress(InputError):
        place = footprint(str(path))
        return None if place is None else _Scene(record, str(path), place)
    return None


def _of_one_kind(names: Sequence[str | None], others: Sequence[str | None]) -> bool:
    """Whether bands are as many, and none is called otherwise than its counterpart."""
    told = [[band_name(n) or n for n in each] for each in (names, others)]
    return len(names) == len(others) and all(a == b or None in (a, b) for a, b in zip(*told, strict=True))


def _seam(box: Box, one: _Scene, other: _Scene, room: Path) -> Seam | None:
    """What two outputs and their MS show of a box; None where too little of it is valid in both."""
    cell = max(CELL * max(one.place.pixel, other.place.pixel), *(side / SIDE for side in box.sides))
    cols, rows = (max(1, int(side / cell)) for side in box.sides)
    crs = one.place.crs
    (first, seen), (second, there) = (averaged(s.path, crs, box, (rows, cols)) for s in (one, other))
    valid = seen & there
    ms = [_of_ms(scene, crs, box, (rows, cols), room) for scene in (one, other)]
    if ms[0] is not None and ms[1] is not None and (both := valid & ms[0][1] & ms[1][1]).sum() >= LEAST_PIXELS:
        valid, before = both, _steps(ms[0][0], ms[1][0], both)[0]
    else:
        before = None
    if valid.sum() < LEAST_PIXELS:
        return None
    steps, left = _steps(first, second, valid)
    pixels = box.area / one.place.pixel**2 * valid.mean()
    return Seam(
        one.record.scene, other.record.scene, float(pixels / 1e6), _rms(steps), _rms(left),
        None if before is None else _rms(before), None if before is None else _rms(steps - before),
    )  # fmt: skip


def _of_ms(
    scene: _Scene, crs: object, box: Box, shape: tuple[int, int], room: Path
) -> tuple[np.ndarray, np.ndarray] | None:
    """The MS of an output, its bands as the output has them; None where it cannot be read, or has other bands."""
    layers = [[str(path) for path in layer] for layer in scene.record.ms or [] if isinstance(layer, list) and layer]
    if not layers or not all(os.path.isfile(archive_of(path)) for layer in layers for path in layer):
        return None
    with suppress(InputError, OSError):
        paths = [raster_of(tuple(layer), room) for layer in layers]
        parts = [averaged(path, crs, box, shape) for path in paths]
        values = np.concatenate([part[0] for part in parts])
        names = [name for path in paths if (place := footprint(path)) is not None for name in place.names]
        wanted = scene.place.names
        if len(values) != len(wanted):
            if None in wanted or len(names) != len(values) or not set(wanted) <= set(names):
                return None
            values = values[[names.index(name) for name in wanted]]
        return values, np.logical_and.reduce([part[1] for part in parts])
    return None


def _steps(one: np.ndarray, other: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean difference of two images by band, where both are valid, and how much it varies, both as shares of the
    mean."""
    difference = (one - other)[:, valid]
    level = np.maximum(np.abs((one + other)[:, valid].mean(1) / 2), 1e-12)
    return difference.mean(1) / level, difference.std(1) / level


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def sentence(seams: Sequence[Seam]) -> str:
    """The worst of the seams in one line."""
    worst = seams[0]
    if worst.added is None:
        told = f"the largest step is {worst.step:.2%} of the mean, of the MS unknown"
    else:
        told = f"the fusion adds {worst.added:.2%} of the mean at most to the step of the MS ({worst.ms_step:.2%})"
    return f"{len(seams)} seams: {told}, between {worst.one} and {worst.other}"
