"""Majority: every question gets the most frequent upstream answer to questions of its kind, and no document is read.

What can be had without memory and without a language model where questions come from templates: a field such as
"relief.low_name" has one answer that is right more often than any other. Questions without a field, or with one that
upstream never asked, get the most frequent answer of all.

Carried: the answers as UTF-8 and 12 bytes for each field, the one for all included, and 8 bytes: see
`clearn.parts.texts`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

from clearn.context import Context
from clearn.errors import DataError
from clearn.parts.answers import normalise
from clearn.parts.texts import Texts
from clearn.reader import Reader
from clearn.stream import Document, Query, Question, Upstream

ALL = ""
"""The name under which the answer to all other questions is kept."""


class Majority(Reader):
    """Knows one answer for each field."""

    readout: ClassVar[str] = "answer"
    controls: ClassVar[bool] = False
    categories: ClassVar[dict[str, str]] = {"memory": "meta"}
    memory: Texts

    def __init__(self) -> None:
        super().__init__()
        self.memory = Texts()

    def prepare(self, upstream: Upstream, ctx: Context) -> None:
        """Count the answers of the train split.

        Raises:
            DataError: there are none.
        """
        asked = upstream.train.questions
        if not asked:
            raise DataError(
                "the upstream train split has no questions, but the majority answer is counted over them: give "
                "upstream data, or take the method closed_book"
            )
        fields = dict.fromkeys([ALL, *(question.field for question in asked)])
        own = {field: [q for q in asked if q.field == field or field == ALL] for field in fields}
        self.memory.clear()
        self.memory.add([Document(field, most_frequent(of)) for field, of in own.items()])

    def take_in(self, documents: Sequence[Document], ctx: Context) -> None:
        """Read nothing."""

    def answer(self, questions: Sequence[Query]) -> list[str]:
        """Give the majority answer of each question's field; before it is prepared it says nothing."""
        everywhere = self.memory.find(ALL) or ""
        return [self.memory.find(question.field) or everywhere for question in questions]

    def forget(self, documents: Sequence[Document], ctx: Context) -> None:
        """Nothing is kept of any document of the stream."""

    def clear(self) -> None:
        """Nothing is kept of any document of the stream: the table is of the upstream split."""


def most_frequent(questions: Sequence[Question]) -> str:
    """The most frequent answer, of equals the first that occurs.

    Answers that are one once normalised are counted together; the form that occurs first stands for all.
    """
    count = Counter(normalise(question.answer) for question in questions)
    best = max(count.values())
    return next(question.answer for question in questions if count[normalise(question.answer)] == best)
