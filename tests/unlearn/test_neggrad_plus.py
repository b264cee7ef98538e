"""Descent on what stays against ascent on what goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from clearn.errors import ConfigError
from clearn.parts.samples import concat
from clearn.recipe import Recipe
from unlearn.neggrad_plus import NegGradPlus


def test_the_loss_by_hand(setting: Callable[..., Any]) -> None:
    held = setting()
    ctx, asked = held.spy(train=False), held.request(classes=(0,))
    NegGradPlus(keep=0.75, pull=4.0).forget(held.strategy, asked, ctx)
    (phase,) = ctx.phases
    marked, count = phase.options["replay"]
    assert (sorted(set(marked.labels.tolist())), count) == ([-1], 12), "label 0 is marked as -1"
    assert 0 not in phase.data.labels.tolist()
    kept, gone = phase.data.take(torch.arange(5)), asked.forget.take(torch.arange(3))
    inputs = torch.cat([kept.fetch(torch.arange(5)), gone.fetch(torch.arange(3))])
    targets = torch.cat([kept.labels, -1 - gone.labels])
    plain = 0.75 * held.losses(kept).mean() - 0.25 * held.losses(gone).mean()
    with torch.no_grad():
        torch.testing.assert_close(phase.loss(inputs, targets), plain)
        bias = held.strategy.net.head.bias
        bias += 0.5
        moved = 0.75 * held.losses(kept).mean() - 0.25 * held.losses(gone).mean() + 4 / 2 * 4 * 0.25
        torch.testing.assert_close(phase.loss(inputs, targets), moved)


def test_it_raises_the_loss_on_what_goes_and_not_on_what_stays(setting: Callable[..., Any]) -> None:
    held = setting()
    asked = held.request(classes=(0,))
    stays = concat([task.train for task in asked.past])
    before = float(held.losses(asked.forget).mean()), float(held.losses(stays).mean())
    NegGradPlus(keep=0.8, recipe=Recipe(epochs=4, lr=0.02, batch_size=8)).forget(held.strategy, asked, held.spy())
    after = float(held.losses(asked.forget).mean()), float(held.losses(stays).mean())
    assert after[0] > before[0] + 0.5
    assert after[1] < before[1] + 0.5


def test_weights_that_cannot_be() -> None:
    for wrong in ({"keep": 1.0}, {"keep": 0.0}, {"pull": -1.0}):
        with pytest.raises(ConfigError):
            NegGradPlus(**wrong)
