"""Streaming mean and covariance of named groups of variables."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

CONSTANT = 1e-10
"""A variable whose standard deviation is less than this part of its mean counts as constant: that is rounding."""


class Covariance:
    """Count, means and covariances (n - 1) of groups of variables that arrive piece by piece, in float64.

    ``Covariance(pan=1, expanded=4)`` has five variables. Sums are taken of values shifted by the mean of the first
    piece, so that nothing is lost when a mean is large against its standard deviation (Chan et al., "Algorithms for
    Computing the Sample Variance", 1983).
    """

    def __init__(self, **groups: int) -> None:
        ends = torch.tensor(list(groups.values())).cumsum(0).tolist()
        self._parts = {name: slice(end - size, end) for (name, size), end in zip(groups.items(), ends, strict=True)}
        self.count = 0
        self._shift: Tensor | None = None
        self._sum = torch.zeros(ends[-1], dtype=torch.float64)
        self._products = torch.zeros(ends[-1], ends[-1], dtype=torch.float64)

    def update(self, valid: Tensor | None = None, **values: Tensor) -> None:
        """Take in every group, (variables, ...) each; `valid` (...), bool, leaves places out."""
        parts = [values[name] for name in self._parts]
        if valid is None or bool(valid.all()):
            x = torch.cat([p.flatten(1) for p in parts]).double()
        else:
            x = torch.cat([p[:, valid] for p in parts]).double()
        if x.shape[1] == 0:
            return
        shift = x.mean(1) if self._shift is None else self._shift
        x -= shift[:, None]
        self.add(x.shape[1], shift, x.sum(1), x @ x.T)

    def add(self, count: int, shift: Tensor, total: Tensor, products: Tensor) -> None:
        """Take in what is summed up already: of x - shift, the sum (variables,) and the sum of products (variables,
        variables) over `count` places."""
        if self._shift is None:
            self._shift = shift
        moved = shift - self._shift
        self.count += count
        self._sum += total + count * moved
        self._products += products + torch.outer(total, moved) + torch.outer(moved, total + count * moved)

    def mean(self, name: str) -> Tensor:
        """Means of a group (variables,)."""
        return self._means()[self._parts[name]]

    def std(self, name: str) -> Tensor:
        """Standard deviations of a group (variables,)."""
        return self.cov(name, name).diagonal().clamp(min=0).sqrt()

    def cov(self, a: str | Sequence[str], b: str | Sequence[str] | None = None) -> Tensor:
        """Covariances between the variables of two groups or lists of groups; of one with itself by default."""
        scatter = self._products - torch.outer(self._sum, self._sum) / max(self.count, 1)
        cov = scatter / max(self.count - 1, 1)
        varies = (cov.diagonal() > (CONSTANT * self._means()) ** 2).to(cov.dtype)
        return self._pick(cov * torch.outer(varies, varies), a, b)

    def explained(self, what: str, by: str) -> float | None:
        """Share of the variance of a variable that a regression with a constant on a group explains (R2, at most 1);
        None for a constant one."""
        cov, cross, variance = self.cov(by), self.cov(by, what)[:, 0], float(self.cov(what)[0, 0])
        if variance <= 0:
            return None
        level = cov.diagonal().mean()
        ridge = 1e-9 * (level if level > 0 else 1.0)
        weights = torch.linalg.solve(cov + ridge * torch.eye(len(cov), dtype=cov.dtype), cross)
        return min(1.0, float(weights @ cross) / variance)

    def second(self, a: str | Sequence[str], b: str | Sequence[str] | None = None) -> Tensor:
        """Means of products, for regressions without a constant."""
        products = self._products / max(self.count, 1)
        centre = self._sum / max(self.count, 1)
        mean = self._means()
        return self._pick(products - torch.outer(centre, centre) + torch.outer(mean, mean), a, b)

    def _means(self) -> Tensor:
        if self._shift is None:
            raise ValueError("no valid pixel to take statistics of")
        return self._shift + self._sum / self.count

    def _pick(self, matrix: Tensor, a: str | Sequence[str], b: str | Sequence[str] | None) -> Tensor:
        return matrix[self._index(a)][:, self._index(a if b is None else b)]

    def _index(self, names: str | Sequence[str]) -> list[int]:
        parts = [self._parts[n] for n in ([names] if isinstance(names, str) else names)]
        return [i for p in parts for i in range(p.start, p.stop)]
