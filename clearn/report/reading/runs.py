"""A run of a reader over documents: counts of right answers by task and read-out, and what each step weighed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

from clearn.report.configs import flat
from clearn.report.runs import Figures, Row, Run, common, known, section, whole_steps

TRAINING_SEEDS = ("strategy.meta.seed", "strategy.tune.seed")
"""Where a config has the seed of what is trained before the stream; a reader has one of them, or none."""

OWN = ("data", "train", "observe", "select")  # phases of the method's own work; the rest is the engine's


@dataclass(frozen=True)
class Tally:
    """Answers, counted.

    Attributes:
        right: that equal the reference once normalised (strict EM).
        prefix: that begin with the reference once normalised (published EM).
        f1: sum of the questions' F1.
        total: questions, 1 or more.
        kinds: by kind of answer, (right, total).
    """

    right: int
    prefix: int
    f1: float
    total: int
    kinds: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def __add__(self, other: Tally) -> Tally:
        kinds = dict(self.kinds)
        for kind, (right, total) in other.kinds.items():
            before = kinds.get(kind, (0, 0))
            kinds[kind] = before[0] + right, before[1] + total
        return Tally(
            self.right + other.right, self.prefix + other.prefix, self.f1 + other.f1, self.total + other.total, kinds
        )

    @property
    def em(self) -> float:
        """Share that is right."""
        return self.right / self.total

    @property
    def prefix_em(self) -> float:
        """Share that is right by the published definition."""
        return self.prefix / self.total

    @property
    def mean_f1(self) -> float:
        """F1, mean over the questions."""
        return self.f1 / self.total


Pick = Callable[[Tally], float]


class Asked(NamedTuple):
    """What a tally is of: one read-out's answers on one task, on documents that were to be forgotten or on others."""

    readout: str
    task: int
    forgotten: bool


Tallies = dict[Asked, Tally]


@dataclass(frozen=True)
class ReadingFigures(Figures):
    """What one task, one request or the preparation (step 0) weighed and took.

    Attributes:
        bank: bytes kept of documents, with codebooks and whatever else is needed to read them: all but networks.
        documents: read in a task, or asked to be forgotten in a request.
        held: documents in the memory afterwards.
        questions: asked afterwards.
        logged: what the method said of itself, by name; at step 0 how meta-training went.
    """

    bank: int = 0
    documents: int = 0
    held: int | None = None
    questions: int = 0
    logged: dict[str, float] = field(default_factory=dict)

    @property
    def networks(self) -> int:
        """Bytes of what is carried and is no bank: what was trained, without shared pretrained weights."""
        return self.delta - self.bank

    @property
    def own_seconds(self) -> float:
        """Wall seconds of the method's own work."""
        return sum(self.seconds.get(phase, 0.0) for phase in OWN)


@dataclass(frozen=True, eq=False)
class ReadingRun(Run):
    """One run folder of a reader.

    Attributes:
        tallies: per step, what was answered; steps cut short are left out.
        prepared: step 0; None where the preparation is not over.
    """

    figures: tuple[ReadingFigures, ...] = ()
    tallies: tuple[Tallies, ...] = ()
    prepared: ReadingFigures | None = None

    @classmethod
    def from_rows(cls, path: Path, config: Row, environment: Row, scores: list[Row], ledger: list[Row]) -> Self:
        categories, weighed = whole_steps(ledger)
        figures = tuple(map(_figures, weighed))
        before = [row for row in ledger if row["kind"] == "figures" and int(row["step"]) == 0]
        headlines = sorted({str(row["readout"]) for row in scores if row.get("headline")})
        return cls(
            path=path,
            config=config,
            environment=environment,
            headline=next(iter(headlines or sorted({str(row["readout"]) for row in scores})), None),
            categories=categories,
            figures=figures,
            tallies=_whole(scores, [step.questions for step in figures]),
            prepared=_figures(before[-1]) if before else None,
        )

    @property
    def scored(self) -> int:
        return len(self.tallies)

    @property
    def reached(self) -> str:
        return super().reached if self.step or self.prepared is None else "after preparing, with no document read"

    @property
    def seeds(self) -> tuple[Any, ...]:
        """(seed of the run, document order seed, seed of the training before the stream)."""
        return self.config.get("seed"), section(self.config, "stream").get("order_seed"), self.training_seed

    @property
    def training_seed(self) -> Any:
        """Of meta-training or tuning; None where there is none."""
        config = flat(self.config)
        return next((config[key] for key in TRAINING_SEEDS if key in config), None)

    @property
    def readouts(self) -> tuple[str, ...]:
        """Those of the last step, the headline first: only there the controls are."""
        found = dict.fromkeys(asked.readout for asked in self.tallies[-1]) if self.tallies else {}
        return tuple(sorted(found, key=lambda name: name != self.headline))

    @cached_property
    def numbers(self) -> dict[str, dict[str, float | None]]:
        """By read-out, the three scores at the end, of documents that stay and of those that were to be forgotten."""
        found: dict[str, dict[str, float | None]] = {}
        for readout in self.readouts:
            found[readout] = {}
            for prefix, forgotten in (("", False), ("forgotten.", True)):
                one = self.tally(readout, forgotten=forgotten)
                picks: dict[str, Pick] = {"em": lambda t: t.em, "prefix_em": lambda t: t.prefix_em}
                picks["f1"] = lambda t: t.mean_f1
                found[readout] |= {prefix + name: None if one is None else pick(one) for name, pick in picks.items()}
        return found

    def tally(
        self, readout: str | None, step: int = 0, tasks: Iterable[int] | None = None, forgotten: bool = False
    ) -> Tally | None:
        """Sum what a read-out answered after a step; None where it was asked nothing.

        Args:
            readout: whose answers.
            step: from 1; 0 is the last one.
            tasks: from 1; None takes all.
            forgotten: of the documents that were to be forgotten, else of those that stay.
        """
        wanted = None if tasks is None else set(tasks)
        found: Tally | None = None
        for asked, one in (self.tallies[step - 1] if self.tallies else {}).items():
            if (asked.readout, asked.forgotten) == (readout, forgotten) and (wanted is None or asked.task in wanted):
                found = one if found is None else found + one
        return found

    def curve(self, pick: Pick, tasks: Iterable[int] | None = None, forgotten: bool = False) -> list[float | None]:
        """Give a score of the headline after each step."""
        chosen = None if tasks is None else tuple(tasks)
        found = [self.tally(self.headline, step, chosen, forgotten) for step in range(1, len(self.tallies) + 1)]
        return [None if one is None else pick(one) for one in found]

    def share(self, pick: Pick, task: int) -> list[float | None]:
        """Give f_t / f_0 of a task's questions after each step; None before it is read, and where f_0 is 0."""
        curve = self.curve(pick, [task])
        first = next((value for value in curve if value is not None), None)
        return [None if value is None or not first else value / first for value in curve]

    def kept(self, pick: Pick) -> float | None:
        """Give the last score over the first one, pooled over all tasks but the last; None where that first one is 0.

        Both are means weighted by the questions that are left at the end, so a request to forget shifts no weight.
        """
        *earlier, _ = sorted({asked.task for step in self.tallies for asked in step}) or [0]
        first, last = 0.0, 0.0
        for task in earlier:
            end, began = self.tally(self.headline, tasks=[task]), self.curve(pick, [task])
            at_first = next((value for value in began if value is not None), None)
            if end is not None and at_first is not None:
                first, last = first + at_first * end.total, last + pick(end) * end.total
        return last / first if first else None

    @property
    def requests(self) -> tuple[int, ...]:
        """Steps, from 1, that are requests to forget; they come after the tasks that they name."""
        asked = sorted(int(one["after"]) for one in section(self.config, "stream").get("requests") or ())
        return tuple(after + number for number, after in enumerate(asked, 1))

    @property
    def read(self) -> list[int]:
        """Documents read up to each step; a request reads none."""
        found = [0]
        for step in self.figures:
            found.append(found[-1] + (0 if step.step in self.requests else step.documents))
        return found[1:]

    @cached_property
    def rights(self) -> dict[str, list[bool]]:
        """By read-out, which questions on documents that stay were answered right after the last step.

        From the file of answers, whose lines follow the tasks, forgotten documents last in each. Empty where it is
        missing, says nothing of the kind, or says something else than the counts.
        """
        mine = {(asked.task, asked.forgotten): one for asked, one in self._last.items()}
        stays = [not forgotten for (_, forgotten), one in sorted(mine.items()) for _ in range(one.total)]
        try:
            lines = (self.path / "answers" / f"{len(self.tallies):04d}.jsonl").read_bytes().splitlines()
            told = [json.loads(line)["right"] for line in lines]
            found = {name: [bool(one[name]) for one in told] for name in self.readouts}
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        if len(told) != len(stays):
            return {}
        kept = {name: [one for one, stay in zip(of, stays, strict=True) if stay] for name, of in found.items()}
        counted = {name: self.tally(name) for name in kept}
        agree = all((0 if one is None else one.right) == sum(kept[name]) for name, one in counted.items())
        return kept if agree else {}

    @property
    def _last(self) -> Tallies:
        last = self.tallies[-1] if self.tallies else {}
        return {asked: one for asked, one in last.items() if asked.readout == self.headline}


def _figures(row: Row) -> ReadingFigures:
    return ReadingFigures(
        **common(row),
        bank=int(row["bank"]),
        documents=known(row, "documents", int) or 0,
        held=known(row, "held", int),
        questions=known(row, "questions", int) or 0,
        logged={str(name): float(value) for name, value in (row.get("logged") or {}).items()},
    )


def _whole(rows: Sequence[Row], questions: Sequence[int]) -> tuple[Tallies, ...]:
    """Gather the tallies of each whole step: one at which every read-out has as many answers as questions were asked.

    A row repeated for the same step, probe and read-out replaces the earlier one.

    Raises:
        ValueError: a count is impossible.
    """
    latest = {(int(row["step"]), str(row["probe"]), str(row["readout"])): row for row in rows}
    found: list[Tallies] = []
    for step, asked in enumerate(questions, 1):
        tallies, totals = Tallies(), dict[str, int]()
        for (of, probe, readout), row in latest.items():
            if of == step:
                tally = _tally(row)
                totals[readout] = totals.get(readout, 0) + tally.total
                tallies[Asked(readout, int(row["task"]), probe.endswith(", forgotten"))] = tally
        if set(totals.values()) != ({asked} if asked else set()):
            break
        found.append(tallies)
    return tuple(found)


def _tally(row: Row) -> Tally:
    kinds = {str(kind): (int(right), int(total)) for kind, (right, total) in (row.get("classes") or {}).items()}
    right, prefix, f1, total = int(row["correct"]), int(row["prefix"]), float(row["f1"]), int(row["total"])
    where = f"scores of step {row['step']}, {row['probe']}, {row['readout']}"
    for one, most in [(right, total), (prefix, total), (f1, total), *kinds.values()]:
        if not 0 <= one <= most + 1e-6:
            raise ValueError(f"{where}: {one:g} of {most:g} must lie in [0, {most:g}]")
    if not total:
        raise ValueError(f"{where}: no question was asked")
    if kinds and [sum(counts) for counts in zip(*kinds.values(), strict=True)] != [right, total]:
        raise ValueError(f"{where}: the kinds of answers do not sum to {right} right of {total}")
    return Tally(right, prefix, f1, total, kinds)
