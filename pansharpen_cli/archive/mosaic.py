"""Tiles of one raster as one virtual raster, and its reading."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import reduce
from operator import or_
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from .. import untrusted
from ..errors import InputError
from ..publish import told_beside
from ..raster.geometry import Window
from ..raster.grid import Grid
from ..raster.sensors import without_tile
from ..raster.source import open_raster
from .names import CONTAINERS, RasterFiles


def read_with(files: Sequence[str]) -> list[str]:
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
    return [*known, *(side for path in known for side in told_beside(path) if side not in known)]


_VRT_TYPES = {
    "uint8": "Byte", "int8": "Int8", "uint16": "UInt16", "int16": "Int16", "uint32": "UInt32", "int32": "Int32",
    "float32": "Float32", "float64": "Float64",
}  # fmt: skip


def raster_of(layer: RasterFiles, folder: Path) -> str:
    """The path that opens a layer; of tiles it is a VRT made in `folder`, with what is told beside them.

    GDAL's own reader of .TIL takes the place from another file than the tiles: it is left to lists that stand alone.
    Raises InputError for tiles that are not parts of one grid, and if one of the delivery's list is missing.
    """
    if len(layer) == 1:
        return layer[0]
    return surrounded(layer, (), folder)[0]


def surrounded(layer: RasterFiles, lent: Sequence[str], folder: Path, reach: int = 0) -> tuple[str, Window]:
    """The path of a VRT of a layer and of up to `reach` pixels around it that `lent` tiles hold, and the layer's own
    pixels in it. Raises InputError as `raster_of`."""
    tiles, label = tiles_of(layer), layer[0]
    if len(tiles) < len(layer):
        listed = re.findall(
            r'"([^"]+\.(?:tiff?|jp2|ntf))"', untrusted.read_text(label, errors="replace"), re.IGNORECASE
        )
        there = {os.path.basename(t).lower() for t in tiles}
        if missing := [n for n in listed if os.path.basename(n).lower() not in there]:
            raise InputError(f"{label} lists tiles that are not there, {missing[0]} for one")
    stem = without_tile(Path(tiles[0]).stem)[0]
    path = next(p for n in itertools.count() if not (p := folder / f"{stem}{f'_{n}' if n else ''}.vrt").exists())
    text, own = _mosaic(tiles, label, lent, reach)
    path.write_text(text, "utf-8")
    return str(path), own


def tiles_of(layer: RasterFiles) -> list[str]:
    """The rasters of a layer, without the list of them that may come first."""
    return list(layer[1:] if len(layer) > 1 and layer[0].lower().endswith(CONTAINERS) else layer)


def _mosaic(tiles: Sequence[str], label: str, lent: Sequence[str], reach: int) -> tuple[str, Window]:
    """A VRT of tiles, with tags of the first one and of the list `label`, and the window of them all in it. Lent tiles
    lie beneath the others, `reach` pixels around them."""
    with ExitStack() as stack:
        first = stack.enter_context(open_raster(tiles[0]))
        places = [(path, _place(path, stack, first)) for path in (*lent, *tiles)]
        own = reduce(or_, (at for _, at in places[len(lent) :]))
        whole = own.widened(reach) & reduce(or_, (at for _, at in places))
        places = [(path, at) for path, at in places if not (at & whole).is_empty]
        lines = [f'<VRTDataset rasterXSize="{whole.shape[1]}" rasterYSize="{whole.shape[0]}">']
        if first.crs:
            lines.append(f"<SRS>{escape(first.crs.to_wkt())}</SRS>")
        transform = Grid.of(first).window(whole).transform
        lines.append(f"<GeoTransform>{', '.join(repr(v) for v in transform.to_gdal())}</GeoTransform>")
        for domain, tags in _tags(first, label).items():
            lines.append(f'<Metadata domain="{domain}">')
            lines += [f"<MDI key={quoteattr(k)}>{escape(v)}</MDI>" for k, v in tags.items()]
            lines.append("</Metadata>")
        for band in first.indexes:
            kind = _VRT_TYPES.get(first.dtypes[band - 1])
            if kind is None:
                raise InputError(f"{tiles[0]} holds {first.dtypes[band - 1]} values, which are not fused")
            lines.append(f'<VRTRasterBand dataType="{kind}" band="{band}">')
            if name := first.descriptions[band - 1]:
                lines.append(f"<Description>{escape(name)}</Description>")
            if first.nodata is not None:
                lines.append(f"<NoDataValue>{first.nodata!r}</NoDataValue>")
            lines += [*_sources(places, whole, str(band)), "</VRTRasterBand>"]
        if first.nodata is None and not _cover([at for _, at in places], whole):
            lines += ['<MaskBand><VRTRasterBand dataType="Byte">', *_sources(places, whole, "mask,1")]
            lines.append("</VRTRasterBand></MaskBand>")
    return "\n".join([*lines, "</VRTDataset>"]), own.seen_from(whole)


def _place(path: str, stack: ExitStack, first) -> Window:
    """Where a tile lies on the grid of the first one. Raises InputError for one of another grid or of other bands."""
    tile = stack.enter_context(open_raster(path))
    place = Grid.of(first).place_of(Grid.of(tile))
    if place is None:
        raise InputError(f"{path} is no tile of the same grid as {first.name}")
    if tile.count != first.count or tile.dtypes != first.dtypes:
        raise InputError(f"{path} has other bands than {first.name}: they are not tiles of one raster")
    return place


def _sources(places: Sequence[tuple[str, Window]], whole: Window, band: str) -> Iterator[str]:
    """What a band of a VRT is made of, the uppermost last."""
    for path, place in places:
        part = place & whole
        sides = f'xSize="{part.shape[1]}" ySize="{part.shape[0]}"'
        (row, col), (top, left) = part.seen_from(place).corner, part.seen_from(whole).corner
        yield (
            f'<SimpleSource><SourceFilename relativeToVRT="0">{escape(os.path.abspath(path))}</SourceFilename>'
            f'<SourceBand>{band}</SourceBand><SrcRect xOff="{col}" yOff="{row}" {sides}/>'
            f'<DstRect xOff="{left}" yOff="{top}" {sides}/></SimpleSource>'
        )


def _cover(places: Sequence[Window], whole: Window) -> bool:
    """Whether windows leave no pixel of another one out."""
    rows, cols = (np.unique([*ends, *np.ravel([at.spans[i] for at in places])]) for i, ends in enumerate(whole.spans))
    seen = np.zeros((len(rows), len(cols)), bool)
    for at in places:
        (top, bottom), (left, right) = np.searchsorted(rows, at.rows), np.searchsorted(cols, at.cols)
        seen[top:bottom, left:right] = True
    (top, bottom), (left, right) = np.searchsorted(rows, whole.rows), np.searchsorted(cols, whole.cols)
    return bool(seen[top:bottom, left:right].all())


def _tags(tile, label: str) -> dict[str, dict[str, str]]:
    """Tags by domain: of a tile, and those that GDAL finds beside the delivery's list of tiles."""
    domains = {domain: tile.tags(ns=domain) if domain else tile.tags() for domain in ("", "IMAGERY", "IMD")}
    if label.lower().endswith(CONTAINERS):
        with suppress(InputError), open_raster(label) as listed:
            for domain in ("IMAGERY", "IMD"):
                domains[domain] = listed.tags(ns=domain) | domains[domain]
    return {domain: tags for domain, tags in domains.items() if tags}
