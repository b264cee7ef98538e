"""The bank of memories: what it weighs, who gives way, and that what is taken out is gone."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from clearn.errors import BudgetExceeded, ConfigError, DataError, StateError
from clearn.parts.bank import FIXED, MERGED, Bank
from clearn.parts.hashing import fingerprint
from clearn.parts.vectors import unit
from clearn.state import decode, encode, freeze, thaw

torch.set_num_threads(1)

M, D = 3, 4
FORMS = ["float32", "bfloat16", "float16", "int8"]


def memories(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, M, D, generator=torch.Generator().manual_seed(seed))


def bank(n: int = 0, **options: Any) -> Bank:
    made = Bank((M, D), **options)
    return filled(made, range(n))


def filled(made: Bank, ids: Any, **how: Any) -> Bank:
    ids = list(ids)
    if ids:
        vectors = torch.stack([memories(1, i)[0] for i in ids])
        made.add(ids, vectors, unit(vectors.mean(1)) if made.key_width else None, **how)
    return made


def same(a: Bank, b: Bank) -> bool:
    ours, theirs = a.state(), b.state()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def weight(made: Bank) -> int:
    return sum(value.numel() * value.element_size() for value in made.state().values())


@pytest.mark.parametrize("width", [0, D])
@pytest.mark.parametrize(
    ("form", "a_row"),
    [("float32", 4 * M * D), ("bfloat16", 2 * M * D), ("float16", 2 * M * D), ("int8", M * (D + 2))],
)
def test_bytes_are_as_the_header_says(form: Any, a_row: int, width: int) -> None:
    made = bank(5, dtype=form, key_width=width)
    assert weight(made) == made.weigh(5) == 5 * (a_row + 2 * width + 8) + 40
    assert len(encode(freeze({f"memory/{k}": v for k, v in made.state().items()}))) > made.weigh(5)
    assert weight(bank(dtype=form, key_width=width)) == FIXED == 40
    assert made.nominal_bytes == 0


def test_bytes_of_a_bank_that_merges_and_of_one_of_codes() -> None:
    assert weight(bank(5, evict="merge")) == bank(evict="merge").weigh(5) == 5 * (4 * M * D + 8 + 4) + 40
    codes = Bank((M,), "uint16")
    codes.add([1, 2], torch.tensor([[0, 1, 65535], [7, 8, 9]]))
    assert weight(codes) == codes.weigh(2) == 2 * (2 * M + 8) + 40
    assert codes.vectors().tolist() == [[0, 1, 65535], [7, 8, 9]]


@pytest.mark.parametrize("form", FORMS)
def test_what_is_read_is_what_was_put_in(form: Any) -> None:
    made, given = bank(6, dtype=form), torch.stack([memories(1, i)[0] for i in range(6)])
    error = (made.vectors() - given).abs()
    steps = {"float32": 0.0, "bfloat16": 2**-8, "float16": 2**-11}
    if form == "int8":  # half a step, and what float16 rounds the step by, over at most 127 of them
        largest = given.abs().amax(-1, keepdim=True)
        assert bool((error <= largest / 127 * 0.5 + largest * 2**-11 + 1e-6).all())
    else:
        assert bool((error <= given.abs() * steps[form]).all())
    picked = made.vectors(torch.tensor([[4, 0], [1, 1]]))
    assert picked.shape == (2, 2, M, D)
    assert torch.equal(picked[0, 1], made.vectors()[0])


def test_numbers_beyond_float16_are_cut_and_not_infinite() -> None:
    made = Bank((1, 2), "float16")
    made.add([1], torch.tensor([[[1e6, -1e6]]]))
    assert made.vectors().tolist() == [[[65504.0, -65504.0]]]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("evict", ["reservoir", "fifo", "merge"])
def test_a_state_that_was_written_and_read_is_the_bank(form: Any, evict: Any) -> None:
    rng = torch.Generator().manual_seed(0)
    made = filled(bank(dtype=form, key_width=D, evict=evict), range(7), capacity=4, rng=rng)
    made.version = bytes(range(32))
    blob = encode(freeze({f"memory/{k}": v for k, v in made.state().items()}))
    back = bank(dtype=form, key_width=D, evict=evict)
    back.load({k.removeprefix("memory/"): torch.as_tensor(v) for k, v in thaw(decode(blob)).items()})
    assert same(made, back)
    assert torch.equal(made.vectors(), back.vectors())
    assert (len(back), back.met) == (4, 7)
    again = torch.Generator().manual_seed(9)
    more = torch.Generator().manual_seed(9)
    assert same(filled(made, range(7, 12), capacity=4, rng=again), filled(back, range(7, 12), capacity=4, rng=more))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("met"), "no entry 'met'"),
        (lambda s: s.update(extra=torch.zeros(1)), "an unknown entry 'extra'"),
        (
            lambda s: s.update(rows=s["rows"][1:]),
            r"rows is torch.float32 \(2, 3, 4\) and not",
        ),
        (lambda s: s.update(rows=s["rows"].half()), "rows is torch.float16"),
        (lambda s: s.update(met=torch.tensor(2)), "met=2 is less than its 3 rows"),
        (lambda s: s.update(ids=torch.tensor(3)), "ids is torch.int64"),
    ],
)
def test_a_state_of_something_else_is_refused_and_changes_nothing(change: Any, said: str) -> None:
    made, before = bank(3), bank(3)
    state = dict(bank(3).state())
    change(state)
    with pytest.raises(StateError, match=said):
        made.load(state)
    assert same(made, before)


def test_rows_of_another_version_are_refused() -> None:
    layer = torch.nn.Linear(2, 2)
    ours = fingerprint(layer)
    assert len(ours) == 32
    made = bank()
    made.stamp(ours)
    filled(made, [1])
    made.check(ours)
    with torch.no_grad():
        layer.bias[0] += 1
    with pytest.raises(StateError, match=f"made by parameters of SHA-256 {ours.hex()[:12]}"):
        made.check(fingerprint(layer))
    with pytest.raises(StateError, match="clear it"):
        made.stamp(fingerprint(layer))
    made.clear()
    made.stamp(fingerprint(layer))
    made.check(ours)  # an empty bank fits everyone


def test_the_same_row_of_a_document_is_kept_once_if_so_wished() -> None:
    made = filled(filled(bank(), [1, 2, 1], dedupe=True), [2, 3], dedupe=True)
    assert made.ids.tolist() == [1, 2, 3]
    assert made.met == 3
    assert filled(filled(bank(), [1, 2, 1]), [2, 3]).ids.tolist() == [1, 2, 1, 2, 3]
    made.add([1], memories(1, 77), dedupe=True)  # another text under the same id
    assert made.ids.tolist() == [1, 2, 3, 1]
    made.add([9], memories(1, 1), dedupe=True)  # the same text under another id: it can be forgotten by itself
    assert made.ids.tolist() == [1, 2, 3, 1, 9]
    assert made.drop([1]) == 2
    assert made.ids.tolist() == [2, 3, 9]


@pytest.mark.parametrize("form", FORMS)
def test_what_was_dropped_was_never_there(form: Any) -> None:
    made, never = bank(6, dtype=form, key_width=D), filled(bank(dtype=form, key_width=D), [0, 2, 3, 5])
    assert made.drop([4, 1]) == 2
    assert same(made, never)
    for unknown in ([4], [0, 99]):
        with pytest.raises(DataError, match="never read, or are forgotten already"):
            made.drop(unknown)
    assert same(made, never)
    assert made.drop([0, 2, 3, 5]) == 4
    assert same(made, bank(dtype=form, key_width=D))


def test_the_oldest_goes_first_in_first_out() -> None:
    whole = filled(bank(evict="fifo"), range(9), capacity=4)
    assert whole.ids.tolist() == [5, 6, 7, 8]
    parted = bank(evict="fifo")
    for i in range(9):
        filled(parted, [i], capacity=4)
    assert same(whole, parted)
    assert filled(whole, [9], capacity=2).ids.tolist() == [8, 9]
    assert filled(whole, [10], capacity=0).ids.tolist() == []


def test_a_reservoir_keeps_everyone_alike_and_in_order() -> None:
    n, capacity, runs = 12, 4, 1500
    held: Counter[int] = Counter()
    for seed in range(runs):
        made, rng = Bank((1,), "uint8"), torch.Generator().manual_seed(seed)
        made.add(range(5), torch.arange(5)[:, None], capacity=capacity, rng=rng)
        made.add(range(5, n), torch.arange(5, n)[:, None], capacity=capacity, rng=rng)
        assert made.ids.tolist() == sorted(made.ids.tolist())
        assert (len(made), made.met) == (capacity, n)
        held.update(made.ids.tolist())
    share = capacity / n
    four_errors = 4 * (runs * share * (1 - share)) ** 0.5
    assert all(abs(held[i] - runs * share) < four_errors for i in range(n)), held


def test_a_reservoir_is_the_same_however_documents_come() -> None:
    whole = filled(bank(), range(20), capacity=5, rng=torch.Generator().manual_seed(3))
    parted, rng = bank(), torch.Generator().manual_seed(3)
    for i in range(20):
        filled(parted, [i], capacity=5, rng=rng)
    assert same(whole, parted)
    assert not same(whole, filled(bank(), range(20), capacity=5, rng=torch.Generator().manual_seed(4)))


def test_held_rows_give_way_to_a_smaller_capacity() -> None:
    for evict in ("reservoir", "fifo", "merge"):
        made = filled(bank(evict=evict), range(8))  # type: ignore[arg-type]
        made.add([], torch.empty(0, M, D), capacity=3, rng=torch.Generator().manual_seed(0))
        assert (len(made), made.met) == (3, 8), evict


@pytest.mark.parametrize("width", [0, 2])
def test_the_two_closest_become_their_mean(width: int) -> None:
    made = Bank((1, 2), key_width=width, evict="merge")
    rows = torch.tensor([[[4.0, 0.0]], [[0.0, 2.0]], [[2.0, 0.4]], [[0.1, 1.0]]])
    keys = unit(rows[:, 0]) if width else None
    for i in range(4):
        made.add([i], rows[i : i + 1], None if keys is None else keys[i : i + 1], capacity=3)
    assert made.ids.tolist() == [0, MERGED, 2]  # 1 and 3 are closer than 0 and 2
    torch.testing.assert_close(made.vectors(), torch.stack([rows[0], (rows[1] + rows[3]) / 2, rows[2]]))
    assert made.counts.tolist() == [1, 2, 1]
    made.add([4], torch.tensor([[[0.0, 4.0]]]), None if keys is None else torch.tensor([[0.0, 1.0]]), capacity=3)
    torch.testing.assert_close(made.vectors()[1], torch.tensor([[0.1 / 3, 7 / 3]]))  # the mean of three, not of halves
    assert (made.counts.tolist(), made.met) == ([1, 3, 1], 5)
    if width:
        torch.testing.assert_close(made.matching().norm(dim=1), torch.ones(3), atol=2e-3, rtol=0)


def test_a_mean_cannot_be_taken_apart() -> None:
    made = filled(bank(key_width=D, evict="merge"), range(5), capacity=3)
    alone = [one for one in made.ids.tolist() if one != MERGED]
    gone = next(i for i in range(5) if i not in alone)
    before = made.state()
    with pytest.raises(ConfigError, match="cannot be taken apart: take evict: reservoir"):
        made.drop([alone[0], gone])
    assert all(torch.equal(before[name], value) for name, value in made.state().items())
    assert made.drop([alone[0]]) == 1


def test_room_in_bytes_is_room_for_rows() -> None:
    made = bank(dtype="bfloat16", key_width=D)
    assert made.row_bytes == 2 * M * D + 2 * D + 8
    assert made.fits(None) is None
    assert made.fits(None, 7) == 7
    assert made.fits(FIXED + 5 * made.row_bytes) == 5
    assert made.fits(FIXED + 5 * made.row_bytes - 1) == 4
    assert made.fits(FIXED + 5 * made.row_bytes, 3) == 3
    assert made.fits(FIXED) == 0
    with pytest.raises(BudgetExceeded, match="leaves 39 bytes"):
        made.fits(39)
    full = filled(made, range(9), capacity=made.fits(300), rng=torch.Generator().manual_seed(0))
    assert weight(full) <= 300 < weight(full) + made.row_bytes


def test_codes_have_no_mean() -> None:
    with pytest.raises(ConfigError, match="codes have no mean"):
        Bank((M,), "uint16", evict="merge")
