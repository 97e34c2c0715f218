"""Items of metadata, of which GDAL takes time by the square of their number: counted before it opens a file."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from contextlib import suppress

from .. import untrusted
from ..errors import InputError
from .gdal_files import opened_by_gdal, opened_by_name
from .tiff import METADATA, MOST_TAGS, directories, too_many, width_of

MOST_ITEMS = 10_000
"""Items of metadata of a file, or in a file beside it."""

_ITEM = re.compile(rb"<\s*(?:item|mdi)\b", re.IGNORECASE)
"""As GDAL reads XML, in a tag and in a file."""


def check_items(path: str, file: str) -> None:
    """Raises InputError where a TIFF, or a file of metadata or a TIFF beside a file, has more than `MOST_ITEMS`; also
    in an archive, by GDAL's name."""
    for each in (file, *(file + end for end in (".aux.xml", ".ovr", ".msk", ".OVR", ".MSK"))):
        is_xml = each.lower().endswith(".aux.xml")
        if os.path.isfile(each):
            texts = [untrusted.read_bytes(each, MOST_TAGS)] if is_xml else _texts(each)
            check_count(path, each, sum(len(_ITEM.findall(text)) for text in texts))
        elif each.startswith("/vsi"):
            check_count(path, each, sum(len(_ITEM.findall(text)) for text in (_text if is_xml else _texts)(each)))


def check_count(path: str, file: str, count: int) -> None:
    """Raises InputError for more than `MOST_ITEMS` in one of a raster's files."""
    if count > MOST_ITEMS:
        size = f"{count:,} items of metadata, more than {MOST_ITEMS:,}"
        raise InputError(f"cannot open {path}: {file[:200]} has {size}: leave out what is not needed")


def _text(name: str) -> Iterator[bytes]:
    """What is in a file of GDAL's, if it is there."""
    with suppress(OSError), opened_by_gdal(name) as file:
        yield file.read(MOST_TAGS)


def _texts(name: str) -> Iterator[bytes]:
    """GDAL's metadata in each directory of a TIFF, as far as they can be read; nothing of any other file."""
    left = MOST_TAGS
    with suppress(OSError, ValueError, OverflowError, struct.error), opened_by_name(name) as file:
        for entries in directories(file, name):
            for _, kind, count, place in (each for each in entries if each[0] == METADATA):
                size = count * max(1, width_of(kind))
                with suppress(OSError, ValueError, OverflowError):
                    file.seek(place)
                    yield file.read(min(size, max(left, 0))).replace(b"\0", b"")
                left -= size
            if left < 0:
                raise too_many(name)
