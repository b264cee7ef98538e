"""Ascent while it lasts, then descent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from clearn.errors import ConfigError
from clearn.recipe import Recipe
from unlearn.scrub import Scrub


def test_epochs_ascend_first_and_follow_the_schedule(setting: Callable[..., Any]) -> None:
    held = setting()
    ctx, asked = held.spy(train=False), held.request(classes=(0,))
    recipe = Recipe(epochs=3, lr=0.1, milestones=(2,), batch_size=8)
    Scrub(ascents=2, forget_batch=4, recipe=recipe).forget(held.strategy, asked, ctx)
    assert [len(phase.data) for phase in ctx.phases] == [12, 36, 12, 36, 36]
    assert [phase.recipe.batch_size for phase in ctx.phases] == [4, 8, 4, 8, 8]
    assert [round(phase.recipe.lr, 6) for phase in ctx.phases] == [0.1, 0.1, 0.1, 0.1, 0.01]
    assert all(phase.recipe.epochs == 1 for phase in ctx.phases)


def test_both_losses_by_hand(setting: Callable[..., Any]) -> None:
    held = setting()
    ctx, asked = held.spy(train=False), held.request(classes=(0,))
    Scrub(gamma=0.5, alpha=0.25, temperature=2.0).forget(held.strategy, asked, ctx)
    ascent, descent = ctx.phases[0], ctx.phases[1]
    (teacher,) = descent.options["beside"]
    inputs, labels = asked.forget.inputs[:4], asked.forget.labels[:4]
    with torch.no_grad():
        torch.testing.assert_close(ascent.loss(inputs, labels), torch.zeros(4), atol=1e-5, rtol=0)
        torch.nn.init.normal_(held.strategy.net.head.weight)
        p, q = ((net.predict(inputs) / 2).softmax(1) for net in (teacher, held.strategy))
        divergence = 4 * (p * (p / q).log()).sum(1)
        torch.testing.assert_close(ascent.loss(inputs, labels), -divergence, rtol=1e-4, atol=1e-5)
        wanted = 0.5 * held.strategy.losses(inputs, labels) + 0.25 * divergence
        torch.testing.assert_close(descent.loss(inputs, labels), wanted, rtol=1e-4, atol=1e-5)


def test_the_first_epochs_turn_away_from_the_original(setting: Callable[..., Any]) -> None:
    held = setting()
    ctx, asked = held.spy(), held.request(classes=(0,))
    with torch.no_grad():
        held.strategy.net.head.weight *= 1.01  # at the teacher itself the divergence has no gradient
    original = held.strategy.predict(asked.forget.inputs).detach().softmax(1)
    recipe = Recipe(epochs=1, lr=0.05, batch_size=12)
    Scrub(ascents=1, forget_batch=4, recipe=recipe).forget(held.strategy, asked, ctx)
    held.strategy.load_state_dict(ctx.phases[1].before)  # after the ascent, before the descent
    turned = held.strategy.eval().predict(asked.forget.inputs).detach().softmax(1)
    assert float((original * (original / turned).log()).sum(1).mean()) > 0.01


def test_more_ascents_than_epochs_are_refused() -> None:
    with pytest.raises(ConfigError, match="ascents=4"):
        Scrub(ascents=4)
