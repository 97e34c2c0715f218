"""What a batch is to do: the scenes' outputs, which of them are done, and what keeps others from being done."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import platform
import re
import sys
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from .. import device, untrusted
from ..classical import NAMES as CLASSICAL
from ..columns import counted
from ..errors import InputError
from ..fusion.options import Options, check_method
from ..jobs.picture import Request, path_beside
from ..jobs.request import check_name
from ..models import weights
from ..publish import PARTIAL, Listing, family, misleading, owner_of, read_own
from ..raster import sensors
from ..raster.creation import check_creation_options, parse_creation_options
from ..raster.options import OpenOptions
from ..report import index
from ..report.facts import BatchPlan, LeftOver, PlannedScene, Record
from .batch_log import LEFT, LOCK, LOG, REPORTS, SCHEMA, TIME_STEP, read_log
from .mosaic import lacking, read_with
from .names import CONTAINERS, Found, RasterFiles
from .tar_zip import archive_of

TEMPLATE = "{folder}/{name}.tif"
NAME_BYTES, PATH_BYTES = 230, 3900
"""Most bytes of a part of an output's path, and of the whole: the system's, less room for suffixes."""

REFUSED = "refused: "
"""So begins the state of a scene that nothing can be written for."""

PRINT_BYTES = 1 << 16
"""Of a part of a file by which it is known again."""


@dataclass(frozen=True)
class Choices:
    """Options that all scenes of a batch share. `html`: a page for each scene; `fit_by`: which scenes share a fit;
    `rgb`: an 8-bit picture beside each output."""

    options: Options = Options()
    opening: OpenOptions = OpenOptions()
    driver: str = "GTiff"
    creation_options: tuple[str, ...] = ()
    overviews: bool | None = None
    score: bool = True
    html: bool = False
    command: str | None = None
    fit_by: str = "scene"
    rgb: Request | None = None

    def check(self, here: bool = True) -> None:
        """Raises InputError for what no scene could be fused with. `here`: on this machine."""
        check_method(self.options)
        if here or not re.fullmatch(r"cuda(:\d+)?|mps", self.options.device):
            device.choose_device(self.options.device)
        self._check_creation_options()
        if self.opening.sensor != "auto":
            sensors.named(self.opening.sensor)
        if self.rgb is not None:
            self.rgb.check_kept()

    def _check_creation_options(self) -> None:
        """Raises InputError if they do for no kind of scene; what a scene is like shows when it is opened."""
        options = parse_creation_options(self.creation_options)
        dtype, bidx = self.opening.dtype, self.opening.bidx
        refused = []
        dtypes, counts = [dtype] if dtype else ["uint16", "uint8", "float32"], [len(bidx)] if bidx else [4, 3, 1]
        for dtype, count in itertools.product(dtypes, counts):
            try:
                check_creation_options(self.driver, options, count, np.dtype(dtype), 0)
                return
            except InputError as error:
                refused.append(error)
        raise refused[0]

    def _stretch(self, rgb: Request) -> str:
        """What pictures are stretched by: what is in a file, once it is there."""
        if rgb.kept_in is not None and rgb.kept_in.is_file():
            return hashlib.sha256(untrusted.read_bytes(rgb.kept_in, untrusted.MOST_SIDE)).hexdigest()
        return rgb.stretch if rgb.kept_in is None else rgb.kept_in.name

    @property
    def files(self) -> list[str]:
        """Files that all scenes are fused with."""
        named = (self.opening.dem, self.options.weights, self.options.fit)
        return read_with([path for path in named if path is not None and os.path.isfile(path)])

    def digest(self, sensor: str = "") -> str:
        """A hash of all that the output's bytes depend on, but for the inputs."""
        options = {k: v for k, v in asdict(self.options).items() if k not in ("tile_size", "weights")}
        if self.options.method not in CLASSICAL:
            cards = weights.cards(self.options.method, self.options.weights)
            options["weights"] = [[c.sha256, c.config, c.scale] for c in cards]
        known: list[Any] = [options, asdict(self.opening) | ({"sensor": sensor} if sensor else {})]
        known += [self.driver, self.creation_options, self.overviews]
        known += [self.fit_by] if self.fit_by != "scene" else []
        if self.opening.dem is not None:
            known += [file_stamp(p) for p in read_with([self.opening.dem])]
        if self.rgb is not None:
            known += [list(self.rgb.bands), self._stretch(self.rgb)]
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Task:
    """A scene with its outputs; `scene` is the output's path in the output folder, `inputs` what the log says of it.

    `refused`: why nothing can be written for it. Without an output of its own, its PAN's path is its `scene`. `fit`:
    the file of the fit that it shares with others; `lent`: of each of its files, those of others that go on beyond its
    ends; `picture`: its 8-bit picture; `prints`: the files that a worker of another machine is to know again, each with
    its fingerprint; `stands`: size and time of what was at its outputs when the batch began, by name, if nothing else
    may be replaced.
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
    fit: Path | None = None
    lent: tuple[RasterFiles, ...] = ()
    picture: Path | None = None
    prints: tuple[tuple[str, str], ...] = ()
    stands: Mapping[str, list | None] | None = None

    @property
    def outputs(self) -> list[Path]:
        every = (self.output, self.report, self.quicklook, self.page, self.picture)
        return [p for p in every if p is not None]

    def name_of(self, path: Path) -> str:
        """An output's path in the output folder."""
        return path.relative_to(self.output.parents[len(PurePosixPath(self.scene).parts) - 1]).as_posix()

    def identity(self) -> dict[str, Any]:
        """What the log and the report say of it."""
        page = {} if self.page is None else {"page": self.name_of(self.page)}
        return {"scene": self.scene, "inputs": list(self.inputs), "options": self.options} | page


def plan(
    scenes: Sequence[Found], folder: Path | None, choices: Choices, template: str = TEMPLATE, look: bool = False
) -> list[Task]:
    """The tasks of scenes, each once. A scene without an output of its own is refused. Without a folder (a dry run),
    the tasks are those of a new one. `look`: those of which a file is missing are refused, too, not left to fail.
    Raises InputError for a template that is none."""
    check_template(template)
    listing = Listing()
    if folder is not None:
        check_name(folder)
    base = Path(os.path.realpath(folder if folder is not None else PARTIAL + "none"))
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
        stamps = tuple(file_stamp(p) for p in read_with(found.files, listing))
        task = Task(
            found.pan[0] if refused else str(name), found, output, report_path, quicklook,
            page if choices.html else None, digests[found.sensor], stamps, refused,
            picture=path_beside(output) if choices.rgb is not None else None,
        )  # fmt: skip
        if refused:
            nameless.append(task)
        elif (key := (output, found.pan, found.ms, found.sensor)) not in tasks:
            tasks[key] = task
            sharing[_place_of(output)].append(task)
    files = {base / name for name in (LOG, LOCK, LEFT, index.PAGE)} | {p for t in tasks.values() for p in t.outputs}
    folders = {folder for path in files for folder in path.parents}
    read = {os.path.realpath(i["path"]) for task in tasks.values() for i in task.inputs}
    read |= {owner_of(path) for path in read}  # what a side file belongs to is not replaced either

    written = {t.output for t in tasks.values()}

    def judged(task: Task) -> Task:
        if task.picture in written:
            return replace(task, refused=f"its picture would be {task.picture}, the output of another scene")
        if other := next((t for t in sharing[_place_of(task.output)] if t is not task), None):
            return replace(task, scene=task.found.pan[0], refused=_shared(task, other))
        why = _in_the_way(task, base, files, folders, read, listing)
        return replace(task, refused=lacking([task.found.pan, *task.found.ms]) if look and not why else why)

    return [*map(judged, tasks.values()), *nameless]


def _place_of(path: Path) -> Path:
    """What two names of one file have in common, where case does not count."""
    return Path(str(path).casefold()) if sys.platform in ("win32", "darwin") else path


def _shared(task: Task, other: Task) -> str:
    one, two = task.found, other.found
    if (one.pan, one.ms) == (two.pan, two.ms):
        return f"it is named twice, with the sensors '{one.sensor}' and '{two.sensor}'"
    return (
        f"{two.ms[0][0] if one.pan == two.pan else two.pan[0]} would be written to {task.scene}, too: name the folder "
        "above them as SOURCE, or use --template, for example with {pan} or {date}"
    )


def _in_the_way(
    task: Task, base: Path, files: Collection[Path], folders: Collection[Path], read: Collection[str], listing: Listing
) -> str:
    """Why a scene's outputs cannot be written; empty if they can. `files`, `folders`: what all scenes would make;
    `read`: real paths of all inputs."""
    outputs = {path: os.path.realpath(path) for path in task.outputs}
    for path, real in outputs.items():
        if both := [p for p in (path, *path.parents) if p in files and p in folders]:
            return f"{both[0].relative_to(base)} would be a file and a folder; give a scene another name"
        if os.path.isdir(path):
            return f"{path} is a folder, and a file is to be written there; move it, or use --template"
        if not Path(real).is_relative_to(base):
            return f"{path} leads out of the output folder through a link; remove the link"
    for path, real in outputs.items():
        if real in read:
            return f"{path}, or a part of it, is one of the inputs; choose another output folder"
    for path in misleading(task.output, listing):
        return f"{path} would be read with {task.output.name}, which it does not describe; use --template"
    return ""


KEYS = ("folder", "name", "pan", "ms", "method", "date")


def check_template(template: str) -> None:
    """Raises InputError for a template that does not name GeoTIFFs in the output folder."""
    for key in re.findall(r"\{(.*?)\}", template):
        if key not in KEYS:
            raise InputError(f"--template knows {', '.join('{' + k + '}' for k in KEYS)}, not '{{{key}}}'")
    if re.search("[{}]", re.sub(r"\{(.*?)\}", "", template)):
        raise InputError(f"--template {template!r} has a brace without its partner")
    path = PurePosixPath(template)
    if re.search(r"[\x00-\x1f\x7f]", template):
        raise InputError(f"--template {template!r} holds a control character")
    if path.suffix.lower() not in (".tif", ".tiff") or template.endswith("/"):
        raise InputError(f"--template takes a name that ends in .tif, not '{template}'")
    if ".." in path.parts or path.is_absolute():
        raise InputError(f"--template '{template}' leads out of the output folder")


_NOT_OF_WINDOWS = re.compile(r'[<>:"|?*]|[. ]$|^(con|prn|aux|nul|(com|lpt)[0-9¹²³]) *(\.|$)', re.IGNORECASE)
"""Signs, ends and names of devices."""


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
            long = len(part.encode()) > NAME_BYTES
        except UnicodeEncodeError as error:
            raise InputError(
                f"the name {ascii(part)} is no text in UTF-8; use --template, or rename the files"
            ) from error
        if long:
            raise InputError(f"the name '{part[:60]}...' is longer than {NAME_BYTES} bytes")
        if sys.platform == "win32" and _NOT_OF_WINDOWS.search(part):
            raise InputError(f"the name '{part}' is none on Windows; use --template, or rename the files")
    return path


def file_stamp(path: str) -> dict[str, Any]:
    """Size and time of a file, or of the archive that it is in; None for what is missing or no file of this machine."""
    try:
        known = os.stat(archive_of(path))
        return {"path": path, "size": known.st_size, "mtime": known.st_mtime_ns / 1e9}
    except (OSError, ValueError):
        return {"path": path, "size": None, "mtime": None}


def fingerprint(path: str) -> str:
    """A hash of a file's beginning, middle and end, or of those of the archive that it is in; empty for what is missing
    or no file of this machine."""
    try:
        with untrusted.opened(archive_of(path), sys.maxsize) as file:
            size = os.fstat(file.fileno()).st_size
            parts = []
            for place in (0, (size - PRINT_BYTES) // 2, size - PRINT_BYTES):
                file.seek(max(0, place))
                parts.append(file.read(PRINT_BYTES))
            return hashlib.sha256(b"".join(parts)).hexdigest()
    except (InputError, OSError, ValueError):
        return ""


def with_prints(task: Task, files: Sequence[tuple[str, str]]) -> Task:
    """A task for another machine; `files`: those that all scenes are fused with."""
    lent = (name for layer in task.lent for name in layer)
    return replace(task, prints=(*prints_of([*(i["path"] for i in task.inputs), *lent]), *files))


def prints_of(files: Sequence[str]) -> list[tuple[str, str]]:
    """Files of this machine with their fingerprints."""
    return [(file, known) for file in dict.fromkeys(files) if (known := fingerprint(file))]


def seen_otherwise(task: Task) -> str:
    """Which input is now, and on this machine, another file than the one that was planned, by size, time or parts of
    its content; nothing if none is."""
    for planned in task.inputs:
        if planned["size"] is None:
            continue
        own = file_stamp(planned["path"])
        if own["size"] != planned["size"] or abs(own["mtime"] - planned["mtime"]) > TIME_STEP:
            return _another(planned["path"], _told(own), _told(planned))
    for path, known in task.prints:
        if fingerprint(path) != known:
            return _another(path, _content(fingerprint(path)), _content(known))
    return ""


def _content(known: str) -> str:
    return f"content {known[:8]}" if known else "missing"


def _another(path: str, own: str, planned: str) -> str:
    return (
        f"{path} is another file on the worker {platform.node()} ({own}) than the batch was planned with ({planned}): "
        "the next run tries the scene again"
    )


def _told(stamp: dict[str, Any]) -> str:
    if stamp["size"] is None:
        return "missing"
    return f"{stamp['size']:,} bytes of {datetime.fromtimestamp(stamp['mtime'], UTC):%Y-%m-%d %H:%M:%S} UTC"


def reason_to_run(task: Task, record: Record | None, retry_failed: bool = False) -> str | None:
    """Why a scene has to be fused: new, interrupted, changed, failed or missing; None if it does not have to be."""
    if record is None or task.refused or record.refused:
        return "new"
    if record.status == "started":
        return "interrupted"
    if list(task.inputs) != record.inputs or task.options != record.options:
        return "changed"
    if record.has_failed:
        return "failed" if retry_failed else None
    if task.page is not None and not record.page:  # one that is there is of an earlier output
        return "missing"
    there = {path: found.st_size for path, found in existing_outputs(task).items()}
    return None if len(there) == len(task.outputs) and there[task.output] == record.bytes else "missing"


def existing_outputs(task: Task) -> dict[Path, os.stat_result]:
    """Those of a scene's outputs that exist."""
    return _existing(task.outputs)


def _existing(paths: Iterable[Path]) -> dict[Path, os.stat_result]:
    found = {}
    for path in paths:
        with suppress(OSError, ValueError):
            found[path] = path.stat()
    return found


_UNREADABLE = (InputError, OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""What reading a report raises that is none of ours."""


def stamps_of(found: Mapping[Path, os.stat_result], task: Task) -> dict[str, list | None]:
    """Size and time of a scene's outputs, as the log keeps them."""
    return {task.name_of(path): [each.st_size, each.st_mtime] for path, each in found.items()}


def keeps(task: Task, path: Path) -> bool:
    """Whether a file that is at one of a scene's outputs stays: it has come or changed since the batch began, and not
    by a worker of the batch that was lost."""
    stands, there, name = task.stands, existing_outputs(task), task.name_of(path) if path in task.outputs else ""
    if stands is None or not name or (name in stands and _is_still(there.get(path), stands[name])):
        return False
    return path not in _told_by_report(task, there, stands, copied=False)


def kept_back(task: Task, record: Record | None, listing: Listing | None = None) -> str:
    """Why a scene may not replace what is at its outputs without --overwrite; empty if it may."""
    if (other := source_of_another(task, record)) and existing_outputs(task):
        return (
            f"{task.scene} was made of {other}, and not of {task.found.pan[0]}: use --template or another -o, or "
            "--overwrite to replace it"
        )
    file = foreign_file(task, record, listing)
    if file is None or file in task.outputs:
        return f"{file} exists, and {LOG} does not know it as it is; use --overwrite to replace it" if file else ""
    return f"{file} is there without the file that it would be read as a part of; remove it or use --overwrite"


def source_of_another(task: Task, record: Record | None) -> str:
    """The PAN of another scene, whose files the record tells of; empty if they are the task's own."""
    return _of_another(task, record.inputs) if record is not None and record.made else ""


def _of_another(task: Task, inputs: Any) -> str:
    """The first of the inputs that log or report tell of, if none is at a path of the task's, and these are not the
    same files that were moved, by size and time. Addresses are compared without what follows a `?`: it may be signed
    anew."""

    def is_there(file: Mapping[str, Any]) -> bool:
        times = (
            i["mtime"] - file["mtime"] for i in inputs if None not in (i["size"], file["size"]) and _alike(i, file)
        )
        return any(abs(seconds) <= TIME_STEP for seconds in times)

    try:
        at_one_path = {_address(i["path"]) for i in inputs} & {_address(i["path"]) for i in task.inputs}
        return "" if not inputs or at_one_path or all(map(is_there, task.inputs)) else str(inputs[0]["path"])
    except _UNREADABLE:
        return ""


def _alike(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a file may have been moved: of one size, and not both there."""
    moved = not os.path.exists(before["path"]) or os.path.samefile(archive_of(before["path"]), archive_of(now["path"]))
    return moved and before["size"] == now["size"]


def _address(path: str) -> str:
    return path.partition("?")[0] if "://" in path else path


def foreign_file(task: Task, record: Record | None, listing: Listing | None = None) -> Path | None:
    """A file at a scene's outputs that no batch has written as it is, as far as log and report tell.

    The log knows them by size and time. The report is asked where the log may not know of the last publication: that of
    a scene in flight when the batch was stopped, of a log that lost lines. It is asked, too, where no file has the time
    that it had, as in a copied folder.
    """
    there, logged = existing_outputs(task), (record.made if record is not None else None) or {}
    own = {p for p in task.outputs if (name := task.name_of(p)) in logged and _is_still(there.get(p), logged[name])}
    if not own.issuperset(there):
        own |= _told_by_report(task, there, logged, own.isdisjoint(there))
    looked_at = [output for output in task.outputs if output not in own or output not in there]
    unknown = (p for output in looked_at for p in (output, *family(output, listing)))
    return next((p for p in unknown if os.path.lexists(p)), None)


def left_beside(task: Task, record: Record, folder: Path) -> list[Path]:
    """Files that earlier runs have made for a scene, and that its last one has not."""
    names = {*map(task.name_of, task.outputs)}
    others = {folder / name: stamp for name, stamp in (record.made or {}).items() if name not in names}
    return [path for path, found in _existing(others).items() if _is_still(found, others[path])]


def _is_still(found: os.stat_result | None, stamp: list | None) -> bool:
    """Is a file, if it is there, as it was published?"""
    if found is None or stamp is None:
        return found is None
    return found.st_size == stamp[0] and abs(found.st_mtime - stamp[1]) <= TIME_STEP


def _told_by_report(
    task: Task, there: Mapping[Path, os.stat_result], logged: Mapping[str, list | None], copied: bool
) -> set[Path]:
    """The files that were published with a scene's report, as it tells: it is made last and published first.

    Of a report that the log knows, they have the sizes that the log knows, and are asked for only if they are `copied`.
    One that is older than the log's is of no later batch.
    """
    try:
        facts, until = json.loads(read_own(task.report, 1 << 24)), task.report.stat().st_mtime
        known = logged.get(task.name_of(task.report))
        is_new = known is None or facts["batch"].get("begun", -math.inf) > known[1]
        if facts["batch"]["scene"] != task.scene or _of_another(task, facts["batch"]["inputs"]):
            return set()
        if not (is_new or copied):
            return set()
        sizes: dict[Path, int | None] = {task.report: None, task.quicklook: None, task.output: facts["output"]["bytes"]}
        if task.page is not None and facts["batch"].get("page") == task.name_of(task.page):
            sizes[task.page] = None
        if task.picture is not None and facts.get("rgb") and Path(facts["rgb"]["path"]).name == task.picture.name:
            sizes[task.picture] = facts["rgb"]["bytes"]
    except _UNREADABLE:
        return set()

    def is_of_it(path: Path, size: int | None) -> bool:
        found, stamp = there.get(path), logged.get(task.name_of(path))
        if found is None:
            return True
        before, since = stamp if stamp is not None else (None, -math.inf)
        fits = {size, None if is_new else before} <= {found.st_size, None}
        return fits and since - TIME_STEP <= found.st_mtime <= until + TIME_STEP

    return {path for path, size in sizes.items() if is_of_it(path, size)}


def dry_run(
    tasks: Sequence[Task], folder: Path | None, left: Sequence[LeftOver], retry_failed: bool, overwrite: bool = False
) -> BatchPlan:
    """What `run` would do with the scenes, and the files that are in none."""
    records = read_log(folder) if folder is not None and os.path.lexists(folder / LOG) else {}
    listing = Listing()

    def state(task: Task) -> str:
        if task.refused:
            return REFUSED + task.refused
        record = records.get(task.scene)
        reason = reason_to_run(task, record, retry_failed)
        if reason and not overwrite and (why := kept_back(task, record, listing)):
            return f"{reason}, but needs --overwrite: {why}"
        return reason or f"{record.status if record else ''} before"

    scenes = []
    for task in tasks:
        found, fit = task.found, None if task.fit is None else task.fit.name
        further, ms = (
            [list(layer) for layer in part] for part in (found.ms[: found.further_pans], found.ms[found.further_pans :])
        )
        scenes.append(PlannedScene(task.scene, list(found.pan), ms, found.rule, state(task), fit, further))
    return BatchPlan(SCHEMA, None if folder is None else str(folder), scenes, list(left))


def listing(plan: BatchPlan) -> str:
    """`dry_run` as text: outputs with their files, then what is left over."""

    def shown(layers: Sequence[Sequence[str]]) -> str:
        first = [p.removeprefix(f"{os.getcwd()}/") for p in (layer[0] for layer in layers)]
        tiles = len([p for p in layers[0] if not p.lower().endswith(CONTAINERS)])
        more = f" and {counted(len(first) - 1, 'more file')}" if len(first) > 1 else ""
        return first[0] + more + (f" ({tiles} tiles)" if tiles > 1 else "")

    lines = []
    for scene in plan.scenes:
        lines.append(f"{scene.output}  ({scene.state}, paired by {scene.paired_by})")
        lines.append(f"  PAN  {shown([scene.pan, *scene.pan_beside])}")
        lines.append(f"  MS   {shown(scene.ms)}")
        lines += [f"  fit  {scene.fit}"] if scene.fit else []
    lines += ["", "left over:"] if plan.left_over else []
    lines += [f"  {each.path}: {each.reason}" for each in plan.left_over]
    refused = sum(scene.state.startswith(REFUSED) for scene in plan.scenes)
    of_them = f" ({refused} refused)" if refused else ""
    counts = f"{counted(len(plan.scenes), 'pair')}{of_them}, {counted(len(plan.left_over), 'file')} left over"
    return "\n".join([*lines, "", counts]).lstrip("\n")
