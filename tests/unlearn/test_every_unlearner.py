"""What holds for every unlearner: modes and flags as found, the same bits twice, all kinds of nets, nothing carried."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from clearn import plugins
from clearn.errors import StateError
from clearn.recipe import Recipe
from clearn.unlearner import Unlearner
from strategies.der_expand import DerExpand
from strategies.finetune import Finetune
from strategies.icarl import ICarl
from strategies.memo import Memo

NAMES = sorted(plugins.names("unlearn"))
OPTIONS: dict[str, dict[str, Any]] = {
    "ssd": {"alpha": 1.0},
    "lfssd": {"alpha": 1.0},
    "unsir": {"noise": 4, "steps": 2, "copies": 2},
    "jit": {"draws": 2},
    "amnesiac": {"classes": (0,), "samples": (1, 5, 27)},
}
CONTROLS = ("nothing",)
CLASSES_ONLY = ("head_row", "unsir")
LOOKS_ON = ("amnesiac",)  # while the stream is learned


def make(name: str, held: Any = None) -> Unlearner:
    cls = plugins.find("unlearn", name)
    brief = {
        option: replace(p.default, epochs=2, batch_size=8, milestones=())
        for option, p in inspect.signature(cls).parameters.items()
        if isinstance(p.default, Recipe)
    }
    made = cls(**brief, **OPTIONS.get(name, {}))
    assert isinstance(made, Unlearner)
    if held is not None and name in LOOKS_ON:
        held.show(made)
    return made


def test_all_are_listed() -> None:
    assert set(NAMES) >= {
        *("retrain", "head_row", "nothing", "finetune", "neggrad", "neggrad_plus", "random_labels", "bad_teacher"),
        *("scrub", "salun", "l1_sparse", "cf_k", "eu_k", "jit", "fisher_forgetting", "unsir", "ssd", "lfssd", "assd"),
        "amnesiac",
    }


@pytest.mark.parametrize("cls", [Memo, ICarl, DerExpand, Finetune], ids=lambda c: c.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_modes_and_flags_are_as_found_and_the_same_seed_gives_the_same_bits(
    name: str, cls: type, setting: Callable[..., Any]
) -> None:
    left = []
    for _ in range(2):
        held = setting(cls)
        unlearner = make(name, held)
        asked = held.request(classes=(0,))
        held.strategy.train()  # of all modes the one that most methods would leave otherwise
        before, old = held.values(), held.strategy
        flags = [p.requires_grad for p in old.parameters()]
        modes = [module.training for module in old.modules()]
        unlearner.check(asked)
        torch.manual_seed(7)
        found = unlearner.forget(old, asked, held.spy()) or old
        assert [p.requires_grad for p in old.parameters()] == flags
        assert [module.training for module in old.modules()] == modes
        assert all(p.grad is None for p in old.parameters())
        assert all(bool(value.isfinite().all()) for value in found.state_dict().values())
        changed = [n for n, value in found.state_dict().items() if not torch.equal(value, before[n])]
        assert bool(changed) == (name not in CONTROLS)
        left.append(found.state_dict())
    assert all(torch.equal(value, left[1][n]) for n, value in left[0].items())


@pytest.mark.parametrize("name", [n for n in NAMES if n not in CLASSES_ONLY])
def test_single_samples_can_be_forgotten(name: str, setting: Callable[..., Any]) -> None:
    held = setting()
    unlearner = make(name, held)
    asked = held.request(rows=((0, 1), (0, 5), (1, 3)))
    unlearner.check(asked)
    found = unlearner.forget(held.strategy, asked, held.spy()) or held.strategy
    assert all(bool(value.isfinite().all()) for value in found.state_dict().values())


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("retrain", "nothing", "head_row", "neggrad", "jit")])
def test_exemplars_stand_for_what_may_not_be_read_and_without_any_it_is_said(
    name: str, setting: Callable[..., Any]
) -> None:
    held = setting()
    unlearner = make(name, held)
    asked, ctx = held.request(classes=(0,), look_back=False), held.spy()
    unlearner.check(asked)
    unlearner.forget(held.strategy, asked, ctx)
    n_read = len(held.strategy.memory) + len(asked.forget) + 2 * 4  # noise of unsir
    assert all(len(phase.data) <= n_read for phase in ctx.phases)

    bare = setting(Finetune)
    before = bare.values()
    with pytest.raises(StateError, match="no sample that stays may be read"):
        make(name).forget(bare.strategy, bare.request(classes=(0,), look_back=False), bare.spy())
    assert all(torch.equal(value, before[n]) for n, value in bare.strategy.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_carried_but_what_is_said(name: str, setting: Callable[..., Any]) -> None:
    held, unlearner = setting(n_tasks=1), make(name)
    unlearner.watch(held.strategy, held.stream.task(0), held.spy())
    kept = unlearner.state()
    assert set(kept) == ({"unlearner/counts"} if name in ("ssd", "lfssd", "assd") else set())
    make(name).load(kept, held.stream.infos)
    with pytest.raises(StateError):
        make(name).load({"unlearner/stranger": torch.zeros(1)}, held.stream.infos)
