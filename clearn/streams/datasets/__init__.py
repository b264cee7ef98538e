"""Data sets by name, or a user's own: uint8 images or float32 vectors with labels 0..n-1."""

from __future__ import annotations

from typing import Any

from clearn.errors import ConfigError
from clearn.streams.datasets import arrays, idx, images, published
from clearn.streams.datasets.arrays import from_arrays
from clearn.streams.datasets.images import from_dataset
from clearn.streams.datasets.record import DataSet, Options, finish, nearest

__all__ = ["DataSet", "Options", "dataset", "from_arrays", "from_dataset", "load"]

READERS = {
    "digits": published.digits,
    **dict.fromkeys(idx.FAMILIES, idx.load),
    **dict.fromkeys(published.ARCHIVES, published.archive),
    **dict.fromkeys(images.RELEASES, images.release),
    "folder": images.folder,
    "arrays": arrays.arrays,
    "csv": arrays.table,
}


def dataset(name: str = "digits", root: str | None = None, **options: Any) -> DataSet:
    """Read a data set by its name.

    Args:
        name: one of `clearn.streams.DATASETS`.
        root: where it lies; None means CLEARN_DATA, or else the user's cache.
        options: the other fields of `Options`.

    Raises:
        ConfigError: options that do not exist, lie out of range or mean nothing to this set.
        DataError: the set is missing or damaged.

    >>> dataset("digits", per_class_train=2).train.inputs.shape
    torch.Size([20, 1, 8, 8])
    """
    known = Options.__dataclass_fields__
    if wrong := [f"a data set has no option {key!r}{nearest(key, known)}" for key in options if key not in known]:
        raise ConfigError("\n".join(wrong))
    return load(Options(name, root, **options))


def load(options: Options) -> DataSet:
    """Read a data set and apply the options common to all; see `dataset`."""
    return finish(READERS[options.name](options), options)
