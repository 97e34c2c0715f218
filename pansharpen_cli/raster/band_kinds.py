"""Bands of a raster by their kind: those that hold values, and those that mask them."""

from __future__ import annotations

import os

import numpy as np
from rasterio.enums import ColorInterp
from rasterio.windows import Window as RasterWindow

from ..errors import InputError, ReadError, reason_of
from . import sensors
from .messages import GDAL_ERRORS

_CONVERTED = ("CMYK", "CIELAB")
"""Colours of 8 bits that GDAL turns into red, green and blue, and that are no light. (YCbCr of a JPEG is.)"""


def data_bands(ds, path: str, notes: list[str]) -> tuple[list[int], tuple[int, ...]]:
    """Data bands and alpha bands. GDAL calls the fourth of four 8-bit bands alpha by default. A band counts as alpha
    only if no spectral band has its name and it is called so or holds nothing but 'off' and 'on', or these and soft
    edges; of a file that is a mask, all are.

    Raises InputError for bands that hold indices of colours, a negative, or what GDAL makes of inks.
    """
    _check_meaning(ds, path)
    alpha = []
    for band, interpretation in zip(ds.indexes, ds.colorinterp, strict=True):
        if interpretation == ColorInterp.palette:
            check_palette(ds, band, path)
        name = ds.descriptions[band - 1]
        called = (name or "").strip().lower() == "alpha"
        if interpretation != ColorInterp.alpha and not called:
            continue
        if sensors.band_name(name) is not None:
            continue
        if "alpha" in (name or "").lower():
            alpha.append(band)
            continue
        try:
            held = _some_values(ds, band)
        except GDAL_ERRORS as error:
            raise ReadError(f"cannot read {path}: {reason_of(error)}") from error
        opaque = {value: count for value, count in held.items() if value > 0}
        soft = len(held) > 2
        if not soft or (opaque and 2 * opaque[max(opaque)] >= sum(opaque.values())):
            alpha.append(band)
            if soft:
                notes.append(
                    f"{path}: band {band} is tagged alpha and most of it is opaque; it is used as a mask. If it is a "
                    "spectral band, name it, or remove the tag "
                    f"(gdal_edit.py -colorinterp_{band} undefined {os.path.basename(path)})"
                )
        else:
            notes.append(f"{path}: band {band} is tagged alpha but holds image values; it is used as a spectral band")
    return [b for b in ds.indexes if b not in alpha], tuple(alpha)


def _check_meaning(ds, path: str) -> None:
    """Raises InputError for a file whose tag says that it holds a negative, or colours that GDAL turns into others."""
    told, name = ds.tags(ns="IMAGE_STRUCTURE"), os.path.basename(path)
    if told.get("MINISWHITE") == "YES":
        most = np.iinfo(ds.dtypes[0]).max if np.dtype(ds.dtypes[0]).kind in "iu" else 0
        raise InputError(
            f"{path} is a negative by its tag (MINISWHITE), not radiance: invert it first (gdal_calc.py --allBands=A "
            f"-A {name} --outfile=plain.tif --calc={most}-A, or --calc=A if the tag is wrong)"
        )
    if (space := told.get("SOURCE_COLOR_SPACE", "")) in _CONVERTED:
        own = f" (gdal_translate -co PHOTOMETRIC=MINISBLACK GTIFF_RAW:{name} plain.tif)" if ds.driver == "GTiff" else ""
        raise InputError(
            f"{path} is {space} by its tag, and GDAL turns its bands into red, green, blue and alpha: if they hold "
            f"radiance, write them as they are first{own}"
        )


def check_palette(ds, band: int, path: str) -> None:
    """Raises InputError unless a band's colours are the greys of its values, in order: others make it an index."""
    try:
        colours = np.array([colour[:3] for _, colour in sorted(ds.colormap(band).items())], float)
    except ValueError:
        return  # tagged as a palette without one
    grey = bool((np.ptp(colours, axis=1) == 0).all())
    # a nodata value makes its entry transparent, so that alpha tells nothing; a TIFF has black ones for those that miss
    greys = np.trim_zeros(colours[:, 0], "b")
    ramps = (colours[:, 0], np.linspace(0, 255, len(colours))), (greys, np.arange(len(greys)))
    if grey and greys.any() and any(np.abs(each - ramp).max() <= 1 for each, ramp in ramps):
        return
    raise InputError(
        f"{path} holds indices of a colour table in band {band}, not radiance: expand it first "
        f"(gdal_translate -expand {'gray' if grey else 'rgb'} {os.path.basename(path)} expanded.tif)"
    )


def _some_values(ds, band: int) -> dict[float, int]:
    """How often each value of a band occurs in 16 places of a large one."""
    held: dict[float, int] = {}
    for row in range(0, ds.height, max(512, -(-ds.height // 4))):
        for col in range(0, ds.width, max(512, -(-ds.width // 4))):
            part = RasterWindow(col, row, min(512, ds.width - col), min(512, ds.height - row))
            values, counts = np.unique(ds.read(band, window=part), return_counts=True)
            for value, count in zip(values.tolist(), counts.tolist(), strict=True):
                held[value] = held.get(value, 0) + count
            if len(held) > 1 << 16:  # no mask of 16 bits or less
                return held
    return held
