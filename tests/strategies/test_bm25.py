"""BM25 over stored texts: the right passages in the prompt, an index that is no state, exact bytes and deletion."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from clearn.context import Context
from clearn.errors import ConfigError, DataError
from clearn.ledger import Budget, account
from clearn.parts.texts import TextMemory
from clearn.recipe import MetaRecipe
from clearn.state import freeze
from clearn.stream import Document, Query, Question, Row
from strategies.bm25 import Bm25

torch.set_num_threads(1)

WORDS = ("river", "castle", "garden", "bridge", "king")
THINGS = ("apple", "pear", "plum", "cherry", "lemon")
DOCUMENTS = tuple(
    Document(f"d{i}", f"the code of {word} is {thing} .")
    for i, (word, thing) in enumerate(zip(WORDS, THINGS, strict=True))
)
QUERIES = [Query(f"what is the code of {word} ?", "not to be used") for word in WORDS]
SIZE = 8 + sum(12 + len(one.text) for one in DOCUMENTS)


def reading(context: Callable[..., Context], **options: object) -> Bm25:
    reader = Bm25(**options)  # type: ignore[arg-type]
    reader.take_in(DOCUMENTS, context())
    return reader


def test_questions_are_answered_from_the_best_match(context: Callable[..., Context]) -> None:
    reader = reading(context)
    passages = [(one.text,) for one in DOCUMENTS]
    answers = reader.answer(QUERIES)
    assert answers == reader.prompting.answer([q.text for q in QUERIES], passages)
    assert len(set(answers)) > 1
    assert reader.read(QUERIES) == {"memory": answers}


def test_k_passages_stand_best_first(context: Callable[..., Context]) -> None:
    reader = reading(context, k=2)
    asked = "what is the code of king and castle and castle ?"
    best = [(DOCUMENTS[1].text, DOCUMENTS[4].text)]
    assert reader.answer([Query(asked, "")]) == reader.prompting.answer([asked], best)
    assert reader.index().top(asked, 2) == [1, 4]


def test_k1_and_b_reach_the_index(context: Callable[..., Context]) -> None:
    reader = Bm25(k1=0.0, b=0.0)
    reader.take_in([Document("a", "king king king river"), Document("b", "king lemon")], context())
    scores = reader.index().scores("king")
    assert scores[0] == scores[1] > 0  # with k1 = 0 repeats do not count
    other = Bm25()
    other.take_in([Document("a", "king king king river"), Document("b", "king lemon")], context())
    assert other.index().scores("king")[0] > other.index().scores("king")[1]


def test_words_are_english_unless_plain_ones_are_asked_for(context: Callable[..., Context]) -> None:
    documents = [Document("a", "what is the river"), Document("b", "old lakes and king")]
    asked = "what is the lake"
    for analysis, row in (("english", [1]), ("plain", [0])):
        reader = Bm25(analysis=analysis)  # type: ignore[arg-type]
        reader.take_in(documents, context())
        assert reader.index().top(asked, 2) == row
        passages = [[documents[i].text for i in row]]
        assert reader.answer([Query(asked, "")]) == reader.prompting.answer([asked], passages)


def test_an_empty_memory_and_foreign_words_leave_the_question_alone(context: Callable[..., Context]) -> None:
    reader = Bm25()
    closed = reader.prompting.answer([q.text for q in QUERIES])
    assert reader.answer(QUERIES) == closed
    reader.take_in(DOCUMENTS, context())
    assert reader.answer([Query("who ?", "")]) == reader.prompting.answer(["who ?"])
    reader.clear()
    assert (reader.answer(QUERIES), reader.state()) == (closed, {})
    assert reader.answer([]) == []


def test_the_index_is_no_state_and_follows_the_texts(context: Callable[..., Context]) -> None:
    reader = reading(context)
    first = reader.index()
    assert reader.index() is first
    assert set(reader.state()) == {"memory/text", "memory/lengths", "memory/keys", "memory/left_out"}
    reader.forget(DOCUMENTS[:1], context())
    assert reader.index().n == 4
    again = Bm25()
    again.index()
    again.load(reader.state(), ())
    assert again.index().scores("castle garden").tolist() == reader.index().scores("castle garden").tolist()
    assert again.answer(QUERIES) == reader.answer(QUERIES)


@pytest.mark.parametrize("codec", ["utf8", "zlib"])
def test_forgetting_leaves_the_bits_of_a_reader_that_never_read_it(context: Callable[..., Context], codec: str) -> None:
    options = {"texts": TextMemory(codec=codec)}  # type: ignore[arg-type]
    reader, never = reading(context, **options), Bm25(**options)
    reader.forget([DOCUMENTS[1], DOCUMENTS[3]], context())
    never.take_in([DOCUMENTS[0], DOCUMENTS[2], DOCUMENTS[4]], context())
    mine, other = freeze(reader.state()).tensors, freeze(never.state()).tensors
    assert list(mine) == list(other)
    assert all(torch.equal(torch.as_tensor(mine[name]), torch.as_tensor(other[name])) for name in mine)
    assert reader.answer(QUERIES) == never.answer(QUERIES)
    with pytest.raises(DataError, match="'d1'"):
        reader.forget([DOCUMENTS[1]], context())


def test_bytes_and_budget_are_those_of_the_texts(context: Callable[..., Context]) -> None:
    assert account(freeze(reading(context).state()), reading(context).category).rows() == {
        ("memory", "exemplars"): SIZE
    }
    for total, held in ((SIZE, 5), (SIZE - 1, 4), (8, 0)):
        reader, ctx = Bm25(), context(budget=Budget(total))
        reader.take_in(DOCUMENTS, ctx)
        assert len(reader.memory) == held
        assert freeze(reader.state()).nbytes <= total
        assert ctx.cost.logged == {"texts/left_out": 5 - held}


def test_another_seed_holds_another_sample(context: Callable[..., Context]) -> None:
    held = set()
    for seed in range(8):
        reader = Bm25()
        reader.take_in(DOCUMENTS, context(seed=seed, budget=Budget(SIZE - 1)))
        held.add(reader.memory.texts())
    assert len(held) > 1


def test_tuning_shows_the_right_document_among_k() -> None:
    torch.manual_seed(0)
    reader = Bm25(k=2, tune=MetaRecipe())
    rows = [Row(one, Question(q.text, one.id, "", "x")) for one, q in zip(DOCUMENTS[:2], QUERIES, strict=False)]
    a, b = DOCUMENTS[0].text, DOCUMENTS[1].text
    prompts = [reader.prompting.prompt(row.question.text, [a, b]) for row in rows]  # either has both, its own in turn
    answers = [reader.prompting.lm.words.answer("x")] * 2
    assert torch.equal(reader.eval().episode(rows), reader.prompting.lm.answer_losses(prompts, answers).mean())


def test_no_passages_are_refused() -> None:
    with pytest.raises(ConfigError, match="k=0 must be 1 or more"):
        Bm25(k=0)
    with pytest.raises(ConfigError, match="b=2"):
        Bm25(b=2.0)
