"""All-in-one training of the networks on many sensors: the loop, and the weights file that it ends in.

The network is asked for the truth of samples (`samples.py`). The learning rate falls along a cosine of the budget, so
any budget ends annealed. A moving average of the weights is validated, and the best of it is kept.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import io
import itertools
import json
import math
import os
import re
import time
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from .. import interrupts, models, untrusted
from ..device import choose_device, choose_precision
from ..errors import InputError, PansharpenError, reason_of
from ..models import weights
from ..models.base import Backbone, channels_last
from ..progress import Progress, Say, quiet
from ..publish import Publication, check_absent, check_place, write
from ..raster.messages import gdal_messages
from . import scenes
from .loss import auxiliary, composite, fused_of, loss_terms, mean_of, validate
from .sampler import Sampler, TrainingSample, drawn_for_validation, landscapes
from .scenes import Item, LoadedScene
from .settings import TrainingSettings

SAVED_EVERY = 120.0
"""Seconds between checkpoints."""
_LONGEST = 0.1
"""Share of the time that validation may take."""
_VALIDATION_SEED = 12345
"""One for all trainings, so that those with the same held-out scenes can be compared."""
MOST_PARAMETERS = 500_000_000
"""Most parameters of a network to train: each takes 16 bytes with its gradient and moments."""


# The loop


@dataclass
class State:
    """All that changes in a training; `best` are the weights of the best validation so far, `history` its checks."""

    network: Backbone
    average: Backbone
    optimiser: torch.optim.Optimizer
    best: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    step: int = 0
    seconds: float = 0.0

    @classmethod
    def start(cls, network: Backbone, settings: TrainingSettings) -> State:
        network = channels_last(network)
        o = settings.optimiser
        optimiser = torch.optim.AdamW(network.parameters(), lr=o.rate, weight_decay=o.decay)
        return cls(network, copy.deepcopy(network).requires_grad_(False), optimiser)

    @property
    def best_check(self) -> dict[str, float]:
        return min(self.history, key=lambda check: check["validation"])

    def save(self, path: Path, identity: str) -> None:
        """Write a checkpoint that appears complete or not at all."""
        content = io.BytesIO()
        parts = {name: part.state_dict() for name, part in self._parts.items()}
        known = {"identity": identity, "best": self.best, "history": json.dumps(self.history)}
        torch.save(known | parts | {"step": self.step, "seconds": self.seconds}, content)
        write(path, content.getvalue())

    @property
    def _parts(self) -> dict[str, Any]:
        return {"network": self.network, "average": self.average, "optimiser": self.optimiser}

    def resume(self, path: Path, identity: str) -> None:
        """Go on from a checkpoint. Raises InputError if it is damaged or of another training."""
        advice = "use --no-resume to start afresh"
        held = _held_in(path, next(self.network.parameters()).device, advice)
        try:
            if held["identity"] != identity:
                known = json.loads(held["identity"])
                told = next(k for k, v in json.loads(identity).items() if known.get(k) != v)
                raise InputError(f"{path} is the checkpoint of a training with other {told}; {advice}")
            for name, part in self._parts.items():
                part.load_state_dict(held[name])
            self.best, self.history = dict(held["best"]), json.loads(held["history"])
            self.step, self.seconds = int(held["step"]), float(held["seconds"])
        except InputError:
            raise
        except Exception as error:  # what a damaged pickle runs into can be anything
            raise InputError(f"{path} is not a checkpoint to resume from; {advice} ({reason_of(error)})") from error


def _held_in(path: Path, device: torch.device, advice: str) -> dict[str, Any]:
    """What a checkpoint of ours holds. Raises InputError for any other file."""
    try:
        with untrusted.opened(path, untrusted.MOST_WEIGHTS) as file:
            untrusted.check_archive(path, file)
            content = io.BytesIO(file.read())
        held = torch.load(content, map_location=device, weights_only=True)
        if not {"identity", "optimiser", "average"} <= held.keys():
            raise ValueError("it is of another program")
    except InputError:
        raise
    except Exception as error:  # what a damaged pickle runs into can be anything
        why = untrusted.fault_of(error)
        raise InputError(f"{path} is not a checkpoint to resume from; {advice} ({why})") from error
    return held


def fraction(settings: TrainingSettings, state: State) -> float:
    """The part of the budget that is used."""
    budget = settings.budget
    used = state.step / budget.steps if budget.steps else state.seconds / (60 * budget.minutes)
    return min(used, 1.0)


def rate_at(settings: TrainingSettings, step: int, used: float) -> float:
    """Learning rate: a linear warm-up, and a cosine of the used part of the budget down to the floor."""
    o = settings.optimiser
    cosine = o.floor + (1 - o.floor) * 0.5 * (1 + math.cos(math.pi * used))
    return o.rate * min(1.0, (step + 1) / o.warmup) * cosine


def train(
    state: State,
    sampler: Sampler,
    held_out: Sequence[TrainingSample],
    settings: TrainingSettings,
    *,
    checkpoint: Path | None = None,
    identity: str = "",
    precision: torch.dtype = torch.float32,
    workers: int = 0,
    say: Say = lambda line: None,
    progress: Progress = quiet,
) -> None:
    """Train until the budget is used, with a checkpoint every two minutes and after each validation.

    Each step has a generator of its own, so a training that was interrupted goes on as if it had not been. On an
    interrupt the step is finished and a checkpoint written before KeyboardInterrupt is raised. Raises PansharpenError
    if the loss is not finite.
    """
    device = next(state.network.parameters()).device
    held_out = [s.to(device) for s in held_out]
    started, written, rest = time.monotonic() - state.seconds, time.monotonic(), 0.0
    running: list[float] = []
    checks, by_steps = settings.budget.checks, settings.budget.steps > 0
    total = settings.budget.steps or math.ceil(60 * settings.budget.minutes)
    used = fraction(settings, state)
    checked = int(used * checks + 1e-9)
    batches = batches_of(sampler, state.step, device, workers)
    with closing(batches), interrupts.deferred() as stop:
        while used < 1 or not state.history:
            if used < 1:
                running.append(one_step(state, next(batches), settings, rate_at(settings, state.step, used), precision))
                state.seconds = time.monotonic() - started
                used = fraction(settings, state)
            due = int(used * checks + 1e-9) > checked and (by_steps or state.seconds >= rest)
            if due or used >= 1:
                checked, began = int(used * checks + 1e-9), time.monotonic()
                _check(state, held_out, settings, precision, mean_of(running), say)
                running = []
                rest = time.monotonic() - started + (time.monotonic() - began) / _LONGEST
            now = time.monotonic()
            state.seconds = now - started
            if checkpoint is not None and (due or stop or used >= 1 or now - written > SAVED_EVERY):
                state.save(checkpoint, identity)
                written = now
            if stop and used < 1:
                if checkpoint is not None:
                    say(f"stopped at step {state.step}; the same command goes on from {checkpoint}")
                raise KeyboardInterrupt
            progress("training", int(used * total), total)


def one_step(
    state: State, samples: list[TrainingSample], settings: TrainingSettings, rate: float, precision: torch.dtype
) -> float:
    """One step of the optimiser and of the moving average; returns the loss."""
    for group in state.optimiser.param_groups:
        group["lr"] = rate
    loss = composite(loss_terms(fused_of(state.network, samples, precision), samples, settings.loss), settings.loss)
    loss = loss + auxiliary(state.network, samples, precision)
    value = float(loss.detach())
    if not math.isfinite(value):
        raise PansharpenError(f"the loss is {value} at step {state.step + 1}: try a lower rate (see --config)")
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(state.network.parameters(), settings.optimiser.clip)
    state.optimiser.step()
    state.step += 1
    decay = min(settings.optimiser.average, state.step / (state.step + 20))
    now = state.network.state_dict()
    with torch.no_grad():
        for name, mean in state.average.state_dict().items():
            if mean.is_floating_point():
                mean.lerp_(now[name], 1 - decay)
            else:
                mean.copy_(now[name])
    return value


def _check(state: State, held_out, settings: TrainingSettings, precision: torch.dtype, loss: float, say: Say) -> None:
    """Validate the average, keep it if it is the best so far, and say so."""
    check = {"step": state.step, "minutes": state.seconds / 60, "loss": loss}
    check |= validate(state.average, held_out, settings.loss, precision)
    state.history.append(check)
    best = state.best_check is check
    if best or not state.best:
        state.best = {k: v.detach().clone() for k, v in state.average.state_dict().items()}
    terms = "  ".join(f"{name} {check[name]:.4f}" for name in asdict(settings.loss) if name in check)
    say(
        f"{check['minutes']:6.1f} min  step {state.step}  loss {loss:.4f}  validation {check['validation']:.4f} "
        f"({terms})  Q2n {check['q2n']:.4f}  ERGAS {check['ergas']:.3f}{'  best' if best else ''}"
    )


def batches_of(
    sampler: Sampler, first: int, device: torch.device, workers: int
) -> Generator[list[TrainingSample], None, None]:
    """The batch of each step from `first` on, drawn ahead by threads if there are any."""

    def drawn(step: int) -> list[TrainingSample]:
        return [s.to(device) for s in sampler.at(step).batch()]

    if not workers:
        yield from map(drawn, itertools.count(first))
    pool = ThreadPoolExecutor(workers, thread_name_prefix="sampler")
    try:
        ahead: deque[Future[list[TrainingSample]]] = deque(pool.submit(drawn, first + i) for i in range(2 * workers))
        for step in itertools.count(first + 2 * workers):
            yield ahead.popleft().result()
            ahead.append(pool.submit(drawn, step))
    finally:
        pool.shutdown(cancel_futures=True)


# The whole job


@dataclass(frozen=True)
class TrainingOutput:
    """Where the weights go, and the command that the file says it was made by."""

    path: Path
    overwrite: bool = False
    resume: bool = True
    command: str = ""

    @property
    def checkpoint(self) -> Path:
        return self.path.with_suffix(".ckpt")

    def check(self, inputs: Sequence[str], resuming: bool) -> None:
        """Raises InputError if the weights or the checkpoint could not be written."""
        if self.path.suffix != ".safetensors":
            raise InputError(f"--output takes a name that ends in .safetensors, not {self.path}")
        for path in (self.path, self.checkpoint):
            check_place(path, inputs, self.overwrite or resuming)
        if not (resuming or self.overwrite) and self.checkpoint.exists():
            _held_in(self.checkpoint, torch.device("cpu"), "move it away, or use --overwrite")
        check_absent([self.path], self.overwrite or resuming)


def run(
    sources: Sequence[str],
    validation: Sequence[str],
    output: TrainingOutput,
    settings: TrainingSettings,
    *,
    device: str = "auto",
    threads: int | None = None,
    say: Say = lambda line: None,
    progress: Progress = quiet,
) -> dict[str, Any]:
    """Train on the scenes of sources and write the best weights; returns a summary. Raises InputError for what is wrong
    with sources, settings or output before anything is trained."""
    warnings: list[str] = []
    if threads is not None:
        torch.set_num_threads(threads)
    where = choose_device(device)
    precision = choose_precision(settings.precision, where)
    check_settings(settings)
    training, held_out = _scenes(sources, validation, settings)
    resuming = output.resume and output.checkpoint.is_file()
    output.check([str(p) for i in (*training, *held_out) for p in (i.ms, i.pan, settings.start) if p], resuming)

    progress("reading", 0, len(training) + len(held_out))
    with gdal_messages():
        real = settings.samples.real > 0
        seen = scenes.load(training, real, warnings.append)
        judged = scenes.load(held_out, real, warnings.append)
    settings, config = _with_bands(settings, seen)
    torch.manual_seed(settings.seed)
    network = _first(settings, config, say).to(where)
    bands, share = network.bands or settings.bands or None, settings.samples.synthetic
    synthetic = landscapes(settings.samples.landscapes, 1000 + settings.seed) if share > 0 else []
    sampler = Sampler(seen, synthetic, share, bands, settings.seed, settings.samples.real, settings.samples.fine)
    judge = Sampler(judged, bands=bands, seed=_VALIDATION_SEED, real=settings.samples.real, fine=settings.samples.fine)
    samples = drawn_for_validation(judge, settings.samples.validation)
    replaces = output.overwrite or output.path.exists()  # what comes meanwhile is not
    names = [sorted(i.ms.name for i in part) for part in (training, held_out)]
    state, identity = State.start(network, settings), settings.identity(scenes=names, config=config)
    if resuming:
        state.resume(output.checkpoint, identity)
        say(f"going on from {output.checkpoint}: step {state.step}, {state.seconds / 60:.1f} min")
    train(
        state, sampler, samples, settings, checkpoint=output.checkpoint, identity=identity, precision=precision,
        workers=0 if where.type == "cpu" else min(8, os.cpu_count() or 1), say=say, progress=progress,
    )  # fmt: skip
    words = {"licence": settings.card.licence, "data": settings.card.data or describe(seen), "command": output.command}
    digest = publish(state.best, output.path, settings.network, config, replaces, **words)
    output.checkpoint.unlink(missing_ok=True)
    return {
        "output": str(output.path), "network": settings.network, "config": config,
        "parameters": sum(p.numel() for p in network.parameters()), "sha256": digest,
        "device": str(where), "precision": str(precision).removeprefix("torch."),
        "steps": state.step, "seconds": state.seconds,
        "scenes": {"training": len(seen), "held_out": len(judged), "with_pan": len(sampler.pairs)},
        "sensors": {s.sensor: sum(t.sensor == s.sensor for t in seen) for s in seen},
        "validation_samples": {"all": len(samples), "real": sum(s.real for s in samples)},
        "best": state.best_check, "history": state.history, "warnings": warnings,
    }  # fmt: skip


def _scenes(
    sources: Sequence[str], validation: Sequence[str], settings: TrainingSettings
) -> tuple[list[Item], list[Item]]:
    """The scenes to train on and those to validate with. Raises InputError where there is none for either."""
    items = scenes.find(sources)
    if not validation:
        return scenes.split(items, settings.samples.held_out, settings.seed)
    named = scenes.find(validation)
    inside = {os.path.realpath(i.ms) for i in named}
    training = [i for i in items if i.split != "val" and os.path.realpath(i.ms) not in inside]
    held_out = [i for i in named if i.split != "train"]
    if not held_out or not training:
        raise InputError("no scene is left " + ("to train on" if held_out else "for validation"))
    return training, held_out


def check_settings(settings: TrainingSettings) -> None:
    """Raises InputError for a network, options or budget that cannot be trained."""
    if not settings.budget.steps and not settings.budget.minutes:
        raise InputError("the budget is neither minutes nor steps")
    if not any(vars(settings.loss).values()):
        raise InputError("all weights of the loss are zero")
    if settings.network not in models.REGISTRY:
        raise InputError(f"no network named '{settings.network}'; choose from {', '.join(models.REGISTRY)}")
    if "bands" in settings.options:
        raise InputError("'options.bands' is not a key of its own: use --bands, or 'bands' in the config")
    if settings.bands or not _bound(settings.network):
        _check_parameters(settings.network, _config(settings))


def _check_parameters(network: str, config: Mapping[str, int]) -> None:
    """Raises InputError, before memory is taken, for options of no network or of more than `MOST_PARAMETERS`."""
    with torch.device("meta"):
        count = sum(p.numel() for p in models.create(network, dict(config)).parameters())
    if count > MOST_PARAMETERS:
        raise InputError(
            f"{dict(config)} makes a '{network}' of {count:,} parameters, at most {MOST_PARAMETERS:,} are trained"
        )


def _bound(network: str) -> bool:
    """Whether the network is made for one band count."""
    taken = inspect.signature(models.network_class(network)).parameters.get("bands")
    return taken is not None and taken.default is inspect.Parameter.empty


def _config(settings: TrainingSettings) -> dict[str, int]:
    """The options that the network is made with."""
    takes = "bands" in inspect.signature(models.network_class(settings.network)).parameters
    return settings.options | ({"bands": settings.bands} if settings.bands and takes else {})


def _first(settings: TrainingSettings, config: dict[str, int], say: Say) -> Backbone:
    """The network before the first step. Given weights are taken where their shapes fit; `say` tells which layers start
    anew. Raises InputError for weights of another network, or of which less than half fits."""
    _check_parameters(settings.network, config)
    network = models.create(settings.network, config)
    if settings.start:
        card = weights.get(settings.start)
        held, own = weights.load(card, card.bands or 1).state_dict(), network.state_dict()
        fits = {k: v for k, v in held.items() if k in own and v.shape == own[k].shape}
        anew = [k for k in own if k not in fits]
        kept, all_of_it = (sum(v.numel() for v in part.values()) for part in (fits, own))
        if card.network != settings.network or 2 * kept < all_of_it:
            raise InputError(
                f"{card.path} holds weights of '{card.network}' {card.config}, "
                f"which is not '{settings.network}' {config}"
            )
        if anew:
            listed = ", ".join(anew[:4]) + (f" and {len(anew) - 4} more" if len(anew) > 4 else "")
            say(f"{card.path} is of '{card.network}' {card.config}; these start anew: {listed}")
        network.load_state_dict(own | fits)
    return network


def _with_bands(settings: TrainingSettings, seen: Sequence[LoadedScene]) -> tuple[TrainingSettings, dict[str, int]]:
    """The band count settled; raises InputError if a network for one count has none and the scenes differ."""
    if _bound(settings.network) and not settings.bands:
        counts = sorted({len(s.data) for s in seen})
        if len(counts) > 1:
            listed = ", ".join(map(str, counts))
            raise InputError(f"{settings.network} is for one band count and the scenes have {listed}: give --bands")
        settings = replace(settings, bands=counts[0])
    return settings, _config(settings)


def summary(made: Mapping[str, Any]) -> str:
    """The summary of `run` as one line."""
    best, bands = made["best"], made["config"].get("bands", "any")
    return (
        f"{made['output']}: {made['network']}, {bands} bands, {made['parameters']} parameters, best of {made['steps']} "
        f"steps in {made['seconds'] / 60:.1f} min: step {best['step']}, validation {best['validation']:.4f}, "
        f"Q2n {best['q2n']:.4f}, ERGAS {best['ergas']:.3f}"
    )


def describe(seen: Sequence[LoadedScene]) -> str:
    """What was trained on, in words."""
    sensors = {s.sensor: sum(t.sensor == s.sensor for t in seen) for s in seen}
    listed = [f"{n} {name}" for name, n in sorted(sensors.items(), key=lambda item: (-item[1], item[0]))]
    more = [f"{len(listed) - 8} more sensors"] if len(listed) > 9 else []
    paired = sum(s.pair is not None for s in seen)
    text = f"{len(seen)} scenes ({', '.join(listed[: 8 if more else 9] + more)})"
    return text + (f", {paired} with their PAN" if paired else "")


# The file


def _rounded(tensor: Tensor) -> Tensor:
    return tensor.bfloat16().to(tensor.dtype) if tensor.is_floating_point() and tensor.ndim > 1 else tensor


def publish(
    state: Mapping[str, Tensor],
    path: Path,
    network: str,
    config: Mapping[str, int],
    overwrite: bool = True,
    **words: str,
) -> str:
    """Write weights as safetensors whose metadata is their card, and return their sha256.

    Kernels and matrices are rounded to values that bfloat16 holds, so that both precisions run the same network. A
    folder of weights with a manifest.toml gets its entry in it. `words`: licence, data and command.
    """
    metadata = {"network": network, "config": json.dumps(dict(config))} | {k: v for k, v in words.items() if v}
    content = save({k: _rounded(v.detach()).cpu().contiguous() for k, v in state.items()}, metadata)
    digest = hashlib.sha256(content).hexdigest()
    manifest, entry = path.with_name("manifest.toml"), b""
    if manifest.is_file():
        entries = [e for e in re.split(r"(?m)^(?=\[)", untrusted.read_text(manifest, untrusted.MOST_TOML)) if e.strip()]
        entries = [e for e in entries if not e.startswith(f"[{path.stem}]")]
        fields = {"file": path.name, "network": network, "sha256": digest} | words
        lines = [f"[{path.stem}]", *(f"{k} = {json.dumps(v, ensure_ascii=False)}" for k, v in fields.items())]
        lines.append("config = { " + ", ".join(f"{k} = {v}" for k, v in config.items()) + " }")
        entries.append("\n".join(lines) + "\n")
        entry = "\n".join(e.rstrip() + "\n" for e in sorted(entries)).encode()
    with Publication(lambda each: each == path and not overwrite) as files:
        files.add(path, content)
        if entry:
            files.add(manifest, entry)
        files.publish()
    return digest
