"""Shared-covariance LDA: equal to scikit-learn's on all data at once, whatever the order and the split."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.covariance import empirical_covariance
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor

from clearn import checks
from clearn.errors import ConfigError
from clearn.ledger import account
from clearn.parts.frozen_vit import Vit
from clearn.parts.triangles import unpacked
from clearn.state import freeze
from clearn.stream import Inputs, Stream, Task, TaskInfo
from strategies.shared_lda import SharedLda

torch.set_num_threads(1)

Learned = Callable[..., Any]
Arranged = Callable[..., Stream]
INPUTS = Inputs((3, 8, 8))


def lda(**options: Any) -> SharedLda:
    torch.manual_seed(0)
    return SharedLda(INPUTS, Vit("test_vit", weights=False, image_size=16), **options)


def images() -> tuple[Tensor, Tensor]:
    part = checks.toy_stream(1, 6).task(0).train
    return part.fetch(torch.arange(len(part))), part.labels


@torch.no_grad()
def answers(net: SharedLda) -> Tensor:
    return net.eval().predict(images()[0])


def grown(n_classes: int) -> SharedLda:
    net = lda()
    net.grow(TaskInfo(0, tuple(range(n_classes))))
    return net


def test_moments_are_the_pooled_within_class_covariance(learned: Learned) -> None:
    net = lda()
    assert not learned(net, 3).phases  # nothing is trained
    x, y = images()
    with torch.no_grad():
        features = net.vit(x).double()
    means = torch.stack([features[y == label].mean(0) for label in range(6)])
    torch.testing.assert_close(net.means.double(), means, rtol=1e-6, atol=1e-6)
    pooled = empirical_covariance((features - means[y]).numpy(), assume_centered=True) * len(y)
    scatter = unpacked(net.scatter, 64).double().numpy()
    np.testing.assert_allclose(scatter, pooled, atol=1e-6 * np.abs(pooled).max())
    assert net.counts.tolist() == [checks.PER_CLASS] * 6


def test_the_rule_is_scikit_learns() -> None:
    torch.manual_seed(0)
    y = torch.arange(600) % 3
    x = torch.randn(600, 64) @ torch.randn(64, 64) + 3 * torch.randn(3, 64)[y]
    net = grown(3)
    net.shrinkage = 1e-9
    net.add(x, y)
    w, b = net.rule()
    theirs = LinearDiscriminantAnalysis(solver="lsqr", priors=np.full(3, 1 / 3)).fit(x.numpy(), y.numpy())
    # scikit-learn divides the scatter by n, this by n - C, and adds log(1/3) to every class
    np.testing.assert_allclose(w.numpy() * 600 / 597, theirs.coef_, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(b.numpy() * 600 / 597, theirs.intercept_ - np.log(1 / 3), rtol=1e-3, atol=1e-2)


def test_a_tenth_of_the_mean_variance_is_added() -> None:
    torch.manual_seed(0)
    net, y = grown(2), torch.arange(40) % 2
    x = torch.randn(40, 64)
    net.add(x, y)
    means = torch.stack([x[y == c].mean(0) for c in range(2)]).double()
    centred = x.double() - means[y]
    covariance = centred.T @ centred / 38  # of rank 38 in 64 dimensions
    covariance += 0.1 * covariance.diagonal().mean() * torch.eye(64)
    w, b = net.rule()
    expected = means @ covariance.inverse()
    torch.testing.assert_close(w.double(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(b.double(), -0.5 * (expected * means).sum(1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("increment", [1, 3, [1, 5]], ids=str)
def test_the_split_changes_nothing(learned: Learned, arranged: Arranged, increment: int | list[int]) -> None:
    joint, split = lda(), lda()
    learned(joint, 1, arranged(increment=6))
    stream = arranged(increment=increment)
    learned(split, len(stream), stream)
    torch.testing.assert_close(answers(split), answers(joint), rtol=1e-4, atol=1e-3)


def test_the_order_changes_nothing(learned: Learned, arranged: Arranged) -> None:
    order = (4, 0, 5, 2, 1, 3)
    joint, other = lda(), lda()
    learned(joint, 1, arranged(increment=6))
    learned(other, 3, arranged(order))
    torch.testing.assert_close(answers(other), answers(joint)[:, list(order)], rtol=1e-4, atol=1e-3)


def test_a_class_that_comes_back_equals_the_class_at_once() -> None:
    torch.manual_seed(0)
    x, y = 5 + torch.randn(50, 64), torch.arange(50) % 3
    once, parts = grown(3), grown(3)
    once.add(x, y)
    for rows in (slice(0, 7), slice(7, 8), slice(8, 50)):
        parts.add(x[rows], y[rows])
    for name in ("means", "scatter", "counts"):
        torch.testing.assert_close(getattr(parts, name), getattr(once, name), rtol=1e-5, atol=1e-4)


def test_bytes_are_the_specs_and_a_count_a_class(learned: Learned) -> None:
    net = lda()
    learned(net, 3)
    rows = account(freeze(net.state(), net.untouched()), net.category).rows()
    weights = sum(value.nbytes for value in net.vit.state_dict().values())
    assert rows == {
        ("model", "params"): weights,
        ("model", "counts"): 4 * 6,
        ("model", "prototypes"): 4 * 6 * 64,
        ("model", "covariances"): 2 * 64 * 65,
    }


def test_one_sample_a_class_falls_back_to_the_nearest_mean(spy: Any, arranged: Arranged) -> None:
    net, stream = lda(), arranged(increment=1)
    for index in range(3):
        task = stream.task(index)
        net.learn(Task(task.info, task.train.take(torch.tensor([0])), ()), spy(stream, index))
    x, _ = images()
    with torch.no_grad():
        distances = torch.cdist(net.vit(x), net.means)
    assert bool(answers(net).isfinite().all())
    assert torch.equal(answers(net).argmax(1), distances.argmin(1))


def test_one_class_with_one_sample_among_others_is_answered(spy: Any, arranged: Arranged) -> None:
    net, stream = lda(), arranged(increment=2)
    first, second = stream.task(0), stream.task(1)
    net.learn(first, spy(stream, 0))
    before = net.scatter.clone()
    few = second.train.take(torch.tensor([0]))  # the other class has none at all
    net.learn(Task(second.info, few, ()), spy(stream, 1))
    assert torch.equal(net.scatter, before)
    assert bool(answers(net).isfinite().all())
    with torch.no_grad():
        assert net.predict(few.fetch(torch.tensor([0]))).argmax() == few.labels[0]


def test_the_rule_follows_new_samples(learned: Learned) -> None:
    net = lda()
    learned(net, 1)
    assert answers(net).shape == (72, 2)
    learned(net, 2, first=1)
    assert answers(net).shape == (72, 4)
    assert float((answers(net).argmax(1) == images()[1])[:48].float().mean()) > 0.9


@pytest.mark.parametrize("shrinkage", [0.0, -1.0, float("inf")])
def test_a_shrinkage_that_cannot_be_is_refused(shrinkage: float) -> None:
    with pytest.raises(ConfigError, match="shrinkage="):
        lda(shrinkage=shrinkage)
