"""The forgetting quality of the NeurIPS 2023 unlearning challenge: an empirical epsilon for each forgotten sample.

Triantafillou et al. (2024), "Are we making progress in unlearning?". N unlearned and N retrained models give two
distributions of phi per sample; the best of many simple attacks bounds how well they can be told apart. A deterministic
method run N times from one original gives copies, whose range is 0, and scores 0: take one original per replicate.

The best of so many rules finds something by chance: retrained against retrained models score 0.2 with 8 of each, 0.07
with 64 and 0.04 with 512 (Gaussian phi), not 1. Print beside a method's score that of retrained models in its place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from clearn.forgetting.accuracies import Outcome
from clearn.forgetting.arrays import Floats, checked

LARGEST = 50.0  # epsilons are clipped here
NARROW = 0.01  # a range below this share of the other's is told apart without any attack


@dataclass(frozen=True, eq=False)
class ForgettingQuality:
    """What the challenge makes of two ensembles.

    Attributes:
        epsilons: (m,) float64 in [0, 50], per forgotten sample; lower is better.
        points: (m,) float64 in [0, 1], from `points`.
    """

    epsilons: Floats
    points: Floats

    @property
    def quality(self) -> float:
        """F, the mean of the points, in [0, 1]: higher is better, ideal is what other retrained models score."""
        return float(self.points.mean())

    def final(self, unlearned: Outcome, retrained: Outcome) -> float:
        """Weigh F with utility: F (RA_u / RA_r) (TA_u / TA_r), accuracies averaged over the replicates.

        Returns:
            Higher is better, ideal as for `quality`; above it where the unlearned models are the more accurate ones.
        """
        if not retrained.retain or not retrained.test:
            raise ValueError("retrained models with an accuracy of 0 are no standard: check how they were trained")
        return self.quality * (unlearned.retain / retrained.retain) * (unlearned.test / retrained.test)


def forgetting_quality(unlearned: ArrayLike, retrained: ArrayLike, delta: float = 1e-5) -> ForgettingQuality:
    """Score N unlearned against N retrained models.

    Args:
        unlearned: (a, m) float, phi (`arrays.logit_confidences`) of D_f, a >= 3; the challenge had 512 of each.
        retrained: (b, m) float, b >= 3; N in `points` is the smaller of a and b.
        delta: of (epsilon, delta)-unlearning.

    Raises:
        ValueError: for fewer than 3 models, samples that differ, or delta outside [0, 1).
    """
    ours, theirs = checked(unlearned, "phi of unlearned models", "a m"), checked(retrained, "phi of retrained", "b m")
    if ours.shape[1] != theirs.shape[1]:
        raise ValueError(f"both groups must hold the same samples, got {ours.shape[1]} and {theirs.shape[1]}")
    if min(len(ours), len(theirs)) < 3:
        raise ValueError(f"{len(ours)} unlearned and {len(theirs)} retrained models: at least 3 of each are needed")
    if not 0 <= delta < 1:
        raise ValueError(f"delta={delta} must lie in [0, 1); the challenge took 1e-5")
    table = rule_epsilons(len(ours), len(theirs), delta)
    epsilons = np.array([_sample_epsilon(u, r, table) for u, r in zip(ours.T, theirs.T, strict=True)])
    return ForgettingQuality(epsilons, points(epsilons, min(len(ours), len(theirs))))


def points(epsilons: ArrayLike, n_models: int) -> Floats:
    """Give 1, 1/2, 1/4, ... for epsilon in [0, .5), [.5, 1), ... up to ceil(ln(N - 1)), and 0 from there on.

    >>> points([0.3, 0.5, 1.2, 7.0, np.inf], 512)
    array([1.  , 0.5 , 0.25, 0.  , 0.  ])

    Args:
        epsilons: (m,) float, at least 0; infinity is allowed.
        n_models: N >= 2, which bounds the epsilon that can be seen.
    """
    if n_models < 2:
        raise ValueError(f"n_models={n_models} must be at least 2")
    clipped = checked(np.minimum(epsilons, LARGEST), "epsilons", "m")
    if clipped.min() < 0:
        raise ValueError(f"epsilons must be at least 0, got {clipped.min():g}")
    return np.where(clipped < math.ceil(math.log(n_models - 1)), 0.5 ** np.floor(clipped / 0.5), 0.0)


def rule_epsilons(a: int, b: int, delta: float) -> Floats:
    """Tabulate max{ln(1 - delta - FPR) - ln FNR, ln(1 - delta - FNR) - ln FPR} over what a rule can get wrong.

    Args:
        a: unlearned models, of which a rule misses 0..a.
        b: retrained models, of which it wrongly calls 0..b unlearned.
        delta: of (epsilon, delta)-unlearning.

    Returns:
        (a + 1, b + 1) float64: infinity where nothing is wrong, -infinity where exactly one rate is 0 (the rule is
        discarded: so few models cannot tell how small that rate is) or where neither logarithm exists.
    """
    fnr, fpr = np.arange(a + 1)[:, None] / a, np.arange(b + 1)[None, :] / b
    with np.errstate(divide="ignore"):
        found = np.log(np.maximum(1 - delta - fpr, 0)) - np.log(np.where(fnr > 0, fnr, 1))
        spared = np.log(np.maximum(1 - delta - fnr, 0)) - np.log(np.where(fpr > 0, fpr, 1))
    table = np.where((fnr > 0) & (fpr > 0), np.maximum(found, spared), -np.inf)
    table[0, 0] = np.inf
    return table


def _sample_epsilon(unlearned: Floats, retrained: Floats, table: Floats) -> float:
    """Take the best of all rules "phi lies between two thresholds" and their opposites; one threshold is the edge."""
    ranges = float(np.ptp(unlearned)), float(np.ptp(retrained))
    if min(ranges) == 0 or min(ranges) < NARROW * max(ranges):
        return LARGEST
    levels = np.unique(np.concatenate([unlearned, retrained]))
    below_u, below_r = (
        np.concatenate([[0], np.searchsorted(np.sort(x), levels, side="right")]) for x in (unlearned, retrained)
    )
    left, right = np.triu_indices(len(levels) + 1, 1)  # the cuts around each interval
    inside_u, inside_r = below_u[right] - below_u[left], below_r[right] - below_r[left]
    inside = table[len(unlearned) - inside_u, inside_r].max()
    outside = table[inside_u, len(retrained) - inside_r].max()
    return float(np.clip(max(inside, outside), 0, LARGEST))
