"""Dense retrieval over stored texts: the nearest passages in the prompt, vectors weighed, deletion exact."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from clearn.context import Context
from clearn.errors import ConfigError, DataError
from clearn.ledger import Budget, account
from clearn.state import freeze
from clearn.stream import Document, Query
from strategies.dense import Dense

torch.set_num_threads(1)

DOCUMENTS = tuple(
    Document(f"d{i}", text)
    for i, text in enumerate(("red wine and bread", "the king of the castle", "a whale is a seal", "oil and gas price"))
)
QUERIES = [Query(one.text, "not to be used") for one in reversed(DOCUMENTS)]
TEXTS = 8 + sum(12 + len(one.text) for one in DOCUMENTS)


def reading(context: Callable[..., Context], **options: object) -> Dense:
    reader = Dense(**options)  # type: ignore[arg-type]
    reader.take_in(DOCUMENTS, context())
    return reader


@pytest.mark.parametrize("index", ["int8", "float16"])
def test_a_text_is_nearest_to_itself(context: Callable[..., Context], index: str) -> None:
    reader = reading(context, index=index)
    passages = [(one.text,) for one in reversed(DOCUMENTS)]
    answers = reader.answer(QUERIES)
    assert answers == reader.prompting.answer([q.text for q in QUERIES], passages)
    assert reader.read(QUERIES) == {"memory": answers}


def test_k_passages_stand_nearest_first(context: Callable[..., Context]) -> None:
    reader = reading(context, k=2, index="float16")
    vectors = reader.encoder.vectors([one.text for one in DOCUMENTS])
    (question,) = reader.encoder.vectors(["the king of bread"])
    order = sorted(range(4), key=lambda row: -float(vectors[row] @ question))[:2]
    best = [[DOCUMENTS[row].text for row in order]]
    assert reader.answer([Query("the king of bread", "")]) == reader.prompting.answer(["the king of bread"], best)


def test_an_empty_memory_leaves_the_question_alone(context: Callable[..., Context]) -> None:
    reader = reading(context)
    reader.clear()
    assert reader.answer(QUERIES) == reader.prompting.answer([q.text for q in QUERIES])
    assert reader.state() == {}
    assert reader.answer([]) == []
    reader.take_in([], context())
    assert reader.state() == {}


@pytest.mark.parametrize(("index", "each"), [("int8", 32), ("float16", 64)])
def test_texts_and_vectors_are_weighed_and_kept_within_the_budget(
    context: Callable[..., Context], index: str, each: int
) -> None:
    reader = reading(context, index=index)
    rows = account(freeze(reader.state(), reader.untouched()), reader.category).rows()
    shared = rows.pop(("model", "shared_pretrained"))
    assert rows == {("memory", "exemplars"): TEXTS, ("memory", "index"): 4 * each}
    assert shared > 100_000
    for spare, held in ((0, 4), (-1, 3)):
        fewer, ctx = Dense(index=index), context(budget=Budget(TEXTS + 4 * each + spare))  # type: ignore[arg-type]
        fewer.take_in(DOCUMENTS, ctx)
        assert len(fewer.memory) == held
        assert freeze(fewer.state()).nbytes <= TEXTS + 4 * each + spare
        assert ctx.cost.logged == {"texts/left_out": 4 - held}


def test_forgetting_leaves_the_bits_of_a_reader_that_never_read_it(context: Callable[..., Context]) -> None:
    reader, never = reading(context), Dense()
    reader.forget(DOCUMENTS[1:2], context())
    never.take_in([DOCUMENTS[0], *DOCUMENTS[2:]], context())
    mine, other = freeze(reader.state()).tensors, freeze(never.state()).tensors
    assert list(mine) == list(other)
    assert all(torch.equal(torch.as_tensor(mine[name]), torch.as_tensor(other[name])) for name in mine)
    assert reader.answer(QUERIES) == never.answer(QUERIES)
    with pytest.raises(DataError, match="'d1'"):
        reader.forget(DOCUMENTS[1:2], context())


def test_a_stream_cut_into_tasks_leaves_the_same_bits(context: Callable[..., Context]) -> None:
    whole, parts = reading(context), Dense()
    for one in DOCUMENTS:
        parts.take_in([one], context())
    mine, other = freeze(whole.state()).tensors, freeze(parts.state()).tensors
    assert all(torch.equal(torch.as_tensor(mine[name]), torch.as_tensor(other[name])) for name in mine)


def test_a_rebuilt_reader_gives_the_same_answers(context: Callable[..., Context]) -> None:
    reader, again = reading(context), Dense()
    again.load(reader.state(), ())
    assert again.answer(QUERIES) == reader.answer(QUERIES)


def test_no_passages_are_refused() -> None:
    with pytest.raises(ConfigError, match="k=0 must be 1 or more"):
        Dense(k=0)
