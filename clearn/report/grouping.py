"""Runs that differ only in their seeds are one group: the numbers of a group are means over its finished runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from clearn.metrics import Floats, OldNew, Spread, accuracy_matrix, old_new, pooled_accuracy, spread
from clearn.report.runs import Run, section

SEEDS = ("seed", "stream.order_seed", "name", "out")  # what may differ within a group


@dataclass(frozen=True, eq=False)
class Group:
    """Runs of one config.

    Attributes:
        method: the strategy's name.
        label: short and unique within the report: the method, with what tells its groups apart.
        options: what differs between the groups of this stream, dotted config keys to values.
        setting: the stream, in words; only groups of one setting are compared.
        runs: every run, finished or not.
    """

    method: str
    label: str
    options: dict[str, str]
    setting: str
    runs: tuple[Run, ...]

    @cached_property
    def finished(self) -> tuple[Run, ...]:
        """The runs behind every mean: finished, and no two of the same seeds."""
        first = {json.dumps(run.seeds, default=str): run for run in reversed(self.runs) if run.finished}
        return tuple(run for run in self.runs if run in first.values())

    @property
    def unfinished(self) -> tuple[Run, ...]:
        """Runs going on, stopped, failed or damaged; in no mean."""
        return tuple(run for run in self.runs if not run.finished)

    @property
    def repeated(self) -> tuple[Run, ...]:
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
    def readouts(self) -> tuple[str, ...]:
        """The read-outs that finished runs were scored by, the headline first."""
        names = sorted({readout for run in self.finished for readout in run.counts})
        return tuple(sorted(names, key=lambda name: name != self.headline))

    @property
    def headline(self) -> str | None:
        """The read-out that the method is judged by."""
        return next((run.headline for run in self.finished if run.headline), None)

    def spread(self, number: Callable[[Run], float | None]) -> Spread | None:
        """Summarise a number over the finished runs."""
        return spread(number(run) for run in self.finished)

    def number(self, readout: str | None, name: str) -> Spread | None:
        """Summarise a number of `metrics.DEFINITIONS` over the finished runs."""
        return self.spread(lambda run: run.number(readout, name)) if readout else None

    def curve(self, readout: str) -> list[Spread | None]:
        """Give accuracy.pooled after each step."""
        curves = [
            pooled_accuracy(run.counts[readout].correct, run.counts[readout].total)
            for run in self.finished
            if readout in run.counts
        ]
        return [spread(None if np.isnan(a) else float(a) for a in step) for step in zip(*curves, strict=True)]

    def matrix(self, readout: str) -> Floats:
        """Give R, (n, n), averaged over the finished runs; NaN where nothing was measured."""
        counts = [run.counts[readout] for run in self.finished if readout in run.counts]
        return np.mean([accuracy_matrix(one.correct, one.total) for one in counts], axis=0)

    def old_new(self, readout: str) -> list[OldNew] | None:
        """Give old and new accuracy after each step, each averaged over the finished runs; None if undefined."""
        splits = [old_new(run.counts[readout]) for run in self.finished if readout in run.counts]
        known = [split for split in splits if split is not None]
        if not known or len(known) < len(splits):
            return None

        def mean(values: Iterable[float | None]) -> float | None:
            found = spread(values)
            return None if found is None else found.mean

        return [
            OldNew(
                mean(one.old for one in step),
                mean(one.new for one in step),
                mean(one.harmonic_mean for one in step),
            )
            for step in zip(*known, strict=True)
        ]

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


def groups(runs: Sequence[Run]) -> list[Group]:
    """Group runs that differ only in `SEEDS`, best headline first within each setting.

    A forked run is apart from runs that used its config from the start, and so are streams of other lengths.
    """
    members: dict[str, list[Run]] = {}
    for run in runs:
        members.setdefault(_identity(run), []).append(run)
    kinds = list(members.values())

    streams = [_flat(section(kind[0].config, "stream")) for kind in kinds]
    names = [_setting(stream, streams) for stream in streams]
    found: list[Group] = []
    for name in dict.fromkeys(names):
        found += _label([kind for kind, other in zip(kinds, names, strict=True) if other == name], name)
    return found


def settings(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """Split groups by the stream they learned; numbers of different streams are not comparable."""
    apart: dict[str, list[Group]] = {}
    for group in groups:
        apart.setdefault(group.setting, []).append(group)
    return apart


def memory_curves(groups: Sequence[Group], delta: bool) -> dict[str, list[tuple[float, float]]]:
    """Give accuracy for memory where a method was run under several budgets.

    Args:
        groups: of one setting.
        delta: weigh without shared pretrained weights.

    Returns:
        By label without the budget, at least two points (MiB at the largest step, average_incremental_accuracy.pooled
        of the headline read-out), memory ascending.
    """
    series: dict[str, list[Group]] = {}
    for group in groups:
        if group.n:
            rest = {key: value for key, value in _flat(group.config).items() if key not in (*SEEDS, "budget.bytes")}
            series.setdefault(json.dumps(rest, sort_keys=True, default=str), []).append(group)
    curves: dict[str, list[tuple[float, float]]] = {}
    for members in series.values():
        points = {}
        for group in members:
            size = group.spread(lambda run: largest(run, delta))
            accuracy = group.number(group.headline, "average_incremental_accuracy.pooled")
            if size and accuracy:
                points[size.mean / 2**20] = accuracy.mean
        if len(points) > 1:
            options = {key: value for key, value in members[0].options.items() if not key.startswith("budget.bytes")}
            name = _named(members[0].method, options)
            curves[f"{name} ({members[0].runs[0].name})" if name in curves else name] = sorted(points.items())
    return curves


def largest(run: Run, delta: bool = False) -> float | None:
    """Give the most bytes carried after any step, with or without shared pretrained weights."""
    return max((float(step.delta if delta else step.total) for step in run.figures), default=None)


def _identity(run: Run) -> str:
    if not run.config:
        return f"unreadable {run.path}"
    config = {key: value for key, value in _flat(run.config).items() if key not in SEEDS}
    fork = run.environment.get("forked_from")
    after = fork.get("step", True) if isinstance(fork, dict) else bool(fork)
    return json.dumps([config, after, run.steps], sort_keys=True, default=str)


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Give a nested config with dotted keys; a section given by its bare name has it under `.name`."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        elif not prefix and key in ("stream", "strategy") and isinstance(value, str):
            flat[f"{key}.name"] = value
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _differing(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Name the keys on whose values the configs do not agree, in order of appearance.

    Where a section is off (`budget: null`), its keys are not missing: the section itself is what differs.
    """

    def text(config: dict[str, Any], key: str) -> str | None:
        parents = [key[:at] for at, letter in enumerate(key) if letter == "."]
        return None if any(parent in config for parent in parents) else _text(config.get(key, "not set"))

    keys = dict.fromkeys(key for config in configs for key in config)
    return [key for key in keys if len({text(config, key) for config in configs} - {None}) > 1]


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_text, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return str(value)


def _named(method: str, options: dict[str, str]) -> str:
    """Put options behind a method, each by the last part of its key."""
    return " ".join([method, *(f"{key.rpartition('.')[2]}={value}" for key, value in options.items())])


def _setting(stream: dict[str, Any], streams: Sequence[dict[str, Any]]) -> str:
    """Name a stream by its kind and data, and by what tells it apart from others of the same kind and data."""

    def plain(one: dict[str, Any]) -> list[str]:
        return [_text(one.get("name", "unknown stream")), _text(one.get("data", one.get("data.name", "")))]

    known = ("name", "data", "data.name", "order_seed")
    apart = _differing([one for one in streams if plain(one) == plain(stream)])
    words = [f"{key}={_text(stream[key])}" for key in apart if key in stream and key not in known]
    return " · ".join(word for word in (*plain(stream), *words) if word)


def _label(kinds: Sequence[Sequence[Run]], setting: str) -> list[Group]:
    """Turn the runs of each config of one setting into groups that say what tells them apart."""
    configs = [
        {key: value for key, value in _flat(kind[0].config).items() if key not in (*SEEDS, "strategy.name")}
        for kind in kinds
    ]
    methods = [str(section(kind[0].config, "strategy").get("name") or kind[0].name) for kind in kinds]
    shared = _differing(
        [{key: v for key, v in config.items() if not key.startswith("strategy.")} for config in configs]
    )

    found = []
    for kind, config, method in zip(kinds, configs, methods, strict=True):
        peers = [other for other, name in zip(configs, methods, strict=True) if name == method]
        own = _differing(peers)
        options = {key: _text(config.get(key)) for key in config if key in own or key in shared}
        told_apart = {key: value for key, value in options.items() if key in own}
        if kind[0].environment.get("forked_from"):
            told_apart["forked"] = options["forked"] = "yes"
        if any(not step.rebuilt for run in kind for step in run.figures):
            options["runner.rebuild"] = "no"  # weighed, but not proven to be enough to go on from
        found.append(Group(method, _named(method, told_apart), options, setting, tuple(kind)))

    labels = [group.label for group in found]
    unique = [
        group if labels.count(group.label) == 1 else _renamed(group, f"{group.label} ({group.runs[0].name})")
        for group in found
    ]
    return sorted(unique, key=lambda group: (-_headline(group), group.label))


def _renamed(group: Group, label: str) -> Group:
    return Group(group.method, label, group.options, group.setting, group.runs)


def _headline(group: Group) -> float:
    found = group.number(group.headline, "average_incremental_accuracy.pooled")
    return found.mean if found else -1.0
