"""The Hadamard matrix that is never built."""

from __future__ import annotations

import numpy as np
import pytest

from clearn.frequency import Rates
from clearn.frequency.coins import SimulatedCoins
from clearn.frequency.hadamard import Hadamard, even, transform


def sylvester(size: int) -> np.ndarray:
    matrix = np.ones((1, 1), np.int64)
    while len(matrix) < size:
        matrix = np.kron(np.array([[1, 1], [1, -1]]), matrix)
    return matrix


@pytest.mark.parametrize("size", [1, 2, 4, 8, 64])
def test_transform_and_parity_are_those_of_the_matrix(size: int) -> None:
    matrix, histogram = sylvester(size), np.random.default_rng(14).integers(0, 100, size)
    assert transform(histogram).tolist() == (matrix @ histogram).tolist()
    index = np.arange(size)
    assert (even(index[:, None] & index) == (matrix > 0)).all()


@pytest.mark.parametrize("k, size", [(2, 4), (3, 4), (4, 8), (7, 8), (8, 16), (1000, 1024)])
def test_there_are_as_few_indices_as_rows_below_the_first_allow(k: int, size: int) -> None:
    mechanism = Hadamard(k, Rates.of(0.7, 0.5))
    assert size == mechanism.K
    assert mechanism.round_bits == np.log2(size)


def test_indices_are_uniform_in_the_value_s_set_and_outside() -> None:
    mechanism, n, value = Hadamard(5, Rates.of(0.7, 0.5)).rounded(32), 80_000, 4
    assert mechanism.instant is not None
    sent = mechanism.step(np.full(n, value), mechanism.instant, SimulatedCoins(np.random.default_rng(15)))
    inside = sylvester(8)[value + 1] > 0
    chance = np.where(inside, 0.7, 0.3) / 4
    assert (np.abs(np.bincount(sent, minlength=8) / n - chance) < 4 * np.sqrt(chance * (1 - chance) / n)).all()


def test_support_counts_reports_in_every_set() -> None:
    mechanism, reports = Hadamard(6, Rates.of(0.7, 0.5)), np.array([0, 1, 1, 5, 7], np.uint8)
    inside = sylvester(8) > 0
    naive = [int(sum(inside[x + 1, z] for z in reports)) for x in range(6)]
    assert mechanism.support(reports, np.empty((5, 0))).tolist() == naive
