"""How answers of many users add up: counts drawn from their exact law, at a cost that users do not move.

Given the data, memos are independent over users and memo keys, and given the memos a round's noise is independent over
users and rounds. So a round's counts depend on the memos only through how they add up over the users who hold them, and
both steps can be drawn as sums: the permanent one once, over all users of a group; then the instantaneous one in every
round, over all memos in use, whatever groups they are of.

A lemma is the pair of these sums for one family of mechanisms. `lemma_of` finds it; another family registers its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import singledispatch

import numpy as np

from clearn.frequency.bloom import Bloom
from clearn.frequency.buckets import Buckets
from clearn.frequency.coins import Ints
from clearn.frequency.hadamard import Hadamard, transform
from clearn.frequency.laplace import Laplace
from clearn.frequency.mechanism import Array, Floats, Mechanism
from clearn.frequency.rates import Rates
from clearn.frequency.subset import Subset
from clearn.frequency.symbol import Hashed, Symbol
from clearn.frequency.unary import Unary

Pair = tuple[float, float]  # (p, q)


def flip_bits(ones: Ints, users: Ints | int, p: float, q: float, rng: np.random.Generator) -> Ints:
    """Lemma UE: how many bits are 1 after each 1 stayed with probability p and each 0 became 1 with probability q.

    Bin(ones, p) + Bin(users - ones, q), independent over positions.

    Args:
        ones: (..., w) how many users have a 1 in each position.
        users: all of them; broadcast against `ones`.
        p: P(1 | 1).
        q: P(1 | 0).
        rng: to draw from.
    """
    return rng.binomial(ones, p) + rng.binomial(users - ones, q)


def move_symbols(held: Ints, kept: float, rng: np.random.Generator) -> Ints:
    """Lemma GRR: a histogram of symbols after each was kept with probability `kept` and else drawn anew among all g.

    Randomised response with (p, q) is that with kept = p - q, for p - q + g q = 1. O(g), not O(g^2).

    Args:
        held: (..., g) histograms.
        kept: p - q.
        rng: to draw from.
    """
    stay = rng.binomial(held, kept)
    g = held.shape[-1]
    return stay + rng.multinomial((held - stay).sum(axis=-1), np.full(g, 1 / g))


def spread_halves(held: Ints, size: int, kept: float, rng: np.random.Generator) -> Ints:
    """Hadamard response: a histogram of K indices, each uniform in its value's half or, with 1 - kept, anywhere.

    Value v has the indices i with an even number of ones in i & (v + 1). Bit by bit from the top, users are told apart
    by the bits of the index drawn so far, the bits of v + 1 still to come, and the parity that those have to give: a
    next bit is fair unless it alone decides the parity. Users alike in all three are drawn together: O(K log K).

    Args:
        held: (k,) users who hold each value, k < K.
        size: K, a power of 2.
        kept: 2p - 1, where an index lies in the half with probability p and is uniform on either side.
        rng: to draw from.
    """
    inside = rng.binomial(held, kept)
    users = np.zeros((1, size, 2), np.int64)  # (index bits so far, bits to come of v + 1, parity wanted)
    users[0, 1 : len(held) + 1, 0] = inside
    users[0, 0, 0] = (held - inside).sum()  # no bits, no constraint
    while users.shape[1] > 1:
        parts = users.reshape(len(users), 2, -1, 2)  # (.., next bit of v + 1, the later ones, ..)
        zero = np.full(parts.shape[1:], 0.5)
        zero[1, 0] = 1, 0
        left = rng.binomial(parts, zero)
        right = parts - left
        right[:, 1] = right[:, 1, :, ::-1]
        users = np.stack([left.sum(axis=1), right.sum(axis=1)], axis=1).reshape(2 * len(users), -1, 2)
    return users[:, 0, 0]


def sum_laplace(users: int, size: int, scale: float, rng: np.random.Generator) -> Floats:
    """(size,) sums of as many Laplace variables as users, each: a difference of two Gamma(users) variables."""
    return scale * (rng.standard_gamma(users, size) - rng.standard_gamma(users, size))


class Lemma(ABC):
    """Two sums over users.

    Args:
        keys: memo keys.
        width: numbers that a sum of memos has.
        keeps: whether anything is drawn once, so that sums of memos are carried from round to round.
        changes: whether it is right where values change; it isn't where a user's values share what was drawn once.
        key: (k,) the memo key of each value; the value itself by default.
    """

    def __init__(self, keys: int, width: int, keeps: bool, changes: bool = True, key: Ints | None = None) -> None:
        self.keys, self.width, self.keeps, self.changes, self.key = keys, width, keeps, changes, key

    def fold(self, counts: Ints) -> Ints:
        """(k,) users who hold each value -> (keys,) who hold each memo key."""
        if self.key is None:
            return counts
        folded = np.zeros(self.keys, np.int64)
        np.add.at(folded, self.key, counts)
        return folded

    def settle(self, held: Ints, rng: np.random.Generator) -> Ints:
        """Draw once: (groups, keys) users who hold each memo key -> (groups, w) sums of their memos.

        By default nothing is kept, and what is held stands for the memos.
        """
        return held

    @abstractmethod
    def send(self, memos: Ints, users: int, rng: np.random.Generator) -> Array:
        """Draw a round: (w,) sums over the memos in use, of so many users -> (slots,) counts."""

    def trials(self, memos: Ints, users: int) -> Ints:
        """(slots,) users who could support each slot."""
        return np.full(self.width, users, np.int64)


class Bits(Lemma):
    """Independent bits; a step is its (p, q), or None where it is left out.

    It is also the law of each value alone under local hashing, where another value's bit is 1 one time in g: while
    nobody's value changes all means and covariances over values and rounds are right, and in one round the whole law.
    """

    def __init__(
        self,
        width: int,
        permanent: Pair | None,
        instant: Pair | None,
        changes: bool = True,
        key: Ints | None = None,
    ) -> None:
        super().__init__(width, width, permanent is not None, changes, key)
        self.permanent, self.instant = permanent, instant

    def settle(self, held: Ints, rng: np.random.Generator) -> Ints:
        """Ones in each position."""
        return held if self.permanent is None else flip_bits(held, held.sum(-1, keepdims=True), *self.permanent, rng)

    def send(self, memos: Ints, users: int, rng: np.random.Generator) -> Ints:
        """Ones in each position."""
        return memos if self.instant is None else flip_bits(memos, users, *self.instant, rng)


class Symbols(Lemma):
    """One symbol out of g; a step is its p - q, or None where it is left out."""

    def __init__(self, g: int, permanent: float | None, instant: float | None) -> None:
        super().__init__(g, g, permanent is not None)
        self.permanent, self.instant = permanent, instant

    def settle(self, held: Ints, rng: np.random.Generator) -> Ints:
        """A histogram."""
        return held if self.permanent is None else move_symbols(held, self.permanent, rng)

    def send(self, memos: Ints, users: int, rng: np.random.Generator) -> Ints:
        """A histogram."""
        return memos if self.instant is None else move_symbols(memos, self.instant, rng)


class Filters(Lemma):
    """Bits of a filter that depends on the user's cohort: `Bits` on every cohort, which each user draws once.

    Sums over memos are the ones of all slots, then the users of all cohorts. A user's values share the cohort.
    """

    def __init__(self, mechanism: Bloom) -> None:
        super().__init__(mechanism.k, mechanism.slots + mechanism.cohorts, keeps=True, changes=False)
        self.design = mechanism.design.astype(np.int64)  # (cohorts, k, bits)
        self.permanent, self.instant = _pair(mechanism.permanent), _pair(mechanism.instant)

    def settle(self, held: Ints, rng: np.random.Generator) -> Ints:
        """Ones and users, cohort by cohort."""
        cohorts = len(self.design)
        split = rng.multinomial(held, np.full(cohorts, 1 / cohorts))  # (groups, k, cohorts)
        ones, users = np.einsum("gvc,cvb->gcb", split, self.design), split.sum(axis=1)
        if self.permanent is not None:
            ones = flip_bits(ones, users[:, :, None], *self.permanent, rng)
        return np.concatenate([ones.reshape(len(held), -1), users], axis=1)

    def send(self, memos: Ints, users: int, rng: np.random.Generator) -> Ints:
        """Ones, cohort by cohort."""
        trials = self.trials(memos, users)
        ones = memos[: len(trials)]
        return ones if self.instant is None else flip_bits(ones, trials, *self.instant, rng)

    def trials(self, memos: Ints, users: int) -> Ints:
        """Users of the slot's cohort."""
        cohorts, _, bits = self.design.shape
        return np.repeat(memos[cohorts * bits :], bits)


class Halves(Lemma):
    """Indices out of K, half of which support a value."""

    def __init__(self, mechanism: Hadamard) -> None:
        super().__init__(mechanism.k, mechanism.k, keeps=False)
        self.size, self.kept = mechanism.K, 2 * mechanism.own - 1

    def send(self, memos: Ints, users: int, rng: np.random.Generator) -> Ints:
        """How many indices fell into each value's half."""
        signed = transform(spread_halves(memos, self.size, self.kept, rng))
        return (users + signed[1 : self.width + 1]) // 2


class Noisy(Lemma):
    """Rows with one 1 plus Laplace noise."""

    def __init__(self, k: int, scale: float) -> None:
        super().__init__(k, k, keeps=False)
        self.scale = scale

    def send(self, memos: Ints, users: int, rng: np.random.Generator) -> Floats:
        """Column sums."""
        return memos + sum_laplace(users, self.width, self.scale, rng)


@singledispatch
def lemma_of(mechanism: Mechanism) -> Lemma | None:
    """The lemma of a mechanism's family; None where there is none, and users have to be simulated one by one."""
    return None


@lemma_of.register
def _unary(mechanism: Unary) -> Lemma:
    return Bits(mechanism.k, _pair(mechanism.permanent), _pair(mechanism.instant))


@lemma_of.register
def _symbol(mechanism: Symbol) -> Lemma:
    return Symbols(mechanism.k, _kept(mechanism.permanent, mechanism.k), _kept(mechanism.instant, mechanism.k))


@lemma_of.register
def _hashed(mechanism: Hashed) -> Lemma:
    g, instant = mechanism.symbols, mechanism.instant
    if mechanism.permanent is None:  # a new hash for every report
        return Bits(mechanism.k, None, (mechanism.own, 1 / g))
    second = None if instant is None else (instant.p, instant.not_p / (g - 1))
    return Bits(mechanism.k, (mechanism.permanent.p, 1 / g), second, changes=False)


@lemma_of.register
def _buckets(mechanism: Buckets) -> Lemma | None:
    if mechanism.sampled < mechanism.slots:
        return None  # bits of one user about buckets it sampled together
    key = mechanism.bucket(np.arange(mechanism.k))
    return Bits(mechanism.slots, _pair(mechanism.permanent), _pair(mechanism.instant), key=key)


@lemma_of.register
def _bloom(mechanism: Bloom) -> Lemma:
    return Filters(mechanism)


@lemma_of.register
def _subset(mechanism: Subset) -> Lemma:
    return Bits(mechanism.k, None, (mechanism.own, mechanism.other))  # of each value alone: sets have a fixed size


@lemma_of.register
def _hadamard(mechanism: Hadamard) -> Lemma:
    return Halves(mechanism)


@lemma_of.register
def _laplace(mechanism: Laplace) -> Lemma:
    return Noisy(mechanism.k, mechanism.scale)


def _pair(rates: Rates | None) -> Pair | None:
    return None if rates is None else (rates.p, rates.q)


def _kept(rates: Rates | None, g: int) -> float | None:
    """p - q with q = (1 - p) / (g - 1), as a step draws it."""
    return None if rates is None else rates.p - rates.not_p / (g - 1)
