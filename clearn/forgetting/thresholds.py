"""How well a score tells two groups apart, at every threshold, and above all where false alarms are rare."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from clearn.forgetting.arrays import Floats, checked

LOW_FPRS = (0.001, 0.01)  # where membership attacks are read (Carlini et al. 2022)


@dataclass(frozen=True, eq=False)
class Roc:
    """Rates of "positive" for score >= threshold, at k distinct thresholds from strict to lax.

    Attributes:
        thresholds: (k,) float64, descending, the first infinite: nothing is called positive.
        tpr: (k,) float64, share of positives called positive; from 0 to 1.
        fpr: (k,) float64, share of negatives called positive; from 0 to 1.
    """

    thresholds: Floats
    tpr: Floats
    fpr: Floats

    @property
    def auc(self) -> float:
        """Area under the curve: P(positive > negative) + P(equal) / 2. 0.5 tells nothing, 1 tells all."""
        return float((np.diff(self.fpr) * (self.tpr[1:] + self.tpr[:-1]) / 2).sum())

    def tpr_at(self, fpr: float) -> float:
        """Give the best TPR at a threshold whose FPR is at most `fpr`.

        Nothing is interpolated: with fewer than 1/fpr negatives this is the TPR without any false alarm. For an attack
        on forgotten samples, low is good: `fpr` itself is what guessing reaches.
        """
        if not 0 <= fpr <= 1:
            raise ValueError(f"fpr={fpr} must lie in [0, 1]; 0.001 and 0.01 are usual")
        return float(self.tpr[self.fpr <= fpr].max())


def roc(positives: ArrayLike, negatives: ArrayLike) -> Roc:
    """Sweep a threshold over the scores of two groups.

    Args:
        positives: (n,) float, higher meant to say "positive" (a member, a sample once learned).
        negatives: (m,) float.
    """
    hits, alarms = (np.sort(checked(x, name, "n")) for x, name in ((positives, "positives"), (negatives, "negatives")))
    levels = np.unique(np.concatenate([hits, alarms]))[::-1]
    at_least = [(len(x) - np.searchsorted(x, levels, side="left")) / len(x) for x in (hits, alarms)]
    tpr, fpr = (np.concatenate([[0.0], rate]) for rate in at_least)
    return Roc(np.concatenate([[np.inf], levels]), tpr, fpr)
