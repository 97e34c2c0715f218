"""What classical methods see of a tile: PAN, MS and their low passes, at the exact phase."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import physics
from ..covariance import Covariance
from ..physics import MTF_REACH, UPSAMPLE_REACH, Separable
from ..raster.geometry import Axis, Phase, Span, Window
from ..raster.sensor_table import DEFAULT_PAN_GAIN

EPS = 2.0**-52
"""Added to the denominators of ratios, as the toolbox does."""

GAUSS_GAIN = 0.3 ** ((40 / 41) ** 2)
"""Gain of our kernel that makes it the toolbox's LPfilterGauss: 0.3 at Nyquist, with 41 instead of 40 in the width."""

STD_SIZE = 51
"""Side in PAN pixels of the window of the local standard deviation that C-BDSD clusters by."""

HAZE = {"blue": 0.95, "green": 0.45, "red": 0.40, "nir": 0.05}
"""BT-H: haze of a band as a share of its 1st percentile."""

POINT, LOCAL, TRIP, DOUBLE = range(4)
"""How far a method looks: at the window's own PAN pixels; at their neighbours; at PAN brought to the MS grid and back;
at the up-sampled MS brought to the MS grid and back."""

LOCAL_REACH = 32
"""PAN pixels on each side that a `LOCAL` layer depends on, at most."""

DOUBLE_REACH = 38
"""MS pixels on each side that a `DOUBLE` layer depends on, at most."""

STRIP = 64
"""Pixels that are filtered at a time along an axis."""


@dataclass(frozen=True)
class Setup:
    """What a method knows before it sees a pixel: phase, MTF gains, standard band names and the scene's size in PAN
    pixels."""

    phase: Phase
    gains: tuple[float, ...]
    pan_gain: float = DEFAULT_PAN_GAIN
    names: tuple[str | None, ...] = ()
    pixels: int = 0
    seed: int = 0

    @property
    def bands(self) -> int:
        return len(self.gains)

    @property
    def levels(self) -> tuple[int, int]:
        """Dyadic levels between PAN and MS along rows and columns."""
        rows, cols = (max(1, round(float(np.log2(a.ratio)))) for a in self.phase)
        return rows, cols


def windows(phase: Phase, window: Window, reach: int) -> tuple[Window, Window]:
    """PAN and MS windows that the layers of a window of PAN pixels are made of."""
    around = phase.ms_window(window, UPSAMPLE_REACH)
    ms = phase.ms_window(window, DOUBLE_REACH) if reach == DOUBLE else around
    if reach == POINT:
        return window, ms
    pan = window.widened(LOCAL_REACH)
    return (pan | phase.pan_window(around, MTF_REACH + 1) if reach >= TRIP else pan), ms


Strips = list[tuple[slice, slice, Tensor]]
"""A matrix that is zero but for a band, cut into strips: (its rows, the columns that they use, their weights)."""


def _cut(matrix: np.ndarray) -> Strips:
    whole, strips = torch.from_numpy(matrix), []
    if not len(whole):
        return [(slice(0, 0), slice(0, 0), whole[:, :0])]
    for first in range(0, len(whole), STRIP):
        part = whole[first : first + STRIP]
        used = part.any(0).nonzero()
        columns = slice(int(used[0]), int(used[-1]) + 1)
        strips.append((slice(first, first + len(part)), columns, part[:, columns].contiguous()))
    return strips


@lru_cache(maxsize=192)
def _strips(build: Callable[..., np.ndarray], *given: Any) -> Strips:
    """A matrix that a function makes of what it is given, cut."""
    return _cut(build(*given))


def _banded(x: Tensor, build: Callable[..., np.ndarray], *pairs: Iterable) -> Tensor:
    """R @ x @ C.T of (..., rows, cols), a strip at a time; `build` makes R and C of what each pair has for them."""
    rows, cols = (_strips(build, *each) for each in zip(*pairs, strict=True))
    wide = torch.cat([x[..., used] @ weights.T for _, used, weights in cols], -1)
    out = wide.new_empty(*wide.shape[:-2], rows[-1][0].stop, wide.shape[-1])
    for made, used, weights in rows:
        torch.matmul(weights, wide[..., used, :], out=out[..., made, :])
    return out


def _binomial(out: Span, source: Span, levels: int) -> np.ndarray:
    """The "a trous" low pass at PAN pixels."""
    return physics.binomial_matrix(np.arange(*out).astype(float), source, levels)


def _binomial_at_ms(axis: Axis, out: Span, source: Span, levels: int) -> np.ndarray:
    return physics.binomial_matrix(axis.ms_centres(out), source, levels)


@lru_cache(maxsize=64)
def _up_sums(axis: Axis, pan: Span, ms: Span) -> tuple[Tensor, Tensor]:
    """Sums of the up-sampling matrix U: of its columns (MS pixels,), and U'U (MS pixels, MS pixels)."""
    whole = torch.from_numpy(physics.upsample_matrix(axis, pan, ms))
    return whole.sum(0), whole.T @ whole


@lru_cache(maxsize=64)
def _cubic_there_and_back(axis: Axis, out: Span, ms: Span) -> Tensor:
    """MS pixels `ms` up-sampled to the PAN grid and reduced again by the cubic: (out MS pixels, MS pixels)."""
    pan = axis.pan_span(out, 2 * axis.ratio + 1)
    return torch.from_numpy(physics.bicubic_matrix(axis, out, pan) @ physics.upsample_matrix(axis, pan, ms))


class TileLayers:
    """What a method sees of a window: each layer is made when it is asked for, float64, at the exact phase.

    `pan` (1, rows, cols) of `pan_window` in PAN pixels and `ms` (bands, rows, cols) of `ms_window` in MS pixels lie
    around the `window`; `valid` (rows, cols) marks the window's own pixels, `ms_valid` the MS pixels centred in it.
    """

    def __init__(
        self,
        setup: Setup,
        window: Window,
        pan: Tensor,
        pan_window: Window,
        ms: Tensor,
        ms_window: Window,
        valid: Tensor | None = None,
        ms_valid: Tensor | None = None,
    ) -> None:
        self.setup, self.window, self.valid, self.ms_valid = setup, window, valid, ms_valid
        self._pan, self._pan_window = pan.double(), pan_window
        self._ms, self._ms_window = ms.double(), ms_window
        self._mid = setup.phase.ms_window(window, UPSAMPLE_REACH)

    # On the PAN grid

    @cached_property
    def pan(self) -> Tensor:
        """P (1, rows, cols)."""
        return self._pan[..., *self.window.within(self._pan_window)]

    @cached_property
    def expanded(self) -> Tensor:
        """E (bands, rows, cols)."""
        return self._expand(self._ms, self._ms_window)

    def add_expanded(self, sums: Covariance) -> None:
        """Add E's valid pixels to `sums`, without up-sampling where the whole window is valid. With E = R M C' and x =
        M - shift, the sum over pixels of E_a E_b is that of x_a (R'R x_b C'C) over MS pixels."""
        if self.valid is not None and not self.valid.all():
            sums.update(self.valid, expanded=self.expanded)
            return
        spans = zip(self.setup.phase, self.window.spans, self._ms_window.spans, strict=True)
        (row_sums, row_gram), (col_sums, col_gram) = (_up_sums(*span) for span in spans)
        shift = self._ms.mean((1, 2))
        x = self._ms - column(shift)
        products = (row_gram @ x @ col_gram).flatten(1) @ x.flatten(1).T
        count = self.pan.shape[-2] * self.pan.shape[-1]
        sums.add(count, shift, row_sums @ x @ col_sums, (products + products.T) / 2)

    def mixed(self, weights: Tensor, constant: Tensor) -> Tensor:
        """weights @ E + constant: taken on the MS grid, since the up-sampler's weights sum to one."""
        mix = torch.tensordot(weights, self._ms, 1) + constant[:, None, None]
        return self._expand(mix, self._ms_window)

    @cached_property
    def pan_low(self) -> Tensor:
        """P_L (bands, rows, cols): P degraded to the MS grid with each band's MTF and up-sampled."""
        down = physics.degrader(self.setup.phase, self._mid, self._pan_window, self.setup.gains)
        return self._expand(down(self._pan), self._mid).expand(self.setup.bands, -1, -1)

    def matched(self, low: str, scale: Tensor, shift: Tensor) -> Tensor:
        """The low-pass `low` of the matched PANs scale * P + shift; all of them keep a constant as it is."""
        return scale * getattr(self, low) + shift

    @cached_property
    def pan_cubic(self) -> Tensor:
        """P reduced to the MS grid by the antialiased cubic and up-sampled (1, rows, cols)."""
        down = physics.cubic_reducer(self.setup.phase, self._mid, self._pan_window)
        return self._expand(down(self._pan), self._mid)

    def cubic_low(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """This low pass of any function of E, pixel by pixel."""
        phase = self.setup.phase
        rows, cols = (a.pan_span(m, 2 * a.ratio + 1) for a, m in zip(phase, self._mid.spans, strict=True))
        around = Window.of(rows, cols)
        down = physics.cubic_reducer(phase, self._mid, around)
        return self._expand(down(function(self._expand(self._ms, self._ms_window, around))), self._mid)

    @cached_property
    def pan_gauss(self) -> Tensor:
        """P through the toolbox's LPfilterGauss (1, rows, cols)."""
        return physics.blurrer(self.setup.phase.ratio, self.window, self._pan_window, [GAUSS_GAIN])(self._pan)

    @cached_property
    def pan_atrous(self) -> Tensor:
        """The low-pass of P's "a trous" decomposition (1, rows, cols)."""
        return _banded(self._pan, _binomial, self.window.spans, self._pan_window.spans, self.setup.levels)

    @cached_property
    def pan_box(self) -> Tensor:
        """Mean of P over an MS pixel's size, made odd (1, rows, cols)."""
        sizes = [2 * int(np.ceil(ratio / 2 - 0.5)) + 1 for ratio in self.setup.phase.ratio]
        return _banded(self._pan, physics.box_matrix, self.window.spans, self._pan_window.spans, sizes)

    @cached_property
    def pan_morph(self) -> Tensor:
        """The half-gradient low-pass of P (1, rows, cols); its lattice is the scene's, so that windows agree."""
        levels = max(self.setup.levels)
        step = 1 << levels
        wide = self.window.widened(LOCAL_REACH // 2)
        wide = Window(wide.top // step * step, wide.bottom, wide.left // step * step, wide.right)
        low = half_gradient(self._pan[..., *wide.within(self._pan_window)], (0,) * levels, (0.0,) * levels)
        return low[..., *self.window.within(wide)]

    @cached_property
    def pan_std(self) -> Tensor:
        """Standard deviation (n - 1) of P in a window of 51 x 51 pixels (1, rows, cols)."""
        centre = float(self._pan.mean())
        spans = self.window.spans, self._pan_window.spans, (STD_SIZE, STD_SIZE)
        mean, square = (_banded((self._pan - centre) ** power, physics.box_matrix, *spans) for power in (1, 2))
        count = STD_SIZE**2
        return ((square - mean**2).clamp(min=0) * (count / (count - 1))).sqrt()

    # On the MS grid, at the window's own MS pixels

    @cached_property
    def _own(self) -> Window:
        return self.setup.phase.centred(self.window)

    @cached_property
    def ms(self) -> Tensor:
        """M (bands, MS rows, MS cols)."""
        return self._ms[..., *self._own.within(self._ms_window)]

    @cached_property
    def ms_atrous(self) -> Tensor:
        """The "a trous" low-pass of P at the MS pixels' centres (1, MS rows, MS cols)."""
        spans = self._own.spans, self._pan_window.spans
        return _banded(self._pan, _binomial_at_ms, self.setup.phase, *spans, self.setup.levels)

    @cached_property
    def ms_pan(self) -> Tensor:
        """P degraded with its own MTF to the MS pixels (1, MS rows, MS cols)."""
        return physics.degrader(self.setup.phase, self._own, self._pan_window, [self.setup.pan_gain])(self._pan)

    @cached_property
    def reduced(self) -> Tensor:
        """E reduced to the MS grid by the antialiased cubic (bands, MS rows, MS cols)."""
        return self._reduced_around[..., *self._own.within(self._own_around)]

    @cached_property
    def blurred(self) -> Tensor:
        """`reduced` through the MTF of each band once more, on the MS grid (bands, MS rows, MS cols)."""
        phase, gains = self.setup.phase, self.setup.gains
        return physics.blurrer(phase.ratio, self._own, self._own_around, gains)(self._reduced_around)

    @cached_property
    def _own_around(self) -> Window:
        return self._own.widened(MTF_REACH)

    @cached_property
    def _reduced_around(self) -> Tensor:
        spans = zip(self.setup.phase, self._own_around.spans, self._ms_window.spans, strict=True)
        rows, cols = (_cubic_there_and_back(*span) for span in spans)
        return Separable(rows, cols)(self._ms)

    def at_ms(self, layer: Tensor) -> Tensor:
        """A layer of the PAN grid (..., rows, cols) at the PAN pixels in which the MS pixels' centres lie."""
        rows, cols = (
            torch.from_numpy(np.floor(a.ms_centres(o) + 0.5 + 1e-9).astype(int) - w[0]).clamp(0, w[1] - w[0] - 1)
            for a, o, w in zip(self.setup.phase, self._own.spans, self.window.spans, strict=True)
        )
        return layer[..., rows, :][..., cols]

    def _expand(self, ms: Tensor, ms_window: Window, window: Window | None = None) -> Tensor:
        return _banded(ms, physics.upsample_matrix, self.setup.phase, (window or self.window).spans, ms_window.spans)


def half_gradient(pan: Tensor, keep: Sequence[int], centre: Sequence[float]) -> Tensor:
    """Low-pass pyramid of (1, rows, cols): mean of dilation and erosion by the 3 x 3 cross, then every second pixel
    from `keep` on, once per level; and back by linear interpolation, which takes the samples to lie at `centre`.

    Restaino et al., "Fusion of Multispectral and Panchromatic Images Based on Morphological Operators", 2016.
    """
    sizes = []
    for first in keep:
        sizes.append((pan.shape[-2], pan.shape[-1]))
        pan = ((_dilated(pan) - _dilated(-pan)) / 2)[..., first::2, first::2]
    for size, at in zip(reversed(sizes), reversed(centre), strict=True):
        rows, cols = (
            torch.from_numpy(physics.linear_matrix((np.arange(n) - at) / 2, m))
            for n, m in zip(size, pan.shape[-2:], strict=True)
        )
        pan = Separable(rows, cols)(pan)
    return pan


def _dilated(x: Tensor) -> Tensor:
    pool = torch.nn.functional.max_pool2d
    return torch.maximum(pool(x, (3, 1), 1, (1, 0)), pool(x, (1, 3), 1, (0, 1)))


def column(x: Tensor) -> Tensor:
    """One value per band (bands,) as (bands, 1, 1)."""
    return x[:, None, None]
