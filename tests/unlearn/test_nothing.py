"""The control that changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from unlearn.nothing import Nothing


def test_nothing_changes_no_bit(setting: Callable[..., Any]) -> None:
    held = setting()
    before, asked = held.values(), held.request(classes=(0,))
    assert Nothing().forget(held.strategy, asked, held.spy()) is None
    assert all(torch.equal(value, before[name]) for name, value in held.strategy.state_dict().items())
