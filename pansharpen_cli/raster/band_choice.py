"""Bands of an MS by number or name: which are read, and what they are called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..errors import InputError
from . import sensors
from .sensors import Sensor
from .source import Source

COLOURS = ("red", "green", "blue")
PRODUCTS = {
    "RGB": COLOURS,
    "NRG": ("nir", "red", "green"),
    "MS2": ("coastal", "yellow", "red edge", "nir2"),
}
"""Bands in the order of products of Maxar that are not as usual, by `bandId` of their IMD."""


def standard_names(names: Sequence[str | None], places: Sequence[int], sensor: Sensor) -> tuple[str | None, ...]:
    """Standard names of the bands at these places: by their own, else by the order of the sensor's products."""
    standard = tuple(sensors.band_name(names[i]) for i in places)
    return standard if any(standard) else sensor.usual_names(len(names), places) or standard


def chosen_places(bidx: Sequence[int | str] | None, names: Sequence[str | None], sensor: Sensor) -> list[int]:
    """Places (from 0) among the bands of all MS files in order: all, or those that `bidx` asks for."""
    every = range(len(names))
    if not bidx:
        return list(every)
    standard = standard_names(names, every, sensor)
    return [place_of("--bidx", each, [i + 1 for i in every], names, standard) for each in bidx]


def place_of(
    option: str,
    asked: int | str,
    numbers: Sequence[int],
    names: Sequence[str | None],
    standard: Sequence[str | None],
    owner: str = "the MS",
) -> int:
    """Place (from 0) of a band of its `owner` by its number, its description or its standard name. Raises InputError
    for others."""
    if isinstance(asked, int):
        if asked in numbers:
            return numbers.index(asked)
        if list(numbers) == list(range(1, len(numbers) + 1)):
            raise InputError(f"{option} {asked} is out of range: {owner} has bands 1 to {len(numbers)}")
        raise InputError(f"{option} {asked}: the band is not one of those of --bidx ({', '.join(map(str, numbers))})")
    word, meant = asked.strip().casefold(), sensors.band_name(asked)
    found = [i for i, name in enumerate(names) if name and name.strip().casefold() == word]
    found = found or [i for i, name in enumerate(standard) if meant and name == meant]
    if len({numbers[i] for i in found}) == 1:
        return found[0]
    if found:
        raise InputError(f"{option} '{asked}' names bands {', '.join(str(numbers[i]) for i in found)}: give the number")
    known = [name or other for name, other in zip(names, standard, strict=True)]
    listed = ", ".join(name or f"{number} (no name)" for name, number in zip(known, numbers, strict=True))
    if not any(known):
        raise InputError(
            f"{option} '{asked}': nothing names the bands of {owner}; "
            f"give numbers from {min(numbers)} to {max(numbers)}"
        )
    whose = "none of the bands that are written:" if option == "--rgb" else f"no band of {owner}; it has"
    raise InputError(f"{option} '{asked}' is {whose} {listed}")


def chosen_sources(sources: Sequence[Source], chosen: Sequence[int]) -> list[Source]:
    """The bands at these places; one Source per run within a file."""
    flat = [(s, b) for s in sources for b in s.bands]
    made: list[Source] = []
    for source, band in (flat[i] for i in chosen):
        if made and made[-1].dataset is source.dataset:
            made[-1].bands.append(band)
        else:
            made.append(replace(source, bands=[band]))
    return made


def told_names(sources: Sequence[Source], names: Sequence[str | None]) -> Sequence[str | None]:
    """Names of the bands by their descriptions, or by the names of their files where no description tells one."""
    if any(map(sensors.band_name, names)):
        return names
    return sensors.bands_by_files([(s.label, len(s.bands)) for s in sources]) or names


def by_product(sources: Sequence[Source], names: Sequence[str | None], sensor: Sensor) -> Sequence[str | None]:
    """Names of bands that nothing else names: those of a product that a delivery's metadata tell, and those of the
    sensor's products where the files tell red, green and blue. Of bytes GDAL itself tells these."""
    if any(map(sensors.band_name, names)):
        return names
    ids = {s.dataset.tags(ns="IMD").get("bandId", "").strip('"').upper() for s in sources}
    known = PRODUCTS.get(ids.pop(), ()) if len(ids) == 1 else ()
    if len(known) == len(names):
        return known
    bands = [(s.dataset, band) for s in sources for band in s.bands]
    told = [ds.colorinterp[band - 1].name for ds, band in bands]
    usual = sensor.usual_names(len(names), range(len(names))) or ()
    others = [name for name in usual if name not in COLOURS]
    colours = sorted(name for name in told if name in COLOURS)
    if colours != sorted(COLOURS) or len(others) != len(names) - len(COLOURS):
        return names
    if any(ds.dtypes[band - 1] == "uint8" for ds, band in bands):
        return names
    left = iter(others)
    return [name if name in COLOURS else next(left) for name in told]
