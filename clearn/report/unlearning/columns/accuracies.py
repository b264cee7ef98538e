"""Columns of what the model gets right, and the verdict."""

from __future__ import annotations

from clearn.report.columns import Kind
from clearn.report.unlearning.columns.kinds import Measure, with_gap
from clearn.report.unlearning.verdicts import judged


def columns() -> list[Measure]:
    """Give the columns of accuracies."""
    part: str = "accuracy"
    kind: Kind = "percent"
    before = "accuracy on the forgotten training samples as the request came"
    return [
        Measure("before", "before", part, kind, lambda group, one: group.number(one, lambda m: m.before), before),
        *with_gap("forget", "forget", part, kind, lambda one: one.forget, "accuracy on the forgotten training samples"),
        *with_gap("stays", "stays", part, kind, lambda one: one.stays, "accuracy on the training samples that stay"),
        *with_gap(
            "kept", "test kept", part, kind, lambda one: one.kept, "accuracy on test samples of classes that stay"
        ),
        *with_gap(
            "forgotten",
            "test forgotten",
            part,
            kind,
            lambda one: one.forgotten,
            "accuracy on test samples of the classes that this request forgets",
        ),
    ]


def verdict() -> Measure:
    """Give the column of verdicts."""
    note = "against retraining, over the seeds: did nothing, destroyed the model, apart, undecided, indistinguishable"
    return Measure("verdict", "verdict", "verdict", "count", lambda group, one: judged(group, one).words, note)
