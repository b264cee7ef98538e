"""A run with requests to forget: what was asked, what each step took, and the answers around each request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from clearn.report.configs import value_text
from clearn.report.runs import Figures, Row, Run, common, known, section, whole_steps
from clearn.report.unlearning import examined, weights
from clearn.report.unlearning.measures import Evidence, Measured, measure

OWN = ("data", "train", "observe", "select")  # phases of the method's own work; the rest is the engine's
NAMES = ("forget", "stays", "test")
MOST_VALUES = 5  # of a column, that are spelt out


@dataclass(frozen=True)
class Request:
    """One request of a stream.

    Attributes:
        number: from 1.
        after: tasks learned before it.
        classes: labels that go; empty where single samples go.
        gone: labels that went with it or an earlier request.
        what: in words.
    """

    number: int
    after: int
    classes: tuple[int, ...]
    gone: tuple[int, ...]
    what: str

    @property
    def step(self) -> int:
        """Its step, from 1: tasks and earlier requests come before it."""
        return self.after + self.number

    @property
    def words(self) -> str:
        """What goes, and when."""
        return f"{self.what} after task {self.after}"


@dataclass(frozen=True)
class EventFigures(Figures):
    """What one task or request weighed and took.

    Attributes:
        cpu_seconds: processor time.
        samples: training samples seen while fitting.
        logged: what the method said of itself, by name.
        owners: carried bytes by owner: model, memory, unlearner.
    """

    cpu_seconds: float | None = None
    samples: int | None = None
    logged: dict[str, float] = field(default_factory=dict)
    owners: dict[str, int] = field(default_factory=dict)

    @property
    def own_seconds(self) -> float | None:
        """Wall seconds of the method's own work."""
        taken = [self.seconds[phase] for phase in OWN if phase in self.seconds]
        return sum(taken) if taken else None

    @property
    def read(self) -> float | None:
        """Samples read: those fitted to, and those that the method says it passed over without fitting."""
        passed = self.logged.get("unlearn/samples")
        return None if self.samples is None and passed is None else (self.samples or 0) + (passed or 0)


@dataclass(frozen=True, eq=False)
class UnlearningRun(Run):
    """One run folder of a strategy and an unlearner.

    Attributes:
        classes: per step, right answers and samples by label, of the headline read-out.
    """

    figures: tuple[EventFigures, ...] = ()
    classes: tuple[dict[int, tuple[int, int]], ...] = ()

    @classmethod
    def from_rows(cls, path: Path, config: Row, environment: Row, scores: list[Row], ledger: list[Row]) -> Self:
        requests = read_requests(config)
        categories, weighed = whole_steps(ledger)
        owners = _owners(ledger, len(weighed))
        headlines = sorted({str(row["readout"]) for row in scores if row.get("headline")})
        headline = next(iter(headlines or sorted({str(row["readout"]) for row in scores})), None)
        return cls(
            path=path,
            config=config,
            environment=environment,
            headline=headline,
            categories=categories,
            figures=tuple(_figures(row, of) for row, of in zip(weighed, owners, strict=True)),
            classes=_classes([row for row in scores if row["readout"] == headline], requests),
        )

    @cached_property
    def requests(self) -> tuple[Request, ...]:
        """What was asked, in order; nothing where the config does not say, which `from_rows` refuses."""
        try:
            return read_requests(self.config)
        except (ValueError, TypeError, KeyError, AttributeError):
            return ()

    @property
    def scored(self) -> int:
        return len(self.classes)

    @property
    def seeds(self) -> tuple[Any, ...]:
        """(training seed, class order seed)."""
        return self.config.get("seed"), section(self.config, "stream").get("order_seed")

    @property
    def numbers(self) -> dict[str, dict[str, float | None]]:
        """None that describes the whole run: numbers are of requests."""
        return {}

    @property
    def lacking(self) -> str:
        for request in self.requests:
            try:
                self.evidence(request)
            except (OSError, ValueError, KeyError) as error:
                return f"evidence/{request.step:04d}.safetensors cannot be read ({' '.join(str(error).split())})"
        return ""

    def evidence(self, request: Request) -> Evidence:
        """Read the answers before and after a request.

        Raises:
            OSError, ValueError, KeyError: the file is missing, damaged, or holds something else.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            arrays = load((self.path / "evidence" / f"{request.step:04d}.safetensors").read_bytes())
        except SafetensorError as error:
            raise ValueError(error) from error
        labels = {name: arrays[f"labels/{name}"] for name in NAMES}
        before, after = ({name: arrays[f"{when}/{name}"] for name in NAMES} for when in ("before", "after"))
        for name in NAMES:
            for scores in (before[name], after[name]):
                if scores.ndim != 2 or labels[name].shape != scores.shape[:1]:
                    raise ValueError(f"{scores.shape} scores do not go with {labels[name].shape} labels of {name}")
                if len(scores) and not 0 <= int(labels[name].min()) <= int(labels[name].max()) < scores.shape[1]:
                    raise ValueError(f"labels of {name} are not among its {scores.shape[1]} columns of scores")
        return Evidence(before, after, labels, examined.read(arrays, after["forget"].shape))

    @cached_property
    def measured(self) -> tuple[Measured, ...]:
        """What can be said of each request from this run alone; for finished runs."""
        return tuple(measure(self.evidence(one), one.classes, one.gone) for one in self.requests)

    @cached_property
    def moved(self) -> tuple[float | None, ...]:
        """How far each request moved the weights, in lengths of the weights before it; None without the states."""
        return tuple(weights.moved(self.path, one.step) for one in self.requests)

    def unseen(self, request: Request) -> int:
        """Test samples with labels of the forgotten ones, which attacks are made against."""
        labels = self.evidence(request).labels
        return int(np.isin(labels["test"], labels["forget"]).sum())

    def freed(self, request: Request) -> int:
        """Bytes that left the strategy's memory with a request."""
        before, after = self.figures[request.step - 2], self.figures[request.step - 1]
        return before.owners.get("memory", 0) - after.owners.get("memory", 0)

    def kept(self, request: Request) -> int:
        """Bytes that the unlearner had kept since training when a request came."""
        return self.figures[request.step - 2].owners.get("unlearner", 0)

    def since(self, request: Request) -> list[float]:
        """Test accuracy on the classes that a request forgets, right after it and after each later step."""
        found = [_accuracy([one for label, one in step.items() if label in request.classes]) for step in self.classes]
        return [one for one in found[request.step - 1 :] if one is not None]

    def accuracies(self) -> tuple[list[float | None], list[float | None]]:
        """Test accuracy after each step on classes that are never forgotten, and on those that ever are."""
        gone = set(self.requests[-1].gone) if self.requests else set()
        return (
            [_accuracy([one for label, one in step.items() if label not in gone]) for step in self.classes],
            [_accuracy([one for label, one in step.items() if label in gone]) for step in self.classes],
        )


def read_requests(config: Row) -> tuple[Request, ...]:
    """Read `stream.requests` in the order in which they come.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: they are no requests.
    """
    asked = sorted(section(config, "stream").get("requests") or [], key=lambda one: int(one["after"]))
    found: list[Request] = []
    gone: tuple[int, ...] = ()
    for number, one in enumerate(asked, 1):
        classes = tuple(map(int, one.get("classes") or ()))
        gone = tuple(sorted({*gone, *classes}))
        found.append(Request(number, int(one["after"]), classes, gone, _what(one, classes)))
    return tuple(found)


def _what(one: Row, classes: tuple[int, ...]) -> str:
    if classes:
        return f"class{'es' if len(classes) > 1 else ''} {', '.join(map(str, classes))}"
    if one.get("column"):
        values = list(one["values"])
        shown = ", ".join(map(str, values)) if len(values) <= MOST_VALUES else f"{len(values)} values"
        return f"{shown} of column {one['column']}"
    if one.get("file"):
        return f"the samples of {Path(str(one['file'])).name}"
    n = one["count"] if one.get("count") is not None else len(one.get("ids") or ())
    return f"{value_text(n)} sample{'' if n == 1 else 's'}" if n else "nothing"


def _figures(row: Row, owners: dict[str, int]) -> EventFigures:
    return EventFigures(
        **common(row),
        cpu_seconds=known(row, "cpu_seconds", float),
        samples=known(row, "samples", int),
        logged={str(name): float(value) for name, value in (row.get("logged") or {}).items()},
        owners=owners,
    )


def _owners(ledger: Sequence[Row], n: int) -> list[dict[str, int]]:
    """Sum the carried bytes of each of n steps by owner; a row written again replaces the earlier one."""
    weighed = {
        (int(row["step"]), str(row["owner"]), row["category"]): int(row["bytes"])
        for row in ledger
        if row["kind"] == "bytes"
    }
    found: list[dict[str, int]] = [{} for _ in range(n)]
    for (step, owner, _), size in weighed.items():
        if step <= n:
            found[step - 1][owner] = found[step - 1].get(owner, 0) + size
    return found


def _classes(rows: Sequence[Row], requests: Sequence[Request]) -> tuple[dict[int, tuple[int, int]], ...]:
    """Count right answers by label after each whole step: one at which every task learned so far was scored."""
    latest = {(int(row["step"]), str(row["probe"])): row for row in rows}
    steps: dict[int, list[Row]] = {}
    for (step, _), row in latest.items():
        steps.setdefault(step, []).append(row)
    found: list[dict[int, tuple[int, int]]] = []
    while of_step := steps.get(len(found) + 1):
        learned = len(found) + 1 - sum(one.step <= len(found) + 1 for one in requests)
        if {int(row["task"]) for row in of_step} < set(range(1, learned + 1)):
            break
        counts: dict[int, tuple[int, int]] = {}
        for row in of_step:
            for label, (right, total) in (row.get("classes") or {}).items():
                before = counts.get(int(label), (0, 0))
                counts[int(label)] = before[0] + int(right), before[1] + int(total)
        found.append(counts)
    return tuple(found)


def _accuracy(counts: Sequence[tuple[int, int]]) -> float | None:
    right, total = np.sum(counts, axis=0) if counts else (0, 0)
    return float(right / total) if total else None
