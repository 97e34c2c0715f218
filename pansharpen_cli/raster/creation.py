"""How GeoTIFFs and COGs are made: creation options, and whether a file is what it was meant to be."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Interleaving
from rasterio.io import MemoryFile

from ..errors import InputError, PansharpenError, reason_of
from .grid import Grid
from .messages import GDAL_ERRORS, Messages, gdal_messages
from .tiles import OUTPUT_BLOCK
from .values import to_dtype

_CREATION = {
    "COMPRESS": "DEFLATE",
    "TILED": "YES",
    "BLOCKXSIZE": str(OUTPUT_BLOCK),
    "BLOCKYSIZE": str(OUTPUT_BLOCK),
    "BIGTIFF": "IF_SAFER",
    "PHOTOMETRIC": "MINISBLACK",
}

COG_CREATION = {
    "COMPRESS": "DEFLATE",
    "PREDICTOR": "YES",
    "BIGTIFF": "IF_SAFER",
    "OVERVIEW_RESAMPLING": "AVERAGE",
    "COPY_SRC_MDD": "YES",  # all tag domains
}

FAST = "1"
"""Level of deflate: in a quarter of the time of GDAL's own, 6, files become 3 % larger; --co ZLEVEL=9, and LEVEL=9 of a
COG, make them smaller."""

_OF_ANOTHER_GRID = {"RES", "EXTENT", "ZOOM_LEVEL", "ALIGNED_LEVELS"}
"""Options of a COG that GDAL takes for one on another grid, and else passes over."""

MOST_BLOCK = 1 << 27
"""Bytes of a block of all bands that is written: several are held at once."""

_OFF = ("NO", "FALSE", "OFF")

_INKS = ("MINISWHITE", "CMYK")
"""Meanings of pixels that are the darker the more they are."""

_PREDICTABLE = ("DEFLATE", "LZW", "ZSTD")

DRIVERS = ("GTiff", "COG")

_IN_MEMORY = re.compile(r"(/vsimem/)?[0-9a-f/-]{36,}\.tif:? ?")
"""The name of a file that options are tried on, in messages."""

FAILURES = (*GDAL_ERRORS, OSError, ValueError)


AS_WRITTEN = {"USE_RRD": "NO", "GTIFF_DONT_WRITE_BLOCKS": "NO"}
"""Variables of GDAL that would put other names into a file with its overviews, or nothing at all."""


@contextmanager
def writing(failure: Callable[[str], str]) -> Iterator[Messages]:
    """Turns whatever goes wrong while a file is written, raised or not, into a PansharpenError: the `failure` for that
    reason."""
    with gdal_messages() as said, rasterio.Env(**AS_WRITTEN):
        try:
            yield said
        except FAILURES as error:
            raise PansharpenError(failure(reason_of(error))) from error
    if said.errors:
        raise PansharpenError(failure(said.errors[0]))


def parse_creation_options(options: Sequence[str]) -> dict[str, str]:
    """`KEY=VALUE` pairs as of --co, keys in capitals. Raises InputError for anything else."""
    parsed = {}
    for option in options:
        key, sign, value = option.partition("=")
        if not sign or not key.strip():
            raise InputError(f"--co takes KEY=VALUE, not '{option}'")
        parsed[key.strip().upper()] = value.strip()
    return parsed


def check_creation_options(driver: str, options: Mapping[str, str], count: int, dtype: np.dtype, nodata: float) -> bool:
    """Do the options keep apart what is nodata and what is not? They are tried on a tiny file.

    Raises InputError for options that do not do, or that change more than how pixels are stored: GDAL only warns of
    those that it does not know or take, and goes on.
    """
    if driver not in DRIVERS:
        raise InputError(f"unknown driver '{driver}'; choose from {' or '.join(DRIVERS)}")
    if not options:
        return True
    if "APPEND_SUBDATASET" in options:
        raise InputError("--co APPEND_SUBDATASET: an output is a file of its own; leave it out")
    if (inks := options.get("PHOTOMETRIC", "").upper()) in _INKS:
        raise InputError(f"--co PHOTOMETRIC={inks}: readers would take the bands for ink, not light; leave it out")
    keys = ("BLOCKSIZE",) * 2 if driver == "COG" else ("BLOCKXSIZE", "BLOCKYSIZE")
    tiled = options.get("TILED", "").upper() not in _OFF and not options.keys().isdisjoint(keys)
    sides = [options.get(key, str(OUTPUT_BLOCK) if tiled else "") for key in keys]
    if all(map(str.isdecimal, sides)) and (size := math.prod(map(int, sides)) * count * dtype.itemsize) > MOST_BLOCK:
        raise InputError(f"--co: blocks of {' x '.join(sides)} pixels take {size / 1e9:.1f} GB each; take smaller ones")
    if "NBITS" in options and dtype.kind == "f":
        raise InputError(f"--co NBITS={options['NBITS']} rounds {dtype} to half of its digits: leave it out")
    if "NBITS" in options and driver == "COG":  # GDAL takes what was in memory beyond the ends of its blocks for pixels
        raise InputError(
            f"--co NBITS={options['NBITS']} is for GeoTIFFs: leave it out, or write a GeoTIFF (--driver GTiff)"
        )
    if driver == "COG" and (moved := sorted(_OF_ANOTHER_GRID & options.keys())):
        raise InputError(
            f"--co {moved[0]}: an output lies on the pixels of the PAN; fuse without it and use gdalwarp on the output"
        )
    threads = {"NUM_THREADS": "1"}  # compression threads complain on stderr
    # a CRS that nobody asks for as another one
    grid = Grid(CRS.from_epsg(3832), Affine(2, 0, 0, 0, -2, 0), 64, 64)
    place = {"width": 64, "height": 64, "crs": grid.crs, "transform": grid.transform}
    kind = {"count": count, "dtype": dtype, "nodata": nodata}
    random, center = np.random.default_rng(0), nodata if np.isfinite(nodata) else 0
    noise = center + random.uniform(-2, 2, (count, 64, 64))
    noise = to_dtype(noise, random.random((64, 64)) < 0.5, dtype, nodata)
    changed = ""
    with gdal_messages() as said, MemoryFile(ext=".tif") as tiny, MemoryFile(ext=".tif") as copy:
        try:
            with tiny.open(driver="GTiff", **place, **kind, **profile_of(driver, options, dtype) | threads) as dataset:
                dataset.write(noise)
            if driver == "COG":
                rasterio.shutil.copy(tiny.name, copy.name, driver="COG", **cog_profile_of(options) | threads)
            with rasterio.open((copy if driver == "COG" else tiny).name) as dataset:
                changed = difference(dataset, grid, count, dtype, nodata) or _other_bits(dataset, options, dtype)
                written = dataset.read() if not changed else noise
        except FAILURES as error:
            said.errors.insert(0, reason_of(error))
    wrong = [m.partition(" in ")[2] for m in said.warnings if re.match("CPLE_(NotSupported|IllegalArg)", m)]
    for message in wrong + said.errors:
        raise InputError(f"--co: {_IN_MEMORY.sub('', message)}{_advice(message)}")
    if changed:
        given = " ".join(f"{k}={v}" for k, v in options.items())
        advice = "leave NBITS out" if " bits for " in changed else "fuse without it and use gdalwarp on the output"
        raise InputError(f"--co {given}: the file would have {changed}; {advice}")
    before, after = (np.isnan(a) if np.isnan(nodata) else a == dtype.type(nodata) for a in (noise, written))
    return bool((before == after).all())


def _other_bits(dataset, options: Mapping[str, str], dtype: np.dtype) -> str:
    """How many bits a value has, if it is not what is asked for; GDAL only warns of it."""
    bits = dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", str(8 * dtype.itemsize))
    asked = options.get("NBITS", bits)
    return "" if asked.isdecimal() and int(asked) == int(bits) else f"{bits} bits for a value of {dtype}"


def wrong_colours(options: Mapping[str, str], names: Sequence[str | None]) -> list[str]:
    """A line if bands of these standard names would be shown in colours that are not theirs."""
    colours, kind = ["red", "green", "blue"], options.get("PHOTOMETRIC", "").upper()
    if kind not in ("RGB", "YCBCR") or len(names) < 3 or None in names[:3] or list(names[:3]) == colours:
        return []
    told = f"--co PHOTOMETRIC={kind} shows {', '.join(map(str, names[:3]))} as red, green, blue"
    hint = "put them in that order with --bidx, or make a picture with --rgb true"
    return [f"{told}: {hint if set(colours) <= set(names) else 'leave it out'}"]


def _advice(message: str) -> str:
    """What to do about an option that people know of GeoTIFFs."""
    if "does not support creation option INTERLEAVE" not in message:
        return ""
    return f" in GDAL {rasterio.__gdal_version__}: leave it out, or write a GeoTIFF (--driver GTiff)"


def difference(dataset, grid: Grid, count: int, dtype: np.dtype, nodata: float | None) -> str:
    """What a written file has that it was not meant to have, or nothing."""
    told = dataset.nodata
    if dataset.shape != (grid.height, grid.width):
        return f"{dataset.height} x {dataset.width} pixels, not {grid.height} x {grid.width}"
    if not _same_crs(dataset.crs, grid.crs):
        return f"the CRS {dataset.crs.to_string()[:80]}" if dataset.crs else "no CRS"
    if not dataset.transform.almost_equals(grid.transform, 1e-6 * abs(grid.transform.determinant) ** 0.5):
        return f"another place ({tuple(dataset.transform)[:6]})"
    if dataset.count != count:
        return f"{dataset.count} bands, not {count}"
    if set(dataset.dtypes) != {str(dtype)}:
        return f"values of {dataset.dtypes[0]}, not {dtype}"
    same = told is nodata if told is None or nodata is None else np.isclose(told, nodata, 1e-6, equal_nan=True)
    if not same:
        return f"the nodata value {told}, not {nodata}"
    return ""


def _same_crs(one, other) -> bool:
    """By EPSG code where both have one: the same CRS may be written in many ways."""
    if not one or not other:
        return bool(one) == bool(other)
    codes = one.to_epsg(), other.to_epsg()
    return one == other or None in codes or codes[0] == codes[1]


def compression_threads() -> dict[str, str]:
    """As many as torch may use: `--threads` and who limits OpenMP mean the compression, too."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return {"NUM_THREADS": given if given.isdigit() and int(given) > 0 else "ALL_CPUS"}


def cog_profile_of(options: Mapping[str, str], overviews: bool = True) -> dict[str, str]:
    """Creation options of the COG that a GeoTIFF is made into."""
    profile = COG_CREATION | ({} if overviews else {"OVERVIEWS": "NONE"}) | dict(options)
    return ({"LEVEL": FAST} if profile["COMPRESS"].upper() == "DEFLATE" else {}) | profile


def profile_of(driver: str, options: Mapping[str, str], dtype: np.dtype) -> dict[str, str]:
    """Creation options of the GeoTIFF; that of a COG is an intermediate one."""
    given = dict(options) if driver == "GTiff" else {"SPARSE_OK": "TRUE"}
    profile = _CREATION | compression_threads() | given
    if profile["COMPRESS"].upper() == "DEFLATE":
        profile = {"ZLEVEL": FAST} | profile
    if profile["COMPRESS"].upper() in _PREDICTABLE and "NBITS" not in given:
        profile = {"PREDICTOR": "3" if dtype.kind == "f" else "2"} | profile
    if profile["TILED"].upper() in _OFF:
        profile = {k: v for k, v in profile.items() if k in given or k not in ("BLOCKXSIZE", "BLOCKYSIZE")}
    return profile


def verify(path: Path) -> None:
    """Raises OSError unless every block lies within the file: GDAL reports a full disk late or never."""
    size = os.path.getsize(path)
    with rasterio.open(path) as written:
        rows, cols = (-(-n // b) for n, b in zip(written.shape, written.block_shapes[0], strict=True))
        for band in written.indexes if written.interleaving == Interleaving.band else (1,):
            for at in (f"{c}_{r}" for r in range(rows) for c in range(cols)):
                first, length = (written.get_tag_item(f"BLOCK_{k}_{at}", "TIFF", bidx=band) for k in ("OFFSET", "SIZE"))
                if first is not None and int(first) + int(length) > size:
                    raise OSError("the file is incomplete")
