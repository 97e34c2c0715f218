"""What a raster refers to: VRTs name other files, places in a network, and bytes of any file as pixels.

GDAL reads attributes and child elements alike and ignores case, so that any text of a VRT may be a name. What can be
read as text is looked at before GDAL opens it: opening alone may already fetch what is named.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from xml.etree import ElementTree

from ..errors import InputError

LARGEST_VRT = 64 << 20
"""Bytes of a VRT: a hundred thousand tiles take a fifth of them."""

MOST_FILES = 200_000
"""That a VRT refers to, with those that VRTs among them refer to."""

NETWORK = re.compile(
    r"^\w+://|/vsi(curl|s3|gs|az|adls|oss|swift|hdfs|webhdfs)|^(https?|ftp|wms|wmts|wcs|pg|postgresql|postgis):",
    re.IGNORECASE,
)
"""Names of what is not on this machine's disks."""

_NAMES = ("sourcefilename", "sourcedataset", "cutlinedsname", "rpc_dem", "srcdsname", "filename")
_PROSE = ("mdi", "description", "srs", "wkt", "expression")
_HEAD = 1024


def check_raw(path: str) -> None:
    """Raises InputError for a VRT that takes bytes of another file for pixels, also through VRTs that it is made of."""
    for _ in _walked(path):
        pass


def referred(path: str) -> Iterator[str]:
    """All names that a VRT refers to, also through VRTs that it is made of. Raises InputError as `check_raw` does."""
    return _walked(path)


def outside(path: str, roots: Collection[Path]) -> str:
    """Why a raster should not be opened unasked: what it refers to that is no file below one of the folders, or "".

    XML and JSON that are no VRT or DIMAP are refused as well: GDAL takes them for services.
    """
    if NETWORK.search(path) or path.startswith("/vsi"):
        return ""  # named as such, so it was asked for
    head = _head(path).lower()
    if head[:1] in ("<", "{", "[") and "<vrtdataset" not in head and "dimap" not in head:
        return "it is text, not a raster"
    allowed = {a for root in roots for a in (os.path.abspath(root), os.path.realpath(root))}
    try:
        for name in _walked(path):
            if NETWORK.search(name):
                return f"it refers to {name[:200]}, which is in a network: only files on disk are read"
            if not os.path.isfile(name):
                return f"it refers to {name[:200]}, which is no file"
            if not any(Path(name).is_relative_to(a) for a in allowed):
                return f"it refers to {name[:200]}, which lies outside of the sources: name a folder above as SOURCE"
    except InputError as error:
        return str(error)
    return ""


def _walked(path: str) -> Iterator[str]:
    """All names that a VRT refers to, in turn; none for what is no VRT. Raises InputError for a raw band."""
    text = _text(path)
    waiting = [] if text is None else [(path, text)]
    known = {os.path.abspath(path)}
    while waiting:
        where, text = waiting.pop()
        for name in _names(path, where, text):
            if name in known:
                continue
            known.add(name)
            if len(known) > MOST_FILES:
                raise InputError(f"{path} refers to more than {MOST_FILES} files")
            inner = _text(name)
            if inner is not None:
                waiting.append((where if name == inner else name, inner))
            if name != inner:
                yield name


def _text(name: str) -> str | None:
    """The XML of a VRT: of a file, or the name itself where it is XML; None for anything else."""
    if name.lstrip().startswith("<"):
        return name
    name = re.sub(r"^vrt://([^?]*).*$", r"\1", name)
    head = _head(name)
    if not head.lstrip("\ufeff \t\r\n").startswith("<") or "<vrtdataset" not in head.lower():
        return None
    if os.path.getsize(name) > LARGEST_VRT:
        raise InputError(f"{name} is a VRT of more than {LARGEST_VRT >> 20} MB")
    return Path(name).read_text(errors="replace")


def _head(name: str) -> str:
    """The first bytes of a regular file as text; empty for anything else."""
    try:
        if not os.path.isfile(name):
            return ""
        with open(name, "rb") as file:
            return file.read(_HEAD).decode("utf-8", "replace")
    except (OSError, ValueError):
        return ""


def _names(path: str, where: str, text: str) -> Iterator[str]:
    """The names in the XML of a VRT that lies at `where`, as absolute paths where they are files."""
    if "<!" in text and re.search(r"<!(DOCTYPE|ENTITY)", text, re.IGNORECASE):
        raise InputError(f"{path} is a VRT with a DOCTYPE, which is not read")
    try:
        root = ElementTree.fromstring(text.strip())
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is no VRT that can be read: {where[:200]}: {error}") from error
    folder = os.path.dirname(os.path.abspath(where))
    for element in root.iter():
        relative = "0"
        for key, value in [(element.tag, element.text), *element.attrib.items()]:
            if key.lower() == "relativetovrt":
                relative = (value or "").strip()
        for child in element:
            if child.tag.lower() == "relativetovrt":
                relative = (child.text or "").strip()
        for key, value in [(element.tag, element.text), *element.attrib.items()]:
            value = (value or "").strip()
            if value.lower() == "vrtrawrasterband":
                raise InputError(
                    f"{path} takes bytes of another file for pixels (VRTRawRasterBand), which may be any file: "
                    "refused; make a GeoTIFF of it with gdal_translate if you trust it"
                )
            network = NETWORK.search(value) and element.tag.lower() not in _PROSE
            if value and (key.lower() in _NAMES or network):
                yield _place(value, folder, relative)


def _place(value: str, folder: str, relative: str) -> str:
    """A name as an absolute path, unless it is none of a file."""
    if NETWORK.search(value) or value.startswith(("<", "/vsi", "vrt://")):
        return value
    return os.path.abspath(os.path.join(folder, value) if relative.lower() in ("1", "yes", "true", "on") else value)
