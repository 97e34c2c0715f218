"""Options as the jobs take them. What the command line refuses is refused here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from os import PathLike, fspath, sep
from pathlib import Path
from typing import Any

from ..adapt.tailor import ADAPT
from ..errors import InputError
from ..fusion.options import Options
from ..jobs.opened import ALIGN
from ..raster.geometry import Window
from ..raster.options import OpenOptions, Scaling
from ..raster.values import check_dtype


def _window(window: Sequence[int] | None) -> Window | None:
    """(COL_OFF, ROW_OFF, WIDTH, HEIGHT), or a window of rasterio, as rows and columns."""
    if window is None:
        return None
    values = window.flatten() if hasattr(window, "flatten") else window
    try:
        whole = len(values) == 4 and all(v == int(v) for v in values) and min(values[2:]) >= 1
    except (TypeError, ValueError, OverflowError):  # NaN, text
        whole = False
    if not whole:
        raise InputError(f"window takes (col_off, row_off, width, height) in whole PAN pixels, not {window}")
    col, row, width, height = map(int, values)
    return Window.at(row, col, (height, width))


def one_of(name: str, value: object, known: Sequence[str]) -> None:
    if value not in known:
        raise InputError(f"{name} is one of {', '.join(known)}, not '{value}'")


def options_of(given: Mapping[str, Any]) -> tuple[Options, OpenOptions]:
    """What a function's arguments say on how to fuse and to open a pair. Raises InputError for what the command line
    refuses."""
    _check_range("tile_size", given["tile_size"], 64, 8192)  # before Options rounds it
    return checked(Options(**_chosen(Options, given))), opening_of(OpenOptions(**_chosen(OpenOptions, given)))


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


def opening_of(options: OpenOptions) -> OpenOptions:
    one_of("extent", options.extent, ("intersection", "pan"))
    one_of("fit_bands", options.fit_bands, ("all", "bidx"))
    if options.height is not None and options.dem is not None:
        raise InputError("height and dem exclude each other")
    if options.bidx is not None and not isinstance(options.bidx, int) and not list(options.bidx):
        raise InputError("bidx names no band; leave it out for all")
    return replace(
        options,
        window=_window(options.window),
        bbox=_box(options.bbox),
        dtype=None if options.dtype is None else check_dtype(options.dtype),
        scale=_scaling(options.scale),
        height=None if options.height is None else _numbers("height", [options.height], 1)[0],
    )


def _chosen(kind: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that are fields of a dataclass."""
    return {field.name: given[field.name] for field in fields(kind) if field.name in given}


def _box(given: Sequence[float] | None) -> tuple[float, float, float, float] | None:
    if given is None:
        return None
    left, bottom, right, top = _numbers("bbox", given, 4)
    return left, bottom, right, top


def _numbers(name: str, given: Any, count: int) -> list[float]:
    """So many finite numbers. Raises InputError for anything else."""
    with suppress(TypeError, ValueError, OverflowError):
        values = [float(v) for v in given]
        if len(values) == count and all(map(math.isfinite, values)):
            return values
    raise InputError(f"{name} takes {'a number' if count == 1 else f'{count} numbers'}, not {given}")


def _scaling(given: Any) -> Scaling:
    with suppress(TypeError, ValueError, OverflowError):
        values = list(given) if isinstance(given, tuple | list) else [given, 0.0]
        factor, offset = map(float, values)
        if not any(isinstance(v, bool) for v in values) and 1e-30 < factor < 1e30 and abs(offset) < 1e30:
            return Scaling(factor, offset)
    raise InputError(f"scale is a factor from 1e-30 to 1e30, or a factor and an offset, not {given}")


def file_of(path: str | PathLike | None) -> Path | None:
    """A file to write. Raises InputError for the name of a folder, whose slash `Path` would drop."""
    if path is not None and fspath(path).endswith(("/", sep)):
        raise InputError(f"{fspath(path)} is the name of a folder; name a file")
    return path_of(path)


def path_of(path: str | PathLike | None) -> Path | None:
    return None if path is None else Path(path)
