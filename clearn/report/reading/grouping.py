"""Groups of runs on documents: scores, curves and gains over runs that differ only in their seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from clearn.metrics import Spread, spread
from clearn.report.configs import chosen, differing, flat, named, setting
from clearn.report.grouping import Group, by_config
from clearn.report.reading.runs import TRAINING_SEEDS, Pick, ReadingFigures, ReadingRun
from clearn.report.reading.verdicts import CONTROLS, Gain, Judged, gain, judged
from clearn.report.runs import section

SEEDS = ("seed", "stream.order_seed", *TRAINING_SEEDS, "name", "out")  # what may differ within a group
MODEL = "strategy.lm."
SPEED = (f"{MODEL}dtype", f"{MODEL}batch")  # of the language model, told only where runs of one method differ in them


@dataclass(frozen=True, eq=False)
class ReadingGroup(Group[ReadingRun]):
    """Runs of one config of a reader."""

    @property
    def readouts(self) -> tuple[str, ...]:
        """Read-outs of the last step: the headline, what it must beat, then others."""
        names = {readout for run in self.finished for readout in run.readouts}
        order = [self.headline, "empty", "shuffled"]
        return tuple(sorted(names, key=lambda name: (order.index(name) if name in order else len(order), name)))

    @property
    def controls(self) -> tuple[str, ...]:
        """All read-outs but the headline."""
        return tuple(name for name in self.readouts if name != self.headline)

    @property
    def requests(self) -> tuple[int, ...]:
        """Steps, from 1, that are requests to forget."""
        return self.finished[0].requests

    @property
    def read(self) -> list[int]:
        """Documents read up to each step."""
        return self.finished[0].read

    @property
    def step_names(self) -> list[str]:
        """Name steps by the documents read; requests as R1, R2, ..."""
        number = {step: at for at, step in enumerate(self.requests, 1)}
        return [f"R{number[step]}" if step in number else f"{read:,}" for step, read in enumerate(self.read, 1)]

    @property
    def tasks(self) -> list[int]:
        """Tasks that have questions, from 1."""
        return sorted({asked.task for run in self.finished for step in run.tallies for asked in step})

    @property
    def trainings(self) -> int | None:
        """How many trainings before the stream the finished runs rest on; None where nothing is trained."""
        seeds = {run.training_seed for run in self.finished} - {None}
        return len(seeds) or None

    def number(self, readout: str | None, name: str) -> Spread | None:
        """Summarise one of `ReadingRun.numbers` over the finished runs."""
        return self.spread(lambda run: run.number(readout, name)) if readout else None

    def end(self, pick: Callable[[ReadingFigures], float | None]) -> Spread | None:
        """Summarise a figure of the last step."""
        return self.spread(lambda run: pick(run.figures[-1]))

    def prepared(self, name: str) -> Spread | None:
        """Summarise what was logged while preparing."""
        return self.spread(lambda run: None if run.prepared is None else run.prepared.logged.get(name))

    def curve(self, pick: Pick, tasks: Iterable[int] | None = None, forgotten: bool = False) -> list[Spread | None]:
        """Summarise a score of the headline after each step."""
        chosen = None if tasks is None else tuple(tasks)
        return _steps(run.curve(pick, chosen, forgotten) for run in self.finished)

    def share(self, pick: Pick, task: int) -> list[Spread | None]:
        """Summarise f_t / f_0 of a task's questions after each step."""
        return _steps(run.share(pick, task) for run in self.finished)

    def kind(self, kind: str) -> Spread | None:
        """Summarise strict EM on answers of a kind at the end."""

        def em(run: ReadingRun) -> float | None:
            one = run.tally(run.headline)
            right, total = (0, 0) if one is None else one.kinds.get(kind, (0, 0))
            return right / total if total else None

        return self.spread(em)

    @cached_property
    def gains(self) -> Mapping[str, Gain | None]:
        """What the memory adds over each control that it is judged by."""
        return {name: gain(self.finished, name) for name in CONTROLS}

    @property
    def verdict(self) -> Judged:
        """Whether the memory adds anything."""
        return judged(self.gains)

    def seconds(self) -> dict[str, float]:
        """Give wall seconds by phase over the stream, without the preparation; to select is to read here."""
        return {"read" if phase == "select" else phase: taken for phase, taken in super().seconds().items()}


def _steps(curves: Iterable[Sequence[float | None]]) -> list[Spread | None]:
    return [spread(step) for step in zip(*curves, strict=True)]


def groups(runs: Sequence[ReadingRun]) -> list[ReadingGroup]:
    """Group runs that differ only in `SEEDS`, best strict EM first within each setting."""
    kinds = by_config(runs, SEEDS)
    names = _settings([kind[0] for kind in kinds])
    found: list[ReadingGroup] = []
    for name in dict.fromkeys(names):
        found += _label([kind for kind, other in zip(kinds, names, strict=True) if other == name], name)
    return found


def _settings(runs: Sequence[ReadingRun]) -> list[str]:
    """Name the stream of each run, with its requests where these differ."""
    streams = [flat(section(run.config, "stream")) for run in runs]
    asked = [stream.pop("requests", None) or [] for stream in streams]
    plain = [setting(stream, streams) for stream in streams]
    found = []
    for name, requests in zip(plain, asked, strict=True):
        several = any(other != requests for other, same in zip(asked, plain, strict=True) if same == name)
        words = "; ".join(_asked(one) for one in requests) or "no requests"
        found.append(f"{name} · {words}" if several else name)
    return found


def _asked(request: Mapping[str, Any]) -> str:
    """Say what a request asks for, e.g. "forget 3 documents after task 2"."""
    if request.get("entity"):
        what = f"documents about {request['entity']}"
    else:
        n = request["count"] if request.get("count") is not None else len(request.get("documents") or ())
        what = f"{n} document{'' if n == 1 else 's'}"
    return f"forget {what} after task {request.get('after')}"


def _label(kinds: Sequence[Sequence[ReadingRun]], setting: str) -> list[ReadingGroup]:
    """Turn the runs of each config of one setting into groups that say what tells them apart.

    What differs between runs of one method tells them apart; so does what all methods share: the language model, the
    budget, the trainer.
    """
    configs = [
        {key: value for key, value in flat(kind[0].config).items() if key not in (*SEEDS, "strategy.name")}
        for kind in kinds
    ]
    methods = [str(section(kind[0].config, "strategy").get("name") or kind[0].name) for kind in kinds]
    models = [{k: v for k, v in one.items() if k.startswith(MODEL) and k not in SPEED} for one in configs]
    shared = differing([{k: v for k, v in one.items() if not k.startswith("strategy.")} for one in configs])
    shared += differing([one for one in models if one])
    found = []
    for kind, config, method in zip(kinds, configs, methods, strict=True):
        own = differing([other for other, name in zip(configs, methods, strict=True) if name == method])
        options = chosen(config, own, shared)
        told_apart = {key: value for key, value in options.items() if key in own}
        if kind[0].environment.get("forked_from"):
            told_apart["forked"] = options["forked"] = "yes"
        if any(not step.rebuilt for run in kind for step in run.figures):
            options["runner.rebuild"] = "no"  # weighed, but not proven to be enough to go on from
        found.append(ReadingGroup(method, named(method, told_apart), options, setting, tuple(kind)))
    labels = [group.label for group in found]
    unique = [
        group if labels.count(group.label) == 1 else replace(group, label=f"{group.label} ({group.runs[0].name})")
        for group in found
    ]
    return sorted(unique, key=lambda group: (-_headline(group), group.label))


def _headline(group: ReadingGroup) -> float:
    found = group.number(group.headline, "em")
    return found.mean if found else -1.0
