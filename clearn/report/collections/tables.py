"""The comparison of protocols as tables: one list of columns, written for the terminal, as Markdown and as CSV."""

from __future__ import annotations

import csv as csv_format
import io
from collections.abc import Callable, Iterable, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

from clearn.report.blocks import counted
from clearn.report.collections.columns import (
    WORSE,
    CollectionColumn,
    columns,
    cost_columns,
    error_columns,
    more_privacy_columns,
    posts,
    privacy_columns,
    simulation_columns,
)
from clearn.report.collections.grouping import CollectionGroup
from clearn.report.columns import cell, csv_text, digits_text, head
from clearn.report.grouping import settings
from clearn.report.plain import (
    Part,
    Rows,
    escaped,
    markdown_left_out,
    markdown_part,
    name_lines,
    print_card,
    print_left_out,
    print_parts,
)

if TYPE_CHECKING:
    from rich.console import Console

FEW = 2  # groups that are told in columns on a terminal, a line per number
PARTS = {"error": "Error, MSE_avg", "privacy": "Privacy loss", "cost": "Cost to users and server"}


def engine_texts(group: CollectionGroup) -> list[tuple[str, str]]:
    """Say how a group was simulated, and what that gets right: (engine, exactness), one pair but for mixed groups."""
    pairs = dict.fromkeys((run.figures[-1].engine, run.figures[-1].exactness) for run in group.finished)
    return [(engine or "–", exactness or "–") for engine, exactness in pairs]


def facts(groups: Sequence[CollectionGroup]) -> str:
    """Say in words how large a collection was."""
    first = groups[0]
    users = [] if first.last.users is None else [counted(first.last.users, "user")]
    attributes = counted(len(first.errors[0].names), "attribute")
    return ", ".join([*users, attributes, counted(first.rounds, "round")])


def alike(groups: Sequence[CollectionGroup], found: Sequence[CollectionColumn]) -> list[list[CollectionGroup]]:
    """Put groups together that differ in budgets alone and agree on all these columns."""
    kinds: dict[str, list[CollectionGroup]] = {}
    for group in groups:
        known = [column.value(group) for column in found]
        same = repr([group.series, [one and (one.mean, one.std or 0.0) for one in known]])
        kinds.setdefault(same, []).append(group)
    return list(kinds.values())


def range_text(values: Iterable[float | None]) -> str:
    """Print the least and the largest of some budgets, or the one there is."""
    known = sorted({value for value in values if value is not None})
    if not known:
        return "–"
    return digits_text(known[0]) if len(known) == 1 else f"{digits_text(known[0])} to {digits_text(known[-1])}"


def notes(groups: Sequence[CollectionGroup], mark: str) -> list[str]:
    """Say what the numbers and marks of the tables are; `mark` is how the error that is judged is told apart."""
    one = all(group.repeats == 1 for group in groups)
    found = [
        "Each error is of one collection, so there is no standard deviation."
        if one
        else "Mean ± standard deviation (divisor n - 1) over n = runs × repeats, which differ only in their seeds.",
        "MSE_avg is the mean of (f - fhat)² over values, attributes and rounds, f being the frequency in the whole "
        f"population. {mark} marks the post-processing that a protocol is judged by; expected is the closed form of "
        "none.",
    ]
    flag = "! " if mark == "*" else ""
    flagged = {column.part for column in columns(groups) if any(column.flag(group) for group in groups)}
    if "error" in flagged:
        found.append(
            f"{flag}{WORSE.capitalize()}: saying 1/k for every value, without asking anybody, has a smaller error."
        )
    if "privacy" in flagged:
        found.append(f"{flag}Over eps: the exact loss is above the budget that it is run under.")
    return found


def warnings(groups: Sequence[CollectionGroup]) -> list[tuple[str, list[str]]]:
    """Gather what readers should know before using a number: (warning, labels of the groups it holds for)."""
    found: dict[str, list[str]] = {}
    for group in groups:
        told = [text for run in group.finished for step in run.figures for text in step.warnings]
        missing, asked = (
            sum(values) for values in zip(*((e.unanswered, e.estimates) for e in group.errors), strict=True)
        )
        if missing:
            told.append(
                f"nobody answered an attribute in {missing:,} of {asked:,} estimates; these are in no mean, which then "
                "is one over the rest"
            )
        for text in dict.fromkeys(told):
            found.setdefault(text, []).append(group.label)
    return list(found.items())


def terminal(groups: Sequence[CollectionGroup], console: Console) -> None:
    """Print the comparison with rich, in as many tables as the console's width asks for, for each collection."""
    from rich.markup import escape

    for setting, compared in _compared(groups).items():
        console.print(f"[bold]{escape(setting)}[/bold]: {escape(facts(compared))}", highlight=False)
        if len(compared) <= FEW:
            parts = [part for _, part in _parts(compared, str, merge=False)]
            print_card(console, _rows([[group] for group in compared], counts=True), parts)
        else:
            for rows, part in _parts(compared, lambda text: "\n".join(wrap(text, 11))):
                print_parts(console, rows, [part])
        for text, labels in warnings(compared):
            console.print(f"Warning: {escape(text)} ({escape('; '.join(labels))})", highlight=False)
    if any(group.n for group in groups):
        for note in notes([group for group in groups if group.n], "*"):
            console.print(escape(note), style="dim", highlight=False)
    print_left_out(console, groups)


def markdown(groups: Sequence[CollectionGroup]) -> list[str]:
    """Write the comparison as the lines of Markdown tables, the same as on the terminal."""
    lines: list[str] = []
    for setting, compared in _compared(groups).items():
        lines += [f"## {escaped(setting)}", "", f"{escaped(facts(compared))}.", ""]
        for rows, part in _parts(compared, str):
            lines += markdown_part(rows, part)
        told = warnings(compared)
        lines += ["### Warnings", ""] if told else []
        lines += [f"- {escaped(text)} ({escaped('; '.join(labels))})" for text, labels in told]
        lines += [""] if told else []
    if any(group.n for group in groups):
        lines += [escaped(" ".join(notes([group for group in groups if group.n], "*"))), ""]
    return lines + markdown_left_out(groups)


def _compared(groups: Sequence[CollectionGroup]) -> dict[str, list[CollectionGroup]]:
    """Give by setting the groups that have a finished run."""
    return settings([group for group in groups if group.n])


def _parts(
    compared: Sequence[CollectionGroup], broken: Callable[[str], str], merge: bool = True
) -> list[tuple[Rows, Part]]:
    """Give the tables: error, privacy, cost.

    Args:
        compared: the groups.
        broken: puts a head on several lines, or not.
        merge: give groups one row that cost the same.
    """
    found = columns(compared)
    parts = []
    for key, title in PARTS.items():
        own = [column for column in found if column.part == key]
        kinds = alike(compared, own) if merge and key == "cost" else [[group] for group in compared]
        texts = [(broken(head(column)), [_marked(column, kind[0]) for kind in kinds]) for column in own]
        if key == "error":
            engines = ["; ".join(map(", ".join, engine_texts(group))) for group in compared]
            texts.append((broken("engine"), engines))
        parts.append((_rows(kinds, counts=key != "cost"), Part(title, texts)))
    return [(rows, part) for rows, part in parts if part.columns]


def _rows(kinds: Sequence[Sequence[CollectionGroup]], counts: bool) -> Rows:
    leads = [
        ("eps_inf", [range_text(group.eps_inf for group in kind) for kind in kinds]),
        ("eps_1", [range_text(group.eps_1 for group in kind) for kind in kinds]),
    ]
    if counts:
        leads.append(("n", [kind[0].repeats_text for kind in kinds]))
    return Rows("protocol", [name_lines(kind[0]) for kind in kinds], [kind[0].series for kind in kinds], leads)


def _marked(column: CollectionColumn, group: CollectionGroup) -> str:
    """Print a cell; a star marks the error that a protocol is judged by, "!" a number with which something is wrong."""
    text = cell(column.value(group), column.kind)
    if column.readout and column.readout == group.headline and text != "–":
        text += " *"
    return f"{text} !" if column.flag(group) else text


def csv(groups: Sequence[CollectionGroup]) -> str:
    """Write one row per group, numbers exact; mean, std and n of every column: over repeats of errors, else over runs.

    Bits and bytes are as in the columns' names; a loss that nothing bounds is inf. `headline` names the
    post-processing that the protocol is judged by; `unfinished` counts runs in no mean.
    """
    found = [*error_columns(posts(groups)), *privacy_columns(), *more_privacy_columns()]
    found += [*cost_columns(), *simulation_columns()]
    keys = [f"{column.key}.{part}" for column in found for part in ("mean", "std", "n")]
    out = io.StringIO()
    writer = csv_format.writer(out, lineterminator="\n")
    about = ["setting", "label", "protocol", "options", "eps_inf", "eps_1", "runs", "repeats", "unfinished", "headline"]
    writer.writerow([*about, "engine", "exactness", "profile", *keys])
    for group in groups:
        options = " ".join(f"{key}={value}" for key, value in group.options.items())
        told = [group.setting, group.label, group.method, options, csv_text(group.eps_inf), csv_text(group.eps_1)]
        last = group.last if group.n else None
        simulated = [last.engine, last.exactness, last.profile] if last else [None, None, None]
        row: list[str | int] = [*told, group.n, group.repeats, len(group.unfinished), group.headline or ""]
        row += [text or "" for text in simulated]
        for column in found:
            one = column.value(group) if group.n else None
            row += ["", "", 0] if one is None else [csv_text(one.mean), csv_text(one.std), one.n]
        writer.writerow(row)
    return out.getvalue()
