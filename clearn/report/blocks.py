"""Small pieces of HTML that the page is put together from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from clearn.report.look import HOLLOW_SIGNS, MARKER_SIGNS, group_colour


def swatch(number: int, hollow: bool = False) -> str:
    """Write the marker of the number-th group of a stream in its colour."""
    signs = HOLLOW_SIGNS if hollow else MARKER_SIGNS
    sign = signs[number % len(signs)]
    return f'<span class="mark" style="color:var(--{group_colour(number)})" aria-hidden="true">{sign}</span>'


def heading(label: str, number: int, hollow: bool = False) -> str:
    """Write a group's marker and label above its figure."""
    return f"<h4>{swatch(number, hollow)} {escape(label)}</h4>"


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


def counted(n: int, word: str) -> str:
    """Print a number of things.

    >>> counted(1, "run"), counted(1200, "repeat")
    ('1 run', '1,200 repeats')
    """
    return f"{n:,} {word}{'' if n == 1 else 's'}"


def terms(intro: str, told: Mapping[str, str]) -> str:
    """Write definitions: term -> text."""
    listed = "".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in told.items())
    return f'<div class="card"><p>{escape(intro)}</p><dl class="terms">{listed}</dl></div>'


def stroke(style: str, thin: bool = False, colour: str = "ink") -> str:
    """Write a short line for a legend: solid, dashed or dotted, in a colour variable."""
    width = "1px" if thin else "2px"
    return f'<span class="dash" style="border-top:{width} {style} var(--{colour})" aria-hidden="true"></span>'
