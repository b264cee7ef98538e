"""Configs that state what they should give: run them, compare, and say plainly whether the figure was reached.

Section `expects` of a config:

    expects:
      source: where the figure was published
      figures: {classifier: 75.5, nme: 79.9}   # average incremental accuracy in percent, by read-out
      tolerance: 2.0                           # points a mean may lie below
      over: {stream.order_seed: [1993, 1994]}  # runs that are averaged; without it, one run
      minutes: 5                               # on two cores
      verified: what was measured, when and on what; absent while nobody has
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from clearn import metrics
from clearn.config import bind, load, shipped
from clearn.errors import ConfigError
from clearn.grids import Cell, cells
from clearn.mistakes import Mistake, raise_all
from clearn.report import load as load_runs


@dataclass(frozen=True)
class Expects:
    """What a config should give.

    Attributes:
        source: where the figure comes from.
        figures: read-out -> average incremental accuracy in percent.
        tolerance: percentage points that a mean may lie below.
        over: grid of runs that are averaged.
        minutes: on two cores.
        verified: what was measured, when and on what, or None.
    """

    source: str
    figures: dict[str, float]
    tolerance: float = 1.0
    over: dict[str, list[int | float | str]] | None = None
    minutes: float | None = None
    verified: str | None = None


@dataclass(frozen=True)
class Plan:
    """A config, what it expects, the runs it takes, and the folder they are to go to, if it names one."""

    name: str
    expects: Expects
    cells: tuple[Cell, ...]
    out: str | None


def plan(name: str, overrides: Sequence[str] = ()) -> Plan:
    """Read what a config expects.

    Raises:
        ConfigError: it expects nothing, or says so wrongly.
    """
    from clearn.layers import flat

    config = load(name, overrides)
    if "expects" not in config:
        known = ", ".join(other for other in shipped() if "expects" in load(other)) or "none"
        raise ConfigError(
            f"{name} states no expected figure (section 'expects'), so there is nothing to compare with; these "
            f"do: {known}"
        )
    section = dict(config["expects"])
    if section.get("over"):
        section["over"] = dict(flat(section["over"]))
    errors: list[Mistake] = []
    expects = Expects(**bind(Expects, section, "expects", errors))
    raise_all(errors, config.origins)
    return Plan(name, expects, tuple(cells(expects.over)) if expects.over else (Cell("", ()),), config.get("out"))


def listing(console: Console) -> None:
    """Print every shipped config that states a figure, with a mark for those that somebody has verified."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("config", no_wrap=True)
    for title in ("expects", "within", "minutes", "verified"):
        table.add_column(title)
    for name in shipped():
        if "expects" in load(name):
            found = plan(name).expects
            figures = ", ".join(f"{readout} {value:.1f} %" for readout, value in found.figures.items())
            minutes = "–" if found.minutes is None else f"{found.minutes:g}"
            table.add_row(name, figures, f"{found.tolerance:g}", minutes, found.verified or "not yet")
    console.print(table)


def compare(what: Plan, folders: Sequence[Path], console: Console) -> bool:
    """Print measured against expected; say whether every figure was reached."""
    runs = load_runs(list(folders))
    table = Table(
        "read-out",
        "expected",
        "measured",
        "sd",
        "n",
        "difference",
        "verdict",
        title=f"{what.name}: {what.expects.source}",
    )
    reached = True
    for readout, expected in what.expects.figures.items():
        found = [run.number(readout, "average_incremental_accuracy.pooled") for run in runs]
        spread = metrics.spread(100 * value for value in found if value is not None)
        if spread is None:
            raise ConfigError(
                f"expects.figures.{readout}: the method has no such read-out; it has {', '.join(runs[0].numbers)}"
            )
        good = spread.mean >= expected - what.expects.tolerance
        reached &= good
        table.add_row(
            readout,
            f"{expected:.1f}",
            f"{spread.mean:.1f}",
            "–" if spread.std is None else f"{spread.std:.1f}",
            str(spread.n),
            f"{spread.mean - expected:+.1f}",
            "reached" if good else f"not reached (more than {what.expects.tolerance:g} points below)",
        )
    console.print(table)
    return reached
