"""Tables for people: aligned on a terminal, tab-separated where another program reads."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from agenttrail.columns.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under a header; nothing in a cell can move the cursor or colour the screen."""
    cells = [[printable("" if cell is None else str(cell)) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _print_rich(header, cells)
        return
    for row in [list(header), *cells]:
        sys.stdout.write("\t".join(row) + "\n")


def _print_rich(header: Sequence[str], cells: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in header:
        table.add_column(name, overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)
