"""Runs that differ only in their seeds are one group: the numbers of a group are means over its finished runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

from clearn.metrics import Spread, spread
from clearn.report.configs import flat
from clearn.report.runs import Run

R = TypeVar("R", bound=Run)
G = TypeVar("G", bound="Group[Any]")


@dataclass(frozen=True, eq=False)
class Group(Generic[R]):
    """Runs of one config.

    Attributes:
        method: the strategy's or protocol's name.
        label: short and unique within the report: the method, with what tells its groups apart.
        options: what differs between the groups of this stream, dotted config keys to values.
        setting: the stream, in words; only groups of one setting are compared.
        runs: every run, finished or not.
    """

    method: str
    label: str
    options: dict[str, str]
    setting: str
    runs: tuple[R, ...]

    @cached_property
    def finished(self) -> tuple[R, ...]:
        """The runs behind every mean: finished, and no two of the same seeds."""
        first = {json.dumps(run.seeds, default=str): run for run in reversed(self.runs) if run.finished}
        return tuple(run for run in self.runs if run in first.values())

    @property
    def unfinished(self) -> tuple[R, ...]:
        """Runs going on, stopped, failed or damaged; in no mean."""
        return tuple(run for run in self.runs if not run.finished)

    @property
    def repeated(self) -> tuple[R, ...]:
        """Finished runs with the seeds of another one of the group; in no mean, as they tell nothing new."""
        return tuple(run for run in self.runs if run.finished and run not in self.finished)

    @property
    def n(self) -> int:
        """How many runs the means are over."""
        return len(self.finished)

    @property
    def config(self) -> dict[str, Any]:
        """The config, with the seeds of the first run."""
        return self.runs[0].config

    @property
    def headline(self) -> str | None:
        """The read-out or post-processing that is judged."""
        return next((run.headline for run in self.finished if run.headline), None)

    def spread(self, number: Callable[[R], float | None]) -> Spread | None:
        """Summarise a number over the finished runs."""
        return spread(number(run) for run in self.finished)

    def categories(self) -> list[dict[str, float]]:
        """Give carried bytes by category after each step, averaged over the finished runs."""
        steps = []
        for weighed in zip(*(run.categories for run in self.finished), strict=True):
            names = sorted({name for one in weighed for name in one})
            steps.append({name: sum(one.get(name, 0) for one in weighed) / len(weighed) for name in names})
        return steps

    def seconds(self) -> dict[str, float]:
        """Give wall seconds by phase over the whole stream, averaged over the finished runs."""
        phases = {phase: None for run in self.finished for step in run.figures for phase in step.seconds}
        return {
            phase: sum(step.seconds.get(phase, 0.0) for run in self.finished for step in run.figures) / self.n
            for phase in phases
        }


def by_config(runs: Sequence[R], free: Sequence[str]) -> list[list[R]]:
    """Put runs together whose configs agree but for the keys in `free`.

    A forked run is apart from runs that used its config from the start, and so are streams of other lengths.
    """
    members: dict[str, list[R]] = {}
    for run in runs:
        members.setdefault(_identity(run, free), []).append(run)
    return list(members.values())


def _identity(run: Run, free: Sequence[str]) -> str:
    if not run.config:
        return f"unreadable {run.path}"
    config = {key: value for key, value in flat(run.config).items() if key not in free and value is not None}
    fork = run.environment.get("forked_from")
    after = fork.get("step", True) if isinstance(fork, dict) else bool(fork)
    return json.dumps([config, after, run.steps], sort_keys=True, default=str)


def settings(groups: Sequence[G]) -> dict[str, list[G]]:
    """Split groups by the stream they went through; numbers of different streams are not comparable."""
    apart: dict[str, list[G]] = {}
    for group in groups:
        apart.setdefault(group.setting, []).append(group)
    return apart


def left_out(groups: Sequence[Group[Any]]) -> list[tuple[Run, Group[Any], str]]:
    """List the runs that are in no mean, with the reason."""
    found: list[tuple[Run, Group[Any], str]] = []
    for group in groups:
        for run in group.unfinished:
            reached = f"{run.state} {run.reached}"
            found.append((run, group, reached + (f": {run.message}" if run.message else "")))
        for run in group.repeated:
            twin = next(other for other in group.finished if other.seeds == run.seeds)
            found.append((run, group, f"has the seeds of {twin.name}, so it adds nothing to the mean"))
    return found


def looks(apart: Mapping[str, Sequence[str]]) -> dict[str, dict[str, int]]:
    """Number the labels of each setting for colour and marker; a label keeps its number over settings if it can."""
    last: dict[str, int] = {}
    found: dict[str, dict[str, int]] = {}
    for setting, labels in apart.items():
        look = {label: last[label] for label in labels if label in last}
        free = (number for number in range(len(last) + len(labels)) if number not in look.values())
        for label in labels:
            if label not in look:
                look[label] = next(free)
        last |= look
        found[setting] = look
    return found
