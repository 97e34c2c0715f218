"""What an output says of itself: the names, units and tags of its inputs, and how its DN were written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from rasterio.enums import ColorInterp

from .options import Scaling
from .scene import Scene
from .side_files import tags_of
from .source import rpcs_of

PROVENANCE = "PANSHARPEN"
"""Tag domain of the provenance."""

_OF_THE_FILE = re.compile(
    r"^(AREA_OR_POINT|STATISTICS_.*|OVR_.*|TIFFTAG_[XY]RESOLUTION|TIFFTAG_RESOLUTIONUNIT|.*GDAL.*"
    r"|NODATA_VALUES|TIFFTAG_(MIN|MAX)SAMPLEVALUE|INTERNAL_MASK_FLAGS_\d+"
    r"|(.*#)?(_FillValue|missing_value|scale_factor|add_offset|valid_(min|max|range)|actual_range|_Unsigned))$",
    re.IGNORECASE,
)
"""Tags about the grid and the stored values of an input. GDAL (NODATA_VALUES) and readers of netCDF's conventions would
read those of the output by them."""

_PAN_TAGS = re.compile(r"(DATE|TIME|SATELLITE|SPACECRAFT|SENSOR|SUN|VIEW|OFF_?NADIR|CATALOG|CLOUD)", re.IGNORECASE)

SCALE_TAG = "WRITTEN_SCALE"
"""Tag of a file whose values are DN times a factor, plus an offset."""


def scale_of(dataset) -> Scaling | None:
    """How DN were written in a file of ours; None where it does not tell."""
    told = dataset.tags(ns=PROVENANCE).get(SCALE_TAG, "").split()
    with suppress(ValueError):
        factor, offset = map(float, told)
        if 0 < factor < np.inf and np.isfinite(offset):
            return Scaling(factor, offset)
    return None


def units_of(dataset, bands: Sequence[int], scale: Scaling) -> list[tuple[float, float]]:
    """What a file says of each band that DN, which it holds in a `scale`, are to be multiplied with and moved by."""
    known = [_scaling(dataset.scales[b - 1], dataset.offsets[b - 1]) for b in bands]
    return [(own * scale.factor, base + own * scale.offset) for own, base in known]


def carry_over(target, scene: Scene, picture: bool) -> None:
    """Take over what describes the bands and the acquisition; what describes the old grid and values stays behind."""
    bands = [(source.dataset, band) for source in scene.ms for band in source.bands]
    for index, (ds, band) in enumerate(bands, 1):
        if name := ds.descriptions[band - 1] or scene.standard_names[index - 1]:
            target.set_band_description(index, name)
        if ds.units[band - 1] and not picture:
            target.set_band_unit(index, ds.units[band - 1])
        if tags := {k: v for k, v in tags_of(ds, band).items() if not _OF_THE_FILE.match(k)}:
            target.update_tags(index, **tags)
        if imagery := tags_of(ds, band, ns="IMAGERY"):
            target.update_tags(index, ns="IMAGERY", **imagery)
    if picture:
        target.colorinterp = _COLOURS.values()
    else:
        factor, offset = scene.scale  # what GDAL makes of the values is what it makes of the MS's
        known = [_scaling(ds.scales[b - 1], ds.offsets[b - 1]) for ds, b in bands]
        target.scales = [own / factor for own, _ in known]
        target.offsets = [base - own * offset / factor for own, base in known]
        own_colours = [ds.colorinterp[b - 1] for ds, b in bands]
        target.colorinterp = _named_colours(scene.standard_names, own_colours)
    for source in reversed(scene.ms):
        ds = source.dataset
        target.update_tags(**{k: v for k, v in tags_of(ds).items() if not _OF_THE_FILE.match(k)})
        for domain in ("IMAGERY", "IMD"):
            if told := tags_of(ds, ns=domain):
                target.update_tags(ns=domain, **told)
    pan = scene.pan.dataset
    useful = {f"PAN_{k}": v for k, v in pan.tags().items() if _PAN_TAGS.search(k)}
    useful |= {f"PAN_{k}": v for k, v in tags_of(pan, ns="IMAGERY").items()}
    target.update_tags(**useful, AREA_OR_POINT="Area")
    if (rpcs := rpcs_of(pan)) is not None:  # they count from the centre of the PAN's first pixel
        rows, cols = scene.window.corner
        rpcs.line_off, rpcs.samp_off = rpcs.line_off - rows, rpcs.samp_off - cols
        target.rpcs = rpcs


def _scaling(scale: float, offset: float) -> tuple[float, float]:
    """What a file says that its DN are to be multiplied with and moved by; nothing where it is no number, or 0."""
    return (scale, offset) if np.isfinite([scale, offset]).all() and scale != 0 else (1.0, 0.0)


_COLOURS = {"red": ColorInterp.red, "green": ColorInterp.green, "blue": ColorInterp.blue}


def _named_colours(names: Sequence[str | None], own: Sequence[ColorInterp]) -> list[ColorInterp]:
    """Red, green and blue by the bands' standard names, once each; else the bands' own interpretation. What GDAL
    guesses of band 1 (grey) or 4 (alpha), and colours of bands whose names say otherwise, are dropped."""
    colours: list[ColorInterp] = []
    for name, interpretation in zip(names, own, strict=True):
        colour = _COLOURS.get(name or "")
        guessed = interpretation == ColorInterp.alpha
        guessed |= name is not None and interpretation in (*_COLOURS.values(), ColorInterp.gray)
        colours.append(colour if colour and colour not in colours
                       else ColorInterp.undefined if guessed else interpretation)  # fmt: skip
    return colours
