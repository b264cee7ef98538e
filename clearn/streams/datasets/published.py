"""Published sets that are not idx files: scikit-learn's digits, and CIFAR and SVHN through torchvision."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clearn.errors import DataError
from clearn.parts.samples import TensorSamples
from clearn.streams.datasets.images import resized
from clearn.streams.datasets.record import MOMENTS, DataSet, Options, hold_out, root_of

DIGITS = tuple("0123456789")


def digits(options: Options) -> DataSet:
    """Read scikit-learn's 8x8 digits: grey levels 0..16 times 15 as uint8; every fifth of each class is test.

    The file is read as it lies in the package, because importing scikit-learn costs a second.
    """
    spec = importlib.util.find_spec("sklearn")
    path = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz" if spec and spec.origin else None
    if path is None or not path.is_file():
        raise DataError(
            f"data=digits was not found: looked for {path or 'the package sklearn'}; it comes with "
            "scikit-learn: `pip install --force-reinstall scikit-learn`"
        )
    content = path.read_bytes()
    table = torch.from_numpy(np.loadtxt(gzip.decompress(content).decode().splitlines(), delimiter=",", dtype=np.int64))
    images = (table[:, :64] * 15).to(torch.uint8).view(-1, 1, 8, 8)
    train, test = hold_out(images, table[:, 64].contiguous())
    checksums = {path.name: hashlib.sha256(content).hexdigest()}
    return DataSet("digits", train, test, DIGITS, *MOMENTS["digits"], checksums)


@dataclass(frozen=True)
class Archive:
    """What torchvision looks for below the root; it checks the MD5 of each file before it reads it."""

    kind: str
    files: tuple[str, ...]


ARCHIVES = {
    "cifar10": Archive(
        "CIFAR10",
        tuple(f"cifar-10-batches-py/{n}" for n in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")),
    ),
    "cifar100": Archive("CIFAR100", ("cifar-100-python/train", "cifar-100-python/test")),
    "svhn": Archive("SVHN", ("train_32x32.mat", "test_32x32.mat")),
}


def archive(options: Options) -> DataSet:
    """Read one of `ARCHIVES` into memory, through torchvision; with `size`, images are resized when asked for.

    Raises:
        DataError: the files are not there or damaged, or could not be downloaded.
    """
    root, known = root_of(options), ARCHIVES[options.name]
    try:
        train, test = _open(known.kind, root, True, options), _open(known.kind, root, False, options)
    except (RuntimeError, OSError) as error:  # URLError is an OSError
        raise DataError(
            f"data={options.name} was not found or is damaged: looked for {', '.join(known.files)} in {root} "
            f"({error}); add `download: true` to the stream, or copy the files there, or set root (or "
            "CLEARN_DATA) to the folder that holds them"
        ) from error
    checksums = {}
    for name in known.files:
        with open(root / name, "rb") as file:
            checksums[name] = hashlib.file_digest(file, "sha256").hexdigest()
    classes = DIGITS if options.name == "svhn" else tuple(train.classes)
    samples = resized(_samples(train), _samples(test), options)
    return DataSet(options.name, *samples, classes, *MOMENTS[options.name], checksums)


def _open(kind: str, root: Path, train: bool, options: Options) -> Any:
    import torchvision.datasets as sets

    with warnings.catch_warnings():  # NumPy 2.4 dislikes the old pickles of CIFAR
        warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
        match kind:
            case "CIFAR10":
                return sets.CIFAR10(str(root), train=train, download=options.download)
            case "CIFAR100":
                return sets.CIFAR100(str(root), train=train, download=options.download)
            case _:
                return sets.SVHN(str(root), split="train" if train else "test", download=options.download)


def _samples(published: Any) -> TensorSamples:
    """CIFAR keeps (n, 32, 32, 3) and `targets`, SVHN (n, 3, 32, 32) and `labels`."""
    images: Tensor = torch.from_numpy(published.data)
    channels_last = images.shape[-1] == 3
    labels = published.targets if channels_last else published.labels
    return TensorSamples(
        (images.permute(0, 3, 1, 2) if channels_last else images).contiguous(), torch.as_tensor(labels)
    )
