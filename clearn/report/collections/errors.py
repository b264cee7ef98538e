"""Squared errors of frequency estimates; T rounds, d attributes, R repeats.

An entry is the mean over an attribute's values of (f - fhat)^2, f being the frequency in the whole population. NaN
stands where nobody answered an attribute, so that there is no estimate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clearn.metrics import Floats


@dataclass(frozen=True, eq=False)
class Errors:
    """What one run's scores say.

    Attributes:
        names: (d,) of the attributes.
        sizes: (d,) frequencies estimated of each.
        squared: by post-processing, (T, d, R) float64.
        running: the same of the mean of all rounds' estimates so far; empty unless no value ever changes.
        linked: the same of all reports of each user so far, decoded together; empty unless the server linked them.
        expected: (T, d) closed form of `squared["none"]`, NaN where there is none.
        expected_running: (T, d) closed form of `running["none"]`; None unless no value ever changes.
        uniform: (T, d) of the guess that every value is equally frequent.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    squared: dict[str, Floats]
    running: dict[str, Floats]
    linked: dict[str, Floats]
    expected: Floats
    expected_running: Floats | None
    uniform: Floats

    def __len__(self) -> int:
        return len(self.uniform)

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]]) -> Errors | None:
        """Gather the rows of `scores.jsonl`; None where no round is complete.

        A row repeated for the same (step, attribute) replaces the earlier one. A round counts once all attributes have
        their rows; one cut short, and what follows it, is left out.

        Raises:
            ValueError: a number is negative, or rows do not agree on how many repeats there are.
        """
        latest = {(int(row["step"]), int(row["attribute"])): row for row in rows}
        d = 1 + max((attribute for _, attribute in latest), default=-1)
        n = 0
        while d and all((n + 1, attribute) in latest for attribute in range(d)):
            n += 1
        if not n:
            return None
        kept = [[latest[step, attribute] for attribute in range(d)] for step in range(1, n + 1)]
        static, linked = (all(row.get(n) is not None for step in kept for row in step) for n in ("running", "linked"))
        return cls(
            names=tuple(str(row["probe"]) for row in kept[0]),
            sizes=tuple(int(row["k"]) for row in kept[0]),
            squared=_by_post(kept, "se"),
            running=_by_post(kept, "running") if static else {},
            linked=_by_post(kept, "linked") if linked else {},
            expected=_numbers(kept, "expected"),
            expected_running=_numbers(kept, "expected_running") if static else None,
            uniform=_numbers(kept, "uniform"),
        )

    def average(self, post: str) -> list[float | None]:
        """MSE_avg of each repeat: the mean over rounds and attributes; None where nobody ever answered. (R,)"""
        return [None if np.isnan(one) else float(one) for one in mean(self.squared[post], (0, 1))]

    @property
    def unanswered(self) -> int:
        """How many estimates are missing, over all rounds, attributes and repeats."""
        return max(int(np.isnan(one).sum()) for one in self.squared.values())

    @property
    def estimates(self) -> int:
        """How many there should be."""
        return next(iter(self.squared.values())).size


def mean(values: Floats, axes: int | tuple[int, ...] | None = None) -> Floats:
    """Average over axes what is there; NaN where nothing is."""
    there = ~np.isnan(values)
    number = there.sum(axis=axes)
    total = np.where(there, values, 0.0).sum(axis=axes)
    return np.asarray(np.divide(total, number, out=np.full(np.shape(total), np.nan), where=number > 0), np.float64)


def _by_post(kept: Sequence[Sequence[Mapping[str, Any]]], name: str) -> dict[str, Floats]:
    """Give (T, d, R) arrays for the post-processings that every row has, in the order of the first."""
    posts = [post for post in kept[0][0][name] if all(post in row[name] for step in kept for row in step)]
    if not posts:
        raise ValueError(f"{name} of scores.jsonl names no post-processing that every row has")
    lengths = {len(row[name][post]) for step in kept for row in step for post in posts}
    if len(lengths) > 1 or not max(lengths):
        raise ValueError(
            f"{name} of scores.jsonl has {sorted(lengths)} repeats: every row must have as many, 1 or more"
        )
    found = {post: np.array([[row[name][post] for row in step] for step in kept], np.float64) for post in posts}
    if any((values < 0).any() for values in found.values()):
        raise ValueError(f"{name} of scores.jsonl holds a negative squared error")
    return found


def _numbers(kept: Sequence[Sequence[Mapping[str, Any]]], name: str) -> Floats:
    """Give a (T, d) array, NaN for what is null or missing."""
    found = np.array([[row.get(name) for row in step] for step in kept], np.float64)
    if (found < 0).any():
        raise ValueError(f"{name} of scores.jsonl holds a negative squared error")
    return found
