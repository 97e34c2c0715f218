"""Component substitution: a component of the bands is replaced by PAN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from ..covariance import Covariance
from ..errors import InputError
from .layers import DOUBLE, HAZE, LOCAL, Setup, TileLayers, column
from .method import Method, WithCovariance, least, lifted, modulation, need, over, ratio, regression


class Component(WithCovariance):
    """A method that needs no covariance of P and E: their statistics are taken apart, those of E on the MS grid."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.sums, self.pan_sums = Covariance(expanded=setup.bands), Covariance(pan=1, **dict.fromkeys(self.lows, 1))

    def observe(self, layers: TileLayers) -> None:
        layers.add_expanded(self.sums)
        self.pan_sums.update(layers.valid, pan=layers.pan, **{low: getattr(layers, low) for low in self.lows})


class Brovey(Component):
    """F_b = E_b match(P, I; P) / I, I the mean of the bands (Gillespie et al. 1987)."""

    finds: ClassVar = {"scale": "", "pan_mean": "1", "mean": "n", "least": ""}

    def solve(self) -> None:
        std = self.sums.cov("expanded").mean().clamp(min=0).sqrt()
        self.scale = over(std, self.pan_sums.std("pan")[0])
        self.least = least(self.mean.mean(), std)

    def apply(self, layers: TileLayers) -> Tensor:
        matched = self.scale * (layers.pan - self.pan_mean) + self.mean.mean()
        return layers.expanded * modulation(matched, layers.expanded.mean(0, keepdim=True), self.least)


class Substitution(Component):
    """F_b = E_b + gain_b (scale (P - mean P) - sum_k weight_k (E_k - mean E_k)): substitution of a linear component."""

    finds: ClassVar = {"mix": "nn", "injection": "n", "constant": "n"}
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

    def apply(self, layers: TileLayers) -> Tensor:
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
        self.ms_sums = Covariance(ms=setup.bands, pan=1)

    def observe(self, layers: TileLayers) -> None:
        super().observe(layers)
        self.ms_sums.update(layers.ms_valid, ms=layers.ms, pan=layers.ms_atrous)

    def solve(self) -> None:
        need(self.ms_sums.count, self.setup.bands + 2, "MS")
        self.weight = regression(self.ms_sums.cov("ms"), self.ms_sums.cov("ms", "pan")[:, 0])
        self.scale, self.gain = torch.ones((), dtype=torch.float64), self.projection()


class BTH(WithCovariance):
    """Brovey with haze correction, optimised and haze-corrected (Lolli et al. 2017).

    F_b = (E_b - L_b) P' / I + L_b; I = sum_b a_b (E_b - L_b), a the regression of the low-passed P on E, P' is P
    matched to I. The haze L_b is a share of the 1st percentile of a band for blue, green, red and near infrared, else
    a band's minimum.
    """

    lows = ("pan_gauss",)
    observes = LOCAL
    finds: ClassVar = {"weight": "n", "haze": "n", "scale": "", "low_mean": "1", "centre": "", "least": ""}

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.shares = haze_shares(setup.names, setup.bands)
        self.lowest = Lowest(setup.bands, setup.pixels, 0.01 if self.shares is not None else 0.0)

    def observe(self, layers: TileLayers) -> None:
        super().observe(layers)
        self.lowest.update(layers.expanded, layers.valid)

    def solve(self) -> None:
        self.haze = self.lowest.quantile()
        if self.shares is not None:  # a share of less than nothing would lie above the darkest pixels
            self.haze = torch.minimum(self.haze, self.haze * self.shares)
        self.weight = regression(self.sums.second("expanded"), self.sums.second("expanded", "pan_gauss")[:, 0])
        std = (self.weight @ self.sums.cov("expanded") @ self.weight).clamp(min=0).sqrt()
        self.scale = over(std, self.sums.std("pan_gauss")[0])
        self.centre = self.weight @ (self.mean - self.haze)
        self.least = least(self.centre, std)
        self.low_mean = self.sums.mean("pan_gauss")

    def apply(self, layers: TileLayers) -> Tensor:
        clear = layers.expanded - column(self.haze)
        component = torch.tensordot(self.weight[None], clear, 1)
        matched = self.scale * (layers.pan - self.low_mean) + self.centre
        return clear.clamp(min=0) * modulation(matched, component, self.least) + column(self.haze)


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
    """The lowest values of each band, and from them a low quantile, exact (the "hazen" definition). Of a scene of more
    than `LIMIT` pixels every second, third, ... is taken."""

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
    compares = True
    BETA: ClassVar[float] = 0.95
    MOST_RATIO: ClassVar[float] = 10.0
    """Times the largest mean of a band that PAN's may be, and the other way round: beyond it units differ."""
    finds: ClassVar = {
        "pan_mean": "1", "own": "nn",
        **dict.fromkeys(("mean", "scale", "own_constant", "share", "detail_mean", "weight", "alike", "least"), "n"),
    }  # fmt: skip

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        n = setup.bands
        self.first: Covariance | None = Covariance(pan=1, expanded=n)
        self.sums = Covariance(pan=1, expanded=n, matched=n, pan_low=1, matched_low=n)

    def observe(self, layers: TileLayers) -> None:
        if self.first is not None:
            self.first.update(layers.valid, pan=layers.pan, expanded=layers.expanded)
            return
        matched, matched_low = self.like_pan(layers.expanded), layers.cubic_low(self.like_pan)
        self.sums.update(
            layers.valid, pan=layers.pan, expanded=layers.expanded, matched=matched, pan_low=layers.pan_cubic,
            matched_low=matched_low,
        )  # fmt: skip

    def like_pan(self, expanded: Tensor) -> Tensor:
        """H_b = max(match(E_b, P; E_b), 0)."""
        return (column(self.scale) * (expanded - column(self.mean)) + self.pan_mean).clamp(min=0)

    def settle(self) -> None:
        if self.first is not None:
            need(self.first.count, self.setup.bands + 2, "PAN")
            self.mean, self.pan_mean = self.first.mean("expanded"), self.first.mean("pan")
            self.scale = over(self.first.std("pan"), self.first.std("expanded"))
            pan, ms = float(self.pan_mean.abs().max()), float(self.mean.abs().max())
            if min(pan, ms) > 0 and not 1 / self.MOST_RATIO <= pan / ms <= self.MOST_RATIO:
                raise InputError(
                    f"pracs compares the values of PAN and MS, whose means are {pan:.3g} and {ms:.3g}: scale one of "
                    "them (gdal_translate -scale), or use another method"
                )
            self.first = None
            return
        sums = self.sums
        gram, with_bands = sums.cov("matched"), sums.cov("matched", "expanded")
        band_std, pan_low = sums.std("expanded"), sums.cov("matched", "pan_low")[:, 0]
        self.low = regression(gram, pan_low)
        low_std = (self.low @ gram @ self.low).clamp(min=0).sqrt()
        self.share = over(gram @ self.low, low_std * sums.std("matched"))
        mixed = pan_low[:, None] * self.share + sums.cov("matched", "matched_low") * (1 - self.share)
        self.own = regression(gram, mixed)
        mixed_mean = sums.mean("pan_low") * self.share + sums.mean("matched_low") * (1 - self.share)
        self.own_constant = mixed_mean - sums.mean("matched") @ self.own
        high_mean = sums.mean("pan") * self.share + sums.mean("matched") * (1 - self.share)
        self.detail_mean = high_mean - mixed_mean
        own_std = (self.own * (gram @ self.own)).sum(0).clamp(min=0).sqrt()
        self.least = least(mixed_mean, own_std)
        correlation = over((self.own * with_bands).sum(0), own_std * band_std)
        self.weight = self.BETA * correlation * over(band_std, band_std.mean())
        self.alike = over(self.low @ with_bands, low_std * band_std)

    def doubts(self) -> list[str]:
        """Bands that get less than nothing of P: H - c_b (H - P) goes beyond both."""
        against = [str(band) for band, share in enumerate(self.share.tolist(), 1) if share < 0]
        which = f"bands {', '.join(against)} fall" if len(against) > 1 else f"band {''.join(against)} falls"
        return [f"{which} where the PAN rises: pracs can be far off there, use another method"] if against else []

    def apply(self, layers: TileLayers) -> Tensor:
        expanded, matched = layers.expanded, self.like_pan(layers.expanded)
        low = torch.tensordot(self.own.T, matched, 1) + column(self.own_constant)
        share = column(self.share)
        detail = share * layers.pan + (1 - share) * matched - low - column(self.detail_mean)
        local = 1 - (1 - column(self.alike) * ratio(expanded, lifted(low, column(self.least)))).abs()
        return expanded + column(self.weight) * local * detail
