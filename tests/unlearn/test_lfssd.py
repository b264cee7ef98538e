"""SSD without labels (section 12, item 9)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from clearn.errors import ConfigError
from clearn.parts.forgetting import Relabelled
from clearn.parts.samples import concat
from unlearn.ssd import Lfssd


def test_9_no_label_is_read(setting: Callable[..., Any]) -> None:
    left = []
    for garbage in (False, True):
        held = setting()
        asked = held.request(classes=(0,))
        if garbage:
            spoilt = tuple(replace(t, train=Relabelled(t.train, torch.zeros_like(t.train.labels))) for t in asked.past)
            gone = Relabelled(asked.forget, asked.forget.labels + 2)
            asked = replace(asked, forget=gone, past=spoilt)
        Lfssd(alpha=1.2).forget(held.strategy, asked, held.spy())
        left.append(held.strategy.state_dict())
    assert all(torch.equal(value, left[1][name]) for name, value in left[0].items())


def test_the_importance_is_the_mean_magnitude_of_the_gradient_of_the_squared_length(
    setting: Callable[..., Any],
) -> None:
    held = setting()
    asked, unlearner = held.request(classes=(0,)), Lfssd(alpha=1.2)
    stays = concat([task.train for task in asked.past])
    found = unlearner.scales.weigh(held.strategy, asked.forget, stays, stand_in=False)
    parameters = dict(held.strategy.named_parameters())
    wanted = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for image in asked.forget.inputs:
        grads = torch.autograd.grad(held.strategy.predict(image[None]).square().sum(), list(parameters.values()))
        for name, g in zip(wanted, grads, strict=True):
            wanted[name] += g.abs() / len(asked.forget)
    for name, value in wanted.items():
        assert float((found.forget[name] - value).norm()) <= 1e-4 * float(value.norm()) + 1e-6, name
    assert max(float((found.forget[n] / found.reference[n]).nan_to_num().max()) for n in wanted) <= 4 * (1 + 1e-5)


def test_4_a_no_op_is_refused(setting: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="n / m = 48 / 12 = 4"):
        Lfssd(alpha=4.0).check(setting().request(classes=(0,)))
