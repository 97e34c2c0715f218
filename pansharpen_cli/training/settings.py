"""The settings of a training: every choice with its default and what it is; read from TOML, printed as TOML."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from .. import models, untrusted
from ..errors import InputError

_MOST = 1e12
_MOST_OPTION = 4096
"""Largest value of a network's options, as in files of weights."""
_MOST_BANDS = 512


def _key(default: Any, about: str, least: float | None = None, most: float | None = None) -> Any:
    return field(default=default, metadata={"about": about, "least": least, "most": most})


def _table(kind: type, about: str) -> Any:
    return field(default_factory=kind, metadata={"about": about})


@dataclass(frozen=True)
class Budget:
    minutes: float = _key(60.0, "time to train for; the learning rate is annealed over it", 0)
    steps: int = _key(0, "steps to train for instead, whatever time they take; 0: the minutes count", 0)
    checks: int = _key(20, "validations over the budget; the best weights are those of one of them", 1, 100_000)


@dataclass(frozen=True)
class Samples:
    real: float = _key(
        0.5, "of the samples of scenes with a PAN: share that is the pair itself, degraded by Wald's protocol", 0, 1
    )
    synthetic: float = _key(0.05, "of all samples: share of simulated landscapes, whose edges are sharp", 0, 1)
    fine: float = _key(
        0.75, "of the samples of scenes: share of those with pixels of under 2 m, where others are coarser", 0, 1
    )
    landscapes: int = _key(12, "number of simulated landscapes", 1, 1000)
    held_out: float = _key(0.15, "share of the scenes that is held out for validation, where none is named", 0, 1)
    validation: int = _key(40, "number of validation samples, drawn once from the held-out scenes", 1, 10_000)


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms of the loss: in units of each band's standard deviation, the last three of the scale.
    PanTiny's own loss is charbonnier = 1.5, similarity = 4, focal = 1.5, and nothing of the others."""

    l1: float = _key(1.0, "absolute error", 0)
    squared: float = _key(1.0, "squared error", 0)
    flat: float = _key(0.5, "error of the detail where PAN is flat, which the eye sees as ringing and noise", 0)
    structure: float = _key(0.5, "one less the correlation and contrast of the universal quality index", 0)
    sharpness: float = _key(0.03, "how far the energy of the finest detail is from the truth's, as a logarithm", 0)
    charbonnier: float = _key(0.0, "absolute error, rounded off at zero (PanTiny)", 0)
    similarity: float = _key(0.0, "one less the structural similarity (PanTiny)", 0)
    focal: float = _key(0.0, "absolute error, larger ones weighted more (PanTiny)", 0)


@dataclass(frozen=True)
class Optimiser:
    rate: float = _key(1e-3, "learning rate after the warm-up, AdamW's", 1e-9, 10)
    warmup: int = _key(100, "steps in which it rises to that", 1)
    floor: float = _key(0.01, "share of it that is left at the end of its cosine", 0, 1)
    decay: float = _key(1e-4, "weight decay", 0)
    clip: float = _key(1.0, "largest norm of the gradient", 1e-9)
    average: float = _key(
        0.998, "decay per step of the moving average of the weights, which is what is kept", 0, 0.999999
    )


@dataclass(frozen=True)
class Words:
    """What the file made says about itself."""

    licence: str = _key("", "licence of the weights, e.g. Apache-2.0")
    data: str = _key("", "what they were trained on; empty: a summary of the scenes")


@dataclass(frozen=True)
class TrainingSettings:
    network: str = _key(models.DEFAULT, "the network to train")
    bands: int = _key(0, "band count; 0: any that the network takes, or that which all scenes have", 0, _MOST_BANDS)
    start: str = _key("", "weights to start from, a file or the name of installed ones; empty: none")
    seed: int = _key(0, "of the first weights, the split and the samples", 0, 2**32 - 1)
    precision: str = _key("auto", "auto, float32 or bfloat16; auto takes bfloat16 where the hardware multiplies it")
    options: dict[str, int] = field(
        default_factory=dict, metadata={"about": "options of the network, whole numbers, e.g. features = 32"}
    )
    budget: Budget = _table(Budget, "how long")
    samples: Samples = _table(Samples, "what it is trained and judged on")
    loss: LossWeights = _table(LossWeights, "weights of the terms of the loss")
    optimiser: Optimiser = _table(Optimiser, "how")
    card: Words = _table(Words, "what the weights say about themselves")

    def identity(self, **more: Any) -> str:
        """All that a resumed training has to have in common with the one that it goes on with, and `more`."""
        known = {key: value for key, value in asdict(self).items() if key not in ("budget", "card")}
        return json.dumps({**json.loads(json.dumps(known, sort_keys=True)), **more})

    def changed(self, **given: Any) -> TrainingSettings:
        """With other values of its own keys or the budget's, where given and not None. Raises InputError."""
        given = {key: value for key, value in given.items() if value is not None}
        budget = {key: given.pop(key) for key in ("minutes", "steps") if key in given}
        if budget:
            budget = {"steps": 0, **budget}
        return replace(self, **given, budget=replace(self.budget, **budget))


def read(path: Path) -> TrainingSettings:
    """The settings of a TOML file; what it leaves out has its default. Raises InputError naming what is wrong."""
    return parse(untrusted.read_toml(path, "is not TOML"), str(path))


def parse(table: Mapping[str, Any], origin: str) -> TrainingSettings:
    """The settings of a parsed file. Raises InputError naming the key for one that is unknown or has a wrong value."""
    return _parsed(TrainingSettings, table, origin, "")


def _parsed(kind: Any, table: Mapping[str, Any], origin: str, prefix: str) -> Any:
    known = {f.name: f for f in fields(kind)}
    default, given = kind(), {}
    for key, value in table.items():
        name = prefix + key
        if key not in known:
            raise InputError(f"{origin}: unknown key '{name}'; choose from {', '.join(prefix + k for k in known)}")
        old, limits = getattr(default, key), known[key].metadata
        if is_dataclass(old) or isinstance(old, dict):
            if not isinstance(value, dict):
                raise InputError(f"{origin}: '{name}' is a table, not {value!r}")
            given[key] = _parsed(type(old), value, origin, f"{name}.") if is_dataclass(old) else value
            wrong = [k for k, v in value.items() if isinstance(old, dict) and type(v) is not int]
            if wrong:
                raise InputError(f"{origin}: '{name}.{wrong[0]}' takes a whole number, not {value[wrong[0]]!r}")
            if isinstance(old, dict) and (wrong := [k for k, v in value.items() if not 0 <= v <= _MOST_OPTION]):
                raise InputError(f"{origin}: '{name}.{wrong[0]}' takes a whole number from 0 to {_MOST_OPTION}")
            continue
        wanted = {float: "a number", int: "a whole number", str: "a text"}[type(old)]
        if type(value) not in ((float, int) if isinstance(old, float) else (type(old),)):
            raise InputError(f"{origin}: '{name}' takes {wanted}, not {value!r}")
        least, most = limits.get("least"), limits.get("most")
        if least is not None and not least <= value <= (_MOST if most is None else most):
            limit = f"of at least {least:g}" if most is None else f"from {least:g} to {most:g}"
            raise InputError(f"{origin}: '{name}' takes {wanted} {limit}, not {value!r}")
        given[key] = type(old)(value)
    return kind(**given)


def to_toml(settings: TrainingSettings) -> str:
    """The settings as TOML that `read` takes, every key with its value and what it is."""
    return "\n".join(_lines(settings, "")).strip() + "\n"


def _lines(part: Any, table: str) -> list[str]:
    own, nested = [], []
    for f in fields(part):
        value, about = getattr(part, f.name), f.metadata["about"]
        if is_dataclass(value) or isinstance(value, dict):
            nested += ["", f"# {about}", f"[{f.name}]"]
            nested += [f"{k} = {v}" for k, v in value.items()] if isinstance(value, dict) else _lines(value, f.name)
        else:
            own += [f"# {about}", f"{f.name} = {json.dumps(value, ensure_ascii=False)}"]
    return own + nested
