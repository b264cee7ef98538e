"""Columns of what is left inside a model, whatever it answers: in its features, and in how fast it learns again."""

from __future__ import annotations

from clearn.report.unlearning.columns.kinds import AT_ONE, AT_RETRAIN, Measure, with_gap
from clearn.report.unlearning.remains import anamnesis, relearn_steps


def columns() -> list[Measure]:
    """Give the columns of what is left inside."""
    probe = "test accuracy of a linear probe, fitted to frozen features of all classes,"
    return [
        Measure(
            "probe_before",
            "probe before",
            "remains",
            "percent",
            lambda group, one: group.number(one, lambda m: m.probed_before.forgotten),
            f"{probe} on the forgotten classes as the request came",
        ),
        *with_gap(
            "probe",
            "probe forgotten",
            "remains",
            "percent",
            lambda one: one.probed.forgotten,
            f"{probe} on the forgotten classes after it; high even for a model that never saw them, so the gap is what "
            "counts",
        ),
        Measure(
            "probe_others",
            "probe others",
            "remains",
            "percent",
            lambda group, one: group.number(one, lambda m: m.probed.others),
            f"{probe} on the other classes after it: low where the features as such are spoilt",
            AT_RETRAIN,
        ),
        Measure(
            "relearn",
            "relearn steps",
            "remains",
            "loss",
            relearn_steps,
            "mini-batches of training on the forgotten samples until 95 % of the accuracy before the request is back; "
            "> where some runs never got there within the steps tried, and the mean counts those steps",
            AT_RETRAIN,
            bounded=True,
        ),
        Measure(
            "ain",
            "AIN",
            "remains",
            "loss",
            anamnesis,
            "anamnesis index: relearn steps over those of the retrained model of the same seed, mean of the ratios; "
            "below 1 something is left, far above 1 too much was destroyed, ∞ where retraining alone needs no step. "
            "> and <: a bound, as one of the two never relearned within the steps tried; unknown where neither did, or "
            "bounds of both kinds meet",
            AT_ONE,
            bounded=True,
        ),
    ]
