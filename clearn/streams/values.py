"""Populations whose true values are known: what a simulation asks, and what its estimates are compared with.

`Static` users never change their values, `Changing` users do, and of `Counted` ones only the counts are known, so that
a billion of them take no memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from clearn.errors import ConfigError, DataError
from clearn.stream import Attribute, Collection, Round

Array = np.ndarray[Any, np.dtype[Any]]


class Static(Collection):
    """Users who hold the same values in all rounds.

    Args:
        values: (n, d) whole numbers, column j in 0..k_j-1.
        attributes: one a column; a number stands for an attribute of so many values.
        rounds: how often they are asked.
        about: facts for the run folder, beside sizes.

    Raises:
        ConfigError: no attribute, one of fewer than 2 values, or no round.
        DataError: values of another shape, not whole, or out of range.
    """

    def __init__(
        self,
        values: Any,
        attributes: Sequence[Attribute | int],
        rounds: int = 1,
        about: dict[str, Any] | None = None,
    ) -> None:
        known = named(attributes)
        self.values = _codes(values, known, "(n, d)")
        super().__init__(known, len(self.values), _rounds(rounds), static=True, rows=True, about={})
        self.counts = _count(self.values, self.domains)
        self.about = _about(self, about)

    def round(self, index: int) -> Round:
        """The same values in each round."""
        return Round(index, self.counts, self.values)


def static(values: Any, k: int | Sequence[int] | None = None, rounds: int = 1) -> Static:
    """Take an array of values that never change.

    Args:
        values: (n,) or (n, d) whole numbers from 0.
        k: how many values each attribute has; None: one more than the largest that occurs, at least 2.
        rounds: how often users are asked.
    """
    table = np.asarray(values)
    table = table[:, None] if table.ndim == 1 else table
    if k is None:
        whole = table.ndim == 2 and table.size > 0 and table.dtype.kind in "iu"
        sizes = [max(2, int(top) + 1) for top in table.max(axis=0)] if whole else [2]
    else:
        sizes = [k] if isinstance(k, int) else list(k)
    digest = hashlib.sha256(np.ascontiguousarray(table).tobytes()).hexdigest()
    return Static(table, sizes, rounds, {"data": "arrays", "checksums": {"values": digest}})


class Changing(Collection):
    """Users whose values may differ from round to round; `static` says whether any does.

    Args:
        values: (n, rounds, d) whole numbers, or (n, rounds) of one attribute.
        attributes: as in `Static`.
        about: facts for the run folder, beside sizes.

    Raises:
        ConfigError: no attribute, one of fewer than 2 values, or no round.
        DataError: values of another shape, not whole, or out of range.
    """

    def __init__(self, values: Any, attributes: Sequence[Attribute | int], about: dict[str, Any] | None = None) -> None:
        known, given = named(attributes), np.asarray(values)
        self.values = _codes(given[:, :, None] if given.ndim == 2 else given, known, "(n, rounds, d)")
        n, rounds, _ = self.values.shape
        static = bool((self.values == self.values[:, :1]).all())
        super().__init__(known, n, _rounds(rounds), static, rows=True, about={})
        self.about = _about(self, about)

    def round(self, index: int) -> Round:
        """One slice of the table."""
        values = self.values[:, index]
        return Round(index, _count(values, self.domains), values)


class Counted(Collection):
    """Static users known by how many hold each value, and by nothing else.

    Args:
        counts: per attribute, (k_j,) whole numbers that sum to the number of users.
        attributes: as in `Static`.
        rounds: how often they are asked.
        about: facts for the run folder, beside sizes.

    Raises:
        ConfigError: no attribute, one of fewer than 2 values, or no round.
        DataError: counts of other lengths, below 0, or of different numbers of users.
    """

    def __init__(
        self,
        counts: Sequence[Any],
        attributes: Sequence[Attribute | int],
        rounds: int = 1,
        about: dict[str, Any] | None = None,
    ) -> None:
        known = named(attributes)
        given = [np.asarray(count) for count in counts]
        shapes, needed = [count.shape for count in given], [(attribute.k,) for attribute in known]
        if shapes != needed:
            raise DataError(f"counts have shapes {shapes}, the attributes need {needed}: give a count for each value")
        if any(count.dtype.kind not in "iu" or count.min() < 0 for count in given):
            raise DataError("counts must be whole numbers of 0 or more: give how many users hold each value")
        totals = [int(count.sum()) for count in given]
        if len(set(totals)) != 1 or not totals[0]:
            raise DataError(f"counts sum to {totals} users: all attributes are of the same users, one or more")
        super().__init__(known, totals[0], _rounds(rounds), static=True, rows=False, about={})
        self.counts = tuple(count.astype(np.int64) for count in given)
        self.about = _about(self, about)

    def round(self, index: int) -> Round:
        """The same counts in each round."""
        return Round(index, self.counts, None)


def named(given: Sequence[Attribute | int]) -> tuple[Attribute, ...]:
    """Name and check attributes; a number stands for an attribute of so many values.

    Raises:
        ConfigError: none at all, or one of fewer than 2 values.
    """
    attributes = tuple(
        a if isinstance(a, Attribute) else Attribute(f"attribute {j + 1}", a) for j, a in enumerate(given)
    )
    if not attributes:
        raise ConfigError("the list of attributes is empty: give at least one")
    for attribute in attributes:
        if attribute.k < 2:
            only = f", {attribute.labels[0]!r}" if attribute.labels else ""
            raise ConfigError(
                f"attribute {attribute.name!r} has k={attribute.k} value{only}, and 2 or more are needed: a single "
                "value has frequency 1 without any report, so leave that attribute out"
            )
    return attributes


def _rounds(rounds: int) -> int:
    if rounds < 1:
        raise ConfigError(f"rounds={rounds} must be 1 or more: users answer at least once")
    return rounds


def _codes(values: Any, attributes: Sequence[Attribute], form: str) -> Array:
    """Values in the smallest unsigned dtype, after checks; arrays that have it already are not copied."""
    found = np.asarray(values)
    if found.ndim != form.count(",") + 1 or found.shape[-1] != len(attributes) or not found.size:
        raise DataError(
            f"values have shape {found.shape}, {form} with d={len(attributes)} attributes and one user or more is "
            "needed: give a row a user"
        )
    if found.dtype.kind == "f" and np.isnan(found).any():
        raise DataError("values hold NaN: drop these users, or give the gap a value of its own")
    if found.dtype.kind not in "iuf" or (found.dtype.kind == "f" and (found != np.floor(found)).any()):
        raise DataError(f"values are {found.dtype} and not whole numbers: number the categories from 0")
    for j, attribute in enumerate(attributes):
        low, high = found[..., j].min(), found[..., j].max()
        if low < 0 or high >= attribute.k:
            raise DataError(
                f"values of attribute {attribute.name!r} run from {low} to {high}, and must lie in "
                f"[0, {attribute.k - 1}]: number the categories from 0"
            )
    dtype = np.min_scalar_type(max(attribute.k for attribute in attributes) - 1)
    return found.astype(dtype, copy=False)


def _count(values: Array, domains: Sequence[int]) -> tuple[Array, ...]:
    """(n, d) values -> (k_j,) int64 counts of each attribute."""
    return tuple(np.bincount(values[:, j], minlength=k).astype(np.int64) for j, k in enumerate(domains))


def _about(collection: Collection, about: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "stream": "collections",
        **({"data": "arrays"} if about is None else about),
        "users": collection.n_users,
        "rounds": len(collection),
        "attributes": {attribute.name: attribute.k for attribute in collection.attributes},
        "static": collection.static,
        "rows": collection.rows,
    }
