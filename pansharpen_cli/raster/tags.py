"""What an output says of itself: the names, units and tags of its inputs, and how its DN were written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from rasterio.enums import ColorInterp

from .options import Scaling
from .scene import Scene
from .source import rpcs_of

PROVENANCE = "PANSHARPEN"
"""Tag domain of the provenance."""


_GEOMETRY_TAGS = re.compile(
    r"^(AREA_OR_POINT|STATISTICS_.*|OVR_.*|TIFFTAG_[XY]RESOLUTION|TIFFTAG_RESOLUTIONUNIT|.*GDAL.*)$"
)


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


def carry_over(target, scene: Scene, picture: bool) -> None:
    """Take over what describes the bands and the acquisition; what describes the old grid stays behind."""
    index = 0
    interpretation = []
    for source in scene.ms:
        ds = getattr(source.dataset, "src_dataset", source.dataset)
        for band in source.bands:
            index += 1
            if name := ds.descriptions[band - 1] or scene.standard_names[index - 1]:
                target.set_band_description(index, name)
            if ds.units[band - 1] and not picture:
                target.set_band_unit(index, ds.units[band - 1])
            interpretation.append(ds.colorinterp[band - 1])
            tags = {k: v for k, v in ds.tags(band).items() if not _GEOMETRY_TAGS.match(k)}
            if tags:
                target.update_tags(index, **tags)
            if ds.tags(band, ns="IMAGERY"):
                target.update_tags(index, ns="IMAGERY", **ds.tags(band, ns="IMAGERY"))
    if picture:
        target.colorinterp = _COLOURS.values()
    else:
        factor, offset = scene.scale  # what GDAL makes of the values is what it makes of the MS's
        known = [(s.dataset.scales[b - 1], s.dataset.offsets[b - 1]) for s in scene.ms for b in s.bands]
        target.scales = [own / factor for own, _ in known]
        target.offsets = [base - own * offset / factor for own, base in known]
        target.colorinterp = _named_colours(scene.standard_names, interpretation)
    for source in reversed(scene.ms):
        ds = getattr(source.dataset, "src_dataset", source.dataset)
        target.update_tags(**{k: v for k, v in ds.tags().items() if not _GEOMETRY_TAGS.match(k)})
        for domain in ("IMAGERY", "IMD"):
            if ds.tags(ns=domain):
                target.update_tags(ns=domain, **ds.tags(ns=domain))
    pan = scene.pan.dataset
    useful = {f"PAN_{k}": v for k, v in pan.tags().items() if _PAN_TAGS.search(k)}
    useful |= {f"PAN_{k}": v for k, v in pan.tags(ns="IMAGERY").items()}
    target.update_tags(**useful, AREA_OR_POINT="Area")
    if (rpcs := rpcs_of(pan)) is not None:  # they count from the centre of the PAN's first pixel
        rows, cols = scene.window.corner
        rpcs.line_off, rpcs.samp_off = rpcs.line_off - rows, rpcs.samp_off - cols
        target.rpcs = rpcs


_COLOURS = {"red": ColorInterp.red, "green": ColorInterp.green, "blue": ColorInterp.blue}


def _named_colours(names: Sequence[str | None], own: Sequence[ColorInterp]) -> list[ColorInterp]:
    """Red, green and blue by the bands' standard names, once each; else the bands' own interpretation.

    What GDAL guesses of band 1 (grey) or 4 (alpha), and colours of bands whose names say otherwise, are dropped.
    """
    colours: list[ColorInterp] = []
    for name, interpretation in zip(names, own, strict=True):
        colour = _COLOURS.get(name or "")
        guessed = interpretation == ColorInterp.alpha
        guessed |= name is not None and interpretation in (*_COLOURS.values(), ColorInterp.gray)
        colours.append(colour if colour and colour not in colours
                       else ColorInterp.undefined if guessed else interpretation)  # fmt: skip
    return colours
