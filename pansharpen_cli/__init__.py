"""Fuse a panchromatic and a multispectral GeoTIFF into one sharp multispectral GeoTIFF."""

__version__ = "0.1.0"
