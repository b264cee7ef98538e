"""What a run folder of any kind holds, read forgivingly: a run may go on, may have been killed in mid-line, be damaged.

A kind of run is one class here: it says what its scores mean (`learning.runs`, `unlearning.runs`, `reading.runs`,
`collections.runs`).
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import yaml

from clearn.errors import UserError

Row = dict[str, Any]


@dataclass(frozen=True)
class Figures:
    """What one step weighed and took; bytes and seconds. None: not measured, or there is no budget.

    Attributes:
        step: from 1.
        total: all carried bytes.
        shared: those bit-identical to a published checkpoint.
        delta: total - shared.
        budget: bytes allowed after this step.
        slack: what the budget left over.
        peak_host: high-water resident size above the start of the step.
        seconds: wall time by phase.
        rebuilt: whether the run went on from nothing but the weighed bytes; False for a bridge to foreign code.
        weighed: how, where that was not the usual way: "by inspection, not rebuilt".
    """

    step: int
    total: int
    shared: int = 0
    delta: int = 0
    budget: int | None = None
    slack: int | None = None
    peak_host: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    rebuilt: bool = True
    weighed: str = ""


@dataclass(frozen=True, eq=False)
class Run(ABC):
    """One run folder.

    Attributes:
        path: the folder.
        config: as resolved by the runner; empty if it could not be read.
        environment: versions, device, command and the like.
        state: "done", "running", "stopped" or "failed" as the runner left it, "unknown" without a status, or "damaged".
        step: steps gone and written.
        steps: steps of the stream, if known.
        message: why the run is not done, if known.
        headline: the read-out, or the post-processing, that is judged.
        categories: per step, carried bytes by category, summed over owners.
        figures: one per step.
    """

    word: ClassVar[str] = "step"  # what one entry of the stream is called

    path: Path
    config: Row = field(default_factory=dict)
    environment: Row = field(default_factory=dict)
    state: str = "unknown"
    step: int = 0
    steps: int | None = None
    message: str | None = None
    headline: str | None = None
    categories: tuple[dict[str, int], ...] = ()
    figures: tuple[Figures, ...] = ()

    @classmethod
    @abstractmethod
    def from_rows(cls, path: Path, config: Row, environment: Row, scores: list[Row], ledger: list[Row]) -> Self:
        """Make a run of the rows of its two files; the state is the caller's to settle.

        Raises:
            ValueError, TypeError, KeyError, AttributeError: a row does not hold what it must.
        """

    @property
    @abstractmethod
    def scored(self) -> int:
        """How many steps have all their scores."""

    @property
    @abstractmethod
    def numbers(self) -> dict[str, dict[str, float | None]]:
        """By read-out or post-processing, the numbers that describe the whole run."""

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def finished(self) -> bool:
        """Whether the run went through its whole stream, so that its numbers may be averaged."""
        return self.state == "done"

    @property
    def seeds(self) -> tuple[Any, ...]:
        """What may differ between runs of one configuration."""
        return (self.config.get("seed"),)

    @property
    def reached(self) -> str:
        """How far the run got, in words."""
        return f"after {self.word} {self.step}" + (f" of {self.steps}" if self.steps else "")

    @property
    def lacking(self) -> str:
        """What a run that says it is done should hold and does not; empty where nothing is amiss."""
        return ""

    def number(self, readout: str, name: str) -> float | None:
        """Give one of `numbers`; None where this run has no such read-out or the number is not defined."""
        return self.numbers.get(readout, {}).get(name)


def section(config: Row, name: str) -> Row:
    """Give a section of a config; a bare value stands for its name (`strategy: finetune`), a missing one is empty."""
    found = config.get(name)
    if isinstance(found, dict):
        return found
    return {} if found is None else {"name": found}


def read_config(path: Path) -> Row:
    """Read config.yaml.

    Raises:
        UserError: it is missing, no YAML, or no mapping.
    """
    try:
        plain = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"config.yaml cannot be read ({why})") from error
    if not isinstance(plain, dict):
        raise UserError(f"config.yaml holds {type(plain).__name__}, not a mapping of sections")
    return {str(key): value for key, value in plain.items() if key != "tracker"}  # which says nothing of the result


def read_json(path: Path) -> Row:
    """Read a small JSON mapping; empty where it is missing, torn or something else."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read_lines(path: Path) -> list[Row]:
    """Read a file of JSON lines; a last line that was cut short is as if never written.

    Raises:
        UserError: if any other line is no JSON mapping.
    """
    lines = path.read_bytes().splitlines() if path.exists() else []
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError
        except ValueError:
            if number == len(lines):
                break
            raise UserError(f"line {number} of {path.name} is no JSON mapping: {line[:60]!r}") from None
        rows.append(row)
    return rows


def whole_steps(rows: Sequence[Row]) -> tuple[tuple[dict[str, int], ...], list[Row]]:
    """Give bytes by category and the figures' row of each whole step; a row written again replaces the earlier one.

    Step 0, what was prepared before the first step of a stream, is none of them.
    """
    figures = {int(row["step"]): row for row in rows if row["kind"] == "figures"}
    weighed = {
        (int(row["step"]), row["owner"], row["category"]): int(row["bytes"]) for row in rows if row["kind"] == "bytes"
    }
    n = 0
    while n + 1 in figures:
        n += 1
    categories: tuple[dict[str, int], ...] = tuple({} for _ in range(n))
    for (step, _, category), size in weighed.items():
        if 1 <= step <= n:
            categories[step - 1][category] = categories[step - 1].get(category, 0) + size
    return categories, [figures[step] for step in range(1, n + 1)]


def known(row: Row, name: str, kind: Callable[[Any], Any]) -> Any:
    """Convert an entry of a row; None where it is missing or null."""
    return None if row.get(name) is None else kind(row[name])


def common(row: Row) -> dict[str, Any]:
    """Give what every kind's figures share, by the names of `Figures`."""
    total, shared = int(row["total"]), known(row, "shared", int) or 0
    delta = known(row, "delta", int)
    return {
        "step": int(row["step"]),
        "total": total,
        "shared": shared,
        "delta": total - shared if delta is None else delta,
        "budget": known(row, "budget", int),
        "slack": known(row, "slack", int),
        "peak_host": known(row, "peak_host", float),
        "seconds": {str(phase): float(taken) for phase, taken in (row.get("seconds") or {}).items()},
        "rebuilt": row.get("rebuilt") is not False,
        "weighed": str(row.get("weighed") or ""),
    }
