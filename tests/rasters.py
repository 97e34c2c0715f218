"""Rasters for tests."""

from __future__ import annotations

from pathlib import Path

import rasterio


def edited(source: Path, target: Path, change=lambda pixels: pixels, names=(), **profile) -> Path:
    """A copy of a raster with other pixels, band names or profile, tags left behind."""
    with rasterio.open(source) as dataset:
        pixels = change(dataset.read())
        kept = {k: v for k, v in dataset.profile.items() if k in ("driver", "crs", "transform", "nodata")}
    kept |= {"count": pixels.shape[0], "height": pixels.shape[1], "width": pixels.shape[2], "dtype": pixels.dtype}
    with rasterio.open(target, "w", **kept | profile) as dataset:
        dataset.write(pixels)
        for i, name in enumerate(names, 1):
            dataset.set_band_description(i, name)
    return target
