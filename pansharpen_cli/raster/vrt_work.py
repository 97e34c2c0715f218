"""How much there is to do for a pixel of a VRT: kernels, layers and warps that are short to write and slow to read."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

from rasterio.crs import CRS
from rasterio.errors import CRSError

from .messages import gdal_messages

MOST_WORK = 500
"""Reads of a source, about 40 ns each, that a pixel of a raster may be made of, through all VRTs."""

MOST_THREADS = 1024
"""That a VRT may ask for: GDAL starts as many."""

MOST_HELD = 1 << 30
"""Bytes of the sources of a derived band, which GDAL reads for a window all before it derives anything."""

_WINDOW = 1 << 20
"""Pixels of a window at most: a tile with its halo, or two of them at once."""
_KERNEL, _TAPS, _BLOCK = "kernelfilteredsource", 16, 128
"""The products of a kernel that take as long as a read, and the side of a VRT's blocks, around each of which half a
kernel is read."""
_MERGED, _COMPARED = 4, 64
"""The pixels of a source, merged to one when it is down-sampled, that take as long as a read; and for `mode`, which
compares each with the others, those comparisons."""
_POINTS = 4
"""The control points of a thin plate spline that take as long."""
_EARTH = 6378137.0
"""Its radius in metres, for pixels in degrees."""
_TAPS_OF_WARP = 36
"""Of Lanczos, the widest, at its own scale."""


def work_of(root: ElementTree.Element) -> float:
    """The reads that a pixel of a VRT takes, on average over its largest band; those of other VRTs count as one."""
    size = [_number(root, key, 0.0) for key in ("rasterxsize", "rasterysize")]
    bands = [sum(_work(source, size) for source in e) for e in root.iter() if e.tag.lower() == "vrtrasterband"]
    return max([1.0, *bands]) * _work_of_warp(root)


def threads_of(root: ElementTree.Element) -> float:
    """The threads that a VRT asks for, to warp or to sharpen."""
    asked = [e for e in root.iter() if "NUMTHREADS" in (e.tag.upper(), str(e.get("name")).upper().replace("_", ""))]
    return max((_leading(element.text, 1.0) for element in asked), default=1.0)


def held_by(root: ElementTree.Element) -> float:
    """The bytes that the sources of a derived band take at once, of the band with most."""
    pixels = min(_WINDOW, math.prod(_number(root, key, 0.0) for key in ("rasterxsize", "rasterysize")))
    held = [0.0]
    for band in root.iter():
        told = [*band.attrib.items(), *((child.tag, child.text or "") for child in band)]
        if "vrtderivedrasterband" in (text.strip().lower() for key, text in told if key.lower() == "subclass"):
            sources = sum(child.tag.lower().endswith("source") for child in band)
            types = [text for key, text in told if key.lower() in ("datatype", "sourcetransfertype")]
            held.append(sources * pixels * max(map(_bytes_of, types), default=1.0))
    return max(held)


def _bytes_of(kind: str) -> float:
    """Of a value of one of GDAL's types, which end with their bits: `Byte`, `UInt16`, `CFloat64`."""
    found = re.fullmatch(r"(C?)[A-Za-z]+(8|16|32|64)", kind.strip())
    return (int(found[2]) // 8) * (2 if found[1] else 1) if found else 1.0


def _work(source: ElementTree.Element, size: list[float]) -> float:
    """Of a source of a band, as far as it covers the raster."""
    if not source.tag.lower().endswith("source"):
        return 0.0
    share, work, merged = 1.0, 1.0, 1.0
    for element in source.iter():
        tag = element.tag.lower()
        if tag in ("srcrect", "dstrect"):
            area = math.prod(_number(element, f"{axis}size", 0.0) for axis in "xy")
            merged *= area if tag == "srcrect" else 1 / area if area > 0 else 0.0
        if tag == "dstrect" and all(size):
            for side, axis in zip(size, "xy", strict=True):
                first = _number(element, f"{axis}off", 0.0)
                ends = (min(max(at, 0.0), side) for at in (first, first + _number(element, f"{axis}size", side)))
                share *= abs(float.__sub__(*ends)) / side
        if tag == "kernel" and source.tag.lower() == _KERNEL:
            side = _number(element, "size", 0.0)
            separable = len((element.findtext("Coefs") or "").split()) == side
            padded = 1 + side / _BLOCK
            work += padded**2 + (side * (1 + padded) if separable else side**2) / _TAPS
    told = [*source.attrib.items(), *((child.tag, child.text or "") for child in source)]
    how = next((text.strip().lower() for key, text in told if key.lower() == "resampling"), "near")
    if how == "mode":
        work = max(work, merged**2 / _COMPARED)
    elif not how.startswith("near") or source.tag.lower() == "averagedsource":
        work = max(work, merged / _MERGED)
    return share * work


def _work_of_warp(root: ElementTree.Element) -> float:
    """Of a warp's kernel that is made wide, and of the splines that place it."""
    taps, points = 1.0, 0
    for element in root.iter():
        tag, name = element.tag.lower(), str(element.get("name", "")).upper()
        if tag == "option" and name in ("XSCALE", "YSCALE"):
            taps /= max(1e-9, min(1.0, _leading(element.text, 1.0)))
        if tag == "tpstransformer":
            points += sum(each.tag.lower() == "gcp" for each in element.iter())
    kernel = taps * _TAPS_OF_WARP / _TAPS if taps > 1 else 0.0
    return max(1.0 + points / _POINTS + kernel, _merged_by_warp(root) / _MERGED)


def _merged_by_warp(root: ElementTree.Element) -> float:
    """The pixels of its source that a warp reads for one of its own, by their sizes; 1 where these are not told."""
    told = {element.tag.lower(): element.text or "" for element in root.iter()}
    sides = []
    for geotransform, crs in (("dstgeotransform", "targetsrs"), ("srcgeotransform", "sourcesrs")):
        numbers = [_leading(each, 0.0) for each in told.get(geotransform, "").split(",")]
        area = abs(numbers[1] * numbers[5] - numbers[2] * numbers[4]) if len(numbers) == 6 else 0.0
        try:
            with gdal_messages():
                kind = CRS.from_wkt(told[crs]) if crs in told else None
            unit = kind.units_factor[1] * (_EARTH if kind.is_geographic else 1) if kind else 1.0
        except (CRSError, ValueError):
            unit = 0.0
        sides.append(math.sqrt(area) * unit)
    return (sides[0] / sides[1]) ** 2 if sides[1] > 0 else 1.0


def _number(element: ElementTree.Element, key: str, other: float) -> float:
    """The largest number that an element has under a name, as an attribute or in an element of its own."""
    told = [value for name, value in element.attrib.items() if name.lower() == key]
    told += [child.text or "" for child in element if child.tag.lower() == key]
    return max((_leading(text, other) for text in told), default=other)


def _leading(text: str | None, other: float) -> float:
    """The number that a text begins with, as C reads it."""
    try:
        if math.isfinite(value := float(text or "")):
            return value
    except ValueError:
        pass
    found = re.match(r"\s*([-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d{1,3})?)", text or "", re.IGNORECASE)
    return float(found[1]) if found else other
