"""Scenes that share a fit: those of a strip, or of a folder, come out alike (`batch --fit-by`)."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, time, timedelta
from pathlib import Path, PurePosixPath

from ..errors import InputError
from .names import Found
from .planning import Task
from .workers import Event

FIT_BY = ("scene", "strip", "folder")
FITS = "fits"
"""Folder of the fits in the output folder."""
NEXT = timedelta(minutes=2)
"""Within which a strip goes on: frames of one pass follow each other in seconds, passes in an hour and a half."""


def sharing(tasks: Sequence[Task], by: str, folder: Path | None) -> list[Task]:
    """The tasks with the files of the fits that they share, in the output folder.

    `strip`: acquired by the same sensor, by their names, each within `NEXT` of the one before; of names that tell the
    day only, on the same day in the same folder, or the same path of Landsat. `folder`: of a scene that has one of its
    own, as products do, the folder above it. A fit that was made with other options has another name. Raises InputError
    for another `by`.
    """
    if by not in FIT_BY:
        raise InputError(f"unknown --fit-by '{by}'; there is {', '.join(FIT_BY)}")
    if by == "scene":
        return list(tasks)
    scenes = [task.found for task in tasks]
    keys = _folder_keys(scenes) if by == "folder" else _strip_keys(scenes)
    base = (folder or Path()) / FITS
    return [
        replace(task, fit=base / _file_name(by, key, task.options)) if key and not task.refused else task
        for task, key in zip(tasks, keys, strict=True)
    ]


def _kind(found: Found) -> str:
    """What scenes of one fit have in common as far as names tell."""
    return f"{found.sensor} {found.rule} {len(found.ms)}"


def _folder_keys(scenes: Sequence[Found]) -> list[str]:
    crowd = Counter(found.folder for found in scenes)
    folders = [f.folder if crowd[f.folder] > 1 else str(PurePosixPath(f.folder).parent) for f in scenes]
    return [f"{folder} {_kind(found)}" for folder, found in zip(folders, scenes, strict=True)]


def _strip_keys(scenes: Sequence[Found]) -> list[str]:
    keys = [""] * len(scenes)
    timed: dict[str, list[tuple[datetime, int]]] = {}
    for i, found in enumerate(scenes):
        if found.time is None:
            continue
        if found.time.time() == time():  # names tell the day only
            path = re.match(r"L[COTEM]\d\d_\w{4}_(\d{3})\d{3}_", found.name)
            place = f"path {path[1]}" if path else found.folder
            keys[i] = f"{found.time:%Y%m%d} {place} {_kind(found)}"
        else:
            timed.setdefault(_kind(found), []).append((found.time, i))
    for kind, known in timed.items():
        first = before = datetime.min
        for when, i in sorted(known):
            if when - before > NEXT:
                first = when
            keys[i], before = f"{first:%Y%m%dT%H%M%S} {kind}", when
    return keys


def _file_name(by: str, key: str, digest: str) -> str:
    """A name that people can tell apart, and that no two groups share."""
    told = re.sub(r"[^A-Za-z0-9]+", "-", PurePosixPath(key.split(" ")[0]).name).strip("-")[:40]
    known = hashlib.sha256(f"{by} {key} {digest}".encode("utf-8", "replace")).hexdigest()[:12]
    return f"{by}-{told}-{known}.safetensors" if told else f"{by}-{known}.safetensors"


def in_turn(tasks: Sequence[Task], execute: Callable[[Sequence[Task]], Iterator[Event]]) -> Iterator[Event]:
    """Events of tasks. The task with the largest files of each group makes the fit that the others take; if it fails,
    the next one tries."""
    waiting = list(tasks)
    while waiting:
        makers: dict[object, Task] = {}
        for task in waiting:
            if task.fit is not None and not task.fit.exists():
                before = makers.get(task.fit)
                makers[task.fit] = task if before is None or _size(task) > _size(before) else before
        chosen = {id(task) for task in makers.values()}
        now = [t for t in waiting if t.fit not in makers or id(t) in chosen]
        waiting = [t for t in waiting if t.fit in makers and id(t) not in chosen]
        yield from execute(now)


def _size(task: Task) -> int:
    return sum(each["size"] or 0 for each in task.inputs)
