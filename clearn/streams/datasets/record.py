"""What a data set is, the options common to all of them, and what these do to it."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clearn.errors import ConfigError, DataError
from clearn.parts.columns import Column
from clearn.parts.samples import CutSamples, DatasetSamples, Samples, TensorSamples
from clearn.stream import Inputs
from clearn.streams import DATASETS
from clearn.streams.places import root_folder

MIB = 2**20
HELD_OUT = 5  # where a set comes without a test part, every fifth sample of each class, in file order, is test

Moments = tuple[tuple[float, ...], tuple[float, ...]]  # mean and std per channel, of pixels scaled to 0..1

MOMENTS: dict[str, Moments] = {
    # As in the reference code of the class-incremental literature (PyCIL and its descendants).
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    # Of the training pixels, as commonly printed.
    "fashion_mnist": ((0.2860,), (0.3530,)),
    "mnist": ((0.1307,), (0.3081,)),
    "kmnist": ((0.1918,), (0.3483,)),
    "svhn": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "digits": ((0.2872,), (0.3540,)),  # of our 1,442 training images
}
HALF: Moments = (
    (0.5,),
    (0.5,),
)  # for the user's own pixels: fixed, so that a stream never depends on later tasks
ENDING = {"arrays": ".npz", "csv": ".csv"}
RELEASED = ("cub", "imagenet_r", "imagenet_a", "objectnet", "omnibenchmark", "vtab")
PICTURES = ("folder", *RELEASED, "cifar10", "cifar100", "svhn")  # colour photographs, which have no size of their own
RESAMPLE = ("bilinear", "bicubic")
NORMALISE = ("auto", "cifar10", "cifar100", "imagenet", "half")
USES = {  # options that mean something to some sets only
    "file": ("arrays", "csv"),
    "test_file": ("csv",),
    "label": ("csv",),
    "columns": ("arrays", "csv"),
    "size": PICTURES,
    "resize": PICTURES,
    "resample": PICTURES,
    "download": ("fashion_mnist", "mnist", "kmnist", "cifar10", "cifar100", "svhn"),
}


@dataclass(frozen=True, eq=False)
class DataSet:
    """Training and test samples with labels 0..n-1, before any task is made of them. Equal only to itself.

    Attributes:
        name: as in the config.
        train: its samples, in file order.
        test: its samples, in file order.
        classes: names; label i is classes[i].
        mean: per channel, of pixels scaled to 0..1; empty for vectors.
        std: per channel, likewise.
        checksums: SHA-256 of what it was read from, by name.
        columns: what is known of the training samples beside their labels, by name.
        merged: the names that class i was merged from; empty where classes are as they came.
    """

    name: str
    train: Samples
    test: Samples
    classes: tuple[str, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    checksums: dict[str, str] = field(default_factory=dict)
    columns: Mapping[str, Column] = field(default_factory=dict)
    merged: tuple[tuple[str, ...], ...] = ()

    @property
    def is_images(self) -> bool:
        """Whether inputs are uint8 images (C, H, W); otherwise they are float32 vectors (d,)."""
        return len(self.train.shape) == 3

    @property
    def inputs(self) -> Inputs:
        """What one input looks like."""
        return Inputs(self.train.shape, str(self.train.dtype).removeprefix("torch."), self.mean, self.std)

    @property
    def about(self) -> dict[str, Any]:
        """JSON-able facts for the run folder."""
        about = {"data": self.name, "train": len(self.train), "test": len(self.test), "checksums": self.checksums}
        if self.columns:
            about["columns"] = {name: column.sha256 for name, column in self.columns.items()}
        return about


@dataclass(frozen=True)
class Options:
    """What to load and how; the fields are the keys of a config's stream section.

    Attributes:
        name: one of `clearn.streams.DATASETS`.
        root: where the set lies; None means CLEARN_DATA, or else the user's cache.
        file: of `arrays` (.npz) and `csv`.
        test_file: of `csv`; None means every fifth sample of each class is test.
        label: name of the label's column of `csv`.
        columns: of `arrays` and `csv`: arrays of the file, or columns of the table, that are no inputs but say, for
            one, whose a training sample is, so that requests can name their values.
        size: of `PICTURES`: resize the shorter side to this many pixels and cut out the centre.
        resize: of the same, with `size`: the shorter side before the centre is cut out; None means `size`.
        resample: of the same, with `size`: bilinear or bicubic.
        pad: zero pixels added on each side of every image.
        rgb: repeat grey images to three channels.
        per_class_train: keep the first this many training samples of each class; None means all.
        per_class_test: likewise of the test samples.
        normalise: one of `NORMALISE`, or {mean: [...], std: [...]} per channel of pixels scaled to 0..1.
        in_memory: bytes up to which `PICTURES` are decoded once and kept; above, they are decoded on access.
        download: let torchvision download a set that is missing.
        workers: processes (threads, when decoding into memory) that decode images; 0 means none.
    """

    name: str = "digits"
    root: str | None = None
    file: str | None = None
    test_file: str | None = None
    label: str = "label"
    columns: Sequence[str] | None = None
    size: int | None = None
    resize: int | None = None
    resample: str = "bilinear"
    pad: int = 0
    rgb: bool = False
    per_class_train: int | None = None
    per_class_test: int | None = None
    normalise: str | Mapping[str, Any] = "auto"
    in_memory: int = 512 * MIB
    download: bool = False
    workers: int = 0

    def __post_init__(self) -> None:
        if wrong := list(self._mistakes()):
            raise ConfigError("\n".join(wrong))

    def _mistakes(self) -> Iterable[str]:
        if self.name not in DATASETS:
            yield f"data={self.name!r} is not known{nearest(self.name, DATASETS)}"
        for key, least in (("pad", 0), ("workers", 0), ("in_memory", 0)):
            if getattr(self, key) < least:
                yield f"{key}={getattr(self, key)} must be {least} or more"
        for key in ("per_class_train", "per_class_test", "size", "resize"):
            value = getattr(self, key)
            if value is not None and value < 1:
                yield f"{key}={value} must be 1 or more; leave it out to take everything as it is"
        if self.resample not in RESAMPLE:
            yield f"resample={self.resample!r} is not known{nearest(self.resample, RESAMPLE)}"
        if self.resize is not None and self.size is None:
            yield f"resize={self.resize} is the shorter side before the centre is cut out: give size, the centre's, too"
        elif self.resize is not None and self.size is not None and 1 <= self.resize < self.size:
            yield f"resize={self.resize} must be size={self.size} or more: the centre is cut out of what it gives"
        if self.columns is not None and (not self.columns or len(set(self.columns)) < len(self.columns)):
            yield f"columns={list(self.columns)} must name at least one column, each once; leave it out for none"
        for key, sets in USES.items():
            if self.name in DATASETS and self.name not in sets and getattr(self, key) != _default(key):
                yield f"{key}={getattr(self, key)!r} is for {', '.join(sets)}, not data={self.name}: drop it"
        if self.name == "folder" and self.root is None:
            yield "data=folder needs root: the folder that holds train/CLASS/* and test/CLASS/* (or val/)"
        if self.name in USES["file"] and self.file is None:
            yield f"data={self.name} needs file: the path of your {ENDING[self.name]} file"
        yield from _mistakes_of_normalise(self.normalise)


def _default(key: str) -> object:
    return next(f.default for f in fields(Options) if f.name == key)


def _mistakes_of_normalise(spec: str | Mapping[str, Any]) -> Iterable[str]:
    if isinstance(spec, str):
        if spec not in NORMALISE:
            yield f"normalise={spec!r} is not known{nearest(spec, NORMALISE)}"
        return
    lists = [v for v in spec.values() if isinstance(v, list | tuple) and v]
    numbers = all(isinstance(v, int | float) for values in lists for v in values)
    if sorted(spec) != ["mean", "std"] or len({len(v) for v in lists}) != 1 or len(lists) != 2 or not numbers:
        yield f"normalise={dict(spec)} must be {{mean: [...], std: [...]}}, one number a channel in both"
    elif min(spec["std"]) <= 0:
        yield f"normalise std={list(spec['std'])} must be above 0: pixels are divided by it"


def finish(data: DataSet, options: Options) -> DataSet:
    """Apply the options common to all sets: fewer samples a class, grey to RGB, padding, normalisation.

    Args:
        data: as read; its mean and std are what "auto" stands for.
        options: the fields per_class_train, per_class_test, rgb, pad and normalise are used.

    Raises:
        ConfigError: images were asked for what only vectors have, or the reverse.
    """
    if not data.is_images:
        for key, value in (("pad", options.pad), ("rgb", options.rgb)):
            if value:
                raise ConfigError(f"{key}={value} is for images; data={data.name} holds vectors: leave it out")
    rows = _first(data.train.labels, options.per_class_train)
    train, columns = data.train, data.columns
    if rows is not None:
        train, columns = train.take(rows), {name: column.take(rows) for name, column in columns.items()}
    rows = _first(data.test.labels, options.per_class_test)
    test = data.test if rows is None else data.test.take(rows)
    data = replace(data, train=_pixels(train, options), test=_pixels(test, options), columns=columns)
    mean, std = moments(options.normalise, (data.mean, data.std), data)
    return replace(data, mean=mean, std=std)


def moments(spec: str | Mapping[str, Any], auto: Moments, data: DataSet) -> Moments:
    """Choose mean and std for the channels of `data`; one value is repeated for every channel.

    Args:
        spec: one of `NORMALISE` or {mean: [...], std: [...]}.
        auto: what "auto" stands for.
        data: the set after padding and RGB.

    Raises:
        ConfigError: the number of channels differs, or vectors were to be normalised.
    """
    if not data.is_images:
        if spec != "auto":
            raise ConfigError(f"normalise={spec!r} is for images; data={data.name} holds vectors: leave it out")
        return (), ()
    mean, std = {**MOMENTS, "half": HALF, "auto": auto}[spec] if isinstance(spec, str) else _numbers(spec)
    channels = data.train.shape[0]
    if len(mean) == 1:
        mean, std = mean * channels, std * channels
    if len(mean) != channels:
        raise ConfigError(
            f"normalise={spec!r} has {len(mean)} channels, images of data={data.name} have {channels}; "
            f"take normalise: half{', or rgb: true' if channels == 1 and len(mean) == 3 else ''}"
        )
    return mean, std


def _numbers(spec: Mapping[str, Any]) -> Moments:
    return tuple(float(v) for v in spec["mean"]), tuple(float(v) for v in spec["std"])


def _first(labels: Tensor, count: int | None) -> Tensor | None:
    """Find the first `count` samples of each class: (m,) int64 rows in file order; None means all."""
    return None if count is None else (rank_in_class(labels) < count).nonzero()[:, 0]


def relabel(samples: Samples, labels: Tensor) -> Samples:
    """Give the same inputs other labels (n,) int64; pixels are shared."""
    if isinstance(samples, CutSamples):
        return CutSamples(samples.dataset, samples.index, labels, samples.workers)
    if isinstance(samples, DatasetSamples):
        return DatasetSamples(samples.dataset, samples.index, labels, samples.workers)
    assert isinstance(samples, TensorSamples), f"data sets hold no {type(samples).__name__}"
    return TensorSamples(samples.inputs, labels)


def _pixels(samples: Samples, options: Options) -> Samples:
    """Repeat grey to RGB and pad with zeros."""
    grey = options.rgb and samples.shape[0] != 3
    if not grey and not options.pad:
        return samples
    if grey and samples.shape[0] != 1:
        raise ConfigError(
            f"rgb=True needs images of 1 channel; data={options.name} has {samples.shape[0]}: leave it out"
        )
    if not isinstance(samples, TensorSamples):
        raise ConfigError(
            f"pad={options.pad} works on images in memory; data={options.name} is larger than "
            f"in_memory={options.in_memory} bytes: give `size` instead"
        )
    images = samples.inputs.expand(-1, 3, -1, -1) if grey else samples.inputs
    images = F.pad(images, (options.pad,) * 4)
    return TensorSamples(images.contiguous(), samples.labels)


def rank_in_class(labels: Tensor) -> Tensor:
    """Number the samples of each class from 0, in their order: (n,) int64 labels to (n,) int64.

    >>> rank_in_class(torch.tensor([5, 5, 0, 5])).tolist()
    [0, 1, 0, 2]
    """
    order = labels.argsort(stable=True)
    counts = labels.bincount()
    starts = counts.cumsum(0) - counts
    ranks = torch.empty_like(labels)
    ranks[order] = torch.arange(len(labels)) - starts[labels[order]]
    return ranks


def hold_out(inputs: Tensor, labels: Tensor) -> tuple[TensorSamples, TensorSamples]:
    """Split a set without a test part; see `held_out`."""
    test = held_out(labels)
    return TensorSamples(inputs[~test], labels[~test]), TensorSamples(inputs[test], labels[test])


def held_out(labels: Tensor) -> Tensor:
    """Choose the test samples of a set without a test part, every fifth of each class in file order: (n,) bool.

    Raises:
        DataError: a class has fewer than five samples, so that none of them would be test.
    """
    counts = labels.bincount()
    if int(counts.min()) < HELD_OUT:
        raise DataError(
            f"class {int(counts.argmin())} (in sorted order) has {int(counts.min())} samples; {HELD_OUT} or "
            "more are needed to hold every fifth out as test data: give test data of your own"
        )
    return rank_in_class(labels) % HELD_OUT == HELD_OUT - 1


def root_of(options: Options) -> Path:
    """Where sets lie: `root`, else CLEARN_DATA, else clearn's folder in the user's cache."""
    return root_folder(options.root)


def sha256_of(*tensors: Tensor) -> str:
    """Hash dtype, shape and bytes of tensors, in order; hexadecimal."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()


def nearest(word: str, known: Iterable[str]) -> str:
    """End a message about an unknown word: the nearest known one, or all of them."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"
