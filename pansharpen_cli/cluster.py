"""Scenes on the workers of a Dask cluster: `pansharpen batch --scheduler`. Needs the extra `distributed`."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from distributed import Client, Future, KilledWorker, Worker, WorkerPlugin, get_worker

from . import batch
from .batch import Choices, Execute, Task
from .errors import InputError
from .pool import TICK, Event, now_and_then

CONNECT_SECONDS = 15.0
GRACE = 1.0
"""Seconds over the time limit after which a worker is killed: the scene is cancelled by then, so none else gets it."""


class Fuse(WorkerPlugin):
    """Loads the weights when a worker starts, and fuses one scene at a time there, with the worker's threads.

    A scene over the time limit ends the worker, by a signal that the system acts on even where a library hangs; its
    nanny starts another one.
    """

    def __init__(self, name: str, choices: Choices, timeout: float | None) -> None:
        self.name, self.choices, self.timeout = name, choices, timeout

    def setup(self, worker: Worker) -> None:
        self.worker, self.turn = worker, threading.Lock()
        self.function = batch.prepared(0, self.choices, max(1, worker.state.nthreads), devices=False)

    def fuse(self, task: Task) -> dict[str, Any]:
        """What `batch.fuse_one` returns; how far it is, is told as events of this plug-in's topic."""
        with self.turn:
            self._tell(task, "started")
            progress = now_and_then(lambda *how_far: self._tell(task, "progress", how_far), 1.0)
            signal.setitimer(signal.ITIMER_REAL, self.timeout + GRACE if self.timeout else 0)
            try:
                return self.function(task, progress)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)

    def _tell(self, task: Task, kind: str, content: Any = None) -> None:
        self.worker.log_event(self.name, (kind, task.scene, self.worker.address, content))


def _fuse(task: Task, name: str) -> dict[str, Any]:
    plugin = get_worker().plugins[name]
    assert isinstance(plugin, Fuse)
    return plugin.fuse(task)


def execute(choices: Choices, scheduler: str, timeout: float | None) -> Execute:
    """Runs tasks on a cluster. A worker that is lost gives its scenes to the others, as often as the cluster allows
    (`distributed.scheduler.allowed-failures`)."""
    return partial(_run, choices=choices, scheduler=scheduler, timeout=timeout)


def _run(tasks: Sequence[Task], choices: Choices, scheduler: str, timeout: float | None) -> Iterator[Event]:
    if not tasks:
        return
    try:
        client = Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(f"no Dask scheduler answers at {scheduler}: {error}") from error
    name = f"pansharpen-{uuid.uuid4().hex[:12]}"
    heard: queue.SimpleQueue = queue.SimpleQueue()
    running: dict[str, tuple[float, str]] = {}
    waiting: dict[str, tuple[Task, Future]] = {}
    late: set[str] = set()
    try:
        client.subscribe_topic(name, lambda event: heard.put(event[1]))
        client.register_plugin(Fuse(name, choices, timeout))
        for task in tasks:
            # retries are for lost workers, which the scheduler sees to: what went wrong with a scene stays wrong
            future = client.submit(_fuse, task, name, key=f"{name}-{task.scene}", pure=False)
            waiting[task.scene] = task, future
            future.add_done_callback(partial(_ended, task.scene, heard))
        while waiting:
            with suppress(queue.Empty):
                kind, scene, worker, content = heard.get(timeout=TICK)
                if scene in waiting and scene not in late:
                    task, future = waiting[scene]
                    since, last = running.get(scene, (time.monotonic(), "?"))
                    if kind == "started":
                        running[scene] = time.monotonic(), worker
                    elif kind == "ended":
                        del waiting[scene]
                        running.pop(scene, None)
                        worker = last
                        kind, content = _outcome(future)
                    yield Event(kind, task, worker, content, time.monotonic() - since)
            if timeout is None or not heard.empty():
                continue
            now = time.monotonic()
            for scene, (since, worker) in list(running.items()):
                if now - since > timeout and scene not in late:
                    late.add(scene)
                    waiting[scene][1].cancel()
                elif now - since > timeout + 2 * GRACE:
                    task, _ = waiting.pop(scene)
                    del running[scene]
                    yield Event("failed", task, worker, f"timed out after {timeout:g} s", now - since)
    finally:
        for _, future in waiting.values():
            future.cancel()
        _stop(client, [worker for _, worker in running.values()])
        with suppress(Exception):  # the scheduler may be what is gone
            client.unsubscribe_topic(name)
            client.unregister_worker_plugin(name)
        client.close()


def _ended(scene: str, heard: queue.SimpleQueue, future: Future) -> None:
    heard.put(("ended", scene, "", None))


def _outcome(future: Future) -> tuple[str, Any]:
    if future.status == "finished":
        return "done", future.result()
    if future.status == "error":
        error = future.exception()
        if isinstance(error, KilledWorker):
            return "failed", "the workers that it was given to died: out of memory?"
        return "failed", f"{type(error).__name__}: {error}"
    return "failed", f"given up by the cluster ({future.status})"


def _stop(client: Client, workers: Sequence[str]) -> None:
    """End the workers that are at a scene: nothing less stops a thread. Their nannies start others."""
    if workers:
        ask = partial(client.run, os._exit, 1, workers=list(dict.fromkeys(workers)), on_error="ignore")
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(5)  # one that hangs does not answer
