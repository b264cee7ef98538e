"""Hadamard response, high-privacy form: one index out of K, support sets from a Hadamard matrix (Acharya et al. 2019).

Entry (i, j) of the K x K Sylvester matrix is +1 where i & j has an even number of ones. C_x, the support of value x, is
the K/2 columns where row x + 1 is +1; two of these sets share K/4 columns.
"""

from __future__ import annotations

import numpy as np

from clearn.frequency.coins import Bools, Coins, Ints
from clearn.frequency.mechanism import Array
from clearn.frequency.oneshot import OneShot
from clearn.frequency.rates import Rates, log_ratio
from clearn.frequency.symbol import from_binary, to_binary


class Hadamard(OneShot):
    """An index that lies in the value's set with probability p, uniform inside the set and outside.

    Args:
        k: values.
        instant: p, and q = 1/2.

    Attributes:
        K: indices, 2^ceil(log2(k + 1)).
    """

    def __init__(self, k: int, instant: Rates) -> None:
        super().__init__(k, instant)
        self.K = 1 << int(k).bit_length()
        self.dtype = np.min_scalar_type(self.K - 1)

    def step(self, signal: Array, rates: Rates, coins: Coins) -> Array:
        """Draw any index; where it is on the wrong side of the value's set, flip the bit that changes sides."""
        assert rates.bits is not None, "only rounded rates can be drawn"
        inside = coins.words(signal.shape, rates.bits) < rates.thresholds[0]
        index, row = coins.below(self.K, signal.shape), signal + 1
        lowest = row & -row  # the two sides are each other's image under this flip, so the draw stays uniform
        return np.where(even(index & row) == inside, index, index ^ lowest).astype(self.dtype)

    @property
    def lanes(self) -> int:
        """One index."""
        return 1

    @property
    def memo_bits(self) -> int:
        """log2 K."""
        return self.K.bit_length() - 1

    def to_bits(self, memos: Array) -> Bools:
        """(n,) indices -> (n, log2 K), high bit first."""
        return to_binary(memos, self.memo_bits)

    def from_bits(self, bits: Bools) -> Array:
        """Undo `to_bits`."""
        return from_binary(bits).astype(self.dtype)

    def support(self, reports: Array, public: Array) -> Array:
        """Reports in each value's set, all at once: (n + row x + 1 of the transformed histogram) / 2."""
        signed = transform(np.bincount(reports, minlength=self.K))
        return (len(reports) + signed[1 : self.k + 1]) // 2

    @property
    def own(self) -> float:
        """p."""
        return float(self.keep)

    @property
    def other(self) -> float:
        """1/2: half of another value's set lies in one's own."""
        return 0.5

    def loss_any(self) -> float:
        """ln[p / (1-p)]: both sides have K/2 indices."""
        return log_ratio(self.keep, 1 - self.keep)

    def telling(self, reports: Array, public: Array, v1: int, v2: int) -> Bools:
        """Indices in the set of v1 and not in that of v2."""
        index = reports.astype(np.int64)
        return np.asarray(even(index & (v1 + 1)) & ~even(index & (v2 + 1)))

    @property
    def round_bits(self) -> float:
        """log2 K."""
        return self.memo_bits


def even(numbers: Ints) -> Bools:
    """Whether non-negative integers below 2^32 have an even number of ones."""
    folded = numbers
    for shift in (16, 8, 4, 2, 1):
        folded = folded ^ (folded >> shift)
    return np.asarray(folded & 1 == 0)


def transform(histogram: Ints) -> Ints:
    """Multiply by the Sylvester matrix in K log2 K additions: (K,) int64, K a power of 2.

    >>> transform(np.array([3, 1, 0, 2])).tolist()
    [6, 0, 2, 4]
    """
    found, half = np.array(histogram, np.int64), 1
    while half < len(found):
        pairs = found.reshape(-1, 2, half)
        found = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1).reshape(-1)
        half *= 2
    return found
