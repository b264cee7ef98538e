"""Is the forgotten class still in the features, though the output no longer names it?"""

from __future__ import annotations

import warnings
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from clearn.forgetting.accuracies import Share
from clearn.forgetting.arrays import Floats, Ints, checked, checked_labels


@dataclass(frozen=True)
class Probe:
    """Test accuracy of a linear probe; report probe_u - probe_r, never probe_u alone.

    Attributes:
        forgotten: on the forgotten classes; ideal is the retrained model's value, which is high: a class never seen
            is still nearly linearly separable.
        remaining: on the others; None where no test sample is of another class.
        converged: whether the fit ended before its last iteration.
    """

    forgotten: Share
    remaining: Share | None
    converged: bool


@dataclass(frozen=True, eq=False)
class Features:
    """Penultimate features of labelled samples.

    Attributes:
        values: (n, d) float, eval mode, without augmentation.
        labels: (n,) int.
    """

    values: ArrayLike
    labels: ArrayLike


def probe(train: Features, test: Features, forgotten: Collection[int], iterations: int = 1000) -> Probe:
    """Fit a multinomial logistic regression to frozen features of all classes, the forgotten ones included.

    L2 penalty with C = 1, lbfgs, on features scaled to mean 0 and deviation 1 over the training samples.

    Args:
        train: training samples of all classes.
        test: samples of the same classes that no model saw.
        forgotten: the classes to report, each with samples in both.
        iterations: of lbfgs at most.

    Raises:
        ValueError: if a forgotten class has no samples, only one class is there, or the features' widths differ.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    x, y = _checked(train, "training features")
    x_test, y_test = _checked(test, "test features")
    if x.shape[1] != x_test.shape[1]:
        raise ValueError(f"training and test features must be of one width, got {x.shape[1]} and {x_test.shape[1]}")
    absent = sorted(set(forgotten) - (set(y.tolist()) & set(y_test.tolist())))
    if absent or not forgotten:
        raise ValueError(
            f"forgotten={sorted(forgotten)}: name at least one class with samples in both; without {absent}"
        )
    if len(np.unique(y)) < 2:
        raise ValueError(f"class {y[0]} alone leaves nothing to tell apart: give samples of all classes")

    mean, std = x.mean(axis=0), x.std(axis=0)
    std = np.where(std > 0, std, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # told by `converged`
        fitted = LogisticRegression(C=1.0, solver="lbfgs", max_iter=iterations).fit((x - mean) / std, y)
    right = fitted.predict((x_test - mean) / std) == y_test
    gone = np.isin(y_test, sorted(forgotten))
    return Probe(
        Share(int(right[gone].sum()), int(gone.sum())),
        None if gone.all() else Share(int(right[~gone].sum()), int((~gone).sum())),
        converged=int(np.max(fitted.n_iter_)) < iterations,
    )


def _checked(features: Features, name: str) -> tuple[Floats, Ints]:
    values = checked(features.values, name, "n d")
    return values, checked_labels(features.labels, len(values))
