"""Fused images to score: files on the grid of a scene or of a reference, and arrays."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import InputError
from ..raster.geometry import Window
from ..raster.grid import Grid, crs_name
from ..raster.options import Scaling
from ..raster.scene import Scene
from ..raster.sensors import band_name
from ..raster.source import Reader, Source, check_size, open_raster, rpcs_of
from ..raster.tags import PROVENANCE, scale_of, units_of

OTHER_UNITS = 0.5
"""Relative error of a band's level from which on a file is taken to be in other units than its MS."""


BETWEEN = 1e-2
"""Pixels by which the origin of a file may lie between those of its grid."""

PARTIAL = 0.9
"""Share of the sides of a scene below which a file without a place is a part of it, which may lie anywhere."""


@dataclass(frozen=True)
class Raster:
    """A file on a grid. `origin`: its first pixel there; `window`: the part to score; `scale`: how DN are stored in the
    file; `read` gives DN."""

    source: Source
    names: tuple[str | None, ...]
    grid: Grid
    origin: tuple[int, int]
    window: Window
    scale: Scaling = Scaling()

    @classmethod
    def open(cls, path: str | os.PathLike, nodata: float | None = None) -> Raster:
        """A file on its own grid; `nodata` replaces the file's own value if its type holds it. Raises InputError if
        GDAL cannot open it."""
        dataset, label = open_raster(os.fspath(path), rpcs=True), os.fspath(path)
        notes: list[str] = []
        try:
            check_size(label, dataset.height, dataset.width)
            source = Source.of(dataset, label, nodata, notes)
            source.check_is_no_mask()
            if any(np.dtype(dataset.dtypes[b - 1]).kind not in "uif" for b in source.bands):
                raise InputError(f"{label} holds {dataset.dtypes[0]} values; real ones are needed")
        except InputError:
            dataset.close()
            raise
        names = tuple(dataset.descriptions[b - 1] for b in source.bands)
        grid, scale = Grid.of(dataset), scale_of(dataset) or Scaling()
        return cls(source, names, grid, (0, 0), grid.whole, scale)

    @classmethod
    def on_scene(
        cls, path: str | os.PathLike, scene: Scene, nodata: float | None = None, is_new: bool = False
    ) -> Raster:
        """A fused file on the PAN grid; `is_new`: just written. Raises InputError if its grid or its bands are not
        those of the scene."""
        hint = "choose the MS bands with --bidx"
        rpcs = rpcs_of(scene.pan.dataset) if scene.by_rpcs else None
        raster = cls._on(path, nodata, scene.pan_grid, scene.full, scene.band_names, "PAN", "MS", hint, rpcs, is_new)
        return replace(raster, scale=scale_of(raster.source.dataset) or scene.scale)

    @classmethod
    def on_reference(
        cls, path: str | os.PathLike, reference: Raster, nodata: float | None = None, is_pan: bool = False
    ) -> Raster:
        """A fused file, or a PAN, on the grid of a reference. Raises InputError if its grid or its bands are others."""
        names, bands_of = ((None,), "PAN") if is_pan else (reference.names, "reference")
        rpcs = rpcs_of(reference.source.dataset) if reference.grid.transform.is_identity else None
        return cls._on(path, nodata, reference.grid, reference.window, names, "reference", bands_of, "", rpcs)

    @classmethod
    def _on(
        cls,
        path,
        nodata,
        grid: Grid,
        within: Window,
        names: Sequence[str | None],
        place: str,
        bands_of: str,
        hint: str,
        rpcs: Any = None,
        is_new: bool = False,
    ) -> Raster:
        raster = cls.open(path, nodata)
        label, own = raster.source.label, raster.grid.called_as(grid)
        try:
            if not (is_new and rpcs is None):
                own = _placed(raster, own, grid, within, place, rpcs)
            if own.crs != grid.crs:
                raise InputError(
                    f"{label} is not on the {place} grid: its CRS is {crs_name(own.crs) or 'missing'}, the {place}'s "
                    f"{crs_name(grid.crs) or 'missing'}"
                )
            phase = grid.phase_of(own)
            if phase is None:
                raise InputError(
                    f"{label} is not on the {place} grid: it is rotated or mirrored against it; it covers "
                    f"{own.describe()}, the {place} {grid.describe()}"
                )
            rows, cols = round(phase.offset[0]), round(phase.offset[1])
            if (
                max(abs(r - 1) for r in phase.ratio) > 1e-5
                or max(abs(phase.offset[0] - rows), abs(phase.offset[1] - cols)) > BETWEEN
            ):
                raise InputError(
                    f"{label} is not on the {place} grid: its pixels are {phase.ratio[0]:.4g} x {phase.ratio[1]:.4g} "
                    f"{place} pixels, its origin is {phase.offset[0]:.3f}, {phase.offset[1]:.3f} {place} pixels off"
                )
            count = len(raster.source.bands)
            if count != len(names):
                raise InputError(
                    f"{label} has {count} bands, the {bands_of} has {len(names)}" + (f"; {hint}" if hint else "")
                )
            _check_names(label, raster.names, names, bands_of, hint)
            covered = own.whole.moved(rows, cols) & within
            if covered.is_empty:
                raise InputError(
                    f"{label} does not overlap the scene: it covers {own.describe()}, the {place} {grid.describe()}"
                )
        except BaseException:
            raster.close()
            raise
        return cls(raster.source, raster.names, grid, (rows, cols), covered, raster.scale)

    def only(self, places: Sequence[int] | None) -> Raster:
        """Some of its bands, by place (from 0); all for None."""
        if places is None:
            return self
        source = replace(self.source, bands=[self.source.bands[i] for i in places])
        return replace(self, source=source, names=tuple(self.names[i] for i in places))

    def called(self, name: str) -> Raster:
        """The raster by another name in messages."""
        return replace(self, source=replace(self.source, label=name))

    @property
    def integral(self) -> bool:
        kinds = {np.dtype(self.source.dataset.dtypes[b - 1]).kind for b in self.source.bands}
        return kinds <= {"u", "i"} and not self.scale.changes

    def other_units(self, other: Raster) -> list[str]:
        """A line if the scale and offset tags of both files give their DN different units."""
        return self._other_units(other.source.label, units_of(other.source.dataset, other.source.bands, other.scale))

    def other_units_than(self, scene: Scene, colour_error: Sequence[float]) -> list[str]:
        """The same of a fused file and the MS of the `scene` of its bands. A file without such tags is of a tool that
        does not carry them, unless its `colour_error` tells otherwise."""
        theirs = [unit for ms in scene.ms for unit in units_of(ms.dataset, ms.bands, Scaling())]
        bands = self.source.bands
        untagged = all(unit == (1.0, 0.0) for unit in units_of(self.source.dataset, bands, self.scale))
        if len(theirs) != len(bands) or (untagged and max(colour_error, default=0.0) < OTHER_UNITS):
            return []
        return self._other_units(", ".join(ms.label for ms in scene.ms), theirs)

    def _other_units(self, label: str, theirs: Sequence[tuple[float, float]]) -> list[str]:
        """A line if the tags give the DN other units than `theirs`, of another file."""
        ours = units_of(self.source.dataset, self.source.bands, self.scale)
        if np.allclose(ours, theirs, rtol=1e-4, atol=1e-9):
            return []
        odd = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if not np.allclose(a, b, 1e-4, 1e-9))
        told = [f"{factor:.6g}, {offset:.6g}" for factor, offset in (ours[odd], theirs[odd])]
        return [
            f"{self.source.label} and {label} may differ in their units: their tags say scale and offset "
            f"{told[0]}, and {told[1]}. DN are compared without them"
        ]

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        values, valid = self.source.read(window.moved(-self.origin[0], -self.origin[1]))
        return self.scale.read(values), valid

    def close(self) -> None:
        self.source.dataset.close()

    def __enter__(self) -> Raster:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def _placed(raster: Raster, own: Grid, grid: Grid, within: Window, place: str, rpcs: Any) -> Grid:
    """The place of a raster on a grid that `rpcs` locate, or nothing does: by its own RPCs, or on its corner where it
    is as large as the grid. Raises InputError where nothing tells the place of a part."""
    if not (grid.transform.is_identity and own.transform.is_identity and grid.crs == own.crs):
        return own
    label, known = raster.source.label, rpcs_of(raster.source.dataset)
    if rpcs is not None and known is not None and _is_one_model(rpcs, known):
        # a part of the PAN has its RPCs, counted from its own corner
        row, col = rpcs.line_off - known.line_off, rpcs.samp_off - known.samp_off
        if not math.isfinite(row + col):
            raise InputError(f"the RPCs of {label} or of the {place} are damaged: LINE_OFF or SAMP_OFF is no number")
        if max(abs(row - round(row)), abs(col - round(col))) > BETWEEN:
            raise InputError(
                f"{label} is not on the {place} grid: by its RPCs its origin is {row:.3f}, {col:.3f} {place} pixels off"
            )
        return grid.window(Window.at(round(row), round(col), own.whole.shape))
    if rpcs is not None and known is not None:
        raster.source.notes.append(
            f"{label} and the {place} have RPCs of different models: they were laid on each other at their "
            "upper left corners"
        )
        return own
    # what `fuse` makes of a part of files without RPCs has a geotransform, but for a part at their corner
    is_ours = rpcs is None and bool(raster.source.dataset.tags(ns=PROVENANCE))
    if is_ours or own.whole.shape == grid.whole.shape:
        return own
    sizes = f"has {own.height} x {own.width} pixels, the {place} {grid.height} x {grid.width}"
    lacks = f"{label} has no RPCs" if rpcs is not None else f"{label} has no georeferencing, nor has the {place},"
    if any(n < PARTIAL * whole for n, whole in zip(own.whole.shape, within.shape, strict=True)):
        remedy = "give it the RPCs, counted from its own corner" if rpcs is not None else "cut the others to it"
        raise InputError(f"{lacks} and {sizes}: nothing tells which part it is; {remedy}")
    is_alike = own.whole.shape == within.shape
    where = f"what PAN and MS share of the {place}" if is_alike else f"the upper left corner of the {place}"
    if not is_alike or any(within.corner):
        raster.source.notes.append(f"{lacks} and {sizes}: it was laid on {where}")
    return grid.window(within) if is_alike else own


def _is_one_model(rpcs: Any, others: Any) -> bool:
    """Are polynomials the same but for the corner that pixels are counted from?"""
    kept = set(rpcs.to_dict()) - {"line_off", "samp_off", "err_bias", "err_rand"}
    return all(np.allclose(getattr(rpcs, key), getattr(others, key), rtol=1e-6, atol=0) for key in kept)


def _check_names(
    label: str, given: Sequence[str | None], wanted: Sequence[str | None], bands_of: str, hint: str
) -> None:
    """Raises InputError if both files name their bands and the names say that the order differs."""
    ours, theirs = [band_name(n) for n in given], [band_name(n) for n in wanted]
    if None in ours or None in theirs or ours == theirs:
        return
    raise InputError(
        f"the bands of {label} are {', '.join(map(str, ours))}, those of the {bands_of} {', '.join(map(str, theirs))}"
        + (f"; {hint}" if hint else "")
    )


def array_reader(fused: np.ndarray, valid: np.ndarray, origin: tuple[int, int]) -> Reader:
    """Reader of a fused image in memory whose first pixel is at `origin` of the PAN grid."""

    def read(window: Window) -> tuple[np.ndarray, np.ndarray]:
        at = window.moved(-origin[0], -origin[1])
        data, mask = np.zeros((len(fused), *window.shape), np.float32), np.zeros(window.shape, bool)
        inner = at & Window(0, fused.shape[1], 0, fused.shape[2])
        if not inner.is_empty:
            here, there = inner.within(at), inner.slices
            data[:, *here], mask[here] = fused[:, *there], valid[there]
        return data, mask

    return read
