"""What a scene's fit found, kept in a file, so that scenes of one strip or season come out alike.

The file is safetensors: arrays, and a text in JSON in its metadata, with a checksum over both. No code is ever run
from it; torch is not needed to tell whether it is for a scene.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from .. import classical, untrusted
from ..errors import InputError
from ..models import weights
from ..raster.scene import Scene
from ..raster.values import Lift
from .options import Options

SCHEMA = "pansharpen-fit/1"
SUFFIX = ".safetensors"
MOST_BYTES = 64 << 20
"""Largest file of a fit: the largest tailor that is known takes a hundredth of it."""
SAME_RATIO = 0.005
"""Share by which the ratio of a scene may differ from that of the fit: ground sampling distances vary so much."""
SAME_PIXELS = 0.05
"""PAN pixels by which two PANs may lie off each other's lattice and still share a network's."""
MOST_LIFT, MOST_SHIFT = 1100, 100.0
"""The largest exponent of two, and the largest shift in PAN pixels, that a fit may hold."""


@dataclass(frozen=True)
class Known:
    """The kind of scene that a fit is valid for. `bands`: standard names, None where unknown; `weights`: sha256 of a
    network's weights; `dtype`: type of the MS; `pan_dtype`: that of the PAN, where known; `made_of`: names of the files
    that were fitted."""

    method: str
    sensor: str
    bands: tuple[str | None, ...]
    ratio: tuple[float, float]
    dtype: str
    weights: str = ""
    made_of: tuple[str, ...] = ()
    pan_dtype: str = ""

    @classmethod
    def of(cls, scene: Scene, options: Options) -> Known:
        """That of a scene that is fused with these options."""
        network = options.method not in classical.NAMES
        card = weights.find(options.method, scene.bands, options.weights) if network else None
        method, ms = classical.ALIASES.get(options.method, options.method), scene.ms[0]
        return cls(
            method, scene.sensor.name, scene.standard_names, scene.phase.ratio, ms.dataset.dtypes[ms.bands[0] - 1],
            card.sha256 if card is not None else "", tuple(Path(path).name for path in scene.paths),
            scene.pan.dataset.dtypes[scene.pan.bands[0] - 1],
        )  # fmt: skip


@dataclass(frozen=True)
class SavedFit:
    """A fit apart from its scene.

    `origin`: first row and column of the PAN in its pixels, counted from the origin of its CRS: on the lattice that
    begins there a network's features lie. `shift`: rows and columns in PAN pixels by which the MS was moved; `gains`:
    MTF gains that a network fuses with and `offsets` of its single bands, both empty where the sensor's table stands.
    `numbers` and `arrays`: the statistics of the scene, and the tailor of a network or what a classical method has
    found. `lift`: they are of pixels that are so lifted. `digest`: sha256 of the file that was read.
    """

    known: Known
    origin: tuple[float, float] = (0.0, 0.0)
    shift: tuple[float, float] = (0.0, 0.0)
    gains: tuple[float, ...] = ()
    offsets: tuple[tuple[float, float], ...] = ()
    lift: Lift = Lift()
    numbers: Mapping[str, float] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    digest: str = ""

    @property
    def text(self) -> str:
        """All but the arrays, and a checksum over all."""
        told = {
            "schema": SCHEMA, "for": asdict(self.known), "origin": self.origin, "shift": self.shift,
            "gains": self.gains, "offsets": self.offsets, "lift": self.lift.ms, "pan_lift": self.lift.pan,
            "numbers": dict(self.numbers),
        }  # fmt: skip
        return json.dumps(told | {"sha256": checksum(told, self.arrays)})

    @classmethod
    def read(cls, path: str | Path) -> list[SavedFit]:
        """Those of a file, one for each grid of the MS files. Raises InputError for a file that holds no fit, or values
        that no fit has."""
        content = untrusted.read_bytes(path, MOST_BYTES)
        with untrusted.boundary(path, "is no fit of pansharpen (--save-fit makes one)"):
            arrays = load(content)
            size = int.from_bytes(content[:8], "little")
            texts = untrusted.parse_json(content[8 : 8 + size].decode())["__metadata__"]
            digest = hashlib.sha256(content).hexdigest()
            keys = [_key(k) for k in range(len(texts))]
            return [_parsed(texts[key], arrays, key, digest) for key in keys]

    @classmethod
    def read_for(cls, path: str, scene: Scene, options: Options) -> SavedFit:
        """The one of a file that is for this scene and method. Raises InputError, in one line, if none is."""
        fits = cls.read(path)
        bands = Known.of(scene, options).bands
        nearest = min(fits, key=lambda fit: fit.known.bands != bands)
        nearest._check(path, scene, options)
        return nearest

    def _check(self, path: str, scene: Scene, options: Options) -> None:
        mine, other, ms = self.known, Known.of(scene, options), scene.ms[0].label
        same_ratio = all(abs(a / b - 1) <= SAME_RATIO for a, b in zip(mine.ratio, other.ratio, strict=True))
        for alike, what, found in (
            (mine.method == other.method, f"--method {mine.method}", f"it is to be {other.method} here"),
            (mine.weights == other.weights, f"other weights of {mine.method}", "see --weights"),
            (mine.bands == other.bands, _listed(mine.bands), f"{ms} has {_listed(other.bands)}{_unnamed(mine, other)}"),
            (mine.sensor == other.sensor, mine.sensor, f"{ms} is of {other.sensor} (see --sensor)"),
            (same_ratio, f"the ratio {mine.ratio[0]:.4g}", f"that of {ms} is {other.ratio[0]:.4g}"),
            (mine.dtype == other.dtype, f"values of {mine.dtype}", f"{ms} holds {other.dtype}"),
            (
                mine.pan_dtype in ("", other.pan_dtype),
                f"a PAN of {mine.pan_dtype}",
                f"{scene.pan.label} holds {other.pan_dtype}",
            ),
        ):
            if not alike:
                raise InputError(f"{path} is a fit of {what}; {found}")
        if not all(other.bands) and list(scene.numbers) != sorted(set(scene.numbers)):
            raise InputError(
                f"{path} knows its bands by their names, and {ms} does not name all of them: with --fit they stay in "
                "their order; leave out --fit-bands bidx"
            )

    @property
    def only_upsampled(self) -> tuple[int, ...]:
        """Places of the bands that are up-sampled and no more."""
        return tuple(int(v) for v in self.arrays.get("spared", ()))

    def lattice(self, scene: Scene, step: int) -> tuple[int, int]:
        """Row and column of the scene's PAN, less than `step`, from which on every `step`-th pixel is one of the scene
        that made the fit; the first ones where the pixels of the two do not lie on each other."""
        between = [here - there for here, there in zip(origin_of(scene), self.origin, strict=True)]
        if any(abs(each - round(each)) > SAME_PIXELS for each in between):
            return 0, 0
        row, col = (-round(each) % step for each in between)
        return row, col

    def array(self, name: str, shape: Sequence[int | None]) -> np.ndarray:
        """A named array of real numbers; None in `shape` stands for any length. Raises ValueError for any other."""
        found = self.arrays.get(name)
        if (
            found is None
            or found.ndim != len(shape)
            or found.dtype.kind != "f"
            or any(n not in (None, m) for n, m in zip(shape, found.shape, strict=True))
        ):
            raise ValueError(f"it has no {name} of {' x '.join(str(n or 'any') for n in shape) or 'one number'}")
        return found

    def number(self, name: str) -> float:
        """A named number. Raises ValueError where the fit has none."""
        if name not in self.numbers:
            raise ValueError(f"it has no {name}")
        return self.numbers[name]


def origin_of(scene: Scene) -> tuple[float, float]:
    """First row and column of the PAN in its pixels, counted from the origin of its CRS; 0 for a rotated one."""
    transform = scene.pan_grid.transform
    if transform.b or transform.d:
        return 0.0, 0.0
    return transform.f / transform.e, transform.c / transform.a


def check_apart(scenes: Sequence[Scene]) -> None:
    """Raises InputError for scenes of the same bands: nothing would tell which fit is for which of them."""
    if len({scene.standard_names for scene in scenes}) < len(scenes):
        raise InputError("--save-fit tells MS files on several grids apart by their bands, and these have the same")


def to_bytes(fits: Sequence[SavedFit]) -> bytes:
    """The content of a file that `SavedFit.read` reads; the same fits give the same bytes."""
    arrays: dict[str, np.ndarray] = {}
    texts: dict[str, str] = {}
    for k, fit in enumerate(fits):
        key = _key(k)
        texts[key] = fit.text
        arrays |= {_prefix(key) + name: np.array(a, order="C") for name, a in fit.arrays.items()}
    return save(arrays, texts)


def _key(number: int) -> str:
    """Under which a fit's text is found, of several in one file."""
    return f"fit{number or ''}"


def _prefix(key: str) -> str:
    """How the names of a fit's arrays begin, by the key of its text."""
    return "" if key == "fit" else f"{key}/"


def _parsed(text: str, arrays: Mapping[str, np.ndarray], key: str, digest: str) -> SavedFit:
    told = untrusted.parse_json(text)
    if told["schema"] != SCHEMA:
        raise ValueError(f"its schema is {told['schema']}, not {SCHEMA}")
    prefix = _prefix(key)
    own = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix) and (prefix or "/" not in n)}
    if told.pop("sha256") != checksum(told, own):
        raise ValueError("it was changed or damaged since it was made; make it anew")
    lift = Lift(*(int(_number(told.get(key, told["lift"]))) for key in ("pan_lift", "lift")))
    numbers = {str(name): _number(value) for name, value in told["numbers"].items()}
    return _checked(SavedFit(
        _known(told["for"]), _pair(told["origin"]), _pair(told["shift"]), tuple(map(_number, told["gains"])),
        tuple(map(_pair, told["offsets"])), lift, numbers, own, digest,
    ))  # fmt: skip


def _known(told: Mapping[str, Any]) -> Known:
    bands = tuple(None if name is None else str(name) for name in told["bands"])
    names = tuple(map(str, told["made_of"]))
    method, sensor, dtype, sha256 = (str(told[key]) for key in ("method", "sensor", "dtype", "weights"))
    return Known(method, sensor, bands, _pair(told["ratio"]), dtype, sha256, names, str(told.get("pan_dtype", "")))


def _pair(values: Sequence[float]) -> tuple[float, float]:
    first, second = map(_number, values)
    return first, second


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise ValueError(f"{value!r} is no number")
    return float(value)


def checksum(told: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """sha256 of a text and arrays, whatever their order in the file."""
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def _checked(kept: SavedFit) -> SavedFit:
    """Raises ValueError for values that no fit has: anyone may have written the file."""
    bands = len(kept.known.bands)
    if {len(kept.gains), len(kept.offsets)} - {0, bands} or not all(0 < gain < 1 for gain in kept.gains):
        raise ValueError("its gains or offsets are not those of its bands")
    moved = [*kept.shift, *(v for pair in kept.offsets for v in pair)]
    if not all(abs(v) <= MOST_SHIFT for v in moved) or not 0 < min(kept.known.ratio) <= max(kept.known.ratio) < 1000:
        raise ValueError("its shifts or its ratio are out of range")
    if "spared" in kept.arrays and not set(kept.array("spared", (None,)).tolist()) <= set(range(bands)):
        raise ValueError("it leaves bands alone that it does not have")
    lifts = (0, MOST_LIFT if kept.known.dtype.startswith("float") else 0)
    within = lifts[0] <= kept.lift.ms <= lifts[1] and abs(kept.lift.pan) <= MOST_LIFT
    if not within or not all(abs(v) < 1e15 for v in kept.origin):
        raise ValueError("its values are out of range")
    if not all(bool(np.isfinite(np.asarray(v)).all()) for v in (*kept.numbers.values(), *kept.arrays.values())):
        raise ValueError("it holds values that are not finite")
    return kept


def _unnamed(mine: Known, other: Known) -> str:
    """What to do where a scene's bands are told apart by nothing but their missing names."""
    if len(mine.bands) != len(other.bands) or all(other.bands):
        return ""
    return " without all their names: set the bands' descriptions (rio edit-info, gdal_edit.py), or name the --sensor"


def _listed(bands: Sequence[str | None]) -> str:
    if not any(bands):
        return f"{len(bands)} bands"
    return f"{len(bands)} bands ({', '.join(name or '?' for name in bands)})"
