"""The options that commands share, in bundles, and how their texts become values."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from ..publish import file_named

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


def bundled(command: Callable[..., None]) -> Callable[..., None]:
    """A command for Typer of one that takes bundles: a parameter of a dataclass's type becomes an option per field."""
    taken = inspect.signature(command, eval_str=True).parameters
    bundles = {name: _options_of(p.annotation) for name, p in taken.items() if is_dataclass(p.annotation)}
    shown = [
        each.replace(kind=each.KEYWORD_ONLY)
        for name, parameter in taken.items()
        for each in bundles.get(name, [parameter])
    ]

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


def _options_of(bundle: Any) -> list[inspect.Parameter]:
    return list(inspect.signature(bundle, eval_str=True).parameters.values())


# Options that are no part of a bundle

PanFile = Annotated[str, typer.Argument(help="Panchromatic raster: anything that GDAL opens.", metavar="PAN")]
MsFiles = Annotated[
    list[str], typer.Argument(help="Multispectral raster, or several with the bands in order.", metavar="MS...")
]
Sensor = Annotated[str, typer.Option(help="Sensor whose MTF is used: auto (from the metadata), generic or a name.")]
Bidx = Annotated[
    list[str] | None,
    typer.Option(
        "--bidx", "-b", help="MS bands, by number (from 1, over all MS files) or name: 5,3,2 or red,green,blue."
    ),
]
Alignment = Annotated[
    Align,
    typer.Option(
        case_sensitive=False,
        help="Shift of the MS against the PAN. auto: correct it; off: ignore it; measure: report it only.",
    ),
]
Nodata = Annotated[float | None, typer.Option(help="Nodata value of inputs and output; default: the files' own.")]
PanFrom = Annotated[
    str | None,
    typer.Option(help="Bands whose mean is the PAN, of the files on its grid: 1,2,3,4; default: all.", metavar="BANDS"),
]
Height = Annotated[
    float | None,
    typer.Option(help="Metres above the ellipsoid, of pairs that RPCs alone locate; default: the RPCs' own."),
]
Dem = Annotated[str | None, typer.Option(help="Raster of heights for such pairs, instead of --height.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.", callback=_lower)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing outputs.")]

Report = Annotated[
    Path | None, typer.Option(help="Write the report to this .html or .json file.", parser=file_named, metavar="PATH")
]
Score = Annotated[bool, typer.Option(help="Measure the quality of what was written.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Threads = Annotated[int | None, typer.Option(help="Processor threads; default: all cores.", min=1, max=1024)]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@dataclass(frozen=True)
class Printing:
    """What a command for one scene prints, and how much of the machine it takes."""

    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON instead of a table.")] = False
    quiet: Quiet = False
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log each stage to stderr and print all.")] = False
    debug: Debug = False
    threads: Threads = None


@dataclass(frozen=True)
class Fusing:
    """How to fuse: of `fuse`, `check` and `batch`."""

    method: Annotated[
        str,
        typer.Option(
            help="A network (glpnet; for comparison: fusionnet ...) or a classical method (gsa, bt-h ...); see docs."
        ),
    ] = "glpnet"
    weights: Annotated[str | None, typer.Option(help="Weights file (.safetensors) instead of the installed ones.")] = (
        None
    )
    adapt: Annotated[
        Adapt, typer.Option(case_sensitive=False, help="Adaptation of the network to the scene (ERFT).")
    ] = Adapt.fast
    adapt_seconds: Annotated[float | None, typer.Option(help="Most seconds that the adaptation may take.", min=0.0)] = (
        None
    )
    adapt_loss: Annotated[
        AdaptTerms,
        typer.Option(
            case_sensitive=False,
            help="Loss of the adaptation. sharp: a sharp and clean result; paper: the terms of the paper.",
        ),
    ] = AdaptTerms.sharp
    device: Device = "auto"
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.", callback=_lower)] = "auto"
    tile_size: Annotated[
        int, typer.Option(help="Side of the tiles in PAN pixels; the pixels do not depend on it.", min=64, max=8192)
    ] = 512
    seed: Annotated[int, typer.Option(help="Seed of the sampling and the adaptation.", min=0, max=2**32 - 1)] = 0
    align: Alignment = Align.auto
    mtf: Annotated[
        Mtf,
        typer.Option(
            case_sensitive=False,
            help="MTF of networks: auto (measured on the scene; the table's where it cannot be) or sensor (its table).",
        ),
    ] = Mtf.auto

    def options(self) -> Options:
        from ..fusion.options import Options

        check_finite(adapt_seconds=self.adapt_seconds)
        return Options(**_given(self) | {"method": self.method.lower()})


@dataclass(frozen=True)
class Opening:
    """How to open the pair: of `fuse`, `check` and `batch`."""

    sensor: Sensor = "auto"
    bidx: Bidx = None
    fit_bands: Annotated[
        FitBands,
        typer.Option(case_sensitive=False, help="Bands to fit the scene with: all of the MS, or those of --bidx only."),
    ] = FitBands.all
    extent: Annotated[
        Extent,
        typer.Option(case_sensitive=False, help="Area to fuse: the intersection of the footprints, or the whole PAN."),
    ] = Extent.intersection
    nodata: Nodata = None
    dtype: Annotated[str | None, typer.Option(help="Output type, e.g. uint16; default: the MS's.")] = None
    scale: Annotated[
        str | None,
        typer.Option(help="Write DN times FACTOR, plus OFFSET; the file tells how.", metavar="FACTOR[,OFFSET]"),
    ] = None
    pan_from: PanFrom = None
    height: Height = None
    dem: Dem = None

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

    window: Annotated[str | None, typer.Option(help="Part to fuse, PAN pixels: COL_OFF,ROW_OFF,WIDTH,HEIGHT.")] = None
    bbox: Annotated[str | None, typer.Option(help="Part to fuse, PAN's CRS: LEFT,BOTTOM,RIGHT,TOP.")] = None


@dataclass(frozen=True)
class Writing:
    """The file format: of `fuse` and `batch`."""

    driver: Annotated[str, typer.Option(help="GTiff or COG.", callback=_driver)] = "GTiff"
    co: Annotated[
        list[str] | None, typer.Option("--co", help="Creation option of the driver.", metavar="KEY=VALUE")
    ] = None
    overviews: Annotated[
        bool | None, typer.Option(help="Build overviews; default: from 4096 pixels on (a COG always has them).")
    ] = None


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
            limit, name = float(value), name.strip().lower()
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
        return None if text is None else plain([kind(part) for part in text.replace(",", " ").split()])
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{option} takes {words}, not '{text}'") from None
