"""A penalty that fades."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from clearn.recipe import Recipe
from unlearn.l1_sparse import L1Sparse, penalty


def test_the_penalty_falls_to_zero() -> None:
    assert [penalty(5e-4, epoch, 3) for epoch in range(3)] == pytest.approx([5e-4, 2.5e-4, 0])
    assert penalty(5e-4, 0, 1) == 5e-4


def test_it_is_part_of_the_loss_in_its_epoch(setting: Callable[..., Any]) -> None:
    held = setting()
    ctx, asked = held.spy(train=False), held.request(classes=(0,))
    L1Sparse(gamma=0.5, recipe=Recipe(epochs=3, batch_size=20)).forget(held.strategy, asked, ctx)
    inputs, labels = asked.forget.inputs[:2], asked.forget.labels[:2]
    length = float(sum(p.detach().abs().sum() for p in held.strategy.parameters()))
    plain = held.losses(asked.forget.take(torch.arange(2)))
    for gamma in (0.5, 0.5, 0.25, 0.25, 0.0, 0.0):  # two steps an epoch: 36 samples, 20 at a time
        found = ctx.phases[0].loss(inputs, labels)
        torch.testing.assert_close(found.detach() - plain, torch.full((2,), gamma * length), rtol=1e-4, atol=1e-4)


def test_weights_shrink(setting: Callable[..., Any]) -> None:
    found = []
    for gamma in (0.0, 1e-2):
        held = setting()
        recipe = Recipe(epochs=3, lr=0.01, batch_size=8)
        L1Sparse(gamma, recipe).forget(held.strategy, held.request(classes=(0,)), held.spy())
        found.append(float(sum(p.detach().abs().sum() for p in held.strategy.parameters())))
    assert found[1] < 0.95 * found[0]
