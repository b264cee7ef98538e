"""LOLOHA: the published range of the hash and ours, what is really spent, and what a device keeps."""

from __future__ import annotations

import math
from typing import Any

import pytest

from clearn import plugins
from clearn.errors import ConfigError
from clearn.frequency import Budgets, Hashed


def made(name: str, eps_inf: float, eps_1: float, **options: Any) -> Any:
    return plugins.find("privacy", name)((30,), eps_inf=eps_inf, eps_1=eps_1, **options)


def test_variance_of_rare_values_at_2_and_1() -> None:
    for name, g, wanted in (("bi_loloha", 2, 4.682694), ("ololoha", 3, 4.199428), ("loloha", 4, 3.691655)):
        mechanism = made(name, 2, 1).nominal[0]
        assert isinstance(mechanism, Hashed)
        assert mechanism.symbols == g
        assert float(mechanism.variance(1)) == pytest.approx(wanted, abs=5e-7)


@pytest.mark.parametrize("eps_inf, alpha, g", [(1, 0.5, 2), (2, 0.5, 3), (4, 0.5, 7), (4, 0.6, 9), (5, 0.6, 17)])
def test_the_published_range(eps_inf: float, alpha: float, g: int) -> None:
    assert made("ololoha", eps_inf, alpha * eps_inf).g == g


@pytest.mark.parametrize("eps_inf", [0.5, 1.0, 2.0, 3.5, 5.0, 8.0])
@pytest.mark.parametrize("alpha", [0.1, 0.3, 0.6, 0.9])
def test_the_published_range_is_that_of_the_printed_formula(eps_inf: float, alpha: float) -> None:
    a, e = math.exp(eps_inf), math.exp(alpha * eps_inf)
    root = math.sqrt(a**4 - 14 * a**2 - 12 * a**2 * e**2 + 12 * a * e + 12 * a**3 * e + 1)
    assert made("ololoha", eps_inf, alpha * eps_inf).g == max(
        2, round((root - a * a + 6 * a - 6 * e + 1) / (6 * (a - e)))
    )


def test_the_published_range_exists_where_the_formula_is_0_over_0() -> None:
    assert made("ololoha", 2.0, 2.0).g == round(math.exp(2.0)) + 1
    assert plugins.find("privacy", "ololoha")((30,), eps_inf=30.0).nominal[0].loss(1) > 0
    assert plugins.find("privacy", "ololoha")((30,), eps_inf=0.01, eps_1=0.005).g == 2


def test_our_range_and_composition_are_those_of_olh() -> None:
    for eps_inf, eps_1 in ((1.0, 0.5), (2.0, 1.0), (4.0, 2.4), (20.0, 10.0)):
        twice = made("loloha", eps_inf, eps_1)
        once = plugins.find("privacy", "olh")((30,), eps=eps_1).nominal[0]
        assert twice.g == round(math.exp(eps_1)) + 1 == once.cells
        for f in (0.0, 0.3):
            assert float(twice.nominal[0].variance(1, f)) == pytest.approx(float(once.variance(1, f)), rel=1e-12)
        assert twice.nominal[0].loss(1) == pytest.approx(eps_1, rel=1e-9)
        assert twice.nominal[0].other == 1 / twice.g


def test_the_published_composition_spends_less_than_it_says() -> None:
    protocol = made("ololoha", 4.0, 2.4)
    assert protocol.loss(1) == pytest.approx(2.312, abs=5e-4)
    assert protocol.warnings()[0].startswith("ololoha by the published rule loses 2.312 of eps_1=2.4 with g=9 cells")
    assert protocol.nominal[0].loss_for_ever() == pytest.approx(4.0, rel=1e-9)
    assert made("ololoha", 1.0, 0.5).warnings() == made("loloha", 4.0, 2.4).warnings() == []
    assert made("bi_loloha", 4.0, 2.4).nominal[0].loss(1) == pytest.approx(2.4, rel=1e-9)


def test_the_range_may_be_given() -> None:
    mechanism = made("loloha", 2.0, 1.0, g=9).nominal[0]
    assert mechanism.cells == 9
    assert mechanism.loss(1) == pytest.approx(1.0, rel=1e-9)
    for g in (1, 0, 2**31 + 1):
        with pytest.raises(ConfigError, match=rf"g={g} must lie in \[2, 2\^31\]"):
            made("loloha", 2.0, 1.0, g=g)


@pytest.mark.parametrize("name", ["loloha", "ololoha", "bi_loloha"])
@pytest.mark.parametrize("eps_inf, eps_1", [(1e-2, 1e-3), (1.0, 1.0), (12.0, 6.0), (30.0, 1.0), (30.0, 30.0)])
def test_every_budget_in_range_gives_probabilities_that_can_be_drawn(name: str, eps_inf: float, eps_1: float) -> None:
    protocol = made(name, eps_inf, eps_1)
    for mechanism in (protocol.nominal[0], protocol.mechanisms[0]):
        assert 0 < mechanism.other < mechanism.own < 1
        assert math.isfinite(float(mechanism.variance(1)))
        assert mechanism.loss(1) <= eps_1 * (1 + 1e-3)
    assert protocol.budgets == Budgets(eps_inf, eps_1)


def test_a_device_keeps_cells_and_not_values() -> None:
    mechanism = made("loloha", 2.0, 1.0).nominal[0]  # g = 4
    assert [mechanism.state_bits(met) for met in (0, 3, 4)] == [4, 3 * 2 + 4, 12]
    assert (mechanism.public_bits, mechanism.setup_bits, mechanism.round_bits) == (64, 64, 2)
    assert made("bi_loloha", 2.0, 1.0).nominal[0].state_bits(2) == 4
