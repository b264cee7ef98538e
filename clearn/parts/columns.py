"""What is known of training samples beside their labels: whose they are, or which finer class they belong to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clearn.errors import DataError


@dataclass(frozen=True, eq=False)
class Column:
    """One value for each of n samples. Values are compared as they are printed, so 17 and "17" are the same.

    Attributes:
        values: all that occur in the data set, each once.
        codes: (n,) int64; sample i has values[codes[i]].
    """

    values: tuple[str, ...]
    codes: Tensor

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, index: Tensor) -> Column:
        """Keep samples `index` (b,) int64, in that order."""
        return Column(self.values, self.codes[index])

    def rows(self, wanted: Iterable[str]) -> Tensor:
        """Find the samples that have one of some values: (m,) int64, ascending."""
        code = {value: i for i, value in enumerate(self.values)}
        codes = [code[value] for value in wanted if value in code]
        return torch.isin(self.codes, torch.tensor(codes, dtype=torch.int64)).nonzero().flatten()

    def occurring(self) -> set[str]:
        """Give the values that these samples have, which may be fewer than `values`."""
        return {self.values[code] for code in self.codes.unique().tolist()}

    @property
    def sha256(self) -> str:
        """Of the values of all samples, hexadecimal."""
        digest = hashlib.sha256(json.dumps(self.values).encode())
        digest.update(self.codes.contiguous().numpy().data)
        return digest.hexdigest()


def as_column(given: Any, name: str) -> Column:
    """Take one value a sample from an array, a tensor or a list.

    Args:
        given: (n,) whole numbers or text.
        name: shown in errors.

    Raises:
        DataError: it is no such list.

    >>> as_column([17, 4, 17], "user")
    Column(values=('4', '17'), codes=tensor([1, 0, 1]))
    """
    try:
        found = np.asarray(given.detach().cpu().numpy() if isinstance(given, Tensor) else given)
    except ValueError as error:
        raise DataError(f"column {name!r} is ragged ({error}); give one value for each training sample") from error
    if found.ndim != 1:
        raise DataError(f"column {name!r} has shape {found.shape}; give one value for each training sample")
    if found.dtype.kind == "O":
        found = _text(found, name)
    if found.dtype.kind == "S":
        found = np.char.decode(found, "utf-8", "replace")
    if found.dtype.kind not in "iuU":
        raise DataError(
            f"column {name!r} is {found.dtype}; whole numbers or text are right: astype(int) or astype(str)"
        )
    values, codes = np.unique(found, return_inverse=True)
    return Column(tuple(map(str, values.tolist())), torch.from_numpy(codes.astype(np.int64)))


def _text(found: np.ndarray[Any, Any], name: str) -> np.ndarray[Any, Any]:
    """Spell the values of an object array, as pandas gives them, as text."""
    wrong = [value for value in found.tolist() if not isinstance(value, str | int) or isinstance(value, bool)]
    if wrong:
        raise DataError(f"column {name!r} holds {wrong[0]!r}; whole numbers or text are right: fill or convert these")
    return np.array([str(value) for value in found.tolist()], dtype=str)
