"""An MS in another CRS, or turned, on a grid in the PAN's orientation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from affine import Affine
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from ..errors import InputError, reason_of
from .geometry import Phase, Window
from .grid import Grid, crs_name
from .messages import GDAL_ERRORS
from .source import Source, Warped
from .warper_view import seen_by_the_warper

LOST = 0.05
"""Share of the MS's pixels on the PAN that may be lost by warping without a word: the rim and a place or two."""


class Aligned(NamedTuple):
    """Grids of a PAN and an MS in one CRS and orientation, their phase, and the sources of the MS on that grid."""

    pan: Grid
    ms: Grid
    phase: Phase
    sources: list[Source]
    warped: bool = False


def aligned(
    pan: Grid, ms: Grid, pan_source: Source, sources: list[Source], stack: ExitStack, notes: list[str]
) -> Aligned:
    """Grids, phase and sources of an MS, which in another CRS or rotated is wrapped in one WarpedVRT per file. `stack`
    closes these; `notes` receives what a user ought to know. Raises InputError for what lies nowhere."""
    if (pan.crs is None) != (ms.crs is None):
        missing, other = (pan_source, sources[0]) if pan.crs is None else (sources[0], pan_source)
        raise InputError(
            f"{missing.label} has no CRS but {other.label} has ({crs_name(other.dataset.crs)}); "
            "set it with gdal_edit.py -a_srs or rio edit-info --crs"
        )
    if pan.crs is None:
        ratios = pan.height / ms.height, pan.width / ms.width
        if pan.transform.is_identity and ms.transform.is_identity:
            ratio = round(ratios[0])
            if max(abs(r - ratio) * n for r, n in zip(ratios, (ms.height, ms.width), strict=True)) > ratio:
                raise InputError(
                    f"{pan_source.label} and {sources[0].label} have no georeferencing and their shapes have no "
                    f"integral ratio ({ratios[0]:.4g} x {ratios[1]:.4g})"
                )
            notes.append(f"no georeferencing: upper-left corners taken as equal, ratio {ratio} from the shapes")
            ms = Grid(None, Affine.scale(ratio), ms.height, ms.width)
        else:
            notes.append("no CRS on PAN and MS: their transforms are taken to be in the same one")
    placeless = [s for s in (pan_source, sources[0]) if s.dataset.transform.is_identity]
    if len(placeless) == 1:
        without, placed = placeless[0], pan_source if placeless[0] is sources[0] else sources[0]
        raise InputError(
            f"{without.label} has no georeferencing and {placed.label} has: is its world file (.tfw, .wld, .j2w) or "
            ".aux.xml lost? Put it back, or set the corners with gdal_edit.py -a_ullr"
        )
    ms = ms.turned_towards(pan)
    if pan.crs == ms.crs:
        phase = pan.phase_of(ms)
        if phase is not None:
            return Aligned(pan, ms, phase, sources)
        why = "is rotated or mirrored against"
    else:
        alike = str(ms.crs) == str(pan.crs)
        name = crs_name(ms.crs)
        why = f"has the CRS's name ({name}) and not the meaning of" if alike else f"is in another CRS ({name}) than"
    if pan.crs is None:
        raise InputError(f"{sources[0].label} {why} {pan_source.label} and there is no CRS to warp it with")
    notes.append(f"{sources[0].label} {why} {pan_source.label}: warped (cubic) to the PAN's orientation")
    try:
        target = _warp_target(pan, ms)
        phase, warped = pan.phase_of(target), _warped(pan, ms, target, sources, stack)
        assert phase is not None
        lost = _lost(pan, ms, phase, target, sources[0], warped[0])
        if lost > LOST:
            part = f"{lost:.0%} of the pixels of {sources[0].label} that lie on the PAN"
            notes.append(f"warping loses about {part}: they are nodata")
        return Aligned(pan, target, phase, warped, True)
    except (*GDAL_ERRORS, ValueError, OverflowError, RuntimeError) as error:
        text = reason_of(error)[:200]
        if "coordinate operations" in text:
            text = f"nothing leads from there to {crs_name(pan.crs)}"
        raise InputError(f"{sources[0].label} {why} {pan_source.label} and cannot be warped: {text}") from error


def _warped(pan: Grid, ms: Grid, target: Grid, sources: list[Source], stack: ExitStack) -> list[Source]:
    """The sources, which read from one WarpedVRT per file."""
    transform, crs = _for_the_warper(ms)
    made: dict[str, Warped] = {}
    for label, own in ((s.label, s) for s in sources):
        if label in made:
            continue
        numbers = sorted({band for s in sources if s.label == label for band in s.bands})
        first = own.part.corner if own.part is not None else (0, 0)
        whole = transform * Affine.translation(-first[1], -first[0])
        view = seen_by_the_warper(own, numbers, whole, stack)
        grid = {"transform": target.transform, "height": target.height, "width": target.width}
        options = {"resampling": Resampling.cubic, "tolerance": 1e-6, "add_alpha": True}
        vrt = WarpedVRT(view, src_crs=crs, crs=pan.crs, **grid, **options)
        made[label] = Warped(stack.enter_context(vrt), numbers)
    return [replace(s, warped=made[s.label]) for s in sources]


def _for_the_warper(grid: Grid) -> tuple[Affine, Any]:
    """Transform and CRS of a grid, in which longitudes are counted from its middle where they leave the range from -180
    to 180: GDAL's warper finds nothing beyond."""
    transform, crs = grid.transform, grid.crs
    if crs is not None and crs.is_geographic and not -180 <= grid.bounds[0] <= grid.bounds[2] <= 180:
        middle = (grid.bounds[0] + grid.bounds[2]) / 2
        transform = Affine.translation(-middle, 0) * transform
        text = re.sub(r'PRIMEM\["[^"]*",([^],]+)(,AUTHORITY\[[^]]*\])?\]', f'PRIMEM["middle",{middle!r}]', crs.to_wkt())
        crs = type(crs).from_wkt(re.sub(r',AUTHORITY\["[^"]*","[^"]*"\]\]$', "]", text))
    return transform, crs


def _lost(pan: Grid, ms: Grid, phase: Phase, target: Grid, original: Source, warped: Source) -> float:
    """Share of 64 places on the PAN where the MS is valid as it is but not once warped; 0 where the MS is valid in none
    of them."""
    from rasterio.warp import transform

    rows, cols = ((np.arange(8) + 0.5) / 8 * (last - first) + first for first, last in pan.overlap(phase, target).spans)
    places = [pan.transform * (c, r) for r in rows for c in cols]
    xs, ys = map(list, zip(*places, strict=True))
    if pan.crs != ms.crs:
        xs, ys = transform(pan.crs, ms.crs, xs, ys)
    if ms.crs is not None:
        xs = ms.turned(xs) if ms.crs.is_geographic else _unrolled(xs, ys, places, pan, ms)
    there, seen = 0, 0
    for x, y, (px, py) in zip(xs, ys, places, strict=True):
        if not np.isfinite([x, y]).all():
            continue
        (col, row), (tc, tr) = ~ms.transform * (x, y), ~target.transform * (px, py)
        if not (2 <= col < ms.width - 2 and 2 <= row < ms.height - 2):
            continue
        if original.read(_pixels(row, col, 2))[1].all():
            there += 1
            seen += bool(warped.read(_pixels(tr, tc, 0))[1].all())
    return 1 - seen / there if there else 0.0


def _unrolled(xs: list[float], ys: list[float], places: Sequence[tuple[float, float]], pan: Grid, ms: Grid) -> list:
    """The same places a world's width further where the MS, in a CRS that shows the world unrolled, runs across its
    end, as in Web Mercator beyond 180 degrees."""
    from rasterio.warp import transform

    west, east = transform("EPSG:4326", ms.crs, [-179.999999, 179.999999], [0, 0])[0]
    left, right = (x for x, _ in (ms.transform * corner for corner in ((0, 0), (ms.width, 0))))
    turned = []
    for x in xs:
        others = [x + turn for turn in (west - east, east - west) if min(left, right) < x + turn < max(left, right)]
        turned.append(others[0] if others and not min(left, right) < x < max(left, right) else x)
    back = np.array(transform(ms.crs, pan.crs, turned, ys)[:2]).T
    near = np.abs(back - np.array(places)).max(1) < abs(pan.transform.a) + abs(pan.transform.b)
    return [new if same else x for new, same, x in zip(turned, near, xs, strict=True)]


def _pixels(row: float, col: float, reach: int) -> Window:
    """The pixel of a place and its neighbours."""
    return Window.at(int(row), int(col), (1, 1)).widened(reach)


def _warp_target(pan: Grid, ms: Grid) -> Grid:
    """A grid in the PAN's orientation with the MS's pixel size, over the MS's footprint."""
    from rasterio.warp import transform

    def in_pan(col, row):
        x, y = ms.transform * (col, row)
        if pan.crs != ms.crs:
            xs, (y,) = transform(ms.crs, pan.crs, [x], [y])
            (x,) = pan.turned(xs) if pan.crs is not None and pan.crs.is_geographic else xs
        return ~pan.transform * (x, y)

    middle = ms.width / 2, ms.height / 2
    origin = in_pan(*middle)
    steps = [np.subtract(in_pan(middle[0] + dc, middle[1] + dr), origin) for dc, dr in ((1, 0), (0, 1))]
    size = [float(np.hypot(*step)) for step in steps]
    ratio = float(np.sqrt(size[0] * size[1]))
    sides = [(along, side) for along in np.linspace(0, 1, 21) for side in (0, 1)]
    border = [(c * ms.width, r * ms.height) for c, r in (*sides, *(each[::-1] for each in sides))]
    cols, rows = np.array([in_pan(*p) for p in border]).T
    if not np.isfinite([cols, rows]).all() or not 0 < ratio < np.inf:
        raise ValueError("its footprint has no place in the PAN's CRS")
    first = np.floor([cols.min(), rows.min()])
    count = np.ceil((np.array([cols.max(), rows.max()]) - first) / ratio).astype(int)
    return Grid(pan.crs, pan.transform * Affine.translation(*first) * Affine.scale(ratio), int(count[1]), int(count[0]))
