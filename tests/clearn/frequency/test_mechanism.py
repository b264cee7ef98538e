"""Every mechanism as it is drawn: supports, estimates, and what rounds share, against its own closed forms."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from clearn.errors import ConfigError
from clearn.frequency import Budgets, Hashed, Mechanism, Rates, Symbol, Tally, Unary
from clearn.frequency.bloom import Bloom
from clearn.frequency.buckets import Buckets
from clearn.frequency.calibrate import optimised, symbol, symbol_again, symmetric
from clearn.frequency.coins import SimulatedCoins
from clearn.frequency.hadamard import Hadamard
from clearn.frequency.laplace import Laplace
from clearn.frequency.subset import Subset

K, BUDGETS = 6, Budgets(2.0, 1.0)
AGAIN = Rates.of(0.8, 0.15)  # some instantaneous step

MECHANISMS: dict[str, Mechanism] = {
    "grr": Symbol(K, None, symbol(1.0, K)),
    "l_grr": Symbol(K, symbol(2.0, K), symbol_again(BUDGETS, K, "exact")),
    "l_grr memo": Symbol(K, symbol(2.0, K), None),
    "olh": Hashed(K, 4, None, symbol(1.0, 4)),
    "loloha": Hashed(K, 4, symbol(2.0, 4), symbol_again(BUDGETS, 4, "exact")),
    "oue": Unary(K, None, optimised(1.0)),
    "l_osue": Unary(K, optimised(2.0), AGAIN),
    "l_sue memo": Unary(K, symmetric(2.0), None),
    "ss": Subset(K, 2, Rates.of(0.55, (2 - 0.55) / 5)),
    "hr": Hadamard(K, Rates.of(0.73, 0.5)),
    "she": Laplace(K, 2.0),
    "d_bit_flip_pm all": Buckets(K, 3, 3, symmetric(2.0), False),
    "d_bit_flip_pm": Buckets(K, 6, 2, symmetric(2.0), False),
    "d_bit_flip_pm expected": Buckets(K, 6, 2, symmetric(2.0), True),
    "rappor": Bloom(K, 8, 2, 4, Rates.of(0.8, 0.2), Rates.of(0.75, 0.5)),
    "rappor one hash": Bloom(K, 8, 1, 3, Rates.of(0.8, 0.2), None),
}
ROUNDED = {name: mechanism.rounded(32) for name, mechanism in MECHANISMS.items()}
KEPT = [name for name, mechanism in MECHANISMS.items() if mechanism.permanent is not None]


def collect(mechanism: Mechanism, values: np.ndarray, seed: int, rounds: int = 1) -> list[Tally]:
    """Let users report the same values for some rounds."""
    coins = SimulatedCoins(np.random.default_rng(seed))
    tallies, memos = [], None
    for t in range(rounds):
        if t == 0 or mechanism.permanent is None:  # what is not remembered is drawn anew
            public = mechanism.public(len(values), coins)
            cells = mechanism.cell(values, public)
        if mechanism.permanent is None:
            reports = mechanism.send(mechanism.signal(cells, public), coins)
        else:
            memos = mechanism.memoise(cells, public, coins) if memos is None else memos
            reports = mechanism.send(memos, coins)
        tallies.append(Tally(len(values), mechanism.support(reports, public), mechanism.trials(public)))
    return tallies


@pytest.mark.parametrize("name", [name for name in MECHANISMS if name != "she"])
def test_reports_support_own_and_other_values_as_often_as_said(name: str) -> None:
    mechanism, n, held = ROUNDED[name], 30_000, 2
    tally = collect(mechanism, np.full(n, held), seed=1)[0]
    if isinstance(mechanism, Bloom):
        own = mechanism.design[:, held].ravel()
    elif isinstance(mechanism, Buckets):
        own = np.arange(mechanism.slots) == mechanism.bucket(np.array([held]))
    else:
        own = np.arange(K) == held
    chance = np.where(own, mechanism.own, mechanism.other)
    error = np.sqrt(chance * (1 - chance) / tally.trials)
    assert (np.abs(tally.counts / tally.trials - chance) < 4 * error).all()
    assert tally.trials.sum() == n * mechanism.slots * share_of_trials(mechanism)


def share_of_trials(mechanism: Mechanism) -> Fraction:
    if isinstance(mechanism, Buckets):
        return Fraction(mechanism.sampled, mechanism.slots)
    return Fraction(1, mechanism.cohorts) if isinstance(mechanism, Bloom) else Fraction(1)


def test_laplace_noise_has_its_mean_spread_and_shape() -> None:
    mechanism, n = MECHANISMS["she"], 30_000
    coins = SimulatedCoins(np.random.default_rng(1))
    noise = mechanism.send(np.full(n, 2), coins) - (np.arange(K) == 2)
    assert (np.abs(noise.mean(axis=0)) < 4 * 2.0 * math.sqrt(2 / n)).all()
    for level in (0.5, 2.0, 6.0):  # P(|noise| > level) = e^(-level / scale)
        tail = math.exp(-level / 2.0)
        assert (np.abs((np.abs(noise) > level).mean(axis=0) - tail) < 4 * math.sqrt(tail * (1 - tail) / n)).all()


@pytest.mark.parametrize("name", MECHANISMS)
def test_estimates_are_unbiased_and_err_as_the_variance_says(name: str) -> None:
    mechanism, n, runs = ROUNDED[name], 1000, 400
    counts = np.array([450, 250, 150, 100, 50, 0])
    values = np.repeat(np.arange(K), counts)
    truth = mechanism.coarse(counts) / n
    found = np.array([mechanism.estimate(collect(mechanism, values, seed)[0]) for seed in range(runs)])
    variance = mechanism.variance(n, truth)
    assert variance.shape == (mechanism.answers,)
    assert (np.abs(found.mean(axis=0) - truth) < 4 * np.sqrt(variance / runs)).all()
    slack = 4 * math.sqrt(2 / runs) + 10 / n  # of a sum of squares; Bloom and sampled buckets are right to order 1/n
    assert (np.abs(((found - truth) ** 2).mean(axis=0) / variance - 1) < slack).all()


@pytest.mark.parametrize("name", KEPT)
def test_two_rounds_share_the_permanent_variance(name: str) -> None:
    mechanism, n, runs = ROUNDED[name], 500, 400
    counts = np.array([225, 125, 75, 50, 25, 0])
    values = np.repeat(np.arange(K), counts)
    truth = mechanism.coarse(counts) / n
    found = np.array([[mechanism.estimate(t) for t in collect(mechanism, values, seed, 2)] for seed in range(runs)])
    first, shared = mechanism.variance(n, truth), mechanism.permanent_variance(n, truth)
    covariance = ((found[:, 0] - truth) * (found[:, 1] - truth)).mean(axis=0)
    assert (np.abs(covariance - shared) < 4 * np.sqrt((first**2 + shared**2) / runs) + 10 / n * shared).all()


@pytest.mark.parametrize("name", [name for name in MECHANISMS if name not in KEPT])
def test_rounds_without_a_memo_share_nothing(name: str) -> None:
    mechanism, n, runs = ROUNDED[name], 500, 400
    values = np.repeat(np.arange(K), [225, 125, 75, 50, 25, 0])
    assert (mechanism.permanent_variance(n, np.full(K, 0.2)) == 0).all()
    truth = np.array([0.45, 0.25, 0.15, 0.1, 0.05, 0])
    found = np.array([[mechanism.estimate(t) for t in collect(mechanism, values, seed, 2)] for seed in range(runs)])
    covariance = ((found[:, 0] - truth) * (found[:, 1] - truth)).mean(axis=0)
    assert (np.abs(covariance) < 4 * mechanism.variance(n, truth) / math.sqrt(runs)).all()


@pytest.mark.parametrize("name", MECHANISMS)
def test_reports_come_back_from_their_bits(name: str) -> None:
    mechanism, coins = ROUNDED[name], SimulatedCoins(np.random.default_rng(2))
    public = mechanism.public(50, coins)
    cells = mechanism.cell(np.arange(50) % K, public)
    assert cells.min() >= 0
    assert cells.max() < mechanism.cells
    signal = mechanism.signal(cells, public)
    memos = signal if mechanism.permanent is None else mechanism.memoise(cells, public, coins)
    reports = mechanism.send(memos, coins)
    packed = mechanism.to_bits(reports)
    assert packed.shape == (50, mechanism.memo_bits)
    assert packed.dtype == bool
    back = mechanism.from_bits(packed)
    assert (back == reports).all()
    assert back.dtype == reports.dtype
    assert mechanism.valid(reports, public).all()


@pytest.mark.parametrize("name", MECHANISMS)
def test_nobody_answering_gives_nan(name: str) -> None:
    mechanism = ROUNDED[name]
    nobody = Tally(0, np.zeros(mechanism.slots, np.int64), np.zeros(mechanism.slots, np.int64))
    assert np.isnan(mechanism.estimate(nobody)).all()
    assert mechanism.estimate(nobody).shape == (mechanism.answers,)
    assert math.isnan(float(mechanism.variance(0)))


@pytest.mark.parametrize("name", MECHANISMS)
def test_mean_variance_is_that_of_any_frequencies_that_sum_to_1(name: str) -> None:
    mechanism = MECHANISMS[name]
    flat = np.full(mechanism.answers, 1 / mechanism.answers)
    assert mechanism.mean_variance(100) == pytest.approx(float(np.mean(mechanism.variance(100, flat))), rel=1e-12)
    if not isinstance(mechanism, Bloom | Buckets):  # for these, who is sampled adds a part that is not linear in f
        f = np.array([0.5, 0.3, 0.1, 0.1, 0, 0])
        assert mechanism.mean_variance(100) == pytest.approx(float(np.mean(mechanism.variance(100, f))), rel=1e-12)


@pytest.mark.parametrize("name", MECHANISMS)
def test_loss_grows_with_reports_up_to_that_of_the_memo(name: str) -> None:
    mechanism = ROUNDED[name]
    losses = [mechanism.loss(t) for t in (1, 2, 3, 5, 10, 50, 200)]
    assert losses == sorted(losses)
    assert losses[0] > 0
    if mechanism.permanent is None:
        assert losses[1] == pytest.approx(2 * losses[0])
        assert mechanism.loss_for_ever() == math.inf
    else:
        assert losses[-1] == pytest.approx(mechanism.loss_for_ever(), rel=1e-6)
        assert losses[-1] <= mechanism.loss_for_ever() * (1 + 1e-12)


def test_rounding_moves_estimator_and_loss_along() -> None:
    """OUE at eps=4 with 8 random bits: q = 1/(e^4+1) = 4.60/256 becomes 5/256, 9 % off."""
    nominal = Unary(3, None, optimised(4.0))
    assert nominal.other == pytest.approx(4.604 / 256, rel=1e-3)
    rounded = nominal.rounded(8)
    assert (rounded.own, rounded.other) == (128 / 256, 5 / 256)
    assert rounded.other / nominal.other == pytest.approx(1.086, abs=1e-3)
    assert rounded.loss(1) == pytest.approx(math.log(251 / 5), rel=1e-14)
    assert nominal.loss(1) == pytest.approx(4.0, rel=1e-14)
    whole = Tally(256, np.array([128, 5, 5]), np.full(3, 256))
    assert rounded.estimate(whole).tolist() == [1.0, 0.0, 0.0]
    for bits, off in ((32, 1e-6), (64, 1e-14)):
        assert nominal.rounded(bits).loss(1) == pytest.approx(4.0, rel=off)


def test_rounding_after_looking_gives_the_rounded_rates() -> None:
    nominal = Symbol(4, symbol(2.0, 4), symbol(1.0, 4))
    assert nominal.own > 0  # computed, and remembered by the mechanism
    again = Symbol(4, symbol(2.0, 4), symbol(1.0, 4))
    assert nominal.rounded(8).own == again.rounded(8).own != nominal.own


def test_symbols_spread_what_is_left_of_p_over_the_others() -> None:
    """After rounding p to 8 bits, q is (1 - p) / (k - 1) as drawn, not its own rounding."""
    mechanism = Symbol(4, None, symbol(1.0, 4)).rounded(8)
    p = Fraction(round(math.e / (math.e + 3) * 256), 256)
    assert mechanism.own == float(p)
    assert mechanism.other == float((1 - p) / 3)
    assert mechanism.loss(1) == pytest.approx(math.log(float(p * 3 / (1 - p))), rel=1e-14)


def test_numpy_integers_are_numbers_of_values_too() -> None:
    k = np.int64(5)
    for mechanism in (Symbol(k, None, symbol(1.0, k)), Hashed(k, np.int64(3), None, symbol(1.0, 3))):
        assert mechanism.rounded(32).loss(1) == pytest.approx(1.0, abs=1e-6)
        assert collect(mechanism.rounded(32), np.arange(5), seed=0)[0].n == 5


@pytest.mark.parametrize("k", [1, 0, -3])
def test_an_attribute_needs_two_values(k: int) -> None:
    with pytest.raises(ConfigError, match=f"k={k} values cannot be asked for: k must be at least 2"):
        Unary(k, None, optimised(1.0))
    with pytest.raises(ConfigError, match="at least 2"):
        Hashed(5, 1, None, symbol(1.0, 2))
