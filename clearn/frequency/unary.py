"""Independent bits: a value is a row with one 1, and every bit is flipped on its own (SUE, OUE, basic RAPPOR)."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cached_property

import numpy as np

from clearn.frequency.coins import Bools, Coins, Ints
from clearn.frequency.mechanism import Array, Floats, Mechanism, _variance, composed
from clearn.frequency.rates import Rates, integers, log_ratio


class Unary(Mechanism):
    """k bits, one of them the value's: SUE, OUE, THE, and L-SUE, L-OUE, L-OSUE, L-SOUE with a permanent step.

    Args:
        k: values.
        permanent: P(memo bit is 1 | bit is 1) and P(memo bit is 1 | bit is 0).
        instant: the same of a report's bit given the memo's.
    """

    def __init__(self, k: int, permanent: Rates | None, instant: Rates | None) -> None:
        super().__init__(k, k, permanent, instant)

    def signal(self, cells: Ints, public: Array) -> Array:
        """(n,) cells -> (n, w) bool, one 1 a row."""
        bits = np.zeros((len(cells), self.memo_bits), bool)
        bits[np.arange(len(cells)), cells] = True
        return bits

    def step(self, signal: Array, rates: Rates, coins: Coins) -> Array:
        """A 1 becomes 1 with probability p, a 0 with q; every bit has its own word."""
        assert rates.bits is not None, "only rounded rates can be drawn"
        words = coins.words(signal.shape, rates.bits)
        p, q = rates.thresholds
        ones = signal & (words < p) if rates.not_p else signal.copy()
        return ones if q == 0 else ones | (words < q)

    @property
    def memo_bits(self) -> int:
        """A bit a value."""
        return self.k

    def to_bits(self, memos: Array) -> Bools:
        """The bits themselves."""
        return memos

    def from_bits(self, bits: Bools) -> Array:
        """The bits themselves."""
        return bits

    def support(self, reports: Array, public: Array) -> Array:
        """Column sums."""
        return reports.view(np.uint8).sum(axis=0, dtype=np.int64)

    @cached_property
    def _rates(self) -> tuple[Fraction, Fraction]:
        return composed(self.permanent, self.instant)

    @property
    def own(self) -> float:
        """ps."""
        return float(self._rates[0])

    @property
    def other(self) -> float:
        """qs."""
        return float(self._rates[1])

    def permanent_variance(self, n: float, f: float | Floats = 0.0) -> Floats:
        """V with the permanent rates alone; 0 where nothing is kept."""
        if self.permanent is None:
            return np.zeros(np.shape(f))
        return _variance(self.permanent.p, self.permanent.q, n, f)

    def loss(self, rounds: int) -> float:
        """Two values differ in two bits: the own bit is 1 in every round, the other value's is 0."""
        if self.permanent is None:
            return rounds * self.loss_any()
        return sum(self.evidence(rounds))

    def evidence(self, rounds: int) -> tuple[float, float]:
        """What a bit loses that is 1 in every round, ln[one(p1)/one(q1)], and one that is 0, ln[zero(q1)/zero(p1)].

        one(x) = x p2^t + (1-x) q2^t, zero(x) = (1-x)(1-q2)^t + x (1-p2)^t; with a permanent step only.
        """
        assert self.permanent is not None
        p1, q1, whole = integers(*self.permanent.exact(), Fraction(1))
        if self.instant is None:
            return log_ratio(p1, q1), log_ratio(whole - q1, whole - p1)
        p2, q2 = self.instant.exact()
        a, b, c, d = (number**rounds for number in integers(p2, q2, 1 - p2, 1 - q2))

        def one(x: int) -> int:
            return x * a + (whole - x) * b

        def zero(x: int) -> int:
            return (whole - x) * d + x * c

        return log_ratio(one(p1), one(q1)), log_ratio(zero(q1), zero(p1))

    def loss_any(self) -> float:
        """Between any two memo states all k bits may differ: k ln max(p2/q2, (1-q2)/(1-p2)); without a memo, two."""
        if self.instant is None:
            return math.inf
        p, q = self.instant.exact()
        one, zero = log_ratio(p, q), log_ratio(1 - q, 1 - p)
        return one + zero if self.permanent is None else self.memo_bits * max(one, zero)

    def telling(self, reports: Array, public: Array, v1: int, v2: int) -> Bools:
        """A 1 for v1 and a 0 for v2."""
        return np.asarray(reports[:, v1] & ~reports[:, v2])

    @property
    def setup_bits(self) -> int:
        """Nothing is sent beforehand."""
        return 0

    @property
    def round_bits(self) -> float:
        """A bit a value."""
        return self.memo_bits
