"""How a pair is opened: the options of `Scene.open` that a user chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .geometry import Window


@dataclass(frozen=True)
class OpenOptions:
    """Arguments of `Scene.open`, and what they mean there; the defaults take all that the files say."""

    sensor: str = "auto"
    bidx: Sequence[int | str] | None = None
    fit_bands: Literal["all", "bidx"] = "all"
    nodata: float | None = None
    extent: Literal["intersection", "pan"] = "intersection"
    window: Window | None = None
    bbox: tuple[float, float, float, float] | None = None
    dtype: str | None = None
    pan_from: Sequence[int | str] | None = None
    height: float | None = None
    dem: str | None = None
