"""Classical pansharpening: component substitution and multi-resolution analysis, fitted on the scene as it streams by.

A method sees a scene through `Layers`: PAN, the up-sampled MS and PAN's low-passes on one window, each at the exact
phase of the two grids. It takes its statistics in one or two passes over windows that cover the scene (`observe`, then
`settle`), and fuses any window with them (`apply`). Arithmetic is float64. The formulas are those of the reference
toolbox (Vivone et al., "A New Benchmark Based on Recent Advances in Multispectral Pansharpening", 2021, and "A Critical
Comparison Among Pansharpening Algorithms", 2015), whose golden outputs the tests reproduce.

Symbols: E the up-sampled MS, P the PAN, M the MS itself, F the fused bands; match(P, X; R) = (P - mean P) std X / std R
+ mean X.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from . import physics
from .errors import InputError
from .moments import Moments
from .physics import MTF_REACH, UPSAMPLE_REACH, Separable
from .raster.geometry import Axis, Span

Spans = tuple[Span, Span]

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

    axes: tuple[Axis, Axis]
    gains: tuple[float, ...]
    pan_gain: float = physics.PAN_GAIN
    names: tuple[str | None, ...] = ()
    pixels: int = 0
    seed: int = 0

    @property
    def bands(self) -> int:
        return len(self.gains)

    @property
    def levels(self) -> tuple[int, int]:
        """Dyadic levels between PAN and MS along rows and columns."""
        rows, cols = (max(1, round(float(np.log2(a.ratio)))) for a in self.axes)
        return rows, cols


def windows(axes: tuple[Axis, Axis], window: Spans, reach: int) -> tuple[Spans, Spans]:
    """PAN and MS windows that the layers of a window of PAN pixels are made of."""
    around = [a.ms_span(s, UPSAMPLE_REACH) for a, s in zip(axes, window, strict=True)]
    ms = [a.ms_span(s, DOUBLE_REACH) for a, s in zip(axes, window, strict=True)] if reach == DOUBLE else around
    if reach == POINT:
        return window, (ms[0], ms[1])
    pan = [(s[0] - LOCAL_REACH, s[1] + LOCAL_REACH) for s in window]
    if reach >= TRIP:
        far = [a.pan_span(m, MTF_REACH + 1) for a, m in zip(axes, around, strict=True)]
        pan = [(min(p[0], f[0]), max(p[1], f[1])) for p, f in zip(pan, far, strict=True)]
    return (pan[0], pan[1]), (ms[0], ms[1])


def own_ms(axes: tuple[Axis, Axis], window: Spans) -> Spans:
    """The MS pixels whose centres lie in a window, so that windows that tile a scene share no MS pixel."""
    rows, cols = (a.centred(span) for a, span in zip(axes, window, strict=True))
    return rows, cols


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


def _banded(rows: Strips, cols: Strips, x: Tensor) -> Tensor:
    """R @ x @ C.T of (..., rows, cols), a strip at a time."""
    wide = torch.cat([x[..., used] @ weights.T for _, used, weights in cols], -1)
    out = wide.new_empty(*wide.shape[:-2], rows[-1][0].stop, wide.shape[-1])
    for made, used, weights in rows:
        torch.matmul(weights, wide[..., used, :], out=out[..., made, :])
    return out


@lru_cache(maxsize=64)
def _upsample(axis: Axis, pan: Span, ms: Span) -> Strips:
    return _cut(physics.upsample_matrix(axis, pan, ms))


@lru_cache(maxsize=64)
def _up_sums(axis: Axis, pan: Span, ms: Span) -> tuple[Tensor, Tensor]:
    """Of the up-sampling matrix U: the sums of its columns (MS pixels,), and U'U (MS pixels, MS pixels)."""
    whole = torch.from_numpy(physics.upsample_matrix(axis, pan, ms))
    return whole.sum(0), whole.T @ whole


@lru_cache(maxsize=64)
def _binomial(axis: Axis | None, out: Span, source: Span, levels: int) -> Strips:
    """At MS pixels of an axis, or at PAN pixels without one."""
    centres = np.arange(*out).astype(float) if axis is None else axis.ms_centres(out)
    return _cut(physics.binomial_matrix(centres, source, levels))


@lru_cache(maxsize=64)
def _box(out: Span, source: Span, size: int) -> Strips:
    return _cut(physics.box_matrix(out, source, size))


@lru_cache(maxsize=64)
def _cubic_there_and_back(axis: Axis, out: Span, ms: Span) -> Tensor:
    """MS pixels `ms` up-sampled to the PAN grid and reduced again by the cubic: (out MS pixels, MS pixels)."""
    pan = axis.pan_span(out, 2 * axis.ratio + 1)
    return torch.from_numpy(physics.bicubic_matrix(axis, out, pan) @ physics.upsample_matrix(axis, pan, ms))


def _inside(outer: Spans, inner: Spans) -> tuple[slice, slice]:
    rows, cols = (slice(i[0] - o[0], i[1] - o[0]) for o, i in zip(outer, inner, strict=True))
    return rows, cols


class Layers:
    """What a method sees of a window: each layer is made when it is asked for, float64, at the exact phase.

    `pan` (1, rows, cols) of `pan_spans` in PAN pixels and `ms` (bands, rows, cols) of `ms_spans` in MS pixels lie
    around the `window`; `valid` (rows, cols) marks the window's own pixels, `ms_valid` the MS pixels of `own_ms`.
    """

    def __init__(
        self,
        setup: Setup,
        window: Spans,
        pan: Tensor,
        pan_spans: Spans,
        ms: Tensor,
        ms_spans: Spans,
        valid: Tensor | None = None,
        ms_valid: Tensor | None = None,
    ) -> None:
        self.setup, self.window, self.valid, self.ms_valid = setup, window, valid, ms_valid
        self._pan, self._pan_spans = pan.double(), pan_spans
        self._ms, self._ms_spans = ms.double(), ms_spans
        self._mid = self._ms_around(window, UPSAMPLE_REACH)

    # On the PAN grid

    @cached_property
    def pan(self) -> Tensor:
        """P (1, rows, cols)."""
        return self._pan[(..., *_inside(self._pan_spans, self.window))]

    @cached_property
    def expanded(self) -> Tensor:
        """E (bands, rows, cols)."""
        return self._expand(self._ms, self._ms_spans)

    def add_expanded(self, sums: Moments) -> None:
        """Add E's valid pixels to `sums`, without up-sampling where the whole window is valid.

        With E = R M C' and x = M - shift, the sum over pixels of E_a E_b is that of x_a (R'R x_b C'C) over MS pixels.
        """
        if self.valid is not None and not self.valid.all():
            sums.update(self.valid, expanded=self.expanded)
            return
        spans = zip(self.setup.axes, self.window, self._ms_spans, strict=True)
        (row_sums, row_gram), (col_sums, col_gram) = (_up_sums(*span) for span in spans)
        shift = self._ms.mean((1, 2))
        x = self._ms - column(shift)
        products = (row_gram @ x @ col_gram).flatten(1) @ x.flatten(1).T
        count = self.pan.shape[-2] * self.pan.shape[-1]
        sums.add(count, shift, row_sums @ x @ col_sums, (products + products.T) / 2)

    def mixed(self, weights: Tensor, constant: Tensor) -> Tensor:
        """weights @ E + constant: taken on the MS grid, since the up-sampler's weights sum to one."""
        mix = torch.tensordot(weights, self._ms, 1) + constant[:, None, None]
        return self._expand(mix, self._ms_spans)

    @cached_property
    def pan_low(self) -> Tensor:
        """P_L (bands, rows, cols): P degraded to the MS grid with each band's MTF and up-sampled."""
        down = physics.degrader(self.setup.axes, self._mid, self._pan_spans, self.setup.gains)
        return self._expand(down(self._pan), self._mid).expand(self.setup.bands, -1, -1)

    def matched(self, low: str, scale: Tensor, shift: Tensor) -> Tensor:
        """The low-pass `low` of the matched PANs scale * P + shift; all of them keep a constant as it is."""
        return scale * getattr(self, low) + shift

    @cached_property
    def pan_cubic(self) -> Tensor:
        """P reduced to the MS grid by the antialiased cubic and up-sampled (1, rows, cols)."""
        down = physics.cubic_reducer(self.setup.axes, self._mid, self._pan_spans)
        return self._expand(down(self._pan), self._mid)

    def cubic_low(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """The same low-pass of any function of E, pixel by pixel."""
        axes = self.setup.axes
        rows, cols = (a.pan_span(m, 2 * a.ratio + 1) for a, m in zip(axes, self._mid, strict=True))
        down = physics.cubic_reducer(axes, self._mid, (rows, cols))
        return self._expand(down(function(self._expand(self._ms, self._ms_spans, (rows, cols)))), self._mid)

    @cached_property
    def pan_gauss(self) -> Tensor:
        """P through the toolbox's LPfilterGauss (1, rows, cols)."""
        ratios = self.setup.axes[0].ratio, self.setup.axes[1].ratio
        return physics.blurrer(ratios, self.window, self._pan_spans, [GAUSS_GAIN])(self._pan)

    @cached_property
    def pan_atrous(self) -> Tensor:
        """The low-pass of P's "a trous" decomposition (1, rows, cols)."""
        spans = zip(self.window, self._pan_spans, self.setup.levels, strict=True)
        rows, cols = (_binomial(None, *span) for span in spans)
        return _banded(rows, cols, self._pan)

    @cached_property
    def pan_box(self) -> Tensor:
        """Mean of P over an MS pixel's size, made odd (1, rows, cols)."""
        sizes = [2 * int(np.ceil(a.ratio / 2 - 0.5)) + 1 for a in self.setup.axes]
        rows, cols = (_box(w, p, n) for w, p, n in zip(self.window, self._pan_spans, sizes, strict=True))
        return _banded(rows, cols, self._pan)

    @cached_property
    def pan_morph(self) -> Tensor:
        """The half-gradient low-pass of P (1, rows, cols); its lattice is the scene's, so that windows agree."""
        levels = max(self.setup.levels)
        step = 1 << levels
        rows, cols = (((w[0] - LOCAL_REACH // 2) // step * step, w[1] + LOCAL_REACH // 2) for w in self.window)
        part = self._pan[(..., *_inside(self._pan_spans, (rows, cols)))]
        low = half_gradient(part, (0,) * levels, (0.0,) * levels)
        return low[(..., *_inside((rows, cols), self.window))]

    @cached_property
    def pan_std(self) -> Tensor:
        """Standard deviation (n - 1) of P in a window of 51 x 51 pixels (1, rows, cols)."""
        centre = float(self._pan.mean())
        rows, cols = (_box(w, p, STD_SIZE) for w, p in zip(self.window, self._pan_spans, strict=True))
        mean, square = (_banded(rows, cols, x) for x in (self._pan - centre, (self._pan - centre) ** 2))
        count = STD_SIZE**2
        return ((square - mean**2).clamp(min=0) * (count / (count - 1))).sqrt()

    # On the MS grid, at the window's own MS pixels

    @cached_property
    def _own(self) -> Spans:
        return own_ms(self.setup.axes, self.window)

    @cached_property
    def ms(self) -> Tensor:
        """M (bands, MS rows, MS cols)."""
        return self._ms[(..., *_inside(self._ms_spans, self._own))]

    @cached_property
    def ms_atrous(self) -> Tensor:
        """The "a trous" low-pass of P at the MS pixels' centres (1, MS rows, MS cols)."""
        spans = zip(self.setup.axes, self._own, self._pan_spans, self.setup.levels, strict=True)
        rows, cols = (_binomial(*span) for span in spans)
        return _banded(rows, cols, self._pan)

    @cached_property
    def ms_pan(self) -> Tensor:
        """P degraded with its own MTF to the MS pixels (1, MS rows, MS cols)."""
        return physics.degrader(self.setup.axes, self._own, self._pan_spans, [self.setup.pan_gain])(self._pan)

    @cached_property
    def reduced(self) -> Tensor:
        """E reduced to the MS grid by the antialiased cubic (bands, MS rows, MS cols)."""
        return self._reduced_around[(..., *_inside(self._own_around, self._own))]

    @cached_property
    def blurred(self) -> Tensor:
        """`reduced` through the MTF of each band once more, on the MS grid (bands, MS rows, MS cols)."""
        ratios = self.setup.axes[0].ratio, self.setup.axes[1].ratio
        return physics.blurrer(ratios, self._own, self._own_around, self.setup.gains)(self._reduced_around)

    @cached_property
    def _own_around(self) -> Spans:
        rows, cols = ((s[0] - MTF_REACH, s[1] + MTF_REACH) for s in self._own)
        return rows, cols

    @cached_property
    def _reduced_around(self) -> Tensor:
        spans = zip(self.setup.axes, self._own_around, self._ms_spans, strict=True)
        rows, cols = (_cubic_there_and_back(*span) for span in spans)
        return Separable(rows, cols)(self._ms)

    def at_ms(self, layer: Tensor) -> Tensor:
        """A layer of the PAN grid (..., rows, cols) at the PAN pixels in which the MS pixels' centres lie."""
        rows, cols = (
            torch.from_numpy(np.floor(a.ms_centres(o) + 0.5 + 1e-9).astype(int) - w[0]).clamp(0, w[1] - w[0] - 1)
            for a, o, w in zip(self.setup.axes, self._own, self.window, strict=True)
        )
        return layer[..., rows, :][..., cols]

    def _ms_around(self, window: Spans, reach: float) -> Spans:
        rows, cols = (a.ms_span(s, reach) for a, s in zip(self.setup.axes, window, strict=True))
        return rows, cols

    def _expand(self, ms: Tensor, ms_spans: Spans, window: Spans | None = None) -> Tensor:
        spans = zip(self.setup.axes, window or self.window, ms_spans, strict=True)
        rows, cols = (_upsample(*span) for span in spans)
        return _banded(rows, cols, ms)


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


# What the methods share ---------------------------------------------------------------------------------------------


def column(x: Tensor) -> Tensor:
    """One value per band (bands,) as (bands, 1, 1)."""
    return x[:, None, None]


def over(numerator: Tensor, denominator: Tensor) -> Tensor:
    """numerator / denominator, 0 where the denominator is: what does not vary injects nothing."""
    there = denominator != 0
    return torch.where(there, numerator / torch.where(there, denominator, 1.0), 0.0)


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """numerator / (denominator + eps), finite where the denominator is -eps."""
    raised = denominator + EPS
    return numerator / torch.where(raised == 0, EPS, raised)


def regression(gram: Tensor, target: Tensor) -> Tensor:
    """Least-squares weights (variables[, targets]) from the variables' moments and theirs with the targets.

    Variables are brought to one scale first; of those that others explain, the solution of least norm.
    """
    scale = unit_scale(gram)
    values, vectors = torch.linalg.eigh(gram * scale[:, None] * scale)
    inverse = torch.where(values > 1e-12 * values.max(), 1 / values, 0.0)
    flat = target if target.ndim == 2 else target[:, None]
    found = (vectors * inverse) @ (vectors.T @ (flat * scale[:, None])) * scale[:, None]
    return found if target.ndim == 2 else found[:, 0]


def signed_regression(gram: Tensor, target: Tensor, signs: Tensor) -> Tensor:
    """The same with weights (variables, targets) that have the given signs: non-negative least squares, flipped."""
    from scipy.optimize import nnls  # takes a quarter of a second to import

    scale = signs * unit_scale(gram)
    values, vectors = torch.linalg.eigh(gram * scale[:, None] * scale)
    kept = values > 1e-12 * values.max()
    root = values[kept].sqrt()[:, None]
    system = (root * vectors[:, kept].T).numpy()
    sides = (vectors[:, kept].T @ (scale[:, None] * target) / root).numpy()
    found = [nnls(system, side)[0] for side in sides.T]
    return scale[:, None] * torch.from_numpy(np.stack(found, 1))


def unit_scale(gram: Tensor) -> Tensor:
    """What brings each variable to a moment of one; 0 for one that is 0 everywhere."""
    return over(torch.ones(len(gram), dtype=gram.dtype), gram.diagonal().clamp(min=0).sqrt())


class Method:
    """A method on a scene: `passes` over all windows with `observe`, each closed by `settle`, then `apply` anywhere.

    `observes`, `applies`: how far the layers look in the two phases (`POINT` to `DOUBLE`).
    """

    passes: ClassVar[int] = 1
    observes: ClassVar[int] = POINT
    applies: ClassVar[int] = POINT

    def __init__(self, setup: Setup) -> None:
        self.setup = setup

    def observe(self, layers: Layers) -> None:
        """Take in the valid pixels of a window."""

    def settle(self) -> None:
        """End a pass. Raises InputError if the scene has too few valid pixels."""

    def apply(self, layers: Layers) -> Tensor:
        """F (bands, rows, cols) in DN, float64."""
        raise NotImplementedError


def need(count: int, least: int, what: str) -> None:
    """Raises InputError unless there are pixels enough."""
    if count == 0:
        raise InputError("PAN and MS have no valid pixel in common (all nodata)")
    if count < least:
        raise InputError(f"the scene has only {count} valid {what} pixels, this method needs {least}: use --method exp")


class Exp(Method):
    """The MS up-sampled at the exact phase and nothing else."""

    passes = 0

    def apply(self, layers: Layers) -> Tensor:
        return layers.expanded


class WithMoments(Method):
    """A method that needs means and covariances of P, E and some low-passes of P over the PAN grid."""

    lows: ClassVar[tuple[str, ...]] = ()

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        sizes = {low: setup.bands if low == "pan_low" else 1 for low in self.lows}
        self.sums = self.pan_sums = Moments(pan=1, expanded=setup.bands, **sizes)

    def observe(self, layers: Layers) -> None:
        lows = {low: getattr(layers, low) for low in self.lows}
        self.sums.update(layers.valid, pan=layers.pan, expanded=layers.expanded, **lows)

    def settle(self) -> None:
        need(self.sums.count, 2, "PAN")
        self.pan_mean, self.mean = self.pan_sums.mean("pan"), self.sums.mean("expanded")
        self.solve()

    def solve(self) -> None:
        """Derive what `apply` needs from the moments."""


# Component substitution ---------------------------------------------------------------------------------------------


class Component(WithMoments):
    """A method that needs no covariance of P and E: their statistics are taken apart, those of E on the MS grid."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.sums, self.pan_sums = Moments(expanded=setup.bands), Moments(pan=1, **dict.fromkeys(self.lows, 1))

    def observe(self, layers: Layers) -> None:
        layers.add_expanded(self.sums)
        self.pan_sums.update(layers.valid, pan=layers.pan, **{low: getattr(layers, low) for low in self.lows})


class Brovey(Component):
    """F_b = E_b match(P, I; P) / I, I the mean of the bands (Gillespie et al. 1987)."""

    def solve(self) -> None:
        self.scale = over(self.sums.cov("expanded").mean().clamp(min=0).sqrt(), self.pan_sums.std("pan")[0])

    def apply(self, layers: Layers) -> Tensor:
        matched = self.scale * (layers.pan - self.pan_mean) + self.mean.mean()
        return layers.expanded * ratio(matched, layers.expanded.mean(0, keepdim=True))


class Substitution(Component):
    """F_b = E_b + gain_b (scale (P - mean P) - sum_k weight_k (E_k - mean E_k)): substitution of a linear component."""

    weight: Tensor
    gain: Tensor
    scale: Tensor

    def settle(self) -> None:
        super().settle()
        mix = torch.eye(self.setup.bands, dtype=torch.float64) - torch.outer(self.gain, self.weight)
        self.mix, self.injection = mix, self.gain * self.scale
        self.constant = self.gain * (self.weight @ self.mean) - self.injection * self.pan_mean

    def matched(self) -> Tensor:
        """The scale that gives P the standard deviation of the component; 0 for a constant P."""
        variance = self.weight @ self.sums.cov("expanded") @ self.weight
        return over(variance.clamp(min=0).sqrt(), self.pan_sums.std("pan")[0])

    def projection(self) -> Tensor:
        """cov(I, E_b) / var(I), the gain of Gram-Schmidt; 0 for a constant component."""
        towards = self.sums.cov("expanded") @ self.weight
        return over(towards, (self.weight @ towards).clamp(min=0))

    def apply(self, layers: Layers) -> Tensor:
        return layers.mixed(self.mix, self.constant).addcmul_(column(self.injection), layers.pan)


def _even(bands: int) -> Tensor:
    return torch.full((bands,), 1 / bands, dtype=torch.float64)


class IHS(Substitution):
    """Generalised intensity-hue-saturation: the mean of the bands, of any number, replaced by P (Tu et al. 2001)."""

    def solve(self) -> None:
        self.weight, self.gain = _even(self.setup.bands), torch.ones(self.setup.bands, dtype=torch.float64)
        self.scale = self.matched()


class PCA(Substitution):
    """The first principal component, its largest entry positive, replaced by P (Chavez et al. 1991)."""

    def solve(self) -> None:
        vector = torch.linalg.eigh(self.sums.cov("expanded"))[1][:, -1]
        self.weight = self.gain = vector * vector[vector.abs().argmax()].sign()
        self.scale = self.matched()


class GS(Substitution):
    """Gram-Schmidt with the mean of the bands as simulated PAN (Laben and Brower 2000)."""

    def solve(self) -> None:
        self.weight = _even(self.setup.bands)
        self.scale, self.gain = self.matched(), self.projection()


class GSA(Substitution):
    """Gram-Schmidt adaptive: the component is the regression of the low-passed P on the MS (Aiazzi et al. 2007)."""

    observes = LOCAL

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.ms_sums = Moments(ms=setup.bands, pan=1)

    def observe(self, layers: Layers) -> None:
        super().observe(layers)
        self.ms_sums.update(layers.ms_valid, ms=layers.ms, pan=layers.ms_atrous)

    def solve(self) -> None:
        need(self.ms_sums.count, self.setup.bands + 2, "MS")
        self.weight = regression(self.ms_sums.cov("ms"), self.ms_sums.cov("ms", "pan")[:, 0])
        self.scale, self.gain = torch.ones((), dtype=torch.float64), self.projection()


class BTH(WithMoments):
    """Brovey with haze correction, optimised and haze-corrected (Lolli et al. 2017).

    F_b = (E_b - L_b) P' / I + L_b; I = sum_b a_b (E_b - L_b), a the regression of the low-passed P on E, P' is P
    matched to I. The haze L_b is a share of the 1st percentile of a band for blue, green, red and near infrared, else
    a band's minimum.
    """

    lows = ("pan_gauss",)
    observes = LOCAL

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.shares = haze_shares(setup.names, setup.bands)
        self.lowest = Lowest(setup.bands, setup.pixels, 0.01 if self.shares is not None else 0.0)

    def observe(self, layers: Layers) -> None:
        super().observe(layers)
        self.lowest.update(layers.expanded, layers.valid)

    def solve(self) -> None:
        self.haze = self.lowest.quantile() if self.shares is None else self.lowest.quantile() * self.shares
        self.weight = regression(self.sums.second("expanded"), self.sums.second("expanded", "pan_gauss")[:, 0])
        variance = self.weight @ self.sums.cov("expanded") @ self.weight
        self.scale = over(variance.clamp(min=0).sqrt(), self.sums.std("pan_gauss")[0])
        self.centre = self.weight @ (self.mean - self.haze)
        self.low_mean = self.sums.mean("pan_gauss")

    def apply(self, layers: Layers) -> Tensor:
        clear = layers.expanded - column(self.haze)
        component = torch.tensordot(self.weight[None], clear, 1)
        matched = self.scale * (layers.pan - self.low_mean) + self.centre
        return clear.clamp(min=0) * ratio(matched, component) + column(self.haze)


def haze_shares(names: Sequence[str | None], bands: int) -> Tensor | None:
    """BT-H's share of each band's percentile: by name, or in the order blue, green, red, near infrared; None if the
    bands are not these four."""
    if bands != len(HAZE):
        return None
    known = [n for n in names if n is not None]
    if len(known) == bands:
        if set(known) != set(HAZE):
            return None
        return torch.tensor([HAZE[n] for n in known], dtype=torch.float64)
    return torch.tensor(list(HAZE.values()), dtype=torch.float64)


class Lowest:
    """The lowest values of each band, and from them a low quantile, exact (the "hazen" definition).

    Of a scene of more than `LIMIT` pixels every second, third, ... is taken.
    """

    LIMIT: ClassVar[int] = 1 << 25

    def __init__(self, bands: int, pixels: int, quantile: float) -> None:
        self.step = -(-max(pixels, 1) // self.LIMIT)
        self.share = quantile
        self.room = int(quantile * (pixels // self.step + 1)) + 2
        self.kept = torch.empty(bands, 0, dtype=torch.float64)
        self.count = 0

    def update(self, values: Tensor, valid: Tensor | None) -> None:
        """Take in (bands, rows, cols) where `valid`."""
        values = (values.flatten(1) if valid is None else values[:, valid])[:, :: self.step]
        self.count += values.shape[1]
        lowest = values.topk(min(self.room, values.shape[1]), dim=1, largest=False, sorted=False).values
        self.kept = torch.cat([self.kept, lowest], 1)
        if self.kept.shape[1] > 4 * self.room:
            self._thin()

    def _thin(self) -> None:
        size = min(self.room, self.kept.shape[1])
        self.kept = self.kept.topk(size, dim=1, largest=False, sorted=True).values

    def quantile(self) -> Tensor:
        """One value per band."""
        self._thin()
        place = min(max(self.share * self.count - 0.5, 0.0), self.kept.shape[1] - 1)
        first = int(place)
        after = min(first + 1, self.kept.shape[1] - 1)
        return self.kept[:, first] + (place - first) * (self.kept[:, after] - self.kept[:, first])


class PRACS(Method):
    """Partial replacement adaptive component substitution (Choi et al. 2011), beta = 0.95.

    H_b are the bands matched to P. Each band gets a high-resolution component of its own, c_b P + (1 - c_b) H_b, and
    its detail against the regression of its low-pass on H is injected with a global weight and a local one.
    """

    passes = 2
    observes = DOUBLE
    BETA: ClassVar[float] = 0.95

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        n = setup.bands
        self.first: Moments | None = Moments(pan=1, expanded=n)
        self.sums = Moments(pan=1, expanded=n, matched=n, pan_low=1, matched_low=n)

    def observe(self, layers: Layers) -> None:
        if self.first is not None:
            self.first.update(layers.valid, pan=layers.pan, expanded=layers.expanded)
            return
        self.sums.update(
            layers.valid,
            pan=layers.pan,
            expanded=layers.expanded,
            matched=self.like_pan(layers.expanded),
            pan_low=layers.pan_cubic,
            matched_low=layers.cubic_low(self.like_pan),
        )

    def like_pan(self, expanded: Tensor) -> Tensor:
        """H_b = max(match(E_b, P; E_b), 0)."""
        return (column(self.scale) * (expanded - column(self.mean)) + self.pan_mean).clamp(min=0)

    def settle(self) -> None:
        if self.first is not None:
            need(self.first.count, self.setup.bands + 2, "PAN")
            self.mean, self.pan_mean = self.first.mean("expanded"), self.first.mean("pan")
            self.scale = over(self.first.std("pan"), self.first.std("expanded"))
            self.first = None
            return
        sums = self.sums
        gram, with_bands = sums.cov("matched"), sums.cov("matched", "expanded")
        band_std, pan_low = sums.std("expanded"), sums.cov("matched", "pan_low")[:, 0]
        self.low = regression(gram, pan_low)
        self.low_constant = sums.mean("pan_low")[0] - self.low @ sums.mean("matched")
        low_std = (self.low @ gram @ self.low).clamp(min=0).sqrt()
        self.share = over(gram @ self.low, low_std * sums.std("matched"))
        mixed = pan_low[:, None] * self.share + sums.cov("matched", "matched_low") * (1 - self.share)
        self.own = regression(gram, mixed)
        mixed_mean = sums.mean("pan_low") * self.share + sums.mean("matched_low") * (1 - self.share)
        self.own_constant = mixed_mean - sums.mean("matched") @ self.own
        high_mean = sums.mean("pan") * self.share + sums.mean("matched") * (1 - self.share)
        self.detail_mean = high_mean - mixed_mean
        own_std = (self.own * (gram @ self.own)).sum(0).clamp(min=0).sqrt()
        correlation = over((self.own * with_bands).sum(0), own_std * band_std)
        self.weight = self.BETA * correlation * over(band_std, band_std.mean())
        self.alike = over(self.low @ with_bands, low_std * band_std)

    def apply(self, layers: Layers) -> Tensor:
        expanded, matched = layers.expanded, self.like_pan(layers.expanded)
        low = torch.tensordot(self.own.T, matched, 1) + column(self.own_constant)
        share = column(self.share)
        detail = share * layers.pan + (1 - share) * matched - low - column(self.detail_mean)
        local = 1 - (1 - column(self.alike) * ratio(expanded, low)).abs()
        return expanded + column(self.weight) * local * detail


class BDSD(Method):
    """Band-dependent spatial detail (Garzelli et al. 2008), one block for the whole scene.

    F = E + [E P] gamma; gamma is the regression, without a constant, of the details A - B on [B p]: A is E reduced to
    the MS grid, B its MTF blur, p the degraded P.
    """

    observes = DOUBLE

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.sums = Moments(blurred=setup.bands, pan=1, detail=setup.bands)

    def observe(self, layers: Layers) -> None:
        self.sums.update(
            layers.ms_valid, blurred=layers.blurred, pan=layers.ms_pan, detail=layers.reduced - layers.blurred
        )

    def settle(self) -> None:
        need(self.sums.count, self.setup.bands + 2, "MS")
        known = ("blurred", "pan")
        self.gamma = self.solution(self.sums.second(known), self.sums.second(known, "detail"))
        self.mix = torch.eye(self.setup.bands, dtype=torch.float64) + self.gamma[:-1].T

    def solution(self, gram: Tensor, target: Tensor) -> Tensor:
        return regression(gram, target)

    def apply(self, layers: Layers) -> Tensor:
        nothing = torch.zeros(self.setup.bands, dtype=torch.float64)
        return layers.mixed(self.mix, nothing).addcmul_(column(self.gamma[-1]), layers.pan)


class BDSDPC(BDSD):
    """BDSD with physical constraints: P's weight is not negative, the bands' are not positive (Vivone 2019)."""

    def solution(self, gram: Tensor, target: Tensor) -> Tensor:
        signs = torch.full((len(gram),), -1.0, dtype=torch.float64)
        signs[-1] = 1
        return signed_regression(gram, target, signs)


class CBDSD(Method):
    """BDSD by clusters (Garzelli 2015): pixels of like brightness and local activity of P share a regression.

    F = E + [E 1 P] theta_k. Pixels go to the nearest of 30 k-means centres; a cluster with a negative weight of P, or
    with too few pixels, has the weights of the whole scene.
    """

    passes = 2
    observes = DOUBLE
    applies = LOCAL
    CLUSTERS: ClassVar[int] = 30
    SAMPLE: ClassVar[int] = 20_000
    LEAST: ClassVar[int] = 10
    """MS pixels per unknown below which a cluster's own regression is noise."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.peaks = torch.zeros(2, dtype=torch.float64)
        self.sample: list[Tensor] = []
        self.count, self.step = 0, 1
        self.centres: Tensor | None = None

    def features(self, layers: Layers) -> Tensor:
        """Local standard deviation of P and P (2, rows, cols)."""
        return torch.cat([layers.pan_std, layers.pan])

    def observe(self, layers: Layers) -> None:
        if self.centres is None:
            self.look(layers)
            return
        labels = self.ms_labels(layers)
        valid = torch.ones_like(labels, dtype=torch.bool) if layers.ms_valid is None else layers.ms_valid
        values = {"blurred": layers.blurred, "one": torch.ones_like(layers.ms_pan), "pan": layers.ms_pan}
        values["detail"] = layers.reduced - layers.blurred
        self.whole.update(valid, **values)
        for label in labels[valid].unique().tolist():
            self.sums[label].update(valid & (labels == label), **values)

    def look(self, layers: Layers) -> None:
        """First pass: the features' maxima, and a sample of them."""
        features = self.features(layers)
        if layers.valid is not None and not layers.valid.any():
            return
        seen = features.flatten(1) if layers.valid is None else features[:, layers.valid]
        self.peaks = torch.maximum(self.peaks, seen.amax(1))
        at_ms = layers.at_ms(features)
        at_ms = at_ms.flatten(1) if layers.ms_valid is None else at_ms[:, layers.ms_valid]
        self.count += at_ms.shape[1]
        self.sample.append(at_ms[:, :: self.step])
        if sum(s.shape[1] for s in self.sample) > 2 * self.SAMPLE:
            self.sample, self.step = [torch.cat(self.sample, 1)[:, ::2]], 2 * self.step

    def settle(self) -> None:
        if self.centres is None:
            unknowns = self.setup.bands + 2
            need(self.count, unknowns + 1, "MS")
            clusters = max(1, min(self.CLUSTERS, self.count // (20 * unknowns)))
            self.centres = k_means(over(torch.cat(self.sample, 1), self.peaks[:, None]), clusters, self.setup.seed)
            self.sample = []
            self.start()
            return
        self.theta = self.solved()

    def start(self) -> None:
        """Empty sums, one per cluster."""
        assert self.centres is not None
        n = self.setup.bands
        self.whole, *self.sums = (Moments(blurred=n, one=1, pan=1, detail=n) for _ in range(1 + self.centres.shape[1]))

    def solved(self) -> Tensor:
        """theta (clusters, bands + 2, bands)."""
        known = ("blurred", "one", "pan")
        unknowns = self.setup.bands + 2
        need(self.whole.count, unknowns + 1, "MS")
        common = regression(self.whole.second(known), self.whole.second(known, "detail"))
        theta = common.repeat(len(self.sums), 1, 1)
        for k, sums in enumerate(self.sums):
            if sums.count > self.LEAST * unknowns:
                own = regression(sums.second(known), sums.second(known, "detail"))
                if (own[-1] >= 0).all():
                    theta[k] = own
        return theta

    def labels(self, features: Tensor) -> Tensor:
        """The nearest centre of each pixel's features (2, rows, cols)."""
        assert self.centres is not None
        return nearest(over(features, column(self.peaks)), self.centres)

    def ms_labels(self, layers: Layers) -> Tensor:
        return self.labels(layers.at_ms(self.features(layers)))

    def pan_labels(self, layers: Layers) -> Tensor:
        return self.labels(self.features(layers))

    def apply(self, layers: Layers) -> Tensor:
        labels = self.pan_labels(layers)
        known = torch.cat([layers.expanded, torch.ones_like(layers.pan), layers.pan])
        fused = layers.expanded.clone()
        for label in labels.unique().tolist():
            here = labels == label
            fused[:, here] += self.theta[label].T @ known[:, here]
        return fused


def nearest(points: Tensor, centres: Tensor) -> Tensor:
    """Index of the nearest of `centres` (features, k) for each of `points` (features, ...)."""
    best = torch.full(points.shape[1:], torch.inf, dtype=points.dtype)
    labels = torch.zeros(points.shape[1:], dtype=torch.long)
    for k, centre in enumerate(centres.T):
        distance = sum(((p - c) ** 2 for p, c in zip(points, centre, strict=True)), torch.zeros(()))
        labels[distance < best] = k
        best = torch.minimum(best, distance)
    return labels


def k_means(points: Tensor, clusters: int, seed: int, rounds: int = 50) -> Tensor:
    """Centres (features, clusters) of `points` (features, n): Lloyd's algorithm from drawn points, seeded."""
    drawn = np.random.default_rng(seed).choice(points.shape[1], clusters, replace=False)
    centres = points[:, torch.from_numpy(drawn)].clone()
    for _ in range(rounds):
        labels = nearest(points, centres)
        counts = torch.bincount(labels, minlength=clusters).double()
        sums = torch.stack([torch.bincount(labels, p, minlength=clusters) for p in points])
        moved = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres


# Multi-resolution analysis ------------------------------------------------------------------------------------------


class MatchedDetail(Component):
    """P_b = match(P, E_b; reference), and its detail against its own low-pass, injected in one of three ways.

    "add": F_b = E_b + P_b - low(P_b); "multiply": F_b = E_b P_b / low(P_b); "share": the added detail times
    E_b / mean of the bands.
    """

    low: ClassVar[str]
    reference: ClassVar[str] = "pan"
    injection: ClassVar[Literal["add", "multiply", "share"]] = "add"
    applies = LOCAL

    def solve(self) -> None:
        self.scale = over(self.sums.std("expanded"), self.pan_sums.std(self.reference))
        self.shift = self.mean - self.scale * self.pan_mean

    def apply(self, layers: Layers) -> Tensor:
        expanded, scale, shift = layers.expanded, column(self.scale), column(self.shift)
        matched, low = scale * layers.pan + shift, layers.matched(self.low, scale, shift)
        if self.injection == "multiply":
            return expanded * ratio(matched, low)
        detail = matched - low
        if self.injection == "share":
            detail = detail * ratio(expanded, expanded.mean(0, keepdim=True))
        return expanded + detail


class HPF(MatchedDetail):
    """High-pass filtering with a box (Chavez and Anderson 1986)."""

    low = "pan_box"


class SFIM(MatchedDetail):
    """Smoothing-filter-based intensity modulation (Liu 2000)."""

    low, injection = "pan_box", "multiply"


class ATWT(MatchedDetail):
    """Additive "a trous" wavelet (Nunez et al. 1999)."""

    low = "pan_atrous"


class AWLP(MatchedDetail):
    """Additive wavelet luminance proportional (Otazu et al. 2005)."""

    low, reference, injection = "pan_atrous", "pan_cubic", "share"
    lows = ("pan_cubic",)
    observes = TRIP


class MTFGLP(MatchedDetail):
    """Generalised Laplacian pyramid with the sensor's MTF, additive (Aiazzi et al. 2006)."""

    low, reference = "pan_low", "pan_gauss"
    lows = ("pan_gauss",)
    observes, applies = LOCAL, TRIP


class MTFGLPHPM(MTFGLP):
    """MTF-GLP with high-pass modulation (Aiazzi et al. 2006)."""

    injection = "multiply"


class MF(MatchedDetail):
    """Morphological half-gradient filters (Restaino et al. 2016)."""

    low, injection = "pan_morph", "multiply"


class Regressed(WithMoments):
    """MTF-GLP whose injection gain is a regression over the scene: F_b = E_b + gain_b (P - P_L,b)."""

    lows = ("pan_low",)
    observes = applies = TRIP
    gain: Tensor

    def onto_low(self) -> Tensor:
        """cov(E_b, P_L,b) / var(P_L,b)."""
        low = self.sums.cov("expanded", "pan_low").diagonal()
        return over(low, self.sums.cov("pan_low").diagonal().clamp(min=0))

    def apply(self, layers: Layers) -> Tensor:
        return layers.expanded + column(self.gain) * (layers.pan - layers.pan_low)


class MTFGLPFS(Regressed):
    """Full-scale regression: gain_b = cov(E_b, P) / cov(P_L,b, P) (Vivone et al. 2018)."""

    def solve(self) -> None:
        self.gain = over(self.sums.cov("expanded", "pan")[:, 0], self.sums.cov("pan_low", "pan")[:, 0])


class MTFGLPCBD(Regressed):
    """Context-based decision, one context: gain_b = cov(E_b, P_L,b) / var(P_L,b) (Alparone et al. 2007)."""

    def solve(self) -> None:
        self.gain = self.onto_low()


class MTFGLPHPMR(Regressed):
    """High-pass modulation after a regression: F_b = E_b (P + c) / (P_L,b + c), g c = mean E_b - g mean P with g the
    gain of MTF-GLP-CBD (Vivone et al. 2017). Numerator and denominator are taken times g, which may be 0."""

    def solve(self) -> None:
        self.gain = self.onto_low()
        self.shift = self.mean - self.gain * self.pan_mean

    def apply(self, layers: Layers) -> Tensor:
        gain, shift = column(self.gain), column(self.shift)
        return layers.expanded * ratio(gain * layers.pan + shift, gain * layers.pan_low + shift)


METHODS: dict[str, type[Method]] = {
    "exp": Exp,
    "brovey": Brovey,
    "ihs": IHS,
    "pca": PCA,
    "gs": GS,
    "gsa": GSA,
    "bt-h": BTH,
    "pracs": PRACS,
    "hpf": HPF,
    "sfim": SFIM,
    "atwt": ATWT,
    "awlp": AWLP,
    "mtf-glp": MTFGLP,
    "mtf-glp-fs": MTFGLPFS,
    "mtf-glp-cbd": MTFGLPCBD,
    "mtf-glp-hpm": MTFGLPHPM,
    "mtf-glp-hpm-r": MTFGLPHPMR,
    "mf": MF,
    "bdsd": BDSD,
    "bdsd-pc": BDSDPC,
    "c-bdsd": CBDSD,
}
"""The classical methods by name."""

ALIASES = {"none": "exp", "prs": "pracs"}

NAMES = (*METHODS, *ALIASES)
"""All that --method takes for a classical method."""


def create(name: str, setup: Setup) -> Method:
    """Make the named method, not fitted yet. Raises InputError for an unknown name."""
    name = ALIASES.get(name, name)
    if name not in METHODS:
        raise InputError(f"no classical method named '{name}'; there is {', '.join(NAMES)}")
    return METHODS[name](setup)
