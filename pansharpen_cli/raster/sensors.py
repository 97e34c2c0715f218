"""How metadata, the names of files, and users give a sensor away."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import PurePosixPath

from ..errors import InputError
from .bands import WAVELENGTHS, band_name
from .sensor_table import GENERIC, ROWS, SENSORS, Names, Sensor

__all__ = ["GENERIC", "SENSORS", "WAVELENGTHS", "Named", "Sensor", "band_name", "bands_by_files", "by_file_name",
           "matched", "named", "recognise", "without_tile"]  # fmt: skip

# By what users call it ----------------------------------------------------------------------------------------------


def _compact(name: str) -> str:
    """A spelling without what differs between spellings: case, accents, signs, zeros before a number."""
    letters = re.sub(r"[^a-z0-9]+", "", name.lower().replace("é", "e"))
    return re.sub(r"(?<!\d)0+(?=\d)", "", letters)


def _letters(spelling: str) -> str:
    """What sensors of one series have in common, however short: too short to be near by the count of its signs."""
    return re.sub(r"\d", "", spelling)


_SPELLINGS = {_compact(alias): row for row in ROWS for alias in (row.name, *row.aliases)}


def named(name: str) -> Sensor:
    """The sensor of that name, in any usual spelling. Raises InputError with the nearest names, and all there are."""
    spelling = _compact(name)
    found = _SPELLINGS.get(spelling) or _match(name)
    if found is None:
        series = [known for known in _SPELLINGS if _letters(known) == _letters(spelling)]
        near = dict.fromkeys(_SPELLINGS[k].name for k in series or get_close_matches(spelling, _SPELLINGS, 3, 0.7))
        guess = f" (did you mean {' or '.join(near)}?)" if near else ""
        raise InputError(f"unknown sensor '{name}'{guess}; choose from auto, {', '.join(SENSORS)}")
    return found


def _match(text: str) -> Sensor | None:
    """The one sensor that a text names: of a series the first in the table, whose name is the longer one."""
    words = re.sub(r"[^a-zé0-9]+", " ", text.lower()).strip()
    found: list[Sensor] = []
    for sensor in SENSORS.values():
        rest = words
        for pattern in sensor.patterns:
            rest = re.sub(pattern, " ", rest)
        if rest != words:
            found.append(sensor)
            words = rest
    return found[0] if len(found) == 1 else None


# By the names of its files ------------------------------------------------------------------------------------------

_TILE = re.compile(r"[-_]R(\d+)C(\d+)(?=[-_]|$)", re.IGNORECASE)


def without_tile(stem: str) -> tuple[str, tuple[int, ...]]:
    """A name without its `_R1C2`, and row and column of that."""
    match = _TILE.search(stem)
    return (stem, ()) if match is None else (_TILE.sub("", stem, count=1), (int(match[1]), int(match[2])))


@dataclass(frozen=True)
class Named:
    """What the name of a file tells: the product, the group that tells the role, all groups, and row and column of the
    tile."""

    names: Names
    role: str
    groups: Mapping[str, str]
    tile: tuple[int, ...]

    @property
    def band(self) -> str:
        """The word for the file's bands among those of the product; empty for a file of all."""
        told = self.role != "pan" or bool(self.names.pan_codes)
        code = self.groups["band"].upper() if told and self.groups.get("band") else ""
        return code if code in self.names.bands else ""

    @property
    def bands(self) -> tuple[str, ...]:
        """Standard names of the file's bands; empty where it does not tell them."""
        return self.names.bands.get(self.band, ()) or self.names.more.get(self.groups[self.role].upper(), ())

    def filled(self, text: str) -> str:
        """A text with the groups in their places; signs that are left over at its end go."""
        return text.format(**self.groups).rstrip("-_")


@cache
def _products() -> tuple[tuple[Names, re.Pattern[str], tuple[Sensor, ...]], ...]:
    """All products with the sensors that have them."""
    owners: dict[str, tuple[Names, list[Sensor]]] = {}
    for row in ROWS:
        for names in row.names:
            owners.setdefault(names.pattern, (names, []))[1].append(row)
    return tuple((n, re.compile(n.pattern, re.IGNORECASE), tuple(rows)) for n, rows in owners.values())


def matched(path: str) -> Named | None:
    """What the name of a file tells by the table of sensors."""
    found = _matched(path)
    return found[0] if found else None


def _matched(path: str) -> tuple[Named, tuple[Sensor, ...]] | None:
    pure = PurePosixPath(path)
    stem, tile = without_tile(pure.stem)
    for names, pattern, owners in _products():
        if match := pattern.fullmatch(f"{pure.parent.name}/{stem}" if "/" in names.pattern else stem):
            groups = {k: v or "" for k, v in match.groupdict().items()}
            # what takes part may be an empty text
            roles = (*names.left, *names.joins, "pan", "ms")
            told = next(role for role in roles if match.groupdict().get(role) is not None)
            return Named(names, told, groups, tile), owners
    return None


def by_file_name(path: str) -> Sensor | None:
    """The sensor of a file by its name alone; None where several have such names."""
    found = _matched(path)
    if found and (joined := found[0].names.joins.get(found[0].role)):
        return SENSORS[joined]
    return found[1][0] if found and len(found[1]) == 1 else None


def bands_by_files(files: Sequence[tuple[str, int]]) -> tuple[str, ...] | None:
    """Standard names of the bands of files, given with how many each has, where the names of all of them tell them."""
    told: list[str] = []
    for path, count in files:
        known = matched(path)
        names = known.bands if known else ()
        if len(names) != count:
            return None
        told += names
    return tuple(told)


# By metadata --------------------------------------------------------------------------------------------------------

_KEYS = (
    "satelliteid", "satid", "spacecraft_id", "spacecraft_name", "satellite", "platform", "mission", "mission_index",
    "sensor", "sensor_id", "sensorid", "instrument", "tifftag_imagedescription", "dataset_name", "product_type",
)  # fmt: skip


def recognise(
    domains: Sequence[tuple[str, Mapping[str, str]]], names: Sequence[str | None], files: Sequence[str] = ()
) -> tuple[Sensor, str]:
    """The sensor that metadata, the names of files or of bands give away, and where: (sensor, 'where it was
    recognised').

    `domains`: pairs of a place ('IMAGERY of ms.tif') and its tags, most trusted first. The name of a file counts if the
    sensor has products with such bands. Band names alone identify WorldView-2/3's eight bands; no evidence gives the
    generic sensor.
    """
    if files and (known := matched(files[0])) is not None and known.role in known.names.joins:
        return SENSORS[known.names.joins[known.role]], f"the name of {PurePosixPath(files[0]).name}"
    for place, text in _texts(domains):
        if (sensor := _match(text.partition("=")[2])) is not None:
            return sensor, f"{place} ({text[:60]})"
    for path in files:
        if (sensor := by_file_name(path)) is not None and sensor.has(names):
            return sensor, f"the name of {PurePosixPath(path).name}"
    if tuple(map(band_name, names)) == SENSORS["worldview-2"].bands:
        return SENSORS["worldview-2"], "the eight band names"
    return GENERIC, "nothing in the files names a sensor"


def _texts(domains: Sequence[tuple[str, Mapping[str, str]]]) -> Iterator[tuple[str, str]]:
    """Where something may name a sensor, and `key=text`."""
    for place, tags in domains:
        lowered = {k.lower().rsplit(".", 1)[-1]: str(v) for k, v in tags.items()}
        joined = " ".join(lowered.get(k, "") for k in ("mission", "mission_index")).strip()
        for key in _KEYS:
            for text in filter(None, (joined if key == "mission" else "", lowered.get(key, ""))):
                yield place, f"{key}={text}"
