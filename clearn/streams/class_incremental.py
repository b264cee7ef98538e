"""New classes in each task: the standard benchmark of class-incremental learning.

"B50 Inc10" of the literature is base 50, increment 10; its class order is `order_seed: 1993`. That seed is a
setting apart from the run's own, so that the seed of training can vary over one order.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from clearn.errors import ConfigError, DataError
from clearn.parts.augment import Augment as BatchAugment
from clearn.parts.augment import augment as find_augment
from clearn.parts.columns import Column
from clearn.parts.samples import Samples
from clearn.stream import Facts, Probe, Stream, Task, TaskInfo
from clearn.streams.datasets import DataSet, Options, load
from clearn.streams.datasets.images import cut_at_random
from clearn.streams.datasets.merging import Groups, merged
from clearn.streams.datasets.record import relabel

if TYPE_CHECKING:
    from clearn.stream import Augment


class ClassIncremental(Stream):
    """Tasks of a data set's classes, each class in one task; the j-th class of the order has label j.

    Each task has one probe, "task i" from 1, with the test samples of its classes. Samples keep file order.

    Args:
        data: where the samples come from.
        increment: classes in each task, or a list with the size of every task.
        base: classes of the first task; 0 means `increment`.
        order_seed: of the class order, `numpy.random.RandomState(order_seed).permutation(n)` as the field
            draws it; None keeps the order of the data set.
        augment: of training images, or None.

    Raises:
        ConfigError: the sizes do not add up to the classes, or vectors were to be augmented.
        DataError: a class has no training sample, or a task no test sample.
    """

    def __init__(
        self,
        data: DataSet,
        increment: int | list[int] = 2,
        base: int = 0,
        order_seed: int | None = None,
        augment: Augment | None = None,
    ) -> None:
        check_augment(data, augment)
        sizes = split(len(data.classes), increment, base)
        order = class_order(len(data.classes), order_seed)
        label = torch.empty(len(order), dtype=torch.int64)
        label[order] = torch.arange(len(order))  # (C,) from the data set's label to the stream's

        ends = list(accumulate(sizes))
        infos = tuple(TaskInfo(i, tuple(range(a, b))) for i, (a, b) in enumerate(pairwise([0, *ends])))
        names = [data.classes[c] for c in order]
        about = {
            "stream": "class_incremental",
            **data.about,
            "sizes": sizes,
            "order_seed": order_seed,
            "order": order.tolist(),
            "classes": names,
        }
        if data.merged:
            about["merged"] = [list(data.merged[c]) for c in order]
        super().__init__(Facts(data.inputs, infos, augment, about, columns=tuple(data.columns)))
        self.known = data.columns
        self.train = _ByClass(relabel(data.train, label[data.train.labels]), len(order))
        self.test = _ByClass(relabel(data.test, label[data.test.labels]), len(order))
        self._check(data.name, names)

    def task(self, index: int) -> Task:
        """Copy the samples of task `index`."""
        info = self.infos[index]
        first, last = info.classes[0], info.classes[-1]
        probe = Probe(f"task {index + 1}", self.test.take(first, last), index)
        return Task(info, self.train.take(first, last), (probe,))

    def column(self, name: str, index: int) -> Column:
        """One of `columns` for the training samples of task `index`."""
        classes = self.infos[index].classes
        return self.known[name].take(self.train.of(classes[0], classes[-1]))

    def _check(self, name: str, names: list[str]) -> None:
        empty = (self.train.counts == 0).nonzero()[:, 0].tolist()
        if empty:
            raise DataError(
                f"data={name}: {len(empty)} of {len(names)} classes have no training sample, "
                f"{', '.join(repr(names[c]) for c in empty[:5])} for one: add samples or remove the class"
            )
        for info in self.infos:
            if not int(self.test.counts[info.classes[0] : info.classes[-1] + 1].sum()):
                raise DataError(
                    f"data={name}: task {info.index + 1} (classes "
                    f"{', '.join(names[c] for c in info.classes[:5])}) has no test sample, so it could not "
                    "be scored: add some"
                )


class _ByClass:
    """Samples sorted by label once, so that a run of labels is one slice."""

    def __init__(self, samples: Samples, classes: int) -> None:
        self.samples = samples
        self.rows = samples.labels.argsort(stable=True)  # (n,)
        self.counts = samples.labels.bincount(minlength=classes)  # (C,)
        self.ends = self.counts.cumsum(0)

    def take(self, first: int, last: int) -> Samples:
        """Samples of labels first..last, in file order."""
        return self.samples.take(self.of(first, last))

    def of(self, first: int, last: int) -> Tensor:
        """Rows of the samples of labels first..last, ascending."""
        start = int(self.ends[first] - self.counts[first])
        return self.rows[start : int(self.ends[last])].sort().values


def build(
    *,
    data: str = "digits",
    root: str | None = None,
    increment: int | list[int] = 2,
    base: int = 0,
    order_seed: int | None = None,
    augment: str | dict[str, Any] = "none",
    normalise: str | dict[str, Any] = "auto",
    pad: int = 0,
    rgb: bool = False,
    per_class_train: int | None = None,
    per_class_test: int | None = None,
    size: int | None = None,
    resize: int | None = None,
    resample: str = "bilinear",
    file: str | None = None,
    test_file: str | None = None,
    label: str = "label",
    columns: list[str] | None = None,
    merge: Groups | None = None,
    in_memory: int = 512 * 2**20,
    download: bool = False,
    workers: int = 0,
) -> Stream:
    """Make the stream from a config's keys.

    Args:
        data: one of `clearn.streams.DATASETS`.
        root: where it lies; None means CLEARN_DATA, or else the user's cache.
        increment: classes in each task, or a list with the size of every task.
        base: classes of the first task; 0 means `increment`.
        order_seed: of the class order (the field's is 1993); None keeps the order of the data set.
        augment: a name of `clearn.parts.augment.PRESETS`, or the fields of `Augment`.
        normalise: auto, cifar10, cifar100, imagenet, half, or {mean: [...], std: [...]}.
        pad: zero pixels added on each side of every image.
        rgb: repeat grey images to three channels.
        per_class_train: keep the first this many training samples of each class.
        per_class_test: likewise of the test samples.
        size: of pictures (data: folder, cub, cifar100, ...); the shorter side is resized to it and the centre cut out.
        resize: the shorter side before a centre of `size` is cut out, as in 256 before 224; null means `size`.
        resample: how pictures are resized: bilinear or bicubic.
        file: of data: arrays and csv.
        test_file: of data: csv.
        label: name of the label's column of data: csv.
        columns: of data: arrays and csv; arrays of the file, or columns of the table, that are no inputs but say, for
            one, whose a training sample is, so that requests can name their values.
        merge: classes into coarser ones, each in exactly one group: [[0, 1, 8], [2, 3]] by the names that the set gives
            them, {name: [...]}, or superclasses, the 20 of CIFAR-100. Which class a training sample had is kept as
            column "class". per_class_train and per_class_test count before the merge.
        in_memory: bytes up to which pictures are decoded once and kept; what is cut at random out of whole ones is not.
        download: let torchvision download a set that is missing.
        workers: processes that decode pictures which are not kept.
    """
    change = find_augment(augment)
    options = Options(
        name=data,
        root=root,
        file=file,
        test_file=test_file,
        label=label,
        columns=columns,
        size=size,
        resize=resize,
        resample=resample,
        pad=pad,
        rgb=rgb,
        per_class_train=per_class_train,
        per_class_test=per_class_test,
        normalise=normalise,
        in_memory=0 if change is not None and change.whole else in_memory,
        download=download,
        workers=workers,
    )
    data_set = load(options)
    return cut(data_set, increment=increment, base=base, order_seed=order_seed, augment=augment, merge=merge)


def cut(
    data: DataSet,
    *,
    increment: int | list[int] = 2,
    base: int = 0,
    order_seed: int | None = None,
    augment: str | dict[str, Any] = "none",
    merge: Groups | None = None,
) -> ClassIncremental:
    """Cut a data set that was read before into tasks; arguments as in `build`."""
    data = data if merge is None else merged(data, merge)
    change = find_augment(augment)
    if change is not None and change.whole and change.resized_crop is not None:
        data, change = cut_at_random(data, change.resized_crop), change.on_batches()
    return ClassIncremental(data, increment, base, order_seed, change)


def split(classes: int, increment: int | list[int], base: int = 0) -> list[int]:
    """Work out the number of classes of each task.

    Raises:
        ConfigError: they do not add up to `classes`.

    >>> split(100, 10, base=50)
    [50, 10, 10, 10, 10, 10]
    """
    if isinstance(increment, list | tuple):
        sizes = list(increment)
        if base:
            raise ConfigError(f"base={base} and increment={sizes}: a list says all sizes; leave base out")
        if not sizes or min(sizes) < 1 or sum(sizes) != classes:
            raise ConfigError(
                f"increment={sizes} has sizes that sum to {sum(sizes)}; sizes of 1 or more that sum to the "
                f"{classes} classes of the data set are right"
            )
        return sizes
    if increment < 1 or not 0 <= base <= classes:
        raise ConfigError(
            f"increment={increment}, base={base}: increment must be 1 or more, base must lie "
            f"in [0, {classes}], the classes of the data set"
        )
    rest = classes - base
    if rest % increment:
        raise ConfigError(_nearest_splits(classes, increment, base))
    return [base] * (base > 0) + [increment] * (rest // increment)


def _nearest_splits(classes: int, increment: int, base: int) -> str:
    rest = classes - base
    whole = [d for d in range(1, rest + 1) if rest % d == 0]
    below, above = [d for d in whole if d < increment][-1:], [d for d in whole if d > increment][:1]
    bases = [classes - (rest // increment + more) * increment for more in (1, 0, -1)]
    bases = [b for b in bases if 0 < b < classes][:2]
    with_bases = f", or base {' or '.join(map(str, bases))} with increment {increment}" if bases else ""
    of = f"{rest} classes after base={base}" if base else f"{classes} classes of the data set"
    return (
        f"increment={increment} leaves {rest % increment} of the {of} over; right are increment "
        f"{' or '.join(map(str, below + above))}{with_bases}, or a list of sizes that sum to {classes}"
    )


def class_order(classes: int, seed: int | None) -> Tensor:
    """Draw the order in which classes come, (classes,) int64.

    >>> class_order(100, 1993)[:5].tolist()
    [68, 56, 78, 8, 23]
    """
    if seed is None:
        return torch.arange(classes)
    return torch.from_numpy(random_state(seed).permutation(classes).astype(np.int64))


def random_state(seed: int) -> np.random.RandomState:
    """NumPy's legacy generator, whose orders the field's papers use."""
    if not 0 <= seed < 2**32:
        raise ConfigError(f"order_seed={seed} must lie in [0, {2**32 - 1}]: NumPy's legacy generator takes no other")
    return np.random.RandomState(seed)


def check_augment(data: DataSet, augment: Augment | None) -> None:
    """Refuse to augment vectors, and what `cut` alone arranges."""
    if augment is not None and not data.is_images:
        raise ConfigError(f"augment is for images; data={data.name} holds vectors: take augment: none")
    if isinstance(augment, BatchAugment) and augment.whole:
        raise ConfigError(
            "augment whole=True cuts pictures where they are decoded, and class_incremental streams alone do so: take "
            "such a stream, or augment: imagenet, which cuts the stored images"
        )
