"""What `clearn show` prints: an experiment before it runs, a method's options, a ledger, the published budgets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from clearn import plugins

if TYPE_CHECKING:
    from clearn.learning import Learning
    from clearn.parts.rehearsal import Rehearsal


def config(loaded: Mapping[str, Any], console: Console) -> None:
    """What a config will do, before it runs."""
    if "protocol" in loaded:
        from clearn.collecting.planner import show

        show(loaded, console)
    elif (loaded.get("stream") or {}).get("name") == "documents":
        from clearn.reading import prepare as prepare_reading
        from clearn.reading.showing import show as show_reading

        show_reading(prepare_reading(loaded).build(), console)
    else:
        from clearn.learning import prepare

        experiment(prepare(loaded).build(), console)


def experiment(subject: Learning, console: Console) -> None:
    """The resolved config, the stream, and per step: parameters, bytes, budget and exemplar quota. Nothing is trained.

    Raises:
        BudgetExceeded: after the table, when the model alone is over its budget at some step.
    """
    from omegaconf import OmegaConf

    from clearn.parts.rehearsal import Rehearsal

    console.print(OmegaConf.to_yaml(OmegaConf.create(subject.config)).rstrip(), highlight=False, markup=False)
    stream, budget = subject.stream, subject.budget
    shape = " x ".join(map(str, stream.inputs.shape))
    console.print(f"\n{len(stream)} tasks, inputs {shape} {stream.inputs.dtype}", highlight=False)
    plan = subject.plan()
    weights = subject.weights(plan)
    memory = subject.build().memory
    table = Table("task", "classes", title="before anything is trained", box=SIMPLE_HEAD)
    for name in ("params", "head", "model bytes"):
        table.add_column(name, justify="right", no_wrap=True)
    limited = budget.total is not None and budget.policy != "none"
    if limited:
        table.add_column("budget", justify="right", no_wrap=True)
        table.add_column("left", justify="right", no_wrap=True)
    keeps = isinstance(memory, Rehearsal)
    if keeps:
        table.add_column("exemplars", justify="right", no_wrap=True)
    seen: set[int] = set()
    for index, (info, step) in enumerate(zip(stream.infos, plan, strict=True)):
        seen |= set(info.classes)
        params = sum(leaf.elements for leaf in step.leaves if leaf.category == "params")
        head = sum(leaf.elements for leaf in step.leaves if leaf.category == "head")
        cells = [str(index + 1), _classes(info.classes), f"{params:,}", f"{head:,}"]
        cells.append(f"{step.carried:,}")
        room = budget.room(weights[index], index, weights)
        if limited:
            limit = budget.at(index, len(stream))
            cells += ["–" if limit is None else f"{limit:,}", f"{room:,}" if room is not None else "–"]
        if keeps:
            assert isinstance(memory, Rehearsal)
            cells.append(_quota(memory, room, len(seen), budget.count == "paper"))
        table.add_row(*cells)
    console.print(table)
    subject.check_budget(plan)


def _quota(memory: Rehearsal, room: int | None, n_classes: int, paper: bool) -> str:
    if room is not None and room < 0:
        return "over"
    count = memory.exemplars.quota(room, n_classes, paper)
    return "by bytes" if count is None else f"{count:,}"


def _classes(labels: tuple[int, ...]) -> str:
    if len(labels) > 3 and labels == tuple(range(labels[0], labels[-1] + 1)):
        return f"{labels[0]}–{labels[-1]}"
    return " ".join(map(str, labels))


def kind_of(name: str) -> str | None:
    """The kind of method that a name is, or None."""
    return next((kind for kind in plugins.KINDS if name in plugins.names(kind)), None)


def method(kind: str, name: str, console: Console) -> None:
    """A method's options: type, default, meaning."""
    from clearn.config import describe

    console.print(f"[bold]{name}[/bold]: {plugins.names(kind)[name]}", highlight=False)
    if kind == "strategies" and (why := plugins.alone().get(name)):
        console.print(f"Several processes cannot train it together: {why}.", highlight=False)
    table = Table("option", "type", "default", "meaning")
    for option in describe(plugins.find(kind, name), skip=plugins.KINDS[kind].given):
        table.add_row(*(str(part) for part in option))
    console.print(table)


def run(path: Path, console: Console) -> None:
    """What a run carried, step by step."""
    from clearn.folder import LEDGER, RunFolder

    rows = RunFolder(path).rows(LEDGER)
    table = Table("step", "owner", "category", "bytes", title=f"carried by {path}")
    for row in rows:
        if row["kind"] == "bytes":
            table.add_row(str(row["step"]), row["owner"], row["category"], f"{row['bytes']:,}")
        else:
            table.add_row(str(row["step"]), "", "[bold]all[/bold]", f"[bold]{row['total']:,}[/bold]", end_section=True)
    console.print(table)


def published(console: Console) -> None:
    """The three published protocols' settings, budgets and exemplars, recomputed, and the published areas."""
    from clearn.published_tables import show

    show(console)
