"""SIGINT, SIGTERM and SIGHUP: while the process starts they end it at once, from then on they raise."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

CODE = 130
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Interrupted(KeyboardInterrupt):
    """Of its own type: after a plain KeyboardInterrupt within `exec`, Python ends by SIGINT, caught or not."""


def leave(*_) -> None:
    """Nothing is to be cleared up yet, and an exception within an import may be swallowed or crash a library."""
    os.write(2, b"error: interrupted\n")
    os._exit(CODE)


def raise_once(*_) -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # nothing interrupts the clearing up
    raise Interrupted


def handle(handler: Callable[..., None]) -> None:
    """For signals that the caller has not settled otherwise: nohup ignores SIGHUP."""
    for number in SIGNALS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler, leave, raise_once):
            signal.signal(number, handler)


@contextmanager
def starting() -> Iterator[None]:
    """For imports."""
    handle(leave)
    yield
    handle(raise_once)
