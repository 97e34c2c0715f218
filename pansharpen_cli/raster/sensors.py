"""What is known about each sensor: bands, wavelengths, MTF gains at Nyquist; and how a file gives its sensor away."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import InputError

DEFAULT_GAIN = 0.3
"""MTF gain at Nyquist of an MS band of an unknown sensor."""

DEFAULT_PAN_GAIN = 0.15


@dataclass(frozen=True)
class Sensor:
    """A sensor's MS bands in their usual order with their MTF gains at the Nyquist frequency, and its PAN's gain.

    Gains: Vivone et al. 2015 and the reference toolbox's table; sensors that are not in it have 0.3 and 0.15.
    `subsets` lists other band orders and counts in which its products are delivered.
    """

    name: str
    bands: tuple[str, ...]
    gains: tuple[float, ...]
    pan_gain: float
    ratio: float
    patterns: tuple[str, ...] = ()
    subsets: tuple[tuple[str, ...], ...] = ()

    def gains_of(self, names: Sequence[str | None], chosen: Sequence[int] | None = None) -> tuple[float, ...]:
        """MTF gains of all bands of these names, or of those `chosen` (from 0): by name where known, else by position.

        Raises InputError if the sensor has no product with that many bands.
        """
        chosen = range(len(names)) if chosen is None else chosen
        if not self.bands:
            return (DEFAULT_GAIN,) * len(chosen)
        by_name = dict(zip(self.bands, self.gains, strict=True))
        known = [band_name(names[i]) for i in chosen]
        if all(n in by_name for n in known):
            return tuple(by_name[n] for n in known if n is not None)
        usual = self.usual_names(len(names), chosen)
        if usual is not None:
            return tuple(by_name[n] for n in usual)
        counts = sorted({len(self.bands), *(len(s) for s in self.subsets)})
        raise InputError(
            f"{self.name} has {' or '.join(map(str, counts))} MS bands, the input has {len(chosen)}; "
            "choose them with --bidx and --fit-bands bidx, or use --sensor generic"
        )

    def usual_names(self, count: int, chosen: Sequence[int]) -> tuple[str, ...] | None:
        """Standard names of the `chosen` (from 0) of `count` bands in the order of the sensor's products: of one with
        `count` bands, else of one with as many as are chosen; None if there is no such product."""
        for size, places in ((count, chosen), (len(chosen), range(len(chosen)))):
            for order in (self.bands, *self.subsets):
                if len(order) == size:
                    return tuple(order[i] for i in places)
        return None


_BGRN = ("blue", "green", "red", "nir")
_WV8 = ("coastal", "blue", "green", "yellow", "red", "red_edge", "nir", "nir2")
_RGBN = ("red", "green", "blue", "nir")
_LANDSAT = ("blue", "green", "red", "nir", "swir1", "swir2")
_FOUR = (_RGBN, ("blue", "green", "red"))

GENERIC = Sensor("generic", (), (), DEFAULT_PAN_GAIN, 4.0)

SENSORS: dict[str, Sensor] = {
    s.name: s
    for s in (
        GENERIC,
        Sensor("quickbird", _BGRN, (0.34, 0.32, 0.30, 0.22), 0.15, 4, (r"quick ?bird", r"^qb0?2?$"), _FOUR),
        Sensor("ikonos", _BGRN, (0.26, 0.28, 0.29, 0.28), 0.17, 4, (r"ikonos",), _FOUR),
        Sensor("geoeye-1", _BGRN, (0.23,) * 4, 0.16, 4, (r"geo ?eye", r"^ge0?1$"), _FOUR),
        Sensor("worldview-2", _WV8, (0.35,) * 7 + (0.27,), 0.11, 4, (r"world ?view 0?2", r"^wv0?2$"), (_BGRN, *_FOUR)),
        Sensor(
            "worldview-3",
            _WV8,
            (0.325, 0.355, 0.360, 0.350, 0.365, 0.360, 0.335, 0.315),
            0.14,
            4,
            (r"world ?view 0?3", r"^wv0?3$"),
            (_BGRN, *_FOUR),
        ),
        Sensor("worldview-4", _BGRN, (0.23,) * 4, 0.16, 4, (r"world ?view 0?4", r"^wv0?4$"), _FOUR),
        Sensor("gaofen-1", _BGRN, (0.3,) * 4, 0.15, 4, (r"gao ?fen 0?1", r"^gf0?1"), _FOUR),
        Sensor("gaofen-2", _BGRN, (0.3,) * 4, 0.15, 4, (r"gao ?fen 0?2", r"^gf0?2"), _FOUR),
        Sensor("spot-6", _RGBN, (0.3,) * 4, 0.15, 4, (r"spot ?0?[67]",), (_BGRN, ("red", "green", "blue"))),
        Sensor("pleiades", _RGBN, (0.3,) * 4, 0.15, 4, (r"pl[eé]iades", r"^phr"), (_BGRN, ("red", "green", "blue"))),
        Sensor(
            "landsat-8",
            _LANDSAT,
            (0.3,) * 6,
            0.15,
            2,
            (r"landsat ?[89]", r"^lc0?[89]", r"\boli\b"),
            (_BGRN, _RGBN, ("blue", "green", "red"), ("red", "green", "blue")),
        ),
        Sensor(
            "landsat-7",
            _LANDSAT,
            (0.3,) * 6,
            0.15,
            2,
            (r"landsat ?7", r"^le0?7", r"\betm\b"),
            (_BGRN, _RGBN, ("blue", "green", "red"), ("red", "green", "blue")),
        ),
    )
}

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


def named(name: str) -> Sensor:
    """The sensor of that name (any spelling). Raises InputError listing what there is."""
    key = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if key in SENSORS:
        return SENSORS[key]
    found = _match(name)
    if found is None:
        raise InputError(f"unknown sensor '{name}'; there is auto, {', '.join(SENSORS)}")
    return found


def _match(text: str) -> Sensor | None:
    words = re.sub(r"[^a-zé0-9]+", " ", text.lower()).strip()
    for sensor in SENSORS.values():
        if any(re.search(p, words) for p in sensor.patterns):
            return sensor
    return None


_SENSOR_KEYS = (
    "satelliteid", "satid", "spacecraft_id", "spacecraft_name", "satellite", "platform", "mission", "mission_index",
    "sensor", "sensor_id", "sensorid", "instrument", "tifftag_imagedescription", "dataset_name", "product_type",
)  # fmt: skip


def recognise(domains: Sequence[tuple[str, Mapping[str, str]]], names: Sequence[str | None]) -> tuple[Sensor, str]:
    """The sensor that metadata or band names give away, and where: (sensor, 'where it was recognised').

    `domains`: pairs of a place ('IMAGERY of ms.tif') and its tags, most trusted first. Band names alone identify
    WorldView-2/3's eight bands; no evidence gives the generic sensor.
    """
    for place, tags in domains:
        lowered = {k.lower().rsplit(".", 1)[-1]: str(v) for k, v in tags.items()}
        joined = " ".join(lowered.get(k, "") for k in ("mission", "mission_index")).strip()
        for key in _SENSOR_KEYS:
            for text in filter(None, (joined if key == "mission" else "", lowered.get(key, ""))):
                sensor = _match(text)
                if sensor is not None:
                    return sensor, f"{place} ({key}={text[:40]})"
    if [band_name(n) for n in names] == list(_WV8):
        return SENSORS["worldview-2"], "the eight band names"
    return GENERIC, "nothing in the files names a sensor"
