"""Tables of data that the package brings along: TOML beside the module that reads it, under its name."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any


def read(module: str) -> dict[str, Any]:
    """The table of a module, by its `__file__`."""
    return tomllib.loads(Path(module).with_suffix(".toml").read_text("utf-8"))
