"""The last layers are fine-tuned, the first stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from clearn.errors import ConfigError
from clearn.recipe import Recipe
from unlearn.cf_k import CfK


@pytest.mark.parametrize(("k", "moves"), [(1, ("net.head",)), (2, ("net.head", "net.backbone.1"))])
def test_the_first_layers_stay_bit_for_bit_statistics_included(
    k: int, moves: tuple[str, ...], setting: Callable[..., Any]
) -> None:
    held = setting()
    before, asked = held.values(), held.request(classes=(0,))
    CfK(k, Recipe(epochs=2, lr=0.1, batch_size=8, weight_decay=0.1)).forget(held.strategy, asked, held.spy())
    after = held.strategy.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {name for name in after if name.startswith(moves)}
    assert all(p.requires_grad for p in held.strategy.parameters())


def test_too_many_layers_are_refused(setting: Callable[..., Any]) -> None:
    held = setting()
    with pytest.raises(ConfigError, match=r"k=3 must lie in \[1, 2\]"):
        CfK(3).forget(held.strategy, held.request(classes=(0,)), held.spy())
