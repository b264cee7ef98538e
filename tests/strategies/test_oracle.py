"""The oracle reads the right document, whatever others are held; without it the question stands alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from clearn.context import Context
from clearn.errors import DataError
from clearn.ledger import Budget, account
from clearn.parts.texts import TextMemory
from clearn.recipe import MetaRecipe
from clearn.state import freeze
from clearn.stream import Document, Query, Question, Split, Upstream
from strategies.oracle import Oracle

torch.set_num_threads(1)

THINGS = ("apple", "pear", "plum", "cherry")
DOCUMENTS = tuple(Document(f"d{i}", f"the code of river is {thing} .") for i, thing in enumerate(THINGS))
QUERIES = [Query("what is the code of river ?", one.id) for one in DOCUMENTS]
SIZE = 8 + sum(12 + len(one.text) for one in DOCUMENTS)


def alone(reader: Oracle, document: Document) -> str:
    return reader.prompting.answer([QUERIES[0].text], [(document.text,)])[0]


def test_each_question_is_answered_from_its_own_document(context: Callable[..., Context]) -> None:
    reader = Oracle()
    reader.take_in(DOCUMENTS, context())
    answers = reader.answer(QUERIES)
    assert answers == [alone(reader, one) for one in DOCUMENTS]
    assert len(set(answers)) > 1
    assert reader.read(QUERIES) == {"memory": answers}


def test_an_empty_memory_answers_from_the_question_alone(context: Callable[..., Context]) -> None:
    reader = Oracle()
    closed = reader.prompting.answer([q.text for q in QUERIES])
    assert reader.answer(QUERIES) == closed
    reader.take_in(DOCUMENTS[:1], context())
    assert reader.answer(QUERIES[1:]) == closed[1:]  # held by no id of theirs
    reader.clear()
    assert (reader.answer(QUERIES), reader.state()) == (closed, {})


def test_bytes_are_those_of_the_texts(context: Callable[..., Context]) -> None:
    reader = Oracle()
    reader.take_in(DOCUMENTS, context())
    assert account(freeze(reader.state()), reader.category).rows() == {("memory", "exemplars"): SIZE}


@pytest.mark.parametrize("eviction", ["reservoir", "fifo"])
def test_the_budget_is_kept_to_the_byte(context: Callable[..., Context], eviction: str) -> None:
    for spare, left_out in ((0, 0), (-1, 1)):
        reader = Oracle(texts=TextMemory(eviction=eviction))  # type: ignore[arg-type]
        ctx = context(budget=Budget(SIZE + spare))
        reader.take_in(DOCUMENTS, ctx)
        assert freeze(reader.state()).nbytes <= SIZE + spare
        assert len(reader.memory) == 4 - left_out
        assert ctx.cost.logged == {"texts/left_out": left_out}


def test_lora_is_weighed_before_texts_are(context: Callable[..., Context]) -> None:
    torch.manual_seed(0)
    reader = Oracle(tune=MetaRecipe())
    lora = freeze(reader.model_state()).nbytes
    assert lora == 4 * 8 * (2 * (64 + 64) * 2 + 2 * (64 + 32) * 2)
    reader.take_in(DOCUMENTS, context(budget=Budget(lora + SIZE - 1)))
    assert len(reader.memory) == 3
    reader.clear()
    reader.take_in(DOCUMENTS, context(budget=Budget(SIZE, count="bank")))
    assert len(reader.memory) == 4


def test_forgetting_leaves_the_bits_of_a_reader_that_never_read_it(context: Callable[..., Context]) -> None:
    reader, never = Oracle(), Oracle()
    reader.take_in(DOCUMENTS, context())
    reader.forget(DOCUMENTS[1:2], context())
    never.take_in([*DOCUMENTS[:1], *DOCUMENTS[2:]], context())
    mine, other = freeze(reader.state()).tensors, freeze(never.state()).tensors
    assert list(mine) == list(other)
    assert all(torch.equal(torch.as_tensor(mine[name]), torch.as_tensor(other[name])) for name in mine)
    assert reader.answer(QUERIES[1:2]) == Oracle().answer(QUERIES[1:2])
    with pytest.raises(DataError, match="'d1'"):
        reader.forget(DOCUMENTS[1:2], context())


def test_a_rebuilt_reader_gives_the_same_answers(context: Callable[..., Context]) -> None:
    reader, again = Oracle(), Oracle()
    reader.take_in(DOCUMENTS, context())
    again.load(reader.state(), ())
    assert again.answer(QUERIES) == reader.answer(QUERIES)


def test_tuned_it_says_what_the_document_says(context: Callable[..., Context]) -> None:
    """One question has many answers upstream, so nothing but the passage tells which is meant."""
    things = (*THINGS, "lemon", "orange", "grape", "melon")
    documents = tuple(Document(f"u{i}", f"the code of river is {thing} .") for i, thing in enumerate(things))
    pairs = zip(documents, things, strict=True)
    questions = tuple(Question(QUERIES[0].text, one.id, "", thing) for one, thing in pairs)
    split = Split(documents, questions)
    torch.manual_seed(0)
    reader = Oracle(tune=MetaRecipe(epochs=60, lr=1e-2, batch_size=8, patience=0))
    reader.prepare(Upstream(split, split), context())
    reader.eval()
    assert len(reader.memory) == 0
    assert len(set(reader.answer(QUERIES))) == 1
    reader.take_in(DOCUMENTS, context())
    assert reader.answer(QUERIES) == list(THINGS)
