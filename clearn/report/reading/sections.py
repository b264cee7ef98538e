"""The figures' sections of the reading part: heading, legend, drawing, caption, and the numbers behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape

from clearn.metrics import Spread
from clearn.report.blocks import details, figure, heading, legend, stroke, swatch
from clearn.report.columns import cell
from clearn.report.reading.grouping import ReadingGroup
from clearn.report.reading.runs import ReadingFigures
from clearn.report.reading.tables import shown_steps

STRONG = 0.66  # score from which a shaded cell carries the other ink, for contrast in both modes
MOST_SHOWN = 16  # rows and columns of a matrix


def progress(groups: Sequence[ReadingGroup], index: Mapping[str, int], number: int) -> str:
    """Draw strict EM on all questions so far over the documents read, and apart on forgotten documents."""
    from clearn.report.reading.figures import score_curves

    read = groups[0].read
    if len(read) < 2:
        return ""
    stays = [(group, False, group.curve(lambda t: t.em)) for group in groups]
    gone = [(group, True, group.curve(lambda t: t.em, forgotten=True)) for group in groups]
    curves = [one for one in (*stays, *gone) if any(one[2])]
    if not curves:
        return ""
    drawn = [(index[group.label], forgotten, curve) for group, forgotten, curve in curves]
    about = "Exact match on all questions so far over the documents read, one line per method"
    svg = score_curves(drawn, read, groups[0].requests, about, f"d{number}")
    named = [(swatch(index[group.label]), group.label) for group in groups]
    caption = "Strict EM on the questions of all documents read so far; mean over runs, band of one standard deviation."
    if groups[0].requests:
        named += [(stroke("dashed", colour="line"), "request to forget")]
        named += [(stroke("dotted"), "on the documents to be forgotten")] if any(any(one[2]) for one in gone) else []
        caption += " A forgotten document's questions should be answered as by a reader that never read it."
    rows = [
        [f"{group.label}{', forgotten' if forgotten else ''}", *(cell(point, "percent") for point in curve)]
        for group, forgotten, curve in curves
    ]
    numbers = details("EM by documents read, %", ["method", *groups[0].step_names], rows)
    return figure("Right answers as documents are read", legend(named) + svg, caption, numbers)


def retention(groups: Sequence[ReadingGroup], index: Mapping[str, int], number: int) -> str:
    """Draw what becomes of the questions on the first task's documents."""
    from clearn.report.reading.figures import score_curves

    read = groups[0].read
    curves = [(group, group.curve(lambda t: t.em, [1])) for group in groups]
    if len(read) < 2 or not any(any(curve) for _, curve in curves):
        return ""
    about = "Exact match on the questions of the first task over the documents read, one line per method"
    drawn = [(index[group.label], False, curve) for group, curve in curves]
    svg = score_curves(drawn, read, groups[0].requests, about, f"r{number}")
    named = [(swatch(index[group.label]), group.label) for group in groups]
    caption = (
        f"Strict EM on the questions of the first {read[0]:,} documents, asked again after each later task. A method "
        "that answers without reading keeps all it has: compare with what the memory adds."
    )
    caption += " Without what was to be forgotten." if groups[0].requests else ""
    shares = [
        [group.label, *(cell(point, "percent") for point in group.share(lambda t: t.mean_f1, 1))] for group in groups
    ]
    rows = [[group.label, *(cell(point, "percent") for point in curve)] for group, curve in curves]
    heads = ["method", *groups[0].step_names]
    numbers = details("EM on the first documents, %", heads, rows)
    numbers += details("F1 on them, % of the first value (f_t / f_0)", heads, shares)
    return figure("Retention of the first documents", legend(named) + svg, caption, numbers)


def for_bytes(groups: Sequence[ReadingGroup], index: Mapping[str, int], number: int) -> str:
    """Draw strict EM for bytes, of the bank alone and of all that is carried; pretrained weights are in neither."""
    from clearn.report.reading.figures import score_for_bytes

    kinds: list[tuple[str, str, Callable[[ReadingFigures], float]]] = [
        ("Right answers for the bank", "bytes of the bank", lambda last: float(last.bank)),
        (
            "Right answers for all bytes",
            "bytes carried, without shared pretrained weights",
            lambda last: float(last.delta),
        ),
    ]
    found = []
    for at, (title, words, pick) in enumerate(kinds):
        points = []
        for group in groups:
            size, em = group.end(pick), group.number(group.headline, "em")
            if size and em:
                points.append((index[group.label], size, em))
        if len(points) < 2:
            return ""
        svg = score_for_bytes(points, words, f"y{number}-{at}")
        named = [(swatch(index[group.label]), group.label) for group in groups]
        caption = (
            f"Strict EM against the {words}, both after the last step; up and to the left is better. "
            "Bars: one standard deviation."
        )
        found.append(figure(title, legend(named) + svg, caption))
    return "\n".join(found)


def matrices(groups: Sequence[ReadingGroup], index: Mapping[str, int]) -> str:
    """Shade strict EM on every task's questions after every step."""
    if len(groups[0].read) < 2:
        return ""
    bodies = [f"<div>{heading(group.label, index[group.label])}{_heat(group)}</div>" for group in groups]
    caption = (
        "Strict EM in % on the questions of each task (column) after so many documents (row), mean over runs; a "
        "stronger colour is higher."
    )
    if groups[0].requests:
        caption += " Rows R1, R2, … are requests to forget; questions on forgotten documents are left out after them."
    if len(groups[0].read) > MOST_SHOWN:
        caption += f" At most {MOST_SHOWN} evenly spaced steps and tasks are shown."
    rows = []
    for group in groups:
        for task in group.tasks:
            shares = group.share(lambda t: t.em, task)
            rows.append([f"{group.label}, task {task}", *(cell(point, "percent") for point in shares)])
    numbers = details("As % of the first value (f_t / f_0)", ["method", *groups[0].step_names], rows)
    layout = "many" if len(groups[0].read) <= 6 else "tables"
    return figure("Task by task", f'<div class="{layout}">{"".join(bodies)}</div>', caption, numbers)


def _heat(group: ReadingGroup) -> str:
    """Write EM by step and task as a table whose cells are shaded."""
    names, n = group.step_names, len(group.read)
    tasks = [group.tasks[at - 1] for at in shown_steps(len(group.tasks), MOST_SHOWN)]
    curves = {task: group.curve(lambda t: t.em, [task]) for task in tasks}
    rows = []
    for step in shown_steps(n, MOST_SHOWN):
        cells = "".join(_shade(curves[task][step - 1]) for task in tasks)
        rows.append(f'<tr><th scope="row">after {names[step - 1]}</th>{cells}</tr>')
    columns = "".join(f'<th scope="col">{task}</th>' for task in tasks)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Task matrix of {escape(group.label)}">\n'
        f'<table class="heat"><thead><tr><th scope="row">task</th>{columns}</tr></thead>\n'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _shade(found: Spread | None) -> str:
    if found is None:
        return '<td class="none"></td>'
    high = ' class="high"' if found.mean > STRONG else ""
    return f'<td{high} style="--v:{100 * found.mean:.0f}%">{100 * found.mean:.1f}</td>'


def categories(groups: Sequence[ReadingGroup]) -> str:
    """Tabulate the bytes after the last step by what they are."""
    weighed = {group.label: found[-1] for group in groups if (found := group.categories())}
    names = list(dict.fromkeys(name for one in weighed.values() for name in one))
    rows = [[label, *(f"{one.get(name, 0):,.0f}" for name in names)] for label, one in weighed.items()]
    return details("Bytes after the last step", ["method", *(name.replace("_", " ") for name in names)], rows)
