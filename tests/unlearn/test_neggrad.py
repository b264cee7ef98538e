"""Gradient ascent on what goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from clearn.recipe import Recipe
from unlearn.neggrad import NegGrad


def test_it_raises_the_loss_on_what_goes_and_reads_nothing_else(setting: Callable[..., Any]) -> None:
    held = setting()
    ctx, asked = held.spy(), held.request(classes=(0,), look_back=False)
    before = float(held.losses(asked.forget).mean())
    NegGrad(Recipe(epochs=3, lr=0.01, batch_size=4)).forget(held.strategy, asked, ctx)
    assert float(held.losses(asked.forget).mean()) > 1.2 * before
    assert [phase.data for phase in ctx.phases] == [asked.forget]


def test_the_loss_is_minus_the_strategys_own(setting: Callable[..., Any]) -> None:
    held = setting()
    ctx, asked = held.spy(train=False), held.request(classes=(0,))
    NegGrad().forget(held.strategy, asked, ctx)
    inputs, labels = asked.forget.inputs, asked.forget.labels
    assert torch.equal(ctx.phases[0].loss(inputs, labels), -held.strategy.losses(inputs, labels))
