"""Streams of tasks, and the data sets they are cut from. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from clearn.parts.samples import Indexed
    from clearn.stream import Stream
    from clearn.streams.datasets.merging import Groups

    Array = np.ndarray[Any, Any] | Tensor | Sequence[Any]

STREAMS: dict[str, str] = {
    "class_incremental": "new classes in each task: base, increment, class order by seed",
    "domain_incremental": "same classes in each task; pixels permuted, rotated, inverted, or your domains",
    "documents": "texts to read in tasks, and questions about all that was read; data by name, see 'corpora'",
    "collections": "rounds of the values that users hold, for the protocols of privacy/",
}

DATASETS: dict[str, str] = {
    "digits": "1,797 grey 8x8 digits, 10 classes; comes with scikit-learn",
    "fashion_mnist": "70,000 grey 28x28 clothes; ROOT/FashionMNIST/raw, or Debian's dataset-fashion-mnist",
    "mnist": "70,000 grey 28x28 digits, 10 classes; ROOT/MNIST/raw",
    "kmnist": "70,000 grey 28x28 Japanese characters, 10 classes; ROOT/KMNIST/raw",
    "cifar10": "60,000 colour 32x32 photographs, 10 classes; ROOT/cifar-10-batches-py",
    "cifar100": "60,000 colour 32x32 photographs, 100 classes; ROOT/cifar-100-python",
    "svhn": "99,289 colour 32x32 house numbers, 10 classes; ROOT/train_32x32.mat, test_32x32.mat",
    "cub": "photographs of 200 birds; ROOT/cub/train/CLASS/*, ROOT/cub/test/CLASS/*, as released with APER",
    "imagenet_r": "200 ImageNet classes in art, toys, sketches; ROOT/imagenet-r/train/CLASS/* and test, likewise",
    "imagenet_a": "200 ImageNet classes, photographs that mislead; ROOT/imagenet-a/train/CLASS/* and test, likewise",
    "objectnet": "200 classes of things in odd places; ROOT/objectnet/train/CLASS/* and test, likewise",
    "omnibenchmark": "300 classes of many realms; ROOT/omnibenchmark/train/CLASS/* and test, likewise",
    "vtab": "50 classes of five VTAB tasks in their order; ROOT/vtab/train/CLASS/* and test, likewise",
    "folder": "your images; ROOT/train/CLASS/* and ROOT/test/CLASS/* (or val)",
    "arrays": "your arrays; file: NAME.npz with x_train, y_train, x_test, y_test",
    "csv": "your vectors; file: NAME.csv with a label column (and test_file)",
}

CORPORA: dict[str, str] = {
    "factbook": "2,950 passages on countries, 11,067 questions; ROOT/factbook/{train,val,test}.jsonl",
    "foldoc": "562 dated entries on computing, 689 questions; ROOT/foldoc/{train,val,test}.jsonl",
    "streaming_qa": "news; ROOT/streaming_qa/{train,val,test}.csv, or the released .jsonl with articles.jsonl",
    "squad": "SQuAD v1.1, paragraphs of Wikipedia; ROOT/squad/{train,dev}-v1.1.json",
    "archival_qa": "New York Times; ROOT/archival_qa/ArchivalQA_val.csv with articles.jsonl, or {train,val,test}.csv",
    "copying": "invented one-fact documents, any number, by seed; no files",
    "jsonl": "your rows of text, question, answer; ROOT/{train,val,test}.jsonl",
}

COLLECTIONS: dict[str, str] = {
    "adult": "45,222 persons x 9 attributes, static (UCI Adult); ROOT/adult.csv or .csv.gz",
    "nursery": "12,960 applications x 9 attributes, static (UCI Nursery); ROOT/nursery.csv or .csv.gz",
    "ms_fimu": "88,935 visitors x 6 attributes, static, each exact by itself; ROOT/ms_fimu_marginals.csv or .csv.gz",
    "visits": "88,935 visitors over 7 days, 11 values that change; ROOT/ms_fimu_visits.csv or .csv.gz",
    "pwgtp": "9,123 persons over 80 rounds, 1,234 values that change; ROOT/pwgtp_delaware.csv or .csv.gz",
    "synthetic": "n users, k values drawn by a law, static or changing; a billion static ones cost no memory",
    "csv": "your table; file: NAME.csv with columns: [...] of static attributes, or rounds: [...] of one that changes",
}


def from_arrays(
    x: Array,
    y: Array,
    x_test: Array | None = None,
    y_test: Array | None = None,
    *,
    increment: int | list[int] = 2,
    base: int = 0,
    order_seed: int | None = None,
    augment: str | dict[str, Any] = "none",
    normalise: str | Mapping[str, Any] = "auto",
    layout: str | None = None,
    columns: Mapping[str, Array] | None = None,
    merge: Groups | None = None,
) -> Stream:
    """Make a class-incremental stream of your own arrays.

    `clearn.streams.datasets.from_arrays` says how arrays are taken, `class_incremental` what tasks look like.

    Args:
        x: uint8 images (n, H, W), (n, H, W, C) or (n, C, H, W), or numbers (n, d).
        y: (n,) labels of any kind.
        x_test: test inputs, shaped like `x`; None holds every fifth sample of each class out.
        y_test: their labels.
        increment: new classes in each task, or a list of sizes.
        base: classes of the first task; 0 means `increment`.
        order_seed: of the class order; None means sorted labels.
        augment: name of a preset or its options.
        normalise: "auto" is 0.5 for images; see `datasets.Options`.
        layout: "NHWC" or "NCHW", where the shape leaves doubt.
        columns: whole numbers or text by name, one for each row of `x`; requests to forget can name their values.
        merge: classes into coarser ones; see `class_incremental.build`.
    """
    from clearn.streams import class_incremental, datasets

    data = datasets.from_arrays(x, y, x_test, y_test, layout=layout, normalise=normalise, columns=columns)
    return class_incremental.cut(
        data, increment=increment, base=base, order_seed=order_seed, augment=augment, merge=merge
    )


def from_dataset(
    train: Indexed,
    test: Indexed,
    *,
    increment: int | list[int] = 2,
    base: int = 0,
    order_seed: int | None = None,
    augment: str | dict[str, Any] = "none",
    normalise: str | Mapping[str, Any] = "auto",
    size: int | None = None,
    in_memory: int = 512 * 2**20,
    workers: int = 0,
    columns: Mapping[str, Array] | None = None,
    merge: Groups | None = None,
) -> Stream:
    """Make a class-incremental stream of two torch map-style datasets that give (image, label).

    Args:
        train: gives (PIL image, array or tensor; label); see `clearn.streams.datasets.from_dataset`.
        test: likewise.
        increment: new classes in each task, or a list of sizes.
        base: classes of the first task; 0 means `increment`.
        order_seed: of the class order; None means sorted labels.
        augment: name of a preset or its options.
        normalise: "auto" is 0.5 for images; see `datasets.Options`.
        size: resize the shorter side to this many pixels and cut out the centre.
        in_memory: bytes up to which a set is read once and kept.
        workers: processes that decode images of a larger set.
        columns: whole numbers or text by name, one for each training item; requests to forget can name their values.
        merge: classes into coarser ones; see `class_incremental.build`.
    """
    from clearn.streams import class_incremental, datasets

    data = datasets.from_dataset(
        train, test, size=size, normalise=normalise, in_memory=in_memory, workers=workers, columns=columns
    )
    return class_incremental.cut(
        data, increment=increment, base=base, order_seed=order_seed, augment=augment, merge=merge
    )
