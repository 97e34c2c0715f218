"""SceneWriter: a GeoTIFF or COG that appears at its path complete, or not at all."""

from __future__ import annotations

import mmap
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.enums import Resampling
from rasterio.windows import Window as RasterWindow

from ..errors import InputError, PansharpenError, reason_of
from ..publish import Publication
from . import creation
from .creation import FAILURES
from .geometry import Window
from .messages import gdal_messages
from .options import Scaling
from .scene import Scene
from .tags import PROVENANCE, carry_over
from .tiles import OUTPUT_BLOCK
from .values import Losses, Statistics, to_dtype

_STAND_IN = "PANSHARPEN_BAND"
"""Domain in which the bands' own tags get into a COG: GDAL 3.8 to 3.10 drops them where it copies all domains."""

OVERVIEWS_FROM = 4096
"""Longer side in pixels of the least file that has overviews unless it is asked for without."""


class SceneWriter:
    """Writes a fused scene beside the target; `commit` publishes it together with what else is in `files`.

    Where a compression with losses would blur what is nodata, a mask within the file stands for the nodata value.
    `overviews`: by default from `OVERVIEWS_FROM` on, and of a COG of any size. `files`: what the file is published
    with by whoever made it. `parts`: bands are written apart from each other, so that the file keeps them apart, too,
    and each has its nodata. `picture`: three bands are red, green and blue, whatever their names, and no
    DN.
    As a context manager it removes everything it made unless it was committed.
    """

    def __init__(
        self,
        path: Path,
        scene: Scene,
        *,
        driver: str = "GTiff",
        creation_options: Mapping[str, str] | None = None,
        overviews: bool | None = None,
        files: Publication | None = None,
        picture: bool = False,
        parts: bool = False,
    ) -> None:
        if overviews is None:
            overviews = driver == "COG" or max(scene.grid.height, scene.grid.width) >= OVERVIEWS_FROM
        self.path, self.driver, self.overviews, self._picture = path, driver, overviews, picture
        self.options = dict(creation_options or {})
        if parts and self.options.get("INTERLEAVE", "BAND").upper() != "BAND":
            raise InputError("--co INTERLEAVE: MS files on several grids are written band by band; leave it out")
        self._parts = parts
        self.bands, self.nodata, self.dtype, self.grid = scene.bands, scene.nodata, np.dtype(scene.dtype), scene.grid
        self._window = scene.window
        source = scene.ms[0]
        kind = source.dataset.dtypes[source.bands[0] - 1]
        self.scale = Scaling() if picture else scene.scale
        kept = picture or ((self.dtype.kind == "f" or scene.dtype == kind) and not self.scale.changes)
        names = [f"band {i}{f' ({name})' if name else ''}" for i, name in enumerate(scene.called, 1)]
        self._losses = None if kept else Losses(self.dtype, kind, self.scale.changes, names)
        self._statistics = Statistics(self.bands)
        self._warnings = scene.warnings
        if not picture:
            self._warnings += creation.wrong_colours(self.options, scene.standard_names)
        self.files, self._shared = files or Publication(), files is not None
        try:
            self._final = self.files.part(path)
            self._file = self.files.room(path) / "fused.tif" if driver == "COG" else self._final
            self._dataset = self._create(scene)
        except BaseException:
            self.discard()
            raise

    def _create(self, scene: Scene):
        self._masked = not creation.check_creation_options(
            self.driver, self.options, self.bands, self.dtype, self.nodata
        )
        if self._masked and self._parts:
            raise InputError("--co: with MS files on several grids each band keeps its nodata, which this compression "
                             "blurs; fuse without it")  # fmt: skip
        kind = {"count": self.bands, "dtype": self.dtype, "nodata": None if self._masked else self.nodata}
        grid = scene.grid
        profile = creation.profile_of(self.driver, self.options, self.dtype)
        profile |= {"INTERLEAVE": "BAND"} if self._parts else {}
        with gdal_messages(), rasterio.Env(**creation.AS_WRITTEN):
            try:
                dataset = rasterio.open(
                    self._file, "w", driver="GTiff", width=grid.width, height=grid.height, crs=grid.crs,
                    transform=grid.transform, **kind, **profile,
                )  # fmt: skip
            except FAILURES as error:
                raise PansharpenError(self._failure(reason_of(error))) from error
            carry_over(dataset, scene, self._picture)
        return dataset

    def write(self, window: Window, fused: np.ndarray, valid: np.ndarray, places: Sequence[int] | None = None) -> None:
        """Write (bands, rows, cols) at a window in PAN pixels: rounded, clipped, nodata where not valid; `places` (from
        0) of the bands in the file, None for all of them."""
        if not valid.any():
            return  # GDAL fills blocks that were never written with nodata, far faster
        if not np.isfinite(fused).all() and not np.isfinite(fused[:, valid]).all():
            raise PansharpenError(
                "the fused values are not finite: is an untagged nodata value among the inputs (--nodata)?"
            )
        fused = self.scale.written(fused)
        with np.errstate(over="ignore"):
            data = to_dtype(fused, valid, self.dtype, self.nodata)
        if self.scale.changes and self.dtype.kind == "f" and not np.isfinite(data[:, valid]).all():
            raise PansharpenError(f"--scale leads to values that {self.dtype} does not hold")
        places = range(self.bands) if places is None else places
        if self._losses is not None:
            self._losses.update(fused[:, valid], places)
        seen = data.reshape(len(data), -1)
        self._statistics.update(seen if valid.all() else np.compress(valid.ravel(), seen, 1), places)
        at = RasterWindow.from_slices(*window.seen_from(self._window).spans)
        with self._writing():
            self._dataset.write(data, [place + 1 for place in places], window=at)
            if self._masked:
                with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
                    self._dataset.write_mask(valid, window=at)

    def finish(self) -> Path:
        """Flush everything to the temporary file and return it, for scoring before `commit`. What another type than the
        MS's loses is added to the scene's warnings."""
        if self._losses is not None:
            self._warnings += self._losses.notes()
        with self._writing():
            if self.overviews and self.driver == "GTiff":
                factors = [2**k for k in range(1, 12) if min(self._dataset.shape) >> k >= 128]
                if factors:
                    with self._overview_chunks():
                        self._dataset.build_overviews(factors, Resampling.average)
            self._dataset.close()
            creation.verify(self._file)
        return self._file

    def ready(self, provenance: Mapping[str, str]) -> int:
        """Add the provenance tags and make the file that `commit` publishes; its size in bytes."""
        with self._writing():
            with rasterio.open(self._file, "r+") as dataset:
                dataset.update_tags(ns=PROVENANCE, **provenance)
                area = self.grid.height * self.grid.width
                for band, tags in zip(dataset.indexes, self._statistics.tags(area), strict=True):
                    dataset.update_tags(band, **tags)
                for band in dataset.indexes if self.driver == "COG" else ():
                    dataset.update_tags(band, ns=_STAND_IN, **dataset.tags(band))
            if self.driver == "COG":
                with self._overview_chunks():
                    rasterio.shutil.copy(
                        self._file, self._final, driver="COG",
                        **creation.compression_threads() | creation.cog_profile_of(self.options, self.overviews),
                    )  # fmt: skip
                _blank_stand_in(self._final)
            creation.verify(self._final)
            with rasterio.open(self._final) as dataset:
                nodata = None if self._masked else self.nodata
                if changed := creation.difference(dataset, self.grid, self.bands, self.dtype, nodata):
                    raise OSError(f"GDAL has given it {changed}")
        return os.path.getsize(self._final)  # what GDAL did not raise has stopped us by now

    def commit(self, provenance: Mapping[str, str]) -> None:
        """Publish the file with its provenance. Raises PansharpenError with everything as it was."""
        self.ready(provenance)
        self.files.publish()

    def discard(self) -> None:
        """Remove what is left of the temporary files."""
        dataset = getattr(self, "_dataset", None)
        if dataset is not None and not dataset.closed:
            with gdal_messages(), suppress(*FAILURES):
                dataset.close()
        if not self._shared:
            self.files.close()

    def _overview_chunks(self) -> rasterio.Env:
        """Lets GDAL average the blocks of all bands together.

        Where 2 x 2 blocks with their neighbours exceed its limit (10 MB; 16.8 MB of 8 bands of uint16), it averages the
        whole width band by band instead and decodes each block once per band: 7 times slower, and memory grows with
        the width.
        """
        pixels, working = (2 * OUTPUT_BLOCK + 64) ** 2, max(self.dtype.itemsize, 4) + 1  # float32 and a mask
        limit = {"GDAL_OVR_CHUNK_MAX_SIZE": pixels * working * self.bands}
        return rasterio.Env(**({} if limit.keys() & os.environ.keys() else limit))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns whatever goes wrong meanwhile, raised or not, into a PansharpenError."""
        with creation.writing(self._failure) as said:
            yield
        if clipped := [text for text in said.warnings if "clipped to fit" in text]:
            raise PansharpenError(self._failure(f"{clipped[0].rpartition(': ')[2]} Leave out --co NBITS"))

    def _failure(self, reason: str) -> str:
        free = shutil.disk_usage(self.path.resolve().parent).free
        if free < 1 << 20:
            reason = "no space left on the disk"
        elif free < 1 << 27:
            reason += f" ({free >> 20} MB left on the disk)"
        return f"cannot write {self.path}: {reason}"

    def __enter__(self) -> SceneWriter:
        return self

    def __exit__(self, *_) -> None:
        self.discard()


def _blank_stand_in(path: Path) -> None:
    """Make the tags of the domain `_STAND_IN` the bands' own, in the XML at the head of a COG."""
    name = f' domain="{_STAND_IN}"'.encode()
    with open(path, "r+b") as handle, mmap.mmap(handle.fileno(), 0) as content:
        at = -1
        while (at := content.find(name, at + 1, 1 << 24)) >= 0:
            content[at : at + len(name)] = b" " * len(name)
