"""The lemmas as pure functions: means and covariances worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from clearn.frequency import Mechanism, Symbol
from clearn.frequency.hadamard import even
from clearn.frequency.lemmas import (
    Symbols,
    flip_bits,
    lemma_of,
    move_symbols,
    spread_halves,
    sum_laplace,
)

REPEATS = 4000


def assert_moments(drawn, mean, covariance):
    """(repeats, m) draws; standard errors of normal variables."""
    variance = np.diag(covariance)
    assert (np.abs(drawn.mean(axis=0) - mean) <= 4 * np.sqrt(variance / len(drawn)) + 1e-12).all()
    error = np.sqrt((np.outer(variance, variance) + covariance**2) / len(drawn))
    assert (np.abs(np.cov(drawn.T) - covariance) <= 4 * error + 1e-9).all()


def test_flipped_bits():
    rng = np.random.default_rng(0)
    ones = np.broadcast_to(np.array([30, 0, 50]), (REPEATS, 3))
    mean = np.array([30 * 0.7 + 20 * 0.2, 50 * 0.2, 50 * 0.7])
    variance = np.array([30 * 0.21 + 20 * 0.16, 50 * 0.16, 50 * 0.21])
    assert_moments(flip_bits(ones, 50, 0.7, 0.2, rng), mean, np.diag(variance))
    assert flip_bits(np.array([4, 0]), 4, 1.0, 0.0, rng).tolist() == [4, 0]


def test_moved_symbols_have_the_transition_matrix_s_moments():
    """Each user's symbol is multinomial by its row of the matrix, so means and covariances are sums over users."""
    held, p, g = np.array([40, 0, 20, 5]), 0.55, 4
    rows = np.where(np.eye(g, dtype=bool), p, (1 - p) / 3)
    covariance = sum(count * (np.diag(row) - np.outer(row, row)) for count, row in zip(held, rows, strict=True))
    drawn = move_symbols(np.broadcast_to(held, (REPEATS, g)), p - 0.15, np.random.default_rng(1))
    assert (drawn.sum(axis=1) == 65).all()
    assert_moments(drawn, held @ rows, covariance)


@pytest.mark.parametrize("k", [2, 3, 7])
def test_hadamard_indices_have_the_channel_s_moments(k):
    size, p = 1 << k.bit_length(), 0.8
    held = np.arange(k) * 10 + 5
    inside = even(np.arange(1, k + 1)[:, None] & np.arange(size))
    rows = np.where(inside, p, 1 - p) * 2 / size
    covariance = sum(count * (np.diag(row) - np.outer(row, row)) for count, row in zip(held, rows, strict=True))
    rng = np.random.default_rng(2)
    drawn = np.array([spread_halves(held, size, 2 * p - 1, rng) for _ in range(REPEATS)])
    assert (drawn.sum(axis=1) == held.sum()).all()
    assert_moments(drawn, held @ rows, covariance)


def test_hadamard_users_who_are_kept_never_leave_their_half():
    for v in range(5):
        found = spread_halves(np.eye(5, dtype=np.int64)[v] * 800, 8, 1.0, np.random.default_rng(v))
        inside = even((v + 1) & np.arange(8))
        assert (found[~inside] == 0).all() and (found[inside] > 100).all()


def test_laplace_sums_have_the_variance_of_so_many():
    drawn = np.array([sum_laplace(50, 2, 1.5, np.random.default_rng(seed)) for seed in range(REPEATS)])
    assert_moments(drawn, np.zeros(2), np.eye(2) * 50 * 2 * 1.5**2)
    assert sum_laplace(0, 2, 1.5, np.random.default_rng(0)).tolist() == [0, 0]


def test_a_new_family_registers_its_lemma_and_a_subclass_has_its_parent_s(make):
    class Tuned(Symbol):
        pass

    class Odd(Mechanism):
        __init__ = object.__init__

    Odd.__abstractmethods__ = frozenset()
    assert isinstance(lemma_of(Tuned(3, None, make.symbol(3).instant)), Symbols)
    assert lemma_of(Odd()) is None
    lemma_of.register(Odd, lambda mechanism: Symbols(3, None, 0.5))
    assert lemma_of(Odd()).instant == 0.5
