"""How far fused values go beyond those of PAN and MS: the two may not belong together."""

from __future__ import annotations

import numpy as np

from ..raster.scene import Scene, TileData

FAR_BEYOND, LEAST_REACH = 10.0, 1e-5
"""A fused value is suspicious beyond 10 times the largest MS or level-matched PAN value of its band; bands below
0.00001 of the brightest, as dead ones are, are measured against that."""


class Overshoot:
    """The largest values, without their signs, of the bands that are written: in the MS and fused."""

    def __init__(self, scene: Scene) -> None:
        shown = scene.as_written()
        self.names = [name or f"band {i}" for i, name in enumerate(shown.band_names, 1)]
        self.of_ms, self.of_fused, self.of_pan = np.zeros(shown.bands), np.zeros(shown.bands), 0.0
        self._powers, self._pan_power = np.zeros(shown.bands), 0.0

    def look(self, data: TileData, chosen: slice | list[int]) -> None:
        """Take in what is read for a tile; `chosen`: the bands that are written."""
        ms, pan = data.ms[chosen], data.pan[None]
        self.of_ms = np.maximum(self.of_ms, _largest(ms))
        self.of_pan = max(self.of_pan, float(_largest(pan)[0]))
        self._powers += np.square(ms, dtype=np.float64).mean((1, 2))
        self._pan_power += float(np.square(pan, dtype=np.float64).mean())

    def add(self, fused: np.ndarray, valid: np.ndarray) -> None:
        """Take in a window: `fused` (bands, rows, cols), `valid` (rows, cols)."""
        self.of_fused = np.maximum(self.of_fused, _largest(fused if valid.all() else fused[:, valid]))

    def warnings(self) -> list[str]:
        """A line where a band goes far beyond the MS."""
        # of a glint or a hot pixel of the PAN
        bright = self.of_pan * np.sqrt(self._powers / self._pan_power) if self._pan_power else 0.0
        far = self.of_fused > FAR_BEYOND * np.maximum(np.maximum(self.of_ms, bright), LEAST_REACH * self.of_ms.max())
        if not far.any():
            return []
        worst = int(np.argmax(np.where(far, self.of_fused, 0)))
        return [
            f"fused values of {self.names[worst]} go up to {self.of_fused[worst]:.4g}, and those of the MS up to "
            f"{self.of_ms[worst]:.4g}: PAN and MS do not belong together, or the method does not suit them; "
            "do not use the result before another --method or a look at it"
        ]


def _largest(values: np.ndarray) -> np.ndarray:
    """The largest magnitude of each band."""
    flat = values.reshape(len(values), -1)
    return np.maximum(flat.max(1, initial=0), -flat.min(1, initial=0)).astype(np.float64)
