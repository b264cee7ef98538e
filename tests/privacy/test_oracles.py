"""One-shot oracles: check values of the literature, the whole range of budgets, and bad input."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from clearn import plugins
from clearn.errors import ConfigError
from clearn.frequency import FrequencyProtocol, Hashed, Unary
from clearn.frequency.subset import Subset

NAMES = ["grr", "sue", "oue", "blh", "olh", "ss", "the", "she", "hr"]


def made(name: str, k: int, eps: float) -> Any:
    return plugins.find("privacy", name)((k,), eps=eps)


@pytest.mark.parametrize(
    "name, k, wanted",
    [
        ("sue", 9, 3.917698),
        ("oue", 9, 3.682694),
        ("blh", 9, 4.682694),
        ("olh", 9, 3.691655),
        ("grr", 16, 5.662430),
        ("ss", 16, 3.110716),
        ("the", 9, 4.807154),
        ("she", 9, 8.0),
        ("hr", 9, 4.682694),
    ],
)
def test_variance_of_rare_values_at_eps_1(name: str, k: int, wanted: float) -> None:
    mechanism = made(name, k, 1.0).nominal[0]
    assert float(mechanism.variance(1)) == pytest.approx(wanted, abs=5e-7)
    assert float(mechanism.variance(1000)) == pytest.approx(wanted / 1000, rel=1e-6)


@pytest.mark.parametrize("eps", [0.3, 1.0, 2.5])
def test_variance_in_the_closed_forms_of_the_papers(eps: float) -> None:
    e, root, k = math.exp(eps), math.exp(eps / 2), 20
    g = round(e) + 1
    wanted = {
        "grr": (e + k - 2) / (e - 1) ** 2,
        "sue": root / (root - 1) ** 2,
        "oue": 4 * e / (e - 1) ** 2,
        "blh": ((e + 1) / (e - 1)) ** 2,
        "olh": (e - 1 + g) ** 2 / ((e - 1) ** 2 * (g - 1)),
        "she": 8 / eps**2,
    }
    for name, variance in wanted.items():
        assert float(made(name, k, eps).nominal[0].variance(1)) == pytest.approx(variance, rel=1e-12)
    w = max(1, round(k / (e + 1)))
    p = w * e / (w * e + k - w)
    q = ((w - 1) * w * e + (k - w) * w) / ((k - 1) * (w * e + k - w))
    subset = made("ss", k, eps).nominal[0]
    assert isinstance(subset, Subset)
    assert (subset.w, subset.own, subset.other) == (w, pytest.approx(p, rel=1e-14), pytest.approx(q, rel=1e-14))


def test_variance_with_a_frequency_is_exact_for_fixed_users() -> None:
    """n Var = q(1-q)/(p-q)^2 + f (1-p-q)/(p-q)."""
    for name in ("grr", "oue", "olh", "ss", "hr"):
        mechanism = made(name, 6, 1.0).nominal[0]
        p, q = mechanism.own, mechanism.other
        for f in (0.0, 0.3, 1.0):
            wanted = q * (1 - q) / (p - q) ** 2 + f * (1 - p - q) / (p - q)
            assert float(mechanism.variance(1, f)) == pytest.approx(wanted, rel=1e-12)


def test_the_best_threshold() -> None:
    mechanism = made("the", 4, 1.0).nominal[0]
    assert isinstance(mechanism, Unary)
    assert mechanism.own == pytest.approx(0.586819, abs=1e-6)
    assert mechanism.other == pytest.approx(0.366989, abs=1e-6)
    threshold = -2 * math.log(2 * mechanism.other)
    assert threshold == pytest.approx(0.618553, abs=1e-6)
    best = float(mechanism.variance(1))
    for near in (threshold - 1e-3, threshold + 1e-3):
        p, q = 1 - math.exp((near - 1) / 2) / 2, math.exp(-near / 2) / 2
        assert q * (1 - q) / (p - q) ** 2 > best


def test_a_threshold_tells_less_than_its_noise_is_scaled_for_and_says_so() -> None:
    protocol = made("the", 4, 1.0)
    assert protocol.loss(1) == pytest.approx(0.896, abs=5e-4)
    assert protocol.warnings()[0].startswith("the loses 0.896 of the eps=1")
    assert float(made("oue", 4, protocol.loss(1)).nominal[0].variance(1)) < float(protocol.nominal[0].variance(1))


@pytest.mark.parametrize("k, eps, grr_wins", [(10, 1.0, True), (11, 1.0, False), (24, 2.0, True), (25, 2.0, False)])
def test_grr_wins_where_k_is_below_3_e_eps_plus_2(k: int, eps: float, grr_wins: bool) -> None:
    grr, oue = (float(made(name, k, eps).nominal[0].variance(1)) for name in ("grr", "oue"))
    assert (grr < oue) == grr_wins == (k < 3 * math.exp(eps) + 2)


@pytest.mark.parametrize("eps", [1e-3, 0.01, 0.1, 1.0, 3.0, 12.0, 12.1, 20.0, 30.0])
@pytest.mark.parametrize("name", [name for name in NAMES if name != "hr"])
def test_every_budget_in_range_gives_probabilities_that_can_be_drawn(name: str, eps: float) -> None:
    protocol = made(name, 5, eps)
    for mechanism in (*protocol.nominal, *protocol.mechanisms):
        if name != "she":
            assert 0 < mechanism.other < mechanism.own < 1
        assert np.isfinite(mechanism.variance(1)).all()
        assert float(mechanism.variance(1)) > 0
    nominal = protocol.nominal[0].loss(1)
    assert nominal <= eps + 1e-9 if name == "the" else nominal == pytest.approx(eps, rel=1e-9)
    assert protocol.loss(1) == pytest.approx(nominal, rel=1e-4)  # of the rounded thresholds


def test_words_grow_with_the_budget() -> None:
    for eps, bits in ((12.0, 32), (12.5, 64)):
        instant = made("oue", 5, eps).mechanisms[0].instant
        assert instant is not None
        assert instant.bits == bits


def test_bits_of_a_report() -> None:
    bits = {name: made(name, 41, 1.0).nominal[0] for name in NAMES}
    assert {name: one.round_bits for name, one in bits.items() if name not in ("ss", "blh", "olh")} == {
        "grr": 6, "sue": 41, "oue": 41, "the": 41, "she": 64 * 41, "hr": 6,
    }  # fmt: skip
    assert bits["ss"].round_bits == pytest.approx(math.log2(math.comb(41, bits["ss"].w)), rel=1e-12)
    assert (bits["blh"].memo_bits, bits["olh"].memo_bits) == (1, 2)
    assert all(one.state_bits(5) == 0 for one in bits.values())


def test_large_budgets_do_not_ask_for_more_cells_than_words_can_number() -> None:
    mechanism = made("olh", 5, 30.0).mechanisms[0]
    assert isinstance(mechanism, Hashed)
    assert mechanism.symbols == 2**31


def test_simulation_only_is_said_of_she_alone() -> None:
    for name in NAMES:
        protocol = made(name, 4, 1.0)
        assert protocol.mechanisms[0].simulation_only == (name == "she")
        assert protocol.one_shot
    assert "simulation only" in made("she", 4, 1.0).warnings()[0]


def test_hadamard_for_large_budgets_names_what_to_use_instead() -> None:
    made("hr", 5, 1.0)
    with pytest.raises(ConfigError, match=r"eps=1.5 must not exceed 1 for hr.*use ss .* or olh"):
        made("hr", 5, 1.5)


@pytest.mark.parametrize("eps", [0.0, -1.0, 9e-4, 30.5, math.inf, math.nan])
@pytest.mark.parametrize("name", NAMES)
def test_budgets_out_of_range_are_refused(name: str, eps: float) -> None:
    with pytest.raises(ConfigError, match=r"eps=.* must lie in \[0.001, 30\]"):
        made(name, 5, eps)


@pytest.mark.parametrize("name", NAMES)
def test_domains_that_cannot_be_asked_for_are_refused(name: str) -> None:
    cls: type[FrequencyProtocol] = plugins.find("privacy", name)
    with pytest.raises(ConfigError, match="at least 2"):
        cls((1,))
    with pytest.raises(ConfigError, match="no attribute"):
        cls(())
    with pytest.raises(ConfigError, match=r"the data have 2: write protocol: \{name: smp"):
        cls((3, 4))


@pytest.mark.parametrize("name", NAMES)
def test_numpy_domains_are_domains(name: str) -> None:
    protocol = plugins.find("privacy", name)(tuple(np.array([5])))
    assert protocol.domains == (5,)
    assert protocol.loss(1) > 0
