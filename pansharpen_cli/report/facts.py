"""The facts of reports and logs as types, so that no one misspells a key; `plain` makes of them what JSON holds.

Within a schema fields are added, never renamed or removed, and never change their meaning (docs/report.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any


def plain(value: Any) -> Any:
    """Facts as dicts, lists, texts and numbers; None for numbers that are not finite."""
    if is_dataclass(value):
        made: dict[str, Any] = {}
        for each in fields(value):
            given = getattr(value, each.name)
            if each.metadata.get("flat"):
                made |= plain(given or {})
            elif given is not None or not each.metadata.get("absent"):
                made[each.name] = plain(given)
        return made
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def absent() -> Any:
    """A field that JSON does not have while it is None."""
    return field(default=None, metadata={"absent": True})


def flat() -> Any:
    """A field whose entries stand beside the others."""
    return field(default_factory=dict, metadata={"flat": True})


# Batches


@dataclass(frozen=True)
class Record:
    """A line of `batch.jsonl`: what became of a scene.

    `bytes`: of an output that the batch has written; `refused`: it was not tried; `foreign`: a file that no batch has
    written is in its place; `others`: what a newer version may have added.
    """

    schema: str
    scene: str
    status: str
    version: str | None = absent()
    when: str | None = absent()
    paired_by: str | None = absent()
    inputs: list | None = absent()
    options: str | None = absent()
    worker: int | str | None = absent()
    figures: dict | None = absent()
    rows: int | None = absent()
    cols: int | None = absent()
    bands: int | None = absent()
    sensor: str | None = absent()
    warnings: list | None = absent()
    notes: list | None = absent()
    bytes: int | None = absent()
    error: str | None = absent()
    refused: bool | None = absent()
    foreign: bool | None = absent()
    seconds: int | float | None = absent()
    report: str | None = absent()
    quicklook: str | None = absent()
    page: str | None = absent()
    others: Mapping[str, Any] = flat()

    @property
    def is_done(self) -> bool:
        return self.status == "done"

    @property
    def has_failed(self) -> bool:
        return self.status == "failed"


@dataclass(frozen=True)
class FailedScene:
    scene: str
    error: str


@dataclass(frozen=True)
class BatchSummary:
    """The outcome of a batch; `failed_before`: not tried again, as --retry-failed was not given."""

    schema: str
    folder: str
    log: str
    scenes: int
    done: int
    done_before: int
    failed: list[FailedScene]
    failed_before: list[FailedScene]
    left_over: int
    seconds: float
    scenes_per_hour: float | None


@dataclass(frozen=True)
class PlannedScene:
    """A scene of a dry run: `state` says why it would be fused, or why not."""

    output: str
    pan: list[str]
    ms: list[list[str]]
    paired_by: str
    state: str


@dataclass(frozen=True)
class LeftOver:
    """A file that is in no pair, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class BatchPlan:
    schema: str
    folder: str | None
    scenes: list[PlannedScene]
    left_over: list[LeftOver]
