"""Groups of collection runs: errors over all repeats of all runs that differ only in their seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from clearn.metrics import Floats, Spread, spread
from clearn.report.collections.errors import Errors, mean
from clearn.report.collections.runs import CollectionRun, RoundFigures
from clearn.report.columns import digits_text
from clearn.report.configs import chosen, differing, flat, named, setting
from clearn.report.grouping import Group, by_config
from clearn.report.runs import section

SEEDS = ("seed", "stream.order_seed", "name", "out", "runner.repeats")  # what may differ within a group
BUDGETS = ("protocol.eps_inf", "protocol.eps_1", "protocol.alpha", "protocol.eps")  # told in columns of their own

Pick = Callable[[Errors], Floats]


@dataclass(frozen=True, eq=False)
class CollectionGroup(Group[CollectionRun]):
    """Runs of one config of a protocol.

    Attributes:
        series: the label without budgets.
        ratio: what else tells lines of a figure apart: alpha or eps_1; empty where all groups agree on it.
        eps_inf: promised for ever; None if unknown.
        eps_1: promised of the first report.
    """

    series: str = ""
    ratio: str = ""
    eps_inf: float | None = None
    eps_1: float | None = None

    @property
    def line(self) -> str:
        """The label of a line of a figure over eps_inf."""
        return f"{self.series} {self.ratio}".strip()

    @property
    def repeats(self) -> int:
        """Independent collections behind every error, over all finished runs."""
        return sum(len(errors.average(next(iter(errors.squared)))) for errors in self.errors)

    @property
    def repeats_text(self) -> str:
        """The same as "runs×repeats of each", or "runs: sum" where they differ."""
        each = {run.figures[-1].repeats for run in self.finished} - {None}
        return f"{self.n}×{each.pop():,}" if len(each) == 1 else f"{self.n}: {self.repeats:,}"

    @property
    def errors(self) -> list[Errors]:
        """Of the finished runs."""
        return [run.errors for run in self.finished if run.errors is not None]

    @property
    def posts(self) -> tuple[str, ...]:
        """The post-processings that all finished runs were scored after."""
        return tuple(post for post in self.errors[0].squared if all(post in one.squared for one in self.errors))

    @property
    def rounds(self) -> int:
        """Rounds of the collection."""
        return len(self.errors[0]) if self.errors else 0

    @property
    def static(self) -> bool:
        """Whether no user's value ever changes."""
        return bool(self.errors) and all(one.running for one in self.errors)

    @property
    def last(self) -> RoundFigures:
        """The figures of the last round, of the first finished run."""
        return self.finished[0].figures[-1]

    def error(self, post: str) -> Spread | None:
        """Summarise MSE_avg over repeats."""
        return spread(one for errors in self.errors if post in errors.squared for one in errors.average(post))

    def average(self, pick: Pick) -> float | None:
        """Average a closed form over rounds, attributes and runs."""
        found = mean(np.concatenate([pick(errors).ravel() for errors in self.errors]))
        return None if np.isnan(found) else float(found)

    @property
    def uniform(self) -> float | None:
        """MSE_avg of guessing every value equally often."""
        return self.average(lambda errors: errors.uniform)

    @property
    def expected(self) -> float | None:
        """MSE_avg of raw estimates in closed form."""
        return self.average(lambda errors: errors.expected)

    def over_repeats(self, pick: Pick) -> list[Spread | None]:
        """Summarise over repeats, entry by entry: `pick` gives (m, R) per run."""
        values = np.concatenate([pick(errors) for errors in self.errors], axis=1)
        return [spread(None if np.isnan(one) else float(one) for one in entry) for entry in values]

    @property
    def linked(self) -> bool:
        """Whether each user's reports were decoded together as well."""
        return bool(self.errors) and all(one.linked for one in self.errors)

    def by_round(self, post: str) -> list[Spread | None]:
        """Summarise each round's error: the mean over attributes. (T,)"""
        return self.over_repeats(lambda errors: mean(errors.squared[post], 1))

    def so_far(self, post: str, linked: bool = False) -> list[Spread | None]:
        """Summarise the error of all rounds so far, averaged or linked; empty where values change or none was. (T,)"""
        if not (self.linked if linked else self.static):
            return []
        return self.over_repeats(lambda errors: mean((errors.linked if linked else errors.running)[post], 1))

    def by_attribute(self, post: str) -> list[Spread | None]:
        """Summarise each attribute's error: the mean over rounds. (d,)"""
        return self.over_repeats(lambda errors: mean(errors.squared[post], 0))

    def guesses(self) -> list[float | None]:
        """Give the error of the uniform guess for each attribute. (d,)"""
        found = self.over_repeats(lambda errors: mean(errors.uniform, 0)[:, None])
        return [one.mean if one else None for one in found]

    def expected_running(self) -> list[float]:
        """Closed form of the error of the mean of all rounds so far, before post-processing; empty if unknown. (T,)"""
        known = [mean(one.expected_running, 1) for one in self.errors if one.expected_running is not None]
        curve = mean(np.stack(known), 0) if known else np.array([np.nan])
        return [] if np.isnan(curve).any() else [float(one) for one in curve]

    def floor(self) -> float | None:
        """What the error of the mean of rounds falls to: a, where its closed form after t rounds is a + b/t."""
        curve = self.expected_running()
        if len(curve) < 2:
            return None
        found = (len(curve) * curve[-1] - curve[0]) / (len(curve) - 1)
        return found if found > 1e-6 * curve[0] else None

    def over_rounds(self, pick: Callable[[RoundFigures], float | None]) -> list[float | None]:
        """Average a figure over the finished runs, round by round. (T,)"""
        found = [spread(map(pick, step)) for step in zip(*(run.figures for run in self.finished), strict=True)]
        return [None if one is None else one.mean for one in found]


def groups(runs: Sequence[CollectionRun]) -> list[CollectionGroup]:
    """Group runs that differ only in `SEEDS`; within a setting by budget, and under one budget the best first."""
    kinds = by_config(runs, SEEDS)
    streams = [flat(section(kind[0].config, "stream")) for kind in kinds]
    names = [setting(stream, streams) for stream in streams]
    found: list[CollectionGroup] = []
    for name in dict.fromkeys(names):
        found += _label([kind for kind, other in zip(kinds, names, strict=True) if other == name], name)
    return found


def _label(kinds: Sequence[Sequence[CollectionRun]], setting: str) -> list[CollectionGroup]:
    """Turn the runs of each config of one setting into groups that say what tells them apart."""
    free = (*SEEDS, *BUDGETS, "protocol.name")
    configs = [{key: value for key, value in flat(kind[0].config).items() if key not in free} for kind in kinds]
    methods = [str(section(kind[0].config, "protocol").get("name") or kind[0].name) for kind in kinds]
    shared = differing([{key: v for key, v in one.items() if not key.startswith("protocol.")} for one in configs])

    found = []
    for kind, config, method in zip(kinds, configs, methods, strict=True):
        own = differing([other for other, name in zip(configs, methods, strict=True) if name == method])
        options = chosen(config, own, shared)
        series = named(method, {key: value for key, value in options.items() if key in own})
        if any(not step.rebuilt for run in kind for step in run.figures):
            options["runner.rebuild"] = "no"  # weighed, but not proven to be enough to go on from
        eps_inf, eps_1 = _budgets(kind)
        found.append(CollectionGroup(method, series, options, setting, tuple(kind), series, "", eps_inf, eps_1))

    told = _with_budgets(_with_ratios(found))
    labels = [group.label for group in told]
    unique = [
        group if labels.count(group.label) == 1 else replace(group, label=f"{group.label} ({group.runs[0].name})")
        for group in told
    ]
    return sorted(unique, key=lambda one: (one.eps_inf or 0, one.eps_1 or 0, _headline(one), one.label))


def _budgets(kind: Sequence[CollectionRun]) -> tuple[float | None, float | None]:
    """Give (eps_inf, eps_1) as the protocol had them, or as the config has them where no round was written."""
    figures = next((run.figures[0] for run in kind if run.figures), None)
    if figures is not None and figures.eps_inf is not None:
        return figures.eps_inf, figures.eps_1
    protocol = section(kind[0].config, "protocol")
    eps_inf = _number(protocol.get("eps_inf", protocol.get("eps")))
    alpha, eps_1 = _number(protocol.get("alpha")), _number(protocol.get("eps_1", protocol.get("eps")))
    return eps_inf, alpha * eps_inf if eps_1 is None and alpha and eps_inf else eps_1


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _with_ratios(groups: Sequence[CollectionGroup]) -> list[CollectionGroup]:
    """Tell lines apart by alpha = eps_1 / eps_inf, or by eps_1 where that gives fewer of them."""
    longitudinal = [group for group in groups if _alpha(group) not in (None, 1.0)]
    alphas, firsts = {_alpha(group) for group in longitudinal}, {group.eps_1 for group in longitudinal}
    if len(alphas) < 2:
        return list(groups)
    by_alpha = len(alphas) <= len(firsts)
    found = []
    for group in groups:
        ratio = f"alpha={_alpha(group):g}" if by_alpha else f"eps_1={group.eps_1:g}"
        found.append(replace(group, ratio=ratio) if group in longitudinal else group)
    return found


def _alpha(group: CollectionGroup) -> float | None:
    return round(group.eps_1 / group.eps_inf, 6) if group.eps_1 and group.eps_inf else None


def _with_budgets(groups: Sequence[CollectionGroup]) -> list[CollectionGroup]:
    """Put the budgets into the labels where they differ."""
    if len({(group.eps_inf, group.eps_1) for group in groups}) < 2:
        return list(groups)
    return [
        group if group.eps_inf is None else replace(group, label=f"{group.label} {budget_text(group)}")
        for group in groups
    ]


def budget_text(group: CollectionGroup) -> str:
    """Print the budgets of a group."""
    first = "" if group.eps_1 is None else f" eps_1={digits_text(group.eps_1)}"
    return "" if group.eps_inf is None else f"eps_inf={digits_text(group.eps_inf)}{first}"


def _headline(group: CollectionGroup) -> float:
    found = group.error(group.headline) if group.headline else None
    return found.mean if found else float("inf")
