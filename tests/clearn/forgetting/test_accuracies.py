"""Shares, gaps and tugs of war: worked examples, and Wilson's interval against its defining equation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clearn.forgetting import (
    Outcome,
    Share,
    accuracy,
    average_gap,
    confidences,
    entropies,
    logit_confidences,
    losses,
    tug_of_war,
    tug_of_war_mia,
)

LOGITS = np.array([[2.0, 0.0, 1.0], [0.0, 3.0, 1.0], [1.0, 1.0, 0.0], [0.0, 0.5, 4.0]])


def test_accuracy_is_a_sample_mean_and_the_first_of_equal_logits_counts() -> None:
    assert accuracy(LOGITS, [0, 1, 1, 0]) == Share(2, 4)
    assert accuracy(LOGITS, [0, 1, 0, 2]).value == 1
    assert accuracy(LOGITS.astype(np.float16), np.array([0, 1, 0, 0], np.uint8)) == Share(3, 4)


@pytest.mark.parametrize(("hits", "total", "level"), [(93, 100, 0.95), (1, 7, 0.9), (50, 100, 0.99)])
def test_wilson_s_ends_are_where_the_score_test_rejects(hits: int, total: int, level: float) -> None:
    """(p_hat - p)^2 = z^2 p (1 - p) / n at both ends, z from the normal's error function."""
    for end in Share(hits, total).interval(level):
        z = abs(hits / total - end) / math.sqrt(end * (1 - end) / total)
        assert math.erf(z / math.sqrt(2)) == pytest.approx(level, abs=1e-12)


def test_wilson_at_the_edges_stays_inside() -> None:
    low, high = Share(0, 20).interval()
    assert low == 0 and high == pytest.approx(0.16113, abs=1e-5)
    assert Share(20, 20).interval() == pytest.approx((1 - high, 1))


def test_tug_of_war_of_the_spec() -> None:
    unlearned, retrained = Outcome(0.10, 0.95, 0.90, mia=0.7), Outcome(0.12, 0.97, 0.92, mia=0.6)
    assert tug_of_war(unlearned, retrained) == pytest.approx(0.941192, abs=1e-12)
    assert tug_of_war_mia(unlearned, retrained) == pytest.approx(0.98**2 * 0.9, abs=1e-12)
    assert tug_of_war(retrained, retrained) == tug_of_war_mia(retrained, retrained) == 1
    assert tug_of_war(Outcome(1, 0, 0), Outcome(0, 1, 1)) == 0


def test_average_gap_by_hand() -> None:
    unlearned, retrained = Outcome(0.10, 0.95, 0.90, mia=0.7), Outcome(0.13, 0.97, 0.92, mia=0.6)
    assert unlearned.ua == pytest.approx(0.9)
    assert average_gap(unlearned, retrained) == pytest.approx((0.03 + 0.02 + 0.02 + 0.1) / 4)
    assert average_gap(retrained, retrained) == 0


def test_measures_of_an_attack_need_the_attack() -> None:
    attacked, plain = Outcome(0.1, 0.9, 0.9, mia=0.5), Outcome(0.1, 0.9, 0.9)
    for measure in (average_gap, tug_of_war_mia):
        with pytest.raises(ValueError, match="MIA of both"):
            measure(attacked, plain)


def test_numbers_of_a_sample_against_naive_ones() -> None:
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
    labels = np.array([0, 2, 1, 2])
    own = p[np.arange(4), labels]
    assert entropies(LOGITS) == pytest.approx(-(p * np.log(p)).sum(axis=1))
    assert losses(LOGITS, labels) == pytest.approx(-np.log(own))
    assert confidences(LOGITS, labels) == pytest.approx(own)
    assert logit_confidences(LOGITS, labels) == pytest.approx(np.log(own) - np.log(1 - own))


def test_numbers_of_a_sample_are_stable_where_probabilities_saturate() -> None:
    sure = np.array([[800.0, 0.0, 0.0], [-800.0, 800.0, 800.0], [0.0, 0.0, 0.0]])
    assert entropies(sure) == pytest.approx([0, math.log(2), math.log(3)])
    assert logit_confidences(sure, [0, 0, 0]) == pytest.approx([800 - math.log(2), -1600 - math.log(2), -math.log(2)])
    assert losses(sure, [0, 0, 0]) == pytest.approx([0, 1600 + math.log(2), math.log(3)])
    assert entropies(sure + 1e4) == pytest.approx(entropies(sure))


def test_numbers_of_a_sample_do_not_depend_on_the_batch() -> None:
    logits = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32) * 9
    labels = np.arange(50) % 7
    for size in (1, 8, 50):
        batches = [slice(i, i + size) for i in range(0, 50, size)]
        assert np.array_equal(np.concatenate([entropies(logits[b]) for b in batches]), entropies(logits))
        phi = np.concatenate([logit_confidences(logits[b], labels[b]) for b in batches])
        assert np.array_equal(phi, logit_confidences(logits, labels))


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([[1.0, np.nan]], [0], "not finite"),
        ([[1.0, -np.inf]], [0], "not finite"),
        (np.zeros((0, 3)), [], "empty"),
        ([1.0, 2.0], [0, 1], r"shape \(n, c\)"),
        ([[1.0]], [0], "at least 2 classes"),
        ([[1.0, 2.0]], [0, 1], r"shape \(1,\)"),
        ([[1.0, 2.0]], [2], r"label 2 must lie in \[0, 2\)"),
        ([[1.0, 2.0]], [-1], "label -1"),
        ([[1.0, 2.0]], [0.0], "integers, got float64"),
    ],
)
def test_bad_arrays_are_named(logits: object, labels: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        accuracy(logits, labels)  # type: ignore[arg-type]
    if message != r"shape \(n, c\)":
        with pytest.raises(ValueError, match=message):
            logit_confidences(logits, labels)  # type: ignore[arg-type]


def test_bad_shares_and_outcomes_are_refused() -> None:
    for hits, total in ((0, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="must lie in"):
            Share(hits, total)
    with pytest.raises(ValueError, match="level=95"):
        Share(1, 2).interval(95)
    with pytest.raises(ValueError, match=r"retain=95 must be a fraction"):
        Outcome(0.1, 95, 0.9)
    with pytest.raises(ValueError, match="test=nan"):
        Outcome(0.1, 0.9, float("nan"))
