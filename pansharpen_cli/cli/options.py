"""The options that commands share, in bundles, and how their texts become values. options.toml has their help."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

import typer

from .. import models, tables
from ..errors import InputError
from ..publish import file_named
from ..untrusted import number

if TYPE_CHECKING:
    from ..fusion.options import Options
    from ..raster.options import OpenOptions


Adapt = StrEnum("Adapt", "off fast best")
AdaptTerms = StrEnum("AdaptTerms", "sharp paper")
Align = StrEnum("Align", "auto off measure")
Extent = StrEnum("Extent", "intersection pan")
FitBands = StrEnum("FitBands", "all bidx")
FitBy = StrEnum("FitBy", "scene strip folder")
Mtf = StrEnum("Mtf", "auto sensor")


def _lower(value: str) -> str:
    return value.lower()


def _driver(value: str) -> str:
    return {"gtiff": "GTiff", "cog": "COG"}.get(value.lower(), value)


_HELP = tables.read(__file__)

NUMBERS: set[str] = set()
"""Options of all commands that take a number."""


def bundled(command: Callable[..., None], name: str = "") -> Callable[..., None]:
    """A command for Typer of one that takes bundles: a parameter of a dataclass's type becomes an option per field.
    `name`: that of the command, if it is not the function's."""
    taken = _parameters_of(command)
    bundles = {n: _parameters_of(p.annotation).values() for n, p in taken.items() if is_dataclass(p.annotation)}
    helps = _HELP["all"] | _HELP.get(name or command.__name__, {})
    shown = [_with_help(each, helps) for n, p in taken.items() for each in bundles.get(n, [p])]

    @wraps(command)
    def run(**given: Any) -> None:
        made = {
            name: parameter.annotation(**{each.name: given[each.name] for each in bundles[name]})
            if name in bundles
            else given[name]
            for name, parameter in taken.items()
        }
        command(**made)

    run.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in shown}
    return run


def _parameters_of(function: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(function, eval_str=True).parameters


def _with_help(parameter: inspect.Parameter, helps: Mapping[str, str]) -> inspect.Parameter:
    """An option or argument as Typer takes it; choices are known in any case of letters."""
    is_described = get_origin(parameter.annotation) is Annotated
    kind, told = get_args(parameter.annotation) if is_described else (parameter.annotation, typer.Option())
    told = copy(told)
    told.help = helps[parameter.name]
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        told.case_sensitive = False
    if {int, float} & {kind, *get_args(kind)}:
        NUMBERS.update(told.param_decls or ["--" + parameter.name.replace("_", "-")])
    return parameter.replace(kind=parameter.KEYWORD_ONLY, annotation=Annotated[kind, told])


# Options that are no part of a bundle

PanFile = Annotated[str, typer.Argument(metavar="PAN")]
MsFiles = Annotated[list[str], typer.Argument(metavar="MS...")]
Bidx = Annotated[list[str] | None, typer.Option("--bidx", "-b")]
PanFrom = Annotated[str | None, typer.Option(metavar="BANDS")]
Device = Annotated[str, typer.Option(callback=_lower)]
Overwrite = Annotated[bool, typer.Option("--overwrite")]
OutputFile = Annotated[Path, typer.Option("--output", "-o", parser=file_named, metavar="PATH")]
FileToWrite = Annotated[Path | None, typer.Option(parser=file_named, metavar="PATH")]
AsJson = Annotated[bool, typer.Option("--json")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q")]
Debug = Annotated[bool, typer.Option("--debug")]


@dataclass(frozen=True)
class Printing:
    """What a command for one scene prints, and how much of the machine it takes."""

    as_json: AsJson = False
    quiet: Quiet = False
    verbose: Annotated[bool, typer.Option("--verbose", "-v")] = False
    debug: Debug = False
    threads: Annotated[int | None, typer.Option(min=1, max=1024)] = None


@dataclass(frozen=True)
class Fusing:
    """How to fuse: of `fuse`, `check` and `batch`."""

    method: str = models.DEFAULT
    weights: str | None = None
    adapt: Adapt = Adapt.fast
    adapt_seconds: Annotated[float | None, typer.Option(min=0.0)] = None
    adapt_loss: AdaptTerms = AdaptTerms.sharp
    device: Device = "auto"
    precision: Annotated[str, typer.Option(callback=_lower)] = "auto"
    tile_size: Annotated[int, typer.Option(min=64, max=8192)] = 512
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1)] = 0
    align: Align = Align.auto
    mtf: Mtf = Mtf.auto

    def options(self) -> Options:
        from ..fusion.options import Options

        check_finite(adapt_seconds=self.adapt_seconds)
        return Options(**_given(self) | {"method": self.method.lower()})


@dataclass(frozen=True)
class Opening:
    """How to open the pair: of `fuse`, `check` and `batch`."""

    sensor: str = "auto"
    bidx: Bidx = None
    fit_bands: FitBands = FitBands.all
    extent: Extent = Extent.intersection
    nodata: float | None = None
    dtype: str | None = None
    scale: Annotated[str | None, typer.Option(metavar="FACTOR[,OFFSET]")] = None
    pan_from: PanFrom = None
    height: float | None = None
    dem: str | None = None

    def options(self, window: str | None = None, bbox: str | None = None) -> OpenOptions:
        from ..arguments import box_of, scaling_of, window_of
        from ..raster.options import OpenOptions, Scaling
        from ..raster.values import check_dtype

        check_finite(height=self.height)
        factor = "FACTOR or FACTOR,OFFSET, a factor from 1e-30 to 1e30"
        whole = "COL_OFF,ROW_OFF,WIDTH,HEIGHT in whole pixels"
        changed = {
            "bidx": bands_of("--bidx", self.bidx),
            "dtype": None if self.dtype is None else check_dtype(self.dtype.lower()),
            "scale": _parsed("--scale", self.scale, factor, scaling_of) or Scaling(),
            "pan_from": bands_of("--pan-from", self.pan_from),
            "window": _parsed("--window", window, whole, window_of, int),
            "bbox": _parsed("--bbox", bbox, "LEFT,BOTTOM,RIGHT,TOP", box_of),
        }
        return OpenOptions(**_given(self) | changed)


@dataclass(frozen=True)
class Region:
    """Which part of a pair: of `fuse` and `check`."""

    window: str | None = None
    bbox: str | None = None


@dataclass(frozen=True)
class Writing:
    """The file format: of `fuse` and `batch`."""

    driver: Annotated[str, typer.Option(callback=_driver)] = "GTiff"
    co: Annotated[list[str] | None, typer.Option("--co", metavar="KEY=VALUE")] = None
    overviews: bool | None = None


def _given(bundle: Any) -> dict[str, Any]:
    """The values of a bundle by name, choices as plain text."""
    values = {each.name: getattr(bundle, each.name) for each in fields(bundle)}
    return {name: value.value if isinstance(value, StrEnum) else value for name, value in values.items()}


def check_finite(**given: float | None) -> None:
    """Raises InputError for options that are no finite numbers."""
    for name, value in given.items():
        if value is not None and not math.isfinite(value):
            raise InputError(f"--{name.replace('_', '-')} takes a number, not {value}")


def figure_limits(texts: Sequence[str]) -> dict[str, float]:
    limits: dict[str, float] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        try:
            limit, name = number(value), name.strip().lower()
            if not sign or not math.isfinite(limit):
                raise ValueError
            limits[name] = max(limit, limits.get(name, limit))
        except ValueError:
            raise InputError(f"--fail-under takes FIGURE=VALUE, e.g. FIDELITY=0.7, not '{text}'") from None
    return limits


def bands_of(option: str, given: str | Sequence[str] | None) -> list[int | str] | None:
    """Numbers and names of bands, of an option that may be given several times."""
    texts = [given] if isinstance(given, str) else given
    if not texts:
        return None
    bands: list[int | str] = []
    for text in texts:
        parts = [part.strip() for part in text.split(",") if part.strip()]
        if not parts:
            raise InputError(f"{option} takes numbers or names of bands separated by commas, not '{text}'")
        for part in parts:
            numbers = part.split()
            if re.fullmatch(r"\d+\s*(-|:|\.\.)\s*\d+|[+-]\d+|0+", part):
                raise InputError(f"{option} takes bands one by one and from 1 on (1,2,3), not '{part}'")
            bands += map(int, numbers) if all(re.fullmatch(r"\d{1,9}", n) for n in numbers) else [part]
    return bands


def _parsed(option: str, text: str | None, words: str, plain: Callable[[Any], Any], kind: type = float) -> Any:
    """What the numbers in a text, between commas or spaces, give; None without a text."""
    try:
        return None if text is None else plain([number(part, kind) for part in text.replace(",", " ").split()])
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{option} takes {words}, not '{text}'") from None
