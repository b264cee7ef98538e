"""Noise where what stays needs nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from unlearn.fisher_forgetting import FisherForgetting, true_fisher, variance


def test_the_information_is_the_expectation_over_the_models_own_labels(setting: Callable[..., Any]) -> None:
    held = setting()
    samples = held.stream.task(0).train.take(torch.arange(5))
    found = true_fisher(held.strategy, samples, batch_size=3)
    parameters = dict(held.strategy.named_parameters())
    wanted = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for i in range(5):
        for label in range(4):
            logits = held.strategy.predict(samples.inputs[i : i + 1])
            share = float(logits.softmax(1)[0, label].detach())
            grads = torch.autograd.grad(-logits.log_softmax(1)[0, label], list(parameters.values()))
            for name, g in zip(wanted, grads, strict=True):
                wanted[name] += share * g.square() / 5
    for name, value in wanted.items():
        assert float((found[name] - value).norm()) <= 1e-4 * float(value.norm()) + 1e-9, name


def test_the_variance_by_hand() -> None:
    matrix = variance(torch.tensor([[1.0, 0.0], [0.5, 0.5]]), 2.0, head=False, rows=[0])
    torch.testing.assert_close(matrix, torch.tensor([[1001.0, 1001.0], [4.0, 4.0]]))  # 1/F capped at 1e3, mean 500.5
    torch.testing.assert_close(variance(torch.tensor([1.0, 0.0]), 1.0, False, []), torch.tensor([10.0, 1e4]))
    head = variance(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), 1.0, head=True, rows=[1])
    torch.testing.assert_close(head, torch.tensor([[505.0, 505.0], [1e-3, 1e-3]]))


def test_rows_that_go_are_drawn_around_zero_and_the_rest_around_itself(setting: Callable[..., Any]) -> None:
    held = setting()
    before, ctx, asked = held.values(), held.spy(), held.request(classes=(1,))
    FisherForgetting(alpha=1e-12).forget(held.strategy, asked, ctx)
    head = held.strategy.net.head.weight.detach()
    assert float((head[0] - before["net.head.weight"][0]).abs().max()) < 1e-3
    assert 0.5 < float(head[1].std()) / (1e-4 * 10) ** 0.5 < 1.5
    assert ctx.cost.logged["unlearn/samples"] == 36 * 4
    buffers = dict(held.strategy.named_buffers())
    assert all(torch.equal(value, before[name]) for name, value in buffers.items() if name in before)
