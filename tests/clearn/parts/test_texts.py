"""The store of texts: bytes as promised, budgets kept to the byte, deletion that leaves no bit."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from math import sqrt

import pytest
import torch
from torch import Tensor

from clearn.errors import BudgetExceeded, DataError, StateError
from clearn.parts.embedded_texts import EmbeddedTexts
from clearn.parts.hashing import key
from clearn.parts.texts import TextMemory, Texts, priority
from clearn.stream import Document

CODECS = ("utf8", "zlib")


def documents(n: int, start: int = 0) -> list[Document]:
    """Texts of different lengths, some with letters of several bytes."""
    return [
        Document(f"d{i}", f"Document {i} of Côte d'Ivoire: " + "words " * (i % 5 + 1)) for i in range(start, start + n)
    ]


def store(held: Sequence[Document] = (), codec: str = "utf8", eviction: str = "reservoir") -> Texts:
    made = Texts(TextMemory(codec, eviction))  # type: ignore[arg-type]
    made.add(held)
    return made


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return list(a) == list(b) and all(a[n].dtype == b[n].dtype and torch.equal(a[n], b[n]) for n in a)


def size(held: Sequence[Document]) -> int:
    return 8 + sum(12 + len(one.text.encode()) for one in held)


def test_bytes_are_those_of_the_texts_and_12_a_document_and_8() -> None:
    held = [Document("a", "çé"), Document("b", "xyz")]
    made = store(held)
    assert made.nbytes == 8 + 2 * 12 + 4 + 3
    state = made.state()
    assert bytes(state["text"].tolist()) == "çéxyz".encode()
    assert state["lengths"].tolist() == [4, 3]
    assert state["keys"].tolist() == [key("a"), key("b")]
    assert {name: value.dtype for name, value in state.items()} == {
        "text": torch.uint8,
        "lengths": torch.int32,
        "keys": torch.int64,
        "left_out": torch.int64,
    }
    assert made.nominal_bytes == 0


def test_an_empty_store_carries_nothing() -> None:
    made = store()
    assert (made.state(), made.nbytes, len(made), made.texts(), made.find("d0")) == ({}, 0, 0, (), None)


def test_zlib_deflates_all_texts_together() -> None:
    held = documents(40)
    made = store(held, "zlib")
    together = len(zlib.compress("".join(one.text for one in held).encode(), 9))
    assert made.nbytes == 8 + 40 * 12 + together
    assert together < sum(len(zlib.compress(one.text.encode(), 9)) for one in held) / 3
    assert made.texts() == tuple(one.text for one in held)


@pytest.mark.parametrize("codec", CODECS)
def test_what_was_saved_loads_with_the_same_bits(codec: str) -> None:
    made = Texts(TextMemory(codec))  # type: ignore[arg-type]
    made.add(documents(20), room=250)
    assert made.left_out
    again = store(codec=codec)
    again.load(made.state())
    assert same(again.state(), made.state())
    assert (again.texts(), again.left_out) == (made.texts(), made.left_out)
    again.load({})
    assert again.state() == {}


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("gone", [["d3"], ["d0", "d9", "d4"], [f"d{i}" for i in range(10)], []], ids=len)
def test_dropping_leaves_the_bits_of_a_store_that_never_held_it(codec: str, gone: list[str]) -> None:
    held = documents(10)
    made = store(held, codec)
    rows = made.drop(gone)
    never = store([one for one in held if one.id not in gone], codec)
    assert same(made.state(), never.state())
    assert rows.tolist() == [i for i, one in enumerate(held) if one.id not in gone]


def test_dropping_a_document_that_was_never_read_is_refused_and_changes_nothing() -> None:
    made = store(documents(3))
    before = made.state()
    with pytest.raises(DataError, match=r"1 of 2 documents to forget are not held and 0 were left out.*'other'"):
        made.drop(["d1", "other"])
    assert same(made.state(), before)


def test_dropping_a_document_that_was_left_out_leaves_the_bits_of_a_store_that_never_met_it() -> None:
    held = [Document(f"d{i}", "x" * 10) for i in range(5)]
    made, never = store(), store()
    made.add(held, room=8 + 3 * 22)
    out = next(one for one in held if made.find(one.id) is None)
    never.add([one for one in held if one is not out], room=8 + 3 * 22)
    assert (made.left_out, never.left_out) == (2, 1)
    made.drop([out.id])
    assert same(made.state(), never.state())


@pytest.mark.parametrize("eviction", ["reservoir", "fifo"])
@pytest.mark.parametrize("codec", CODECS)
def test_the_budget_is_kept_to_the_byte(codec: str, eviction: str) -> None:
    held = documents(12)
    whole = store(held, codec, eviction).nbytes
    made = store((), codec, eviction)
    made.add(held, room=whole)
    assert (len(made), made.nbytes, made.left_out) == (12, whole, 0)
    for room in range(whole - 1, 7, -7):
        made = store((), codec, eviction)
        made.add(held, room=room)
        assert made.nbytes <= room
        assert made.left_out == 12 - len(made) > 0


@pytest.mark.parametrize("eviction", ["reservoir", "fifo"])
def test_what_stays_is_the_longest_start_of_the_ranking_that_fits(eviction: str) -> None:
    held = documents(12)
    ranking = held[::-1] if eviction == "fifo" else sorted(held, key=lambda one: priority(key(one.id), 5))
    for room in range(100, size(held), 31):
        made = store((), eviction=eviction)
        made.add(held, room=room, salt=5)
        fit = max(n for n in range(13) if size(ranking[:n]) <= room)
        assert made.texts() == tuple(one.text for one in held if one in ranking[:fit])


def test_fifo_keeps_the_newest() -> None:
    made = store((), eviction="fifo")
    room = 8 + 2 * 22
    for i in range(5):
        made.add([Document(f"d{i}", f"{i}" * 10)], room=room)
    assert made.texts() == ("3" * 10, "4" * 10)
    assert made.left_out == 3


def test_a_reservoir_holds_the_same_documents_however_the_stream_is_cut_and_ordered() -> None:
    held, room = documents(30), 600
    at_once, in_parts, backwards = store(), store(), store()
    at_once.add(held, room, salt=1)
    for start in range(0, 30, 7):
        in_parts.add(held[start : start + 7], room, salt=1)
    backwards.add(held[::-1], room, salt=1)
    assert 3 < len(at_once) < 30
    assert same(at_once.state(), in_parts.state())
    assert backwards.texts() == at_once.texts()[::-1]


def test_a_reservoir_is_an_even_sample() -> None:
    held, n, runs = [Document(f"d{i}", "x" * 10) for i in range(10)], 3, 500
    times: Counter[int] = Counter()
    for salt in range(runs):
        made = store()
        made.add(held, room=8 + n * 22, salt=salt)
        assert len(made) == n
        times.update(made.state()["keys"].tolist())
    share = n / len(held)
    for one in held:
        assert abs(times[key(one.id)] - runs * share) < 4 * sqrt(runs * share * (1 - share))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("eviction", ["reservoir", "fifo"])
def test_a_document_that_could_never_fit_keeps_no_other_out(codec: str, eviction: str) -> None:
    noise = "".join(chr(0x4E00 + (i * 7919) % 20000) for i in range(300))
    small = documents(2)
    for salt in range(4):
        made = store((), codec, eviction)
        made.add([*small, Document("large", noise)], room=200, salt=salt)
        assert made.texts() == tuple(one.text for one in small)
        assert made.left_out == 1


def test_room_for_less_than_the_count_is_refused() -> None:
    made = store()
    with pytest.raises(BudgetExceeded, match=r"leaves 7 bytes for documents.*takes 8"):
        made.add(documents(1), room=7)
    made.add(documents(1), room=8)
    assert (len(made), made.nbytes, made.left_out) == (0, 8, 1)
    made.add([], room=7)


def test_a_smaller_room_later_on_evicts_what_is_held() -> None:
    made = store(documents(10))
    made.add([], room=300)
    assert made.nbytes <= 300
    assert made.left_out == 10 - len(made) > 0


def test_the_same_document_again_changes_nothing() -> None:
    made = store(documents(4))
    before = made.state()
    assert made.add([documents(4)[2]]).tolist() == [0, 1, 2, 3]
    assert same(made.state(), before)


def test_another_text_under_the_same_id_takes_the_place_of_the_first_as_the_newest() -> None:
    made = store(documents(3))
    rows = made.add([Document("d1", "first"), Document("d1", "second")])
    assert rows.tolist() == [0, 2, 4]
    assert made.texts()[-1] == "second"
    assert made.find("d1") == "second"
    assert len(made) == 3
    assert made.left_out == 0


@pytest.mark.parametrize(("text", "message"), [("", "is empty"), (" \n", "is empty"), ("a\ud800", "not valid Unicode")])
def test_an_empty_or_broken_text_is_refused_and_changes_nothing(text: str, message: str) -> None:
    made = store(documents(2))
    before = made.state()
    with pytest.raises(DataError, match=f"document 'bad' {message}|'bad' is {message}"):
        made.add([*documents(2, 5), Document("bad", text)])
    assert same(made.state(), before)


def test_texts_are_one_tuple_until_something_changes() -> None:
    made = store(documents(3))
    first = made.texts()
    assert made.texts() is first
    made.drop(["d0"])
    assert made.texts() == first[1:]


def test_a_cleared_store_is_as_new() -> None:
    made = store()
    made.add(documents(9), room=200)
    made.clear()
    assert (made.state(), made.left_out) == ({}, 0)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("text", None, "holds"),
        ("text", torch.zeros(3), "holds"),
        ("text", torch.zeros(3, dtype=torch.uint8), "lengths add up to"),
        ("lengths", torch.tensor([1, 2, 3], dtype=torch.int64), "holds"),
        ("keys", torch.tensor([1, 1, 2]), "2 different keys"),
        ("left_out", torch.tensor(-1), "-1 left out"),
        ("other", torch.zeros(1), "holds"),
    ],
)
def test_a_damaged_state_is_refused_and_changes_nothing(name: str, value: Tensor | None, message: str) -> None:
    state = dict(store(documents(3)).state())
    state.pop(name, None)
    if value is not None:
        state[name] = value
    made = store(documents(2))
    before = made.state()
    with pytest.raises(StateError, match=message):
        made.load(state)
    assert same(made.state(), before)


@pytest.mark.parametrize(("wrote", "reads"), [("utf8", "zlib"), ("zlib", "utf8")])
def test_the_state_of_another_codec_is_refused(wrote: str, reads: str) -> None:
    with pytest.raises(StateError, match=f"cannot be read with codec '{reads}'"):
        store(codec=reads).load(store(documents(5), wrote).state())


def vectors(n: int, width: int = 4) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("index", "each"), [("int8", 4), ("float16", 8)])
def test_vectors_stay_beside_their_texts_and_in_the_budget(index: str, each: int) -> None:
    held = documents(8)
    whole = EmbeddedTexts(TextMemory(), 4, index)  # type: ignore[arg-type]
    whole.add(held, vectors(8))
    state = whole.state()
    assert sum(value.nbytes for value in state.values()) == size(held) + 8 * each
    assert state["vectors"].dtype == getattr(torch, index)
    few = EmbeddedTexts(TextMemory(), 4, index)  # type: ignore[arg-type]
    few.add(held, vectors(8), room=size(held) + 8 * each - 1)
    assert len(few) < 8
    rows = [i for i, one in enumerate(held) if few.texts.find(one.id)]
    assert torch.equal(few.state()["vectors"], state["vectors"][rows])


def test_dropping_embedded_texts_leaves_the_bits_of_a_store_that_never_held_them() -> None:
    held, beside = documents(6), vectors(6)
    made, never = (EmbeddedTexts(TextMemory(), 4, "int8") for _ in range(2))
    made.add(held, beside)
    made.drop(["d4", "d1"])
    rows = [0, 2, 3, 5]
    never.add([held[i] for i in rows], beside[rows])
    assert same(made.state(), never.state())
    made.drop([held[i].id for i in rows])
    assert made.state() == {}


def test_int8_vectors_keep_directions() -> None:
    made = EmbeddedTexts(TextMemory(), 2, "int8")
    made.add(documents(2), torch.tensor([[0.6, -0.8], [1e-3, 0.0]]))
    assert made.vectors.tolist() == [[95, -127], [127, 0]]


def test_nearest_is_by_cosine_with_ties_to_the_oldest() -> None:
    made = EmbeddedTexts(TextMemory(), 2, "float16")
    made.add(documents(4), torch.tensor([[0.0, 1.0], [2.0, 2.0], [1.0, 1.0], [1.0, 0.0]]))
    assert made.nearest(torch.tensor([[1.0, 1.0], [0.0, 1.0]]), 3) == [[1, 2, 0], [0, 1, 2]]
    assert made.nearest(torch.tensor([[1.0, 1.0]]), 9) == [[1, 2, 0, 3]]
    made.clear()
    assert made.nearest(torch.tensor([[1.0, 1.0]]), 3) == [[]]


def test_embedded_texts_load_what_they_saved_and_refuse_other_widths() -> None:
    made, again = (EmbeddedTexts(TextMemory(), 4, "int8") for _ in range(2))
    made.add(documents(5), vectors(5))
    again.load(made.state())
    assert same(again.state(), made.state())
    other = EmbeddedTexts(TextMemory(), 3, "int8")
    with pytest.raises(StateError, match=r"torch.int8 \(5, 4\), but must be torch.int8 \(5, 3\)"):
        other.load(made.state())
    with pytest.raises(StateError, match="the vectors of the stored texts"):
        other.load(store(documents(1)).state())
    assert len(other) == 0
    made.load({})
    assert made.state() == {}
