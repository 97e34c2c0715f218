"""What work calls while it goes on."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, what is done and what there is to do."""

Say = Callable[[str], None]
"""Called with a line for the user."""


def quiet(stage: str, done: int, total: int) -> None: ...
