"""ERFT: a Feature Tailor between the frozen halves of a network, trained on tiles of the scene itself.

arXiv 2508.07369, algorithm 1, with a fourth loss term (the scene's own reduced-resolution pair), a judgement on tiles
that the tailor was not trained on, and a step length chosen there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace

import torch
from torch import Tensor, nn

from . import losses
from .models import Backbone
from .models.base import Inputs, SceneStats, channels_last
from .physics import Separable, gaussian_matrix


class FeatureTailor(nn.Module):
    """Z* = Z + G(Z) (eq. 5); G = conv3x3, ReLU, conv3x3 and starts at zero, so that step 0 is the frozen network.

    Where the features of every band are batch entries of their own, all bands share it.
    """

    halo = 2
    """Pixels of the feature maps on each side that one output value depends on."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(features, features, 3, padding=1)
        self.second = nn.Conv2d(features, features, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        assert self.second.bias is not None
        nn.init.zeros_(self.second.bias)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.second(torch.relu_(self.first(features)))


GUARD = 2.0
"""Weight of a relative loss at reduced resolution when tailors are judged."""

JUDGED = 4
"""Epochs between judgements."""

SHORTER = (0.6,)
"""Parts of the trained correction that are tried in the end beside the whole."""

WORTH = 0.8
"""The least of them is kept that brings so much of what the best does on held-out tiles: a few tiles judge, and what is
not needed does harm where they do not see it."""


@dataclass(frozen=True)
class Settings:
    """Weights of the loss terms and the schedule; `seconds` bounds the training loop.

    `similarity` weighs how far the relation of each band with PAN (universal quality index) is from that at the scale
    of the MS; `excess` how far the flat-area activity lies above `ceiling` times that of MTF-GLP-FS on the same tiles:
    the spectral term follows the ringing of the interpolated MS into places where PAN shows nothing.
    """

    spectral: float = 1.0
    spatial: float = 0.1
    consistency: float = 0.1
    reduced: float = 2.0
    similarity: float = 2.0
    excess: float = 1.0
    ceiling: float = 0.95
    tiles: int = 16
    reduced_tiles: int = 8
    epochs: int = 25
    batch: int = 4
    rate: float = 2.5e-3
    seconds: float = 60.0
    patience: int = 3


@dataclass(frozen=True)
class Tiles:
    """Sampled tiles: `inputs` at full resolution with their MS pixels `ms` and the operators of the tiles; `reduced`
    is the pair degraded once more, with the MS itself as `target`; `flat` marks where PAN is flat; `similar` (tiles,
    bands) is the quality index of the expanded bands with PAN at their resolution. All valid."""

    inputs: Inputs
    ms: Tensor
    down: Separable
    blur: Separable
    reduced: Inputs
    target: Tensor
    flat: Tensor
    similar: Tensor

    def __len__(self) -> int:
        return len(self.ms)


@dataclass
class Outcome:
    """What adaptation did: losses on held-out tiles for the frozen (`before`) and the tailored network (`after`).

    `step` is the part of the trained correction that was kept. `history` has one entry per epoch: `epoch`, the mean of
    each loss term and their weighted `total` over the training tiles, and `held_out`, the total on held-out tiles, in
    epochs after which it was judged.
    """

    kept: bool
    step: float
    tiles: int
    reduced_tiles: int
    epochs: int
    seconds: float
    before: dict[str, float]
    after: dict[str, float]
    reason: str
    history: list[dict[str, float]] = field(default_factory=list)

    def as_dict(self) -> dict:
        return asdict(self)


@dataclass
class _Cache:
    """Everything that stays fixed while the tailor is trained, for a set of tiles."""

    tiles: Tiles
    features: Tensor
    base: Tensor
    frozen: Tensor
    pan_low: Tensor
    low: Tensor
    ceiling: float
    reduced_features: Tensor
    reduced_base: Tensor


def autocast(device: torch.device, precision: torch.dtype):
    """The context in which convolutions run in `precision`."""
    return nullcontext() if precision == torch.float32 else torch.autocast(device.type, precision)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use so many threads of the CPU.

    One that waits for its peers keeps its core busy: many threads on small tensors are little faster than one on an
    idle machine, and many times slower on a busy one.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, count))
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Problem:
    """The losses of a network on a scene's tiles as a function of the tailor."""

    def __init__(self, backbone: Backbone, stats: SceneStats, settings: Settings, precision: torch.dtype) -> None:
        self.backbone, self.stats, self.settings, self.precision = backbone, stats, settings, precision

    def _features(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        encoded = self.backbone.encode(inputs, self.stats)
        with autocast(encoded.device, self.precision):
            features = self.backbone.extract(encoded)
        return features, self.backbone.base(inputs, self.stats)

    def cache(self, tiles: Tiles) -> _Cache:
        # no_grad, not inference_mode: tensors made under the latter cannot enter backward
        with torch.no_grad():
            features, base = self._features(tiles.inputs)
            frozen = self.fuse(None, features, base, tiles.inputs)
            reduced_features, reduced_base = self._features(tiles.reduced)
            pan = tiles.inputs.pan.expand_as(base)
            pan_low = tiles.blur(pan)
            low = torch.from_numpy(gaussian_matrix(pan.shape[-1])).to(pan)
            classical = tiles.inputs.expanded + self.stats.gain[:, None, None] * (pan - tiles.inputs.pan_low)
            ceiling = float(losses.activity(classical, tiles.inputs.pan, tiles.flat, low)) * self.settings.ceiling
            return _Cache(
                tiles, features, base, frozen, pan_low, low, max(ceiling, 1e-3), reduced_features, reduced_base
            )

    def fuse(self, tailor: FeatureTailor | None, features: Tensor, base: Tensor, inputs: Inputs) -> Tensor:
        with autocast(features.device, self.precision):
            residual = self.backbone.map(features if tailor is None else tailor(features))
        return base + self.backbone.spread(residual.float(), inputs, self.stats)

    def terms(self, tailor: FeatureTailor | None, c: _Cache, part: Tensor, reduced_part: Tensor) -> dict[str, Tensor]:
        """The loss terms on some of the tiles (indices)."""
        s, std = self.settings, self.stats.std
        per = len(c.features) // len(c.base)
        terms = {}
        inputs = c.tiles.inputs.map(lambda t: t[part])
        fused = self.fuse(tailor, _pick(c.features, part, per), c.base[part], inputs)
        down = _pick_operator(c.tiles.down, part)
        terms["spectral"] = losses.spectral(fused, c.tiles.ms[part], down, std)
        if s.spatial:
            terms["spatial"] = losses.spatial(fused, inputs.pan, c.pan_low[part], c.tiles.blur, std)
        if s.similarity:
            terms["similarity"] = losses.similarity(fused, inputs.pan, c.tiles.similar[part])
        if s.excess:
            activity = losses.activity(fused, inputs.pan, c.tiles.flat[part], c.low)
            terms["excess"] = losses.excess(activity, c.ceiling)
        if s.consistency:
            terms["consistency"] = losses.consistency(fused, c.frozen[part], std)
        if s.reduced and len(reduced_part):
            reduced = c.tiles.reduced.map(lambda t: t[reduced_part])
            fused = self.fuse(
                tailor, _pick(c.reduced_features, reduced_part, per), c.reduced_base[reduced_part], reduced
            )
            terms["reduced"] = losses.reduced(fused, c.tiles.target[reduced_part], std)
        return terms

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        return torch.stack([getattr(self.settings, name) * value for name, value in terms.items()]).sum()

    def score(self, after: dict[str, float], before: dict[str, float]) -> float:
        """The weighted sum, and a penalty where the one term with a known answer got worse than the frozen network."""
        worse = after["reduced"] / max(before["reduced"], 1e-9) - 1 if "reduced" in after else 0.0
        return after["total"] + GUARD * max(worse, 0.0)

    def judge(self, tailor: FeatureTailor | None, training: _Cache, held_out: _Cache) -> dict[str, float]:
        """The terms and their weighted sum on held-out tiles.

        Excess and similarity are of the scene, not of a tile: those are taken over all tiles.
        """
        with torch.no_grad():
            n, m = len(held_out.tiles), len(held_out.tiles.target)
            terms = self.terms(tailor, held_out, torch.arange(n), torch.arange(m))
            if "excess" in terms or "similarity" in terms:
                caches = (training, held_out)
                fused = torch.cat([self.fuse(tailor, c.features, c.base, c.tiles.inputs) for c in caches])
                pan, flat, similar = (
                    torch.cat([getter(c.tiles) for c in caches])
                    for getter in (lambda t: t.inputs.pan, lambda t: t.flat, lambda t: t.similar)
                )
                if "similarity" in terms:
                    terms["similarity"] = losses.similarity(fused, pan, similar)
                if "excess" in terms:
                    ceiling = sum(c.ceiling * len(c.tiles) for c in caches) / len(pan)
                    terms["excess"] = losses.excess(losses.activity(fused, pan, flat, training.low), ceiling)
            return {k: float(v) for k, v in terms.items()} | {"total": float(self.total(terms))}


def _pick(features: Tensor, part: Tensor, per: int) -> Tensor:
    """Feature maps of some tiles, where each tile has `per` of them (bands as batch entries)."""
    if per == 1:
        return features[part]
    return features[(part[:, None] * per + torch.arange(per)).flatten()]


def _pick_operator(operator: Separable, part: Tensor) -> Separable:
    if operator.rows.ndim < 4:
        return operator
    return Separable(operator.rows[part], operator.cols[part])


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
    problem = _Problem(backbone, stats, settings, precision)
    with threads(1):
        return _adapt(problem, problem.cache(training), problem.cache(held_out), settings, started, seed, progress)


def _adapt(
    problem: _Problem,
    cache: _Cache,
    apart: _Cache,
    settings: Settings,
    started: float,
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[FeatureTailor | None, Outcome]:
    backbone, stats = problem.backbone, problem.stats
    device = stats.mean.device
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tailor = FeatureTailor(backbone.features)
    tailor = channels_last(tailor.to(device))
    optimiser = _Adam(list(tailor.parameters()))
    n, m = len(cache.tiles), len(cache.tiles.target)
    # the fewer places where the answer is known, the closer the tailor stays to the frozen network
    problem.settings = replace(
        settings, consistency=settings.consistency * max(1.0, settings.reduced_tiles / max(m, 1))
    )
    before = problem.judge(None, cache, apart)
    steps = max(1, n // settings.batch)
    best, best_held, best_state, waited, epochs = float("inf"), before, tailor.state_dict(), 0, 0
    history: list[dict[str, float]] = []
    for epoch in range(settings.epochs):
        rate = settings.rate * (1 - epoch / settings.epochs) ** 0.5
        order, reduced_order = torch.randperm(n, generator=generator), torch.randperm(m, generator=generator)
        seen = []
        for part, reduced_part in zip(order.chunk(steps), _chunks(reduced_order, steps), strict=False):
            terms = problem.terms(tailor, cache, part, reduced_part)
            loss = problem.total(terms)
            seen.append({k: v.detach() for k, v in (terms | {"total": loss}).items()})
            optimiser.step(loss, rate)
        epochs = epoch + 1
        history.append({"epoch": epochs} | {k: float(torch.stack([s[k] for s in seen]).mean()) for k in seen[0]})
        if progress:
            progress(epochs, settings.epochs)
        out_of_time = time.perf_counter() - started > settings.seconds
        if epochs % JUDGED == 0 or epochs == settings.epochs or out_of_time:
            held = problem.judge(tailor, cache, apart)
            history[-1]["held_out"] = held["total"]
            score = problem.score(held, before)
            if score < best:
                best, best_held, waited = score, held, 0
                best_state = {k: v.clone() for k, v in tailor.state_dict().items()}
            else:
                waited += 1
        if waited >= settings.patience or out_of_time:
            break

    judged = [(problem.score(before, before), 0.0, before), (best, 1.0, best_held)]
    for step in SHORTER:
        tailor.load_state_dict(_shortened(best_state, step))
        figures = problem.judge(tailor, cache, apart)
        judged.append((problem.score(figures, before), step, figures))
    enough = judged[0][0] - WORTH * (judged[0][0] - min(score for score, *_ in judged))
    good = [j for j in judged if j[0] <= enough] or judged[:1]  # none where losses are no numbers
    _, step, after = min(good, key=lambda j: j[1])
    tailor.load_state_dict(_shortened(best_state, step))
    kept = step > 0
    reason = f"{'' if kept else 'no '}better than the frozen network on held-out tiles"
    seconds = time.perf_counter() - started
    outcome = Outcome(kept, step, n, m, epochs, seconds, before, after, reason, history)
    return (tailor.eval().requires_grad_(False) if kept else None), outcome


class _Adam:
    """Kingma and Ba, "Adam: A method for stochastic optimization", ICLR 2015, algorithm 1.

    The first use of torch.optim imports torch's compiler, which takes longer than all steps of an adaptation.
    """

    def __init__(self, parameters: list[Tensor]) -> None:
        self.parameters, self.steps = parameters, 0
        self.first, self.second = ([torch.zeros_like(p) for p in parameters] for _ in range(2))

    def step(self, loss: Tensor, rate: float, decays: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        self.steps += 1
        one, two = (1 - decay**self.steps for decay in decays)
        gradients = torch.autograd.grad(loss, self.parameters)
        with torch.no_grad():
            for p, g, m, v in zip(self.parameters, gradients, self.first, self.second, strict=True):
                m.lerp_(g, 1 - decays[0])
                v.mul_(decays[1]).addcmul_(g, g, value=1 - decays[1])
                p.addcdiv_(m, (v / two).sqrt_().add_(eps), value=-rate / one)


def _shortened(state: dict[str, Tensor], step: float) -> dict[str, Tensor]:
    """The tailor's weights with its correction multiplied by `step`."""
    return {k: v * step if k.startswith("second.") else v for k, v in state.items()}


def _chunks(order: Tensor, count: int) -> list[Tensor]:
    """`count` parts of a permutation, repeating it where it is shorter."""
    if len(order) == 0:
        return [order] * count
    size = max(1, -(-len(order) // count))
    return [order.roll(-k * size)[:size] for k in range(count)]
