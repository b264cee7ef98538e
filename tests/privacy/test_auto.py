"""auto: the choice is the least closed-form error among those that keep the promise and fit the device."""

from __future__ import annotations

from collections.abc import Callable
from math import e, exp, expm1, inf

import pytest

from clearn.errors import BudgetExceeded, ConfigError
from clearn.frequency import two_budgets
from clearn.frequency.accounting import ProtocolCost, cost
from clearn.frequency.candidates import candidates, keeps_budgets, planned_mse
from privacy.auto import Auto

N, ROUNDS = 1000, 100
EPS_INF, EPS_1 = 2.0, 1.0


def anything(cost: ProtocolCost) -> None:
    """No budget."""


def chosen(auto: Auto, over: Callable[[ProtocolCost], str | None] = anything, rounds: int = ROUNDS) -> str:
    """The name of what is taken."""
    return auto.within(over, N, rounds, "table").reason.partition(",")[0]


def spread(p: float, q: float, k: int) -> float:
    """n times the mean variance over k values: [q (1-q) + (p (1-p) - q (1-q)) / k] / (p-q)^2."""
    return (q * (1 - q) + (p * (1 - p) - q * (1 - q)) / k) / (p - q) ** 2


def one_shot(name: str, eps: float, k: int) -> float:
    """n times the mean variance of a report that loses eps."""
    big, small = exp(eps), exp(eps / 2)
    rates = {
        "grr": (big / (big + k - 1), 1 / (big + k - 1)),
        "sue": (small / (small + 1), 1 / (small + 1)),
        "oue": (1 / 2, 1 / (big + 1)),
        "olh": (big / (big + 3), 1 / 4),  # g = 4 cells, which is right for eps_1 = 1
    }
    return spread(*rates[name], k)


def running(name: str, k: int, tau: float) -> float:
    """n times the mean variance of tau rounds' mean, values unchanged: V_PRR + (V_1 - V_PRR) / tau."""
    floor = one_shot(name, EPS_INF, k)
    if name == "olh":  # of a hash with the 4 cells of eps_1
        floor = spread(e**2 / (e**2 + 3), 1 / 4, k)
    return floor + (one_shot(name, EPS_1, k) - floor) / tau


KINDS = {"l_grr": "grr", "l_sue": "sue", "l_osue": "oue", "loloha": "olh"}  # their first report is that of


# --- what is weighed


def test_everything_weighed_keeps_both_budgets_and_nothing_that_does_is_left_out() -> None:
    for domains in ((5,), (3, 4)):
        budgets = two_budgets(EPS_INF, None, EPS_1)
        auto = Auto(domains, EPS_INF, eps_1=EPS_1)
        listed = [one for one in candidates(domains, budgets) if one.protocol is not None]
        assert [name for name, _ in auto.kept] == [
            one.name for one in listed if one.protocol is not None and keeps_budgets(one.protocol, budgets)
        ]
        assert len(auto.kept) >= 8
        for _, protocol in auto.kept:
            assert protocol.loss(1) <= EPS_1 * (1 + 1e-6)
            assert protocol.loss_for_ever() <= EPS_INF * (1 + 1e-6)
        names = {name for name, _ in auto.kept}
        assert not names & {"auto", "grr", "oue", "d_bit_flip_pm", "smp of grr", "rs_fd of grr"}


def test_l_oue_and_l_soue_are_left_out_where_they_are_infeasible() -> None:
    names = {name for name, _ in Auto((5,), 2.0, alpha=0.9).kept}
    assert not names & {"l_oue", "l_soue"}
    assert {"l_oue", "l_soue"} <= {name for name, _ in Auto((5,), 2.0, alpha=0.5).kept}


@pytest.mark.parametrize("domains", [(2,), (5,), (40,), (2, 9, 41)])
def test_the_least_closed_form_error_is_taken(domains: tuple[int, ...]) -> None:
    auto = Auto(domains, EPS_INF, eps_1=EPS_1)
    found = auto.within(anything, N, 1, "table")
    errors = {name: planned_mse(protocol, N) for name, protocol in auto.kept}
    name = found.reason.partition(",")[0]
    assert errors[name] == min(errors.values()) == planned_mse(found, N)
    assert found.reason.startswith(f"{name}, expected MSE of a round's estimates {errors[name]:.3e}; ")
    assert found.reason.endswith(f"{len(errors)} of {len(errors)} protocols fit the device")


@pytest.mark.parametrize("k", [2, 3, 5, 8, 11, 12, 20, 40])
def test_one_attribute_goes_to_the_best_of_four_by_hand(k: int) -> None:
    """Of the protocols that spend both budgets in full these four have no worse rival of their kind."""
    errors = {name: one_shot(kind, EPS_1, k) for name, kind in KINDS.items()}
    assert planned_mse(Auto((k,), EPS_INF, eps_1=EPS_1).within(anything, N, 1, "table"), N) == pytest.approx(
        min(errors.values()) / N, rel=1e-6
    )


# --- the goal


def test_the_mean_of_many_rounds_can_want_another_protocol_than_each_round() -> None:
    """At k = 16, spec 12.3: one round wants bits, k > 3 E + 2 = 10.2; a long mean symbols, k <= 3 A + 2 = 24.2."""
    k = 16
    w1, w2 = 1 / (ROUNDS * expm1(EPS_1) ** 2), (1 - 1 / ROUNDS) / expm1(EPS_INF) ** 2
    threshold = 2 + 3 * (e * w1 + e**2 * w2) / (w1 + w2)
    assert 3 * e + 2 < k < threshold
    a_round = {name: one_shot(kind, EPS_1, k) for name, kind in KINDS.items()}
    a_mean = {name: running(kind, k, ROUNDS) for name, kind in KINDS.items()}
    assert min(a_round, key=a_round.__getitem__) != "l_grr" == min(a_mean, key=a_mean.__getitem__)

    for goal, errors, words in (("round", a_round, "a round's"), ("mean", a_mean, f"the mean of {ROUNDS} rounds'")):
        found = Auto((k,), EPS_INF, eps_1=EPS_1, goal=goal).within(anything, N, ROUNDS, "table")
        best = min(errors.values()) / N
        assert planned_mse(found, N, ROUNDS if goal == "mean" else 1) == pytest.approx(best, rel=1e-6)
        assert f"expected MSE of {words} estimates {best:.3e}" in found.reason
    assert chosen(Auto((k,), EPS_INF, eps_1=EPS_1)) != "l_grr"
    assert chosen(Auto((k,), EPS_INF, eps_1=EPS_1, goal="mean")) == "l_grr"


def test_over_one_round_both_goals_are_one() -> None:
    for k in (3, 16, 30):
        names = {chosen(Auto((k,), EPS_INF, eps_1=EPS_1, goal=goal), rounds=1) for goal in ("round", "mean")}
        assert len(names) == 1


# --- the device


def test_what_does_not_fit_is_passed_over() -> None:
    auto = Auto((40,), EPS_INF, eps_1=EPS_1)
    free = chosen(auto)
    refused = []

    def over(card: ProtocolCost) -> str | None:
        refused.append(card)
        return "is too dear" if card.client_worst > 100 else None

    found = auto.within(over, N, 1, "table")
    assert len(refused) == len(auto.kept)
    assert cost(found, N, 1).client_worst <= 100
    assert found.reason.partition(",")[0] != free
    fitting = [(planned_mse(p, N), name) for name, p in auto.kept if cost(p, N, 1).client_worst <= 100]
    assert found.reason.startswith(f"{min(fitting)[1]}, ")
    assert f"; {len(fitting)} of {len(auto.kept)} protocols fit the device" in found.reason


def test_none_that_fits_is_refused_and_the_cheapest_is_named() -> None:
    auto = Auto((1000,), EPS_INF)
    with pytest.raises(BudgetExceeded, match=r"none of \d+ protocols fits the device; the cheapest, bi_loloha is dear"):
        auto.within(lambda card: "is dear", N, 1, "table")


def test_a_key_is_proposed_only_where_it_helps() -> None:
    auto = Auto((1000,), EPS_INF)
    auto.kept = [(name, protocol) for name, protocol in auto.kept if "loloha" not in name]

    def within(most: float) -> Callable[[ProtocolCost], str | None]:
        return lambda card: f"keeps {card.client_worst} bits" if card.client_worst > most else None

    with pytest.raises(BudgetExceeded, match=r"the cheapest, l_grr keeps 11000 bits: .* or write runner.memo=prf"):
        auto.within(within(256), N, 1, "table")
    assert auto.within(within(256), N, 1, "prf").reason
    with pytest.raises(BudgetExceeded) as caught:
        auto.within(within(255), N, 1, "table")
    assert "memo=prf" not in str(caught.value)


# --- bad input


@pytest.mark.parametrize(
    ("domains", "options", "said"),
    [
        ((5,), {"eps_inf": 0.0}, r"eps_inf=0.0 must lie in \[0.001, 30\]"),
        ((5,), {"eps_inf": inf}, r"eps_inf=inf must lie in"),
        ((5,), {"eps_inf": 1.0, "eps_1": 2.0}, r"eps_1=2.0 must not exceed eps_inf=1.0"),
        ((5,), {"eps_inf": 1.0, "eps_1": 0.5, "alpha": 0.5}, r"alpha=0.5 says the same as eps_1=0.5"),
        ((1,), {}, r"no protocol keeps eps_inf=1.0 and eps_1=0.5 on these attributes"),
        ((), {}, r"no protocol keeps|there is no attribute"),
    ],
)
def test_what_cannot_be_is_refused(domains: tuple[int, ...], options: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Auto(domains, **options)  # type: ignore[arg-type]
