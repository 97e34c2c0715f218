"""A pair as it is named: paths and how to open them, and its parts by the grids of its MS files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from ..raster import groups
from ..raster.groups import Band
from ..raster.scene import Scene


@dataclass(frozen=True)
class Pair:
    """How to open a scene: the arguments of `Scene.open`, and what paths are called in reports if not as they are."""

    pan: str
    ms: Sequence[str]
    open_options: Mapping[str, object] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    def open(self) -> Scene:
        return Scene.open(self.pan, self.ms, labels=self.labels, **self.open_options)  # type: ignore[arg-type]

    def changed(self, **options: object) -> Pair:
        """With other arguments of `Scene.open`."""
        return replace(self, open_options={**self.open_options, **options})


@dataclass(frozen=True)
class Parts:
    """A pair for each grid of the MS files, and the `order` in which their bands are written; empty for one grid."""

    pairs: Sequence[Pair]
    order: Sequence[Band] = ()

    def places(self, part: int) -> list[int] | None:
        """Places, in the output, of the bands that a part writes; None for all in order."""
        if not self.order:
            return None
        return [i for _, i in sorted((band.place, i) for i, band in enumerate(self.order) if band.scene == part)]

    def together(self, scenes: Sequence[Scene]) -> Scene:
        """What is written of the scenes of the parts, as one."""
        return groups.together(scenes, self.order) if self.order else scenes[0].as_written()


def parted(pair: Pair) -> Parts:
    """The parts of a pair; one whose bands are not asked for (--bidx) is left out.

    Raises InputError for files that cannot be opened, and for bands that there are not.
    """
    files = groups.by_grid(pair.pan, pair.ms)
    if len(files) == 1:
        return Parts([pair])
    pairs = [replace(pair, ms=[pair.ms[i] for i in each.every]) for each in files]
    asked = pair.open_options.get("bidx")
    whole = {"bidx": None, "window": None, "bbox": None}
    with ExitStack() as stack:
        scenes = [stack.enter_context(each.changed(**whole).open()) for each in pairs]
        order = groups.bands_in_order(files, scenes)
        named = groups.together([replace(s, dtype=scenes[0].dtype) for s in scenes], order)
        if asked:
            order = [order[i] for i in named.places_of("--bidx", asked)]  # type: ignore[arg-type]
    kept: dict[int, list[int]] = {}
    placed = []
    for band in order:
        places = kept.setdefault(band.scene, [])
        placed.append((band, len(places)))
        places.append(band.place)
    chosen = []
    for part, places in kept.items():
        whole_part = places == list(range(scenes[part].bands))
        chosen.append(pairs[part].changed(bidx=None if whole_part else [i + 1 for i in places]))
    if len(chosen) == 1:
        return Parts(chosen)
    at = {part: k for k, part in enumerate(kept)}
    return Parts(chosen, [replace(band, scene=at[band.scene], place=place) for band, place in placed])
