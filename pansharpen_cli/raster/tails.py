"""Files whose last rows hold nothing, or zeros in some bands: a writer or a copy was stopped."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial

import numpy as np
from rasterio.windows import Window as RasterWindow

from ..errors import InputError
from .messages import GDAL_ERRORS, gdal_messages

UNTAGGED = "holds values that look like nodata and are not tagged as such"

ROWS = 9
"""Rows of zeros over the full width that are told of: water may do less."""

MOST_BYTES = 16 << 20
"""Of the blocks of a band that hold these rows: what is larger is not read for them."""

PLACES, SIDE = 16, 16
"""Places across a row where it is looked at, and columns of each."""

BEFORE, HARDLY_ANY = 8, 0.01
"""Rows before the last ones that are looked at, and the share of each that may hold nothing."""

_DRIVERS = ("BMP", "EHdr", "ENVI", "GTiff", "HFA", "PCIDSK", "RST", "SAGA")
"""Drivers that read a block by itself and raise what is wrong with it. Others warn of it, and no more than once."""

Mask = Callable[[np.ndarray, RasterWindow], np.ndarray]
"""Of values (bands, rows, cols) of a window of a raster: where they are valid (rows, cols)."""


def look_at_the_end(
    dataset, bands: Sequence[int], label: str, nodata: float | None, mask: Mask, notes: list[str]
) -> None:
    """Notes of a raster whose last rows hold nothing, or zeros in some bands; `nodata` in the place of its own."""
    tagged = dataset.nodata if nodata is None else nodata
    for look in (
        partial(_look_for_zeros, dataset, bands, label, nodata, notes),
        partial(_look_for_a_tail, dataset, bands, label, mask, tagged, notes),
    ):
        with gdal_messages():  # what cannot be read is told of once the file is read as a whole
            with suppress(*GDAL_ERRORS, InputError):
                look()
            with suppress(*GDAL_ERRORS):  # or rasterio raises it at the next call
                dataset.colorinterp  # noqa: B018


def _look_for_zeros(dataset, bands: Sequence[int], label: str, nodata: float | None, notes: list[str]) -> None:
    """A note of those of a raster's bands that end in rows of 0 while others do not; none where 0 is nodata (`nodata`
    in the place of the file's own), or the file does not keep each band in strips or rows of its own."""
    if len(bands) < 2 or 0 in (dataset.nodatavals if nodata is None else (nodata,)):
        return
    (rows, cols), height = dataset.block_shapes[bands[0] - 1], dataset.height
    apart = str(dataset.profile.get("interleave", "")).lower() == "band" and cols == dataset.width
    if not apart or height <= ROWS or max(rows, ROWS) * cols * 8 > MOST_BYTES:
        return
    last = dataset.read(list(bands), window=RasterWindow(0, height - ROWS, dataset.width, ROWS))
    short = [band for band, values in zip(bands, last, strict=True) if not values.any()]
    if 0 < len(short) < len(bands):
        named = f"band{'s' * (len(short) > 1)} {', '.join(map(str, short))}"
        notes.append(
            f"{label} ends in rows of 0 in {named}, and not in its other bands: was it written or copied to its end? "
            "(of water, 0 may be right)"
        )


def _look_for_a_tail(
    dataset, bands: Sequence[int], label: str, mask: Mask, tagged: float | None, notes: list[str]
) -> None:
    """A note of a raster that ends in rows of nodata, by `mask`, in bytes of 0xFF, or in 0 where another value is
    `tagged` as nodata, and holds hardly any before. Where none is, areas of 0, and in uint16 of such bytes, are told of
    wherever they are."""
    kinds, how = {dataset.dtypes[band - 1] for band in bands}, str(dataset.profile.get("compress", ""))
    if len(kinds) != 1 or "complex" in min(kinds) or dataset.driver not in _DRIVERS or "jpeg" in how.lower():
        return
    kind = np.dtype(kinds.pop())
    full = () if kind.kind == "f" or (tagged is None and kind == np.uint16) else (kind.type(~kind.type(0)),)
    fills = [*full, *(() if tagged is None else (kind.type(0),))]

    def values(at: RasterWindow) -> np.ndarray:
        return dataset.read(list(bands), window=at)

    def holds_others(fill: np.generic, at: RasterWindow) -> np.ndarray:
        return (values(at) != fill).any(0)

    if count := _blank_rows(dataset, lambda at: mask(read := values(at), at) & np.isfinite(read).all(0)):
        notes.append(
            f"the last {count} rows of {label} are nodata over their full width, and hardly any other pixel is: "
            "was it written or copied to its end?"
        )
        return
    for fill in (each for each in fills if each != tagged):
        if count := _blank_rows(dataset, partial(holds_others, fill)):
            notes.append(
                f"{label} {UNTAGGED} (its last {count} rows are {fill}): name them with --nodata {fill}"
                if tagged is None
                else f"the last {count} rows of {label} are {fill}, which is not its nodata value, and hardly any "
                "other pixel is: was it written or copied to its end?"
            )


def _blank_rows(dataset, seen: Callable[[RasterWindow], np.ndarray]) -> int:
    """Rows at the end of a raster in which nothing is `seen` over the full width, while nearly all before them is; 0
    for less than `ROWS`, for large blocks, and for an edge within tiles. Few blocks are read."""
    (rows, cols), height, width = dataset.block_shapes[0], dataset.height, dataset.width
    if height <= 2 * ROWS or rows * cols * 8 > MOST_BYTES:
        return 0
    places = np.linspace(0, max(width - SIDE, 0), PLACES).astype(int).tolist()

    def parts(row: int) -> Iterator[np.ndarray]:
        return (seen(RasterWindow(col, row, min(SIDE, width), 1)) for col in places)

    def is_blank(row: int) -> bool:
        return not any(part.any() for part in parts(row))

    if not (is_blank(height - 1) and is_blank(height - ROWS)):
        return 0
    first = bisect_left(range(height), True, key=is_blank)
    edge = rows if cols < width else 1
    before = np.linspace(0, max(first - 1 - edge, 0), BEFORE).astype(int).tolist()
    whole = all(np.mean([part.mean() for part in parts(row)]) >= 1 - HARDLY_ANY for row in before)
    return height - first if whole and first % edge == 0 else 0
