"""RAPPOR as a protocol; its mechanism's own tests are those of Bloom filters."""

from __future__ import annotations

import math
from typing import Any

import pytest

from clearn import plugins
from clearn.errors import ConfigError


def made(**options: Any) -> Any:
    return plugins.find("privacy", "rappor")((12,), **options)


def test_budgets_of_the_paper_s_case() -> None:
    protocol = made(f=0.5, p_r=0.5, q_r=0.75, hashes=2)
    assert protocol.budgets.eps_inf == pytest.approx(4.394449, abs=5e-7)
    assert protocol.budgets.eps_1 == pytest.approx(1.074286, abs=5e-7)
    assert protocol.nominal[0].loss(1) == pytest.approx(protocol.budgets.eps_1, rel=1e-9)
    assert protocol.nominal[0].loss_for_ever() == pytest.approx(protocol.budgets.eps_inf, rel=1e-9)


def test_composed_rates_are_the_paper_s() -> None:
    f, p, q = 0.4, 0.3, 0.8
    mechanism = made(f=f, p_r=p, q_r=q).nominal[0]
    assert mechanism.own == pytest.approx(f * (p + q) / 2 + (1 - f) * q, rel=1e-12)
    assert mechanism.other == pytest.approx(f * (p + q) / 2 + (1 - f) * p, rel=1e-12)


def test_without_instantaneous_noise_the_memo_is_sent() -> None:
    protocol = made(f=0.5, p_r=0.0, q_r=1.0, hashes=1)
    assert protocol.nominal[0].instant is None
    assert protocol.budgets.eps_1 == pytest.approx(protocol.budgets.eps_inf, rel=1e-12)
    assert protocol.loss(1) == pytest.approx(2 * math.log(3), abs=1e-6)


def test_values_alike_in_every_cohort_s_worst_pair_lose_less_than_promised() -> None:
    """Where no two filters are disjoint, the exact loss lies below the bound for any values."""
    protocol = plugins.find("privacy", "rappor")((2,), hashes=2, bits=3, cohorts=2)
    assert protocol.loss(1) < protocol.budgets.eps_1 - 1e-3


@pytest.mark.parametrize(
    "options, said",
    [
        ({"f": 0.0}, "f=0.0 must lie between 0 and 1"),
        ({"f": 1.0}, "f=1.0 must lie between 0 and 1"),
        ({"f": math.nan}, "f=nan must lie between 0 and 1"),
        ({"p_r": 0.8}, "p_r=0.8 and q_r=0.75 must satisfy"),
        ({"q_r": 1.2}, "q_r=1.2 must satisfy"),
        ({"hashes": 0}, r"hashes=0 must lie in \[1, bits=128\)"),
        ({"bits": 2}, r"hashes=2 must lie in \[1, bits=2\)"),
        ({"cohorts": 0}, "cohorts=0 be at least 1"),
        ({"f": 1e-12}, "give eps_inf=113.3, which must lie in"),
        ({"q_r": 0.5001}, "eps_1=0.0004.* must lie in"),
        ({"bits": 4, "cohorts": 2}, "cannot tell k=12 values apart"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        made(**options)
