"""A threshold from the share that goes (section 12, item 8)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from clearn.parts.samples import concat
from unlearn.assd import Assd


@pytest.mark.parametrize("reference", ["all", "remaining"])
def test_8_the_share_of_finite_ratios_follows_from_the_share_that_goes(
    reference: str, setting: Callable[..., Any]
) -> None:
    held = setting()
    ctx, asked, before = held.spy(), held.request(classes=(0,)), held.values()
    unlearner = Assd(reference=reference)
    stays = concat([task.train for task in asked.past])
    found = unlearner.scales.weigh(held.strategy, asked.forget, stays, stand_in=False)
    pooled = torch.cat([(found.forget[n].double() / found.reference[n].double()).flatten() for n in found.forget])
    finite = pooled[pooled.isfinite()].numpy()
    unlearner.forget(held.strategy, asked, ctx)
    q = 100 - math.log1p(100 * 12 / 48)
    assert ctx.cost.logged["unlearn/alpha"] == pytest.approx(np.percentile(finite, q), rel=1e-6)
    changed = sum(int((p.detach() != before[n]).sum()) for n, p in held.strategy.named_parameters())
    infinite = int(pooled.isinf().sum())
    assert changed - infinite == pytest.approx(len(finite) * (100 - q) / 100, abs=0.01 * len(finite) * (100 - q) / 100)


def test_it_cannot_abstain(setting: Callable[..., Any]) -> None:
    """Samples like all others: still ln(1 + 100 m / n) % of the weights go."""
    held = setting()
    ctx = held.spy()
    Assd().forget(held.strategy, held.request(rows=((0, 0), (0, 12), (1, 0), (1, 12))), ctx)
    share = math.log1p(100 * 4 / 48) / 100  # of the finite ratios; some scalars have none
    assert 0.5 * share < ctx.cost.logged["unlearn/selected"] < 1.01 * share
