"""MS files on grids of their own: which of them make one scene with the PAN, and their bands as those of one output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import InputError
from . import mean_pan, sensors
from .files import OpenFiles, Remarks
from .grid import Grid
from .masks import is_on_grid_of
from .scene import Scene, are_tiles, place_on
from .source import Source, rpcs_of


@dataclass(frozen=True)
class Files:
    """Files of one scene, by their places among the MS files: `own` hold its MS, `on_pan_grid` lie on that of PAN, and
    `masks` hold nothing but alpha."""

    own: tuple[int, ...]
    on_pan_grid: tuple[int, ...] = ()
    masks: tuple[int, ...] = ()

    @property
    def every(self) -> list[int]:
        return sorted((*self.own, *self.on_pan_grid, *self.masks))


def by_grid(owner: OpenFiles, pan: str, ms: Sequence[str]) -> list[Files]:
    """The MS files of each grid, in the order of their first files; all in one where they lie on the same, whichever
    part of it they cover.

    A thermal band has optics of its own, whatever grid it was resampled to. Tiles of one raster stay together, and are
    refused later, and so is a mask of no grid. Raises InputError for a file that cannot be opened.
    """
    if len(ms) == 1:
        return [Files((0,))]
    opened = [(path, owner.open(path)) for path in (pan, *ms)]
    sources = [Source.of(dataset, path, None, []) for path, dataset in opened]
    masks = [source for source in sources[1:] if source.is_mask]
    if len(masks) == len(ms):
        return [Files(tuple(range(len(ms))))]
    parts, coarser = mean_pan.divided(sources[0], [source for source in sources[1:] if not source.is_mask])
    groups: list[list[Source]] = []
    for source in coarser:
        alike = (group for group in groups if _together(group[0], source))
        group = next(alike, None)
        groups.append([source]) if group is None else group.append(source)
    places = {id(source): i for i, source in enumerate(sources[1:])}
    on_pan_grid = tuple(places[id(part)] for part in parts[1:])
    grids = [[k for k, group in enumerate(groups) if any(is_on_grid_of(m, s) for s in (*parts, *group))] for m in masks]
    return [
        Files(
            tuple(places[id(s)] for s in group),
            on_pan_grid,
            tuple(places[id(mask)] for mask, masked in zip(masks, grids, strict=True) if k in (masked or [0])),
        )
        for k, group in enumerate(groups)
    ]


def _together(one: Source, other: Source) -> bool:
    """Whether two files are of one grid and one kind, or parts of one."""
    a, b = Grid.of(one.dataset), Grid.of(other.dataset)
    if are_tiles(b.called_as(a), a):
        return True
    alike = rpcs_of(one.dataset) == rpcs_of(other.dataset) and _thermal(one) == _thermal(other)
    return alike and place_on(a, other) is not None


def _thermal(source: Source) -> bool:
    told = sensors.bands_by_files([(source.label, len(source.bands))])
    names = told or [sensors.band_name(source.dataset.descriptions[b - 1]) for b in source.bands]
    return all(name is not None and name.startswith("thermal") for name in names)


@dataclass(frozen=True)
class PlacedBand:
    """A band among all of the MS files: the scene that it is in, its place there, and its number from 1 over all."""

    scene: int
    place: int
    number: int


def bands_in_order(groups: Sequence[Files], scenes: Sequence[Scene]) -> list[PlacedBand]:
    """All bands in the order of their files; of scenes with all bands of the files."""
    found = []
    for k, (files, scene) in enumerate(zip(groups, scenes, strict=True)):
        places = iter(range(scene.bands))
        found += [(file, k, next(places)) for file, s in zip(files.own, scene.ms, strict=True) for _ in s.bands]
    return [PlacedBand(k, place, number) for number, (_, k, place) in enumerate(sorted(found), 1)]


def together(scenes: Sequence[Scene], order: Sequence[PlacedBand]) -> Scene:
    """The bands that several scenes with one PAN write, as those of one scene: what an output, its names and its
    pictures are about. `order`: of those bands; places are those among the bands that a scene writes.

    The grid of the MS is that of the first scene. Raises InputError if the scenes have nothing in common, or their
    types differ.
    """
    shown = [scene.as_written() for scene in scenes]
    first = shown[0]
    for other in shown[1:]:
        if other.dtype != first.dtype:
            raise InputError(
                f"MS bands of different types: {first.ms[0].label} is {first.dtype}, {other.ms[0].label} is "
                f"{other.dtype}; choose one with --dtype"
            )
    full, window = first.full, first.window
    for other in shown[1:]:
        full, window = full & other.full, window & other.window
        if window.is_empty:
            raise InputError(
                f"no overlap: {first.ms[0].label} and {other.ms[0].label} have no part of {first.pan.label} in common"
            )
    flat = [[(source, band) for source in each.ms for band in source.bands] for each in shown]
    gains = [each.effective_gains for each in shown]
    offsets = [each.band_offsets or ((0.0, 0.0),) * each.bands for each in shown]

    def all_of(values: Sequence[Sequence[Any]]) -> tuple[Any, ...]:
        return tuple(values[band.scene][band.place] for band in order)

    return replace(
        first,
        remarks=Remarks(
            list(dict.fromkeys(w for each in shown for w in each.warnings)),
            list(dict.fromkeys(n for each in shown for n in each.notes)),
        ),
        ms=tuple(replace(s, bands=[b], notes=[]) for s, b in all_of(flat)),
        full=full,
        window=window,
        band_names=all_of([each.band_names for each in shown]),
        standard_names=all_of([each.standard_names for each in shown]),
        gains=all_of([each.gains for each in shown]),
        fitted_gains=all_of(gains),
        band_offsets=all_of(offsets) if any(map(any, all_of(offsets))) else (),
        numbers=tuple(band.number for band in order),
    )
