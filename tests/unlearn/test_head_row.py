"""Section 12, item 13: exactly (features + 1) scalars a class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from clearn.errors import ConfigError
from strategies.icarl import ICarl
from strategies.memo import Memo
from strategies.replay import Replay
from unlearn.head_row import HeadRow


@pytest.mark.parametrize(("cls", "head"), [(Replay, "net.head"), (ICarl, "net.head"), (Memo, "head")])
def test_13_exactly_the_rows_and_biases_change(cls: type, head: str, setting: Callable[..., Any]) -> None:
    held = setting(cls)
    with torch.no_grad():
        held.strategy.get_submodule(head).bias += 1
    before, ctx, asked = held.values(), held.spy(), held.request(classes=(0, 3))
    HeadRow().forget(held.strategy, asked, ctx)
    changed = {name: value != before[name] for name, value in held.strategy.state_dict().items()}
    width = held.strategy.get_submodule(head).in_features
    assert sum(int(mask.sum()) for mask in changed.values()) == 2 * (width + 1) == ctx.cost.logged["unlearn/scalars"]
    for kind in ("weight", "bias"):
        value, mask = held.strategy.state_dict()[f"{head}.{kind}"], changed[f"{head}.{kind}"]
        assert mask.view(4, -1).all(1).tolist() == [True, False, False, True]
        assert not bool(value[[0, 3]].any())


def test_single_samples_are_refused(setting: Callable[..., Any]) -> None:
    held = setting()
    with pytest.raises(ConfigError, match="2 single samples"):
        HeadRow().check(held.request(rows=((0, 1), (1, 2))))


def test_a_net_without_a_head_is_refused(setting: Callable[..., Any]) -> None:
    held = setting()
    asked = held.request(classes=(0,))
    held.strategy.net.head = torch.nn.Linear(64, 4)
    with pytest.raises(ConfigError, match="no linear head"):
        HeadRow().forget(held.strategy, asked, held.spy())
