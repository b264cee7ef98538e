"""A memory of codes: its bytes, what is taken out of it, and that it comes back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from clearn.errors import ConfigError, DataError, StateError
from clearn.parts.code_memory import CodeMemory, Keep, bits, packed, unpacked
from clearn.state import decode, encode, freeze, thaw

torch.set_num_threads(1)

VERSION = bytes(range(32))


@pytest.mark.parametrize("codes", [2, 3, 256, 257, 512, 65536])
def test_packing_is_exact(codes: int) -> None:
    width, m = bits(codes), 5
    drawn = torch.randint(codes, (7, m), generator=torch.Generator().manual_seed(0))
    drawn[0] = codes - 1
    rows = packed(drawn, width)
    assert rows.dtype == torch.uint8
    assert rows.shape == (7, -(-m * width // 8))
    assert torch.equal(unpacked(rows, width, m), drawn)


K, T = 12, 3
KEEPS = [Keep(), Keep(index=False), Keep(codes=True), Keep(codes=True, packed=True)]


def drawn(n: int, g: int = 1, seed: int = 0) -> Tensor:
    return torch.randint(K, (n, T, g), generator=torch.Generator().manual_seed(seed))


def memory(keep: Keep, ids: list[int] | None = None, g: int = 1) -> CodeMemory:
    made = CodeMemory(K, T, g, keep)
    if ids:
        made.stamp(VERSION)
        made.add(ids, drawn(50, g)[ids])
    return made


def weight(made: CodeMemory) -> int:
    return sum(value.numel() * value.element_size() for value in made.state().values())


def same(a: CodeMemory, b: CodeMemory) -> bool:
    ours, theirs = a.state(), b.state()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("keep", "g", "row"),
    [
        (Keep(index=False), 1, 0),
        (Keep(), 1, 8),
        (Keep(codes=True), 1, 8 + 2 * T),
        (Keep(codes=True, packed=True), 1, 8 + 2),  # 3 codes of 4 bits
        (Keep(codes=True), 4, 8 + 4 * T),
        (Keep(codes=True, packed=True), 4, 8 + 6),
    ],
)
def test_a_memory_s_bytes_are_as_the_header_says(keep: Keep, g: int, row: int) -> None:
    fixed = 32 + (8 if keep.index else 0) + (4 * K if g == 1 else 0)
    assert weight(memory(keep, g=g)) == fixed
    assert weight(memory(keep, [1, 2, 3, 4, 5], g)) == fixed + 5 * row


def test_codes_take_two_bytes_each_in_a_large_codebook() -> None:
    made = CodeMemory(512, 24, 1, Keep(codes=True))
    made.add([1, 2], torch.full((2, 24, 1), 511))
    assert made.state()["rows"].nbytes == 2 * 24 * 2
    assert made.state()["counts"].nbytes == 4 * 512
    assert CodeMemory(512, 24, 1, Keep(codes=True, packed=True)).bank.row_bytes == 8 + 27  # 24 x 9 bits


@pytest.mark.parametrize("keep", KEEPS, ids=str)
@pytest.mark.parametrize("g", [1, 2])
def test_taking_a_document_out_is_as_if_it_had_never_come(keep: Keep, g: int) -> None:
    if g > 1 and not keep.codes:
        with pytest.raises(ConfigError, match=r"groups=2 needs keep\.codes: true"):
            memory(keep, g=g)
        return
    made = memory(keep, [1, 2, 3, 4], g)
    gone = [2, 4]
    made.remove(gone, None if keep.codes else drawn(50, g)[gone])
    assert same(made, memory(keep, [1, 3], g))
    assert len(made) == 2
    made.remove([1, 3], None if keep.codes else drawn(50, g)[[1, 3]])
    assert same(made, memory(keep, g=g))  # the version too


@pytest.mark.parametrize("keep", KEEPS, ids=str)
def test_counts_are_those_of_all_codes(keep: Keep) -> None:
    made = memory(keep, [1, 2, 3])
    made.add([4], drawn(50)[[4]])
    expected = torch.bincount(drawn(50)[[1, 2, 3, 4]].flatten(), minlength=K)
    assert torch.equal(made.counts.long(), expected)
    assert made.counts.dtype == torch.int32
    if keep.codes:
        assert torch.equal(made.codes(), drawn(50)[[1, 2, 3, 4]])


@pytest.mark.parametrize("keep", KEEPS, ids=str)
def test_a_document_that_comes_twice_counts_once(keep: Keep) -> None:
    made = memory(keep, [1, 1, 2])
    assert same(made, memory(keep, [1, 2]))
    made.add([2, 1], drawn(50)[[2, 1]])
    assert same(made, memory(keep, [1, 2])) is keep.index  # without an index an earlier task is not remembered


@pytest.mark.parametrize("keep", KEEPS, ids=str)
def test_what_was_never_read_cannot_be_forgotten(keep: Keep) -> None:
    made, never = memory(keep, [1, 2]), torch.full((1, T, 1), K - 1)
    before = {name: value.clone() for name, value in made.state().items()}
    error, said = (DataError, "1 of 1 documents to be forgotten") if keep.index else (StateError, "less than 0 times")
    with pytest.raises(error, match=said):
        made.remove([9], None if keep.codes else never)
    assert all(torch.equal(value, before[name]) for name, value in made.state().items())


def test_a_negative_count_is_refused() -> None:
    made = memory(Keep(), [1])
    other = (drawn(50)[[1]] + 1) % K
    with pytest.raises(StateError, match="would be counted less than 0 times"):
        made.remove([1], other)
    assert same(made, memory(Keep(), [1]))


@pytest.mark.parametrize("keep", KEEPS, ids=str)
def test_a_memory_comes_back_from_its_bytes(keep: Keep) -> None:
    for ids in ([], [1, 2, 3]):
        made, again = memory(keep, ids), memory(keep)
        written = encode(freeze({f"memory/{name}": value for name, value in made.state().items()}))
        again.load({name.removeprefix("memory/"): torch.as_tensor(v) for name, v in thaw(decode(written)).items()})
        assert same(made, again)
        assert len(made) == len(again) == len(ids)
    again.add([7], drawn(50)[[7]])
    assert same(again, memory(keep, [1, 2, 3, 7]))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("counts", torch.zeros(K, dtype=torch.int64), "must be int32"),
        ("counts", torch.full((K,), -1, dtype=torch.int32), "of 0 or more"),
        ("counts", None, "counts are None"),
        ("ids", torch.zeros(2, 2), "ids is torch.float32"),
        ("more", torch.zeros(1), "unknown entry 'more'"),
    ],
)
def test_a_foreign_state_is_refused_and_changes_nothing(name: str, value: Tensor | None, said: str) -> None:
    made = memory(Keep(), [1, 2])
    state = made.state() | ({} if value is None else {name: value})
    if value is None:
        del state[name]
    with pytest.raises(StateError, match=said):
        made.load(state)
    assert same(made, memory(Keep(), [1, 2]))


@pytest.mark.parametrize("keep", KEEPS, ids=str)
def test_codes_of_another_codebook_are_refused(keep: Keep) -> None:
    made = memory(keep, [1, 2])
    made.check(VERSION)
    for ask in (made.check, made.stamp):
        with pytest.raises(
            StateError, match="the codes of 2 documents were made by parameters of SHA-256 000102030405"
        ):
            ask(bytes(32))
    made.clear()
    made.check(bytes(32))
    assert same(made, memory(keep))


def test_options_that_contradict_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"keep.index=False must be true where keep.codes is"):
        Keep(codes=True, index=False)
    with pytest.raises(ConfigError, match=r"keep.packed=True must be false"):
        Keep(packed=True)
