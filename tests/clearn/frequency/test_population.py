"""Simulated devices, one by one: right on average, the same again from the same seeds, and carried to the last bit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from clearn.errors import ConfigError, DataError, StateError
from clearn.frequency import FrequencyProtocol, Rates, Symbol, Tally, packing
from clearn.frequency.coins import Coins, SimulatedCoins
from clearn.frequency.devices import Devices
from clearn.frequency.population import PerUser
from clearn.state import decode, encode, freeze, thaw

FAMILIES = ["unary", "symbol", "hashed"]
KEPT = ["both steps", "one shot", "memo only"]
MEMOS = ["table", "prf"]


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def mechanism_of(make: Any, family: str, k: int, kept: str = "both steps", **options: Any) -> Any:
    mechanism = make.hashed(k, 4, **options) if family == "hashed" else getattr(make, family)(k, **options)
    if kept == "one shot":
        return make.one_shot(mechanism)
    return make.memo_only(mechanism) if kept == "memo only" else mechanism


def population_of(make: Any, protocol: FrequencyProtocol, n: int, memo: Any = "table", seed: int = 0) -> PerUser:
    return PerUser(protocol, make.collection(protocol, n), rng(seed), memo)


def same(a: list[Tally], b: list[Tally]) -> bool:
    return all(x.n == y.n and np.array_equal(x.counts, y.counts) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("kept", KEPT)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("memo", MEMOS)
def test_estimates_err_as_the_closed_form_says(make: Any, family: str, kept: str, memo: str) -> None:
    n, k = 3000, 6
    protocol = make.protocol(mechanism_of(make, family, k, kept))
    population = population_of(make, protocol, n, memo)
    for t in range(3):  # half of the users change their value every round
        values = np.where(np.arange(n) % 2, np.minimum(rng(t).geometric(0.4, n), k) - 1, 2)
        (tally,) = population.report(make.round(values, t), rng(100 + t))
        f = np.bincount(values, minlength=k) / n
        assert tally.n == n
        assert np.all(tally.trials == n)
        assert np.all(np.abs(protocol.estimate(0, tally) - f) < 4 * np.sqrt(protocol.variance(0, n, f)))


@pytest.mark.parametrize("kept", ["both steps", "one shot"])
@pytest.mark.parametrize("family", FAMILIES)
def test_two_rounds_share_the_memos_noise_and_nothing_else(make: Any, family: str, kept: str) -> None:
    n, k, repeats = 300, 3, 500
    protocol = make.protocol(mechanism_of(make, family, k, kept))
    values = np.repeat([0, 1, 2], [200, 80, 20])
    f = np.array([200, 80, 20]) / n
    found = np.empty((repeats, 2, k))
    for i in range(repeats):
        population = population_of(make, protocol, n, seed=i)
        for t in range(2):
            found[i, t] = protocol.estimate(0, population.report(make.round(values, t), rng(1000 * i + t))[0]) - f
    covariance = (found[:, 0] * found[:, 1]).mean(axis=0)
    expected = protocol.mechanisms[0].permanent_variance(n, f)
    one = protocol.variance(0, n, f)
    assert np.all(np.abs(covariance - expected) < 4 * np.sqrt((one**2 + expected**2) / repeats))
    assert np.all(np.abs((found**2).mean(axis=(0, 1)) - one) < 4 * one * np.sqrt(2 / repeats))  # two rounds are no more


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("memo", MEMOS)
def test_without_noise_a_value_is_answered_alike_in_every_round(make: Any, family: str, memo: Any) -> None:
    n, k = 200, 7
    quiet = mechanism_of(make, family, k, "memo only")
    devices = Devices(make.protocol(quiet), n, SimulatedCoins(rng(0)), memo)
    a, b = rng(1).integers(0, k, (2, n))

    def reports(values: Any, seed: int) -> Any:
        return np.concatenate([block.reports for block in devices.answer(0, values, SimulatedCoins(rng(seed)))])

    first, static, changed, back = reports(a, 1), reports(a, 2), reports(b, 3), reports(a, 4)
    assert np.array_equal(first, static)
    assert np.array_equal(first, back)
    assert not np.array_equal(first, changed)


def test_an_instant_step_that_changes_nothing_sends_the_memo(make: Any) -> None:
    n, k = 200, 7
    mechanism = make.unary(k)
    mechanism.instant = Rates.of(1.0, 0.0)
    devices = Devices(make.protocol(mechanism), n, SimulatedCoins(rng(0)), "table")
    sent = [next(devices.answer(0, np.arange(n) % k, SimulatedCoins(rng(seed)))).reports for seed in range(3)]
    assert np.array_equal(sent[0], sent[1])
    assert np.array_equal(sent[0], sent[2])


@pytest.mark.parametrize("memo", MEMOS)
@pytest.mark.parametrize("asks", ["all", "one"])
def test_a_population_rebuilt_from_its_bytes_goes_on_bit_for_bit(make: Any, asks: str, memo: Any) -> None:
    n, d = 120, 3
    protocol = make.protocol(make.unary(5), make.symbol(4), make.hashed(6, 3), asks=asks)
    values = [rng(t).integers(0, (5, 4, 6), (n, d), np.uint8) for t in range(6)]
    whole = population_of(make, protocol, n, memo)
    expected = [whole.report(make.round(v, t), rng(50 + t)) for t, v in enumerate(values)]
    assert expected[0][0].n == (n if asks == "all" else expected[0][0].n)
    state = population_of(make, protocol, n, memo).state()
    for t, v in enumerate(values):
        rebuilt = population_of(make, protocol, n, memo, seed=99)  # its own draws must be gone after load
        rebuilt.load(state)
        assert same(rebuilt.report(make.round(v, t), rng(50 + t)), expected[t])
        state = thaw(decode(encode(freeze(rebuilt.state())), torch=False))
    assert {name: value.tobytes() for name, value in state.items()} == {
        name: value.tobytes() for name, value in whole.state().items()
    }


def test_reports_follow_from_the_seeds_alone(make: Any) -> None:
    protocol = make.protocol(make.symbol(5))
    values = make.round(np.arange(400) % 5)
    one, two, other = (population_of(make, protocol, 400) for _ in range(3))
    assert same(one.report(values, rng(1)), two.report(values, rng(1)))
    assert not same(one.report(values, rng(2)), other.report(values, rng(3)))


def test_unary_reports_do_not_depend_on_blocks(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    protocol, n = make.protocol(make.unary(5)), 400
    rounds = [make.round(rng(t).integers(0, 5, n), t) for t in range(3)]
    whole, cut = population_of(make, protocol, n), population_of(make, protocol, n)
    expected = [whole.report(values, rng(t)) for t, values in enumerate(rounds)]
    monkeypatch.setattr(packing, "BLOCK", 35)
    assert all(same(cut.report(values, rng(t)), expected[t]) for t, values in enumerate(rounds))


@pytest.mark.parametrize("asks", ["all", "one"])
def test_bits_on_a_device_are_those_of_the_formula_for_the_cells_it_met(make: Any, asks: str) -> None:
    n, domains = 150, (5, 9)
    protocol = make.protocol(make.unary(5), make.symbol(9), asks=asks)
    population = population_of(make, protocol, n)
    values = [rng(t).integers(0, domains, (n, 2)) for t in range(3)]
    for t, v in enumerate(values):
        population.report(make.round(v, t), rng(t))
    expected = np.zeros(n, np.int64)
    state = population.state()
    for j, mechanism in enumerate(protocol.mechanisms):
        met = np.array([len({int(v[user, j]) for v in values}) for user in range(n)])
        mine = population.devices.members[j]
        expected[mine] += [mechanism.state_bits(int(m)) for m in met[mine]]
        assert state[f"client/known.{j}"].nbytes == -(-len(mine) * mechanism.cells // 8)
        assert state[f"client/memo.{j}"].nbytes == -(-int(met[mine].sum()) * mechanism.memo_bits // 8)
    assert np.array_equal(population.client_bits(), expected)
    assert len(np.unique(expected)) > 2
    assert set(population_of(make, protocol, n, "prf").client_bits().tolist()) == {256}


def test_what_keeps_nothing_carries_nothing(make: Any) -> None:
    protocol = make.protocol(make.one_shot(make.unary(5)))
    for memo in MEMOS:
        population = population_of(make, protocol, 10, memo)
        population.report(make.round(np.zeros(10, int)), rng(0))
        assert population.state() == {}
        assert population.client_bits().tolist() == [0] * 10


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("memo", MEMOS)
def test_words_of_64_bits_are_drawn_for_large_budgets(make: Any, family: str, memo: Any) -> None:
    n, k = 3000, 6
    protocol = make.protocol(mechanism_of(make, family, k, eps_inf=20.0, eps_1=2.0), eps_inf=20.0)
    assert protocol.mechanisms[0].permanent.bits == 64
    values, f = np.arange(n) % 3, np.array([1, 1, 1, 0, 0, 0]) / 3
    (tally,) = population_of(make, protocol, n, memo).report(make.round(values), rng(0))
    assert np.all(np.abs(protocol.estimate(0, tally) - f) < 4 * np.sqrt(protocol.variance(0, n, f)))


def test_without_a_memo_every_report_has_a_new_hash(make: Any) -> None:
    protocol = make.protocol(make.one_shot(make.hashed(6, 3)))
    devices = Devices(protocol, 50, SimulatedCoins(rng(0)), "table")
    source, zero = SimulatedCoins(rng(1)), np.zeros(50, int)
    first, second = (next(devices.answer(0, zero, source)).public for _ in range(2))
    assert not (first == second).any()
    assert devices.state() == {}
    mechanism = protocol.mechanisms[0]
    assert (mechanism.setup_bits, mechanism.public_bits, mechanism.round_bits) == (0, 0, 64 + 2)
    assert not mechanism.hashed


def test_a_hash_seed_is_disclosed_once_and_carried(make: Any) -> None:
    population = population_of(make, make.protocol(make.hashed(6, 3)), 50)
    before = population.state()["client/public.0"].copy()
    assert before.shape == (50, 1)
    assert before.dtype == np.uint64
    population.report(make.round(np.zeros(50, int)), rng(0))
    assert np.array_equal(population.state()["client/public.0"], before)


# One attribute a user


def test_users_draw_one_attribute_and_keep_it(make: Any) -> None:
    n, shares = 4000, (0.5, 0.3, 0.2)
    protocol = make.protocol(make.symbol(3), make.symbol(4), make.unary(5), asks="one", shares=shares)
    population = population_of(make, protocol, n)
    values = rng(0).integers(0, (3, 4, 5), (n, 3))
    rounds = [population.report(make.round(values, t), rng(t)) for t in range(2)]
    sizes = np.array([tally.n for tally in rounds[0]])
    assert sizes.sum() == n
    assert [tally.n for tally in rounds[1]] == sizes.tolist()
    assert np.all(np.abs(sizes - np.multiply(n, shares)) < 4 * np.sqrt(n * np.multiply(shares, np.subtract(1, shares))))
    attribute = population.state()["client/attribute"]
    assert attribute.dtype == np.uint8
    assert np.bincount(attribute).tolist() == sizes.tolist()
    for j, tally in enumerate(rounds[0]):
        mine = values[attribute == j, j]
        f = np.bincount(mine, minlength=protocol.domains[j]) / len(mine)
        assert np.all(np.abs(protocol.estimate(j, tally) - f) < 4 * np.sqrt(protocol.variance(j, tally.n, f)))


@pytest.mark.parametrize(
    ("n", "shares", "sizes"),
    [(10, None, [4, 3, 3]), (9, None, [3, 3, 3]), (10, (0.55, 0.3, 0.15), [6, 3, 1]), (1, None, [1, 0, 0])],
)
def test_an_equal_split_has_groups_of_fixed_sizes(make: Any, n: int, shares: Any, sizes: list[int]) -> None:
    protocol = make.protocol(*[make.symbol(3)] * 3, asks="one", split="equal", shares=shares)
    found = [population_of(make, protocol, n, seed=seed).state()["client/attribute"] for seed in range(8)]
    assert [np.bincount(attribute, minlength=3).tolist() for attribute in found] == [sizes] * 8
    assert n < 9 or len({attribute.tobytes() for attribute in found}) > 1


def test_memo_keys_are_told_for_those_who_answer(make: Any) -> None:
    n = 60
    protocol = make.protocol(make.hashed(9, 3), make.unary(9), make.one_shot(make.symbol(9)), asks="one")
    population = population_of(make, protocol, n)
    values = rng(0).integers(0, 9, (n, 3), np.uint8)
    found, state = population.cells(make.round(values)), population.state()
    mine = [np.flatnonzero(state["client/attribute"] == j) for j in range(3)]
    assert population.answering() == [len(users) for users in mine]
    hashes = protocol.mechanisms[0].cell(values[mine[0], 0].astype(np.int64), state["client/public.0"])
    assert found[0].tolist() == hashes.tolist()
    assert found[1].tolist() == values[mine[1], 1].tolist()
    assert found[2].tolist() == [0] * len(mine[2])  # no key where nothing is kept
    population.report(make.round(values), rng(1))
    met = np.flatnonzero(np.unpackbits(population.state()["client/known.1"])) % 9
    assert met.tolist() == found[1].tolist()


def test_an_attribute_that_nobody_answers_is_nan(make: Any) -> None:
    protocol = make.protocol(make.symbol(3), make.unary(4), asks="one", split="equal", shares=(0.999, 0.001))
    tallies = population_of(make, protocol, 5).report(make.round(np.zeros((5, 2), int)), rng(0))
    assert [tally.n for tally in tallies] == [5, 0]
    assert np.isnan(protocol.estimate(1, tallies[1])).all()


def test_many_attributes_are_numbered_in_two_bytes(make: Any) -> None:
    for only in (0, 130, 299):
        protocol = make.protocol(*[make.symbol(2)] * 300, asks="one", shares=np.arange(300) == only)
        attribute = population_of(make, protocol, 4).state()["client/attribute"]
        assert attribute.dtype == np.uint16
        assert attribute.tolist() == [only] * 4


# One true answer among fakes


class Uniform:
    """Fake symbols, all alike likely."""

    def __init__(self, mechanism: Symbol) -> None:
        self.mechanism = mechanism

    def draw(self, n: int, coins: Coins) -> Any:
        return coins.below(self.mechanism.symbols, (n,)).astype(self.mechanism.dtype)


def test_fakes_beside_answers_that_are_kept_are_refused(make: Any) -> None:
    with pytest.raises(ConfigError, match="true answers that are kept would stand out"):
        population_of(make, make.protocol(make.symbol(3), make.symbol(3), asks="hidden"), 5)


def test_fakes_hide_which_attribute_is_true(make: Any) -> None:
    n, k, d = 20_000, 4, 2
    protocol = make.protocol(make.one_shot(make.symbol(k)), make.one_shot(make.symbol(k)), asks="hidden")
    protocol.fakes = lambda attribute: Uniform(protocol.mechanisms[attribute])
    values = np.stack([np.zeros(n, int), np.full(n, 3)], axis=1)
    tallies = population_of(make, protocol, n).report(make.round(values), rng(0))
    p, q = protocol.mechanisms[0].own, protocol.mechanisms[0].other
    for j, tally in enumerate(tallies):
        assert tally.n == n
        assert tally.counts.sum() == n
        f = np.bincount(values[:, j], minlength=k) / n
        support = (q + f * (p - q) + (d - 1) / k) / d  # RS+FD [GRR], Arcolezi et al. 2021
        assert np.all(np.abs(tally.counts / n - support) < 4 * np.sqrt(support * (1 - support) / n))


# What is refused


def test_a_round_of_other_users_or_values_is_refused(make: Any) -> None:
    population = population_of(make, make.protocol(make.unary(5), make.unary(3)), 4)
    good = np.zeros((4, 2), int)
    out = good.copy()
    out[2, 1] = 3
    for values, message in [
        (good[:3], r"shape \(3, 2\), and 4 users"),
        (good[:, :1], r"shape \(4, 1\)"),
        (good.astype(float), "values are float64, and integers"),
        (np.full((4, 2), np.nan), "values are float64"),
        (good.astype(bool), "values are bool"),
        (out, r"value 3 of user 2 must lie in \[0, 2\]"),
        (out - 1, r"value -1 of user 0 must lie in \[0, 4\]"),
    ]:
        with pytest.raises(DataError, match=message):
            population.report(make.round(values), rng(0))
    with pytest.raises(DataError, match="round 7 has counts and no values"):
        population.report(SimpleNamespace(index=7, values=None), rng(0))
    assert len(population.report(make.round(good.astype(np.uint16)), rng(0))) == 2


def test_a_collection_of_counts_or_of_other_attributes_is_refused(make: Any) -> None:
    protocol = make.protocol(make.unary(5))
    with pytest.raises(ConfigError, match="known by its counts alone"):
        PerUser(protocol, SimpleNamespace(domains=(5,), n_users=4, rows=False), rng(0))
    with pytest.raises(ConfigError, match=r"domains \(5,\), and the collection has \(6,\)"):
        PerUser(protocol, SimpleNamespace(domains=(6,), n_users=4, rows=True), rng(0))
    with pytest.raises(ConfigError, match="memo='disk' must be"):
        population_of(make, protocol, 4, "disk")


def test_the_state_of_other_users_is_refused(make: Any) -> None:
    protocol = make.protocol(make.hashed(5, 3), make.unary(3), asks="one")
    states = [population_of(make, protocol, n).state() for n in (4, 5)]
    with pytest.raises(StateError, match="'client/attribute' is uint8 of shape"):
        population_of(make, protocol, 4).load(states[1])
    with pytest.raises(StateError, match="no array 'client/key'"):
        population_of(make, protocol, 4, "prf").load(states[0])
