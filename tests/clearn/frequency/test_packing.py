"""Bits side by side: nothing between them, nothing lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearn.frequency import packing
from clearn.frequency.packing import bitmap, blocks, loosen, pack, positions, tighten, unpack

quick = settings(max_examples=60, deadline=None, database=None)


@quick
@given(st.integers(0, 70), st.integers(1, 19), st.sampled_from([1, 16, 2**17]), st.integers(0, 2**32))
def test_rows_come_back_from_a_run_without_gaps(count: int, bits: int, block: int, seed: int) -> None:
    flat = np.random.default_rng(seed).integers(0, 2, (count, bits)).astype(bool)
    rows = np.packbits(flat, axis=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "BLOCK", block)
        tight = tighten(rows, bits)
        assert np.array_equal(tight, np.packbits(flat))  # one padding, at the very end
        assert tight.nbytes == -(-count * bits // 8)
        assert np.array_equal(loosen(tight, count, bits), rows)


@quick
@given(st.sets(st.integers(0, 99)), st.integers(100, 130))
def test_positions_come_back_from_a_bitmap(keys: set[int], size: int) -> None:
    ordered = np.array(sorted(keys), np.int64)
    found = bitmap(ordered, size)
    assert found.nbytes == -(-size // 8)
    assert np.flatnonzero(np.unpackbits(found)).tolist() == sorted(keys)
    assert np.array_equal(positions(found), ordered)


def test_first_bit_is_the_high_bit() -> None:
    assert bitmap(np.array([0, 9]), 10).tolist() == [0x80, 0x40]


@pytest.mark.parametrize("kind", ["unary", "symbol"])
def test_memos_come_back_from_rows(make: Any, kind: str) -> None:
    mechanism = getattr(make, kind)(11)
    memos = mechanism.signal(np.arange(11), np.empty((11, 0)))
    rows = pack(mechanism, memos)
    assert rows.shape == (11, -(-mechanism.memo_bits // 8))
    assert np.array_equal(unpack(mechanism, rows), memos)


def test_blocks_cover_every_user_once_and_hold_so_many_words() -> None:
    found = list(blocks(100_000, 37))
    assert [i for block in found for i in range(block.start, block.stop)] == list(range(100_000))
    assert max(block.stop - block.start for block in found) * 37 <= packing.BLOCK
    assert list(blocks(2, 10**9)) == [slice(0, 1), slice(1, 2)]
    assert list(blocks(0, 3)) == []
