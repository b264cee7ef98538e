"""The figures' sections of the learning part: heading, legend, drawing, caption, and the numbers behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from clearn.metrics import Floats, OldNew, Spread, class_accuracy
from clearn.report.blocks import box, details, figure, heading, legend, swatch, table
from clearn.report.columns import bytes_text, cell
from clearn.report.learning.grouping import LearningGroup, largest, lines, memory_curves
from clearn.report.look import CATEGORIES, known

if TYPE_CHECKING:
    from clearn.report.learning.figures import Line

HEADLINE = "average_incremental_accuracy.pooled"
STRONG = 0.66  # accuracy from which a shaded cell carries the other ink, for contrast in both modes
MOST_SHOWN = 20  # rows and columns of a task matrix


def accuracy(groups: Sequence[LearningGroup], index: Mapping[str, int], number: int) -> str:
    """Draw accuracy as tasks are learned; a read-out that is not the headline is dotted."""
    from clearn.report.learning.figures import accuracy_curves

    curves = [(group, readout, group.curve(readout)) for group in groups for readout in group.readouts]
    if not curves:
        return ""
    several = len({readout for _, readout, _ in curves}) > 1
    svg = accuracy_curves(_lines(groups, index, curves), f"a{number}")
    caption = "Accuracy pooled over the test samples of all tasks seen; mean over runs, band of one standard deviation."
    if several:
        caption += " Thin dotted lines: the other read-out of a method, in the method's colour."
    numbers = _numbers("Accuracy after each step, %", curves, several)
    return figure(
        "Accuracy as tasks are learned", _named(groups, index, several) + svg, caption + _pale(groups), numbers
    )


def forgetting(groups: Sequence[LearningGroup], index: Mapping[str, int], number: int) -> str:
    """Draw forgetting as tasks are learned, by the headline read-out; nothing for a stream of one task."""
    from clearn.report.learning.figures import forgetting_curves

    curves = [(group, group.headline, group.forgetting(group.headline)) for group in groups if group.headline]
    if not any(point for _, _, curve in curves for point in curve):
        return ""
    svg = forgetting_curves(_lines(groups, index, curves), f"f{number}")
    caption = (
        "By how much the accuracy on earlier tasks has fallen below the best that it was, mean over those tasks "
        "(forgetting.chaudhry, below 0: gained), by the headline read-out; mean over runs, band of one standard "
        "deviation."
    )
    numbers = _numbers("Forgetting after each step, %", curves, several=False)
    return figure("Forgetting as tasks are learned", _named(groups, index) + svg, caption + _pale(groups), numbers)


Curves = Sequence[tuple[LearningGroup, str, list[Spread | None]]]


def _lines(groups: Sequence[LearningGroup], index: Mapping[str, int], curves: Curves) -> list[Line]:
    from clearn.report.learning.figures import Line

    strength = {label: share for label, (_, share) in lines(groups).items()}
    return [
        Line(group.label, index[group.label], strength[group.label], curve, readout == group.headline)
        for group, readout, curve in curves
    ]


def _numbers(title: str, curves: Curves, several: bool) -> str:
    """Write curves as a table."""
    steps = max(len(curve) for _, _, curve in curves)
    rows = [
        [f"{group.label} ({readout})" if several else group.label, *(cell(point, "percent") for point in curve)]
        for group, readout, curve in curves
    ]
    padded = [[*row, *["–"] * (steps + 1 - len(row))] for row in rows]
    return details(title, ["method", *map(str, range(1, steps + 1))], padded)


def _named(groups: Sequence[LearningGroup], index: Mapping[str, int], several: bool = False) -> str:
    """Write the legend: an entry a line, which is a method with all its budgets."""
    of = {name: (label, one) for one in groups for label, (name, _) in lines(groups).items() if label == one.label}
    return legend(
        (swatch(index[label]), f"{name} ({group.headline})" if several else name) for name, (label, group) in of.items()
    )


def _pale(groups: Sequence[LearningGroup]) -> str:
    return " Paler: under smaller budgets." if any(share < 1 for _, share in lines(groups).values()) else ""


MEASURES = {
    "Accuracy for memory": ("Average incremental accuracy", HEADLINE),
    "Last accuracy for memory": ("Last accuracy", "last_accuracy.pooled"),
}


def memory(groups: Sequence[LearningGroup], index: Mapping[str, int], number: int) -> str:
    """Draw accuracy for memory; learners from scratch and from pretrained weights never share an axis."""
    found = []
    for delta in (False, True):
        members = [group for group in groups if _pretrained(group) == delta]
        found += [_memory(groups, members, index, delta, kind, f"m{number}-{int(delta)}{kind[0]}") for kind in MEASURES]
    return "\n".join(one for one in found if one)


def _memory(
    groups: Sequence[LearningGroup],
    members: Sequence[LearningGroup],
    index: Mapping[str, int],
    delta: bool,
    kind: str,
    name: str,
) -> str:
    """Draw one accuracy for memory of those from scratch, or of those from pretrained weights."""
    from clearn.report.learning.figures import Curve, Line, accuracy_for_memory

    what, measure = MEASURES[kind]
    marks = []
    for group in members:
        size, accuracy = group.spread(partial(largest, delta=delta)), group.number(group.headline, measure)
        if size and accuracy:
            marks.append(Line(group.label, index[group.label], 1.0, (size, accuracy)))
    if len(marks) < 2:
        return ""
    of = {line: index[label] for label, (line, _) in lines(members).items()}
    curves = [Curve(line, of[line], points) for line, points in memory_curves(members, delta, measure).items()]
    svg = accuracy_for_memory(marks, curves, what, name)
    caption = f"{what} (headline read-out) against the most bytes carried after any step"
    caption += ", without the shared pretrained weights" if delta else ""
    caption += "; up and to the left is better. Bars: one standard deviation."
    caption += " Lines join the budgets of one method; bands: one standard deviation over seeds." if curves else ""
    both = any(map(_pretrained, groups)) and not all(map(_pretrained, groups))
    title = f"{kind}{', from shared pretrained weights' if delta else ', from scratch'}" if both else kind
    return figure(title, _named(members, index) + svg, caption)


def _pretrained(group: LearningGroup) -> bool:
    return any(step.shared for run in group.finished for step in run.figures)


def carried(groups: Sequence[LearningGroup], index: Mapping[str, int], number: int) -> str:
    """Draw the bytes carried after each step by category; shared pretrained weights are told, not drawn."""
    from clearn.report.learning.figures import carried_bytes

    weighed = {group.label: group.categories() for group in groups}
    budgets = {group.label: _budgets(group) for group in groups}
    present = {category for steps in weighed.values() for step in steps for category, size in step.items() if size}
    drawn = [
        sum(v for k, v in step.items() if k != "shared_pretrained") for steps in weighed.values() for step in steps
    ]
    limits = [limit for steps in budgets.values() for limit in steps if limit is not None]
    top = max([*drawn, *limits], default=0.0)
    figures = []
    for at, group in enumerate(groups):
        svg = carried_bytes(weighed[group.label], budgets[group.label], top, f"b{number}-{at}")
        shared = group.spread(lambda run: float(run.figures[-1].shared))
        apart = f'<p class="note">and {bytes_text(shared.mean)} shared pretrained</p>' if shared and shared.mean else ""
        figures.append(f"<div>{heading(group.label, index[group.label])}{svg}{apart}</div>")

    order = [*CATEGORIES, *sorted(present - set(CATEGORIES))]
    shown = [category for category in order if category in present and category != "shared_pretrained"]
    named = [(box(known(category, CATEGORIES, "other")), category.replace("_", " ")) for category in shown]
    if limits:
        named.append(('<span class="dash" aria-hidden="true"></span>', "budget"))
    rows = [
        [
            group.label,
            *(f"{weighed[group.label][-1].get(category, 0):,.0f}" for category in order if category in present),
        ]
        for group in groups
        if weighed[group.label]
    ]
    numbers = details(
        "Bytes after the last step",
        ["method", *(category.replace("_", " ") for category in order if category in present)],
        rows,
    )
    caption = (
        "What is carried from one task to the next, weighed after each step: mean over runs, one scale for all methods."
    )
    if any(group.config.get("budget") and _counting(group) == "paper" for group in groups):
        caption += " The budget of some runs counts bytes as papers do, so bars may pass their line."
    return figure(
        "Bytes carried over the stream",
        f'{legend(named)}<div class="many">{"".join(figures)}</div>',
        caption,
        numbers,
    )


def _counting(group: LearningGroup) -> Any:
    budget = group.config.get("budget")
    return budget.get("count") if isinstance(budget, dict) else None


def _budgets(group: LearningGroup) -> list[float | None]:
    """Give the budget after each step, of the first run: it is part of the config, so all runs share it."""
    return [None if step.budget is None else float(step.budget) for step in group.finished[0].figures]


def matrices(groups: Sequence[LearningGroup], index: Mapping[str, int]) -> str:
    """Shade the accuracy of every task after every step."""
    shown = [group for group in groups if group.headline]
    several = len({readout for group in shown for readout in group.readouts}) > 1
    bodies = []
    for group in shown:
        assert group.headline is not None
        readout = f'<p class="note">read-out: {escape(group.headline)}</p>' if several else ""
        bodies.append(
            f"<div>{heading(group.label, index[group.label])}{readout}"
            f"{_heat(group.matrix(group.headline), group.label)}</div>"
        )
    if not bodies:
        return ""
    caption = (
        "Accuracy in % on the test set of each task (column) after each step (row), mean over runs; "
        "a stronger colour is higher."
    )
    if any(len(group.curve(group.readouts[0])) > MOST_SHOWN for group in shown):
        caption += f" At most {MOST_SHOWN} evenly spaced steps are shown."
    small = all(len(group.matrix(group.headline)) <= 6 for group in shown if group.headline)
    layout = "many" if small else "tables"
    return figure("Task by task", f'<div class="{layout}">{"".join(bodies)}</div>', caption)


def _heat(matrix: Floats, label: str) -> str:
    """Write R as a table whose cells are shaded: a heat map that can be read out, selected and searched."""
    n = len(matrix)
    at = sorted({round(i) for i in np.linspace(0, n - 1, min(n, MOST_SHOWN))})
    columns = "".join(f'<th scope="col">{j + 1}</th>' for j in at)
    rows = []
    for i in at:
        cells = "".join(_shade(float(matrix[i, j])) if j <= i else '<td class="none"></td>' for j in at)
        rows.append(f'<tr><th scope="row">after {i + 1}</th>{cells}</tr>')
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Task matrix of {escape(label)}">\n'
        f'<table class="heat"><thead><tr><th scope="row">task</th>{columns}</tr></thead>\n'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _shade(accuracy: float) -> str:
    if np.isnan(accuracy):
        return '<td class="none">–</td>'
    high = ' class="high"' if accuracy > STRONG else ""
    return f'<td{high} style="--v:{100 * accuracy:.0f}%">{100 * accuracy:.1f}</td>'


def classes(groups: Sequence[LearningGroup], index: Mapping[str, int], number: int) -> str:
    """Draw the accuracy on each class after the last step, old and new ones apart."""
    from clearn.report.learning.figures import class_bars

    bodies, rows, last_rows, repeats = [], [], [], False
    for at, group in enumerate(groups):
        readout = group.headline
        if readout is None or not any(run.counts[readout].classes for run in group.finished):
            continue
        accuracy, labels, new = _last_classes(group, readout)
        split = group.old_new(readout)
        repeats |= split is None
        last = split[-1] if split else None
        svg = class_bars(accuracy, labels, new, index[group.label], f"c{number}-{at}")
        words = _old_new_words(last) if last else ""
        bodies.append(f'<div>{heading(group.label, index[group.label])}{svg}<p class="note">{words}</p></div>')
        rows += _old_new_rows(group, split)
        last_rows += [_old_new_row(group, last)] if last else []
    if not bodies:
        return ""
    caption = "Accuracy on each class after the last step, mean over runs, by the headline read-out."
    if rows:
        caption += (
            " Full colour: classes of the last task (new); pale: classes learned before it (old). With another class "
            "order a position holds another class."
        )
    if repeats:
        caption += " Classes that repeat over tasks have no old and new."
    steps = max((len(row) - 1 for row in rows), default=0)
    numbers = (
        details("Old and new classes after each step, %", ["method", *map(str, range(1, steps + 1))], rows)
        if rows
        else ""
    )
    title = "Old and new classes" if rows else "Class by class"
    heads = ["method", "old %", "new %", "harmonic mean %", "new - old"]
    summed = f'<div class="plainly">{table("Old and new classes after the last step", heads, last_rows)}</div>'
    return figure(title, f'{summed if last_rows else ""}<div class="many">{"".join(bodies)}</div>', caption, numbers)


def _last_classes(group: LearningGroup, readout: str) -> tuple[Floats, list[int], list[bool] | None]:
    """Give (accuracy, label, new) per class after the last step, in the order learned, then by label."""
    counts = [run.counts[readout] for run in group.finished if readout in run.counts]
    first, origin = counts[0], counts[0].origin
    same = [one for one in counts if one.classes == first.classes]
    accuracy = np.mean([class_accuracy(one)[-1] for one in same], axis=0)
    if origin is None:
        return accuracy, list(first.classes), None
    order = np.lexsort((np.array(first.classes), origin))
    return (
        accuracy[order],
        [first.classes[k] for k in order],
        [bool(origin[k] == len(first) - 1) for k in order],
    )


def _old_new_words(last: OldNew) -> str:
    parts = [("old", last.old), ("new", last.new), ("harmonic mean", last.harmonic_mean)]
    return " · ".join(f"{word} {100 * value:.1f} %" for word, value in parts if value is not None)


def _old_new_row(group: LearningGroup, last: OldNew) -> list[str]:
    gap = None if last.old is None or last.new is None else last.new - last.old
    return [
        group.label,
        *("–" if one is None else f"{100 * one:.1f}" for one in (last.old, last.new, last.harmonic_mean, gap)),
    ]


def _old_new_rows(group: LearningGroup, split: Sequence[OldNew] | None) -> list[list[str]]:
    picks: list[tuple[str, Callable[[OldNew], float | None]]] = [
        ("old", lambda one: one.old),
        ("new", lambda one: one.new),
        ("harmonic mean", lambda one: one.harmonic_mean),
    ]
    rows = []
    for word, pick in picks if split else []:
        values = [pick(one) for one in split or ()]
        rows.append([f"{group.label}, {word}", *("–" if value is None else f"{100 * value:.1f}" for value in values)])
    return rows
