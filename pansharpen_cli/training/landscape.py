"""Landscapes of fields, streets, roofs, trees, water and shadows, painted as flat materials (landscape.toml).

They are painted at twice the PAN resolution and averaged down, so that edges are antialiased.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from rasterio.features import rasterize
from scipy.ndimage import affine_transform
from scipy.spatial import ConvexHull

from .. import tables

Point = tuple[float, float]

_PAINTS = tables.read(__file__)
_INFRARED = (5, 6, 7)

_LEVEL, _HAZE, _SHADOW = (np.array(_PAINTS[key]) for key in ("level", "haze", "shadow"))
MAXIMUM = 2047  # DN

# Geometry -----------------------------------------------------------------------------------------------------------


def _clip(polygon: np.ndarray, point: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """The part of a convex polygon (points, 2) on the side of a line that its normal points to."""
    side = (polygon - point) @ normal
    kept = []
    for k in range(len(polygon)):
        a, b = side[k - 1], side[k]
        if (a >= 0) != (b >= 0):
            kept.append(polygon[k - 1] + (polygon[k] - polygon[k - 1]) * (a / (a - b)))
        if b >= 0:
            kept.append(polygon[k])
    return np.array(kept).reshape(-1, 2)


def _area(polygon: np.ndarray) -> float:
    r, c = polygon.T
    return 0.5 * abs(float(np.sum(r * np.roll(c, 1) - c * np.roll(r, 1))))


def _length(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.hypot(*(b - a)))


def _axes(along: np.ndarray) -> np.ndarray:
    """A direction and the one at a right angle to it (2, 2)."""
    return np.array([along, (-along[1], along[0])])


def _frame(polygon: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre, axes (2, 2; the first along the longest edge) and half extents of a convex polygon."""
    edges = np.roll(polygon, -1, axis=0) - polygon
    length = np.hypot(*edges.T)
    axes = _axes(edges[np.argmax(length)] / length.max())
    spread = polygon @ axes.T
    low, high = spread.min(axis=0), spread.max(axis=0)
    return (low + high) / 2 @ axes, axes, (high - low) / 2


def _inset(polygon: np.ndarray, distance: float) -> np.ndarray:
    """A convex polygon whose edges have moved inwards; empty where nothing is left."""
    centre = polygon.mean(axis=0)
    for a, b in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        edge = b - a
        normal = np.array([-edge[1], edge[0]]) / max(float(np.hypot(*edge)), 1e-9)
        normal *= 1.0 if (centre - a) @ normal >= 0 else -1.0
        if len(polygon := _clip(polygon, a + distance * normal, normal)) < 3:
            break
    return polygon


def _rectangle(centre: np.ndarray, axes: np.ndarray, half: Sequence[float] | np.ndarray) -> np.ndarray:
    corners = np.array([(-1, -1), (-1, 1), (1, 1), (1, -1)]) * np.asarray(half)
    return centre + corners @ axes


def _hull(points: np.ndarray) -> np.ndarray:
    """Convex hull of points (points, 2)."""
    return points[ConvexHull(points).vertices]


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cell: float) -> np.ndarray:
    """Noise of about unit variance that varies over `cell` pixels: random values under a cubic B-spline."""
    knots = rng.standard_normal([int((size - 1) // cell) + 4 for size in shape]) / 0.48
    return affine_transform(knots, [1 / cell] * 2, offset=1, output_shape=shape, order=3, prefilter=False)


# Painting -----------------------------------------------------------------------------------------------------------


class _Canvas:
    """Flat objects on a raster of twice the PAN resolution; coordinates are (row, col) in PAN pixels."""

    def __init__(self, rows: int, cols: int, sun: np.ndarray):
        self.size = np.array([rows, cols], dtype=float)
        self.sun = sun
        self.object = np.zeros((2 * rows, 2 * cols), np.int32)
        self.shadow = np.zeros((2 * rows, 2 * cols), bool)
        self.materials: list[str] = []
        self.brightness: list[float] = []
        self.tints: list[np.ndarray] = []

    def add(self, material: str, brightness: float = 1.0, tint: np.ndarray | None = None) -> int:
        """A new kind of object: a material with its own brightness and spectral tint (9 factors)."""
        self.materials.append(material)
        self.brightness.append(brightness)
        self.tints.append(np.ones(9) if tint is None else tint)
        return len(self.materials) - 1

    def _window(self, polygon: np.ndarray) -> tuple[tuple[slice, slice], np.ndarray] | None:
        """Where a convex polygon lies on the raster, and its mask there; None where that is nowhere."""
        if len(polygon) < 3:
            return None
        low = np.clip(np.floor(polygon.min(axis=0)), 0, self.size).astype(int)
        high = np.clip(np.ceil(polygon.max(axis=0)), 0, self.size).astype(int)
        if np.any(high <= low):
            return None
        where = slice(2 * low[0], 2 * high[0]), slice(2 * low[1], 2 * high[1])
        corners = 2 * polygon[:, ::-1] - (where[1].start, where[0].start)
        ring = [*map(tuple, corners), tuple(corners[0])]
        shape = 2 * (high - low)
        mask = rasterize([{"type": "Polygon", "coordinates": [ring]}], shape, dtype=np.uint8).astype(bool)
        return where, mask

    def fill(self, polygon: np.ndarray, obj: int, raised: bool = False) -> None:
        """Paint a convex polygon; a raised one comes out of the shadows on the ground."""
        if found := self._window(polygon):
            where, mask = found
            self.object[where][mask] = obj
            if raised:
                self.shadow[where][mask] = False

    def stripes(self, polygon: np.ndarray, obj: int, across: np.ndarray, period: float, share: float) -> None:
        """Paint parallel stripes in a convex polygon: `share` of each `period` PAN pixels along `across`."""
        if found := self._window(polygon):
            where, mask = found
            r, c = (at / 2 for at in np.ogrid[where])
            self.object[where][mask & ((r * across[0] + c * across[1]) % period < share * period)] = obj

    def shade(self, polygon: np.ndarray, height: float) -> None:
        """Cast the shadow of a convex polygon that stands `height` (its shadow's length in PAN pixels) high."""
        if found := self._window(_hull(np.vstack([polygon, polygon + height * self.sun]))):
            where, mask = found
            self.shadow[where] |= mask

    def line(self, a: np.ndarray, b: np.ndarray, width: float, obj: int) -> None:
        """Paint a straight line with butt ends."""
        if (length := _length(a, b)) > 0:
            self.fill(_rectangle((a + b) / 2, _axes((b - a) / length), (length / 2, width / 2)), obj)

    def disc(self, centre: np.ndarray, radius: float, lit: int, dark: int) -> None:
        """Paint a crown: a raised disc whose side away from the sun is darker, and its shadow."""
        reach = int(np.ceil(2 * radius)) + 1
        base = np.floor(2 * centre).astype(int)
        step = np.arange(-reach, reach + 1)
        r = (base[0] + step[:, None] + 0.5) / 2 - centre[0]
        c = (base[1] + step + 0.5) / 2 - centre[1]
        ball = r**2 + c**2 <= radius**2
        away = r * self.sun[0] + c * self.sun[1]
        rim = ball & (away > 0.25 * radius)
        for mask, obj, drop in ((ball, None, 1.3 * radius), (ball, lit, 0.0), (rim, dark, 0.0)):
            rows, cols = (base - reach + np.round(2 * drop * self.sun).astype(int))[:, None] + np.nonzero(mask)
            inside = (rows >= 0) & (rows < len(self.object)) & (cols >= 0) & (cols < len(self.object[0]))
            place = rows[inside], cols[inside]
            self.shadow[place] = obj is None
            if obj is not None:
                self.object[place] = obj

    def at(self, centre: np.ndarray) -> str | None:
        """The material at a place, or None outside."""
        r, c = np.floor(2 * centre).astype(int)
        inside = 0 <= r < self.object.shape[0] and 0 <= c < self.object.shape[1]
        return self.materials[self.object[r, c]] if inside else None


class _Painter:
    """Draws one landscape; every choice comes from one seeded generator."""

    ROOFS = ("tile roof", "slate roof", "bright roof", "tar roof", "blue roof", "green roof", "gravel")
    HOUSE_ODDS = (0.50, 0.24, 0.08, 0.10, 0.02, 0.02, 0.04)
    HALL_ODDS = (0.04, 0.16, 0.30, 0.16, 0.12, 0.08, 0.14)

    def __init__(self, rows: int, cols: int, seed: int):
        self.rng = np.random.default_rng(seed)
        self.shape = (rows, cols)
        azimuth = self.rng.uniform(0, 2 * np.pi)
        self.canvas = _Canvas(rows, cols, np.array([np.cos(azimuth), np.sin(azimuth)]))
        self.height = self.rng.uniform(0.7, 1.4)  # shadow length per height
        self.scale = self.rng.uniform(0.8, 1.25)
        self.canvas.add("soil", 0.9)
        self.roads: list[tuple[np.ndarray, np.ndarray, float]] = []
        self.urban = _smooth_noise(self.rng, (-(-rows // 8), -(-cols // 8)), 28) + self.rng.uniform(-0.3, 0.5)

    def paint(self) -> _Canvas:
        rng, (rows, cols) = self.rng, self.shape
        frame = np.array([(-8, -8), (-8, cols + 8), (rows + 8, cols + 8), (rows + 8, -8)], dtype=float)
        blocks = list(self._split(frame, 26000 * self.scale**2, (13.0, 8.0), rng.uniform(0, np.pi)))
        kinds = [self._kind(block) for block in blocks]
        for kind, block in zip(kinds, blocks, strict=True):
            self._ground(kind, block)
        if rng.random() < 0.6 and min(rows, cols) >= 128:
            self._river()
        for road in self.roads:
            self._road(*road)
        for kind, block in zip(kinds, blocks, strict=True):
            self._furnish(kind, block)
        return self.canvas

    def _kind(self, block: np.ndarray) -> str:
        """What stands on a block: towns grow where the `urban` noise is high."""
        r, c = np.clip(block.mean(axis=0) / 8, 0, np.array(self.urban.shape) - 1).astype(int)
        mood = self.urban[r, c] + 0.25 * self.rng.standard_normal()
        pick = self.rng.random()
        if mood > 0.0:
            return "houses" if pick < 0.60 else "halls" if pick < 0.86 else "park"
        return "field" if pick < 0.72 else "forest" if pick < 0.88 else "houses" if pick < 0.94 else "lake"

    def _split(
        self, polygon: np.ndarray, target: float, widths: Sequence[float], angle: float | None = None
    ) -> Iterator[np.ndarray]:
        """Cut a convex polygon in two again and again; the cuts become roads of falling width."""
        rng = self.rng
        if _area(polygon) < target * rng.uniform(0.8, 1.6):
            yield polygon
            return
        centre, axes, half = _frame(polygon)
        if angle is None:
            along = axes[1] if half[0] > 0.8 * half[1] else axes[0]
            turn = 0.05 * rng.standard_normal()
            along = np.array([along[0] - turn * along[1], along[1] + turn * along[0]])
        else:
            along = np.array([np.sin(angle), np.cos(angle)])
        normal = np.array([-along[1], along[0]])
        point = centre + normal * rng.uniform(-0.25, 0.25) * float(np.abs(axes @ normal) @ half)
        one, two = _clip(polygon, point, normal), _clip(polygon, point, -normal)
        if min(len(one), len(two)) < 3:
            yield polygon
            return
        if widths:
            reach = (polygon - point) @ along
            ends = point + along * reach.min(), point + along * reach.max()
            cut = [e for e in one if abs((e - point) @ normal) < 1e-6]
            a, b = (cut[0], cut[-1]) if len(cut) >= 2 else ends
            self.roads.append((a, b, widths[0] * self.scale))
        for part in (one, two):
            yield from self._split(part, target, widths[1:] if len(widths) > 1 else widths)

    def _tint(self) -> np.ndarray:
        """A smooth random change of the spectrum, and an independent one of the ninth channel."""
        slope, bend, hidden = 0.06 * self.rng.standard_normal(3)
        x = np.linspace(-1, 1, 8)
        return np.append(np.exp(slope * x + bend * (x**2 - 0.4)), np.exp(2.5 * hidden))

    def _new(self, material: str, spread: float = 0.1) -> int:
        return self.canvas.add(material, float(np.exp(spread * self.rng.standard_normal())), self._tint())

    def _ground(self, kind: str, block: np.ndarray) -> None:
        rng, canvas = self.rng, self.canvas
        if kind == "field":
            for plot in self._split(block, 9000 * self.scale**2, ()):
                self._plot(plot)
        elif kind == "lake":
            canvas.fill(block, self._new("grass"))
        elif kind == "halls":
            canvas.fill(block, self._new(rng.choice(["asphalt", "concrete", "gravel"])))
        else:
            canvas.fill(block, self._new("grass" if kind != "forest" else "dark soil", 0.15))

    def _plot(self, plot: np.ndarray) -> None:
        """One farmer's plot, with or without rows."""
        rng, canvas = self.rng, self.canvas
        crop = rng.choice(["crop", "grass", "ripe crop", "soil", "dark soil"], p=[0.34, 0.16, 0.2, 0.2, 0.1])
        canvas.fill(plot, self._new(crop, 0.18))
        across = _frame(plot)[1][1]
        if rng.random() < 0.4:  # rows with soil between them
            period = rng.uniform(2.4, 6.5)
            between = self._new("soil" if crop != "soil" else "dark soil", 0.15)
            canvas.stripes(_inset(plot, 2.0), between, across, period, rng.uniform(0.25, 0.5))
        elif rng.random() < 0.6:  # tractor lines
            lines = self._new("dark soil" if crop != "dark soil" else "soil", 0.1)
            canvas.stripes(_inset(plot, 3.0), lines, across, rng.uniform(12, 26), 0.06)
        if rng.random() < 0.5:
            edge = self._new("grass", 0.1)
            for a, b in zip(plot, np.roll(plot, -1, axis=0), strict=True):
                canvas.line(a, b, rng.uniform(0.8, 2.2), edge)

    def _river(self) -> None:
        """A meandering ribbon of water between grassy banks."""
        rng, (rows, cols) = self.rng, self.shape
        span = float(np.hypot(rows, cols))
        angle = rng.uniform(0, np.pi)
        along, across = _axes(np.array([np.sin(angle), np.cos(angle)]))
        s = np.linspace(-0.6, 0.6, 60)
        swing = 0.10 * np.sin(rng.uniform(0, 6.28) + 9 * s) + 0.03 * np.sin(rng.uniform(0, 6.28) + 25 * s)
        middle = self.canvas.size / 2 + across * rng.uniform(-0.25, 0.25) * span
        path = middle + span * (s[:, None] * along + swing[:, None] * across)
        width = rng.uniform(14, 34) * self.scale
        tangent = np.gradient(path, axis=0)
        normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1) / np.hypot(*tangent.T)[:, None]
        for material, half in (("grass", width / 2 + 7), ("soil", width / 2 + 1.5), ("water", width / 2)):
            obj = self._new(material)
            for k in range(len(path) - 1):
                quad = [path[k] - half * normal[k], path[k] + half * normal[k]]
                quad += [path[k + 1] + half * normal[k + 1], path[k + 1] - half * normal[k + 1]]
                self.canvas.fill(_hull(np.array(quad)), obj)

    def _road(self, a: np.ndarray, b: np.ndarray, width: float) -> None:
        canvas = self.canvas
        if width > 6:
            canvas.line(a, b, width + 3.0, self._new("concrete", 0.08))
        canvas.line(a, b, width, self._new("asphalt", 0.12))
        if width > 7.5:  # dashes, as thin as in life: less than a PAN pixel
            length, marking = _length(a, b), self._new("marking")
            for at in np.arange(4, length - 4, 9.0):
                p, q = (a + (b - a) * x / length for x in (at, at + 4.0))
                canvas.line(p, q, 0.7, marking)
        self._cars(a, b, width)

    def _cars(self, a: np.ndarray, b: np.ndarray, width: float) -> None:
        rng, length = self.rng, _length(a, b)
        if length < 8:
            return
        axes = _axes((b - a) / length)
        for at in rng.uniform(4, length - 4, rng.poisson(length / 45)):
            centre = a + axes[0] * at + axes[1] * width * rng.choice([-0.26, 0.26])
            self._car(centre, axes)

    def _car(self, centre: np.ndarray, axes: np.ndarray) -> None:
        rng, canvas = self.rng, self.canvas
        if canvas.at(centre) in (None, "water"):
            return
        body = _rectangle(centre, axes, (rng.uniform(1.2, 1.8), rng.uniform(0.6, 0.9)))
        canvas.shade(body, 0.7 * self.height)
        canvas.fill(body, self._new(rng.choice(["white car", "dark car", "red car"], p=[0.5, 0.35, 0.15])), raised=True)

    def _furnish(self, kind: str, block: np.ndarray) -> None:
        rng = self.rng
        inner = _inset(block, 7.0 * self.scale)
        if len(inner) < 3:
            return
        if kind == "houses":
            before = len(self.roads)
            streets = list(self._split(inner, 5200 * self.scale**2, (4.5,)))
            for street in self.roads[before:]:
                self._road(*street)
            for part in streets:
                for lot in self._split(_inset(part, 3.2), 520 * self.scale**2, ()):
                    self._lot(lot)
        elif kind == "halls":
            for site in self._split(inner, 6500 * self.scale**2, ()):
                self._site(_inset(site, 2.0))
        elif kind == "forest":
            self._trees(inner, 0.035)
        elif kind == "park":
            centre, axes, half = _frame(inner)
            path = self._new("gravel")
            for _ in range(3):
                ends = [inner[k] for k in rng.choice(len(inner), 2, replace=False)]
                self.canvas.line(ends[0], ends[1], rng.uniform(1.5, 3.0), path)
            place = self._new(rng.choice(["soil", "concrete", "water"]))
            self.canvas.fill(_rectangle(centre, axes, half * 0.22), place)
            self._trees(inner, 0.006)
        elif kind == "lake":
            centre, _, half = _frame(inner)
            turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
            radius = half.min() * rng.uniform(0.7, 0.9) * (1 + 0.09 * np.sin(2 * turn + rng.uniform(0, 6.28)))
            radius = radius * (1 + 0.03 * np.sin(3 * turn + rng.uniform(0, 6.28)))  # still convex
            shore = centre + np.stack([np.cos(turn), np.sin(turn)], axis=1) * radius[:, None]
            self.canvas.fill(shore + (shore - centre) * 0.06, self._new("soil"))
            self.canvas.fill(shore, self._new("water"))
            self._trees(inner, 0.004)
        elif rng.random() < 0.7:  # a hedge or a row of trees along a field
            a, b = inner[0], inner[1]
            for at in np.arange(0, 1, 7.0 / max(_length(a, b), 7.0)):
                self._tree(a + (b - a) * at, rng.uniform(1.8, 3.2))

    def _trees(self, area: np.ndarray, density: float) -> None:
        """Scatter `density` trees per PAN pixel over a convex polygon."""
        rng = self.rng
        centre, axes, half = _frame(area)
        count = rng.poisson(density * _area(area))
        places = centre + (rng.uniform(-1, 1, (count, 2)) * half) @ axes
        for place in places:
            edges = np.roll(area, -1, axis=0) - area
            turns = edges[:, 0] * (place[1] - area[:, 1]) - edges[:, 1] * (place[0] - area[:, 0])
            if np.all(turns >= 0) or np.all(turns <= 0):
                self._tree(place, rng.uniform(2.0, 4.6))

    def _tree(self, place: np.ndarray, radius: float) -> None:
        if self.canvas.at(place) in ("grass", "soil", "dark soil", "crop", "ripe crop", "tree", "gravel"):
            brightness, tint = float(np.exp(0.15 * self.rng.standard_normal())), self._tint()
            lit = self.canvas.add("tree", 1.1 * brightness, tint)
            dark = self.canvas.add("tree", 0.6 * brightness, tint)
            self.canvas.disc(place, radius * self.scale, lit, dark)

    def _roof(
        self, centre: np.ndarray, axes: np.ndarray, half: np.ndarray, height: float, odds: Sequence[float]
    ) -> str:
        """A roof with its shadow; some have two slopes that the sun lights differently. Returns its material."""
        rng, canvas = self.rng, self.canvas
        material = str(rng.choice(self.ROOFS, p=odds))
        outline = _rectangle(centre, axes, half)
        canvas.shade(outline, height * self.height)
        brightness, tint = float(np.exp(0.16 * rng.standard_normal())), self._tint()
        gabled = material in ("tile roof", "slate roof") or rng.random() < 0.2
        slope = 0.28 * float(axes[1] @ canvas.sun) if gabled else 0.0
        for side in (1, -1) if gabled else (0,):
            part = outline
            if side:
                part = _clip(outline, centre, side * axes[1])
            canvas.fill(part, canvas.add(material, brightness * (1 - side * slope), tint), raised=True)
        return material

    def _lot(self, lot: np.ndarray) -> None:
        """A garden with a house and what people put around it."""
        rng, canvas = self.rng, self.canvas
        centre, axes, half = _frame(lot)
        if half.min() < 5 or any(canvas.at(p) in (None, "water") for p in (centre, *_inset(lot, 1.0))):
            return
        canvas.fill(_inset(lot, 0.5), self._new(rng.choice(["grass", "soil", "concrete"], p=[0.74, 0.14, 0.12]), 0.18))
        turn = 0.06 * rng.standard_normal()
        axes = axes @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        size = np.minimum(half * rng.uniform(0.45, 0.72, 2), np.array([9.0, 6.5]) * self.scale)
        place = centre + (rng.uniform(-0.2, 0.2, 2) * half) @ axes
        self._roof(place, axes, size, rng.uniform(2.5, 6.0), self.HOUSE_ODDS)
        if rng.random() < 0.5:  # a wing
            self._roof(place + axes[0] * size[0] * 0.6, axes[::-1], size * 0.75, rng.uniform(2, 4), self.HOUSE_ODDS)
        corner = centre + (rng.choice([-0.78, 0.78], 2) * half) @ axes
        if rng.random() < 0.15:
            canvas.fill(_rectangle(corner, axes, (2.4, 1.4)), self._new("pool"))
        elif rng.random() < 0.6:
            self._tree(corner, rng.uniform(1.4, 3.0))
        if rng.random() < 0.5:
            self._car(centre + (rng.choice([-0.85, 0.85], 2) * half) @ axes, axes)

    def _site(self, site: np.ndarray) -> None:
        """A hall, a block of flats or a car park."""
        rng, canvas = self.rng, self.canvas
        if len(site) < 3:
            return
        centre, axes, half = _frame(site)
        if half.min() < 8 or any(canvas.at(p) in (None, "water") for p in (centre, *_inset(site, 1.0))):
            return
        if rng.random() < 0.25:
            canvas.fill(_rectangle(centre, axes, half * 0.8), self._new("asphalt"))
            marking = self._new("marking", 0.2)
            for u in np.arange(-0.7, 0.71, 0.35) * half[1]:
                canvas.fill(_rectangle(centre + u * axes[1], axes, (half[0] * 0.7, 0.3)), marking)
                for v in np.arange(-0.66, 0.66, 3.2 / half[0]) * half[0]:
                    if rng.random() < 0.55:
                        self._car(centre + (u + 2.4) * axes[1] + v * axes[0], axes[::-1])
            return
        size = half * rng.uniform(0.45, 0.75, 2)
        height = rng.uniform(4, 13)
        material = self._roof(centre, axes, size, height, self.HALL_ODDS)
        if material in ("bright roof", "blue roof", "green roof") and rng.random() < 0.7:  # seams of sheet metal
            seam = self._new(material, 0.0)
            canvas.brightness[seam] *= 0.8
            canvas.stripes(_rectangle(centre, axes, size), seam, axes[0], rng.uniform(3, 7), 0.18)
        for _ in range(rng.integers(0, 9)):  # plant on the roof
            place = centre + (rng.uniform(-0.8, 0.8, 2) * size) @ axes
            box = _rectangle(place, axes, rng.uniform(0.6, 2.2, 2))
            canvas.shade(box, 1.6 * self.height)
            canvas.fill(box, self._new(rng.choice(["concrete", "bright roof", "slate roof"])), raised=True)
        for _ in range(rng.poisson(3)):
            self._car(centre + (rng.choice([-0.92, 0.92], 2) * half) @ axes, axes)


def landscape(rows: int, cols: int, seed: int) -> np.ndarray:
    """Eight bands and the PAN detector's ninth channel in DN (9, rows, cols)."""
    canvas = _Painter(rows, cols, seed).paint()
    rng = np.random.default_rng([seed, 1])
    spectra = np.array([_PAINTS["spectra"][m] for m in canvas.materials]) * np.array(canvas.tints)
    spectra *= np.array(canvas.brightness)[:, None] * _LEVEL
    amplitudes = np.array([_PAINTS["texture"].get(m, (0.0, 0.0, 0.0)) for m in canvas.materials])

    one = canvas.object[::2, ::2]  # the texture of a PAN pixel is that of its first quarter
    # Few levels and patches of a few pixels: looks like texture, and costs little in a compressed file.
    grain = np.clip(np.round(0.9 * _smooth_noise(rng, (rows, cols), 2.0)), -2, 2)
    patch = np.clip(np.round(1.2 * _smooth_noise(rng, (rows, cols), 14.0)), -3, 3)
    leaves = np.clip(np.round(1.2 * _smooth_noise(rng, (rows, cols), 4.0)), -2, 2)
    light = 1 + 0.01 * np.round(4 * _smooth_noise(rng, (rows, cols), 160.0))
    common = light * (1 + amplitudes[one, 0] * grain + amplitudes[one, 1] * patch)
    infrared = common * (1 + amplitudes[one, 2] * leaves)

    out = np.empty((9, rows, cols))
    key = 2 * canvas.object + canvas.shadow
    for band in range(9):
        table = np.stack([spectra[:, band], spectra[:, band] * _SHADOW[band]], axis=1).ravel()
        fine = table[key]
        surface = (fine[::2, ::2] + fine[::2, 1::2] + fine[1::2, ::2] + fine[1::2, 1::2]) / 4
        out[band] = _HAZE[band] + surface * (infrared if band in _INFRARED else common)
    return np.clip(out, 1, MAXIMUM)
