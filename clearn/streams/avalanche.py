"""Avalanche's benchmarks as our streams, and our streams as Avalanche's benchmarks (avalanche-lib 0.6).

    stream = from_avalanche(SplitMNIST(5))
    benchmark = to_avalanche(clearn.from_arrays(x, y, increment=2))

Both ways images stay bytes: what a benchmark does to them in training and evaluation (ToTensor, Normalize, crops) is
left out, since a stream normalises inside the network and augments batches. What belongs to the data itself, a frozen
transform such as the permutation of PermutedMNIST, is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from clearn.avalanche import library
from clearn.errors import ConfigError, DataError
from clearn.parts.augment import augment as find_augment
from clearn.parts.backbones.normalise import Normalise
from clearn.parts.samples import Samples, concat
from clearn.stream import Facts, Inputs, Probe, Stream, Task, TaskInfo
from clearn.streams.class_incremental import check_augment
from clearn.streams.datasets import DataSet, from_dataset
from clearn.streams.datasets.record import relabel

if TYPE_CHECKING:
    from clearn.stream import Augment


def from_avalanche(
    benchmark: Any,
    *,
    labels: Literal["as_they_are", "by_task"] | None = None,
    augment: str | dict[str, Any] = "none",
    normalise: str | Mapping[str, Any] = "auto",
    in_memory: int = 512 * 2**20,
    workers: int = 0,
) -> Stream:
    """Make a stream of an Avalanche classification benchmark: a task for each experience of its train stream.

    Labels are remapped in the order in which they come. Task i is tested on experience i of the test stream; where that
    stream has another length, each test sample goes to the task that first brought its class.

    Args:
        benchmark: with streams "train" and "test" of labelled inputs: PIL images, arrays or tensors by the rules of
            `clearn.from_dataset`.
        labels: what a label means that comes back under another task label: the same class ("as_they_are", as in
            permuted images), or another one ("by_task", as in benchmarks that number the classes of each experience
            from 0). None asks only where it matters.
        augment: name of a preset or its options.
        normalise: "auto" is 0.5 for images; see `datasets.Options`.
        in_memory: bytes up to which the data is read once and kept.
        workers: processes that decode items of larger data.

    Raises:
        DataError: a stream is missing or empty, labels mean two things, or inputs are neither images nor vectors.
    """
    library()
    train, test = _experiences(benchmark)
    told = _task_labels(train)
    by_task = _by_task(train, told, labels)
    parts = [
        [_Items(one, label, by_task) for one, label in zip(s, _task_labels(s), strict=True)] for s in (train, test)
    ]
    name = type(benchmark).__name__
    data = from_dataset(
        *(_Joined(part) for part in parts), normalise=normalise, in_memory=in_memory, workers=workers, name=name
    )
    sizes, test_sizes = ([len(one) for one in part] for part in parts)
    return FromAvalanche(data, sizes, test_sizes, told, find_augment(augment))


class FromAvalanche(Stream):
    """Tasks as the experiences of a benchmark have them.

    Args:
        data: all experiences, one after the other.
        train: samples of each training experience.
        test: samples of each test experience.
        task_labels: of the training experiences, for the run folder: learners are not told.
        augment: of training images, or None.
    """

    def __init__(
        self,
        data: DataSet,
        train: Sequence[int],
        test: Sequence[int],
        task_labels: Sequence[int],
        augment: Augment | None,
    ) -> None:
        check_augment(data, augment)
        rows = torch.arange(len(data.train)).split(list(train))
        came = [data.train.labels[part].unique().tolist() for part in rows]
        order = list(dict.fromkeys(label for classes in came for label in classes))
        new = torch.full((len(data.classes),), -1, dtype=torch.int64)
        new[torch.tensor(order)] = torch.arange(len(order))
        infos = tuple(TaskInfo(i, tuple(sorted(new[classes].tolist()))) for i, classes in enumerate(came))
        about = {
            "stream": "avalanche",
            **data.about,
            "sizes": [len(info.classes) for info in infos],
            "order": order,
            "classes": [data.classes[label] for label in order],
            "task_labels": list(task_labels),
        }
        super().__init__(Facts(data.inputs, infos, augment, about))
        self.train = relabel(data.train, new[data.train.labels])
        self.test = relabel(data.test, new[data.test.labels])
        self.rows, self.test_rows = rows, self._tested(list(test))
        empty = [i for i, found in enumerate(self.test_rows) if not len(found)]
        if 0 in empty or (empty and len(test) == len(train)):
            raise DataError(f"task {empty[0] + 1} of this benchmark has no test sample, so it could not be scored")

    def task(self, index: int) -> Task:
        """Copy the samples of experience `index`."""
        found = self.test_rows[index]
        probe = Probe(f"task {index + 1}", self.test.take(found), index)
        return Task(self.infos[index], self.train.take(self.rows[index]), (probe,) if len(found) else ())

    def _tested(self, sizes: list[int]) -> list[Tensor]:
        """Rows of the test samples of each task."""
        if len(sizes) == len(self.infos):
            return list(torch.arange(len(self.test)).split(sizes))
        first: dict[int, int] = {}
        for info in self.infos:
            for label in info.classes:
                first.setdefault(label, info.index)
        owner = torch.tensor([first[label] for label in self.test.labels.tolist()])
        return [(owner == info.index).nonzero()[:, 0] for info in self.infos]


def to_avalanche(stream: Stream, *, task_labels: bool = False) -> Any:
    """Make an Avalanche benchmark of a stream: experiences of its train and test streams are the tasks.

    Items are (input, label, task label); inputs are stored as the stream has them and come out augmented in training,
    if the stream is, and normalised, as float32. Labels are the stream's: the j-th class of its order is j.

    Args:
        stream: of tasks.
        task_labels: number the experiences as tasks, for methods with a head a task; else all are of task 0.

    Returns:
        A `CLScenario` with the classes' timeline, task labels, and what Avalanche's iCaRL asks of it.

    Raises:
        ConfigError: the stream has requests to forget, which Avalanche has not.
    """
    if stream.requests:
        raise ConfigError(
            f"the stream has {len(stream.requests)} requests to forget, which an Avalanche benchmark cannot hold: "
            "leave them out"
        )
    library()
    from avalanche.benchmarks import benchmark_from_datasets, with_classes_timeline, with_task_labels

    from clearn.avalanche.data import dataset

    see = _See(stream.inputs, None)
    learn = see if stream.augment is None else _See(stream.inputs, stream.augment)
    parts: dict[str, list[Any]] = {"train": [], "test": []}
    for task in stream:
        label = task.info.index if task_labels else 0
        tested: Samples = concat([probe.data for probe in task.probes])
        parts["train"].append(dataset(task.train, label, (learn, see)))
        parts["test"].append(dataset(tested, label, (see, see)).eval())
    benchmark = with_task_labels(with_classes_timeline(benchmark_from_datasets(**parts)))
    told: list[int] = []
    counts: list[int] = []
    for info in stream.infos:
        new = [label for label in info.classes if label not in told]
        told, counts = told + new, [*counts, len(new)]
    benchmark.n_classes, benchmark.n_classes_per_exp, benchmark.classes_order = len(told), counts, told
    for each in benchmark.streams.values():
        for one in each:
            one.benchmark = benchmark
    return benchmark


class _See:
    """A transform of one input as stored: augmented with torch's global draws, as Avalanche's are, and normalised."""

    def __init__(self, inputs: Inputs, augment: Augment | None) -> None:
        self.normalise, self.augment = Normalise(inputs), augment

    def __call__(self, x: Tensor) -> Tensor:
        """(*shape) as stored -> (*shape) float32."""
        batch = x[None] if self.augment is None else self.augment(x[None], torch.default_generator)
        seen: Tensor = self.normalise(batch)[0]
        return seen


class _Items:
    """An experience's items before its transforms: (input, label).

    Args:
        experience: of Avalanche.
        task_label: of the experience.
        by_task: whether that is part of the label.
    """

    def __init__(self, experience: Any, task_label: int, by_task: bool) -> None:
        self.flat = experience.dataset._flat_data
        plain = [int(label) for label in experience.dataset.targets]
        self.targets: list[Any] = [f"task {task_label} class {label}" for label in plain] if by_task else plain

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return _bare(self.flat, index)[0], self.targets[index]


class _Joined:
    """Experiences one after the other, with their labels where `from_dataset` looks for them."""

    def __init__(self, parts: Sequence[_Items]) -> None:
        self.parts = parts
        self.place = [(k, row) for k, part in enumerate(parts) for row in range(len(part))]
        self.targets = [label for part in parts for label in part.targets]

    def __len__(self) -> int:
        return len(self.place)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        part, row = self.place[index]
        return self.parts[part][row]


def _bare(flat: Any, index: int) -> Any:
    """Item `index` with the frozen transforms alone, which are part of the data."""
    from avalanche.benchmarks.utils.flat_data import FlatData

    part, row = flat._get_idx(index)
    inner = flat._datasets[part]
    item = _bare(inner, row) if isinstance(inner, FlatData) else inner[row]
    frozen = getattr(flat, "_frozen_transform_groups", None)
    return item if frozen is None else frozen(item, group_name="eval")


def _experiences(benchmark: Any) -> tuple[list[Any], list[Any]]:
    """Its training and its test experiences."""
    streams = getattr(benchmark, "streams", None)
    if not isinstance(streams, Mapping) or not {"train", "test"} <= streams.keys():
        got = f"streams {', '.join(streams)}" if isinstance(streams, Mapping) else type(benchmark).__name__
        raise DataError(f"an Avalanche benchmark with streams train and test is right, got {got}: give such a one")
    return _labelled(streams["train"], "train"), _labelled(streams["test"], "test")


def _labelled(stream: Any, name: str) -> list[Any]:
    found = list(stream)
    empty = [i for i, one in enumerate(found) if not len(one.dataset)]
    if empty or not found:
        which = f"experience {empty[0]} of its {name} stream" if empty else f"its {name} stream"
        raise DataError(f"{which} is empty: give every experience at least one sample")
    lacking = [i for i, one in enumerate(found) if not hasattr(one.dataset, "targets")]
    if lacking:
        raise DataError(f"experience {lacking[0]} of its {name} stream has no targets: a classification benchmark has")
    return found


def _task_labels(experiences: Sequence[Any]) -> list[int]:
    """The task label of each experience; 0 where there is none.

    Raises:
        DataError: an experience mixes several.
    """
    found = []
    for i, one in enumerate(experiences):
        told = getattr(one.dataset, "targets_task_labels", None)
        several = sorted({int(label) for label in told.uniques}) if told is not None else [0]
        if len(several) > 1:
            raise DataError(f"experience {i} mixes task labels {several}: split it into experiences of one task each")
        found.append(several[0])
    return found


def _by_task(experiences: Sequence[Any], told: Sequence[int], labels: str | None) -> bool:
    """Whether a label means another class under another task label.

    Raises:
        DataError: that matters and was not said.
    """
    if labels is not None:
        return labels == "by_task"
    owners: dict[int, int] = {}
    for one, task in zip(experiences, told, strict=True):
        for label in sorted({int(label) for label in one.dataset.targets.uniques}):
            if owners.setdefault(label, task) != task:
                raise DataError(
                    f"label {label} comes under task labels {owners[label]} and {task}: say whether that is the same "
                    "class, labels='as_they_are', or another one, labels='by_task'"
                )
    return False
