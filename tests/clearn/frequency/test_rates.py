"""Rates, their complements and their integer thresholds."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from clearn.errors import ConfigError
from clearn.frequency import Rates
from clearn.frequency.calibrate import optimised, symbol, symmetric


@pytest.mark.parametrize("p, q", [(0.5, 0.5), (0.3, 0.4), (1.1, 0.5), (0.5, -0.1), (math.nan, 0.1), (0.5, math.nan)])
def test_p_must_exceed_q_and_both_be_probabilities(p: float, q: float) -> None:
    with pytest.raises(ValueError, match="must satisfy 0 <= q < p <= 1"):
        Rates.of(p, q)


def test_thresholds_are_the_nearest_integers() -> None:
    rates = Rates.of(0.7, 0.1).rounded(8)
    assert rates.thresholds == (179, 26)  # 179.2 and 25.6
    assert (rates.p, rates.q, rates.not_p, rates.not_q) == (179 / 256, 26 / 256, 77 / 256, 230 / 256)
    assert rates.exact() == (Fraction(179, 256), Fraction(26, 256))


def test_near_1_the_complement_holds_the_digits() -> None:
    """p = 1 - 1e-13 keeps all digits of 1e-13 in 64 bits; 1 - p would be off by a hundredth of a percent."""
    rates = Rates.of(1 - 1e-13, 1e-13, 1e-13, 1 - 1e-13)
    assert 1 - rates.exact()[0] == Fraction(1e-13)
    assert 2**64 - rates.rounded(64).thresholds[0] == round(Fraction(1e-13) * 2**64)
    assert abs((1 - (1 - 1e-13)) / 1e-13 - 1) > 1e-4


@pytest.mark.parametrize("rates", [Rates.of(0.5, 1e-11), Rates.of(1.0, 0.5, 1e-11), Rates.of(0.7, 1e-30, 0.3)])
def test_a_probability_that_rounds_to_0_or_1_is_refused(rates: Rates) -> None:
    with pytest.raises(ConfigError, match=r"rounds to [01] with 32 random bits, which would lose all privacy"):
        rates.rounded(32)


def test_a_step_that_is_certain_stays_certain() -> None:
    assert Rates.of(1.0, 0.0).rounded(32).thresholds == (2**32, 0)
    assert Rates.of(0.5, 0.0).rounded(32).exact() == (Fraction(1, 2), 0)


def test_rates_that_round_to_the_same_are_refused() -> None:
    with pytest.raises(ConfigError, match="round to the same threshold with 8 random bits"):
        Rates.of(0.5, 0.4999).rounded(8)


@pytest.mark.parametrize("eps", [1e-3, 0.01, 0.5, 1.0, 5.0, 12.0, 30.0])
def test_closed_forms_spend_their_budget_over_the_whole_range(eps: float) -> None:
    for rates in (symmetric(eps), optimised(eps)):
        p, q = rates.exact()
        assert math.log(p * (1 - q)) - math.log(q * (1 - p)) == pytest.approx(eps, rel=1e-11, abs=0)
    for g in (2, 3, 1000, 10**6):
        rates = symbol(eps, g)
        assert math.log(rates.p / rates.q) == pytest.approx(eps, rel=1e-12, abs=0)
        assert rates.p + (g - 1) * rates.q == pytest.approx(1, rel=1e-14)
        assert rates.not_p == pytest.approx((g - 1) * rates.q, rel=1e-14, abs=0)
        assert rates.not_q == pytest.approx(rates.p + (g - 2) * rates.q, rel=1e-14)
