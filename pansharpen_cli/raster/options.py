"""How a pair is opened: the options of `Scene.open` that a user chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from ..errors import InputError
from .geometry import Box, Window


class Scaling(NamedTuple):
    """How DN are written: times `factor`, plus `offset`."""

    factor: float = 1.0
    offset: float = 0.0

    @property
    def changes(self) -> bool:
        return self != (1.0, 0.0)

    def written(self, values: np.ndarray) -> np.ndarray:
        """DN as they are written; the same array where nothing changes."""
        return values * np.float64(self.factor) + self.offset if self.changes else values

    def read(self, values: np.ndarray) -> np.ndarray:
        """What was written as DN again, float32; the same array where nothing changes."""
        if not self.changes:
            return values
        return ((values.astype(np.float64) - self.offset) / self.factor).astype(np.float32)


@dataclass(frozen=True)
class OpenOptions:
    """How a user wants a pair opened; the defaults take all that the files say.

    `bidx`: bands to write, by 1-based number over all MS files in order or by name. `fit_bands`: "bidx" leaves the
    others out of the scene altogether. `nodata`: replaces the files' own nodata values. `window`: rows and columns of
    the PAN file. `bbox`: left, bottom, right, top in the PAN's CRS. `scale`: how DN are written as `dtype`.
    `pan_from`: bands whose mean is the PAN, by number over the files on the PAN's grid or by name, by default all.
    `own`: the PAN's pixels that are the scene's; those around it are of neighbours, and are read beside them only.
    `height` in metres, or a raster `dem` of heights, by default the height that the PAN's RPCs are made for: where
    these alone locate the pair. `measured`: nothing is written, so that no output has to hold `nodata`.
    """

    sensor: str = "auto"
    bidx: Sequence[int | str] | None = None
    fit_bands: Literal["all", "bidx"] = "all"
    nodata: float | None = None
    extent: Literal["intersection", "pan"] = "intersection"
    window: Window | None = None
    bbox: Box | None = None
    dtype: str | None = None
    scale: Scaling = Scaling()
    pan_from: Sequence[int | str] | None = None
    height: float | None = None
    dem: str | None = None
    own: Window | None = None
    measured: bool | None = None

    def __post_init__(self) -> None:
        if self.height is not None and self.dem is not None:
            raise InputError("--height and --dem exclude each other")
