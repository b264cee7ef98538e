"""Groups of learning runs: curves, matrices and splits averaged over runs that differ only in their seeds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from clearn.metrics import (
    Floats,
    OldNew,
    Spread,
    accuracy_matrix,
    forgetting_chaudhry,
    old_new,
    pooled_accuracy,
    spread,
)
from clearn.report.configs import chosen, differing, flat, named, setting
from clearn.report.grouping import Group, by_config
from clearn.report.learning.runs import LearningRun
from clearn.report.runs import section

SEEDS = ("seed", "stream.order_seed", "name", "out")  # what may differ within a group


@dataclass(frozen=True, eq=False)
class LearningGroup(Group[LearningRun]):
    """Runs of one config of a strategy."""

    @property
    def readouts(self) -> tuple[str, ...]:
        """The read-outs that finished runs were scored by, the headline first."""
        names = sorted({readout for run in self.finished for readout in run.counts})
        return tuple(sorted(names, key=lambda name: name != self.headline))

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

    def forgetting(self, readout: str) -> list[Spread | None]:
        """Give forgetting.chaudhry after each step, as if the stream ended there; None at the first."""
        matrices = [
            accuracy_matrix(run.counts[readout].correct, run.counts[readout].total)
            for run in self.finished
            if readout in run.counts
        ]
        n = min(map(len, matrices), default=0)
        return [spread(forgetting_chaudhry(one[: i + 1, : i + 1]) for one in matrices) for i in range(n)]

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


def groups(runs: Sequence[LearningRun]) -> list[LearningGroup]:
    """Group runs that differ only in `SEEDS`, best headline first within each setting.

    A forked run is apart from runs that used its config from the start, and so are streams of other lengths.
    """
    kinds = by_config(runs, SEEDS)
    streams = [flat(section(kind[0].config, "stream")) for kind in kinds]
    names = [setting(stream, streams) for stream in streams]
    found: list[LearningGroup] = []
    for name in dict.fromkeys(names):
        found += _label([kind for kind, other in zip(kinds, names, strict=True) if other == name], name)
    return found


def memory_curves(
    groups: Sequence[LearningGroup], delta: bool, name: str = "average_incremental_accuracy.pooled"
) -> dict[str, list[tuple[Spread, Spread]]]:
    """Give accuracy for memory where a method was run under several budgets.

    Args:
        groups: of one setting.
        delta: weigh without shared pretrained weights.
        name: the accuracy, of `metrics.DEFINITIONS`, by the headline read-out.

    Returns:
        By label without the budget, at least two points (bytes at the largest step, accuracy), memory ascending.
    """
    curves = {}
    for label, members in budget_series(groups).items():
        points = {}
        for group in members:
            size, accuracy = group.spread(lambda run: largest(run, delta)), group.number(group.headline, name)
            if size and accuracy:
                points[size.mean] = (size, accuracy)
        if len(points) > 1:
            curves[label] = [point for _, point in sorted(points.items())]
    return curves


def lines(groups: Sequence[LearningGroup]) -> dict[str, tuple[str, float]]:
    """Give by label the line a group belongs to, and its share of the strength: under a smaller budget it is paler."""
    found = {group.label: (group.label, 1.0) for group in groups}
    for name, members in budget_series(groups).items():
        ranked = sorted(members, key=lambda group: largest(group.finished[0]) or 0.0)
        for rank, group in enumerate(ranked):
            found[group.label] = (name, 0.35 + 0.65 * rank / (len(ranked) - 1))
    return found


BUDGET, BACKBONE = "budget.bytes", "strategy.backbone"


def budget_series(groups: Sequence[LearningGroup]) -> dict[str, list[LearningGroup]]:
    """Give the groups that differ in nothing but the bytes of their budget, by their label without it; two or more.

    The memory-agnostic protocol gives a method the network that suits each budget, so networks may differ as well where
    a method has one at each.
    """
    series: dict[str, list[LearningGroup]] = {}
    finished = [group for group in groups if group.n]
    for wide in _alike(finished, (BUDGET, BACKBONE)):
        tuned = len({flat(group.config).get(BUDGET) for group in wide}) == len(wide)
        for members in [wide] if tuned else _alike(wide, (BUDGET,)):
            if len(members) > 1:
                free = (BUDGET, BACKBONE) if members is wide else (BUDGET,)
                options = {key: value for key, value in members[0].options.items() if not _within(key, free)}
                name = named(members[0].method, options)
                series[f"{name} ({members[0].runs[0].name})" if name in series else name] = members
    return series


def _within(key: str, sections: tuple[str, ...]) -> bool:
    return any(key == one or key.startswith(f"{one}.") for one in sections)


def _alike(groups: Sequence[LearningGroup], free: tuple[str, ...]) -> list[list[LearningGroup]]:
    """Put together what differs in seeds and in keys of the sections `free` alone."""
    found: dict[str, list[LearningGroup]] = {}
    for group in groups:
        options = flat(group.config).items()
        rest = {key: value for key, value in options if key not in SEEDS and not _within(key, free)}
        found.setdefault(json.dumps(rest, sort_keys=True, default=str), []).append(group)
    return list(found.values())


def largest(run: LearningRun, delta: bool = False) -> float | None:
    """Give the most bytes carried after any step, with or without shared pretrained weights."""
    return max((float(step.delta if delta else step.total) for step in run.figures), default=None)


def _label(kinds: Sequence[Sequence[LearningRun]], setting: str) -> list[LearningGroup]:
    """Turn the runs of each config of one setting into groups that say what tells them apart."""
    configs = [
        {key: value for key, value in flat(kind[0].config).items() if key not in (*SEEDS, "strategy.name")}
        for kind in kinds
    ]
    methods = [str(section(kind[0].config, "strategy").get("name") or kind[0].name) for kind in kinds]
    shared = differing([{key: v for key, v in config.items() if not key.startswith("strategy.")} for config in configs])

    found = []
    for kind, config, method in zip(kinds, configs, methods, strict=True):
        peers = [other for other, name in zip(configs, methods, strict=True) if name == method]
        own = differing(peers)
        options = chosen(config, own, shared)
        told_apart = {key: value for key, value in options.items() if key in own}
        if kind[0].environment.get("forked_from"):
            told_apart["forked"] = options["forked"] = "yes"
        otherwise = sorted({step.weighed for run in kind for step in run.figures if step.weighed})
        if otherwise:
            options["weighed"] = " and ".join(otherwise)
        elif any(not step.rebuilt for run in kind for step in run.figures):
            options["runner.rebuild"] = "no"  # weighed, but not proven to be enough to go on from
        found.append(LearningGroup(method, named(method, told_apart), options, setting, tuple(kind)))

    labels = [group.label for group in found]
    unique = [
        group if labels.count(group.label) == 1 else replace(group, label=f"{group.label} ({group.runs[0].name})")
        for group in found
    ]
    return sorted(unique, key=lambda group: (-_headline(group), group.label))


def _headline(group: LearningGroup) -> float:
    found = group.number(group.headline, "average_incremental_accuracy.pooled")
    return found.mean if found else -1.0
