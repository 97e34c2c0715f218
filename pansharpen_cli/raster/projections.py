"""Files that a CRS names for PROJ, which opens whatever is there and cannot be interrupted."""

from __future__ import annotations

import os
import re
from contextlib import suppress

from rasterio.errors import CRSError

from .. import untrusted
from ..errors import InputError

_NAMED = re.compile(
    r"""(?:\w*grids|\+\s*(?:init|file|model|catalog))\s*=\s*"?([^\s"<\]]+)"""
    r"""|(?:PARAMETERFILE\s*\[\s*"[^"]*"|EXTENSION\s*\[\s*"PROJ4_GRIDS")\s*,\s*"([^"]*)\"""",
    re.IGNORECASE,
)
"""Parameters of PROJ and nodes of WKT that name files, several with commas between them."""


_HEADERS, _HEAD = (".hdr", ".HDR", ".prj", ".PRJ"), 1 << 16
"""What the names of headers end in, and how many bytes of a file may be one."""


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
    """`check_projection` of the beginnings of a raster on disk and of the headers beside it, whose CRS GDAL hands to
    PROJ as it opens them; that of a TIFF it does not."""
    stem = os.path.splitext(file)[0]
    beside = (base + end for base in (file, stem) for end in _HEADERS)
    for name in {file, *filter(os.path.isfile, beside)}:
        with suppress(OSError), open(name, "rb") as opened:
            head = opened.read(2)
            if head not in (b"II", b"MM"):
                check_projection(name, (head + opened.read(_HEAD)).decode("latin-1"))


def check_crs(dataset, path: str) -> None:
    """`check_projection` of a raster's CRS and that of its control points."""
    for crs in (dataset.crs, dataset.gcps[1]):
        for version in ("WKT1_GDAL", "WKT2_2019") if crs else ():
            with suppress(CRSError):
                check_projection(path, crs.to_wkt(version=version))
