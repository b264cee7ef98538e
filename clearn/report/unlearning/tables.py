"""The comparison of unlearners as tables, one set per request: on the terminal, as Markdown and as CSV."""

from __future__ import annotations

import csv as csv_format
import io
from collections.abc import Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

from clearn.metrics import Spread
from clearn.report.columns import csv_text
from clearn.report.grouping import settings
from clearn.report.plain import (
    Part,
    Rows,
    escaped,
    markdown_left_out,
    markdown_part,
    name_lines,
    print_left_out,
    print_parts,
)
from clearn.report.unlearning.columns import Measure, all_measures, cell, measures
from clearn.report.unlearning.grouping import Gap, UnlearningGroup
from clearn.report.unlearning.remains import Bound
from clearn.report.unlearning.runs import Request

if TYPE_CHECKING:
    from rich.console import Console

TITLES = {
    "verdict": "Verdict",
    "accuracy": "Accuracy",
    "attack": "Membership attacks",
    "remains": "What is left inside",
    "distance": "Beside retraining",
    "cost": "Cost",
}


def notes(groups: Sequence[UnlearningGroup]) -> list[str]:
    """Say what the numbers are, what stands in for what, and what is missing."""
    finished = [group for group in groups if group.n]
    if not finished:
        return []
    sizes = sorted({group.n for group in finished})
    words = [
        "Each number is of one finished run (n = 1): no deviation, and no interval of a gap."
        if sizes == [1]
        else "Mean ± standard deviation (divisor n - 1) over n finished runs that differ only in their seeds; gap: "
        "minus retraining with the same seed, with the 95 % t-interval of its mean."
    ]
    alone = dict.fromkeys(group.setting for group in finished if group.role != "reference" and group.reference is None)
    words += [
        f"No retrain run of {name} is among these: its gaps, ToW, divergences, speed and verdicts need one "
        "(unlearner.name=retrain with the same seeds)."
        for name in alone
    ]
    seedless = [group.label for group in finished if group.reference is not None and not group.pairs]
    if seedless:
        words.append(f"No finished retrain run has the seeds of {', '.join(seedless)}.")
    words.append(
        "→R: good is what retraining has, neither more nor less; →0, →0.5, →1: good is that number; ↑, ↓: more, less. "
        "Controls "
        "(nothing, head_row) show what no unlearning, and a mere mask of the output, look like."
    )
    return words


def terminal(groups: Sequence[UnlearningGroup], console: Console) -> None:
    """Print the comparison with rich, in as many tables as the console's width asks for, for each request."""
    from rich.markup import escape

    for setting, compared in _compared(groups).items():
        console.print(f"[bold]{escape(setting)}[/bold]", highlight=False)
        for request in compared[0].requests:
            console.print(f"[bold]{escape(heading(request))}[/bold]", highlight=False)
            print_parts(console, _rows(compared), _parts(compared, request, narrow=True))
    for note in notes(groups):
        console.print(escape(note), style="dim", highlight=False)
    print_left_out(console, groups)


def markdown(groups: Sequence[UnlearningGroup]) -> list[str]:
    """Write the comparison as the lines of Markdown tables, the same as on the terminal."""
    lines: list[str] = []
    for setting, compared in _compared(groups).items():
        lines += [f"## {escaped(setting)}", ""]
        for request in compared[0].requests:
            for part in _parts(compared, request):
                titled = Part(f"{escaped(heading(request))}: {part.title.lower()}", part.columns)
                lines += markdown_part(_rows(compared), titled)
    for note in notes(groups):
        lines += [escaped(note), ""]
    return lines + markdown_left_out(groups)


def heading(request: Request) -> str:
    """Name a request above its tables."""
    return f"Request {request.number}: {request.words}"


def _parts(groups: Sequence[UnlearningGroup], request: Request, narrow: bool = False) -> list[Part]:
    """Split the columns over tables that fit a page; `narrow` breaks their heads for a terminal."""
    found = measures(groups, request)
    parts = []
    for name, title in TITLES.items():
        columns = []
        for one in found:
            if one.part == name:
                head, cells = one.head, [cell(one, group, request).plain for group in groups]
                if narrow:
                    head, wide = "\n".join(wrap(head, 11, break_long_words=False)), 40 if name == "verdict" else 60
                    cells = ["\n".join(wrap(text, wide)) for text in cells]
                columns.append((head, cells))
        parts += [Part(title, columns)] if columns else []
    return parts


def _compared(groups: Sequence[UnlearningGroup]) -> dict[str, list[UnlearningGroup]]:
    """Give by setting the groups that have a finished run."""
    return settings([group for group in groups if group.n])


def _rows(compared: Sequence[UnlearningGroup]) -> Rows:
    names, labels = [name_lines(group) for group in compared], [group.label for group in compared]
    roles = [str(group.role) for group in compared]
    leads = [("role", roles), ("n", [str(group.n) for group in compared])]
    return Rows("unlearner", names, labels, leads)


def csv(groups: Sequence[UnlearningGroup]) -> str:
    """Write one row per group and request, numbers exact: fractions, nats, bytes and seconds.

    A number has mean, std and n, and bound where it may be one; a gap mean, low, high and n. A group without a finished
    run has one row without.
    """
    found = all_measures()
    out = io.StringIO()
    writer = csv_format.writer(out, lineterminator="\n")
    about = [
        "setting",
        "label",
        "method",
        "role",
        "options",
        "n",
        "unfinished",
        "reference",
        "request",
        "what",
        "after",
    ]
    writer.writerow([*about, *(head for one in found for head in _csv_heads(one))])
    for group in groups:
        options = " ".join(f"{key}={value}" for key, value in group.options.items())
        reference = group.reference.label if group.reference else ""
        row = [group.setting, group.label, group.method, group.role, options, group.n, len(group.unfinished), reference]
        for request in group.requests if group.n else ():
            cells = [text for one in found for text in _csv_cells(one, group, request)]
            writer.writerow([*row, request.number, request.what, request.after, *cells])
        if not group.n:
            writer.writerow([*row, "", "", "", *("" for one in found for _ in _csv_heads(one))])
    return out.getvalue()


def _csv_cells(measure: Measure, group: UnlearningGroup, request: Request) -> list[str | int]:
    """Print (mean, std or low, high, n) for a machine; a gap has an interval in the place of a deviation.

    A number that may be a bound ends with what it is: ">", "<", "", or "unknown".
    """
    found = measure.value(group, request)
    last: list[str | int] = [""] if measure.bounded else []
    match found:
        case Spread():
            return [csv_text(found.mean), csv_text(found.std), found.n, *last]
        case Gap():
            return [csv_text(found.mean), csv_text(found.low), csv_text(found.high), found.n]
        case Bound():
            return [csv_text(found.mean), "", found.n, found.sign]
        case str() if measure.part == "verdict":
            return [found]
        case str() if measure.bounded:
            return ["", "", 0, "unknown"]
    return ["", "", "", 0] if measure.key.endswith(".gap") else ["", "", 0, *last]


def _csv_heads(measure: Measure) -> list[str]:
    """Name the columns of `_csv_cells`."""
    if measure.part == "verdict":
        return [measure.key]
    parts = ("mean", "low", "high", "n") if measure.key.endswith(".gap") else ("mean", "std", "n")
    return [f"{measure.key}.{part}" for part in (*parts, *(["bound"] if measure.bounded else []))]
