"""What GDAL says while it works, and what rasterio raises of it."""

from __future__ import annotations

import ctypes
import importlib
import logging
import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

from rasterio.env import env_ctx_if_needed
from rasterio.errors import RasterioError

from ..errors import without_source

_LOG = logging.getLogger("rasterio")
_LOCK = threading.Lock()
_CLASS = re.compile(r"^CPLE_\w+ in ")
"""Of GDAL's errors, with which what it says begins."""
_NOT_UTF8 = "Failed to decode metadata item"
"""What rasterio says of metadata in another encoding, such as the XML of many a DIMAP: it goes on without the item."""
_OF_PROJ = "PROJ: "
"""How what PROJ says of a CRS begins, such as that a grid is not installed: what cannot do without one raises."""


def gdal_error() -> type[Exception]:
    """The class of GDAL's own errors, a private part of rasterio; where that has none, the class of its own errors."""
    with suppress(ImportError, AttributeError):
        return importlib.import_module("rasterio._err").CPLE_BaseError
    return RasterioError


GDAL_ERRORS = (RasterioError, gdal_error())
"""What calls of rasterio raise where GDAL fails. It lets GDAL's own errors through, for which it has no public name."""


class Messages(logging.Handler):
    """What GDAL tells the thread that made it."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.thread = threading.get_ident()
        self.errors: list[str] = []
        self.warnings: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = without_source(record.getMessage())
        if record.thread != self.thread or text.startswith(_NOT_UTF8):
            return
        if "signalled an error" in text:
            told = text.partition("msg=")[2][1:-1]  # quoted by Python, in one way or the other
            self.errors += [] if told.startswith(_OF_PROJ) else [told]
        elif record.levelno >= logging.WARNING:
            self.warnings.append(text)

    def notes(self) -> list[str]:
        """The warnings for a report, each once."""
        return [_CLASS.sub("GDAL: ", text) for text in dict.fromkeys(self.warnings)]


def warn(text: str) -> None:
    """Say something about a file as GDAL would, to whoever listens."""
    _LOG.warning("%s", text)


def repeat(warnings: Sequence[str]) -> None:
    """Say again what GDAL said to somebody who has taken it for himself."""
    for text in warnings:
        warn(text)


class _Listening:
    """The state of rasterio's log, of libtiff and of stderr in C while anybody listens, in any thread, and what it was
    before."""

    count, before = 0, (0, True)
    handlers: Sequence[Any] = ()
    stream: int | None = None


@cache
def library() -> Any:
    """What rasterio is linked with, GDAL and libtiff among it, by the names of C: through a private part of rasterio.
    None where it cannot be reached."""
    with suppress(OSError, ImportError):
        return ctypes.CDLL(importlib.import_module("rasterio._env").__file__)
    return None


@cache
def _handlers() -> Sequence[Any]:
    """What sets the functions by which libtiff says on stderr what it does not tell GDAL: that of a place beyond all
    files for one, or of a full disk. None where GDAL has a libtiff that cannot be reached."""
    with suppress(AttributeError):
        found = library().TIFFSetErrorHandler, library().TIFFSetWarningHandler
        for each in found:
            each.restype, each.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
        return found
    return ()


@cache
def _stderr_of_c() -> tuple[Any, int | None]:
    """Where the C library keeps its stream for stderr, and a stream that leads nowhere: libgeotiff writes there what it
    finds wrong with the keys in a JPEG 2000 file. Nothing where neither can be reached."""
    with suppress(OSError, ValueError, AttributeError, TypeError):
        c = ctypes.CDLL(None)
        c.fopen.restype, c.fopen.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_char_p]
        return ctypes.c_void_p.in_dll(c, "stderr"), c.fopen(os.fsencode(os.devnull), b"w")
    return None, None


def _hushed(stream: int | None) -> int | None:
    """Have the C library write to a stream, None for as before, what it writes to stderr; the one that it wrote to."""
    place, _ = _stderr_of_c()
    if place is None or stream is None:
        return None
    before, place.value = place.value, stream
    return before


@contextmanager
def gdal_messages() -> Iterator[Messages]:
    """What GDAL tells this thread meanwhile and rasterio does not raise, instead of lines on stderr. A full disk met by
    a compression thread is in `errors` and nowhere else; `warnings` begin with GDAL's error class."""
    messages = Messages()
    with _LOCK:
        if not _Listening.count:
            _Listening.before = _LOG.level, _LOG.propagate
            _LOG.setLevel(logging.INFO)
            _LOG.propagate = False
            _Listening.handlers = [set_to(None) for set_to in _handlers()]
            _Listening.stream = _hushed(_stderr_of_c()[1])
        _Listening.count += 1
    _LOG.addHandler(messages)
    try:
        with env_ctx_if_needed():
            yield messages
    finally:
        _LOG.removeHandler(messages)
        with _LOCK:
            _Listening.count -= 1
            if not _Listening.count:
                level, _LOG.propagate = _Listening.before
                _LOG.setLevel(level)
                for set_to, handler in zip(_handlers(), _Listening.handlers, strict=True):
                    set_to(handler)
                _hushed(_Listening.stream)
