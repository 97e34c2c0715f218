"""A pair as it is named: paths and how to open them, and its parts by the grids of its MS files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from ..raster import grid_groups
from ..raster.files import OpenFiles
from ..raster.grid_groups import PlacedBand
from ..raster.options import OpenOptions
from ..raster.scene import Scene


@dataclass(frozen=True)
class Pair:
    """Two inputs and how to open them. `labels`: what paths are called in reports if not as they are; `files`: the
    owner of what is opened, if held."""

    pan: str
    ms: Sequence[str]
    options: OpenOptions = OpenOptions()
    labels: Mapping[str, str] = field(default_factory=dict)
    files: OpenFiles | None = None

    def open(self) -> AbstractContextManager[Scene]:
        """The scene; its files are closed with it unless the pair is held."""
        return Scene.open(self.pan, self.ms, self.options, labels=self.labels, files=self.files)

    @contextmanager
    def held(self) -> Iterator[Pair]:
        """The pair with files that stay open meanwhile: however often its scene is made, they are opened once."""
        if self.files is not None:
            yield self
        else:
            with OpenFiles() as files:
                yield replace(self, files=files)

    @cached_property
    def parts(self) -> Parts:
        """The parts of a pair that is held; one whose bands are not asked for (--bidx) is left out. Raises InputError
        for files that cannot be opened, and for bands that there are not."""
        assert self.files is not None, "a pair that is held"
        files = grid_groups.by_grid(self.files, self.pan, self.ms)
        if len(files) == 1:
            return Parts([self])
        pairs = [replace(self, ms=[self.ms[i] for i in each.every]) for each in files]
        asked = self.options.bidx
        with ExitStack() as stack:
            whole = [each.with_options(bidx=None, window=None, bbox=None) for each in pairs]
            scenes = Parts(whole).scenes(stack)
            order = grid_groups.bands_in_order(files, scenes)
            named = grid_groups.together([replace(s, dtype=scenes[0].dtype) for s in scenes], order)
            if asked:
                order = [order[i] for i in named.places_of("--bidx", asked)]
        kept: dict[int, list[int]] = {}
        placed = []
        for band in order:
            places = kept.setdefault(band.scene, [])
            placed.append((band, len(places)))
            places.append(band.place)
        chosen = []
        for part, places in kept.items():
            whole_part = places == list(range(scenes[part].bands))
            chosen.append(pairs[part].with_options(bidx=None if whole_part else [i + 1 for i in places]))
        if len(chosen) == 1:
            return Parts(chosen)
        at = {part: k for k, part in enumerate(kept)}
        return Parts(chosen, [replace(band, scene=at[band.scene], place=place) for band, place in placed])

    def with_options(self, **changed: Any) -> Pair:
        return replace(self, options=replace(self.options, **changed))

    def to_align(self, align: str) -> Pair:
        """The pair to be aligned: all of it, since the part asked for is one of where the MS lies then."""
        return self if align == "off" else self.with_options(window=None, bbox=None)


@dataclass(frozen=True)
class Parts:
    """A pair for each grid of the MS files, and the `order` in which their bands are written; empty for one grid."""

    pairs: Sequence[Pair]
    order: Sequence[PlacedBand] = ()

    def places(self, part: int) -> list[int] | None:
        """Places, in the output, of the bands that a part writes; None for all in order."""
        if not self.order:
            return None
        return [i for _, i in sorted((band.place, i) for i, band in enumerate(self.order) if band.scene == part)]

    def scenes(self, stack: ExitStack, align: str = "off") -> list[Scene]:
        """The scene of each part; all of it where it is to be aligned."""
        return [stack.enter_context(each.to_align(align).open()) for each in self.pairs]

    def together(self, scenes: Sequence[Scene]) -> Scene:
        """What is written of the scenes of the parts, as one."""
        return grid_groups.together(scenes, self.order) if self.order else scenes[0].as_written()
