"""The one owner of the files that a command reads, and the collector of what is to be told of them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from ..errors import ReadError
from .messages import gdal_messages, repeat
from .source import bounded_cache, open_raster


@dataclass(frozen=True)
class Remarks:
    """What a user is told, a line each: `warnings` to look at, `notes` of what was corrected as usual."""

    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class OpenFiles:
    """Rasters that are open, each once however often it is asked for; they share a block cache and close together."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._datasets: dict[str, Any] = {}
        self._said: dict[str, list[str]] = {}
        self._stamps: dict[str, tuple[int, ...] | None] = {}

    def __enter__(self) -> OpenFiles:
        self._stack.enter_context(bounded_cache())
        return self

    def __exit__(self, *_) -> None:
        self._stack.close()

    def open(self, path: str) -> Any:
        """The dataset of a path, which RPCs alone may locate. Raises InputError as `open_raster` does. What GDAL warns
        of when it opens the file is said each time: the first to ask may not be the one that reports."""
        if path not in self._datasets:
            with gdal_messages() as said:
                self._datasets[path] = self._stack.enter_context(open_raster(path, rpcs=True))
            self._said[path] = said.warnings
        repeat(self._said[path])
        return self._datasets[path]

    def remember(self, paths: Iterable[str]) -> None:
        """Note the state of files, to tell later whether they have changed."""
        for path in paths:
            self._stamps.setdefault(path, _stamp(path))

    def check_unchanged(self) -> None:
        """Raises ReadError if a file is no longer the one that was opened."""
        for path, stamp in self._stamps.items():
            if stamp is not None and _stamp(path) != stamp:
                raise ReadError(f"{path} changed while it was read; run again when it is complete")


def _stamp(path: str) -> tuple[int, ...] | None:
    """What tells whether a file has changed; None for what is no file of the system, such as /vsi paths."""
    try:
        known = os.stat(path)
    except (OSError, ValueError):
        return None
    return known.st_size, known.st_mtime_ns, known.st_ino
