"""Noise against a class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from clearn.errors import ConfigError
from clearn.parts.forgetting import network_units
from clearn.parts.samples import TensorSamples, concat, occurring
from unlearn.unsir import Unsir, capped, learn_noise


def test_noise_is_learned_against_its_class_and_the_network_stays(setting: Callable[..., Any]) -> None:
    held = setting()
    before, classes = held.values(), torch.tensor([0] * 4 + [2] * 4)
    losses = []
    for steps in (1, 60):
        noise = learn_noise(held.strategy, classes, steps, torch.Generator().manual_seed(0))
        assert (noise.shape, noise.dtype) == ((8, 3, 8, 8), torch.float32)
        losses.append(float(held.losses(TensorSamples(noise, classes)).mean()) - 0.1 * energy(held, noise))
    assert losses[1] > losses[0], "the objective, CE - 0.1 ||z||^2, rises"
    assert all(torch.equal(value, before[name]) for name, value in held.strategy.state_dict().items())
    assert all(p.grad is None for p in held.strategy.parameters())


def energy(held: Any, noise: torch.Tensor) -> float:
    scale, shift = network_units(held.stream.inputs)
    return float((noise * scale + shift).square().flatten(1).sum(1).mean())


def test_impair_and_repair(setting: Callable[..., Any]) -> None:
    held = setting()
    ctx, asked = held.spy(), held.request(classes=(0,))
    Unsir(noise=4, steps=2, copies=3, per_class=5).forget(held.strategy, asked, ctx)
    impair, repair = ctx.phases
    assert torch.bincount(impair.data.labels).tolist() == [12, 5, 5, 5]
    assert torch.bincount(repair.data.labels, minlength=4).tolist() == [0, 5, 5, 5]
    assert impair.options["augment"] is False, "noise is no image"
    stays = concat([task.train for task in asked.past])
    assert bool(occurring(repair.data, stays).all())
    assert not bool(occurring(repair.data, asked.forget).any())


def test_a_class_keeps_at_most_so_many() -> None:
    samples = TensorSamples(torch.arange(20, dtype=torch.float32).view(10, 2), torch.tensor([0] * 7 + [1] * 3))
    kept = capped(samples, 4, torch.Generator().manual_seed(0))
    assert torch.bincount(kept.labels).tolist() == [4, 3]
    assert len(kept.inputs.unique(dim=0)) == 7


def test_single_samples_are_refused(setting: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="whole classes"):
        Unsir().check(setting().request(rows=((0, 1),)))
