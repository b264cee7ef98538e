"""Wrong labels for what goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from unlearn.random_labels import RandomLabels


def test_labels_are_wrong_and_all_is_trained_on(setting: Callable[..., Any]) -> None:
    for request in ({"classes": (0,)}, {"rows": ((0, 1), (0, 14), (1, 3), (1, 4))}):
        held = setting()
        ctx, asked = held.spy(train=False), held.request(**request)
        RandomLabels().forget(held.strategy, asked, ctx)
        (phase,) = ctx.phases
        n_gone = len(asked.forget)
        wrong = phase.data.labels[-n_gone:]
        assert torch.equal(phase.data.inputs[-n_gone:], asked.forget.inputs)
        assert not bool((wrong == asked.forget.labels).any())
        assert not set(wrong.tolist()) & set(asked.request.classes)
        assert len(phase.data) == 48


def test_the_draw_follows_the_seed(setting: Callable[..., Any]) -> None:
    drawn = []
    for seed in (1, 1, 2):
        held = setting()
        ctx = held.spy(seed=seed, train=False)
        RandomLabels().forget(held.strategy, held.request(classes=(0,)), ctx)
        drawn.append(ctx.phases[0].data.labels[-12:].tolist())
    assert drawn[0] == drawn[1] != drawn[2]
