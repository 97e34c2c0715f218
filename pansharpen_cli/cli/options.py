"""The options that commands share, and how their texts become values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
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


class AdaptTerms(StrEnum):
    sharp = "sharp"
    paper = "paper"


class Extent(StrEnum):
    intersection = "intersection"
    pan = "pan"


Sensor = Annotated[str, typer.Option(help="Sensor whose MTF is used: auto (from the metadata), generic or a name.")]
Bidx = Annotated[str | None, typer.Option(help="MS bands to use, 1-based over all MS files, e.g. 1,2,3,7.")]
Nodata = Annotated[float | None, typer.Option(help="Nodata value of inputs and output; default: the files' own.")]
Alignment = Annotated[
    Align, typer.Option(help="Shift of the MS against the PAN: measured and corrected, left alone, or only reported.")
]
Optics = Annotated[
    Mtf, typer.Option(help="MTF of networks: what optics explain of the measured one, the sensor's, or as measured.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Method = Annotated[
    str, typer.Option(help="A network (glpnet, fusionnet ...) or a classical method (exp, gsa, bt-h ...); see docs.")
]
Weights = Annotated[str | None, typer.Option(help="Weights file (.safetensors) instead of the installed ones.")]
Adaptation = Annotated[Adapt, typer.Option(help="Adaptation of the network to the scene (ERFT).")]
AdaptLoss = Annotated[
    AdaptTerms, typer.Option(help="What the adaptation asks for: a sharp and clean result, or the terms of the paper.")
]
AdaptSeconds = Annotated[float | None, typer.Option(help="Upper bound of the adaptation's time.", min=0.0)]
Precision = Annotated[str, typer.Option(help="auto, float32 or bfloat16.")]
TileSize = Annotated[
    int, typer.Option(help="Side of the tiles in PAN pixels; the pixels do not depend on it.", min=64, max=8192)
]
Seed = Annotated[int, typer.Option(help="Seed of the sampling and the adaptation.", min=0, max=2**32 - 1)]
PixelWindow = Annotated[str | None, typer.Option(help="Part to fuse, PAN pixels: COL_OFF,ROW_OFF,WIDTH,HEIGHT.")]
Bounds = Annotated[str | None, typer.Option(help="Part to fuse, PAN's CRS: LEFT,BOTTOM,RIGHT,TOP.")]
Footprint = Annotated[Extent, typer.Option(help="intersection of the footprints, or the whole PAN.")]
Dtype = Annotated[str | None, typer.Option(help="Output type, e.g. uint16; default: the MS's.")]
Score = Annotated[bool, typer.Option(help="Measure the quality of what was written.")]
PanFile = Annotated[str, typer.Argument(help="Panchromatic raster: anything that GDAL opens.", metavar="PAN")]
MsFiles = Annotated[
    list[str], typer.Argument(help="Multispectral raster, or several with the bands in order.", metavar="MS...")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing outputs.")]
Driver = Annotated[str, typer.Option(help="GTiff or COG.")]
Co = Annotated[list[str] | None, typer.Option("--co", help="Creation option of the driver.", metavar="KEY=VALUE")]
Overviews = Annotated[bool, typer.Option(help="Build overviews (a COG always has them).")]
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
    bidx: str | None,
    nodata: float | None,
    extent: Extent,
    dtype: str | None,
    window: str | None = None,
    bbox: str | None = None,
) -> dict[str, Any]:
    """The arguments of `Scene.open`."""
    return {
        "sensor": sensor,
        "bidx": whole_numbers("--bidx", bidx),
        "nodata": nodata,
        "extent": extent.value,
        "window": _pixel_window(window),
        "bbox": _bounds(bbox),
        "dtype": _dtype(dtype),
    }


def _split(text: str) -> list[str]:
    return text.replace(",", " ").split()


def whole_numbers(option: str, text: str | None) -> list[int] | None:
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
    values = whole_numbers("--window", text)
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

    return None if name is None else check_dtype(name)
