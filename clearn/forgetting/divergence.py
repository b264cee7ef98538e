"""How far two models are apart: in their outputs, their features and their weights.

A distance is judged against the distance between two models retrained with different seeds, never against 0: see
`js_gap`, and `comparison` for any other number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from clearn.forgetting.arrays import Floats, check_alike, checked, checked_logits, log_softmax

LN2 = math.log(2)  # the largest Jensen-Shannon divergence, in nats


def kl(p: ArrayLike, q: ArrayLike) -> Floats:
    """Give KL(p || q) of the softmax of each sample: logits (n, c), (n, c) -> (n,) nats, at least 0."""
    log_p, log_q = _two(p, q)
    return np.maximum((np.exp(log_p) * (log_p - log_q)).sum(axis=-1), 0)


def js(p: ArrayLike, q: ArrayLike) -> Floats:
    """Give the Jensen-Shannon divergence of each sample: logits (n, c), (n, c) -> (n,) nats in [0, ln 2]."""
    return _js(*_two(p, q))


def _two(p: ArrayLike, q: ArrayLike) -> tuple[Floats, Floats]:
    first, second = checked_logits(p, "first logits"), checked_logits(q, "second logits")
    check_alike(first, second, "the logits of two models")
    return log_softmax(first), log_softmax(second)


def _js(log_p: Floats, log_q: Floats) -> Floats:
    gap = log_q - log_p  # ln(p / m) = ln 2 - ln(1 + q / p), which is exactly 0 where p = q
    halves = np.exp(log_p) * (LN2 - np.logaddexp(0, gap)) + np.exp(log_q) * (LN2 - np.logaddexp(0, -gap))
    return np.clip(halves.sum(axis=-1) / 2, 0, LN2)


def zrf(unlearned: ArrayLike, random: ArrayLike) -> float:
    """Give the zero-retrain forgetting score, 1 - mean JS / ln 2 to a randomly initialised model on D_f.

    Chundawat et al. (2023, bad teacher), with JS divided by its largest value ln 2, so that the score spans [0, 1].
    Released code averages over samples times classes and takes KL(m || p), and is not comparable.

    Args:
        unlearned: (m, c) float, logits of D_f.
        random: (m, c) float, of a model with fresh weights, eval mode.

    Returns:
        1 where the model answers as the random one does. Ideal: the retrained model's value, not 1.
    """
    return float(1 - js(unlearned, random).mean() / LN2)


def activation_distance(unlearned: ArrayLike, retrained: ArrayLike) -> float:
    """Average ||softmax_u - softmax_r||_2 over samples (Golatkar et al. 2021): in [0, sqrt 2], lower is better.

    Args:
        unlearned: (n, c) float, logits of D_f (or D_r).
        retrained: (n, c) float.
    """
    first, second = _two(unlearned, retrained)
    return float(np.linalg.norm(np.exp(first) - np.exp(second), axis=1).mean())


@dataclass(frozen=True)
class OutputDivergence:
    """Means over samples, in nats; lower is better, ideal what two retrained models have between them.

    Attributes:
        kl: KL(unlearned || retrained).
        js: Jensen-Shannon divergence, at most ln 2.
    """

    kl: float
    js: float


def output_divergence(unlearned: ArrayLike, retrained: ArrayLike) -> OutputDivergence:
    """Measure how far the outputs are from a retrained model's, on D_f or on test: logits (n, c), (n, c)."""
    return OutputDivergence(float(kl(unlearned, retrained).mean()), float(js(unlearned, retrained).mean()))


@dataclass(frozen=True, eq=False)
class JsGap:
    """Divergence between unlearned and never-saw models, beside that among never-saw models; mean JS on D_f, nats.

    Attributes:
        internal: (b (b - 1) / 2,) float64, every pair of never-saw models: what the seed alone makes.
        across: (a, b) float64, every unlearned model with every never-saw one.
    """

    internal: Floats
    across: Floats

    @property
    def ratio(self) -> float:
        """|AG - IG| / IG of the two means: 0 ideal, lower is better."""
        ig = float(self.internal.mean())
        return abs(float(self.across.mean()) - ig) / ig

    @property
    def share_within(self) -> float:
        """Share of `across` below the largest of `internal`: 1 ideal, higher is better."""
        return float((self.across < self.internal.max()).mean())


def js_gap(unlearned: ArrayLike, never_saw: ArrayLike) -> JsGap:
    """Compare unlearned with never-saw models, all pairs of seeds.

    Args:
        unlearned: (a, m, c) float, logits of D_f, a >= 1.
        never_saw: (b, m, c) float, b >= 2, retrained with seeds of their own.

    Raises:
        ValueError: for a single never-saw model, or ones that all answer alike.
    """
    ours, theirs = checked(unlearned, "unlearned logits", "a m c"), checked(never_saw, "never-saw logits", "b m c")
    check_alike(ours[0], theirs[0], "the logits of two models")
    if len(theirs) < 2:
        raise ValueError("1 never-saw model has nothing to differ from: retrain at least two, each with its own seed")
    ours, theirs = log_softmax(ours), log_softmax(theirs)
    internal = np.array([_js(one, other).mean() for one, other in combinations(theirs, 2)])
    if not internal.any():
        raise ValueError(f"all {len(theirs)} never-saw models answer alike: retrain each with its own seed")
    return JsGap(internal, np.array([[_js(one, other).mean() for other in theirs] for one in ours]))


def klom(unlearned: ArrayLike, retrained: ArrayLike, bins: int = 20) -> Floats:
    """Give KLoM, the KL divergence of margins per sample over an ensemble (Georgiev et al. 2024).

    KL(unlearned || retrained) of two histograms over the joint range of a sample's margins, clipped to [-100, 100];
    a bin without retrained models counts as 1e-5, so that the largest value is about ln 1e5 = 11.5. As released, save
    that the largest margin falls into the last bin instead of none.

    Args:
        unlearned: (a, n) float, margins (`arrays.logit_confidences`) of a models; some 100 are usual.
        retrained: (b, n) float.
        bins: of each histogram.

    Returns:
        (n,) float64 nats; 0 ideal, lower is better. Report `klom_95`.
    """
    ours, theirs = checked(unlearned, "margins of unlearned models", "a n"), checked(retrained, "margins", "b n")
    if ours.shape[1] != theirs.shape[1]:
        raise ValueError(f"both groups must hold the same samples, got {ours.shape[1]} and {theirs.shape[1]}")
    if bins < 2:
        raise ValueError(f"bins={bins} must be at least 2; 20 is usual")
    both = np.clip(np.concatenate([ours, theirs]), -100, 100)  # (a + b, n)
    low, span = both.min(axis=0), np.ptp(both, axis=0)
    place = np.minimum((both - low) / np.where(span > 0, span, 1) * bins, bins - 1).astype(np.int64)
    flat = place + bins * np.arange(both.shape[1])
    p, q = (
        np.bincount(rows.ravel(), minlength=bins * both.shape[1]).reshape(-1, bins) / len(rows)
        for rows in (flat[: len(ours)], flat[len(ours) :])
    )
    q = np.where(p > 0, np.maximum(q, 1e-5), q)
    q = q / q.sum(axis=1, keepdims=True)
    terms = p * np.log(np.where(p > 0, p, 1) / np.where(p > 0, q, 1))
    return np.maximum(terms.sum(axis=1), 0)


def klom_95(unlearned: ArrayLike, retrained: ArrayLike, bins: int = 20) -> float:
    """Give the 95th percentile over samples of `klom`: nats, 0 ideal, lower is better."""
    return float(np.percentile(klom(unlearned, retrained, bins), 95))


@dataclass(frozen=True)
class FeatureDistance:
    """Distance between the features of two models (Wang et al. 2025, CLArena's DD); 0 ideal, lower is better.

    Attributes:
        euclidean: mean over samples.
        cosine: mean of 1 - cosine, in [0, 2]; 1 where one of two feature vectors is zero.
        cka: 1 - linear centred kernel alignment (Kornblith et al. 2019), in [0, 1]; blind to rotation and scale.
    """

    euclidean: float
    cosine: float
    cka: float


def feature_distance(unlearned: ArrayLike, retrained: ArrayLike) -> FeatureDistance:
    """Compare penultimate features of the same samples: (n, d), (n, d) float."""
    x, y = checked(unlearned, "features of the unlearned model", "n d"), checked(retrained, "features", "n d")
    check_alike(x, y, "the features of two models")
    norms = np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1)
    scale, both_zero = norms[0] * norms[1], (norms[0] == 0) & (norms[1] == 0)
    cosine = np.where(both_zero, 1, (x * y).sum(axis=1) / np.where(scale > 0, scale, 1))
    return FeatureDistance(float(np.linalg.norm(x - y, axis=1).mean()), float((1 - cosine).mean()), 1 - _cka(x, y))


def _cka(x: Floats, y: Floats) -> float:
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    own = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    if own == 0:
        return float(not x.any() and not y.any())
    return min(float(np.linalg.norm(x.T @ y) ** 2 / own), 1.0)


def layer_distances(unlearned: Mapping[str, ArrayLike], retrained: Mapping[str, ArrayLike]) -> dict[str, float]:
    """Give ||theta_u - theta_r||_2 of each tensor, by name; lower is nearer.

    It means something only where both models share their start and their order of batches: two retrained models are
    far apart in weights though alike in what they do.

    Raises:
        ValueError: if names or shapes differ, or there are none.
    """
    if not unlearned or unlearned.keys() != retrained.keys():
        odd = sorted(unlearned.keys() ^ retrained.keys())
        raise ValueError(f"both models must have the same tensors, at least one; {odd or 'none'} differ")
    distances = {}
    for name in unlearned:
        first, second = (np.asarray(model[name], np.float64) for model in (unlearned, retrained))
        check_alike(first, second, f"both models' {name}")
        if not (np.isfinite(first).all() and np.isfinite(second).all()):
            raise ValueError(f"{name} holds values that are not finite: a model that has them is broken")
        distances[name] = float(np.linalg.norm(first - second))
    return distances
