"""What `clearn show` prints of a run that reads documents, before it runs."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from clearn.reading.experiment import ReadingExperiment
from clearn.stream import ForgetDocuments, Reading


def show(subject: ReadingExperiment, console: Console) -> None:
    """The resolved config, the corpus, and per step what the reader alone will carry. Nothing is prepared.

    Raises:
        BudgetExceeded: after the table, when the reader alone is over its budget at some step.
    """
    from omegaconf import OmegaConf

    console.print(OmegaConf.to_yaml(OmegaConf.create(subject.config)).rstrip(), highlight=False, markup=False)
    upstream = subject.corpus.upstream
    for name, split in (("upstream train", upstream.train), ("upstream val", upstream.val)):
        words = sum(len(one.text.split()) for one in split.documents)
        console.print(
            f"{name}: {len(split.documents):,} documents, {len(split.questions):,} questions, "
            f"{words / max(len(split.documents), 1):.0f} words a document",
            highlight=False,
        )
    plan, budget = subject.plan(), subject.budget
    weights = subject.weights(plan)
    table = Table("step", title="before anything is read", box=SIMPLE_HEAD)
    names = ["documents", "questions", "characters", "networks", "codebooks and the like", "pretrained, shared"]
    if budget.total is not None and budget.policy != "none":
        names += ["budget", "left"]
    for name in names:
        table.add_column(name, justify="right")
    for index, (event, step) in enumerate(zip(subject.corpus.events, plan, strict=True)):
        cells = [str(index + 1), *_event(event), f"{step.carried - step.bank:,}", f"{step.bank:,}", f"{step.shared:,}"]
        if len(names) > 6:
            limit, room = budget.at(index, subject.steps), budget.room(weights[index], index, weights)
            cells += ["–" if limit is None else f"{limit:,}", "–" if room is None else f"{room:,}"]
        table.add_row(*cells)
    console.print(table)
    subject.check()


def _event(event: Reading | ForgetDocuments) -> tuple[str, str, str]:
    if isinstance(event, ForgetDocuments):
        return f"forget {len(event.documents):,}", "", ""
    characters = sum(len(one.text) for one in event.documents)
    return f"{len(event.documents):,}", f"{len(event.questions):,}", f"{characters:,}"
