"""Is a raster whole: its files, those that it refers to, and those beside them."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.enums import MaskFlags
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window as RasterWindow
from rasterio.windows import intersect

from .. import untrusted
from ..errors import InputError, reason_of
from .messages import GDAL_ERRORS, Messages, gdal_messages
from .packed import check_unpacks
from .references import NETWORK, check_raw, check_served, in_archive
from .texts import check_texts
from .truncated import check_sizes, cut_off, cut_off_xml, is_bare
from .vrt_sources import check_sources

_LOST = re.compile("VSIFReadL|HFAEntry|Can not read TIFF directory|Failed to read directory|IO error .* of")
"""What GDAL says where a header leads beyond the end of a file; it goes on without the bands, masks or tags there."""

ABSENT = re.compile("does not exist in the file system|No such file or directory")
"""What GDAL says of a file that is not there."""

_OF_ALL = int(MaskFlags.per_dataset)

_MASKS = (".msk", ".ovr")
"""Ends of the rasters beside a raster that GDAL goes on without where it cannot open them."""


def opened_dataset(path: str):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        dataset = rasterio.open(path)
    if not is_usable(dataset.transform) and not _is_placed(dataset):
        unplace(dataset)  # PNM leaves there what was in memory
    return dataset


def unplace(dataset) -> None:
    """Give a dataset the transform of one without a place, by a private part of rasterio; nothing where it has none."""
    with suppress(AttributeError):
        dataset._transform = Affine.identity().to_gdal()


def unname(dataset) -> list[str]:
    """Leave out names and units of bands that are not UTF-8, by private parts of rasterio; what to say of it."""
    told = []
    for key, what in (("descriptions", "names"), ("units", "units")):
        try:
            getattr(dataset, key)
        except UnicodeDecodeError:
            with suppress(AttributeError):
                setattr(dataset, f"_{key}", (None,) * dataset.count)
                told.append(f"{dataset.name}: the {what} of its bands are not text in UTF-8: they are left out")
    return told


def is_usable(transform: Any) -> bool:
    smallest = np.finfo(float).tiny
    return bool(np.isfinite(transform).all()) and abs(transform.determinant) >= smallest


def _is_placed(dataset) -> bool:
    """Does GDAL know a geotransform of a raster, or points or polynomials in place of it?"""
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotGeoreferencedWarning)
        try:
            dataset.read_transform()
        except NotGeoreferencedWarning:
            return False
    return True


def check_files(dataset, path: str, names: Collection[str]) -> list[str]:
    """All files of a raster, and of those that it refers to, whose `names` `check_raw` tells. Raises InputError for
    files that are shorter than they should be, or no pixels of its own."""
    _check_driver(dataset, path)
    own = [path, *dataset.files]
    sources = [*dataset.files, *names] if dataset.driver == "VRT" else [*names]
    if dataset.driver not in ("GTiff", "VRT"):  # what those refer to is known before
        sources += [name for file in dataset.files for name in check_raw(file)]
    for name in _each_once(sources):
        own += [name, *_files_of(name)]
    every = _each_once(own)
    for file in every:
        if reason := cut_off(file):
            raise InputError(f"{file} is cut off: {reason}; copy it again")
        check_unpacks(file)
    check_texts(dataset, path, every)
    check_served(path, dataset, names)
    if dataset.driver == "VRT":
        check_sources(path, names, opened_dataset)
    check_sizes(dataset, path, any(map(in_archive, dataset.files)))
    return every


def _check_driver(dataset, path: str) -> None:
    if dataset.driver in untrusted.UNASKED.split():
        raise InputError(f"{path} is a file of {dataset.driver}, which may read any other file as pixels: refused")


def _each_once(names: Iterable[str]) -> list[str]:
    """Names that lead to different places, as they are first given."""
    places: dict[str, str] = {}
    for name in names:
        places.setdefault(os.path.abspath(name), name)
    return list(places.values())


def _files_of(name: str) -> list[str]:
    """The files of a raster that another one refers to, if its format or name does not tell how long it is. Raises
    InputError where they are too short."""
    if NETWORK.search(name) or (os.path.isfile(name) and not is_bare(name)):
        return []
    with suppress(*GDAL_ERRORS), opened_dataset(name) as source:
        _check_driver(source, name)
        check_sizes(source, name, in_archive(name))
        return list(source.files)
    return []


def check_beside(path: str, files: Iterable[str]) -> None:
    """Raises InputError for metadata, masks and overviews beside the files of a raster that cannot be read, or not as
    such: GDAL says nothing and goes on without their nodata."""
    waiting = list(files)
    for file in waiting:
        sides = [file + end for each in _MASKS for end in (each, each.upper())]
        for side in filter(_is_there, (f"{file}.aux.xml", *sides)):
            if reason := _not_read(side) or _no_mask(file, side):
                raise InputError(
                    f"cannot open {path}: {side} beside it cannot be read ({reason}); copy it again or move it away"
                )
            if side not in waiting:
                waiting.append(side)


def _is_there(side: str) -> bool:
    """Also a link to nothing; in an archive a mask only, of which GDAL tells."""
    if not in_archive(side):
        return os.path.lexists(side)
    return side.lower().endswith(".msk") and not ABSENT.search(_not_opened(side))


def _not_read(side: str) -> str:
    """Why a file beside a raster is not read; nothing if it is."""
    if in_archive(side):
        return _not_opened(side)
    if not os.path.isfile(side):
        return "it is a folder" if os.path.isdir(side) else "it leads to no file"
    if os.path.getsize(side) == 0:
        return "it is empty"
    return cut_off_xml(side) if side.endswith(".xml") else cut_off(side) or _not_opened(side)


def _not_opened(path: str) -> str:
    """Why GDAL does not open a file; nothing if it does."""
    try:
        with gdal_messages() as said:
            opened_dataset(path).close()
    except (*GDAL_ERRORS, OSError, ValueError) as error:
        return reason_of(error)
    return "it is cut off or damaged" if lost(said) else ""


def _no_mask(file: str, side: str) -> str:
    """Why a raster that is called the mask of a file is none; nothing if it is one, or has another name."""
    if not side.lower().endswith(".msk") or file.lower().endswith(_MASKS):
        return ""
    with suppress(*GDAL_ERRORS), gdal_messages(), opened_dataset(file) as raster, opened_dataset(side) as mask:
        if mask.shape != raster.shape:
            sizes = (f"{each.height} x {each.width} pixels" for each in (mask, raster))
            return "it has {}, and what it masks {}".format(*sizes)
        kinds = [mask.tags().get(f"INTERNAL_MASK_FLAGS_{band}", "").strip() for band in raster.indexes]
        if not any(kinds):
            return "it does not say what it masks"
        if mask.count < raster.count and any(kind and not int(kind) & _OF_ALL for kind in kinds[mask.count :]):
            return f"it has {mask.count} bands, and what it masks {raster.count}"
        told = [flags for flags, kind in zip(raster.mask_flag_enums, kinds, strict=True) if kind not in ("", "1")]
        return f"GDAL looks for none beside a file of {raster.driver}" if [MaskFlags.all_valid] in told else ""
    return ""


def damaged_source(dataset, window: RasterWindow | None) -> str:
    """The file that a raster refers to and whose pixels, in a window or anywhere, cannot be read; nothing without."""
    for name in check_raw(dataset.name):
        with suppress(*GDAL_ERRORS, OSError, ValueError), gdal_messages() as said, opened_dataset(name) as source:
            if source.driver == "VRT":
                continue
            around = None
            if window is not None and source.crs == dataset.crs:
                around = source.window(*dataset.window_bounds(window))
            for _, block in source.block_windows(1):
                if around is None or intersect(around, block):
                    try:
                        source.read(window=block)
                    except GDAL_ERRORS:
                        return name
                if said.errors:
                    return name
    return ""


def lost(said: Messages) -> bool:
    return any(map(_LOST.search, (*said.errors, *said.warnings)))
