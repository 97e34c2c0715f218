"""What is found in the place of a raster: nothing, a folder, or a file of another kind."""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress

from . import tiff
from .gdal_files import is_lacking, on_disk

_GEOJSON = re.compile(rb'^(\xef\xbb\xbf)?\s*\{.*"type"\s*:\s*"(Feature|GeometryCollection|Topology)', re.DOTALL)
"""How a file of shapes begins."""

_ARCHIVES = {
    b"Rar!\x1a\x07": "a RAR",
    b"7z\xbc\xaf\x27\x1c": "a 7z",
    b"\x1f\x8b": "a gzip",
    b"BZh": "a bzip2",
    b"\xfd7zXZ\0": "an xz",
    b"\x28\xb5\x2f\xfd": "a Zstandard",
}
"""First bytes of archives that are not looked into, and of files that are packed alone."""

_IN_ARCHIVE = re.compile(r"/vsi(zip|tar|gzip)/(?!/?vsi)(?!.*://)")
"""Names that lead into one archive on disk."""

_RASTERS = (".tif", ".tiff", ".jp2", ".img", ".ntf", ".til", ".vrt")
"""Ends of files in a folder, one of which a message names."""


def absence(path: str) -> str:
    """Why there is no such file; empty if there is one, and for addresses and names of GDAL's that lead into no archive
    on disk."""
    if _IN_ARCHIVE.match(path):
        archive = on_disk(path)
        if not archive or os.path.isdir(archive):
            return "no such archive"
        return absence(archive) or (f"no such file in {archive}" if is_lacking(path) else "")
    if "://" in path or path.startswith("/vsi") or os.path.exists(path):
        return ""
    try:
        os.stat(path)
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) == errno.ELOOP:
            return "it is a link to itself, or leads over too many links"
    return f"it is a link to {os.readlink(path)}, which is missing" if os.path.islink(path) else "no such file"


def no_raster(path: str) -> str:
    """What stands in the place of a raster, and what to do; empty for a file that may be one, and names of GDAL's."""
    if os.path.isdir(path):
        return f"it is a folder; name a raster in it{_raster_in(path)}, or use `pansharpen batch`, which pairs files"
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        return "the file is empty (0 bytes)"
    return _kind_of_others(path) if os.path.isfile(path) else ""


def _kind_of_others(path: str) -> str:
    """What a file is that is often found in the place of a raster; nothing for others."""
    with suppress(OSError), open(path, "rb") as file:
        head = file.read(512)
        if tiff.begins_behind(head, os.path.getsize(path)):
            return "it is cut off: its directory would lie behind its end; copy it again"
        if head.startswith(b"version https://git-lfs"):
            return "it is a pointer of Git LFS, not the file itself: git lfs pull"
        if re.match(rb"(\xef\xbb\xbf)?\s*<(!doctype\s+html|html)\b", head, re.IGNORECASE):
            return "it is a web page: the server answered with it in the place of the file; download it again"
        if head.startswith(b"PK\x03\x04"):
            return f"it is a ZIP archive: unpack it, or name the file in it (/vsizip/{{{path}}}/NAME)"
        if kind := next((kind for begin, kind in _ARCHIVES.items() if head.startswith(begin)), ""):
            return f"it is {kind} archive: unpack it"
        if head[257:262] == b"ustar":
            return f"it is a TAR archive: unpack it, or name the file in it (/vsitar/{{{path}}}/NAME)"
        if re.match(rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?<PAMDataset\b", head):
            return "it has what GDAL knows of another file (.aux.xml), no pixels: name that file"
        if _GEOJSON.search(head):
            return "it is GeoJSON: shapes, or an item of STAC, and no raster"
        if head.startswith(b"\0\0\x27\x0a"):
            return "it is a shapefile: shapes, and no raster"
    return ""


def _raster_in(folder: str) -> str:
    """A raster in a folder for a message; nothing where none is seen."""
    with suppress(OSError):
        held = sorted(name for name in os.listdir(folder) if name.lower().endswith(_RASTERS))
        return f", such as {held[0]}" if held else ""
    return ""
