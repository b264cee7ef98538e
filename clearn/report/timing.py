"""The section on wall time, the same for every kind of run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clearn.report.blocks import box, details, figure, legend
from clearn.report.grouping import Group
from clearn.report.look import PHASES, known


def time(groups: Sequence[Group[Any]], number: int, more: str = "") -> str:
    """Draw where the wall time went; `more` goes into the caption."""
    from clearn.report.drawing import time_split

    splits = [(group.label, group.seconds()) for group in groups]
    phases = {phase for _, split in splits for phase, taken in split.items() if taken}
    if not phases:
        return ""
    order = [phase for phase in (*PHASES, *sorted(phases - set(PHASES))) if phase in phases]
    named = [(box(known(phase, PHASES, "other-phase")), phase) for phase in order]
    rows = [[label, *(f"{split.get(phase, 0):,.2f}" for phase in order)] for label, split in splits]
    numbers = details("Seconds by phase", ["method", *order], rows)
    caption = "Wall time over the whole stream by phase, mean over runs; compare runs of one machine and load only."
    svg = time_split(splits, f"t{number}").replace("<svg ", '<svg class="wide" ', 1)
    return figure("Where the time went", legend(named) + svg, caption + more, numbers)
