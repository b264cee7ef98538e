"""Small pieces of HTML that the page is put together from."""

from __future__ import annotations

import re
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
    return f'<h4 data-label="{escape(label)}">{swatch(number, hollow)} {escape(label)}</h4>'


def legend(items: Iterable[tuple[str, str]]) -> str:
    """Write a legend: pairs of a mark, as HTML, and plain text. The filter knows an entry with a group's marker."""
    entries = [(f' data-label="{escape(text)}"' if 'class="mark"' in mark else "", mark, text) for mark, text in items]
    return (
        '<ul class="legend">'
        + "".join(f"<li{told}>{mark} {escape(text)}</li>" for told, mark, text in entries)
        + "</ul>"
    )


def figure(title: str, body: str, caption: str, numbers: str = "") -> str:
    """Write a figure with its caption, and the numbers behind it where they are not in the figure."""
    return (
        f'<figure class="card">\n<h3>{escape(title)}</h3>\n{body}\n'
        f"<figcaption>{escape(caption)}</figcaption>\n{numbers}</figure>"
    )


def details(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write numbers behind a figure as a table, closed at first."""
    return f"<details><summary>{escape(title)}</summary>{table(title, head, rows)}</details>"


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a sortable table of printed numbers and texts, the name of each row first.

    Args:
        title: what it holds, for a screen reader.
        head: of the columns.
        rows: cells as printed; a column whose cells all are numbers is sorted by them, units and all.
    """
    numbers = [_all_numbers([row[at] for row in rows]) for at in range(len(head))]
    columns = "".join(sort_head(at, text, not numbers[at], "first" if at == 0 else "") for at, text in enumerate(head))
    lines = "\n".join(
        f'<tr><th scope="row" data-value="{_value(row[0], numbers[0])}">{escape(row[0])}</th>'
        + "".join(
            f'<td data-value="{_value(text, number)}">{escape(text)}</td>'
            for text, number in zip(row[1:], numbers[1:], strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(title)}">\n<table class="sortable">\n'
        f"<thead><tr>{columns}</tr></thead>\n<tbody>\n{lines}\n</tbody>\n</table></div>"
    )


def sort_head(at: int, title: str, text: bool, classes: str = "", note: str = "") -> str:
    """Write the head of a sortable column: a button, so that the keyboard reaches it.

    Args:
        at: number of the column.
        title: as printed.
        text: sorted as text, not as numbers.
        classes: of the cell.
        note: shown when pointed at.
    """
    named = f' class="{classes}"' if classes else ""
    tip = f' title="{escape(note)}"' if note else ""
    button = f'<button type="button"{tip}>{escape(title)}</button>'
    return f'<th scope="col"{named} data-column="{at}" data-kind="{"text" if text else "number"}">{button}</th>'


_NUMBER = re.compile(r"([+-]?(?:[\d,]+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s?(B|KiB|MiB|GiB|%|s|ms)?(?:\s±.*)?(?:\s\*)?")
_UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_NONE = ("", "–")


def sort_number(text: str) -> float | None:
    """Read back the number that a printed cell begins with, in bytes where it has a binary unit; None for other text.

    >>> sort_number("1,204"), sort_number("5.1 KiB"), sort_number("98.4 ± 0.3"), sort_number("0.01e-2")
    (1204.0, 5222.4, 98.4, 0.0001)
    >>> sort_number("3 of 5"), sort_number("icarl")
    (None, None)
    """
    if text == "∞":
        return float("inf")
    found = _NUMBER.fullmatch(text)
    if found is None or not any(letter.isdigit() for letter in found[1]):
        return None
    return float(found[1].replace(",", "")) * _UNITS.get(found[2], 1)


def _all_numbers(cells: Sequence[str]) -> bool:
    told = [text for text in cells if text not in _NONE]
    return bool(told) and all(sort_number(text) is not None for text in told)


def _value(text: str, number: bool) -> str:
    """What a cell is sorted by; empty cells come last."""
    if text in _NONE:
        return ""
    return f"{sort_number(text):.9g}".replace("inf", "Infinity") if number else escape(text)


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
