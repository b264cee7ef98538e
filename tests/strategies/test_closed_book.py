"""Closed book: answers from the weights alone, whatever was read; LoRA where it is tuned."""

from __future__ import annotations

from collections.abc import Callable

import torch

from clearn.context import Context
from clearn.parts.prompting import Prompting
from clearn.recipe import MetaRecipe
from clearn.state import freeze
from clearn.stream import Document, Question, Split, Upstream
from strategies.closed_book import ClosedBook

torch.set_num_threads(1)

DOCUMENTS = tuple(Document(f"d{i}", f"the code of {word} is 7 .") for i, word in enumerate(("river", "castle")))
QUESTIONS = tuple(Question(f"what is the code of {one.text.split()[3]} ?", one.id, "", "seven") for one in DOCUMENTS)
UPSTREAM = Upstream(Split(DOCUMENTS, QUESTIONS), Split(DOCUMENTS, QUESTIONS))


def test_reading_and_forgetting_change_nothing(context: Callable[..., Context]) -> None:
    reader = ClosedBook()
    before = reader.answer([q.query for q in QUESTIONS])
    reader.take_in(DOCUMENTS, context())
    assert reader.state() == {}
    reader.forget(DOCUMENTS, context())
    reader.clear()
    assert reader.answer([q.query for q in QUESTIONS]) == before
    assert reader.read([q.query for q in QUESTIONS]) == {"answer": before}
    assert reader.memory is None


def test_the_model_is_asked_with_the_question_alone() -> None:
    reader = ClosedBook()
    prompts = [reader.prompting.prompt(q.text) for q in QUESTIONS]
    assert reader.answer([q.query for q in QUESTIONS]) == reader.prompting.lm.generate(prompts)


def test_tuning_learns_the_answers_style_without_documents(context: Callable[..., Context]) -> None:
    torch.manual_seed(0)
    reader = ClosedBook(tune=MetaRecipe(epochs=15, lr=1e-2, batch_size=2, patience=0))
    net = {name: value.clone() for name, value in reader.prompting.lm.net.state_dict().items()}
    reader.prepare(UPSTREAM, context())
    reader.eval()
    assert reader.answer([q.query for q in QUESTIONS]) == ["seven", "seven"]
    assert all(torch.equal(value, net[name]) for name, value in reader.prompting.lm.net.state_dict().items())
    pairs = 2 * (64 + 64) * 2 + (64 + 32) * 2 * 2  # q and o, k and v, of two layers
    assert freeze(reader.state(), reader.untouched()).nbytes == 4 * 8 * pairs
    assert {reader.category(name) for name in reader.state()} == {"params"}


def test_rows_documents_are_unseen_in_tuning() -> None:
    reader = ClosedBook()
    assert isinstance(reader.prompting, Prompting)
    assert reader.prompting.passages == 0
