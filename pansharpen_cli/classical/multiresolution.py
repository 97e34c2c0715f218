"""Multiresolution methods: detail of PAN against its low pass, injected band by band."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from .layers import LOCAL, TRIP, TileLayers, column
from .method import WithCovariance, least, lifted, modulation, over, ratio
from .substitution import Component


class MatchedDetail(Component):
    """P_b = match(P, E_b; reference), and its detail against its own low-pass, injected in one of three ways.

    "add": F_b = E_b + P_b - low(P_b); "multiply": F_b = E_b P_b / low(P_b); "share": the added detail times
    E_b / mean of the bands.
    """

    low: ClassVar[str]
    reference: ClassVar[str] = "pan"
    injection: ClassVar[Literal["add", "multiply", "share"]] = "add"
    applies = LOCAL
    finds: ClassVar = {"scale": "n", "shift": "n"}

    def solve(self) -> None:
        self.scale = over(self.sums.std("expanded"), self.pan_sums.std(self.reference))
        self.shift = self.mean - self.scale * self.pan_mean
        self.least = least(self.mean, self.sums.std("expanded"))

    def apply(self, layers: TileLayers) -> Tensor:
        expanded, scale, shift = layers.expanded, column(self.scale), column(self.shift)
        matched, low = scale * layers.pan + shift, layers.matched(self.low, scale, shift)
        if self.injection == "multiply":
            return expanded * modulation(matched, low, column(self.least))
        detail = matched - low
        if self.injection == "share":
            detail = detail * ratio(expanded, lifted(expanded.mean(0, keepdim=True), self.least))
        return expanded + detail


DIVIDING = {**MatchedDetail.finds, "least": "n"}


class HPF(MatchedDetail):
    """High-pass filtering with a box (Chavez and Anderson 1986)."""

    low = "pan_box"


class SFIM(MatchedDetail):
    """Smoothing-filter-based intensity modulation (Liu 2000)."""

    low, injection = "pan_box", "multiply"
    finds: ClassVar = DIVIDING


class ATWT(MatchedDetail):
    """Additive "a trous" wavelet (Nunez et al. 1999)."""

    low = "pan_atrous"


class AWLP(MatchedDetail):
    """Additive wavelet luminance proportional (Otazu et al. 2005)."""

    low, reference, injection = "pan_atrous", "pan_cubic", "share"
    finds: ClassVar = {**MatchedDetail.finds, "least": ""}
    lows = ("pan_cubic",)
    observes = TRIP

    def solve(self) -> None:
        super().solve()
        self.least = least(self.mean.mean(), self.sums.cov("expanded").mean().clamp(min=0).sqrt())


class MTFGLP(MatchedDetail):
    """Generalised Laplacian pyramid with the sensor's MTF, additive (Aiazzi et al. 2006)."""

    low, reference = "pan_low", "pan_gauss"
    lows = ("pan_gauss",)
    observes, applies = LOCAL, TRIP


class MTFGLPHPM(MTFGLP):
    """MTF-GLP with high-pass modulation (Aiazzi et al. 2006)."""

    injection = "multiply"
    finds: ClassVar = DIVIDING


class MF(MatchedDetail):
    """Morphological half-gradient filters (Restaino et al. 2016)."""

    low, injection = "pan_morph", "multiply"
    finds: ClassVar = DIVIDING


class Regressed(WithCovariance):
    """MTF-GLP whose injection gain is a regression over the scene: F_b = E_b + gain_b (P - P_L,b)."""

    lows = ("pan_low",)
    observes = applies = TRIP
    finds: ClassVar = {"gain": "n"}
    gain: Tensor

    def onto_low(self) -> Tensor:
        """cov(E_b, P_L,b) / var(P_L,b)."""
        low = self.sums.cov("expanded", "pan_low").diagonal()
        return over(low, self.sums.cov("pan_low").diagonal().clamp(min=0))

    def apply(self, layers: TileLayers) -> Tensor:
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

    finds: ClassVar = {"gain": "n", "shift": "n", "least": "n"}

    def solve(self) -> None:
        self.gain = self.onto_low()
        self.shift = self.mean - self.gain * self.pan_mean
        self.least = least(self.mean, self.gain.abs() * self.sums.std("pan_low"))

    def apply(self, layers: TileLayers) -> Tensor:
        gain, shift = column(self.gain), column(self.shift)
        high, low = gain * layers.pan + shift, gain * layers.pan_low + shift
        return layers.expanded * modulation(high, low, column(self.least))
