"""Rasters of one file whose pixels may lie in others: channels of PCIDSK that name files, and HDF5 (netCDF-4, too)
with external storage, links to other files and virtual datasets."""

from __future__ import annotations

import io
import mmap
import os
import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache

from ..errors import InputError
from .tiff import Bytes

PCIDSK, HDF5 = b"PCIDSK  ", b"\x89HDF\r\n\x1a\n"
"""How such files begin; HDF5 also behind a block of 512 bytes, or of a power of two times as many."""

_NUMBER = re.compile(rb"\s*\+?(\d+)")
_TILES = re.compile(rb"/SIS=\s*\d+\Z")
_BLOCK, _CHANNEL, _SEGMENT, _LINK = 512, 1024, 32, b"SysLinkF"
_MOST, _MOST_LINK = 1 << 16, 1 << 13
"""Channels or segments, and bytes of a link."""
_HEAP, _COLLECTION = re.compile(b"HEAP\0"), re.compile(b"GCOL\1")
"""Heaps of HDF5 for names, and for other objects, by signature and version."""
_EXTERNAL_LINK = re.compile(rb"\x01[\x08-\x0f\x18-\x1f]\x40")
"""Version, flags and type of a link to another file."""
_FILTERED = re.compile(rb"FRHP\0..(?!\0\0)..[\0-\3]", re.DOTALL)
"""A heap of links whose content is packed."""


def channels_of(file: Bytes, name: str) -> list[str]:
    """The files that channels of a PCIDSK file name, those of its links, too. Raises InputError for one with more
    channels or segments than any has."""

    def at(place: int, size: int) -> bytes:
        with suppress(OSError, ValueError, OverflowError):
            file.seek(place)
            return file.read(size)
        return b""

    def number(place: int, size: int) -> int:
        found = _NUMBER.match(at(place, size))
        return int(found[1]) if found else 0

    channels, segments = number(376, 8), number(456, 8) * _BLOCK // _SEGMENT
    if max(channels, segments) > _MOST:
        raise InputError(f"{name} has more than {_MOST} channels or segments")
    first, table = ((number(place, 16) - 1) * _BLOCK for place in (336, 440))
    named = [at(first + channel * _CHANNEL + 64, 64).rstrip(b" ") for channel in range(channels)]
    if any(each.startswith(b"LNK") for each in named):
        starts = (number(table + segment * _SEGMENT + 12, 11) for segment in range(segments))
        contents = (at((start + 1) * _BLOCK, _MOST_LINK) for start in starts)
        named += {content.removeprefix(_LINK) for content in contents if content.startswith(_LINK)}
    names = dict.fromkeys(each.partition(b"\0")[0] for each in named)
    return [os.fsdecode(each) for each in names if each and not each.startswith(b"LNK") and not _TILES.match(each)]


def check_own(path: str, file: str) -> None:
    """Raises InputError for an HDF5 file on disk that has other files' bytes for its own."""
    with suppress(OSError, ValueError):
        known = os.stat(file)
        if reason := _elsewhere(file, known.st_mtime_ns, known.st_size):
            raise InputError(f"cannot open {path}: {file} has {reason}: refused; make a GeoTIFF of it if you trust it")


@lru_cache(4096)
def _elsewhere(file: str, *_: int) -> str:
    """What of an HDF5 file lies in others; nothing of any other file."""
    with open(file, "rb", 0) as opened:
        base = _base(opened)
        if base is None:
            return ""
        with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
            version = data[base + 8]
            width = min(data[base + (13 if version < 2 else 9)], 8)
            if _leads_to(data, base, width, rb"\x01.{5}(?!\0\0)..", _HEAP):
                return "pixels in other files (external storage)"
            if _leads_to(data, base, width, rb"[\x04\x05]\x03", _COLLECTION):
                return "pixels that are put together of other datasets (a virtual dataset)"
            if any(_is_there(name, os.path.dirname(os.path.abspath(file))) for name in _linked(data)):
                return "a link to another file"
            return "links that are packed" if _FILTERED.search(data) else ""


def _base(file: io.FileIO) -> int | None:
    """Where an HDF5 file begins within a file, as HDF5 looks for it; None in any other."""
    place, size = 0, os.fstat(file.fileno()).st_size
    while place + 64 <= size:
        file.seek(place)
        if file.read(8) == HDF5:
            return place
        place = max(_BLOCK, 2 * place)
    return None


def _leads_to(data: mmap.mmap, base: int, width: int, before: bytes, heap: re.Pattern[bytes]) -> bool:
    """Whether a message of these first bytes, then the address of such a heap, stands anywhere."""
    places = (found.start() - base for found in heap.finditer(data))
    addresses = [struct.pack("<Q", place)[:width] for place in places if place >= 0]
    told = b"(?:%b)(?<=%b.{%d})" % (b"|".join(map(re.escape, addresses)), before, width)  # rare bytes first
    return bool(addresses and re.search(told, data, re.DOTALL))


def _linked(data: mmap.mmap) -> Iterator[bytes]:
    """The files that links name: the link's name behind its length, the length of what follows, the file's name."""
    for found in _EXTERNAL_LINK.finditer(data):
        flags, place = data[found.start() + 1], found.end()
        place += 8 * bool(flags & 4) + bool(flags & 16)
        width = 1 << (flags & 3)
        place += width + int.from_bytes(data[place : place + width], "little") + 2
        if place < len(data) and data[place] == 0:
            name = data[place + 1 : place + 4096].partition(b"\0")[0]
            if name:
                yield name


def _is_there(name: bytes, folder: str) -> bool:
    """Where HDF5 looks for the file that a link names: as it is, and with and without its folder beside the file."""
    text = os.fsdecode(name)
    places = (text, os.path.join(folder, text), os.path.join(folder, os.path.basename(text)))
    return text.startswith("/vsi") or any(os.path.exists(place) and not os.path.isdir(place) for place in places)
