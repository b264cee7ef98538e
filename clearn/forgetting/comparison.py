"""Is a number that of retraining? Paired differences over training seeds, beside the noise among retrained models.

The original, the unlearned and the retrained model of a seed belong together; one retrained model for all seeds, or
many unlearnings of one original, do not replace training seeds. Few seeds cannot show equality, since the interval of
their mean is wider than the noise it must fit into: a perfect method with Gaussian noise of its own is found
"indistinguishable" with 3, 5, 8, 10 seeds in 8, 52, 92, 97 % of tables, and is "undecided" in the others. Take 10.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from clearn.forgetting.arrays import Floats, check_alike, checked


@dataclass(frozen=True, eq=False)
class PairedDifference:
    """Unlearned minus retrained, seed by seed, in the unit of the measure.

    Attributes:
        values: (s,) float64; publish them, since some methods are excellent on one seed and ruinous on another.
        low: lower end of Student's t-interval of their mean.
        high: upper end.
    """

    values: Floats
    low: float
    high: float

    @property
    def mean(self) -> float:
        """Mean over the seeds; 0 ideal."""
        return float(self.values.mean())


@dataclass(frozen=True)
class NoiseFloor:
    """The central part of M(retrained s) - M(retrained s') over all ordered pairs of seeds: symmetric about 0.

    Attributes:
        low: lower end, in the unit of the measure.
        high: upper end, -low.
    """

    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """A measure of unlearned models beside that of retrained ones.

    Attributes:
        difference: paired, with its interval.
        floor: what seeds alone make.
    """

    difference: PairedDifference
    floor: NoiseFloor

    @property
    def verdict(self) -> Literal["indistinguishable", "different", "undecided"]:
        """Test for equivalence: that no difference was found is no proof that there is none.

        "indistinguishable" only if the whole interval lies inside the floor, ends included; "different" if it lies
        wholly outside; "undecided" otherwise, where more seeds are needed.
        """
        if self.floor.low <= self.difference.low and self.difference.high <= self.floor.high:
            return "indistinguishable"
        outside = self.difference.low > self.floor.high or self.difference.high < self.floor.low
        return "different" if outside else "undecided"


def paired_difference(unlearned: ArrayLike, retrained: ArrayLike, level: float = 0.95) -> PairedDifference:
    """Give mean +- t s / sqrt(n) of the paired differences, t of Student with n - 1 degrees of freedom.

    Args:
        unlearned: (s,) float, the measure for each training seed, s >= 2.
        retrained: (s,) float, of the model retrained with the same seed.
        level: confidence.
    """
    from scipy.special import stdtrit

    ours, theirs = checked(unlearned, "unlearned values", "s"), checked(retrained, "retrained values", "s")
    check_alike(ours, theirs, "unlearned and retrained values")
    _check_seeds(len(ours), level)
    values = ours - theirs
    half = float(stdtrit(len(values) - 1, (1 + level) / 2)) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return PairedDifference(values, float(values.mean()) - half, float(values.mean()) + half)


def noise_floor(retrained: ArrayLike, level: float = 0.95, resolution: float = 0.0) -> NoiseFloor:
    """Give the central `level` of the differences between retrained models, quantiles by linear interpolation.

    Args:
        retrained: (s,) float, the measure of models retrained with different seeds, s >= 2.
        level: share of the differences to keep.
        resolution: least half-width, the smallest step of the measure: 1 / n for an accuracy on n samples. With 0 and
            retrained models that all score alike (often 0 on a forgotten class), one sample more is a difference.
    """
    values = checked(retrained, "retrained values", "s")
    _check_seeds(len(values), level)
    differences = (values[:, None] - values[None, :])[~np.eye(len(values), dtype=bool)]
    if not 0 <= resolution < math.inf:
        raise ValueError(f"resolution={resolution} must be at least 0: the smallest step that the measure can take")
    high = max(float(np.quantile(differences, (1 + level) / 2)), resolution)
    return NoiseFloor(0.0 - high, high)


def compare(unlearned: ArrayLike, retrained: ArrayLike, level: float = 0.95, resolution: float = 0.0) -> Comparison:
    """Compare a measure with retraining's, paired by seed; see `Comparison.verdict`.

    Args:
        unlearned: (s,) float, the measure for each training seed, s >= 2.
        retrained: (s,) float, of the model retrained with the same seed.
        level: of the interval and of the floor.
        resolution: as in `noise_floor`.
    """
    return Comparison(paired_difference(unlearned, retrained, level), noise_floor(retrained, level, resolution))


def _check_seeds(n: int, level: float) -> None:
    if n < 2:
        raise ValueError(f"{n} seed has no spread: give at least 2, 10 to conclude")
    if not 0 < level < 1:
        raise ValueError(f"level={level} must lie between 0 and 1; 0.95 is usual")
