"""Worker processes that may fail, hang or be killed: each task's end is told, and the others go on."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

import psutil

from .. import interrupts, publish
from ..errors import PansharpenError
from ..progress import Progress

TICK = 0.25
"""Seconds between looks at time limits and memory."""
FALSE_STARTS = 3
"""Workers in a row that may end before they are ready."""

Function = Callable[[Any, Progress], Any]
Prepare = Callable[[int], Function]
"""Called once in each worker with its number; returns the function that its tasks are given to."""

spawn_alone = threading.Event()
"""Workers start by themselves: the process that they are made of on Linux could not start. Its socket's name may be too
long for the system, in a deep folder for temporary files."""


def start_ahead(module: str) -> None:
    """On Linux, let the process that workers are made of import a module from now on, beside what the caller does.

    Later it would do so when the first worker is started. Signals, which reach the whole group, end neither it nor the
    workers: that is left to this process.
    """
    context = _context()
    if context.get_start_method() == "forkserver":
        from multiprocessing import forkserver, resource_tracker

        context.set_forkserver_preload([module])
        resource_tracker.ensure_running()  # as it starts, it lets SIGINT and SIGTERM through
        before = signal.pthread_sigmask(signal.SIG_BLOCK, interrupts.SIGNALS)
        try:
            forkserver.ensure_running()
        except OSError:
            spawn_alone.set()
            return
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        interrupts.end_with_us(_end_forkserver)


def _end_forkserver() -> None:
    """While it imports, it would not notice that nobody needs it, and keep stderr open."""
    from multiprocessing import forkserver

    pid = getattr(forkserver._forkserver, "_forkserver_pid", None)
    if pid is not None:
        os.kill(pid, signal.SIGKILL)


def _context() -> Any:
    """How workers are started."""
    methods = multiprocessing.get_all_start_methods()
    forked = sys.platform == "linux" and "forkserver" in methods and not spawn_alone.is_set()
    return multiprocessing.get_context("forkserver" if forked else "spawn")


@dataclass(frozen=True)
class Event:
    """What happened to a task. `kind`: started, progress, done (`result` is the function's), failed (`result` is the
    reason), refused (not tried), or waiting (to run alone)."""

    kind: str
    task: Any
    worker: int | str
    result: Any = None
    seconds: float = 0.0


@dataclass
class _Worker:
    number: int
    process: Any
    connection: Connection
    ready: bool = False
    task: Any = None
    since: float = 0.0


@dataclass
class Pool:
    """Runs tasks in up to `jobs` processes, each set up once by `setup`, a callable that can be pickled.

    A task may take `timeout` seconds. All workers together may hold `memory` bytes: beyond, the largest one is ended
    and its task tried again alone, when all others are done.
    """

    setup: Prepare
    jobs: int
    timeout: float | None = None
    memory: int | None = None
    workers: list[_Worker] = field(default_factory=list)

    def run(self, tasks: Sequence[Any]) -> Iterator[Event]:
        """Events as they come. Closing the iterator, or an error, ends all workers.

        Raises PansharpenError if workers cannot be started.
        """
        queue, alone = deque(tasks), deque[Any]()
        false_starts = 0
        try:
            while queue or alone or any(w.task is not None for w in self.workers):
                busy = sum(w.task is not None for w in self.workers)
                while len(self.workers) < min(self.jobs, max(1, busy + len(queue))):
                    self.workers.append(self._started())
                for worker in list(self.workers):
                    source = queue or (alone if busy == 0 else None)
                    if worker.ready and worker.task is None and source:
                        if source is alone:
                            for idle in [w for w in self.workers if w is not worker]:
                                self._end(idle)
                        worker.task, worker.since = source.popleft(), time.monotonic()
                        busy += 1
                        with suppress(OSError):  # it has just died: seen below
                            worker.connection.send(worker.task)
                        yield Event("started", worker.task, worker.number)
                for event in self._heard():
                    if event.kind == "ended":
                        false_starts += 1
                        if false_starts == FALSE_STARTS:
                            raise PansharpenError(f"the workers cannot be started: {event.result}")
                    else:
                        false_starts = 0
                        yield event
                if (large := self._beyond_memory()) is not None:
                    task, number, seconds = large.task, large.number, time.monotonic() - large.since
                    shared = len(self.workers) > 1
                    self._end(large)
                    if shared:
                        alone.append(task)
                        yield Event("waiting", task, number, "needs more memory: tried again alone, at the end")
                    else:
                        reason = f"needed more than the {(self.memory or 0) / 1e9:.3g} GB of --ram"
                        yield Event("failed", task, number, reason, seconds)
        finally:
            for worker in list(self.workers):
                self._end(worker)

    def _started(self) -> _Worker:
        start_ahead(getattr(self.setup, "func", self.setup).__module__)  # a new worker is there at once
        context = _context()
        number = next(n for n in range(len(self.workers) + 1) if n not in {w.number for w in self.workers})
        mine, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, self.setup, number), daemon=True)
        process.start()
        theirs.close()
        return _Worker(number, process, mine)

    def _heard(self) -> Iterator[Event]:
        """What the workers say within a tick, and which of them are no more."""
        ready = wait([w.connection for w in self.workers], TICK)
        now = time.monotonic()
        for worker in list(self.workers):
            seconds = now - worker.since
            try:
                while worker.connection in ready and worker.connection.poll():
                    kind, content = worker.connection.recv()
                    if kind == "ready":
                        worker.ready = True
                    elif kind == "broken":
                        raise PansharpenError(content)
                    elif worker.task is not None:
                        task = worker.task
                        if kind != "progress":
                            worker.task = None
                        yield Event(kind, task, worker.number, content, seconds)
            except (EOFError, OSError):
                worker.process.join(5)
                reason = reason_of_end(worker.process.exitcode)
                task = worker.task
                self._end(worker)
                yield Event("ended" if task is None else "failed", task, worker.number, reason, seconds)
                continue
            if worker.task is not None and self.timeout is not None and seconds > self.timeout:
                task = worker.task
                self._end(worker)
                yield Event("failed", task, worker.number, f"timed out after {self.timeout:g} s", seconds)

    def _beyond_memory(self) -> _Worker | None:
        """The largest busy worker if all together hold more than they may."""
        if self.memory is None:
            return None
        held = [(resident(w.process.pid), w) for w in self.workers]
        if sum(size for size, _ in held) <= self.memory:
            return None
        busy = [(size, w.number, w) for size, w in held if w.task is not None]
        return max(busy)[2] if busy else None

    def _end(self, worker: _Worker) -> None:
        """Kill: a worker that hangs in a library does not listen to anything less."""
        self.workers.remove(worker)
        worker.process.kill()
        worker.process.join()
        with suppress(psutil.Error):  # where what they are made of was killed, that ends before they do
            psutil.Process(worker.process.pid).wait(5)
        worker.process.close()
        worker.connection.close()


def reason_of_end(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        memory = ": out of memory? (fewer --jobs, a smaller --tile-size)" if name == "SIGKILL" else ""
        return f"its process was killed by the system ({name}){memory}"
    return f"its process ended by itself (exit code {code})"


def resident(pid: int) -> int:
    """Bytes of memory that a process holds, for itself where the system (Linux) tells that; 0 for one that is gone."""
    try:
        held = psutil.Process(pid).memory_info()
        return held.rss - getattr(held, "shared", 0)
    except psutil.Error:
        return 0


def _work(connection: Connection, setup: Prepare, number: int) -> None:
    """A worker's life: set up, then one task after the other until the pipe is closed."""
    interrupts.leave_to_parent()
    warnings.simplefilter("ignore")  # libraries' remarks; what concerns the user is in the results
    parent = multiprocessing.parent_process()
    if parent is not None:  # killed without a word, it must not leave us at work behind the next batch's back
        threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    try:
        function = setup(number)
    except PansharpenError as error:
        connection.send(("broken", str(error)))
        return
    if "--debug" not in sys.argv:  # libtiff's own lines about a full disk; the reason is in the outcome
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    connection.send(("ready", None))
    tell = now_and_then(lambda *how_far: connection.send(("progress", how_far)), TICK)
    while True:
        try:
            task = connection.recv()
        except (EOFError, OSError):
            return
        try:
            outcome = "done", function(task, tell)
        except Exception as error:
            outcome = "failed", f"{type(error).__name__}: {error}"
        connection.send(outcome)


def _follow(parent: Any) -> None:
    parent.join()
    publish.clear()
    os._exit(1)


def now_and_then(tell: Progress, seconds: float) -> Progress:
    """`tell` at the start of each stage, and no oftener than that within it."""
    stage_before, time_before = "", 0.0

    def told(stage: str, done: int, total: int) -> None:
        nonlocal stage_before, time_before
        now = time.monotonic()
        if stage != stage_before or now - time_before > seconds:
            stage_before, time_before = stage, now
            tell(stage, done, total)

    return told
