"""The majority answer of a field: counts by hand, ties, the rest, and the bytes of its table."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from clearn.context import Context
from clearn.errors import DataError
from clearn.ledger import account
from clearn.state import freeze
from clearn.stream import Document, Query, Question, Split, Upstream
from strategies.majority import Majority, most_frequent


def upstream(*pairs: tuple[str, str]) -> Upstream:
    documents = (Document("d", "text"),)
    questions = tuple(Question("?", "d", field, answer) for field, answer in pairs)
    return Upstream(Split(documents, questions), Split(documents, (Question("?", "d", "low", "never"),) * 9))


PAIRS = (("low", "Dead Sea"), ("high", "Etna"), ("low", "Lake Eyre"), ("low", "dead sea"), ("high", "Teide"), ("", "1"))


def prepared(context: Callable[..., Context], *pairs: tuple[str, str]) -> Majority:
    reader = Majority()
    reader.prepare(upstream(*pairs), context())
    return reader


def ask(reader: Majority, *fields: str) -> list[str]:
    return reader.answer([Query("anything ?", "elsewhere", field) for field in fields])


def test_answers_by_hand(context: Callable[..., Context]) -> None:
    reader = prepared(context, *PAIRS)
    assert ask(reader, "low", "high") == ["Dead Sea", "Etna"]
    assert ask(reader, "", "unknown") == ["Dead Sea", "Dead Sea"]  # of all six answers
    assert reader.read([Query("?", "d", "low")]) == {"answer": ["Dead Sea"]}


def questions(*answers: str) -> list[Question]:
    return [Question("?", "d", "", answer) for answer in answers]


def test_ties_go_to_the_first() -> None:
    assert most_frequent(questions("b", "c", "c", "b")) == "b"
    assert most_frequent(questions("x", "b", "c", "c", "b")) == "b"


def test_one_answer_in_several_forms_counts_together_under_the_first() -> None:
    assert most_frequent(questions("Paris", "the Rhine", "Rhine.", "Rome")) == "the Rhine"


def test_it_is_counted_over_the_train_split_alone(context: Callable[..., Context]) -> None:
    assert ask(prepared(context, ("low", "Dead Sea")), "low") == ["Dead Sea"]


def test_reading_and_forgetting_change_nothing(context: Callable[..., Context]) -> None:
    reader = prepared(context, *PAIRS)
    before = freeze(reader.state()).tensors
    reader.take_in([Document("n", "new")], context())
    reader.forget([Document("n", "new")], context())
    reader.clear()
    after = freeze(reader.state()).tensors
    assert list(before) == list(after)
    assert all(torch.equal(torch.as_tensor(before[n]), torch.as_tensor(after[n])) for n in before)


def test_its_table_is_weighed_and_carried(context: Callable[..., Context]) -> None:
    reader = prepared(context, *PAIRS)
    state = reader.state()
    rows = account(freeze(state), reader.category).rows()
    assert rows == {("memory", "meta"): 8 + 3 * 12 + len("Dead Sea" + "Dead Sea" + "Etna")}
    again = Majority()
    again.load(state, ())
    assert ask(again, "low", "high", "") == ["Dead Sea", "Etna", "Dead Sea"]


def test_preparing_again_starts_anew(context: Callable[..., Context]) -> None:
    reader = prepared(context, *PAIRS)
    reader.prepare(upstream(("low", "Lake Eyre")), context())
    assert ask(reader, "low", "high") == ["Lake Eyre", "Lake Eyre"]


def test_before_it_is_prepared_it_says_nothing() -> None:
    assert ask(Majority(), "low") == [""]


def test_upstream_without_questions_is_refused(context: Callable[..., Context]) -> None:
    with pytest.raises(DataError, match="no questions"):
        prepared(context)
