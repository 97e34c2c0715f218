"""What the Python interface takes under each name: every argument becomes the value that the command line would give,
or one InputError that names it."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from numbers import Real
from operator import index
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np

from .errors import InputError
from .raster.geometry import Box, Window
from .raster.options import Scaling

P = ParamSpec("P")
R = TypeVar("R")


class Kind(NamedTuple):
    """What an argument takes, in `words`, and the plain value that it becomes; TypeError or ValueError for others."""

    words: str
    plain: Callable[[Any], Any]


def _of(*types: type) -> Callable[[Any], Any]:
    def same(given: Any) -> Any:
        if not isinstance(given, types):
            raise TypeError
        return given

    return same


def _number(given: Any) -> float:
    """Numbers of Python and numpy, but for truth values."""
    if isinstance(given, bool | np.bool_) or not isinstance(given, Real):
        raise TypeError
    return float(given)


def _such(holds: Callable[[float], bool]) -> Callable[[Any], float]:
    """A check of a number."""

    def checked(given: Any) -> float:
        if not holds(value := _number(given)):
            raise ValueError
        return value

    return checked


_positive, _finite = _such(lambda value: 0 < value < math.inf), _such(math.isfinite)
_gain, _integral = _such(lambda value: 0 < value < 1), _such(float.is_integer)


def _whole(given: Any) -> int:
    if isinstance(given, bool | np.bool_):
        raise TypeError
    return index(given)


def _path(given: Any) -> str:
    path = _of(str)(os.fspath(given))
    if "\0" in path:
        raise ValueError
    return path


def _listed(plain: Callable[[Any], Any], count: int | None = None) -> Callable[[Any], Any]:
    """A check of several values: a sequence, no text."""

    def all_of(given: Any) -> list[Any]:
        if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
            raise TypeError
        values = [plain(each) for each in given]
        if count not in (None, len(values)):
            raise ValueError
        return values

    return all_of


def _either(one: Callable[[Any], Any], other: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """As `one` takes it; what that does not take, as `other` does."""

    def first(given: Any) -> Any:
        try:
            return one(given)
        except TypeError:
            return other(given)

    return first


def _band(given: Any) -> int | str:
    return given if isinstance(given, str) else _whole(given)


def _size(given: Any) -> tuple[int, ...]:
    values = tuple(_listed(_whole, 2)(given))
    if min(values) < 1:
        raise ValueError
    return values


def window_of(given: Any) -> Window:
    """(COL_OFF, ROW_OFF, WIDTH, HEIGHT), or a window of rasterio, as rows and columns."""
    values = given.flatten() if hasattr(given, "flatten") else given
    col, row, width, height = map(int, _listed(_integral, 4)(values))
    if min(width, height) < 1:
        raise ValueError
    return Window.at(row, col, (height, width))


def box_of(given: Any) -> Box:
    return Box(*_listed(_finite, 4)(given))


def scaling_of(given: Any) -> Scaling:
    values = _listed(_number)(given) if isinstance(given, tuple | list) else [_number(given)]
    factor, offset = values if len(values) == 2 else (*values, 0.0)
    if not (1e-30 < factor < 1e30 and abs(offset) < 1e30):
        raise ValueError
    return Scaling(factor, offset)


_TEXT = Kind("text", _of(str))
_FILE = Kind("a path", _path)
_FLAG = Kind("True or False", lambda given: bool(_of(bool, np.bool_)(given)))
_BANDS = Kind("a list of numbers or names of bands", _listed(_band))
_NUMBER = Kind("a number", _number)
_WHOLE = Kind("a whole number", _whole)
_FACTOR = Kind("a number above 0", _positive)
_SIZE = Kind("rows and columns", _size)

KINDS = {
    **dict.fromkeys(("method", "sensor", "adapt", "adapt_loss", "device", "precision", "fit_bands"), _TEXT),
    **dict.fromkeys(("extent", "align", "mtf", "driver"), _TEXT),
    **dict.fromkeys(("output", "weights", "dem", "quicklook", "save_fit", "fit", "maps", "path", "stretch"), _FILE),
    **dict.fromkeys(("overviews", "overwrite", "score", "rgb_only"), _FLAG),
    **dict.fromkeys(("bidx", "pan_from"), _BANDS),
    **dict.fromkeys(("adapt_seconds", "nodata", "d_lambda_k", "d_s", "d_lambda"), _NUMBER),
    **dict.fromkeys(("tile_size", "seed"), _WHOLE),
    **dict.fromkeys(("ratio", "peak"), _FACTOR),
    **dict.fromkeys(("shape", "ms_shape"), _SIZE),
    "offset": Kind("rows and columns", lambda given: tuple(_listed(_finite, 2)(given))),
    "height": Kind("a number", _finite),
    "window": Kind("(col_off, row_off, width, height) in whole PAN pixels", window_of),
    "bbox": Kind("4 numbers", box_of),
    "gains": Kind("a number between 0 and 1, or a list of them", _either(_gain, _listed(_gain))),
    "dtype": Kind("a type such as 'uint16'", lambda given: np.dtype(given).name),
    "methods": Kind("a name or a list of them", _either(_of(str), _listed(_of(str)))),
    "show": Kind("a name or a list of them", _either(lambda given: [_of(str)(given)], _listed(_of(str)))),
    "rgb": Kind("'true' or three bands", _either(_of(str), _listed(_band))),
    "report": Kind("a path or a list of them", _either(_path, _listed(_path))),
    "creation_options": Kind("a mapping of names and values", lambda given: dict(_of(Mapping)(given))),
    "progress": Kind("a function", lambda given: given if callable(given) else _of()(given)),
}
"""By the names of arguments, which mean the same in all functions."""


def plain_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """A function of the Python interface whose arguments are plain values: paths are text, numbers of numpy are
    Python's. It raises InputError, which names the argument, for others than `KINDS` has; a default of None may be
    given."""
    signature = inspect.signature(function)

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        given = signature.bind(*args, **kwargs)
        for name, value in given.arguments.items():
            if name in KINDS and not (value is None and signature.parameters[name].default is None):
                given.arguments[name] = _plain(name, value, KINDS[name])
        return function(*given.args, **given.kwargs)

    return called


def _plain(name: str, given: Any, kind: Kind) -> Any:
    try:
        return kind.plain(given)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{name} takes {kind.words}, not {' '.join(repr(given).split())[:100]}") from error


def scaling(given: Any) -> Scaling:
    """What `scale` of a fusion gives: a factor, alone or with an offset. Raises InputError for anything else."""
    return _plain("scale", given, Kind("a factor from 1e-30 to 1e30, or a factor and an offset", scaling_of))


def positive(name: str, given: Any) -> float:
    """A finite number above 0. Raises InputError for anything else."""
    return _plain(name, given, _FACTOR)
