"""U-LiRA: a likelihood-ratio attack made for each forgotten sample, the strongest of the usual ones.

Hayes et al. (2024), "Inexact unlearning needs more careful evaluations". For every target sample two groups of models
are at hand: some learned it and then unlearned it, some never saw it. Where the unlearning is exact no attacker can
tell the groups apart: accuracy 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from clearn.forgetting.arrays import Floats, Ints, checked
from clearn.forgetting.thresholds import Roc, roc


@dataclass(frozen=True, eq=False)
class ULira:
    """Scores of held-out models: the probability given to "it learned the sample and then unlearned it".

    Attributes:
        unlearned: (a, n) float64 in [0, 1], models that learned and unlearned sample j.
        never_saw: (b, n) float64 in [0, 1], models that never saw it.
    """

    unlearned: Floats
    never_saw: Floats

    @property
    def per_sample(self) -> Floats:
        """Accuracy of the attack on each sample, (n,), both groups weighed alike; shows who is vulnerable."""
        return (_right(self.unlearned).mean(axis=0) + _right(1 - self.never_saw).mean(axis=0)) / 2

    @property
    def accuracy(self) -> float:
        """Mean of `per_sample`: 0.5 ideal, 1 where every model gives itself away; lower is better."""
        return float(self.per_sample.mean())

    @property
    def per_model(self) -> Floats:
        """Accuracy of the attack on the i-th model of each group, (a,), for groups of one size; mean is `accuracy`.

        Their deviation is no error of that mean: models held out in turn share nearly all of their fits.
        """
        return (_right(self.unlearned).mean(axis=1) + _right(1 - self.never_saw).mean(axis=1)) / 2

    @property
    def roc(self) -> Roc:
        """Of all scores of all samples; positives are the unlearned models. Read `tpr_at(0.001)` and `tpr_at(0.01)`."""
        return roc(self.unlearned.ravel(), self.never_saw.ravel())


def u_lira(unlearned: ArrayLike, never_saw: ArrayLike, smallest_std: float = 1e-3) -> ULira:
    """Fit a Gaussian to each group, leaving the attacked model out, and score by N_a(phi) / (N_a(phi) + N_b(phi)).

    Published code scores the models that it fitted, and plain p_y. Here the attacked model is held out, and a model of
    the other group with it (of the same number, wrapping around), so that with a = b both Gaussians rest on equally
    many and no bias is left. Where 0.5 is true, five models a group seem 0.66 in-sample, and 0.48 (three: 0.42) where
    the attacked model alone is held out.

    Args:
        unlearned: (a, n) float, a >= 3, phi of `arrays.logit_confidences` of sample j under the i-th model that
            learned and then unlearned it; the models of different samples may differ.
        never_saw: (b, n) float, b >= 3, under models that never saw it.
        smallest_std: least standard deviation of a Gaussian, in units of phi, for models that are copies.

    Raises:
        ValueError: for fewer than 3 models in a group, or groups that differ in samples.
    """
    learned, never = checked(unlearned, "phi of unlearned models", "a n"), checked(never_saw, "phi of others", "b n")
    if learned.shape[1] != never.shape[1]:
        raise ValueError(f"both groups must hold the same samples, got {learned.shape[1]} and {never.shape[1]}")
    if min(len(learned), len(never)) < 3:
        raise ValueError(
            f"{len(learned)} unlearned models and {len(never)} that never saw the samples: a held-out fit needs at "
            "least 3 of each, and 16 or more to say much"
        )
    if smallest_std <= 0:
        raise ValueError(f"smallest_std={smallest_std} must be above 0; 0.001 is usual")
    return ULira(_scores(learned, never, smallest_std), 1 - _scores(never, learned, smallest_std))


def _scores(own: Floats, other: Floats, smallest_std: float) -> Floats:
    """Give each held-out model of `own` the probability that it belongs there, (a, n)."""
    rows = np.arange(len(own))
    ours = _log_density(own, own, rows, smallest_std)
    theirs = _log_density(own, other, rows % len(other), smallest_std)
    return np.exp(-np.logaddexp(0, theirs - ours))


def _log_density(phi: Floats, group: Floats, left_out: Ints, smallest_std: float) -> Floats:
    """Give ln N(phi_i) for the Gaussian of `group` without row left_out[i], up to a constant: (a, n)."""
    k, mean = len(group), group.mean(axis=0)
    gone = (group - mean)[left_out]  # (a, n)
    centre = mean - gone / (k - 1)
    squares = ((group - mean) ** 2).sum(axis=0) - gone**2 * k / (k - 1)
    std = np.maximum(np.sqrt(np.maximum(squares, 0) / (k - 2)), smallest_std)
    return -np.log(std) - ((phi - centre) / std) ** 2 / 2


def _right(scores: Floats) -> Floats:
    """Give 1 where a score is above a half, 1/2 where it is exactly that."""
    return (scores > 0.5) + (scores == 0.5) / 2
