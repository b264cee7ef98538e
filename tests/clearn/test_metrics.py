"""Metrics against hand-computed matrices, the published areas, and streams on which a number is not defined."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from clearn import metrics
from clearn.metrics import Counts, OldNew, curve_area, curve_areas

SIZE = 1000  # test samples of a task; every accuracy below is a whole number of them


def counts(matrix: list[list[float]], sizes: list[int] | None = None) -> tuple[Any, Any]:
    """Turn a lower-triangular matrix of accuracies into (correct, total)."""
    n = len(matrix)
    sizes = sizes or [SIZE] * n
    correct, total = np.zeros((n, n), np.int64), np.zeros((n, n), np.int64)
    for i, row in enumerate(matrix):
        for j, accuracy in enumerate(row):
            correct[i, j], total[i, j] = round(accuracy * sizes[j]), sizes[j]
    return correct, total


def row(step: int, task: int, correct: int, total: int, **more: Any) -> dict[str, Any]:
    return {"step": step, "task": task, "probe": f"task {task}", "correct": correct, "total": total, **more}


WORKED = [[0.8], [0.9, 0.8], [0.75, 0.85, 0.7]]


def test_worked_example() -> None:
    correct, total = counts(WORKED)
    matrix = metrics.accuracy_matrix(correct, total)
    pooled = metrics.pooled_accuracy(correct, total)
    assert pooled == pytest.approx([0.8, 0.85, 0.76666667])
    assert metrics.task_mean_accuracy(matrix) == pytest.approx(pooled)  # equal sizes
    assert metrics.average_incremental_accuracy(pooled) == pytest.approx(0.8055555556)
    assert metrics.last_accuracy(pooled) == pytest.approx(0.7666666667)
    assert metrics.forgetting_chaudhry(matrix) == pytest.approx(0.05)
    assert metrics.forgetting_first_last(matrix) == pytest.approx(0.0)
    assert metrics.forgetting_max_all(matrix) == pytest.approx(0.075)
    assert metrics.bwt(matrix) == pytest.approx(0.0)


def test_unequal_sizes_tell_pooled_from_task_mean() -> None:
    correct, total = counts([[0.7], [0.7, 0.9], [0.7, 0.9, 0.8]], [500, 100, 100])
    assert metrics.pooled_accuracy(correct, total)[-1] == pytest.approx(0.742857, abs=1e-6)
    assert metrics.task_mean_accuracy(metrics.accuracy_matrix(correct, total))[-1] == pytest.approx(0.8)


def test_forgetting_can_be_negative_except_over_all_steps() -> None:
    matrix = metrics.accuracy_matrix(*counts([[0.5], [0.9, 0.5]]))
    assert metrics.forgetting_chaudhry(matrix) == pytest.approx(-0.4)
    assert metrics.forgetting_first_last(matrix) == pytest.approx(-0.4)
    assert metrics.forgetting_max_all(matrix) == pytest.approx(0.0)
    assert metrics.bwt(matrix) == pytest.approx(0.4)


def test_measures_agree_with_naive_loops() -> None:
    rng = np.random.default_rng(0)
    n, sizes = 7, [10, 40, 20, 90, 30, 50, 60]
    correct = np.tril(np.stack([rng.integers(0, size + 1, n) for size in sizes], axis=1))
    total = np.tril(np.tile(sizes, (n, 1)))
    R = [[correct[i, j] / sizes[j] for j in range(i + 1)] for i in range(n)]
    matrix = metrics.accuracy_matrix(correct, total)
    assert np.isnan(matrix[np.triu_indices(n, 1)]).all()

    pooled = [sum(R[i][j] * sizes[j] for j in range(i + 1)) / sum(sizes[: i + 1]) for i in range(n)]
    assert metrics.pooled_accuracy(correct, total) == pytest.approx(pooled)
    assert metrics.task_mean_accuracy(matrix) == pytest.approx([sum(r) / len(r) for r in R])
    chaudhry = sum(max(R[k][j] for k in range(j, n - 1)) - R[-1][j] for j in range(n - 1)) / (n - 1)
    assert metrics.forgetting_chaudhry(matrix) == pytest.approx(chaudhry)
    first_last = sum(R[j][j] - R[-1][j] for j in range(n - 1)) / (n - 1)
    assert metrics.forgetting_first_last(matrix) == pytest.approx(first_last)
    assert metrics.bwt(matrix) == pytest.approx(-first_last)
    max_all = sum(max(R[k][j] for k in range(j, n)) - R[-1][j] for j in range(n - 1)) / (n - 1)
    assert metrics.forgetting_max_all(matrix) == pytest.approx(max_all)


def test_counts_above_the_diagonal_change_nothing() -> None:
    correct, total = counts(WORKED)
    full, full_total = correct.copy(), total.copy()
    full[np.triu_indices(3, 1)], full_total[np.triu_indices(3, 1)] = 7, SIZE
    assert metrics.pooled_accuracy(full, full_total) == pytest.approx(metrics.pooled_accuracy(correct, total))
    assert np.isnan(metrics.accuracy_matrix(full, full_total)[0, 1])


def test_one_task_has_no_forgetting() -> None:
    found = metrics.summary(Counts.from_rows([row(1, 1, 8, 10, classes={"0": [8, 10]}, top5=10)]))
    for name in ("forgetting.chaudhry", "forgetting.first_last", "forgetting.max_all", "bwt", "last_accuracy.old"):
        assert found[name] is None
    assert found["average_incremental_accuracy.pooled"] == found["last_accuracy.new"] == pytest.approx(0.8)
    assert found["average_incremental_top5.pooled"] == found["last_top5.pooled"] == 1.0


def test_no_rows_give_no_numbers() -> None:
    empty = Counts.from_rows([])
    assert len(empty) == 0
    assert set(metrics.summary(empty).values()) == {None}


def test_every_number_is_defined() -> None:
    assert set(metrics.summary(Counts.from_rows([]))) == {
        name for name in metrics.DEFINITIONS if not name.startswith("accuracy.")
    }


def test_old_and_new_by_hand() -> None:
    rows = [
        row(1, 1, 9, 10, classes={"0": [4, 5], "1": [5, 5]}),
        row(2, 1, 3, 10, classes={"0": [3, 5], "1": [0, 5]}),
        row(2, 2, 9, 10, classes={"2": [4, 5], "3": [5, 5]}),
    ]
    found = Counts.from_rows(rows)
    split = metrics.old_new(found)
    assert split is not None
    assert split[0] == OldNew(None, 0.9, None)
    assert (split[1].old, split[1].new) == (pytest.approx(0.3), pytest.approx(0.9))
    assert split[1].harmonic_mean == pytest.approx(0.45)  # 2 * .3 * .9 / 1.2
    accuracy = metrics.class_accuracy(found)
    assert accuracy[1] == pytest.approx([0.6, 0.0, 0.8, 1.0])
    assert np.isnan(accuracy[0, 2:]).all()
    summary = metrics.summary(found)
    assert summary["last_accuracy.harmonic_mean"] == pytest.approx(0.45)


def test_harmonic_mean_of_nothing_right_is_zero() -> None:
    rows = [row(1, 1, 0, 5, classes={"0": [0, 5]})]
    rows += [row(2, 1, 0, 5, classes={"0": [0, 5]}), row(2, 2, 0, 5, classes={"1": [0, 5]})]
    split = metrics.old_new(Counts.from_rows(rows))
    assert split is not None
    assert split[-1] == OldNew(0.0, 0.0, 0.0)


def test_domain_incremental_streams_have_no_old_and_new() -> None:
    rows = [row(1, 1, 8, 10, classes={"0": [4, 5], "1": [4, 5]})]
    rows += [row(2, task, 7, 10, classes={"0": [3, 5], "1": [4, 5]}) for task in (1, 2)]
    found = Counts.from_rows(rows)
    assert found.origin is None
    assert metrics.old_new(found) is None
    assert metrics.summary(found)["last_accuracy.old"] is None
    assert found.class_total.tolist() == [[5, 5], [10, 10]]
    assert metrics.summary(found)["forgetting.chaudhry"] == pytest.approx(0.1)


def test_streams_without_classes_still_have_accuracy() -> None:
    found = Counts.from_rows([row(1, 1, 8, 10)])
    assert metrics.old_new(found) is None
    assert metrics.summary(found)["last_accuracy.pooled"] == pytest.approx(0.8)


def test_classes_are_numbers_not_strings() -> None:
    classes = {str(label): [label, 20] for label in (2, 10, 1)}
    found = Counts.from_rows([row(1, 1, 13, 60, classes=classes)])
    assert found.classes == (1, 2, 10)
    assert found.class_correct.tolist() == [[1, 2, 10]]


def test_a_repeated_row_replaces_the_earlier_one() -> None:
    found = Counts.from_rows([row(1, 1, 1, 10), row(1, 1, 8, 10)])
    assert found.correct.tolist() == [[8]]


def test_probes_of_one_task_are_pooled() -> None:
    more = {"step": 1, "task": 1, "probe": "task 1, rotated", "correct": 2, "total": 30}
    assert metrics.summary(Counts.from_rows([row(1, 1, 8, 10), more]))["last_accuracy.pooled"] == pytest.approx(0.25)


def test_a_step_cut_short_is_left_out() -> None:
    found = Counts.from_rows([row(1, 1, 8, 10), row(2, 1, 7, 10), row(3, 1, 7, 10), row(3, 2, 7, 10), row(3, 3, 1, 10)])
    assert len(found) == 1


def test_a_task_without_test_samples_is_left_out_of_means() -> None:
    found = Counts.from_rows([row(1, 1, 8, 10), row(2, 1, 6, 10), row(2, 2, 0, 0)])
    summary = metrics.summary(found)
    assert summary["last_accuracy.pooled"] == summary["last_accuracy.task_mean"] == pytest.approx(0.6)
    assert summary["forgetting.chaudhry"] == pytest.approx(0.2)


def test_top5_needs_every_row() -> None:
    assert Counts.from_rows([row(1, 1, 8, 10, top5=None)]).top5 is None
    rows = [row(1, 1, 8, 10, top5=10), row(2, 1, 5, 10, top5=6), row(2, 2, 9, 10, top5=10)]
    summary = metrics.summary(Counts.from_rows(rows))
    assert summary["average_incremental_top5.pooled"] == pytest.approx(0.9)
    assert summary["last_top5.pooled"] == pytest.approx(0.8)
    assert metrics.summary(Counts.from_rows([*rows[:2], row(2, 2, 9, 10)]))["last_top5.pooled"] is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (row(1, 1, 11, 10), "11 correct of 10 must lie in"),
        (row(1, 1, -1, 10), "-1 correct of 10"),
        (row(1, 1, 8, 10, classes={"0": [4, 5], "1": [3, 5]}), "do not sum to 8 correct of 10"),
    ],
)
def test_impossible_counts_are_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Counts.from_rows([wrong])


def test_spread_uses_n_minus_1() -> None:
    found = metrics.spread([0.6, 0.7, 0.8, None])
    assert found is not None
    assert (found.mean, found.std, found.n) == (pytest.approx(0.7), pytest.approx(0.1), 3)
    assert metrics.spread([0.5]) == metrics.Spread(0.5, None, 1)
    assert metrics.spread([None]) is None


def test_area_by_hand() -> None:
    flat = [(7.6, 0.7), (12.4, 0.7), (23.5, 0.7)]
    assert curve_area(flat, normalise=False) == pytest.approx(11.13)
    assert curve_area(flat) == pytest.approx(0.7)
    assert curve_area([(0, 0), (1, 1)]) == pytest.approx(0.5)
    assert curve_area([(1, 0.5), (2, 0.6), (4, 0.8)], normalise=False) == pytest.approx(1.95)
    assert curve_area([(1, 0.5), (2, 0.6), (4, 0.8)]) == pytest.approx(0.65)


def test_area_over_doublings() -> None:
    points = [(1, 0.5), (2, 0.6), (4, 0.8)]  # widths 1 and 1 in log2
    assert curve_area(points, kind="log2", normalise=False) == pytest.approx(0.55 + 0.7)
    assert curve_area(points, kind="log2") == pytest.approx(0.625)
    assert curve_area([(8, 0.7), (64, 0.7)], kind="log2") == pytest.approx(0.7)


# (published area, published percentage) of AUC-A and AUC-L, MEMO's paper and the survey
CIFAR100_B0_INC10 = {
    "gem": ((4.31, 27.1), (1.70, 10.7)),
    "podnet": ((9.42, 59.2), (6.80, 42.8)),
    "replay": ((10.49, 66.0), (8.02, 50.4)),
    "coil": ((10.60, 66.7), (7.82, 49.2)),
    "bic": ((10.73, 67.5), (8.30, 52.2)),
    "der": ((10.74, 67.5), (8.95, 56.3)),
    "wa": ((10.80, 67.9), (8.92, 56.1)),
    "icarl": ((10.81, 68.0), (8.64, 54.3)),
    "memo": ((10.85, 68.2), (9.03, 56.8)),
    "foster": ((11.12, 69.9), (9.03, 56.8)),
}
IMAGENET100_B50_INC5 = {
    "replay": ((553.6, 58.6), (470.1, 49.8)),
    "bic": ((592.7, 62.8), (474.2, 50.2)),
    "coil": ((601.9, 63.8), (486.5, 51.5)),
    "icarl": ((607.1, 64.3), (527.5, 55.9)),
    "foster": ((638.7, 67.7), (566.3, 60.0)),
    "wa": ((666.0, 70.6), (581.7, 61.6)),
    "der": ((699.0, 74.0), (639.1, 67.7)),
    "podnet": ((701.8, 74.3), (624.9, 66.2)),
    "memo": ((713.0, 75.5), (654.6, 69.3)),
}


@pytest.mark.parametrize(
    ("published", "first", "last", "rounding"),
    [(CIFAR100_B0_INC10, 7.6, 23.5, 0.005), (IMAGENET100_B50_INC5, 329.0, 1273.0, 0.05)],
)
def test_published_areas_are_mean_accuracies_over_the_budgets(
    published: dict[str, Any], first: float, last: float, rounding: float
) -> None:
    assert len(published) in (9, 10)
    for area, percent in (pair for pairs in published.values() for pair in pairs):
        flat = [(first, percent / 100), (last, percent / 100)]
        half_digit = 0.0005 * (last - first) + rounding  # both figures are rounded
        assert curve_area(flat, normalise=False) == pytest.approx(area, abs=half_digit)
        assert area / (last - first) == pytest.approx(percent / 100, abs=0.0005 + rounding / (last - first))


@pytest.mark.parametrize(
    ("apm", "mib", "percent"),
    [(7.68, 7.6, 58.4), (8.32, 7.6, 63.2), (8.57, 7.6, 65.1), (7.05, 7.6, 53.6), (7.18, 7.6, 54.6), (2.97, 23.5, 69.8)],
)
def test_accuracy_per_mib_implies_the_published_accuracies(apm: float, mib: float, percent: float) -> None:
    assert metrics.accuracy_per_mib(percent / 100, mib) == pytest.approx(apm, abs=0.05 / mib + 0.005)


def test_areas_share_an_interval_and_are_never_extrapolated() -> None:
    curves = {"long": [(0.0, 0.0), (10.0, 1.0)], "short": [(2.0, 0.5), (3.0, 0.5), (6.0, 0.5)]}
    assert metrics.common_interval(curves) == (2.0, 6.0)
    assert curve_areas(curves) == {"long": pytest.approx(0.4), "short": pytest.approx(0.5)}
    raw = curve_areas(curves, normalise=False)
    assert raw == {"long": pytest.approx(1.6), "short": pytest.approx(2.0)}
    alone = {"long": curves["long"]}
    assert curve_areas(alone)["long"] == pytest.approx(curve_area(curves["long"]))
    assert curve_areas({}) == {}


def test_areas_over_doublings_are_cut_in_doublings() -> None:
    curves = {"a": [(1.0, 0.2), (16.0, 0.6)], "b": [(2.0, 0.5), (8.0, 0.5)]}  # a is .3 at 2 and .5 at 8
    assert curve_areas(curves, kind="log2") == {"a": pytest.approx(0.4), "b": pytest.approx(0.5)}


@pytest.mark.parametrize(
    ("points", "kind", "message"),
    [
        ([(1, 0.5)], "trapezoid", "at least two points"),
        ([(2, 0.5), (1, 0.5)], "trapezoid", "ascending"),
        ([(1, 0.5), (1, 0.6)], "trapezoid", "drop repeats"),
        ([(0, 0.5), (1, 0.6)], "log2", "memory above 0"),
        ([(1, 0.5), (2, 0.6)], "simpson", "choose 'trapezoid' or 'log2'"),
    ],
)
def test_areas_that_make_no_sense_are_refused(points: list[tuple[float, float]], kind: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        curve_area(points, kind=kind)


def test_areas_without_a_common_interval_are_refused() -> None:
    with pytest.raises(ValueError, match="share no range of memory"):
        curve_areas({"a": [(1, 0.5), (2, 0.5)], "b": [(2, 0.5), (3, 0.5)]})


def test_a_thousand_tasks_stay_small() -> None:
    n = 1000
    counted = Counts(
        correct=np.tril(np.full((n, n), 9)),
        total=np.tril(np.full((n, n), 10)),
        classes=(),
        class_correct=np.zeros((n, 0), np.int64),
        class_total=np.zeros((n, 0), np.int64),
        origin=np.zeros(0, np.int64),
        top5=None,
    )
    found = metrics.summary(counted)
    assert found["average_incremental_accuracy.pooled"] == pytest.approx(0.9)
    assert found["forgetting.chaudhry"] == pytest.approx(0.0)


def test_importing_metrics_and_report_loads_nothing_heavy() -> None:
    heavy = ("torch", "matplotlib", "lightning", "pandas", "rich")
    program = (
        "import sys, clearn.metrics, clearn.report\n"
        f"found = [name for name in {heavy!r} if name in sys.modules]\n"
        "ours = [name for name in sys.modules if name.startswith('clearn.')]\n"
        "allowed = ('errors', 'folder', 'forgetting', 'metrics', 'report', 'state', 'streams')\n"
        "found += [name for name in ours if name.split('.')[1] not in allowed]\n"
        "sys.exit(str(found) if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
