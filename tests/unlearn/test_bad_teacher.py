"""Two teachers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from clearn.parts.forgetting import classifier
from clearn.recipe import Recipe
from strategies.icarl import ICarl
from unlearn.bad_teacher import BadTeacher, divergence


def test_the_divergence_by_hand() -> None:
    p, q = [0.5, 0.5], [0.8, 0.2]
    found = divergence(torch.tensor([p]).log() + 3, torch.tensor([q]).log(), 1.0)
    expected = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert found.tolist() == pytest.approx([expected])
    softened = divergence(torch.tensor([p]).log() * 2, torch.tensor([q]).log() * 2, 2.0)
    assert softened.tolist() == pytest.approx([expected])


def test_what_goes_is_taught_by_a_random_network_and_what_stays_by_the_original(setting: Callable[..., Any]) -> None:
    held = setting(ICarl)
    ctx, asked = held.spy(train=False), held.request(classes=(0,))
    BadTeacher(share=0.5).forget(held.strategy, asked, ctx)
    (phase,) = ctx.phases
    good, bad = phase.options["beside"]
    assert (phase.data.labels == -1).sum() == 12
    assert (phase.data.labels >= 0).sum() == 18
    weights = [net.net.backbone.state_dict() for net in (held.strategy, good, bad)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert not any(torch.equal(v, weights[2][n]) for n, v in weights[0].items() if v.ndim > 1)
    assert len(bad.net.head.weight) == 4
    with torch.no_grad():
        stays = phase.loss(phase.data.inputs[:4], phase.data.labels[:4])
        torch.testing.assert_close(stays, torch.zeros(4), atol=1e-6, rtol=0)  # the student is the original still
        goes = phase.loss(asked.forget.inputs[:4], torch.full((4,), -1))
        taught, answered = (classifier(net, asked.forget.inputs[:4]) for net in (bad, held.strategy))
        torch.testing.assert_close(goes, divergence(taught, answered, 1.0))
        assert bool((goes > 0.01).all())


def test_the_student_comes_closer_to_ignorance(setting: Callable[..., Any]) -> None:
    held = setting()
    ctx, asked = held.spy(), held.request(classes=(0,))
    recipe = Recipe(epochs=8, lr=3e-3, schedule="constant", batch_size=16, optimizer="adam")
    old = held.losses(asked.forget).mean()
    BadTeacher(recipe=recipe).forget(held.strategy, asked, ctx)
    assert float(held.losses(asked.forget).mean()) > float(old) + 0.3
