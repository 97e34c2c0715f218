"""ERFT: a Feature Tailor between the frozen halves of a network, trained on tiles of the scene itself.

arXiv 2508.07369, algorithm 1, with an injection gain for each band, other loss terms (the scene's own pair at reduced
resolution above all) and a judgement on tiles that the tailor was not trained on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..device import autocast, threads
from ..models.base import Anchor, Backbone, Inputs, SceneStats, channels_last, convolve, injected
from ..physics import Separable, gaussian_matrix
from . import losses

T = TypeVar("T")
U = TypeVar("U")


class FeatureTailor(nn.Module):
    """Z* = Z + G(Z) (eq. 5); G = conv3x3, ReLU, conv3x3 and starts at zero, so that step 0 is the frozen network.

    Where the features of every band are batch entries of their own, all bands share it. What distinguishes them is
    `gain`, one figure per band: the fused detail F - E of a band is multiplied by 1 + PACE * gain.
    """

    halo = 2
    """Pixels of the feature maps on each side that one output value depends on."""

    def __init__(self, features: int, bands: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(features, features, 3, padding=1)
        self.second = nn.Conv2d(features, features, 3, padding=1)
        self.gain = nn.Parameter(torch.zeros(bands))
        nn.init.zeros_(self.second.weight)
        assert self.second.bias is not None
        nn.init.zeros_(self.second.bias)

    def forward(self, features: Tensor) -> Tensor:
        return convolve(self.second, convolve(self.first, features, relu=True), add=features)

    def inject(self, fused: Tensor, expanded: Tensor, out: Tensor | None = None) -> Tensor:
        """Fused tiles (n, bands, rows, cols) with the bands' own gains; `expanded` is the up-sampled MS."""
        return torch.lerp(expanded, fused, 1 + (PACE * self.gain)[:, None, None], out=out)


PACE = 4.0
"""How much faster gains are trained than weights: a step of Adam is as long as the rate, whatever it moves."""

GUARD = 2.0
"""Penalty per relative increase of the reduced-resolution loss over the frozen network, added to a tailor's score."""

JUDGED = 4
"""Epochs between judgements."""

KNOWN = 16
"""With fewer reduced tiles than this, the weight of `consistency` is raised in proportion."""


@dataclass(frozen=True)
class Settings:
    """Weights of the loss terms and the schedule; `seconds` bounds the training loop.

    `reduced` weighs the one term whose answer is known: the scene's own pair, degraded once more. `sharpness` and
    `consistency` keep the result near to what it is `held_to`: what the frozen network gives, where that is good, or
    else what an injection fitted to the scene does. `colour` keeps the MS's. `spectral` and `spatial` are the paper's:
    a result as sharp as the PAN pays for the ringing and the softness of the MS there.
    """

    reduced: float = 3.0
    colour: float = 0.0
    sharpness: float = 0.1
    consistency: float = 1.0
    held_to: Anchor = "injected"
    spectral: float = 0.0
    spatial: float = 0.0
    tiles: int = 16
    reduced_tiles: int = 16
    epochs: int = 40
    batch: int = 4
    rate: float = 2e-3
    seconds: float = 60.0
    patience: int = 3


ADAPT = {
    "fast": Settings(),
    "best": Settings(tiles=64, reduced_tiles=64, batch=16, seconds=120.0),
}
"""Schedules of --adapt."""


@dataclass(frozen=True)
class Tiles:
    """Sampled tiles: `inputs` at full resolution with their MS pixels `ms` and the operators of the tiles; `reduced`
    is the pair degraded once more, with the MS itself as `target`. All valid. Each has a leading dimension of tiles,
    but for `blur`."""

    inputs: Inputs
    ms: Tensor
    down: Separable
    blur: Separable
    reduced: Inputs
    target: Tensor

    def __len__(self) -> int:
        return len(self.ms)

    def part(self, full: Tensor, reduced: Tensor) -> Tiles:
        """Some of the tiles (indices), those at full and those at reduced resolution."""
        return Tiles(
            self.inputs.map(lambda t: t.index_select(0, full)),
            self.ms[full],
            Separable(self.down.rows[full], self.down.cols[full]),
            self.blur,
            self.reduced.map(lambda t: t.index_select(0, reduced)),
            self.target[reduced],
        )


@dataclass
class Outcome:
    """What adaptation did: losses as judged for the frozen (`before`) and the tailored network (`after`).

    `history` has one entry per epoch: `epoch`, the mean of each loss term and their weighted `total` over the training
    tiles, and `held_out`, the total as judged, in epochs after which it was.
    """

    kept: bool
    tiles: int
    reduced_tiles: int
    epochs: int
    seconds: float
    before: dict[str, float]
    after: dict[str, float]
    reason: str
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass
class _Cache:
    """Everything that stays fixed while the tailor is trained, for a set of tiles."""

    tiles: Tiles
    features: Tensor
    base: Tensor
    anchor: Tensor
    pan_low: Tensor
    low: Tensor
    reduced_features: Tensor
    reduced_base: Tensor

    def part(self, full: Tensor, reduced: Tensor) -> _Cache:
        """What is kept of some of the tiles (indices), those at full and those at reduced resolution."""
        return _Cache(
            self.tiles.part(full, reduced),
            _of(self.features, full, len(self.base)),
            self.base.index_select(0, full),
            self.anchor.index_select(0, full),
            self.pan_low[full] if len(self.pan_low) else self.pan_low,
            self.low,
            _of(self.reduced_features, reduced, len(self.reduced_base)),
            self.reduced_base.index_select(0, reduced),
        )


def _of(features: Tensor, part: Tensor, tiles: int) -> Tensor:
    """Feature maps of some of the tiles, of which each has one or several: of its bands."""
    if not tiles or len(features) == tiles:
        return features[part]
    per = len(features) // tiles
    return features.index_select(0, (part[:, None] * per + torch.arange(per, device=part.device)).flatten())


@dataclass
class Problem:
    """The losses of a network on a scene's tiles as a function of the tailor."""

    backbone: Backbone
    stats: SceneStats
    settings: Settings
    precision: torch.dtype
    second: ThreadPoolExecutor | None = None

    def _features(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        with autocast(inputs.pan.device, self.precision):
            encoded = self.backbone.encode(inputs, self.stats)
            features = self.backbone.extract(encoded)
        return features, self.backbone.base(inputs, self.stats)

    def cache(self, tiles: Tiles) -> _Cache:
        # no_grad, not inference_mode: tensors made under the latter cannot enter backward
        with torch.no_grad():
            prepared, reduced = (self.backbone.prepare(i, self.stats) for i in (tiles.inputs, tiles.reduced))
            tiles = replace(tiles, inputs=prepared, reduced=reduced)
            features, base = self._features(tiles.inputs)
            frozen = self.settings.held_to == "frozen"
            anchor = self.fuse(None, features, base, tiles.inputs) if frozen else injected(tiles.inputs, self.stats)
            reduced_features, reduced_base = self._features(tiles.reduced)
            pan = tiles.inputs.pan.expand_as(base)
            pan_low = tiles.blur(pan) if self.settings.spatial else pan[:0]
            low = torch.from_numpy(gaussian_matrix(pan.shape[-1], 1.0)).to(pan)
            return _Cache(tiles, features, base, anchor, pan_low, low, reduced_features, reduced_base)

    def fuse(self, tailor: FeatureTailor | None, features: Tensor, base: Tensor, inputs: Inputs) -> Tensor:
        with autocast(features.device, self.precision):
            residual = self.backbone.map(features if tailor is None else tailor(features))
        fused = self.backbone.finish(residual, base, inputs, self.stats)
        return fused if tailor is None else tailor.inject(fused, inputs.expanded)

    def _both(self, one: Callable[[], T], other: Callable[[], T]) -> tuple[T, T]:
        """What two functions give, side by side where there is a thread for it."""
        if self.second is None:
            return one(), other()
        later = self.second.submit(other)
        return one(), later.result()

    def _each(self, function: Callable[[U], T], items: Sequence[U]) -> list[T]:
        """What a function gives for each, without gradients, half of them beside the others."""

        @torch.no_grad()
        def of(some: Sequence[U]) -> list[T]:
            return [function(item) for item in some]

        half = -(-len(items) // 2)
        first, second = self._both(partial(of, items[:half]), partial(of, items[half:]))
        return first + second

    def gradients(self, tailor: FeatureTailor, c: _Cache) -> tuple[dict[str, Tensor], list[Tensor]]:
        """The loss terms on these tiles, and the gradients of their weighted sum with regard to the tailor."""

        def graded(of: Callable[[FeatureTailor, _Cache], dict[str, Tensor]]) -> tuple[dict[str, Tensor], list[Tensor]]:
            parameters, terms = list(tailor.parameters()), of(tailor, c)
            if not terms:
                return terms, [torch.zeros_like(p) for p in parameters]
            gradients = torch.autograd.grad(self.total(terms), parameters)
            return {name: value.detach() for name, value in terms.items()}, list(gradients)

        (terms, own), (reduced, more) = self._both(
            partial(graded, self.full_terms), partial(graded, self.reduced_terms)
        )
        return terms | reduced, [a + b for a, b in zip(own, more, strict=True)]

    def full_terms(self, tailor: FeatureTailor | None, c: _Cache) -> dict[str, Tensor]:
        s, std, tiles = self.settings, self.stats.std, c.tiles
        fused = self.fuse(tailor, c.features, c.base, tiles.inputs)
        terms = {
            "colour": lambda: losses.colour(fused, tiles.ms, tiles.down, std),
            "sharpness": lambda: losses.sharpness(fused, c.anchor, c.low, std),
            "consistency": lambda: losses.consistency(fused, c.anchor, std),
            "spectral": lambda: losses.spectral(fused, tiles.ms, tiles.down, std),
            "spatial": lambda: losses.spatial(fused, tiles.inputs.pan, c.pan_low, tiles.blur, std),
        }
        return {name: term() for name, term in terms.items() if getattr(s, name)}

    def reduced_terms(self, tailor: FeatureTailor | None, c: _Cache) -> dict[str, Tensor]:
        if not self.settings.reduced or not len(c.tiles.target):
            return {}
        fused = self.fuse(tailor, c.reduced_features, c.reduced_base, c.tiles.reduced)
        return {"reduced": losses.reduced(fused, c.tiles.target, self.stats.std)}

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        return torch.stack([getattr(self.settings, name) * value for name, value in terms.items()]).sum()

    def score(self, after: dict[str, float], before: dict[str, float]) -> float:
        """The weighted sum, and a penalty where the one term with a known answer got worse than the frozen network."""
        worse = after["reduced"] / max(before["reduced"], 1e-9) - 1 if "reduced" in after else 0.0
        return after["total"] + GUARD * max(worse, 0.0)

    @torch.no_grad()
    def judge(self, tailor: FeatureTailor | None, training: _Cache, held_out: _Cache) -> dict[str, float]:
        """The terms and their weighted sum: of tiles on held-out ones, of the reduced pair over all, which are few."""
        caches = (training, held_out)
        terms = self.full_terms(tailor, held_out)
        each = [(len(c.tiles.target), self.reduced_terms(tailor, c).get("reduced")) for c in caches]
        if known := [n * value for n, value in each if value is not None]:
            terms["reduced"] = torch.stack(known).sum() / sum(n for n, _ in each)
        return {k: float(v) for k, v in terms.items()} | {"total": float(self.total(terms))}


def adapt(
    backbone: Backbone,
    stats: SceneStats,
    training: Tiles,
    held_out: Tiles,
    settings: Settings,
    *,
    seed: int = 0,
    precision: torch.dtype = torch.float32,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[FeatureTailor | None, Outcome]:
    """Train a tailor on `training`, judge it on `held_out`; None if it did not help there.

    Same inputs and seed give the same tailor. `progress(epoch, epochs)` is called after each epoch.
    """
    started = time.perf_counter()
    two = stats.mean.device.type == "cpu" and torch.get_num_threads() > 1
    pool = ThreadPoolExecutor(1, "adapt", torch.set_num_threads, (1,)) if two else nullcontext()
    # the fewer places where the answer is known, the closer the result stays to what it is held to
    known = min(KNOWN, settings.reduced_tiles) / max(len(training.target), 1)
    settings = replace(settings, consistency=settings.consistency * max(1.0, known))
    with threads(1), pool as second:
        problem = Problem(backbone, stats, settings, precision, second)
        cache, held_out_cache = problem._each(problem.cache, (training, held_out))
        return _adapt(problem, cache, held_out_cache, started, seed, progress)


def _adapt(
    problem: Problem,
    cache: _Cache,
    held_out_cache: _Cache,
    started: float,
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[FeatureTailor | None, Outcome]:
    backbone, stats, settings = problem.backbone, problem.stats, problem.settings
    device = stats.mean.device
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tailor = FeatureTailor(backbone.features, len(stats.mean))
    tailor = channels_last(tailor.to(device))
    optimiser = Adam(list(tailor.parameters()))
    n, m = len(cache.tiles), len(cache.tiles.target)
    before = problem.judge(None, cache, held_out_cache)
    steps = max(1, n // settings.batch)
    best, best_held, best_state, waited, epochs = float("inf"), before, tailor.state_dict(), 0, 0
    history: list[dict[str, float]] = []
    for epoch in range(settings.epochs):
        rate = settings.rate * (1 - epoch / settings.epochs) ** 0.5
        seen = []
        order, pairs = torch.randperm(n, generator=generator), torch.randperm(m, generator=generator)
        for part, pair in zip(order.chunk(steps), _chunks(pairs, steps), strict=False):
            terms, gradients = problem.gradients(tailor, cache.part(part.to(device), pair.to(device)))
            seen.append(terms | {"total": problem.total(terms)})
            optimiser.step(gradients, rate)
        epochs = epoch + 1
        history.append({"epoch": epochs} | {k: float(torch.stack([s[k] for s in seen]).mean()) for k in seen[0]})
        if progress:
            progress(epochs, settings.epochs)
        out_of_time = time.perf_counter() - started > settings.seconds
        if epochs % JUDGED == 0 or epochs == settings.epochs or out_of_time:
            held = problem.judge(tailor, cache, held_out_cache)
            history[-1]["held_out"] = held["total"]
            score = problem.score(held, before)
            if score < best:
                best, best_held, waited = score, held, 0
                best_state = {k: v.clone() for k, v in tailor.state_dict().items()}
            else:
                waited += 1
        if waited >= settings.patience or out_of_time:
            break

    tailor.load_state_dict(best_state)
    kept = best < problem.score(before, before)
    reason = f"{'' if kept else 'no '}better than the frozen network on held-out tiles"
    seconds = time.perf_counter() - started
    outcome = Outcome(kept, n, m, epochs, seconds, before, best_held if kept else before, reason, history)
    return (tailor.eval().requires_grad_(False) if kept else None), outcome


class Adam:
    """Kingma and Ba, "Adam: A method for stochastic optimization", ICLR 2015, algorithm 1.

    The first use of torch.optim imports torch's compiler, which takes longer than all steps of an adaptation.
    """

    def __init__(self, parameters: list[Tensor]) -> None:
        self.parameters, self.steps = parameters, 0
        self.first, self.second = ([torch.zeros_like(p) for p in parameters] for _ in range(2))

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], rate: float) -> None:
        first, second = 0.9, 0.999  # the usual decays
        self.steps += 1
        one, two = 1 - first**self.steps, 1 - second**self.steps
        for p, g, m, v in zip(self.parameters, gradients, self.first, self.second, strict=True):
            m.lerp_(g, 1 - first)
            v.mul_(second).addcmul_(g, g, value=1 - second)
            p.addcdiv_(m, (v / two).sqrt_().add_(1e-8), value=-rate / one)


def _chunks(order: Tensor, count: int) -> list[Tensor]:
    """`count` parts of a permutation, repeating it where it is shorter."""
    size = max(1, -(-len(order) // count))
    return [order.roll(-k * size)[:size] for k in range(count)]
