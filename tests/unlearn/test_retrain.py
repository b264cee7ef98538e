"""Retraining from new weights, on what stays alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from clearn.errors import ConfigError
from clearn.parts.samples import occurring
from unlearn.retrain import Retrain


def test_it_never_reads_what_goes_and_learns_all_tasks_in_order(setting: Callable[..., Any]) -> None:
    held = setting()
    ctx, asked = held.spy(), held.request(rows=((0, 1), (0, 5), (1, 3)))
    fresh = Retrain().forget(held.strategy, asked, ctx)
    assert len(ctx.phases) == 2
    for phase, task in zip(ctx.phases, asked.past, strict=True):
        assert not bool(occurring(phase.data, asked.forget).any())
        assert bool(occurring(task.train, phase.data).all())
    assert not bool(occurring(fresh.memory.samples(), asked.forget).any())
    assert [info.index for info in fresh.seen] == [0, 1]
    assert fresh is not held.strategy


def test_every_weight_is_drawn_anew_by_the_seed_of_the_run(setting: Callable[..., Any]) -> None:
    held = setting()
    asked, starts = held.request(classes=(0,)), []
    for seed in (0, 0, 1):
        ctx = held.spy(seed=seed, train=False)
        torch.manual_seed(3)
        Retrain().forget(held.strategy, asked, ctx)
        starts.append({n: v for n, v in ctx.phases[0].before.items() if n.endswith("weight") and v.ndim > 1})
    old = held.strategy.state_dict()
    assert len(starts[0]) == 3
    for name, first in starts[0].items():
        assert torch.equal(first, starts[1][name])
        if "head" not in name:  # it is drawn while learning, in the scope that the engine seeds
            assert not bool((first == starts[2][name]).any())
            assert not bool((first == old[name]).any()), "more than the head is new"


def test_a_task_that_lost_all_its_samples_leaves_its_structure(setting: Callable[..., Any]) -> None:
    held = setting()
    ctx, asked = held.spy(), held.request(classes=(0, 1))
    fresh = Retrain().forget(held.strategy, asked, ctx)
    assert len(ctx.phases) == 1
    assert fresh.classes == [0, 1, 2, 3]
    held.strategy.load_state_dict(fresh.state_dict())


def test_without_looking_back_it_is_refused(setting: Callable[..., Any]) -> None:
    held = setting()
    with pytest.raises(ConfigError, match="does not allow looking back"):
        Retrain().check(held.request(classes=(0,), look_back=False))
