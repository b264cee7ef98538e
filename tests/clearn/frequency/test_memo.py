"""Permanent answers: one for a cell and for ever, carried in as many bits as the formulas say."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

from clearn.errors import StateError
from clearn.frequency import packing
from clearn.frequency.coins import SimulatedCoins
from clearn.frequency.memo import DOMAIN, Memo, PrfMemo, TableMemo
from clearn.frequency.packing import pack, unpack

K, N = 5, 300
TAG = b"protocol"
NONE = np.empty((N, 0), np.uint8)  # what users of these mechanisms disclose


def coins(seed: int = 0) -> SimulatedCoins:
    return SimulatedCoins(np.random.default_rng(seed))


def memo_of(kind: str, *mechanisms: Any, n: int = N, tag: bytes = TAG, seed: int = 1) -> Memo:
    members = [np.arange(n)] * len(mechanisms)
    if kind == "table":
        return TableMemo(mechanisms, members, n)
    keys = np.random.default_rng(seed).integers(0, 256, (n, 32), np.uint8)
    return PrfMemo(mechanisms, members, n, keys, tag)


@pytest.mark.parametrize("kind", ["table", "prf"])
@pytest.mark.parametrize("family", ["unary", "symbol"])
def test_a_cell_met_again_has_the_memo_it_had(make: Any, kind: str, family: str) -> None:
    memo = memo_of(kind, getattr(make, family)(K).rounded(32))
    a, b = np.random.default_rng(3).integers(0, K, (2, N))
    source = coins()
    first, between, again = (memo.memos(0, cells, NONE, source) for cells in (a, b, a))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, between)
    assert np.array_equal(memo.memos(0, b, NONE, source), between)


def test_table_equals_a_dictionary_filled_user_by_user(make: Any) -> None:
    mechanism = make.unary(K).rounded(32)
    memo, source, plain, draws = memo_of("table", mechanism), coins(7), {}, coins(7)
    for cells in np.random.default_rng(3).integers(0, K, (6, N)):
        found = unpack(mechanism, memo.memos(0, cells, NONE, source))
        for user, cell in enumerate(cells.tolist()):
            if (user, cell) not in plain:
                plain[user, cell] = mechanism.memoise(np.array([cell]), NONE[:1], draws)[0]
        assert np.array_equal(found, [plain[user, cell] for user, cell in enumerate(cells.tolist())])


def test_a_table_draws_nothing_for_cells_it_knows(make: Any) -> None:
    memo, source = memo_of("table", make.symbol(K).rounded(32)), coins()
    cells = np.full(N, 2)
    memo.memos(0, cells, NONE, source)
    before = source.rng.bit_generator.state
    memo.memos(0, cells, NONE, source)
    assert source.rng.bit_generator.state == before


@pytest.mark.parametrize("family", ["unary", "symbol"])
def test_buffers_weigh_what_the_formulas_say(make: Any, family: str) -> None:
    mechanism = getattr(make, family)(K).rounded(32)
    memo, values = memo_of("table", mechanism), np.random.default_rng(3).integers(0, K, (4, N))
    for cells in values:
        memo.memos(0, cells, NONE, coins())
    met = np.array([len(set(column)) for column in values.T.tolist()])
    assert met.min() < met.max()
    assert np.array_equal(memo.bits(), [mechanism.state_bits(int(m)) for m in met])
    state = memo.state()
    assert state["client/known.0"].nbytes == -(-N * K // 8)
    assert state["client/memo.0"].nbytes == -(-int(met.sum()) * mechanism.memo_bits // 8)
    assert memo.bits().sum() <= 8 * sum(value.nbytes for value in state.values()) <= memo.bits().sum() + 14


def test_a_key_weighs_256_bits_whatever_was_met(make: Any) -> None:
    memo = memo_of("prf", make.unary(K).rounded(32), make.unary(K).rounded(32))
    memo.memos(0, np.zeros(N, np.int64), NONE, coins())
    assert memo.bits().tolist() == [256] * N
    assert {name: value.nbytes for name, value in memo.state().items()} == {"client/key": N * 32}


@pytest.mark.parametrize("kind", ["table", "prf"])
def test_a_loaded_memo_goes_on_bit_for_bit(make: Any, kind: str) -> None:
    mechanisms = make.unary(K).rounded(32), make.symbol(7).rounded(32)
    memo, other = memo_of(kind, *mechanisms), memo_of(kind, *mechanisms, seed=2)
    rng = np.random.default_rng(3)
    for j, m in enumerate(mechanisms):
        memo.memos(j, rng.integers(0, m.k, N), NONE, coins())
    other.load(memo.state())
    for j, m in enumerate(mechanisms):
        cells = rng.integers(0, m.k, N)
        assert np.array_equal(memo.memos(j, cells, NONE, coins(9)), other.memos(j, cells, NONE, coins(9)))
    assert {name: value.tobytes() for name, value in memo.state().items()} == {
        name: value.tobytes() for name, value in other.state().items()
    }


def test_only_attributes_with_a_permanent_step_are_kept(make: Any) -> None:
    memo = memo_of("table", make.one_shot(make.unary(K)), make.symbol(K))
    assert set(memo.state()) == {"client/known.1", "client/memo.1"}
    assert memo.bits().tolist() == [K] * N


def test_a_keyed_memo_is_the_step_fed_with_shake_of_key_tag_attribute_and_cell(make: Any) -> None:
    mechanism = make.unary(K).rounded(32)
    memo = memo_of("prf", make.unary(K).rounded(32), mechanism, n=40)
    assert isinstance(memo, PrfMemo)
    cells = np.arange(40) % K
    found = unpack(mechanism, memo.memos(1, cells, NONE, coins()))
    p, q = mechanism.permanent.thresholds
    for user, cell in enumerate(cells.tolist()):
        message = memo.keys[user].tobytes() + DOMAIN + TAG + bytes([1, 0, 0, 0]) + bytes([cell, 0, 0, 0, 0, 0, 0, 0])
        words = np.frombuffer(hashlib.shake_256(message).digest(4 * K), "<u4")
        assert found[user].tolist() == [int(words[i]) < (p if i == cell else q) for i in range(K)]


def test_keyed_memos_do_not_depend_on_blocks_or_coins(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    memo, cells = memo_of("prf", make.symbol(K).rounded(32)), np.arange(N) % K
    whole = memo.memos(0, cells, NONE, coins(1))
    monkeypatch.setattr(packing, "BLOCK", 16)
    assert np.array_equal(memo.memos(0, cells, NONE, coins(2)), whole)


@pytest.mark.parametrize("family", ["unary", "symbol"])
def test_keyed_memos_have_the_rates_of_the_step(make: Any, family: str) -> None:
    n, mechanism = 4000, getattr(make, family)(K).rounded(32)
    memo = memo_of("prf", mechanism, n=n)
    found = unpack(mechanism, memo.memos(0, np.full(n, 1), np.empty((n, 0)), coins()))
    share = mechanism.support(found, np.empty((n, 0))) / n
    rates = mechanism.permanent
    expected = np.where(np.arange(K) == 1, rates.p, rates.q)
    assert np.all(np.abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / n))


def test_users_attributes_cells_and_protocols_have_memos_of_their_own(make: Any) -> None:
    mechanism = make.unary(64).rounded(32)
    memo, foreign = memo_of("prf", mechanism, mechanism), memo_of("prf", mechanism, tag=b"another!")
    zero = np.zeros(N, np.int64)
    rows = [
        memo.memos(0, zero, NONE, coins()),
        memo.memos(1, zero, NONE, coins()),
        foreign.memos(0, zero, NONE, coins()),
    ]
    rows.append(memo.memos(0, zero + 1, NONE, coins()))
    rows.append(np.roll(rows[0], 1, axis=0))
    q = mechanism.permanent.q
    for i, first in enumerate(rows):
        for second in rows[:i]:
            both = (unpack(mechanism, first) & unpack(mechanism, second))[:, 2:]  # positions of neither cell
            assert abs(both.mean() - q * q) < 4 * np.sqrt(q * q * (1 - q * q) / both.size)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("client/known.0"), "no array 'client/known.0'"),
        (lambda state: state.update({"client/memo.0": state["client/memo.0"][:-1]}), "'client/memo.0' is uint8 of"),
        (lambda state: state.update({"client/known.0": state["client/known.0"].astype(np.int64)}), "is int64 of"),
    ],
)
def test_a_foreign_state_is_refused(make: Any, change: Any, message: str) -> None:
    memo = memo_of("table", make.unary(K).rounded(32))
    memo.memos(0, np.zeros(N, np.int64), NONE, coins())
    state = memo.state()
    change(state)
    with pytest.raises(StateError, match=message):
        memo_of("table", make.unary(K)).load(state)


def test_packed_memos_are_those_of_the_mechanism(make: Any) -> None:
    mechanism = make.unary(K).rounded(32)
    memo = memo_of("table", mechanism)
    cells = np.arange(N) % K
    drawn = mechanism.memoise(cells, NONE, coins(5))
    assert np.array_equal(memo.memos(0, cells, NONE, coins(5)), pack(mechanism, drawn))
