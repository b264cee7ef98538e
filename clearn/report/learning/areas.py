"""Accuracy for memory as numbers: a row a method, a column a budget, and the areas under the curves, seed by seed.

The areas are the published AUC-A and AUC-L (Zhou et al., MEMO, ICLR 2023), of average and of last accuracy, on the
range of measured bytes that all curves cover. Every seed has a curve of its own, so that an area has a deviation too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Literal

from clearn.metrics import Point, Spread, common_interval, curve_areas, spread
from clearn.report.columns import cell
from clearn.report.grouping import settings
from clearn.report.learning.grouping import LearningGroup, budget_series, largest
from clearn.report.plain import Part, Rows, markdown_part, print_parts

if TYPE_CHECKING:
    from rich.console import Console

MEASURES = {"AUC-A": "average_incremental_accuracy.pooled", "AUC-L": "last_accuracy.pooled"}
Curves = dict[tuple[str, str], list[Point]]  # by method and seeds: (MiB, accuracy), memory ascending


@dataclass(frozen=True)
class Areas:
    """What lies under the curves of one setting.

    Attributes:
        first, last: MiB, the range that all curves cover.
        percent: by measure and method, the mean accuracy over that range, as a fraction.
        raw: by measure and method, the area, in MiB.
        doublings: by measure and method, the mean accuracy over the logarithm of memory, as a fraction.
    """

    first: float
    last: float
    percent: dict[str, dict[str, Spread]]
    raw: dict[str, dict[str, Spread]]
    doublings: dict[str, dict[str, Spread]]


def areas(series: dict[str, list[LearningGroup]]) -> Areas | None:
    """Integrate the curves of one setting; None where there is none of two points.

    Raises:
        ValueError: the curves share no range of memory.
    """
    curves = {measure: _curves(series, name) for measure, name in MEASURES.items()}
    if not curves["AUC-A"]:
        return None
    first, last = common_interval({f"{method} ({seeds})": one for (method, seeds), one in curves["AUC-A"].items()})
    return Areas(
        first,
        last,
        {measure: _summed(found) for measure, found in curves.items()},
        {measure: _summed(found, normalise=False) for measure, found in curves.items()},
        {measure: _summed(found, kind="log2") for measure, found in curves.items()},
    )


def _curves(series: dict[str, list[LearningGroup]], name: str) -> Curves:
    """Give a curve a method and seed: weights that equal a published checkpoint are left out of its memory."""
    points: dict[tuple[str, str], dict[float, float]] = {}
    for method, members in series.items():
        for group in members:
            for run in group.finished:
                size, accuracy = largest(run, delta=True), run.number(group.headline or "", name)
                if size is not None and accuracy is not None:
                    points.setdefault((method, str(run.seeds)), {})[size / 2**20] = accuracy
    return {key: sorted(found.items()) for key, found in points.items() if len(found) > 1}


def _summed(
    curves: Curves, kind: Literal["trapezoid", "log2"] = "trapezoid", normalise: bool = True
) -> dict[str, Spread]:
    """Give the area of each method over its seeds."""
    found = curve_areas({" ".join(key): one for key, one in curves.items()}, kind, normalise)
    methods = dict.fromkeys(method for method, _ in curves)
    summed = {method: spread(found[" ".join(key)] for key in curves if key[0] == method) for method in methods}
    return {method: one for method, one in summed.items() if one}


def _parts(series: dict[str, list[LearningGroup]]) -> tuple[list[str], list[Part], str]:
    """Give the rows' methods, best area first, the tables, and a note."""
    try:
        found = areas(series)
        note = (
            "No method has two budgets at which it carries different bytes, so there is no area."
            if found is None
            else f"Areas from {found.first:.3f} to {found.last:.3f} MiB of measured bytes, the range that all curves "
            "cover; in %: the mean accuracy over that range, log: over doublings of memory, where the step from 1 to 2 "
            "MiB weighs as much as that from 2 to 4. A method without an area fills no budget."
        )
    except ValueError as error:
        found, note = None, f"No areas: {error}."
    ranked = found.percent["AUC-A"] if found else {}
    methods = sorted(series, key=lambda name: (-(ranked[name].mean if name in ranked else -1.0), name))
    sizes = {_budget(group): group for members in series.values() for group in members}
    budgets = sorted(sizes, key=lambda text: float(sizes[text].finished[0].figures[-1].budget or 0))
    parts = [
        Part(title, [(text, [_at(series[method], text, name) for method in methods]) for text in budgets])
        for title, name in (
            ("Average incremental accuracy at each budget, %", MEASURES["AUC-A"]),
            ("Last accuracy at each budget, %", MEASURES["AUC-L"]),
        )
    ]
    if found:
        columns = []
        for measure in MEASURES:
            per_cent, raw = found.percent[measure], found.raw[measure]
            columns.append((f"{measure} %", [cell(per_cent.get(method), "percent") for method in methods]))
            columns.append((f"{measure} MiB", [_raw(raw.get(method)) for method in methods]))
            doublings = found.doublings[measure]
            columns.append((f"{measure} log %", [cell(doublings.get(method), "percent") for method in methods]))
        parts.append(Part("Area under accuracy for memory", columns))
    return methods, parts, note


def _budget(group: LearningGroup) -> str:
    return str((group.config.get("budget") or {}).get("bytes"))


def _at(members: Sequence[LearningGroup], budget: str, name: str) -> str:
    group = next((one for one in members if _budget(one) == budget), None)
    return "–" if group is None else cell(group.number(group.headline, name), "percent")


def _raw(found: Spread | None) -> str:
    if found is None:
        return "–"
    return f"{found.mean:.3g}" + ("" if found.std is None else f" ± {found.std:.1g}")


def _series(groups: Sequence[LearningGroup]) -> dict[str, dict[str, list[LearningGroup]]]:
    found = {setting: budget_series(members) for setting, members in settings(groups).items()}
    return {setting: series for setting, series in found.items() if series}


def page(groups: Sequence[LearningGroup]) -> str:
    """Write the same as sortable tables of the page; empty where no method was run under two budgets."""
    from clearn.report.blocks import counted, table

    series = budget_series(groups)
    if not series:
        return ""
    methods, parts, note = _parts(series)
    bodies = []
    for part in parts:
        heads, cells = ["method", *(head for head, _ in part.columns)], [column for _, column in part.columns]
        rows = [[method, *(column[at] for column in cells)] for at, method in enumerate(methods)]
        bodies.append(f"<div><h4>{escape(part.title)}</h4>{table(part.title, heads, rows)}</div>")
    most = max(len(members) for members in series.values())
    told = f"{counted(len(series), 'method')} under up to {counted(most, 'budget')}. {note}"
    return (
        f'<div class="card plainly"><h3>Areas under accuracy for memory</h3><div class="tables">{"".join(bodies)}</div>'
        f'<p class="note">{escape(told)}</p></div>'
    )


NONE = "No method was run under two budgets or more, so there is no curve."


def terminal(groups: Sequence[LearningGroup], console: Console) -> None:
    """Print the curves and areas of each stream."""
    from rich.markup import escape

    found = _series(groups)
    for setting, series in found.items():
        console.print(f"[bold]{escape(setting)}[/bold]", highlight=False)
        methods, parts, note = _parts(series)
        print_parts(console, Rows("method", methods, methods, []), parts)
        console.print(escape(note), style="dim", highlight=False)
    if not found:
        console.print(NONE, highlight=False)


def markdown(groups: Sequence[LearningGroup]) -> list[str]:
    """Write the same as the lines of Markdown tables."""
    lines: list[str] = []
    for setting, series in _series(groups).items():
        methods, parts, note = _parts(series)
        lines += [f"## {setting}: accuracy for memory", ""]
        for part in parts:
            lines += markdown_part(Rows("method", methods, methods, []), part)
        lines += [note, ""]
    return lines or [NONE, ""]
