"""The comparison as one self-contained HTML page: no network, no files beside it, readable in light and dark.

Each kind of run has its own part: its own tables, figures and definitions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from os.path import commonpath
from typing import Any

from clearn.report.blocks import table
from clearn.report.collections import part as collecting
from clearn.report.collections.grouping import CollectionGroup
from clearn.report.columns import Kind, number_text
from clearn.report.grouping import Group, left_out, settings
from clearn.report.learning import part as learning
from clearn.report.learning.grouping import LearningGroup
from clearn.report.look import style
from clearn.report.reading import part as reading
from clearn.report.reading.grouping import ReadingGroup
from clearn.report.runs import Run
from clearn.report.script import SCRIPT, tools
from clearn.report.unlearning import part as unlearning
from clearn.report.unlearning.grouping import UnlearningGroup


def html(groups: Sequence[Group[Any]], runs: Sequence[Run], title: str) -> str:
    """Write the page. The same runs give the same bytes: it holds no time but theirs.

    Args:
        groups: of `clearn.report.groups`.
        runs: all runs, for the header and the list at the end.
        title: plain text.
    """
    learned = [group for group in groups if isinstance(group, LearningGroup)]
    unlearned = [group for group in groups if isinstance(group, UnlearningGroup)]
    read = [group for group in groups if isinstance(group, ReadingGroup)]
    collected = [group for group in groups if isinstance(group, CollectionGroup)]
    leads, parts = [], []
    if learned:
        leads.append(learning.lead(learned))
        bodies = [*learning.bodies(learned, 1), _left_out(learned), _runs(learned, runs, "method", learning.SEEDS)]
        parts.append([learning.TITLE, *bodies, _notes(learning.notes(learned))])
    first = 1 + len(settings(learned))
    if unlearned:
        leads.append(unlearning.lead(unlearned))
        bodies = [*unlearning.bodies(unlearned, first), _left_out(unlearned)]
        bodies.append(_runs(unlearned, runs, "unlearner", unlearning.SEEDS))
        parts.append([unlearning.TITLE, *bodies, _notes(unlearning.notes(unlearned))])
    first += len(settings(unlearned))
    if read:
        leads.append(reading.lead(read))
        bodies = [*reading.bodies(read, first), _left_out(read), _runs(read, runs, "method", reading.SEEDS)]
        parts.append([reading.TITLE, *bodies, _notes(reading.notes(read))])
    first += len(settings(read))
    if collected:
        leads.append(collecting.lead(collected))
        bodies = [*collecting.bodies(collected, first), _left_out(collected)]
        bodies.append(_runs(collected, runs, "protocol", collecting.SEEDS))
        parts.append([collecting.TITLE, *bodies, _notes(collecting.notes(collected))])
    names = [name for name, *_ in parts] if len(parts) > 1 else []
    written = [_header(runs, title, leads, names), tools(list(dict.fromkeys(group.method for group in groups)))]
    for at, (name, *bodies) in enumerate(parts):
        written += [f'<h2 class="part" id="part-{at}">{escape(name)}</h2>', *bodies] if names else bodies
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        "script-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>\n{style()}</style>\n</head>\n<body>\n"
        f'<div class="page">\n{"".join(one + chr(10) for one in written if one)}</div>\n'
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _header(runs: Sequence[Run], title: str, leads: Sequence[str], names: Sequence[str]) -> str:
    """Write title, a sentence on each part, linked to it where there are several, and what the runs were made with."""
    skipped = {"command", "started", "seed", "forked_from", "data", "engine", "engine_why"}
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
    links = [f'<a href="#part-{at}">{escape(name)}</a>: ' for at, name in enumerate(names)] or [""]
    said = "\n".join(f'<p class="lead">{link}{escape(lead)}</p>' for link, lead in zip(links, leads, strict=True))
    return f'<header>\n<h1>{escape(title)}</h1>\n{said}\n<dl class="facts">{listed}</dl>\n</header>'


def _left_out(groups: Sequence[Group[Any]]) -> str:
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


def _runs(groups: Sequence[Group[Any]], runs: Sequence[Run], method: str, seeds: Sequence[str]) -> str:
    """List every run of one kind: what made it, and how far it got. Folders are relative to the one that holds all.

    Args:
        groups: of one kind.
        runs: of any kind, in the order to list them.
        method: what a method is called.
        seeds: names of `Run.seeds`.
    """
    label = {run.path: group.label for group in groups for run in group.runs}
    listed = [run for run in runs if run.path in label]
    parent = commonpath([run.path.resolve().parent for run in runs])
    rows = []
    for run in listed:
        told = ["–" if value is None else str(value) for value in run.seeds]
        reached = f"{run.step} of {run.steps}" if run.steps else str(run.step)
        folder = run.path.resolve().relative_to(parent).as_posix()
        measured = [_measured(run, pick, kind) for pick, kind in MEASURED.values()]
        rows.append([label[run.path], folder, *told, run.state, reached, *measured, _command(run)])
    titles = [method, "folder", *seeds, "state", f"{listed[0].word}s", *MEASURED, "command"]
    shown = [at for at, head in enumerate(titles) if head not in MEASURED or any(row[at] != "–" for row in rows)]
    rows, titles = [[row[at] for at in shown] for row in rows], [titles[at] for at in shown]
    listing = table(f"All {len(listed)} runs", titles, rows).replace('class="scroll"', 'class="scroll tall"', 1)
    return f'<section>\n<h2>Runs side by side</h2>\n<div class="card plainly">{listing}</div>\n</section>'


def _number(name: str) -> Callable[[Run], float | None]:
    return lambda run: run.number(run.headline, name) if run.headline else None


MEASURED: dict[str, tuple[Callable[[Run], float | None], Kind]] = {  # of one run; left out where none has it
    "average acc. %": (_number("average_incremental_accuracy.pooled"), "percent"),
    "last acc. %": (_number("last_accuracy.pooled"), "percent"),
    "forgetting %": (_number("forgetting.chaudhry"), "percent"),
    "harmonic mean %": (_number("last_accuracy.harmonic_mean"), "percent"),
    "carried": (lambda run: float(run.figures[-1].total) if run.figures else None, "bytes"),
    "peak host": (lambda run: max((one.peak_host for one in run.figures if one.peak_host), default=None), "bytes"),
    "seconds": (lambda run: sum(sum(one.seconds.values()) for one in run.figures) or None, "seconds"),
}


def _measured(run: Run, pick: Callable[[Run], float | None], kind: Kind) -> str:
    found = pick(run)
    return "–" if found is None else number_text(found, kind)


def _command(run: Run) -> str:
    """Print the command that made a run, its program without the folder it lies in."""
    command = run.environment.get("command") or ""
    words = command.split(" ") if isinstance(command, str) else [str(word) for word in command]
    return " ".join([words[0].rpartition("/")[2], *words[1:]]) if words else ""


def _notes(body: str) -> str:
    return f"<section>\n<h2>What the numbers mean</h2>\n{body}\n</section>"
