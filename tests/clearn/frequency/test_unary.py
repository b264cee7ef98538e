"""Independent bits, word by word."""

from __future__ import annotations

import numpy as np
import pytest

from clearn.frequency import Rates, Unary
from clearn.frequency.calibrate import optimised
from clearn.frequency.coins import Coins, SimulatedCoins, Words

RATES = Rates.of(0.75, 0.25).rounded(32)  # thresholds 3 2^30 and 2^30


class Given(Coins):
    """The same few words for every user."""

    def __init__(self, *words: int) -> None:
        self.given = words

    def words(self, shape: tuple[int, ...], bits: int) -> Words:
        assert bits == 32
        assert shape[-1] == len(self.given)
        return np.broadcast_to(np.array(self.given, np.uint32), shape)


def test_a_bit_is_1_where_its_word_lies_below_the_threshold() -> None:
    mechanism = Unary(4, None, RATES)
    words = Given(2**30 - 1, 2**30, 3 * 2**30 - 1, 3 * 2**30)
    sent = mechanism.step(np.array([[True] * 4, [False] * 4]), RATES, words)
    assert sent.tolist() == [[True, True, True, False], [True, False, False, False]]


def test_certain_steps_change_nothing() -> None:
    mechanism, signal = Unary(3, None, RATES), np.array([[True, False, True]])
    certain = Rates.of(1.0, 0.0).rounded(32)
    sent = mechanism.step(signal, certain, Given(0, 2**32 - 1, 2**32 - 1))
    assert sent.tolist() == signal.tolist()
    assert sent is not signal
    half = Rates.of(0.5, 0.0).rounded(32)
    assert mechanism.step(signal, half, Given(0, 0, 2**31)).tolist() == [[True, False, False]]


def test_a_value_is_a_row_with_one_1_and_support_adds_rows_up() -> None:
    mechanism, nothing = Unary(3, None, RATES), np.empty((4, 0), np.uint8)
    rows = mechanism.signal(np.array([2, 0, 2, 1]), nothing)
    assert rows.astype(int).tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 1], [0, 1, 0]]
    assert mechanism.support(rows, nothing).tolist() == [1, 1, 2]
    assert mechanism.trials(nothing).tolist() == [4, 4, 4]


def test_bits_of_one_report_are_independent() -> None:
    """Covariance of two bits of a user's report, memo and all, is 0 given the value."""
    mechanism, n = Unary(3, optimised(2.0), Rates.of(0.8, 0.2)).rounded(32), 60_000
    coins, nothing = SimulatedCoins(np.random.default_rng(17)), np.empty((n, 0), np.uint8)
    sent = mechanism.send(mechanism.memoise(np.zeros(n, np.int64), nothing, coins), coins).astype(float)
    spread = np.array([mechanism.own, mechanism.other, mechanism.other])
    error = np.sqrt(np.outer(spread * (1 - spread), spread * (1 - spread)) / n)
    covariance = np.cov(sent.T)
    assert (np.abs(covariance - np.diag(np.diag(covariance))) < 4 * error).all()


@pytest.mark.parametrize("rates", [RATES, Rates.of(0.5, 0.1).rounded(32)])
def test_two_reports_of_one_memo_agree_as_often_as_its_rates_say(rates: Rates) -> None:
    mechanism, n = Unary(2, rates, rates), 60_000
    coins, nothing = SimulatedCoins(np.random.default_rng(18)), np.empty((n, 0), np.uint8)
    memos = mechanism.memoise(np.zeros(n, np.int64), nothing, coins)
    both = (mechanism.send(memos, coins) & mechanism.send(memos, coins)).mean(axis=0)
    p, q = rates.p, rates.q
    chance = np.array([p * p * p + (1 - p) * q * q, q * p * p + (1 - q) * q * q])
    assert (np.abs(both - chance) < 4 * np.sqrt(chance * (1 - chance) / n)).all()
