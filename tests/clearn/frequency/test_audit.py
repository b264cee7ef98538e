"""Attacks on devices: the loss that the formulas promise is reached, never passed, and a broken device is found out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from clearn.errors import ConfigError, DataError
from clearn.frequency import FrequencyProtocol, Mechanism, Rates, Symbol, Tally, Unary, one_budget
from clearn.frequency import audit as module
from clearn.frequency import devices as devices_module
from clearn.frequency.audit import Audit, audit, bound
from clearn.frequency.bloom import Bloom
from clearn.frequency.buckets import Buckets
from clearn.frequency.client import Fleet
from clearn.frequency.coins import Coins, Ints, SystemCoins
from clearn.frequency.devices import Block
from clearn.frequency.hadamard import Hadamard
from clearn.frequency.laplace import Laplace
from clearn.frequency.mechanism import Array
from clearn.frequency.memo import TableMemo
from clearn.frequency.packing import Bytes
from clearn.frequency.subset import Subset

pytestmark = pytest.mark.usefixtures("urandom")
K = 25


def grr(k: int, eps: float) -> Rates:
    return Rates.of(math.exp(eps) / (math.exp(eps) + k - 1), 1 / (math.exp(eps) + k - 1))


def oue(eps: float) -> Rates:
    return Rates.of(0.5, 1 / (math.exp(eps) + 1))


def sue(eps: float) -> Rates:
    return oue_like(math.exp(eps / 2))


def oue_like(root: float) -> Rates:
    return Rates.of(root / (root + 1), 1 / (root + 1))


def ss(eps: float) -> Subset:
    w = max(1, round(K / (math.exp(eps) + 1)))
    p = w * math.exp(eps) / (w * math.exp(eps) + K - w)
    return Subset(K, w, Rates.of(p, (w - p) / (K - 1)))


def expected(found: Audit, tpr: float, fpr: float) -> None:
    """The bound of the mean counts, within four standard errors of the log of their quotient."""
    n = found.trials
    error = math.sqrt((1 - tpr) / (n * tpr) + (1 - fpr) / (n * fpr))
    assert abs(found.eps_lower - bound(round(n * tpr), round(n * fpr), n, found.confidence)) < 4 * error
    assert found.holds


# The bound


def test_bounds_are_those_of_the_specification() -> None:
    n = 10**6
    for eps, values in {1.0: (0.990, 0.990, 0.979), 2.0: (1.987, 1.988, 1.981)}.items():
        for (tpr, fpr), value in zip(
            [
                (oue(eps).p * oue(eps).not_q, oue(eps).q * oue(eps).not_p),
                (sue(eps).p * sue(eps).not_q, sue(eps).q * sue(eps).not_p),
                (grr(K, eps).p, grr(K, eps).q),
            ],
            values,
            strict=True,
        ):
            assert bound(round(n * tpr), round(n * fpr), n, 0.99) == pytest.approx(value, abs=6e-4)
    assert bound(n, 0, n, 0.99) == pytest.approx(12.148, abs=5e-4)
    assert bound(10**5, 0, 10**5, 0.99) == pytest.approx(9.846, abs=5e-4)


def test_bound_by_hand() -> None:
    # one trial: TPR_low of 1 in 1 is a/2 = .005, FPR_high of 0 in 1 is 1 - .005
    assert bound(1, 0, 1, 0.99) == 0.0
    assert bound(0, 0, 9, 0.99) == 0.0
    assert bound(9, 9, 9, 0.99) == 0.0
    n, half = 50, 0.05
    low, high = half ** (1 / n), 1 - half ** (1 / n)  # all of n, and none of n
    assert bound(n, 0, n, 0.9) == pytest.approx(math.log(low / high), rel=1e-12)


def test_bound_holds_as_often_as_it_says() -> None:
    p, q, n, repeats = 0.3, 0.1, 400, 3000
    rng = np.random.default_rng(0)
    wrong = sum(bound(a, b, n, 0.9) > math.log(p / q) for a, b in rng.binomial(n, [p, q], (repeats, 2)))
    assert wrong <= 0.1 * repeats


# Every family reaches its loss


@pytest.mark.parametrize("eps", [1.0, 2.0])
@pytest.mark.parametrize("kind", ["grr", "sue", "oue", "olh", "ss", "hr", "she", "buckets", "one bucket"])
def test_one_report_loses_what_the_formula_says(make: Any, kind: str, eps: float) -> None:
    g, root = round(math.exp(eps)) + 1, math.exp(eps / 2)
    set_of = ss(eps)
    hashed = make.hashed(K, g)
    hashed.permanent, hashed.instant = None, grr(g, eps)
    by_kind: dict[str, tuple[Mechanism, float, float]] = {
        "grr": (Symbol(K, None, grr(K, eps)), grr(K, eps).p, grr(K, eps).q),
        "sue": (Unary(K, None, sue(eps)), sue(eps).p * sue(eps).not_q, sue(eps).q * sue(eps).not_p),
        "oue": (Unary(K, None, oue(eps)), oue(eps).p * oue(eps).not_q, oue(eps).q * oue(eps).not_p),
        "olh": (hashed, (1 - 1 / g) * grr(g, eps).p, (1 - 1 / g) * grr(g, eps).q),
        "ss": (set_of, set_of.own * (K - set_of.w) / (K - 1), (1 - set_of.own) * set_of.w / (K - 1)),
        "hr": (Hadamard(K, grr(2, eps)), grr(2, eps).p / 2, grr(2, eps).q / 2),
        "she": (Laplace(K, 2 / eps), 1 / 4, math.exp(-eps) / 4),
        "buckets": (
            Buckets(K, K, K, oue_like(root), expected=False),
            oue_like(root).p * oue_like(root).not_q,
            oue_like(root).q * oue_like(root).not_p,
        ),
        "one bucket": (Buckets(K, K, 1, oue_like(root), expected=False), 2 / K * sue(eps).p, 2 / K * sue(eps).q),
    }
    mechanism, tpr, fpr = by_kind[kind]
    found = audit(mechanism.rounded(32), 3, 20, trials=100_000)
    expected(found, tpr, fpr)
    exact = eps / 2 if kind == "one bucket" else eps
    assert found.eps_exact == pytest.approx(exact, rel=1e-6)
    assert found.eps_exact == pytest.approx(math.log(tpr / fpr), rel=1e-6)


@pytest.mark.parametrize("rounds", [1, 2, 5])
@pytest.mark.parametrize("family", ["unary", "symbol", "hashed"])
def test_several_reports_of_one_value_lose_what_the_formula_says(make: Any, family: str, rounds: int) -> None:
    k = 6
    mechanism = make.hashed(k, 4) if family == "hashed" else getattr(make, family)(k)
    protocol = make.protocol(mechanism)
    found = audit(protocol, 1, 4, trials=60_000, rounds=rounds)
    assert found.eps_exact == protocol.loss(rounds)
    (p1, q1), (p2, q2) = ((float(x) for x in rates.exact()) for rates in (mechanism.permanent, mechanism.instant))
    if family == "unary":

        def one(x: float) -> float:
            return x * p2**rounds + (1 - x) * q2**rounds

        def zero(x: float) -> float:
            return (1 - x) * (1 - q2) ** rounds + x * (1 - p2) ** rounds

        expected(found, one(p1) * zero(q1), one(q1) * zero(p1))
    else:
        part = 3 / 4 if family == "hashed" else 1  # P(the two values have different cells)
        own = p1 * p2**rounds + (1 - p1) * q2**rounds
        other = q1 * p2**rounds + (1 - q1) * q2**rounds
        expected(found, part * own, part * other)


def test_keyed_memos_lose_no_more_than_tables(make: Any) -> None:
    protocol = make.protocol(make.symbol(2))
    found = audit(protocol, 0, 1, trials=10_000, rounds=3, memo="prf")
    assert found.holds
    assert found.eps_lower > 0.85 * found.eps_exact


def test_bits_of_a_bloom_filter_lose_what_the_formula_says() -> None:
    mechanism = Bloom(4, 16, 2, 2, Rates.of(0.75, 0.25), Rates.of(0.75, 0.5)).rounded(32)
    pairs = [(a, b) for a in range(4) for b in range(4) if a != b]
    best = max((audit(mechanism, a, b, trials=4000) for a, b in pairs), key=lambda found: found.eps_lower)
    found = audit(mechanism, *pairs[0], trials=100_000)
    assert found.holds
    assert best.eps_lower > 0.7 * best.eps_exact


# Several attributes


def test_all_attributes_together_lose_the_sum(make: Any) -> None:
    halves = [make.unary(4, 1.0, 0.5), make.symbol(3, 1.0, 0.5)]
    found = audit(make.protocol(*halves), (0, 1), (2, 0), trials=100_000)
    assert found.eps_exact == pytest.approx(1.0, rel=1e-6)
    assert found.holds
    assert found.eps_lower > 0.93


def test_one_attribute_for_ever_loses_no_more_than_that_attribute(make: Any) -> None:
    protocol = make.protocol(make.unary(4), make.symbol(3), asks="one")
    found = audit(protocol, (0, 1), (2, 0), trials=100_000, rounds=3)
    assert found.eps_exact == max(mechanism.loss(3) for mechanism in protocol.mechanisms)
    assert found.holds
    assert found.eps_lower > 0.95 * found.eps_exact


class Hidden(FrequencyProtocol):
    """RS+FD with uniform fakes: eps' = ln(d (e^eps - 1) + 1) is spent on the tuple."""

    def __init__(self, d: int, k: int, eps: float) -> None:
        amplified = math.log(d * (math.exp(eps) - 1) + 1)
        super().__init__((k,) * d, [Symbol(k, None, grr(k, amplified))] * d, one_budget(eps), asks="hidden")

    def fakes(self, attribute: int) -> Any:
        return self

    def draw(self, n: int, coins: Coins) -> Array:
        return coins.below(3, (n,)).astype(np.uint8)


def test_a_tuple_behind_fakes_loses_the_amplified_budget() -> None:
    found = audit(Hidden(2, 3, 1.0), 0, 2, trials=200_000)
    assert found.eps_exact == pytest.approx(1.490, abs=5e-4)  # enumerated: more than the claimed 1
    assert found.holds
    assert found.eps_lower > 0.95 * found.eps_exact


# Broken devices


class Bare(Unary):
    """Sends its memo as it is."""

    def send(self, memos: Array, coins: Coins) -> Array:
        return memos


class Swapped(Unary):
    """Takes p for q in one step, or in both."""

    wrong: tuple[str, ...] = ("permanent", "instant")

    def step(self, signal: Array, rates: Rates, coins: Coins) -> Array:
        wrong = any(rates is getattr(self, name) for name in self.wrong)
        return super().step(~signal if wrong else signal, rates, coins)


class Forgetful(TableMemo):
    """Draws every memo anew."""

    def memos(self, attribute: int, cells: Ints, public: Array, coins: Coins) -> Bytes:
        self.__init__(self.mechanisms, self.members, self.n)  # type: ignore[misc]
        return super().memos(attribute, cells, public, coins)


class Wandering(Fleet):
    """Chooses an attribute in every round."""

    def __init__(self, protocol: FrequencyProtocol, n: int, memo: Any) -> None:
        everything = _All(protocol.domains, protocol.nominal, protocol.budgets)
        super().__init__(everything, n, memo)
        self.chance = SystemCoins()

    def report(self, values: Array) -> list[list[Block]]:
        chosen = self.chance.below(len(self.protocol.domains), (len(values),))
        return [
            [_of(block, chosen[block.users] == j) for block in blocks]
            for j, blocks in enumerate(super().report(values))
        ]


class _All(FrequencyProtocol):
    answers_all = True


def _of(block: Block, mine: Any) -> Block:
    return Block(block.users[mine], block.public[mine], block.reports[mine])


def tight(found: Audit) -> bool:
    """What a sound device of these tests shows."""
    return 0.95 * found.eps_exact <= found.eps_lower <= found.eps_exact


def test_a_memo_drawn_anew_each_round_is_found(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    protocol = make.protocol(make.symbol(2))
    assert tight(audit(protocol, 0, 1, trials=200_000, rounds=4))
    monkeypatch.setattr(devices_module, "TableMemo", Forgetful)
    broken = audit(protocol, 0, 1, trials=200_000, rounds=4)
    assert broken.eps_lower > protocol.budgets.eps_inf > broken.eps_exact
    assert not broken.holds


def test_noise_left_out_is_found(make: Any) -> None:
    sound = make.unary(5)
    assert tight(audit(make.protocol(sound), 0, 1, trials=200_000))
    broken = audit(make.protocol(Bare(5, sound.permanent, sound.instant)), 0, 1, trials=200_000)
    assert broken.eps_exact == pytest.approx(1.0, rel=1e-6)  # so the label says
    assert broken.eps_lower > 1.9
    assert not broken.holds


@pytest.mark.parametrize("wrong", ["permanent", "instant"])
def test_p_taken_for_q_is_found(make: Any, wrong: str) -> None:
    sound = make.unary(5)
    mutant = Swapped(5, sound.permanent, sound.instant)
    mutant.wrong = (wrong,)
    broken = audit(make.protocol(mutant), 0, 1, trials=200_000)
    assert broken.tpr < broken.fpr
    assert broken.eps_lower == 0.0
    assert not tight(broken)


def test_p_taken_for_q_twice_keeps_the_loss_and_spoils_the_estimate(make: Any) -> None:
    n, sound = 20_000, make.unary(5)
    mutant = Swapped(5, sound.permanent, sound.instant)
    assert tight(audit(make.protocol(mutant), 0, 1, trials=200_000))  # flipped twice: no privacy is lost
    values, f = np.zeros((n, 1), np.int64), np.array([1.0, 0, 0, 0, 0])
    for mechanism, right in [(sound, True), (mutant, False)]:
        protocol = make.protocol(mechanism)
        (blocks,) = Fleet(protocol, n).report(values)
        ones = sum(mechanism.support(block.reports, block.public) for block in blocks)
        estimate = protocol.estimate(0, Tally(n, ones, np.full(5, n)))
        assert np.all(np.abs(estimate - f) < 4 * np.sqrt(protocol.variance(0, n, f))) == right


def test_an_attribute_drawn_anew_each_round_is_found(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    protocol = make.protocol(make.symbol(2), make.symbol(2), asks="one")
    assert tight(audit(protocol, 0, 1, trials=200_000, rounds=4))
    monkeypatch.setattr(module, "Fleet", Wandering)
    broken = audit(protocol, 0, 1, trials=200_000, rounds=4)
    assert broken.eps_lower > protocol.budgets.eps_inf > broken.eps_exact
    assert not broken.holds


# What it says


def test_an_audit_says_what_it_counted(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEVICES", 70)  # the last fleet is smaller
    found = audit(make.protocol(make.symbol(3)), 0, 1, trials=1000)
    assert found.trials == 1000
    assert found.rounds == 1
    assert 0 < found.events[1] < found.events[0] < 1000
    assert (found.tpr, found.fpr) == (found.events[0] / 1000, found.events[1] / 1000)
    assert found.ceiling == bound(1000, 0, 1000, 0.99)
    assert found.confidence == 0.99


def test_audits_that_show_nothing_are_refused(make: Any) -> None:
    protocol = make.protocol(make.symbol(3), make.symbol(3), asks="one")
    for wrong in ({"v1": (0, 1), "v2": (1, 1)}, {"trials": 0}, {"rounds": 0}, {"confidence": 1.0}):
        with pytest.raises(ConfigError, match="must differ in every attribute"):
            audit(protocol, **({"v1": 0, "v2": 1, "trials": 10} | wrong))
    with pytest.raises(DataError, match="value 3 of user 0"):
        audit(protocol, 3, 0, trials=10)


@pytest.mark.slow
@pytest.mark.parametrize("eps", [1.0, 2.0])
@pytest.mark.parametrize("kind", ["grr", "oue", "ss", "hr", "l_osue", "l_grr", "loloha"])
def test_a_million_trials_prove_95_percent_of_the_loss(make: Any, kind: str, eps: float) -> None:
    by_kind = {
        "grr": Symbol(K, None, grr(K, eps)),
        "oue": Unary(K, None, oue(eps)),
        "ss": ss(eps),
        "hr": Hadamard(K, grr(2, eps)),
        "l_osue": make.unary(K, 2 * eps, eps),
        "l_grr": make.symbol(K, 2 * eps, eps),
        "loloha": make.hashed(K, round(math.exp(eps)) + 1, 2 * eps, eps),
    }
    found = audit(by_kind[kind].rounded(32), 0, 24, trials=1_000_000)
    assert tight(found)
    assert found.eps_exact == pytest.approx(eps, rel=1e-6)
