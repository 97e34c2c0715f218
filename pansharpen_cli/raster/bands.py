"""The standard names of spectral bands, and their spellings: bands.toml."""

from __future__ import annotations

import re

from .. import tables

_TABLE = tables.read(__file__)
_BY_NAME = {alias: name for name, band in _TABLE.items() for alias in band["names"]}

WAVELENGTHS: dict[str, float] = {name: band["micrometres"] for name, band in _TABLE.items()}
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
