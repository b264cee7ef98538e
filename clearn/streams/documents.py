"""Documents that are read task by task, and the questions they answer; what comes before the stream is for preparing.

The published protocol (CaMeLS, MAC, MBC) reads 1,665 documents and asks all their questions at the end; with
`per_task: 200` the same stream shows what is retained while reading on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from clearn.errors import ConfigError, DataError
from clearn.mistakes import listing, nearest, show
from clearn.seeds import numpy_generator
from clearn.stream import Corpus, Document, ForgetDocuments, Question, Reading, Split, TaskInfo, Upstream
from clearn.streams.corpora import READERS, load
from clearn.streams.corpora.files import listed, mapping
from clearn.streams.corpora.jsonl import as_row
from clearn.streams.corpora.record import Gathering, Loaded, Options, Passage, Row, sizes

USES = {  # options that mean something to some corpora only, and their defaults
    "root": (tuple(name for name in READERS if name != "copying"), None),
    "train_rows": (("squad",), Options.train_rows),
    "val_rows": (("squad",), Options.val_rows),
    "passage": (("archival_qa",), Options.passage),
}
INVENTED = {"upstream_documents": 512, "val_documents": 64, "documents": 1_665}  # of copying, where none are given

Own = Split | Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class DocumentRequest:
    """One entry of `stream.requests`; one of documents, entity and count says what goes.

    Attributes:
        after: so many tasks are read before it.
        documents: ids; an empty list changes nothing.
        entity: all documents about it that were read before the request.
        count: so many documents at random, of all tasks before the request.
        seed: of that draw.
    """

    after: int
    documents: tuple[str, ...] | None = None
    entity: str | None = None
    count: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        given = [name for name in ("documents", "entity", "count") if getattr(self, name) is not None]
        if self.after < 1:
            raise ConfigError(f"after={self.after} must be at least 1: something has to be read first")
        if len(given) != 1:
            raise ConfigError(
                f"after={self.after}: {' and '.join(given) or 'nothing'} says what goes, and exactly one of documents, "
                "entity and count must"
            )
        if self.entity == "":
            raise ConfigError("entity='' must name what documents are about: those about nothing go by their ids")
        if self.count is not None and self.count < 1:
            raise ConfigError(f"count={self.count} must be at least 1; documents: [] is the empty request")


@dataclass(frozen=True)
class Cut:
    """How a stream is cut from a corpus.

    Attributes:
        documents: of the stream, at most; None takes all of the test split.
        tasks: how many to make of them, as equal as can be, larger ones first.
        per_task: documents of each task instead, the last may have fewer; with neither, there is one task.
        questions_per_document: of the stream, the first so many; None asks all.
        upstream_documents: of the train split, at most; None takes all.
        val_documents: of the val split, at most; None takes all.
        order_seed: of the stream's order; None keeps that of the file. Published sets shuffle whole titles (squad) or
            articles (archival_qa).
        subset_seed: of which documents are taken, where not all are; None takes the first ones. It draws titles and
            articles like `order_seed`, and leaves the order alone.
    """

    documents: int | None = 1_665
    tasks: int | None = None
    per_task: int | None = None
    questions_per_document: int | None = None
    upstream_documents: int | None = None
    val_documents: int | None = None
    order_seed: int | None = None
    subset_seed: int | None = None


def build(
    *,
    data: str = "factbook",
    root: Path | None = None,
    documents: int | None = 1_665,
    tasks: int | None = None,
    per_task: int | None = None,
    questions_per_document: int | None = None,
    upstream_documents: int | None = None,
    val_documents: int | None = None,
    order_seed: int | None = None,
    subset_seed: int | None = None,
    train_rows: tuple[int, int] = Options.train_rows,
    val_rows: tuple[int, int] = Options.val_rows,
    passage: Passage = "paragraph",
    requests: Sequence[DocumentRequest] = (),
) -> Corpus:
    """Make the stream from a config's keys.

    Args:
        data: one of `clearn.streams.CORPORA`.
        root: folder above the data (of jsonl: their own); None means CLEARN_DATA, or else the user's cache.
        documents: see `Cut`, as for the next seven; of copying, so many are invented.
        tasks: see `Cut`.
        per_task: see `Cut`.
        questions_per_document: see `Cut`.
        upstream_documents: see `Cut`; of copying, so many are invented, 512 by default.
        val_documents: see `Cut`; of copying, so many are invented, 64 by default.
        order_seed: see `Cut`.
        subset_seed: see `Cut`; of copying, the seed of what is invented.
        train_rows: of squad, for meta-training: first and one past the last question of train-v1.1.json.
        val_rows: of squad, for its validation.
        passage: of archival_qa: paragraph or article.
        requests: documents to forget.

    Raises:
        ConfigError: options that lie out of range or mean nothing to this corpus, all of them together; or requests
            that cannot be met.
        DataError: files are missing or damaged.

    >>> stream = build(data="copying", documents=5, tasks=2, upstream_documents=4, val_documents=1)
    >>> [len(reading.documents) for reading in stream], len(stream.upstream.train.questions)
    ([3, 2], 4)
    """
    cut_by = Cut(
        documents=documents,
        tasks=tasks,
        per_task=per_task,
        questions_per_document=questions_per_document,
        upstream_documents=upstream_documents,
        val_documents=val_documents,
        order_seed=order_seed,
        subset_seed=subset_seed,
    )
    given = {"root": root, "train_rows": tuple(train_rows), "val_rows": tuple(val_rows), "passage": passage}
    if wrong := [*_unfit(data, given), *_out_of_range(cut_by)]:
        raise ConfigError("\n".join(wrong))
    asked = (upstream_documents, val_documents, documents)
    train, val, test = (INVENTED[key] if n is None else n for key, n in zip(INVENTED, asked, strict=True))
    options = Options(
        data,
        None if root is None else str(root),
        train_rows=(train_rows[0], train_rows[1]),
        val_rows=(val_rows[0], val_rows[1]),
        passage=passage,
        sizes=(train, val, test),
        seed=subset_seed or 0,
    )
    return cut(load(options), cut_by, requests)


def from_documents(
    train: Own,
    val: Own,
    test: Own,
    *,
    tasks: int | None = None,
    per_task: int | None = None,
    order_seed: int | None = None,
    requests: Sequence[DocumentRequest] = (),
) -> Corpus:
    """Make a stream of your own documents.

    Each split is a list of rows as in JSON lines (text, question, answer, and if you like doc_id, kind, field, entity,
    timestamp), or of documents with a list of questions, which may be empty; or a `Split`.

    Args:
        train: for methods that are prepared; may be empty for those that are not.
        val: likewise.
        test: what is read, with the questions about it.
        tasks: see `Cut`.
        per_task: see `Cut`.
        order_seed: see `Cut`.
        requests: documents to forget.

    Raises:
        DataError: a row that is not as it should be, or a test split without any.
        ConfigError: options out of range, or requests that cannot be met.

    >>> rows = [{"text": "Ada lives in Rome.", "question": "Where does Ada live?", "answer": "Rome"},
    ...         {"text": "Bob is 7.", "questions": [("How old is Bob?", "7"), ("Who is 7?", "Bob")]}]
    >>> [len(reading.questions) for reading in from_documents([], [], rows, per_task=1)]
    [1, 2]
    """
    cut_by = Cut(documents=None, tasks=tasks, per_task=per_task, order_seed=order_seed)
    if wrong := list(_out_of_range(cut_by)):
        raise ConfigError("\n".join(wrong))
    gathering = Gathering("your own")
    found = {
        name: gathering.split(name, _own(name, split), needed=name == "test")
        for name, split in (("test", test), ("val", val), ("train", train))
    }
    about = {
        "data": "your own",
        "checksums": {name: _checksum(found[name]) for name in ("train", "val", "test")},
        "read": {name: gathering.about[name] for name in ("train", "val", "test")},
    }
    return cut(Loaded(found["train"], found["val"], found["test"], about), cut_by, requests)


def cut(loaded: Loaded, options: Cut, requests: Sequence[DocumentRequest] = ()) -> Corpus:
    """Cut the test split into tasks, and what comes before it to size.

    Raises:
        ConfigError: more tasks than documents, or requests that cannot be met.
        DataError: a task without any question.
    """
    train = _subset(loaded, loaded.train, options.upstream_documents, options.subset_seed)
    val = _subset(loaded, loaded.val, options.val_documents, options.subset_seed)
    test = _subset(loaded, loaded.test, options.documents, options.subset_seed)
    order = test.documents
    if options.order_seed is not None:
        order = _shuffled(order, loaded.groups, options.order_seed, "order of documents")
    readings = _tasks(order, _asked(test, options.questions_per_document), options)
    forgotten = resolve(requests, readings)
    stream = Split(order, tuple(question for reading in readings for question in reading.questions))
    about = {
        "stream": "documents",
        **loaded.about,
        "splits": {"train": sizes(train), "val": sizes(val), "test": sizes(stream)},
        "sizes": [len(reading.documents) for reading in readings],
        "questions": [len(reading.questions) for reading in readings],
        "questions_per_document": options.questions_per_document,
        "order_seed": options.order_seed,
        "subset_seed": options.subset_seed,
        "sha256": {"train": _checksum(train), "val": _checksum(val), "stream": _checksum(stream)},
    }
    if requests:
        in_order = sorted(requests, key=lambda one: one.after)
        about["requests"] = [_said(*pair) for pair in zip(forgotten, in_order, strict=True)]
    return Corpus(readings, Upstream(train, val), forgotten, about)


def resolve(requests: Sequence[DocumentRequest], readings: Sequence[Reading]) -> tuple[ForgetDocuments, ...]:
    """Find the documents that requests mean, and refuse what cannot be meant.

    Args:
        requests: those after one task come in the order given.
        readings: the tasks.

    Returns:
        One for each request, in the order in which they come; ids in the order in which they were read.

    Raises:
        ConfigError: a request that comes too late, names what does not exist, was not read yet or is forgotten
            already, or leaves nothing.
    """
    found: list[ForgetDocuments] = []
    gone: set[str] = set()
    for one in sorted(requests, key=lambda request: request.after):
        if one.after > len(readings):
            raise ConfigError(
                f"requests: after={one.after} must lie in [1, {len(readings)}]: the stream has {len(readings)} tasks"
            )
        read = [document for reading in readings[: one.after] for document in reading.documents]
        wanted = _meant(one, read, readings[one.after :], gone)
        if wanted and len(gone) + len(wanted) >= len(read):
            raise ConfigError(
                f"requests: after={one.after} would forget all {len(read)} documents read by then: leave at least one, "
                "or start anew"
            )
        found.append(ForgetDocuments(one.after, tuple(d.id for d in read if d.id in wanted)))
        gone |= wanted
    return tuple(found)


def _meant(one: DocumentRequest, read: Sequence[Document], later: Sequence[Reading], gone: set[str]) -> set[str]:
    """Ids that a request means, of documents that were read and are not forgotten."""
    left = [document for document in read if document.id not in gone]
    if one.count is not None:
        if one.count >= len(left):
            raise ConfigError(f"requests: count={one.count} must be below {len(left)}, the documents known by then")
        rng = numpy_generator(one.seed, 0, "documents to forget")
        return {left[row].id for row in rng.permutation(len(left))[: one.count].tolist()}
    if one.entity is not None:
        return _about(one.entity, one.after, read, later, gone)
    known = {document.id for document in read}
    when = {document.id: reading.info.index + 1 for reading in later for document in reading.documents}
    for id_ in one.documents or ():
        if id_ in when:
            raise ConfigError(
                f"requests: document {id_!r} is read in task {when[id_]}, after={one.after} is too early: ask later, "
                "or leave it out"
            )
        if id_ not in known:
            hint = nearest(id_, [*known, *when]) or listing([d.id for d in read], "documents", most=5)
            raise ConfigError(f"requests: document {id_!r} is not in the stream; {hint}")
        if id_ in gone:
            raise ConfigError(f"requests: document {id_!r} is forgotten already: leave it out")
    return set(one.documents or ())


def _about(entity: str, after: int, read: Sequence[Document], later: Sequence[Reading], gone: set[str]) -> set[str]:
    """Ids of the documents about an entity."""
    found = {document.id for document in read if document.entity == entity}
    if not found:
        coming = [one.info.index + 1 for one in later if any(document.entity == entity for document in one.documents)]
        if coming:
            raise ConfigError(
                f"requests: no document about {entity!r} was read in the first {after} tasks, task {coming[0]} brings "
                "one: ask later, or leave it out"
            )
        names = dict.fromkeys(document.entity for document in read if document.entity)
        hint = nearest(entity, names) or listing(names, "entities", most=5)
        raise ConfigError(f"requests: no document is about {entity!r}; {hint}")
    if found <= gone:
        raise ConfigError(f"requests: all documents about {entity!r} are forgotten already: leave it out")
    return found - gone


def _said(resolved: ForgetDocuments, asked: DocumentRequest) -> dict[str, Any]:
    """A request for the run folder; many documents as a checksum, and what named them."""
    said: dict[str, Any] = {"after": resolved.after, "documents": len(resolved.documents)}
    if asked.entity is not None:
        said["entity"] = asked.entity
    if asked.count is not None:
        said["seed"] = asked.seed
    return {**said, "sha256": hashlib.sha256(json.dumps(resolved.documents).encode()).hexdigest()}


def _subset(loaded: Loaded, split: Split, most: int | None, seed: int | None) -> Split:
    """At most so many documents with their questions, in the order they had."""
    if most is None or most >= len(split.documents):
        return split
    order: Sequence[Document] = split.documents
    if seed is not None:
        order = _shuffled(order, loaded.groups, seed, "subset of documents")
    kept = {document.id for document in order[:most]}
    return Split(
        tuple(document for document in split.documents if document.id in kept),
        tuple(question for question in split.questions if question.document in kept),
    )


def _shuffled(
    documents: Sequence[Document], groups: Mapping[str, tuple[str, int]], seed: int, purpose: str
) -> tuple[Document, ...]:
    """Documents in random order; groups stay together, each in the order of its places."""
    together: dict[tuple[str, str], list[Document]] = {}
    for document in documents:
        group = groups.get(document.id)
        together.setdefault(("", document.id) if group is None else ("group", group[0]), []).append(document)
    parts = list(together.values())
    drawn = [parts[at] for at in numpy_generator(seed, 0, purpose).permutation(len(parts)).tolist()]
    place = {id_: at for id_, (_, at) in groups.items()}
    return tuple(document for part in drawn for document in sorted(part, key=lambda one: place.get(one.id, 0)))


def _asked(split: Split, most: int | None) -> dict[str, tuple[Question, ...]]:
    """Questions by document, the first so many of each."""
    return {document.id: questions[:most] for document, questions in split.documented()}


def _tasks(
    documents: Sequence[Document], asked: Mapping[str, tuple[Question, ...]], options: Cut
) -> tuple[Reading, ...]:
    """Documents cut into tasks; a task's questions come in the order of its documents."""
    total = len(documents)
    if options.tasks is not None and options.tasks > total:
        raise ConfigError(f"tasks={options.tasks} must lie in [1, {total}]: the stream has {total} documents")
    if options.per_task is not None:
        edges = [*range(0, total, options.per_task), total]
    else:
        count = options.tasks or 1
        edges = [(task * (total // count)) + min(task, total % count) for task in range(count + 1)]
    readings = []
    for index, (start, end) in enumerate(pairwise(edges)):
        part = tuple(documents[start:end])
        questions = tuple(question for document in part for question in asked.get(document.id, ()))
        if not questions:
            raise DataError(
                f"task {index + 1} ({len(part)} documents from {part[0].id!r} on) has no question, so it could not be "
                "scored: make fewer tasks, or ask something of these documents"
            )
        readings.append(Reading(TaskInfo(index, ()), part, questions))
    return tuple(readings)


def _unfit(data: str, given: Mapping[str, object]) -> Iterator[str]:
    """Say which options do not fit the corpus."""
    if data not in READERS:
        yield f"data={data!r} is not known: {nearest(data, READERS) or listing(READERS, 'corpora')}"
        return
    for option, (takers, default) in USES.items():
        if data not in takers and given[option] != default:
            value = given[option] if isinstance(given[option], tuple) else str(given[option])
            yield f"{option}={show(value)} is for data={', '.join(takers)}, not data={data}: leave it out"


def _out_of_range(options: Cut) -> Iterator[str]:
    """Say what is wrong with how a stream is cut."""
    for option, value in asdict(options).items():
        least = 0 if option.endswith("seed") else 1
        if value is not None and value < least:
            yield f"{option}={value} must be {least} or more, or null"
    if options.tasks is not None and options.per_task is not None:
        yield f"tasks={options.tasks} and per_task={options.per_task} both say how to cut: give one of them"


def _own(split: str, given: Own) -> Iterator[Row]:
    """Rows of a user's split."""
    if isinstance(given, Split):
        yield from _rows_of(split, given)
        return
    for number, value in enumerate(given):
        where = f"{split}[{number}]"
        row = mapping(value, where)
        if "question" in row or "answer" in row:
            yield as_row(row, where)
            continue
        yield replace(as_row({**row, "question": "", "answer": ""}, where), question=None)
        for at, pair in enumerate(listed(row.get("questions", []), where, "questions")):
            here = f"{where}.questions[{at}]"
            if isinstance(pair, tuple | list) and len(pair) == 2:
                pair = {"question": pair[0], "answer": pair[1]}
            yield as_row({**row, **mapping(pair, here)}, here)


def _rows_of(name: str, split: Split) -> Iterator[Row]:
    known = {document.id: document for document in split.documents}
    for number, document in enumerate(split.documents):
        where = f"{name}.documents[{number}]"
        yield Row(where, document.text, None, id=document.id, entity=document.entity, timestamp=document.timestamp)
    for number, question in enumerate(split.questions):
        where = f"{name}.questions[{number}]"
        of = known.get(question.document)
        if of is None:
            raise DataError(f"{where} is about document {question.document!r}, which the split does not hold: add it")
        yield Row(where, of.text, question.text, question.answer, of.id, question.kind, question.field)


def _checksum(split: Split) -> str:
    """SHA-256 of documents and questions in their order."""
    rows = [[d.id, d.text, d.timestamp, d.entity] for d in split.documents]
    rows += [[q.document, q.text, q.answer, q.field, q.kind] for q in split.questions]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
