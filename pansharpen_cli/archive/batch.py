"""Many scenes: each on its own, in workers, and what becomes of them in the log."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..errors import PansharpenError, unforeseen
from ..fusion import fit
from ..jobs import fuse
from ..jobs.request import FusionOutput, Pair
from ..progress import Progress, quiet
from ..publish import Listing, workspace
from ..report import figures as figure_table
from ..report.facts import BatchSummary, FailedScene, FusionFacts, LeftOver, Record
from ..report.verdict import worst
from ..untrusted import stay_offline
from .batch_log import LOG, SCHEMA, Log, keep_left, locked, sweep
from .mosaic import raster_of, surrounded
from .neighbours import REACH, own_pixels
from .planning import (
    Choices,
    Task,
    existing_outputs,
    keeps,
    kept_back,
    left_beside,
    reason_to_run,
    seen_otherwise,
    source_of_another,
    stamps_of,
)
from .shared_fit import in_turn
from .workers import Event, Function, Pool

WORKER_BYTES = 1_000_000_000
"""Room for one worker: docs/batch.md says what one was seen to hold."""

Execute = Callable[[Sequence["Task"]], Iterator[Event]]
"""Runs tasks and tells how they end: processes of this machine (`local`), or a cluster."""

# One scene ----------------------------------------------------------------------------------------------------------


def fuse_one(task: Task, choices: Choices, progress: Progress = quiet) -> dict[str, Any]:
    """Fuse a scene with its report and quicklook; what the log says of it, with `error` if it failed. It is not tried
    on other files than those that the log will name, which is not the scene's fault."""
    started = time.perf_counter()
    if error := seen_otherwise(task):
        return {"error": error, "refused": True, "seconds": 0.0}
    known: dict[str, Any] = {}
    stay_offline()  # the last scene may have been on a server
    try:
        for path in (*task.outputs, *([task.fit] if task.fit is not None else [])):
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            facts = _facts_of(task, choices, progress)
        except PansharpenError as error:
            if not task.lent:
                raise
            facts = _facts_of(replace(task, lent=()), choices, progress)  # what is wrong may be a neighbour's
            facts["warnings"].append(f"fused without what its neighbours lend: {error}")
        quality = facts["quality"] or {}
        figures = {k: figure_table.value_of(k, quality) for k in figure_table.FIGURES}
        known = {
            "figures": {k: v for k, v in figures.items() if v is not None},
            "verdict": worst(facts["verdict"]),
            "rows": facts["output"]["rows"],
            "cols": facts["output"]["cols"],
            "valid_pixels": facts["output"]["valid_pixels"],
            "bands": facts["scene"]["bands"],
            "sensor": facts["scene"]["sensor"],
            "warnings": facts["warnings"],
            "notes": facts["notes"],
            "bytes": facts["output"]["bytes"],
            "mtime": task.output.stat().st_mtime,
            "made": stamps_of(existing_outputs(task), task),
        }
    except MemoryError:
        known["error"] = "out of memory; try fewer --jobs or a smaller --tile-size"
    except PansharpenError as error:
        known["error"] = " ".join(str(error).split())
    except OSError as error:
        known["error"] = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    except Exception as error:
        known["error"] = unforeseen(error)
    return known | {"seconds": time.perf_counter() - started}


def _facts_of(task: Task, choices: Choices, progress: Progress) -> FusionFacts:
    """The report of a scene that was fused into its outputs."""
    with workspace(task.output.parent) as folder:
        pair = pair_of(task, choices, folder)
        options, makes = choices.options, task.fit is not None and not task.fit.exists()
        if task.fit is not None and not makes:
            options = replace(options, fit=str(task.fit))
        output = FusionOutput(
            task.output, choices.driver, choices.creation_options, choices.overviews, True, task.quicklook,
            [p for p in (task.page, task.report) if p is not None], choices.command,
            task.identity() | {"begun": folder.stat().st_mtime}, rgb=choices.rgb, save_fit=task.fit if makes else None,
            keeps=partial(keeps, task),
        )  # fmt: skip
        facts = fuse.fuse_scene(pair, output, options, choices.score, progress)
    page = task.report.with_suffix(".html")
    if task.page is None and page.is_file():
        facts["warnings"].append(f"{page} is the page of an earlier result: make it anew with --html, or remove it")
    return facts


def pair_of(task: Task, choices: Choices, folder: Path) -> Pair:
    """A scene's files as they are opened; virtual rasters of tiles, and of what neighbours lend, are made in `folder`.
    Raises InputError for tiles that are not parts of one grid."""
    layers, opening = (task.found.pan, *task.found.ms), choices.opening
    if task.lent:
        pairs = zip(layers, task.lent, strict=True)
        made = [surrounded(layer, lent, folder, REACH, opening.nodata) for layer, lent in pairs]
        rasters, opening = [path for path, _ in made], replace(opening, own=own_pixels(made, opening.extent))
    else:
        rasters = [raster_of(layer, folder, opening.nodata) for layer in layers]
    labels = {path: layer[0] for path, layer in zip(rasters, layers, strict=True)}
    if task.found.sensor and opening.sensor == "auto":
        opening = replace(opening, sensor=task.found.sensor)
    return Pair(rasters[0], rasters[1:], opening, labels)


def prepared(number: int, choices: Choices, threads: int, devices: bool) -> Function:
    """A worker's function, once its share of the machine is settled: threads, and a GPU of several in turn."""
    torch.set_num_threads(threads)
    if devices and choices.options.device in ("auto", "cuda") and torch.cuda.device_count() > 1:
        device = f"cuda:{number % torch.cuda.device_count()}"
        choices = replace(choices, options=replace(choices.options, device=device))
    fit.preload(choices.options)
    if threads < cores():
        choices = replace(choices, creation_options=(f"NUM_THREADS={threads}", *choices.creation_options))
    return partial(_fused, choices=choices)


def _fused(task: Task, tell: Progress, choices: Choices) -> dict[str, Any]:
    return fuse_one(task, choices, tell)


def cores() -> int:
    """Processor cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    allowed = len(affinity(0)) if affinity else os.cpu_count() or 1
    given = os.environ.get("OMP_NUM_THREADS", "")
    return min(allowed, int(given)) if given.isdigit() and int(given) > 0 else allowed


def local(choices: Choices, jobs: int, timeout: float | None, memory: int | None) -> Execute:
    """Runs tasks in processes of this machine: as many as fit into `memory` bytes, the threads shared out."""
    if memory is not None:
        jobs = max(1, min(jobs, memory // WORKER_BYTES))
    threads = max(1, cores() // jobs)
    setup = partial(prepared, choices=choices, threads=threads, devices=True)
    return Pool(setup, jobs, timeout, memory).run


# All scenes ---------------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """Progress of a batch. `todo`: scenes to do, of all `scenes`; `done` and `failed`: records of those that have
    ended; `refused`: how many of the failed were not tried; `before`: scenes done in an earlier run; `earlier`: records
    of scenes that failed in an earlier run and are not retried; `left`: pictures and pages of earlier results, beside
    outputs that were made anew."""

    folder: Path
    scenes: int
    todo: int
    before: int
    started: float = field(default_factory=time.monotonic)
    done: list[Record] = field(default_factory=list)
    failed: list[Record] = field(default_factory=list)
    earlier: list[Record] = field(default_factory=list)
    left: list[Path] = field(default_factory=list)
    refused: int = 0

    @property
    def ended(self) -> int:
        return len(self.done) + len(self.failed)

    @property
    def per_hour(self) -> float:
        return 3600 * (self.ended - self.refused) / max(time.monotonic() - self.started, 1e-9)


Watch = Callable[[Event, Tally, Record | None], None]
"""Called with each event, and with the record of a scene that has ended."""


def run(
    tasks: Sequence[Task],
    folder: Path,
    execute: Execute,
    *,
    retry_failed: bool = False,
    overwrite: bool = False,
    left: Sequence[LeftOver] = (),
    watch: Watch = lambda event, tally, record: None,
) -> Tally:
    """Do what is to be done, and log it; scenes that are refused have failed. `left`: files in no scene, for the page.
    Raises InputError if the folder is in use."""
    with locked(folder) as same:
        sweep(folder)
        log = Log(folder)
        keep_left(folder, left)
        before = {task.scene: log.records.get(task.scene) for task in tasks}
        todo, refused = _to_do(tasks, before, retry_failed, overwrite)
        for task in todo:
            log.records.pop(task.found.pan[0], None)  # it was refused under this name
        there = {task.scene: existing_outputs(task) for task in todo}
        if not overwrite:
            todo = [replace(task, stands=stamps_of(there[task.scene], task)) for task in todo]
        waiting = {t.scene for t in todo + refused}
        skipped = [r for s, r in before.items() if s not in waiting and r is not None]
        tally = Tally(folder, len(tasks), len(todo) + len(refused), sum(r.is_done for r in skipped))
        tally.earlier = [r for r in skipped if r.has_failed]
        for task in refused:
            tally.failed.append(replace(_record(task, "failed"), error=task.refused, refused=True, seconds=0.0))
            tally.refused += 1
            log.add(_refusal(task, tally.failed[-1], before[task.scene]))
            watch(Event("refused", task, ""), tally, tally.failed[-1])
        events = in_turn(todo, execute)
        try:
            for event in events:
                record = _logged(event, log, before[event.task.scene], there[event.task.scene])
                if record is not None:
                    (tally.done if record.is_done else tally.failed).append(record)
                    tally.left += left_beside(event.task, record, folder) if record.is_done else []
                watch(event, tally, record)
        finally:
            close = getattr(events, "close", None)
            if close is not None:
                close()
            if same():
                sweep(folder)
                for path in (p for t in todo for p in t.outputs):  # not before: another scene may have just made them
                    with suppress(OSError):
                        path.parent.rmdir()
                with suppress(PansharpenError):  # a full disk has been told
                    log.settle()
        if not same():
            raise PansharpenError(f"{folder} was moved, removed or replaced while the batch ran")
        _look_again(tasks, log, tally)
        return tally


def _logged(event: Event, log: Log, before: Record | None, there: Mapping[Path, os.stat_result]) -> Record | None:
    """Log that a scene has started or ended; the record of one that has ended."""
    task = event.task
    if event.kind == "started":
        log.add(_knowing(_record(task, "started"), before))
    if event.kind not in ("done", "failed"):
        return None
    record = _ended(event, before)
    if event.kind == "done":  # what fails by itself has published nothing; a worker that was ended may have
        there = existing_outputs(task)
    log.add(_failure(task, record, before, there) if record.has_failed else record)
    return record


def _to_do(
    tasks: Sequence[Task], before: Mapping[str, Record | None], retry_failed: bool, overwrite: bool
) -> tuple[list[Task], list[Task]]:
    """The tasks that are to be run, and those that are refused."""
    todo: list[Task] = []
    refused: list[Task] = []
    listing = Listing()
    for task in tasks:
        record = before[task.scene]
        if not reason_to_run(task, record, retry_failed):
            continue
        if not task.refused and not overwrite and (why := kept_back(task, record, listing)):
            task = replace(task, refused=why)
        (refused if task.refused else todo).append(task)
    return todo, refused


def _look_again(tasks: Sequence[Task], log: Log, tally: Tally) -> None:
    """Scenes whose outputs are gone in the end have failed."""
    for task in tasks:
        record = log.records.get(task.scene)
        if record is None or not record.is_done or reason_to_run(task, record) != "missing":
            continue
        lost = replace(record, status="failed", error="its outputs were removed or changed while the batch ran")
        kept = [r for r in tally.done if r.scene != task.scene]
        tally.before -= len(kept) == len(tally.done)
        tally.done = kept
        tally.failed.append(lost)
        log.add(lost)


def _record(task: Task, status: str) -> Record:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ms = [list(layer) for layer in task.found.ms]
    return Record(
        SCHEMA, task.scene, status, version=__version__, when=now, paired_by=task.found.rule, inputs=list(task.inputs),
        ms=ms, options=task.options,
    )  # fmt: skip


def _ended(event: Event, before: Record | None) -> Record:
    task = event.task
    known: dict[str, Any] = (
        event.result if event.kind == "done" else {"error": str(event.result), "seconds": event.seconds}
    )
    if "error" in known:
        return replace(_record(task, "failed"), worker=event.worker, **known)
    report, quicklook, page = (None if p is None else task.name_of(p) for p in (task.report, task.quicklook, task.page))
    done = replace(_record(task, "done"), worker=event.worker, report=report, quicklook=quicklook, page=page)
    return replace(done, **known | {"made": {**_made_before(before), **known["made"]}})


def _made_before(before: Record | None) -> dict[str, list | None]:
    return (before.made if before is not None else None) or {}


def _knowing(record: Record, before: Record | None) -> Record:
    """A record that replaces another one, with what that one knows of an output that stands and of files beside it."""
    return record if before is None else replace(record, bytes=before.bytes, mtime=before.mtime, made=before.made)


def _refusal(task: Task, record: Record, before: Record | None) -> Record:
    """The record of a scene that is refused; that of another one, of the same name, stays."""
    if before is not None and source_of_another(task, before):
        return replace(before, error=record.error)
    return _knowing(record, before)


def _failure(task: Task, record: Record, before: Record | None, there: Mapping[Path, os.stat_result]) -> Record:
    """The record of a scene that failed. Its earlier output, if there is one, stays: nothing is deleted. `there`: what
    existed when the batch began. Of the same inputs, the scene is as done as before."""
    record, now = _knowing(record, before), existing_outputs(task)
    new = {p: found for p, found in now.items() if p not in there or not os.path.samestat(found, there[p])}
    if task.report in new:  # it is published first: the worker was ended after that
        record = replace(record, made=_made_before(before) | stamps_of(new, task))
    output = now.get(task.output)
    if output is None:
        return replace(record, bytes=None, mtime=None)
    if task.report in new and task.output in new:
        return replace(record, bytes=output.st_size, mtime=output.st_mtime)
    if before is not None and before.is_done and before.inputs == list(task.inputs):
        return replace(before, error=record.error, made=record.made)
    return record


def warned(tally: Tally) -> list[tuple[str, str]]:
    """The scenes done with their warnings, one of the commonest kind first: but for what their lines have told, and for
    earlier results, which the tally knows."""
    told = re.compile("^the result is doubtful| of an earlier ")
    found = [(r.scene, text) for r in tally.done for text in r.warnings or () if not told.search(text)]
    kinds = Counter(re.sub(r"\d[\d.]*", "", text) for _, text in found)
    return sorted(found, key=lambda each: -kinds[re.sub(r"\d[\d.]*", "", each[1])])


def summary(tally: Tally, left: int) -> BatchSummary:
    """The outcome as facts for --json; `left`: how many files are left over."""
    failed, before = ([FailedScene(r.scene, r.error or "") for r in rs] for rs in (tally.failed, tally.earlier))
    return BatchSummary(
        SCHEMA, str(tally.folder), str(tally.folder / LOG), tally.scenes, len(tally.done), tally.before, failed, before,
        left, time.monotonic() - tally.started, tally.per_hour or None,
    )  # fmt: skip


def sentence(facts: BatchSummary) -> str:
    """The outcome in one line."""
    counts = {
        "done": facts.done, "done before": facts.done_before, "failed": len(facts.failed),
        "failed before": len(facts.failed_before),
    }  # fmt: skip
    parts = [f"{count} {what}" for what, count in counts.items() if count or what == "done"]
    speed = f", {facts.scenes_per_hour:.0f} an hour" if facts.scenes_per_hour else ""
    return f"{facts.scenes} scenes: {', '.join(parts)}{speed}; {facts.log}"
