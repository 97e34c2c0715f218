"""Pairs that are located by rational polynomials (RPCs) only: the MS in the geometry of its PAN.

Both rasters tell where a place on the ground is in them. A pixel of the PAN shows a place at some height, and the MS
shows that place somewhere, too. Where the two geometries differ by scale and offset only, the MS stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from affine import Affine
from rasterio.rpc import RPC
from rasterio.warp import transform

from ..errors import InputError
from .geometry import Phase, Window
from .grid import Grid, snapped
from .messages import GDAL_ERRORS
from .source import Source, filled, open_raster, rpcs_of

AS_IT_IS = 0.05
"""MS pixels by which the two geometries may differ beyond scale and offset for the MS not to be resampled."""

STEP = 8
"""MS pixels between the places that are computed by RPCs; those between are interpolated."""

ROUND = 0.02
"""Part of a ratio within which it is taken for the whole number."""

CLOSE = 1e-4
"""Pixels within which a place on the ground has to be found."""

MOST_HEIGHTS = 1 << 26
"""Pixels of a model of heights that lie on a scene; one of 1 m covers 8 km by 8 km."""

HEIGHTS = -1000.0, 10_000.0
"""Metres between which the ground lies; what a model says beyond is no height."""

FEET = {"us": 1200 / 3937, "": 0.3048}
"""Metres of a foot of the US survey, and of any other."""

Places = tuple[np.ndarray, np.ndarray]
"""Rows and columns, 0 at the centre of the first pixel; or longitudes and latitudes."""


def locates(sources: Sequence[Source]) -> bool:
    """Whether RPCs alone locate all of the rasters, the MS files all by the same. Raises InputError for a mixture."""
    every = [s.dataset for s in sources]
    found = [ds.transform.is_identity and ds.crs is None and rpcs_of(ds) is not None for ds in every]
    if not any(found):
        return False
    if not all(found):
        which, other = sources[found.index(True)], sources[found.index(False)]
        raise InputError(
            f"{which.label} is located by RPCs only and {other.label} is not: orthorectify it first (gdalwarp -rpc), "
            "or take both as basic products"
        )
    for source in sources[2:]:
        if rpcs_of(source.dataset) != rpcs_of(sources[1].dataset):
            raise InputError(f"{source.label} has other RPCs than {sources[1].label}: it lies on another grid")
    return True


def terrain_of(pan: Source, height: float | None, dem: str | None, notes: list[str]) -> Terrain:
    """Heights by --height and --dem, else the one that the RPCs of the PAN are made for. Raises InputError for a model
    that has no heights there."""
    low, high = HEIGHTS
    if height is not None and not low < height < high:
        raise InputError(f"--height takes metres from {low:.0f} to {high:.0f}, not {height:g}")
    known = rpcs_of(pan.dataset)
    terrain = Terrain(float(known.height_off) if height is None and known is not None else height or 0.0)
    if dem is None:
        return terrain
    camera, sides = Camera(known, pan.label), (np.linspace(0, n - 1, 17) for n in pan.dataset.shape)
    rows, cols = (x.ravel() for x in np.meshgrid(*sides, indexing="ij"))
    reach = terrain.height + np.array([-1.0, 0.0, 1.0]) * known.height_scale if known is not None else []
    ground = [camera.ground(rows, cols, np.full_like(rows, h)) for h in reach]
    terrain.read(dem, *np.concatenate(ground, axis=1))
    there = terrain.covers(*ground[1]).mean()
    if there == 0:
        raise InputError(f"{dem} has no heights where {pan.label} lies: its RPCs lead elsewhere, or it is another area")
    if there < 1:
        notes.append(
            f"{dem} has heights of {100 * there:.0f} % of {pan.label}: the rest is taken to lie at {terrain.height:g} m"
        )
    return terrain


def _metres(dataset, dem: str, values: np.ndarray) -> np.ndarray:
    """Heights in metres of the values of a model, by its scale and offset, and its unit or that of its CRS. Raises
    InputError for another unit than metres or feet."""
    scale, offset = dataset.scales[0], dataset.offsets[0]
    heights = values * scale + offset if np.isfinite([scale, offset]).all() and scale != 0 else values
    unit = dataset.units[0] or next(_vertical_units(dataset.crs), "")
    word = re.sub("[^a-z]", "", unit.lower())
    if word in ("", "m") or word.startswith(("met", "mtr")):
        return heights
    if found := re.match("(us|)(survey)?(international)?(ft|foot|feet)", word):
        return heights * FEET["us" if "us" in (found[1], word[-2:]) or "survey" in word else ""]
    raise InputError(
        f"{dem} has heights in '{unit[:40]}', not in metres or feet: convert them, or correct the unit "
        "(rio edit-info --bidx 1 --units m)"
    )


def _vertical_units(crs) -> Iterator[str]:
    """The unit of the vertical axis of a CRS, if it has one."""
    told = crs.to_dict(projjson=True)
    for part in told.get("components", [told]):
        for axis in part.get("coordinate_system", {}).get("axis", []):
            if axis.get("direction") == "up":
                unit = axis.get("unit", "")
                yield unit if isinstance(unit, str) else str(unit.get("name", ""))


def _terms(x: np.ndarray, y: np.ndarray, h: np.ndarray) -> list[np.ndarray]:
    """The 20 terms of RPC00B of normalised longitude, latitude and height."""
    return [
        np.ones_like(x), x, y, h, x * y, x * h, y * h, x * x, y * y, h * h, x * y * h, x**3, x * y * y, x * h * h,
        x * x * y, y**3, y * h * h, x * x * h, y * y * h, h**3,
    ]  # fmt: skip


@dataclass(frozen=True)
class Camera:
    """Where places on the ground are in a raster, by its RPCs."""

    rpc: RPC
    label: str

    def pixels(self, lon: np.ndarray, lat: np.ndarray, height: np.ndarray) -> Places:
        """Rows and columns of places in degrees and metres above the ellipsoid."""
        r = self.rpc
        east = lon - r.long_off
        east = east - 360 * np.rint(east / 360)  # the scene may lie across 180 degrees
        x, y, h = np.broadcast_arrays(
            east / r.long_scale, (lat - r.lat_off) / r.lat_scale, (height - r.height_off) / r.height_scale
        )
        terms = np.stack(_terms(x, y, h))
        line, line_den, samp, samp_den = (
            np.tensordot(np.array(c, float), terms, 1)
            for c in (r.line_num_coeff, r.line_den_coeff, r.samp_num_coeff, r.samp_den_coeff)
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            return line / line_den * r.line_scale + r.line_off, samp / samp_den * r.samp_scale + r.samp_off

    def ground(self, rows: np.ndarray, cols: np.ndarray, height: np.ndarray) -> Places:
        """Longitudes and latitudes of pixels at a height, by Newton's method. Raises InputError where it does not lead
        to one: the polynomials are no camera's."""
        r = self.rpc
        lon, lat = np.full_like(rows, r.long_off), np.full_like(rows, r.lat_off)
        dx, dy = 1e-4 * r.long_scale, 1e-4 * r.lat_scale
        for _ in range(20):
            row, col = self.pixels(lon, lat, height)
            off_row, off_col = rows - row, cols - col
            if max(np.abs(off_row).max(), np.abs(off_col).max()) < CLOSE:
                return lon, lat
            (row_x, col_x), (row_y, col_y) = self.pixels(lon + dx, lat, height), self.pixels(lon, lat + dy, height)
            a, b, c, d = (row_x - row) / dx, (row_y - row) / dy, (col_x - col) / dx, (col_y - col) / dy
            with np.errstate(divide="ignore", invalid="ignore"):
                lon = lon + (d * off_row - b * off_col) / (a * d - b * c)
                lat = lat + (a * off_col - c * off_row) / (a * d - b * c)
            if not np.isfinite([lon, lat]).all():
                break
        if odd := [key for key, value in r.to_dict().items() if value is not None and not _is_usable(key, value)]:
            raise InputError(f"the RPCs of {self.label} are damaged: {' and '.join(odd).upper()} is 0 or no number")
        raise InputError(f"the RPCs of {self.label} lead to no place on the ground: are they those of this file?")


class Terrain:
    """Heights of places: one height everywhere, or those of an elevation model where it has any."""

    def __init__(self, height: float) -> None:
        self.height = height
        self.dem: str | None = None

    def read(self, dem: str, lon: np.ndarray, lat: np.ndarray) -> None:
        """Take the heights of a raster around places. Raises InputError for one that has none, or too many."""
        self.dem = dem
        with open_raster(dem) as dataset:
            if dataset.crs is None:
                raise InputError(f"{dem} has no CRS: its heights have no place")
            self._grid = Grid.of(dataset)
            rows, cols = (x[np.isfinite(x)] for x in self._pixels(lon, lat))
            whole = Window(0, dataset.height, 0, dataset.width)
            self._window = Window(0, 0, 0, 0)
            if rows.size and cols.size:
                ends = [int(np.clip(v, -1e9, 1e9)) for v in (rows.min(), rows.max(), cols.min(), cols.max())]
                self._window = Window(ends[0] - 2, ends[1] + 3, ends[2] - 2, ends[3] + 3) & whole
            if self._window.is_empty:
                return
            if self._window.area > MOST_HEIGHTS:
                raise InputError(
                    f"{dem} has {self._window.area:,} pixels on the scene, and at most {MOST_HEIGHTS:,} are read: "
                    "make it coarser (gdalwarp -tr)"
                )
            values, valid = Source(dataset, [1], dem).read(self._window)
            heights = _metres(dataset, dem, values[0].astype(np.float64))
            ground = (heights > HEIGHTS[0]) & (heights < HEIGHTS[1])
            self._heights = np.where(valid & ground, heights, np.nan)

    def _pixels(self, lon: np.ndarray, lat: np.ndarray) -> Places:
        """Rows and columns of places in the model, 0 at the centre of its first pixel."""
        try:
            xs, ys = transform("EPSG:4326", self._grid.crs, lon.ravel(), lat.ravel())
        except GDAL_ERRORS as error:
            raise InputError(f"{self.dem} cannot be used as --dem: {str(error)[:200]}") from error
        cols, rows = ~self._grid.transform * (np.array(xs) - 0.0, np.array(ys) - 0.0)
        return rows - 0.5, cols - 0.5

    def covers(self, lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
        """Where the model has heights."""
        return np.isfinite(self._found(lon, lat))

    def at(self, lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
        """Metres, bilinear between the model's pixels."""
        if self.dem is None:
            return np.full_like(lon, self.height)
        found = self._found(lon, lat)
        return np.where(np.isfinite(found), found, self.height).reshape(lon.shape)

    def _found(self, lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
        """What the model says, NaN where that is nothing."""
        from scipy.ndimage import map_coordinates

        rows, cols = self._pixels(lon, lat)
        if self._window.is_empty:
            return np.full(rows.shape, np.nan)
        rows, cols = np.clip(rows - self._window.top, -1e6, 1e6), np.clip(cols - self._window.left, -1e6, 1e6)
        height, width = self._window.shape
        inside = (rows >= -0.5) & (rows <= height - 0.5) & (cols >= -0.5) & (cols <= width - 0.5)
        found = map_coordinates(self._heights, [rows, cols], order=1, mode="nearest")
        return np.where(inside, found, np.nan)

    def ground(self, camera: Camera, rows: np.ndarray, cols: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Longitudes, latitudes and heights of pixels."""
        height = np.full_like(rows, self.height)
        lon, lat = camera.ground(rows, cols, height)
        for _ in range(5 if self.dem else 0):
            height = self.at(lon, lat)
            lon, lat = camera.ground(rows, cols, height)
        return lon, lat, height


@dataclass(frozen=True)
class Passage:
    """Where pixels of one raster are in another one that is located by RPCs, too."""

    origin: Camera
    target: Camera
    terrain: Terrain

    def __call__(self, rows: np.ndarray, cols: np.ndarray) -> Places:
        return self.target.pixels(*self.terrain.ground(self.origin, rows, cols))

    @property
    def back(self) -> Passage:
        return Passage(self.target, self.origin, self.terrain)


@dataclass(frozen=True)
class ResampledByRpc(Source):
    """An MS file resampled, once and by cubic convolution, to a grid in the geometry of its PAN, read by window."""

    phase: Phase | None = None
    passage: Passage | None = None

    def dtype_of(self, index: int) -> np.dtype:
        return np.dtype("float32")

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Values (bands, rows, cols) float32, and where the nearest pixel of the file is valid (rows, cols)."""
        values, valid = np.zeros((len(self.bands), *window.shape), np.float32), np.zeros(window.shape, bool)
        rows, cols = self.places(window)
        height, width = self.dataset.height, self.dataset.width
        inside = (rows > -0.5) & (rows < height - 0.5) & (cols > -0.5) & (cols < width - 0.5)
        if not inside.any():
            return values, valid
        r, c = rows[inside], cols[inside]
        around = Window(*(int(np.floor(v)) + k for v, k in ((r.min(), -1), (r.max(), 3), (c.min(), -1), (c.max(), 3))))
        image, there = filled(super().read, around)
        valid[inside] = there[np.rint(r).astype(int) - around.top, np.rint(c).astype(int) - around.left]
        values[:, inside] = _cubic(image, r - around.top, c - around.left)
        return values, valid

    def places(self, window: Window) -> Places:
        """Rows and columns of the file at the centres of the grid's pixels; exact on a lattice, linear between."""
        assert self.phase is not None and self.passage is not None
        nodes, weights = [], []
        for (first, last), axis in zip(window.spans, self.phase, strict=True):
            known = np.arange(first // STEP, -(-last // STEP) + 1) * STEP
            nodes.append(axis.offset + axis.ratio * (known + 0.5) - 0.5)
            at = np.arange(first, last) / STEP - known[0] / STEP
            weights.append(np.clip(1 - np.abs(at[:, None] - np.arange(len(known))), 0, None))
        exact = self.passage(*np.meshgrid(*nodes, indexing="ij"))
        rows, cols = (weights[0] @ each @ weights[1].T for each in exact)
        return rows, cols


def _cubic(image: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Values (bands, places) of an image (bands, rows, cols) between its pixels: Keys' kernel with a = -0.5."""
    r, c = np.floor(rows).astype(int), np.floor(cols).astype(int)
    found = np.zeros((len(image), len(rows)), np.float64)
    for i, v in zip(range(-1, 3), _keys(rows - r), strict=True):
        for k, w in zip(range(-1, 3), _keys(cols - c), strict=True):
            found += (v * w) * image[:, r + i, c + k]
    return found.astype(np.float32)


def _keys(t: np.ndarray) -> tuple[np.ndarray, ...]:
    return (
        ((-0.5 * t + 1) * t - 0.5) * t,
        (1.5 * t - 2.5) * t * t + 1,
        ((-1.5 * t + 2) * t + 0.5) * t,
        (0.5 * t - 0.5) * t * t,
    )


def placed(
    pan: Source, ms: Sequence[Source], terrain: Terrain, notes: list[str]
) -> tuple[Grid, Phase, list[Source], bool]:
    """Of a pair that RPCs locate: the grid of the MS and its phase on that of the PAN, the sources of the MS to read,
    and whether they are resampled."""
    to_ms = Passage(Camera(rpcs_of(pan.dataset), pan.label), Camera(rpcs_of(ms[0].dataset), ms[0].label), terrain)
    low, high = _overlap(pan, ms[0], to_ms.back)
    axes = [np.linspace(a, b, 17) for a, b in zip(low, high, strict=True)]
    rows, cols = np.meshgrid(*axes, indexing="ij")
    fits = [_line(own, there) for own, there in zip(to_ms(rows, cols), (rows, cols), strict=True)]
    resampled = not all(off < AS_IT_IS * ratio for ratio, _, off in fits)
    if resampled:
        middle = [float(a + b) / 2 for a, b in zip(low, high, strict=True)]
        centre = [np.rint(float(v[0])) for v in to_ms(*(np.array([m]) for m in middle))]
        at = np.stack(to_ms.back(centre[0] + np.array([0.0, 1, 0]), centre[1] + np.array([0.0, 0, 1])))
        ratio = [_rounded(float(np.hypot(*(at[k, 1:] - at[k, 0])))) for k in range(2)]
        steps = [np.floor((at[k, 0] - low[k]) / ratio[k]) for k in range(2)]
        offset = [float(at[k, 0] - steps[k] * ratio[k] + 0.5 - ratio[k] / 2) for k in range(2)]
        height, width = (int(np.ceil((high[k] + 0.5 - offset[k]) / ratio[k])) for k in range(2))
        heights = f"heights of {terrain.dem}" if terrain.dem else f"height {terrain.height:g} m"
        notes.append(
            f"{ms[0].label} is brought into the geometry of {pan.label} by both RPCs ({heights}): resampled once "
            "(cubic)"
        )
    else:
        # a pixel's centre is at a whole number, its edge half a pixel before
        height, width = ms[0].dataset.shape
        ratio = [snapped(a, length) for (a, _, _), length in zip(fits, (height, width), strict=True)]
        offset = [snapped(b + 0.5 - a / 2) for a, b, _ in fits]
    phase = Phase.of((ratio[0], ratio[1]), (offset[0], offset[1]))
    sources = list(ms)
    if resampled:
        known = ((s.dataset, s.bands, s.label, s.nodata, s.alpha, s.notes) for s in ms)
        masks = [s.masks for s in ms]
        sources = [
            ResampledByRpc(*each, masks=own, phase=phase, passage=to_ms) for each, own in zip(known, masks, strict=True)
        ]
    grid = Grid(None, Affine.identity(), *pan.dataset.shape)
    return grid.coarser(phase, Window(0, height, 0, width)), phase, sources, resampled


def _is_usable(key: str, value: float | Sequence[float]) -> bool:
    """Whether a number, or numbers, of RPCs can be computed with."""
    return bool(np.isfinite(value).all()) and not (key.endswith("_scale") and value == 0)


def _overlap(pan: Source, ms: Source, to_pan: Passage) -> tuple[np.ndarray, np.ndarray]:
    """First and last pixels of the PAN, rows and columns, between which the border of the MS lies."""
    height, width = ms.dataset.shape
    edge = np.linspace(-0.5, 0.5, 21)
    first, last = np.full(21, -0.5), np.full(21, 0.5)
    rows = np.concatenate([edge, edge, first, last]) * height + (height - 1) / 2
    cols = np.concatenate([first, last, edge, edge]) * width + (width - 1) / 2
    places = np.stack(to_pan(rows, cols))
    if not np.isfinite(places).all():
        raise InputError(f"the RPCs of {pan.label} do not reach to {ms.label}")
    low, high = np.maximum(places.min(1), -0.5), np.minimum(places.max(1), np.array(pan.dataset.shape) - 0.5)
    if (high - low < 1).any():
        r, c = places.min(1), places.max(1)
        raise InputError(
            f"no overlap: by the RPCs {ms.label} lies at rows {r[0]:.0f}-{c[0]:.0f}, columns {r[1]:.0f}-{c[1]:.0f} of "
            f"{pan.label}"
        )
    return low, high


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Slope and offset of y over x by least squares, and the largest distance from that line."""
    slope, offset = np.polyfit(x.ravel(), y.ravel(), 1)
    return float(slope), float(offset), float(np.abs(slope * x + offset - y).max())


def _rounded(ratio: float) -> float:
    return float(round(ratio)) if abs(ratio - round(ratio)) < ROUND * ratio else ratio
