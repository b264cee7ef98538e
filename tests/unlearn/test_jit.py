"""Smoothness around what goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from clearn.parts.forgetting import network_units
from clearn.recipe import Recipe
from unlearn.jit import JiT


class Slope(torch.nn.Module):
    """f(x) = w times the sum of x, twice: |f(x) - f(x + d)| is known."""

    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor(0.01))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = x.float().flatten(1).sum(1, keepdim=True)
        return self.w * torch.cat([total, -total], dim=1)


def test_the_loss_by_hand_and_its_gradient_through_the_clean_pass_alone(
    setting: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    held, slope = setting(), Slope()
    monkeypatch.setattr(held.strategy, "predict", slope.forward)
    ctx, asked = held.spy(train=False), held.request(classes=(0,))
    JiT(sigma=0.2, draws=3).forget(held.strategy, asked, ctx)
    (phase,) = ctx.phases
    assert phase.options["augment"] is False
    inputs = asked.forget.inputs[:2]
    found = phase.loss(inputs, asked.forget.labels[:2])
    (gradient,) = torch.autograd.grad(found, [slope.w])
    rng, (scale, _) = held.spy().rng("noise"), network_units(held.stream.inputs)
    expected, slopes = 0.0, 0.0
    for _ in range(3):
        noise = 0.2 * torch.randn(inputs.shape, generator=rng)
        noisy = (inputs.float() + noise / scale).clamp(float(inputs.min()), float(inputs.max()))
        for x, y, e in zip(inputs.float(), noisy, noise, strict=True):
            gap = float((x - y).sum())
            expected += 0.01 * abs(gap) * 2**0.5 / float(e.norm()) / 3
            slopes += (1 if gap > 0 else -1) * float(x.sum()) * 2**0.5 / float(e.norm()) / 3
    assert float(found.detach()) == pytest.approx(expected, rel=1e-3)
    assert float(gradient) == pytest.approx(slopes, rel=1e-3)


def test_it_reads_nothing_but_what_goes_and_keeps_the_statistics(setting: Callable[..., Any]) -> None:
    held = setting()
    ctx, asked, before = held.spy(), held.request(classes=(0,), look_back=False), held.values()
    JiT(draws=2, recipe=Recipe(epochs=1, lr=1e-3, batch_size=6, momentum=0.0)).forget(held.strategy, asked, ctx)
    assert [phase.data for phase in ctx.phases] == [asked.forget]
    buffers = {name for name, _ in held.strategy.named_buffers()} & before.keys()
    changed = {name for name, value in held.strategy.state_dict().items() if not torch.equal(value, before[name])}
    assert buffers
    assert changed
    assert not buffers & changed
