"""What the page says of collections: comparisons and figures per data set, which runs, and what the numbers mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from clearn.report.blocks import counted, swatch, terms
from clearn.report.collections import sections
from clearn.report.collections.columns import CollectionColumn, columns
from clearn.report.collections.grouping import CollectionGroup
from clearn.report.collections.looking import Look, group_looks
from clearn.report.collections.tables import alike, engine_texts, facts, range_text, warnings
from clearn.report.collections.tables import notes as notes_of
from clearn.report.collections.terms import INTRO, told
from clearn.report.columns import head
from clearn.report.comparison import Head, comparison, edges, name_cell, number_cell
from clearn.report.grouping import left_out, settings

TITLE = "Private collections"
SEEDS = ("seed", "order seed")  # as `CollectionRun.seeds`
LEADS = [
    Head("protocol", text=True),
    Head("eps_inf", "promised for ever, of one value that never changes"),
    Head("eps_1", "promised of the first report"),
]

OVER = {"error": "error: MSE_avg", "privacy": "loss after the last round", "cost": "on a device"}


def lead(groups: Sequence[CollectionGroup]) -> str:
    """Say in a sentence what was compared."""
    protocols = len({group.method for group in groups})
    words = f"{counted(sum(group.n for group in groups), 'finished run')} of {counted(protocols, 'protocol')}"
    compared = [group for group in groups if group.n]
    if len(compared) != protocols:
        words += f" in {counted(len(compared), 'configuration')}"
    sizes = {name: facts(members) for name, members in settings(compared).items()}
    words += " on " + "; ".join(f"{name} ({size})" for name, size in sizes.items()) if sizes else ""
    excluded = len(left_out(groups))
    return words + (f". {counted(excluded, 'more run')} in no mean: see below." if excluded else ".")


def bodies(groups: Sequence[CollectionGroup], first: int) -> list[str]:
    """Write a section per collection; their figures' ids are numbered from `first`."""
    finished = settings([group for group in groups if group.n])
    found = group_looks(finished)
    return [_setting(name, members, found[name], first + at) for at, (name, members) in enumerate(finished.items())]


def _setting(setting: str, groups: Sequence[CollectionGroup], look: Mapping[str, Look], number: int) -> str:
    """Write everything about one collection."""
    figures = [sections.error(groups, look, number), sections.memory(groups, look, number)]
    parts = [
        f"<section>\n<h2>{escape(setting)}</h2>",
        f'<p class="muted">{escape(facts(groups))}</p>',
        _outcome(groups, look),
        _warnings(groups),
        f'<div class="pair">{"".join(figures)}</div>' if any(figures) else "",
        sections.losses(groups, look, number),
        sections.rounds(groups, look, number),
        sections.attributes(groups),
        _cost(groups, look),
        sections.simulation(groups, number),
        "</section>",
    ]
    return "\n".join(part for part in parts if part)


def _outcome(groups: Sequence[CollectionGroup], look: Mapping[str, Look]) -> str:
    """Tabulate error and privacy loss, a row per configuration."""
    found = [column for column in columns(groups) if column.part in ("error", "privacy")]
    law = "how users were simulated, and what law of the server's counts that gets right"
    heads = [Head(head(column), column.note, _over(column)) for column in found]
    heads.append(Head("engine", law, "simulated", text=True))
    starts = edges(heads)
    rows, before = [], groups[0]
    for group in groups:
        cells = [name_cell(group, look[group.line].mark()), *_budgets([group])]
        cells.append(f'<td data-value="{group.repeats}">{escape(group.repeats_text)}</td>')
        cells += _numbers(group, found, starts)
        words = "".join(f'{escape(name)} <span class="sd">{escape(law)}</span>' for name, law in engine_texts(group))
        cells.append(f'<td class="edge" data-value="{escape(engine_texts(group)[0][0])}">{words}</td>')
        other = (group.eps_inf, group.eps_1) != (before.eps_inf, before.eps_1)
        rows.append(f"<tr{' class=next' if other else ''}>{''.join(cells)}</tr>")
        before = group
    leads = [*LEADS, Head("n", "finished runs × repeats of each")]
    note = " ".join([*notes_of(groups, "Bold"), "Click a column head to sort."])
    return comparison("Error and privacy loss", leads, heads, rows, f'<p class="note">{escape(note)}</p>')


def _cost(groups: Sequence[CollectionGroup], look: Mapping[str, Look]) -> str:
    """Tabulate what users and server pay, a row for all budgets that cost the same."""
    found = [column for column in columns(groups) if column.part == "cost"]
    if not found:
        return ""
    heads = [Head(head(column), column.note, _over(column)) for column in found]
    starts = edges(heads)
    rows = []
    for kind in alike(groups, found):
        cells = [name_cell(kind[0], swatch(look[kind[0].line].number)), *_budgets(kind)]
        rows.append(f"<tr>{''.join(cells + _numbers(kind[0], found, starts))}</tr>")
    note = "On the device of one user, and on the server for all of them, after the last round."
    title = "Cost to users and server"
    return comparison(title, LEADS, heads, rows, f'<p class="note">{note}</p>', title)


def _over(column: CollectionColumn) -> str:
    if column.key in ("eps_1_effective", "eps_inf_effective"):
        return "eps_effective"
    if column.key in ("setup_bits", "round_bits"):
        return "sent"
    return "kept" if column.key == "server_bytes" else OVER[column.part]


def _budgets(groups: Sequence[CollectionGroup]) -> list[str]:
    """Write the cells of eps_inf and eps_1, of one group or of several that share a row."""
    cells = []
    for values in ([group.eps_inf for group in groups], [group.eps_1 for group in groups]):
        least = min((value for value in values if value is not None), default=None)
        cells.append(f'<td data-value="{"" if least is None else f"{least:.9g}"}">{range_text(values)}</td>')
    return cells


def _numbers(group: CollectionGroup, found: Sequence[CollectionColumn], starts: Sequence[int]) -> list[str]:
    cells = []
    for at, column in enumerate(found):
        edge = "edge" if at in starts else ""
        headline = "headline" if column.readout and column.readout == group.headline else ""
        classes = " ".join(filter(None, (edge, headline)))
        cells.append(number_cell(column.value(group), column, classes, column.flag(group)))
    return cells


def _warnings(groups: Sequence[CollectionGroup]) -> str:
    items = "\n".join(
        f'<li>{escape(text)} <span class="muted">({escape("; ".join(labels))})</span></li>'
        for text, labels in warnings(groups)
    )
    return f'<div class="card"><h3>Warnings</h3><ul class="plain">\n{items}\n</ul></div>' if items else ""


def notes(groups: Sequence[CollectionGroup]) -> str:
    """Define every number."""
    return terms(INTRO, told(groups))
