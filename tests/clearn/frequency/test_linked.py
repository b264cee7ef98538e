"""Decoding all reports of a user together: conditions of a likelihood's top, its variance, the gain over the mean."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clearn.frequency import Rates, Symbol, Unary
from clearn.frequency.accounting import cost
from clearn.frequency.buckets import Buckets
from clearn.frequency.coins import SimulatedCoins
from clearn.frequency.hadamard import Hadamard
from clearn.frequency.lemmas import flip_bits, lemma_of
from clearn.frequency.linked import (
    counters,
    decode_scores,
    decode_symbols,
    draw_histogram,
    histogram,
    scored,
    supports,
    unlinkable,
    variance,
)


def mean_of_rounds(mechanism, rounds, n, f):
    """Variance of the mean of rounds: V_PRR + (V_1 - V_PRR) / t."""
    floor = mechanism.permanent_variance(n, f)
    return floor + (mechanism.variance(n, f) - floor) / rounds


def collect(mechanism, values, rounds, seed):
    """Counters of users simulated one by one."""
    coins = SimulatedCoins(np.random.default_rng(seed))
    public = mechanism.public(len(values), coins)
    cells = mechanism.cell(values, public)
    keeps = mechanism.permanent is not None
    memos = mechanism.memoise(cells, public, coins) if keeps else mechanism.signal(cells, public)
    found = counters(len(values), mechanism.slots, rounds)
    for _ in range(rounds):
        found += supports(mechanism, mechanism.send(memos, coins), public)
    return found


@pytest.mark.parametrize(
    ("eps_inf", "eps_1", "rounds", "ratio"), [(2, 1, 5, 1.3), (4, 1.2, 2, 1.5), (4, 1.2, 5, 1.9), (4, 1.2, 10, 2.0)]
)
def test_gain_over_the_mean_of_rounds(make, eps_inf, eps_1, rounds, ratio):
    """L-OSUE at frequency 0.1, as the specification gives it to one digit."""
    mechanism = make.unary(10, eps_inf, eps_1)
    expected = mean_of_rounds(mechanism, rounds, 1, 0.1) / variance(mechanism, rounds, 1, 0.1)
    assert expected == pytest.approx(ratio, abs=0.1)


@pytest.mark.parametrize(("eps_inf", "eps_1", "rounds"), [(2, 1, 5), (4, 1.2, 5)])
def test_decoded_estimates_are_unbiased_and_have_the_stated_variance(make, eps_inf, eps_1, rounds):
    """All users at once; 10 values of frequency 0.1 are 10 independent estimates a repeat."""
    mechanism, n, k, repeats = make.unary(10, eps_inf, eps_1).rounded(32), 20_000, 10, 200
    rng, lemma = np.random.default_rng(0), lemma_of(mechanism)
    found = []
    for _ in range(repeats):
        ones = flip_bits(np.full(k, n // k), n, *lemma.permanent, rng)
        found.append(decode_scores(draw_histogram(mechanism, ones, n, rounds, rng), mechanism))
    error, expected = np.array(found) - 0.1, float(variance(mechanism, rounds, n, 0.1))
    assert abs(error.mean()) < 4 * math.sqrt(expected / error.size)
    assert abs((error**2).mean() - expected) < 4 * expected * math.sqrt(2 / error.size)
    gain = float(mean_of_rounds(mechanism, rounds, n, 0.1)) / (error**2).mean()
    assert gain == pytest.approx({5: 1.3 if eps_inf == 2 else 1.9}[rounds], rel=4 * math.sqrt(2 / error.size))


@pytest.mark.parametrize("kind", ["unary", "hashed", "one-shot"])
def test_histogram_of_users_one_by_one_is_that_of_all_at_once(make, kind):
    """Mean counts of every score; a score's count is a sum of independent indicators, of variance at most its mean."""
    mechanism = {"unary": make.unary(3), "hashed": make.hashed(3, 2), "one-shot": make.one_shot(make.unary(3))}[kind]
    mechanism, rounds = mechanism.rounded(32), 4
    values = np.repeat([0, 1], [2000, 6000])
    single = histogram(collect(mechanism, values, rounds, 1), rounds)
    assert single.shape == (3, 5) and (single.sum(axis=1) == 8000).all()
    rng, lemma = np.random.default_rng(2), lemma_of(mechanism)
    held = np.bincount(values, minlength=3)
    repeats = 300
    together = [draw_histogram(mechanism, lemma.settle(held[None], rng)[0], 8000, rounds, rng) for _ in range(repeats)]
    mean = np.mean(together, axis=0)
    assert (np.abs(single - mean) < 4 * np.sqrt(mean * (1 + 1 / repeats)) + 1e-9).all()


@pytest.mark.parametrize("kind", ["unary", "hashed", "symbol"])
def test_decoding_users_one_by_one_finds_the_truth(make, kind):
    mechanism = {"unary": make.unary(3), "hashed": make.hashed(3, 4), "symbol": make.symbol(3)}[kind].rounded(32)
    values, rounds, f = np.repeat([0, 1], [4000, 12_000]), 5, np.array([0.25, 0.75, 0])
    scores = collect(mechanism, values, rounds, 3)
    found = decode_symbols(scores, mechanism) if kind == "symbol" else decode_scores(histogram(scores, 5), mechanism)
    spread = (
        mean_of_rounds(mechanism, rounds, 16_000, f) if kind == "symbol" else variance(mechanism, rounds, 16_000, f)
    )
    assert (np.abs(found - f) < 4 * np.sqrt(spread)).all()


@pytest.mark.parametrize("kind", ["unary", "hashed", "one-shot", "symbol"])
def test_one_round_decodes_to_the_linear_estimate(make, kind):
    """A mixture of two coins, or an invertible channel, fits any frequency inside: one report gains nothing."""
    made = {"unary": make.unary(3), "hashed": make.hashed(3, 2), "symbol": make.symbol(3)}
    mechanism = (made | {"one-shot": make.one_shot(make.unary(3))})[kind].rounded(32)
    scores = collect(mechanism, np.repeat([0, 1, 2], [300, 600, 400]), 1, 4)
    linear = (scores.sum(axis=0) / 1300 - mechanism.other) / (mechanism.own - mechanism.other)
    found = decode_symbols(scores, mechanism) if kind == "symbol" else decode_scores(histogram(scores, 1), mechanism)
    assert found == pytest.approx(linear, abs=1e-8)


def test_scores_are_decoded_at_the_top_of_their_likelihood(make):
    """At the share found the slope is 0; where it is beyond an end, the slope there points outwards."""
    mechanism, rounds = make.unary(4).rounded(32), 3
    found = np.array([[30, 20, 10, 5], [50, 0, 0, 0], [0, 0, 0, 9], [7, 8, 9, 10]])
    (p1, q1), (p2, q2) = lemma_of(mechanism).permanent, lemma_of(mechanism).instant
    share = q1 + decode_scores(found, mechanism) * (p1 - q1)
    s = np.arange(rounds + 1)
    one, zero = p2**s * (1 - p2) ** (rounds - s), q2**s * (1 - q2) ** (rounds - s)
    slope = (found * (one - zero) / (share[:, None] * one + (1 - share[:, None]) * zero)).sum(axis=1)
    assert slope[[0, 3]] == pytest.approx(0, abs=1e-6)
    assert share[1:3] == pytest.approx([0, 1], abs=1e-12)
    assert slope[1] < 0 < slope[2]


def test_symbols_are_decoded_at_the_top_of_their_likelihood(make):
    """k=2: the likelihood over a fine grid of memo shares has no higher point."""
    mechanism = make.symbol(2).rounded(32)
    scores = collect(mechanism, np.repeat([0, 1], [70, 30]), 4, 5)
    p1, q1 = mechanism.permanent.p, mechanism.permanent.q
    p2, q2 = mechanism.instant.p, mechanism.instant.q
    law = p2 ** scores.astype(float) * q2 ** (4.0 - scores)  # (n, 2) likelihood of each memo
    grid = np.linspace(0, 1, 100_001)
    best = grid[np.log(grid[:, None] * law[:, 0] + (1 - grid[:, None]) * law[:, 1]).sum(axis=1).argmax()]
    found = decode_symbols(scores, mechanism)
    assert q1 + found[0] * (p1 - q1) == pytest.approx(best, abs=1e-5)
    assert found.sum() == pytest.approx(1)


def test_symbols_gain_over_the_mean_of_rounds(make):
    """L-GRR, k=4, (4, 1.2), 10 rounds: about 1.7 in variance, from 360 free deviations on either side."""
    mechanism, rounds, n = make.symbol(4, 4.0, 1.2).rounded(32), 10, 1000
    decoded = []
    for seed in range(120):
        scores = collect(mechanism, np.repeat(np.arange(4), n // 4), rounds, seed)
        decoded.append(decode_symbols(scores, mechanism))
    error = ((np.array(decoded) - 0.25) ** 2).mean()
    gain = float(mean_of_rounds(mechanism, rounds, n, 0.25)) / error
    assert gain - 1 > 4 * gain * math.sqrt(2 / 360)


def test_many_rounds_and_large_budgets_do_not_overflow(make):
    """With 200 reports at eps_1=10 each memo is known, so the share is a plain fraction."""
    unary, symbol = make.unary(2, 12, 10).rounded(64), make.symbol(3, 12, 10).rounded(64)
    found = np.zeros((2, 201), np.int64)
    found[0, [0, 200]], found[1, [1, 199]] = [3, 1], [1, 1]
    (p1, q1) = lemma_of(unary).permanent
    assert q1 + decode_scores(found, unary) * (p1 - q1) == pytest.approx([0.25, 0.5])
    scores = np.array([[200, 0, 0], [199, 1, 0], [0, 0, 200], [0, 0, 200]])
    p1, q1 = symbol.permanent.p, symbol.permanent.q
    assert q1 + decode_symbols(scores, symbol) * (p1 - q1) == pytest.approx([0.5, 0, 0.5], abs=1e-9)


def test_nobody_gives_nan(make):
    assert np.isnan(decode_scores(np.zeros((3, 6), np.int64), make.unary(3))).all()
    assert np.isnan(decode_symbols(counters(0, 3, 5), make.symbol(3))).all()


def test_counters_weigh_what_the_cost_card_says(make):
    for rounds in (5, 300):
        protocol = make.protocol(make.unary(7))
        more = cost(protocol, 100, rounds, linked=True).server - cost(protocol, 100, rounds).server
        assert counters(100, 7, rounds).nbytes == more == 700 * (1 if rounds == 5 else 2)


def test_what_cannot_be_linked_says_why(make):
    assert unlinkable(make.unary(3)) is unlinkable(make.symbol(3)) is unlinkable(make.hashed(3, 2)) is None
    assert "sends its memo as it is" in unlinkable(Buckets(3, 3, 3, Rates.of(0.7, 0.3), expected=False))
    assert "sends its memo as it is" in unlinkable(Unary(3, Rates.of(0.5, 0.25), Rates.of(1.0, 0.0)))
    assert "sends its memo as it is" in unlinkable(Symbol(3, Rates.of(0.5, 0.25), Rates.of(1.0, 0.0)))
    assert "evidence about one memo" in unlinkable(Hadamard(3, Rates.of(0.7, 0.5)))
    assert scored(make.hashed(3, 2)) and not scored(make.symbol(3))
