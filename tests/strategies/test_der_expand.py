"""DER: a whole backbone a task, copied from the newest, old ones frozen; loss by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from clearn import checks, published
from clearn.parts.exemplars import Memory
from clearn.recipe import FIRST_TASK, Recipe
from clearn.state import content_hash
from clearn.stream import Inputs, TaskInfo
from strategies.der_expand import DerExpand

torch.set_num_threads(1)

Learned = Callable[..., Any]
BRIEF = Recipe(epochs=2, lr=0.1, batch_size=8, weight_decay=5e-4)
INPUTS = Inputs((3, 8, 8))


def der(backbone: str = "convnet2", **options: Any) -> DerExpand:
    torch.manual_seed(0)
    return DerExpand(INPUTS, backbone, memory=Memory(total=12), first=BRIEF, later=BRIEF, **options)


def a_batch(n: int = 16, classes: int = 4) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (n, 3, 8, 8), generator=rng, dtype=torch.uint8), torch.arange(n) % classes


def hashes(module: nn.Module) -> dict[str, str]:
    return {name: content_hash(value) for name, value in module.state_dict().items()}


def test_every_task_adds_a_whole_backbone() -> None:
    net = der("resnet14")
    for task in range(3):
        net.grow(TaskInfo(task, (2 * task, 2 * task + 1)))
        assert sum(p.numel() for p in net.backbones.parameters()) == published.der_params("resnet14", task + 1)
        assert net.head is not None
        assert tuple(net.head.weight.shape) == (2 * task + 2, 64 * (task + 1))
        assert sum(p.numel() for p in net.backbones.parameters() if p.requires_grad) == 171_856


def test_a_new_backbone_starts_as_the_newest_and_old_logits_keep_their_part(learned: Learned) -> None:
    net = der()
    learned(net, 2)
    inputs, _ = a_batch()
    net.eval()
    with torch.no_grad():
        before = net.predict(inputs)
        net.grow(TaskInfo(2, (4, 5)))
        net.eval()
        assert hashes(net.backbones[2]) == hashes(net.backbones[1]) != hashes(net.backbones[0])
        d = net.plan.width
        assert net.head is not None
        corner = net.features(inputs)[:, -d:] @ net.head.weight[:4, -d:].T
        torch.testing.assert_close(net.predict(inputs)[:, :4] - corner, before)


def test_old_backbones_are_bit_equal_after_training_with_their_statistics(learned: Learned) -> None:
    net = der()
    learned(net, 2)
    inputs, _ = a_batch()
    before = copy.deepcopy(net).eval()
    learned(net, 3, first=2)
    for old in range(2):
        assert hashes(net.backbones[old]) == hashes(before.backbones[old])
    assert all(
        a != b for a, b in zip(hashes(net.backbones[2]).values(), hashes(before.backbones[1]).values(), strict=True)
    )
    with torch.no_grad():
        assert torch.equal(net.eval().features(inputs)[:, : 2 * net.plan.width], before.features(inputs))


def test_modes_in_training_and_evaluation() -> None:
    net = der()
    for task in range(3):
        net.grow(TaskInfo(task, (task,)))
    net.train()
    assert [backbone.training for backbone in net.backbones] == [False, False, True]
    assert net.head is not None
    assert net.head.training
    assert not any(module.training for module in net.eval().modules())


def test_the_loss_is_cross_entropy_with_the_auxiliary_one(learned: Learned) -> None:
    net = der(aux_weight=0.3)
    learned(net, 1)
    phase, (inputs, targets) = learned(net, 2, train=False, first=1).phases[0], a_batch()
    phase.module.eval()
    with torch.no_grad():
        newest = phase.module[1](net.features(inputs)[:, -net.plan.width :])
        mapped = torch.tensor([0, 0, 1, 2])[targets]
        expected = cross_entropy(net.predict(inputs), targets, reduction="none")
        expected = expected + 0.3 * cross_entropy(newest, mapped, reduction="none")
        torch.testing.assert_close(phase.loss(inputs, targets), expected)


def test_gradients_stop_at_old_backbones(learned: Learned) -> None:
    net = der()
    learned(net, 1)
    phase, (inputs, targets) = learned(net, 2, train=False, first=1).phases[0], a_batch()
    phase.module.train()
    net.zero_grad(set_to_none=True)
    phase.loss(inputs, targets).mean().backward()
    assert all(p.grad is None for p in net.backbones[0].parameters())
    assert all(p.grad is not None for p in net.backbones[1].parameters())


def test_new_rows_are_aligned_once_a_task_from_the_second(learned: Learned) -> None:
    net = der()
    assert learned(net, 1).cost.logged == {"wa/gamma": 1.0}
    assert learned(net, 2, first=1).cost.logged["wa/gamma"] != 1.0
    assert net.head is not None
    norms = net.head.weight.detach().norm(dim=1)
    assert float(norms[:2].mean()) == pytest.approx(float(norms[2:].mean()), rel=1e-5)


def test_defaults_are_the_papers() -> None:
    net = DerExpand(INPUTS)
    assert (
        net.first
        == FIRST_TASK
        == Recipe(epochs=200, lr=0.1, milestones=(60, 120, 170), weight_decay=5e-4, batch_size=128)
    )
    assert (net.later.epochs, net.later.milestones, net.later.weight_decay) == (170, (80, 120, 150), 2e-4)
    assert net.aux_weight == 1.0


def test_it_carries_nothing_but_backbones_head_and_exemplars(learned: Learned) -> None:
    net = der()
    learned(net, 2, checks.toy_stream())
    state = net.state()
    assert {name.split(".")[0] for name in state} == {"model/backbones", "model/head", "memory/images", "memory/labels"}
    assert torch.as_tensor(state["memory/labels"]).bincount().tolist() == [3, 3, 3, 3]
