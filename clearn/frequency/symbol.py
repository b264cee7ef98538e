"""Randomised response over symbols, of values themselves or of a public hash of them (Warner 1965, Wang et al. 2017).

A step keeps the symbol with probability p and else gives one of the others, each with q = (1 - p) / (g - 1).
"""

from __future__ import annotations

from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np

from clearn.errors import ConfigError
from clearn.frequency.coins import Bools, Coins, Ints
from clearn.frequency.mechanism import Array, Floats, Mechanism, _variance, composed
from clearn.frequency.rates import Rates, integers, log_ratio


class Symbol(Mechanism):
    """One symbol out of k: GRR, and L-GRR with a permanent step.

    Args:
        k: values.
        permanent: rates of the memo, with q = (1 - p) / (k - 1).
        instant: rates of a round, likewise.
    """

    def __init__(self, k: int, permanent: Rates | None, instant: Rates | None, symbols: int | None = None) -> None:
        self.symbols = int(k if symbols is None else symbols)
        super().__init__(k, self.symbols, permanent, instant)
        self.dtype = np.min_scalar_type(self.symbols - 1)

    def signal(self, cells: Ints, public: Array) -> Array:
        """The cell itself, in the smallest dtype."""
        return cells.astype(self.dtype)

    def step(self, signal: Array, rates: Rates, coins: Coins) -> Array:
        """Keep each symbol with probability p, else move it to one of the others."""
        assert rates.bits is not None, "only rounded rates can be drawn"
        keep = coins.words(signal.shape, rates.bits) < rates.thresholds[0] if rates.not_p else np.True_
        other = coins.below(self.symbols - 1, signal.shape)
        other += other >= signal
        return np.where(keep, signal, other).astype(self.dtype)

    @property
    def lanes(self) -> int:
        """One symbol."""
        return 1

    @property
    def memo_bits(self) -> int:
        """ceil(log2 g)."""
        return (self.symbols - 1).bit_length()

    def to_bits(self, memos: Array) -> Bools:
        """(n,) symbols -> (n, memo_bits), high bit first."""
        return to_binary(memos, self.memo_bits)

    def from_bits(self, bits: Bools) -> Array:
        """Undo `to_bits`."""
        return from_binary(bits).astype(self.dtype)

    def support(self, reports: Array, public: Array) -> Array:
        """A histogram."""
        return np.bincount(reports, minlength=self.slots).astype(np.int64)

    def valid(self, reports: Array, public: Array) -> Bools:
        """Symbols below g: bits can spell more where g is no power of 2."""
        return np.asarray(reports < self.symbols)

    @cached_property
    def _rates(self) -> tuple[Fraction, Fraction]:
        return composed(self._spread(self.permanent), self._spread(self.instant))

    def _spread(self, rates: Rates | None) -> Any:
        """The step with q made exactly (1 - p) / (g - 1), as it is drawn."""
        return None if rates is None else _Exact(rates.exact()[0], (1 - rates.exact()[0]) / (self.symbols - 1))

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
        p, q = self._spread(self.permanent).exact()
        return _variance(float(p), float(q), n, f)

    def loss(self, rounds: int) -> float:
        """ln[(A R^t + g - 1) / (R^t + A + g - 2)] with A = p1/q1, R = p2/q2; t ln R without a memo."""
        if self.permanent is None:
            return rounds * self.loss_any()
        p1, q1 = self._spread(self.permanent).exact()
        if self.instant is None or self.instant.not_p == 0:
            return log_ratio(p1, q1)
        a, b, whole = integers(p1, q1, Fraction(1))
        kept, moved = (number**rounds for number in integers(*self._spread(self.instant).exact()))
        return log_ratio(a * kept + (whole - a) * moved, b * kept + (whole - b) * moved)

    def loss_any(self) -> float:
        """ln R: between any two memo states."""
        if self.instant is None:
            return float("inf")
        return log_ratio(*self._spread(self.instant).exact())

    def telling(self, reports: Array, public: Array, v1: int, v2: int) -> Bools:
        """The symbol of v1, where v2 has another."""
        first, second = (self.cell(np.full(len(public), value), public) for value in (v1, v2))
        return np.asarray((reports == first) & (first != second))

    @property
    def setup_bits(self) -> int:
        """Nothing is sent beforehand."""
        return 0

    @property
    def round_bits(self) -> float:
        """ceil(log2 g)."""
        return self.memo_bits


class Hashed(Symbol):
    """One symbol out of g, of a public hash: drawn once where there is a memo (LOLOHA), else for every report (OLH).

    Args:
        k: values.
        g: hash range, at least 2.
        permanent: rates of the memo, which is kept per cell of the hash.
        instant: rates of a round.
    """

    hashed = True
    aggregate = "moments"

    def __init__(self, k: int, g: int, permanent: Rates | None, instant: Rates | None) -> None:
        if g < 2:
            raise ConfigError(f"g={g} must be at least 2: with one cell a report says nothing")
        super().__init__(k, permanent, instant, symbols=g)
        self.slots = k
        if permanent is None:  # rounds have nothing in common
            self.hashed, self.aggregate = False, "joint"

    def public(self, n: int, coins: Coins) -> Array:
        """A 64-bit seed a user: (n, 1) uint64."""
        return coins.words((n, 1), 64)

    def cell(self, values: Ints, public: Array) -> Ints:
        """H(v) in 0..g-1."""
        return hash_to(public[:, 0], values.astype(np.uint64), self.symbols)

    @property
    def lanes(self) -> int:
        """The hash of every value."""
        return self.k

    def support(self, reports: Array, public: Array) -> Array:
        """Every value that hashes to the reported symbol, user by user: (k,) counts."""
        table = hash_to(public, np.arange(self.k, dtype=np.uint64), self.symbols)  # (n, k)
        return (table == reports[:, None]).sum(axis=0, dtype=np.int64)

    @cached_property
    def _rates(self) -> tuple[Fraction, Fraction]:
        return super()._rates[0], Fraction(1, self.symbols)  # over the draw of the hash another value fits 1 time in g

    def permanent_variance(self, n: float, f: float | Floats = 0.0) -> Floats:
        """V with p1 and 1/g."""
        if self.permanent is None:
            return np.zeros(np.shape(f))
        return _variance(float(self._spread(self.permanent).exact()[0]), 1 / self.symbols, n, f)

    @property
    def setup_bits(self) -> int:
        """The seed, which the server needs to know."""
        return self.public_bits

    @property
    def round_bits(self) -> float:
        """ceil(log2 g), and a seed where it is new."""
        return self.memo_bits + 64 - self.public_bits

    @property
    def public_bits(self) -> int:
        """The seed, where it is kept."""
        return 0 if self.permanent is None else 64


class _Exact:
    """Exact rates, where `composed` wants an `exact()`."""

    def __init__(self, p: Fraction, q: Fraction) -> None:
        self._pair = p, q

    def exact(self) -> tuple[Fraction, Fraction]:
        return self._pair


def to_binary(symbols: Array, width: int) -> Bools:
    """(n,) symbols -> (n, width), high bit first."""
    return np.asarray(symbols.astype(np.int64)[:, None] >> np.arange(width - 1, -1, -1) & 1, bool)


def from_binary(bits: Bools) -> Ints:
    """Undo `to_binary`."""
    return np.asarray(bits @ (1 << np.arange(bits.shape[1] - 1, -1, -1)), np.int64)


def hash_to(seeds: Array, values: Array, g: int) -> Ints:
    """Hash values under public seeds into 0..g-1 (SplitMix64's finaliser over seed + value times an odd constant).

    Args:
        seeds: uint64, broadcast against values.
        values: uint64.
        g: range, at most 2^32.
    """
    word = seeds + (values + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    word ^= word >> np.uint64(31)
    return ((word >> np.uint64(32)) * np.uint64(g) >> np.uint64(32)).astype(np.int64)
