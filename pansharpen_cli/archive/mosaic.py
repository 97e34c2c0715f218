"""Tiles of one raster as one virtual raster, and its reading."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from .. import untrusted
from ..errors import InputError
from ..publish import Listing, told_beside
from ..raster import virtual
from ..raster.geometry import Window
from ..raster.no_raster import absence
from ..raster.references import plain_name
from ..raster.sensors import without_tile
from ..raster.side_files import described_in, tags_of
from ..raster.source import open_raster
from .names import CONTAINERS, RasterFiles


def read_with(files: Sequence[str], listing: Listing | None = None) -> list[str]:
    """The files, those that VRTs among them are made of, in turn, and those beside that change how they are read."""
    known = dict.fromkeys(files)
    waiting = [f for f in known if f.lower().endswith(".vrt")]
    while waiting:
        path = waiting.pop()
        if not os.path.isfile(path):  # a pipe would be waited for
            continue
        with suppress(InputError), open_raster(path) as dataset:
            new = [f for f in dataset.files if f not in known]
            known.update(dict.fromkeys(new))
            waiting += [f for f in new if f.lower().endswith(".vrt")]
    listing = listing or Listing()
    there = [path for path in known if os.path.exists(path)]
    sides = (side for path in there for side in (*told_beside(path, listing), *described_in(path, (), listing)))
    return [*known, *(side for side in dict.fromkeys(sides) if side not in known)]


def raster_of(layer: RasterFiles, folder: Path, nodata: float | None = None) -> str:
    """The path that opens a layer; of tiles it is a VRT made in `folder`, with what is told beside them. `nodata`
    stands for their own values.

    A .TIL that stands alone is its tiles: GDAL's own reader of it takes the place from another file than these. Raises
    InputError for tiles that are not parts of one grid, and if one of the delivery's list is missing.
    """
    if len(layer) == 1 and tiles_of(layer) == [*layer]:
        return layer[0]
    return surrounded(layer, (), folder, nodata=nodata)[0]


def surrounded(
    layer: RasterFiles, lent: Sequence[str], folder: Path, reach: int = 0, nodata: float | None = None
) -> tuple[str, Window]:
    """The path of a VRT of a layer and of up to `reach` pixels around it that `lent` tiles hold, and the layer's own
    pixels in it. Raises InputError as `raster_of`."""
    tiles, label = tiles_of(layer), layer[0]
    _check_listed(layer, tiles)
    stem = without_tile(Path(tiles[0]).stem)[0]
    path = next(p for n in itertools.count() if not (p := folder / f"{stem}{f'_{n}' if n else ''}.vrt").exists())
    text, own = virtual.mosaic(tiles, lambda first: _tags(first, label), lent, reach, nodata)
    path.write_text(text, "utf-8")
    return str(path), own


def _check_listed(layer: RasterFiles, tiles: Sequence[str]) -> None:
    """Raises InputError if the delivery's list that comes first names tiles that are none of a layer's."""
    if len(tiles) < len(layer):
        there = {os.path.basename(t).lower() for t in tiles}
        if missing := [n for n in _listed(layer[0]) if os.path.basename(n).lower() not in there]:
            raise InputError(f"{layer[0]} lists tiles that are not there, {missing[0]} for one")


def lacking(layers: Sequence[RasterFiles]) -> str:
    """Which file of a scene is missing, or not among the tiles of its list; empty if none is, as far as this machine
    can tell."""
    for path in (path for layer in layers for path in layer):
        if why := absence(plain_name(path)):
            return f"cannot open {path}: {why}"
    try:
        for layer in layers:
            _check_listed(layer, tiles_of(layer))
    except InputError as error:
        return str(error)
    return ""


def tiles_of(layer: RasterFiles) -> list[str]:
    """The rasters of a layer, without the list of them that may come first; of a .TIL that stands alone, its tiles."""
    if len(layer) == 1 and layer[0].lower().endswith(".til"):
        return [os.path.join(os.path.dirname(layer[0]), name) for name in _listed(layer[0])] or list(layer)
    return list(layer[1:] if len(layer) > 1 and layer[0].lower().endswith(CONTAINERS) else layer)


def _listed(label: str) -> list[str]:
    """The tiles that the text of a list names."""
    text = untrusted.read_text(label, errors="replace")
    return re.findall(r'"([^"]+\.(?:tiff?|jp2|ntf))"', text, re.IGNORECASE)


def _tags(tile, label: str) -> dict[str, dict[str, str]]:
    """Tags by domain: of a tile, and those that GDAL finds beside the delivery's list of tiles."""
    domains = {domain: tags_of(tile, ns=domain or None) for domain in ("", "IMAGERY", "IMD")}
    if label.lower().endswith(CONTAINERS):
        with suppress(InputError), open_raster(label) as listed:
            for domain in ("IMAGERY", "IMD"):
                domains[domain] = tags_of(listed, ns=domain) | domains[domain]
    return {domain: tags for domain, tags in domains.items() if tags}
