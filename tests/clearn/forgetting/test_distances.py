"""Distances between two models, what comes back over time, and the probe of features."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clearn.forgetting import (
    AnamnesisIndex,
    Features,
    RelearnTime,
    accuracy_gain,
    activation_distance,
    anamnesis_index,
    feature_distance,
    js,
    kl,
    layer_distances,
    output_divergence,
    probe,
    relapse,
    relearn_time,
    zrf,
)

HALF, SURE, OPPOSITE = [0.0, 0.0], [800.0, 0.0], [0.0, 800.0]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_divergences_by_hand() -> None:
    assert kl([SURE], [HALF]) == pytest.approx([math.log(2)])
    assert kl([HALF], [SURE]) == pytest.approx([400 - math.log(2)])
    mixed = (math.log(4 / 3) + 0.5 * math.log(2 / 3) + 0.5 * math.log(2)) / 2  # p (1, 0), q (1/2, 1/2), m (3/4, 1/4)
    assert js([SURE], [HALF]) == pytest.approx([mixed])
    assert js([SURE, HALF], [OPPOSITE, HALF]) == pytest.approx([math.log(2), 0])
    assert activation_distance([SURE, HALF], [OPPOSITE, HALF]) == pytest.approx(math.sqrt(2) / 2)


def test_divergences_against_naive_ones() -> None:
    first, second = rng(1).normal(size=(30, 6)) * 3, rng(2).normal(size=(30, 6)) * 3
    p, q = (np.exp(z) / np.exp(z).sum(axis=1, keepdims=True) for z in (first, second))
    m = (p + q) / 2
    assert kl(first, second) == pytest.approx((p * np.log(p / q)).sum(axis=1))
    naive = ((p * np.log(p / m)).sum(axis=1) + (q * np.log(q / m)).sum(axis=1)) / 2
    assert js(first, second) == pytest.approx(naive)
    assert js(first, second) == pytest.approx(js(second, first))
    both = output_divergence(first, second)
    assert (both.kl, both.js) == pytest.approx((kl(first, second).mean(), naive.mean()))
    order = rng(3).permutation(30)
    assert output_divergence(first[order], second[order]).js == pytest.approx(both.js, rel=1e-14)


def test_zrf_spans_zero_to_one() -> None:
    assert zrf([SURE, HALF], [SURE, HALF]) == 1
    assert zrf([SURE], [OPPOSITE]) == pytest.approx(0)
    assert zrf([SURE, HALF], [OPPOSITE, HALF]) == pytest.approx(0.5)
    logits = rng().normal(size=(20, 5))
    assert zrf(logits, logits + 7) == pytest.approx(1)  # a shift of all logits is no change


def test_feature_distances() -> None:
    x = rng(1).normal(size=(40, 6))
    turn = np.linalg.qr(rng(2).normal(size=(6, 6)))[0]
    turned = feature_distance(x, 3 * x @ turn)
    assert turned.cka == pytest.approx(0, abs=1e-12) and turned.cosine > 0.1
    same = feature_distance(x, x)
    assert (same.euclidean, same.cosine, same.cka) == pytest.approx((0, 0, 0), abs=1e-12)
    by_hand = feature_distance([[3.0, 0.0], [0.0, 1.0]], [[0.0, 4.0], [0.0, 2.0]])
    assert (by_hand.euclidean, by_hand.cosine) == pytest.approx(((5 + 1) / 2, 0.5))
    dead = feature_distance(np.zeros((4, 2)), [[1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [0.0, 3.0]])
    assert (dead.cosine, dead.cka) == (1, 1)
    both_dead = feature_distance(np.zeros((4, 2)), np.zeros((4, 2)))
    assert (both_dead.euclidean, both_dead.cosine, both_dead.cka) == (0, 0, 0)


def test_layer_distances() -> None:
    ours = {"conv.weight": np.zeros((2, 2), np.float32), "bn.count": np.float32(1)}
    theirs = {"conv.weight": np.full((2, 2), 3, np.float32), "bn.count": np.float32(1)}
    assert layer_distances(ours, theirs) == {"conv.weight": 6, "bn.count": 0}
    with pytest.raises(ValueError, match=r"\['bn.count'\] differ"):
        layer_distances(ours, {"conv.weight": theirs["conv.weight"]})
    with pytest.raises(ValueError, match=r"both models' conv\.weight must have one shape"):
        layer_distances(ours, theirs | {"conv.weight": np.zeros(3)})
    with pytest.raises(ValueError, match=r"bn\.count holds values that are not finite"):
        layer_distances(ours, theirs | {"bn.count": np.nan})
    with pytest.raises(ValueError, match="none differ"):
        layer_distances({}, {})


def test_relearn_time_counts_steps_to_the_level() -> None:
    curve = [0.1, 0.5, 0.949, 0.95, 1.0]
    assert relearn_time(curve, 1.0) == RelearnTime(3, True)
    assert relearn_time(curve, 0.8) == RelearnTime(2, True)  # level 0.76
    assert relearn_time([0.76, 0.8], 0.8) == RelearnTime(0, True)  # nothing was forgotten
    assert relearn_time(curve[:3], 1.0) == RelearnTime(2, False)
    assert relearn_time(curve, 1.0, tolerance=0) == RelearnTime(4, True)
    assert relearn_time([0.76], 0.8) == RelearnTime(0, True)  # stopped before the first step
    assert relearn_time(np.float32([0.1, 19 / 20]), 1.0) == RelearnTime(1, True)  # a hair below 0.95 in float32


def test_anamnesis_index_says_what_is_known() -> None:
    def took(steps: int, reached: bool = True) -> RelearnTime:
        return RelearnTime(steps, reached)

    assert anamnesis_index(took(5), took(20)) == AnamnesisIndex(0.25, "exactly")
    assert anamnesis_index(took(0), took(20)) == AnamnesisIndex(0, "exactly")  # did nothing
    assert anamnesis_index(took(50, False), took(20)) == AnamnesisIndex(2.5, "at least")
    assert anamnesis_index(took(5), took(50, False)) == AnamnesisIndex(0.1, "at most")
    assert anamnesis_index(took(50, False), took(50, False)) == AnamnesisIndex(None, "unknown")
    assert anamnesis_index(took(0), took(0)) == AnamnesisIndex(1, "exactly")
    assert anamnesis_index(took(3), took(0)) == AnamnesisIndex(math.inf, "exactly")


def test_relapse_tells_coming_back_from_never_gone() -> None:
    back = relapse([0.0, 0.3, 0.6, 0.1], [0.0, 0.1, 0.1, 0.2])
    assert (back.worst, back.rebound, back.area) == pytest.approx((0.5, 0.5, 0.7))
    never_gone = relapse([0.9, 0.6, 0.5], [0.1, 0.1, 0.1])
    assert never_gone.worst == pytest.approx(0.5) and never_gone.rebound < 0
    below = relapse([0.1, 0.0], [0.1, 0.1])
    assert below.worst < 0 and below.area == 0


def test_an_old_teacher_kept_on_purpose_is_a_relapse() -> None:
    """Distilling from a teacher that still knows the class brings it back, step by step."""
    teacher, oracle = 0.9, np.full(6, 0.05)
    taught = 0.05 + (teacher - 0.05) * (1 - 0.5 ** np.arange(6))
    assert relapse(taught, oracle).worst > 0.8 and relapse(taught, oracle).rebound > 0.8
    assert relapse(oracle, oracle).worst == relapse(oracle, oracle).area == 0


def test_accuracy_gain_averages_tasks() -> None:
    assert accuracy_gain([0.9, 0.7], [0.8, 0.7]) == pytest.approx(0.05)
    assert accuracy_gain([0.5], [0.9]) == pytest.approx(-0.4)


def clusters(seed: int, centres: np.ndarray, n: int = 40) -> Features:
    labels = np.repeat(np.arange(len(centres)), n)
    return Features(centres[labels] + rng(seed).normal(size=(len(labels), centres.shape[1])), labels)


def test_probe_finds_a_class_in_the_features_and_misses_a_removed_one() -> None:
    apart = np.eye(4, 6) * 12
    there = probe(clusters(1, apart), clusters(2, apart), {2})
    assert there.forgotten.value == 1 and there.forgotten.total == 40
    assert there.remaining is not None and there.remaining.total == 120 and there.converged
    merged = apart.copy()
    merged[2] = merged[1]
    gone = probe(clusters(1, merged), clusters(2, merged), {2})
    assert gone.forgotten.value < 0.8
    assert gone.remaining is not None and gone.remaining.value > 0.7


def test_probe_of_dead_features_and_of_forgotten_classes_only() -> None:
    labels = np.repeat([0, 1, 2], [30, 20, 10])
    dead = Features(np.zeros((60, 3)), labels)
    found = probe(dead, dead, {2})
    assert found.forgotten.value == 0 and found.remaining is not None and found.remaining.value == 0.6
    asked = Features(np.zeros((5, 3)), np.full(5, 2))
    assert probe(dead, asked, {2}).remaining is None


def test_probe_says_when_it_did_not_converge() -> None:
    overlapping = clusters(3, np.eye(4, 6))
    assert not probe(overlapping, overlapping, {0}, iterations=1).converged


def test_bad_input_is_refused() -> None:
    logits = rng().normal(size=(3, 4))
    with pytest.raises(ValueError, match="one shape"):
        zrf(logits, logits[:2])
    with pytest.raises(ValueError, match="second logits hold"):
        kl(logits, np.full((3, 4), np.nan))
    with pytest.raises(ValueError, match="empty"):
        js(logits[:0], logits[:0])
    with pytest.raises(ValueError, match="no curve"):
        relearn_time([0.5], 1.0)
    with pytest.raises(ValueError, match="original=0"):
        relearn_time([0.5, 0.6], 0)
    with pytest.raises(ValueError, match="fractions"):
        relearn_time([50, 60], 1.0)
    with pytest.raises(ValueError, match="later than"):
        relapse([0.5], [0.5])
    with pytest.raises(ValueError, match="one shape"):
        accuracy_gain([0.5], [0.5, 0.6])
    labelled = clusters(1, np.eye(3, 4))
    with pytest.raises(ValueError, match=r"without \[7\]"):
        probe(labelled, labelled, {7})
    with pytest.raises(ValueError, match="at least one class"):
        probe(labelled, labelled, set())
    with pytest.raises(ValueError, match="one width"):
        probe(labelled, Features(np.zeros((3, 2)), [0, 1, 2]), {0})
    with pytest.raises(ValueError, match="class 4 alone"):
        probe(Features(np.zeros((3, 2)), [4, 4, 4]), Features(np.zeros((3, 2)), [4, 4, 4]), {4})
