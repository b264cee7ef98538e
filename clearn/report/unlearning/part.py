"""What the page says of unlearning: per stream and strategy the requests, one by one, their figures, and the costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from clearn.report.blocks import counted, swatch, terms
from clearn.report.comparison import Head, comparison, edges, name_cell
from clearn.report.grouping import left_out, looks, settings
from clearn.report.timing import time
from clearn.report.unlearning import sections
from clearn.report.unlearning.columns import Measure, all_measures, cell, measures
from clearn.report.unlearning.grouping import UnlearningGroup
from clearn.report.unlearning.runs import Request
from clearn.report.unlearning.tables import TITLES
from clearn.report.unlearning.tables import notes as notes_of

TITLE = "Unlearning"
SEEDS = ("seed", "class order seed")  # as `UnlearningRun.seeds`
OVER = {"forget": "forgotten", "stays": "that stays", "kept": "test, classes that stay", "forgotten": "test, forgotten"}


def lead(groups: Sequence[UnlearningGroup]) -> str:
    """Say in a sentence what was compared."""
    compared = [group for group in groups if group.n]
    methods = len({group.method for group in groups})
    words = f"{counted(sum(group.n for group in groups), 'finished run')} of {counted(methods, 'unlearner')}"
    if len(compared) != methods:
        words += f" in {counted(len(compared), 'configuration')}"
    apart = settings(compared)
    told = [f"{name} ({counted(len(members[0].requests), 'request')})" for name, members in apart.items()]
    words += " on " + "; ".join(told) if told else ""
    excluded = len(left_out(groups))
    return words + (f". {counted(excluded, 'more run')} in no mean: see below." if excluded else ".")


def bodies(groups: Sequence[UnlearningGroup], first: int) -> list[str]:
    """Write a section per stream and strategy; their figures' ids are numbered from `first`."""
    apart = settings([group for group in groups if group.n])
    index = looks({name: [group.label for group in members] for name, members in apart.items()})
    return [_setting(name, members, index[name], first + at) for at, (name, members) in enumerate(apart.items())]


def _setting(setting: str, groups: Sequence[UnlearningGroup], index: Mapping[str, int], number: int) -> str:
    """Write everything about one stream."""
    said = "".join(f'<p class="note">{escape(text)}</p>' for text in notes_of(groups))
    parts = [f"<section>\n<h2>{escape(setting)}</h2>", f'<div class="card">{said}</div>']
    for request in groups[0].requests:
        name = f"u{number}r{request.number}"
        why = sections.reasons(groups, request) + sections.layers(groups, request)
        figures = [sections.bars(groups, index, request, name), sections.attack(groups, index, request, f"{name}a")]
        parts += [
            _table(groups, index, request, ["verdict", "accuracy"], "Request", why),
            _table(groups, index, request, ["attack"], "Attacks at request"),
            _table(groups, index, request, ["remains"], "Probe and relearning at request"),
            _table(groups, index, request, ["distance"], "Distances at request"),
            f'<div class="pair">{"".join(figures)}</div>' if any(figures) else "",
        ]
    parts += [
        sections.events(groups, index, f"u{number}e"),
        *(_table(groups, index, request, ["cost"], "Cost of request") for request in groups[0].requests),
        time(groups, number),
        "</section>",
    ]
    return "\n".join(part for part in parts if part)


def _table(
    groups: Sequence[UnlearningGroup],
    index: Mapping[str, int],
    request: Request,
    parts: Sequence[str],
    title: str,
    more: str = "",
) -> str:
    found = [one for part in parts for one in measures(groups, request) if one.part == part]
    heads = [Head(one.head, one.note, TITLES[one.part], text=one.part == "verdict") for one in found]
    starts = edges(heads)
    rows = []
    for group in groups:
        cells = [
            name_cell(group, swatch(index[group.label], hollow=group.role == "control")),
            f'<td data-value="{group.role}">{group.role}</td>',
            f'<td data-value="{group.n}">{group.n}</td>',
        ]
        cells += [_cell(one, group, request, "edge" if at in starts else "") for at, one in enumerate(found)]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    leads = [Head("unlearner", text=True), Head("role", text=True), Head("n", "finished runs in the means")]
    note = f'<p class="note">Point at a head for what it means; click it to sort.</p>{more}'
    titled = f"{title} {request.number}: {request.words}"
    if not found:
        return ""
    return comparison(titled, leads, heads, rows, note, titled)


def _cell(measure: Measure, group: UnlearningGroup, request: Request, edge: str) -> str:
    one, words = cell(measure, group, request), measure.part == "verdict"
    classes = " ".join(filter(None, (edge, "verdict" if words else "")))
    named = f' class="{classes}"' if classes else ""
    order = f"{one.order:.9g}".replace("inf", "Infinity") if one.order is not None else one.main if words else ""
    tip = f' title="{escape(one.exact)}"' if one.exact else ""
    main = f'<span class="failed">{escape(one.main)}</span>' if one.wrong else escape(one.main)
    more = f' <span class="sd">{escape(one.more)}</span>' if one.more else ""
    return f'<td{named} data-value="{escape(order)}"{tip}>{main}{more}</td>'


def notes(groups: Sequence[UnlearningGroup]) -> str:
    """Define every number."""
    told: dict[str, str] = {}
    for one in all_measures():
        if not one.key.endswith(".gap"):
            told[one.title] = one.note[0].upper() + one.note[1:] + "."
    told["gap"] = (
        "The number minus that of the model retrained with the same seed; its mean over the seeds, and Student's 95 % "
        "interval of that mean where there are two seeds or more."
    )
    told["did nothing"] = "The outputs on the forgotten samples moved at most 1 % of the divergence retraining makes."
    told["destroyed the model"] = "Less than half of what retraining knows above guessing is left on the test samples."
    told["indistinguishable"] = (
        "In every measure, the divergence of outputs among them, the whole interval of the gap lies within what two "
        "retrained models differ by. Apart: one interval lies wholly outside; undecided: neither, so more seeds are "
        "needed, five or more."
    )
    told["reference, control"] = (
        "The reference retrains without the forgotten samples. The controls do nothing, or only zero the output's rows "
        "of the forgotten classes, which already gives every accuracy of a forgotten class."
    )
    intro = (
        "Everything is measured on the scores written around each request, those of the network's own output. Training "
        "samples that stay are an even choice of at most 10,000. Hover over a number for its exact value."
    )
    return terms(intro, told)
