"""How many items of metadata a raster has, before GDAL reads them: its time rises with the square of their number."""

from __future__ import annotations

import struct
from contextlib import suppress

from .. import untrusted
from ..errors import InputError

MOST_ITEMS = 10_000
"""Items of metadata in a raster or in a file beside it."""

MOST_BESIDE = 64 << 20
"""Bytes of a text file beside a raster, or of the metadata within a TIFF: GDAL reads some of them as a whole."""

_METADATA, _MOST_DIRECTORIES = 42112, 64
"""The tag that GDAL keeps metadata in, and how many directories (overviews, masks) are looked at."""


def check_items(path: str, count: int, where: str) -> None:
    """Raises InputError for more than `MOST_ITEMS`."""
    if count > MOST_ITEMS:
        raise InputError(f"cannot open {path}: {where} has {count:,} items of metadata, more than {MOST_ITEMS:,}")


def check_tiff_items(path: str) -> None:
    """Raises InputError for a TIFF on disk with more items in a directory than `MOST_ITEMS`."""
    with suppress(OSError, ValueError, struct.error), open(path, "rb") as file:
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        version = struct.unpack_from(f"{order}H", head, 2)[0] if order else 0
        if version not in (42, 43):
            return
        big = version == 43
        start, entry, number = ("Q", "HHQQ", "Q") if big else ("I", "HHII", "H")
        (at,) = struct.unpack_from(order + start, head, 8 if big else 4)
        for _ in range(_MOST_DIRECTORIES):
            file.seek(at)
            (count,) = struct.unpack(order + number, file.read(struct.calcsize(order + number)))
            size = struct.calcsize(order + entry)
            entries = file.read(size * min(count, 1 << 16))
            following = file.read(struct.calcsize(order + start))
            for tag, _, length, place in struct.iter_unpack(order + entry, entries):
                if tag == _METADATA:
                    file.seek(place)
                    check_items(path, file.read(min(length, MOST_BESIDE)).count(b"<Item"), "it")
            if not (at := struct.unpack(order + start, following)[0]):
                return


def check_items_beside(path: str, beside: str) -> None:
    """Raises InputError for a file of GDAL's beside a raster with more than `MOST_ITEMS`."""
    check_items(path, untrusted.read_bytes(beside, MOST_BESIDE).count(b"<MDI"), f"{beside} beside it")
