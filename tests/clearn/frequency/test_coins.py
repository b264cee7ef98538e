"""Sources of random words, and what is made of words."""

from __future__ import annotations

import itertools
import os

import numpy as np
import pytest

from clearn.frequency.coins import Coins, SimulatedCoins, StreamCoins, SystemCoins, Words


class Given(Coins):
    """Words as told."""

    def __init__(self, *words: int) -> None:
        self.given = list(words)

    def words(self, shape: tuple[int, ...], bits: int) -> Words:
        count = int(np.prod(shape))
        taken, self.given = self.given[:count], self.given[count:]
        return np.array(taken, f"u{bits // 8}").reshape(shape)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 1000, 2**31 - 1, 2**31])
def test_below_is_the_word_times_n_shifted_by_64_bits(n: int) -> None:
    steps = [-(-j * 2**64 // n) for j in range(1, min(n, 9))]  # the first word of each of the lowest integers
    words = [0, 1, 2**32 - 1, 2**63, 2**64 - 1, 0xFEDCBA9876543210, *steps, *(word - 1 for word in steps)]
    found = Given(*words).below(n, (len(words),)).tolist()
    assert found == [word * n >> 64 for word in words]
    assert found[6:] == [*range(1, min(n, 9)), *range(min(n, 9) - 1)]


def test_below_covers_its_range_evenly() -> None:
    n, draws = 7, 70_000
    counts = np.bincount(SimulatedCoins(np.random.default_rng(3)).below(n, (draws,)), minlength=n)
    assert (np.abs(counts - draws / n) < 4 * np.sqrt(draws * (1 / n) * (1 - 1 / n))).all()


@pytest.mark.parametrize("take", [0, 1, 2, 3, 5])
def test_distinct_draws_every_set_alike(take: int) -> None:
    total, users = 5, 40_000
    drawn = SimulatedCoins(np.random.default_rng(4)).distinct(users, total, take)
    assert drawn.shape == (users, take)
    sets = list(itertools.combinations(range(total), take))
    found = [(np.sort(drawn, axis=1) == one).all(axis=1).sum() for one in sets]
    assert sum(found) == users  # no value twice
    chance = 1 / len(sets)
    assert (np.abs(np.array(found) - users * chance) <= 4 * np.sqrt(users * chance * (1 - chance))).all()


def test_system_words_are_those_of_the_operating_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "urandom", lambda count: bytes(range(count)))
    assert SystemCoins().words((2, 1), 32).tolist() == [[0x03020100], [0x07060504]]
    assert SystemCoins().words((1,), 64).tolist() == [0x0706050403020100]
    assert SystemCoins().words((0, 3), 64).shape == (0, 3)


def test_a_stream_is_used_up_row_by_row_from_the_left() -> None:
    rows = np.arange(24, dtype=np.uint8).reshape(2, 12)
    coins = StreamCoins(rows)
    assert coins.words((2,), 32).tolist() == [0x03020100, 0x0F0E0D0C]
    assert coins.words((2, 1), 64).tolist() == [[0x0B0A090807060504], [0x1716151413121110]]
    with pytest.raises(ValueError, match=r"exceed rows of \(2, 12\) bytes, 12 used"):
        coins.words((2,), 32)


def test_the_same_seed_gives_the_same_words() -> None:
    one, two = (SimulatedCoins(np.random.default_rng(5)) for _ in range(2))
    assert (one.words((3, 2), 32) == two.words((3, 2), 32)).all()
    assert (one.words((3,), 64) == two.words((3,), 64)).all()
