"""The output folder of a batch: its lock, its log, the list of what was left over."""

from __future__ import annotations

import errno
import json
import os
import platform
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_type_hints

from .. import untrusted
from ..errors import InputError, PansharpenError
from ..publish import PARTIAL, check_own, fcntl, open_own, read_own, write, writing
from ..publish import sweep as sweep_one
from ..report.facts import LeftOver, Record, plain

SCHEMA = "pansharpen-batch/1"
LOG_BYTES = 1 << 30
"""Largest log that is read."""
_HEAD = f'{{"schema": "{SCHEMA}"'.encode()
_LINE, _MOST_UNREAD = re.compile(rb"\S[^\n]*"), 1000
"""A line that is not empty, and how many that hold no JSON a log may have."""
TIME_STEP = 2
"""Seconds to which disks and archives keep the time of a file."""
LOG, LOCK, LEFT, REPORTS = "batch.jsonl", "batch.lock", "left-over.json", "reports"

_NO_LOCKS = errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP
"""What file systems of clusters say that have no locks."""
_HOLDER = re.compile(rb"process \d+ on .*, since [-\d: ]+ UTC\s*")
"""What a batch that runs, or was killed, leaves in its lock."""


@contextmanager
def locked(folder: Path) -> Iterator[Callable[[], bool]]:
    """Holds the output folder for this process; the system lets go of it however the process ends.

    Yields a function that tells whether the folder is still the one that was locked. Where the system (Windows) or the
    file system has no such locks, nothing keeps two batches apart. Raises InputError if another process holds it,
    PansharpenError if it cannot be locked.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(open_own(path, os.O_RDWR | os.O_CREAT), "r+b", 0)  # noqa: SIM115 - closed below
    except OSError as error:
        raise InputError(f"cannot write in {folder}: {error.strerror}") from error
    with file:
        content = file.read(500)
        if content and not _HOLDER.fullmatch(content):
            raise InputError(f"{path} is not a file of pansharpen; move it, or choose another output folder")
        _lock(file.fileno(), folder, content)
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        with writing(path):
            file.seek(0)
            file.truncate()
            file.write(f"process {os.getpid()} on {platform.node()}, since {now}\n".encode())

        def same() -> bool:
            try:
                return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
            except (OSError, ValueError):  # it may be closed
                return False

        yield same
        file.truncate(0)


def _lock(handle: int, folder: Path, holder: bytes) -> None:
    if fcntl is None:  # Windows
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        who = " ".join(holder.decode(errors="replace").split())
        raise InputError(f"{folder} is in use by another batch ({who}); wait for it or use another folder") from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise PansharpenError(f"cannot lock {folder / LOCK}: {error.strerror}") from error


def sweep(folder: Path) -> None:
    """Remove temporary folders of killed processes; to be called under the lock. Skips folders that hold another
    batch's lock."""
    for here, folders, names in os.walk(folder):
        if LOCK in names and Path(here) != folder:
            folders.clear()
            continue
        for name in [n for n in folders if n.startswith(PARTIAL)]:
            sweep_one(Path(here, name))
        folders[:] = [n for n in folders if not n.startswith(PARTIAL)]


def _is_log(content: bytes) -> bool:
    """Is it of a batch of this version? Its lines say so; those that crashes have cut off say nothing, but are few."""
    ours, unread = False, 0
    for found in _LINE.finditer(content):
        try:
            record = json.loads(found[0][: untrusted.MOST_LINE].decode("utf-8-sig"))  # of bytes UTF-16 is guessed
        except (ValueError, RecursionError):
            unread += 1
            if unread > _MOST_UNREAD:
                return False
            continue
        if not (isinstance(record, dict) and record.get("schema") == SCHEMA):
            return False
        ours = True
    return ours or _HEAD.startswith(content[: len(_HEAD)])


def read_log(folder: Path) -> dict[str, Record]:
    """The last record of each scene; a line that was cut off when the machine stopped does not count. Raises InputError
    if there is no log, or a file of that name that is none."""
    path = folder / LOG
    content = read_own(path, LOG_BYTES)
    if not _is_log(content):
        raise InputError(f"{path} is not the log of a batch of this version; move it, or choose another output folder")
    records: dict[str, Record] = {}
    for _, line in untrusted.json_lines(content.decode("utf-8", "replace")):
        with suppress(ValueError, RecursionError):
            record = _record_of(untrusted.parse_json(line), folder) if len(line) <= untrusted.MOST_LINE else None
            if record is not None:
                records[record.scene] = record
    return records


_TYPES = {name: kind for name, kind in get_type_hints(Record).items() if name != "others"}
_TYPES |= {"figures": dict | None, "verdict": dict | None, "made": dict | list}  # by whatever keys


def _record_of(line: Any, folder: Path) -> Record | None:
    """A line as a record, if a batch may have written it: anyone may have written another one."""
    if (
        not isinstance(line, dict)
        or not {"scene", "status"} <= line.keys()
        or not all(isinstance(line[k], kind) for k, kind in _TYPES.items() if k in line)
        or not all(abs(line.get(k) or 0) < 1e15 for k in ("seconds", "rows", "cols", "valid_pixels", "mtime"))
        or line["status"] not in ("started", "done", "failed")
    ):
        return None
    others = {k: v for k, v in line.items() if k not in _TYPES}
    known = {"schema": SCHEMA} | {k: v for k, v in line.items() if k in _TYPES}
    return Record(**known | {"made": _made(line, folder) or None}, others=others)


def _made(line: dict[str, Any], folder: Path) -> dict[str, list | None]:
    """Size and time of each file that a batch has made for a scene. Of files beside the output, lines of an earlier
    version tell names only: they are taken as they are now, if they are not newer than the report, which was made last.
    """
    if isinstance(line.get("made"), dict):
        return {name: stamp if _is_stamp(stamp) else None for name, stamp in line["made"].items()}
    names = {*(line.get("made") or ()), *(line.get(key) for key in ("report", "quicklook", "page"))}
    made = {name: _stamp(folder, name) for name in names if isinstance(name, str)}
    report = made.get(line.get("report") or "")
    if report is not None:
        made = {name: s if s is not None and s[1] <= report[1] + TIME_STEP else None for name, s in made.items()}
    if line.get("bytes") is not None:
        _, now = _stamp(folder, line["scene"]) or (None, 0)
        made[line["scene"]] = [line["bytes"], line.get("mtime") or now]
    return made


def _is_stamp(stamp: Any) -> bool:
    return (
        isinstance(stamp, list) and len(stamp) == 2 and all(isinstance(n, int | float) and abs(n) < 1e15 for n in stamp)
    )


def _stamp(folder: Path, name: str) -> list | None:
    try:
        found = os.stat(folder / name)
    except (OSError, ValueError):
        return None
    return [found.st_size, found.st_mtime]


class Log:
    """`batch.jsonl`: a line is added when a scene starts and when it ends; in the end each scene has one."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOG
        self.records = read_log(folder) if os.path.lexists(self.path) else {}
        self.settle()

    def add(self, record: Record) -> None:
        """On the disk when this returns."""
        self.records[record.scene] = record
        with writing(self.path), open(open_own(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "wb", 0) as file:
            file.write(_line(record))
            os.fsync(file)

    def settle(self) -> None:
        """Leave the last line of each scene, in a file of its own: a backup may share a log by a hard link."""
        content = b"".join(map(_line, self.records.values()))
        there = os.path.lexists(self.path)
        if there and os.lstat(self.path).st_nlink <= 1 and read_own(self.path, LOG_BYTES) == content:
            return
        write(self.path, content)


def read_left(folder: Path) -> list[LeftOver]:
    """Files that the last run left over, and why; none if it left no list of them that can be read."""
    with suppress(InputError, ValueError, RecursionError, KeyError, TypeError):
        listed = untrusted.parse_json(read_own(folder / LEFT, untrusted.MOST_TEXT).decode("utf-8", "replace"))
        return [LeftOver(str(each["path"]), str(each["reason"])) for each in listed["left_over"]]
    return []


def keep_left(folder: Path, left: Sequence[LeftOver]) -> None:
    """Write what is left over, for the page; nothing where nothing is and was."""
    path = folder / LEFT
    if left or os.path.lexists(path):
        check_own(path, lambda content: content.startswith(_HEAD) or not content)
        listed = {"schema": SCHEMA, "left_over": plain(left)}
        write(path, json.dumps(listed).encode("utf-8", "replace"))


def _line(record: Record) -> bytes:
    return json.dumps(plain(record), allow_nan=False).encode() + b"\n"
