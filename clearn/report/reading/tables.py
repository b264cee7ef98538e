"""The comparison of readers as tables: one list of columns, written for the terminal, as Markdown and as CSV."""

from __future__ import annotations

import csv as csv_format
import io
from collections.abc import Callable, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np

from clearn.metrics import Spread
from clearn.report.columns import Column, Kind, cell, csv_text, head, number_text
from clearn.report.grouping import settings
from clearn.report.plain import (
    Part,
    Rows,
    Texts,
    escaped,
    markdown_left_out,
    markdown_part,
    name_lines,
    print_left_out,
    print_parts,
)
from clearn.report.reading.grouping import ReadingGroup
from clearn.report.reading.runs import ReadingFigures, ReadingRun
from clearn.report.reading.verdicts import CONTROLS

if TYPE_CHECKING:
    from rich.console import Console

ReadingColumn = Column[ReadingGroup]

TITLES = {
    "answers": "Right answers",
    "controls": "Controls",
    "kinds": "Right by kind of answer",
    "retention": "Retention",
    "forgotten": "Forgotten documents",
    "bytes": "Bytes",
    "preparing": "Meta-training",
    "time": "Time",
}
MOST_STEPS = 10  # columns of a curve

EM = "strict exact match after normalising (lower case, no punctuation, no articles): the headline"
PREFIX = "the normalised answer begins with the normalised reference: EM as published tables count it"
F1 = "harmonic mean of precision and recall over normalised words, mean over questions"
ASKED = {
    "empty": "the same reader after reading nothing",
    "shuffled": "the same reader after reading as many other documents, of the upstream train split",
    "random_codes": "the same memory with codes drawn at random in place of the documents' own",
}


def columns(groups: Sequence[ReadingGroup]) -> list[ReadingColumn]:
    """Give the columns that any of the groups fills; those of no kind of answer but an unnamed one are left out."""
    found = [*_answers(), *_controls(groups), *_kinds(groups), *_retention(), *_forgotten(), *_bytes(), *_time()]
    return [column for column in found if any(column.value(group) for group in groups)]


def _scored(key: str, title: str, part: str, name: str, note: str, readout: str | None = None) -> ReadingColumn:
    """Give one of `ReadingRun.numbers`, of the headline where no read-out is named."""

    def value(group: ReadingGroup) -> Spread | None:
        return group.number(readout or group.headline, name)

    return Column(key, title, part, "percent", value, note, readout, " ↑" if part == "answers" else "")


def _answers() -> list[ReadingColumn]:
    return [
        _scored("em", "EM", "answers", "em", EM),
        _scored("prefix_em", "prefix EM", "answers", "prefix_em", PREFIX),
        _scored("f1", "F1", "answers", "f1", F1),
    ]


def _controls(groups: Sequence[ReadingGroup]) -> list[ReadingColumn]:
    names = dict.fromkeys(name for group in groups for name in group.controls)
    found = []
    for name in names:
        words, of = name.replace("_", " "), ASKED.get(name, f"the read-out {name}")
        found += [
            _scored(f"{name}.em", f"{words} EM", "controls", "em", f"strict EM of {of}", name),
            _scored(f"{name}.f1", f"{words} F1", "controls", "f1", f"F1 of {of}", name),
        ]
    return found


def _kinds(groups: Sequence[ReadingGroup]) -> list[ReadingColumn]:
    """Give strict EM by kind of answer, where kinds are known."""
    tallies = [run.tally(run.headline) for group in groups for run in group.finished]
    kinds = sorted({kind for one in tallies if one is not None for kind in one.kinds})
    if kinds == ["any"]:
        return []

    def column(kind: str) -> ReadingColumn:
        asked = sorted({one.kinds[kind][1] for one in tallies if one is not None and kind in one.kinds})
        many = f"{asked[0]:,}" if len(asked) == 1 else f"{asked[0]:,} to {asked[-1]:,}"
        note = f"strict EM on the {many} questions whose answer is a {kind}" if kind != "any" else "on all others"
        return Column(f"em.{kind}", kind, "kinds", "percent", lambda group: group.kind(kind), note)

    return [column(kind) for kind in kinds]


def _retention() -> list[ReadingColumn]:
    first = "questions on the first task's documents at the end"
    every = "score at the end over that right after reading, pooled over all tasks but the last"

    def several(pick: Callable[[ReadingRun], float | None]) -> Callable[[ReadingGroup], Spread | None]:
        return lambda group: group.spread(pick) if len(group.tasks) > 1 else None

    def task(key: str, title: str, pick: Callable[[ReadingRun], float | None], note: str) -> ReadingColumn:
        return Column(key, title, "retention", "percent", several(pick), note)

    return [
        task("first_task.em", "EM of task 1", lambda run: _last(run.curve(lambda t: t.em, [1])), f"strict EM: {first}"),
        task("first_task.f1", "F1 of task 1", lambda run: _last(run.curve(lambda t: t.mean_f1, [1])), f"F1: {first}"),
        task("first_task.em.share", "EM kept of task 1", lambda run: _last(run.share(lambda t: t.em, 1)),
             "share f_T / f_0 of task 1: its strict EM at the end over that right after reading it"),
        task("first_task.f1.share", "F1 kept of task 1", lambda run: _last(run.share(lambda t: t.mean_f1, 1)),
             "share f_T / f_0 of task 1 in F1, the published measure of retention"),
        task("all_tasks.em.share", "EM kept of all", lambda run: run.kept(lambda t: t.em), f"strict EM: {every}"),
        task("all_tasks.f1.share", "F1 kept of all", lambda run: run.kept(lambda t: t.mean_f1), f"F1: {every}"),
    ]  # fmt: skip


def _last(curve: Sequence[float | None]) -> float | None:
    return curve[-1] if curve else None


def _forgotten() -> list[ReadingColumn]:
    gone = "questions on documents that were to be forgotten, at the end"
    return [
        _scored("forgotten.em", "EM", "forgotten", "forgotten.em", f"strict EM: {gone}"),
        _scored("forgotten.f1", "F1", "forgotten", "forgotten.f1", f"F1: {gone}"),
        _scored("forgotten.empty.em", "empty EM", "forgotten", "forgotten.em",
                "strict EM on them of a reader that read nothing: what is known of them without reading", "empty"),
    ]  # fmt: skip


def _bytes() -> list[ReadingColumn]:
    def end(
        key: str, title: str, pick: Callable[[ReadingFigures], float | None], note: str, kind: Kind = "bytes"
    ) -> ReadingColumn:
        return Column(key, title, "bytes", kind, lambda group: group.end(pick), note)

    return [
        end("bytes_bank", "bank", lambda last: last.bank,
            "bytes kept of documents, and what is needed to read them, such as a codebook: all but networks"),
        Column("bytes_per_document", "per document", "bytes", "bytes", lambda group: group.spread(_grown),
               "by how much the bank grew since the preparation, over the documents held"),
        end("bytes_networks", "networks", lambda last: last.networks,
            "bytes of what was prepared or trained and is no bank, without shared pretrained weights"),
        end("bytes_delta", "carried", lambda last: last.delta,
            "all bytes carried at the end but shared pretrained weights: bank and networks"),
        end("bytes_shared", "shared", lambda last: last.shared,
            "weights bit-identical to a published checkpoint, which every method on it can share"),
        end("budget", "budget", lambda last: last.budget, "bytes allowed after the last step"),
        end("held", "documents held", lambda last: last.held, "documents in the memory at the end", "count"),
    ]  # fmt: skip


def _grown(run: ReadingRun) -> float | None:
    last, before = run.figures[-1], run.prepared
    return (last.bank - (before.bank if before else 0)) / last.held if last.held else None


def _time() -> list[ReadingColumn]:
    def logged(key: str, name: str, title: str, kind: Kind, note: str) -> ReadingColumn:
        return Column(key, title, "preparing", kind, lambda group: group.prepared(name), note)

    def column(
        key: str, title: str, pick: Callable[[ReadingRun], float | None], note: str, kind: Kind = "ms"
    ) -> ReadingColumn:
        return Column(key, title, "time", kind, lambda group: group.spread(pick), note)

    return [
        logged("meta_seconds", "meta/seconds", "training", "seconds",
               "wall seconds of meta-training where it was done; a run that took it from the cache tells the same"),
        logged("meta_epochs", "meta/epochs", "epochs", "count", "passes over the upstream rows"),
        logged("meta_f1", "meta/f1", "validation F1", "percent", "F1 on the validation questions, of the best epoch"),
        column("ms_per_document", "per document", _reading_ms,
               "wall milliseconds of the method's own work over the stream, a document read"),
        column("ms_per_question", "per question", _asking_ms,
               "wall milliseconds of all its read-outs but the controls, a question; asked in batches"),
        column("peak_host", "peak host", lambda run: max(
            (step.peak_host for step in run.figures if step.peak_host is not None), default=None),
            "largest high-water mark of host memory in a step, above its start; not budgeted", "bytes"),
    ]  # fmt: skip


def _reading_ms(run: ReadingRun) -> float | None:
    read = [step for step in run.figures if step.step not in run.requests]
    documents = sum(step.documents for step in read)
    return 1000 * sum(step.own_seconds for step in read) / documents if documents else None


def _asking_ms(run: ReadingRun) -> float | None:
    questions = sum(step.questions for step in run.figures)
    return 1000 * sum(step.seconds.get("evaluate", 0.0) for step in run.figures) / questions if questions else None


def gain_texts(group: ReadingGroup, control: str) -> tuple[str, str]:
    """Print (gain, standard error) in percentage points; two empty texts where there is none."""
    found = group.gains.get(control)
    return ("", "") if found is None else (f"{100 * found.mean:+.1f}", number_text(found.error, "percent"))


def _judged(groups: Sequence[ReadingGroup], narrow: bool) -> list[Texts]:
    """Give the columns of the verdict: what the memory adds over each control, and whether that can be told."""
    if not any(group.controls for group in groups):
        return []
    found: list[Texts] = []
    for name in CONTROLS:
        texts = [gain_texts(group, name) for group in groups]
        cells = [f"{gain} ± {error}" if gain else "–" for gain, error in texts]
        found.append((f"adds over {name} ± s.e.", cells))
    verdicts = [group.verdict for group in groups]
    words = [[*wrap(one.words, 18), *wrap(one.more, 18)] if narrow else [one.words, one.more] for one in verdicts]
    return [*found, ("verdict", [("\n" if narrow else ": ").join(filter(None, one)) for one in words])]


def shown_steps(n: int, most: int = MOST_STEPS) -> list[int]:
    """Choose at most so many of n steps, evenly spaced, the first and the last among them; from 1.

    >>> shown_steps(3), shown_steps(9, 3)
    ([1, 2, 3], [1, 5, 9])
    """
    return sorted({round(float(step)) for step in np.linspace(1, n, min(n, most))})


def _curves(groups: Sequence[ReadingGroup]) -> list[Part]:
    """Give what becomes of the first task's questions, step by step."""
    n = len(groups[0].read)
    if n < 2:
        return []
    steps = shown_steps(n)
    curves = [group.curve(lambda t: t.em, [1]) for group in groups]
    shares = [group.share(lambda t: t.mean_f1, 1) for group in groups]
    parts = []
    for title, found in (("EM %", curves), ("F1, % of the first value", shares)):
        if not any(any(curve) for curve in found):
            continue
        texts = [
            (groups[0].step_names[step - 1], [cell(curve[step - 1], "percent") for curve in found]) for step in steps
        ]
        parts.append(Part(f"Retention of task 1 by documents read: {title}", texts))
    return parts


def _parts(groups: Sequence[ReadingGroup], narrow: bool = False) -> list[Part]:
    """Split the columns over tables that fit a page; `narrow` breaks their heads for a terminal."""

    def titled(words: str) -> str:
        return "\n".join(wrap(words, 11)) if narrow else words

    def texts(*parts: str) -> list[Texts]:
        return [
            (titled(head(one)), [cell(one.value(group), one.kind) for group in groups])
            for one in columns(groups)
            if one.part in parts
        ]

    verdict = [(titled(name), cells) for name, cells in _judged(groups, narrow)]
    tables = [Part("Right answers and what the memory adds", [*texts("answers"), *verdict, *texts("controls")])]
    tables += [Part(TITLES[part], texts(part)) for part in ("kinds", "retention", "forgotten")]
    tables += [*_curves(groups), Part(TITLES["bytes"], texts("bytes"))]
    tables.append(Part("Meta-training and time", texts("preparing", "time")))
    return [part for part in tables if part.columns]


def notes(groups: Sequence[ReadingGroup]) -> list[str]:
    """Say what n and ± are, how verdicts come about, and what their errors rest on."""
    finished = [group for group in groups if group.n]
    if not finished:
        return []
    sizes = sorted({group.n for group in finished})
    words = [
        "Each number is of one finished run (n = 1), so there is no standard deviation."
        if sizes == [1]
        else f"Mean ± standard deviation (divisor n - 1) over n{f' = {sizes[0]}' if len(sizes) == 1 else ''} finished "
        "runs that differ only in their seeds."
    ]
    shared = [group for group in finished if group.trainings and group.trainings < group.n]
    if shared:
        which = ", ".join(f"{group.label} {group.trainings}" for group in shared)
        words.append(
            f"Trainings before the stream that these runs rest on: {which}. Where there are fewer than runs, the "
            "standard deviation leaves out what another training would change: vary strategy.meta.seed or "
            "strategy.tune.seed with seed."
        )
    gains = [one for group in finished for one in group.gains.values() if one is not None]
    if gains:
        words.append(
            "A memory works if its strict EM is above that of a memory of other documents (shuffled) and of none "
            "(empty), each by 3 standard errors (s.e.) or more: the error of the questions or of the seeds, whichever "
            "is larger."
        )
        if not all(one.paired for one in gains):
            which = "Some standard errors are" if any(one.paired for one in gains) else "Standard errors are"
            words.append(f"{which} of two counts, not of paired answers: answers/ does not say which are right.")
    return words


def terminal(groups: Sequence[ReadingGroup], console: Console) -> None:
    """Print the comparison with rich, in as many tables as the console's width asks for, for each stream."""
    from rich.markup import escape

    for setting, compared in _compared(groups).items():
        console.print(f"[bold]{escape(setting)}[/bold]", highlight=False)
        print_parts(console, _rows(compared), _parts(compared, narrow=True))
    for note in notes(groups):
        console.print(escape(note), style="dim", highlight=False)
    print_left_out(console, groups)


def markdown(groups: Sequence[ReadingGroup]) -> list[str]:
    """Write the comparison as the lines of Markdown tables, the same as on the terminal."""
    lines: list[str] = []
    for setting, compared in _compared(groups).items():
        lines += [f"## {escaped(setting)}", ""]
        for part in _parts(compared):
            lines += markdown_part(_rows(compared), part)
    for note in notes(groups):
        lines += [escaped(note), ""]
    return lines + markdown_left_out(groups)


def _compared(groups: Sequence[ReadingGroup]) -> dict[str, list[ReadingGroup]]:
    """Give by setting the groups that have a finished run."""
    return settings([group for group in groups if group.n])


def _rows(compared: Sequence[ReadingGroup]) -> Rows:
    names, labels = [name_lines(group) for group in compared], [group.label for group in compared]
    return Rows("method", names, labels, [("n", [str(group.n) for group in compared])])


def csv(groups: Sequence[ReadingGroup]) -> str:
    """Write one row per group, numbers exact: fractions, bytes and milliseconds; mean, std and n of every column.

    `gain.CONTROL` is the headline's strict EM minus the control's, `.error` its standard error. `headline` names the
    read-out that the method is judged by; `unfinished` counts runs in no mean.
    """
    found = columns([group for group in groups if group.n])
    keys = [f"{column.key}.{part}" for column in found for part in ("mean", "std", "n")]
    gains = [f"gain.{name}{part}" for name in CONTROLS for part in ("", ".error")]
    out = io.StringIO()
    writer = csv_format.writer(out, lineterminator="\n")
    about = ["setting", "label", "method", "options", "n", "unfinished", "headline"]
    writer.writerow([*about, *keys, *gains, "verdict"])
    for group in groups:
        options = " ".join(f"{key}={value}" for key, value in group.options.items())
        cells: list[str | int] = [group.setting, group.label, group.method, options, group.n, len(group.unfinished)]
        cells.append(group.headline or "")
        for column in found:
            one = column.value(group) if group.n else None
            cells += ["", "", 0] if one is None else [csv_text(one.mean), csv_text(one.std), one.n]
        for name in CONTROLS:
            one_gain = group.gains[name] if group.n else None
            cells += ["", ""] if one_gain is None else [csv_text(one_gain.mean), csv_text(one_gain.error)]
        writer.writerow([*cells, group.verdict.words if group.n else ""])
    return out.getvalue()
