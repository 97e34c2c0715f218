"""The protocol of classical methods, and regressions that several share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..covariance import Covariance
from ..errors import InputError
from .layers import EPS, POINT, Setup, TileLayers


def over(numerator: Tensor, denominator: Tensor) -> Tensor:
    """numerator / denominator, 0 where the denominator is: what does not vary injects nothing."""
    there = denominator != 0
    return torch.where(there, numerator / torch.where(there, denominator, 1.0), 0.0)


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """numerator / (denominator + eps), finite where the denominator is -eps."""
    raised = denominator + EPS
    return numerator / torch.where(raised == 0, EPS, raised)


LEAST_DIVISOR = 0.1
"""Share of a divisor's root mean square over the scene that it is lifted to. Below it is an undershoot of a filter, or
of the linear match of PAN to a band: no radiance that detail is proportional to."""


def least(mean: Tensor, std: Tensor) -> Tensor:
    """What divisors of these statistics over the scene are lifted to; on their mean's side of zero."""
    return LEAST_DIVISOR * torch.hypot(mean, std) * torch.where(mean < 0, -1.0, 1.0)


def lifted(divisor: Tensor, least: Tensor) -> Tensor:
    """A divisor that is nowhere between zero and `least`, nor beyond zero."""
    return torch.where(divisor * least.sign() < least.abs(), least, divisor)


def modulation(high: Tensor, low: Tensor, least: Tensor) -> Tensor:
    """high / low; where `low` is lifted, both are by the same, so that 1 + (high - low) / least remains: detail enters
    with a gain that is finite and keeps its sign."""
    divisor = lifted(low, least)
    return ratio(high + (divisor - low), divisor)


def regression(gram: Tensor, target: Tensor) -> Tensor:
    """Least-squares weights (variables[, targets]) from the variables' moments and theirs with the targets. Variables
    are brought to one scale first; of those that others explain, the solution of least norm."""
    scale = unit_scale(gram)
    values, vectors = _eigen(gram * scale[:, None] * scale)
    inverse = torch.where(values > 1e-12 * values.max(), 1 / values, 0.0)
    flat = target if target.ndim == 2 else target[:, None]
    found = (vectors * inverse) @ (vectors.T @ (flat * scale[:, None])) * scale[:, None]
    return found if target.ndim == 2 else found[:, 0]


def _eigen(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and vectors. Raises InputError for a matrix that holds no numbers."""
    if not gram.isfinite().all():
        raise InputError(
            "the values of PAN and MS are too large, too small or too far apart to take statistics of: scale them "
            "(gdal_translate -scale), or name what stands for nodata (--nodata)"
        )
    values, vectors = torch.linalg.eigh(gram)
    return values, vectors


def signed_regression(gram: Tensor, target: Tensor, signs: Tensor) -> Tensor:
    """Regression whose weights (variables, targets) have the given signs: non-negative least squares, flipped."""
    scale = signs * unit_scale(gram)
    values, vectors = _eigen(gram * scale[:, None] * scale)
    kept = values > 1e-12 * values.max()
    root = values[kept].sqrt()[:, None]
    system = (root * vectors[:, kept].T).numpy()
    sides = (vectors[:, kept].T @ (scale[:, None] * target) / root).numpy()
    found = [non_negative(system, side) for side in sides.T]
    return scale[:, None] * torch.from_numpy(np.stack(found, 1))


def non_negative(system: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Non-negative x (variables,) with the least |system x - side|, of a system (equations, variables).

    Lawson and Hanson, "Solving Least Squares Problems", 1974, chapter 23. That of scipy is the same, and takes from a
    quarter of a second to two seconds to import.
    """
    count = system.shape[1]
    found, free = np.zeros(count), np.zeros(count, bool)
    least = 10 * max(system.shape) * np.finfo(float).eps * np.abs(system).sum(0).max(initial=0.0)
    for _ in range(3 * count):
        slope = np.where(free, -np.inf, system.T @ (side - system @ found))
        if not slope.max(initial=-np.inf) > least:
            break
        free[slope.argmax()] = True
        trial = _solved(system, side, free)
        while (trial[free] <= 0).any():
            left = np.flatnonzero(free & (trial <= 0))
            steps = found[left] / np.maximum(found[left] - trial[left], np.finfo(float).tiny)
            found += steps.min() * (trial - found)
            free[left[steps == steps.min()]] = False
            found[~free] = 0
            trial = _solved(system, side, free)
        found = trial
    return found


def _solved(system: np.ndarray, side: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Least squares in the `free` variables, 0 for the others."""
    solution = np.zeros(len(free))
    solution[free] = np.linalg.lstsq(system[:, free], side, rcond=None)[0]
    return solution


def unit_scale(gram: Tensor) -> Tensor:
    """What brings each variable to a moment of one; 0 for one that is 0 everywhere."""
    return over(torch.ones(len(gram), dtype=gram.dtype), gram.diagonal().clamp(min=0).sqrt())


class Method:
    """A method on a scene: `passes` over all windows with `observe`, each closed by `settle`, then `apply` anywhere.
    `observes`, `applies`: how far the layers look in the two phases (`POINT` to `DOUBLE`).
    `compares`: values of PAN with those of the MS, so that both are to be in one unit."""

    passes: ClassVar[int] = 1
    observes: ClassVar[int] = POINT
    applies: ClassVar[int] = POINT
    finds: ClassVar[Mapping[str, str]] = {}
    compares: ClassVar[bool] = False
    """Attributes that `apply` needs of what was observed, and their shapes: n stands for the number of bands, m for
    n + 1, u for n + 2, k for any number, a digit for itself."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup

    def found(self) -> dict[str, Tensor]:
        """What a fit has found, by name: with it, `restore` makes a method that gives the same pixels."""
        return {name: getattr(self, name) for name in self.finds}

    def restore(self, read: Callable[[str, tuple[int | None, ...]], Tensor]) -> None:
        """Take what another fit has found from `read`, which is asked for a name and a shape."""
        n = self.setup.bands
        sizes = {"n": n, "m": n + 1, "u": n + 2, "k": None}
        for name, letters in self.finds.items():
            setattr(self, name, read(name, tuple(sizes[c] if c in sizes else int(c) for c in letters)))

    def observe(self, layers: TileLayers) -> None:
        """Take in the valid pixels of a window."""

    def settle(self) -> None:
        """End a pass. Raises InputError if the scene has too few valid pixels."""

    def doubts(self) -> list[str]:
        """Why what was found does not suit the method, one line each."""
        return []

    def apply(self, layers: TileLayers) -> Tensor:
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

    def apply(self, layers: TileLayers) -> Tensor:
        return layers.expanded


class WithCovariance(Method):
    """A method that needs means and covariances of P, E and some low-passes of P over the PAN grid."""

    lows: ClassVar[tuple[str, ...]] = ()

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        sizes = {low: setup.bands if low == "pan_low" else 1 for low in self.lows}
        self.sums = self.pan_sums = Covariance(pan=1, expanded=setup.bands, **sizes)

    def observe(self, layers: TileLayers) -> None:
        lows = {low: getattr(layers, low) for low in self.lows}
        self.sums.update(layers.valid, pan=layers.pan, expanded=layers.expanded, **lows)

    def settle(self) -> None:
        need(self.sums.count, 2, "PAN")
        self.pan_mean, self.mean = self.pan_sums.mean("pan"), self.sums.mean("expanded")
        self.solve()

    def solve(self) -> None:
        """Derive what `apply` needs from the moments."""
