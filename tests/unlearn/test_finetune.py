"""Fine-tuning on what stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from clearn.recipe import Recipe
from strategies.memo import Memo
from unlearn.finetune import Finetune


def test_it_trains_once_on_exactly_what_stays_by_the_strategys_own_loss(setting: Callable[..., Any]) -> None:
    held, recipe = setting(), Recipe(epochs=1, lr=0.01)
    ctx, asked = held.spy(), held.request(classes=(0,))
    Finetune(recipe).forget(held.strategy, asked, ctx)
    (phase,) = ctx.phases
    assert (phase.recipe, phase.loss) == (recipe, held.strategy.losses)
    assert sorted(phase.data.labels.tolist()) == [1] * 12 + [2] * 12 + [3] * 12


def test_frozen_blocks_learn_too(setting: Callable[..., Any]) -> None:
    held = setting(Memo)
    frozen = {name for name, p in held.strategy.named_parameters() if not p.requires_grad}
    before = held.values()
    Finetune(Recipe(epochs=1, lr=0.1)).forget(held.strategy, held.request(classes=(0,)), held.spy())
    after = held.strategy.state_dict()
    assert frozen
    assert not any(torch.equal(after[name], before[name]) for name in frozen if name.endswith("0.weight"))
