"""The table of sensors: how their files are named, their bands in delivery order, wavelengths, MTF gains.

A sensor is one table of sensors.toml. docs/sensors.md shows them; tests/test_sensors.py walks them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from .. import untrusted
from ..errors import InputError
from .bands import WAVELENGTHS, band_name

DEFAULT_GAIN = 0.3
"""MTF gain at Nyquist of an MS band where none is published."""

DEFAULT_PAN_GAIN = 0.15
"""MTF gain at Nyquist of a PAN where none is published."""


@dataclass(frozen=True)
class Names:
    """How the files of a product are called, and a made-up delivery of it.

    `pattern` matches the whole name of a file, without its ending and its tile (`_R1C1`), in any case of letters; one
    with a slash in it matches the name with the folder before. The role is the group that takes part: `pan` or `ms`,
    or one of `left`, whose text says why such a file is not fused. `band` tells which of `bands` a file holds; without
    it the file holds all of the sensor's. `key` and `name` are filled in from the groups: files with the same key are
    of one scene, files of the same `unit` of one delivery.
    `pan_codes`: words among `bands` whose files together are the PAN. `more`: bands of files that are fused only where
    they are named, by the text of their group. `joins`: groups of files on a grid of their own that join a pair of PAN
    and MS, with the sensor that they are of.
    `pan`, `ms` and `others` are examples: the PAN, the files of the MS in the order in which they are fused, and what
    is left over beside them.
    """

    product: str
    pattern: str
    pan: str = ""
    ms: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    key: str = "{scene}"
    name: str = ""
    unit: str = ""
    bands: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    left: Mapping[str, str] = field(default_factory=lambda: {"fused": "pansharpened already"}, hash=False)
    pan_codes: tuple[str, ...] = ()
    more: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    joins: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Sensor:
    """A sensor: `waves` has its MS bands in their usual order with the middle of each in micrometres.

    `published`: MTF gains of the bands at Nyquist, from `source`; 0.3 each where there are none, and 0.15 of the PAN.
    `ratio`: of its products; 0 where they have no common one. `patterns` recognise it in metadata, `aliases` are other
    spellings of its name, `also` gains of bands that it has beside those, `subsets` other band orders and counts in
    which its products are delivered, `names` those of its files.
    """

    name: str
    waves: Mapping[str, float] = field(hash=False)
    ratio: float
    names: tuple[Names, ...] = ()
    patterns: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    subsets: tuple[tuple[str, ...], ...] = ()
    published: tuple[float, ...] = ()
    pan_gain: float = DEFAULT_PAN_GAIN
    source: str = "generic"
    also: Mapping[str, float] = field(default_factory=dict, hash=False)

    @property
    def bands(self) -> tuple[str, ...]:
        return tuple(self.waves)

    @property
    def gains(self) -> tuple[float, ...]:
        return self.published or (DEFAULT_GAIN,) * len(self.waves)

    def gains_of(self, names: Sequence[str | None], chosen: Sequence[int] | None = None) -> tuple[float, ...]:
        """MTF gains of all bands of these names, or of those `chosen` (from 0): by name where known, else by position.
        Raises InputError if the sensor has no product with that many bands."""
        chosen = range(len(names)) if chosen is None else chosen
        if not self.bands:
            return (DEFAULT_GAIN,) * len(chosen)
        by_name = {**dict(zip(self.bands, self.gains, strict=True)), **self.also}
        known = [band_name(names[i]) for i in chosen]
        if all(n in by_name for n in known):
            return tuple(by_name[n] for n in known if n is not None)
        usual = self.usual_names(len(names), chosen)
        if usual is not None:
            return tuple(by_name.get(n, DEFAULT_GAIN) for n in usual)
        counts = sorted({len(self.bands), *(len(s) for s in self.subsets)})
        raise InputError(
            f"{self.name} has {' or '.join(map(str, counts))} MS bands, the input has {len(chosen)}; "
            "choose them with --bidx and --fit-bands bidx, or use --sensor generic"
        )

    def has(self, names: Sequence[str | None]) -> bool:
        """Whether there are products of the sensor with all these bands."""
        try:
            self.gains_of(names)
        except InputError:
            return False
        return True

    def usual_names(self, count: int, chosen: Sequence[int]) -> tuple[str, ...] | None:
        """Standard names of the `chosen` bands (from 0) of `count`, in the order of the sensor's products. The product
        has `count` bands, or else as many as are chosen; None if there is no such product."""
        for size, places in ((count, chosen), (len(chosen), range(len(chosen)))):
            for order in (self.bands, *self.subsets):
                if len(order) == size:
                    return tuple(order[i] for i in places)
        return None


# The file -----------------------------------------------------------------------------------------------------------


def _is(what: str, *kinds: type) -> Callable[[Any], Any]:
    def checked(value: Any) -> Any:
        if type(value) not in kinds:
            raise ValueError(f"{value!r} is no {what}")
        return value

    return checked


_text, _number, _list, _table = (
    _is("text", str), _is("number", float, int), _is("list", list), _is("table", dict),
)  # fmt: skip


def _listed(of: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    return lambda value: tuple(map(of, _list(value)))


def _keyed(of: Callable[[Any], Any]) -> Callable[[Any], dict[str, Any]]:
    return lambda value: {key: of(each) for key, each in _table(value).items()}


def _known(bands: Iterable[str]) -> tuple[str, ...]:
    unknown = [band for band in bands if band not in WAVELENGTHS]
    if unknown:
        raise ValueError(f"no band is called {unknown[0]!r} in bands.toml")
    return tuple(bands)


def _bands(value: Any) -> tuple[str, ...]:
    return _known(_text(value).split())


_READERS: dict[str, Callable[[Any], Any]] = {
    "str": _text,
    "float": _number,
    "tuple[str, ...]": _listed(_text),
    "tuple[float, ...]": _listed(_number),
    "tuple[tuple[str, ...], ...]": _listed(_bands),
    "Mapping[str, str]": _keyed(_text),
    "Mapping[str, float]": _keyed(_number),
    "Mapping[str, tuple[str, ...]]": _keyed(_bands),
}
"""What makes the value of a field of that type of one of TOML. Raises ValueError for any other."""


def _given(kind: type, table: Any, *others: str) -> dict[str, Any]:
    """The values of a dataclass's fields, but for `others`, in a table. Raises ValueError if a key is unknown, wrong or
    missing."""
    rest = {f.name: f for f in fields(kind) if f.name not in others}
    values: dict[str, Any] = {}
    for key, value in _table(table).items():
        if key not in rest:
            raise ValueError(f"no key is called {key!r}; there are {', '.join((*values, *rest))}")
        try:
            values[key] = _READERS[str(rest.pop(key).type)](value)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
    if missing := [f.name for f in rest.values() if f.default is MISSING and f.default_factory is MISSING]:
        raise ValueError(f"it has no {missing[0]}")
    return values


def _names(table: Any) -> Names:
    given = _given(Names, table)
    return Names(**{**given, "pattern": "".join(line.strip() for line in given["pattern"].splitlines())})


def _sensor(name: str, table: Any, before: Mapping[str, Sensor]) -> Sensor:
    own = dict(_table(table))
    shared, made = _listed(_text)(own.pop("names_of", [])), _listed(_names)(own.pop("names", []))
    if unknown := [other for other in shared if other not in before]:
        raise ValueError(f"names_of: no sensor above is called {unknown[0]!r}")
    names = (*(each for other in shared for each in before[other].names), *made)
    sensor = Sensor(name, **_given(Sensor, own, "name", "names"), names=names)
    _known((*sensor.waves, *sensor.also))
    if len(sensor.gains) != len(sensor.bands):
        raise ValueError(f"published has {len(sensor.published)} gains, and there are {len(sensor.bands)} bands")
    return sensor


def read(path: Path) -> dict[str, Sensor]:
    """The sensors of a file by name, in its order. Raises InputError that names the table which is wrong."""
    found: dict[str, Sensor] = {}
    for name, table in untrusted.read_toml(path, "is not TOML").items():
        with untrusted.boundary(f"{path}: [{name}]", "is no sensor"):
            found[name] = _sensor(name, table, found)
    return found


GENERIC = Sensor("generic", {}, 4.0)

SENSORS = {GENERIC.name: GENERIC, **read(Path(__file__).with_name("sensors.toml"))}
"""By name. The first whose pattern fits wins."""
ROWS = tuple(SENSORS.values())
