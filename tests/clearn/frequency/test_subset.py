"""Sets as they are drawn."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from clearn.errors import ConfigError
from clearn.frequency import Rates
from clearn.frequency.coins import SimulatedCoins
from clearn.frequency.subset import Subset


@pytest.mark.parametrize("k, w", [(2, 1), (5, 1), (5, 2), (5, 4)])
def test_all_sets_with_the_value_are_alike_and_so_are_all_without(k: int, w: int) -> None:
    n, value, p = 60_000, 1, 0.9
    mechanism = Subset(k, w, Rates.of(p, (w - p) / (k - 1))).rounded(32)
    assert mechanism.instant is not None
    sent = mechanism.step(np.full(n, value), mechanism.instant, SimulatedCoins(np.random.default_rng(19)))
    assert (sent.sum(axis=1) == w).all()
    for one in itertools.combinations(range(k), w):
        found = (sent == np.isin(np.arange(k), one)).all(axis=1).mean()
        chance = p / math.comb(k - 1, w - 1) if value in one else (1 - p) / math.comb(k - 1, w)
        assert abs(found - chance) < 4 * math.sqrt(chance * (1 - chance) / n)


def test_a_set_takes_the_bits_of_its_number_among_all() -> None:
    for k, w in ((16, 4), (41, 11), (1000, 269)):
        assert Subset(k, w, Rates.of(0.5, 0.01)).round_bits == pytest.approx(math.log2(math.comb(k, w)), rel=1e-12)


def test_only_sets_of_the_right_size_are_valid_and_possible() -> None:
    mechanism = Subset(4, 2, Rates.of(0.7, 0.4))
    rows = np.array([[True, True, False, False], [True, True, True, False], [False] * 4])
    assert mechanism.valid(rows, np.empty((3, 0))).tolist() == [True, False, False]
    for w in (0, 4):
        with pytest.raises(ConfigError, match=rf"w={w} must lie in \[1, 3\]"):
            Subset(4, w, Rates.of(0.7, 0.4))
