"""The figures' sections of the learning part: heading, legend, drawing, caption, and the numbers behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from html import escape
from typing import Any

import numpy as np

from clearn.metrics import Floats, OldNew, class_accuracy, common_interval, curve_areas
from clearn.report.blocks import box, details, figure, heading, legend, swatch
from clearn.report.columns import bytes_text, cell
from clearn.report.learning.grouping import LearningGroup, largest, memory_curves
from clearn.report.look import CATEGORIES, known

HEADLINE = "average_incremental_accuracy.pooled"
STRONG = 0.66  # accuracy from which a shaded cell carries the other ink, for contrast in both modes
MOST_SHOWN = 20  # rows and columns of a task matrix


def accuracy(groups: Sequence[LearningGroup], index: Mapping[str, int], number: int) -> str:
    """Draw accuracy as tasks are learned; a read-out that is not the headline is dotted."""
    from clearn.report.learning.figures import accuracy_curves

    lines = [(group, readout, group.curve(readout)) for group in groups for readout in group.readouts]
    if not lines:
        return ""
    several = len({readout for _, readout, _ in lines}) > 1
    svg = accuracy_curves(
        [(index[group.label], readout == group.headline, curve) for group, readout, curve in lines],
        f"a{number}",
    )
    named = [
        (swatch(index[group.label]), f"{group.label} ({group.headline})" if several else group.label)
        for group in groups
    ]
    steps = max(len(curve) for _, _, curve in lines)
    rows = [
        [
            f"{group.label} ({readout})" if several else group.label,
            *(cell(point, "percent") for point in curve),
        ]
        for group, readout, curve in lines
    ]
    caption = "Accuracy pooled over the test samples of all tasks seen; mean over runs, band of one standard deviation."
    if several:
        caption += " Thin dotted lines: the other read-out of a method, in the method's colour."
    numbers = details("Accuracy after each step, %", ["method", *map(str, range(1, steps + 1))], rows)
    return figure("Accuracy as tasks are learned", legend(named) + svg, caption, numbers)


def memory(groups: Sequence[LearningGroup], index: Mapping[str, int], number: int) -> str:
    """Draw accuracy for memory; learners from scratch and from pretrained weights never share an axis."""
    from clearn.report.learning.figures import accuracy_for_memory

    found = []
    for kind, delta in (("from scratch", False), ("from shared pretrained weights", True)):
        members = [group for group in groups if _pretrained(group) == delta]
        points = []
        for group in members:
            size = group.spread(partial(largest, delta=delta))
            accuracy = group.number(group.headline, HEADLINE)
            if size and accuracy:
                points.append((index[group.label], size, accuracy))
        if len(points) < 2:
            continue
        curves = memory_curves(members, delta)
        svg = accuracy_for_memory(points, curves, f"m{number}-{int(delta)}")
        caption = "Average incremental accuracy (headline read-out) against the most bytes carried after any step"
        caption += ", without the shared pretrained weights" if delta else ""
        caption += "; up and to the left is better. Bars: one standard deviation."
        caption += " Lines join the budgets of one method." if curves else ""
        both = any(map(_pretrained, groups)) and not all(map(_pretrained, groups))
        named = [(swatch(index[group.label]), group.label) for group in members]
        found.append(figure(f"Accuracy for memory{f', {kind}' if both else ''}", legend(named) + svg, caption))
    return "\n".join(found)


def _pretrained(group: LearningGroup) -> bool:
    return any(step.shared for run in group.finished for step in run.figures)


def areas(groups: Sequence[LearningGroup]) -> str:
    """Tabulate areas under accuracy-for-memory curves where two or more methods have one."""
    parts = []
    for delta in (False, True):
        curves = memory_curves([group for group in groups if _pretrained(group) == delta], delta)
        if len(curves) < 2:
            continue
        try:
            first, last = common_interval(curves)
        except ValueError as error:
            parts.append(f"<p>No areas: {escape(str(error))}.</p>")
            continue
        areas, raw = curve_areas(curves), curve_areas(curves, normalise=False)
        log = curve_areas(curves, kind="log2")
        rows = [
            [name, f"{100 * areas[name]:.1f}", f"{raw[name]:.3g}", f"{100 * log[name]:.1f}"]
            for name in sorted(areas, key=lambda name: -areas[name])
        ]
        titles = ["method", "mean over budgets, %", "area, MiB", "mean over doublings, %"]
        inner = details("Areas under accuracy for memory", titles, rows).replace("<details>", "<details open>")
        note = (
            f"Average incremental accuracy integrated from {first:.2f} to {last:.2f} MiB of measured bytes, the range "
            "that all curves cover; straight lines between the budgets, nothing extrapolated."
        )
        parts.append(f'{inner}<p class="note">{note}</p>')
    return f'<div class="card">{"".join(parts)}</div>' if parts else ""


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
    for group in groups:
        svg = carried_bytes(weighed[group.label], budgets[group.label], top, f"b{number}-{index[group.label]}")
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

    bodies, rows, repeats = [], [], False
    for group in groups:
        readout = group.headline
        if readout is None or not any(run.counts[readout].classes for run in group.finished):
            continue
        accuracy, labels, new = _last_classes(group, readout)
        split = group.old_new(readout)
        repeats |= split is None
        last = split[-1] if split else None
        svg = class_bars(accuracy, labels, new, index[group.label], f"c{number}-{index[group.label]}")
        words = _old_new_words(last) if last else ""
        bodies.append(f'<div>{heading(group.label, index[group.label])}{svg}<p class="note">{words}</p></div>')
        rows += _old_new_rows(group, split)
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
    return figure(title, f'<div class="many">{"".join(bodies)}</div>', caption, numbers)


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
