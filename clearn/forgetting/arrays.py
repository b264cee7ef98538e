"""What every measure starts from: checked arrays, and the numbers of a sample that attacks read from its logits.

Letters used throughout the package: n samples, c classes, s training seeds, a and b models. Rates are fractions in
[0, 1], logarithms natural. Logits of any float type are computed with in float64.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def checked(values: ArrayLike, name: str, dims: str) -> Floats:
    """Give values as float64 of the stated dimensions.

    Args:
        values: numbers.
        name: what an error calls them.
        dims: one letter a dimension, "n c".

    Raises:
        ValueError: if the number of dimensions differs, none is left to measure, or a value is not finite.
    """
    array = np.asarray(values, np.float64)
    if array.ndim != len(dims.split()):
        raise ValueError(f"{name} must have the shape ({', '.join(dims.split())}), got {array.shape}")
    if not array.size:
        raise ValueError(f"{name} are empty, shape {array.shape}: there is nothing to measure")
    if not np.isfinite(array).all():
        bad = np.argwhere(~np.isfinite(array))
        raise ValueError(
            f"{name} hold {len(bad)} values that are not finite, the first {array[tuple(bad[0])]} at "
            f"{[int(i) for i in bad[0]]}: a model that gives them is broken; mask a class by -1e4, not by -inf"
        )
    return array


def checked_logits(values: ArrayLike, name: str) -> Floats:
    """Give logits as (n, c) float64, n >= 1, c >= 2; raises ValueError otherwise."""
    logits = checked(values, name, "n c")
    if logits.shape[1] < 2:
        raise ValueError(f"{name} must have at least 2 classes, got shape {logits.shape}")
    return logits


def checked_labels(values: ArrayLike, n: int, c: int | None = None) -> Ints:
    """Give labels as (n,) int64, in [0, c) where c is given; raises ValueError otherwise."""
    labels = np.asarray(values)
    if labels.shape != (n,):
        raise ValueError(f"labels must have the shape ({n},), one a sample, got {labels.shape}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers, got {labels.dtype}")
    if c is not None and not ((labels >= 0) & (labels < c)).all():
        wrong = labels[(labels < 0) | (labels >= c)][0]
        raise ValueError(f"label {wrong} must lie in [0, {c}): the logits have {c} classes")
    return labels.astype(np.int64)


def checked_rates(values: ArrayLike, name: str, dims: str) -> Floats:
    """Give fractions as `checked` does, all in [0, 1]; raises ValueError otherwise."""
    rates = checked(values, name, dims)
    if rates.min() < 0 or rates.max() > 1:
        raise ValueError(f"{name} must be fractions in [0, 1], got {rates.min():g} to {rates.max():g}")
    return rates


def check_alike(first: Floats, second: Floats, names: str) -> None:
    """Raise ValueError unless both have one shape."""
    if first.shape != second.shape:
        raise ValueError(f"{names} must have one shape, got {first.shape} and {second.shape}: give the same samples")


def log_softmax(logits: Floats) -> Floats:
    """Give ln p of each class over the last axis, stable for logits of any size."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def entropies(logits: ArrayLike) -> Floats:
    """Give the entropy of each softmax, -sum p ln p: (n, c) -> (n,) nats in [0, ln c]."""
    log_p = log_softmax(checked_logits(logits, "logits"))
    return -(np.exp(log_p) * log_p).sum(axis=1)


def losses(logits: ArrayLike, labels: ArrayLike) -> Floats:
    """Give each sample's cross-entropy, -ln p_y: (n, c), (n,) int -> (n,) nats, at least 0."""
    z = checked_logits(logits, "logits")
    return -log_softmax(z)[np.arange(len(z)), checked_labels(labels, *z.shape)]


def confidences(logits: ArrayLike, labels: ArrayLike) -> Floats:
    """Give the probability of each sample's own label, p_y: (n, c), (n,) int -> (n,) in [0, 1]."""
    return np.exp(-losses(logits, labels))


def logit_confidences(logits: ArrayLike, labels: ArrayLike) -> Floats:
    """Give phi = ln p_y - ln(1 - p_y), the logit-scaled confidence (Carlini et al. 2022, LiRA) or margin.

    Computed as z_y - ln sum_{j != y} e^{z_j}, which neither overflows nor saturates where p_y rounds to 0 or 1.

    Args:
        logits: (n, c) float.
        labels: (n,) int in [0, c).

    Returns:
        (n,) float64; close to Gaussian over training seeds, larger for a sample that was learned.
    """
    z = checked_logits(logits, "logits")
    rows, own = np.arange(len(z)), checked_labels(labels, *z.shape)
    others = z.copy()
    others[rows, own] = -np.inf
    most = others.max(axis=1)
    return z[rows, own] - most - np.log(np.exp(others - most[:, None]).sum(axis=1))
