"""Bloom filters with flipped bits, in cohorts: RAPPOR in its general form (Erlingsson, Pihur, Korolova 2014).

A value sets a few bits out of many, by hash functions that differ between cohorts of users, so that values which fall
together in one cohort lie apart in another. The server solves for frequencies by least squares over all reports, which
is unbiased; the paper adds a choice of candidates by lasso, for domains that nobody can list.
"""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np

from clearn.errors import ConfigError
from clearn.frequency.coins import Bools, Coins, Ints
from clearn.frequency.mechanism import Array, Floats, Tally
from clearn.frequency.rates import Rates
from clearn.frequency.symbol import hash_to
from clearn.frequency.unary import Unary


class Bloom(Unary):
    """The bits of a Bloom filter, randomised once for ever and once more in each round.

    Args:
        k: values.
        bits: of a filter.
        hashes: bits that a value sets, fewer where its hashes collide.
        cohorts: of users; each user draws one once and tells which.
        permanent: of a memo's bit, given the filter's.
        instant: of a report's bit, given the memo's.

    Attributes:
        design: (cohorts, k, bits) bool: the filter of every value in every cohort. Public, and the same for everybody.

    Raises:
        ConfigError: filters that leave some values' frequencies undetermined.
    """

    def __init__(self, k: int, bits: int, hashes: int, cohorts: int, permanent: Rates, instant: Rates | None) -> None:
        super().__init__(k, permanent, instant)
        self.bits, self.hashes, self.cohorts = bits, hashes, cohorts
        self.slots = cohorts * bits
        self.design = filters(k, bits, hashes, cohorts)
        lowest, *_, highest = np.linalg.eigvalsh(self._gram(np.ones(cohorts)))
        if not lowest > 1e-9 * highest:
            raise ConfigError(
                f"cohorts={cohorts} filters of bits={bits} cannot tell k={k} values apart: their product must be "
                "larger than k, better several times; give more cohorts or more bits"
            )

    def public(self, n: int, coins: Coins) -> Array:
        """The cohort: (n, 1) uint8, or uint16 and more where there are many."""
        return coins.below(self.cohorts, (n, 1)).astype(np.min_scalar_type(self.cohorts - 1))

    def signal(self, cells: Ints, public: Array) -> Array:
        """(n, bits) bool: the filter of the value in the user's cohort."""
        return self.design[public[:, 0], cells]

    @property
    def memo_bits(self) -> int:
        """A bit of the filter each."""
        return self.bits

    @property
    def lanes(self) -> int:
        """The bits of one filter."""
        return self.bits

    def support(self, reports: Array, public: Array) -> Array:
        """Ones of every bit, cohort by cohort: (cohorts * bits,)."""
        slot = public.astype(np.int64) * self.bits + np.arange(self.bits)
        return np.bincount(slot[reports], minlength=self.slots).astype(np.int64)

    def valid(self, reports: Array, public: Array) -> Bools:
        """Cohorts that exist."""
        return np.asarray(public[:, 0] < self.cohorts)

    def trials(self, public: Array) -> Ints:
        """Users of the slot's cohort."""
        return np.repeat(np.bincount(public[:, 0], minlength=self.cohorts), self.bits).astype(np.int64)

    def estimate(self, tally: Tally) -> Floats:
        """Frequencies f with the least sum over all reports' bits of [(bit - qs) / (ps - qs) - sum_v f_v filter_v]^2.

        Unbiased over the draw of cohorts; nan where too few cohorts answered to determine f.
        """
        users = tally.trials.reshape(self.cohorts, self.bits)[:, 0]
        gram = self._gram(users)
        if np.linalg.matrix_rank(gram, hermitian=True) < self.k:
            return np.full(self.k, np.nan)
        ones = (tally.counts - tally.trials * self.other) / (self.own - self.other)
        return np.linalg.solve(gram, self._matrix.T @ ones)

    def variance(self, n: float, f: float | Floats = 0.0) -> Floats:
        """Variance of one round's estimate for fixed users, to the first order in 1/n: cohorts are taken as equal.

        Args:
            n: users.
            f: (k,) all frequencies, for the variance of each; or one number, for the mean over values that all have it.
        """
        return self._errors(self.own, self.other, n, f)

    def permanent_variance(self, n: float, f: float | Floats = 0.0) -> Floats:
        """The same with the memo's rates: cohorts and memos are drawn once."""
        assert self.permanent is not None
        return self._errors(self.permanent.p, self.permanent.q, n, f)

    def _errors(self, own: float, other: float, n: float, f: float | Floats) -> Floats:
        """Add up the noise of bits and that of drawing cohorts, through the inverse of the mean gram matrix."""
        if n <= 0:
            return np.full(np.shape(f), math.nan)
        held = np.broadcast_to(np.asarray(f, np.float64), (self.k,))
        inverse = np.linalg.inv(self._gram(np.full(self.cohorts, 1 / self.cohorts)))
        ones = self._matrix @ held  # share of a cohort's users who set the bit
        noise = (ones * own * (1 - own) + (1 - ones) * other * (1 - other)) / (own - other) ** 2
        found = noise @ (self._matrix @ inverse) ** 2 / self.cohorts
        for codes in self.design.astype(np.float64):
            moved = codes @ (
                codes.T @ inverse
            )  # row v: what a user of this cohort who holds v adds to n f, noise apart
            found += (held @ moved**2 - (held @ moved) ** 2) / self.cohorts
        found -= held * (1 - held)
        return np.asarray(found / n if np.ndim(f) else found.mean() / n)

    def loss(self, rounds: int) -> float:
        """The worst pair of values: bits that only the one sets, and bits that only the other sets."""
        one, zero = self.evidence(rounds)
        return max(ours * one + theirs * zero for ours, theirs in self._gaps)

    def telling(self, reports: Array, public: Array, v1: int, v2: int) -> Bools:
        """All ones where only v1 sets a bit and zeros where only v2 does, in the cohorts where that is most bits."""
        first, second = self.design[:, v1], self.design[:, v2]  # (cohorts, bits)
        ours, theirs = first & ~second, second & ~first
        one, zero = self.evidence(1)
        weight = ours.sum(axis=1) * one + theirs.sum(axis=1) * zero
        cohort = public[:, 0]
        wrong = np.where(reports, theirs[cohort], ours[cohort]).any(axis=1)
        return np.asarray(~wrong & np.isclose(weight, weight.max())[cohort])

    @property
    def setup_bits(self) -> int:
        """The cohort."""
        return (self.cohorts - 1).bit_length()

    @property
    def public_bits(self) -> int:
        """The cohort."""
        return self.setup_bits

    @cached_property
    def _matrix(self) -> Floats:
        """(cohorts * bits, k): which slots a value sets."""
        return self.design.transpose(0, 2, 1).reshape(self.slots, self.k).astype(np.float64)

    def _gram(self, users: Array) -> Floats:
        """(k, k): slots that two values both set, weighted by the users of each cohort."""
        return np.asarray((self._matrix * np.repeat(users, self.bits)[:, None]).T @ self._matrix)

    @cached_property
    def _gaps(self) -> set[tuple[int, int]]:
        """(bits only the one sets, bits only the other sets), of all pairs of values in all cohorts."""
        found: set[tuple[int, int]] = set()
        for codes in self.design.astype(np.float32):
            weight, common = codes.sum(axis=1), codes @ codes.T
            ours, theirs = weight[:, None] - common, weight - common
            pairs = np.unique((ours * (self.hashes + 1) + theirs).astype(np.int64))
            found |= {divmod(int(pair), self.hashes + 1) for pair in pairs}
            if (self.hashes, self.hashes) in found:  # no pair can be worse
                break
        return found


def filters(k: int, bits: int, hashes: int, cohorts: int) -> Bools:
    """Bloom filters of all values in all cohorts, from public hashes: (cohorts, k, bits) bool."""
    found = np.zeros((cohorts, k, bits), bool)
    values = np.arange(k, dtype=np.uint64)
    for cohort in range(cohorts):
        for number in range(hashes):
            seed = np.full(k, cohort * hashes + number, np.uint64)
            found[cohort, np.arange(k), hash_to(seed, values, bits)] = True
    return found
