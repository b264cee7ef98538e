"""The same classes in each task, other domains: pixels permuted, rotated, inverted, or a user's own domains.

Permuted and rotated digits follow Goodfellow et al. 2013 (arXiv:1312.6211) and Lopez-Paz & Ranzato 2017
(arXiv:1706.08840); task 1 is the data set as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clearn.errors import ConfigError, DataError
from clearn.parts.augment import augment as find_augment
from clearn.parts.columns import Column
from clearn.parts.samples import Samples, TensorSamples
from clearn.stream import Facts, Probe, Stream, Task, TaskInfo
from clearn.streams.class_incremental import check_augment, random_state
from clearn.streams.datasets import DataSet, Options, load

if TYPE_CHECKING:
    from clearn.stream import Augment

TRANSFORMS = ("permute", "rotate", "invert")
TASKS = 5  # where neither `tasks` nor a list says how many
CHUNK = 4096  # images rotated at a time, as floats


@dataclass(frozen=True)
class Domain:
    """A data set, seen through a change of its inputs.

    Attributes:
        name: for reports.
        data: shared by the domains that are made from it.
        change: (n, C, H, W) uint8 or (n, d) float32 to the same; None means as it is.
    """

    name: str
    data: DataSet
    change: Callable[[Tensor], Tensor] | None = None

    def of(self, samples: Samples) -> Samples:
        """See samples of the data set as this domain has them."""
        if self.change is None:
            return samples
        assert isinstance(samples, TensorSamples)  # checked by `transformed`
        return TensorSamples(self.change(samples.inputs), samples.labels)


class DomainIncremental(Stream):
    """One task a domain; each trains all classes and has one probe, "task i" from 1, with its test samples.

    Args:
        domains: at least one, with the same classes and shape of inputs; the normalisation is the first's.
        augment: of training images, or None.
        facts: more for `about`.

    Raises:
        DataError: the domains differ in classes or shape, or a class has no training sample in one of them.
    """

    def __init__(
        self, domains: Sequence[Domain], augment: Augment | None = None, facts: dict[str, Any] | None = None
    ) -> None:
        _check_alike(domains)
        data = domains[0].data
        check_augment(data, augment)
        shared = all(domain.data is data for domain in domains)
        about = {
            "stream": "domain_incremental",
            **(data.about if shared else {"data": {domain.name: domain.data.about for domain in domains}}),
            **(facts or {}),
            "domains": [domain.name for domain in domains],
            "classes": list(data.classes),
        }
        every = tuple(range(len(data.classes)))
        infos = tuple(TaskInfo(i, every) for i in range(len(domains)))
        columns = tuple(name for name in data.columns if all(name in domain.data.columns for domain in domains))
        super().__init__(Facts(data.inputs, infos, augment, about, columns=columns))
        self.domains = tuple(domains)

    def task(self, index: int) -> Task:
        """Change the samples of the data set into those of domain `index`."""
        domain = self.domains[index]
        probe = Probe(f"task {index + 1}", domain.of(domain.data.test), index)
        return Task(self.infos[index], domain.of(domain.data.train), (probe,))

    def column(self, name: str, index: int) -> Column:
        """One of `columns` for the training samples of task `index`."""
        return self.domains[index].data.columns[name]


def build(
    *,
    data: str = "digits",
    root: str | None = None,
    transform: str | list[str] | None = None,
    tasks: int | None = None,
    angle: float = 90.0,
    domains: list[str] | None = None,
    order_seed: int = 0,
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
    in_memory: int = 512 * 2**20,
    download: bool = False,
    workers: int = 0,
) -> Stream:
    """Make the stream from a config's keys; those not named here are as in `class_incremental.build`.

    Args:
        data: one of `clearn.streams.DATASETS`.
        root: where it lies; with `domains`, the folder above them.
        transform: permute (the default), rotate, invert, or a list with one of identity, permute, invert and
            "rotate DEGREES" for each task.
        tasks: how many; None means 5 (rotate: as many as differ, at most 5; invert: 2).
        angle: of transform: rotate, in degrees counter-clockwise from one task to the next.
        domains: of data: folder; ROOT/DOMAIN/train/CLASS/* and ROOT/DOMAIN/test/CLASS/* make a task each.
        order_seed: of the permutations, numpy.random.RandomState(order_seed).
    """
    if domains is not None and (data != "folder" or transform is not None or tasks is not None or not domains):
        raise ConfigError(
            f"domains={domains} goes with data: folder and a root alone (data={data}, transform={transform}, "
            f"tasks={tasks}): name one domain or more, and leave transform and tasks out"
        )

    def options(place: str | None) -> Options:
        return Options(
            name=data,
            root=place,
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
            in_memory=in_memory,
            download=download,
            workers=workers,
        )

    if domains is not None:
        options(root)  # a missing root is reported here
        sets = [replace(load(options(str(Path(str(root)) / name))), name=name) for name in domains]
        return from_domains(sets, augment)
    steps = plan("permute" if transform is None else transform, tasks, angle)
    each = transformed(load(options(root)), steps, order_seed)
    return DomainIncremental(each, find_augment(augment), {"order_seed": order_seed})


def from_domains(domains: Sequence[DataSet], augment: str | dict[str, Any] = "none") -> DomainIncremental:
    """Make a stream of data sets with the same classes, one task each."""
    return DomainIncremental([Domain(data.name, data) for data in domains], find_augment(augment))


def plan(transform: str | list[str], tasks: int | None = None, angle: float = 90.0) -> list[str]:
    """Say what happens to the inputs in each task.

    Raises:
        ConfigError: a transform is not known, or gives fewer different tasks than were asked for.

    >>> plan("rotate", 3, 45)
    ['identity', 'rotate 45', 'rotate 90']
    """
    if tasks is not None and tasks < 1:
        raise ConfigError(f"tasks={tasks} must be 1 or more")
    if isinstance(transform, list | tuple):
        return _checked_list(list(transform), tasks)
    if transform == "permute":
        return ["identity"] + ["permute"] * ((tasks or TASKS) - 1)
    if transform == "invert":
        if (tasks or 2) > 2:
            raise ConfigError(f"tasks={tasks} with transform=invert: there are 2 such domains; take tasks 2 or permute")
        return ["identity", "invert"][:tasks]
    if transform == "rotate":
        angles = [round(i * angle % 360, 6) for i in range(tasks or TASKS)]
        different = next((i for i in range(1, len(angles)) if angles[i] in angles[:i]), len(angles))
        if tasks is not None and different < tasks:
            raise ConfigError(
                f"tasks={tasks} with transform=rotate, angle={angle:g}: only {different} rotations differ; "
                f"take tasks {different} or another angle"
            )
        return ["identity"] + [f"rotate {a:g}" for a in angles[1:different]]
    raise ConfigError(f"transform={transform!r} is not known; known: {', '.join(TRANSFORMS)}, or a list for each task")


def _checked_list(steps: list[str], tasks: int | None) -> list[str]:
    if not steps or (tasks is not None and tasks != len(steps)):
        raise ConfigError(
            f"transform={steps} makes {len(steps)} tasks, tasks={tasks}: leave tasks out, one entry a task"
        )
    for step in steps:
        word, _, degrees = str(step).partition(" ")
        if word == "rotate" and degrees.lstrip("-").replace(".", "", 1).isdecimal():
            continue
        if step not in ("identity", "permute", "invert"):
            raise ConfigError(
                f"transform entry {step!r} is not known; known: identity, permute, invert, 'rotate DEGREES' "
                "as in 'rotate 90'"
            )
    return steps


def transformed(data: DataSet, steps: Sequence[str], order_seed: int = 0) -> list[Domain]:
    """Make a domain of each step of a `plan`.

    Permutations move whole pixels (all channels alike) or the entries of vectors; each "permute" is another.

    Raises:
        ConfigError: a step does not suit the inputs, or the set is not in memory.
    """
    if any(step != "identity" for step in steps):
        if not (data.train.in_memory and data.test.in_memory):
            raise ConfigError(f"transform needs data={data.name} in memory: raise in_memory, or give a smaller size")
        if not data.is_images and any(step == "invert" or step.startswith("rotate") for step in steps):
            raise ConfigError(f"transform={list(steps)} is for images; data={data.name} holds vectors: take permute")
    shape = data.train.shape
    places = shape[-2] * shape[-1] if data.is_images else shape[0]
    rng = random_state(order_seed)
    domains, permuted = [], 0
    for step in steps:
        if step == "permute":
            permuted += 1
            moves = torch.from_numpy(rng.permutation(places).astype("int64"))
            domains.append(Domain(f"permute {permuted}", data, _Permute(moves)))
        elif step.startswith("rotate"):
            degrees = float(step.split()[1])
            if degrees % 180 == 90 and shape[-2] != shape[-1]:
                raise ConfigError(
                    f"transform={step!r} needs square images; data={data.name} has {shape[-2]}x{shape[-1]}"
                )
            domains.append(Domain(step, data, _Rotate(degrees)))
        else:
            domains.append(Domain(step, data, invert if step == "invert" else None))
    return domains


def invert(images: Tensor) -> Tensor:
    """Swap black and white: uint8 to uint8."""
    return 255 - images


@dataclass(frozen=True)
class _Permute:
    moves: Tensor  # (H * W,) or (d,) int64: place i takes the value of place moves[i]

    def __call__(self, inputs: Tensor) -> Tensor:
        if inputs.ndim == 2:
            return inputs[:, self.moves]
        return inputs.flatten(2)[:, :, self.moves].view_as(inputs)


@dataclass(frozen=True)
class _Rotate:
    degrees: float  # counter-clockwise

    def __call__(self, images: Tensor) -> Tensor:
        if self.degrees % 90 == 0:
            return torch.rot90(images, int(self.degrees // 90) % 4, (2, 3)).contiguous()
        from torchvision.transforms.functional import InterpolationMode, rotate

        parts = images.split(CHUNK)
        return torch.cat([rotate(part, self.degrees, interpolation=InterpolationMode.BILINEAR) for part in parts])


def _check_alike(domains: Sequence[Domain]) -> None:
    if not domains:
        raise ConfigError("a domain-incremental stream needs at least one domain: give one data set or more")
    first = domains[0].data
    for data in dict.fromkeys(domain.data for domain in domains):
        if data.classes != first.classes:
            differing = sorted(set(data.classes) ^ set(first.classes)) or ["their order"]
            raise DataError(
                f"domains {first.name} and {data.name} must have the same classes, they differ in "
                f"{', '.join(differing[:5])}: remove or rename these"
            )
        if data.train.shape != first.train.shape or data.train.dtype != first.train.dtype:
            raise DataError(
                f"domains {first.name} and {data.name} have inputs {first.train.shape} and "
                f"{data.train.shape}; one shape is right: give `size`, or pad and rgb"
            )
        counts = data.train.labels.bincount(minlength=len(data.classes))
        if not int(counts.min()) or not len(data.test):
            raise DataError(
                f"data={data.name}: class {data.classes[int(counts.argmin())]!r} has {int(counts.min())} "
                f"training samples, the test part has {len(data.test)}; both need some: add samples"
            )
