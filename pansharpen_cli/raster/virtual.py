"""Several files of one grid as one virtual raster (VRT), as valid and as scaled as they are."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from rasterio.enums import MaskFlags

from ..errors import InputError
from .band_kinds import data_bands
from .geometry import Window
from .grid import Grid
from .references import plain_name
from .sensors import band_name
from .source import is_untold, open_raster, rpcs_of
from .values import VRT_TYPES

TagsOf = Callable[[Any], Mapping[str, Mapping[str, str]]]
"""The tags of a mosaic by domain, of its first tile as it is opened."""


def mosaic(
    tiles: Sequence[str], tags_of: TagsOf, lent: Sequence[str] = (), reach: int = 0, nodata: float | None = None
) -> tuple[str, Window]:
    """The text of a VRT of tiles, and the window of them all in it. Lent tiles lie around the others, up to `reach`
    pixels. What is not valid in a tile hides nothing beneath it; `nodata` stands for the files' own values.

    Raises InputError for tiles that are not parts of one raster.
    """
    with ExitStack() as stack:
        first = stack.enter_context(open_raster(tiles[0]))
        _, alpha = data_bands(first, tiles[0], [])
        every = [_Tile.of(path, first, alpha, nodata, stack) for path in (*lent, *tiles)]
        mine = every[len(lent) :]
        own = reduce(or_, (tile.place for tile in mine))
        whole = own.widened(reach) & reduce(or_, (tile.place for tile in every))
        parts = [(tile, tile.place & side) for tile in every[: len(lent)] for side in _around(own, whole)]
        parts = [part for part in parts if not part[1].is_empty] + [(tile, tile.place) for tile in mine]
        told_nodata = mine[0].nodata if len({tile.nodata for tile in mine}) == 1 else ("None",) * first.count
        lines = [f'<VRTDataset rasterXSize="{whole.shape[1]}" rasterYSize="{whole.shape[0]}">']
        if first.crs:
            lines.append(f"<SRS>{escape(first.crs.to_wkt())}</SRS>")
        transform = Grid.of(first).window(whole).transform
        lines.append(f"<GeoTransform>{', '.join(repr(v) for v in transform.to_gdal())}</GeoTransform>")
        domains = dict(tags_of(first))
        if (rpcs := rpcs_of(first)) is not None:
            row, col = mine[0].place.seen_from(whole).corner
            rpcs.line_off, rpcs.samp_off = rpcs.line_off + row, rpcs.samp_off + col
            domains["RPC"] = rpcs.to_gdal()
        for domain, tags in domains.items():
            lines.append(f'<Metadata domain="{domain}">')
            lines += [f"<MDI key={quoteattr(k)}>{escape(v)}</MDI>" for k, v in tags.items()]
            lines.append("</Metadata>")
        for band in first.indexes:
            kind = VRT_TYPES.get(first.dtypes[band - 1])
            if kind is None:
                raise InputError(f"{tiles[0]} holds {first.dtypes[band - 1]} values, which are not fused")
            lines.append(f'<VRTRasterBand dataType="{kind}" band="{band}">')
            scale, offset, value = (each[band - 1] for each in (first.scales, first.offsets, told_nodata))
            colour = first.colorinterp[band - 1].name.capitalize()
            told = {
                "Description": first.descriptions[band - 1], "UnitType": first.units[band - 1],
                "ColorInterp": "Alpha" if band in alpha else colour.replace("Alpha", "Undefined"),
                "NoDataValue": value if value != "None" else None,
                "Scale": scale if scale != 1 else None, "Offset": offset if offset != 0 else None,
            }  # fmt: skip
            lines += [f"<{name}>{escape(str(each))}</{name}>" for name, each in told.items() if each is not None]
            lines += [*_sources(parts, whole, str(band)), "</VRTRasterBand>"]
        untold = "None" in told_nodata and (
            len({tile.nodata for tile, _ in parts}) > 1 or not _cover([part for _, part in parts], whole)
        )
        if not alpha and (untold or any(tile.masked for tile, _ in parts)):
            lines += ['<MaskBand><VRTRasterBand dataType="Byte">', *_sources(parts, whole, "mask,1")]
            lines.append("</VRTRasterBand></MaskBand>")
    return "\n".join([*lines, "</VRTDataset>"]), own.seen_from(whole)


@dataclass(frozen=True)
class _Tile:
    """A tile, its `place` on the grid of the first one, the `nodata` values of its bands as text, whether it has a mask
    of its own, and what tells the `only` pixels of it that are seen."""

    path: str
    place: Window
    nodata: tuple[str, ...]
    masked: bool
    only: str

    @classmethod
    def of(cls, path: str, first, alpha: Sequence[int], nodata: float | None, stack: ExitStack) -> _Tile:
        """Raises InputError for one of another grid, of other bands or of another scale than the first."""
        tile = stack.enter_context(open_raster(path))
        place = Grid.of(first).place_of(Grid.of(tile))
        if place is None:
            raise InputError(f"{path} is no tile of the same grid as {first.name}")
        if tile.dtypes != first.dtypes or data_bands(tile, path, [])[1] != alpha:
            raise InputError(f"{path} has other bands than {first.name}: they are not tiles of one raster")
        called = [[band_name(name) for name in each.descriptions] for each in (tile, first)]
        if any(own and other and own != other for own, other in zip(*called, strict=True)):
            raise InputError(
                f"the bands of {path} are {', '.join(map(str, called[0]))}, those of {first.name} "
                f"{', '.join(map(str, called[1]))}: they are not tiles of one raster"
            )
        if (tile.scales, tile.offsets) != (first.scales, first.offsets):
            raise InputError(f"{path} holds values of another scale than {first.name}: give both one scale first")
        flags = {flag for each in tile.mask_flag_enums for flag in each}
        masked = MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags
        only = "" if flags == {MaskFlags.all_valid} else "<UseMaskBand>true</UseMaskBand>"
        if nodata is None:
            masked |= any(map(is_untold, tile.mask_flag_enums, tile.nodatavals))
            return cls(path, place, tuple(map(str, tile.nodatavals)), masked, only)
        if flags <= {MaskFlags.all_valid, MaskFlags.nodata}:
            only = f"<NODATA>{nodata}</NODATA>"
        return cls(path, place, (str(nodata),) * tile.count, masked, only)


def _around(own: Window, whole: Window) -> Iterator[Window]:
    """What a window has around one within it."""
    yield Window.of((whole.top, own.top), whole.cols)
    yield Window.of((own.bottom, whole.bottom), whole.cols)
    yield Window.of(own.rows, (whole.left, own.left))
    yield Window.of(own.rows, (own.right, whole.right))


def _sources(parts: Sequence[tuple[_Tile, Window]], whole: Window, band: str) -> Iterator[str]:
    """What a band of a VRT is made of, the uppermost last."""
    for tile, part in parts:
        only = "<NODATA>0</NODATA>" if band.startswith("mask") else tile.only
        kind = "ComplexSource" if only else "SimpleSource"
        sides = f'xSize="{part.shape[1]}" ySize="{part.shape[0]}"'
        (row, col), (top, left) = part.seen_from(tile.place).corner, part.seen_from(whole).corner
        name = escape(os.path.abspath(plain_name(tile.path)))
        yield (
            f'<{kind}><SourceFilename relativeToVRT="0">{name}</SourceFilename>'
            f'<SourceBand>{band}</SourceBand><SrcRect xOff="{col}" yOff="{row}" {sides}/>'
            f'<DstRect xOff="{left}" yOff="{top}" {sides}/>{only}</{kind}>'
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
