"""The comparison as one self-contained HTML page: no network, no files beside it, readable in light and dark."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from os.path import commonpath
from typing import TYPE_CHECKING, Any

import numpy as np

from clearn.metrics import DEFINITIONS, OldNew, Spread, class_accuracy, curve_areas
from clearn.report.grouping import Group, largest, memory_curves, settings
from clearn.report.look import (
    CATEGORIES,
    MARKER_SIGNS,
    PHASES,
    SCRIPT,
    group_colour,
    known,
    style,
)
from clearn.report.runs import Run
from clearn.report.tables import Column, bytes_text, cell, columns, head, left_out, sample_note, spread_text

if TYPE_CHECKING:
    from clearn.metrics import Floats

HEADLINE = "average_incremental_accuracy.pooled"
STRONG = 0.66  # accuracy from which a shaded cell carries the other ink, for contrast in both modes
MOST_SHOWN = 20  # rows and columns of a task matrix


def html(groups: Sequence[Group], runs: Sequence[Run], title: str) -> str:
    """Write the page. The same runs give the same bytes: it holds no time but theirs.

    Args:
        groups: of `clearn.report.groups`.
        runs: all runs, for the header and the list at the end.
        title: plain text.
    """
    apart = settings(groups)
    looks = _looks(apart)
    bodies = [
        _setting(setting, [group for group in members if group.n], looks[setting], number)
        for number, (setting, members) in enumerate(apart.items(), 1)
    ]
    parts = [
        _header(groups, runs, title),
        *bodies,
        _left_out(groups),
        _runs(runs, groups),
        _notes(groups),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        "script-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>\n{style()}</style>\n</head>\n<body>\n"
        f'<div class="page">\n{"".join(part + chr(10) for part in parts if part)}</div>\n'
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _looks(apart: Mapping[str, Sequence[Group]]) -> dict[str, dict[str, int]]:
    """Number the groups of each setting for colour and marker; a label keeps its number over settings if it can."""
    last: dict[str, int] = {}
    found: dict[str, dict[str, int]] = {}
    for setting, members in apart.items():
        labels = [group.label for group in members if group.n]
        look = {label: last[label] for label in labels if label in last}
        free = (number for number in range(len(last) + len(labels)) if number not in look.values())
        for label in labels:
            if label not in look:
                look[label] = next(free)
        last |= look
        found[setting] = look
    return found


def _header(groups: Sequence[Group], runs: Sequence[Run], title: str) -> str:
    finished = sum(group.n for group in groups)
    methods = len({group.method for group in groups})
    lead = f"{_count(finished, 'finished run')} of {_count(methods, 'method')}"
    compared = [group for group in groups if group.n]
    if len(compared) != methods:
        lead += f" in {_count(len(compared), 'configuration')}"
    lead += " on " + "; ".join(_stream_words(name, members) for name, members in settings(groups).items())
    excluded = len(left_out(groups))
    lead += f". {_count(excluded, 'more run')} in no mean: see below." if excluded else "."

    skipped = {"command", "started", "seed", "forked_from", "data"}
    facts: dict[str, dict[str, None]] = {}
    for run in runs:
        for key, value in run.environment.items():
            if key not in skipped and isinstance(value, (str, int, float)):
                facts.setdefault(key, {})[str(value)] = None
    started = sorted(str(run.environment["started"]) for run in runs if run.environment.get("started"))
    rows = []
    if started:
        first, last = (text[:16].replace("T", " ") for text in (started[0], started[-1]))
        rows.append(("runs started", first if first == last else f"{first} to {last}"))
    rows += [(key, ", ".join(values)) for key, values in facts.items()]
    listed = "".join(f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>" for key, value in rows)
    return (
        f'<header>\n<h1>{escape(title)}</h1>\n<p class="lead">{escape(lead)}</p>\n'
        f'<dl class="facts">{listed}</dl>\n</header>'
    )


def _count(n: int, word: str) -> str:
    return f"{n} {word}{'' if n == 1 else 's'}"


def _stream_words(setting: str, members: Sequence[Group]) -> str:
    steps = {run.steps for group in members for run in group.runs if run.steps}
    return f"{setting}, {_count(steps.pop(), 'task')}" if len(steps) == 1 else setting


def _setting(setting: str, groups: Sequence[Group], index: Mapping[str, int], number: int) -> str:
    """Write everything about one stream."""
    if not groups:
        return ""
    parts = [
        f"<section>\n<h2>{escape(setting)}</h2>",
        _table(groups, index),
        '<div class="pair">',
        _accuracy(groups, index, number),
        _memory(groups, index, number),
        "</div>",
        _areas(groups),
        _bytes(groups, index, number),
        _matrices(groups, index),
        _classes(groups, index, number),
        _time(groups, number),
        "</section>",
    ]
    return "\n".join(part for part in parts if part)


def _swatch(group: Group, index: Mapping[str, int]) -> str:
    at = index[group.label]
    sign = MARKER_SIGNS[at % len(MARKER_SIGNS)]
    return f'<span class="mark" style="color:var(--{group_colour(at)})" aria-hidden="true">{sign}</span>'


def _heading(group: Group, index: Mapping[str, int]) -> str:
    return f"<h4>{_swatch(group, index)} {escape(group.label)}</h4>"


def _table(groups: Sequence[Group], index: Mapping[str, int]) -> str:
    found = columns(groups)
    rows = "\n".join(_table_row(group, found, index) for group in groups)
    edges = [i for i, column in enumerate(found) if i == 0 or _over(column) != _over(found[i - 1])]
    spans = [end - start for start, end in zip(edges, [*edges[1:], len(found)], strict=True)]
    over = "".join(
        f'<th class="over edge" scope="colgroup" colspan="{span}">{escape(_over(found[start]))}</th>'
        for start, span in zip(edges, spans, strict=True)
    )
    sortable = _sort_head(0, "method", "text", "", "first") + _sort_head(
        1, "n", "number", "finished runs in the means", ""
    )
    for at, (column, text) in enumerate(zip(found, map(head, found), strict=True)):
        sortable += _sort_head(at + 2, text, "number", column.note, "edge" if at in edges else "")
    return (
        '<div class="card"><div class="scroll" tabindex="0" role="region" aria-label="Comparison of methods">\n'
        f'<table class="main sortable">\n<thead>\n<tr><th class="first over" colspan="2"></th>{over}</tr>\n'
        f"<tr>{sortable}</tr>\n</thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n</div>\n"
        f'<p class="note">{escape(sample_note(groups, mark="Bold"))} Click a column head to sort.</p></div>'
    )


def _over(column: Column) -> str:
    return f"read-out: {column.readout}" if column.readout else column.part


def _sort_head(at: int, title: str, kind: str, note: str, classes: str) -> str:
    named = f' class="{classes}"' if classes else ""
    tip = f' title="{escape(note)}"' if note else ""
    button = f'<button type="button"{tip}>{escape(title)}</button>'
    return f'<th scope="col"{named} data-column="{at}" data-kind="{kind}">{button}</th>'


def _table_row(group: Group, found: Sequence[Column], index: Mapping[str, int]) -> str:
    options = "".join(
        f'<span class="options">{escape(key)}={escape(value)}</span>' for key, value in group.options.items()
    )
    cells = [
        f'<th scope="row" data-value="{escape(group.label)}"><span class="marked">'
        f'{_swatch(group, index)} <span class="name">{escape(group.method)}</span></span>{options}</th>',
        f'<td data-value="{group.n}">{group.n}</td>',
    ]
    for at, column in enumerate(found):
        edge = "edge" if at == 0 or _over(column) != _over(found[at - 1]) else ""
        headline = "headline" if column.readout and column.readout == group.headline else ""
        cells.append(_number(column.value(group), column, " ".join(filter(None, (edge, headline)))))
    return f"<tr>{''.join(cells)}</tr>"


def _number(found: Spread | None, column: Column, classes: str) -> str:
    named = f' class="{classes}"' if classes else ""
    if found is None:
        return f'<td{named} data-value="">–</td>'
    mean, std = spread_text(found, column.kind)
    sd = f' <span class="sd">± {std}</span>' if std else ""
    return f'<td{named} data-value="{found.mean:.9g}" title="{escape(_exact(found, column))}">{mean}{sd}</td>'


def _exact(found: Spread, column: Column) -> str:
    unit = {"bytes": " bytes", "seconds": " s"}.get(column.kind, "")
    digits = 6 if column.kind == "percent" else 0 if column.kind in ("bytes", "count") else 3
    std = "" if found.std is None else f", sd {found.std:,.{digits}f}"
    return f"{found.mean:,.{digits}f}{unit}{std}, n = {found.n}"


def _legend(items: Iterable[tuple[str, str]]) -> str:
    return '<ul class="legend">' + "".join(f"<li>{mark} {escape(text)}</li>" for mark, text in items) + "</ul>"


def _figure(title: str, body: str, caption: str, numbers: str = "") -> str:
    """Write a figure with its caption, and the numbers behind it where they are not in the figure."""
    return (
        f'<figure class="card">\n<h3>{escape(title)}</h3>\n{body}\n'
        f"<figcaption>{escape(caption)}</figcaption>\n{numbers}</figure>"
    )


def _details(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write numbers behind a figure as a table, closed at first."""
    columns = "".join(f'<th scope="col"{_left(i)}>{escape(text)}</th>' for i, text in enumerate(head))
    lines = "\n".join(
        f'<tr><th scope="row">{escape(row[0])}</th>' + "".join(f"<td>{escape(text)}</td>" for text in row[1:]) + "</tr>"
        for row in rows
    )
    return (
        f'<details><summary>{escape(title)}</summary><div class="scroll" tabindex="0" role="region" '
        f'aria-label="{escape(title)}">\n<table>\n<thead><tr>{columns}</tr></thead>\n<tbody>\n{lines}\n</tbody>\n'
        "</table></div></details>"
    )


def _left(column: int) -> str:
    return ' class="first"' if column == 0 else ""


def _accuracy(groups: Sequence[Group], index: Mapping[str, int], number: int) -> str:
    from clearn.report.figures import accuracy_curves

    lines = [(group, readout, group.curve(readout)) for group in groups for readout in group.readouts]
    if not lines:
        return ""
    several = len({readout for _, readout, _ in lines}) > 1
    svg = accuracy_curves(
        [(index[group.label], readout == group.headline, curve) for group, readout, curve in lines],
        f"a{number}",
    )
    named = [
        (_swatch(group, index), f"{group.label} ({group.headline})" if several else group.label) for group in groups
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
    numbers = _details("Accuracy after each step, %", ["method", *map(str, range(1, steps + 1))], rows)
    return _figure("Accuracy as tasks are learned", _legend(named) + svg, caption, numbers)


def _memory(groups: Sequence[Group], index: Mapping[str, int], number: int) -> str:
    """Draw accuracy for memory; learners from scratch and from pretrained weights never share an axis."""
    from clearn.report.figures import accuracy_for_memory

    found = []
    for kind, delta in (("from scratch", False), ("from shared pretrained weights", True)):
        members = [group for group in groups if _pretrained(group) == delta]
        points = []
        for group in members:
            size = group.spread(lambda run, delta=delta: largest(run, delta))  # type: ignore[misc]
            accuracy = group.number(group.headline, HEADLINE)
            if size and accuracy:
                points.append((index[group.label], size, accuracy))
        if len(points) < 2:
            continue
        curves = memory_curves(members, delta)
        svg = accuracy_for_memory(points, curves, f"m{number}{int(delta)}")
        caption = "Average incremental accuracy (headline read-out) against the most bytes carried after any step"
        caption += ", without the shared pretrained weights" if delta else ""
        caption += "; up and to the left is better. Bars: one standard deviation."
        caption += " Lines join the budgets of one method." if curves else ""
        both = any(map(_pretrained, groups)) and not all(map(_pretrained, groups))
        named = [(_swatch(group, index), group.label) for group in members]
        found.append(_figure(f"Accuracy for memory{f', {kind}' if both else ''}", _legend(named) + svg, caption))
    return "\n".join(found)


def _pretrained(group: Group) -> bool:
    return any(step.shared for run in group.finished for step in run.figures)


def _areas(groups: Sequence[Group]) -> str:
    """Tabulate areas under accuracy-for-memory curves where two or more methods have one."""
    parts = []
    for delta in (False, True):
        curves = memory_curves([group for group in groups if _pretrained(group) == delta], delta)
        if len(curves) < 2:
            continue
        first, last = (
            max(points[0][0] for points in curves.values()),
            min(points[-1][0] for points in curves.values()),
        )
        if first >= last:
            parts.append("<p>The methods' budgets share no range, so their areas cannot be compared.</p>")
            continue
        areas, raw, log = (
            curve_areas(curves),
            curve_areas(curves, normalise=False),
            curve_areas(curves, kind="log2"),
        )
        rows = [
            [name, f"{100 * areas[name]:.1f}", f"{raw[name]:.3g}", f"{100 * log[name]:.1f}"]
            for name in sorted(areas, key=lambda name: -areas[name])
        ]
        head = ["method", "mean over budgets, %", "area, MiB", "mean over doublings, %"]
        inner = _details("Areas under accuracy for memory", head, rows).replace("<details>", "<details open>")
        note = (
            f"Average incremental accuracy integrated from {first:.2f} to {last:.2f} MiB of measured bytes, the range "
            "that all curves cover; straight lines between the budgets, nothing extrapolated."
        )
        parts.append(f'{inner}<p class="note">{note}</p>')
    return f'<div class="card">{"".join(parts)}</div>' if parts else ""


def _bytes(groups: Sequence[Group], index: Mapping[str, int], number: int) -> str:
    from clearn.report.figures import carried_bytes

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
        svg = carried_bytes(weighed[group.label], budgets[group.label], top, f"b{number}{index[group.label]}")
        shared = group.spread(lambda run: float(run.figures[-1].shared))
        apart = f'<p class="note">and {bytes_text(shared.mean)} shared pretrained</p>' if shared and shared.mean else ""
        figures.append(f"<div>{_heading(group, index)}{svg}{apart}</div>")

    order = [*CATEGORIES, *sorted(present - set(CATEGORIES))]
    shown = [category for category in order if category in present and category != "shared_pretrained"]
    named = [(_box(known(category, CATEGORIES, "other")), category.replace("_", " ")) for category in shown]
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
    numbers = _details(
        "Bytes after the last step",
        ["method", *(category.replace("_", " ") for category in order if category in present)],
        rows,
    )
    caption = (
        "What is carried from one task to the next, weighed after each step: mean over runs, one scale for all methods."
    )
    if any(group.config.get("budget") and _counting(group) == "paper" for group in groups):
        caption += " The budget of some runs counts bytes as papers do, so bars may pass their line."
    return _figure(
        "Bytes carried over the stream",
        f'{_legend(named)}<div class="many">{"".join(figures)}</div>',
        caption,
        numbers,
    )


def _counting(group: Group) -> Any:
    budget = group.config.get("budget")
    return budget.get("count") if isinstance(budget, dict) else None


def _budgets(group: Group) -> list[float | None]:
    """Give the budget after each step, of the first run: it is part of the config, so all runs share it."""
    return [None if step.budget is None else float(step.budget) for step in group.finished[0].figures]


def _box(variable: str) -> str:
    return f'<span class="box" style="background:var(--{variable})" aria-hidden="true"></span>'


def _matrices(groups: Sequence[Group], index: Mapping[str, int]) -> str:
    shown = [group for group in groups if group.headline]
    several = len({readout for group in shown for readout in group.readouts}) > 1
    bodies = []
    for group in shown:
        assert group.headline is not None
        heading = _heading(group, index)
        readout = f'<p class="note">read-out: {escape(group.headline)}</p>' if several else ""
        bodies.append(f"<div>{heading}{readout}{_heat(group.matrix(group.headline), group.label)}</div>")
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
    return _figure("Task by task", f'<div class="{layout}">{"".join(bodies)}</div>', caption)


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


def _classes(groups: Sequence[Group], index: Mapping[str, int], number: int) -> str:
    from clearn.report.figures import class_bars

    bodies, rows, repeats = [], [], False
    for group in groups:
        readout = group.headline
        if readout is None or not any(run.counts[readout].classes for run in group.finished):
            continue
        accuracy, labels, new = _last_classes(group, readout)
        split = group.old_new(readout)
        repeats |= split is None
        last = split[-1] if split else None
        svg = class_bars(accuracy, labels, new, index[group.label], f"c{number}{index[group.label]}")
        words = _old_new_words(last) if last else ""
        bodies.append(f'<div>{_heading(group, index)}{svg}<p class="note">{words}</p></div>')
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
        _details("Old and new classes after each step, %", ["method", *map(str, range(1, steps + 1))], rows)
        if rows
        else ""
    )
    title = "Old and new classes" if rows else "Class by class"
    return _figure(title, f'<div class="many">{"".join(bodies)}</div>', caption, numbers)


def _last_classes(group: Group, readout: str) -> tuple[Floats, list[int], list[bool] | None]:
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


def _old_new_rows(group: Group, split: Sequence[OldNew] | None) -> list[list[str]]:
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


def _time(groups: Sequence[Group], number: int) -> str:
    from clearn.report.figures import time_split

    splits = [(group.label, group.seconds()) for group in groups]
    phases = {phase for _, split in splits for phase, taken in split.items() if taken}
    if not phases:
        return ""
    order = [phase for phase in (*PHASES, *sorted(phases - set(PHASES))) if phase in phases]
    named = [(_box(known(phase, PHASES, "other-phase")), phase) for phase in order]
    rows = [[label, *(f"{split.get(phase, 0):,.2f}" for phase in order)] for label, split in splits]
    numbers = _details("Seconds by phase", ["method", *order], rows)
    caption = "Wall time over the whole stream by phase, mean over runs; compare runs of one machine and load only."
    svg = time_split(splits, f"t{number}").replace("<svg ", '<svg class="wide" ', 1)
    return _figure("Where the time went", _legend(named) + svg, caption, numbers)


def _left_out(groups: Sequence[Group]) -> str:
    excluded = left_out(groups)
    if not excluded:
        return ""
    items = "\n".join(
        f'<li><span class="name">{escape(run.name)}</span> <span class="muted">({escape(group.label)})</span>: '
        f"{escape(why)}</li>"
        for run, group, why in excluded
    )
    listed = f'<div class="card"><ul class="plain">\n{items}\n</ul></div>'
    return f"<section>\n<h2>Not in the means</h2>\n{listed}\n</section>"


def _runs(runs: Sequence[Run], groups: Sequence[Group]) -> str:
    """List every run: what made it, and how far it got. Folders are named relative to the one that holds them all."""
    if not runs:
        return ""
    label = {run.path: group.label for group in groups for run in group.runs}
    parent = commonpath([run.path.resolve().parent for run in runs])
    rows = []
    for run in runs:
        seed, order = ("–" if value is None else str(value) for value in run.seeds)
        reached = f"{run.step} of {run.steps}" if run.steps else str(run.step)
        folder = run.path.resolve().relative_to(parent).as_posix()
        rows.append([folder, label.get(run.path, ""), seed, order, run.state, reached, _command(run)])
    head = ["folder", "method", "seed", "class order seed", "state", "steps", "command"]
    return (
        f'<section>\n<h2>Runs</h2>\n<div class="card">{_details(f"All {len(runs)} runs", head, rows)}</div>\n</section>'
    )


def _command(run: Run) -> str:
    """Print the command that made a run, its program without the folder it lies in."""
    command = run.environment.get("command") or ""
    words = command.split(" ") if isinstance(command, str) else [str(word) for word in command]
    return " ".join([words[0].rpartition("/")[2], *words[1:]]) if words else ""


def _notes(groups: Sequence[Group]) -> str:
    terms = dict(DEFINITIONS)
    for column in columns([group for group in groups if group.n]):
        if not column.readout:
            terms[column.title] = column.note[0].upper() + column.note[1:] + "."
    terms["± and bands"] = "Sample standard deviation (divisor n - 1) over runs; none is printed for a single run."
    if any(group.options.get("runner.rebuild") == "no" for group in groups):
        terms["runner.rebuild=no"] = (
            "The carried bytes were weighed, but the learner was not rebuilt from them, so they may not be all."
        )
    terms["read-out"] = (
        "How answers are read from the learner: classifier is the network's own head, nme the nearest mean of "
        "exemplars. They are two series of results and never share a column."
    )
    listed = "".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in terms.items())
    intro = (
        "R[i, j] is the accuracy on the test set of task j after learning task i; T is the number of tasks. Everything "
        "is derived from counts of correct answers. Percentages are printed with one decimal, bytes in binary units "
        "(1 MiB = 1,048,576 bytes); hover over a number for its exact value."
    )
    body = f'<div class="card"><p>{escape(intro)}</p><dl class="terms">{listed}</dl></div>'
    return f"<section>\n<h2>What the numbers mean</h2>\n{body}\n</section>"
