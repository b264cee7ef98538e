"""The comparison as one self-contained HTML page: no network, no files beside it, readable in light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from os.path import commonpath

from clearn.metrics import DEFINITIONS, Spread
from clearn.report import sections
from clearn.report.blocks import details, swatch
from clearn.report.grouping import Group, settings
from clearn.report.look import SCRIPT, style
from clearn.report.runs import Run
from clearn.report.tables import Column, columns, head, left_out, sample_note, spread_text


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
        sections.accuracy(groups, index, number),
        sections.memory(groups, index, number),
        "</div>",
        sections.areas(groups),
        sections.carried(groups, index, number),
        sections.matrices(groups, index),
        sections.classes(groups, index, number),
        sections.time(groups, number),
        "</section>",
    ]
    return "\n".join(part for part in parts if part)


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
        f'{swatch(group, index)} <span class="name">{escape(group.method)}</span></span>{options}</th>',
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
    titles = ["folder", "method", "seed", "class order seed", "state", "steps", "command"]
    listed = details(f"All {len(runs)} runs", titles, rows)
    return f'<section>\n<h2>Runs</h2>\n<div class="card">{listed}</div>\n</section>'


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
