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
from clearn.report.learning import grouping as learned_groups
from clearn.report.learning import tables as learned_tables
from clearn.report.learning.grouping import LearningGroup
from clearn.report.learning.runs import LearningRun
from clearn.report.runs import Run

if TYPE_CHECKING:
    from rich.console import Console

AnyGroup = LearningGroup | CollectionGroup


def groups(runs: Sequence[Run]) -> list[AnyGroup]:
    """Group runs that differ only in their seeds; those of strategies first."""
    learned = learned_groups.groups([run for run in runs if isinstance(run, LearningRun)])
    collected = collected_groups.groups([run for run in runs if isinstance(run, CollectionRun)])
    return [*learned, *collected]


def _kinds(groups: Sequence[Group[Any]]) -> tuple[list[LearningGroup], list[CollectionGroup]]:
    return (
        [group for group in groups if isinstance(group, LearningGroup)],
        [group for group in groups if isinstance(group, CollectionGroup)],
    )


def terminal(groups: Sequence[AnyGroup], console: Console) -> None:
    """Print the tables with rich."""
    learned, collected = _kinds(groups)
    if learned:
        learned_tables.terminal(learned, console)
    if collected:
        collected_tables.terminal(collected, console)


def markdown(groups: Sequence[AnyGroup]) -> str:
    """Write the tables as Markdown, the same as on the terminal."""
    learned, collected = _kinds(groups)
    lines = learned_tables.markdown(learned) if learned else []
    lines += collected_tables.markdown(collected) if collected else []
    return "\n".join(lines)


def csv(groups: Sequence[AnyGroup]) -> str:
    """Write one row per group, for groups of one kind.

    Raises:
        ValueError: there are both kinds, which share no columns; `csv_files` writes them apart.
    """
    learned, collected = _kinds(groups)
    if learned and collected:
        raise ValueError("runs of strategies and of protocols share no columns: write them apart with csv_files")
    return collected_tables.csv(collected) if collected else learned_tables.csv(learned)


def csv_files(groups: Sequence[AnyGroup], path: Path) -> dict[Path, str]:
    """Give the CSV files to write: `path` alone for one kind of runs, else one file a kind, named after it.

    >>> csv_files([], Path("table.csv")).keys()
    dict_keys([PosixPath('table.csv')])
    """
    learned, collected = _kinds(groups)
    if not (learned and collected):
        return {path: csv(groups)}
    return {
        path.with_stem(f"{path.stem}.learning"): learned_tables.csv(learned),
        path.with_stem(f"{path.stem}.collections"): collected_tables.csv(collected),
    }
