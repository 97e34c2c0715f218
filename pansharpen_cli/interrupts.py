"""SIGINT, SIGTERM and SIGHUP: the first asks the process to end, a second one ends it, the exit code is always 130.

Python sees to a signal between two of its own steps only, and what it raises within a library's callback may be lost.
So a thread listens as well: it is heard while a library waits for a server, and remembers what was asked.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

CODE = 130
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
PATIENCE = 1.0
"""Seconds after the first signal in which others count as the same: `timeout` and terminals send several."""


class Interrupted(KeyboardInterrupt):
    """Of its own type: after a plain KeyboardInterrupt within `exec`, Python ends by SIGINT, caught or not."""


class _State:
    """When the first signal came, whether it was raised, and the process that listens."""

    first: float | None = None
    raised = False
    listens = 0


def leave(*_) -> None:
    """Nothing is to be cleared up yet, and an exception within an import may be swallowed or crash a library."""
    os.write(2, b"error: interrupted\n")
    os._exit(CODE)


def raise_once(_number: int = 0, frame: FrameType | None = None) -> None:
    _State.first = _State.first or time.monotonic()
    while frame is not None:
        if frame.f_globals.get("__name__") == "logging":  # GDAL's remarks come by it: what is raised there is lost
            return
        frame = frame.f_back
    if not _State.raised:  # nothing interrupts the clearing up but a signal that ends it
        _State.raised = True
        raise Interrupted


def asked() -> bool:
    """Has a signal come? What it raised may have been lost on its way."""
    return _State.first is not None


def handle(handler: Callable[..., None]) -> None:
    """For signals that the caller has not settled otherwise: nohup ignores SIGHUP."""
    for number in SIGNALS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler, leave, raise_once):
            signal.signal(number, handler)


def begin() -> None:
    """From now on signals raise, and are listened to."""
    _State.first, _State.raised = None, False
    handle(raise_once)
    if _State.listens != os.getpid():
        _State.listens = os.getpid()
        mine, theirs = socket.socketpair()
        theirs.setblocking(False)
        signal.set_wakeup_fd(theirs.detach(), warn_on_full_buffer=False)
        threading.Thread(target=_listen, args=(mine,), daemon=True, name="signals").start()


def _listen(heard: socket.socket) -> None:
    while numbers := heard.recv(64):
        if set(numbers) & set(SIGNALS):
            now = time.monotonic()
            if _State.first is not None and now - _State.first > PATIENCE:
                leave()
            _State.first = _State.first or now


@contextmanager
def starting() -> Iterator[None]:
    """For imports."""
    handle(leave)
    yield
    handle(raise_once)
