"""Attacks on one model: the SSD paper's to the letter, by losses, by confidences, and the curve they are read from."""

from __future__ import annotations

import numpy as np
import pytest

from clearn.forgetting import attack_entropies, confidence_attack, entropies, entropy_attack, loss_attack, roc


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_entropy_attack_of_the_spec() -> None:
    attack = attack_entropies([0.1], [1.0], [0.1, 0.1, 1.0, 1.0])
    assert attack.score_percent == 50
    assert attack.threshold == pytest.approx(0.55, abs=1e-5)  # by symmetry, up to the tolerance of lbfgs
    assert attack.weight < 0 and attack.accuracy == attack.balanced_accuracy == 1


def test_entropy_attack_minimises_the_balanced_penalised_loss() -> None:
    """The gradient of w^2 / 2 + sum of weighted log-losses is 0, weights n / (2 n_class): L2, C = 1, balanced."""
    draw = rng()
    members, others = draw.gamma(1, 0.3, 400), draw.gamma(2, 0.4, 80)
    attack = attack_entropies(members, others, members)
    x, y = np.concatenate([members, others]), np.arange(480) < 400
    weights = np.where(y, 480 / 800, 480 / 160)
    error = weights * (1 / (1 + np.exp(-(attack.weight * x + attack.bias))) - y)
    assert attack.weight + (error * x).sum() == pytest.approx(0, abs=1e-2)
    assert error.sum() == pytest.approx(0, abs=1e-2)


def test_entropy_attack_is_one_threshold_and_what_sklearn_predicts() -> None:
    from sklearn.linear_model import LogisticRegression

    draw = rng(1)
    members, others, forget = draw.gamma(1, 0.3, 300), draw.gamma(2, 0.3, 100), draw.gamma(1.5, 0.3, 200)
    attack = attack_entropies(members, others, forget)
    assert attack.threshold is not None
    assert attack.called_member.hits == (forget < attack.threshold).sum()
    x, y = np.concatenate([members, others]), np.r_[np.ones(300), np.zeros(100)]
    reference = LogisticRegression(class_weight="balanced").fit(x[:, None], y)
    assert attack.called_member.hits == reference.predict(forget[:, None]).sum()
    assert attack.accuracy == reference.score(x[:, None], y)
    assert attack.weight == pytest.approx(reference.coef_[0, 0], rel=1e-3)


def test_entropy_attack_knows_neither_batches_nor_order() -> None:
    draw = rng(2)
    members, others, forget = (draw.normal(size=(n, 5)) * s for n, s in ((200, 4), (90, 3), (60, 3.5)))
    whole = entropy_attack(members, others, forget)
    mixed = entropy_attack(draw.permutation(members), draw.permutation(others), draw.permutation(forget))
    one_by_one = attack_entropies(*(np.concatenate([entropies(z[i : i + 1]) for i in range(len(z))])
                                    for z in (members, others, forget)))  # fmt: skip
    assert whole == mixed == one_by_one


def test_entropy_attack_needs_no_labels_and_shows_when_it_learned_nothing() -> None:
    same = np.full(50, 0.7)
    attack = attack_entropies(same, same, same)
    assert attack.balanced_accuracy == 0.5
    assert abs(attack.weight) < 1e-6


def test_loss_attack_finds_what_is_there_and_nothing_else() -> None:
    draw = rng(3)
    told = loss_attack(draw.gamma(1, 0.01, 300), draw.gamma(1, 0.01, 500) + 1, rng())
    assert told.accuracy == told.auc == told.roc.auc == 1
    assert told.accuracies.shape == told.aucs.shape == (10,)
    blind = loss_attack(draw.normal(size=2000), draw.normal(size=2000), rng())
    assert blind.accuracy == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(4000))  # ten overlapping splits of 400
    assert blind.roc.auc == pytest.approx(0.5, abs=4 * np.sqrt(1 / 12 * 2 / 2000))


def test_loss_attack_repeats_and_knows_no_order() -> None:
    draw = rng(4)
    forget, unseen = draw.gamma(1, 1, 40), draw.gamma(2, 1, 70)
    first = loss_attack(forget, unseen, rng(9))
    again = loss_attack(forget[::-1], draw.permutation(unseen), rng(9))
    assert np.array_equal(first.accuracies, again.accuracies) and np.array_equal(first.aucs, again.aucs)
    assert first.auc > 0.6
    assert len(loss_attack([0.1, 0.2], [1.0, 2.0], rng(), splits=3).accuracies) == 3


def test_confidence_attack_counts_those_called_unseen() -> None:
    draw = rng(5)
    members, others = 1 - draw.random(300) * 0.05, draw.random(200) * 0.6
    attack = confidence_attack(members, others, [0.99, 0.98, 0.3, 0.2, 0.1], rng())
    assert attack.called_unseen.hits == 3
    assert attack.efficacy == 0.6 and attack.accuracy > 0.99
    mixed = confidence_attack(members[::-1], draw.permutation(others), [0.1, 0.3, 0.98, 0.2, 0.99], rng())
    assert mixed == attack


def test_confidence_attack_is_the_released_machine() -> None:
    from sklearn.svm import SVC

    draw = rng(6)
    members, others, forget = draw.beta(8, 1, 150), draw.beta(4, 1, 150), draw.beta(5, 1, 100)
    machine = SVC(C=3, gamma="auto", kernel="rbf")
    machine.fit(np.concatenate([members, others])[:, None], np.r_[np.ones(150), np.zeros(150)])
    attack = confidence_attack(members, others, forget, rng())
    assert attack.efficacy == pytest.approx(1 - machine.predict(forget[:, None]).mean(), abs=0.02)


def test_roc_by_hand() -> None:
    curve = roc([3.0, 2.0, 2.0, 0.0], [2.0, 1.0, 1.0, 0.0, 0.0])
    assert curve.thresholds.tolist() == [np.inf, 3, 2, 1, 0]
    assert curve.tpr.tolist() == [0, 0.25, 0.75, 0.75, 1]
    assert curve.fpr == pytest.approx([0, 0, 0.2, 0.6, 1])
    wins = sum((p > n) + (p == n) / 2 for p in (3, 2, 2, 0) for n in (2, 1, 1, 0, 0))
    assert curve.auc == pytest.approx(wins / 20)
    assert [curve.tpr_at(x) for x in (0, 0.001, 0.2, 0.59, 1)] == [0.25, 0.25, 0.75, 0.75, 1]


def test_roc_agrees_with_sklearn_and_its_limits_hold() -> None:
    from sklearn.metrics import roc_auc_score

    draw = rng(7)
    positives, negatives = draw.normal(1, 1, 400).round(1), draw.normal(0, 1, 3000).round(1)
    curve = roc(positives, negatives)
    labels = np.r_[np.ones(400), np.zeros(3000)]
    assert curve.auc == pytest.approx(roc_auc_score(labels, np.concatenate([positives, negatives])))
    cut = next(t for t in sorted({*positives, *negatives}) if (negatives >= t).mean() <= 0.01)
    assert curve.tpr_at(0.01) == (positives >= cut).mean()
    assert roc([1.0], [0.0]).auc == 1 and roc([0.0], [1.0]).auc == 0 and roc([1.0, 1.0], [1.0]).auc == 0.5


def test_bad_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="entropies of the forget set are empty"):
        attack_entropies([0.1], [0.2], [])
    with pytest.raises(ValueError, match="members hold 1 values that are not finite"):
        attack_entropies([np.nan], [0.2], [0.1])
    with pytest.raises(ValueError, match="two of each"):
        loss_attack([0.1], [0.1, 0.2], rng())
    with pytest.raises(ValueError, match="splits=0"):
        loss_attack([0.1, 0.2], [0.1, 0.2], rng(), splits=0)
    with pytest.raises(ValueError, match=r"fractions in \[0, 1\]"):
        confidence_attack([0.1, 95.0], [0.2], [0.1], rng())
    with pytest.raises(ValueError, match="most=0"):
        confidence_attack([0.1], [0.2], [0.1], rng(), most=0)
    with pytest.raises(ValueError, match="fpr=2"):
        roc([1.0], [0.0]).tpr_at(2)
    with pytest.raises(ValueError, match="negatives must have the shape"):
        roc([1.0], [[0.0]])
