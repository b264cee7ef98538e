"""Read run folders, forgivingly: a run may still be going on, may have been killed in mid-line, or may be damaged."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from clearn.errors import UserError
from clearn.metrics import Counts, summary

RUN_FILES = ("environment.json", "status.json", "scores.jsonl", "ledger.jsonl")


@dataclass(frozen=True)
class Figures:
    """What one step weighed and took; bytes and seconds. None: not measured, or there is no budget.

    Attributes:
        step: tasks learned, from 1.
        total: all carried bytes.
        shared: those bit-identical to a published checkpoint.
        delta: total - shared.
        budget: bytes allowed after this step.
        slack: what the budget left over.
        paper: bytes by the published counting.
        exemplars: stored samples.
        peak_host: high-water resident size above the start of the step.
        peak_device: the same on the accelerator.
        seconds: wall time by phase.
        samples: training samples seen.
        rebuilt: whether the learner went on from nothing but the weighed bytes; False for a bridge to foreign code.
    """

    step: int
    total: int
    shared: int = 0
    delta: int = 0
    budget: int | None = None
    slack: int | None = None
    paper: int | None = None
    exemplars: int | None = None
    peak_host: float | None = None
    peak_device: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    samples: int | None = None
    rebuilt: bool = True


@dataclass(frozen=True, eq=False)
class Run:
    """One run folder.

    Attributes:
        path: the folder.
        config: as resolved by the runner; empty if it could not be read.
        environment: versions, device, command and the like.
        state: "done", "running", "stopped" or "failed" as the runner left it, "unknown" without a status, or "damaged".
        step: tasks learned and written.
        steps: tasks in the stream, if known.
        message: why the run is not done, if known.
        counts: by read-out ("classifier", "nme", ...).
        headline: the read-out that the method is judged by.
        categories: per step, carried bytes by category, summed over owners.
        figures: one per step.
    """

    path: Path
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    state: str = "unknown"
    step: int = 0
    steps: int | None = None
    message: str | None = None
    counts: dict[str, Counts] = field(default_factory=dict)
    headline: str | None = None
    categories: tuple[dict[str, int], ...] = ()
    figures: tuple[Figures, ...] = ()

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def finished(self) -> bool:
        """Whether the run learned its whole stream, so that its numbers may be averaged."""
        return self.state == "done"

    @property
    def seeds(self) -> tuple[Any, Any]:
        """(training seed, class order seed)."""
        return self.config.get("seed"), section(self.config, "stream").get("order_seed")

    @cached_property
    def numbers(self) -> dict[str, dict[str, float | None]]:
        """By read-out, every number of `metrics.DEFINITIONS` that describes a whole run."""
        return {readout: summary(counts) for readout, counts in self.counts.items()}

    def number(self, readout: str, name: str) -> float | None:
        """Give one of `numbers`; None where this run has no such read-out or the number is not defined."""
        return self.numbers.get(readout, {}).get(name)


def section(config: dict[str, Any], name: str) -> dict[str, Any]:
    """Give a section of a config; a bare value stands for its name (`strategy: finetune`), a missing one is empty."""
    found = config.get(name)
    if isinstance(found, dict):
        return found
    return {} if found is None else {"name": found}


def load(paths: Sequence[Path]) -> list[Run]:
    """Read runs, each once, in the order of the paths and of their names.

    Args:
        paths: run folders, or folders that hold run folders at any depth.

    Raises:
        UserError: naming every path that does not exist, or that neither is nor holds a run folder.
    """
    found: dict[Path, Path] = {}
    mistakes = []
    for path in map(Path, paths):
        folders = list(_run_folders(path))
        for folder in folders:
            found.setdefault(folder.resolve(), folder)
        if not folders:
            what = "holds no run" if path.is_dir() else "is a file" if path.exists() else "does not exist"
            mistakes.append(
                f"{path} {what}: a run folder has config.yaml and one of {', '.join(RUN_FILES)}; "
                "give such a folder, or one that holds some"
            )
    if mistakes:
        raise UserError("\n".join(mistakes))
    return [_read(folder) for folder in found.values()]


def _run_folders(path: Path) -> Iterator[Path]:
    for folder, inner, files in os.walk(path):
        if "config.yaml" in files and any(name in files for name in RUN_FILES):
            inner.clear()
            yield Path(folder)
        else:
            inner[:] = sorted(name for name in inner if not name.startswith("."))


def _read(path: Path) -> Run:
    """Read one run folder; what cannot be read makes the run "damaged", and the message says what and what to do."""
    config: dict[str, Any] = {}
    try:
        config = _config(path / "config.yaml")
        rows = _by_readout(_lines(path / "scores.jsonl"))
        counts = {readout: Counts.from_rows(of_one) for readout, of_one in rows.items()}
        headlines = sorted(readout for readout, of_one in rows.items() if any(row.get("headline") for row in of_one))
        categories, figures = _ledger(_lines(path / "ledger.jsonl"))
    except (UserError, ValueError, TypeError, KeyError, AttributeError) as error:
        why = f"{type(error).__name__} {error}" if isinstance(error, (TypeError, KeyError, AttributeError)) else error
        advice = "resume the run to rewrite it, or leave the folder out"
        return Run(path, config, _json(path / "environment.json"), "damaged", message=f"{why}; {advice}")

    status = _json(path / "status.json")
    state, message, steps = str(status.get("state", "unknown")), status.get("message"), status.get("steps")
    headline = headlines[0] if headlines else next(iter(sorted(counts)), None)
    scored = min((len(of_one) for of_one in counts.values()), default=0)
    step = min(scored, len(figures))
    if state == "done" and not (0 < step == scored == len(figures) == (steps or step)):
        state = "damaged"
        message = (
            f"the status says done, but scores.jsonl holds {scored} and ledger.jsonl {len(figures)} whole steps "
            f"of {steps or 'an unknown number'}; resume the run to complete it, or leave the folder out"
        )
    return Run(
        path=path,
        config=config,
        environment=_json(path / "environment.json"),
        state=state,
        step=step,
        steps=step if steps is None and state == "done" else steps,
        message=message,
        counts=counts,
        headline=headline,
        categories=categories,
        figures=figures,
    )


def _config(path: Path) -> dict[str, Any]:
    try:
        plain = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"config.yaml cannot be read ({why})") from error
    if not isinstance(plain, dict):
        raise UserError(f"config.yaml holds {type(plain).__name__}, not a mapping of sections")
    return {str(key): value for key, value in plain.items()}


def _json(path: Path) -> dict[str, Any]:
    """Read a small JSON mapping; empty where it is missing, torn or something else."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _lines(path: Path) -> list[dict[str, Any]]:
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


def _by_readout(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    readouts: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        readouts.setdefault(str(row["readout"]), []).append(row)
    return readouts


def _ledger(rows: list[dict[str, Any]]) -> tuple[tuple[dict[str, int], ...], tuple[Figures, ...]]:
    """Give the bytes by category and the figures of each whole step; a row written again replaces the earlier one."""
    figures = {int(row["step"]): _figures(row) for row in rows if row["kind"] == "figures"}
    weighed = {
        (int(row["step"]), row["owner"], row["category"]): int(row["bytes"]) for row in rows if row["kind"] == "bytes"
    }
    n = 0
    while n + 1 in figures:
        n += 1
    categories: tuple[dict[str, int], ...] = tuple({} for _ in range(n))
    for (step, _, category), size in weighed.items():
        if step <= n:
            categories[step - 1][category] = categories[step - 1].get(category, 0) + size
    return categories, tuple(figures[step] for step in range(1, n + 1))


def _figures(row: dict[str, Any]) -> Figures:
    def known(name: str, kind: Callable[[Any], Any]) -> Any:
        return None if row.get(name) is None else kind(row[name])

    total, shared = int(row["total"]), known("shared", int) or 0
    delta = known("delta", int)
    return Figures(
        step=int(row["step"]),
        total=total,
        shared=shared,
        delta=total - shared if delta is None else delta,
        budget=known("budget", int),
        slack=known("slack", int),
        paper=known("paper", int),
        exemplars=known("exemplars", int),
        peak_host=known("peak_host", float),
        peak_device=known("peak_device", float),
        seconds={str(phase): float(taken) for phase, taken in (row.get("seconds") or {}).items()},
        samples=known("samples", int),
        rebuilt=row.get("rebuilt") is not False,
    )
