"""Groups of unlearning runs: each beside the runs that retrained without the samples, paired by seed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from clearn.metrics import Spread, spread
from clearn.report.configs import chosen, differing, flat, named, setting, value_text
from clearn.report.grouping import Group, by_config
from clearn.report.runs import section
from clearn.report.unlearning.measures import Measured, Paired, pair
from clearn.report.unlearning.runs import EventFigures, Request, UnlearningRun

SEEDS = ("seed", "stream.order_seed", "name", "out")  # what may differ within a group
ROLES = {"retrain": "reference", "nothing": "control", "head_row": "control"}

Pick = Callable[[Measured], float | None]


@dataclass(frozen=True)
class Gap:
    """A number minus retraining's, seed by seed.

    Attributes:
        mean: over the seeds that both have.
        low: lower end of the 95 % t-interval of the mean; None for one seed.
        high: upper end.
        n: seeds.
    """

    mean: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True, eq=False)
class UnlearningGroup(Group[UnlearningRun]):
    """Runs of one config of a strategy and an unlearner.

    Attributes:
        reference: the group that retrained on the same stream, requests and strategy; None where there is none, and
            for such a group itself.
    """

    reference: UnlearningGroup | None = None

    @property
    def role(self) -> Literal["reference", "control", "method"]:
        """What the group is there for: reference, control or method."""
        role = ROLES.get(self.method, "method")
        return "reference" if role == "reference" else "control" if role == "control" else "method"

    @property
    def requests(self) -> tuple[Request, ...]:
        """The same for all its runs."""
        return (self.finished or self.runs)[0].requests

    @cached_property
    def pairs(self) -> tuple[tuple[UnlearningRun, UnlearningRun], ...]:
        """Finished runs, each with the retrained one of its seeds, where there is one."""
        if self.reference is None:
            return ()
        theirs = {json.dumps(run.seeds, default=str): run for run in self.reference.finished}
        found = [(run, theirs.get(json.dumps(run.seeds, default=str))) for run in self.finished]
        return tuple((run, other) for run, other in found if other is not None)

    @cached_property
    def paired(self) -> tuple[tuple[Paired, ...], ...]:
        """By request, what each of `pairs` shows side by side; nothing for the reference itself."""
        if self.role == "reference":
            return tuple(() for _ in self.requests)
        return tuple(
            tuple(
                pair(run.evidence(one), other.evidence(one), (run.measured[at], other.measured[at]), one.gone)
                for run, other in self.pairs
            )
            for at, one in enumerate(self.requests)
        )

    def measured(self, request: Request) -> list[Measured]:
        """Give what was measured of a request, run by run."""
        return [run.measured[request.number - 1] for run in self.finished]

    def number(self, request: Request, pick: Pick) -> Spread | None:
        """Summarise a measured number over the finished runs."""
        return spread(map(pick, self.measured(request)))

    def compared(self, request: Request, pick: Callable[[Paired], float | None]) -> Spread | None:
        """Summarise a number of pairs."""
        return spread(map(pick, self.paired[request.number - 1]))

    def both(self, request: Request, pick: Pick) -> tuple[list[float], list[float]]:
        """Give a measured number of the runs and of the retrained ones of their seeds, where both have it."""
        at = request.number - 1
        found = [(pick(run.measured[at]), pick(other.measured[at])) for run, other in self.pairs]
        known = [(mine, theirs) for mine, theirs in found if mine is not None and theirs is not None]
        return [mine for mine, _ in known], [theirs for _, theirs in known]

    def gap(self, request: Request, pick: Pick) -> Gap | None:
        """Subtract retraining's number; None for the reference itself, and where no pair has it."""
        mine, theirs = self.both(request, pick)
        if self.role == "reference" or not mine:
            return None
        if len(mine) == 1:
            return Gap(mine[0] - theirs[0], None, None, 1)
        from clearn.forgetting import paired_difference

        found = paired_difference(mine, theirs)
        return Gap(found.mean, found.low, found.high, len(mine))

    def figure(self, request: Request, pick: Callable[[EventFigures], float | None]) -> Spread | None:
        """Summarise a figure of a request's step."""
        return self.spread(lambda run: pick(run.figures[request.step - 1]))

    def speed(self, request: Request) -> Spread | None:
        """Summarise retraining's seconds over the method's own, pair by pair."""
        ratios: list[float | None] = []
        for run, other in self.pairs if self.role != "reference" else ():
            mine, theirs = (one.figures[request.step - 1].own_seconds for one in (run, other))
            ratios.append(theirs / mine if mine and theirs is not None else None)
        return spread(ratios)

    def relapse(self, request: Request) -> Spread | None:
        """Summarise how far forgotten classes are known above retraining's stream at a later step, at worst."""
        from clearn.forgetting import relapse

        curves = [(run.since(request), other.since(request)) for run, other in self.pairs]
        return spread(relapse(mine, theirs).worst for mine, theirs in curves if len(mine) == len(theirs) > 1)

    def curves(self) -> tuple[list[Spread | None], list[Spread | None]]:
        """Summarise test accuracy after each step on classes never forgotten, and on those that are."""
        found = [run.accuracies() for run in self.finished]
        remaining, forgotten = ([of[which] for of in found] for which in (0, 1))
        return (
            [spread(step) for step in zip(*remaining, strict=True)],
            [spread(step) for step in zip(*forgotten, strict=True)],
        )


def groups(runs: Sequence[UnlearningRun]) -> list[UnlearningGroup]:
    """Group runs that differ only in `SEEDS`; within a setting the reference, the controls, then the best first."""
    kinds = by_config(runs, SEEDS)
    names = _settings([kind[0] for kind in kinds])
    found: list[UnlearningGroup] = []
    for name in dict.fromkeys(names):
        found += _label([kind for kind, other in zip(kinds, names, strict=True) if other == name], name)
    return found


def _settings(runs: Sequence[UnlearningRun]) -> list[str]:
    """Name what each run is compared within: stream and strategy with options that differ, and requests if they do."""
    streams = [flat(section(run.config, "stream")) for run in runs]
    strategies = [flat(section(run.config, "strategy")) for run in runs]
    tasks = [{key: value for key, value in stream.items() if key != "requests"} for stream in streams]
    plain = [setting(task, tasks) for task in tasks]
    found = []
    for run, name, strategy in zip(runs, plain, strategies, strict=True):
        own = differing([one for one in strategies if one.get("name") == strategy.get("name")])
        method = str(strategy.get("name") or "unknown strategy")
        words = [name, named(method, {key: value_text(strategy.get(key)) for key in own})]
        if len({other.requests for other, same in zip(runs, plain, strict=True) if same == name}) > 1:
            words.append("; ".join(one.words for one in run.requests) or "no requests")
        found.append(" · ".join(words))
    return found


def _label(kinds: Sequence[Sequence[UnlearningRun]], setting: str) -> list[UnlearningGroup]:
    """Turn the runs of each config of one setting into groups that say what tells them apart."""
    free = (*SEEDS, "unlearner.name")
    configs = [{key: value for key, value in flat(kind[0].config).items() if key not in free} for kind in kinds]
    methods = [str(section(kind[0].config, "unlearner").get("name") or kind[0].name) for kind in kinds]
    shared = differing([{k: v for k, v in one.items() if not k.startswith("unlearner.")} for one in configs])
    forked = {
        (method, bool(kind[0].environment.get("forked_from"))) for method, kind in zip(methods, kinds, strict=True)
    }
    found = []
    for kind, config, method in zip(kinds, configs, methods, strict=True):
        own = differing([other for other, name in zip(configs, methods, strict=True) if name == method])
        options = chosen(config, own, shared)
        told_apart = {key: value for key, value in options.items() if key in own}
        if {(method, True), (method, False)} <= forked and kind[0].environment.get("forked_from"):
            told_apart["forked"] = options["forked"] = "yes"
        if any(not step.rebuilt for run in kind for step in run.figures):
            options["runner.rebuild"] = "no"  # weighed, but not proven to be enough to go on from
        found.append(UnlearningGroup(method, named(method, told_apart), options, setting, tuple(kind)))
    labels = [group.label for group in found]
    unique = [
        group if labels.count(group.label) == 1 else replace(group, label=f"{group.label} ({group.runs[0].name})")
        for group in found
    ]
    return sorted([_beside(group, unique) for group in unique], key=_order)


def _beside(group: UnlearningGroup, groups: Sequence[UnlearningGroup]) -> UnlearningGroup:
    """Put in the reference: of several, the one whose config is nearest, one with finished runs before others."""
    candidates = [one for one in groups if one.role == "reference"]
    if group.role == "reference" or not candidates:
        return group
    mine = _rest(group)

    def distance(other: UnlearningGroup) -> tuple[bool, int]:
        theirs = _rest(other)
        return not other.n, sum(mine.get(key) != theirs.get(key) for key in mine.keys() | theirs.keys())

    return replace(group, reference=min(candidates, key=distance))


def _rest(group: UnlearningGroup) -> Mapping[str, Any]:
    return {k: v for k, v in flat(group.config).items() if k not in SEEDS and not k.startswith("unlearner.")}


def _order(group: UnlearningGroup) -> tuple[int, float, str]:
    """Put the reference first, then controls, then methods by tug of war, averaged over the requests."""
    tows = [group.compared(one, lambda found: found.tow) for one in group.requests] if group.n else []
    known = [one.mean for one in tows if one is not None]
    role = ("reference", "control", "method").index(group.role)
    return role, -sum(known) / len(known) if known and role == 2 else 0.0, group.label
