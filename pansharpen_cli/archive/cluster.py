"""Scenes on the workers of a Dask cluster: `pansharpen batch --scheduler`. Needs the extra `distributed`."""

from __future__ import annotations

import logging
import math
import os
import queue
import re
import signal
import socket
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from distributed import Client, Future, KilledWorker, Worker, WorkerPlugin, get_worker
from distributed.client import FutureCancelledError
from distributed.comm import CommClosedError
from distributed.comm.registry import get_backend
from distributed.security import Security

from .. import __version__, untrusted
from ..errors import InputError, PansharpenError
from . import batch
from .batch import Execute
from .planning import Choices, Task, prints_of, with_prints
from .workers import TICK, Event, now_and_then

CONNECT_SECONDS = 15.0
SETUP_SECONDS = 60.0
"""For the workers to load the weights."""
ASK_SECONDS, SILENT_SECONDS = 2.0, 30.0
"""Between questions to the scheduler, and without an answer until it counts as lost."""
WORKERLESS_SECONDS = 300.0
"""Without any worker until the cluster counts as lost: queues of jobs take their time."""
CLOSING_SECONDS = 5.0
GRACE = 1.0
"""Seconds over the time limit after which a worker is killed: the scene is cancelled by then, so none else gets it."""

_ADDRESS = re.compile(r"(tcp|tls|ucx|wss?)://(?P<host>\[[0-9a-f:.]+\]|[^/:\[\]]+):(?P<port>\d{1,9})/?", re.IGNORECASE)


class Lost(PansharpenError):
    """The cluster is gone. No scene has failed by that: those that are not done stay to be done."""


class Fuse(WorkerPlugin):
    """Loads the weights when a worker starts, and fuses one scene at a time there, with the worker's threads.

    A scene over the time limit ends the worker, by a signal that the system acts on even where a library hangs; its
    nanny starts another one.
    """

    def __init__(self, name: str, choices: Choices, timeout: float | None) -> None:
        self.name, self.choices, self.timeout = name, choices, timeout
        self.version = __version__

    def setup(self, worker: Worker) -> None:
        """Raises PansharpenError on a machine with another version, whose pixels may be others."""
        if self.version != __version__:
            raise PansharpenError(
                f"the worker {worker.address} has version {__version__} of pansharpen, and the command {self.version}: "
                "install the same on all machines"
            )
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


def fuse_task(task: Task, name: str) -> dict[str, Any]:
    plugin = get_worker().plugins[name]
    assert isinstance(plugin, Fuse)
    return plugin.fuse(task)


def execute(choices: Choices, scheduler: str, timeout: float | None) -> Execute:
    """Runs tasks on a cluster. A worker that is lost gives its scenes to the others, as often as the cluster allows
    (`distributed.scheduler.allowed-failures`). Raises InputError for an address that is none, or that Dask cannot talk
    to as it is set up here: it would find that out at once, and take half a minute to clear up."""
    scheduler = scheduler if "://" in scheduler else f"tcp://{scheduler}"
    match = _ADDRESS.fullmatch(scheduler)
    if not match:
        raise InputError(f"--scheduler takes an address such as tcp://host:8786, not '{scheduler}'")
    if not 0 < int(match["port"]) < 1 << 16:
        raise InputError(f"--scheduler {scheduler}: there is no port {match['port']}, only 1 to 65535")
    protocol, _, place = scheduler.partition("://")
    protocol = protocol.lower()
    scheduler = f"{protocol}://{place}"
    try:
        get_backend(protocol).get_connector()
    except Exception as error:
        raise InputError(f"{scheduler}: Dask has no {protocol} here; install what it needs, or use tcp://") from error
    if protocol == "tls" and Security().get_connection_args("client")["ssl_context"] is None:
        raise InputError(f"{scheduler} needs certificates: name them in Dask's configuration (distributed.comm.tls)")
    return partial(_run, choices=choices, scheduler=scheduler, timeout=timeout)


def _run(tasks: Sequence[Task], choices: Choices, scheduler: str, timeout: float | None) -> Iterator[Event]:
    """Events of the tasks. Raises InputError where no scheduler answers, Lost where the cluster is gone later on."""
    if not tasks:
        return
    client = connected(scheduler)
    name = f"pansharpen-{uuid.uuid4().hex[:12]}"
    state = _State(queue.SimpleQueue(), {}, {}, set())
    watch = _Watch(client, scheduler, timeout)
    try:
        try:
            within_seconds(SETUP_SECONDS, client.subscribe_topic, name, lambda event: state.heard.put(event[1]))
            register = partial(client.register_plugin, Fuse(name, choices, timeout))
            try:
                within_seconds(SETUP_SECONDS, register)
            except OSError:  # by a worker that has left, or did not answer
                if not watch.removed:
                    raise
                within_seconds(SETUP_SECONDS, register)
        except Exception as error:
            raise Lost(f"the workers of {scheduler} cannot be set up: {untrusted.fault_of(error)}") from error
        files = prints_of(choices.files)
        for task in tasks:
            # retries are for lost workers, which the scheduler sees to: what went wrong with a scene stays wrong
            future = client.submit(fuse_task, with_prints(task, files), name, key=f"{name}-{task.scene}", pure=False)
            state.waiting[task.scene] = task, future
            future.add_done_callback(partial(_ended, task.scene, state.heard))
        while state.waiting:
            yield from state.news()
            if state.heard.empty():
                watch.check(len(state.waiting), bool(state.running))
                if timeout is not None:
                    yield from state.late_ones(timeout, watch)
    finally:
        watch.stop()
        for _, future in state.waiting.values():
            future.cancel()
        _stop(client, [worker for _, worker in state.running.values()])
        for last in (
            partial(client.unsubscribe_topic, name),
            partial(client.unregister_worker_plugin, name),
            partial(client.close, timeout=CLOSING_SECONDS),
        ):
            with suppress(Exception):  # the scheduler may be what is gone
                within_seconds(CLOSING_SECONDS, last)


def be_quiet() -> None:
    """From now on this process writes no log of Dask's: what a lost scheduler means is said in one line."""
    for name in ("asyncio", "distributed", "tornado", *logging.root.manager.loggerDict):
        if name.startswith(("asyncio", "distributed", "tornado")):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def connected(address: str) -> Client:
    """A client of a scheduler. Raises InputError, within bounds, if none answers at the address."""
    match = _ADDRESS.fullmatch(address)
    assert match is not None
    try:
        socket.create_connection((match["host"].strip("[]"), int(match["port"])), CONNECT_SECONDS).close()
        return within_seconds(2 * CONNECT_SECONDS, Client, address, timeout=CONNECT_SECONDS, set_as_default=False)
    except Exception as error:
        # the first bytes of another protocol are taken for the length of what follows
        why = "what answers is no Dask" if isinstance(error, MemoryError | struct.error) else untrusted.fault_of(error)
        if (
            isinstance(error, TimeoutError) or "CancelledError" in f"{error!r}{why}"
        ):  # Dask gave up, for no other reason
            why = "nothing there speaks as one in time; is it running, and is this its address?"
        raise InputError(f"no Dask scheduler answers at {address}: {why}") from error


def within_seconds(seconds: float, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a call returns. Raises TimeoutError if it takes longer: Dask waits without end for a peer that is silent."""
    outcome: futures.Future = futures.Future()

    def call() -> None:
        try:
            outcome.set_result(function(*args, **kwargs))
        except Exception as error:
            outcome.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    if not futures.wait([outcome], seconds).done:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return outcome.result()


class _Watch:
    """Asks the scheduler, now and then and in a thread of its own, for its workers: a silent one is noticed.

    The scheduler keeps a frozen worker until that has missed its heartbeats for `distributed.scheduler.worker-ttl`,
    300 s. Where scenes may take `timeout` seconds only, a worker that has been silent for `SILENT_SECONDS` longer is
    removed: one that a scene hangs on has been ended by then.
    """

    def __init__(self, client: Client, scheduler: str, timeout: float | None) -> None:
        self.client, self.scheduler, self.timeout = client, scheduler, timeout
        self.seen: dict[str, tuple[float, float]] = {}
        self.removed: list[str] = []
        self.answered = self.peopled = time.monotonic()
        self.ended = threading.Event()
        threading.Thread(target=self._ask, daemon=True).start()

    def stop(self) -> None:
        self.ended.set()

    def _ask(self) -> None:
        while not self.ended.wait(ASK_SECONDS):
            with suppress(Exception):
                scheduler: Any = self.client.scheduler
                workers = self.client.sync(scheduler.identity, callback_timeout=SILENT_SECONDS)["workers"]
                self.answered = time.monotonic()
                if workers:
                    self.peopled = self.answered
                beats = {address: worker["last_seen"] for address, worker in workers.items()}
                self.seen = {
                    address: known if (known := self.seen.get(address)) and known[0] == beat else (beat, self.answered)
                    for address, beat in beats.items()
                }
                patience = math.inf if self.timeout is None else self.timeout + SILENT_SECONDS
                for address in [each for each in beats if self.silence(each) > patience]:
                    self.client.sync(scheduler.unregister, address=address, stimulus_id="pansharpen-silent")
                    self.removed.append(address)

    def silence(self, worker: str) -> float:
        """Seconds without a heartbeat of a worker that the scheduler has, by this machine's clock: 0 for any other."""
        return self.answered - self.seen[worker][1] if worker in self.seen else 0.0

    def check(self, left: int, busy: bool) -> None:
        """Raises Lost if the scheduler, or the last worker, has been gone for too long. `left`: scenes not done."""
        now = time.monotonic()
        again = f"{left} scenes are not done; the same command goes on with them"
        if now - self.answered > SILENT_SECONDS or self.client.status == "closed":
            raise Lost(f"the Dask scheduler at {self.scheduler} does not answer any more: {again}")
        if self.answered - self.peopled > WORKERLESS_SECONDS:  # by what it said itself
            raise Lost(
                f"the Dask scheduler at {self.scheduler} has had no worker for {WORKERLESS_SECONDS:g} s: {again}"
            )


@dataclass
class _State:
    """The scenes that are waited for: what is `heard` of them, those that are `running` (since when, where), and those
    that took too long."""

    heard: queue.SimpleQueue
    running: dict[str, tuple[float, str]]
    waiting: dict[str, tuple[Task, Future]]
    late: set[str]

    def news(self) -> Iterator[Event]:
        """What is heard within a tick. Raises Lost for a scene that the cluster gave up."""
        with suppress(queue.Empty):
            kind, scene, worker, content = self.heard.get(timeout=TICK)
            if scene not in self.waiting or scene in self.late:
                return
            task, future = self.waiting[scene]
            since, last = self.running.get(scene, (time.monotonic(), "?"))
            if kind == "started":
                self.running[scene] = time.monotonic(), worker
            elif kind == "ended":
                kind, content = outcome_of(future, len(self.waiting))
                del self.waiting[scene]
                self.running.pop(scene, None)
                worker = last
            yield Event(kind, task, worker, content, time.monotonic() - since)

    def late_ones(self, timeout: float, watch: _Watch) -> Iterator[Event]:
        """Cancels the scenes over their time, and tells of them once their workers have been killed. Where one is still
        there, and silent, it is frozen: that is not the scene's fault, and the next run tries it."""
        now = time.monotonic()
        for scene, (since, worker) in list(self.running.items()):
            if now - since > timeout and scene not in self.late:
                self.late.add(scene)
                self.waiting[scene][1].cancel()
            elif now - since > timeout + 2 * GRACE:
                if worker in watch.seen and now - since < timeout + 2 * GRACE + 3 * ASK_SECONDS:
                    continue  # the scheduler may not have said yet that it was killed
                frozen = watch.silence(worker) > 2 * ASK_SECONDS
                task, _ = self.waiting.pop(scene)
                del self.running[scene]
                if frozen:
                    error = f"its worker, {worker}, does not answer any more; the next run tries the scene again"
                    yield Event("done", task, worker, {"error": error, "refused": True, "seconds": now - since})
                else:
                    yield Event("failed", task, worker, f"timed out after {timeout:g} s", now - since)


def _ended(scene: str, heard: queue.SimpleQueue, future: Future) -> None:
    heard.put(("ended", scene, "", None))


def outcome_of(future: Future, left: int) -> tuple[str, Any]:
    """What became of a scene. Raises Lost if nothing did: that is not the scene's fault, and it is not written down."""
    if future.status == "finished":
        with suppress(OSError, FutureCancelledError):  # the scheduler is gone, and the result with it
            return "done", future.result()
    if future.status == "error":
        error = future.exception()
        if isinstance(error, KilledWorker):
            return "failed", "the workers that it was given to died: out of memory?"
        if not isinstance(error, CommClosedError | FutureCancelledError):
            return "failed", f"{type(error).__name__}: {error}"
    raise Lost(f"the Dask cluster was lost: {left} scenes are not done; the same command goes on with them")


def _stop(client: Client, workers: Sequence[str]) -> None:
    """End the workers that are at a scene: nothing less stops a thread. Their nannies start others."""
    if workers:
        ask = partial(client.run, os._exit, 1, workers=list(dict.fromkeys(workers)), on_error="ignore")
        with suppress(Exception):  # one that hangs does not answer
            within_seconds(CLOSING_SECONDS, ask)
