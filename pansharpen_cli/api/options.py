"""Options as the jobs take them. What the command line refuses is refused here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from os import PathLike
from pathlib import Path
from typing import Any

from ..adapt.tailor import ADAPT
from ..arguments import scaling
from ..errors import InputError
from ..fusion.options import Options
from ..jobs.opened import ALIGN
from ..publish import file_named
from ..raster.options import OpenOptions
from ..raster.values import check_dtype


def one_of(name: str, value: object, known: Sequence[str]) -> None:
    if value not in known:
        raise InputError(f"{name} is one of {', '.join(known)}, not '{value}'")


def options_of(given: Mapping[str, Any]) -> tuple[Options, OpenOptions]:
    """What a function's arguments say on how to fuse and to open a pair. Raises InputError for what the command line
    refuses."""
    _check_range("tile_size", given["tile_size"], 64, 8192)  # before Options rounds it
    return checked(Options(**_chosen(Options, given))), opening_of(given)


def checked(options: Options) -> Options:
    """The options with the name of the method in lower case. Raises InputError as `options_of`."""
    one_of("adapt", options.adapt, ("off", *ADAPT))
    one_of("align", options.align, ALIGN)
    _check_range("seed", options.seed, 0, 2**32 - 1)
    if options.adapt_seconds is not None and not options.adapt_seconds >= 0:
        raise InputError(f"adapt_seconds is a number of seconds, not {options.adapt_seconds}")
    return replace(options, method=options.method.lower())


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InputError(f"{name} is a whole number from {low} to {high}, not {value}")


def opening_of(given: Mapping[str, Any]) -> OpenOptions:
    """What a function's arguments say on how to open a pair. Raises InputError as `options_of`."""
    options = OpenOptions(**_chosen(OpenOptions, given))
    one_of("extent", options.extent, ("intersection", "pan"))
    one_of("fit_bands", options.fit_bands, ("all", "bidx"))
    if options.bidx == []:
        raise InputError("bidx names no band; leave it out for all")
    dtype = None if options.dtype is None else check_dtype(options.dtype)
    return replace(options, dtype=dtype, scale=scaling(options.scale))


def _chosen(kind: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that are fields of a dataclass."""
    return {field.name: given[field.name] for field in fields(kind) if field.name in given}


def file_of(path: str | PathLike | None) -> Path | None:
    """A file to write. Raises InputError for the name of a folder."""
    return None if path is None else file_named(path)
