"""What the page says of readers: per stream right answers, what the memory adds, retention, bytes and seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from clearn.report.blocks import counted, swatch, terms
from clearn.report.columns import head
from clearn.report.comparison import Head, comparison, name_cell, number_cell
from clearn.report.grouping import left_out, looks, settings
from clearn.report.reading import sections
from clearn.report.reading.grouping import ReadingGroup
from clearn.report.reading.tables import ASKED, TITLES, columns, gain_texts
from clearn.report.reading.tables import notes as notes_of
from clearn.report.reading.verdicts import CONTROLS
from clearn.report.timing import time

TITLE = "Reading"
SEEDS = ("seed", "document order seed", "training's seed")  # as `ReadingRun.seeds`

VERDICT = [
    *(Head(f"over {name} ± s.e.", f"strict EM minus that of {ASKED[name]}", "The memory adds") for name in CONTROLS),
    Head("verdict", "works: at least 3 standard errors over both controls", "The memory adds", text=True),
]


def lead(groups: Sequence[ReadingGroup]) -> str:
    """Say in a sentence what was compared."""
    compared = [group for group in groups if group.n]
    methods = len({group.method for group in groups})
    words = f"{counted(sum(group.n for group in groups), 'finished run')} of {counted(methods, 'method')}"
    if len(compared) != methods:
        words += f" in {counted(len(compared), 'configuration')}"
    told = [_stream_words(name, members) for name, members in settings(compared).items()]
    words += " on " + "; ".join(told) if told else ""
    excluded = len(left_out(groups))
    return words + (f". {counted(excluded, 'more run')} in no mean: see below." if excluded else ".")


def _stream_words(setting: str, members: Sequence[ReadingGroup]) -> str:
    last, group = members[0].finished[0].figures[-1], members[0]
    parts = [counted(group.read[-1], "document"), counted(last.questions, "question")]
    parts.append(counted(len(group.read) - len(group.requests), "task"))
    parts += [counted(len(group.requests), "request") + " to forget"] if group.requests else []
    return f"{setting} ({', '.join(parts)})"


def bodies(groups: Sequence[ReadingGroup], first: int) -> list[str]:
    """Write a section per stream; their figures' ids are numbered from `first`."""
    apart = settings([group for group in groups if group.n])
    index = looks({name: [group.label for group in members] for name, members in apart.items()})
    return [_setting(name, members, index[name], first + at) for at, (name, members) in enumerate(apart.items())]


def _setting(setting: str, groups: Sequence[ReadingGroup], index: Mapping[str, int], number: int) -> str:
    """Write everything about one stream."""
    said = "".join(f'<p class="note">{escape(text)}</p>' for text in notes_of(groups))
    curves = sections.progress(groups, index, number) + sections.retention(groups, index, number)
    kinds = "Kinds of answers, retention" + (", forgetting" if groups[0].requests else "")
    marks = sections.for_bytes(groups, index, number)
    parts = [
        f"<section>\n<h2>{escape(setting)}</h2>",
        _table(groups, index, ["answers", "controls"], "Right answers, and what the memory adds", said, judged=True),
        f'<div class="pair">{curves}</div>' if curves else "",
        _table(groups, index, ["kinds", "retention", "forgotten"], kinds),
        sections.matrices(groups, index),
        _table(groups, index, ["bytes", "preparing", "time"], "Bytes and time", sections.categories(groups)),
        f'<div class="pair">{marks}</div>' if marks else "",
        time(groups, number, " Preparing, which comes before the stream, is left out."),
        "</section>",
    ]
    return "\n".join(part for part in parts if part)


def _table(
    groups: Sequence[ReadingGroup],
    index: Mapping[str, int],
    parts: Sequence[str],
    title: str,
    more: str = "",
    judged: bool = False,
) -> str:
    found = [column for column in columns(groups) if column.part in parts]
    if not found:
        return ""
    heads = [Head(head(column), column.note, TITLES[column.part]) for column in found]
    judged = judged and any(group.controls for group in groups)
    at_verdict = sum(column.part == "answers" for column in found)
    heads[at_verdict:at_verdict] = VERDICT if judged else []
    starts = {one.key for at, one in enumerate(found) if at == 0 or one.part != found[at - 1].part}
    rows = []
    for group in groups:
        cells = []
        for column in found:
            classes = ["edge"] if column.key in starts else []
            classes += ["headline"] if column.key == "em" else []
            cells.append(number_cell(column.value(group), column, " ".join(classes)))
        cells[at_verdict:at_verdict] = _judged(group) if judged else []
        name = [name_cell(group, swatch(index[group.label])), f'<td data-value="{group.n}">{group.n}</td>']
        rows.append(f"<tr>{''.join([*name, *cells])}</tr>")
    leads = [Head("method", text=True), Head("n", "finished runs in the means")]
    note = f'<p class="note">Point at a head for what it means; click it to sort.</p>{more}'
    return comparison(title, leads, heads, rows, note, title)


def _judged(group: ReadingGroup) -> list[str]:
    """Write the cells of what the memory adds."""
    cells = []
    for at, name in enumerate(CONTROLS):
        found, (gain, error) = group.gains[name], gain_texts(group, name)
        edge = "" if at else ' class="edge"'
        if found is None:
            cells.append(f'<td{edge} data-value="">–</td>')
            continue
        how = "paired by question" if found.paired else "of two counts"
        tip = f"{found.mean:+.6f}, s.e. {found.error:.6f}, {how}, n = {found.n}"
        cells.append(
            f'<td{edge} data-value="{found.mean:.9g}" title="{tip}">{gain} <span class="sd">± {error}</span></td>'
        )
    verdict = group.verdict
    words = f'<span class="failed">{escape(verdict.words)}</span>' if verdict.failed else escape(verdict.words)
    more = f' <span class="sd">{escape(verdict.more)}</span>' if verdict.more else ""
    return [*cells, f'<td class="verdict" data-value="{escape(verdict.words)}">{words}{more}</td>']


def notes(groups: Sequence[ReadingGroup]) -> str:
    """Define every number."""
    finished = [group for group in groups if group.n]
    told = {}
    for column in columns(finished):
        if column.part != "kinds":
            over = "" if column.part in ("answers", "controls") else f"{TITLES[column.part].lower()}: "
            told[f"{over}{column.title}"] = column.note[0].upper() + column.note[1:] + "."
    told["± and bands"] = (
        "Sample standard deviation (divisor n - 1) over runs; none is printed for a single run. Behind what the memory "
        "adds it is a standard error: of the questions (Agresti and Min 2005 where each was answered twice, Agresti "
        "and Caffo 2000 for two counts) or of the mean over seeds, whichever is larger."
    )
    told["works"] = (
        "Strict EM is above that of the same reader with a memory of other documents, and with none, by at least 3 "
        "standard errors each. Otherwise the memory adds nothing that can be told from chance on so many questions."
    )
    if any(group.options.get("runner.rebuild") == "no" for group in groups):
        told["runner.rebuild=no"] = (
            "The carried bytes were weighed, but the reader was not rebuilt from them, so they may not be all."
        )
    intro = (
        "Documents are read once, task by task; after each task the questions of all documents so far are asked, "
        "without the documents. Everything is derived from counts of answers. Percentages are printed with one "
        "decimal, bytes in binary units (1 MiB = 1,048,576 bytes); hover over a number for its exact value."
    )
    return terms(intro, told)
