"""Text in columns for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def in_columns(rows: Iterable[Sequence[str]], justify: str) -> str:
    """Rows of as many cells, two blanks between columns; `justify`: "l" or "r" by column, the last for the rest."""
    from rich.cells import cell_len  # of wide and of combining characters, too

    rows = list(rows)
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    sides = justify.ljust(len(widths), justify[-1])

    def line(row: Sequence[str]) -> str:
        blanks = [" " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)]
        cells = (
            cell + room if side == "l" else room + cell for cell, room, side in zip(row, blanks, sides, strict=True)
        )
        return "  ".join(cells).rstrip()

    return "\n".join(map(line, rows))
