"""The comparison of strategies as a table: one list of columns, written for the terminal, as Markdown and as CSV."""

from __future__ import annotations

import csv as csv_format
import io
from collections.abc import Callable, Iterable, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

from clearn.metrics import DEFINITIONS
from clearn.report.columns import Column, Kind, cell, csv_text, head, heads
from clearn.report.grouping import settings
from clearn.report.learning.grouping import LearningGroup, largest
from clearn.report.learning.runs import LearningRun, TaskFigures
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

if TYPE_CHECKING:
    from rich.console import Console

LearningColumn = Column[LearningGroup]


def columns(groups: Sequence[LearningGroup]) -> list[LearningColumn]:
    """Give the columns that any of the groups fills; read-outs never share one."""
    readouts = dict.fromkeys(name for group in groups for name in group.readouts)
    found = [column for readout in sorted(readouts) for column in _accuracy_columns(readout)]
    found += [*_memory_columns(), *_time_columns()]
    if not any(step.shared for group in groups for run in group.finished for step in run.figures):
        found = [column for column in found if column.key not in ("bytes_delta", "bytes_shared")]
    return [column for column in found if any(column.value(group) for group in groups)]


def _accuracy_columns(readout: str) -> list[LearningColumn]:
    return [
        _accuracy_column(readout, "average_incremental_accuracy.pooled", "average acc.", " ↑"),
        _accuracy_column(readout, "last_accuracy.pooled", "last acc.", " ↑"),
        _accuracy_column(readout, "forgetting.chaudhry", "forgetting", " ↓"),
    ]


def _accuracy_column(readout: str, name: str, title: str, better: str) -> LearningColumn:
    return Column(
        key=f"{readout}.{name}",
        title=title,
        part="accuracy",
        kind="percent",
        value=lambda group: group.number(readout, name) if readout in group.readouts else None,
        note=f"{name}: {DEFINITIONS[name]}",
        readout=readout,
        better=better,
    )


def _memory_columns() -> list[LearningColumn]:
    def end(
        key: str, title: str, pick: Callable[[TaskFigures], float | None], note: str, kind: Kind = "bytes"
    ) -> LearningColumn:
        return Column(key, title, "memory", kind, lambda group: group.spread(lambda run: pick(run.figures[-1])), note)

    paper = "4 bytes per backbone parameter and height x width x 3 per exemplar; no heads, buffers, labels"
    most = "the most bytes carried after any step"
    return [
        end("bytes_total", "carried", lambda last: last.total, "bytes carried after the last step, all of them"),
        end("bytes_delta", "w/o shared", lambda last: last.delta, "carried bytes without shared pretrained weights"),
        end("bytes_shared", "shared", lambda last: last.shared, "weights bit-identical to a published checkpoint"),
        Column("bytes_largest", "largest", "memory", "bytes", lambda group: group.spread(largest), most),
        end("budget", "budget", lambda last: last.budget, "bytes allowed after the last step"),
        end("slack", "slack", lambda last: last.slack, "what the budget left over after the last step"),
        end("exemplars", "exemplars", lambda last: last.exemplars, "samples stored after the last step", "count"),
        end("bytes_paper", "as papers count", lambda last: last.paper, paper),
    ]


def _time_columns() -> list[LearningColumn]:
    def column(
        key: str, title: str, kind: Kind, pick: Callable[[LearningRun], float | None], note: str
    ) -> LearningColumn:
        return Column(key, title, "time", kind, lambda group: group.spread(pick), note)

    host = "largest high-water mark of host memory in a step, above its start; not budgeted"
    return [
        column("train_seconds", "train", "seconds", train_seconds, "wall seconds of training, over the whole stream"),
        column("cpu_seconds", "CPU", "seconds", _cpu, "processor seconds of all steps, of all that a run does in them"),
        column("optimizer_steps", "steps", "count", _optimizer_steps, "optimiser steps, over the whole stream"),
        column("samples_per_second", "images/s", "rate", _speed, "training samples seen per second of training"),
        column("peak_host", "peak host", "bytes", lambda run: _peak(step.peak_host for step in run.figures), host),
        column("peak_device", "peak device", "bytes", lambda run: _peak(step.peak_device for step in run.figures),
               "the same on the accelerator"),
    ]  # fmt: skip


def _peak(peaks: Iterable[float | None]) -> float | None:
    return max((peak for peak in peaks if peak is not None), default=None)


def train_seconds(run: LearningRun) -> float | None:
    """Sum the wall seconds of training over the steps; None if never measured."""
    taken = [step.seconds["train"] for step in run.figures if "train" in step.seconds]
    return sum(taken) if taken else None


def _cpu(run: LearningRun) -> float | None:
    taken = [step.cpu_seconds for step in run.figures if step.cpu_seconds is not None]
    return sum(taken) if taken else None


def _optimizer_steps(run: LearningRun) -> float | None:
    taken = [step.optimizer_steps for step in run.figures if step.optimizer_steps is not None]
    return sum(taken) if taken else None


def _speed(run: LearningRun) -> float | None:
    seconds, samples = train_seconds(run), sum(step.samples or 0 for step in run.figures)
    return samples / seconds if seconds and samples else None


def _parts(found: Sequence[LearningColumn]) -> list[tuple[str, list[LearningColumn]]]:
    """Split the columns over tables that fit a page: accuracy with the bytes behind it, memory, time."""
    total = [column for column in found if column.key == "bytes_total"]
    accuracy = [column for column in found if column.part == "accuracy"]
    memory = [column for column in found if column.part == "memory"]
    time = [column for column in found if column.part == "time"]
    tables = [("Accuracy", total + accuracy if accuracy else []), ("Memory", memory), ("Time", time)]
    return [(title, members) for title, members in tables if members]


def sample_note(groups: Sequence[LearningGroup], mark: str = "*") -> str:
    """Say what n, ± and the mark of the headline are."""
    finished = [group for group in groups if group.n]
    sizes = sorted({group.n for group in finished})
    words = [
        "Each number is of one finished run (n = 1), so there is no standard deviation."
        if sizes == [1]
        else f"Mean ± standard deviation (divisor n - 1) over n{f' = {sizes[0]}' if len(sizes) == 1 else ''} finished "
        "runs that differ only in their seeds.",
        "Accuracy is pooled over the test samples of all tasks seen; average acc. is its mean over all steps, the "
        "first included; forgetting is Chaudhry's (negative: gained).",
    ]
    if len({readout for group in finished for readout in group.readouts}) > 1:
        words.append(f"{mark} marks the read-out that a method is judged by.")
    return " ".join(words)


def _marked(column: LearningColumn, group: LearningGroup, several: bool) -> str:
    """Print a cell; where there are several read-outs, a star marks the one number a method is judged by."""
    text = cell(column.value(group), column.kind)
    judged = column.key == f"{group.headline}.average_incremental_accuracy.pooled"
    return f"{text} *" if several and judged and text != "–" else text


def terminal(groups: Sequence[LearningGroup], console: Console) -> None:
    """Print the comparison with rich, in as many tables as the console's width asks for, for each stream."""
    from rich.markup import escape

    for setting, compared in _compared(groups).items():
        console.print(f"[bold]{escape(setting)}[/bold]", highlight=False)
        several = len({readout for group in compared for readout in group.readouts}) > 1
        parts = []
        for title, found in _parts(columns(compared)):
            texts = []
            for column in found:
                words = [column.readout] if several and column.readout else []
                cells = [_marked(column, group, several) for group in compared]
                texts.append(("\n".join([*words, *wrap(head(column), 11)]), cells))
            parts.append(Part(title, texts))
        print_parts(console, _rows(compared), parts)
    if any(group.n for group in groups):
        console.print(escape(sample_note(groups)), style="dim", highlight=False)
    print_left_out(console, groups)


def markdown(groups: Sequence[LearningGroup]) -> list[str]:
    """Write the comparison as the lines of Markdown tables, the same as on the terminal."""
    lines: list[str] = []
    for setting, compared in _compared(groups).items():
        lines += [f"## {escaped(setting)}", ""]
        found = columns(compared)
        several = len({column.readout for column in found if column.readout}) > 1
        for title, members in _parts(found):
            cells = [[_marked(column, group, several) for group in compared] for column in members]
            lines += markdown_part(_rows(compared), Part(title, list(zip(heads(members), cells, strict=True))))
    if any(group.n for group in groups):
        lines += [escaped(sample_note(groups)), ""]
    return lines + markdown_left_out(groups)


def _compared(groups: Sequence[LearningGroup]) -> dict[str, list[LearningGroup]]:
    """Give by setting the groups that have a finished run."""
    return settings([group for group in groups if group.n])


def _rows(compared: Sequence[LearningGroup]) -> Rows:
    names, labels = [name_lines(group) for group in compared], [group.label for group in compared]
    return Rows("method", names, labels, [("n", [str(group.n) for group in compared])])


def csv(groups: Sequence[LearningGroup]) -> str:
    """Write one row per group, numbers exact: fractions, bytes and seconds; mean, std and n of every column.

    Every number of `metrics.DEFINITIONS` that describes a whole run is there, for every read-out, whether the tables
    print it or not. `headline` names the read-out that the method is judged by; `unfinished` counts runs in no mean.
    """
    readouts = sorted({name for group in groups for name in group.readouts})
    names = [name for name in DEFINITIONS if not name.startswith("accuracy.")]
    found = [_accuracy_column(readout, name, name, "") for readout in readouts for name in names]
    found += [*_memory_columns(), *_time_columns()]
    keys = [f"{column.key}.{part}" for column in found for part in ("mean", "std", "n")]
    out = io.StringIO()
    writer = csv_format.writer(out, lineterminator="\n")
    writer.writerow(["setting", "label", "method", "options", "n", "unfinished", "headline", *keys])
    for group in groups:
        options = " ".join(f"{key}={value}" for key, value in group.options.items())
        about = [group.setting, group.label, group.method, options, group.n, len(group.unfinished)]
        numbers: list[str | int] = []
        for column in found:
            one = column.value(group)
            numbers += ["", "", 0] if one is None else [csv_text(one.mean), csv_text(one.std), one.n]
        writer.writerow([*about, group.headline or "", *numbers])
    return out.getvalue()
