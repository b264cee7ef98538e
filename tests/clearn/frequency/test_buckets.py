"""Buckets of an ordered domain: whole-number cuts, one memo a bucket, and both ways to normalise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clearn.errors import ConfigError
from clearn.frequency import Tally
from clearn.frequency.buckets import Buckets
from clearn.frequency.calibrate import symmetric
from clearn.frequency.coins import SimulatedCoins

RATES = symmetric(2.0)


def test_buckets_are_cut_in_whole_numbers() -> None:
    """k = 18, b = 14, v = 9: a floating-point v / (k / b) gives 6, and the bucket is 7."""
    mechanism = Buckets(18, 14, 14, RATES, False)
    assert mechanism.bucket(np.array([9])).tolist() == [7]
    assert int(9 / (18 / 14)) == 6
    for k, b in ((18, 14), (360, 90), (1412, 353), (7, 3)):
        cut = Buckets(k, b, b, RATES, False).bucket(np.arange(k))
        assert (np.diff(cut) >= 0).all()
        assert set(np.bincount(cut, minlength=b)) <= {k // b, k // b + 1}
        assert cut[-1] == b - 1


def test_the_truth_is_cut_alike() -> None:
    mechanism = Buckets(6, 3, 2, RATES, False)
    assert mechanism.coarse(np.array([1, 2, 3, 4, 5, 6])).tolist() == [3, 7, 11]
    assert (mechanism.slots, mechanism.answers, mechanism.cells) == (3, 3, 3)


def test_a_value_outside_the_sample_has_the_last_cell() -> None:
    mechanism = Buckets(4, 4, 2, RATES, False)
    public = np.array([[3, 1], [3, 1], [0, 2]], np.uint8)
    cells = mechanism.cell(np.array([1, 0, 0]), public)
    assert cells.tolist() == [1, 2, 0]
    assert mechanism.signal(cells, public).tolist() == [[False, True], [False, False], [True, False]]


def test_support_and_trials_by_hand() -> None:
    mechanism = Buckets(4, 4, 2, RATES, False)
    public = np.array([[3, 1], [3, 1], [0, 2]], np.uint8)
    reports = np.array([[True, False], [True, True], [False, True]])
    assert mechanism.support(reports, public).tolist() == [0, 1, 1, 2]
    assert mechanism.trials(public).tolist() == [1, 2, 1, 2]
    assert mechanism.valid(reports, public).all()
    wrong = np.array([[3, 3], [4, 1], [0, 2]], np.uint8)
    assert mechanism.valid(reports, wrong).tolist() == [False, False, True]


def test_both_ways_to_normalise_by_hand() -> None:
    """b / (n d) * sum over those who sampled j of (bit (a + 1) - 1) / (a - 1), or the same over their number."""
    a = math.e
    tally = Tally(10, np.array([3, 2, 0, 1]), np.array([6, 4, 5, 5]))
    total = [(ones * (a + 1) - trials) / (a - 1) for ones, trials in zip(tally.counts, tally.trials, strict=True)]
    published = Buckets(4, 4, 2, RATES, True).estimate(tally)
    assert published == pytest.approx([4 / (10 * 2) * one for one in total], rel=1e-12)
    ours = Buckets(4, 4, 2, RATES, False).estimate(tally)
    assert ours == pytest.approx([one / trials for one, trials in zip(total, tally.trials, strict=True)], rel=1e-12)
    nobody = Tally(1, np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]))
    assert np.isnan(Buckets(4, 4, 2, RATES, False).estimate(nobody)[:2]).all()
    assert np.isfinite(Buckets(4, 4, 2, RATES, True).estimate(nobody)).all()


@pytest.mark.parametrize("expected", [True, False])
def test_variance_counts_who_samples_what(expected: bool) -> None:
    mechanism, runs = Buckets(4, 4, 2, symmetric(4.0), expected).rounded(32), 4000
    counts = np.array([210, 60, 30, 0])
    n, coins = int(counts.sum()), SimulatedCoins(np.random.default_rng(6))
    values = np.repeat(np.arange(4), counts)
    found = []
    for _ in range(runs):
        public = mechanism.public(n, coins)
        memos = mechanism.memoise(mechanism.cell(values, public), public, coins)
        found.append(mechanism.estimate(Tally(n, mechanism.support(memos, public), mechanism.trials(public))))
    errors = ((np.array(found) - counts / n) ** 2).mean(axis=0)
    variance = mechanism.variance(n, counts / n)
    assert (np.abs(errors / variance - 1) < 4 * math.sqrt(2 / runs)).all()


def test_published_variance_and_the_gain_of_real_numbers() -> None:
    """n Var = (b/d)(a/(a-1)^2 + f) - f; dividing by the real number of samplers takes f^2 (b/d - 1) off."""
    a, f, n = math.e, 0.3, 10_000
    published = float(Buckets(8, 8, 2, RATES, True).variance(n, f))
    assert n * published == pytest.approx(4 * (a / (a - 1) ** 2 + f) - f, rel=1e-12)
    ours = float(Buckets(8, 8, 2, RATES, False).variance(n, f))
    assert n * ours == pytest.approx(n * published - f * f * 3, rel=1e-3)
    every = Buckets(8, 8, 8, RATES, True)
    assert n * float(every.variance(n, f)) == pytest.approx(a / (a - 1) ** 2, rel=1e-12)


def test_state_and_traffic_are_the_formulas() -> None:
    mechanism = Buckets(100, 50, 5, RATES, False)
    assert [mechanism.state_bits(met) for met in (0, 3, 6)] == [6, 3 * 5 + 6, 6 * 6]
    assert (mechanism.round_bits, mechanism.setup_bits, mechanism.public_bits) == (5, 5 * 6, 5 * 6)
    every = Buckets(100, 50, 50, RATES, False)
    assert every.public_bits == 0  # nothing to tell
    assert every.public(3, SimulatedCoins(np.random.default_rng(0))).shape == (3, 0)


def test_impossible_cuts_are_refused() -> None:
    for buckets, sampled, said in (
        (5, 1, r"buckets=5 must lie in \[2, 4\]"),
        (1, 1, "buckets=1"),
        (3, 0, "sampled=0"),
        (3, 4, r"sampled=4 must lie in \[1, 3\]"),
    ):
        with pytest.raises(ConfigError, match=said):
            Buckets(4, buckets, sampled, RATES, False)
