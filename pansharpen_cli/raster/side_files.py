"""Text files beside a raster that tell its sensor and date: one list for who reads them, and for who asks whether they
have changed. What a file in the folder says of other rasters is no word about this one."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path

from .. import untrusted
from ..errors import InputError
from ..publish import Listing

SIDE_FILES = re.compile(r"\.(imd|rpb|xml|txt|dim|json)$", re.IGNORECASE)
"""How the names of such files end."""

_OF_THE_FOLDER = ("metadata.dim", "summary.txt")
"""Files that GDAL takes for those of every raster in their folder: they are of the rasters that they list."""

_IMAGES = re.compile("(IMG|DIM)_", re.IGNORECASE)
_TILE_END = re.compile(r"(_(P|RGB|NED))?_R\d+C\d+$", re.IGNORECASE)
"""What the name of a raster has beyond that of the DIM_*.XML that lists it."""


def described_in(path: str, listed: Collection[str] = (), listing: Listing | None = None) -> list[str]:
    """The files beside a raster that tell of it: Landsat's MTL, DigitalGlobe's IMD, and of DIMAP and ALOS those that
    have its name or list it. `listed`: further files that it consists of."""
    place, listing = Path(path), listing or Listing()
    if "://" in path or path.startswith("/vsi") or not place.name:
        return []
    scene = re.sub(r"_B\d+$", "", place.stem, flags=re.IGNORECASE)
    own = {f"{scene}{end}".lower() for end in ("_mtl.txt", ".imd")}
    found = [name for name in listing.near(place.with_name(f"{scene}.imd")) if name.lower() in own]
    rasters = {os.path.abspath(name).lower() for name in (path, *listed)}
    stems = {Path(raster).stem for raster in rasters}
    products = {_TILE_END.sub("", stem)[4:] for stem in stems if _IMAGES.match(stem)}
    for begin in ("DIM_", "RPC_") if products else ("DIM_",):
        for name in listing.near(place.with_name(begin)):
            if not re.match(rf"{begin}.*\.XML$", name, re.IGNORECASE):
                continue
            if name[4:-4].lower() in products or (begin == "DIM_" and _lists(place.with_name(name), rasters)):
                found.append(name)
    for each in _OF_THE_FOLDER:
        near = listing.near(place.with_name(each))
        found += [name for name in near if name.lower() == each and _lists(place.with_name(name), rasters)]
    return [str(place.with_name(name)) for name in dict.fromkeys(found) if place.with_name(name).is_file()]


def _lists(path: Path, rasters: Collection[str]) -> bool:
    try:
        known = path.stat()
    except OSError:
        return False
    return not _names_in(os.path.abspath(path), known.st_mtime_ns, known.st_size).isdisjoint(rasters)


@lru_cache(4096)
def _names_in(path: str, *_: int) -> frozenset[str]:
    """The names in quotes in a text, which GDAL follows from its folder, as absolute paths in small letters."""
    try:
        text = untrusted.read_text(path, untrusted.MOST_SIDE, "replace")
    except InputError:
        return frozenset()
    names, folder = re.findall(r"""["']([^"'<>\n]{1,500})["']""", text), os.path.dirname(path)
    return frozenset(os.path.normpath(os.path.join(folder, name)).lower() for name in names)


def told_of_others(dataset, path: str) -> list[str]:
    """The files of a raster that GDAL takes for its own, and that list others of the folder only. Within archives,
    where only GDAL reads, those that are not beside the raster that DIMAP calls IMAGERY."""
    files = [name for name in dataset.files if os.path.basename(name).lower() in _OF_THE_FOLDER and name != path]
    if not files or dataset.driver == "DIMAP":
        return []
    if any(name.startswith("/vsi") for name in files):
        return [] if Path(path).stem.lower() == "imagery" else files
    own = {os.path.abspath(name) for name in described_in(path, dataset.files)}
    return [name for name in files if os.path.abspath(name) not in own]


def tags_of(dataset, band: int = 0, ns: str | None = None) -> dict[str, str]:
    """The tags of a dataset or a band but those that rasterio would take for a domain or a band, not for tags, and
    those that a file of the folder tells of others."""
    tags = {key: value for key, value in dataset.tags(band, ns=ns).items() if key not in ("ns", "bidx")}
    told = ns in ("IMAGERY", "IMD", "DIMAP") or "METADATATYPE" in tags
    if band == 0 and tags and told and told_of_others(dataset, dataset.name):
        return {} if ns else {key: value for key, value in tags.items() if key != "METADATATYPE"}
    return tags
