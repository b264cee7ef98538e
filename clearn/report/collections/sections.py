"""The figures' sections of the collections part: heading, legend, drawing, caption, and the numbers behind it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING

from clearn.metrics import Spread
from clearn.report.blocks import details, figure, legend, stroke
from clearn.report.collections.columns import columns
from clearn.report.collections.grouping import CollectionGroup, budget_text
from clearn.report.collections.looking import Look
from clearn.report.columns import cell, digits_text, error_text, head
from clearn.report.timing import time

if TYPE_CHECKING:
    from clearn.report.collections.figures import Losses, Point

MOST_DRAWN = 9  # small figures of one kind
MOST_ROUNDS = 16  # columns of a table over rounds
STRONG = 0.66  # shade from which a cell carries the other ink, for contrast in both modes


def error(groups: Sequence[CollectionGroup], look: Mapping[str, Look], number: int) -> str:
    """Draw the error against eps_inf, or against eps_1 where eps_inf is one; nothing where both are."""
    from clearn.report.collections.figures import Point, error_for_eps

    known = [(group, found) for group in groups if (found := _headline(group)) and group.eps_inf and group.eps_1]
    several = len({group.eps_inf for group, _ in known}) > 1
    lines: dict[str, list[Point]] = {}
    looks: dict[str, Look] = {}
    for group, found in known:
        name = group.line if several else group.series
        x = (group.eps_inf if several else group.eps_1) or 0.0
        lines.setdefault(name, []).append(Point(x, found, x))
        looks.setdefault(name, look[group.line] if several else replace(look[group.line], rank=0, several=False))
    budgets = sorted({point.x for points in lines.values() for point in points})
    if max(map(len, lines.values()), default=0) < 2:
        return ""
    title = "eps_inf" if several else "eps_1"
    drawn = [(looks[name], sorted(points, key=lambda point: point.x)) for name, points in lines.items()]
    svg = error_for_eps(drawn, _guess(groups), title, f"e{number}")
    named = [(looks[name].line(), name) for name in lines]
    rows = [
        [name, *(cell(next((point.error for point in points if point.x == one), None), "error") for one in budgets)]
        for name, points in lines.items()
    ]
    rows.append(["uniform guess", *([_error(_guess(groups))] * len(budgets))])
    caption = (
        f"MSE_avg {_judged(groups)}, against {title}; mean over repeats, band of one standard deviation. "
        f"{_guess_words(groups)}"
    )
    table = details(f"MSE_avg by {title}", ["protocol", *map(digits_text, budgets)], rows)
    return figure("Error for privacy", legend([*named, (stroke("dashed"), "uniform guess")]) + svg, caption, table)


def _headline(group: CollectionGroup) -> Spread | None:
    return group.error(group.headline) if group.headline else None


def _judged(groups: Sequence[CollectionGroup]) -> str:
    posts = dict.fromkeys(group.headline or "none" for group in groups)
    return f"after {next(iter(posts))}" if len(posts) == 1 else "after the post-processing that each is judged by"


def _guess(groups: Sequence[CollectionGroup]) -> float | None:
    """The error of the uniform guess that most groups are compared with."""
    return Counter(group.uniform for group in groups).most_common(1)[0][0]


def _guess_words(groups: Sequence[CollectionGroup]) -> str:
    guess = _guess(groups)
    if guess == 0:
        return "All values are equally frequent here, so the uniform guess has no error, and no line."
    words = "Above the dashed line, asking nobody and guessing 1/k for every value is better."
    if guess is not None and any(abs((group.uniform or guess) / guess - 1) > 0.01 for group in groups):
        words += " Protocols that estimate fewer, coarser values have another guess: see the table."
    return words


def _error(value: float | None) -> str:
    return "–" if value is None else error_text(value)


def memory(groups: Sequence[CollectionGroup], look: Mapping[str, Look], number: int) -> str:
    """Draw the error against the bytes that a device may have to keep, where protocols differ in these."""
    from clearn.report.collections.figures import Point, error_for_bytes

    series: dict[str, list[Point]] = {}
    rows = []
    for group in groups:
        found, worst = _headline(group), group.spread(lambda run: run.figures[-1].client_worst)
        public = group.spread(lambda run: run.figures[-1].client_public)
        if found and worst:
            held = (worst.mean + (public.mean if public else 0)) / 8
            series.setdefault(group.line, []).append(Point(held, found, group.eps_inf or 0.0))
            bits = [digits_text(worst.mean), digits_text(public.mean) if public else "–"]
            rows.append([group.label, *bits, f"{held:,.6g}", cell(found, "error")])
    if len({point.x for points in series.values() for point in points}) < 2:
        return ""
    drawn = [(look[name], sorted(points, key=lambda point: point.budget)) for name, points in series.items()]
    svg = error_for_bytes(drawn, _guess(groups), f"m{number}")
    named = [(look[name].line(), name) for name in series]
    caption = (
        f"MSE_avg {_judged(groups)}, against what a device may have to keep, secret and public; down and left is "
        "better. Bars: one standard deviation. Protocols of one size are drawn side by side."
    )
    caption += (
        " Lines join the budgets of one protocol; a larger mark is a larger eps_inf." if len(rows) > len(series) else ""
    )
    table = details(
        "MSE_avg and bytes on a device", ["protocol", "secret bits, worst", "public bits", "bytes", "MSE_avg"], rows
    )
    return figure("Error for memory", legend([*named, (stroke("dashed"), "uniform guess")]) + svg, caption, table)


def shown(groups: Sequence[CollectionGroup]) -> tuple[list[CollectionGroup], str]:
    """Pick groups for small figures: all of few, else those of the budget that most were run under.

    Returns:
        The groups, and a sentence on what was left out, or nothing.
    """
    if len(groups) <= MOST_DRAWN:
        return list(groups), ""
    budgets = Counter((group.eps_inf, group.eps_1) for group in groups)
    most = max(budgets, key=lambda pair: (budgets[pair], pair[0] or 0, pair[1] or 0))
    of_one = [group for group in groups if (group.eps_inf, group.eps_1) == most]
    words = f" Shown at {budget_text(of_one[0]) or 'one budget'}, of {len(budgets)} budgets."
    if len(of_one) > MOST_DRAWN:
        words += f" The {MOST_DRAWN} with the smallest errors are drawn."
    return of_one[:MOST_DRAWN], words


def losses(groups: Sequence[CollectionGroup], look: Mapping[str, Look], number: int) -> str:
    """Draw the privacy loss over rounds, where there are several."""
    from clearn.report.collections.figures import Losses, losses_over_rounds

    drawn, picked = shown(groups)
    curves = {
        group.label: Losses(
            group.over_rounds(lambda step: step.static.mean),
            group.over_rounds(lambda step: step.memo.mean),
            group.over_rounds(lambda step: step.any),
            None if group.last.eps_inf_effective == math.inf else group.eps_inf,
        )
        for group in drawn
        if group.rounds > 1
    }
    scale = [one for of_one in curves.values() for one in of_one.drawn]
    if not scale:
        return ""
    bodies = []
    for at, group in enumerate(drawn):
        if group.label in curves:
            svg = losses_over_rounds(curves[group.label], min(scale), max(scale), look[group.line], f"l{number}-{at}")
            after = " · ".join(
                f"{word} {digits_text(curve[-1])}"
                for word, curve in _told(curves[group.label])
                if curve[-1] is not None
            )
            bodies.append(f'<div>{look[group.line].heading(group.label)}{svg}<p class="note">{after}</p></div>')
    rows = [
        [f"{label}, {word}", *_over_rounds(list(curve), lambda one: "–" if one is None else digits_text(one))]
        for label, of_one in curves.items()
        for word, curve in _told(of_one)
    ]
    named = [(stroke("solid"), "static, mean over users"), (stroke("dashed"), "memo, mean over users")]
    named.append((stroke("dotted"), "any two trajectories, where it fits"))
    caption = (
        "Loss after each round, by the exact probabilities in use; the dashed line in ink is eps_inf. memo holds "
        f"against trajectories that change when the user's do, and is no guarantee beyond these.{picked}"
    )
    table = details("Loss after each round", ["protocol", *_rounds_shown(max(group.rounds for group in drawn))], rows)
    body = f'{legend(named)}<div class="many">{"".join(bodies)}</div>'
    return figure("Privacy loss over rounds", body, caption, table)


def _told(losses: Losses) -> list[tuple[str, Sequence[float | None]]]:
    return [("static", losses.static), ("memo", losses.memo), ("any", losses.any)]


def _picked_rounds(n: int) -> list[int]:
    """Spread at most `MOST_ROUNDS` rounds evenly, the first and the last among them; from 0."""
    if n <= MOST_ROUNDS:
        return list(range(n))
    return sorted({round(i * (n - 1) / (MOST_ROUNDS - 1)) for i in range(MOST_ROUNDS)})


def _rounds_shown(n: int) -> list[str]:
    return [str(at + 1) for at in _picked_rounds(n)]


def _over_rounds(curve: Sequence[float | None], text: Callable[[float | None], str]) -> list[str]:
    return [text(curve[at]) for at in _picked_rounds(len(curve))]


def rounds(groups: Sequence[CollectionGroup], look: Mapping[str, Look], number: int) -> str:
    """Draw the error over rounds, and of the mean of all rounds so far where no value changes."""
    from clearn.report.collections.figures import RoundErrors, errors_over_rounds

    drawn, picked = shown([group for group in groups if group.rounds > 1 and group.headline])
    curves: dict[str, RoundErrors] = {}
    for group in drawn:
        post = group.headline or "none"
        raw = group.so_far("none") if post != "none" else []
        simulated = group.by_round(post), group.so_far(post), raw, group.so_far(post, linked=True)
        curves[group.label] = RoundErrors(*simulated, group.expected_running(), group.floor(), group.uniform)
    if not curves:
        return ""
    spans = [one.span for one in curves.values()]
    span = (min(low for low, _ in spans), max(high for _, high in spans))
    bodies = []
    for at, group in enumerate(drawn):
        svg = errors_over_rounds(curves[group.label], span, look[group.line], f"r{number}-{at}")
        bodies.append(f"<div>{look[group.line].heading(group.label)}{svg}</div>")
    rows = []
    for label, of_one in curves.items():
        told = [("each round", of_one.each), ("mean so far", of_one.running), ("mean so far, raw", of_one.raw)]
        told.append(("linked so far", of_one.linked))
        rows += [
            [f"{label}, {word}", *_over_rounds([one.mean if one else None for one in curve], _error)]
            for word, curve in told
            if curve
        ]
        if of_one.expected:
            rows.append([f"{label}, closed form", *_over_rounds(of_one.expected, _error)])
    static = any(group.static for group in drawn)
    named = [(stroke("solid", thin=static), f"each round ({_judged(drawn)})")]
    caption = "Mean over attributes and repeats, with a band of one standard deviation."
    if static:
        named += [
            (stroke("solid"), "mean of all rounds so far, the same"),
            (stroke("dotted"), "that mean before post-processing; in ink, its closed form"),
        ]
        caption += (
            " The permanent answer to a value that never changes does not average out, so the error of the mean has a "
            "floor: that of one report at eps_inf. Post-processing may go below it."
        )
    if any(group.linked for group in drawn):
        named.append((stroke("dashed", colour="ink"), "all reports of each user decoded together"))
    table = details("MSE_avg after each round", ["protocol", *_rounds_shown(max(g.rounds for g in drawn))], rows)
    body = f'{legend([*named, (stroke("dashed"), "uniform guess")])}<div class="many">{"".join(bodies)}</div>'
    return figure("Error over rounds", body, f"{caption}{picked}", table)


def attributes(groups: Sequence[CollectionGroup]) -> str:
    """Shade the error of every attribute by how it compares with the uniform guess."""
    drawn, picked = shown([group for group in groups if group.headline and len(group.errors[0].names) > 1])
    if not drawn:
        return ""
    first = drawn[0].errors[0]
    columns = "".join(
        f'<th scope="col">{escape(name)}<br>k = {k}</th>' for name, k in zip(first.names, first.sizes, strict=True)
    )
    rows = [
        '<tr><th scope="row">uniform guess</th>'
        + "".join(f'<td class="none">{_error(one)}</td>' for one in drawn[0].guesses())
        + "</tr>"
    ]
    errors = [group.by_attribute(group.headline or "none") for group in drawn]
    logs = [math.log10(one.mean) for of_one in errors for one in of_one if one and one.mean]
    for group, of_one in zip(drawn, errors, strict=True):
        cells = "".join(_shade(one, guess, logs) for one, guess in zip(of_one, group.guesses(), strict=True))
        rows.append(f'<tr><th scope="row">{escape(group.label)}</th>{cells}</tr>')
    caption = (
        f"Mean squared error {_judged(drawn)}, of each attribute, mean over rounds and repeats. A stronger colour is a "
        f"larger error, by powers of ten; an outline marks one above the uniform guess of that attribute.{picked}"
    )
    body = (
        '<div class="scroll" tabindex="0" role="region" aria-label="Error of each attribute">\n'
        f'<table class="heat fine"><thead><tr><th scope="row">attribute</th>{columns}</tr></thead>\n'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
    return figure("Attribute by attribute", body, caption)


def _shade(found: Spread | None, guess: float | None, logs: Sequence[float]) -> str:
    """Write a cell, shaded by where the error lies among all in the table, whose logarithms these are."""
    if found is None:
        return '<td class="none">–</td>'
    low, high = min(logs, default=0.0), max(logs, default=0.0)
    shade = 0.1 + 0.9 * (math.log10(found.mean) - low) / (high - low) if found.mean and high > low else 0.1
    worse = guess is not None and found.mean > guess
    classes = " ".join([*(["high"] if shade > STRONG else []), *(["worse"] if worse else [])])
    named = f' class="{classes}"' if classes else ""
    return f'<td{named} style="--v:{100 * shade:.0f}%">{error_text(found.mean)}</td>'


def simulation(groups: Sequence[CollectionGroup], number: int) -> str:
    """Show how the runs went on our machine: where the time went, what was carried, what was chosen."""
    drawn, picked = shown(groups)
    found = [column for column in columns(groups) if column.part == "simulation"]
    rows = [[group.label, *(cell(column.value(group), column.kind) for column in found)] for group in groups]
    weighed = {group.label: group.categories()[-1] for group in groups}
    names = list(dict.fromkeys(name for of_one in weighed.values() for name in of_one))
    sizes = [[label, *(f"{of_one.get(name, 0):,.0f}" for name in names)] for label, of_one in weighed.items()]
    told = [[group.label, name, text] for group in groups for name, text in _chosen(group)]
    tables = [
        details("What was chosen, and why", ["protocol", "for", "choice"], told) if told else "",
        details("Speed and memory of the simulation", ["protocol", *map(head, found)], rows) if found else "",
        details("Bytes carried after the last round, of all simulated users and repeats", ["protocol", *names], sizes)
        if names
        else "",
    ]
    listed = "".join(tables)
    parts = [time(drawn, number, picked), f'<div class="card">{listed}</div>' if listed else ""]
    return "\n".join(part for part in parts if part)


def _chosen(group: CollectionGroup) -> list[tuple[str, str]]:
    """List what a protocol decided from public numbers, and why it was simulated as it was."""
    why = group.finished[0].environment.get("engine_why")
    engine = [("engine", f"{group.last.engine}: {why}")] if isinstance(why, str) and why else []
    return [*group.last.choices.items(), *engine]
