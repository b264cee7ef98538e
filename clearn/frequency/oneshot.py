"""What randomisers without a memo have in common: each report is drawn from the value itself and spends eps anew."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from clearn.frequency.coins import Ints
from clearn.frequency.mechanism import Array, Floats, Mechanism
from clearn.frequency.rates import Rates


class OneShot(Mechanism):
    """A randomiser that keeps nothing.

    Args:
        k: values.
        instant: rates of a report; None where its noise is no matter of probabilities.
    """

    def __init__(self, k: int, instant: Rates | None) -> None:
        super().__init__(k, k, None, instant)

    @property
    def keep(self) -> Fraction:
        """p exactly: P(the report supports the value held)."""
        assert self.instant is not None
        return self.instant.exact()[0]

    def signal(self, cells: Ints, public: Array) -> Array:
        """The value itself."""
        return cells

    def permanent_variance(self, n: float, f: float | Floats = 0.0) -> Floats:
        """0: the noise of two rounds has nothing in common."""
        return np.zeros(np.shape(f))

    def loss(self, rounds: int) -> float:
        """The losses of all reports add up."""
        return rounds * self.loss_any()

    @property
    def setup_bits(self) -> int:
        """Nothing is sent beforehand."""
        return 0
