"""A plain verdict on a method: it did nothing, it destroyed the model, it differs, or it equals retraining.

Small gaps can hide the first two: where forgotten samples are easy the untouched model is right on them as often as
the retrained one, and a ruined model has forgotten everything asked. Both are found first, seed by seed, and both fail.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from numpy.typing import ArrayLike

from clearn.forgetting.accuracies import accuracy
from clearn.forgetting.arrays import checked_logits
from clearn.forgetting.comparison import Comparison
from clearn.forgetting.divergence import js

IDLE = 0.01  # of the divergence that retraining makes; JS is a squared distance, so a tenth of the way
RUINED = 0.5  # of what the retrained model knows above guessing


@dataclass(frozen=True)
class Trial:
    """One training seed's unlearning.

    Attributes:
        unlearned: accuracy on test samples that should still work, a fraction.
        retrained: the same of the retrained model.
        guess: accuracy of guessing, 1 / c.
        moved: mean JS on D_f between the original and the unlearned model, nats.
        needed: mean JS on D_f between the original and the retrained model, nats.
    """

    unlearned: float
    retrained: float
    guess: float
    moved: float
    needed: float

    def __post_init__(self) -> None:
        if self.retrained <= self.guess:
            raise ValueError(
                f"the retrained model's accuracy {self.retrained:g} is no better than guessing, {self.guess:g}: it is "
                "no standard; check how it was trained, and that its labels belong to its logits"
            )

    @property
    def condition(self) -> Literal["destroyed", "idle", "acted"]:
        """What became of the model.

        "destroyed" if less than half of what the retrained model knows above guessing is left; "idle" if the outputs
        on D_f moved at most 1 % of the divergence that retraining makes.
        """
        if self.unlearned - self.guess < RUINED * (self.retrained - self.guess):
            return "destroyed"
        return "idle" if self.moved <= IDLE * self.needed else "acted"


@dataclass(frozen=True, eq=False)
class Outputs:
    """Logits of one model.

    Attributes:
        forget: (m, c) float, of D_f.
        kept: (k, c) float, of test samples that should still work (the classes that stay).
    """

    forget: ArrayLike
    kept: ArrayLike


def trial(original: Outputs, unlearned: Outputs, retrained: Outputs, kept_labels: ArrayLike) -> Trial:
    """Gather a seed's trial from the outputs of its three models; kept_labels: (k,) int."""
    return Trial(
        accuracy(unlearned.kept, kept_labels).value,
        accuracy(retrained.kept, kept_labels).value,
        guess=1 / checked_logits(retrained.kept, "kept logits").shape[1],
        moved=float(js(original.forget, unlearned.forget).mean()),
        needed=float(js(original.forget, retrained.forget).mean()),
    )


@dataclass(frozen=True)
class Verdict:
    """What to say of a method in one line, and why.

    Attributes:
        passed: only where every seed acted and every measure is indistinguishable from retraining's.
        headline: one clause for a table.
        reasons: a sentence for each seed and measure that failed; empty where it passed.
    """

    passed: bool
    headline: str
    reasons: tuple[str, ...]


def judge(trials: Sequence[Trial], comparisons: Mapping[str, Comparison]) -> Verdict:
    """Judge a method over training seeds.

    Give comparisons beyond accuracies (output divergence, probe, relearn time): a zeroed head row equals retraining in
    every accuracy of a forgotten class.

    Args:
        trials: one per training seed, in the order of the seeds.
        comparisons: by the name of the measure.

    Raises:
        ValueError: without trials or comparisons.
    """
    if not trials or not comparisons:
        raise ValueError(
            f"{len(trials)} trials and {len(comparisons)} comparisons: a verdict needs at least one of each"
        )
    conditions = [one.condition for one in trials]
    verdicts = {name: one.verdict for name, one in comparisons.items()}
    reasons = [_of_seed(i, one) for i, one in enumerate(trials) if one.condition != "acted"]
    reasons += [_of_measure(name, one) for name, one in comparisons.items() if one.verdict != "indistinguishable"]

    heads = [
        f"{words} in {conditions.count(condition)} of {len(trials)} seeds"
        for condition, words in (("destroyed", "destroyed the model"), ("idle", "did nothing"))
        if condition in conditions
    ]
    if not heads:
        different, undecided = ([n for n, v in verdicts.items() if v == which] for which in ("different", "undecided"))
        heads += [f"differs from retraining in {', '.join(different)}"] if different else []
        heads += [f"not shown to equal retraining in {', '.join(undecided)}"] if undecided else []
    return Verdict(not reasons, "; ".join(heads) or "indistinguishable from retraining", tuple(reasons))


def _of_seed(i: int, one: Trial) -> str:
    if one.condition == "destroyed":
        return (
            f"seed {i}: destroyed, accuracy {one.unlearned:.3f} where retraining keeps {one.retrained:.3f} "
            f"and guessing gives {one.guess:.3f}"
        )
    return (
        f"seed {i}: did nothing, outputs on the forget set moved {one.moved:.2g} nats "
        f"where retraining moves {one.needed:.2g}"
    )


def _of_measure(name: str, one: Comparison) -> str:
    gap, floor = one.difference, one.floor
    return (
        f"{name}: {one.verdict}, off by {gap.mean:.3g} [{gap.low:.3g}, {gap.high:.3g}] where retraining varies by "
        f"[{floor.low:.3g}, {floor.high:.3g}]"
    )
