"""Where and when rasters were taken, as their files tell."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from ..errors import InputError
from ..raster.geometry import Box
from ..raster.grid import Grid
from ..raster.source import Source, metadata, open_raster
from .names import CONTAINERS, time_in

NEXT = timedelta(minutes=2)
"""Within which a strip goes on: frames of one pass follow each other in seconds, passes in an hour and a half."""
GAP = 0.1
"""Share of the shorter side of two boxes that may lie between neighbours."""


def joined(boxes: Sequence[Box]) -> Box:
    """The box around some boxes."""
    sides = zip(*(box.turned(boxes[0]) for box in boxes), strict=True)
    return Box(*(f(side) for f, side in zip((min, min, max, max), sides, strict=True)))


def are_neighbours(one: Box, other: Box) -> bool:
    """Whether two boxes touch, but for a small gap."""
    other = other.turned(one)
    shared = (one & other).sides
    return all(-gap <= GAP * min(sides) for gap, *sides in zip(shared, one.sides, other.sides, strict=True))


def place_and_time(files: Sequence[str]) -> tuple[Box | None, datetime | None]:
    """Where a raster or its tiles lie, and when they were taken; None for what they do not tell."""
    boxes: list[Box] = []
    time = None
    for path in [f for f in files if not f.lower().endswith(CONTAINERS)] or files:
        with suppress(InputError), open_raster(path) as dataset:
            time = time or acquired(Source(dataset, [1], path))
            boxes += [box] if (box := Grid.of(dataset).lonlat_bounds()) is not None else []
    return joined(boxes) if boxes else None, time


_TIME_KEYS = ("acquisitiondatetime", "firstlinetime", "tlctime", "acquisition_datetime", "datetime")
_DAY_KEYS = (("date_acquired", "scene_center_time"), ("imaging_date", "imaging_time"))
_DATE_KEYS = ("acquisitiondate", "acquisition_date")


def acquired(source: Source) -> datetime | None:
    """When a raster's metadata say that it was taken; without a time zone."""
    for _, tags in metadata(source):
        low = {k.lower().rsplit(".", 1)[-1]: str(v).replace('"', "") for k, v in tags.items()}
        texts = [low.get(k, "") for k in _TIME_KEYS]
        texts += [f"{low[day]}T{low.get(clock, '')}" for day, clock in _DAY_KEYS if day in low]
        texts += [low.get(k, "") for k in _DATE_KEYS]
        for text in texts:
            if time := time_in(text):
                return time
    return None


def is_day(time: datetime) -> bool:
    """Whether a time tells no more than the day."""
    return not (time.hour or time.minute or time.second)


def is_one_pass(one: datetime, other: datetime) -> bool:
    """Whether frames follow each other within `NEXT`; on one day where no more is known."""
    if is_day(one) or is_day(other):
        return one.date() == other.date()
    return abs(one - other) <= NEXT
