"""Subset selection: a random set of w values, in which one's own is found more often than another (Ye, Barg 2018)."""

from __future__ import annotations

from math import lgamma, log

import numpy as np

from clearn.errors import ConfigError
from clearn.frequency.coins import Bools, Coins
from clearn.frequency.mechanism import Array
from clearn.frequency.oneshot import OneShot
from clearn.frequency.rates import Rates, log_ratio


class Subset(OneShot):
    """A set of w out of k values; a report is its (n, k) bool membership, which tells nothing of the order of drawing.

    Args:
        k: values.
        w: size of the set, 1 <= w < k.
        instant: P(own value in the set) and P(given other value in the set) = (w - p) / (k - 1).
    """

    aggregate = "marginals"

    def __init__(self, k: int, w: int, instant: Rates) -> None:
        super().__init__(k, instant)
        if not 1 <= w < k:
            raise ConfigError(f"w={w} must lie in [1, {k - 1}]: it is the size of a subset of {k} values")
        self.w = int(w)

    def step(self, signal: Array, rates: Rates, coins: Coins) -> Array:
        """Draw w of the other values; with probability p, one's own takes the place of one of them."""
        assert rates.bits is not None, "only rounded rates can be drawn"
        n = len(signal)
        keep = coins.words((n,), rates.bits) < rates.thresholds[0]
        drawn = coins.distinct(n, self.k - 1, self.w)
        drawn += drawn >= signal[:, None]  # the others, numbered around one's own
        replaced = coins.below(self.w, (n,))
        drawn[keep, replaced[keep]] = signal[keep]
        chosen = np.zeros((n, self.k), bool)
        np.put_along_axis(chosen, drawn, True, axis=1)
        return chosen

    @property
    def memo_bits(self) -> int:
        """A bit a value, as a report is packed; `round_bits` is what a code for sets of w would need."""
        return self.k

    def to_bits(self, memos: Array) -> Bools:
        """The memberships themselves."""
        return memos

    def from_bits(self, bits: Bools) -> Array:
        """The memberships themselves."""
        return bits

    def support(self, reports: Array, public: Array) -> Array:
        """Column sums."""
        return reports.view(np.uint8).sum(axis=0, dtype=np.int64)

    def valid(self, reports: Array, public: Array) -> Bools:
        """Sets of w."""
        return np.asarray(reports.sum(axis=1) == self.w)

    @property
    def own(self) -> float:
        """p."""
        return float(self.keep)

    @property
    def other(self) -> float:
        """(w - p) / (k - 1), for the set has w values."""
        return float((self.w - self.keep) / (self.k - 1))

    def loss_any(self) -> float:
        """ln[p / C(k-1, w-1) C(k-1, w) / (1-p)] = ln[p (k-w) / ((1-p) w)]."""
        return log_ratio(self.keep * (self.k - self.w), (1 - self.keep) * self.w)

    def telling(self, reports: Array, public: Array, v1: int, v2: int) -> Bools:
        """Sets with v1 and without v2."""
        return np.asarray(reports[:, v1] & ~reports[:, v2])

    @property
    def round_bits(self) -> float:
        """log2 C(k, w)."""
        return (lgamma(self.k + 1) - lgamma(self.w + 1) - lgamma(self.k - self.w + 1)) / log(2)
