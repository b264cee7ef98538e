"""EASE: a subspace a task that stays as it is, old classes synthesised in newer ones, weighted cosines, bytes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy

from clearn import checks
from clearn.errors import ConfigError
from clearn.ledger import account
from clearn.parts.cosine import CosineHead
from clearn.parts.frozen_vit import Vit
from clearn.recipe import Recipe
from clearn.state import content_hash, freeze, thaw
from clearn.stream import Inputs, Stream
from strategies.ease import Ease, subspace_weights, synthesised, weighted_cosines

torch.set_num_threads(1)

Learned = Callable[..., Any]
Arranged = Callable[..., Stream]
INPUTS, TINY = Inputs((3, 8, 8)), Vit("test_vit", weights=False, image_size=16)
BRIEF = Recipe(epochs=2, lr=0.1, schedule="cosine", batch_size=8)
D, L, R = 64, 6, 4


def ease(**options: Any) -> Ease:
    torch.manual_seed(0)
    return Ease(INPUTS, TINY, **({"bottleneck": R, "first": BRIEF, "later": BRIEF} | options)).eval()


def images() -> tuple[Tensor, Tensor]:
    part = checks.toy_stream(1, 6).task(0).train
    return part.fetch(torch.arange(len(part))), part.labels


def stored(net: Ease, t: int) -> list[str]:
    return [content_hash(value[t]) for value in net.bank.buffers()]


# --- synthesis and weights


def test_an_old_class_is_synthesised_by_hand() -> None:
    table = torch.zeros(3, 2, 2)
    table[0, 0] = torch.tensor([3.0, 0.0])  # the old class, in the subspace of its own task alone
    table[1] = torch.tensor([[5.0, 0.0], [2.0, 0.0]])  # new, cosine 1 with it there
    table[2] = torch.tensor([[0.0, 7.0], [0.0, 4.0]])  # new, cosine 0
    e = math.e
    made = synthesised(table, torch.tensor([0, 1, 1]))
    torch.testing.assert_close(made[0, 1], torch.tensor([2 * e / (e + 1), 4 / (e + 1)]))  # 1.4621, 1.0758
    assert torch.equal(made[1:], table[1:])
    assert torch.equal(made[0, 0], table[0, 0])


def test_synthesis_is_the_loop_over_classes_and_subspaces() -> None:
    rng = torch.Generator().manual_seed(0)
    tasks = torch.tensor([0, 0, 0, 1, 2, 2, 3])  # a large first task, and one of one class
    measured = torch.arange(4) <= tasks[:, None]
    table = torch.randn(7, 4, 5, generator=rng) * measured[:, :, None]
    made = synthesised(table, tasks)
    for o in range(7):
        for j in range(4):
            i = int(tasks[o])
            if j <= i:
                assert torch.equal(made[o, j], table[o, j])
                continue
            newer = [n for n in range(7) if tasks[n] >= j]
            likeness = torch.stack([cosine_similarity(table[o, i], table[n, i], dim=0) for n in newer])
            wanted = sum(w * table[n, j] for w, n in zip(likeness.softmax(0), newer, strict=True))
            torch.testing.assert_close(made[o, j], wanted)


def test_weights_and_scores_by_hand() -> None:
    tasks = torch.tensor([0, 1, 1, 2])
    weights = subspace_weights(tasks, 0.1)
    torch.testing.assert_close(
        weights, torch.tensor([[1, 0.05, 0.05], [0.05, 1, 0.05], [0.05, 1, 0.05], [0.05, 0.05, 1]])
    )
    assert torch.equal(subspace_weights(torch.tensor([0, 0]), 0.1), torch.ones(2, 1))  # one subspace is one's own
    features = torch.tensor([[[2.0, 0.0], [0.0, 3.0], [1.0, 1.0]]])
    prototypes = torch.tensor([[[5.0, 0.0], [1.0, 0.0], [1.0, 0.0]]]).expand(4, 3, 2)
    cosines = torch.tensor([1.0, 0.0, math.sqrt(0.5)])
    torch.testing.assert_close(weighted_cosines(features, prototypes, weights)[0], weights @ cosines)


# --- learning


def test_every_task_trains_a_fresh_adapter_on_its_own_labels(learned: Learned) -> None:
    net = ease(first=BRIEF, later=Recipe(epochs=1, batch_size=4))
    assert learned(net, 1).phases[0].recipe is net.first
    ctx = learned(net, 2, first=1, train=False)
    (phase,) = ctx.phases
    assert phase.recipe is net.later
    _, adapter, head = phase.module
    assert isinstance(head, CosineHead)
    assert head.weight.shape == (2, D)
    assert not bool(adapter.up.any())  # fresh: a no-op, not the first task's
    assert {id(p) for p in phase.module.parameters() if p.requires_grad} == {
        id(p) for p in [*adapter.parameters(), *head.parameters()]
    }
    x, y = images()
    x, y = x[(y == 2) | (y == 3)], y[(y == 2) | (y == 3)]
    with torch.no_grad():
        nn.init.normal_(adapter.up)
        head.sigma.fill_(3.0)
        cosines = cosine_similarity(net.vit(x, adapter)[:, None], head.weight[None], dim=2)
        torch.testing.assert_close(phase.loss(x, y), cross_entropy(3 * cosines, y - 2, reduction="none"))


def test_stored_adapters_change_no_bit_by_later_training_or_by_evaluation(learned: Learned) -> None:
    net = ease()
    learned(net, 1)
    first, measured = stored(net, 0), net.measured.clone()
    learned(net, 2, first=1)
    second = stored(net, 1)
    learned(net, 3, first=2)
    before = [content_hash(value) for value in net.state_dict().values()]
    with torch.no_grad():
        net.predict(images()[0])
    assert (stored(net, 0), stored(net, 1)) == (first, second)
    assert first != second
    assert torch.equal(net.measured[:2], measured)
    assert [content_hash(value) for value in net.state_dict().values()] == before


def test_new_classes_have_their_mean_in_every_subspace_so_far(learned: Learned) -> None:
    net = ease()
    learned(net, 3)
    x, y = images()
    net.eval()
    with torch.no_grad():
        prototypes = net.prototypes()
        assert prototypes.shape == (6, 3, D)
        for label in range(6):
            for j in range(label // 2 + 1):
                mean = net.vit(x[y == label], net.bank.one(j)).double().mean(0)
                torch.testing.assert_close(prototypes[label, j].double(), mean, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(prototypes[4, 0], prototypes[4, 2], atol=1e-3)


def test_scores_are_the_weighted_sum_over_subspaces(learned: Learned) -> None:
    net = ease(alpha=0.6)
    learned(net, 3)
    x = images()[0][::9]
    net.eval()
    with torch.no_grad():
        scores, prototypes = net.predict(x), net.prototypes()
        for n in range(len(x)):
            for label in range(6):
                wanted = torch.zeros(())
                for j in range(3):
                    f = net.vit(x[n : n + 1], net.bank.one(j))[0]
                    wanted += (1 if j == label // 2 else 0.3) * cosine_similarity(f, prototypes[label, j], dim=0)
                torch.testing.assert_close(scores[n, label], wanted, rtol=1e-4, atol=1e-5)


def test_with_alpha_0_a_class_is_compared_in_its_own_subspace_alone(learned: Learned) -> None:
    net = ease(alpha=0.0)
    learned(net, 2)
    x, y = images()
    net.eval()
    with torch.no_grad():
        f = net.vit(x, net.bank.one(0))
        wanted = cosine_similarity(f, f[y == 1].mean(0)[None])
        torch.testing.assert_close(net.predict(x)[:, 1], wanted)


def test_tasks_of_one_class_leave_their_subspaces_plain(learned: Learned, arranged: Arranged) -> None:
    net = ease()
    assert not learned(net, 2, arranged(increment=1)).phases
    x = images()[0]
    net.eval()
    with torch.no_grad():
        assert torch.equal(net.features(x)[:, 0], net.vit(x))
        assert torch.equal(net.features(x)[:, 1], net.vit(x))
        assert bool(net.predict(x).isfinite().all())


# --- what is carried


def test_bytes_are_the_published_formulas(learned: Learned) -> None:
    def adapters(n_tasks: int, d: int, depth: int, r: int) -> int:
        return 4 * n_tasks * depth * (2 * d * r + r + d)

    def measured(sizes: list[int], d: int) -> int:
        return 4 * d * sum(t * n for t, n in enumerate(sizes, 1))

    assert adapters(20, 768, 12, 64) == 95_170_560
    assert measured([5] * 20, 768) == 3_225_600
    net = ease()
    learned(net, 3)
    rows = account(freeze(net.state(), net.untouched()), net.category).rows()
    vit = sum(value.nbytes for value in net.vit.state_dict().values())  # fresh weights are carried
    assert rows == {("model", "params"): vit + adapters(3, D, L, R), ("model", "prototypes"): measured([2] * 3, D)}


def test_a_rebuilt_model_derives_the_same_bits(learned: Learned, arranged: Arranged) -> None:
    net, stream = ease(), arranged((3, 1, 5, 2, 4, 0), [3, 1, 2])  # unequal tasks
    learned(net, 3, stream)
    torch.manual_seed(7)
    again = Ease(INPUTS, TINY, bottleneck=R)
    again.load(thaw(freeze(net.state(), net.untouched())), net.seen)
    assert torch.equal(net.prototypes(), again.prototypes())
    x = images()[0]
    with torch.no_grad():
        assert torch.equal(net.eval().predict(x), again.eval().predict(x))


def test_defaults_are_the_toolboxs() -> None:
    net = Ease(INPUTS, TINY)
    assert net.bank.down.shape[1:] == (L, D, 64)
    assert net.alpha == 0.1
    recipe = Recipe(epochs=20, lr=0.025, schedule="cosine", batch_size=48, weight_decay=5e-4)
    assert (net.first, net.later) == (recipe, recipe)


def test_options_out_of_range_are_refused_together() -> None:
    with pytest.raises(ConfigError, match=r"bottleneck=0 must be 1 or more; alpha=-1 must be 0 or more and finite"):
        ease(bottleneck=0, alpha=-1)
