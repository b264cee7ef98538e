"""What a corpus is, what one row of it is, and the care that all formats share.

A row is a question with the document that answers it, as published sets have it. Rows become one entry for each
distinct document: several questions about it do not make it weigh more in a memory.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from clearn.errors import DataError
from clearn.parts.answers import normalise
from clearn.stream import Document, Question, Split

SPLITS = ("train", "val", "test")
LONG_DOCUMENT = 256  # words; what is longer is longer in tokens too, and a method will cut it
LONG_QUESTION = 128

Passage = Literal["paragraph", "article"]


@dataclass(frozen=True)
class Options:
    """What to load.

    Attributes:
        name: one of `clearn.streams.corpora.READERS`.
        root: folder of the data; None means CLEARN_DATA, or else the user's cache.
        train_rows: of squad: first and one past the last row of train-v1.1.json that are for meta-training.
        val_rows: likewise, for its validation.
        passage: of archival_qa: whether the answer's paragraph or its whole article is the document.
        sizes: of copying: documents of the train, val and test split.
        seed: of copying: of all that is invented.
    """

    name: str
    root: str | None = None
    train_rows: tuple[int, int] = (42_118, 82_011)
    val_rows: tuple[int, int] = (82_011, 87_599)
    passage: Passage = "paragraph"
    sizes: tuple[int, int, int] = (512, 64, 1_665)
    seed: int = 0


@dataclass(frozen=True)
class Row:
    """One question and its document, before it is known whether both can be used.

    Attributes:
        where: file and line, for messages.
        text: of the document.
        question: of the row; None where the document comes alone.
        answer: of the row.
        id: of the document; "" derives one from the text.
        kind: of the answer.
        field: the template of the question.
        entity: of the document.
        timestamp: of the document; the latest of its rows counts.
        group: documents with the same one stay together when a stream is shuffled; "" stands alone.
        place: order of documents within a group.
    """

    where: str
    text: str
    question: str | None = None
    answer: str = ""
    id: str = ""
    kind: str = ""
    field: str = ""
    entity: str = ""
    timestamp: str = ""
    group: str = ""
    place: int = 0


@dataclass(frozen=True)
class Refused:
    """A row that a format could not make anything of.

    Attributes:
        reason: as counted in `about`, e.g. "no article".
    """

    reason: str


@dataclass(frozen=True)
class Loaded:
    """A corpus before any task is made of it.

    Attributes:
        train: for meta-training.
        val: for its validation.
        test: what a stream is cut from.
        about: JSON-able facts: name, checksums of what was read, what was read and refused by split.
        groups: document id -> (group, place in it), where documents stay together when a stream is shuffled.
    """

    train: Split
    val: Split
    test: Split
    about: dict[str, Any]
    groups: Mapping[str, tuple[str, int]] = field(default_factory=dict)


class Gathering:
    """Rows of all splits made into distinct documents and their questions.

    A split given earlier wins: a document of the test split is refused in train and val, so that nothing of the stream
    is known beforehand. The same text under two ids is one document, called by the first.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.texts: dict[str, str] = {}  # id -> text, of all splits
        self.owners: dict[str, tuple[str, str]] = {}  # text -> (split, id under which it is kept)
        self.groups: dict[str, tuple[str, int]] = {}
        self.about: dict[str, Any] = {}

    def split(self, name: str, rows: Iterable[Row | Refused], needed: bool = True) -> Split:
        """Gather the rows of one split.

        Args:
            name: train, val or test; it may be given once.
            rows: in file order.
            needed: whether to refuse a split that is left without any document.

        Raises:
            DataError: an id with two texts, text that cannot be written, or nothing left.
        """
        documents: dict[str, Document] = {}
        questions: list[Question] = []
        refused: Counter[str] = Counter()
        merged: set[str] = set()
        total = 0
        for row in rows:
            total += 1
            reason = row.reason if isinstance(row, Refused) else self._unusable(row, name)
            if isinstance(row, Refused) or reason:
                refused[reason] += 1
                continue
            id_ = self._id(row, name)
            if row.id and row.id != id_:
                merged.add(row.id)
            documents[id_] = _joined(documents.get(id_), id_, row)
            if row.group:
                self.groups.setdefault(id_, (row.group, row.place))
            if row.question is not None:
                questions.append(Question(row.question.strip(), id_, row.field, row.answer, row.kind))
        if needed and not documents:
            why = ", ".join(f"{reason}: {count}" for reason, count in sorted(refused.items())) or "it is empty"
            raise DataError(
                f"data={self.name}: the {name} split has no row that can be used, of {total} ({why}): a row needs a "
                "document's text, a question and an answer that is more than punctuation and articles"
            )
        split = Split(tuple(documents.values()), tuple(questions))
        self.about[name] = {
            "rows": total,
            "documents": len(split.documents),
            "questions": len(split.questions),
            "merged": len(merged),
            "refused": dict(sorted(refused.items())),
        }
        return split

    def _unusable(self, row: Row, split: str) -> str:
        """Why a row is left out, or nothing."""
        if not row.text.strip():
            return "no text"
        if row.question is not None and not row.question.strip():
            return "no question"
        if row.question is not None and not normalise(row.answer):
            return "no answer"
        owner = self.owners.get(row.text, (split, ""))[0]
        return "" if owner == split else f"document of the {owner} split"

    def _id(self, row: Row, split: str) -> str:
        """Under which id a row's document is kept."""
        written = (row.text, row.id, row.question or "", row.answer, row.entity, row.field, row.kind, row.timestamp)
        try:
            contents = [each.encode() for each in written]
        except UnicodeEncodeError:
            raise DataError(
                f"{row.where} holds half of a surrogate pair, which is no character: write the text afresh as UTF-8"
            ) from None
        id_ = row.id or "text-" + hashlib.sha256(contents[0]).hexdigest()[:16]
        if self.texts.setdefault(id_, row.text) != row.text:
            raise DataError(
                f"{row.where}: document {id_!r} has another text than it had before: give each text an id of its own"
            )
        return self.owners.setdefault(row.text, (split, id_))[1]


def sizes(split: Split) -> dict[str, int]:
    """Count documents and questions, and those that a method will cut because they are long."""
    return {
        "documents": len(split.documents),
        "questions": len(split.questions),
        f"documents_over_{LONG_DOCUMENT}_words": sum(len(d.text.split()) > LONG_DOCUMENT for d in split.documents),
        f"questions_over_{LONG_QUESTION}_words": sum(len(q.text.split()) > LONG_QUESTION for q in split.questions),
    }


def gathered(name: str, rows: Mapping[str, Iterable[Row | Refused]], checksums: dict[str, str]) -> Loaded:
    """Make a corpus of the rows of its three splits; the stream's own split is read first, then val, then train.

    Args:
        name: as in the config.
        rows: by split.
        checksums: filled while rows are read.
    """
    gathering = Gathering(name)
    found = {split: gathering.split(split, rows[split]) for split in ("test", "val", "train")}
    about = {
        "data": name,
        "checksums": dict(sorted(checksums.items())),
        "read": {split: gathering.about[split] for split in SPLITS},
    }
    return Loaded(found["train"], found["val"], found["test"], about, gathering.groups)


def shortest(alternatives: Sequence[str]) -> str:
    """The reference of a row: its shortest alternative by characters, the first on ties; "" without any."""
    return min(alternatives, key=len, default="").strip()


def capitalised(answer: str) -> str:
    """The answer with its first letter upper-cased, as SQuAD and ArchivalQA are given in the literature.

    >>> capitalised("new York"), capitalised("1990s")
    ('New York', '1990s')
    """
    return answer[:1].upper() + answer[1:] if answer[:1].islower() else answer


def _joined(known: Document | None, id_: str, row: Row) -> Document:
    """A document with what one more of its rows says of it."""
    if known is None:
        return Document(id_, row.text, row.timestamp, row.entity)
    return Document(id_, known.text, max(known.timestamp, row.timestamp), known.entity or row.entity)
