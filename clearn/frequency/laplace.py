"""One-hot rows with Laplace noise on every coordinate, summed: the histogram mechanism in its local form."""

from __future__ import annotations

import math

import numpy as np

from clearn.frequency.coins import Bools, Coins
from clearn.frequency.mechanism import Array, Floats
from clearn.frequency.oneshot import OneShot
from clearn.frequency.rates import Rates


class Laplace(OneShot):
    """Value v as a row with a 1 at v, plus noise of a given scale; for simulation only.

    A real device must not send such numbers: the low-order bits of floating-point noise tell what it was added to
    (Mironov 2012). No client is offered for it.

    Args:
        k: values.
        scale: of the noise; two one-hot rows lie 2 apart, so that a report loses 2 / scale.
    """

    simulation_only = True

    def __init__(self, k: int, scale: float) -> None:
        super().__init__(k, None)
        self.scale = scale

    def send(self, memos: Array, coins: Coins) -> Array:
        """(n,) values -> (n, k) float64."""
        words = coins.words((len(memos), self.k), 64)
        uniform = ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53  # in (0, 1)
        sign = np.where(words & np.uint64(1), 1.0, -1.0)
        rows = sign * -np.log(uniform) * self.scale
        rows[np.arange(len(memos)), memos] += 1
        return rows

    def step(self, signal: Array, rates: Rates, coins: Coins) -> Array:
        """The same noise, whatever the rates: there are none."""
        return self.send(signal, coins)

    @property
    def memo_bits(self) -> int:
        """64 a coordinate."""
        return 64 * self.k

    def to_bits(self, memos: Array) -> Bools:
        """(n, k) float64 -> (n, 64 k)."""
        return np.unpackbits(np.ascontiguousarray(memos, "<f8").view(np.uint8), axis=1).view(bool)

    def from_bits(self, bits: Bools) -> Array:
        """Undo `to_bits`."""
        return np.packbits(bits, axis=1).view("<f8")

    def support(self, reports: Array, public: Array) -> Array:
        """Column sums, float64."""
        return np.asarray(reports.sum(axis=0))

    def valid(self, reports: Array, public: Array) -> Bools:
        """Finite numbers."""
        return np.asarray(np.isfinite(reports).all(axis=1))

    @property
    def own(self) -> float:
        """1: a coordinate is right on average."""
        return 1.0

    @property
    def other(self) -> float:
        """0."""
        return 0.0

    def variance(self, n: float, f: float | Floats = 0.0) -> Floats:
        """2 scale^2 / n, whatever the frequency."""
        return np.full(np.shape(f), 2 * self.scale**2 / n if n > 0 else math.nan)

    def loss_any(self) -> float:
        """2 / scale."""
        return 2 / self.scale

    def telling(self, reports: Array, public: Array, v1: int, v2: int) -> Bools:
        """At least 1 for v1 and at most 0 for v2."""
        return np.asarray((reports[:, v1] >= 1) & (reports[:, v2] <= 0))

    @property
    def round_bits(self) -> float:
        """k numbers of 64 bits."""
        return 64 * self.k
