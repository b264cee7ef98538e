"""Group runs of any kind, and write the comparison as text: each kind has its own tables, never a shared one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearn.report.collections import grouping as collected_groups
from clearn.report.collections import tables as collected_tables
from clearn.report.collections.grouping import CollectionGroup
from clearn.report.collections.runs import CollectionRun
from clearn.report.grouping import Group
from clearn.report.learning import areas
from clearn.report.learning import grouping as learned_groups
from clearn.report.learning import tables as learned_tables
from clearn.report.learning.grouping import LearningGroup
from clearn.report.learning.runs import LearningRun
from clearn.report.reading import grouping as read_groups
from clearn.report.reading import tables as read_tables
from clearn.report.reading.grouping import ReadingGroup
from clearn.report.reading.runs import ReadingRun
from clearn.report.runs import Run
from clearn.report.unlearning import grouping as unlearned_groups
from clearn.report.unlearning import tables as unlearned_tables
from clearn.report.unlearning.grouping import UnlearningGroup
from clearn.report.unlearning.runs import UnlearningRun

if TYPE_CHECKING:
    from rich.console import Console

AnyGroup = LearningGroup | UnlearningGroup | ReadingGroup | CollectionGroup


def groups(runs: Sequence[Run]) -> list[AnyGroup]:
    """Group runs that differ only in their seeds; those of strategies first, those of protocols last."""
    learned = learned_groups.groups([run for run in runs if isinstance(run, LearningRun)])
    unlearned = unlearned_groups.groups([run for run in runs if isinstance(run, UnlearningRun)])
    read = read_groups.groups([run for run in runs if isinstance(run, ReadingRun)])
    collected = collected_groups.groups([run for run in runs if isinstance(run, CollectionRun)])
    return [*learned, *unlearned, *read, *collected]


def _kinds(
    groups: Sequence[Group[Any]],
) -> tuple[list[LearningGroup], list[UnlearningGroup], list[ReadingGroup], list[CollectionGroup]]:
    return (
        [group for group in groups if isinstance(group, LearningGroup)],
        [group for group in groups if isinstance(group, UnlearningGroup)],
        [group for group in groups if isinstance(group, ReadingGroup)],
        [group for group in groups if isinstance(group, CollectionGroup)],
    )


def terminal(groups: Sequence[AnyGroup], console: Console) -> None:
    """Print the tables with rich."""
    learned, unlearned, read, collected = _kinds(groups)
    if learned:
        learned_tables.terminal(learned, console)
    if unlearned:
        unlearned_tables.terminal(unlearned, console)
    if read:
        read_tables.terminal(read, console)
    if collected:
        collected_tables.terminal(collected, console)


def curve(groups: Sequence[AnyGroup], console: Console) -> None:
    """Print accuracy for memory, and the areas under it, with rich."""
    areas.terminal(_kinds(groups)[0], console)


def markdown(groups: Sequence[AnyGroup], curve: bool = False) -> str:
    """Write the tables as Markdown, the same as on the terminal; with the curves where asked for."""
    learned, unlearned, read, collected = _kinds(groups)
    lines = learned_tables.markdown(learned) if learned else []
    lines += areas.markdown(learned) if curve else []
    lines += unlearned_tables.markdown(unlearned) if unlearned else []
    lines += read_tables.markdown(read) if read else []
    lines += collected_tables.markdown(collected) if collected else []
    return "\n".join(lines)


def csv(groups: Sequence[AnyGroup]) -> str:
    """Write one row per group, for groups of one kind; of unlearning one per group and request.

    Raises:
        ValueError: there are several kinds, which share no columns; `csv_files` writes them apart.
    """
    tables = _csv_tables(groups)
    if len(tables) > 1:
        raise ValueError(f"runs of {' and '.join(tables)} share no columns: write them apart with csv_files")
    return next(iter(tables.values()), learned_tables.csv([]))


def csv_files(groups: Sequence[AnyGroup], path: Path) -> dict[Path, str]:
    """Give the CSV files to write: `path` alone for one kind of runs, else one file a kind, named after it.

    >>> csv_files([], Path("table.csv")).keys()
    dict_keys([PosixPath('table.csv')])
    """
    tables = _csv_tables(groups)
    if len(tables) < 2:
        return {path: csv(groups)}
    return {path.with_stem(f"{path.stem}.{kind}"): text for kind, text in tables.items()}


def _csv_tables(groups: Sequence[AnyGroup]) -> dict[str, str]:
    """Give the table of each kind that there is, by its name."""
    learned, unlearned, read, collected = _kinds(groups)
    tables = {"learning": learned_tables.csv(learned)} if learned else {}
    tables |= {"unlearning": unlearned_tables.csv(unlearned)} if unlearned else {}
    tables |= {"reading": read_tables.csv(read)} if read else {}
    tables |= {"collections": collected_tables.csv(collected)} if collected else {}
    return tables
