"""Longitudinal protocols: closed forms, check values of the paper and against it, limits, and infeasible budgets."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from clearn import plugins
from clearn.errors import ConfigError
from clearn.frequency import Mechanism, Rates, two_budgets

BITS = ["l_sue", "l_osue", "l_oue", "l_soue"]
NAMES = [*BITS, "l_grr"]
GRID = [1e-3, 0.01, 0.1, 0.5, 1.0, 3.0, 8.0, 12.0, 15.0, 30.0]


def made(name: str, k: int, eps_inf: float, eps_1: float, **options: Any) -> Mechanism:
    return plugins.find("privacy", name)((k,), eps_inf=eps_inf, eps_1=eps_1, **options).nominal[0]


def instant(mechanism: Mechanism) -> Rates:
    assert mechanism.instant is not None
    return mechanism.instant


def test_instantaneous_rates_at_2_and_1() -> None:
    assert instant(made("l_sue", 4, 2, 1)).p == pytest.approx(0.764996288, abs=5e-10)
    assert instant(made("l_osue", 4, 2, 1)).p == pytest.approx(0.803388067, abs=5e-10)
    assert instant(made("l_oue", 4, 2, 1)).q == pytest.approx(0.0809366186, abs=5e-11)
    assert instant(made("l_soue", 4, 2, 1)).q == pytest.approx(0.0720241815, abs=5e-11)
    assert instant(made("l_grr", 5, 2, 1, rule="published")).p == pytest.approx(0.505327699, abs=5e-10)
    assert instant(made("l_grr", 5, 2, 1)).p == pytest.approx(0.564734795, abs=5e-9)


@pytest.mark.parametrize(
    "name, k, options, wanted",
    [
        ("l_sue", 4, {}, 3.917698),
        ("l_osue", 4, {}, 3.682694),
        ("l_oue", 4, {}, 4.467197),
        ("l_soue", 4, {}, 3.888770),
        ("l_grr", 2, {}, 0.920674),
        ("l_grr", 2, {"rule": "published"}, 0.920674),
        ("l_grr", 5, {"rule": "published"}, 2.889880),
        ("l_grr", 5, {}, 1.936764),
        ("l_grr", 16, {"rule": "published"}, 26.330968),
        ("l_grr", 16, {}, 5.662430),
    ],
)
def test_variance_of_rare_values_at_2_and_1(name: str, k: int, options: dict[str, Any], wanted: float) -> None:
    assert float(made(name, k, 2, 1, **options).variance(1)) == pytest.approx(wanted, abs=5e-7)


@pytest.mark.parametrize(
    "name, k, wanted",
    [
        ("l_osue", 9, (0.004411, 0.001078, 0.000247, 0.000044)),
        ("l_sue", 9, (0.004436, 0.001103, 0.000270, 0.000062)),
        ("l_soue", 9, (0.005306, 0.001234, 0.000264, 0.000045)),
        ("l_oue", 9, (0.005549, 0.001347, 0.000310, 0.000057)),
        ("l_grr", 32, (0.980969, 0.125036, 0.006327, 0.000078)),
    ],
)
def test_published_variances_for_10000_users_at_alpha_06(name: str, k: int, wanted: tuple[float, ...]) -> None:
    options = {"rule": "published"} if name == "l_grr" else {}
    for eps_inf, variance in zip((0.5, 1.0, 2.0, 4.0), wanted, strict=True):
        found = float(made(name, k, eps_inf, 0.6 * eps_inf, **options).variance(10_000))
        assert found == pytest.approx(variance, abs=6e-7)


@pytest.mark.parametrize("eps_inf, eps_1", [(0.5, 0.15), (1.0, 0.6), (2.0, 1.0), (4.0, 2.4), (20.0, 9.0)])
def test_the_first_report_is_the_one_shot_oracle_s(eps_inf: float, eps_1: float) -> None:
    for name, oracle in (("l_sue", "sue"), ("l_osue", "oue"), ("l_grr", "grr")):
        twice = made(name, 7, eps_inf, eps_1)
        once = plugins.find("privacy", oracle)((7,), eps=eps_1).nominal[0]
        for f in (0.0, 0.2, 1.0):
            assert float(twice.variance(1, f)) == pytest.approx(float(once.variance(1, f)), rel=1e-12)
        assert (twice.own, twice.other) == (pytest.approx(once.own, rel=1e-12), pytest.approx(once.other, rel=1e-12))


def test_two_values_leave_both_rules_the_same() -> None:
    exact, published = (made("l_grr", 2, 2, 1, rule=rule) for rule in ("exact", "published"))
    assert instant(exact) == instant(published)


@pytest.mark.parametrize("k, wanted", [(3, 0.442), (5, 0.359), (16, 0.177), (41, 0.083)])
def test_the_published_rule_spends_less_than_it_says(k: int, wanted: float) -> None:
    """True loss ln[(A R + k - 1) / (A + R + k - 2)] at (1, 0.5)."""
    mechanism = made("l_grr", k, 1.0, 0.5, rule="published")
    a, r = math.e, instant(mechanism).p / instant(mechanism).q
    assert mechanism.loss(1) == pytest.approx(wanted, abs=5e-4)
    assert mechanism.loss(1) == pytest.approx(math.log((a * r + k - 1) / (a + r + k - 2)), rel=1e-12)
    protocol = plugins.find("privacy", "l_grr")((k,), eps_inf=1.0, eps_1=0.5, rule="published")
    assert protocol.warnings()[0].startswith(f"l_grr by the published rule loses {wanted:.3f} of eps_1=0.5 with k={k}")
    assert plugins.find("privacy", "l_grr")((k,), eps_inf=1.0, eps_1=0.5).warnings() == []


@pytest.mark.parametrize(
    "name, wanted",
    [("l_grr", 1.64166), ("l_sue", 1.61156), ("l_osue", 1.64166), ("l_oue", 1.62889), ("l_soue", 1.47246)],
)
def test_loss_of_two_reports_at_2_and_1(name: str, wanted: float) -> None:
    assert made(name, 2, 2, 1).loss(2) == pytest.approx(wanted, abs=5e-6)


def test_the_paper_s_formula_for_several_reports_is_too_small() -> None:
    """Its Eq. 16 gives 0.735 for the first report at (2, 1), where the loss is 1; with ln R for eps_1 it is right."""
    mechanism = made("l_grr", 2, 2, 1)

    def printed(t: int, eps: float) -> float:
        return math.log((math.exp(2 + t * eps) + 1) / (math.exp(2) + math.exp(t * eps)))

    assert printed(1, 1.0) == pytest.approx(0.735, abs=5e-4)
    for t in (1, 2, 5):
        assert mechanism.loss(t) == pytest.approx(printed(t, mechanism.loss_any()), rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("eps_inf, eps_1", [(0.5, 0.15), (2.0, 1.0), (4.0, 2.0)])
def test_loss_grows_from_eps_1_to_eps_inf(name: str, eps_inf: float, eps_1: float) -> None:
    mechanism = made(name, 5, eps_inf, eps_1)
    losses = [mechanism.loss(t) for t in range(1, 200)]
    assert losses[0] == pytest.approx(eps_1, rel=1e-9)
    assert all(before <= after for before, after in pairwise(losses))
    assert losses[-1] <= eps_inf * (1 + 1e-12)
    assert mechanism.loss(3000) == pytest.approx(eps_inf, rel=1e-3)


@pytest.mark.parametrize("alpha", [0.05, 0.3, 0.6, 0.95, 1.0])
@pytest.mark.parametrize("eps_inf", GRID)
@pytest.mark.parametrize("name", NAMES)
def test_every_budget_in_range_gives_probabilities_or_a_reason(name: str, eps_inf: float, alpha: float) -> None:
    eps_1 = alpha * eps_inf
    if eps_1 < 1e-3:
        return
    cls = plugins.find("privacy", name)
    if eps_1 > feasible(name, eps_inf):
        with pytest.raises(ConfigError, match=f"for {name}: the largest feasible eps_1 is"):
            cls((5,), eps_inf=eps_inf, eps_1=eps_1)
        return
    protocol = cls((5,), eps_inf=eps_inf, eps_1=eps_1)
    nominal, rounded = protocol.nominal[0], protocol.mechanisms[0]
    assert nominal.loss(1) == pytest.approx(eps_1, rel=1e-9)
    assert nominal.loss_for_ever() == pytest.approx(eps_inf, rel=1e-9)
    for mechanism in (nominal, rounded):
        assert 0 < mechanism.other < mechanism.own < 1
        for rates in (mechanism.permanent, mechanism.instant):
            if rates is not None:
                assert 0 < rates.q < rates.p <= 1
                assert rates.not_p == pytest.approx(1 - rates.p, abs=1e-15)
    assert (nominal.instant is None) == (alpha == 1.0)
    assert rounded.loss(1) == pytest.approx(eps_1, rel=1e-4)
    assert rounded.loss_for_ever() == pytest.approx(eps_inf, rel=1e-4)


def feasible(name: str, eps_inf: float) -> float:
    if name == "l_oue":
        return math.log((2 * math.exp(eps_inf) + 1) / 3)
    if name == "l_soue":
        a = math.exp(eps_inf / 2)
        return math.log(a * (2 * a + 1) / (a + 2))
    return eps_inf


@pytest.mark.parametrize(
    "name, alphas", [("l_oue", (0.719, 0.763, 0.830, 0.901)), ("l_soue", (0.666, 0.664, 0.655, 0.630))]
)
def test_the_largest_feasible_first_report_is_named_and_works(name: str, alphas: tuple[float, ...]) -> None:
    cls = plugins.find("privacy", name)
    for eps_inf, alpha in zip((0.5, 1.0, 2.0, 4.0), alphas, strict=True):
        with pytest.raises(ConfigError, match="largest feasible eps_1") as caught:
            cls((4,), eps_inf=eps_inf, eps_1=eps_inf)
        named = float(re.search(r"largest feasible eps_1 is ([\d.]+);", str(caught.value))[1])  # type: ignore[index]
        assert named / eps_inf == pytest.approx(alpha, abs=6e-4)
        assert cls((4,), eps_inf=eps_inf, eps_1=named).loss(1) == pytest.approx(named, rel=1e-6)
        with pytest.raises(ConfigError, match="largest feasible eps_1"):
            cls((4,), eps_inf=eps_inf, eps_1=named * 1.001)


@pytest.mark.parametrize("name", ["l_sue", "l_osue", "l_grr"])
def test_equal_budgets_send_the_memo_itself(name: str) -> None:
    mechanism = made(name, 4, 2.0, 2.0)
    assert mechanism.instant is None
    assert mechanism.loss(1) == mechanism.loss(9) == pytest.approx(2.0, rel=1e-12)
    assert mechanism.loss_any() == math.inf
    assert float(mechanism.permanent_variance(1, 0.3)) == pytest.approx(float(mechanism.variance(1, 0.3)), rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_an_instant_step_next_to_none_is_refused_where_it_cannot_be_drawn(name: str) -> None:
    """eps_1 a trillionth below eps_inf: q2 rounds to 0, which would lose all privacy between two memos."""
    if name in ("l_oue", "l_soue"):
        return  # infeasible long before
    with pytest.raises(ConfigError, match=r"rounds to [01] with 32 random bits"):
        plugins.find("privacy", name)((4,), eps_inf=1.0, eps_1=1.0 - 1e-12)


def test_closed_forms_agree_with_their_textbook_shape() -> None:
    """Plain exponentials, where those keep their digits."""
    for eps_inf, eps_1 in ((0.5, 0.3), (2.0, 1.0), (4.0, 2.4), (7.0, 2.0)):
        a_, e_, a, e = (math.exp(x) for x in (eps_inf, eps_1, eps_inf / 2, eps_1 / 2))
        near = {"rel": 1e-12}
        assert instant(made("l_sue", 4, eps_inf, eps_1)).p == pytest.approx((a * e - 1) / ((a - 1) * (e + 1)), **near)
        assert instant(made("l_osue", 4, eps_inf, eps_1)).q == pytest.approx((a_ - e_) / ((a_ - 1) * (e_ + 1)), **near)
        b, c = 3 * a_ * e_ - a_ - e_ - 1, 2 * a_ + 1 - 3 * e_
        wanted = c / (b + math.sqrt(b * b - 4 * a_ * (e_ - 1) * c))
        assert instant(made("l_oue", 4, eps_inf, eps_1)).q == pytest.approx(wanted, **near)
        b, c = e_ * (a_ + 2 * a - 1) + a_ - 2 * a - 1, 2 * a_ + a - e_ * (a + 2)
        wanted = c / (b + math.sqrt(b * b - 4 * a * (e_ - 1) * c))
        assert instant(made("l_soue", 4, eps_inf, eps_1)).q == pytest.approx(wanted, **near)
        r = (a_ * e_ + 3 * e_ - 4) / (a_ - e_)
        assert instant(made("l_grr", 5, eps_inf, eps_1)).p == pytest.approx(r / (r + 4), **near)
        r = (a_ * e_ - 1) / (a_ - e_)
        published = instant(made("l_grr", 5, eps_inf, eps_1, rule="published"))
        assert published.p == pytest.approx(r / (r + 4), **near)
        assert published.not_q == pytest.approx((r + 3) / (r + 4), **near)


def test_variance_with_a_frequency_is_positive_where_the_reference_goes_negative() -> None:
    """L-GRR, published, k = 10 at (1, 0.5): n V(0.3) is 129.3; the reference's formula gives -198.5."""
    mechanism = made("l_grr", 10, 1.0, 0.5, rule="published")
    assert float(mechanism.variance(1, 0.3)) == pytest.approx(129.3, abs=0.05)
    permanent, again = mechanism.permanent, instant(mechanism)
    assert permanent is not None
    p1, p2, q2 = permanent.p, again.p, again.q
    gamma = 0.3 * (2 * p1 * p2 - 2 * p1 * q2 + 2 * q2 - 1) + mechanism.other
    assert gamma * (1 - gamma) / (mechanism.own - mechanism.other) ** 2 == pytest.approx(-198.5, abs=0.05)


def test_the_mean_variance_needs_no_prior() -> None:
    """[qs(1-qs) + (ps(1-ps) - qs(1-qs)) / k] / (ps-qs)^2: small domains favour l_sue over l_osue."""
    for name in NAMES:
        mechanism = made(name, 5, 4.0, 2.4) if name != "l_soue" else made(name, 5, 4.0, 2.0)
        p, q = mechanism.own, mechanism.other
        wanted = (q * (1 - q) + (p * (1 - p) - q * (1 - q)) / 5) / (p - q) ** 2
        assert mechanism.mean_variance(1) == pytest.approx(wanted, rel=1e-12)
    sue, osue = (made(name, 3, 4.0, 2.4) for name in ("l_sue", "l_osue"))
    assert sue.mean_variance(1) < osue.mean_variance(1)
    assert float(sue.variance(1)) > float(osue.variance(1))


def test_an_average_over_rounds_has_a_floor() -> None:
    """Var of the mean of tau rounds: V_PRR + (V_1 - V_PRR) / tau; V_PRR is the one-shot variance at eps_inf."""
    for name, oracle in (("l_sue", "sue"), ("l_osue", "oue"), ("l_grr", "grr")):
        once = plugins.find("privacy", oracle)((4,), eps=2.0).nominal[0]
        floor = made(name, 4, 2.0, 1.0).permanent_variance(1, np.array([0.0, 0.3]))
        assert floor == pytest.approx(once.variance(1, np.array([0.0, 0.3])), rel=1e-12)


def test_state_and_traffic_are_the_formulas() -> None:
    """Section 10 at k = 41: 1722 bits at worst for bits, 287 for symbols."""
    bits, symbols = made("l_osue", 41, 2, 1), made("l_grr", 41, 2, 1)
    assert [bits.state_bits(met) for met in (0, 3, 41)] == [41, 3 * 41 + 41, 1722]
    assert [symbols.state_bits(met) for met in (0, 3, 41)] == [41, 3 * 6 + 41, 287]
    assert (bits.round_bits, symbols.round_bits, bits.setup_bits, symbols.setup_bits) == (41, 6, 0, 0)
    assert made("l_sue", 1234, 2, 1).state_bits(1234) == 1234**2 + 1234


@pytest.mark.parametrize(
    "options, said",
    [
        ({"eps_inf": 0.0}, r"eps_inf=0.0 must lie in \[0.001, 30\]"),
        ({"eps_inf": -2.0}, "eps_inf=-2.0 must lie in"),
        ({"eps_inf": math.nan}, "eps_inf=nan must lie in"),
        ({"eps_inf": 31.0}, "eps_inf=31.0 must lie in"),
        ({"eps_inf": 1.0, "eps_1": 1.5}, "eps_1=1.5 must not exceed eps_inf=1.0"),
        ({"eps_inf": 1.0, "eps_1": 0.0}, "eps_1=0.0 must lie in"),
        ({"eps_inf": 1.0, "eps_1": math.nan}, "eps_1=nan must lie in"),
        ({"eps_inf": 1.0, "alpha": 1.5}, r"alpha=1.5 must lie in \(0, 1\]"),
        ({"eps_inf": 1.0, "alpha": 0.0}, r"alpha=0.0 must lie in \(0, 1\]"),
        ({"eps_inf": 1.0, "alpha": 0.5, "eps_1": 0.5}, "alpha=0.5 says the same as eps_1=0.5"),
        ({"eps_inf": 0.0015, "alpha": 0.1}, "eps_1=0.00015.* must lie in"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_impossible_budgets_are_refused(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        plugins.find("privacy", name)((4,), **options)


@pytest.mark.parametrize("name", NAMES)
def test_domains_that_cannot_be_asked_for_are_refused(name: str) -> None:
    cls = plugins.find("privacy", name)
    with pytest.raises(ConfigError, match="at least 2"):
        cls((1,))
    with pytest.raises(ConfigError, match=r"the data have 3: write protocol: \{name: smp"):
        cls((3, 4, 5))


def test_alpha_is_half_unless_told() -> None:
    assert two_budgets(3.0).eps_1 == 1.5
    assert plugins.find("privacy", "l_osue")((4,), eps_inf=3.0).budgets.eps_1 == 1.5
    assert plugins.find("privacy", "l_osue")((4,), eps_inf=3.0, alpha=0.2).budgets.eps_1 == pytest.approx(0.6)


@pytest.mark.parametrize("name", ["l_sue", "l_osue", "l_grr"])
@pytest.mark.parametrize("eps_inf", [0.01, 1.0, 12.0, 30.0])
@pytest.mark.parametrize("alpha", [1 - 1e-6, 1 - 1e-9, 1 - 1e-12])
def test_a_first_report_that_loses_nearly_all_has_probabilities_still(name: str, eps_inf: float, alpha: float) -> None:
    refused = ""
    try:
        protocol = plugins.find("privacy", name)((5,), eps_inf=eps_inf, alpha=alpha)
    except ConfigError as error:
        refused = str(error)  # what little noise there is rounds away
    else:
        assert protocol.loss(1) <= protocol.loss_for_ever() * (1 + 1e-12)
    assert not refused or "random bits" in refused
