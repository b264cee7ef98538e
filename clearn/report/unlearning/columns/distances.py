"""Columns of distances: to the retrained model, to an untrained one, to the model before the request."""

from __future__ import annotations

from collections.abc import Callable

from clearn.report.unlearning.columns.kinds import DOWN, UP, Found, Measure, with_gap
from clearn.report.unlearning.grouping import UnlearningGroup
from clearn.report.unlearning.runs import EventFigures, Request


def columns() -> list[Measure]:
    """Give the columns of distances."""

    def paired(
        key: str, title: str, better: str, value: Callable[[UnlearningGroup, Request], Found], note: str
    ) -> Measure:
        return Measure(key, title, "distance", "loss", value, note, better)

    share = "share of all scalars that the method changed, as it logs itself"
    return [
        paired(
            "tow",
            "ToW",
            UP,
            lambda group, one: group.compared(one, lambda pair: pair.tow),
            "tug of war: product of 1 - |gap| over forget, stays and test kept; 1 is retraining",
        ),
        paired(
            "js_forget",
            "JS forget",
            DOWN,
            lambda group, one: group.compared(one, lambda pair: pair.js_forget),
            "mean Jensen-Shannon divergence to the retrained model on the forgotten samples, nats, at most 0.693",
        ),
        paired(
            "js_test",
            "JS test",
            DOWN,
            lambda group, one: group.compared(one, lambda pair: pair.js_test),
            "the same on all test samples so far",
        ),
        paired(
            "activation",
            "activation distance",
            DOWN,
            lambda group, one: group.compared(one, lambda pair: pair.activation),
            "mean Euclidean distance of the probabilities to the retrained model's on the forgotten samples, at most "
            "1.41",
        ),
        *with_gap(
            "zrf",
            "ZRF",
            "distance",
            "loss",
            lambda one: one.zrf,
            "1 - mean JS / ln 2 to a model with fresh weights on the forgotten samples; at 1 it answers as that does, "
            "but the aim is retraining's value",
        ),
        Measure(
            "relapse",
            "relapse",
            "distance",
            "percent",
            lambda group, one: None if group.role == "reference" else group.relapse(one),
            "test accuracy on the forgotten classes above retraining's, at the worst of all later steps of the stream; "
            "0 or less is good",
            DOWN,
        ),
        Measure(
            "moved",
            "weights moved",
            "distance",
            "percent",
            lambda group, one: group.spread(lambda run: run.moved[one.number - 1]),
            "distance of the parameters from those before the request, in lengths of the latter; batch-norm statistics "
            "and pretrained tensors that are still as published do not count. The distance to the retrained weights is "
            "left out on purpose: it means something only where first weights and order of batches are shared, and "
            "retraining draws both anew",
        ),
        Measure("changed", "changed", "distance", "percent", lambda group, one: group.figure(one, _changed), share),
    ]


def _changed(figures: EventFigures) -> float | None:
    return figures.logged.get("unlearn/selected")
