"""Whole channels, every output of every value, against what the protocols say of themselves.

Probabilities are multiplied out here from each step's p and q alone; rates are those of the closed forms, unrounded.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from clearn import plugins
from clearn.frequency import FrequencyProtocol, Mechanism, Rates, Symbol, Unary
from clearn.frequency.bloom import Bloom
from clearn.frequency.buckets import Buckets
from clearn.frequency.hadamard import Hadamard
from clearn.frequency.sharing import BitFakes, SymbolFakes, attribute_loss
from clearn.frequency.subset import Subset

NEAR = {"rel": 1e-9, "abs": 1e-9}
BUDGETS = [(0.5, 0.15), (1.0, 0.6), (2.0, 1.0), (4.0, 2.0)]
NOTHING = np.empty((1, 0), np.uint8)  # public draws of one user, where there are none


def made(name: str, k: int, **options: Any) -> FrequencyProtocol:
    return plugins.find("privacy", name)((k,), **options)


def rows(width: int) -> np.ndarray:
    return np.array(list(itertools.product([False, True], repeat=width)))


def symbols(g: int, rates: Rates | None) -> np.ndarray:
    """(g, g) chances of a symbol to become another; the identity where the step is left out."""
    return np.eye(g) if rates is None else np.full((g, g), rates.q) + (rates.p - rates.q) * np.eye(g)


def bits(given: np.ndarray, rates: Rates | None) -> np.ndarray:
    """(given rows, all rows) chances of a row to become another."""
    out = rows(given.shape[1])
    if rates is None:
        return (given[:, None] == out).all(axis=2).astype(float)
    one = np.where(out, rates.p, rates.not_p)
    zero = np.where(out, rates.q, rates.not_q)
    return np.where(given[:, None], one, zero).prod(axis=2)


def several(memos: np.ndarray, sent: np.ndarray, rounds: int) -> np.ndarray:
    """(values, outputs^rounds): chances of all sequences of reports of an unchanged value, one memo behind them."""
    joint = np.ones((len(sent), 1))
    for _ in range(rounds):
        joint = (joint[:, :, None] * sent[:, None, :]).reshape(len(sent), -1)
    return memos @ joint


def loss(channel: np.ndarray) -> float:
    """Largest ln P(output | v) / P(output | v')."""
    assert channel.sum(axis=1) == pytest.approx(1, abs=1e-9)
    seen = channel[:, channel.max(axis=0) > 0]
    return float(np.log(seen.max(axis=0) / seen.min(axis=0)).max())


def steps(mechanism: Symbol | Unary) -> tuple[np.ndarray, np.ndarray]:
    """(values, memos) and (memos, reports) of a mechanism in which values are told by symbols or one-hot rows."""
    if isinstance(mechanism, Symbol):
        return symbols(mechanism.symbols, mechanism.permanent), symbols(mechanism.symbols, mechanism.instant)
    k = mechanism.k
    if mechanism.permanent is None:
        return np.eye(k), bits(np.eye(k, dtype=bool), mechanism.instant)
    return bits(np.eye(k, dtype=bool), mechanism.permanent), bits(rows(k), mechanism.instant)


def check(mechanism: Mechanism, one: np.ndarray, reports: np.ndarray, public: np.ndarray = NOTHING) -> None:
    """Hold support counts, own, other and the telling event against a channel of one report, reports as columns."""
    supports = np.array([mechanism.support(reports[i : i + 1], public) for i in range(len(reports))])
    wanted = np.full((len(one), mechanism.slots), mechanism.other)
    np.fill_diagonal(wanted, mechanism.own)
    assert one @ supports == pytest.approx(wanted, **NEAR)
    told = mechanism.telling(reports, np.repeat(public, len(reports), axis=0), 0, 1)
    assert math.log(one[0, told].sum() / one[1, told].sum()) == pytest.approx(loss(one[:2]), **NEAR)


@pytest.mark.parametrize("eps_inf, eps_1", BUDGETS)
@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize("name", ["l_sue", "l_osue", "l_oue", "l_soue"])
def test_bits_twice_lose_eps_1_once_and_eps_inf_for_ever(name: str, k: int, eps_inf: float, eps_1: float) -> None:
    mechanism = made(name, k, eps_inf=eps_inf, eps_1=eps_1).nominal[0]
    assert isinstance(mechanism, Unary)
    memos, sent = steps(mechanism)
    assert loss(memos) == pytest.approx(eps_inf, **NEAR)
    assert mechanism.loss_for_ever() == pytest.approx(eps_inf, **NEAR)
    assert loss(memos @ sent) == pytest.approx(eps_1, **NEAR)
    for t in (1, 2, 3, 4):
        assert mechanism.loss(t) == pytest.approx(loss(several(memos, sent, t)), **NEAR)
    assert mechanism.loss_any() == pytest.approx(loss(sent), **NEAR)
    check(mechanism, memos @ sent, rows(k))


@pytest.mark.parametrize("eps_inf, eps_1", BUDGETS)
@pytest.mark.parametrize("k", [2, 3, 5, 16, 41])
@pytest.mark.parametrize("rule", ["exact", "published"])
def test_symbols_twice_lose_eps_1_once_and_eps_inf_for_ever(rule: str, k: int, eps_inf: float, eps_1: float) -> None:
    mechanism = made("l_grr", k, eps_inf=eps_inf, eps_1=eps_1, rule=rule).nominal[0]
    assert isinstance(mechanism, Symbol)
    memos, sent = steps(mechanism)
    assert loss(memos) == pytest.approx(eps_inf, **NEAR)
    assert mechanism.loss_for_ever() == pytest.approx(eps_inf, **NEAR)
    if rule == "exact" or k == 2:
        assert loss(memos @ sent) == pytest.approx(eps_1, **NEAR)
    else:
        assert loss(memos @ sent) < eps_1 - 1e-3
    for t in range(1, 5):
        if k**t <= 4096:
            assert mechanism.loss(t) == pytest.approx(loss(several(memos, sent, t)), **NEAR)
    assert mechanism.loss_any() == pytest.approx(loss(sent), **NEAR)
    check(mechanism, memos @ sent, np.arange(k))


@pytest.mark.parametrize("eps_inf, eps_1", BUDGETS)
@pytest.mark.parametrize("name", ["loloha", "ololoha", "bi_loloha"])
def test_hashes_lose_what_symbols_of_their_range_do(name: str, eps_inf: float, eps_1: float) -> None:
    mechanism = made(name, 3, eps_inf=eps_inf, eps_1=eps_1).nominal[0]
    assert isinstance(mechanism, Symbol)
    memos, sent = steps(mechanism)
    assert loss(memos) == pytest.approx(eps_inf, **NEAR)
    for t in range(1, 5):
        if mechanism.symbols**t <= 4096:
            assert mechanism.loss(t) == pytest.approx(loss(several(memos, sent, t)), **NEAR)
    if name != "ololoha":
        assert mechanism.loss(1) == pytest.approx(eps_1, **NEAR)


@pytest.mark.parametrize("name, g", [("bi_loloha", 2), ("loloha", 4), ("ololoha", 3), ("blh", 2), ("olh", 4)])
def test_over_all_hashes_own_and_other_are_the_chances_of_support(name: str, g: int) -> None:
    budget = {"eps": 1.0} if name in ("blh", "olh") else {"eps_inf": 2.0, "eps_1": 1.0}
    mechanism, k = made(name, 3, **budget).nominal[0], 3
    assert isinstance(mechanism, Symbol)
    assert mechanism.symbols == g
    memos, sent = steps(mechanism)
    one, found = memos @ sent, np.zeros((k, k))
    for cell in itertools.product(range(g), repeat=k):  # all hashes of three values, each as likely
        for held, other in itertools.product(range(k), repeat=2):
            found[held, other] += one[cell[held], cell[other]] / g**k
    wanted = np.full((k, k), mechanism.other)
    np.fill_diagonal(wanted, mechanism.own)
    assert mechanism.other == 1 / g
    assert found == pytest.approx(wanted, **NEAR)
    assert loss(one) == pytest.approx(mechanism.loss(1), **NEAR)


@pytest.mark.parametrize("eps", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize("name", ["grr", "sue", "oue", "the"])
def test_oracles_of_symbols_and_bits(name: str, k: int, eps: float) -> None:
    protocol = made(name, k, eps=eps)
    mechanism = protocol.nominal[0]
    assert isinstance(mechanism, Symbol | Unary)
    one = np.matmul(*steps(mechanism))
    assert mechanism.loss(1) == pytest.approx(loss(one), **NEAR)
    assert mechanism.loss(3) == pytest.approx(3 * loss(one), **NEAR)
    if name == "the":
        assert loss(one) < eps
    else:
        assert loss(one) == pytest.approx(eps, **NEAR)
    check(mechanism, one, np.arange(k) if name == "grr" else rows(k))


@pytest.mark.parametrize("eps", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("k", [2, 3, 5, 8])
def test_subsets(k: int, eps: float) -> None:
    mechanism = made("ss", k, eps=eps).nominal[0]
    assert isinstance(mechanism, Subset)
    w, p = mechanism.w, mechanism.own
    reports = np.array([row for row in rows(k) if row.sum() == w])
    one = np.where(reports.T, p / math.comb(k - 1, w - 1), (1 - p) / math.comb(k - 1, w))
    assert loss(one) == pytest.approx(eps, **NEAR)
    assert mechanism.loss(2) == pytest.approx(2 * eps, **NEAR)
    check(mechanism, one, reports)


@pytest.mark.parametrize("eps", [0.1, 1.0])
@pytest.mark.parametrize("k", [2, 3, 4, 7, 8])
def test_hadamard(k: int, eps: float) -> None:
    mechanism = made("hr", k, eps=eps).nominal[0]
    assert isinstance(mechanism, Hadamard)
    matrix = np.ones((1, 1))
    while len(matrix) < k + 1:
        matrix = np.kron(np.array([[1, 1], [1, -1]]), matrix)
    size, p = len(matrix), mechanism.own
    assert size == mechanism.K
    one = np.where(matrix[1 : k + 1] > 0, p, 1 - p) / (size / 2)
    assert loss(one) == pytest.approx(eps, **NEAR)
    assert mechanism.loss(2) == pytest.approx(2 * eps, **NEAR)
    check(mechanism, one, np.arange(size))


@pytest.mark.parametrize("sampled", [1, 2, 3, 4])
def test_buckets_lose_eps_inf_and_half_of_it_where_one_is_sampled(sampled: int) -> None:
    mechanism = made("d_bit_flip_pm", 8, eps_inf=2.0, buckets=4, sampled=sampled).nominal[0]
    assert isinstance(mechanism, Buckets)
    worst, support, reports = [], np.zeros((8, 4)), rows(sampled)
    subsets = list(itertools.combinations(range(4), sampled))
    for subset in subsets:
        public = np.array([subset], np.uint8) if sampled < 4 else NOTHING
        held = np.array([[v * 4 // 8 == bucket for bucket in subset] for v in range(8)])
        cells = mechanism.cell(np.arange(8), np.repeat(public, 8, axis=0))
        assert (mechanism.signal(cells, public) == held).all()
        one = bits(held, mechanism.permanent)
        worst.append(loss(one))
        counts = np.array([mechanism.support(report[None], public) for report in reports])
        support += one @ counts * (4 / sampled) / len(subsets)  # given that the bucket is sampled
        told = mechanism.telling(reports, np.repeat(public, len(reports), axis=0), 0, 7)
        if told.any():
            assert math.log(one[0, told].sum() / one[7, told].sum()) == pytest.approx(loss(one), **NEAR)
    assert max(worst) == pytest.approx(1.0 if sampled == 1 else 2.0, **NEAR)
    for t in (1, 2, 5):
        assert mechanism.loss(t) == pytest.approx(max(worst), **NEAR)
    assert mechanism.loss_any() == math.inf
    wanted = np.where(np.arange(8)[:, None] // 2 == np.arange(4), mechanism.own, mechanism.other)
    assert support == pytest.approx(wanted, **NEAR)


@pytest.mark.parametrize("hashes", [1, 2])
def test_bloom_filters_lose_what_their_worst_pair_of_values_does(hashes: int) -> None:
    protocol = made("rappor", 3, f=0.4, p_r=0.3, q_r=0.8, hashes=hashes, bits=5, cohorts=3)
    mechanism = protocol.nominal[0]
    assert isinstance(mechanism, Bloom)
    reports = rows(5)
    sent = bits(reports, mechanism.instant)
    for t in (1, 2):
        each = [loss(several(bits(codes, mechanism.permanent), sent, t)) for codes in mechanism.design]
        assert mechanism.loss(t) == pytest.approx(max(each), **NEAR)
    each = [loss(bits(codes, mechanism.permanent)) for codes in mechanism.design]
    assert mechanism.loss_for_ever() == pytest.approx(max(each), **NEAR)
    assert mechanism.loss_for_ever() <= protocol.budgets.eps_inf + 1e-9
    assert mechanism.loss(1) <= protocol.budgets.eps_1 + 1e-9
    pair, told = [], []
    for cohort, codes in enumerate(mechanism.design):
        one = bits(codes, mechanism.permanent) @ sent
        public = np.full((len(reports), 1), cohort, np.uint8)
        ones = np.array([mechanism.support(report[None], public[:1]) for report in reports]).reshape(-1, 3, 5)
        wanted = np.where(codes, mechanism.own, mechanism.other)
        assert one @ ones[:, cohort] == pytest.approx(wanted, **NEAR)
        assert not np.delete(ones, cohort, axis=1).any()
        pair.append(loss(one[:2]))
        event = mechanism.telling(reports, public, 0, 1)
        told.append(one[:2, event].sum(axis=1))
    right, wrong = np.sum(told, axis=0)
    assert math.log(right / wrong) == pytest.approx(max(pair), **NEAR)


@pytest.mark.parametrize("inner", ["l_grr", "l_osue", "grr"])
def test_smp_tells_any_two_tuples_apart_by_eps_and_no_more(inner: str) -> None:
    budget = {"eps": 1.0} if inner == "grr" else {"eps_inf": 2.0, "eps_1": 1.0}
    protocol = plugins.find("privacy", "smp")((2, 3), of=inner, **budget)
    ones = [np.matmul(*steps(mechanism)) / 2 for mechanism in protocol.nominal]
    channel = np.array([np.concatenate([ones[0][v], ones[1][w]]) for v in range(2) for w in range(3)])
    assert loss(channel) == pytest.approx(1.0, **NEAR)
    assert protocol.loss(1) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("inner", ["l_grr", "l_osue", "sue"])
def test_spl_adds_up_to_eps(inner: str) -> None:
    budget = {"eps": 1.0} if inner == "sue" else {"eps_inf": 2.0, "eps_1": 1.0}
    protocol = plugins.find("privacy", "spl")((2, 3), of=inner, **budget)
    ones = [np.matmul(*steps(mechanism)) for mechanism in protocol.nominal]
    channel = np.array([np.outer(ones[0][v], ones[1][w]).ravel() for v in range(2) for w in range(3)])
    assert loss(channel) == pytest.approx(1.0, **NEAR)
    assert protocol.loss(1) == pytest.approx(1.0, abs=1e-6)


def whole_and_attribute(truths: list[np.ndarray], fakes: list[np.ndarray], rounds: int) -> tuple[float, float]:
    """Losses over all tuples, and over those that differ in one attribute, of a true answer hidden among fakes."""
    domains = [range(len(truth)) for truth in truths]
    tuples = list(itertools.product(*domains))
    channel = []
    for values in tuples:
        total: Any = 0
        for r in range(len(truths)):
            sent = [
                truth[v] if j == r else fake
                for j, (truth, fake, v) in enumerate(zip(truths, fakes, values, strict=True))
            ]
            one = sent[0]
            for part in sent[1:]:
                one = np.multiply.outer(one, part)
            many = one.ravel()
            for _ in range(rounds - 1):
                many = np.multiply.outer(many, one.ravel()).ravel()
            total = total + many / len(truths)
        channel.append(total)
    found = np.array(channel)
    pairs = [
        loss(found[[i, j]])
        for i, j in itertools.combinations(range(len(tuples)), 2)
        if sum(a != b for a, b in zip(tuples[i], tuples[j], strict=True)) == 1
    ]
    return loss(found), max(pairs)


@pytest.mark.parametrize("rounds", [1, 2])
@pytest.mark.parametrize("domains", [(2, 2), (2, 10), (3, 3), (2, 3, 4)])
def test_symbols_among_fakes(domains: tuple[int, ...], rounds: int) -> None:
    if rounds == 2 and len(domains) == 3:
        domains = (2, 2, 3)
    for priors in (None, [list(np.arange(1, k + 1) / (k * (k + 1) / 2)) for k in domains]):
        protocol = plugins.find("privacy", "rs_rfd")(domains, of="grr", eps=1.0, prior=priors)
        nominal = [SymbolFakes(m, protocol.fakes(j).prior) for j, m in enumerate(protocol.nominal)]
        truths = [symbols(m.k, m.instant) for m in protocol.nominal]
        whole, one = whole_and_attribute(truths, [fake.prior for fake in nominal], rounds)
        assert attribute_loss([fake.contrast for fake in nominal], rounds) == pytest.approx(one, **NEAR)
        assert protocol.attribute_loss(rounds) == pytest.approx(one, abs=1e-6)
        if priors is None:
            assert whole == pytest.approx(rounds * protocol.eps_true, **NEAR)
        assert whole <= rounds * protocol.eps_true + 1e-9
        assert protocol.loss(rounds) == pytest.approx(rounds * protocol.eps_true, abs=1e-6)


@pytest.mark.parametrize("of", ["sue", "oue"])
@pytest.mark.parametrize("fakes", ["zero", "uniform", "prior"])
@pytest.mark.parametrize("domains, rounds", [((2, 2), 2), ((3, 3), 1), ((2, 4), 1), ((2, 2, 3), 1)])
def test_bits_among_fakes(domains: tuple[int, ...], rounds: int, fakes: str, of: str) -> None:
    if fakes == "prior":
        prior = [list(np.arange(1, k + 1) / (k * (k + 1) / 2)) for k in domains]
        protocol = plugins.find("privacy", "rs_rfd")(domains, of=of, eps=1.0, prior=prior)
    else:
        protocol = plugins.find("privacy", "rs_fd")(domains, of=of, eps=1.0, fakes=fakes)
    nominal = [BitFakes(m, protocol.fakes(j).prior) for j, m in enumerate(protocol.nominal)]
    truths = [bits(np.eye(m.k, dtype=bool), m.instant) for m in protocol.nominal]
    faked = []
    for fake, truth, m in zip(nominal, truths, protocol.nominal, strict=True):
        blank = bits(np.zeros((1, m.k), bool), m.instant)[0]
        faked.append(blank if fake.prior is None else fake.prior @ truth)
        assert fake.support == pytest.approx(faked[-1] @ rows(m.k), **NEAR)
    whole, one = whole_and_attribute(truths, faked, rounds)
    assert whole == pytest.approx(rounds * protocol.eps_true, **NEAR)
    assert attribute_loss([fake.contrast for fake in nominal], rounds) == pytest.approx(one, **NEAR)
    assert protocol.attribute_loss(rounds) == pytest.approx(one, abs=1e-6)
    if fakes == "zero" and rounds == 1:
        assert one == pytest.approx(1.0, **NEAR)


def trajectories(mechanism: Symbol, rounds: int) -> tuple[list[tuple[int, ...]], np.ndarray]:
    """Every sequence of values, and the chances of every sequence of reports: memos of both values are kept."""
    memos, sent = steps(mechanism)
    paths = list(itertools.product(range(2), repeat=rounds))
    channel = np.zeros((len(paths), 2**rounds))
    for row, path in enumerate(paths):
        for kept in itertools.product(range(2), repeat=2):  # the memo of value 0 and that of value 1
            chance = memos[0, kept[0]] * memos[1, kept[1]]
            joint = np.ones(1)
            for v in path:
                joint = np.multiply.outer(joint, sent[kept[v]]).ravel()
            channel[row] += chance * joint
    return paths, channel


def test_the_change_pattern_leaks_beyond_the_count_of_memos() -> None:
    """Spec section 5.5: 8 rounds of two values at (2, 1)."""
    mechanism = made("l_grr", 2, eps_inf=2.0, eps_1=1.0).nominal[0]
    assert isinstance(mechanism, Symbol)
    paths, channel = trajectories(mechanism, 8)
    of = {path: row for row, path in enumerate(paths)}
    static = channel[[of[(0,) * 8], of[(1,) * 8]]]
    assert loss(static) == pytest.approx(mechanism.loss(8), **NEAR)
    assert loss(static) == pytest.approx(2.00, abs=0.005)
    swapped = [loss(channel[[of[path], of[tuple(1 - v for v in path)]]]) for path in paths]
    assert max(swapped) == pytest.approx(2 * mechanism.loss(4), **NEAR)  # two blocks of four rounds
    assert max(swapped) == pytest.approx(3.95, abs=0.005)
    assert loss(channel) == pytest.approx(6.16, abs=0.005)
    assert 2 * 2.0 < loss(channel) <= 8 * mechanism.loss_any()


def test_any_two_trajectories_may_be_told_apart_by_more_than_every_report_s_loss() -> None:
    mechanism = made("l_grr", 2, eps_inf=0.5, eps_1=0.15).nominal[0]
    assert isinstance(mechanism, Symbol)
    assert loss(trajectories(mechanism, 8)[1]) == pytest.approx(1.73, abs=0.005)
    assert 8 * 0.15 < 1.73


@pytest.mark.parametrize("name", ["l_grr", "l_osue", "l_sue", "l_oue", "l_soue"])
def test_rounds_of_one_value_covary_by_the_permanent_step(name: str) -> None:
    """Covariance of two rounds' support of a slot, by the whole channel, is the variance of the memo's estimate."""
    mechanism = made(name, 3, eps_inf=2.0, eps_1=1.0).nominal[0]
    assert isinstance(mechanism, Symbol | Unary)
    memos, sent = steps(mechanism)
    supports = np.eye(3) if isinstance(mechanism, Symbol) else rows(3).astype(float)
    given = sent @ supports[:, 0]  # P(value 0 is supported | memo)
    covariance = memos @ given**2 - (memos @ given) ** 2
    scale = (mechanism.own - mechanism.other) ** 2
    assert covariance[0] / scale == pytest.approx(float(mechanism.permanent_variance(1, 1.0)), **NEAR)
    assert covariance[1] / scale == pytest.approx(float(mechanism.permanent_variance(1, 0.0)), **NEAR)
