"""The pixels that a report shows: reduced overviews, crops at full resolution, histograms. Reads tile by tile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..raster.geometry import Window, sums_between
from ..raster.scene import Scene
from ..raster.sensors import band_name
from ..raster.source import Pixels, Reader
from ..raster.stretch import PERCENTILES, curve, gamma_of
from ..raster.tiles import plan_tiles

OVERVIEW = 1024
"""Longest side of an overview in pixels."""

CROP = 320
"""Side of a detail in PAN pixels; it is shown at 100 %."""

ZOOM = 4
"""Enlargement of a close-up, whose side is that of a detail divided by it."""

CELL = 32
"""Side in PAN pixels of the cells on which the richest places are looked for."""

SAMPLES = 1 << 18
"""Pixels, about, that the stretch and the histograms rest on."""

FUSED = "Fused"
"""Label of what is shown beside PAN and MS, or beside a reference."""

BINS = 64
DETAILS = 3
ERROR_WHITE = 0.15
"""Error shown as the brightest colour, as a part of the reference's range between the percentiles of the stretch."""


@dataclass(frozen=True)
class Composition:
    """Which 1-based bands are shown as red, green and blue; `assumed` where no band name says so."""

    bands: tuple[int, int, int]
    names: tuple[str, str, str]
    assumed: bool = False


@dataclass(frozen=True)
class Panel:
    """One picture, (rows, cols, 3) uint8, in true and, where it differs, in false colour."""

    label: str
    true: np.ndarray
    false: np.ndarray | None = None


@dataclass(frozen=True)
class View:
    """One place in several panels. `window` in PAN pixels; `scale`: picture pixels per PAN pixel."""

    title: str
    window: Window
    scale: float
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Histogram:
    """Shares of pixels in bins between `edges` (DN), by label, for one band."""

    band: str
    edges: np.ndarray
    shares: dict[str, np.ndarray]


@dataclass
class Pictures:
    """All that a report shows of one image. `closeups` lie in the details of the same place in the list.

    `error_white`: the error (DN, mean of the bands) that is shown as the brightest colour; None without error panels.
    `maps`: quality per block by name, (rows, cols) with NaN where nothing was measured; whoever scored adds them.
    `part`: what its MS is called, of MS files on several grids.
    """

    overview: View
    details: tuple[View, ...]
    closeups: tuple[View, ...]
    true: Composition
    false: Composition | None
    histograms: tuple[Histogram, ...] = ()
    histogram_pixels: int = 0
    error_white: float | None = None
    maps: dict[str, np.ndarray] = field(default_factory=dict)
    part: str = ""


@dataclass(frozen=True)
class _Shown:
    """An image on the PAN grid. `like`: the label of the layer whose stretch it shares."""

    label: str
    read: Reader
    like: str


@dataclass
class _Reduced:
    """Overview (bands, rows, cols) in reduced pixels, its valid mask, and samples (bands, n) at full resolution."""

    values: np.ndarray
    valid: np.ndarray
    samples: np.ndarray


@dataclass(frozen=True)
class _Stretch:
    """Percentiles per band between which values are shown, and medians."""

    low: np.ndarray
    high: np.ndarray
    middle: np.ndarray

    @classmethod
    def of(cls, samples: np.ndarray) -> _Stretch:
        if not samples.shape[1]:
            return cls(np.zeros(len(samples)), np.ones(len(samples)), np.full(len(samples), 0.5))
        return cls(*np.percentile(samples, (*PERCENTILES, 50), axis=1))

    def clip(self, values: np.ndarray) -> np.ndarray:
        """Mean of the bands as far as they are not shown as black or white: (rows, cols)."""
        return np.clip(values, self.low[:, None, None], self.high[:, None, None]).mean(0, dtype=np.float32)

    def picture(self, values: np.ndarray, valid: np.ndarray, bands: Sequence[int]) -> np.ndarray:
        """(rows, cols, 3) uint8, black where invalid, of 1-based bands of values (bands, rows, cols)."""
        picture = np.zeros((*valid.shape, 3), np.uint8)
        span = np.maximum(self.high - self.low, 1e-9)
        gamma = gamma_of([(self.middle[band - 1] - self.low[band - 1]) / span[band - 1] for band in bands])
        for out, band in enumerate(bands):
            part = curve((values[band - 1] - self.low[band - 1]) / span[band - 1], gamma)
            picture[..., out] = np.where(valid, part * 254 + 1, 0)
        return picture


def quick_picture(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """(rows, cols, 3) uint8 of three bands (3, rows, cols), each between its own percentiles; black where invalid."""
    return _Stretch.of(values[:, valid]).picture(values, valid, (1, 2, 3))


def true_colour(names: Sequence[str | None]) -> Composition:
    """True colour by band names; unnamed bands are taken for C B G Y R RE N1 N2 if 8, else for B G R. Of less than
    three the first one is shown as grey."""
    usual = (5, 3, 2) if len(names) == 8 else (3, 2, 1) if len(names) >= 3 else (1, 1, 1)
    return _composition(names, ("red", "green", "blue"), usual)


def false_colour(names: Sequence[str | None]) -> Composition | None:
    """Near infrared, red and green; None if there is no near infrared."""
    known = {band_name(n) for n in names}
    usual = {4: (4, 3, 2), 8: (7, 5, 3)}.get(len(names)) if known == {None} else None
    if usual is None and not known >= {"nir", "red", "green"}:
        return None
    return _composition(names, ("nir", "red", "green"), usual or (1, 1, 1))


def _composition(names: Sequence[str | None], colours: Sequence[str], usual: tuple[int, int, int]) -> Composition:
    known = [band_name(n) for n in names]
    found = all(c in known for c in colours)
    bands = tuple(known.index(c) + 1 for c in colours) if found else usual
    r, g, b = bands
    return Composition((r, g, b), (*(label_of(names, k) for k in (r, g, b)),), not found)  # type: ignore[arg-type]


def label_of(names: Sequence[str | None], band: int) -> str:
    """What to call a 1-based band."""
    return names[band - 1] or f"band {band}"


def collect(
    scene: Scene,
    read: Reader,
    window: Window,
    detail: np.ndarray | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Pictures:
    """PAN, MS (its own pixels, not interpolated) and a fused image over a window, in PAN pixels.

    `detail`: energy of PAN's high pass per 32 x 32 block of the window, by which the crops are chosen; without it, that
    of the reduced PAN is taken. MS and fused image share the MS's stretch. Reads every pixel of the window once,
    tile by tile.
    """
    layers = [_Shown("PAN", scene.pan.read, "PAN"), _Shown("MS", scene.ms_at, "MS"), _Shown(FUSED, read, "MS")]
    return _collect(layers, window, scene.called, detail, progress)


def collect_reference(
    reference_read: Reader,
    fused_read: Reader,
    window: Window,
    names: Sequence[str | None],
    progress: Callable[[int, int], None] | None = None,
) -> Pictures:
    """A reference, a fused image and its absolute error (mean of the bands) over a window of their common grid."""
    layers = [_Shown("Reference", reference_read, "Reference"), _Shown(FUSED, fused_read, "Reference")]
    return _collect(layers, window, names, None, progress, error=True)


def _collect(
    layers: Sequence[_Shown],
    window: Window,
    names: Sequence[str | None],
    detail: np.ndarray | None,
    progress: Callable[[int, int], None] | None,
    error: bool = False,
) -> Pictures:
    """Pictures of layers, of which the last two are compared."""
    true, false = true_colour(names), false_colour(names)
    factor = max(1, -(-max(window.shape) // OVERVIEW))
    reduced = _reduce(layers, window, factor, progress)
    stretch = {layer.label: _Stretch.of(r.samples) for layer, r in zip(layers, reduced, strict=True)}
    white = ERROR_WHITE * float(np.mean(stretch[layers[0].label].high - stretch[layers[0].label].low))

    def view(title: str, where: Window, scale: float, parts: Sequence[Pixels]) -> View:
        panels = [
            _panel(layer.label, *part, stretch[layer.like], true, false)
            for layer, part in zip(layers, parts, strict=True)
        ]
        if error:
            panels.append(_error_panel(f"{layers[1].label}: error", parts[0], parts[1], white))
        return View(title, where, scale, tuple(panels))

    details, closeups = [], []
    shown = stretch[layers[0].label]
    for number, place in enumerate(_places(window, factor, reduced, shown, detail), 1):
        parts = [layer.read(place) for layer in layers]
        details.append(view(f"Detail {number}", place, 1, parts))
        inner = _richest(shown.clip(parts[0][0]), parts[0][1], max(1, min(parts[0][1].shape) // ZOOM))
        cut = [(values[:, *inner.slices], valid[inner.slices]) for values, valid in parts]
        closeups.append(view(f"Close-up {number}", inner.moved(*place.corner), 1, cut))
    samples = {layer.label: r.samples for layer, r in zip(layers[-2:], reduced[-2:], strict=True)}
    histograms, pixels = _histograms(samples, names)
    whole = view("Overview", window, 1 / factor, [(r.values, r.valid) for r in reduced])
    return Pictures(whole, tuple(details), tuple(closeups), true, false, histograms, pixels, white if error else None)


def _panel(
    label: str, values: np.ndarray, valid: np.ndarray, stretch: _Stretch, true: Composition, false: Composition | None
) -> Panel:
    if len(values) == 1:
        return Panel(label, stretch.picture(values, valid, (1, 1, 1)))
    return Panel(
        label,
        stretch.picture(values, valid, true.bands),
        None if false is None else stretch.picture(values, valid, false.bands),
    )


def _error_panel(label: str, reference: Pixels, fused: Pixels, white: float) -> Panel:
    from matplotlib import colormaps

    valid = reference[1] & fused[1]
    error = np.abs(fused[0].astype(np.float32) - reference[0].astype(np.float32)).mean(0)
    picture = colormaps["inferno"](np.clip(error / max(white, 1e-9), 0, 1), bytes=True)[..., :3]
    return Panel(label, np.where(valid[..., None], picture, np.uint8(0)))


def _reduce(
    layers: Sequence[_Shown], window: Window, factor: int, progress: Callable[[int, int], None] | None
) -> list[_Reduced]:
    """Each layer averaged by `factor` (over at most 5 x 5 pixels of a block), and samples where all are valid."""
    shape = tuple(-(-n // factor) for n in window.shape)
    step = max(1, round((window.area / SAMPLES) ** 0.5))
    values: list[np.ndarray] = []
    valid = [np.zeros(shape, bool) for _ in layers]
    samples: list[list[np.ndarray]] = [[] for _ in layers]
    tiles = plan_tiles(window, factor * max(1, 1024 // factor))
    for number, tile in enumerate(tiles):
        parts = [layer.read(tile.core) for layer in layers]
        if not values:
            values = [np.zeros((len(part[0]), *shape), np.float32) for part in parts]
        corner = tile.core.seen_from(window).corner
        every = tuple(slice(-first % step, None, step) for first in corner)
        common = np.logical_and.reduce([part[1][every] for part in parts])
        r, c = (first // factor for first in corner)
        for k, part in enumerate(parts):
            means, seen = _block_means(*part, factor)
            at = np.s_[r : r + seen.shape[0], c : c + seen.shape[1]]
            values[k][:, *at], valid[k][at] = means, seen
            samples[k].append(part[0][:, *every][:, common].astype(np.float32))
        if progress:
            progress(number + 1, len(tiles))
    return [_Reduced(v, m, np.concatenate(s, 1)) for v, m, s in zip(values, valid, samples, strict=True)]


def _block_means(values: np.ndarray, valid: np.ndarray, factor: int) -> Pixels:
    """Means of the valid pixels of factor x factor blocks; a block is valid if half of its pixels are."""
    if factor == 1:
        return values, valid
    offsets = np.unique(np.linspace(0, factor - 1, min(factor, 5)).round().astype(int))
    index = [np.minimum(np.arange(0, n, factor)[:, None] + offsets, n - 1).ravel() for n in valid.shape]
    at = np.ix_(*index)
    blocks = (len(index[0]) // len(offsets), len(offsets), len(index[1]) // len(offsets), len(offsets))
    weight = valid[at].reshape(blocks)
    count = weight.sum((1, 3))
    total = np.where(weight, values[:, *at].reshape(-1, *blocks), 0).sum((2, 4), dtype=np.float32)
    return total / np.maximum(count, 1), count * 2 >= len(offsets) ** 2


def _places(
    window: Window, factor: int, reduced: Sequence[_Reduced], shown: _Stretch, detail: np.ndarray | None
) -> list[Window]:
    """Where to show details: rich in detail, wholly valid where possible, apart from each other; at least one."""
    rows, cols = window.shape
    side = min(CROP, max(96, min(rows, cols) // 2 // CELL * CELL))
    height, width = min(side, rows), min(side, cols)
    valid = np.logical_and.reduce([r.valid for r in reduced])
    cells = max(1, rows // CELL), max(1, cols // CELL)
    if detail is None or detail.shape != cells:
        detail = _cell_means(_high_pass(shown.clip(reduced[0].values), valid) ** 2, factor, cells)
    covered = _cell_means(valid.astype(np.float64), factor, cells) > 1 - 1e-9
    richness = _box_means(np.sqrt(np.nan_to_num(np.maximum(detail, 0))), height, width)
    coverage = _box_means(covered.astype(np.float64), height, width)
    score = np.where(coverage > 1 - 1e-9, richness, -1.0)
    if score.max() < 0:
        score = coverage * (1 + richness / max(richness.max(), 1e-9))
    ends = zip(score.shape, (rows - height, cols - width), strict=True)
    corners = [np.minimum(np.arange(n) * CELL, last) for n, last in ends]
    found: list[tuple[int, int]] = []
    for distance in (max(1.25 * side, 0.2 * min(rows, cols)), side):
        left = score.copy()
        for corner in found:
            left[_near(corners, corner, distance)] = -1
        while len(found) < DETAILS and left.max() >= 0:
            r, c = np.unravel_index(left.argmax(), left.shape)
            found.append((int(corners[0][r]), int(corners[1][c])))
            left[_near(corners, found[-1], distance)] = -1
    return [Window.at(window.top + r, window.left + c, (height, width)) for r, c in found]


def _near(corners: Sequence[np.ndarray], corner: tuple[int, int], distance: float) -> np.ndarray:
    """Which of the grid's corners lie less than `distance` from one, in rows and in columns."""
    return np.logical_and.outer(*(np.abs(c - k) < distance for c, k in zip(corners, corner, strict=True)))


def _cell_means(values: np.ndarray, factor: int, cells: tuple[int, int]) -> np.ndarray:
    """Means over the reduced pixels that a cell touches."""
    ends = []
    for k, n in zip(cells, values.shape, strict=True):
        first = np.minimum(np.arange(k) * CELL // factor, n - 1)
        ends.append((first, np.clip(-(-(np.arange(k) + 1) * CELL // factor), first + 1, n)))
    counts = np.outer(*(last - first for first, last in ends))
    return sums_between(values.astype(np.float64), *ends) / counts


def _box_means(cells: np.ndarray, height: int, width: int) -> np.ndarray:
    """Means over all boxes of the size of a crop (PAN pixels), by the cell at their upper left corner."""
    size = [min(n, max(1, -(-s // CELL))) for n, s in zip(cells.shape, (height, width), strict=True)]
    return np.lib.stride_tricks.sliding_window_view(cells, size).mean((2, 3))


def _high_pass(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """What a 5 x 5 mean takes away; 0 near invalid pixels."""
    from scipy import ndimage  # takes a fifth of a second to import

    inside = ndimage.binary_erosion(valid, np.ones((5, 5)), border_value=1)
    values = np.where(valid, values, 0).astype(np.float32)
    return np.where(inside, values - ndimage.uniform_filter(values, 5), 0)


def _richest(values: np.ndarray, valid: np.ndarray, side: int) -> Window:
    """The square of that side with the strongest high pass, as a window of the crop."""
    from scipy import ndimage

    energy = np.abs(_high_pass(values, valid))
    boxes = ndimage.uniform_filter(energy, side, mode="constant")
    half = side // 2
    inner = boxes[half : boxes.shape[0] - side + half + 1, half : boxes.shape[1] - side + half + 1]
    r, c = np.unravel_index(inner.argmax(), inner.shape)
    return Window.at(int(r), int(c), (side, side))


def _histograms(samples: dict[str, np.ndarray], names: Sequence[str | None]) -> tuple[tuple[Histogram, ...], int]:
    pixels = next(iter(samples.values())).shape[1]
    if not pixels:
        return (), 0
    histograms = []
    for band in range(min(len(s) for s in samples.values())):
        ends = np.array([np.percentile(s[band], (0.5, 99.5)) for s in samples.values()])
        low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
        edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
        shares = {label: np.histogram(s[band], edges)[0] / pixels for label, s in samples.items()}
        histograms.append(Histogram(label_of(names, band + 1), edges, shares))
    return tuple(histograms), pixels


def reduce_map(blocks: np.ndarray, side: int) -> np.ndarray:
    """A map (rows, cols) averaged down to at most `side` cells a side; NaN where nothing was measured."""
    factor = -(-max(blocks.shape) // side)
    if factor <= 1:
        return np.asarray(blocks, np.float32)
    pads = [(0, -n % factor) for n in blocks.shape]
    padded = np.pad(np.asarray(blocks, np.float32), pads, constant_values=np.nan)
    parts = np.ma.masked_invalid(padded.reshape(padded.shape[0] // factor, factor, padded.shape[1] // factor, factor))
    return parts.mean((1, 3)).filled(np.nan)
