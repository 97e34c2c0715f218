"""What a VRT takes its sources for, and what they are: GDAL fills up rows that are missing, drops the colour tables of
bands that it puts side by side, and says nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from contextlib import suppress

from rasterio.enums import ColorInterp

from .. import untrusted
from ..errors import InputError
from .band_kinds import check_palette
from .gdal_files import absolute
from .messages import GDAL_ERRORS

MOST = 1000
"""Sources that are opened for it."""

_SOURCE = re.compile(
    r"<SourceFilename(?P<told>[^>]*)>(?P<name>[^<]*)</SourceFilename>\s*(?:<SourceBand>(?P<band>[^<]*)</SourceBand>\s*)?"
    r'<SourceProperties RasterXSize="(?P<cols>\d+)" RasterYSize="(?P<rows>\d+)"'
)
"""As GDAL writes it; a source with options of its own may be an overview, of another size."""

_EXPANDED = re.compile(r"<(ColorTableComponent|LUT)\b|</\w+Source>")
"""What makes colours of the indices of a source, or its end."""


def check_sources(path: str, names: Collection[str], opened) -> None:
    """Raises InputError for a source on disk that has fewer rows or columns than a VRT, the one at `path` or one of
    `names`, was made for, or whose indices of colours it takes for values. `names`: all that may be opened; `opened`
    does."""
    known, indices = {*names}, dict[str, set[int]]()
    seen: dict[str, tuple[int, int]] = {}
    for vrt in (each for each in (path, *names) if each.lower().endswith(".vrt") and os.path.isfile(each)):
        with suppress(InputError):
            text = untrusted.read_text(vrt, untrusted.MOST_SIDE, "replace")
            for found in _SOURCE.finditer(text):
                near = re.search(r'relativeToVRT="1"', found["told"], re.IGNORECASE)
                folder = os.path.dirname(os.path.realpath(vrt)) if near else ""
                name = absolute(os.path.join(folder, found["name"]))
                seen.setdefault(name, (int(found["rows"]), int(found["cols"])))
                after = _EXPANDED.search(text, found.end())
                if not (after and after[1]) and (found["band"] or "1").isdecimal():
                    indices.setdefault(name, set()).add(int(found["band"] or 1))
    for name in [name for name in seen if name in known and os.path.isfile(name)][:MOST]:
        with suppress(*GDAL_ERRORS), opened(name) as source:
            if any(has < told for has, told in zip(source.shape, seen[name], strict=True)):
                raise InputError(
                    f"{path} takes {name} for {' x '.join(map(str, seen[name]))} pixels, and it has "
                    f"{' x '.join(map(str, source.shape))}: make the VRT anew (gdalbuildvrt)"
                )
            for band in sorted(indices.get(name, set()) & {*source.indexes}):
                if source.colorinterp[band - 1] == ColorInterp.palette:
                    check_palette(source, band, name)
