"""Tables for people, printed as wide as they are: a number cut in the middle says nothing."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

WIDEST = 10_000  # columns


def print_whole(table: Table, console: Console) -> None:
    """Print a table without cutting or wrapping a cell; a terminal that is narrower breaks its lines."""
    for column in table.columns:
        column.no_wrap = True
    needed = console.measure(table, options=console.options.update(max_width=WIDEST)).maximum
    shown = console.width
    console.width = max(shown, needed)
    console.print(table)
    console.width = shown
