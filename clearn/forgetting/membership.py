"""Membership attacks on one model: does it still treat the forgotten samples as ones that it was trained on?

Each attack is weak alone, and none has a target of its own: report the distance to the same attack on the retrained
model, per seed. A retrained model may score anywhere on a class that it never saw. All attacks work on scalars per
sample (see `arrays`), sorted first, so that neither the order of samples nor the size of a batch moves a bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from clearn.forgetting.accuracies import Share
from clearn.forgetting.arrays import Floats, checked, checked_rates, entropies
from clearn.forgetting.thresholds import Roc, roc

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression


@dataclass(frozen=True)
class EntropyAttack:
    """What the SSD paper's attacker says, and how far to believe it.

    Attributes:
        called_member: of the forgotten samples, counted.
        weight: w of the entropy; negative where members are the certain ones. Near 0 its sign, and with it the score,
            is noise: the attacker learned nothing.
        bias: b; "member" is w H + b > 0.
        accuracy: the attacker's own, on the samples it was fitted to.
        balanced_accuracy: the same, members and non-members weighed alike, which is what it was fitted for; 0.5 for
            an attacker that knows nothing, whatever the sizes.
    """

    called_member: Share
    weight: float
    bias: float
    accuracy: float
    balanced_accuracy: float

    @property
    def score_percent(self) -> float:
        """The published number: percent of D_f called member. Ideal: the retrained model's, neither 0 nor 50."""
        return 100 * self.called_member.value

    @property
    def threshold(self) -> float | None:
        """The entropy, in nats, at which the answer changes: -b / w; None for a weight of 0, which answers alike."""
        return -self.bias / self.weight if self.weight else None


def entropy_attack(members: ArrayLike, non_members: ArrayLike, forget: ArrayLike) -> EntropyAttack:
    """Attack by entropy, exactly as the SSD paper does (Foster et al. 2024); see `attack_entropies`.

    Args:
        members: (n_r, c) float, logits of all of D_r, without augmentation.
        non_members: (n_t, c) float, logits of the whole test set, the forgotten class included.
        forget: (m, c) float, logits of D_f, training samples.
    """
    return attack_entropies(entropies(members), entropies(non_members), entropies(forget))


def attack_entropies(members: ArrayLike, non_members: ArrayLike, forget: ArrayLike) -> EntropyAttack:
    """Fit a logistic regression from entropy to membership and ask it about D_f.

    L2 penalty with C = 1, lbfgs, balanced class weights, fitted on all samples without a split; no shadow model. The
    release asked for the two-class multinomial form, which today's scikit-learn has no more: it equals C = 2.

    Args:
        members: (n_r,) float, entropies in nats of D_r under the model attacked.
        non_members: (n_t,) float, of the test set.
        forget: (m,) float, of D_f.
    """
    known = checked(members, "entropies of members", "n")
    unknown = checked(non_members, "entropies of non-members", "n")
    asked = checked(forget, "entropies of the forget set", "n")

    fitted = _logistic(known, unknown)
    weight, bias = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    found, rejected, called = weight * known + bias > 0, weight * unknown + bias <= 0, weight * asked + bias > 0
    return EntropyAttack(
        Share(int(called.sum()), len(asked)),
        weight,
        bias,
        accuracy=float(found.sum() + rejected.sum()) / (len(known) + len(unknown)),
        balanced_accuracy=float(found.mean() + rejected.mean()) / 2,
    )


@dataclass(frozen=True, eq=False)
class LossAttack:
    """How well losses tell forgotten samples from unseen ones; ideal is the retrained model's value, near 0.5.

    Attributes:
        accuracies: (splits,) float64, on the held-out part of each split.
        aucs: (splits,) float64, of the attacker's score there.
        roc: of minus the loss over all samples given, without any fitting; positives are the forgotten.
    """

    accuracies: Floats
    aucs: Floats
    roc: Roc

    @property
    def accuracy(self) -> float:
        """Mean over the splits, 0.5 where nothing is told."""
        return float(self.accuracies.mean())

    @property
    def auc(self) -> float:
        """Mean of `aucs`."""
        return float(self.aucs.mean())


def loss_attack(
    forget: ArrayLike, unseen: ArrayLike, rng: np.random.Generator, splits: int = 10, held_out: float = 0.1
) -> LossAttack:
    """Attack by loss: a logistic regression, stratified shuffle splits (the NeurIPS 2023 challenge's simple MIA).

    The larger group is thinned to the size of the smaller one, once; each split holds out as many of both.

    Args:
        forget: (m,) float, losses of D_f in nats.
        unseen: (k,) float, losses of test samples of the same classes.
        rng: draws the thinning and the splits.
        splits: how many.
        held_out: share of each group kept from fitting, at least one sample; the challenge's 0.1.

    Raises:
        ValueError: if a group has fewer than two samples, or for splits or held_out out of range.
    """
    members, others = checked(forget, "losses of the forget set", "n"), checked(unseen, "losses of unseen samples", "n")
    size = min(len(members), len(others))
    if size < 2:
        raise ValueError(f"{len(members)} forgotten and {len(others)} unseen samples: splitting needs two of each")
    if splits < 1 or not 0 < held_out < 1:
        raise ValueError(f"splits={splits}, held_out={held_out}: give at least 1 split and a share between 0 and 1")
    thin_members, thin_others = _thin(members, size, rng), _thin(others, size, rng)

    test = min(max(1, round(held_out * size)), size - 1)
    accuracies, aucs = [], []
    for _ in range(splits):
        left, right = rng.permutation(thin_members), rng.permutation(thin_others)
        fitted = _logistic(left[test:], right[test:], balanced=False)
        weight, bias = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
        hits, alarms = weight * left[:test] + bias, weight * right[:test] + bias
        accuracies.append(((hits > 0).mean() + (alarms <= 0).mean()) / 2)
        aucs.append(roc(hits, alarms).auc)
    return LossAttack(np.array(accuracies), np.array(aucs), roc(-members, -others))


@dataclass(frozen=True)
class ConfidenceAttack:
    """What a support vector machine on confidences says of the forgotten samples.

    Attributes:
        called_unseen: of the forgotten samples, counted.
        accuracy: the attacker's own, on the samples it was fitted to, as many members as non-members.
    """

    called_unseen: Share
    accuracy: float

    @property
    def efficacy(self) -> float:
        """Share of D_f called non-member: the `mia` of ToW-MIA and the average gap. Ideal: the retrained model's."""
        return self.called_unseen.value


def confidence_attack(
    members: ArrayLike, non_members: ArrayLike, forget: ArrayLike, rng: np.random.Generator, most: int = 5_000
) -> ConfidenceAttack:
    """Attack by the confidence p_y with an RBF support vector machine (SVC-MIA of Jia et al. 2023 and SalUn).

    C = 3 and gamma = 1 / features = 1, as released. Members and non-members are thinned to one size.

    Args:
        members: (n_r,) float in [0, 1], p_y of D_r.
        non_members: (n_t,) float in [0, 1], p_y of test samples.
        forget: (m,) float in [0, 1], p_y of D_f.
        rng: draws the thinning.
        most: samples of either kind at most; time grows with their square, 5,000 of each take some 5 s on one core.

    Raises:
        ValueError: for confidences outside [0, 1], or most below 1.
    """
    from sklearn.svm import SVC

    known = checked_rates(members, "confidences of members", "n")
    unknown = checked_rates(non_members, "confidences of non-members", "n")
    asked = checked_rates(forget, "confidences of the forget set", "n")
    if most < 1:
        raise ValueError(f"most={most} must be at least 1 sample of either kind")
    size = min(len(known), len(unknown), most)
    samples = np.concatenate([_thin(known, size, rng), _thin(unknown, size, rng)])[:, None]
    member = np.arange(2 * size) < size

    machine = SVC(C=3, gamma=1.0, kernel="rbf").fit(samples, member)
    called = machine.predict(asked[:, None])
    return ConfidenceAttack(Share(int((~called).sum()), len(asked)), float((machine.predict(samples) == member).mean()))


def _thin(values: Floats, size: int, rng: np.random.Generator) -> Floats:
    """Draw `size` of the values, ascending; all of them draw nothing."""
    ordered = np.sort(values)
    return ordered if size == len(values) else np.sort(rng.choice(ordered, size, replace=False))


def _logistic(members: Floats, others: Floats, balanced: bool = True) -> LogisticRegression:
    """Fit P(member | feature) to (n,) and (m,) values of one feature."""
    from sklearn.linear_model import LogisticRegression

    feature = np.concatenate([np.sort(members), np.sort(others)])[:, None]
    member = np.arange(len(feature)) < len(members)
    weights = "balanced" if balanced else None
    return LogisticRegression(C=1.0, solver="lbfgs", class_weight=weights, max_iter=1000).fit(feature, member)
