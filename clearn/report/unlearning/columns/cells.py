"""How a column's number is printed, everywhere alike."""

from __future__ import annotations

import math
from dataclasses import dataclass

from clearn.metrics import Spread
from clearn.report.columns import Kind, exact_text, number_text, spread_text
from clearn.report.unlearning.columns.kinds import Measure
from clearn.report.unlearning.grouping import Gap, UnlearningGroup
from clearn.report.unlearning.remains import Bound
from clearn.report.unlearning.runs import Request
from clearn.report.unlearning.verdicts import judged

NONE = "–"


@dataclass(frozen=True)
class Cell:
    """A printed number.

    Attributes:
        main: the number, or words.
        more: its deviation or interval.
        order: what it is sorted by; None for none.
        exact: all digits, for whoever points at it.
        wrong: whether it is a failure.
    """

    main: str
    more: str = ""
    order: float | None = None
    exact: str = ""
    wrong: bool = False

    @property
    def plain(self) -> str:
        """In one line."""
        return " ".join(filter(None, (self.main, self.more)))


def cell(measure: Measure, group: UnlearningGroup, request: Request) -> Cell:
    """Print a number of a group."""
    if measure.key == "verdict":
        verdict = judged(group, request)
        return Cell(verdict.words, verdict.more, exact=" ".join(verdict.reasons), wrong=verdict.failed)
    found = measure.value(group, request)
    match found:
        case Spread():
            main, std = spread_text(found, measure.kind)
            if measure.kind == "loss":
                main, std = digits(found.mean), digits(found.std, 2) if found.std else ""
            return Cell(main, f"± {std}" if std else "", found.mean, exact_text(found, measure.kind))
        case Gap():
            ends = [] if found.low is None or found.high is None else [found.low, found.high]
            interval = f"[{', '.join(signed(end, measure.kind) for end in ends)}]" if ends else ""
            return Cell(
                signed(found.mean, measure.kind), interval, found.mean, f"{found.mean:.6g}, n = {found.n} pairs"
            )
        case Bound():
            return Cell(f"{found.sign}{digits(found.mean)}", order=found.mean, exact=found.words)
        case str():
            return Cell(found)
    return Cell(NONE)


def digits(value: float, n: int = 3) -> str:
    """Print a number with n significant digits, at most six decimals.

    >>> digits(0.41249), digits(1234.5), digits(0.0000004), digits(0.0123, 2), digits(float("inf"))
    ('0.412', '1,234', '0', '0.012', '∞')
    """
    if math.isinf(value):
        return "∞"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{n}g}" if abs(value) >= 1e-3 else f"{value:.6f}".rstrip("0").rstrip(".")


def signed(value: float, kind: Kind) -> str:
    """Print a difference with its sign.

    >>> signed(-0.0123, "percent"), signed(0.0, "percent"), signed(0.25, "loss")
    ('-1.2', '0.0', '+0.25')
    """
    text = digits(value) if kind == "loss" else number_text(value, kind)
    return f"+{text}" if value > 0 and text.strip("0.") else text
