"""ALLOMFREE: which protocol each attribute gets, and the two profiles."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from clearn import plugins
from clearn.errors import ConfigError
from clearn.frequency import Symbol, Unary

ADULT = (7, 16, 7, 14, 6, 5, 2, 41, 2)


def made(domains: tuple[int, ...], **options: Any) -> Any:
    return plugins.find("privacy", "allomfree")(domains, **options)


@pytest.mark.parametrize(
    "eps_inf, alpha, published, exact",
    [
        (0.5, 0.3, 3, 5),
        (0.5, 0.6, 3, 6),
        (1.0, 0.3, 3, 6),
        (1.0, 0.6, 4, 7),
        (2.0, 0.3, 4, 7),
        (2.0, 0.6, 6, 11),
        (3.0, 0.3, 6, 9),
        (3.0, 0.6, 11, 20),
        (4.0, 0.3, 9, 11),
        (4.0, 0.6, 20, 35),
    ],
)
def test_largest_domain_that_gets_l_grr(eps_inf: float, alpha: float, published: int, exact: int) -> None:
    domains = tuple(range(2, 50))
    for profile, largest in (("paper", published), ("best", exact)):
        protocol = made(domains, eps_inf=eps_inf, alpha=alpha, profile=profile)
        kinds = [type(mechanism) for mechanism in protocol.mechanisms]
        assert kinds == [Symbol if k <= largest else Unary for k in domains]
    assert exact == math.floor(3 * math.exp(alpha * eps_inf) + 2)


def test_profiles_set_rule_split_and_post_processing() -> None:
    best, paper = made(ADULT), made(ADULT, profile="paper")
    assert (best.profile, best.split, best.post) == ("best", "independent", "norm_sub")
    assert (paper.profile, paper.split, paper.post) == ("paper", "equal", "norm_mul")
    assert best.nominal[5].loss(1) == pytest.approx(0.5, rel=1e-9)  # k = 5
    assert made((3,), profile="paper").nominal[0].loss(1) == pytest.approx(0.442, abs=5e-4)
    assert made(ADULT, split="equal").split == "equal"
    assert made(ADULT, profile="paper", split="independent").split == "independent"
    assert best.warnings() == []
    assert paper.warnings() == []  # at (1, 0.5) only k <= 3 gets the published l_grr, and for k = 2 it is exact
    assert len(made((3, 3, 41), eps_inf=2.0, profile="paper").warnings()) == 1


def test_choices_say_which_and_why() -> None:
    choices = made((5, 41), eps_inf=2.0, eps_1=1.0).choices()
    assert choices == {
        "attribute 0 (k=5)": "l_grr: Var* 1.937 of l_grr, 3.683 of l_osue",
        "attribute 1 (k=41)": "l_osue: Var* 14.13 of l_grr, 3.683 of l_osue",
    }


def test_one_attribute_a_user_with_the_whole_budget() -> None:
    protocol = made(ADULT, eps_inf=2.0, eps_1=1.0)
    assert protocol.asks == "one"
    assert protocol.loss(1) == pytest.approx(1.0, abs=1e-6)
    assert protocol.loss_for_ever() == pytest.approx(2.0, abs=1e-6)
    assert protocol.shares.tolist() == [1 / 9] * 9
    alone = plugins.find("privacy", "l_osue")((41,), eps_inf=2.0, eps_1=1.0)
    assert float(protocol.variance(7, 300)) == float(alone.variance(0, 300))


def test_neyman_shares_make_the_sum_of_variances_least() -> None:
    protocol = made(ADULT, eps_inf=4.0, eps_1=2.4, shares="neyman")
    variance = np.array([mechanism.mean_variance(1) for mechanism in protocol.nominal])
    assert protocol.shares.sum() == pytest.approx(1, abs=1e-12)
    assert protocol.shares == pytest.approx(np.sqrt(variance) / np.sqrt(variance).sum(), rel=1e-9)
    total = (variance / protocol.shares).sum()
    gain = 1 - total / (variance * 9).sum()
    assert gain == pytest.approx(1 - np.sqrt(variance).sum() ** 2 / (9 * variance.sum()), rel=1e-9)
    assert gain == pytest.approx(0.05, abs=0.02)  # the spec: about 5 % on Adult at eps_1 = 2.4
    for nudge in (1e-3, -1e-3):
        other = protocol.shares + nudge * np.eye(9)[0] - nudge * np.eye(9)[7]
        assert (variance / other).sum() > total


def test_equal_budgets_are_allowed() -> None:
    protocol = made((3, 41), eps_inf=1.0, eps_1=1.0)
    assert [mechanism.instant for mechanism in protocol.mechanisms] == [None, None]


@pytest.mark.parametrize(
    "domains, options, said",
    [
        ((3, 1), {}, "at least 2"),
        ((), {}, "no attribute"),
        ((3, 4), {"eps_inf": 0.0}, "eps_inf=0.0 must lie in"),
        ((3, 4), {"eps_inf": 1.0, "eps_1": 2.0}, "eps_1=2.0 must not exceed"),
    ],
)
def test_bad_options_are_refused(domains: tuple[int, ...], options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        made(domains, **options)
