"""Directories of a TIFF: what tags a file has, and where their values lie in it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from ..errors import InputError


class Bytes(Protocol):
    """A file that is open for reading."""

    def read(self, size: int, /) -> bytes: ...

    def seek(self, place: int, /) -> object: ...


METADATA = 42112
"""The tag of GDAL's metadata."""

MOST_TAGS = 64 << 20
"""Bytes of a TIFF's directories, and of GDAL's metadata in them."""

_LEAST = 1 << 10
"""Bytes that a directory counts for at least: libtiff reads some 65 000."""

_WIDTHS = {2: (3, 8), 4: (4, 9, 11, 13), 8: (5, 10, 12, 16, 17, 18)}
_WIDTH = {1: 1, 2: 1, 6: 1, 7: 1} | {kind: width for width, kinds in _WIDTHS.items() for kind in kinds}
"""Bytes of a value by its type."""


def width_of(kind: int) -> int:
    """Bytes of a value; 0 of a type that there is none of."""
    return _WIDTH.get(kind, 0)


def directories(file: Bytes, name: str) -> Iterator[list[tuple[int, int, int, int]]]:
    """The tags in each directory of a TIFF whose values lie outside of it, as (tag, type, count, place); none of any
    other file. Raises struct.error, OSError, ValueError or OverflowError behind what is left of a directory that is cut
    off or damaged, and InputError for directories of more than `MOST_TAGS`."""
    form, place = _head(file.read(16))
    if not form:
        return
    order, many, number = tuple(form)
    width = struct.calcsize(f"<{number}")
    entry = np.dtype([("tag", f"{order}u2"), ("type", f"{order}u2")] + [
        (what, f"{order}u{width}") for what in ("count", "place")
    ])  # fmt: skip
    left, seen = MOST_TAGS, set[int]()
    while place and place not in seen:
        seen.add(place)
        file.seek(place)
        (count,) = struct.unpack(order + many, file.read(struct.calcsize(f"<{many}")))
        left -= max(count * entry.itemsize, _LEAST)
        if left < 0:
            raise too_many(name)
        content, after = file.read(count * entry.itemsize), file.read(width)
        every = np.frombuffer(content[: len(content) // entry.itemsize * entry.itemsize], entry).tolist()
        yield [each for each in every if each[2] * max(1, width_of(each[1])) > width]
        (place,) = struct.unpack(order + number, after)


def begins_behind(head: bytes, size: int) -> bool:
    """Would the first directory of a TIFF of `size` bytes lie behind its end? `head`: its first bytes."""
    return _head(head.ljust(16, b"\0"))[1] >= size


def _head(head: bytes) -> tuple[str, int]:
    """Byte order and the types of the number of tags and of a place, and the place of the first directory; nothing of
    another file."""
    order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
    types = {42: "HI", 43: "QQ"}.get(struct.unpack_from(f"{order}H", head, 2)[0], "") if order else ""
    if not types:
        return "", 0
    return order + types, struct.unpack_from(order + types[1], head, struct.calcsize(f"<{types[1]}"))[0]


def too_many(name: str) -> InputError:
    """What is wrong with a TIFF of more than `MOST_TAGS`."""
    return InputError(f"cannot open {name[:200]}: it has more than {MOST_TAGS >> 20} MB of tags")
