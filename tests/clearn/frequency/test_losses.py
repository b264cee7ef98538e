"""Losses after many reports, in integers without reducing, against plain fractions."""

from __future__ import annotations

import math
import time
from fractions import Fraction

import pytest

from clearn.frequency import Rates, Symbol, Unary
from clearn.frequency.rates import integers, log_ratio

PERMANENT, INSTANT = Rates.of(0.5, 0.12).rounded(32), Rates.of(0.8, 0.2).rounded(32)


def unary_by_fractions(t: int) -> float:
    (p1, q1), (p2, q2) = PERMANENT.exact(), INSTANT.exact()
    one = [x * p2**t + (1 - x) * q2**t for x in (p1, q1)]
    zero = [x * (1 - p2) ** t + (1 - x) * (1 - q2) ** t for x in (p1, q1)]
    return math.log(one[0] / one[1] * zero[1] / zero[0])


def symbol_by_fractions(t: int, k: int) -> float:
    p1, p2 = PERMANENT.exact()[0], INSTANT.exact()[0]
    q1, q2 = (1 - p1) / (k - 1), (1 - p2) / (k - 1)
    return math.log((p1 * p2**t + (k - 1) * q1 * q2**t) / (q1 * p2**t + (p1 + (k - 2) * q1) * q2**t))


@pytest.mark.parametrize("t", [1, 2, 7, 60])
def test_losses_are_those_of_plain_fractions(t: int) -> None:
    assert Unary(9, PERMANENT, INSTANT).loss(t) == pytest.approx(unary_by_fractions(t), rel=1e-14)
    for k in (3, 41):
        assert Symbol(k, PERMANENT, INSTANT).loss(t) == pytest.approx(symbol_by_fractions(t, k), rel=1e-14)


def test_a_thousand_reports_are_quick_and_lose_no_digit() -> None:
    mechanism, started = Unary(9, PERMANENT, INSTANT), time.process_time()
    lost = [mechanism.loss(t) for t in (1, 10, 100, 1000)]
    assert time.process_time() - started < 0.1
    assert lost == sorted(lost)
    assert lost[-1] == pytest.approx(log_ratio(*(x * (1 - y) for x, y in (PERMANENT.exact(), PERMANENT.exact()[::-1]))))


def test_logarithms_of_quotients_next_to_one_and_beyond_all_floats() -> None:
    assert log_ratio(Fraction(10**30 + 1, 10**30), Fraction(1)) == pytest.approx(1e-30, rel=1e-12)
    assert log_ratio(10**30 - 1, 10**30) == pytest.approx(-1e-30, rel=1e-12)
    assert log_ratio(7**5000, 1) == pytest.approx(5000 * math.log(7), rel=1e-14)
    assert log_ratio(Fraction(3, 7), Fraction(1, 7)) == math.log(3)
    assert log_ratio(1, 0) == math.inf
    assert integers(Fraction(1, 2), Fraction(2, 3), Fraction(1)) == (3, 4, 6)
