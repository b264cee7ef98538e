"""SLCA: a backbone at a hundredth of the rate, heads by task, statistics, an alignment that the next task drops."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from clearn import checks
from clearn.errors import BudgetExceeded, ConfigError
from clearn.ledger import Budget, account
from clearn.parts.alignment import Drawn
from clearn.parts.frozen_vit import Vit
from clearn.parts.heads import Head
from clearn.parts.statistics import RIDGE, Sampler, Statistics
from clearn.recipe import Recipe
from clearn.state import content_hash, freeze, thaw
from clearn.stream import Inputs, Stream
from strategies.slca import Slca, drifted, normalised

torch.set_num_threads(1)

Learned = Callable[..., Any]
Arranged = Callable[..., Stream]
INPUTS, TINY = Inputs((3, 8, 8)), Vit("test_vit", weights=False, image_size=16)
BRIEF = Recipe(epochs=2, lr=0.05, batch_size=8, weight_decay=5e-3)
ALIGN = Recipe(epochs=2, lr=0.01, schedule="cosine", batch_size=16, weight_decay=5e-4)
ONCE = Recipe(epochs=1, lr=0.5, batch_size=1000)  # a single step on the whole task
D = 64


def slca(**options: Any) -> Slca:
    torch.manual_seed(0)
    return Slca(INPUTS, **({"vit": TINY, "tune": BRIEF, "align": ALIGN} | options)).eval()


def images() -> tuple[Tensor, Tensor]:
    part = checks.toy_stream(1, 6).task(0).train
    return part.fetch(torch.arange(len(part))), part.labels


def values(module: nn.Module) -> list[Tensor]:
    return [value.detach().clone() for value in module.state_dict().values()]


def before_alignment(net: Slca) -> Head:
    head = net.unaligned["head"]
    assert isinstance(head, Head)
    return head


# --- training


def test_one_step_moves_the_backbone_by_a_hundredth_of_the_head_s_rate(learned: Learned, arranged: Arranged) -> None:
    net, twin, stream = slca(tune=ONCE), slca(tune=ONCE), arranged()
    learned(net, 1, stream)
    torch.manual_seed(0)  # as `learned` seeds the first task
    twin.grow(stream.infos[0])
    x, y = images()
    head = before_alignment(twin)
    cross_entropy(head(twin.vit(x[y < 2])), y[y < 2]).backward()
    moved = 0.0
    for new, old in zip(net.vit.parameters(), twin.vit.parameters(), strict=True):
        assert old.grad is not None
        torch.testing.assert_close(new - old, -0.5 * 0.01 * old.grad, rtol=1e-3, atol=1e-7)
        moved = max(moved, float((new - old).detach().abs().max()))
    assert moved > 1e-5
    for new, old in zip(before_alignment(net).parameters(), head.parameters(), strict=True):
        assert old.grad is not None
        torch.testing.assert_close(new - old, -0.5 * old.grad, rtol=1e-3, atol=1e-6)


def test_the_loss_is_that_of_the_newest_head_alone(learned: Learned) -> None:
    net = slca(backbone_rate=0.02)
    learned(net, 1)
    ctx = learned(net, 2, first=1, train=False)
    phase = ctx.phases[0]
    vit, newest = phase.module
    assert vit is net.vit
    assert newest.weight.shape == (2, D)
    assert phase.recipe == BRIEF
    assert phase.options["rates"] == [(net.vit, 0.02)]
    assert all(p.requires_grad for p in phase.module.parameters())
    x, y = images()
    x, y = x[(y == 2) | (y == 3)], y[(y == 2) | (y == 3)]
    with torch.no_grad():
        logits = net.vit(x) @ newest.weight.T + newest.bias
        torch.testing.assert_close(phase.loss(x, y), cross_entropy(logits, y - 2, reduction="none"))


def test_the_next_task_begins_with_the_heads_as_they_were_before_the_alignment(spy: Learned, learned: Learned) -> None:
    net, stream, begun = slca(), checks.toy_stream(), []
    learned(net, 2)
    unaligned, aligned = values(before_alignment(net)), values(net._heads[0])
    assert not torch.equal(unaligned[0], aligned[0])
    ctx = spy(stream, 2)
    ctx.before = lambda module: begun.append(values(module))
    net.learn(stream.task(2), ctx)
    for old, kept, start in zip(unaligned, values(before_alignment(net)), begun[1], strict=True):
        assert torch.equal(kept[:4], old)  # neither training nor decay nor alignment reached older rows
        assert torch.equal(start, kept)  # and from there the alignment began
    assert not torch.equal(values(net._heads[0])[0][:4], aligned[0])


def test_new_rows_are_small_before_training_and_trained_rows_are_kept(learned: Learned) -> None:
    net = slca()
    learned(net, 2)
    torch.manual_seed(1)
    rows = values(before_alignment(net))
    net.grow(checks.toy_stream().infos[2])
    weight, bias = values(before_alignment(net))
    assert torch.equal(weight[:4], rows[0])
    assert float(weight[4:].std()) == pytest.approx(0.02, rel=0.25)
    assert not bool(bias[4:].any())


def test_a_class_that_was_forgotten_does_not_come_back_with_the_next_task(learned: Learned, arranged: Arranged) -> None:
    net, stream = slca(), arranged()
    learned(net, 2, stream)
    net.memory.forget(stream.task(0).train, [0, 1])
    assert net.head is not None
    with torch.no_grad():
        net.head.weight[0], net.head.bias[0] = 0.0, -50.0
    other = values(before_alignment(net))[0][2]
    learned(net, 3, stream, first=2)
    assert torch.equal(before_alignment(net).weight[0], torch.zeros(D))
    assert before_alignment(net).bias[0].item() == -50.0
    assert torch.equal(before_alignment(net).weight[2], other)
    x, _ = images()
    assert 0 not in net.eval().predict(x).argmax(1).tolist()


def test_the_first_task_is_not_aligned(learned: Learned) -> None:
    net = slca()
    assert len(learned(net, 1).phases) == 1
    with torch.no_grad():
        found = net.eval().read(images()[0])
    assert torch.equal(found["classifier"], found["unaligned"])


def test_tasks_of_one_class_train_no_network_and_are_aligned(learned: Learned, arranged: Arranged) -> None:
    net = slca()
    start = [content_hash(value) for value in net.vit.state_dict().values()]
    ctx = learned(net, 6, arranged(increment=1))
    assert len(ctx.phases) == 1  # the alignment
    assert [content_hash(value) for value in net.vit.state_dict().values()] == start
    with torch.no_grad():
        found = net.eval().read(images()[0])
    assert bool(found["classifier"].isfinite().all())
    assert not torch.allclose(found["classifier"], found["unaligned"])


# --- alignment


def test_normalised_logits_by_hand() -> None:
    logits = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 2.0]])
    wanted = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 2.0]]) / torch.tensor([[2.5], [1.0]])  # (5 + 0) / 2, (0 + 2) / 2
    torch.testing.assert_close(normalised(logits, [2, 1]), wanted)
    none = torch.zeros(1, 3, requires_grad=True)
    out = normalised(none, [2, 1])
    assert not bool(out.any())
    out.sum().backward()
    assert none.grad is not None
    assert bool(none.grad.isfinite().all())


def test_means_are_scaled_by_the_age_of_the_class_among_the_tasks_so_far() -> None:
    labels = torch.tensor([0, 1, 1, 2, 3])  # class 1 has two centroids
    means = torch.arange(1.0, 11.0).view(5, 2)
    sampler = Sampler(labels, means, torch.ones(5, 3, 2), torch.full((5, 2), 0.5))
    found = drifted(sampler, torch.tensor([0, 0, 1, 2]))
    scale = torch.tensor([0.9 + 0.1 / 3] * 3 + [0.9 + 0.2 / 3, 1.0])
    torch.testing.assert_close(found.means, means * scale[:, None])
    assert torch.equal(found.factors, sampler.factors)
    assert torch.equal(found.scales, sampler.scales)
    assert torch.equal(found.labels, labels)


@pytest.mark.parametrize("temperature", [0.1, 0.5, None])
def test_alignment_is_the_loop_of_the_released_code(learned: Learned, temperature: float | None) -> None:
    net = slca(temperature=temperature)
    learned(net, 2)
    ctx = learned(net, 3, first=2)
    phase = ctx.phases[1]
    assert phase.module is net.head
    assert phase.recipe == ALIGN
    assert phase.options["augment"] is False
    assert isinstance(phase.data, Drawn)
    assert phase.data.labels.bincount().tolist() == [16] * 6
    assert ctx.cost.optimizer_steps == 2 * 3 + 2 * 6  # C steps an epoch
    head, rng = net._heads[0], torch.Generator().manual_seed(0)
    x, y = torch.randn(5, D, generator=rng), torch.tensor([0, 5, 3, 1, 2])
    losses = []
    for features, label in zip(x, y, strict=True):
        logits = head.weight @ features + head.bias
        if temperature is not None:
            norms = [logits[2 * t : 2 * t + 2].square().sum().sqrt() + 1e-7 for t in range(3)]
            logits = logits / (sum(norms) / 3) / temperature
        losses.append(-logits.log_softmax(0)[label])
    torch.testing.assert_close(phase.loss(x, y), torch.stack(losses))


def test_features_are_drawn_around_scaled_means_of_the_task_s_own_backbone(learned: Learned) -> None:
    net = slca(align=Recipe(epochs=1, lr=0.01, batch_size=4000), statistics=Statistics("full"))
    learned(net, 1)
    x, y = images()
    with torch.no_grad():
        own = net.eval().vit(x[y == 1]).double()
    ctx = learned(net, 2, first=1)
    torch.testing.assert_close(net.memory.means[1].double(), own.mean(0), rtol=1e-5, atol=1e-6)
    covariance = torch.cov(own.T) + RIDGE * torch.eye(D)
    lower = net.memory.held[1].factor.double()
    torch.testing.assert_close(lower @ lower.T, covariance, rtol=1e-4, atol=1e-5)
    drawn = ctx.phases[1].data
    mean = drawn.features[drawn.labels == 1].double().mean(0)
    error = (covariance.diagonal() / 4000).sqrt()
    assert bool(((mean - 0.95 * own.mean(0)).abs() < 5 * error).all())
    assert not bool(((mean - own.mean(0)).abs() < 5 * error).all())


# --- what is carried


def test_bytes_are_backbone_two_heads_and_gaussians(learned: Learned) -> None:
    net = slca(statistics=Statistics("packed"))
    learned(net, 3)
    rows = account(freeze(net.state(), net.untouched()), net.category).rows()
    assert rows == {
        ("model", "params"): sum(value.nbytes for value in net.vit.state_dict().values()),
        ("model", "head"): 2 * 4 * 6 * (D + 1),
        ("memory", "prototypes"): 4 * 6 * D,
        ("memory", "covariances"): 2 * 6 * D * (D + 1) + 6,  # and a byte a class for its form
        ("memory", "index"): 6,
    }


def test_leaves_that_training_left_alone_are_not_carried(learned: Learned, tmp_path: Path, arranged: Arranged) -> None:
    path = tmp_path / "test_vit.safetensors"
    torch.manual_seed(1)
    save_file(timm.create_model("test_vit", pretrained=False).state_dict(), path)
    vit = Vit("test_vit", str(path), 16)
    net = slca(vit=vit)
    published = {f"model/vit.{name}" for name in net.vit.state_dict()}
    assert set(net.untouched()) == published
    net.vit.net.blocks[0].requires_grad_(False)
    learned(net, 2)
    kept = {name for name in published if name.startswith("model/vit.net.blocks.0.")}
    assert set(net.untouched()) == kept
    assert published - kept == {name for name in net.state() if name.startswith("model/vit.")}
    again = Slca(INPUTS, vit)  # reads the checkpoint, which training did not spoil
    again.load(thaw(freeze(net.state(), net.untouched())), net.seen)
    with torch.no_grad():
        assert torch.equal(net.eval().predict(images()[0]), again.eval().predict(images()[0]))


def test_covariances_that_a_budget_has_no_room_for_are_refused_or_dropped() -> None:
    free = checks.experiment(checks.subject("slca", ("statistics.mode=full",)))
    room = 4 * 6 * D + 4 * 6 * D + 100  # for means and variances
    budget = Budget(max(free.weights(free.plan())) + room)
    with pytest.raises(BudgetExceeded, match=r"statistics of 2 classes weigh"):
        checks.trace(checks.experiment(checks.subject("slca", ("statistics.mode=full",)), budget=budget))
    thin = ("statistics.mode=full", "statistics.fallback=diagonal")
    assert len(checks.trace(checks.experiment(checks.subject("slca", thin), budget=budget)).hashes) == 3


def test_defaults_are_the_original_release_s() -> None:
    net = Slca(INPUTS, TINY)
    assert net.tune == Recipe(epochs=20, lr=0.01, milestones=(18,), decay=0.1, batch_size=64, weight_decay=5e-4)
    assert net.align == Recipe(epochs=5, lr=0.01, schedule="cosine", batch_size=256, weight_decay=5e-4)
    assert (net.backbone_rate, net.temperature) == (0.01, 0.1)


def test_options_out_of_range_are_refused_together() -> None:
    words = r"backbone_rate=0 must be above 0 and finite; temperature=-1 must be above 0 and finite, or null"
    with pytest.raises(ConfigError, match=words):
        slca(backbone_rate=0, temperature=-1)
