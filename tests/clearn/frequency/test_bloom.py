"""Bloom filters in cohorts: the public design, and frequencies by least squares."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clearn.errors import ConfigError
from clearn.frequency import Rates, Tally
from clearn.frequency.bloom import Bloom, filters
from clearn.frequency.coins import SimulatedCoins

PERMANENT, INSTANT = Rates.of(0.75, 0.25), Rates.of(0.75, 0.5)


def test_filters_are_public_and_spread_evenly() -> None:
    design = filters(500, 16, 2, 8)
    assert (design == filters(500, 16, 2, 8)).all()
    weight = design.sum(axis=2)
    assert set(np.unique(weight)) == {1, 2}
    one = 1 / 16  # both hashes fall on the same bit
    assert abs((weight == 1).mean() - one) < 4 * math.sqrt(one * (1 - one) / weight.size)
    set_ = 1 - (1 - 1 / 16) ** 2
    per_bit = design.mean(axis=(0, 1))
    assert (np.abs(per_bit - set_) < 4 * math.sqrt(set_ * (1 - set_) / (500 * 8))).all()
    same = (design[0] & design[1]).any(axis=1).mean()  # cohorts hash on their own
    assert same < 0.5


def test_estimates_are_exact_where_counts_are_their_means() -> None:
    """Without noise in the counts, least squares gives the frequencies back, whatever the cohorts' sizes."""
    mechanism = Bloom(20, 16, 2, 4, PERMANENT, INSTANT)
    f = np.arange(1, 21) / 210
    users = np.array([1000.0, 400.0, 0.0, 2000.0])
    ones = np.einsum("v,cvb->cb", f, mechanism.design)
    counts = users[:, None] * (mechanism.other + (mechanism.own - mechanism.other) * ones)
    tally = Tally(3400, counts.ravel(), np.repeat(users, 16).astype(np.int64))
    assert mechanism.estimate(tally) == pytest.approx(f, rel=1e-9)


def test_too_few_cohorts_answering_give_nan() -> None:
    mechanism = Bloom(20, 16, 2, 4, PERMANENT, INSTANT)
    users = np.array([5, 0, 0, 0])  # 16 bits cannot tell 20 values
    tally = Tally(5, np.full(64, 2), np.repeat(users, 16))
    assert np.isnan(mechanism.estimate(tally)).all()


@pytest.mark.parametrize("instant", [INSTANT, None])
def test_variance_counts_bits_and_cohorts(instant: Rates | None) -> None:
    """With little noise in the bits what remains is the draw of cohorts; so both parts are held against draws."""
    mechanism, runs = Bloom(5, 6, 2, 3, Rates.of(0.95, 0.05), instant).rounded(32), 4000
    counts = np.array([300, 120, 60, 20, 0])
    n, coins = int(counts.sum()), SimulatedCoins(np.random.default_rng(7))
    values = np.repeat(np.arange(5), counts)
    found = []
    for _ in range(runs):
        public = mechanism.public(n, coins)
        reports = mechanism.send(mechanism.memoise(values, public, coins), coins)
        found.append(mechanism.estimate(Tally(n, mechanism.support(reports, public), mechanism.trials(public))))
    errors = ((np.array(found) - counts / n) ** 2).mean(axis=0)
    variance = mechanism.variance(n, counts / n)
    assert (np.abs(errors / variance - 1) < 4 * math.sqrt(2 / runs) + 5 / n).all()


def test_one_hash_without_collisions_is_a_permuted_unary_encoding() -> None:
    """If every value sets a bit of its own, least squares is the plain estimator, with its variance."""
    mechanism = Bloom(2, 4, 1, 1, PERMANENT, INSTANT)
    assert mechanism.design.any(axis=1).sum() == 2
    p, q, n = mechanism.own, mechanism.other, 1000
    f = np.array([0.8, 0.2])
    wanted = (f * p * (1 - p) + (1 - f) * q * (1 - q)) / (n * (p - q) ** 2)
    assert mechanism.variance(n, f) == pytest.approx(wanted, rel=1e-12)
    assert float(mechanism.variance(n)) == pytest.approx(q * (1 - q) / (n * (p - q) ** 2), rel=1e-12)


def test_costs_are_those_of_filters_and_cohorts() -> None:
    mechanism = Bloom(20, 16, 2, 4, PERMANENT, INSTANT)
    assert (mechanism.memo_bits, mechanism.round_bits, mechanism.public_bits, mechanism.setup_bits) == (16, 16, 2, 2)
    assert mechanism.state_bits(3) == 3 * 16 + 20
    assert mechanism.valid(np.zeros((2, 16), bool), np.array([[3], [4]], np.uint8)).tolist() == [True, False]


def test_filters_that_cannot_tell_values_apart_are_refused() -> None:
    with pytest.raises(ConfigError, match="cohorts=2 filters of bits=8 cannot tell k=20 values apart"):
        Bloom(20, 8, 2, 2, PERMANENT, INSTANT)
