"""Counts of all users at once against users simulated one by one: means and covariances over rounds and values."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest

from clearn.errors import ConfigError, DataError, StateError
from clearn.frequency import Rates
from clearn.frequency.aggregate import Aggregate, obstacle
from clearn.frequency.bloom import Bloom
from clearn.frequency.buckets import Buckets
from clearn.frequency.coins import SimulatedCoins
from clearn.frequency.hadamard import Hadamard
from clearn.frequency.laplace import Laplace
from clearn.frequency.population import PerUser
from clearn.frequency.sharing import BitFakes, SymbolFakes
from clearn.frequency.subset import Subset
from clearn.state import decode, encode, freeze, thaw
from clearn.stream import Round
from clearn.streams.collections import synthetic
from clearn.streams.values import Changing, Counted, Static

REPEATS, FEWER = 2000, 800  # FEWER where the per-user engine is run
STAYING = np.repeat([0, 1, 2, 1], [7, 12, 4, 3])[:, None].repeat(3, axis=1)  # (26, 3)
MOVING = np.array([[0, 0, 0], [0, 1, 0], [2, 1, 1], [1, 1, 1], [2, 2, 0], [0, 1, 2]]).repeat([5, 6, 4, 3, 5, 4], axis=0)


def naive(mechanism, values, rng, repeats=REPEATS):
    """(repeats, tau, slots) counts of users who each keep a memo per cell, written with the mechanism's own steps."""
    n, tau = values.shape
    everyone, coins = np.tile(values, (repeats, 1)), SimulatedCoins(rng)
    public = mechanism.public(n * repeats, coins)
    if mechanism.permanent is not None:
        cells = range(mechanism.cells)
        memos = np.stack([mechanism.memoise(np.full(n * repeats, c), public, coins) for c in cells])
    counts = []
    for t in range(tau):
        if mechanism.permanent is None:
            public = mechanism.public(n * repeats, coins)
        cells = mechanism.cell(everyone[:, t], public)
        held = mechanism.signal(cells, public) if mechanism.permanent is None else memos[cells, np.arange(n * repeats)]
        reports = mechanism.send(held, coins)
        split = zip(np.split(reports, repeats), np.split(public, repeats), strict=True)
        counts.append(np.stack([mechanism.support(part, own) for part, own in split]))
    return np.stack(counts, axis=1)


def simulate(engine, protocol, collection, seed, repeats=REPEATS):
    """(repeats, tau, slots of all attributes) counts of an engine."""
    rng, found = np.random.default_rng(seed), []
    rounds = list(collection)
    for _ in range(repeats):
        population = engine(protocol, collection, rng)
        found.append([np.concatenate([tally.counts for tally in population.report(r, rng)]) for r in rounds])
    return np.array(found, np.float64)


def moments(counts):
    """Means and covariances over (t, v), and their standard errors."""
    flat = counts.reshape(len(counts), -1)
    centred = flat - flat.mean(axis=0)
    i, j = np.triu_indices(flat.shape[1])
    products = centred[:, i] * centred[:, j]
    both = np.concatenate([flat, products], axis=1)
    return both.mean(axis=0), both.std(axis=0) / np.sqrt(len(flat))


def assert_alike(first, second):
    """Every mean and covariance agrees within 4 standard errors, and the mean square of them is that of chance."""
    (a, a_error), (b, b_error) = moments(first), moments(second)
    error = np.hypot(a_error, b_error)
    z = (a - b)[error > 0] / error[error > 0]
    assert a[error == 0] == pytest.approx(b[error == 0])
    assert np.abs(z).max() < 4, f"{np.abs(z).max():.2f} standard errors"
    assert np.mean(z**2) < 1 + 4 * np.sqrt(2 / len(z))


KEPT = {
    "l_osue": lambda make: make.unary(3),
    "l_grr": lambda make: make.symbol(3),
    "memo alone": lambda make: make.memo_only(make.unary(3)),
    "buckets": lambda make: Buckets(3, 2, 2, Rates.of(0.75, 0.25), expected=False),
}
HASHED = {
    "loloha": lambda make: make.hashed(3, 2),
    "bloom": lambda make: Bloom(3, 4, 2, 3, Rates.of(0.8, 0.2), Rates.of(0.75, 0.3)),
}
FRESH = {
    "oue": lambda make: make.one_shot(make.unary(3)),
    "grr": lambda make: make.one_shot(make.symbol(3)),
    "olh": lambda make: make.one_shot(make.hashed(3, 2)),
    "hr": lambda make: Hadamard(3, Rates.of(0.7, 0.5)),
    "she": lambda make: Laplace(3, 1.5),
}


@pytest.mark.parametrize("name", [*KEPT, *FRESH, *HASHED])
def test_static_users_have_the_law_of_users_one_by_one(make, name):
    protocol = make.protocol((KEPT | FRESH | HASHED)[name](make))
    expected = naive(protocol.mechanisms[0], STAYING, np.random.default_rng(1))
    assert_alike(simulate(Aggregate, protocol, Static(STAYING[:, :1], [3], rounds=3), 2), expected)


@pytest.mark.parametrize("name", [*KEPT, *FRESH])
def test_changing_users_have_the_law_of_users_one_by_one(make, name):
    protocol = make.protocol((KEPT | FRESH)[name](make))
    expected = naive(protocol.mechanisms[0], MOVING, np.random.default_rng(3))
    assert_alike(simulate(Aggregate, protocol, Changing(MOVING, [3]), 4), expected)


def test_subset_selection_is_right_value_by_value(make):
    """The sets' fixed size ties counts together, which the aggregate engine does not promise ("marginals")."""
    protocol = make.protocol(Subset(4, 2, Rates.of(0.8, 0.4)))
    values = STAYING[:, :1]
    expected = naive(protocol.mechanisms[0], values, np.random.default_rng(5))
    found = simulate(Aggregate, protocol, Static(values, [4]), 6)
    for v in range(4):
        assert_alike(found[:, :, v : v + 1], expected[:, :, v : v + 1])
    assert np.ptp(expected.sum(axis=2)) == 0 < np.ptp(found.sum(axis=2))


@pytest.mark.parametrize("asks", ["one", "hidden"])
@pytest.mark.parametrize("split", ["independent", "equal"])
def test_several_attributes_have_the_law_of_the_per_user_engine(make, asks, split):
    """Attributes compete for the same users; cross-covariances between attributes are compared too."""
    values = np.stack([STAYING[:, 0], STAYING[::-1, 0] % 2], axis=1)
    if asks == "one":
        protocol = make.protocol(make.symbol(3), make.unary(2), asks=asks, split=split, shares=[0.4, 0.6])
    else:
        protocol = make.protocol(
            make.one_shot(make.symbol(3)), make.one_shot(make.unary(2)), asks=asks, split=split, shares=[0.4, 0.6]
        )
        symbols, bits = protocol.mechanisms
        fakes = [SymbolFakes(symbols, np.array([0.5, 0.2, 0.3])), BitFakes(bits, np.array([0.5, 0.5]))]
        protocol.fakes = fakes.__getitem__
    collection = Static(values, [3, 2], rounds=2)
    found = simulate(Aggregate, protocol, collection, 7, repeats=FEWER)
    assert_alike(found, simulate(PerUser, protocol, collection, 8, repeats=FEWER))


def test_sampled_users_who_change_have_the_law_of_the_per_user_engine(make):
    values = np.stack([MOVING, MOVING[::-1] % 2], axis=2)
    protocol = make.protocol(make.unary(3), make.symbol(2), asks="one")
    collection = Changing(values, [3, 2])
    found = simulate(Aggregate, protocol, collection, 9, repeats=FEWER)
    assert_alike(found, simulate(PerUser, protocol, collection, 10, repeats=FEWER))


@pytest.mark.parametrize("name", ["l_osue", "l_grr", "loloha", "oue"])
def test_rounds_share_the_permanent_step_s_variance(make, name):
    """Cov(fhat_t, fhat_s) = V_PRR at n = 20,000, and 0 where nothing is kept."""
    mechanism = (KEPT | HASHED | FRESH)[name](make)
    protocol = make.protocol(mechanism)
    collection = Counted([np.array([2_000, 6_000, 12_000])], [3], rounds=2)
    counts = simulate(Aggregate, protocol, collection, 11)
    mechanism = protocol.mechanisms[0]
    estimates = (counts / 20_000 - mechanism.other) / (mechanism.own - mechanism.other)  # (repeats, 2, 3)
    first, second = np.moveaxis(estimates - estimates.mean(axis=0), 1, 0)
    f = np.array([0.1, 0.3, 0.6])
    each, shared = mechanism.variance(20_000, f), mechanism.permanent_variance(20_000, f)
    error = np.sqrt((each**2 + shared**2) / REPEATS)
    assert np.abs((first * second).mean(axis=0) - shared).max() < 4 * error.max()
    assert np.abs((first**2).mean(axis=0) - each).max() < 4 * (np.sqrt(2 / REPEATS) * each).max()
    assert (shared == 0).all() == (name == "oue")


@pytest.mark.parametrize("name", ["l_osue", "l_grr", "l_osue 2 of 5", "grr 2 of 5"])
def test_population_rebuilt_from_its_state_goes_on_bit_for_bit(make, name):
    if "of" in name:
        kind = make.unary if name.startswith("l_osue") else lambda k: make.one_shot(make.symbol(k))
        protocol = make.protocol(kind(3), kind(3), asks="one")
        collections = [Changing(np.stack([MOVING, MOVING], axis=2), [3, 3])]
        collections += [Counted([np.array([9, 1, 4]), np.array([5, 5, 4])], [3, 3], rounds=3)]
    else:
        protocol = make.protocol(KEPT[name](make))
        collections = [Changing(MOVING, [3]), Counted([np.array([9, 1, 4])], [3], rounds=3)]
    for collection in collections:
        alone = Aggregate(protocol, collection, np.random.default_rng(0))
        rebuilt = Aggregate(protocol, collection, np.random.default_rng(0))
        for round in collection:
            rng, again = np.random.default_rng(round.index), np.random.default_rng(round.index)
            expected = alone.report(round, rng)
            found = rebuilt.report(round, again)
            assert [t.counts.tolist() for t in found] == [t.counts.tolist() for t in expected]
            blob = encode(freeze(rebuilt.state()))
            rebuilt = Aggregate(protocol, collection, np.random.default_rng(99))
            rebuilt.load(thaw(decode(blob, torch=False)))


def test_state_is_a_row_of_sums_a_round_and_never_grows_with_users(make):
    protocol = make.protocol(make.unary(5), make.symbol(4), asks="one")
    counts = [np.full(5, 4 * 10**8), np.full(4, 5 * 10**8)]
    state = Aggregate(protocol, Counted(counts, [5, 4], rounds=50), np.random.default_rng(0)).state()
    assert {name: value.shape for name, value in state.items()} == {
        "client/group_users": (2,),
        "client/memo_counts.0": (1, 5),
        "client/memo_counts.1": (1, 4),
    }
    assert sum(state["client/group_users"]) == 2 * 10**9
    changing = make.protocol(make.symbol(3))
    state = Aggregate(changing, Changing(MOVING, [3]), np.random.default_rng(0)).state()
    assert {name: value.shape for name, value in state.items()} == {"client/memo_counts.0": (3, 3)}
    assert state["client/memo_counts.0"].sum(axis=1).tolist() == [27, 27, 27]


def test_symbol_counts_add_up_and_groups_answer_as_many_as_they_are(make):
    values = np.stack([STAYING[:, 0], STAYING[:, 0]], axis=1)
    protocol = make.protocol(make.symbol(3), make.symbol(3), asks="one")
    collection = Static(values, [3, 3], rounds=4)
    population = Aggregate(protocol, collection, np.random.default_rng(0))
    for round in collection:
        tallies = population.report(round, np.random.default_rng(round.index))
        assert [int(t.counts.sum()) for t in tallies] == [t.n for t in tallies] == population.answering()
        assert sum(t.n for t in tallies) == len(values)
        assert [float(protocol.estimate(j, t).sum()) for j, t in enumerate(tallies)] == pytest.approx([1, 1])


def test_cells_are_those_of_the_users_who_answer(make):
    protocol = make.protocol(make.unary(3), make.symbol(3), asks="one")
    collection = Changing(np.stack([MOVING, 2 - MOVING], axis=2), [3, 3])
    population = Aggregate(protocol, collection, np.random.default_rng(0))
    attribute = population.state()["client/attribute"]
    for round in collection:
        cells = population.cells(round)
        assert cells[0].tolist() == MOVING[attribute == 0, round.index].tolist()
        assert cells[1].tolist() == (2 - MOVING[attribute == 1, round.index]).tolist()
    coarse = make.protocol(Buckets(3, 2, 2, Rates.of(0.75, 0.25), expected=False))
    population = Aggregate(coarse, Changing(MOVING, [3]), np.random.default_rng(0))
    assert population.cells(Changing(MOVING, [3])[0])[0].tolist() == (MOVING[:, 0] * 2 // 3).tolist()
    fresh = Aggregate(make.protocol(make.one_shot(make.unary(3))), Changing(MOVING, [3]), np.random.default_rng(0))
    assert fresh.cells(Changing(MOVING, [3])[1])[0].tolist() == [0] * len(MOVING)


def test_attribute_that_nobody_answers_gives_nan_and_no_crash(make):
    kinds = [make.unary(3), make.symbol(3), make.hashed(3, 2), make.one_shot(make.unary(3)), Laplace(3, 1.0)]
    protocol = make.protocol(*kinds, asks="one")
    for collection in (Static(np.zeros((1, 5), int), [3] * 5), Counted([np.array([1, 0, 0])] * 5, [3] * 5)):
        tallies = Aggregate(protocol, collection, np.random.default_rng(0)).report(
            collection[0], np.random.default_rng(0)
        )
        assert sum(t.n for t in tallies) == 1
        assert [bool(np.isnan(protocol.estimate(j, t)).all()) for j, t in enumerate(tallies)] == [
            not t.n for t in tallies
        ]


def test_wrong_uses_are_refused_with_the_reason(make):
    moving, counted = Changing(MOVING, [3]), Counted([np.array([3, 3, 3])], [3])
    with pytest.raises(ConfigError, match=r"values change, and with Hashed .* write engine: per_user"):
        Aggregate(make.protocol(make.hashed(3, 2)), moving, np.random.default_rng(0))
    few = make.protocol(Buckets(3, 3, 2, Rates.of(0.75, 0.25), expected=False))
    with pytest.raises(ConfigError, match="no law is known of the counts of Buckets"):
        Aggregate(few, counted, np.random.default_rng(0))
    counted.static = False
    assert "do not say who changed" in obstacle(make.protocol(make.unary(3)), counted)
    assert obstacle(make.protocol(make.one_shot(make.unary(3))), counted) is None
    with pytest.raises(ConfigError, match=r"made for domains \(4,\)"):
        Aggregate(make.protocol(make.unary(4)), moving, np.random.default_rng(0))


def test_damaged_rounds_and_states_are_named(make):
    protocol = make.protocol(make.one_shot(make.unary(3)))
    population = Aggregate(protocol, Static(STAYING[:, :1], [3]), np.random.default_rng(0))
    for counts in (np.array([1, 2]), np.array([1, 2, 3]), np.array([13.0, 13.0, 0.0])):
        with pytest.raises(DataError, match="give whole numbers of users of all 3 values, 26 together"):
            population.report(Round(0, (counts,), None), np.random.default_rng(0))
    kept = Aggregate(make.protocol(make.unary(3)), Static(STAYING[:, :1], [3]), np.random.default_rng(0))
    with pytest.raises(StateError, match=r"no array 'client/memo_counts.0'"):
        kept.load({})
    with pytest.raises(StateError, match=r"int64 of \(1, 3\) is needed"):
        kept.load({"client/memo_counts.0": np.zeros((2, 3), np.int64)})


def test_billion_users_take_no_time_and_no_memory(make):
    collection = synthetic(10**9, [1000], rounds=100)
    for mechanism in (make.unary(1000), make.symbol(1000)):
        protocol = make.protocol(mechanism)
        tracemalloc.start()
        started = time.process_time()
        population = Aggregate(protocol, collection, np.random.default_rng(0))
        for round in collection:
            (tally,) = population.report(round, np.random.default_rng(round.index))
        seconds, (_, peak) = time.process_time() - started, tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert seconds < 2
        assert peak < 200e6
        estimate, f = protocol.estimate(0, tally), collection[0].counts[0] / 10**9
        deviations = (estimate - f) / np.sqrt(protocol.variance(0, 10**9, f))
        assert np.abs(deviations).max() < 5  # of 1,000 normal deviates
        assert 0.8 < deviations.std() < 1.2
