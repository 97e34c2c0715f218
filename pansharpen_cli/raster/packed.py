"""Do files that are read from archives unpack to what was packed? Their checksums tell, which GDAL compares only where
it happens to read to the end."""

from __future__ import annotations

import gzip
import os
import re
import zipfile
import zlib
from functools import lru_cache
from typing import IO

from .. import untrusted
from ..errors import InputError

MOST_UNPACKED = 64 << 30
"""Bytes of an archive that is unpacked to see what is in it, and of a member."""
MOST_LISTED = 64 << 20
"""Bytes of the list of members in a ZIP."""

_PREFIX = re.compile(r"/vsi(\w+)/(?:\d+(?:_\d+)?,)?(\{?)")
_PACKED = (".gz", ".hfz", ".rda")
"""Ends of files on disk that some drivers unpack themselves."""
_GZIP = b"\x1f\x8b"
_FOREIGN = "Not a gzipped file"
"""What follows the end of one is no matter."""
_DEFLATE64 = 9
"""A method of ZIP that GDAL reads and Python does not."""
_AT_ONCE = 1 << 20


def check_unpacks(name: str) -> None:
    """Raises InputError if a name of GDAL's leads into a gzip file or a member of a ZIP, on disk, that does not unpack
    to what its checksum says. A TAR has none."""
    inner, kind = name, ""
    while prefix := _PREFIX.match(inner):
        inner, kind = inner[prefix.end() :], prefix[1]
    if not kind and not name.lower().endswith(_PACKED):
        return
    archive = _archive(inner) if kind else inner
    try:
        known = os.stat(archive)
    except (OSError, ValueError):
        return  # in a network
    if os.path.isfile(archive):
        member = inner[len(archive) :].lstrip("}/") if kind == "zip" else ""
        if reason := _damage(archive, kind, member, known.st_mtime_ns, known.st_size):
            raise InputError(f"{archive} is damaged: {reason}; copy or download it again")


def _archive(name: str) -> str:
    """The archive on disk that a name begins with."""
    ends = (found.start() for found in re.finditer(r"\}?(/|$)", name))
    return next((name[:end] for end in ends if os.path.isfile(name[:end])), name)


@lru_cache(4096)
def _damage(archive: str, kind: str, member: str, *_: int) -> str:
    """What in an archive does not unpack as it should; looked at once while the file stays as it is."""
    part = ""
    try:
        with open(archive, "rb") as file:
            if kind == "zip":
                with zipfile.ZipFile(untrusted.Bounded(file, archive, MOST_LISTED)) as packed:
                    for info in _named(packed, member):
                        part = info.filename
                        if info.compress_type == _DEFLATE64:
                            raise InputError(
                                f"{archive} is packed by Deflate64, as Windows packs large files, and its checksums "
                                "are not looked at: unpack it (unzip, 7z x) and name the files"
                            )
                        with packed.open(info) as content:
                            read_through(content, archive)
            elif file.read(len(_GZIP)) == _GZIP:
                file.seek(0)
                with gzip.GzipFile(fileobj=file) as content:
                    read_through(content, archive)
    except (zlib.error, EOFError, gzip.BadGzipFile, zipfile.BadZipFile) as error:
        told = str(error)
        if isinstance(error, zipfile.BadZipFile) and not told.startswith("Bad CRC") or told.startswith(_FOREIGN):
            return ""  # of its structure GDAL asks less
        return f"{part or 'it'} does not unpack to what its checksum says"
    except (NotImplementedError, RuntimeError):
        pass  # packed in other ways, or encrypted
    return ""


def _named(packed: zipfile.ZipFile, member: str) -> list[zipfile.ZipInfo]:
    """The members that a name may lead to or into; all, if it names none."""
    every = [info for info in packed.infolist() if not info.is_dir()]
    while member:
        if found := [info for info in every if _plain(info.filename) == _plain(member)]:
            return found
        member = member.rpartition("/")[0]
    return every


def _plain(name: str) -> str:
    """A name without what encodings may differ in."""
    return re.sub("[^ -~]+", "?", os.path.normpath(name.replace("\\", "/").rstrip("}")))


def read_through(content: IO[bytes] | gzip.GzipFile, archive: str) -> None:
    size = 0
    while part := content.read(_AT_ONCE):
        size += len(part)
        if size > MOST_UNPACKED:
            raise InputError(f"{archive} unpacks to more than {MOST_UNPACKED >> 30} GB: unpack it")
