"""How large a VRT takes its sources for, and how large they are: GDAL fills up what is missing, and says nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from contextlib import suppress

from .. import untrusted
from ..errors import InputError
from .gdal_files import absolute
from .messages import GDAL_ERRORS

MOST = 1000
"""Sources that are opened for it."""

_SOURCE = re.compile(
    r"<SourceFilename(?P<told>[^>]*)>(?P<name>[^<]*)</SourceFilename>\s*(?:<SourceBand>[^<]*</SourceBand>\s*)?"
    r'<SourceProperties RasterXSize="(?P<cols>\d+)" RasterYSize="(?P<rows>\d+)"'
)
"""As GDAL writes it; a source with options of its own may be an overview, of another size."""


def check_sources(path: str, names: Collection[str], opened) -> None:
    """Raises InputError for a source on disk that has fewer rows or columns than a VRT, the one at `path` or one of
    `names`, was made for. `names`: all that may be opened; `opened` does."""
    known = {*names}
    seen: dict[str, tuple[int, int]] = {}
    for vrt in (each for each in (path, *names) if each.lower().endswith(".vrt") and os.path.isfile(each)):
        with suppress(InputError):
            text = untrusted.read_text(vrt, untrusted.MOST_SIDE, "replace")
            for found in _SOURCE.finditer(text):
                near = re.search(r'relativeToVRT="1"', found["told"], re.IGNORECASE)
                folder = os.path.dirname(os.path.realpath(vrt)) if near else ""
                seen.setdefault(absolute(os.path.join(folder, found["name"])), (int(found["rows"]), int(found["cols"])))
    for name in [name for name in seen if name in known and os.path.isfile(name)][:MOST]:
        with suppress(*GDAL_ERRORS), opened(name) as source:
            if any(has < told for has, told in zip(source.shape, seen[name], strict=True)):
                raise InputError(
                    f"{path} takes {name} for {' x '.join(map(str, seen[name]))} pixels, and it has "
                    f"{' x '.join(map(str, source.shape))}: make the VRT anew (gdalbuildvrt)"
                )
