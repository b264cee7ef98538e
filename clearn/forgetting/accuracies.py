"""How often a model is right on the forgotten, the retained and the test samples, and how far that is from retraining.

Accuracies are sample means; the mean of per-batch accuracies, which the SSD release reports, weighs a short last batch
too much. No accuracy is good or bad alone: what counts is the distance to the model retrained without the data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from clearn.forgetting.arrays import checked_labels, checked_logits


@dataclass(frozen=True)
class Share:
    """A share of samples, counted.

    Attributes:
        hits: samples of which something holds.
        total: samples asked, at least 1.
    """

    hits: int
    total: int

    def __post_init__(self) -> None:
        if not 0 <= self.hits <= self.total or not self.total:
            raise ValueError(f"{self.hits} hits of {self.total} samples: hits must lie in [0, total], total above 0")

    @property
    def value(self) -> float:
        """hits / total, in [0, 1]."""
        return self.hits / self.total

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Give Wilson's interval (1927), which stays inside [0, 1] and is honest for small samples.

        >>> low, high = Share(93, 100).interval()
        >>> round(low, 4), round(high, 4)
        (0.8625, 0.9657)
        """
        from scipy.special import ndtri

        if not 0 < level < 1:
            raise ValueError(f"level={level} must lie between 0 and 1; 0.95 is usual")
        n, p, z = self.total, self.value, float(ndtri((1 + level) / 2))
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return (0.0 if self.hits == 0 else centre - half), (1.0 if self.hits == n else centre + half)


def accuracy(logits: ArrayLike, labels: ArrayLike) -> Share:
    """Count the samples whose largest logit is their label's; of equal logits the first counts.

    Args:
        logits: (n, c) float.
        labels: (n,) int in [0, c).
    """
    z = checked_logits(logits, "logits")
    return Share(int((z.argmax(axis=1) == checked_labels(labels, *z.shape)).sum()), len(z))


@dataclass(frozen=True)
class Outcome:
    """The headline numbers of one model, fractions in [0, 1]; each is ideal where it equals the retrained model's.

    Attributes:
        forget: accuracy on D_f, the forgotten training samples.
        retain: accuracy on D_r, the training samples that stay (RA).
        test: accuracy on test samples (TA); where a class is forgotten, those of the classes that stay.
        mia: score of a membership attack as a share of D_f; for ToW-MIA and the average gap of the SalUn lineage the
            efficacy of `membership.confidence_attack`. None where no attack was made.
    """

    forget: float
    retain: float
    test: float
    mia: float | None = None

    def __post_init__(self) -> None:
        for name in ("forget", "retain", "test", "mia"):
            value: float | None = vars(self)[name]
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name}={value} must be a fraction in [0, 1]; divide percentages by 100")

    @property
    def ua(self) -> float:
        """Unlearning accuracy, 1 - forget: the share of D_f the model gets wrong."""
        return 1 - self.forget


def average_gap(unlearned: Outcome, retrained: Outcome) -> float:
    """Average the distances |u - r| of UA, RA, TA and MIA (Jia et al. 2023, l1-sparse; Fan et al. 2024, SalUn).

    Returns:
        A fraction in [0, 1], 0 ideal, lower is better; published tables give 100 times it.

    Raises:
        ValueError: if one of them has no MIA.
    """
    attacked = _attacked(unlearned, retrained)
    return float(np.abs(np.subtract(_accuracies(unlearned), _accuracies(retrained))).sum() + attacked) / 4


def tug_of_war(unlearned: Outcome, retrained: Outcome) -> float:
    """Multiply 1 - |u - r| over the accuracies on D_f, D_r and test (Zhao et al. 2024, ToW).

    >>> round(tug_of_war(Outcome(0.10, 0.95, 0.90), Outcome(0.12, 0.97, 0.92)), 6)
    0.941192

    Returns:
        A fraction in [0, 1], 1 ideal, higher is better.
    """
    return float(np.prod(1 - np.abs(np.subtract(_accuracies(unlearned), _accuracies(retrained)))))


def tug_of_war_mia(unlearned: Outcome, retrained: Outcome) -> float:
    """Give ToW with the factor of D_f made from the attack, 1 - |MIA_u - MIA_r|; as `tug_of_war` otherwise.

    Raises:
        ValueError: if one of them has no MIA.
    """
    gaps = np.abs(np.subtract(_accuracies(unlearned), _accuracies(retrained)))
    gaps[0] = _attacked(unlearned, retrained)
    return float(np.prod(1 - gaps))


def _accuracies(outcome: Outcome) -> tuple[float, float, float]:
    return outcome.forget, outcome.retain, outcome.test


def _attacked(unlearned: Outcome, retrained: Outcome) -> float:
    if unlearned.mia is None or retrained.mia is None:
        raise ValueError("this measure needs the MIA of both models, got none: attack them with `confidence_attack`")
    return abs(unlearned.mia - retrained.mia)
