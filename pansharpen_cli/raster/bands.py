"""The standard names of spectral bands."""

from __future__ import annotations

import re

_BAND_NAMES: dict[str, tuple[str, ...]] = {
    "coastal": ("coastal", "coastal blue", "coastal aerosol", "ultra blue", "c", "band c", "deep blue"),
    "blue": ("blue", "b", "band b"),
    "green": ("green", "g", "band g"),
    "yellow": ("yellow", "y", "band y"),
    "red": ("red", "r", "band r"),
    "red_edge": ("red edge", "rededge", "re", "band re"),
    "nir": ("nir", "nir1", "nir 1", "near infrared", "near ir", "n", "n1", "band n", "band n1", "near infrared 1"),
    "nir2": ("nir2", "nir 2", "n2", "band n2", "near infrared 2"),
    "swir1": ("swir1", "swir 1", "swir"),
    "swir2": ("swir2", "swir 2"),
    "thermal": ("thermal", "thermal infrared", "tir", "tirs1", "lwir", "lwir11"),
    "thermal2": ("thermal2", "thermal 2", "tirs2", "lwir12"),
}
_BY_NAME = {alias: name for name, aliases in _BAND_NAMES.items() for alias in aliases}

WAVELENGTHS: dict[str, float] = {
    "coastal": 0.43,
    "blue": 0.48,
    "green": 0.55,
    "yellow": 0.605,
    "red": 0.66,
    "red_edge": 0.725,
    "nir": 0.835,
    "nir2": 0.95,
    "swir1": 1.61,
    "swir2": 2.2,
}
"""Nominal band centres in micrometres."""


def band_name(description: str | None) -> str | None:
    """The standard name of a band description such as 'Band 3 - Red' or 'NIR1'; None if it names no spectral band."""
    if not description:
        return None
    words = re.sub(r"[^a-z0-9]+", " ", description.lower()).strip()
    if words in _BY_NAME:
        return _BY_NAME[words]
    tail = re.sub(r"^(band|b)? ?\d+ ", "", words)
    return _BY_NAME.get(tail)
