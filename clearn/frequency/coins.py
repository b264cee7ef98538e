"""Where a step's random words come from: a simulation's seeded generator, the operating system, or a keyed stream.

A mechanism asks for words and compares them with integer thresholds; it cannot tell which source it was given. A real
client makes its own `SystemCoins` and takes none from outside, so a simulation's seed can never reach it.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

Words = np.ndarray[Any, np.dtype[Any]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]


class Coins(ABC):
    """A source of uniform unsigned words; the first axis of every shape is users."""

    @abstractmethod
    def words(self, shape: tuple[int, ...], bits: int) -> Words:
        """Uniform words.

        Args:
            shape: of the result.
            bits: 32 (uint32) or 64 (uint64).
        """

    def below(self, n: int, shape: tuple[int, ...]) -> Ints:
        """Uniform integers in 0..n-1, n <= 2^31, int64.

        A 64-bit word times n, shifted right by 64: a value's probability is off by at most 2^-64, which moves no
        privacy loss by more than n 2^-64.
        """
        word = self.words(shape, 64)
        high, low = word >> np.uint64(32), word & np.uint64(0xFFFFFFFF)
        carried = high * np.uint64(n) + ((low * np.uint64(n)) >> np.uint64(32))
        return (carried >> np.uint64(32)).astype(np.int64)

    def distinct(self, n: int, total: int, take: int) -> Ints:
        """Uniform sets of `take` different integers in 0..total-1, one for each of n users (Floyd 1987).

        Returns:
            (n, take) int64, in an order that is not uniform.
        """
        drawn, rows = np.empty((n, take), np.int64), np.arange(n)
        taken = np.zeros((n, total), bool)
        for i, top in enumerate(range(total - take, total)):
            found = self.below(top + 1, (n,))
            found = np.where(taken[rows, found], top, found)
            taken[rows, found] = True
            drawn[:, i] = found
        return drawn


class SimulatedCoins(Coins):
    """Words of a seeded generator: fast, repeatable, and no protection for anybody."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def words(self, shape: tuple[int, ...], bits: int) -> Words:
        """Uniform words of the generator."""
        return self.rng.integers(0, 2**bits, shape, np.uint32 if bits == 32 else np.uint64)


class SystemCoins(Coins):
    """Words of the operating system's cryptographic source."""

    def words(self, shape: tuple[int, ...], bits: int) -> Words:
        """Uniform words of `os.urandom`."""
        count = int(np.prod(shape, dtype=np.int64))
        return np.frombuffer(os.urandom(count * bits // 8), f"<u{bits // 8}").reshape(shape)


class StreamCoins(Coins):
    """Words of given bytes, one row a user, used up from the left: how a keyed function draws a memo.

    Args:
        rows: (n, length) uint8.
    """

    def __init__(self, rows: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        self.rows, self.used = rows, 0

    def words(self, shape: tuple[int, ...], bits: int) -> Words:
        """The next words of every row.

        Raises:
            ValueError: the rows are used up.
        """
        each = int(np.prod(shape[1:], dtype=np.int64)) * bits // 8
        taken = self.rows[:, self.used : self.used + each]
        if shape[0] != len(self.rows) or taken.shape[1] != each:
            raise ValueError(f"{shape} words of {bits} bits exceed rows of {self.rows.shape} bytes, {self.used} used")
        self.used += each
        return np.ascontiguousarray(taken).view(f"<u{bits // 8}").reshape(shape)
