"""Fidelity: how far a fused image is from what PAN and MS say of the true one, without knowing it.

What is right is each band as sharp as the PAN and where the PAN is, in the colours of the MS. Two measurements speak of
the true bands X_b, and a fused image is held against both, each in the part of the spectrum that only it sees:

- **colour**: the MS is the truth as the MS sees it. c_b^2 = mean((D X_b - Y_b)^2) / mean(Y_b^2) over the MS pixels,
  where D blurs with the point spread of the MS and samples at the exact phase;
- **detail**: the PAN is a weighted sum of the true bands, P = sum_b w_b X_b + w_0.
  d^2 = mean(H(sum_b w_b X_b - P)^2) / mean((sum_b w_b Y_b)^2) over the PAN pixels, where H is the high pass
  x - gauss(x, sigma ratio / 2): what is coarser, colour has judged.

Both D and the weights are what the scene itself shows, by least squares at the MS's scale: D = sum_k a_k G_k is a sum
of Gaussians of fixed widths whose a_k add up to one, and sum_b w_b Y_b + w_0 = D P. So a soft MS, a crisp one, and one
that was sharpened on the ground (with an a_k below zero) are all seen as they are. No table of sensors is asked, whose
MTF may be far from that of the product. The weights are fitted once more with D, then none is negative.

Both are the data terms of the variational methods (Ballester et al., "A variational model for P+XS image fusion",
2006), taken as a yardstick. What neither of them sees, detail of a band that does not follow the PAN, is

- **stray**: s_b^2 = mean((H X_b - g_b H P)^2) / mean(Y_b^2) with the regression's g_b. The true bands have some of it,
  speckle and fringes of colour are made of it; it counts a twentieth (`STRAY`).

The distance from the truth is e^2 = mean_b(c_b^2) + d^2 + STRAY mean_b(s_b^2), an estimate of (ERGAS ratio / 100)^2,
and fidelity = 1 / (1 + e / p), where p is the d of an image without any detail: what PAN has to give. So 1 is best, and
a result whose colours are right and which has no detail at all has 0.5.

The MS as it was measured, its aliasing included, is the target at its own scale only; nothing asks for the up-sampled
MS, and softness does not pay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..classical.method import regression, signed_regression
from ..covariance import Covariance
from ..errors import InputError
from ..raster.geometry import Window
from .metrics import DETAIL_REACH, DETAIL_SIGMA, Details

FIGURES = ("fidelity", "colour_error", "detail_error", "pan_sharpness", "detail_gains", "detail_places", "displacement")
"""What `Fidelity.compute` names."""

KERNEL_GAINS = tuple(math.exp(-((math.pi * width) ** 2) / 2) for width in (0.25, 0.4, 0.55, 0.75, 1.0))
"""Gains at the MS's Nyquist frequency of the Gaussians that its point spread is made of; their widths (standard
deviations) are in MS pixels. The usual MTF gains, 0.04 to 0.6, lie between, and so do sharpened ones."""

MAX_REACH = 20
"""PAN pixels on each side at which the Gaussian of the high pass is cut, at the most."""

STRAY = 0.05
"""Weight of the detail that does not follow the PAN: the more, the less do true bands that differ count for true."""

LEAST_PIXELS = 64
"""MS pixels that the weights of the bands are fitted to, at the least."""

LAG = 3
"""Pixels by which the fused image is tried beside the PAN, each way."""

THINNED, FEW = 3, 1 << 16
"""Every third row and column of a piece is tried beside the PAN, so that all phases of the MS are, every second one of
pieces of so few pixels."""

SEEN = 0.35
"""Gain on the PAN's detail, where it fits best, below which a displacement is not told: an up-sampled MS has 0.04 to
0.3."""

CONSTANT = 1e-5
"""PAN detail that is less than this part of the intensity is rounding noise."""


@dataclass(eq=False)
class Fidelity:
    """Adds up a fused image piece by piece; the pieces do not show. `ratio`: MS pixel size in PAN pixels."""

    bands: int
    ratio: float

    def __post_init__(self) -> None:
        self.sigma, kernels = self.ratio / 2, len(KERNEL_GAINS)
        self._low = Covariance(ms=self.bands, pan=kernels)
        self._seen = torch.zeros(self.bands, kernels + 1, kernels + 1, dtype=torch.float64)
        self._pixels = 0
        self._details = torch.zeros(self.bands + 1, self.bands + 1, dtype=torch.float64)
        self._moved = torch.zeros(self.bands + 1, 2 * LAG + 1, 2 * LAG + 1, dtype=torch.float64)

    @property
    def reach(self) -> int:
        """PAN pixels of margin that a piece needs around its own."""
        return min(math.ceil(4 * self.sigma), MAX_REACH)

    def add_colour(self, degraded: Tensor, ms: Tensor, pan: Tensor, valid: Tensor) -> None:
        """Add pixels of the MS grid, in DN: the fused image (bands, kernels, rows, cols) and PAN (kernels, rows, cols)
        degraded to it with each of `KERNEL_GAINS`, and the MS (bands, rows, cols); `valid` bool (rows, cols)."""
        target = ms[:, valid].double()
        self._low.update(ms=target, pan=pan[:, valid])
        x = torch.cat([degraded[:, :, valid].double(), target[:, None]], 1)
        self._seen += x @ x.mT

    def details(
        self, fused: Tensor, pan: Tensor, valid: Tensor, core: Window, known: Details | None = None
    ) -> tuple[Details, Tensor | None]:
        """What `add_detail` takes of pixels of the PAN grid: `fused` (bands, rows, cols) and `pan` (1, rows, cols) in
        DN, with at least `reach` pixels of margin around the own ones, `core`, where the image has them; `valid` bool
        (rows, cols).

        `known`: the high passes of `full_resolution`, which are the same at ratio 4. With them come the products of
        all with PAN beside them (bands + 1, rows moved, columns moved), None of a piece that is too small.
        """
        if known is None or (self.sigma, self.reach) != (DETAIL_SIGMA, DETAIL_REACH):
            known = Details.of(fused, pan, valid, core, self.sigma, self.reach, self.reach)
        if min(known.values.shape[1:]) <= 2 * LAG:
            return known, None
        inner = known.values[:, LAG:-LAG, LAG:-LAG]
        some = (..., *(slice(None, None, THINNED if inner.shape[1:].numel() > FEW else 2),) * 2)
        # PAN moved by -LAG .. LAG: (rows moved, columns moved, rows, cols)
        moved = known.values[-1].unfold(0, inner.shape[1], 1).unfold(1, inner.shape[2], 1)[some]
        products = inner[some].flatten(1) @ moved.flatten(2).flatten(0, 1).T
        return known, products.unflatten(1, moved.shape[:2]).flip(1, 2)

    def add_detail(self, details: Details, moved: Tensor | None) -> None:
        """Add pixels of the PAN grid."""
        self._pixels += details.pixels
        self._details += details.products
        if moved is not None:
            self._moved += moved

    def fitted(self) -> tuple[Tensor, Tensor]:
        """Shares a_k of the kernels in the point spread of the MS (kernels,), which add up to one, and weights w_b of
        the bands in the PAN (bands,), none of them negative. Raises InputError if there are none."""
        if self._low.count < LEAST_PIXELS:
            raise InputError(f"fidelity is undefined: only {self._low.count} MS pixels lie on valid pixels")
        groups, bands, kernels = ("ms", "pan"), self.bands, len(KERNEL_GAINS)
        cov = self._low.cov(groups)
        # the last kernel's PAN, by the bands and by what the others differ from it
        change = torch.eye(bands + kernels, dtype=torch.float64)
        change[-1, bands:-1] = 1.0
        change[range(bands, bands + kernels - 1), range(bands, bands + kernels - 1)] = -1.0
        cov = change.T @ cov @ change
        shares = regression(cov[:-1, :-1], cov[:-1, -1])[bands:]
        shares = torch.cat([shares, 1 - shares.sum()[None]])
        gram, target = self._low.cov("ms"), self._low.cov("ms", "pan") @ shares[:, None]
        weights = torch.zeros(bands, dtype=torch.float64)
        if gram.any() and target.any():
            weights = signed_regression(gram, target, torch.ones(bands, dtype=torch.float64))[:, 0]
        if not weights.any():
            raise InputError("fidelity is undefined: the bands do not follow the PAN at the MS's scale")
        return shares, weights

    def compute(self, varies: bool = False) -> dict[str, Any]:
        """`fidelity`; `colour_error` per band, c_b; `detail_error`, d; `pan_sharpness`, the gain of the weighted
        sum's detail on that of PAN: 1 is as sharp as the PAN, less is softer; `displacement`, (rows, columns) by which
        it lies beside the PAN, None where it has too little of the PAN's detail to tell. Per band, in DN for a DN of
        PAN: `detail_gains`, the gain in place, and `detail_places`, (rows, columns, gain) where it is largest.

        Raises InputError where they are undefined: too few valid pixels, a band of zeros, a PAN without detail.
        `varies`: the PAN is known not to be constant.
        """
        shares, weights = self.fitted()
        if not self._pixels:
            raise InputError(f"fidelity is undefined: no pixel is {self.reach} pixels or more away from invalid ones")
        squares = self._seen[:, -1, -1]
        if not (squares > 0).all():
            raise InputError("fidelity is undefined: a band of the MS is zero throughout")
        intensity = float(weights @ self._low.second("ms") @ weights)
        against = torch.cat([weights, -torch.ones(1, dtype=torch.float64)])
        details = self._details / self._pixels
        pan = float(details[-1, -1])
        own = float(self._low.second("pan").diagonal().mean())
        if not (varies or pan > CONSTANT**2 * own):
            raise InputError("fidelity is undefined: the PAN is constant, it has no detail")
        for level, square in (("its own level", own), ("the level of the MS", intensity)):
            if not pan > CONSTANT**2 * square:
                raise InputError(
                    f"fidelity is undefined: the detail of the PAN is less than {CONSTANT:g} of {level}; "
                    "subtract an offset from its values, if it has one"
                )
        both = torch.cat([shares, -torch.ones(1, dtype=torch.float64)])
        colour = (self._seen @ both @ both).clamp(min=0) / squares
        detail = max(float(against @ details @ against), 0.0) / intensity
        stray = (details.diagonal()[:-1] - details[:-1, -1].square() / pan).clamp(min=0)
        stray = stray / self._low.second("ms").diagonal()
        error = math.sqrt(float(colour.mean()) + detail + STRAY * float(stray.mean()))
        rows, cols, gain = self._place(torch.tensordot(weights, self._moved[:-1], 1))
        return {
            "fidelity": 1 / (1 + error / math.sqrt(pan / intensity)),
            "colour_error": colour.sqrt().tolist(),
            "detail_error": math.sqrt(detail),
            "pan_sharpness": float(weights @ details[:-1, -1]) / pan,
            "detail_gains": (details[:-1, -1] / pan).tolist(),
            "detail_places": [self._place(products) for products in self._moved[:-1]],
            "displacement": [rows, cols] if gain >= SEEN else None,
        }

    def _place(self, products: Tensor) -> tuple[float, float, float]:
        """Rows, columns and gain where products with the PAN (rows moved, columns moved) are largest."""
        row, col = divmod(int(products.argmax()), products.shape[1])
        gain = float(products[row, col] / self._moved[-1, LAG, LAG].clamp(min=1e-300))
        return _peak(products[:, col], row) - LAG, _peak(products[row], col) - LAG, gain


def _peak(values: Tensor, at: int) -> float:
    """Place of the largest of some values, which is `at`, by the parabola through it and its neighbours."""
    if not 0 < at < len(values) - 1:
        return float(at)
    before, largest, after = values[at - 1 : at + 2].tolist()
    bend = before - 2 * largest + after
    return at + (before - after) / (2 * bend) if bend < 0 else float(at)
