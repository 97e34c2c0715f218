"""Reports as JSON, pictures as PNG, and how files are replaced."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from .figures import is_number


def to_json(facts: Mapping) -> str:
    """The report as JSON; what could not be measured (NaN) is null."""
    return json.dumps(finite(facts), indent=2, allow_nan=False)


def finite(value):
    """Facts with null for what is not finite, as JSON wants it."""
    if isinstance(value, Mapping):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_bytes(facts: Mapping) -> bytes:
    """A report as the content of a .json file."""
    return to_json(facts).encode() + b"\n"


def signed_text(value: object) -> str:
    return f"{value:+.3g}" if is_number(value) else "–"


def plain_text(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(plain_text, value))
    return "none" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
