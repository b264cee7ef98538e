"""Our samples as Avalanche's datasets, and a task as the experience that its strategies train on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from clearn.avalanche import library
from clearn.parts.samples import Samples, TensorSamples
from clearn.stream import TaskInfo

Transform = Callable[[Tensor], Tensor]


class TaskData(Dataset[tuple[Tensor, int]]):
    """Samples as a map-style dataset: item i is (input as stored, label).

    Attributes:
        samples: what is served.
        targets: their labels, where Avalanche looks for them.
    """

    def __init__(self, samples: Samples) -> None:
        self.samples = samples
        self.targets: list[int] = samples.labels.tolist()
        self._rows = samples.inputs if isinstance(samples, TensorSamples) else None

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if self._rows is not None:
            return self._rows[index], self.targets[index]
        return self.samples.fetch(torch.tensor([index]))[0], self.targets[index]


def dataset(
    samples: Samples, task_label: int = 0, transforms: tuple[Transform | None, Transform | None] = (None, None)
) -> Any:
    """Make Avalanche's dataset of samples: items are (input, label, task label).

    Args:
        samples: served as stored.
        task_label: of all of them.
        transforms: of each input in training, and in evaluation; None leaves it as stored.
    """
    library()
    from avalanche.benchmarks.utils import _make_taskaware_classification_dataset

    data = TaskData(samples)
    if transforms == (None, None):
        return _make_taskaware_classification_dataset(data, targets=data.targets, task_labels=task_label)
    groups = {"train": (transforms[0], None), "eval": (transforms[1], None)}
    return _make_taskaware_classification_dataset(
        data, targets=data.targets, task_labels=task_label, transform_groups=groups
    )


def experience(samples: Samples, seen: Sequence[TaskInfo], classes: int | None) -> Any:
    """Make the experience of the newest task, on a benchmark that ends with it: a learner knows no later ones.

    Args:
        samples: the task's training samples.
        seen: tasks so far, this one last.
        classes: how many there will be in all, where that is known beforehand.
    """
    from avalanche.benchmarks import benchmark_from_datasets

    benchmark = benchmark_from_datasets(train=[dataset(samples)])
    told: list[int] = []  # labels in the order in which they came
    counts: list[int] = []
    for info in seen:
        new = [label for label in info.classes if label not in told]
        counts.append(len(new))
        told += new
    current, before = set(seen[-1].classes), {label for info in seen[:-1] for label in info.classes}
    if classes is not None and classes > len(told):
        counts.append(classes - len(told))
        told += [label for label in range(classes) if label not in told]
    benchmark.n_classes, benchmark.n_classes_per_exp, benchmark.classes_order = len(told), counts, told
    [found] = benchmark.streams["train"]
    found.current_experience, found.benchmark = len(seen) - 1, benchmark
    found.task_label, found.task_labels = 0, [0]
    found.classes_in_this_experience = sorted(current)
    found.previous_classes, found.classes_seen_so_far = before, before | current
    found.future_classes = set(told) - before - current
    return found
