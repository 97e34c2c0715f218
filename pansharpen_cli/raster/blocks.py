"""Blocks of a scene that statistics and tiles are taken from, read one ahead, and the range of their values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from ..errors import InputError
from .geometry import Window
from .scene import Scene, TileData
from .source import number_text
from .tiles import plan_tiles
from .values import Lift

SAMPLED_BLOCK = 512
"""PAN pixels of a side of the output's blocks, and of the blocks that statistics and tiles are sampled from."""
MAX_BLOCKS = 12
LARGE = 8.0
"""Ratio beyond which a block has few MS pixels, and wide ones."""

_LARGEST = float(np.finfo(np.float32).max) ** 0.5
"""Beyond it squares overflow in single precision."""

SMALL = 2.0**-7
"""Scenes without larger values are lifted to a usual range: arithmetic has floors in DN."""
_USUAL = 10
_ALIKE = 8
"""Powers of two that PAN and MS may lie apart. Beyond it they are in other units, and PAN is brought to the MS."""


def sample_blocks(scene: Scene, seed: int) -> list[Window]:
    """All blocks of a small scene; of a large one a seeded order in which to try them."""
    blocks = [t.core for t in plan_tiles(scene.full, SAMPLED_BLOCK)]
    if len(blocks) > MAX_BLOCKS:
        blocks = [blocks[i] for i in np.random.default_rng(seed).permutation(len(blocks))]
    return blocks


def read_ahead(reader: ThreadPoolExecutor, load: Callable, items: Iterable) -> Iterator[tuple]:
    """Pairs of an item and what `load` makes of it, made one ahead in the reader's thread."""
    following = ((item, reader.submit(load, item)) for item in items)
    ahead = next(following, None)
    while ahead is not None:
        item, loaded = ahead[0], ahead[1].result()
        ahead = next(following, None)
        yield item, loaded


def nothing_valid(scene: Scene) -> InputError:
    """What to say where no pixel is valid in PAN and all bands; bands that are nodata throughout are the reason."""
    blocks = [t.core for t in plan_tiles(scene.ms_grid.whole, SAMPLED_BLOCK)]
    for source in scene.ms if len(blocks) <= MAX_BLOCKS else ():
        each = [(band, replace(source, bands=[band])) for band in source.bands]
        empty = [str(band) for band, alone in each if not any(alone.read(block)[1].any() for block in blocks)]
        if empty and len(empty) < len(each):
            return InputError(
                f"{source.label} has no valid pixel in band {' and '.join(empty)} (all nodata): choose the others with "
                "--bidx and --fit-bands bidx"
            )
    return InputError(f"{scene.pan.label} and {scene.ms[0].label} have no valid pixel in common (all nodata)")


class Lifter:
    """Brings tiles of a scene to values of a usual range, and PAN to those of the MS: all alike, as the first one with
    values asks for. `lift`: None as long as there was no tile. `as_one`: PAN is lifted as the MS is, whatever its
    units."""

    def __init__(self, as_one: bool = False) -> None:
        self.lift: Lift | None = None
        self._as_one, self._seen = as_one, False

    def __call__(self, tile: TileData) -> TileData:
        if self.lift is None or not self._seen:
            self.lift, self._seen = self._of(tile.pan, tile.ms), bool(tile.pan.any() or tile.ms.any())
        return tile.lifted(self.lift)

    def _of(self, pan: np.ndarray, ms: np.ndarray) -> Lift:
        largest = [float(np.abs(x).max()) for x in (pan, ms)]
        between = 0 if self._as_one or not min(largest) else _level(pan) - _level(ms)
        if abs(between) <= _ALIKE:
            return Lift(*[lift_to_usual(max(largest))] * 2)
        lift = lift_to_usual(largest[1])
        return Lift(lift - between, lift)


def _level(values: np.ndarray) -> int:
    """The exponent of the middle one of values, whatever few others are; zeros do not count."""
    return math.frexp(float(np.median(np.abs(values[values != 0]))))[1]


def lift_to_usual(largest: float) -> int:
    """The exponent that brings values of which the largest is this one to a usual range; 0 for usual ones."""
    return _USUAL - math.frexp(largest)[1] if 0 < largest < SMALL else 0


def in_range(tile: TileData) -> bool:
    """Can statistics be taken of all values of a tile?"""
    return not any(abs(float(edge)) > _LARGEST for x in (tile.pan, tile.ms) for edge in (x.min(), x.max()))


def check_range(scene: Scene, tile: TileData) -> None:
    """Raises InputError for values too large to compute with: nodata that no tag names, no radiance."""
    bands = [(scene.pan.label, scene.pan.bands[0]), *((s.label, b) for s in scene.ms for b in s.bands)]
    for (label, band), pixels in zip(bands, (tile.pan, *tile.ms), strict=True):
        largest = max(float(pixels.min()), float(pixels.max()), key=abs)
        if abs(largest) > _LARGEST:
            raise InputError(
                f"{label} holds values too large to compute with ({number_text(largest)} in band {band}): if "
                f"they are nodata, name them with --nodata {number_text(largest)}"
            )
