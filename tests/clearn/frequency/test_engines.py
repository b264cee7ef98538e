"""Which engine is chosen, and that every refusal says why and what to write."""

from __future__ import annotations

import numpy as np
import pytest

from clearn.errors import ConfigError
from clearn.frequency import Rates
from clearn.frequency.bloom import Bloom
from clearn.frequency.buckets import Buckets
from clearn.frequency.engines import choose, exactness
from clearn.frequency.hadamard import Hadamard
from clearn.frequency.subset import Subset
from clearn.streams.collections import synthetic
from clearn.streams.values import Changing, Counted, Static


def static(n=1000, k=3, rounds=4, d=1):
    return Static(np.zeros((n, d), int), [k] * d, rounds=rounds)


def few_buckets():
    return Buckets(3, 3, 2, Rates.of(0.75, 0.25), expected=False)


@pytest.mark.parametrize(("n", "engine"), [(125, "per_user"), (126, "aggregate")])
def test_rule_for_static_users(make, n, engine):
    """One group of all rounds: 1 + 4 draws against n 4 / 100."""
    found, why = choose(make.protocol(make.unary(3)), static(n))
    assert found == engine
    assert f"{n * 4:,} single bits" in why and "5 binomial draws" in why


@pytest.mark.parametrize(("n", "engine"), [(350, "per_user"), (352, "aggregate")])
def test_rule_for_users_who_change(make, n, engine):
    """Half go from 0 to 1, half stay: rounds {1}, {2} and {1, 2} take 2 + 2 + 3 draws, against n 2 / 100."""
    values = np.array([[0, 1], [0, 0]]).repeat(n // 2, axis=0)
    found, why = choose(make.protocol(make.unary(3)), Changing(values, [3]))
    assert found == engine
    assert "7 binomial draws" in why


def test_rule_for_several_attributes(make):
    """Each attribute has its draws, but a user who answers one takes bits for one."""
    kinds = [make.unary(3)] * 4
    asked_all, asked_one = make.protocol(*kinds), make.protocol(*kinds, asks="one")
    assert choose(asked_all, static(126, d=4))[0] == "aggregate"
    assert choose(asked_one, static(500, d=4))[0] == "per_user"  # 4 x 5 draws, 500 x 4 / 100
    assert choose(asked_one, static(501, d=4))[0] == "aggregate"


def test_paths_that_all_differ_are_simulated_one_by_one(make):
    found, why = choose(make.protocol(make.unary(50)), synthetic(2000, [50], 40, change=0.5))
    assert found == "per_user"
    assert "paths differ" in why
    fresh = make.protocol(make.one_shot(make.unary(50)))  # nothing is kept, so paths do not matter
    assert choose(fresh, synthetic(2000, [50], 40, change=0.5))[0] == "aggregate"


def test_what_is_asked_for_is_taken_where_it_is_right(make):
    protocol = make.protocol(make.symbol(3))
    assert choose(protocol, static(10), "aggregate") == ("aggregate", "asked for")
    assert choose(protocol, static(10**6), "per_user") == ("per_user", "asked for")


@pytest.mark.parametrize("kind", ["hashed", "buckets"])
def test_an_engine_that_would_be_wrong_is_not_chosen_and_refused(make, kind):
    moving = synthetic(10_000, [3], 2, change=0.5)
    mechanism = make.hashed(3, 2) if kind == "hashed" else few_buckets()
    reason = {"hashed": "values change, and with Hashed", "buckets": "no law is known of the counts of Buckets"}[kind]
    protocol = make.protocol(mechanism)
    found, why = choose(protocol, moving)
    assert found == "per_user" and reason in why
    with pytest.raises(ConfigError, match=f"engine=aggregate would be wrong here: {reason}.*write engine: per_user"):
        choose(protocol, moving, "aggregate")


def test_counts_alone_leave_one_engine_or_none(make):
    counted = Counted([np.array([10, 20, 30])], [3], rounds=2)
    assert choose(make.protocol(make.hashed(3, 2)), counted) == ("aggregate", "only counts are known")
    with pytest.raises(ConfigError, match=r"engine=per_user needs the value of every user.*write engine: aggregate"):
        choose(make.protocol(make.unary(3)), counted, "per_user")
    with pytest.raises(ConfigError, match=r"no engine can simulate this: no law is known.*give values user by user"):
        choose(make.protocol(few_buckets()), counted)
    with pytest.raises(ConfigError, match=r"give values user by user \(besides, no law is known"):
        choose(make.protocol(few_buckets()), counted, "per_user")


def test_linked_decoding_needs_values_that_stay_and_evidence_that_adds_up(make):
    unary, symbol = make.protocol(make.unary(3)), make.protocol(make.symbol(3))
    assert choose(unary, static(10**4), decode="linked")[0] == "per_user"
    found, why = choose(symbol, static(10**4), decode="linked")
    assert found == "per_user" and "each user's own reports" in why
    with pytest.raises(ConfigError, match=r"engine=aggregate would be wrong here: decode=linked counts"):
        choose(symbol, static(10**4), "aggregate", decode="linked")
    with pytest.raises(ConfigError, match=r"no engine can simulate this: decode=linked counts"):
        choose(symbol, Counted([np.array([1, 2, 3])], [3]), decode="linked")
    with pytest.raises(ConfigError, match=r"here values change: write decode: rounds"):
        choose(unary, synthetic(100, [3], 2, change=0.5), decode="linked")
    with pytest.raises(ConfigError, match=r"decode=linked does not suit attribute 0: Buckets sends its memo as it is"):
        choose(make.protocol(Buckets(3, 3, 3, Rates.of(0.7, 0.3), expected=False)), static(), decode="linked")


def test_unknown_words_list_the_known_ones(make):
    with pytest.raises(ConfigError, match="engine='fast' is no engine: choose one of auto, aggregate, per_user"):
        choose(make.protocol(make.unary(3)), static(), "fast")
    with pytest.raises(ConfigError, match="decode='all' is no way to decode: choose one of rounds, linked"):
        choose(make.protocol(make.unary(3)), static(), decode="all")


def test_exactness_is_that_of_the_weakest_attribute(make):
    kinds = [make.unary(3), Bloom(3, 4, 2, 3, Rates.of(0.8, 0.2), None), Hadamard(3, Rates.of(0.7, 0.5))]
    joint, moments = make.protocol(*kinds), make.protocol(make.unary(3), make.hashed(3, 2))
    marginals = make.protocol(make.hashed(3, 2), Subset(3, 1, Rates.of(0.8, 0.1)))
    assert exactness(joint, static(d=3), "aggregate") == "joint"
    assert exactness(moments, static(d=2), "aggregate") == "moments"
    assert exactness(moments, static(d=2, rounds=1), "aggregate") == "joint"  # one report a hash
    assert exactness(marginals, static(d=2), "aggregate") == "marginals"
    assert exactness(marginals, static(d=2), "per_user") == "joint"
