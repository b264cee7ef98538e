"""A run of a strategy over a stream of tasks: counts of right answers, and what each task's learner weighed."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from clearn.metrics import Counts, summary
from clearn.report.runs import Figures, Row, Run, common, known, section, whole_steps


@dataclass(frozen=True)
class TaskFigures(Figures):
    """What one task weighed and took.

    Attributes:
        paper: bytes by the published counting.
        exemplars: stored samples.
        peak_device: as `peak_host`, on the accelerator.
        samples: training samples seen.
        optimizer_steps: of all fits.
        cpu_seconds: of the processor, over the whole step.
    """

    paper: int | None = None
    exemplars: int | None = None
    peak_device: float | None = None
    samples: int | None = None
    optimizer_steps: int | None = None
    cpu_seconds: float | None = None


@dataclass(frozen=True, eq=False)
class LearningRun(Run):
    """One run folder of a strategy.

    Attributes:
        counts: by read-out ("classifier", "nme", ...).
    """

    figures: tuple[TaskFigures, ...] = ()
    counts: dict[str, Counts] = field(default_factory=dict)

    @classmethod
    def from_rows(cls, path: Path, config: Row, environment: Row, scores: list[Row], ledger: list[Row]) -> Self:
        rows: dict[str, list[Row]] = {}
        for row in scores:
            rows.setdefault(str(row["readout"]), []).append(row)
        counts = {readout: Counts.from_rows(of_one) for readout, of_one in rows.items()}
        headlines = sorted(readout for readout, of_one in rows.items() if any(row.get("headline") for row in of_one))
        categories, weighed = whole_steps(ledger)
        return cls(
            path=path,
            config=config,
            environment=environment,
            headline=headlines[0] if headlines else next(iter(sorted(counts)), None),
            categories=categories,
            figures=tuple(map(_figures, weighed)),
            counts=counts,
        )

    @property
    def scored(self) -> int:
        return min((len(of_one) for of_one in self.counts.values()), default=0)

    @property
    def seeds(self) -> tuple[Any, ...]:
        """(training seed, class order seed)."""
        return self.config.get("seed"), section(self.config, "stream").get("order_seed")

    @cached_property
    def numbers(self) -> dict[str, dict[str, float | None]]:
        """By read-out, every number of `metrics.DEFINITIONS` that describes a whole run."""
        return {readout: summary(counts) for readout, counts in self.counts.items()}


def _figures(row: Row) -> TaskFigures:
    return TaskFigures(
        **common(row),
        paper=known(row, "paper", int),
        exemplars=known(row, "exemplars", int),
        peak_device=known(row, "peak_device", float),
        samples=known(row, "samples", int),
        optimizer_steps=known(row, "optimizer_steps", int),
        cpu_seconds=known(row, "cpu_seconds", float),
    )
