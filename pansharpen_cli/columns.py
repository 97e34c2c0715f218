"""Text in columns for a terminal."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

JUSTIFY = {"l": "left", "r": "right"}


def in_columns(rows: Iterable[Sequence[str]], justify: str) -> str:
    """Rows of cells, two blanks between columns; `justify`: "l" or "r" by column, the last for the rest."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    for row in rows:
        for column in range(len(table.columns), len(row)):
            letter = justify[min(column, len(justify) - 1)]
            table.add_column(justify=JUSTIFY[letter], no_wrap=True)  # type: ignore[arg-type]
        table.add_row(*map(Text, row))
    written = io.StringIO()
    Console(file=written, width=1 << 16, color_system=None, legacy_windows=False).print(table)
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines())
