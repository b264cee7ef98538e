"""A few buckets of an ordered domain, one bit each, answered once and for all (Ding, Kulkarni, Yekhanin 2017).

Values are coarsened to buckets; a user samples some of them once and tells which. What it keeps is one row of bits for
each sampled bucket that its value may lie in, and one for "none of them". Rows are sent as they are, without further
noise: a change of value that changes the row is seen at once.
"""

from __future__ import annotations

import math

import numpy as np

from clearn.errors import ConfigError
from clearn.frequency.coins import Bools, Coins, Ints
from clearn.frequency.mechanism import Array, Floats, Tally
from clearn.frequency.rates import Rates
from clearn.frequency.unary import Unary


class Buckets(Unary):
    """Bits of sampled buckets, with a permanent step alone.

    Args:
        k: values.
        buckets: how many the domain is cut into, 2 <= buckets <= k: value v lies in bucket v * buckets // k.
        sampled: how many of them a user answers, 1 <= sampled <= buckets; where it is all, nothing is disclosed.
        permanent: P(bit is 1 | value in the bucket) and P(bit is 1 | value elsewhere).
        expected: divide by the expected number of users who sampled a bucket instead of by the real one.
    """

    def __init__(self, k: int, buckets: int, sampled: int, permanent: Rates, expected: bool) -> None:
        super().__init__(k, permanent, None)
        if not 2 <= buckets <= k:
            raise ConfigError(f"buckets={buckets} must lie in [2, {k}]: an attribute of {k} values is cut into them")
        if not 1 <= sampled <= buckets:
            raise ConfigError(f"sampled={sampled} must lie in [1, {buckets}]: a user answers so many of the buckets")
        self.slots = self.answers = buckets
        self.sampled, self.expected = sampled, expected
        self.cells = sampled + 1
        if sampled < buckets:
            self.aggregate = "none"  # bits about buckets that a user sampled together are no sums of independent ones

    def bucket(self, values: Ints) -> Ints:
        """Bucket of each value, in whole numbers: a floating-point quotient misplaces some values."""
        return values * self.slots // self.k

    def coarse(self, counts: Array) -> Array:
        """(k,) counts of values -> (buckets,)."""
        found = np.zeros(self.slots, counts.dtype)
        np.add.at(found, self.bucket(np.arange(self.k)), counts)
        return found

    def public(self, n: int, coins: Coins) -> Array:
        """The sampled buckets: (n, sampled); (n, 0) where that is all of them."""
        if self.sampled == self.slots:
            return np.empty((n, 0), np.uint8)
        return coins.distinct(n, self.slots, self.sampled).astype(np.min_scalar_type(self.slots - 1))

    def cell(self, values: Ints, public: Array) -> Ints:
        """Which of the sampled buckets holds the value; `sampled` where none does."""
        held = self.bucket(values)
        if self.sampled == self.slots:
            return held
        hit = public == held[:, None]
        return np.where(hit.any(axis=1), hit.argmax(axis=1), self.sampled)

    def signal(self, cells: Ints, public: Array) -> Array:
        """(n, sampled) bool: a 1 at the bucket that holds the value, or no 1 at all."""
        return cells[:, None] == np.arange(self.sampled)

    @property
    def memo_bits(self) -> int:
        """A bit a sampled bucket."""
        return self.sampled

    def support(self, reports: Array, public: Array) -> Array:
        """Ones of each bucket."""
        if self.sampled == self.slots:
            return super().support(reports, public)
        return np.bincount(public[reports], minlength=self.slots).astype(np.int64)

    def valid(self, reports: Array, public: Array) -> Bools:
        """Different buckets that exist."""
        ordered = np.sort(public, axis=1)
        return np.asarray((ordered < self.slots).all(axis=1) & (ordered[:, 1:] != ordered[:, :-1]).all(axis=1))

    def trials(self, public: Array) -> Ints:
        """Users who sampled each bucket."""
        if self.sampled == self.slots:
            return super().trials(public)
        return np.bincount(public.ravel(), minlength=self.slots).astype(np.int64)

    def estimate(self, tally: Tally) -> Floats:
        """Unbiased frequencies: sum of (bit - q) / (p - q) over those who sampled a bucket, by their number."""
        if tally.n == 0:
            return np.full(self.answers, np.nan)
        total = (tally.counts - tally.trials * self.other) / (self.own - self.other)
        users = tally.n * self.sampled / self.slots if self.expected else np.where(tally.trials, tally.trials, np.nan)
        return np.asarray(total / users, np.float64)

    def variance(self, n: float, f: float | Floats = 0.0) -> Floats:
        """Variance over bits and over who samples what, with s = sampled / buckets and V that of one user's bit.

        Divided by the expected number: [V / s + f (1/s - 1)] / n. By the real number m, E[1/m] is taken to the second
        order, (1 + (1-s) / (n s)) / (n s), and the users who sampled a bucket are a sample without replacement:
        V E[1/m] + f (1-f) (n E[1/m] - 1) / (n - 1).
        """
        if n <= 0:
            return np.full(np.shape(f), math.nan)
        one, held, share = super().variance(1, f), np.asarray(f), self.sampled / self.slots
        if self.expected:
            return np.asarray((one / share + held * (1 / share - 1)) / n)
        inverse = (1 + (1 - share) / (n * share)) / (n * share)
        return np.asarray(inverse * one + held * (1 - held) * (n * inverse - 1) / max(n - 1, 1))

    def permanent_variance(self, n: float, f: float | Floats = 0.0) -> Floats:
        """All of it: users who keep their value send the same row in every round."""
        return self.variance(n, f)

    def loss(self, rounds: int) -> float:
        """Two values differ in two sampled bits, however many rounds; where one bucket is sampled, in one bit."""
        one, zero = self.evidence(rounds)
        return max(one, zero) if self.sampled == 1 else one + zero

    def telling(self, reports: Array, public: Array, v1: int, v2: int) -> Bools:
        """A 1 for v1 and a 0 for v2, of users who sampled both buckets, or either where each samples one alone."""
        first, second = (int(bucket) for bucket in self.bucket(np.array([v1, v2])))
        if first == second:
            return np.zeros(len(reports), bool)
        if self.sampled == self.slots:
            return np.asarray(reports[:, first] & ~reports[:, second])
        one, zero = ((public == first) & reports).any(axis=1), ((public == second) & ~reports).any(axis=1)
        return one | zero if self.sampled == 1 else one & zero

    @property
    def public_bits(self) -> int:
        """Numbers of the sampled buckets; none where all are."""
        return 0 if self.sampled == self.slots else self.sampled * (self.slots - 1).bit_length()

    @property
    def setup_bits(self) -> int:
        """The same, sent once."""
        return self.public_bits
