"""The options that commands share, and how their texts become values."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError


class Adapt(StrEnum):
    off = "off"
    fast = "fast"
    best = "best"


class Align(StrEnum):
    auto = "auto"
    off = "off"
    measure = "measure"


class Mtf(StrEnum):
    auto = "auto"
    sensor = "sensor"


class FitBands(StrEnum):
    all = "all"
    bidx = "bidx"


class AdaptTerms(StrEnum):
    sharp = "sharp"
    paper = "paper"


class Extent(StrEnum):
    intersection = "intersection"
    pan = "pan"


def _lower(value: str) -> str:
    return value.lower()


def _driver(value: str) -> str:
    return {"gtiff": "GTiff", "cog": "COG"}.get(value.lower(), value)


Sensor = Annotated[str, typer.Option(help="Sensor whose MTF is used: auto (from the metadata), generic or a name.")]
Bidx = Annotated[
    list[str] | None,
    typer.Option(
        "--bidx", "-b", help="MS bands, by number (from 1, over all MS files) or name: 5,3,2 or red,green,blue."
    ),
]
Rgb = Annotated[
    str | None,
    typer.Option(
        help="Write an 8-bit picture OUT_rgb.tif, too: true (colours), or bands, e.g. 5,3,2.", metavar="BANDS"
    ),
]
StretchOf = Annotated[
    str,
    typer.Option(
        "--stretch",
        help="Of --rgb: auto (percentiles), LOW,HIGH in DN, or a .json that keeps it: made, or used if it is there.",
        metavar="STRETCH",
    ),
]
SaveFit = Annotated[
    Path | None,
    typer.Option(
        "--save-fit",
        help="Keep what the fit found (statistics, tailor, gains, shift) in this .safetensors file.",
        metavar="FILE",
    ),
]
KeptFit = Annotated[
    Path | None,
    typer.Option("--fit", help="Take the fit of this file instead of fitting the scene.", metavar="FILE"),
]
FittedBands = Annotated[
    FitBands,
    typer.Option(
        case_sensitive=False, help="Bands that the scene is fitted with: all of the MS, or those of --bidx only."
    ),
]
Nodata = Annotated[float | None, typer.Option(help="Nodata value of inputs and output; default: the files' own.")]
Alignment = Annotated[
    Align,
    typer.Option(
        case_sensitive=False,
        help="Shift of the MS against the PAN: measured and corrected, left alone, or only reported.",
    ),
]
Optics = Annotated[
    Mtf,
    typer.Option(
        case_sensitive=False,
        help="MTF of networks: what optics explain of the measured one, the sensor's, or as measured.",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.", callback=_lower)]
Method = Annotated[
    str, typer.Option(help="A network (glpnet, fusionnet ...) or a classical method (exp, gsa, bt-h ...); see docs.")
]
Weights = Annotated[str | None, typer.Option(help="Weights file (.safetensors) instead of the installed ones.")]
Adaptation = Annotated[Adapt, typer.Option(case_sensitive=False, help="Adaptation of the network to the scene (ERFT).")]
AdaptLoss = Annotated[
    AdaptTerms,
    typer.Option(
        case_sensitive=False, help="What the adaptation asks for: a sharp and clean result, or the terms of the paper."
    ),
]
AdaptSeconds = Annotated[float | None, typer.Option(help="Upper bound of the adaptation's time.", min=0.0)]
Precision = Annotated[str, typer.Option(help="auto, float32 or bfloat16.", callback=_lower)]
TileSize = Annotated[
    int, typer.Option(help="Side of the tiles in PAN pixels; the pixels do not depend on it.", min=64, max=8192)
]
Seed = Annotated[int, typer.Option(help="Seed of the sampling and the adaptation.", min=0, max=2**32 - 1)]
PixelWindow = Annotated[str | None, typer.Option(help="Part to fuse, PAN pixels: COL_OFF,ROW_OFF,WIDTH,HEIGHT.")]
Bounds = Annotated[str | None, typer.Option(help="Part to fuse, PAN's CRS: LEFT,BOTTOM,RIGHT,TOP.")]
Footprint = Annotated[
    Extent, typer.Option(case_sensitive=False, help="intersection of the footprints, or the whole PAN.")
]
Dtype = Annotated[str | None, typer.Option(help="Output type, e.g. uint16; default: the MS's.")]
Score = Annotated[bool, typer.Option(help="Measure the quality of what was written.")]
PanFile = Annotated[str, typer.Argument(help="Panchromatic raster: anything that GDAL opens.", metavar="PAN")]
MsFiles = Annotated[
    list[str], typer.Argument(help="Multispectral raster, or several with the bands in order.", metavar="MS...")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing outputs.")]
Driver = Annotated[str, typer.Option(help="GTiff or COG.", callback=_driver)]
Co = Annotated[list[str] | None, typer.Option("--co", help="Creation option of the driver.", metavar="KEY=VALUE")]
Overviews = Annotated[
    bool | None, typer.Option(help="Build overviews; default: from 4096 pixels on (a COG always has them).")
]
Json = Annotated[bool, typer.Option("--json", help="Print the report as JSON instead of a table.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log each stage to stderr.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


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


def scene_options(
    sensor: str,
    bidx: Sequence[str] | None,
    fit_bands: FitBands,
    nodata: float | None,
    extent: Extent,
    dtype: str | None,
    window: str | None = None,
    bbox: str | None = None,
) -> dict[str, Any]:
    """The arguments of `Scene.open`."""
    return {
        "sensor": sensor,
        "bidx": bands_of("--bidx", bidx),
        "fit_bands": fit_bands.value,
        "nodata": nodata,
        "extent": extent.value,
        "window": _pixel_window(window),
        "bbox": _bounds(bbox),
        "dtype": _dtype(dtype),
    }


def _split(text: str) -> list[str]:
    return text.replace(",", " ").split()


def bands_of(option: str, texts: Sequence[str] | None) -> list[int | str] | None:
    """Numbers and names of bands, of an option that may be given several times."""
    if not texts:
        return None
    bands: list[int | str] = []
    for text in texts:
        parts = [part.strip() for part in text.split(",") if part.strip()]
        if not parts:
            raise InputError(f"{option} takes numbers or names of bands separated by commas, not '{text}'")
        for part in parts:
            numbers = part.split()
            bands += map(int, numbers) if all(re.fullmatch(r"[+-]?\d+", n) for n in numbers) else [part]
    return bands


def _whole_numbers(option: str, text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        values = [int(t) for t in _split(text)]
    except ValueError:
        values = []
    if not values:
        raise InputError(f"{option} takes whole numbers separated by commas, not '{text}'")
    return values


def _pixel_window(text: str | None) -> tuple[int, int, int, int] | None:
    values = _whole_numbers("--window", text)
    if values is None:
        return None
    if len(values) != 4 or min(values[2:]) < 1:
        raise InputError(f"--window takes COL_OFF,ROW_OFF,WIDTH,HEIGHT in whole pixels, not '{text}'")
    col, row, width, height = values
    return row, row + height, col, col + width


def _bounds(text: str | None) -> tuple[float, float, float, float] | None:
    if text is None:
        return None
    try:
        left, bottom, right, top = (float(t) for t in _split(text))
        if not all(math.isfinite(v) for v in (left, bottom, right, top)):
            raise ValueError
    except ValueError:
        raise InputError(f"--bbox takes LEFT,BOTTOM,RIGHT,TOP, not '{text}'") from None
    return left, bottom, right, top


def _dtype(name: str | None) -> str | None:
    from ..raster.writer import check_dtype

    return None if name is None else check_dtype(name.lower())
