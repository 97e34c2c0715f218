"""Scenes that share a fit: those of a strip, or of a folder, come out alike (`batch --fit-by`)."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath

from ..errors import InputError
from ..raster.geometry import Box
from ..raster.source import open_raster
from .names import Found
from .places import are_neighbours, is_day, is_one_pass, place_and_time
from .planning import Task
from .workers import Event

FITS = "fits"
"""Folder of the fits in the output folder."""


def sharing(tasks: Sequence[Task], by: str, folder: Path | None) -> list[Task]:
    """The tasks with the files of the fits that they share, in the output folder.

    `by`: scene, strip or folder. Scenes of other bands or of another type share none. `strip`: acquired by the same
    sensor, neighbours in place and time: within `NEXT` of each other, or on the same day where no more is known. Of
    files that do not tell their place, the day counts with the folder or the path of Landsat. `folder`: of a scene that
    has one of its own, as products do, the folder above it. A fit that was made with other options has another name.
    """
    if by == "scene":
        return list(tasks)
    scenes = [task.found for task in tasks]
    keys = _told_apart(_folder_keys(scenes) if by == "folder" else _strip_keys(scenes), scenes)
    base = (folder or Path()) / FITS

    def of(task: Task, key: str) -> Task:
        if not key or task.refused:
            return task
        fit = base / _file_name(by, key, task.options)
        if os.path.realpath(fit) != os.path.join(os.path.realpath(folder or Path()), FITS, fit.name):
            return replace(task, refused=f"{fit} leads elsewhere through a link; remove the link")
        if base.exists() and not base.is_dir():
            return replace(task, refused=f"{base} is no folder, and fits are to be written there; move it")
        return replace(task, fit=fit)

    return [of(task, key) for task, key in zip(tasks, keys, strict=True)]


def _kind(found: Found) -> str:
    """What scenes of one fit have in common as far as names tell."""
    return f"{found.sensor} {found.rule} {len(found.ms)}"


def _folder_keys(scenes: Sequence[Found]) -> list[str]:
    crowd = Counter(found.folder for found in scenes)
    folders = [f.folder if crowd[f.folder] > 1 else str(PurePosixPath(f.folder).parent) for f in scenes]
    return [f"{folder} {_kind(found)}" for folder, found in zip(folders, scenes, strict=True)]


@dataclass(frozen=True)
class _Frame:
    """A scene as a part of a strip."""

    found: Found
    time: datetime
    box: Box | None

    @classmethod
    def of(cls, found: Found) -> _Frame | None:
        """None without a time."""
        box, told = place_and_time(found.pan)
        known = [time for time in (found.time, told) if time is not None]
        precise = [time for time in known if not is_day(time)]
        return cls(found, (precise or known)[0], box) if known else None

    def follows(self, before: _Frame) -> bool:
        """Whether both are of one strip; they are of one kind, and this one is not the earlier."""
        soon = is_one_pass(self.time, before.time)
        if self.box is not None and before.box is not None:
            return soon and are_neighbours(self.box, before.box)
        return soon and (not is_day(self.time) or self._row == before._row)

    @property
    def _row(self) -> str:
        path = re.match(r"L[COTEM]\d\d_\w{4}_(\d{3})\d{3}_", self.found.name)
        return f"path {path[1]}" if path else self.found.folder


def _strip_keys(scenes: Sequence[Found]) -> list[str]:
    """The strip of each scene; empty for one without a time."""
    kinds: dict[str, list[tuple[int, _Frame]]] = {}
    for i, found in enumerate(scenes):
        if (frame := _Frame.of(found)) is not None:
            kinds.setdefault(_kind(found), []).append((i, frame))
    keys = [""] * len(scenes)
    for kind, frames in kinds.items():
        frames.sort(key=lambda each: (each[1].time, each[1].found.folder, each[1].found.name))
        first = list(range(len(frames)))  # of the strip that each frame is in
        for k, (_, frame) in enumerate(frames):
            for earlier in range(k - 1, -1, -1):
                before = frames[earlier][1]
                if frame.time - before.time > timedelta(days=1):
                    break
                if first[earlier] != first[k] and frame.follows(before):
                    old, new = sorted((first[earlier], first[k]), reverse=True)
                    first = [new if strip == old else strip for strip in first]
        for k, (i, _) in enumerate(frames):
            start = frames[first[k]][1]
            keys[i] = f"{start.time:%Y%m%dT%H%M%S} {start.found.folder}/{start.found.name} {kind}"
    return keys


def _told_apart(keys: Sequence[str], scenes: Sequence[Found]) -> list[str]:
    """Keys, with bands and types of PAN and MS where those of one key differ in them."""
    kinds: dict[str, dict[int, str]] = {}
    for i, key in enumerate(keys):
        kinds.setdefault(key, {})[i] = ""
    for key, group in kinds.items():
        if key and len(group) > 1:
            group.update((i, _pixels_of(scenes[i])) for i in group)
    return [f"{key} {kinds[key][i]}" if len(set(kinds[key].values())) > 1 else key for i, key in enumerate(keys)]


def _pixels_of(found: Found) -> str:
    """How many bands of which types the PAN and the MS files have; of a file that cannot be read nothing."""
    told = []
    for layer in (found.pan, *found.ms):
        with suppress(InputError), open_raster(layer[-1], rpcs=True) as dataset:
            told.append(f"{dataset.count}{dataset.dtypes[0]}")
    return "-".join(told)


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
    return sum(each["size"] or 0 for each in task.inputs if each["path"] in task.found.files)
