"""Files of bands one after another whose last rows are zeros in some bands: a writer or a copy was stopped."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from rasterio.windows import Window as RasterWindow

from .messages import GDAL_ERRORS, gdal_messages

ROWS = 9
"""Rows of zeros over the full width that are told of: water may do less."""

MOST_BYTES = 16 << 20
"""Of the blocks of a band that hold these rows: what is larger is not read for them."""


def look_at_the_end(dataset, bands: Sequence[int], label: str, nodata: float | None, notes: list[str]) -> None:
    """A note of those of a raster's bands that end in rows of 0 while others do not; none where 0 is nodata (`nodata`
    in the place of the file's own), or the file does not keep each band in strips or rows of its own."""
    if len(bands) < 2 or 0 in (dataset.nodatavals if nodata is None else (nodata,)):
        return
    (rows, cols), height = dataset.block_shapes[bands[0] - 1], dataset.height
    apart = str(dataset.profile.get("interleave", "")).lower() == "band" and cols == dataset.width
    if not apart or height <= ROWS or max(rows, ROWS) * cols * 8 > MOST_BYTES:
        return
    with gdal_messages(), suppress(*GDAL_ERRORS):  # they are said once the file is read as a whole
        last = dataset.read(list(bands), window=RasterWindow(0, height - ROWS, dataset.width, ROWS))
        short = [band for band, values in zip(bands, last, strict=True) if not values.any()]
        if 0 < len(short) < len(bands):
            named = f"band{'s' * (len(short) > 1)} {', '.join(map(str, short))}"
            notes.append(
                f"{label} ends in rows of 0 in {named}, and not in its other bands: was it written or copied to its "
                "end? (of water, 0 may be right)"
            )
