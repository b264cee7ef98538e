"""dBitFlipPM as a protocol; its mechanism's own tests are those of buckets."""

from __future__ import annotations

import math

import pytest

from clearn import plugins
from clearn.errors import ConfigError


def test_defaults_are_a_bucket_a_value_all_sampled() -> None:
    protocol = plugins.find("privacy", "d_bit_flip_pm")((9,), eps_inf=2.0)
    mechanism = protocol.nominal[0]
    assert (mechanism.answers, mechanism.sampled) == (9, 9)
    assert mechanism.own == pytest.approx(math.e / (math.e + 1), rel=1e-14)
    assert mechanism.other == pytest.approx(1 / (math.e + 1), rel=1e-14)
    assert (protocol.budgets.eps_inf, protocol.budgets.eps_1) == (2.0, 2.0)
    assert protocol.loss(1) == protocol.loss(50) == pytest.approx(2.0, abs=1e-6)
    assert protocol.loss_any() == math.inf
    sue = plugins.find("privacy", "sue")((9,), eps=2.0).nominal[0]
    assert float(mechanism.variance(1, 0.3)) == pytest.approx(float(sue.variance(1, 0.3)), rel=1e-12)


def test_both_ways_to_normalise_can_be_chosen() -> None:
    cls = plugins.find("privacy", "d_bit_flip_pm")
    for normalise, expected in (("samplers", False), ("expected", True)):
        assert cls((9,), buckets=6, sampled=2, normalise=normalise).mechanisms[0].expected == expected


def test_a_change_is_seen_at_once_and_one_bucket_loses_half() -> None:
    cls = plugins.find("privacy", "d_bit_flip_pm")
    assert ["change of value" in one for one in cls((9,), eps_inf=2.0, sampled=3).warnings()] == [True]
    protocol = cls((9,), eps_inf=2.0, sampled=1)
    assert protocol.loss(1) == pytest.approx(1.0, abs=1e-6)
    assert protocol.warnings()[1] == "with sampled=1 two users differ in one bit, which loses 1.000: half of eps_inf"


@pytest.mark.parametrize("eps_inf", [1e-3, 1.0, 12.0, 30.0])
def test_every_budget_in_range_gives_probabilities_that_can_be_drawn(eps_inf: float) -> None:
    protocol = plugins.find("privacy", "d_bit_flip_pm")((9,), eps_inf=eps_inf)
    for mechanism in (protocol.nominal[0], protocol.mechanisms[0]):
        assert 0 < mechanism.other < mechanism.own < 1
    assert protocol.nominal[0].loss(1) == pytest.approx(eps_inf, rel=1e-9)


def test_bad_options_are_refused() -> None:
    cls = plugins.find("privacy", "d_bit_flip_pm")
    for options, said in (
        ({"eps_inf": 0.0}, "must lie in"),
        ({"buckets": 10}, r"buckets=10 must lie in \[2, 9\]"),
        ({"buckets": 4, "sampled": 5}, r"sampled=5 must lie in \[1, 4\]"),
    ):
        with pytest.raises(ConfigError, match=said):
            cls((9,), **options)
    with pytest.raises(ConfigError, match="at least 2"):
        cls((1,))
