"""The 8-bit picture beside an output: which bands, how they are stretched, and its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..publish import Publication
from ..raster import stretch
from ..raster.bands import WAVELENGTHS
from ..raster.scene import Scene
from ..raster.stretch import Stretch
from ..raster.tiles import plan_tiles
from ..raster.writer import SceneWriter
from ..report import pictures as report_pictures
from ..report.facts import PictureFacts

if TYPE_CHECKING:
    from ..progress import Progress
    from ..quality.rasters import Raster

TRUE_COLOURS = ("red", "green", "blue")
TRUE = "true"
"""Stands for red, green and blue, also where nothing names them; for others where there are none of these."""

UNSEEN = 0.5
"""Share of a picture in one end of its range from which on a word is worth it."""


@dataclass(frozen=True)
class Request:
    """Three `bands` by number over all MS files or by name, or `true`; `stretch` as `--stretch` takes it; `alone`: in
    the place of the data."""

    bands: Sequence[int | str]
    stretch: str = "auto"
    alone: bool = False

    def places(self, scene: Scene) -> list[int]:
        """Places of the bands among those written. Raises InputError for others and where they are not three."""
        shown = scene.as_written()
        if list(self.bands) == [TRUE]:
            known = sorted((WAVELENGTHS[n], i) for i, n in enumerate(shown.standard_names) if n is not None)
            if len(known) >= 3 and not _has_colours(shown):
                return [known[i][1] for i in (-1, len(known) // 2, 0)]  # the longer waves are red
            if known:
                return shown.places_of("--rgb", TRUE_COLOURS)
            if shown.bands < 3:
                raise InputError(f"--rgb {TRUE} takes red, green and blue; {shown.bands} bands are written")
            return [band - 1 for band in report_pictures.true_colour(shown.band_names).bands]
        if len(self.bands) != 3:
            raise InputError(f"--rgb takes {TRUE} or three bands, e.g. 5,3,2 or nir,red,green, not {len(self.bands)}")
        return shown.places_of("--rgb", self.bands)

    @property
    def kept_in(self) -> Path | None:
        """The file that keeps the stretch."""
        asked = stretch.parse(self.stretch)
        return asked if isinstance(asked, Path) else None

    def check_kept(self) -> None:
        """Raises InputError for a file in the place of a stretch that is none, or a link that leads nowhere."""
        if (path := self.kept_in) is None:
            return
        if path.is_symlink() and not path.exists():
            raise InputError(f"{path} is a link to a file that does not exist; remove the link")
        if path.exists():
            Stretch.kept(path, ())

    def check(self, scene: Scene) -> None:
        """Raises InputError for bands and a stretch that cannot be had."""
        names = names_of(scene.as_written(), self.places(scene))
        if self.kept_in is not None and self.kept_in.exists():
            Stretch.kept(self.kept_in, names)


def request_of(bands: Sequence[int | str] | None, asked: str, alone: bool = False) -> Request | None:
    """What `--rgb`, `--stretch` and `--rgb-only` ask for together. Raises InputError where they do not go together."""
    if bands is None:
        if alone or asked != "auto":
            raise InputError(f"{'--rgb-only' if alone else '--stretch'} belongs to --rgb")
        return None
    stretch.parse(asked)
    is_true = len(bands) == 1 and str(bands[0]).lower() == TRUE
    return Request([TRUE] if is_true else bands, asked, alone)


def path_beside(output: Path) -> Path:
    """Where the picture of an output is that has its data, too: NAME_rgb.tif."""
    return output.with_name(f"{output.stem}_rgb{output.suffix}")


class PictureWriter:
    """Makes the picture of a written file, to be published with it."""

    def __init__(self, request: Request, scene: Scene, raster: Raster, path: Path, files: Publication) -> None:
        """`scene`: that of the written bands; `raster`: the file they are in; `path`: of the picture."""
        places = request.places(scene)
        self._part = replace(replace(scene, written=tuple(places)).as_written(), dtype="uint8", nodata=0.0)
        self._read = replace(raster, source=replace(raster.source, bands=[raster.source.bands[i] for i in places])).read
        self.path, self._files, self.kept_in, self._warnings = path, files, request.kept_in, scene.warnings
        names = names_of(scene, places)
        asked = stretch.parse(request.stretch)
        if isinstance(asked, tuple):
            self.stretch = Stretch.between(*asked, names)
        elif asked is not None and asked.exists():
            self.stretch = Stretch.kept(asked, names)
        else:
            self.stretch = Stretch.measured(self._read, scene.window, names)
            if asked is not None:
                files.add(asked, self.stretch.to_bytes())
        if list(request.bands) == [TRUE] and not _has_colours(scene):
            why = "other bands are there" if any(scene.standard_names) else "nothing names the bands"
            scene.warnings.append(
                f"{', '.join(names)} are taken for red, green and blue in {self.path.name}: {why}; choose with --rgb"
            )

    def write(self, driver: str, overviews: bool | None, progress: Progress) -> None:
        """Make the file, all but its tags."""
        options = {"PHOTOMETRIC": "RGB"} if driver == "GTiff" else {}
        self._writer = SceneWriter(
            self.path, self._part, driver=driver, creation_options=options, overviews=overviews, files=self._files,
            picture=True,
        )  # fmt: skip
        tiles = plan_tiles(self._part.window, stretch.SIDE)
        ends, count = np.zeros(2), 0
        try:
            for i, tile in enumerate(tiles):
                progress("drawing", i, len(tiles))
                values, valid = self._read(tile.core)
                shown = self.stretch(values)
                self._writer.write(tile.core, shown, valid)
                ends += np.sum(shown[:, valid] < 1.5), np.sum(shown[:, valid] >= 254.5)
                count += shown[:, valid].size
            self._writer.finish()
        except BaseException:
            self._writer.discard()
            raise
        progress("drawing", len(tiles), len(tiles))
        for share, colour, side in zip(ends / max(count, 1), ("black", "white"), ("below", "above"), strict=True):
            if share > UNSEEN:
                self._warnings.append(
                    f"{share:.0%} of {self.path.name} is {colour}: the values lie {side} the range of --stretch"
                )

    def ready(self, provenance: Mapping[str, str]) -> PictureFacts:
        """Add the tags, after which the file can be published; its facts."""
        size = self._writer.ready(provenance)
        kept = None if self.kept_in is None else str(self.kept_in)
        shown = self.stretch
        return {
            "path": str(self.path), "bytes": size, "stretch": shown.ranges(), "gamma": shown.gamma,
            "stretch_file": kept,
        }  # fmt: skip


def _has_colours(shown: Scene) -> bool:
    return set(TRUE_COLOURS) <= set(shown.standard_names)


def names_of(shown: Scene, places: Sequence[int]) -> list[str]:
    """What a stretch calls bands: their standard names, else their own, else their numbers."""
    known = zip(shown.standard_names, shown.band_names, shown.numbers, strict=True)
    every = [standard or name or f"band {number}" for standard, name, number in known]
    return [every[i] for i in places]
