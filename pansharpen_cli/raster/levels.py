"""Levels far above the spread of the values: products in float32 lose digits of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

LOST = 2.5
"""Steps of single precision that a fused value is off by, measured with networks on a level of 2^24."""

FAR, HALF = 0.01, 0.5
"""Share of the range of nearly all values, of four standard deviations, and of whole numbers DN, too, beyond which that
is told."""

SIDE = 64
"""Rows and columns of a window of which values are taken."""


@dataclass
class _Band:
    """Sums of a band's values, less the first one."""

    first: float
    count: int = 0
    sum: float = 0.0
    squares: float = 0.0

    def add(self, values: np.ndarray) -> None:
        above = values.astype(np.float64) - self.first
        self.count += above.size
        self.sum += float(above.sum())
        self.squares += float(above @ above)

    def lost(self, whole: bool) -> float | None:
        """By how much float32 moves the values; None if that is little beside their spread, or they have none."""
        mean = self.sum / self.count
        spread = 4 * max(0.0, self.squares / self.count - mean**2) ** 0.5
        lost = LOST * float(np.spacing(np.float32(abs(self.first + mean))))
        return lost if FAR * spread < lost and spread > 0 and not (whole and lost <= HALF) else None


@dataclass
class Levels:
    """Means and spreads of the bands of a file, of some values of each window that is read."""

    bands: dict[int, _Band] = field(default_factory=dict)
    told: dict[int, str] = field(default_factory=dict)

    def look(self, label: str, bands: list[int], values: np.ndarray, mask: np.ndarray, notes: list[str]) -> None:
        """Take in a window's values (bands, rows, cols) where `mask` is true. A band whose level is far above its
        spread has a line in `notes`, which goes again once more of it spreads wider."""
        whole = values.dtype.kind in "iu"
        if whole and values.dtype.itemsize < 4:
            return
        thin = tuple(slice(None, None, -(-side // SIDE)) for side in mask.shape)
        some = mask[thin]
        for band, each in zip(bands, values[:, *thin], strict=True):
            held = each[some]
            if not held.size:
                continue
            known = self.bands.setdefault(band, _Band(float(held[0])))
            known.add(held)
            lost = known.lost(whole)
            if lost is None:
                if (line := self.told.pop(band, "")) in notes:
                    notes.remove(line)
            elif not any(line in notes for line in self.told.values()):
                self.told[band] = (
                    f"{label}: the values of band {band} lie far above their spread (around {known.first:.8g}): "
                    f"float32, in which all is computed, moves them by about {lost:.1g}; subtract an offset (gdal_calc)"
                )
                notes.append(self.told[band])
