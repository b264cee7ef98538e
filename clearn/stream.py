"""What a learner is given: tasks in an order, each with training samples and the probes it is scored on.

A reader is given documents and is asked questions, a frequency protocol rounds of the values that users hold; both
stand at the end. Plain frozen records and sequences; nothing here knows of learners, and nothing heavy is imported.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    import numpy as np
    import torch

    from clearn.parts.columns import Column
    from clearn.parts.samples import Samples

    Augment = Callable[[torch.Tensor, torch.Generator], torch.Tensor]
    Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Inputs:
    """What one input of a stream looks like; all that a network may know of the data beforehand.

    Attributes:
        shape: of one input: (channels, height, width) for images, (d,) for vectors.
        dtype: as stored, "uint8" (images, 0..255) or "float32".
        mean: per channel, of pixels scaled to 0..1; empty means 0.
        std: per channel, of pixels scaled to 0..1; empty means 1.
    """

    shape: tuple[int, ...]
    dtype: str = "uint8"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


@dataclass(frozen=True)
class TaskInfo:
    """All that a learner's structure may depend on.

    Attributes:
        index: position in the stream, from 0.
        classes: labels trained in this task, ascending. Labels are remapped: the j-th class of the class order is j.
    """

    index: int
    classes: tuple[int, ...]


@dataclass(frozen=True)
class Probe:
    """A named test set, scored by counting correct answers per class.

    Attributes:
        name: as printed, e.g. "task 1".
        data: its samples.
        task: index of the task it belongs to, from 0; it is scored after that task and after every later one.
    """

    name: str
    data: Samples
    task: int


@dataclass(frozen=True)
class Task:
    """One experience: samples to learn from, and the probes that come with it."""

    info: TaskInfo
    train: Samples
    probes: tuple[Probe, ...]


@dataclass(frozen=True)
class Request:
    """What is to be forgotten, and when; known before any data is built.

    Attributes:
        after: so many tasks are learned before it, 1 or more.
        classes: labels that go with all their samples; empty where single samples go.
        rows: training samples that go, as (task, row in its training samples) from 0, ascending; empty for classes.
        look_back: whether the training samples of past tasks may be read again.
    """

    after: int
    classes: tuple[int, ...] = ()
    rows: tuple[tuple[int, int], ...] = ()
    look_back: bool = False


@dataclass(frozen=True)
class Forget:
    """A request as it reaches an unlearner.

    Attributes:
        request: what and when.
        forget: the training samples that have to go; they come with the request.
        past: the tasks learned so far without those samples, in order; None where looking back is not allowed.
        probes: of those tasks.
    """

    request: Request
    forget: Samples
    past: tuple[Task, ...] | None
    probes: tuple[Probe, ...]


@dataclass(frozen=True)
class Facts:
    """What a stream knows of itself without building any data.

    Attributes:
        inputs: what one input looks like.
        infos: one per task, in order.
        augment: draws a randomly changed copy of a training batch, or None.
        about: JSON-able facts for the run folder: data set, checksums, sizes, class order.
        requests: to forget, in the order in which they come.
        columns: names of what is known of training samples beside their labels, to say which are to be forgotten.
    """

    inputs: Inputs
    infos: tuple[TaskInfo, ...]
    augment: Augment | None = None
    about: dict[str, Any] = field(default_factory=dict)
    requests: tuple[Request, ...] = ()
    columns: tuple[str, ...] = ()


class Stream(Sequence[Task]):
    """A sequence of tasks: data is built on access, and there is no cursor."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts

    @property
    def inputs(self) -> Inputs:
        """What one input looks like."""
        return self.facts.inputs

    @property
    def infos(self) -> tuple[TaskInfo, ...]:
        """One per task, in order."""
        return self.facts.infos

    @property
    def augment(self) -> Augment | None:
        """The training augmentation, or None."""
        return self.facts.augment

    @property
    def about(self) -> dict[str, Any]:
        """JSON-able facts for the run folder."""
        return self.facts.about

    @property
    def requests(self) -> tuple[Request, ...]:
        """To forget, in the order in which they come."""
        return self.facts.requests

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what is known of training samples beside their labels; no learner is told."""
        return self.facts.columns

    @property
    def events(self) -> tuple[TaskInfo | Request, ...]:
        """Tasks and requests in the order in which they come: a request follows the task that it names."""
        found: list[TaskInfo | Request] = []
        for info in self.infos:
            found.append(info)
            found += [request for request in self.requests if request.after == info.index + 1]
        return tuple(found)

    def learned(self, steps: int) -> tuple[TaskInfo, ...]:
        """The tasks among the first so many events."""
        return tuple(event for event in self.events[:steps] if isinstance(event, TaskInfo))

    def forget(self, request: Request) -> Forget:
        """Build what an unlearner is given; only a stream with requests can."""
        raise NotImplementedError(f"{type(self).__name__} has no requests")

    def column(self, name: str, index: int) -> Column:
        """One of `columns` for the training samples of task `index`, in their order; only a stream with columns can."""
        raise NotImplementedError(f"{type(self).__name__} has no columns")

    def staying(self, request: Request) -> tuple[Task, ...]:
        """The tasks learned before a request without what was to be forgotten so far, for whoever judges."""
        raise NotImplementedError(f"{type(self).__name__} has no requests")

    def __len__(self) -> int:
        return len(self.facts.infos)

    @overload
    def __getitem__(self, index: int) -> Task: ...

    @overload
    def __getitem__(self, index: slice) -> list[Task]: ...

    def __getitem__(self, index: int | slice) -> Task | list[Task]:
        if isinstance(index, slice):
            return [self.task(i) for i in range(*index.indices(len(self)))]
        i = index + len(self) if index < 0 else index
        if not 0 <= i < len(self):
            raise IndexError(f"task {index} of a stream of {len(self)}")
        return self.task(i)

    @abstractmethod
    def task(self, index: int) -> Task:
        """Build task `index`, 0 <= index < len(self)."""


@dataclass(frozen=True)
class Document:
    """A text to be remembered.

    Attributes:
        id: unique in its stream.
        text: not empty.
        timestamp: when it was written, as the data has it; "" where that is not known.
        entity: what it is about; "" where that is not known. Requests to forget can name it.
    """

    id: str
    text: str
    timestamp: str = ""
    entity: str = ""


@dataclass(frozen=True)
class Query:
    """What a reader is shown of a question.

    Attributes:
        text: the question itself.
        document: id of the document that answers it. A control that is given the right document may use it; a method
            that does has seen the answer's place.
        field: the template that made the question, "" where none did; the majority answer goes by it.
    """

    text: str
    document: str
    field: str = ""


@dataclass(frozen=True)
class Question(Query):
    """A question and what is right.

    Attributes:
        answer: the reference.
        kind: of the answer: name, number, percent, date, code; "" where that is not known.
    """

    answer: str = ""
    kind: str = ""

    @property
    def query(self) -> Query:
        """What a reader is shown of it."""
        return Query(self.text, self.document, self.field)


@dataclass(frozen=True)
class Split:
    """Documents and the questions that they answer: every question's document is among them."""

    documents: tuple[Document, ...]
    questions: tuple[Question, ...]

    def documented(self) -> tuple[tuple[Document, tuple[Question, ...]], ...]:
        """Each document with its questions, in the order of documents; those without questions are left out."""
        asked: dict[str, list[Question]] = {}
        for question in self.questions:
            asked.setdefault(question.document, []).append(question)
        return tuple((one, tuple(asked[one.id])) for one in self.documents if one.id in asked)


@dataclass(frozen=True)
class Upstream:
    """What may be learned from before the stream begins; it shares no document with the stream."""

    train: Split
    val: Split


@dataclass(frozen=True)
class Row:
    """What a reader is prepared on: a document and a question that it answers."""

    document: Document
    question: Question


@dataclass(frozen=True)
class Reading:
    """One task of a corpus: documents to read, and the questions about them, which are asked from then on.

    `info.classes` is empty.
    """

    info: TaskInfo
    documents: tuple[Document, ...]
    questions: tuple[Question, ...]


@dataclass(frozen=True)
class ForgetDocuments:
    """A request to forget.

    Attributes:
        after: so many tasks are read before it, 1 or more.
        documents: ids that go.
    """

    after: int
    documents: tuple[str, ...]


class Corpus(Sequence[Reading]):
    """Documents to read in tasks, requests to forget some of them, and what a method may be prepared on.

    Args:
        readings: in order; task i has `info.index` i.
        upstream: for meta-training.
        requests: in the order in which they come; those after one task in the order given.
        about: JSON-able facts for the run folder: data set, checksums, sizes.
    """

    def __init__(
        self,
        readings: Sequence[Reading],
        upstream: Upstream,
        requests: Sequence[ForgetDocuments] = (),
        about: dict[str, Any] | None = None,
    ) -> None:
        self.readings, self.upstream, self.about = tuple(readings), upstream, dict(about or {})
        self.requests = tuple(sorted(requests, key=lambda request: request.after))

    @property
    def infos(self) -> tuple[TaskInfo, ...]:
        """One per task, in order."""
        return tuple(reading.info for reading in self.readings)

    @property
    def events(self) -> tuple[Reading | ForgetDocuments, ...]:
        """Tasks and requests in the order in which they come: a request follows the task that it names."""
        found: list[Reading | ForgetDocuments] = []
        for reading in self.readings:
            found.append(reading)
            found += [request for request in self.requests if request.after == reading.info.index + 1]
        return tuple(found)

    def read(self, steps: int) -> tuple[Reading, ...]:
        """The tasks among the first so many events."""
        return tuple(event for event in self.events[:steps] if isinstance(event, Reading))

    def forgotten(self, steps: int) -> frozenset[str]:
        """Ids of the documents that were to be forgotten in the first so many events."""
        asked = (event for event in self.events[:steps] if isinstance(event, ForgetDocuments))
        return frozenset(name for request in asked for name in request.documents)

    def __len__(self) -> int:
        return len(self.readings)

    @overload
    def __getitem__(self, index: int) -> Reading: ...

    @overload
    def __getitem__(self, index: slice) -> list[Reading]: ...

    def __getitem__(self, index: int | slice) -> Reading | list[Reading]:
        return list(self.readings[index]) if isinstance(index, slice) else self.readings[index]


@dataclass(frozen=True)
class Attribute:
    """One question whose answers are counted.

    Attributes:
        name: as printed.
        k: how many values it has; they are 0..k-1.
        labels: what each value is called; empty where values have no names.
    """

    name: str
    k: int
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Round:
    """The true values at one moment of a collection.

    Attributes:
        index: from 0.
        counts: one (k_j,) int64 array per attribute: how many users hold each value. It is what estimates are
            compared with.
        values: (n, d) unsigned integers, or None where the population is known by its counts alone.
    """

    index: int
    counts: tuple[Array, ...]
    values: Array | None


class Collection(Sequence[Round]):
    """Rounds of one population: built on access, and there is no cursor.

    Args:
        attributes: at least one.
        n_users: the same users in all rounds.
        rounds: how many there are, at least 1.
        static: whether no user's value ever changes.
        rows: whether values are known user by user; if not, `Round.values` is None.
        about: JSON-able facts for the run folder: data set, checksum of what was read, sizes.
    """

    def __init__(
        self,
        attributes: Sequence[Attribute],
        n_users: int,
        rounds: int,
        static: bool,
        rows: bool,
        about: dict[str, Any],
    ) -> None:
        self.attributes, self.n_users, self.rounds = tuple(attributes), n_users, rounds
        self.static, self.rows, self.about = static, rows, about

    @property
    def domains(self) -> tuple[int, ...]:
        """(d,) number of values of each attribute."""
        return tuple(attribute.k for attribute in self.attributes)

    def __len__(self) -> int:
        return self.rounds

    @overload
    def __getitem__(self, index: int) -> Round: ...

    @overload
    def __getitem__(self, index: slice) -> list[Round]: ...

    def __getitem__(self, index: int | slice) -> Round | list[Round]:
        if isinstance(index, slice):
            return [self.round(i) for i in range(*index.indices(len(self)))]
        i = index + len(self) if index < 0 else index
        if not 0 <= i < len(self):
            raise IndexError(f"round {index} of a collection of {len(self)}")
        return self.round(i)

    @abstractmethod
    def round(self, index: int) -> Round:
        """Give round `index`, 0 <= index < len(self)."""
