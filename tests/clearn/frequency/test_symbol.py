"""Symbols, and the public hash that stands in for a random function."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clearn.frequency import Hashed, Rates, Symbol, Tally
from clearn.frequency.calibrate import symbol
from clearn.frequency.coins import SimulatedCoins
from clearn.frequency.symbol import from_binary, hash_to, to_binary


@pytest.mark.parametrize("g", [2, 3, 7, 256])
def test_hashes_of_two_values_look_independent(g: int) -> None:
    """Each cell 1 time in g, and two values in the same cell 1 time in g: what estimates rest on."""
    seeds = np.random.default_rng(10).integers(0, 2**64, 60_000, np.uint64)
    one, two = (hash_to(seeds, np.full(len(seeds), v, np.uint64), g) for v in (0, 1))
    error = math.sqrt(1 / g * (1 - 1 / g) / len(seeds))
    assert (np.abs(np.bincount(one, minlength=g) / len(seeds) - 1 / g) < 4.5 * error).all()
    assert abs((one == two).mean() - 1 / g) < 4 * error


def test_hashes_of_neighbouring_seeds_and_values_differ() -> None:
    table = hash_to(np.arange(300, dtype=np.uint64)[:, None], np.arange(300, dtype=np.uint64), 1000)
    for one, two in ((table[1:], table[:-1]), (table[:, 1:], table[:, :-1])):
        chance = 1 / 1000
        assert abs((one == two).mean() - chance) < 4 * math.sqrt(chance / one.size)


def test_symbols_go_to_bits_high_bit_first() -> None:
    assert to_binary(np.array([5, 2], np.uint8), 3).tolist() == [[True, False, True], [False, True, False]]
    assert from_binary(to_binary(np.arange(41), 6)).tolist() == list(range(41))
    assert [Symbol(k, None, symbol(1.0, k)).memo_bits for k in (2, 3, 4, 5, 41, 256, 257)] == [1, 2, 2, 3, 6, 8, 9]
    assert not Symbol(5, None, symbol(1.0, 5)).valid(np.array([5, 7]), np.empty((2, 0))).any()


def test_a_moved_symbol_goes_to_each_other_alike() -> None:
    mechanism, n = Symbol(5, None, symbol(0.5, 5)).rounded(32), 50_000
    assert mechanism.instant is not None
    sent = mechanism.step(np.full(n, 2, np.uint8), mechanism.instant, SimulatedCoins(np.random.default_rng(11)))
    chance = np.where(np.arange(5) == 2, mechanism.own, mechanism.other)
    assert (np.abs(np.bincount(sent, minlength=5) / n - chance) < 4 * np.sqrt(chance * (1 - chance) / n)).all()


def test_symbol_counts_add_up_to_users_and_estimates_to_1() -> None:
    mechanism, coins = Symbol(5, symbol(2.0, 5), symbol(1.5, 5)).rounded(32), SimulatedCoins(np.random.default_rng(12))
    values, nothing = np.arange(1000) % 5, np.empty((1000, 0), np.uint8)
    counts = mechanism.support(mechanism.send(mechanism.memoise(values, nothing, coins), coins), nothing)
    assert counts.sum() == 1000
    assert mechanism.estimate(Tally(1000, counts, np.full(5, 1000))).sum() == pytest.approx(1, abs=1e-9)


def test_hashed_support_counts_every_value_in_the_reported_cell() -> None:
    mechanism = Hashed(6, 3, None, symbol(1.0, 3))
    public = mechanism.public(40, SimulatedCoins(np.random.default_rng(13)))
    reports = np.arange(40, dtype=np.uint8) % 3
    naive = [
        sum(int(mechanism.cell(np.array([v]), public[i : i + 1])[0]) == reports[i] for i in range(40)) for v in range(6)
    ]
    assert mechanism.support(reports, public).tolist() == naive


def test_a_symbol_is_kept_where_its_word_lies_below_the_threshold() -> None:
    class Words(SimulatedCoins):
        def words(self, shape, bits):
            return np.array([2**31 - 1, 2**31], np.uint32) if bits == 32 else np.zeros(shape, np.uint64)

    mechanism = Symbol(3, None, Rates.of(0.5, 0.25)).rounded(32)
    assert mechanism.instant is not None
    sent = mechanism.step(np.array([1, 1], np.uint8), mechanism.instant, Words(np.random.default_rng(0)))
    assert sent.tolist() == [1, 0]
