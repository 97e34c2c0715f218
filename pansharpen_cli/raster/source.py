"""Reading: files as stacks of bands, with their nodata and metadata, and no grid of another file in sight."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import rasterio.shutil
from rasterio.enums import MaskFlags
from rasterio.rpc import RPC
from rasterio.windows import Window as RasterWindow

from .. import untrusted
from ..errors import InputError, ReadError, reason_of
from .band_kinds import data_bands
from .geometry import Window, box_sums
from .intact import ABSENT, check_beside, check_files, damaged_source, is_usable, lost, opened_dataset, unname
from .items import check_count, check_items
from .levels import Levels
from .messages import GDAL_ERRORS, Messages, gdal_messages, repeat, warn
from .no_raster import absence, no_raster
from .projections import check_crs
from .references import check_overviews, check_raw, check_siblings, plain_name
from .side_files import SIDE_FILES, described_in, tags_of, told_of_others
from .tails import UNTAGGED, look_at_the_end
from .values import is_nodata, is_written, nodata_for

MAX_PIXELS = 1 << 36
"""Pixels of the largest overlap: damaged headers claim any size, and the plan of the tiles grows with it."""

EXACT = 1 << 24
"""Up to it single precision holds every whole number."""

COARSE = 1000
"""Steps of single precision that a band's values have to cover at least."""

MOST_BLOCK = 1 << 29
"""Bytes of a block, which GDAL reads and unpacks as a whole however small the window is."""

MOST_BESIDE = 64 << 20
"""Bytes of a text file beside a raster: GDAL reads some of them as a whole."""

_OTHER_RPC = re.compile("file found, but missing .* field")
"""What GDAL says of such a text that is none; `check_texts` knows those that are cut off."""

_NO_XML = re.compile(r"Line \d+: ")
"""What GDAL says of XML that it does not understand begins so."""

_ENDS_EARLY = re.compile("premature end", re.IGNORECASE)
"""Of what drivers warn of and then fill up, such as JPEG."""
_NOT_MADE = re.compile(
    "not registered|pixel function|Raster has no NoData|must be called with|Illegal band|not recognized as being in a"
    f"|{ABSENT.pattern}"
)
"""What GDAL says where a VRT derives a band by a function that it does not have or not so, or has no such source."""

FILL_REACH = 24
"""Least distance, in pixels of the raster, within which a valid pixel is looked for to fill an invalid one."""

CACHE_BYTES = 64 << 20
"""GDAL's block cache, shared by reading and writing."""

Pixels = tuple[np.ndarray, np.ndarray]
"""Values (bands, rows, cols) and where they are valid (rows, cols)."""

Reader = Callable[[Window], Pixels]
"""Reads a window; what lies outside of the raster is invalid."""

_FORTRAN = re.compile(r"(?<=[\d.])[dD](?=[-+]?\d)")
"""What stands before the exponent of a number that a program in Fortran wrote."""

_Places = tuple[np.ndarray, np.ndarray]
"""Rows and columns of pixels, of one shape together."""


@contextmanager
def bounded_cache() -> Iterator[None]:
    """Rasters read in this context share a block cache of `CACHE_BYTES`, unless the user has set GDAL_CACHEMAX."""
    if "GDAL_CACHEMAX" in os.environ:
        yield
        return
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):  # GDAL's own default is a share of all memory
        yield


def open_raster(path: str, rpcs: bool = False):
    """Open a raster; InputError in one line if GDAL cannot, and for what would wait or grow without end, or takes bytes
    of another file for pixels. With `rpcs` it may be located by them only."""
    path = plain_name(path)
    _check_place(path)
    names = check_raw(path)
    with gdal_messages() as said:
        dataset = _usable(path, rpcs, names, said)
    with suppress(*GDAL_ERRORS):  # of what GDAL passed over, a tag of an unknown type for one, rasterio raises later
        dataset.colorinterp  # noqa: B018
    repeat(said.warnings)
    for text in filter(_NO_XML.match, said.errors):
        warn(f"{path}: its GDALMetadata are damaged ({text}): names, scales and offsets of its bands may be lost")
    return dataset


def _usable(path: str, rpcs: bool, names: list[str], said: Messages):
    """`open_raster` of a file that may be opened, and refers to `names`; `said` receives what GDAL tells meanwhile."""
    try:
        dataset = opened_dataset(path)
    except (*GDAL_ERRORS, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, UnicodeError):
            reason = "its name is not text in UTF-8; rename it"
        elif why := absence(path) or no_raster(path):
            reason = why
        elif "hSrcDS is not set" in reason and (found := re.search(r"<SourceDataset[^>]*>([^<]+)<", _text_of(path))):
            reason = f"{found[1]}, which it warps, cannot be opened: is it missing?"
        raise InputError(f"cannot open {path}: {reason}") from error
    try:
        with untrusted.boundary(path, "cannot be used"):
            if dataset.count == 0:
                raise InputError(
                    f"cannot use {path}: it has no bands of its own (a container? name one of its subdatasets)"
                )
            if dataset.gcps[0] and dataset.transform.is_identity:
                raise InputError(f"{path} is located by ground control points only; warp it to a grid first (gdalwarp)")
            if not rpcs and dataset.transform.is_identity and rpcs_of(dataset) is not None:
                raise InputError(f"{path} is located by RPCs only; orthorectify it first (gdalwarp -rpc)")
            if not is_usable(dataset.transform):
                raise InputError(f"{path} has a geotransform that cannot be used: {tuple(dataset.transform)[:6]}")
            check_crs(dataset, path)
            _pass_other_rpcs(dataset)
            check_count(path, path, max(len(dataset.tags(band)) for band in (0, *dataset.indexes)))
            check_overviews(path, dataset)
            check_beside(path, check_files(dataset, path, names))
            _check_blocks(dataset, path)
            said.warnings += unname(dataset)
            _look_at_bands(dataset)
            if lost(said):
                raise InputError(f"{path} is cut off or damaged: its header leads beyond its end; copy it again")
    except InputError:
        dataset.close()
        raise
    return dataset


def _text_of(path: str) -> str:
    """The text of a VRT; nothing where it cannot be read."""
    with suppress(OSError, ValueError, InputError):
        return untrusted.read_text(path, untrusted.MOST_SIDE, "replace")
    return ""


def rpcs_of(dataset) -> RPC | None:
    """The rational polynomials that locate a raster's pixels; None without any that can be read."""
    try:
        told = dataset.tags(ns="RPC")
        return RPC.from_gdal({key: _FORTRAN.sub("E", value) for key, value in told.items()}) if told else None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None


def _check_place(path: str) -> None:
    """Raises InputError for pipes and devices, there or among the files beside it, and for side files too large."""
    if kind := untrusted.file_kind(path):
        raise InputError(f"cannot open {path}: it is {kind}; only files are read")
    if not untrusted.gives_parts(path):
        raise InputError(f"cannot open {path}: its server gives whole files only; download it first")
    folder, name = os.path.split(path)
    stem = os.path.splitext(name)[0].lower()
    try:
        with os.scandir(folder or ".") as entries:
            own = [e for e in entries if e.name.lower().startswith(stem) and not e.is_dir()]
    except (OSError, ValueError):
        return
    check_siblings(path, path, {})
    for entry in own:
        if SIDE_FILES.search(entry.name) and entry.is_file() and entry.stat().st_size > MOST_BESIDE:
            size = f"{entry.stat().st_size:,} bytes"
            raise InputError(f"cannot open {path}: {entry.path} beside it has {size}, more than {MOST_BESIDE:,}")
        if entry.name.lower().endswith(".aux.xml"):
            check_items(path, entry.path)


def _pass_other_rpcs(dataset) -> None:
    """Have GDAL read what lies beside a raster, and forget what it says of a text that only has the name of one of
    RPCs: rasterio raises it at some later call."""
    try:
        dataset.tags(ns="RPC")
        _ = dataset.colorinterp
    except GDAL_ERRORS as error:
        if not _OTHER_RPC.search(str(error)):
            raise


def _look_at_bands(dataset) -> None:
    """Ask for what drivers read of bands no sooner than asked: a damaged file is found out where its name is known."""
    for told in ("descriptions", "colorinterp", "nodatavals", "scales", "offsets", "mask_flag_enums", "units"):
        getattr(dataset, told)
    dataset.tags(1)


def _check_blocks(dataset, path: str) -> None:
    """Raises InputError for blocks of more than `MOST_BLOCK` bytes."""
    together = dataset.count if str(dataset.profile.get("interleave", "")).lower() == "pixel" else 1
    for (rows, cols), kind in dict.fromkeys(zip(dataset.block_shapes, dataset.dtypes, strict=True)):
        size = rows * cols * together * np.dtype(kind if kind != "complex_int16" else "complex64").itemsize
        if size > MOST_BLOCK:
            raise InputError(
                f"{path} has blocks of {rows} x {cols} pixels, {size / 1e9:.1f} GB that are read as a whole: "
                "write it with smaller ones first (gdal_translate -co TILED=YES)"
            )


def is_untold(flags: Iterable[MaskFlags], nodata: float | None) -> bool:
    """Whether a band has a nodata value that GDAL knows and rasterio does not tell: next to the greatest of 64 bits."""
    return nodata is None and set(flags) == {MaskFlags.nodata}


def nodata_of(dataset) -> float | None:
    """The nodata value of a raster's first band; for one that rasterio does not tell, the greatest of its type."""
    untold = is_untold(dataset.mask_flag_enums[0], dataset.nodata)
    return int(np.iinfo(dataset.dtypes[0]).max) if untold else dataset.nodata


def check_size(path: str, rows: int, cols: int) -> None:
    """Raises InputError for more than `MAX_PIXELS`."""
    if rows * cols > MAX_PIXELS:
        raise InputError(
            f"{path} claims {rows} x {cols} pixels, more than {MAX_PIXELS:.2g}: "
            "if it is not damaged, cut it with gdal_translate -srcwin"
        )


class Warped(NamedTuple):
    """A raster on another grid: some of its bands, which are `numbers` there, and a last one that masks them."""

    dataset: Any
    numbers: list[int]


@dataclass(frozen=True)
class Source:
    """Some bands of one raster, read with their mask, from `warped` if it is given; pixels outside the raster are
    invalid.

    `part`: the pixels of the raster that it is of, from whose corner windows count; None for all. `notes` receives what
    reading finds suspicious. `masks`: files on the raster's grid that are all `alpha`, which counts as its own.
    """

    dataset: Any
    bands: list[int]
    label: str
    nodata: float | None = None
    alpha: tuple[int, ...] = ()
    notes: list[str] = field(default_factory=list)
    warped: Warped | None = None
    part: Window | None = None
    masks: tuple[Source, ...] = ()
    levels: Levels = field(default_factory=Levels, repr=False, compare=False)

    @classmethod
    def of(cls, dataset, label: str, nodata: float | None, notes: list[str]) -> Source:
        """All bands of a raster, none of one that is a mask; `nodata` as `nodata_for` takes it."""
        bands, alpha = data_bands(dataset, label, notes)
        replaced = nodata_for([dataset.dtypes[b - 1] for b in bands], nodata, label, notes)
        source = cls(dataset, bands, label, replaced, alpha, notes)
        look_at_the_end(dataset, bands, label, replaced, source._mask, notes)
        return source

    @property
    def files(self) -> set[str]:
        """Every file that is read, also the sources of a VRT and side files."""
        return {self.label, *self.dataset.files}.union(*(mask.files for mask in self.masks))

    @property
    def is_mask(self) -> bool:
        """Whether all that it holds is alpha."""
        return not self.bands

    def check_is_no_mask(self) -> None:
        """Raises InputError for a mask, which is nothing by itself."""
        if self.is_mask:
            raise InputError(f"{self.label} holds nothing but masks (alpha): name a file with image values")

    @property
    def labels(self) -> list[str]:
        """What its files are called, each once."""
        return [self.label, *(mask.label for mask in self.masks)]

    def dtype_of(self, index: int) -> np.dtype:
        """The type of the values of one of its bands, as they are read."""
        return np.dtype(self.dataset.dtypes[self.bands[index] - 1])

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Values (bands, rows, cols) in the file's dtype and the valid mask (rows, cols); outside is 0 and invalid."""
        ds, bands = self.dataset, self.bands
        if self.warped:
            ds, bands = self.warped.dataset, [self.warped.numbers.index(band) + 1 for band in bands]
        whole = Window(0, ds.height, 0, ds.width)
        if self.part is not None and not self.warped:
            whole, window = self.part, window.moved(*self.part.corner)
        inner = window & whole
        data = np.zeros((len(bands), *window.shape), ds.dtypes[bands[0] - 1])
        valid = np.zeros(window.shape, bool)
        if inner.is_empty:
            return data, valid
        at, place = RasterWindow.from_slices(*inner.spans), inner.within(window)
        with gdal_messages() as said:
            try:
                values = ds.read(bands, window=at)
                mask = ds.read(ds.count, window=at) > 0 if self.warped else self._mask(values, at)
            except GDAL_ERRORS as error:
                raise self._unreadable(reason_of(error), at) from error
        # of a warp these are points of its border that have no place in the other CRS
        if said.errors and not self.warped:
            raise self._unreadable(said.errors[0], at)
        if ends := list(filter(_ENDS_EARLY.search, said.notes())):
            raise self._unreadable(ends[0], at)
        if values.dtype.kind == "f":
            mask &= np.isfinite(values).all(0)
        self._check_exact(values, mask)
        self._suspect(values, mask)
        self.levels.look(self.label, self.bands, values, mask, self.notes)
        data[:, *place] = values
        valid[place] = mask
        return data, valid

    def _unreadable(self, reason: str, at: RasterWindow) -> InputError:
        """What to raise where a window of the raster or, if it is warped, of what it is warped to, cannot be read."""
        if _NOT_MADE.search(reason):
            return InputError(f"cannot read {self.label}: {reason}")
        source = damaged_source(self.dataset, None if self.warped else at)
        return ReadError(f"cannot read {self.label}: {source and f'{source}: '}{reason}")

    def _mask(self, values: np.ndarray, at: RasterWindow) -> np.ndarray:
        """Alpha, and each band's nodata value or mask; `nodata` stands for the file's own values, one per band or one
        tuple of all bands together (NODATA_VALUES)."""
        ds = self.dataset
        mask = np.ones(values.shape[1:], bool)
        every, own = ds.mask_flag_enums, ds.nodatavals  # of all bands, and gathered at each look
        for source in (self, *self.masks):
            mask &= source.opaque(at)
        if self.nodata is None and {MaskFlags.per_dataset, MaskFlags.nodata} <= set(every[self.bands[0] - 1]):
            mask &= ds.read_masks(self.bands[0], window=at) > 0
        for i, band in enumerate(self.bands):
            flags = every[band - 1]
            nodata = own[band - 1] if self.nodata is None else self.nodata
            if nodata is not None:
                mask &= ~is_nodata(values[i], nodata)
            by_gdal = self.nodata is None and is_untold(flags, nodata)
            if by_gdal or not {MaskFlags.nodata, MaskFlags.alpha, MaskFlags.all_valid} & set(flags):
                mask &= ds.read_masks(band, window=at) > 0
        return mask

    def opaque(self, at: RasterWindow) -> np.ndarray:
        """Where no alpha band is 0 (rows, cols)."""
        opaque = np.ones((int(at.height), int(at.width)), bool)
        try:
            for band in self.alpha:
                opaque &= self.dataset.read(band, window=at) > 0
        except GDAL_ERRORS as error:
            raise self._unreadable(reason_of(error), at) from error
        return opaque

    def _check_exact(self, values: np.ndarray, mask: np.ndarray) -> None:
        """Raises InputError for valid values that single precision, in which all is computed, does not hold."""
        exact = values.dtype.kind in "iu" and values.dtype.itemsize >= 4
        if not exact and values.dtype != np.float64:
            return
        for band, each in zip(self.bands, values, strict=True):
            held = each[mask]
            fault = "" if not held.size else _beyond(held) if exact else _not_held(held)
            if fault:
                alone = f"; leave band {band} out with --bidx and --fit-bands bidx" if len(self.bands) > 1 else ""
                raise InputError(f"{self.label} holds {fault}{alone}")

    def _suspect(self, values: np.ndarray, mask: np.ndarray) -> None:
        """Add one note about values that look like untagged nodata: a value in a band of floats or, of a file without
        any nodata value, in one of whole numbers with a sign, or areas of 0 or 65535 in all its bands."""
        text = f"{self.label} {UNTAGGED}"
        if any(note.startswith(text) for note in self.notes):
            return
        untagged = self.nodata is None and nodata_of(self.dataset) is None
        floats, signed = (values.dtype.kind == kind for kind in "fi")
        if floats or (untagged and signed and values.dtype.itemsize > 1 and values.min() < 0):
            for band, pixels in zip(self.bands, values, strict=True):
                odd = untagged_nodata(pixels[mask] if floats else pixels[mask].astype(np.float64))
                if odd is not None:
                    self.notes.append(f"{text} ({number_text(odd)} in band {band}): name them with --nodata")
                    return
        if untagged:
            for value in (0, _FULL) if values.dtype == np.uint16 else (0,):
                fill = mask & (values == value).all(0)
                least = FILLED * fill.size if value == 0 else 0  # zeros may be dark
                if fill.any() and solid(fill).sum() > least:
                    self.notes.append(f"{text} (areas of {value} in all bands): name them with --nodata {value}")
                    return


CUSTOMARY_NODATA = (-99.0, -999.0, -9999.0, -99999.0, -32767.0, -32768.0)
"""Values that stand for nodata by custom."""
_SHARED = 3
_FULL = 65535
FILLED = 0.002
"""Share of the pixels read above which a solid area of one value is reported."""


def untagged_nodata(pixels: np.ndarray) -> float | None:
    """The least or largest of some values if it looks like nodata, else None.

    Several pixels share it, and it is a customary nodata value and the only one below zero, or lies farther from the
    others than three times (positive: a thousand times, so that no saturated cloud does) the range that those have.
    """
    if pixels.size == 0:
        return None
    low, high = float(pixels.min()), float(pixels.max())
    thin = pixels[:: max(1, pixels.size // 1000)]
    for odd in (low, high):
        known, reach = odd in CUSTOMARY_NODATA, 3.0 if odd < 0 else 1000.0
        if not known and ((thin != odd) & (np.abs(thin - thin.dtype.type(odd)) < 0.7 * (high - low))).any():
            continue  # spares the look at every value
        rest = pixels[pixels != odd]
        if rest.size == 0 or pixels.size - rest.size < _SHARED:
            continue
        nearest, farthest = float(rest.min()), float(rest.max())
        gap = min(abs(nearest - odd), abs(farthest - odd))
        if (known and nearest >= 0) or gap > reach * (farthest - nearest) > 0:
            return odd
    return None


def solid(mask: np.ndarray, size: int = 9) -> np.ndarray:
    """Upper-left corners of squares of `size` pixels that are set throughout."""
    return box_sums(mask, size, size) == size * size


def number_text(value: float) -> str:
    """The shortest text from which the same single-precision value is read."""
    text = f"{value:g}"
    return text if np.float32(text) == np.float32(value) else str(np.float32(value))


def filled(
    read: Reader, window: Window, reach: int = FILL_REACH, known: Pixels | None = None, mirrored: bool = False
) -> Pixels:
    """Read a window as float32 with invalid pixels replaced by their nearest valid neighbour, and its valid mask.

    `known`: what reading it gave, if that was done. `mirrored`: by their mirror image in the border of what is valid,
    where that is valid. A pixel with a valid one within `reach` pixels is filled the same in every window; zeros if
    nothing is valid.
    """
    data, valid = known or read(window)
    if valid.all():
        return data.astype(np.float32), valid
    around = 2 * reach if mirrored else reach
    data, wide = read(window.widened(around))
    if not wide.any():
        return np.zeros((len(data), *valid.shape), np.float32), valid
    here = np.arange(around, around + len(valid))[:, None], np.arange(around, around + valid.shape[1])
    rows, cols = nearest_valid(wide, here)
    if mirrored:
        rows, cols = _mirrored(wide, here, (rows, cols))
    if cols.ndim == 1:  # along one axis, then the other: in a third of the time
        return data.take(rows[:, 0], 1).take(cols, 2).astype(np.float32), valid
    return np.ascontiguousarray(data[:, rows, cols], np.float32), valid


def nearest_valid(valid: np.ndarray, here: _Places) -> _Places:
    """Rows and columns of the nearest valid pixel of each one `here`."""
    box = Window.holding(np.flatnonzero(valid.any(1)), np.flatnonzero(valid.any(0)))
    if valid[box.slices].all():
        return here[0].clip(box.top, box.bottom - 1), here[1].clip(box.left, box.right - 1)
    from scipy import ndimage  # takes a fifth of a second to import

    rows, cols = ndimage.distance_transform_edt(~valid, return_distances=False, return_indices=True)
    inside = np.broadcast_arrays(*here)
    return rows[*inside], cols[*inside]


def _mirrored(valid: np.ndarray, here: _Places, nearest: _Places) -> _Places:
    """Rows and columns of what lies as far behind the nearest valid pixel as each one `here` lies before it; of that
    pixel itself where that is not valid."""
    rows, cols = (2 * near - at + np.sign(at - near) for at, near in zip(here, nearest, strict=True))
    inside = [(at >= 0) & (at < size) for at, size in zip((rows, cols), valid.shape, strict=True)]
    there = valid[np.where(inside[0], rows, 0), np.where(inside[1], cols, 0)] & inside[0] & inside[1]
    return (rows, cols) if there.all() else (np.where(there, rows, nearest[0]), np.where(there, cols, nearest[1]))


def _beyond(held: np.ndarray) -> str:
    """What is wrong with whole numbers, if single precision does not hold them."""
    odd = [int(v) for v in (held.min(), held.max()) if abs(int(v)) > EXACT]
    if not odd:
        return ""
    can_be_named = all(is_written(held.dtype, value) for value in odd)
    named = "name them with --nodata" if can_be_named else f"tag them (gdal_translate -a_nodata {odd[-1]})"
    return (
        f"whole numbers beyond {EXACT} ({odd[-1]} for one), which float32 cannot tell apart: {named} "
        "if they stand for nodata, else subtract an offset or scale them (gdal_translate -scale)"
    )


def _not_held(held: np.ndarray) -> str:
    """`_beyond` of numbers in double precision: beyond single precision, below it, or of digits that it has not."""
    limits = np.finfo(np.float32)
    low, high = float(held.min()), float(held.max())
    largest = max(abs(low), abs(high))
    if largest > limits.max:
        return "values beyond 3.4e38: name them as nodata (--nodata)"
    if 0 < largest < limits.tiny:
        return f"values below {limits.tiny:.2g} ({largest:.2g} at most): scale them"
    if largest > EXACT and 0 < high - low < np.spacing(np.float32(largest)) * COARSE:
        return (
            f"values from {low:.10g} to {high:.10g}, which float32 cannot tell apart: subtract an offset (gdal_calc), "
            "or name them with --nodata if they stand for nodata"
        )
    return ""


_KEY = re.compile("[A-Za-z_]+")


def metadata(source: Source) -> list[tuple[str, dict[str, str]]]:
    """The tags that may name a sensor, most trusted first, with the place where they stand."""
    name, ds = os.path.basename(source.label), source.dataset
    found = []
    for domain in ("IMAGERY", "IMD", "DIMAP", None):
        if tags := tags_of(ds, ns=domain):
            found.append((f"{domain or 'TIFF'} metadata of {name}", tags))
    found += [(f"{os.path.basename(p)}", side_tags(p)) for p in _side_files(source.label, ds)]
    return found


def _side_files(path: str, ds) -> list[str]:
    """Text files that belong to a raster: those GDAL lists, and others beside it."""
    others = told_of_others(ds, path)
    names = [p for p in ds.files if p != path and SIDE_FILES.search(p) and p not in others]
    names += described_in(path, ds.files)
    return [p for p in dict.fromkeys(names) if os.path.isfile(p) and os.path.getsize(p) < untrusted.MOST_SIDE]


def side_tags(path: str) -> dict[str, str]:
    """KEY = "value" and <KEY>value</KEY> pairs of a side file."""
    text = untrusted.read_text(path, untrusted.MOST_SIDE, "replace")
    pairs = []
    for line in text.splitlines():  # no pattern over all of it: they are slow on text that is made for it
        key, _, value = line.partition("=")
        pairs.append((key.strip(), value.strip().removeprefix('"').partition('"')[0].partition(";")[0]))
    elements = text.split("<")
    for element, after in zip(elements, elements[1:], strict=False):
        key, _, value = element.partition(">")
        if after.startswith("/"):
            pairs.append((key, value))
    tags: dict[str, str] = {}
    for key, value in pairs:
        if value and _KEY.fullmatch(key):
            tags.setdefault(key, value.strip())
    return tags
