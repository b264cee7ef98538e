"""The comparison as a table of the page: two rows of heads, sortable, a row per group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from clearn.metrics import Spread
from clearn.report.blocks import sort_head
from clearn.report.columns import Column, exact_text, spread_text
from clearn.report.grouping import Group


@dataclass(frozen=True)
class Head:
    """A column's head.

    Attributes:
        title: as printed.
        note: what it is, shown when pointed at.
        over: what the head above it says; neighbours with the same one share it.
        text: sorted as text, not as numbers.
    """

    title: str
    note: str = ""
    over: str = ""
    text: bool = False


def comparison(
    about: str, leads: Sequence[Head], heads: Sequence[Head], rows: Sequence[str], note: str, title: str = ""
) -> str:
    """Write the table in its card.

    Args:
        about: what is compared, for a screen reader.
        leads: columns with nothing above them; the first stays in view.
        heads: of the numbers.
        rows: of HTML, cells in the order of the heads.
        note: below it, HTML.
        title: above it, plain text.
    """
    titled = f"<h3>{escape(title)}</h3>\n" if title else ""
    starts = edges(heads)
    spans = [end - start for start, end in zip(starts, [*starts[1:], len(heads)], strict=True)]
    over = "".join(
        f'<th class="over edge" scope="colgroup" colspan="{span}">{escape(heads[start].over)}</th>'
        for start, span in zip(starts, spans, strict=True)
    )
    sortable = "".join(_sort_head(at, one, "" if at else "first") for at, one in enumerate(leads))
    for at, one in enumerate(heads):
        sortable += _sort_head(at + len(leads), one, "edge" if at in starts else "")
    return (
        f'<div class="card">{titled}<div class="scroll" tabindex="0" role="region" aria-label="{escape(about)}">\n'
        f'<table class="main sortable">\n<thead>\n<tr><th class="first over" colspan="{len(leads)}"></th>{over}</tr>\n'
        f"<tr>{sortable}</tr>\n</thead>\n<tbody>\n{chr(10).join(rows)}\n</tbody>\n</table>\n</div>\n{note}</div>"
    )


def edges(heads: Sequence[Head]) -> list[int]:
    """Give the columns at which another head above begins."""
    return [i for i, one in enumerate(heads) if i == 0 or one.over != heads[i - 1].over]


def _sort_head(at: int, one: Head, classes: str) -> str:
    return sort_head(at, one.title, one.text, classes, one.note)


def name_cell(group: Group[Any], mark: str) -> str:
    """Write the head of a group's row: its marker, as HTML, its method and its options."""
    options = "".join(
        f'<span class="options">{escape(key)}={escape(value)}</span>' for key, value in group.options.items()
    )
    return (
        f'<th scope="row" data-value="{escape(group.label)}"><span class="marked">'
        f'{mark} <span class="name">{escape(group.method)}</span></span>{options}</th>'
    )


def number_cell(found: Spread | None, column: Column[Any], classes: str, flag: str = "") -> str:
    """Write a number with its deviation, its exact value when pointed at, and what is wrong with it."""
    named = f' class="{classes}"' if classes else ""
    if found is None:
        return f'<td{named} data-value="">–</td>'
    mean, std = spread_text(found, column.kind)
    sd = f' <span class="sd">± {std}</span>' if std else ""
    words = escape(flag).replace(" ", "\N{NO-BREAK SPACE}", 1)  # so that it takes two lines at most
    wrong = f' <span class="flag">{words}</span>' if flag else ""
    tip = escape(exact_text(found, column.kind))
    return f'<td{named} data-value="{found.mean:.9g}" title="{tip}">{mean}{sd}{wrong}</td>'
