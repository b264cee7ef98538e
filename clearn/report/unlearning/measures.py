"""What the answers around a request say, by themselves and beside those of a model retrained without the samples."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clearn.forgetting import (
    AnamnesisIndex,
    EntropyAttack,
    LossAttack,
    Outcome,
    Outputs,
    RelearnTime,
    Trial,
    accuracy,
    activation_distance,
    anamnesis_index,
    entropy_attack,
    js,
    logit_confidences,
    loss_attack,
    losses,
    trial,
    tug_of_war,
    zrf,
)
from clearn.report.unlearning.examined import Examined, Probed

Arrays = Mapping[str, NDArray[Any]]
SPLITS = 0  # seed of the loss attack's splits, the same for every run


@dataclass(frozen=True, eq=False)
class Evidence:
    """Answers around a request, each by "forget", "stays" (training samples) and "test"; n differs between them.

    Attributes:
        before: (n, c) float32 scores, c labels seen so far.
        after: (n, c) float32.
        labels: (n,) int64.
        examined: what was tried beyond asking; nothing in runs of older versions.
    """

    before: Arrays
    after: Arrays
    labels: Arrays
    examined: Examined = field(default_factory=Examined)

    def kept(self, gone: Collection[int]) -> NDArray[np.bool_]:
        """Mark the test samples whose class was never to be forgotten so far: (n,)."""
        return ~np.isin(self.labels["test"], list(gone))


@dataclass(frozen=True, eq=False)
class Measured:
    """One request of one run; accuracies are fractions, None where there are no such samples.

    Attributes:
        fault: why nothing could be measured; empty where it could.
        before: accuracy on the forgotten samples as the request came.
        forget: on the forgotten training samples, after it, as all that follow.
        stays: on training samples that stay.
        kept: on test samples of the classes that stay.
        forgotten: on test samples of the classes that this request forgets.
        mia: the SSD paper's attack by entropy.
        attack: by loss, against test samples of the same classes.
        moved: mean JS on the forgotten samples between before and after, nats.
        stood: accuracy on test samples of the classes that stay, before the request.
        guess: accuracy of guessing.
        zrf: likeness to an untrained model on the forgotten samples.
        probed_before: by a linear probe on the features, as the request came.
        probed: the same after it.
        relearned: steps of training until the forgotten samples are known again.
        margins: (m,) float64, phi of each forgotten sample; None without any.
        asked: (m,) int64, their labels.
    """

    fault: str = ""
    before: float | None = None
    forget: float | None = None
    stays: float | None = None
    kept: float | None = None
    forgotten: float | None = None
    mia: EntropyAttack | None = None
    attack: LossAttack | None = None
    moved: float | None = None
    stood: float | None = None
    guess: float | None = None
    zrf: float | None = None
    probed_before: Probed = field(default_factory=Probed)
    probed: Probed = field(default_factory=Probed)
    relearned: RelearnTime | None = None
    margins: NDArray[np.float64] | None = None
    asked: NDArray[np.int64] | None = None

    @property
    def mia_share(self) -> float | None:
        """Share of the forgotten samples that the entropy attack calls member."""
        return None if self.mia is None else self.mia.called_member.value

    @property
    def auc(self) -> float | None:
        """Of the loss attack, on the held-out part of its splits."""
        return None if self.attack is None else self.attack.auc

    def tpr_at(self, fpr: float) -> float | None:
        """Give the loss attack's true positive rate at a false positive rate, over all samples."""
        return None if self.attack is None else self.attack.roc.tpr_at(fpr)

    @property
    def condition_alone(self) -> str:
        """Tell "destroyed" and "idle" without a retrained model: by the original's accuracy, and no move at all."""
        if self.kept is None or self.stood is None or self.guess is None or self.moved is None:
            return "unknown"
        if self.stood <= self.guess:
            return "unknown"
        return Trial(self.kept, self.stood, self.guess, self.moved, needed=0.0).condition


def measure(evidence: Evidence, classes: Collection[int], gone: Collection[int]) -> Measured:
    """Measure a request from one run's answers.

    Args:
        evidence: around the request.
        classes: labels that it forgets; empty where single samples go.
        gone: labels that went with it or earlier.
    """
    after, labels = evidence.after, evidence.labels
    wide = after["test"].shape[1]
    if wide < 2:
        return Measured(fault="one label alone has been learned")
    if not all(np.isfinite(scores).all() for scores in (*after.values(), *evidence.before.values())):
        return Measured(fault="its scores are not finite")

    kept, forgotten = evidence.kept(gone), np.isin(labels["test"], list(classes))
    tried = evidence.examined
    asked, alike = bool(len(labels["forget"])), np.isin(labels["test"], labels["forget"])
    return Measured(
        before=_right(evidence.before["forget"], labels["forget"]),
        forget=_right(after["forget"], labels["forget"]),
        stays=_right(after["stays"], labels["stays"]),
        kept=_right(after["test"][kept], labels["test"][kept]),
        forgotten=_right(after["test"][forgotten], labels["test"][forgotten]),
        mia=entropy_attack(after["stays"], after["test"], after["forget"]) if asked and len(after["stays"]) else None,
        attack=loss_attack(
            losses(after["forget"], labels["forget"]),
            losses(after["test"][alike], labels["test"][alike]),
            np.random.default_rng(SPLITS),
        )
        if len(labels["forget"]) > 1 and alike.sum() > 1
        else None,
        moved=float(js(evidence.before["forget"], after["forget"]).mean()) if asked else None,
        stood=_right(evidence.before["test"][kept], labels["test"][kept]),
        guess=1 / wide,
        zrf=zrf(after["forget"], tried.random) if asked and tried.random is not None else None,
        probed_before=tried.probed_before,
        probed=tried.probed,
        relearned=tried.relearned,
        margins=logit_confidences(after["forget"], labels["forget"]) if asked else None,
        asked=labels["forget"],
    )


def _right(scores: NDArray[Any], labels: NDArray[Any]) -> float | None:
    return accuracy(scores, labels).value if len(labels) else None


@dataclass(frozen=True, eq=False)
class Paired:
    """One request of one run beside the retrained model of its seed.

    Attributes:
        fault: why they cannot be compared; empty where they can.
        tow: tug of war, a fraction.
        js_forget: mean JS divergence on the forgotten samples, nats.
        js_test: on all test samples so far.
        activation: mean L2 distance of the probabilities on the forgotten samples, at most 1.41.
        anamnesis: steps of relearning over the retrained model's; None where one was not made to relearn.
        trial: what the verdict rests on.
    """

    fault: str = ""
    tow: float | None = None
    js_forget: float | None = None
    js_test: float | None = None
    activation: float | None = None
    anamnesis: AnamnesisIndex | None = None
    trial: Trial | None = None


def pair(ours: Evidence, theirs: Evidence, measured: tuple[Measured, Measured], gone: Collection[int]) -> Paired:
    """Compare a run's answers with those of the retrained model of its seed; `measured` in the same order."""
    mine, reference = measured
    if mine.fault or reference.fault:
        return Paired(fault=mine.fault or f"of the retrained model, {reference.fault}")
    if not all(np.array_equal(ours.labels[name], theirs.labels[name]) for name in ours.labels):
        return Paired(fault="the retrained model was asked about other samples")
    if not len(ours.labels["forget"]):
        return Paired(fault="nothing was to be forgotten")
    kept, tow = ours.kept(gone), None
    outcomes = [
        Outcome(one.forget, one.stays, one.kept)
        for one in (mine, reference)
        if one.forget is not None and one.stays is not None and one.kept is not None
    ]
    if len(outcomes) == 2:
        tow = tug_of_war(*outcomes)
    tried, fault = None, ""
    if reference.kept is None or reference.guess is None:
        fault = "no test sample is of a class that stays"
    elif reference.kept <= reference.guess:
        fault = "the retrained model is no better than guessing"
    else:
        tried = trial(
            Outputs(ours.before["forget"], ours.before["test"][kept]),
            Outputs(ours.after["forget"], ours.after["test"][kept]),
            Outputs(theirs.after["forget"], theirs.after["test"][kept]),
            ours.labels["test"][kept],
        )
    times = mine.relearned, reference.relearned
    return Paired(
        fault=fault,
        tow=tow,
        js_forget=float(js(ours.after["forget"], theirs.after["forget"]).mean()),
        js_test=float(js(ours.after["test"], theirs.after["test"]).mean()),
        activation=activation_distance(ours.after["forget"], theirs.after["forget"]),
        anamnesis=None if times[0] is None or times[1] is None else anamnesis_index(times[0], times[1]),
        trial=tried,
    )
