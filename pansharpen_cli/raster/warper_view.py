"""A view of a raster for GDAL's warper, which knows one mask or one nodata value: all that makes pixels invalid is one
mask in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from html import escape
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.enums import MaskFlags

from .source import Source, is_untold
from .values import VRT_TYPES, fits


def seen_by_the_warper(source: Source, bands: Sequence[int], transform: Affine, stack: ExitStack) -> Any:
    """A dataset of some bands of a source's file at another place, masked where `Source.read` of them finds a pixel
    invalid. `stack` closes it. GDAL finds the invalid pixels as it reads: nothing is read here."""
    dataset, name = source.dataset, _name_of(source.dataset, stack)
    told = "".join(_told(source, bands, name))
    for mask in source.masks:
        told += "".join(_told(mask, [], _name_of(mask.dataset, stack)))
    masks = [(name, band) for band in _masks(source, bands)]
    if told:
        one = stack.enter_context(rasterio.MemoryFile(_raster(dataset, told).encode(), ext=".vrt"))
        masks += [(one.name, i + 1) for i in range(told.count("</VRTRasterBand>"))]
    seen = [_band(dataset.dtypes[b - 1], [(name, str(b))]) for b in bands]
    if masks:
        factors = masks * 2 if len(masks) == 1 else masks  # a product has two at least
        seen.append(f"<MaskBand>{_band('uint8', [(of, f'mask,{b}') for of, b in factors], 'mul')}</MaskBand>")
    place = f"<GeoTransform>{', '.join(map(repr, transform.to_gdal()))}</GeoTransform>"
    return stack.enter_context(rasterio.open(_raster(dataset, place + "".join(seen))))


def _name_of(dataset: Any, stack: ExitStack) -> str:
    """What a VRT may call a raster."""
    name = dataset.name
    if name.startswith("<"):  # a VRT by its text, which may be long
        return stack.enter_context(rasterio.MemoryFile(name.encode(), ext=".vrt")).name
    on_server = "://" in name and not name.lower().startswith("vrt://")
    return dataset.files[0] if on_server else name  # as GDAL calls it


def _told(source: Source, bands: Sequence[int], name: str) -> Iterator[str]:
    """Bands of a VRT whose nodata values mark what values of a source tell."""
    dataset = source.dataset
    for band in bands:
        kind = np.dtype(dataset.dtypes[band - 1])
        nodata = dataset.nodatavals[band - 1] if source.nodata is None else source.nodata
        if nodata is not None and fits(kind, nodata):
            # of 64 bits GDAL reads 9.2e18 as 9
            yield _band(kind.name, [(name, str(band))], nodata=nodata if kind.kind == "f" else int(nodata))
        if kind.kind == "f":  # the difference of a value and itself is NaN if the value is not finite
            yield _band(kind.name, [(name, str(band))] * 2, "diff", float("nan"))
    for band in source.alpha:
        yield _band(dataset.dtypes[band - 1], [(name, str(band))], nodata=0)


def _masks(source: Source, bands: Sequence[int]) -> list[int]:
    """The bands whose own masks count, beside the nodata values of each."""
    flags = [set(each) for each in source.dataset.mask_flag_enums]
    by_values = {MaskFlags.nodata, MaskFlags.alpha, MaskFlags.all_valid}
    values = source.dataset.nodatavals if source.nodata is None else [source.nodata] * source.dataset.count
    own = [b for b in bands if not by_values & flags[b - 1] or is_untold(flags[b - 1], values[b - 1])]
    tuples = {MaskFlags.per_dataset, MaskFlags.nodata}  # NODATA_VALUES
    return own + [band for band in bands[:1] if source.nodata is None and tuples <= flags[band - 1]]


def _raster(dataset: Any, content: str) -> str:
    return f'<VRTDataset rasterXSize="{dataset.width}" rasterYSize="{dataset.height}">{content}</VRTDataset>'


def _band(kind: str, sources: Sequence[tuple[str, str]], function: str = "", nodata: float | None = None) -> str:
    """A band of a VRT of bands of others, which a pixel function of GDAL's combines."""
    derived = ' subClass="VRTDerivedRasterBand"' if function else ""
    made = f"<PixelFunctionType>{function}</PixelFunctionType>" if function else ""
    made += "" if nodata is None else f"<NoDataValue>{nodata!r}</NoDataValue>"
    for name, band in sources:
        made += (
            f'<SimpleSource><SourceFilename relativeToVRT="0">{escape(name, quote=False)}</SourceFilename>'
            f"<SourceBand>{band}</SourceBand></SimpleSource>"
        )
    return f'<VRTRasterBand dataType="{VRT_TYPES[kind]}"{derived}>{made}</VRTRasterBand>'
