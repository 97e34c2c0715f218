"""Stretch: how the values of three bands become the 8 bits of a picture; kept in a file, neighbours look alike."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import untrusted
from ..errors import InputError
from .geometry import Window
from .source import Reader
from .tiles import plan_tiles

SCHEMA = "pansharpen-stretch/1"

PERCENTILES = (0.5, 98.0)
"""Percentiles of a band's values: what is shown as black, and where the shoulder begins to hold what is bright."""

GAMMA, SHOULDER = 0.75, 0.8
"""The curve is t^gamma, which lifts shadows; from SHOULDER on, t nears 1 and never reaches it: no roof is cut off."""

MIDDLE, GAMMAS = 0.4, (0.5, 0.9)
"""Brightness, from 0 to 1, that gamma brings the median of the values to, within bounds: a scene of few bright roofs is
dark without, and a sea is not to be grey."""

SIDE, BLOCKS, SAMPLES = 512, 64, 1 << 20
"""Side and number of the blocks that percentiles are taken of, spread over the scene, and of about how many pixels."""


def curve(part: np.ndarray, gamma: float = GAMMA) -> np.ndarray:
    """Values as parts of their range, 0 to 1 and beyond, as brightness from 0 to 1."""
    part = np.maximum(part, 0)
    shoulder = 1 - (1 - SHOULDER) * np.exp(-np.maximum(part - SHOULDER, 0) / (1 - SHOULDER))
    return np.where(part < SHOULDER, part, shoulder) ** gamma


def gamma_of(medians: Sequence[float]) -> float:
    """The gamma for bands whose medians are these parts of their ranges."""
    part = min(max(float(np.mean(medians)), 1e-6), 0.99)
    return min(max(float(np.log(MIDDLE) / np.log(part)), GAMMAS[0]), GAMMAS[1])


@dataclass(frozen=True)
class Stretch:
    """DN of each band, by name, that are shown as black (`low`) and nearly white (`high`), and the curve between."""

    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    gamma: float = GAMMA

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """(bands, rows, cols) in DN as 1 to 255, float32; 0 is left to what is not valid."""
        low, high = (np.array(v, np.float32)[:, None, None] for v in (self.low, self.high))
        return 1 + 254 * curve((values.astype(np.float32) - low) / (high - low), self.gamma)

    @classmethod
    def measured(cls, read: Reader, window: Window, names: Sequence[str]) -> Stretch:
        """Between percentiles of the valid values of the bands that `read` gives, whatever the size of the scene.
        Raises InputError if no pixel is valid."""
        return cls.of_samples(list(samples(read, window, SAMPLES)), names)

    @classmethod
    def of_samples(cls, values: Sequence[np.ndarray], names: Sequence[str]) -> Stretch:
        """Between percentiles of values (pixels,) of each band, so curved that their medians come to `MIDDLE`."""
        found = [[float(f"{v:.6g}") for v in np.percentile(each, (*PERCENTILES, 50))] for each in values]
        low = [b for b, _, _ in found]
        high = [h if h > b else b + 1e-3 * max(1.0, abs(b)) for b, h, _ in found]  # a constant band
        gamma = gamma_of([(m - b) / (h - b) for (b, _, m), h in zip(found, high, strict=True)])
        return cls(tuple(names), tuple(low), tuple(high), round(gamma, 3))

    @classmethod
    def between(cls, low: float, high: float, names: Sequence[str]) -> Stretch:
        """One range for all bands."""
        return cls(tuple(names), (low,) * len(names), (high,) * len(names))

    @classmethod
    def kept(cls, path: Path, names: Sequence[str]) -> Stretch:
        """That of a file, of the bands of these names. Raises InputError for a file that does not have it."""
        with untrusted.boundary(path, "is no stretch of pansharpen (one is made where no file is)"):
            content = untrusted.parse_json(untrusted.read_text(path, untrusted.MOST_SIDE))
            if not isinstance(content, dict) or content.get("schema") != SCHEMA:
                raise ValueError(f"its schema is not {SCHEMA}")
            bands = {str(name): (float(low), float(high)) for name, (low, high) in content["bands"].items()}
            gamma = float(content.get("gamma", GAMMA))
            if not 0.1 <= gamma <= 10:
                raise ValueError(f"its gamma is {gamma:g}, not one from 0.1 to 10")
            for name, (low, high) in bands.items():
                if not _is_range(low, high):
                    raise ValueError(f"the range of {name} is no range: {low:g} to {high:g}")
        missing = [name for name in names if name not in bands]
        if missing:
            raise InputError(f"{path} has no stretch of {', '.join(missing)}; it has {', '.join(bands)}")
        return cls(tuple(names), tuple(bands[n][0] for n in names), tuple(bands[n][1] for n in names), gamma)

    def ranges(self) -> dict[str, list[float]]:
        """Low and high by name."""
        return {name: [low, high] for name, low, high in zip(self.names, self.low, self.high, strict=True)}

    def to_bytes(self) -> bytes:
        """The content of a file that `kept` reads."""
        return json.dumps({"schema": SCHEMA, "gamma": self.gamma, "bands": self.ranges()}, indent=2).encode() + b"\n"


def samples(read: Reader, window: Window, most: int) -> np.ndarray:
    """About `most` valid values (bands, pixels), of up to `BLOCKS` blocks spread over a window. Raises InputError if no
    pixel is valid."""
    tiles = plan_tiles(window, SIDE)
    strides = -(-len(tiles) // BLOCKS)
    step = max(1, min(len(tiles), BLOCKS) * min(SIDE**2, window.area) // most)
    found: list[np.ndarray] = []
    for tile in (tile for first in range(strides) for tile in tiles[first::strides]):
        values, valid = read(tile.core)
        if valid.any():
            found.append(values[:, valid][:, ::step])
        if len(found) == BLOCKS:
            break
    if not found:
        raise InputError("no pixel is valid: there is nothing to make a picture of")
    return np.concatenate(found, axis=1)


def parse(text: str) -> tuple[float, float] | Path | None:
    """What `--stretch` asks for: a range in DN, a file, or None for `auto`. Raises InputError for anything else."""
    if text.lower() == "auto":
        return None
    if text.lower().endswith(".json"):
        return Path(text)
    try:
        low, high = map(untrusted.number, text.split(","))
        if _is_range(low, high):
            return low, high
    except ValueError:
        pass
    raise InputError(f"--stretch takes auto, LOW,HIGH in DN or a .json file, not '{text}'")


def _is_range(low: float, high: float) -> bool:
    """Do two numbers bound a range that single precision can be divided by?"""
    return -1e30 < low < high < 1e30 and high - low > 1e-30
