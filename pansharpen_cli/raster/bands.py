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
    "red_edge2": ("red edge 2", "rededge2", "red edge2", "re2"),
    "red_edge3": ("red edge 3", "rededge3", "red edge3", "re3"),
    "nir_narrow": ("nir narrow", "narrow nir", "nir08", "nir a"),
    "nir": ("nir", "nir1", "nir 1", "near infrared", "near ir", "n", "n1", "band n", "band n1", "near infrared 1"),
    "nir2": ("nir2", "nir 2", "n2", "band n2", "near infrared 2"),
    "swir1": ("swir1", "swir 1", "swir"),
    "swir2": ("swir2", "swir 2"),
    **{f"swir{i}": (f"swir{i}", f"swir {i}") for i in range(3, 9)},
    "thermal": ("thermal", "thermal infrared", "tir", "tirs1", "lwir", "lwir11"),
    "thermal2": ("thermal2", "thermal 2", "tirs2", "lwir12"),
}
_BY_NAME = {alias: name for name, aliases in _BAND_NAMES.items() for alias in aliases}

WAVELENGTHS: dict[str, float] = {
    "coastal": 0.43, "blue": 0.48, "green": 0.55, "yellow": 0.605, "red": 0.66, "red_edge": 0.725,
    "red_edge2": 0.74, "red_edge3": 0.783, "nir": 0.835, "nir_narrow": 0.865, "nir2": 0.95, "swir1": 1.61,
    "swir2": 2.2, "swir3": 1.66, "swir4": 1.73, "swir5": 2.165, "swir6": 2.205, "swir7": 2.26, "swir8": 2.33,
    "thermal": 10.9, "thermal2": 12.0,
}  # fmt: skip
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
