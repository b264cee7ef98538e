"""The comparison as a table: one list of columns, written for the terminal, as Markdown and as CSV."""

from __future__ import annotations

import csv as csv_format
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Literal

from clearn.metrics import DEFINITIONS, Spread
from clearn.report.grouping import Group, largest, settings
from clearn.report.runs import Figures, Run

if TYPE_CHECKING:
    from rich.console import Console

Kind = Literal["percent", "bytes", "count", "seconds", "rate"]


@dataclass(frozen=True, eq=False)
class Column:
    """One number per group.

    Attributes:
        key: full name, as in the CSV; the definition is part of it.
        title: as printed.
        part: "memory", "time" or "accuracy"; an accuracy column belongs to one read-out.
        kind: how the number is printed. Percentages are fractions until then.
        value: the number, over the finished runs of a group.
        note: what it is, in a sentence.
        readout: whose answers were counted, of an accuracy column.
        better: an arrow, where one direction is better by itself.
    """

    key: str
    title: str
    part: str
    kind: Kind
    value: Callable[[Group], Spread | None]
    note: str
    readout: str | None = None
    better: str = ""


def columns(groups: Sequence[Group]) -> list[Column]:
    """Give the columns that any of the groups fills; read-outs never share one."""
    readouts = dict.fromkeys(name for group in groups for name in group.readouts)
    found = [column for readout in sorted(readouts) for column in _accuracy_columns(readout)]
    found += [*_memory_columns(), *_time_columns()]
    if not any(step.shared for group in groups for run in group.finished for step in run.figures):
        found = [column for column in found if column.key not in ("bytes_delta", "bytes_shared")]
    return [column for column in found if any(column.value(group) for group in groups)]


def _accuracy_columns(readout: str) -> list[Column]:
    return [
        _accuracy_column(readout, "average_incremental_accuracy.pooled", "average acc.", " ↑"),
        _accuracy_column(readout, "last_accuracy.pooled", "last acc.", " ↑"),
        _accuracy_column(readout, "forgetting.chaudhry", "forgetting", " ↓"),
    ]


def _accuracy_column(readout: str, name: str, title: str, better: str) -> Column:
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


def _memory_columns() -> list[Column]:
    def end(key: str, title: str, pick: Callable[[Figures], float | None], note: str, kind: Kind = "bytes") -> Column:
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


def _time_columns() -> list[Column]:
    def column(key: str, title: str, kind: Kind, pick: Callable[[Run], float | None], note: str) -> Column:
        return Column(key, title, "time", kind, lambda group: group.spread(pick), note)

    host = "largest high-water mark of host memory in a step, above its start; not budgeted"
    return [
        column("train_seconds", "train", "seconds", train_seconds, "wall seconds of training, over the whole stream"),
        column("samples_per_second", "images/s", "rate", _speed, "training samples seen per second of training"),
        column("peak_host", "peak host", "bytes", lambda run: _peak(step.peak_host for step in run.figures), host),
        column("peak_device", "peak device", "bytes", lambda run: _peak(step.peak_device for step in run.figures),
               "the same on the accelerator"),
    ]  # fmt: skip


def _peak(peaks: Iterable[float | None]) -> float | None:
    return max((peak for peak in peaks if peak is not None), default=None)


def train_seconds(run: Run) -> float | None:
    """Sum the wall seconds of training over the steps; None if never measured."""
    taken = [step.seconds["train"] for step in run.figures if "train" in step.seconds]
    return sum(taken) if taken else None


def _speed(run: Run) -> float | None:
    seconds, samples = train_seconds(run), sum(step.samples or 0 for step in run.figures)
    return samples / seconds if seconds and samples else None


def bytes_text(size: float, like: float | None = None) -> str:
    """Print bytes in the largest binary unit that leaves at least 1, or in the unit of another size, left out then.

    >>> bytes_text(24_684_160), bytes_text(5000), bytes_text(12), bytes_text(5000, like=24_684_160)
    ('23.54 MiB', '4.9 KiB', '12 B', '0.00')
    """
    measure = abs(size if like is None else like)
    units = (("GiB", 30, 2), ("MiB", 20, 2), ("KiB", 10, 1))
    unit, power, digits = next((one for one in units if measure >= 2 ** one[1]), ("B", 0, 0))
    return f"{size / 2**power:,.{digits}f}" + (f" {unit}" if like is None else "")


def number_text(value: float, kind: Kind, like: float | None = None) -> str:
    """Print a number of a kind; fractions become percentages with one decimal, without their sign.

    Args:
        value: the number.
        kind: as the column says.
        like: another number, whose unit and decimals to use: for the deviation beside a mean.
    """
    if kind == "percent":
        return f"{100 * value:.1f}" if abs(value) >= 0.0005 else "0.0"
    if kind == "bytes":
        return bytes_text(value, like)
    if kind == "seconds":
        return f"{value:,.0f}" if (value if like is None else like) >= 100 else f"{value:.1f}"
    return f"{value:,.0f}"


def spread_text(found: Spread | None, kind: Kind) -> tuple[str, str]:
    """Print (mean, standard deviation); an empty deviation where there is none to tell.

    Bytes and counts that are the same in every run carry none, nor does a single run.
    """
    if found is None:
        return "", ""
    if found.std is None or (found.std == 0 and kind in ("bytes", "count")):
        return number_text(found.mean, kind), ""
    return number_text(found.mean, kind), number_text(found.std, kind, like=found.mean)


def cell(found: Spread | None, kind: Kind) -> str:
    """Print mean ± standard deviation in plain text; a dash where there is no number."""
    mean, std = spread_text(found, kind)
    return f"{mean} ± {std}" if std else mean or "–"


def heads(found: Sequence[Column]) -> list[str]:
    """Print column titles in plain text, with units, direction, and read-outs where there are several."""
    several = len({column.readout for column in found if column.readout}) > 1
    return [f"{column.readout} {head(column)}" if several and column.readout else head(column) for column in found]


def head(column: Column) -> str:
    """Print a column's title with its unit and an arrow that points to better."""
    unit = {"percent": " %", "seconds": " s"}.get(column.kind, "")
    return column.title + (unit + column.better).replace(" ", "\N{NO-BREAK SPACE}")


def parts(found: Sequence[Column]) -> list[tuple[str, list[Column]]]:
    """Split the columns over tables that fit a page: accuracy with the bytes behind it, memory, time."""
    total = [column for column in found if column.key == "bytes_total"]
    accuracy = [column for column in found if column.part == "accuracy"]
    memory = [column for column in found if column.part == "memory"]
    time = [column for column in found if column.part == "time"]
    tables = [("Accuracy", total + accuracy if accuracy else []), ("Memory", memory), ("Time", time)]
    return [(title, members) for title, members in tables if members]


def sample_note(groups: Sequence[Group], mark: str = "*") -> str:
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


def left_out(groups: Sequence[Group]) -> list[tuple[Run, Group, str]]:
    """List the runs that are in no mean, with the reason."""
    found = []
    for group in groups:
        for run in group.unfinished:
            reached = f"{run.state} after step {run.step}" + (f" of {run.steps}" if run.steps else "")
            found.append((run, group, reached + (f": {run.message}" if run.message else "")))
        for run in group.repeated:
            twin = next(other for other in group.finished if other.seeds == run.seeds)
            found.append((run, group, f"has the seeds of {twin.name}, so it adds nothing to the mean"))
    return found


def _marked(column: Column, group: Group, several: bool) -> str:
    """Print a cell; where there are several read-outs, a star marks the one number a method is judged by."""
    text = cell(column.value(group), column.kind)
    judged = column.key == f"{group.headline}.average_incremental_accuracy.pooled"
    return f"{text} *" if several and judged and text != "–" else text


def method_text(group: Group) -> str:
    """Print the method with every option that differs between the groups."""
    return ", ".join([group.method, *(f"{key}={value}" for key, value in group.options.items())])


def terminal(groups: Sequence[Group], console: Console) -> None:
    """Print the comparison with rich, in as many tables as the console's width asks for, for each stream."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    for setting, members in settings(groups).items():
        compared = [group for group in members if group.n]
        if not compared:
            continue
        console.print(f"[bold]{escape(setting)}[/bold]", highlight=False)
        names = [_method_lines(group) for group in compared]
        width = _width(["method", *names, *(group.label for group in compared)])
        for title, part in _fitted(compared, console.width - width - 12):
            table = Table(box=SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
            table.add_column("method", overflow="fold")
            table.add_column("n", justify="right", no_wrap=True)
            for text, _ in part:
                table.add_column(escape(text), justify="right", no_wrap=True)
            for at, group in enumerate(compared):
                table.add_row(escape(names[at]), str(group.n), *(cells[at] for _, cells in part))
            console.print(table, highlight=False)
            names = [group.label for group in compared]
    if any(group.n for group in groups):
        console.print(escape(sample_note(groups)), style="dim", highlight=False)
    for run, group, why in left_out(groups):
        console.print(f"Not in the means: {escape(run.name)} ({escape(group.label)}), {escape(why)}", highlight=False)


def _fitted(compared: Sequence[Group], width: int) -> list[tuple[str, list[tuple[str, list[str]]]]]:
    """Split the tables further, so that none is wider than `width`: [(title, [(head, cells)])]."""
    several = len({readout for group in compared for readout in group.readouts}) > 1
    tables: list[tuple[str, list[tuple[str, list[str]]]]] = []
    for title, part in parts(columns(compared)):
        left = 0  # so that each part starts a table
        for column in part:
            words = [column.readout] if several and column.readout else []
            text = "\n".join([*words, *wrap(head(column), 11)])
            cells = [_marked(column, group, several) for group in compared]
            left -= _width([text, *cells]) + 3
            if left < 0:
                tables.append((title, []))
                left = width - _width([text, *cells]) - 3
            tables[-1][1].append((text, cells))
    return tables


def _width(texts: Sequence[str]) -> int:
    return max(len(line) for text in texts for line in text.splitlines() or [""])


def _method_lines(group: Group) -> str:
    return "\n".join([group.method, *(f"  {key}={value}" for key, value in group.options.items())])


def markdown(groups: Sequence[Group]) -> str:
    """Write the comparison as Markdown tables, the same as on the terminal."""
    lines: list[str] = []
    for setting, members in settings(groups).items():
        compared = [group for group in members if group.n]
        if not compared:
            continue
        found = columns(compared)
        several = len({column.readout for column in found if column.readout}) > 1
        lines += [f"## {_escaped(setting)}", ""]
        for title, part in parts(found):
            lines += [f"### {title}", "", _row(["method", "n", *heads(part)])]
            lines.append(_row([":---", *["---:"] * (len(part) + 1)]))
            for group in compared:
                cells = [_marked(column, group, several) for column in part]
                lines.append(_row([method_text(group), str(group.n), *cells]))
            lines.append("")
    if any(group.n for group in groups):
        lines += [_escaped(sample_note(groups)), ""]
    excluded = left_out(groups)
    if excluded:
        lines += ["## Not in the means", ""]
        lines += [f"- {_escaped(run.name)} ({_escaped(group.label)}): {_escaped(why)}" for run, group, why in excluded]
        lines.append("")
    return "\n".join(lines)


def _escaped(text: str) -> str:
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*").replace("_", "\\_").split())


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_escaped, cells))} |"


def csv(groups: Sequence[Group]) -> str:
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
            numbers += ["", "", 0] if one is None else [_exact(one.mean), _exact(one.std), one.n]
        writer.writerow([*about, group.headline or "", *numbers])
    return out.getvalue()


def _exact(value: float | None) -> str:
    if value is None:
        return ""
    return str(int(value)) if value == int(value) and abs(value) >= 2 else repr(value)
