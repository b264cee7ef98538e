"""The numbers of a request: what each is, which way is good, and how it is printed everywhere."""

from __future__ import annotations

from collections.abc import Sequence

from clearn.report.unlearning.columns import accuracies, attacks, costs, distances, remains
from clearn.report.unlearning.columns.cells import NONE, Cell, cell, digits, signed
from clearn.report.unlearning.columns.kinds import Measure
from clearn.report.unlearning.grouping import UnlearningGroup
from clearn.report.unlearning.runs import Request

__all__ = ["Cell", "Measure", "all_measures", "cell", "digits", "measures", "signed"]


def measures(groups: Sequence[UnlearningGroup], request: Request) -> list[Measure]:
    """Give the columns that any of the groups fills."""
    found = []
    for one in all_measures():
        cells = [cell(one, group, request).main for group in groups]
        if any(text != NONE for text in cells):
            found.append(one)
    return found


def all_measures() -> list[Measure]:
    """Give every column, part by part."""
    return [
        *accuracies.columns(),
        *attacks.columns(),
        *remains.columns(),
        *distances.columns(),
        accuracies.verdict(),
        *costs.columns(),
    ]
