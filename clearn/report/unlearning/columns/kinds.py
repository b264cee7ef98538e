"""What a column is: its number for a group and request, which way is good; and the gap to retraining behind it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from clearn.metrics import Spread
from clearn.report.columns import Kind
from clearn.report.unlearning.grouping import Gap, Pick, UnlearningGroup
from clearn.report.unlearning.remains import Bound
from clearn.report.unlearning.runs import Request

AT_RETRAIN, AT_ZERO, AT_HALF, AT_ONE, UP, DOWN = " →R", " →0", " →0.5", " →1", " ↑", " ↓"
Found = Spread | Gap | Bound | str | None


@dataclass(frozen=True, eq=False)
class Measure:
    """A number, or words, of each group and request.

    Attributes:
        key: full name, as in the CSV.
        title: as printed.
        part: the table it belongs to: "verdict", "accuracy", "attack", "remains", "distance" or "cost".
        kind: how the number is printed.
        value: the number; words where it cannot be, and why.
        note: what it is, in a sentence.
        better: which way is good.
        bounded: whether some numbers are only bounds.
    """

    key: str
    title: str
    part: str
    kind: Kind
    value: Callable[[UnlearningGroup, Request], Found]
    note: str
    better: str = ""
    bounded: bool = False

    @property
    def head(self) -> str:
        """The title with unit and direction."""
        unit = {"percent": " %", "seconds": " s"}.get(self.kind, "")
        return self.title + (unit + self.better).replace(" ", "\N{NO-BREAK SPACE}")


def with_gap(
    key: str, title: str, part: str, kind: Kind, pick: Pick, note: str, better: str = AT_RETRAIN
) -> list[Measure]:
    """Give a measured number and, behind it, its gap to retraining."""
    value = Measure(key, title, part, kind, lambda group, request: group.number(request, pick), note, better)
    gap = replace(
        value,
        key=f"{key}.gap",
        title=f"{title} gap",
        value=lambda group, request: group.gap(request, pick) or _why_no_gap(group, request, pick),
        note=f"{title}, minus that of the retrained model of the same seed: mean and 95 % t-interval",
        better=AT_ZERO,
    )
    return [value, gap]


def _why_no_gap(group: UnlearningGroup, request: Request, pick: Pick) -> str | None:
    """Say in a gap's place that there is no retrained model; nothing where there is no number either."""
    if group.role == "reference" or group.number(request, pick) is None:
        return None
    if group.reference is None:
        return "no retrain"
    return None if group.pairs else "no such seed"
