"""Only salient weights change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from clearn.recipe import Recipe
from unlearn.salun import SalUn, most_salient, summed_gradients


def test_the_mask_by_hand() -> None:
    saliency = [torch.tensor([[0.1, -5.0], [2.0, 0.0]]), torch.tensor([-3.0, 0.2])]
    masks = most_salient(saliency, 0.5)
    assert [mask.tolist() for mask in masks] == [[[False, True], [True, False]], [True, False]]
    assert sum(int(mask.sum()) for mask in most_salient([torch.zeros(10)], 0.3)) == 3


def test_gradients_add_up_over_batches(setting: Callable[..., Any]) -> None:
    held = setting()
    asked = held.request(classes=(0,))
    parameters = list(held.strategy.parameters())
    found = summed_gradients(held.strategy, parameters, asked.forget, batch=5)
    loss = held.strategy.losses(asked.forget.inputs, asked.forget.labels).sum()
    for one, whole in zip(found, torch.autograd.grad(loss, parameters), strict=True):
        torch.testing.assert_close(one, whole, rtol=1e-3, atol=1e-4)


def test_all_other_weights_stay_bit_for_bit_also_under_momentum_and_decay(setting: Callable[..., Any]) -> None:
    held = setting()
    ctx, asked, before = held.spy(), held.request(classes=(0,)), held.values()
    parameters = list(held.strategy.parameters())
    masks = most_salient(summed_gradients(held.strategy, parameters, asked.forget), 0.25)
    recipe = Recipe(epochs=2, lr=0.05, batch_size=8, momentum=0.9, weight_decay=0.1)
    SalUn(share=0.25, recipe=recipe).forget(held.strategy, asked, ctx)
    moved = 0
    for (name, p), mask in zip(held.strategy.named_parameters(), masks, strict=True):
        assert torch.equal(p.detach()[~mask], before[name][~mask]), name
        moved += int((p.detach() != before[name]).sum())
    assert moved > 0.9 * sum(int(mask.sum()) for mask in masks)
    assert ctx.cost.logged["unlearn/selected"] == pytest.approx(0.25, abs=1e-4)


def test_each_epoch_first_what_goes_under_wrong_labels_then_what_stays(setting: Callable[..., Any]) -> None:
    held = setting()
    ctx, asked = held.spy(train=False), held.request(classes=(0,))
    SalUn(recipe=Recipe(epochs=3)).forget(held.strategy, asked, ctx)
    assert [len(phase.data) for phase in ctx.phases] == [12, 36] * 3
    drawn = [phase.data.labels.tolist() for phase in ctx.phases[::2]]
    assert all(0 not in labels for labels in drawn)
    assert drawn[0] != drawn[1]
