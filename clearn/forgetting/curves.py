"""What comes back: how fast a forgotten sample is learned again, and whether a stream brings it back by itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from clearn.forgetting.arrays import Floats, check_alike, checked_rates

TOLERANCE = 0.05  # eta: relearned is who is back at 95 % of what the original knew
ROUNDING = 1e-6  # an accuracy this close below the level has reached it; 19 of 20 in float32 is 5e-8 below 0.95


@dataclass(frozen=True)
class RelearnTime:
    """Steps of training on D_f until it is known again.

    Attributes:
        steps: mini-batches; 0 where it was never forgotten. The cap where `reached` is false: at least so many.
        reached: whether the level was reached within the steps tried.
    """

    steps: int
    reached: bool


def relearn_time(curve: ArrayLike, original: float, tolerance: float = TOLERANCE) -> RelearnTime:
    """Count the mini-batches until acc(D_f) >= (1 - tolerance) acc_o (Golatkar et al. 2020; Chundawat et al. 2023).

    Optimiser, learning rate and order of batches must be the same for the models compared. Short means that knowledge
    was left; compare with the retrained model's time by `anamnesis_index`.

    Args:
        curve: (steps + 1,) float in [0, 1], accuracy on D_f before the first and after each step; at least one step
            unless the level is reached without any, and its length is the cap.
        original: acc_o, the original model's accuracy on D_f, above 0.
        tolerance: eta.
    """
    accuracies = checked_rates(curve, "accuracies while relearning", "n")
    if not 0 < original <= 1 or not 0 <= tolerance < 1:
        raise ValueError(f"original={original} must lie in (0, 1] and tolerance={tolerance} in [0, 1)")
    there = np.flatnonzero(accuracies >= (1 - tolerance) * original - ROUNDING)
    if not len(there) and len(accuracies) < 2:
        raise ValueError("1 accuracy below the level is no curve: give the one before the first step and after each")
    return RelearnTime(int(there[0]), True) if len(there) else RelearnTime(len(accuracies) - 1, False)


@dataclass(frozen=True)
class AnamnesisIndex:
    """Relearn time over the retrained model's: 1 ideal, below 1 knowledge is left, far above 1 Streisand effect.

    Attributes:
        value: the ratio, 1 where neither needed a step, infinite where only the retrained model needed none; None
            where neither reached the level, so that nothing is known.
        known: whether `value` is the index or bounds it, because one of the two never reached the level.
    """

    value: float | None
    known: Literal["exactly", "at least", "at most", "unknown"]


def anamnesis_index(unlearned: RelearnTime, retrained: RelearnTime) -> AnamnesisIndex:
    """Divide RT(unlearned) by RT(retrained) (Chundawat et al. 2023, zero-shot unlearning)."""
    without_a_step = math.inf if unlearned.steps else 1.0
    ratio = unlearned.steps / retrained.steps if retrained.steps else without_a_step
    match unlearned.reached, retrained.reached:
        case True, True:
            return AnamnesisIndex(ratio, "exactly")
        case False, True:
            return AnamnesisIndex(ratio, "at least")
        case True, False:
            return AnamnesisIndex(ratio, "at most")
        case _:
            return AnamnesisIndex(None, "unknown")


@dataclass(frozen=True, eq=False)
class Relapse:
    """How far forgotten classes are known above the never-saw stream; 0 or less ideal, lower is better.

    Attributes:
        excess: (e,) float64 in [-1, 1], FA - FA_oracle right after the request and at each later evaluation.
    """

    excess: Floats

    @property
    def worst(self) -> float:
        """The largest later excess: above 0 where the stream brings back what was forgotten."""
        return float(self.excess[1:].max())

    @property
    def area(self) -> float:
        """Sum of the later excesses above 0, in accuracy times evaluations; ones below 0 pay for nothing."""
        return float(np.maximum(self.excess[1:], 0).sum())

    @property
    def rebound(self) -> float:
        """The worst excess minus the one right after the request: tells coming back from never having gone."""
        return self.worst - float(self.excess[0])


def relapse(forgotten: ArrayLike, oracle: ArrayLike) -> Relapse:
    """Follow the test accuracy on forgotten classes (FA) after a request.

    Args:
        forgotten: (e,) float in [0, 1], right after the request and at each later evaluation, e >= 2.
        oracle: (e,) float in [0, 1], the same of the same method run without the forgotten data from the start.
    """
    ours = checked_rates(forgotten, "accuracies on forgotten classes", "e")
    theirs = checked_rates(oracle, "accuracies of the never-saw stream", "e")
    check_alike(ours, theirs, "both curves")
    if len(ours) < 2:
        raise ValueError("a relapse needs an evaluation later than the one right after the request, got one alone")
    return Relapse(ours - theirs)


def accuracy_gain(unlearned: ArrayLike, without_request: ArrayLike) -> float:
    """Give AGR: accuracy after unlearning minus that of a run without the request, averaged over remaining tasks.

    Args:
        unlearned: (t,) float in [0, 1], on each remaining task.
        without_request: (t,) float in [0, 1].

    Returns:
        In [-1, 1]; below 0 where unlearning cost the other tasks, higher is better.
    """
    ours = checked_rates(unlearned, "accuracies after unlearning", "t")
    theirs = checked_rates(without_request, "accuracies without the request", "t")
    check_alike(ours, theirs, "both lists of accuracies")
    return float((ours - theirs).mean())
