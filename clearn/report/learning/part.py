"""What the page says of learning runs: a comparison and figures per stream, which runs, and what the numbers mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from clearn.metrics import DEFINITIONS
from clearn.report.blocks import counted, swatch, terms
from clearn.report.columns import head
from clearn.report.comparison import Head, comparison, edges, name_cell, number_cell
from clearn.report.grouping import left_out, looks, settings
from clearn.report.learning import areas, sections
from clearn.report.learning.grouping import LearningGroup, lines
from clearn.report.learning.tables import LearningColumn, columns, sample_note
from clearn.report.timing import time

TITLE = "Learning"
SEEDS = ("seed", "class order seed")  # as `LearningRun.seeds`


def lead(groups: Sequence[LearningGroup]) -> str:
    """Say in a sentence what was compared."""
    methods = len({group.method for group in groups})
    words = f"{counted(sum(group.n for group in groups), 'finished run')} of {counted(methods, 'method')}"
    compared = [group for group in groups if group.n]
    if len(compared) != methods:
        words += f" in {counted(len(compared), 'configuration')}"
    words += " on " + "; ".join(_stream_words(name, members) for name, members in settings(groups).items())
    excluded = len(left_out(groups))
    return words + (f". {counted(excluded, 'more run')} in no mean: see below." if excluded else ".")


def _stream_words(setting: str, members: Sequence[LearningGroup]) -> str:
    steps = {run.steps for group in members for run in group.runs if run.steps}
    return f"{setting}, {counted(steps.pop(), 'task')}" if len(steps) == 1 else setting


def bodies(groups: Sequence[LearningGroup], first: int) -> list[str]:
    """Write a section per stream; their figures' ids are numbered from `first`."""
    apart = settings(groups)
    finished = {name: [group for group in members if group.n] for name, members in apart.items()}
    of = {name: {label: line for label, (line, _) in lines(members).items()} for name, members in finished.items()}
    numbers = looks({name: list(dict.fromkeys(one.values())) for name, one in of.items()})
    index = {name: {label: numbers[name][line] for label, line in one.items()} for name, one in of.items()}
    return [_setting(name, members, index[name], first + at) for at, (name, members) in enumerate(finished.items())]


def _setting(setting: str, groups: Sequence[LearningGroup], index: Mapping[str, int], number: int) -> str:
    """Write everything about one stream."""
    if not groups:
        return ""
    parts = [
        f"<section>\n<h2>{escape(setting)}</h2>",
        _table(groups, index),
        '<div class="pair">',
        sections.accuracy(groups, index, number),
        sections.forgetting(groups, index, number),
        sections.memory(groups, index, number),
        "</div>",
        areas.page(groups),
        sections.carried(groups, index, number),
        sections.matrices(groups, index),
        sections.classes(groups, index, number),
        time(groups, number),
        "</section>",
    ]
    return "\n".join(part for part in parts if part)


def _table(groups: Sequence[LearningGroup], index: Mapping[str, int]) -> str:
    found = columns(groups)
    heads = [Head(head(column), column.note, _over(column)) for column in found]
    starts = edges(heads)
    rows = [_row(group, found, starts, index[group.label]) for group in groups]
    leads = [Head("method", text=True), Head("n", "finished runs in the means")]
    note = f'<p class="note">{escape(sample_note(groups, mark="Bold"))} Click a column head to sort.</p>'
    return comparison("Comparison of methods", leads, heads, rows, note)


def _over(column: LearningColumn) -> str:
    return f"read-out: {column.readout}" if column.readout else column.part


def _row(group: LearningGroup, found: Sequence[LearningColumn], starts: Sequence[int], number: int) -> str:
    cells = [name_cell(group, swatch(number)), f'<td data-value="{group.n}">{group.n}</td>']
    for at, column in enumerate(found):
        edge = "edge" if at in starts else ""
        headline = "headline" if column.readout and column.readout == group.headline else ""
        cells.append(number_cell(column.value(group), column, " ".join(filter(None, (edge, headline)))))
    return f"<tr>{''.join(cells)}</tr>"


def notes(groups: Sequence[LearningGroup]) -> str:
    """Define every number."""
    told = dict(DEFINITIONS)
    for column in columns([group for group in groups if group.n]):
        if not column.readout:
            told[column.title] = column.note[0].upper() + column.note[1:] + "."
    told["± and bands"] = "Sample standard deviation (divisor n - 1) over runs; none is printed for a single run."
    if any(group.options.get("runner.rebuild") == "no" for group in groups):
        told["runner.rebuild=no"] = (
            "The carried bytes were weighed, but the learner was not rebuilt from them, so they may not be all."
        )
    if any("by inspection" in group.options.get("weighed", "") for group in groups):
        told["weighed by inspection, not rebuilt"] = (
            "The method is foreign code: its bytes are all tensors, arrays, numbers and samples that a walk over its "
            "objects found. It was not thrown away and rebuilt from them after each task, so they may not be all."
        )
    told["read-out"] = (
        "How answers are read from the learner: classifier is the network's own head, nme the nearest mean of "
        "exemplars. They are two series of results and never share a column."
    )
    intro = (
        "R[i, j] is the accuracy on the test set of task j after learning task i; T is the number of tasks. Everything "
        "is derived from counts of correct answers. Percentages are printed with one decimal, bytes in binary units "
        "(1 MiB = 1,048,576 bytes); hover over a number for its exact value."
    )
    return terms(intro, told)
