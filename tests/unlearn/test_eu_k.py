"""The last layers are drawn anew, the first stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from clearn.recipe import Recipe
from unlearn.eu_k import EuK


def test_the_last_layers_start_fresh_and_the_first_stay(setting: Callable[..., Any]) -> None:
    held = setting()
    before, ctx, asked = held.values(), held.spy(), held.request(classes=(0,))
    torch.manual_seed(5)
    EuK(2, Recipe(epochs=1, lr=0.1, batch_size=8)).forget(held.strategy, asked, ctx)
    (phase,) = ctx.phases
    fresh = held.spy().fresh().state_dict()
    last = [name for name in before if name.startswith("net.backbone.1")]
    assert last
    assert all(torch.equal(phase.before[name], fresh[name]) for name in last)
    assert int(phase.before["net.backbone.1.1.num_batches_tracked"]) == 0, "statistics too"
    assert not bool((phase.before["net.head.weight"] == before["net.head.weight"]).any())
    after = held.strategy.state_dict()
    stayed = {name for name, value in after.items() if torch.equal(value, before[name])}
    assert stayed == {name for name in after if name.startswith("net.backbone.0")}
    assert 0 not in phase.data.labels.tolist()
