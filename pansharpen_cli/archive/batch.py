"""Many scenes: what is to be done, a lock and a log on the output folder, and each scene on its own."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import platform
import re
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from .. import __version__, device, foreign
from ..adapt.sampling import Progress, quiet
from ..classical import NAMES as CLASSICAL
from ..errors import InputError, PansharpenError
from ..fusion import fit
from ..fusion.fit import Options
from ..jobs import fuse, opened
from ..models import weights
from ..publish import PARTIAL, family, misleading, open_own, owner_of, read_own, workspace, write
from ..publish import sweep as sweep_one
from ..raster import sensors
from ..raster.writer import check_creation_options, parse_creation_options
from ..report import figures as figure_table
from ..report import files, index
from .archives import archive_of
from .mosaic import raster_of, read_with
from .names import CONTAINERS, Found, Left
from .workers import Event, Function, Pool

SCHEMA = "pansharpen-batch/1"
_SCHEMAS = "pansharpen-batch/"
LOG_BYTES = 1 << 30
"""Of the largest log that is read."""
_HEAD = b'{"schema": "pansharpen-batch/'
LOG, LOCK, REPORTS = "batch.jsonl", "batch.lock", "reports"
TEMPLATE = "{folder}/{name}.tif"
WORKER_BYTES = 1_000_000_000
"""Room for one worker: docs/batch.md says what one was seen to hold."""
NAME_BYTES, PATH_BYTES = 230, 3900
"""Of a part of an output's path, and of the whole: the system's limits, less room for suffixes and unfinished files."""

Execute = Callable[[Sequence["Task"]], Iterator[Event]]
"""Runs tasks and tells how they end: processes of this machine (`local`), or a cluster."""


@dataclass(frozen=True)
class Choices:
    """What is the same for all scenes: options, and how to write. `html`: a page for each scene."""

    options: Options = Options()
    open_options: Mapping[str, Any] = field(default_factory=dict)
    driver: str = "GTiff"
    creation_options: tuple[str, ...] = ()
    overviews: bool | None = None
    score: bool = True
    html: bool = False
    command: str | None = None

    def check(self, here: bool = True) -> None:
        """Raises InputError for what no scene could be fused with. `here`: on this machine."""
        fit.check_method(self.options)
        if here or not re.fullmatch(r"cuda(:\d+)?|mps", self.options.device):
            device.choose_device(self.options.device)
        self._check_creation_options()
        if (sensor := self.open_options.get("sensor", "auto")) != "auto":
            sensors.named(sensor)

    def _check_creation_options(self) -> None:
        """Raises InputError if they do for no kind of scene; what a scene is like shows when it is opened."""
        options = parse_creation_options(self.creation_options)
        dtype, bidx = self.open_options.get("dtype"), self.open_options.get("bidx")
        refused = []
        dtypes, counts = [dtype] if dtype else ["uint16", "uint8", "float32"], [len(bidx)] if bidx else [4, 3, 1]
        for dtype, count in itertools.product(dtypes, counts):
            try:
                check_creation_options(self.driver, options, count, np.dtype(dtype), 0)
                return
            except InputError as error:
                refused.append(error)
        raise refused[0]

    def digest(self, sensor: str = "") -> str:
        """A hash of all that the output's bytes depend on, but for the inputs."""
        options = {k: v for k, v in asdict(self.options).items() if k not in ("tile_size", "weights")}
        if self.options.method not in CLASSICAL:
            cards = weights.cards(self.options.method, self.options.weights)
            options["weights"] = [[c.sha256, c.config, c.scale] for c in cards]
        known: list[Any] = [options, {**self.open_options, **({"sensor": sensor} if sensor else {})}]
        known += [self.driver, self.creation_options, self.overviews]
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Task:
    """A scene with its outputs; `scene` is the output's path in the output folder, `inputs` what the log says of it.

    `refused`: why nothing can be written for it. Without an output of its own, its PAN's path is its `scene`.
    """

    scene: str
    found: Found
    output: Path
    report: Path
    quicklook: Path
    page: Path | None
    options: str
    inputs: tuple[dict[str, Any], ...]
    refused: str = ""

    @property
    def outputs(self) -> list[Path]:
        return [p for p in (self.output, self.report, self.quicklook, self.page) if p is not None]

    def identity(self) -> dict[str, Any]:
        """What the log and the report say of it."""
        return {"scene": self.scene, "inputs": list(self.inputs), "options": self.options}


# Planning -----------------------------------------------------------------------------------------------------------


def plan(scenes: Sequence[Found], folder: Path, choices: Choices, template: str = TEMPLATE) -> list[Task]:
    """The tasks of scenes, each once, those without an output that may be theirs refused.

    Raises InputError for a template that is none.
    """
    check_template(template)
    base = Path(os.path.realpath(folder))
    digests = {sensor: choices.digest(sensor) for sensor in {found.sensor for found in scenes}}
    tasks: dict[tuple, Task] = {}
    nameless: list[Task] = []
    sharing: dict[Path, list[Task]] = defaultdict(list)
    for found in dict.fromkeys(scenes):
        try:
            name, refused = output_name(found, template, choices.options.method), ""
            if len(os.fsencode(base / REPORTS / name)) > PATH_BYTES:
                raise InputError(f"the path of its output is too long: {str(name)[:200]}...")
        except InputError as error:
            name, refused = PurePosixPath(PARTIAL), str(error)  # nothing is written there
        output, stem = base / name, base / REPORTS / name.with_suffix("")
        report_path, quicklook, page = (stem.with_name(stem.name + s) for s in (".json", ".png", ".html"))
        task = Task(
            found.pan[0] if refused else str(name), found, output, report_path, quicklook,
            page if choices.html else None, digests[found.sensor], tuple(_stat(p) for p in read_with(found.files)),
            refused,
        )  # fmt: skip
        if refused:
            nameless.append(task)
        elif (key := (output, found.pan, found.ms, found.sensor)) not in tasks:
            tasks[key] = task
            sharing[output].append(task)
    files = {base / LOG, base / LOCK, base / index.PAGE} | {p for task in tasks.values() for p in task.outputs}
    folders = {folder for path in files for folder in path.parents}
    read = {os.path.realpath(i["path"]) for task in tasks.values() for i in task.inputs}
    read |= {owner_of(path) for path in read}  # what a side file belongs to is not replaced either

    def judged(task: Task) -> Task:
        if other := next((t for t in sharing[task.output] if t is not task), None):
            return replace(task, scene=task.found.pan[0], refused=_shared(task, other))
        return replace(task, refused=_in_the_way(task, base, files, folders, read))

    return [*map(judged, tasks.values()), *nameless]


def _shared(task: Task, other: Task) -> str:
    one, two = task.found, other.found
    if (one.pan, one.ms) == (two.pan, two.ms):
        return f"it is named twice, with the sensors '{one.sensor}' and '{two.sensor}'"
    return (
        f"{two.ms[0][0] if one.pan == two.pan else two.pan[0]} would be written to {task.scene}, too: name the folder "
        "above them as SOURCE, or use --template, for example with {pan} or {date}"
    )


def _in_the_way(
    task: Task, base: Path, files: Collection[Path], folders: Collection[Path], read: Collection[str]
) -> str:
    """Why a scene's outputs cannot be written, or nothing. `files`, `folders`: what all scenes would make; `read`: the
    real paths of all that they are made of."""
    for path in task.outputs:
        if both := [p for p in (path, *path.parents) if p in files and p in folders]:
            return f"{both[0].relative_to(base)} would be a file and a folder; give a scene another name"
        if os.path.isdir(path):
            return f"{path} is a folder, and a file is to be written there; move it, or use --template"
        if not Path(os.path.realpath(path)).is_relative_to(base):
            return f"{path} leads out of the output folder through a link; remove the link"
    for path in task.outputs:
        if os.path.realpath(path) in read:
            return f"{path}, or a part of it, is one of the inputs; choose another output folder"
    for path in misleading(task.output):
        return f"{path} would be read with {task.output.name}, which it does not describe; use --template"
    return ""


KEYS = ("folder", "name", "pan", "ms", "method", "date")


def check_template(template: str) -> None:
    """Raises InputError for a template that does not name GeoTIFFs in the output folder."""
    for key in re.findall(r"\{(.*?)\}", template):
        if key not in KEYS:
            raise InputError(f"--template knows {', '.join('{' + k + '}' for k in KEYS)}, not '{{{key}}}'")
    path = PurePosixPath(template)
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise InputError(f"--template takes a name that ends in .tif, not '{template}'")
    if ".." in path.parts or path.is_absolute():
        raise InputError(f"--template '{template}' leads out of the output folder")


def output_name(found: Found, template: str, method: str) -> PurePosixPath:
    """Path of a scene's output in the output folder. Raises InputError if it would leave it, or is no file's name."""
    given = f"{found.folder}/{found.name}".removeprefix("/")
    if re.search(r"[\x00-\x1f\x7f]", given):
        raise InputError(f"the name {given!r} holds a control character")
    values = {
        "name": found.name,
        "folder": found.folder,
        "pan": PurePosixPath(found.pan[0]).stem,
        "ms": PurePosixPath(found.ms[0][0]).stem,
        "method": method,
        "date": found.time.strftime("%Y%m%d") if found.time else "undated",
    }
    path = PurePosixPath(re.sub(r"\{(.*?)\}", lambda match: values[match[1]], template).lstrip("/"))
    parts = {*found.folder.split("/"), *found.name.split("/"), *path.parts}
    if found.folder.startswith("/") or found.name.startswith("/") or "\\" in given or {"..", "."} & parts:
        raise InputError(f"the name '{given}' leads out of the output folder")
    for part in path.parts:
        if part.startswith(PARTIAL):
            raise InputError(f"the name '{part}' is one of unfinished files ({PARTIAL}*)")
        try:
            long = len(os.fsencode(part)) > NAME_BYTES
        except UnicodeEncodeError as error:
            raise InputError(f"the name {ascii(part)} is no text") from error
        if long:
            raise InputError(f"the name '{part[:60]}...' is longer than {NAME_BYTES} bytes")
    return path


def _stat(path: str) -> dict[str, Any]:
    """A file, or the archive that it is in, as it is now; nothing is known of what is no file of this machine, or
    missing."""
    try:
        known = os.stat(archive_of(path))
        return {"path": path, "size": known.st_size, "mtime": known.st_mtime_ns / 1e9}
    except (OSError, ValueError):
        return {"path": path, "size": None, "mtime": None}


def reason_to_run(task: Task, record: Mapping | None, retry_failed: bool = False) -> str | None:
    """Why a scene has to be fused: new, interrupted, changed, failed or missing; None if it does not have to be."""
    if record is None or task.refused or record.get("refused"):
        return "new"
    if record["status"] == "started":
        return "interrupted"
    if list(task.inputs) != record.get("inputs") or task.options != record.get("options"):
        return "changed"
    if record["status"] == "failed":
        return "failed" if retry_failed else None
    if task.page is not None and not record.get("page"):  # one that is there is of an earlier output
        return "missing"
    there = {path: found.st_size for path, found in _there(task).items()}
    return None if len(there) == len(task.outputs) and there[task.output] == record.get("bytes") else "missing"


def _there(task: Task) -> dict[Path, os.stat_result]:
    """Those of a scene's outputs that exist."""
    found = {}
    for path in task.outputs:
        with suppress(OSError):
            found[path] = path.stat()
    return found


def _unknown(record: Mapping | None) -> bool:
    """Is a file at the output's path one that no batch has written? One of a scene that failed has its `bytes`."""
    failed = record is not None and record["status"] == "failed" and not record.get("bytes")
    return record is None or failed or bool(record.get("foreign"))


def _foreign_file(task: Task, record: Mapping | None) -> Path | None:
    """A file at a scene's outputs that no batch has written, as far as log and report tell."""
    if not _unknown(record) or _reported(task):
        return None
    return next((p for output in task.outputs for p in (output, *family(output)) if os.path.lexists(p)), None)


def _reported(task: Task) -> bool:
    """Does the report beside the output say that a batch has written it as it is now? For a log that lost lines."""
    try:
        facts = json.loads(read_own(task.report, 1 << 24))
        return facts["batch"]["scene"] == task.scene and facts["output"]["bytes"] == task.output.stat().st_size
    except (InputError, OSError, ValueError, TypeError, KeyError):
        return False


def dry_run(
    tasks: Sequence[Task], folder: Path, left: Sequence[Left], retry_failed: bool, overwrite: bool = False
) -> dict[str, Any]:
    """What `run` would do with the scenes, and the files that are in none."""
    records = read_log(folder) if os.path.lexists(folder / LOG) else {}

    def state(task: Task) -> str:
        if task.refused:
            return f"refused: {task.refused}"
        record = records.get(task.scene)
        reason = reason_to_run(task, record, retry_failed)
        if reason and not overwrite and _foreign_file(task, record):
            return f"{reason}, but a file is there that no batch has written: needs --overwrite"
        return reason or f"{record['status'] if record else ''} before"

    scenes = [
        {
            "output": task.scene,
            "pan": list(task.found.pan),
            "ms": [list(layer) for layer in task.found.ms],
            "paired_by": task.found.rule,
            "state": state(task),
        }
        for task in tasks
    ]
    return {"schema": SCHEMA, "folder": str(folder), "scenes": scenes, "left_over": [asdict(each) for each in left]}


def listing(plan: Mapping[str, Any]) -> str:
    """`dry_run` as text: outputs with their files, then what is left over."""

    def shown(layers: Sequence[Sequence[str]]) -> str:
        first = [p.removeprefix(f"{os.getcwd()}/") for p in (layer[0] for layer in layers)]
        tiles = len([p for p in layers[0] if not p.lower().endswith(CONTAINERS)])
        more = f" and {len(first) - 1} more bands" if len(first) > 1 else ""
        return first[0] + more + (f" ({tiles} tiles)" if tiles > 1 else "")

    lines = []
    for scene in plan["scenes"]:
        lines.append(f"{scene['output']}  ({scene['state']}, paired by {scene['paired_by']})")
        lines.append(f"  PAN  {shown([scene['pan']])}")
        lines.append(f"  MS   {shown(scene['ms'])}")
    lines += ["", "left over:"] if plan["left_over"] else []
    lines += [f"  {each['path']}: {each['reason']}" for each in plan["left_over"]]
    return "\n".join([*lines, "", f"{len(plan['scenes'])} pairs, {len(plan['left_over'])} files left over"]).lstrip(
        "\n"
    )


# The output folder --------------------------------------------------------------------------------------------------


@contextmanager
def locked(folder: Path) -> Iterator[Callable[[], bool]]:
    """Holds the output folder for this process; the system lets go of it however the process ends.

    Yields a function that tells whether the folder is still the one that was locked. Where the system has no such
    locks (Windows), nothing keeps two batches apart. Raises InputError if another process holds it, PansharpenError if
    it cannot be locked.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = open_own(path, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise InputError(f"cannot write in {folder}: {error.strerror}") from error
    try:
        content = os.read(handle, 500)
        if content and not content.startswith(b"process "):
            raise InputError(f"{path} is not a file of pansharpen; move it, or choose another output folder")
        _lock(handle, folder, content)
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        os.write(handle, f"process {os.getpid()} on {platform.node()}, since {now}\n".encode())

        def same() -> bool:
            try:
                return os.path.samestat(os.stat(path), os.fstat(handle))
            except OSError:
                return False

        yield same
        os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def _lock(handle: int, folder: Path, holder: bytes) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        who = " ".join(holder.decode(errors="replace").split())
        raise InputError(f"{folder} is in use by another batch ({who}); wait for it or use another folder") from error
    except OSError as error:
        raise PansharpenError(f"cannot lock {folder / LOCK}: {error.strerror}") from error


def sweep(folder: Path) -> None:
    """Remove what killed processes left of unfinished files; under the lock. Other batches' folders are their own."""
    for here, folders, names in os.walk(folder):
        if LOCK in names and Path(here) != folder:
            folders.clear()
            continue
        for name in [n for n in (*folders, *names) if n.startswith(PARTIAL)]:
            sweep_one(Path(here, name))
        folders[:] = [n for n in folders if not n.startswith(PARTIAL)]


def _is_log(content: bytes) -> bool:
    """Is it a batch's own? Its lines say so; those that a crash has cut off say nothing."""
    ours, torn = False, _HEAD.startswith(content[: len(_HEAD)])
    for line in content.splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not (isinstance(record, dict) and str(record.get("schema", "")).startswith(_SCHEMAS)):
            return False
        ours = True
    return ours or torn


def read_log(folder: Path) -> dict[str, dict[str, Any]]:
    """The last record of each scene; a line that was cut off when the machine stopped does not count.

    Raises InputError if there is no log, or a file of that name that is none.
    """
    path = folder / LOG
    content = read_own(path, LOG_BYTES)
    if not _is_log(content):
        raise InputError(f"{path} is not the log of a batch; move it, or choose another output folder")
    records: dict[str, dict[str, Any]] = {}
    for _, line in foreign.json_lines(content.decode("utf-8", "replace")):
        with suppress(ValueError, RecursionError):
            record: Any = foreign.parse_json(line) if len(line) <= foreign.MOST_LINE else None
            if _is_record(record):
                records[record["scene"]] = record
    return records


_TYPES: dict[str, Any] = {
    "scene": str, "status": str, "error": str, "report": str, "quicklook": str, "page": str, "options": str,
    "figures": dict, "inputs": list, "seconds": int | float, "rows": int, "cols": int,
}  # fmt: skip


def _is_record(record: Any) -> bool:
    """Is it a line that a batch may have written? Anyone may have written another one."""
    return (
        isinstance(record, dict)
        and {"scene", "status"} <= record.keys()
        and all(isinstance(record[k], kind) for k, kind in _TYPES.items() if record.get(k) is not None)
        and all(abs(record.get(k) or 0) < 1e15 for k in ("seconds", "rows", "cols"))
        and record["status"] in ("started", "done", "failed")
    )


class Log:
    """`batch.jsonl`: a line is added when a scene starts and when it ends; in the end each scene has one."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOG
        self.records = read_log(folder) if os.path.lexists(self.path) else {}
        self.settle()

    def add(self, record: dict[str, Any]) -> None:
        """On the disk when this returns."""
        self.records[record["scene"]] = record
        try:
            handle = open_own(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            try:
                os.write(handle, _line(record))
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise PansharpenError(f"cannot write {self.path}: {error.strerror}") from error

    def settle(self) -> None:
        """Leave the last line of each scene."""
        content = b"".join(map(_line, self.records.values()))
        if os.path.lexists(self.path) and read_own(self.path, LOG_BYTES) == content:
            return
        write(self.path, content)


def _line(record: Mapping) -> bytes:
    return json.dumps({"schema": SCHEMA, **files.finite(record)}, allow_nan=False).encode() + b"\n"


# One scene ----------------------------------------------------------------------------------------------------------


def fuse_one(task: Task, choices: Choices, progress: Progress = quiet) -> dict[str, Any]:
    """Fuse a scene with its report and quicklook; what the log says of it, with `error` if it failed."""
    started = time.perf_counter()
    known: dict[str, Any] = {}
    try:
        for path in task.outputs:
            path.parent.mkdir(parents=True, exist_ok=True)
        with workspace(task.output.parent) as folder:
            layers = (task.found.pan, *task.found.ms)
            rasters = [raster_of(layer, folder) for layer in layers]
            labels = {path: layer[0] for (path, _), layer in zip(rasters, layers, strict=True)}
            open_options = dict(choices.open_options)
            named = task.found.sensor or next((s for _, s in rasters if s), "")
            if named and open_options.get("sensor", "auto") == "auto":
                open_options["sensor"] = named
            pair = opened.Pair(rasters[0][0], [path for path, _ in rasters[1:]], open_options, labels)
            output = fuse.FusionOutput(
                task.output, choices.driver, choices.creation_options, choices.overviews, True, task.quicklook,
                [p for p in (task.report, task.page) if p is not None], choices.command, task.identity(),
            )  # fmt: skip
            facts = fuse.fuse_scene(pair, output, choices.options, choices.score, progress)
        quality = facts["quality"] or {}
        figures = {k: figure_table.value_of(k, quality) for k in figure_table.FIGURES}
        known = {
            "figures": {k: v for k, v in figures.items() if v is not None},
            "rows": facts["output"]["rows"],
            "cols": facts["output"]["cols"],
            "bands": facts["scene"]["bands"],
            "sensor": facts["scene"]["sensor"],
            "warnings": facts["warnings"],
            "notes": facts["notes"],
            "bytes": facts["output"]["bytes"],
        }
    except MemoryError:
        known["error"] = "out of memory; try fewer --jobs or a smaller --tile-size"
    except PansharpenError as error:
        known["error"] = " ".join(str(error).split())
    except OSError as error:
        known["error"] = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    except Exception as error:
        known["error"] = f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return known | {"seconds": time.perf_counter() - started}


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
    """How far a batch is: `todo` of all `scenes`, the records of those that have ended, of which `refused` were not
    tried; of the others `before` were done before, and `earlier` are the records of those that failed before."""

    folder: Path
    scenes: int
    todo: int
    before: int
    started: float = field(default_factory=time.monotonic)
    done: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)
    earlier: list[dict[str, Any]] = field(default_factory=list)
    refused: int = 0

    @property
    def ended(self) -> int:
        return len(self.done) + len(self.failed)

    @property
    def per_hour(self) -> float:
        return 3600 * (self.ended - self.refused) / max(time.monotonic() - self.started, 1e-9)


Watch = Callable[[Event, Tally, dict[str, Any] | None], None]
"""Called with each event, and with the record of a scene that has ended."""


def run(
    tasks: Sequence[Task],
    folder: Path,
    execute: Execute,
    *,
    retry_failed: bool = False,
    overwrite: bool = False,
    watch: Watch = lambda event, tally, record: None,
) -> Tally:
    """Do what is to be done, and log it; scenes that are refused have failed.

    Raises InputError if the folder is in use.
    """
    with locked(folder) as same:
        sweep(folder)
        log = Log(folder)
        before = {task.scene: log.records.get(task.scene) for task in tasks}
        todo, refused = _to_do(tasks, before, retry_failed, overwrite)
        for task in todo:
            log.records.pop(task.found.pan[0], None)  # it was refused under this name
        there = {task.scene: _there(task) for task in todo}
        waiting = {t.scene for t in todo + refused}
        skipped = [r for s, r in before.items() if s not in waiting and r is not None]
        tally = Tally(folder, len(tasks), len(todo) + len(refused), sum(r["status"] == "done" for r in skipped))
        tally.earlier = [r for r in skipped if r["status"] == "failed"]
        for task in refused:
            tally.failed.append(_record(task, "failed") | {"error": task.refused, "refused": True, "seconds": 0.0})
            tally.refused += 1
            log.add(tally.failed[-1] | _own_bytes(before[task.scene]))
            watch(Event("refused", task, ""), tally, tally.failed[-1])
        events = execute(todo)
        try:
            for event in events:
                record, scene = None, event.task.scene
                if event.kind == "started":
                    foreign = _foreign(before[scene], event.task.output in there[scene])
                    log.add(_record(event.task, "started") | _own_bytes(before[scene]) | foreign)
                elif event.kind in ("done", "failed"):
                    record = kept = _ended(event)
                    if record["status"] == "failed":
                        kept = _failure(event.task, record, before[scene], there[scene])
                    log.add(kept)
                    (tally.done if record["status"] == "done" else tally.failed).append(record)
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


def _to_do(
    tasks: Sequence[Task], before: Mapping[str, Mapping | None], retry_failed: bool, overwrite: bool
) -> tuple[list[Task], list[Task]]:
    """The tasks that are to be run, and those that are refused."""
    todo: list[Task] = []
    refused: list[Task] = []
    for task in tasks:
        record = before[task.scene]
        if not reason_to_run(task, record, retry_failed):
            continue
        if not task.refused and not overwrite and (mine := _foreign_file(task, record)):
            task = replace(task, refused=f"{mine} exists, and {LOG} does not know it; use --overwrite to replace it")
        (refused if task.refused else todo).append(task)
    return todo, refused


def _look_again(tasks: Sequence[Task], log: Log, tally: Tally) -> None:
    """Scenes whose outputs are gone in the end have failed."""
    for task in tasks:
        record = log.records.get(task.scene)
        if record is None or record["status"] != "done" or reason_to_run(task, record) != "missing":
            continue
        lost = {**record, "status": "failed", "error": "its outputs were removed or changed while the batch ran"}
        kept = [r for r in tally.done if r["scene"] != task.scene]
        tally.before -= len(kept) == len(tally.done)
        tally.done = kept
        tally.failed.append(lost)
        log.add(lost)


def _record(task: Task, status: str) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "version": __version__,
        "scene": task.scene,
        "status": status,
        "when": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "paired_by": task.found.rule,
        "inputs": list(task.inputs),
        "options": task.options,
    }


def _ended(event: Event) -> dict[str, Any]:
    task = event.task
    known = event.result if event.kind == "done" else {"error": str(event.result), "seconds": event.seconds}
    record = _record(task, "failed" if "error" in known else "done") | {"worker": event.worker, **known}
    if "error" not in known:
        paths = {"report": task.report, "quicklook": task.quicklook, "page": task.page}
        folder = task.output.parents[len(PurePosixPath(task.scene).parts) - 1]
        record |= {k: p.relative_to(folder).as_posix() for k, p in paths.items() if p is not None}
    return record


def _foreign(before: Mapping | None, there: bool) -> dict[str, bool]:
    """What a record that replaces `before` has to remember of files that no batch has written."""
    return {"foreign": True} if there and _unknown(before) else {}


def _own_bytes(record: Mapping | None) -> dict[str, int]:
    """What a record that replaces `record` has to remember of an output that stands."""
    return {"bytes": record["bytes"]} if record and record.get("bytes") and not _unknown(record) else {}


def _failure(
    task: Task, record: dict[str, Any], before: Mapping | None, there: Mapping[Path, os.stat_result]
) -> dict[str, Any]:
    """The record of a scene that failed. Its earlier output, if there is one, stays: nothing is deleted.

    `there`: what existed when the batch began. Of the same inputs, the scene is as done as before.
    """
    now = _there(task).get(task.output)
    if now is None:
        return record
    if task.output not in there or not os.path.samestat(now, there[task.output]):
        return record | {"bytes": now.st_size}  # its worker was ended after it had published
    if before is not None and before["status"] == "done" and before.get("inputs") == list(task.inputs):
        return {**before, "error": record["error"]}
    return record | _own_bytes(before)


def summary(tally: Tally, left: int) -> dict[str, Any]:
    """The outcome as facts for --json."""
    return {
        "schema": SCHEMA,
        "folder": str(tally.folder),
        "log": str(tally.folder / LOG),
        "scenes": tally.scenes,
        "done": len(tally.done),
        "done_before": tally.before,
        "failed": [{"scene": r["scene"], "error": r["error"]} for r in tally.failed],
        "failed_before": [{"scene": r["scene"], "error": r["error"]} for r in tally.earlier],
        "left_over": left,
        "seconds": time.monotonic() - tally.started,
        "scenes_per_hour": tally.per_hour or None,
    }


def sentence(facts: Mapping[str, Any]) -> str:
    """The outcome in one line."""
    parts = [f"{facts['done']} done", *([f"{facts['done_before']} done before"] if facts["done_before"] else [])]
    for key in ("failed", "failed_before"):
        parts += [f"{len(facts[key])} {key.replace('_', ' ')}"] if facts[key] else []
    speed = f", {facts['scenes_per_hour']:.0f} an hour" if facts["scenes_per_hour"] else ""
    return f"{facts['scenes']} scenes: {', '.join(parts)}{speed}; {facts['log']}"
