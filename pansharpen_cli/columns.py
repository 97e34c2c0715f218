"""Text in columns for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def counted(number: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def in_columns(rows: Iterable[Sequence[str]], justify: str) -> str:
    """Rows of as many cells, two blanks between columns; `justify`: "l" or "r" by column, the last for the rest."""
    from rich.cells import cell_len  # of wide and of combining characters, too

    rows = list(rows)
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    sides = justify.ljust(len(widths), justify[-1])

    def placed(cell: str, width: int, side: str) -> str:
        room = " " * (width - cell_len(cell))
        return cell + room if side == "l" else room + cell

    return "\n".join("  ".join(map(placed, row, widths, sides)).rstrip() for row in rows)
