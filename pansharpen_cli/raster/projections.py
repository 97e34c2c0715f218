"""Files that a CRS names for PROJ, which opens whatever is there and cannot be interrupted."""

from __future__ import annotations

import html
import os
import re
import struct
from collections.abc import Iterator
from contextlib import suppress

from rasterio.errors import CRSError

from .. import untrusted
from ..errors import InputError
from .gdal_files import opened_by_name
from .tiff import MOST_TAGS, Bytes, directories

_NAMED = re.compile(
    r"""(?:(?<![a-z0-9_])(?:nad|geoid|xy_|z_)?grids|\+\s*(?:init|file|model|catalog))\s*=\s*"?([^\s"<\]]+)"""
    r"""|(?:PARAMETERFILE\s*\[\s*"[^"]{0,500}"|EXTENSION\s*\[\s*"PROJ4_GRIDS")\s*,\s*"([^"]*)\"""",
    re.IGNORECASE,
)
"""Parameters of PROJ and nodes of WKT that name files, several with commas between them."""
_NAMED_IN = re.compile(_NAMED.pattern.encode(), re.IGNORECASE)
_DESCRIPTION = re.compile(rb"^\s*description\s*=\s*\{[^{}]*\}", re.IGNORECASE | re.MULTILINE)
"""Free text of an ENVI header, which GDAL hands to nobody."""

_HEADERS, HEAD = (".hdr", ".HDR", ".prj", ".PRJ"), 1 << 16
"""What the names of headers end in, and how many bytes of a file may be one."""
_DEEP, _MOST_DEEP = (b"CDF", b"\x89HDF", b"SQLite format 3\0"), 1 << 24
"""How files begin whose CRS may stand anywhere in them, and how many of their bytes are looked at."""
_GEO_KEYS, _GEO_DOUBLES, _EPOCH = 34735, 34736, 5120
"""Tags of the keys of a GeoTIFF and of their values, and the key of an epoch."""
_CITATIONS = 34737
"""The tag of texts about the CRS of a GeoTIFF, of which one may be WKT."""
_JP2, _HFA = b"\0\0\0\x0cjP", b"EHFA_HEADER_TAG\0"
_HFA_ENTRY = struct.Struct("<I8xIII64s")
"""Of an entry of HFA: the places of the next one, of the first one below it and of its data, their size, its name."""


def check_projection(path: str, text: str) -> None:
    """Raises InputError if a text that tells a CRS, among other things, names a file by more than the plain name of
    one that PROJ knows."""
    for found in _NAMED.finditer(text):
        for name in (each.strip().removeprefix("@") for each in (found[1] or found[2] or "").split(",")):
            if re.search(r"[/\\~]", name) or untrusted.file_kind(name):
                raise InputError(
                    f"cannot open {path}: its CRS names the file {name[:200]}, which is not opened; give it a CRS by "
                    "an EPSG code (gdal_edit.py -a_srs)"
                )


def check_headers(file: str) -> None:
    """`check_projection` of a raster and of the headers beside it, whose CRS GDAL hands to PROJ as it opens them; also
    in an archive, by GDAL's name."""
    stem = os.path.splitext(file)[0]
    metadata = {f"{file}.aux.xml"} if file.startswith("/vsi") else set()  # of a file on disk it is known
    for name in {file, *metadata, *(base + end for base in (file, stem) for end in _HEADERS)}:
        with suppress(OSError, ValueError, OverflowError, struct.error), opened_by_name(name) as opened:
            if name in metadata:
                check_projection(name, html.unescape(opened.read(_MOST_DEEP).decode("latin-1")))
                continue
            for text in _texts(opened, name):
                for found in _NAMED_IN.finditer(text):
                    check_projection(name, found[0].decode("latin-1"))


def _texts(file: Bytes, name: str) -> Iterator[bytes]:
    """Where the CRS of a raster may stand: in a TIFF, JPEG 2000 and HFA file its place is known."""
    head = file.read(HEAD)
    if head.startswith((b"II", b"MM")):
        file.seek(0)
        for entries in directories(file, name):
            for _, _, count, place in (each for each in entries if each[0] == _CITATIONS):
                file.seek(place)
                yield file.read(min(count, MOST_TAGS))
        return
    head = _DESCRIPTION.sub(b"", head) if head.startswith(b"ENVI") else head
    yield head + file.read(_MOST_DEEP) if head.startswith(_DEEP) else head
    if head.startswith(_JP2):
        yield from _boxes(file)
    elif head.startswith(_HFA):
        (place,) = struct.unpack_from("<I", head, len(_HFA))
        file.seek(place + 8)
        (root,) = struct.unpack("<I", file.read(4))
        for layer, *_ in _hfa_below(file, root):
            for _, data, size, entry in _hfa_below(file, layer):
                if entry.lower().startswith(b"projectionx"):
                    file.seek(data)
                    yield file.read(min(size, MOST_TAGS))


def _boxes(file: Bytes) -> Iterator[bytes]:
    """Boxes of a JPEG 2000 file that are of no kind of its own; one of them may be a GeoTIFF."""
    place = 0
    for _ in range(HEAD):
        file.seek(place)
        head = file.read(16)
        size = int.from_bytes(head[:4], "big")
        size = int.from_bytes(head[8:], "big") if size == 1 else size or MOST_TAGS
        if head[4:8] == b"uuid":
            yield file.read(min(size, MOST_TAGS))
        if size < 8 or len(head) < 16:
            return
        place += size


def _hfa_below(file: Bytes, place: int) -> Iterator[tuple[int, int, int, bytes]]:
    """Of each entry below one of HFA its place, that of its data, their size, and its name."""

    def entry() -> tuple[int, int, int, int, bytes]:
        file.seek(place)
        return _HFA_ENTRY.unpack(file.read(_HFA_ENTRY.size))

    place, seen = entry()[1], set[int]()
    while place and place not in seen:
        seen.add(place)
        following, _, data, size, name = entry()
        yield place, data, size, name
        place = following


def lost_epoch(path: str) -> list[str]:
    """What to say of a GeoTIFF on disk that tells the epoch of its coordinates, which rasterio does not carry."""
    with suppress(OSError, ValueError, OverflowError, KeyError, InputError, struct.error), open(path, "rb") as file:
        order = "<" if file.read(2) == b"II" else ">"
        file.seek(0)
        places = {tag: (place, count) for tag, _, count, place in next(directories(file, path), [])}
        file.seek(places[_GEO_KEYS][0])
        keys = struct.unpack(f"{order}{places[_GEO_KEYS][1]}H", file.read(2 * places[_GEO_KEYS][1]))
        at = {keys[i]: keys[i + 3] for i in range(4, len(keys), 4)}[_EPOCH]
        file.seek(places[_GEO_DOUBLES][0] + 8 * at)
        (epoch,) = struct.unpack(f"{order}d", file.read(8))
        told = "has coordinates of the epoch", "which the output does not tell: add it with gdal_edit.py -a_coord_epoch"
        return [f"{path} {told[0]} {epoch:g}, {told[1]} {epoch:g}"]
    return []


def check_crs(dataset, path: str) -> None:
    """`check_projection` of a raster's CRS and that of its control points."""
    for crs in (dataset.crs, dataset.gcps[1]):
        for version in ("WKT1_GDAL", "WKT2_2019") if crs else ():
            with suppress(CRSError):
                check_projection(path, crs.to_wkt(version=version))
