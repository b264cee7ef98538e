"""One attribute's randomiser: what a user keeps for ever, what goes over the wire, and what the server makes of it.

    value --encode--> cell --permanent step, once--> memo --instantaneous step, each round--> report --> support counts

Every longitudinal protocol is this one composition; a one-shot oracle has no permanent step and keeps nothing. The two
families of steps are in `symbol` (one symbol out of k or g) and `unary` (independent bits). All methods work on arrays
of users, so that a simulation of 10^5 users and a telephone run the same lines.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self

import numpy as np

from clearn.errors import ConfigError
from clearn.frequency.coins import Bools, Coins, Ints
from clearn.frequency.rates import Rates

Array = np.ndarray[Any, np.dtype[Any]]
Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Tally:
    """What the server knows of one attribute after a round.

    Attributes:
        n: users who answered it.
        counts: (slots,) int64, or float64 where reports are real numbers: support of each slot.
        trials: (slots,) int64: users whose report could have supported the slot; n each, but for sampled buckets.
    """

    n: int
    counts: Array
    trials: Ints

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.n + other.n, self.counts + other.counts, self.trials + other.trials)


class Mechanism(ABC):
    """A randomiser of one attribute.

    Attributes:
        k: values of the attribute, at least 2.
        cells: how many keys a memo can have: k, or the hash range, or buckets sampled + 1.
        slots: entries of a tally.
        answers: frequencies estimated: k, or the number of buckets.
        permanent: rates of the step drawn once per cell; None where nothing is kept.
        instant: rates of the step drawn anew in each round; None where the memo itself is sent.
        hashed: whether values share cells by a public hash, so that users who change values need the per-user engine.
        aggregate: what aggregate simulation gets right: "joint" law of all counts, "moments" (all means, variances and
            covariances), "marginals" (of each count alone), or "none" (only the per-user engine is right).
        simulation_only: whether its noise, as drawn here, would leak from a real device.
    """

    hashed: bool = False
    aggregate: str = "joint"
    simulation_only: bool = False

    def __init__(self, k: int, cells: int, permanent: Rates | None, instant: Rates | None) -> None:
        if k < 2:
            raise ConfigError(
                f"an attribute with k={k} values cannot be asked for: k must be at least 2, for a single value has "
                "frequency 1 without any report; leave that attribute out"
            )
        k = int(k)  # a numpy integer would not mix with fractions
        self.k, self.cells, self.slots, self.answers = k, cells, k, k
        self.permanent, self.instant = permanent, instant

    # What a user's device does

    def public(self, n: int, coins: Coins) -> Array:
        """Draw what n users disclose once (hash seeds, sampled buckets): (n, width) of any unsigned dtype."""
        return np.empty((n, 0), np.uint8)

    def cell(self, values: Ints, public: Array) -> Ints:
        """(n,) values in 0..k-1 -> (n,) memo keys in 0..cells-1."""
        return values

    @abstractmethod
    def signal(self, cells: Ints, public: Array) -> Array:
        """(n,) cells and their users' public draws -> what a step randomises: (n,) symbols or (n, w) bool bits."""

    @abstractmethod
    def step(self, signal: Array, rates: Rates, coins: Coins) -> Array:
        """Randomise signals by rounded rates; the result is a signal of the same form."""

    def memoise(self, cells: Ints, public: Array, coins: Coins) -> Array:
        """Draw the permanent answers of (n,) cells of users with these public draws."""
        assert self.permanent is not None
        return self.step(self.signal(cells, public), self.permanent, coins)

    def send(self, memos: Array, coins: Coins) -> Array:
        """Draw one round's reports from memos (or from bare signals, where nothing is kept)."""
        return memos if self.instant is None else self.step(memos, self.instant, coins)

    @property
    def lanes(self) -> int:
        """Numbers that one user's report takes while it is drawn and counted: it sets how many users go at a time."""
        return self.slots

    # How a memo is stored, and a report, which has the same form, is sent

    @property
    @abstractmethod
    def memo_bits(self) -> int:
        """Bits of one stored memo, and of one report."""

    @abstractmethod
    def to_bits(self, memos: Array) -> Bools:
        """(n,) or (n, w) memos or reports -> (n, memo_bits) bool."""

    @abstractmethod
    def from_bits(self, bits: Bools) -> Array:
        """Undo `to_bits`."""

    # What the server does

    @abstractmethod
    def support(self, reports: Array, public: Array) -> Array:
        """(n, ...) reports -> (slots,) how many users support each slot."""

    def valid(self, reports: Array, public: Array) -> Bools:
        """Which of n reports, unpacked from bits of foreign hands, a device could have sent: (n,) bool."""
        return np.ones(len(public), bool)

    def trials(self, public: Array) -> Ints:
        """How many of these users could support each slot: (slots,) int64."""
        return np.full(self.slots, len(public), np.int64)

    def coarse(self, counts: Array) -> Array:
        """(k,) true counts -> (answers,) counts of what is estimated."""
        return counts

    @property
    @abstractmethod
    def own(self) -> float:
        """ps: P(a report supports the value held), both steps composed."""

    @property
    @abstractmethod
    def other(self) -> float:
        """qs: P(a report supports a given other value)."""

    def estimate(self, tally: Tally) -> Floats:
        """Unbiased frequencies (C/n - qs) / (ps - qs): (answers,) float64; nan where nobody answered."""
        if tally.n == 0:
            return np.full(self.answers, np.nan)
        return np.asarray((tally.counts / tally.n - self.other) / (self.own - self.other), np.float64)

    def variance(self, n: float, f: float | Floats = 0.0) -> Floats:
        """Exact variance of one round's estimate for fixed users: [f ps(1-ps) + (1-f) qs(1-qs)] / (n (ps-qs)^2)."""
        return _variance(self.own, self.other, n, f)

    def mean_variance(self, n: float) -> float:
        """Variance averaged over all values, which needs no prior since the frequencies sum to 1."""
        return float(self.variance(n, 1 / self.answers))

    @abstractmethod
    def permanent_variance(self, n: float, f: float | Floats = 0.0) -> Floats:
        """Covariance of two rounds' estimates of users who keep their value: the floor of any average over rounds."""

    # What it costs in privacy; every loss is of the probabilities in force, rounded or not

    @abstractmethod
    def loss(self, rounds: int) -> float:
        """Exact loss eps after `rounds` reports of one unchanged value."""

    @abstractmethod
    def loss_any(self) -> float:
        """Loss per round between two arbitrary trajectories: between any two memo states, or of a fresh step."""

    @abstractmethod
    def telling(self, reports: Array, public: Array, v1: int, v2: int) -> Bools:
        """Which of n reports speak most for v1 against v2: (n,) bool.

        The outputs where P(report | v1) / P(report | v2) is largest. Its frequency under v1 and under v2 bounds the
        loss from below, and for reports of an unchanged value that are all telling so does that of several rounds.
        """

    # What it costs in bits

    @property
    @abstractmethod
    def setup_bits(self) -> int:
        """Bits sent once, the attribute's index apart."""

    @property
    @abstractmethod
    def round_bits(self) -> float:
        """Bits of one report."""

    @property
    def public_bits(self) -> int:
        """Bits a device keeps that are no secret: its hash seed or its bucket indices."""
        return 0

    def state_bits(self, met: int) -> int:
        """Secret bits a device keeps in a table after meeting `met` cells: a bitmap of keys and the memos."""
        return 0 if self.permanent is None else met * self.memo_bits + self.cells

    def loss_for_ever(self) -> float:
        """Exact loss after infinitely many reports of one unchanged value: the memo's; inf where there is none."""
        if self.permanent is None:
            return math.inf
        bare = self._changed()
        bare.instant = None
        return bare.loss(1)

    # Rounding

    def _changed(self) -> Self:
        """A copy whose rates may be replaced: nothing computed from the old ones stays."""
        found = copy.copy(self)
        vars(found).pop("_rates", None)
        return found

    def rounded(self, width: int) -> Self:
        """The mechanism that words of `width` random bits realise; its own rates, estimator and losses follow."""
        found = self._changed()
        found.permanent = None if self.permanent is None else self.permanent.rounded(width)
        found.instant = None if self.instant is None else self.instant.rounded(width)
        return found


def composed(permanent: Rates | None, instant: Rates | None) -> tuple[Fraction, Fraction]:
    """(ps, qs) of two steps: ps = p1 p2 + (1-p1) q2, qs = q1 p2 + (1-q1) q2."""
    steps = [step.exact() for step in (permanent, instant) if step is not None]
    if len(steps) == 1:
        return steps[0]
    (p1, q1), (p2, q2) = steps
    return p1 * p2 + (1 - p1) * q2, q1 * p2 + (1 - q1) * q2


def _variance(own: float, other: float, n: float, f: float | Floats) -> Floats:
    if n <= 0:
        return np.full(np.shape(f), math.nan)
    spread = np.asarray(f) * own * (1 - own) + (1 - np.asarray(f)) * other * (1 - other)
    return np.asarray(spread / (n * (own - other) ** 2), np.float64)
