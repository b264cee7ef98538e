"""What a server may do to estimates before it publishes them: all of it is free of privacy cost.

Raw estimates are unbiased, but may be negative and need not sum to 1. Whoever knows that frequencies lie on the simplex
can use it: `norm_sub` projects, `norm_mul` clips and rescales (so do all published figures of Arcolezi et al., arXiv
2111.04636), `mle_grr` maximises the likelihood. Wang et al. (NDSS 2020) compare ten such methods. Functions work on the
last axis; an estimate that holds a nan (nobody answered) becomes nan as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import numpy as np
from scipy.special import ndtri

from clearn.errors import ConfigError
from clearn.frequency.mechanism import Floats
from clearn.frequency.protocol import FrequencyProtocol, Post
from clearn.frequency.symbol import Hashed, Symbol

BETA = 0.05  # base_cut: chance that any value nobody holds passes the threshold
SMALLEST_CHANGE, MOST_ITERATIONS = 1e-12, 10_000  # when ibu stops


def postprocess(post: Post, estimates: Floats, protocol: FrequencyProtocol, attribute: int, n: float) -> Floats:
    """Apply a method by its name.

    Args:
        post: the name.
        estimates: (..., answers) raw estimates of one attribute.
        protocol: gives base_cut its threshold and the likelihood methods their channel.
        attribute: which one.
        n: users who answered.

    Returns:
        (..., answers) float64, always a new array.

    Raises:
        ConfigError: no such method, or a likelihood method for reports that it doesn't suit.
    """
    if post not in get_args(Post):
        raise ConfigError(f"post={post!r} is no post-processing: choose one of {', '.join(get_args(Post))}")
    if post == "base_cut":
        return base_cut(estimates, float(protocol.variance(attribute, n)))
    if post in ("mle_grr", "ibu"):
        mechanism = protocol.mechanisms[attribute]
        if not suits_likelihood(protocol, attribute):
            raise ConfigError(
                f"post={post!r} needs reports that are one symbol out of the values, none of them fake (grr, l_grr), "
                f"and attribute {attribute} has {type(mechanism).__name__} with asks={protocol.asks!r}: "
                "write post: norm_sub"
            )
        return (mle_grr if post == "mle_grr" else ibu)(estimates, mechanism.own, mechanism.other)
    return PLAIN[post](estimates)


def suits_likelihood(protocol: FrequencyProtocol, attribute: int) -> bool:
    """Say whether `mle_grr` and `ibu` apply: the channel is p on the diagonal and q everywhere else."""
    mechanism = protocol.mechanisms[attribute]
    return isinstance(mechanism, Symbol) and not isinstance(mechanism, Hashed) and protocol.asks != "hidden"


def none(estimates: Floats) -> Floats:
    """The raw, unbiased estimates."""
    return np.array(estimates, np.float64)


def norm(estimates: Floats) -> Floats:
    """Add one constant so that they sum to 1; some may stay negative."""
    return estimates + (1 - estimates.sum(-1, keepdims=True)) / estimates.shape[-1]


def norm_mul(estimates: Floats) -> Floats:
    """Clip at 0 and divide by the sum; uniform where nothing is left (the published code gives zeros there)."""
    clipped = np.maximum(estimates, 0)
    total = clipped.sum(-1, keepdims=True)
    return np.where(total <= 0, 1 / estimates.shape[-1], clipped / np.where(total <= 0, 1, total))


def norm_sub(estimates: Floats) -> Floats:
    """Euclidean projection on the simplex: max(f + shift, 0), with the one shift that makes the sum 1.

    O(k log k): with values in descending order, shift_c = (1 - sum of the c largest) / c, and the last c whose value
    stays positive under its own shift is the number kept.
    """
    ordered = -np.sort(-estimates, -1)
    shifts = (1 - ordered.cumsum(-1)) / np.arange(1, estimates.shape[-1] + 1)
    kept = (ordered + shifts > 0).sum(-1, keepdims=True)
    return _or_nan(np.maximum(estimates + np.take_along_axis(shifts, np.maximum(kept, 1) - 1, -1), 0), estimates)


def norm_cut(estimates: Floats) -> Floats:
    """Keep the largest until their sum reaches 1, zero the rest, and divide by the sum (as the authors' code does).

    Negative ones are never kept; uniform where nothing is positive.
    """
    order = np.argsort(-estimates, -1)
    ordered = np.maximum(np.take_along_axis(estimates, order, -1), 0)
    before = ordered.cumsum(-1) - ordered
    kept = np.empty(estimates.shape)
    np.put_along_axis(kept, order, np.where(before < 1, ordered, 0), -1)
    return _or_nan(norm_mul(kept), estimates)


def base_cut(estimates: Floats, variance: float, beta: float = BETA) -> Floats:
    """Zero what could be noise: everything below Phi^-1(1 - beta/k) standard deviations of a value nobody holds.

    Args:
        estimates: (..., k).
        variance: Var*, at frequency 0.
        beta: chance that one of k such values passes.
    """
    threshold = ndtri(1 - beta / estimates.shape[-1]) * np.sqrt(variance)
    return _or_nan(np.where(estimates < threshold, 0.0, estimates), estimates)


def mle_grr(estimates: Floats, p: float, q: float) -> Floats:
    """Exact maximum likelihood over the simplex where each user reports one symbol, the own with p, each other with q.

    With report frequencies phi ascending, the c smallest get 0 as long as q s_c > (1 - c q) phi_(c), s_c being the sum
    of all but those; the others get ((1 - c q) phi - s_c q) / (s_c (p - q)). O(k log k); the limit of `ibu`.
    """
    phi = q + estimates * (p - q)
    ordered = np.sort(phi, -1)
    dropped = np.arange(phi.shape[-1])
    rest = 1 - (ordered.cumsum(-1) - ordered)  # s_c
    stays = q * rest <= (1 - dropped * q) * ordered
    c = stays.argmax(-1)[..., None]
    s = np.take_along_axis(rest, c, -1)
    found = np.maximum(((1 - c * q) * phi - s * q) / (s * (p - q)), 0)
    return _or_nan(found, estimates)


def ibu(estimates: Floats, p: float, q: float) -> Floats:
    """Iterative Bayesian update (expectation maximisation) for the channel of `mle_grr`, from the uniform guess.

    theta <- theta * M^T (phi / (M theta)), M = q + (p - q) I, up to 10,000 times or a change below 1e-12. It needs the
    right q: off the diagonal the composed one, not the permanent step's, which published code takes.
    """
    phi = q + estimates * (p - q)
    theta = np.full(phi.shape, 1 / phi.shape[-1])
    for _ in range(MOST_ITERATIONS):
        ratio = phi / (q * theta.sum(-1, keepdims=True) + (p - q) * theta)
        updated = theta * (q * ratio.sum(-1, keepdims=True) + (p - q) * ratio)
        change = np.fmax.reduce(np.abs(updated - theta), axis=None, initial=0)  # overlooks nan
        theta = updated
        if change < SMALLEST_CHANGE:
            break
    return _or_nan(theta, estimates)


def _or_nan(result: Floats, estimates: Floats) -> Floats:
    return np.where(np.isnan(estimates).any(-1, keepdims=True), np.nan, result)


PLAIN: dict[str, Callable[[Floats], Floats]] = {
    "none": none,
    "norm": norm,
    "norm_mul": norm_mul,
    "norm_sub": norm_sub,
    "norm_cut": norm_cut,
}
