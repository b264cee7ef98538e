"""Selective synaptic dampening on a network; its arithmetic is tested in tests/clearn/parts/test_dampening.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from clearn.errors import ConfigError, StateError
from clearn.parts.dampening import dampen
from clearn.parts.importance import CROSS_ENTROPY, Sweep, exact
from clearn.parts.samples import concat
from clearn.state import check_leaf
from strategies.finetune import Finetune
from strategies.memo import Memo
from unlearn.ssd import Ssd


def test_it_dampens_by_the_importances_of_single_samples(setting: Callable[..., Any]) -> None:
    held = setting()
    ctx, asked, before = held.spy(), held.request(classes=(0,)), held.values()
    net, stays = held.strategy, concat([task.train for task in asked.past])
    sweep = Sweep(CROSS_ENTROPY, forward=net.predict)
    forget = exact(net, asked.forget.batches(64), sweep)
    whole = (forget + exact(net, stays.batches(64), sweep)).mean()
    theta = {name: p.detach().clone() for name, p in net.named_parameters()}
    done = dampen(theta, forget.mean(), whole, alpha=2.0, lam=1.0)
    Ssd(alpha=2.0).forget(net, asked, ctx)
    logged = ctx.cost.logged
    assert 0 < logged["unlearn/selected"] < 0.5
    assert logged["unlearn/selected"] == pytest.approx(done.share, abs=1e-3)
    assert (logged["unlearn/samples"], logged["unlearn/alpha"]) == (48, 2.0)
    assert logged["unlearn/largest_ratio"] <= 4 * (1 + 1e-5)
    for name, p in net.named_parameters():
        assert float((p.detach() - theta[name]).norm()) <= 1e-2 * float(before[name].norm())
        assert int((p.detach() != before[name]).sum()) == logged.get(f"unlearn/selected/{name}", 0)


def test_5_buffers_stay_and_signs_too(setting: Callable[..., Any]) -> None:
    held = setting(Memo)
    before = held.values()
    Ssd(alpha=1.5).forget(held.strategy, held.request(classes=(0,)), held.spy())
    parameters = dict(held.strategy.named_parameters())
    for name, value in held.strategy.state_dict().items():
        if name in parameters:
            assert bool((value.abs() <= before[name].abs()).all())
            assert bool((value * before[name] >= 0).all())
        else:
            assert torch.equal(value, before[name])


@pytest.mark.parametrize("importance", ["exact", "batch", "class_mean"])
def test_two_runs_give_the_same_bits_whatever_the_seed(importance: str, setting: Callable[..., Any]) -> None:
    left = []
    for seed in (0, 1):
        held = setting()
        torch.manual_seed(seed)
        unlearner = Ssd(alpha=1.5, importance=importance)
        unlearner.forget(held.strategy, held.request(classes=(0,)), held.spy(seed=seed))
        left.append(held.strategy.state_dict())
    assert all(torch.equal(value, left[1][name]) for name, value in left[0].items())


@pytest.mark.parametrize("importance", ["exact", "class_mean"])
def test_4_a_no_op_is_refused_before_any_pass(importance: str, setting: Callable[..., Any]) -> None:
    held = setting()
    asked = held.request(classes=(0,))
    for alpha in (4.0, 10.0):
        with pytest.raises(ConfigError, match=rf"alpha={alpha:g} is at or above n / m = 48 / 12 = 4"):
            Ssd(alpha, importance=importance).check(asked)
    Ssd(3.9, importance=importance).check(asked)
    Ssd(10.0, reference="remaining").check(asked)
    Ssd(rest_alpha=100.0).check(asked)
    with pytest.warns(UserWarning, match="noise of batches"):
        Ssd(10.0, importance="batch").check(asked)


def test_4_without_looking_back_the_counts_say_n(setting: Callable[..., Any]) -> None:
    held, unlearner = setting(), Ssd(alpha=10.0)
    for index in range(2):
        unlearner.watch(held.strategy, held.stream.task(index), held.spy())
    with pytest.raises(ConfigError, match="n / m = 48 / 12"):
        unlearner.check(held.request(classes=(0,), look_back=False))


def test_14_an_empty_effect_is_shown_or_fails(setting: Callable[..., Any]) -> None:
    held = setting()
    before, asked, ctx = held.values(), held.request(rows=((0, 0), (0, 1))), held.spy()
    with pytest.warns(UserWarning, match="no scalar was selected"):
        Ssd(rest_alpha=1e30).forget(held.strategy, asked, ctx)
    assert ctx.cost.logged["unlearn/selected"] == 0
    with pytest.raises(StateError, match="no scalar was selected"):
        Ssd(rest_alpha=1e30, require_effect=True).forget(held.strategy, asked, held.spy())
    assert all(torch.equal(value, before[name]) for name, value in held.strategy.state_dict().items())


def test_the_share_is_what_was_asked_for(setting: Callable[..., Any]) -> None:
    held, ctx = setting(), None
    ctx = held.spy()
    Ssd(select_fraction=0.01, lam=0.0).forget(held.strategy, held.request(classes=(0,)), ctx)
    n_scalars = sum(p.numel() for p in held.strategy.parameters())
    assert ctx.cost.logged["unlearn/selected"] == pytest.approx(0.01, abs=1 / n_scalars)


def test_4_a_threshold_against_the_rest_selects_what_its_equal_against_all_does(setting: Callable[..., Any]) -> None:
    shares = []
    for options in ({"alpha": 2.0}, {"rest_alpha": 3.0}, {"alpha": 3.0, "reference": "remaining"}):
        held = setting()  # p = 1/4: 2 (3/4) / (1 - 2/4) = 3
        ctx = held.spy()
        Ssd(**options).forget(held.strategy, held.request(classes=(0,)), ctx)
        shares.append(ctx.cost.logged["unlearn/selected"])
    assert shares[0] > 0
    assert shares == pytest.approx([shares[0]] * 3, abs=1e-4)


def test_stored_importances_are_carried_and_what_goes_alone_is_read(setting: Callable[..., Any]) -> None:
    fresh, held = setting(n_tasks=1), setting(n_tasks=1)
    first, stored = fresh.spy(), held.spy()
    Ssd(alpha=1.5).forget(fresh.strategy, fresh.request(classes=(0,)), first)
    carried = Ssd(alpha=1.5, store=True)
    assert (carried.looks_back, Ssd().looks_back) == (False, True)
    carried.watch(held.strategy, held.stream.task(0), held.spy())
    state = {name: value.clone() for name, value in carried.state().items()}
    for name, value in state.items():
        check_leaf(name, value)
        assert carried.category(name) == "importance"
    n_scalars = sum(p.numel() for p in held.strategy.parameters())
    assert sum(value.nbytes for value in state.values()) == 4 * n_scalars + 8 + 2 * 8
    rebuilt = Ssd(alpha=1.5, store=True)
    rebuilt.load(state, held.stream.infos)
    rebuilt.forget(held.strategy, held.request(classes=(0,), look_back=False), stored)
    assert stored.cost.logged["unlearn/samples"] == 12
    assert stored.cost.logged["unlearn/selected"] == pytest.approx(first.cost.logged["unlearn/selected"], abs=1e-3)
    for name, p in held.strategy.named_parameters():
        other = dict(fresh.strategy.named_parameters())[name]
        assert float((p - other).detach().norm()) <= 1e-2 * float(other.detach().norm()) + 1e-6
    assert rebuilt.state()["unlearner/counts"].tolist() == [0, 12]


@pytest.mark.parametrize("cls", [Memo, Finetune])
def test_4_stale_importances_keep_the_bound_and_zero_nothing(cls: type, setting: Callable[..., Any]) -> None:
    """The columns that class 0's row got with the second task had no importance while class 0 was trained."""
    held, unlearner = setting(cls), Ssd(alpha=1.5, store=True)
    early = setting(cls, n_tasks=1)
    unlearner.watch(early.strategy, held.stream.task(0), held.spy())
    unlearner.watch(held.strategy, held.stream.task(1), held.spy())
    ctx = held.spy()
    unlearner.forget(held.strategy, held.request(classes=(0,), look_back=False), ctx)
    assert 1.5 < ctx.cost.logged["unlearn/largest_ratio"] <= 4 * (1 + 1e-5)
    assert ctx.cost.logged["unlearn/zeroed"] == 0
    assert ctx.cost.logged["unlearn/selected"] > 0


def test_options_that_cannot_be() -> None:
    for wrong in (
        {"lam": -1.0},
        {"alpha": -1.0},
        {"rest_alpha": 1.0, "select_fraction": 0.1},
        {"rest_alpha": 1.0, "reference": "remaining"},
        {"store": True, "reference": "remaining"},
        {"batch_size": 0},
    ):
        with pytest.raises(ConfigError):
            Ssd(**wrong)
