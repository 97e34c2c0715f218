"""Files that only GDAL reaches, such as members of archives, read as bytes."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

from .messages import gdal_messages, library
from .tiff import Bytes

_SIGNATURES = {
    "VSIFOpenL": (ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_char_p]),
    "VSIFReadL": (ctypes.c_size_t, [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p]),
    "VSIFSeekL": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int]),
    "VSIStatL": (ctypes.c_int, [ctypes.c_char_p, ctypes.c_void_p]),
    "VSIFCloseL": (ctypes.c_int, [ctypes.c_void_p]),
}
_AT_ONCE = 1 << 20
_STAT = 1024
"""Bytes that hold what a system tells of a file, and more."""


@cache
def _function(name: str) -> Any:
    found = getattr(library(), name, None)
    if found is None:
        raise OSError("this GDAL's files cannot be reached")
    found.restype, found.argtypes = _SIGNATURES[name]
    return found


class GdalFile:
    """A file of GDAL's, which is read in turn from where it was sought."""

    def __init__(self, handle: int) -> None:
        self.handle = handle

    def seek(self, place: int) -> None:
        _function("VSIFSeekL")(self.handle, place, 0)

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; memory is that of what there is."""
        parts: list[bytes] = []
        while size > 0:
            buffer = ctypes.create_string_buffer(min(size, _AT_ONCE))
            count = _function("VSIFReadL")(buffer, 1, len(buffer), self.handle)
            parts.append(buffer.raw[:count])
            size = size - count if count == len(buffer) else 0
        return b"".join(parts)


@contextmanager
def opened_by_gdal(name: str) -> Iterator[GdalFile]:
    """A file by a name of GDAL's, open for reading. Raises OSError for one that is not there."""
    with gdal_messages():
        handle = _function("VSIFOpenL")(name.encode("utf-8", "surrogateescape"), b"rb")
        if not handle:
            raise OSError(f"{name} cannot be opened")
        try:
            yield GdalFile(handle)
        finally:
            _function("VSIFCloseL")(handle)


@contextmanager
def opened_by_name(name: str) -> Iterator[Bytes]:
    """A file of this machine, or in an archive, open for reading. Raises OSError for what is none."""
    if name.startswith("/vsi"):
        with opened_by_gdal(name) as held:
            yield held
        return
    if not os.path.isfile(name):
        raise OSError(f"{name} is no file")
    with open(name, "rb") as file:
        yield file


def absolute(place: str) -> str:
    """The path as the system follows it: `..` behind a link is the folder above its target."""
    if os.pardir not in place.split(os.sep):
        return os.path.abspath(place)
    folder, name = os.path.split(place)
    return os.path.join(os.path.realpath(folder), name)


def on_disk(name: str) -> str:
    """The file that a name of GDAL's leads to or into (`/vsigzip/`, `/vsitar/{...}/`), or a folder above it."""
    while prefix := re.match(r"/vsi[a-z0-9_]+/(\d+(_\d+)?,)?", name):
        name = name[prefix.end() :]
    if name.startswith("{"):
        name = name[1:].partition("}")[0]
    while name and not os.path.lexists(name) and os.path.dirname(name) != name:
        name = os.path.dirname(name)
    return name


def is_lacking(name: str) -> bool:
    """Whether a name leads into a ZIP or a plain TAR on disk without such a member. False where it cannot be told, and
    of what would have to be unpacked first."""
    archive = on_disk(name)
    listed = name.startswith(("/vsizip/", "/vsitar/")) and archive.lower().endswith((".zip", ".tar"))
    if not listed or not os.path.isfile(archive):
        return False
    with gdal_messages(), suppress(OSError):
        about = ctypes.create_string_buffer(_STAT)
        return bool(_function("VSIStatL")(name.encode("utf-8", "surrogateescape"), about))
    return False
