"""Accuracy, forgetting and performance-for-memory measures, all derived from integer counts.

The only source is `Counts`: correct and total answers per (step, task) and per (step, class). Accuracies are fractions
in [0, 1]. Steps and tasks are counted from 1 in the formulas below and from 0 in the arrays. With R[i, j] the accuracy
on the test set of task j after learning task i, j <= i, and T tasks learned, `DEFINITIONS` says what each name means.
Libraries disagree on these: one matrix has a "forgetting" of .05, 0 or .075 (see `forgetting_chaudhry`,
`forgetting_first_last`, `forgetting_max_all`), so every number here carries its definition in its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Point = tuple[float, float]  # (memory, accuracy)

DEFINITIONS: dict[str, str] = {
    "accuracy.pooled": "After step i: correct answers over all test samples of tasks 1..i, divided by their number.",
    "accuracy.task_mean": "After step i: the unweighted mean of R[i, 1..i].",
    "average_incremental_accuracy.pooled": "Mean of accuracy.pooled over all steps, the first included.",
    "average_incremental_accuracy.task_mean": "Mean of accuracy.task_mean over all steps, the first included.",
    "last_accuracy.pooled": "accuracy.pooled after the last step.",
    "last_accuracy.task_mean": "accuracy.task_mean after the last step.",
    "last_accuracy.old": "After the last step: accuracy pooled over test samples of classes learned before it.",
    "last_accuracy.new": "After the last step: accuracy pooled over test samples of classes learned in it.",
    "last_accuracy.harmonic_mean": "2 old new / (old + new), of last_accuracy.old and last_accuracy.new.",
    "forgetting.chaudhry": "Mean over tasks j < T of max over l < T of R[l, j], minus R[T, j]; may be negative "
    "(Chaudhry et al. 2018).",
    "forgetting.first_last": "Mean over tasks j < T of R[j, j] - R[T, j]; equals -bwt (Avalanche's).",
    "forgetting.max_all": "Mean over tasks j < T of max over l <= T of R[l, j], minus R[T, j]; never negative "
    "(Mammoth's and PyCIL's).",
    "bwt": "Backward transfer: mean over tasks j < T of R[T, j] - R[j, j] (Lopez-Paz and Ranzato 2017).",
    "average_incremental_top5.pooled": "As average_incremental_accuracy.pooled, counting an answer as correct when the "
    "label is among the 5 best (all of them where fewer classes are known).",
    "last_top5.pooled": "As last_accuracy.pooled, with the same top-5 rule.",
}


@dataclass(frozen=True, eq=False)
class Counts:
    """Answers of one read-out over a stream, counted; n steps learned, c distinct classes tested.

    Attributes:
        correct: (n, n) int64, [i, j] after step i on task j; 0 above the diagonal.
        total: (n, n) int64, the test samples behind `correct`.
        classes: the c tested labels, ascending; empty where a stream has no classes.
        class_correct: (n, c) int64, after step i, summed over the tasks tested.
        class_total: (n, c) int64.
        origin: (c,) int64, the task (from 0) that brought each class; None where a class is tested in several
            tasks (domain-incremental), so that old and new mean nothing.
        top5: (n, n) int64, as `correct`; None unless every row has it.
    """

    correct: Ints
    total: Ints
    classes: tuple[int, ...]
    class_correct: Ints
    class_total: Ints
    origin: Ints | None
    top5: Ints | None

    def __len__(self) -> int:
        return len(self.correct)

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]]) -> Counts:
        """Gather the rows of one read-out, as `scores.jsonl` holds them.

        A row repeated for the same (step, probe) replaces the earlier one, as a resumed run may write a step twice.
        Several probes of a task are pooled. Steps count only while complete: after step i every task 1..i must have a
        row; a step cut short, and what follows it, is left out.

        Args:
            rows: mappings with step, task (both from 1), probe, correct, total, and optionally classes
                ({label: [correct, total]}) and top5.

        Raises:
            ValueError: if a count is negative or exceeds its total, or the classes of a row do not sum to it.
        """
        latest = {(row["step"], row["probe"]): row for row in rows}
        scored = {(row["step"], row["task"]) for row in latest.values()}
        n = 0
        while all((n + 1, task) in scored for task in range(1, n + 2)):
            n += 1
        kept = [row for _, row in sorted(latest.items()) if row["step"] <= n and row["task"] <= row["step"]]
        for row in kept:
            _check(row)

        classes = tuple(sorted({int(label) for row in kept for label in row.get("classes") or ()}))
        column = {label: k for k, label in enumerate(classes)}
        correct, total, top5 = (np.zeros((n, n), np.int64) for _ in range(3))
        class_correct, class_total = (np.zeros((n, len(classes)), np.int64) for _ in range(2))
        tasks_of: dict[int, set[int]] = {label: set() for label in classes}
        for row in kept:
            i, j = row["step"] - 1, row["task"] - 1
            correct[i, j] += row["correct"]
            total[i, j] += row["total"]
            top5[i, j] += row.get("top5") or 0
            for label, (right, tested) in (row.get("classes") or {}).items():
                class_correct[i, column[int(label)]] += right
                class_total[i, column[int(label)]] += tested
                tasks_of[int(label)].add(j)

        repeated = any(len(tasks) > 1 for tasks in tasks_of.values())
        return cls(
            correct=correct,
            total=total,
            classes=classes,
            class_correct=class_correct,
            class_total=class_total,
            origin=None if repeated else np.array([min(tasks_of[label]) for label in classes], np.int64),
            top5=top5 if kept and all(row.get("top5") is not None for row in kept) else None,
        )


def _check(row: Mapping[str, Any]) -> None:
    where = f"scores of step {row['step']}, {row['probe']}"
    pairs = list((row.get("classes") or {}).values())
    for right, tested in [(row["correct"], row["total"]), *pairs]:
        if not 0 <= right <= tested:
            raise ValueError(f"{where}: {right} correct of {tested} must lie in [0, {tested}]")
    if pairs and [sum(counts) for counts in zip(*pairs, strict=True)] != [row["correct"], row["total"]]:
        raise ValueError(f"{where}: the classes do not sum to {row['correct']} correct of {row['total']}")


def _mean(values: Floats) -> float | None:
    """Average what was measured (is not NaN); None if nothing was."""
    measured = values[~np.isnan(values)]
    return float(measured.mean()) if measured.size else None


def _rate(correct: Ints, total: Ints) -> Floats:
    """Divide elementwise, NaN where nothing was tested."""
    return np.divide(correct, total, out=np.full(np.shape(total), np.nan), where=np.asarray(total) > 0)


def accuracy_matrix(correct: Ints, total: Ints) -> Floats:
    """Give R: the accuracy on task j after step i.

    Args:
        correct: (n, n) int, counts on and below the diagonal.
        total: (n, n) int.

    Returns:
        (n, n) float64 in [0, 1]; NaN above the diagonal and where a task has no test samples.
    """
    return _rate(np.tril(correct), np.tril(total))


def pooled_accuracy(correct: Ints, total: Ints) -> Floats:
    """Give the accuracy over all test samples of the tasks seen, after each step: (n, n) counts -> (n,)."""
    return _rate(np.tril(correct).sum(axis=1), np.tril(total).sum(axis=1))


def task_mean_accuracy(matrix: Floats) -> Floats:
    """Give the unweighted mean of the accuracies on the tasks seen, after each step: (n, n) R -> (n,)."""
    means = [_mean(row[: i + 1]) for i, row in enumerate(matrix)]
    return np.array([np.nan if mean is None else mean for mean in means], np.float64)


def average_incremental_accuracy(curve: Floats) -> float | None:
    """Average a curve of accuracies over the steps, the first included; None for an empty one.

    Args:
        curve: (n,) of `pooled_accuracy` (the headline) or of `task_mean_accuracy`.
    """
    return _mean(np.asarray(curve, np.float64))


def last_accuracy(curve: Floats) -> float | None:
    """Give the last value of a curve of accuracies, (n,); None for an empty one."""
    return _mean(np.asarray(curve, np.float64)[-1:])


def _best(matrix: Floats) -> Floats:
    """Give the best of each column, NaN where nothing was measured."""
    best = np.where(np.isnan(matrix), -np.inf, matrix).max(axis=0, initial=-np.inf)
    return np.where(np.isinf(best), np.nan, best)


def forgetting_chaudhry(matrix: Floats) -> float | None:
    """Average the drop from the best accuracy before the last step; may be negative (Chaudhry et al. 2018).

    >>> R = np.array([[0.8, np.nan, np.nan], [0.9, 0.8, np.nan], [0.75, 0.85, 0.7]])
    >>> round(forgetting_chaudhry(R), 3), round(forgetting_first_last(R), 3), round(forgetting_max_all(R), 3)
    (0.05, 0.0, 0.075)

    Args:
        matrix: (n, n) R of `accuracy_matrix`.

    Returns:
        Mean over tasks j < n of max_{l < n} R[l, j] - R[n, j]; None for fewer than two steps.
    """
    return _mean(_best(matrix[:-1, :-1]) - matrix[-1, :-1]) if len(matrix) > 1 else None


def forgetting_first_last(matrix: Floats) -> float | None:
    """Average the drop from the accuracy right after learning, R[j, j] - R[n, j] over j < n; None below two steps.

    Avalanche's forgetting: what was gained on a task by later steps and lost again does not count.
    """
    return _mean(np.diagonal(matrix)[:-1] - matrix[-1, :-1]) if len(matrix) > 1 else None


def forgetting_max_all(matrix: Floats) -> float | None:
    """Average the drop from the best accuracy of all steps, the last included; never negative; None below two steps.

    The forgetting of Mammoth and PyCIL: a task that is at its best in the end counts 0 instead of a gain.
    """
    return _mean(_best(matrix)[:-1] - matrix[-1, :-1]) if len(matrix) > 1 else None


def bwt(matrix: Floats) -> float | None:
    """Average R[n, j] - R[j, j] over j < n: backward transfer (Lopez-Paz and Ranzato 2017); None below two steps."""
    return _mean(matrix[-1, :-1] - np.diagonal(matrix)[:-1]) if len(matrix) > 1 else None


@dataclass(frozen=True)
class OldNew:
    """Accuracy on classes learned before a step and in it, pooled over their test samples.

    Attributes:
        old: None at the first step.
        new: accuracy on the classes of this step.
        harmonic_mean: 2 old new / (old + new), 0 where both are 0; None where one of them is.
    """

    old: float | None
    new: float | None
    harmonic_mean: float | None


def class_accuracy(counts: Counts) -> Floats:
    """Give the accuracy on each class after each step, (n, c), NaN before a class is tested."""
    return _rate(counts.class_correct, counts.class_total)


def old_new(counts: Counts) -> list[OldNew] | None:
    """Split the accuracy after each step by old and new classes; None if classes repeat over tasks or are none."""
    if counts.origin is None or not counts.classes:
        return None
    return [_old_new(counts, counts.origin, i) for i in range(len(counts))]


def _old_new(counts: Counts, origin: Ints, i: int) -> OldNew:
    def accuracy(which: NDArray[np.bool_]) -> float | None:
        total = int(counts.class_total[i, which].sum())
        return int(counts.class_correct[i, which].sum()) / total if total else None

    old, new = accuracy(origin < i), accuracy(origin == i)
    if old is None or new is None:
        return OldNew(old, new, None)
    return OldNew(old, new, 2 * old * new / (old + new) if old + new else 0.0)


def summary(counts: Counts) -> dict[str, float | None]:
    """Give every number of `DEFINITIONS` that describes a whole run; None where it is not defined."""
    matrix = accuracy_matrix(counts.correct, counts.total)
    pooled, task_mean = pooled_accuracy(counts.correct, counts.total), task_mean_accuracy(matrix)
    split = old_new(counts)
    last = split[-1] if split else OldNew(None, None, None)
    top5 = None if counts.top5 is None else pooled_accuracy(counts.top5, counts.total)
    return {
        "average_incremental_accuracy.pooled": average_incremental_accuracy(pooled),
        "average_incremental_accuracy.task_mean": average_incremental_accuracy(task_mean),
        "last_accuracy.pooled": last_accuracy(pooled),
        "last_accuracy.task_mean": last_accuracy(task_mean),
        "last_accuracy.old": last.old,
        "last_accuracy.new": last.new,
        "last_accuracy.harmonic_mean": last.harmonic_mean,
        "forgetting.chaudhry": forgetting_chaudhry(matrix),
        "forgetting.first_last": forgetting_first_last(matrix),
        "forgetting.max_all": forgetting_max_all(matrix),
        "bwt": bwt(matrix),
        "average_incremental_top5.pooled": None if top5 is None else average_incremental_accuracy(top5),
        "last_top5.pooled": None if top5 is None else last_accuracy(top5),
    }


@dataclass(frozen=True)
class Spread:
    """A number over several runs.

    Attributes:
        mean: their mean.
        std: sample standard deviation, divisor n - 1; None for one run.
        n: how many runs had the number.
    """

    mean: float
    std: float | None
    n: int


def spread(values: Iterable[float | None]) -> Spread | None:
    """Summarise a number over runs, leaving out those that do not have it; None if none has.

    >>> spread([1, 3, None])
    Spread(mean=2.0, std=1.4142135623730951, n=2)
    """
    known = [float(value) for value in values if value is not None]
    if not known:
        return None
    return Spread(fmean(known), stdev(known) if len(known) > 1 else None, len(known))


def curve_area(
    points: Sequence[Point], kind: Literal["trapezoid", "log2"] = "trapezoid", normalise: bool = True
) -> float:
    """Give the area under an accuracy-for-memory curve, straight lines between its points.

    The published AUC-A and AUC-L (Zhou et al., MEMO, ICLR 2023) are the raw area, with x in MiB and accuracy as a
    fraction. They start at the first budget, not at 0, so the raw area divided by the range of x is the mean accuracy
    over budgets.

    >>> points = [(1, 0.5), (2, 0.6), (4, 0.8)]
    >>> round(curve_area(points, normalise=False), 3), round(curve_area(points), 3)
    (1.95, 0.65)

    Args:
        points: at least two (memory, accuracy), memory strictly ascending; MiB for the published figures.
        kind: "trapezoid" integrates over the memory, "log2" over its base-2 logarithm, where the step from 1 to 2 MiB
            weighs as much as the one from 8 to 16 (lines are straight in log2 then).
        normalise: divide by the range of x, so that a constant curve gives its constant.

    Raises:
        ValueError: for fewer than two points, memory that does not ascend, or another kind.
    """
    x, y = _curve(points, kind)
    area = float(((x[1:] - x[:-1]) * (y[1:] + y[:-1]) / 2).sum())
    return area / float(x[-1] - x[0]) if normalise else area


def common_interval(curves: Mapping[str, Sequence[Point]]) -> tuple[float, float]:
    """Give the range of memory that all curves cover: (largest first x, smallest last x).

    Raises:
        ValueError: where they share none.
    """
    for points in curves.values():
        _curve(points, "trapezoid")
    first, last = (
        max(points[0][0] for points in curves.values()),
        min(points[-1][0] for points in curves.values()),
    )
    if first >= last:
        raise ValueError(
            f"the curves of {', '.join(curves)} share no range of memory (one starts at {first:g}, another ends at "
            f"{last:g}); areas need one: run them on overlapping budgets"
        )
    return first, last


def curve_areas(
    curves: Mapping[str, Sequence[Point]],
    kind: Literal["trapezoid", "log2"] = "trapezoid",
    normalise: bool = True,
) -> dict[str, float]:
    """Give each curve's area on the interval that all of them cover; ends by interpolation, never by extrapolation.

    Methods under one budget land on slightly different bytes, so measured bytes are compared where all were measured.

    Raises:
        ValueError: as `curve_area`, and where the curves share no interval.
    """
    if not curves:
        return {}
    first, last = common_interval(curves)
    return {name: curve_area(_cut(points, first, last, kind), kind, normalise) for name, points in curves.items()}


def accuracy_per_mib(accuracy: float, mib: float) -> float:
    """Give the published APM: accuracy in percent per MiB, at the start (APM-S) or the end (APM-E) of a curve."""
    return 100 * accuracy / mib


def _curve(points: Sequence[Point], kind: str) -> tuple[Floats, Floats]:
    """Check a curve and give its x (as it is integrated over) and y."""
    if kind not in ("trapezoid", "log2"):
        raise ValueError(f"kind={kind!r} is no area; choose 'trapezoid' or 'log2'")
    x, y = (np.array([float(point[axis]) for point in points], np.float64) for axis in (0, 1))
    if len(x) < 2 or not (np.diff(x) > 0).all():
        raise ValueError(
            f"an area needs at least two points with ascending memory, got {x.tolist()}: sort them, drop repeats"
        )
    if kind == "log2" and x[0] <= 0:
        raise ValueError(f"kind='log2' needs memory above 0, got {x[0]:g}; leave that point out")
    return (np.log2(x) if kind == "log2" else x), y


def _cut(points: Sequence[Point], first: float, last: float, kind: str) -> list[Point]:
    """Cut a curve to [first, last], which it covers."""
    x, y = _curve(points, kind)
    ends = np.log2([first, last]) if kind == "log2" else np.array([first, last])
    left, right = np.interp(ends, x, y)
    return [(first, float(left)), *((a, b) for a, b in points if first < a < last), (last, float(right))]
