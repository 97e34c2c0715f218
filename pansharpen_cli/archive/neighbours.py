"""What scenes that share a fit lend each other: pixels beyond the ends of one, where another goes on on its grids."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from ..errors import InputError
from ..publish import Listing
from ..raster.geometry import Window
from ..raster.grid import Grid
from ..raster.references import NETWORK, plain_name
from ..raster.source import open_raster
from .mosaic import read_with, tiles_of
from .places import is_one_pass, place_and_time
from .planning import Task, file_stamp

REACH = 192
"""Pixels of each file beyond its ends that neighbours lend: no operator sees farther."""


@dataclass(frozen=True)
class _Raster:
    """A raster of a scene's file, by what it has in common with one that it goes on in."""

    path: str
    grid: Grid
    bands: tuple[tuple, ...]

    @classmethod
    def of(cls, path: str) -> _Raster:
        with open_raster(path) as d:
            told = d.dtypes, d.descriptions, d.colorinterp, d.scales, d.offsets
            return cls(path, Grid.of(d), tuple(zip(*told, strict=True)))

    def reaches(self, other: _Raster) -> bool:
        """Whether the other one lies on the same grid, within `REACH` pixels; never where files tell no place."""
        if self.bands != other.bands or self.grid.transform.is_identity:
            return False
        place = self.grid.place_of(other.grid)
        return place is not None and not (place & self.grid.whole.widened(REACH)).is_empty


@dataclass(frozen=True)
class _Scene:
    """The tiles of the PAN and of each file of the MS, and when it was taken, as far as that is known."""

    layers: list[list[_Raster]]
    time: datetime | None

    @classmethod
    def of(cls, task: Task) -> _Scene | None:
        """None for files in a network, and for those that cannot be read: whoever fuses them says so."""
        found = task.found
        if any(NETWORK.search(plain_name(file)) for file in found.files):
            return None
        with suppress(InputError):
            layers = [[_Raster.of(path) for path in tiles_of(layer)] for layer in (found.pan, *found.ms)]
            return cls(layers, place_and_time(found.pan)[1] or found.time)
        return None

    def lends(self, other: _Scene) -> list[list[str]] | None:
        """The files of each of its layers that another one is lent; None where not all go on, or at another time."""
        if self.time and other.time and not is_one_pass(self.time, other.time):
            return None
        if len(self.layers) != len(other.layers):
            return None
        pairs = zip(other.layers, self.layers, strict=True)
        lent = [[tile.path for tile in own if any(each.reaches(tile) for each in theirs)] for theirs, own in pairs]
        return lent if all(lent) else None


def lending(tasks: Sequence[Task]) -> list[Task]:
    """The tasks with what neighbours of the same fit lend them, of which the log says that they were made with it.

    Scenes whose tiles are cut out of one image come out as that image would, without a seam. One lends PAN and MS or
    nothing: all of its files have to go on, and none that was taken at another time is asked.
    """
    groups: dict[Path, list[int]] = defaultdict(list)
    for i, task in enumerate(tasks):
        if task.fit is not None and not task.refused:
            groups[task.fit].append(i)
    made, listing = list(tasks), Listing()
    for group in groups.values():
        known = {i: scene for i in group if (scene := _Scene.of(tasks[i]))} if len(group) > 1 else {}
        lent: dict[int, list[list[list[str]]]] = defaultdict(list)
        for i, other in _near(known):
            if (found := known[other].lends(known[i])) is not None:
                lent[i].append(found)
        for i, parts in lent.items():
            each = tuple(tuple(path for part in parts for path in part[k]) for k in range(len(known[i].layers)))
            stamps = [file_stamp(path) for path in read_with([path for layer in each for path in layer], listing)]
            made[i] = replace(tasks[i], lent=each, inputs=(*tasks[i].inputs, *stamps))
    return made


def own_pixels(made: Sequence[tuple[str, Window]], extent: str) -> Window:
    """The PAN's pixels that a scene is written where its files, PAN first, lie in windows of those that neighbours have
    widened: where its own MS lies, too, unless all of its PAN is asked for."""
    (path, own), *files = made
    with open_raster(path) as pan:
        grid = Grid.of(pan)
    for path, place in files if extent == "intersection" else ():
        with open_raster(path) as ms:
            there = Grid.of(ms).window(place).called_as(grid)
        if there.crs == grid.crs and (phase := grid.phase_of(there)) is not None:
            own &= grid.overlap(phase, there)
    return own


def _near(known: Mapping[int, _Scene]) -> Iterator[tuple[int, int]]:
    """Pairs of scenes, in both orders, whose PANs may touch: those that overlap along the first axis of the CRS."""
    spans = []
    for i, scene in known.items():
        pan = scene.layers[0]
        reach = REACH * abs(pan[0].grid.transform.a) + REACH * abs(pan[0].grid.transform.b)
        bounds = [tile.grid.bounds for tile in pan]
        spans.append((min(b[0] for b in bounds) - reach, max(b[2] for b in bounds) + reach, i))
    spans.sort()
    for k, (_, right, i) in enumerate(spans):
        for left, _, other in spans[k + 1 :]:
            if left > right:
                break
            yield i, other
            yield other, i
