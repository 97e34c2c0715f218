"""Reports as JSON, pictures as PNG, and how files are replaced."""

from __future__ import annotations

import json
from typing import Any

from .facts import plain
from .figures import is_number


def to_json(facts: Any) -> str:
    """The report as JSON; what could not be measured (NaN) is null."""
    return json.dumps(plain(facts), indent=2, allow_nan=False)


def json_bytes(facts: Any) -> bytes:
    """A report as the content of a .json file."""
    return to_json(facts).encode() + b"\n"


def signed_text(value: object) -> str:
    return f"{value:+.3g}" if is_number(value) else "–"


def plain_text(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(plain_text, value))
    return "none" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
