"""Tiles of one raster as one virtual raster, and its reading."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from affine import Affine

from .. import untrusted
from ..errors import InputError
from ..publish import told_beside
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
    tiles, label = list(layer), layer[0]
    if label.lower().endswith(CONTAINERS):
        del tiles[0]
        listed = re.findall(
            r'"([^"]+\.(?:tiff?|jp2|ntf))"', untrusted.read_text(label, errors="replace"), re.IGNORECASE
        )
        there = {os.path.basename(t).lower() for t in tiles}
        if missing := [n for n in listed if os.path.basename(n).lower() not in there]:
            raise InputError(f"{label} lists tiles that are not there, {missing[0]} for one")
    stem = without_tile(Path(tiles[0]).stem)[0]
    path = next(p for n in itertools.count() if not (p := folder / f"{stem}{f'_{n}' if n else ''}.vrt").exists())
    path.write_text(_mosaic(tiles, label), "utf-8")
    return str(path)


def _mosaic(tiles: Sequence[str], label: str) -> str:
    """A VRT of tiles, with tags of the first one and of the list `label`."""
    places = []
    with ExitStack() as stack:
        first = stack.enter_context(open_raster(tiles[0]))
        for path in tiles:
            tile = stack.enter_context(open_raster(path))
            relative = ~first.transform * tile.transform
            col, row = round(relative.c), round(relative.f)
            size = max(tile.width, tile.height)
            turned = max(abs(relative.a - 1), abs(relative.e - 1), abs(relative.b), abs(relative.d)) * size
            other = Grid.of(tile).called_as(Grid.of(first)).crs != first.crs
            if other or max(turned, abs(relative.c - col), abs(relative.f - row)) > 0.01:
                raise InputError(f"{path} is no tile of the same grid as {tiles[0]}")
            if tile.count != first.count or tile.dtypes != first.dtypes:
                raise InputError(f"{path} has other bands than {tiles[0]}: they are not tiles of one raster")
            places.append((os.path.abspath(path), col, row, tile.width, tile.height))
        left, top = min(p[1] for p in places), min(p[2] for p in places)
        width, height = max(p[1] + p[3] for p in places) - left, max(p[2] + p[4] for p in places) - top
        transform = first.transform @ Affine.translation(left, top)
        nodata = first.nodata
        if nodata is None and sum(p[3] * p[4] for p in places) < width * height:
            nodata = 0.0  # what a missing tile leaves
        lines = [f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">']
        if first.crs:
            lines.append(f"<SRS>{escape(first.crs.to_wkt())}</SRS>")
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
            if nodata is not None:
                lines.append(f"<NoDataValue>{nodata!r}</NoDataValue>")
            for path, col, row, w, h in places:
                lines.append(
                    f'<SimpleSource><SourceFilename relativeToVRT="0">{escape(path)}</SourceFilename>'
                    f'<SourceBand>{band}</SourceBand><SrcRect xOff="0" yOff="0" xSize="{w}" ySize="{h}"/>'
                    f'<DstRect xOff="{col - left}" yOff="{row - top}" xSize="{w}" ySize="{h}"/></SimpleSource>'
                )
            lines.append("</VRTRasterBand>")
    return "\n".join([*lines, "</VRTDataset>"])


def _tags(tile, label: str) -> dict[str, dict[str, str]]:
    """Tags by domain: of a tile, and those that GDAL finds beside the delivery's list of tiles."""
    domains = {domain: tile.tags(ns=domain) if domain else tile.tags() for domain in ("", "IMAGERY", "IMD")}
    if label.lower().endswith(CONTAINERS):
        with suppress(InputError), open_raster(label) as listed:
            for domain in ("IMAGERY", "IMD"):
                domains[domain] = listed.tags(ns=domain) | domains[domain]
    return {domain: tags for domain, tags in domains.items() if tags}
