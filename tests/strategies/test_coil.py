"""COIL: Sinkhorn against its definition, both transports by hand, when each is asked, and a head without biases."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from clearn import checks
from clearn.errors import ConfigError
from clearn.parts.cosine import cosines
from clearn.parts.exemplars import Memory
from clearn.parts.heads import distillation
from clearn.recipe import Recipe
from clearn.state import content_hash
from clearn.stream import Inputs
from strategies.coil import Coil, CosineRows, sinkhorn, transported

torch.set_num_threads(1)

Learned = Callable[..., Any]
BRIEF = Recipe(epochs=2, lr=0.1, batch_size=8)
INPUTS = Inputs((3, 8, 8))


def coil(**options: Any) -> Coil:
    torch.manual_seed(0)
    memory, later = options.pop("memory", Memory(total=12)), options.pop("later", BRIEF)
    return Coil(INPUTS, "convnet2", memory=memory, first=BRIEF, later=later, **options)


def a_batch(n: int = 16, classes: int = 4) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (n, 3, 8, 8), generator=rng, dtype=torch.uint8), torch.arange(n) % classes


# --- Sinkhorn


@pytest.mark.parametrize(("n", "m"), [(4, 4), (10, 3), (1, 5), (5, 1)])
def test_masses_are_uniform_at_both_ends(n: int, m: int) -> None:
    cost = torch.rand(n, m, generator=torch.Generator().manual_seed(0))
    plan = sinkhorn(cost, 0.464)
    assert bool((plan > 0).all())
    torch.testing.assert_close(plan.sum(1), torch.full((n,), 1 / n, dtype=torch.float64), atol=1e-8, rtol=0)
    torch.testing.assert_close(plan.sum(0), torch.full((m,), 1 / m, dtype=torch.float64), atol=1e-8, rtol=0)


def test_sinkhorn_by_hand() -> None:
    """Costs 0 on the diagonal, 1 off it, reg 1: by symmetry [[a, b], [b, a]] with a / b = e and a + b = 1/2."""
    b = 0.5 / (1 + math.e)
    plan = sinkhorn(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), 1.0)
    assert plan.flatten().tolist() == pytest.approx([0.5 - b, b, b, 0.5 - b])


def test_the_plan_is_a_scaled_kernel() -> None:
    """diag(u) exp(-cost / reg) diag(v): cross-ratios are those of the kernel, which with the masses defines it."""
    cost = torch.rand(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    plan, kernel = sinkhorn(cost, 0.3), (-cost / 0.3).exp()
    for a, b in ((plan, kernel),):
        for i, j in ((1, 1), (1, 2), (2, 1), (2, 2)):
            ours, theirs = (x[0, 0] * x[i, j] / (x[0, j] * x[i, 0]) for x in (a, b))
            assert float(ours) == pytest.approx(float(theirs))


def test_sinkhorn_in_its_limits() -> None:
    cost = torch.tensor([[0.0, 3.0], [2.0, 1.0]])
    torch.testing.assert_close(sinkhorn(cost, 1e6), torch.full((2, 2), 0.25, dtype=torch.float64), atol=1e-5, rtol=0)
    nearest = sinkhorn(cost, 1e-3)  # exp(-3000) is 0 outside of log space
    torch.testing.assert_close(nearest, torch.eye(2, dtype=torch.float64) / 2, atol=1e-8, rtol=0)


def test_transport_gives_a_class_the_row_of_its_neighbour() -> None:
    rows = torch.tensor([[2.0, 0.0], [0.0, 5.0]])
    sources, targets = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.1, 0.9], [0.9, 0.1]])
    moved = transported(rows, sources, targets, 1e-3, 3.0)
    torch.testing.assert_close(moved, torch.tensor([[0.0, 0.5], [0.5, 0.0]]), atol=1e-6, rtol=0)


# --- before a task


def test_new_rows_start_as_the_transport_of_the_old_with_their_mean_norm(learned: Learned) -> None:
    net = coil()
    learned(net, 1)
    net.eval()
    was, stored, task = net.net.head.rows.detach().clone(), net.memory.samples(), checks.toy_stream().task(1)
    with torch.no_grad():
        net.net.head.rows.mul_(3.0)
        means = []
        for part, labels in ((stored, (0, 1)), (task.train, (2, 3))):
            vectors = torch.nn.functional.normalize(net.net.features(part.fetch(torch.arange(len(part)))), dim=1)
            means += [torch.nn.functional.normalize(vectors[part.labels == c].mean(0), dim=0) for c in labels]
    learned(net, 2, train=False, first=1)
    cost = torch.tensor([[float((means[o] - means[n]).abs().pow(3).sum() ** (1 / 3)) for n in (2, 3)] for o in (0, 1)])
    expected = (sinkhorn(cost, 0.464).T.float() @ torch.nn.functional.normalize(was, dim=1)) * 2  # n_old
    expected *= 3 * was.norm(dim=1).mean() / expected.norm(dim=1).mean()
    torch.testing.assert_close(net.net.head.rows[2:].detach(), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(net.net.head.rows[:2].detach(), 3 * was)


def test_without_exemplars_nothing_is_transported(learned: Learned) -> None:
    net, twin = coil(memory=Memory(total=0)), coil(memory=Memory(total=0), prospective=0.9, retrospective=0.9)
    learned(net, 2)
    learned(twin, 2)
    assert all(
        content_hash(a) == content_hash(b) for a, b in zip(net.state().values(), twin.state().values(), strict=True)
    )


# --- the loss


def parts(net: Coil, phase: Any, inputs: Tensor, targets: Tensor, n_old: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The loss without transports, then what they are made of: features, logits, the teacher's logits."""
    (teacher,) = phase.options["beside"]
    net.eval()
    teacher.eval()
    share = n_old / len(net.classes)
    features, old = net.net.features(inputs), teacher(inputs)
    logits = net.net.head(features)
    plain = (1 - share) * cross_entropy(logits, targets, reduction="none")
    return plain + share * distillation(logits[:, :n_old], old, 2.0), features, logits, old


@pytest.mark.parametrize("task", [1, 2])
def test_the_first_epoch_asks_the_prospective_transport(task: int, learned: Learned) -> None:
    net = coil(prospective=0.5)
    learned(net, task)
    phase, (inputs, targets) = learned(net, task + 1, train=False, first=task).phases[0], a_batch(classes=2 * task + 2)
    with torch.no_grad():
        ahead = net.net.head.rows[2 * task :].clone()
        net.net.head.rows.add_(torch.randn_like(net.net.head.rows))  # what was transported stays
        base, features, logits, _ = parts(net, phase, inputs, targets, 2 * task)
        expected = base + 0.5 * distillation(logits[:, 2 * task :], cosines(features, ahead), 2.0)
        torch.testing.assert_close(phase.loss(inputs, targets), expected)


def test_later_epochs_ask_the_retrospective_transport(learned: Learned) -> None:
    """36 samples in batches of 8 are 5 steps an epoch; in epoch e of 4 the weight is (e / 4)^2."""
    net = coil(retrospective=0.5, refresh_every=3, later=Recipe(epochs=4, lr=0.1, batch_size=8))
    learned(net, 1)
    phase, (inputs, targets) = learned(net, 2, train=False, first=1).phases[0], a_batch()
    assert len(phase.data) == 36
    solved = []
    for step in range(1, 21):
        with torch.no_grad():
            net.net.head.rows[2:].add_(torch.randn(2, 64, generator=torch.Generator().manual_seed(step)))
        net.train()
        phase.options["after_step"]()
        assert net.training, "the means are taken in evaluation mode, training goes on in its own"
        if step in (5, 8, 10, 13, 15, 18):
            solved.append(net.net.head.rows[2:].detach().clone())
        if step >= 5 and step < 20:
            epoch = step // 5
            with torch.no_grad():
                base, features, _, old = parts(net, phase, inputs, targets, 2)
                data = phase.data.fetch(torch.arange(36))
                unit = torch.nn.functional.normalize(net.net.features(data), dim=1)
                means = torch.stack([unit[phase.data.labels == c].mean(0) for c in range(4)])
                means = torch.nn.functional.normalize(means, dim=1)
                back = transported(solved[-1], means[2:], means[:2], 0.464, 3.0)
                expected = base + 0.5 * (epoch / 4) ** 2 * distillation(cosines(features, back), old, 2.0)
                torch.testing.assert_close(phase.loss(inputs, targets), expected, rtol=1e-4, atol=1e-5)


def test_the_first_task_is_plain(learned: Learned) -> None:
    net = coil()
    (phase,) = learned(net, 1, train=False).phases
    inputs, targets = a_batch(classes=2)
    phase.module.eval()
    with torch.no_grad():
        assert torch.equal(phase.loss(inputs, targets), cross_entropy(net.net(inputs), targets, reduction="none"))


# --- head, what is carried, options


def test_growing_keeps_rows_and_scale() -> None:
    head = CosineRows(4)
    head.grow(2)
    was = head.rows.detach().clone()
    with torch.no_grad():
        head.sigma.fill_(3.0)
        assert head(2 * was[:1])[0, 0].item() == pytest.approx(3.0)
    head.grow(2)
    head.grow(5)
    assert torch.equal(head.rows[:2], was)
    assert head.rows.shape == (5, 4)
    assert bool((head.rows.abs() <= 0.5).all())
    assert head.sigma.item() == 3.0


def test_a_head_without_biases_is_carried(learned: Learned) -> None:
    net = coil()
    backbone = sum(t.nbytes for t in net.net.backbone.state_dict().values())
    learned(net, 3)
    sizes = {name: value.nbytes for name, value in net.state().items()}
    assert sum(sizes.values()) == backbone + 4 * 6 * 64 + 4 + 12 * (3 * 8 * 8 + 1)
    assert {net.category(name) for name in sizes if "head" in name} == {"head"}


def test_defaults_are_the_released_ones() -> None:
    net = Coil(INPUTS)
    assert (net.temperature, net.reg, net.norm) == (2.0, 0.464, 3.0)
    assert (net.prospective, net.retrospective, net.refresh_every) == (1e-3, 1e-3, 200)
    assert sum(p.numel() for p in net.net.backbone.parameters()) == 466_256
    for recipe in (net.first, net.later):
        assert (recipe.epochs, recipe.milestones, recipe.weight_decay) == (160, (80, 120), 5e-4)


def test_wrong_options_are_named_together() -> None:
    with pytest.raises(ConfigError, match=r"reg=0 must be above 0 and finite; norm=0\.5 must be 1 or more"):
        Coil(INPUTS, "convnet2", reg=0, norm=0.5)
