"""Tables as plain text: with rich on a terminal of any width, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clearn.report.grouping import Group, left_out

if TYPE_CHECKING:
    from rich.console import Console

Texts = tuple[str, list[str]]  # a head, and a cell per row


@dataclass(frozen=True)
class Part:
    """Columns that belong together.

    Attributes:
        title: of the table.
        columns: (head, cells); lines of a head are apart on a terminal.
    """

    title: str
    columns: list[Texts]


@dataclass(frozen=True)
class Rows:
    """What every part of one comparison starts with.

    Attributes:
        title: of the first column.
        names: a row's name with its options, a line each.
        labels: the same in one line, for the parts after the first.
        leads: columns repeated in every part.
    """

    title: str
    names: list[str]
    labels: list[str]
    leads: list[Texts]


def name_lines(group: Group[Any]) -> str:
    """Print the method with every option that differs between the groups, a line each."""
    return "\n".join([group.method, *(f"  {key}={value}" for key, value in group.options.items())])


def print_parts(console: Console, rows: Rows, parts: Iterable[Part]) -> None:
    """Print parts, each split into as many tables as the console's width asks for."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    names = rows.names
    width = _width([rows.title, *names, *rows.labels]) + 2  # the margins; a column more takes 3 besides its own
    width += sum(_width([head, *cells]) + 3 for head, cells in rows.leads)
    for part in _fitted(parts, console.width - width):
        table = Table(box=SIMPLE_HEAD, title=part.title, title_justify="left", title_style="bold", pad_edge=False)
        table.add_column(rows.title, overflow="fold")
        found = [*rows.leads, *part.columns]
        for head, _ in found:
            table.add_column(escape(head), justify="right", no_wrap=True)
        for at, name in enumerate(names):
            table.add_row(escape(name), *(escape(cells[at]) for _, cells in found))
        console.print(table, highlight=False)
        names = rows.labels


def print_card(console: Console, rows: Rows, parts: Iterable[Part]) -> None:
    """Print parts of a few rows turned on their side: a column per row, a line per number."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(rows.title, no_wrap=True)
    for name in rows.names:
        table.add_column(escape(name), justify="right", overflow="fold")
    for head, cells in rows.leads:
        table.add_row(escape(head), *map(escape, cells))
    for part in parts:
        table.add_section()
        table.add_row(f"[bold]{escape(part.title)}[/bold]")
        for head, cells in part.columns:
            table.add_row(f"  {escape(head)}", *map(escape, cells))
    console.print(table, highlight=False)


def print_left_out(console: Console, groups: Sequence[Group[Any]]) -> None:
    """Print which runs are in no mean, and why."""
    from rich.markup import escape

    for run, group, why in left_out(groups):
        console.print(f"Not in the means: {escape(run.name)} ({escape(group.label)}), {escape(why)}", highlight=False)


def _fitted(parts: Iterable[Part], width: int) -> list[Part]:
    """Split parts, so that none is wider than `width`."""
    tables: list[Part] = []
    for part in parts:
        left = 0  # so that each part starts a table
        for head, cells in part.columns:
            left -= _width([head, *cells]) + 3
            if left < 0:
                tables.append(Part(part.title, []))
                left = width - _width([head, *cells]) - 3
            tables[-1].columns.append((head, cells))
    return tables


def _width(texts: Sequence[str]) -> int:
    return max(len(line) for text in texts for line in text.splitlines() or [""])


def markdown_part(rows: Rows, part: Part) -> list[str]:
    """Write a part as the lines of a Markdown table, under a heading."""
    found = [*rows.leads, *part.columns]
    lines = [f"### {part.title}", "", _row([rows.title, *(head for head, _ in found)])]
    lines.append(_row([":---", *["---:"] * len(found)]))
    for at, name in enumerate(rows.names):
        lines.append(_row([", ".join(map(str.strip, name.splitlines())), *(cells[at] for _, cells in found)]))
    return [*lines, ""]


def markdown_left_out(groups: Sequence[Group[Any]]) -> list[str]:
    """Write which runs are in no mean, and why."""
    excluded = left_out(groups)
    if not excluded:
        return []
    items = [f"- {escaped(run.name)} ({escaped(group.label)}): {escaped(why)}" for run, group, why in excluded]
    return ["## Not in the means", "", *items, ""]


def escaped(text: str) -> str:
    """Take away what Markdown would read as markup, and line breaks."""
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*").replace("_", "\\_").split())


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(escaped, cells))} |"
