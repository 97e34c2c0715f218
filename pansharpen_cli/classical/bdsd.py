"""Band-dependent spatial detail (BDSD), its constrained variant and its clusters."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..covariance import Covariance
from .layers import DOUBLE, LOCAL, Setup, TileLayers, column
from .method import Method, need, over, regression, signed_regression


class BDSD(Method):
    """Band-dependent spatial detail (Garzelli et al. 2008), one block for the whole scene.

    F = E + [E P] gamma; gamma is the regression, without a constant, of the details A - B on [B p]: A is E reduced to
    the MS grid, B its MTF blur, p the degraded P.
    """

    observes = DOUBLE
    finds: ClassVar = {"mix": "nn", "gamma": "mn"}

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.sums = Covariance(blurred=setup.bands, pan=1, detail=setup.bands)

    def observe(self, layers: TileLayers) -> None:
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

    def apply(self, layers: TileLayers) -> Tensor:
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
    finds: ClassVar = {"peaks": "2", "centres": "2k", "theta": "kun"}
    CLUSTERS: ClassVar[int] = 30
    SAMPLE: ClassVar[int] = 20_000
    PER_UNKNOWN: ClassVar[int] = 10
    """MS pixels per unknown below which a cluster's own regression is noise."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.peaks = torch.zeros(2, dtype=torch.float64)
        self.sample: list[Tensor] = []
        self.count, self.step = 0, 1
        self.centres: Tensor | None = None

    def features(self, layers: TileLayers) -> Tensor:
        """Local standard deviation of P and P (2, rows, cols)."""
        return torch.cat([layers.pan_std, layers.pan])

    def observe(self, layers: TileLayers) -> None:
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

    def look(self, layers: TileLayers) -> None:
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
        self.whole, *self.sums = (
            Covariance(blurred=n, one=1, pan=1, detail=n) for _ in range(1 + self.centres.shape[1])
        )

    def solved(self) -> Tensor:
        """theta (clusters, bands + 2, bands)."""
        known = ("blurred", "one", "pan")
        unknowns = self.setup.bands + 2
        need(self.whole.count, unknowns + 1, "MS")
        common = regression(self.whole.second(known), self.whole.second(known, "detail"))
        theta = common.repeat(len(self.sums), 1, 1)
        for k, sums in enumerate(self.sums):
            if sums.count > self.PER_UNKNOWN * unknowns:
                own = regression(sums.second(known), sums.second(known, "detail"))
                if (own[-1] >= 0).all():
                    theta[k] = own
        return theta

    def labels(self, features: Tensor) -> Tensor:
        """The nearest centre of each pixel's features (2, rows, cols)."""
        assert self.centres is not None
        return nearest(over(features, column(self.peaks)), self.centres)

    def ms_labels(self, layers: TileLayers) -> Tensor:
        return self.labels(layers.at_ms(self.features(layers)))

    def pan_labels(self, layers: TileLayers) -> Tensor:
        return self.labels(self.features(layers))

    def apply(self, layers: TileLayers) -> Tensor:
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


def k_means(points: Tensor, clusters: int, seed: int) -> Tensor:
    """Centres (features, clusters) of `points` (features, n): Lloyd's algorithm from drawn points, seeded."""
    from scipy.cluster.vq import kmeans2

    drawn = np.random.default_rng(seed).choice(points.shape[1], clusters, replace=False)
    centres, _ = kmeans2(points.T.numpy(), points[:, drawn].T.numpy(), iter=50, minit="matrix")
    return torch.from_numpy(centres.T.copy())
