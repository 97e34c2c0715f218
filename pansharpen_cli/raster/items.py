"""Items of metadata, of which GDAL takes time by the square of their number: counted before it opens a file."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from contextlib import suppress

import numpy as np

from .. import untrusted
from ..errors import InputError

MOST_ITEMS = 10_000
"""Items of metadata of a file, or in a file beside it."""

MOST_TAGS = 64 << 20
"""Bytes of a TIFF's directories and of GDAL's metadata in them."""

_ITEM = re.compile(rb"<\s*(?:item|mdi)\b", re.IGNORECASE)
"""As GDAL reads XML, in a tag and in a file."""

_METADATA = 42112
_WIDTHS = {3: 2, 4: 4, 8: 2, 9: 4, 16: 8, 17: 8}
"""Bytes of a value by its type in a TIFF, where it is not one: libtiff takes such numbers for letters, too."""


def check_items(path: str, file: str) -> None:
    """Raises InputError where a TIFF, or a file of metadata or a TIFF beside a file, has more than `MOST_ITEMS`."""
    for each in (file, *(file + end for end in (".aux.xml", ".ovr", ".msk", ".OVR", ".MSK"))):
        if os.path.isfile(each):
            is_xml = each.lower().endswith(".aux.xml")
            texts = [untrusted.read_bytes(each, MOST_TAGS)] if is_xml else _texts(path, each)
            check_count(path, each, sum(len(_ITEM.findall(text)) for text in texts))


def check_count(path: str, file: str, count: int) -> None:
    """Raises InputError for more than `MOST_ITEMS` in one of a raster's files."""
    if count > MOST_ITEMS:
        size = f"{count:,} items of metadata, more than {MOST_ITEMS:,}"
        raise InputError(f"cannot open {path}: {file[:200]} has {size}: leave out what is not needed")


def _texts(path: str, name: str) -> Iterator[bytes]:
    """GDAL's metadata in each directory of a TIFF, as far as they can be read; nothing of any other file."""
    with suppress(OSError, ValueError, OverflowError, struct.error), open(name, "rb") as file:
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        kind = struct.unpack_from(f"{order}H", head, 2)[0] if order else 0
        if kind not in (42, 43):
            return
        many, number = "HI" if kind == 42 else "QQ"
        width = struct.calcsize(f"<{number}")
        entry = np.dtype([("tag", f"{order}u2"), ("type", f"{order}u2")] + [
            (what, f"{order}u{width}") for what in ("count", "place")
        ])  # fmt: skip
        left, seen = MOST_TAGS, set[int]()
        place = struct.unpack_from(order + number, head, width)[0]
        while place and place not in seen:
            seen.add(place)
            file.seek(place)
            size = entry.itemsize * struct.unpack(order + many, file.read(struct.calcsize(f"<{many}")))[0]
            content = file.read(min(size, left))
            (place,) = struct.unpack(order + number, file.read(width)) if size <= left else (0,)
            left -= size
            entries = np.frombuffer(content[: len(content) // entry.itemsize * entry.itemsize], entry)
            for _, type_, count, begin in entries[entries["tag"] == _METADATA].tolist():
                size = count * _WIDTHS.get(type_, 1)
                with suppress(OSError, ValueError, OverflowError):
                    file.seek(begin)
                    yield file.read(min(size, max(left, 0))).replace(b"\0", b"")
                left -= size
            if left < 0:
                raise InputError(f"cannot open {path}: {name[:200]} has more than {MOST_TAGS >> 20} MB of tags")
