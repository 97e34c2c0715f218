"""Rasters in TAR and ZIP archives, found without unpacking them."""

from __future__ import annotations

import gzip
import os
import re
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from .. import untrusted
from ..errors import InputError
from ..raster.packed import MOST_LISTED, MOST_UNPACKED
from ..report.facts import LeftOver
from .names import File

TARS, ZIPS = (".tar", ".tar.gz", ".tgz"), (".zip",)
RASTERS = (".tif", ".tiff", ".jp2", ".img", ".ntf", ".nitf")
"""No VRT and no list: what these refer to would have to be looked at before GDAL opens them."""
MOST_MEMBERS = 20_000
"""Most files in one archive."""
MOST_AT_ONCE = 1 << 20
"""Bytes of a header in a TAR, names among them."""
_HEAD = 64


def is_archive(path: str) -> bool:
    return path.lower().endswith((*TARS, *ZIPS))


def archive_of(path: str) -> str:
    """The archive on disk that a name of `look_into` leads into; a path as it is if it leads into none."""
    match = re.match(r"/vsi(?:tar|zip)/\{(.+?)\}/", path)
    return match[1] if match else path


@dataclass(frozen=True)
class _Member:
    """A regular file in an archive: its first bytes, and why it cannot be read if it cannot."""

    name: str
    size: int
    head: bytes
    trouble: str = ""


def look_into(path: str, relative: str) -> tuple[list[File], list[LeftOver]]:
    """The rasters of an archive, which counts as a folder of its name, and what is not read of it. Rasters that also
    lie unpacked beside it are left out."""
    path = os.path.abspath(path)
    prefix = f"/vsi{'zip' if path.lower().endswith(ZIPS) else 'tar'}/{{{path}}}"
    base = re.sub(r"(\.tar)?\.\w+$", "", os.path.basename(path), flags=re.IGNORECASE)
    folder = PurePosixPath(relative).parent / base
    found, left = [], []
    try:
        with untrusted.boundary(path, "cannot be looked into"):
            for member in _members(path):
                if why := _trouble(member):
                    left.append(LeftOver(f"{prefix}/{member.name}", why))
                elif not _is_unpacked(member, Path(path).parent, base):
                    inner = member.name.removeprefix(f"{base}/")
                    found.append(File(f"{prefix}/{member.name}", f"{folder}/{inner}"))
    except InputError as error:
        return [], [LeftOver(path, str(error).removeprefix(f"{path} "))]
    return found, left


def _members(path: str) -> Iterator[_Member]:
    """The rasters of an archive. Raises InputError for one of too many members, or that unpacks to too much."""
    if kind := untrusted.file_kind(path):
        raise InputError(f"{path} is {kind}: only files are read")
    every = _in_zip(path) if path.lower().endswith(ZIPS) else _in_tar(path)
    for count, member in enumerate(every):
        if count >= MOST_MEMBERS:
            raise InputError(f"{path} has more than {MOST_MEMBERS:,} members: unpack it")
        name = PurePosixPath(member.name)
        hidden = any(part.startswith((".", "__MACOSX")) and part != ".." for part in name.parts)
        if name.suffix.lower() in RASTERS and not hidden:
            yield member


def _in_zip(path: str) -> Iterator[_Member]:
    with open(path, "rb") as file, zipfile.ZipFile(untrusted.Bounded(file, path, MOST_LISTED)) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            trouble, head = "", b""
            if info.flag_bits & 1:
                trouble = "it is encrypted"
            elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                trouble = "it is packed in a way that is not read: unpack the archive"
            else:
                with archive.open(info) as member:
                    head = member.read(_HEAD)
            yield _Member(info.filename, info.file_size, head, trouble)


def _in_tar(path: str) -> Iterator[_Member]:
    with ExitStack() as stack:
        plain = path.lower().endswith(".tar")  # all of any other is unpacked to see what is in it
        opener: Any = open if plain else gzip.open
        opened = stack.enter_context(opener(path, "rb"))
        bounded: Any = untrusted.Bounded(opened, path, MOST_AT_ONCE, None if plain else MOST_UNPACKED)
        archive = stack.enter_context(tarfile.open(fileobj=bounded, mode="r:"))
        for info in archive:
            if not info.isreg():
                continue
            trouble = "it is sparse: unpack the archive" if info.issparse() else ""
            file = archive.extractfile(info) if PurePosixPath(info.name).suffix.lower() in RASTERS else None
            yield _Member(info.name.removeprefix("./"), info.size, file.read(_HEAD) if file else b"", trouble)


def _trouble(member: _Member) -> str:
    """Why a member is not read; empty if it is."""
    name = PurePosixPath(member.name)
    if member.trouble:
        return member.trouble
    if name.is_absolute() or ".." in name.parts or "\\" in member.name or not member.name.isprintable():
        return "its name leads out of the archive, or is none"
    if member.size > MOST_UNPACKED:
        return f"it unpacks to more than {MOST_UNPACKED >> 30} GB"
    if member.head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"<", b"{", b"["):
        return "it is text, not a raster"
    return ""


def _is_unpacked(member: _Member, folder: Path, base: str) -> bool:
    """Whether the member lies beside its archive as a file, in a folder of the archive's name or without."""
    for place in (folder / member.name, folder / base / member.name):
        with suppress(OSError):
            if place.stat().st_size == member.size:
                return True
    return False
