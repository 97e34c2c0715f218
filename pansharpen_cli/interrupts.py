"""SIGINT, SIGTERM and SIGHUP: the first asks the program to end, the second ends it; the exit code is 130.

While the process starts they end it at once, from then on they raise. Python acts on a signal between two of its own
steps only: where a library waits, for a server that does not answer, a thread ends the process.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from contextlib import contextmanager, suppress

TYPE_CHECKING = False  # until this module is there, Python does what it does with signals
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

CODE = 130
GRACE = 5.0
"""Seconds that the first signal may go unheard."""
PATIENCE = 30.0
"""Seconds that the program may take to end once it has heard one: a library may lose what was raised, and wait on."""
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Interrupted(KeyboardInterrupt):
    """A type of its own: after a plain KeyboardInterrupt within `exec`, Python ends by SIGINT, caught or not."""


class _State:
    asked = False
    """Has a signal been heard? What it raised may be lost in a library."""
    heard = False
    """Has the program acted on it, whatever it makes of it?"""
    count = 0
    """Signals of this run, as the thread counts them."""
    pipe: tuple[int, int] | None = None
    helper: Callable[[], None] | None = None
    """Ends a process that is of no use without this one."""


def end_with_us(helper: Callable[[], None]) -> None:
    """`helper` is called as this process ends, however a signal ends it."""
    _State.helper = helper


def _end_helper() -> None:
    helper, _State.helper = _State.helper, None
    if helper is not None:
        with suppress(OSError):
            helper()


@contextmanager
def ending() -> Iterator[None]:
    """Where a signal has asked for the end, nothing of Python's own ending follows: for as long as that takes, another
    signal would do what the system makes of it. Where all is done, one ends what Python still waits for, and changes
    nothing from then on: Python would give signals back to the system, and the exit code would be its."""
    atexit.register(leave_to_parent)  # the first one registered is the last one that Python calls
    try:
        yield
    finally:
        _end_helper()
        if _State.asked:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    stream.flush()
            os._exit(CODE)
        handle(leave)


def leave_to_parent() -> None:
    """For a worker process, too: a signal may reach the whole group, and the parent ends its workers."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def leave(*_) -> None:
    """Nothing is to be cleared up yet, and an exception within an import may be swallowed or crash a library."""
    with suppress(OSError):  # a terminal that was closed, a disk that is full
        os.write(2, b"error: interrupted\n")
    _end_helper()
    os._exit(CODE)


def raise_once(*_) -> None:
    for number in SIGNALS:
        signal.signal(number, _heard_before)  # nothing interrupts the clearing up but `watch`
    _State.asked = _State.heard = True
    raise Interrupted


def _heard_before(*_) -> None: ...


def asked() -> bool:
    """Whether a signal has asked this run to end."""
    return _State.asked


def hide_lost() -> None:
    """What is raised within a callback of a library is printed there, and not raised: of a signal `check` tells, and
    text of GDAL that is no UTF-8 is nothing to tell."""

    def told(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, (KeyboardInterrupt, UnicodeDecodeError)):
            sys.__excepthook__(kind, error, trace)

    sys.excepthook = told


def check() -> None:
    """Raises Interrupted if a signal has asked the run to end and a library has lost what it raised."""
    if _State.asked:
        raise Interrupted


def handle(handler: Callable[..., None]) -> None:
    """For signals that the caller has not settled otherwise: nohup ignores SIGHUP."""
    ours = (signal.SIG_DFL, signal.default_int_handler, leave, raise_once, _heard_before)
    _State.asked = _State.heard = False
    _State.count = 0
    for number in SIGNALS:
        if signal.getsignal(number) in ours:
            signal.signal(number, handler)


@contextmanager
def starting() -> Iterator[None]:
    """For imports."""
    handle(leave)
    yield
    handle(raise_once)


@contextmanager
def deferred() -> Iterator[list[int]]:
    """Signals are put into the list that is yielded, for the caller to end in its own time; a second one raises.
    Outside the main thread, where no signal arrives, nothing is changed."""
    stop: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def noted(number: int, _frame) -> None:
        if stop:
            raise KeyboardInterrupt
        stop.append(number)
        _State.heard = True

    before = {number: signal.getsignal(number) for number in SIGNALS}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}  # nohup
    for number in before:
        signal.signal(number, noted)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def watch(clear: Callable[[], None]) -> None:
    """From now on three kinds of signal end the process after `clear`, even while a library waits: a second one, one
    that Python does not handle within `GRACE` seconds, and one that was raised and has not ended the program within
    `PATIENCE`. Has no effect on Windows, which cannot pass signals to a thread.
    """
    if os.name != "posix" or _State.pipe is not None or threading.current_thread() is not threading.main_thread():
        return
    _State.pipe = os.pipe()
    for end in _State.pipe:
        os.set_blocking(end, False)
    signal.set_wakeup_fd(_State.pipe[1], warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=_forget)
    threading.Thread(target=_listen, args=(_State.pipe[0], clear), daemon=True).start()


def _forget() -> None:
    """A forked process has no thread that listens."""
    if _State.pipe is not None:
        signal.set_wakeup_fd(-1)
        _State.pipe = None


def _listen(pipe: int, clear: Callable[[], None]) -> None:
    from select import select

    while True:
        heard = _State.heard
        wait = GRACE if not heard else PATIENCE if _State.asked else None
        ready, _, _ = select([pipe], [], [], wait if _State.count == 1 else None)
        if ready:
            _State.count += sum(number in SIGNALS for number in os.read(pipe, 64))
        if _State.count > 1 or (_State.count == 1 and not ready and _State.heard == heard):
            try:
                clear()
            finally:
                leave()
