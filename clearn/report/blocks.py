"""Small pieces of HTML that the page is put together from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from clearn.report.grouping import Group
from clearn.report.look import MARKER_SIGNS, group_colour


def swatch(group: Group, index: Mapping[str, int]) -> str:
    """Write a group's marker in its colour; `index` numbers the groups of a stream by label."""
    at = index[group.label]
    sign = MARKER_SIGNS[at % len(MARKER_SIGNS)]
    return f'<span class="mark" style="color:var(--{group_colour(at)})" aria-hidden="true">{sign}</span>'


def heading(group: Group, index: Mapping[str, int]) -> str:
    """Write a group's marker and label above its figure."""
    return f"<h4>{swatch(group, index)} {escape(group.label)}</h4>"


def legend(items: Iterable[tuple[str, str]]) -> str:
    """Write a legend: pairs of a mark, as HTML, and plain text."""
    return '<ul class="legend">' + "".join(f"<li>{mark} {escape(text)}</li>" for mark, text in items) + "</ul>"


def figure(title: str, body: str, caption: str, numbers: str = "") -> str:
    """Write a figure with its caption, and the numbers behind it where they are not in the figure."""
    return (
        f'<figure class="card">\n<h3>{escape(title)}</h3>\n{body}\n'
        f"<figcaption>{escape(caption)}</figcaption>\n{numbers}</figure>"
    )


def details(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write numbers behind a figure as a table, closed at first."""
    columns = "".join(f'<th scope="col"{_left(i)}>{escape(text)}</th>' for i, text in enumerate(head))
    lines = "\n".join(
        f'<tr><th scope="row">{escape(row[0])}</th>' + "".join(f"<td>{escape(text)}</td>" for text in row[1:]) + "</tr>"
        for row in rows
    )
    return (
        f'<details><summary>{escape(title)}</summary><div class="scroll" tabindex="0" role="region" '
        f'aria-label="{escape(title)}">\n<table>\n<thead><tr>{columns}</tr></thead>\n<tbody>\n{lines}\n</tbody>\n'
        "</table></div></details>"
    )


def _left(column: int) -> str:
    return ' class="first"' if column == 0 else ""


def box(variable: str) -> str:
    """Write a small box filled with a colour variable."""
    return f'<span class="box" style="background:var(--{variable})" aria-hidden="true"></span>'
