"""FOSTER: class weights and both losses by hand, who is frozen, where the student starts, and one net carried."""

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
from clearn.parts.exemplars import Memory
from clearn.parts.heads import distillation
from clearn.recipe import Recipe
from clearn.state import content_hash
from clearn.stream import Inputs
from strategies.foster import Foster, Pair, balanced_distillation, class_weights

torch.set_num_threads(1)

Learned = Callable[..., Any]
BRIEF = Recipe(epochs=2, lr=0.1, batch_size=8)
INPUTS = Inputs((3, 8, 8))


def foster(**options: Any) -> Foster:
    torch.manual_seed(0)
    memory = options.pop("memory", Memory(total=12))
    return Foster(INPUTS, "convnet2", memory=memory, first=BRIEF, later=BRIEF, compression=BRIEF, **options)


def a_batch(n: int = 16, classes: int = 4) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (n, 3, 8, 8), generator=rng, dtype=torch.uint8), torch.arange(n) % classes


def hashes(module: torch.nn.Module) -> dict[str, str]:
    return {name: content_hash(value) for name, value in module.state_dict().items()}


def soft(values: list[float], temperature: float) -> list[float]:
    raised = [math.exp(value / temperature) for value in values]
    return [value / sum(raised) for value in raised]


# --- small functions


def test_class_weights_by_hand_and_in_their_limits() -> None:
    """beta 1/2: n = 1 gives 1/2 / 1/2 = 1, n = 2 gives 1/2 / 3/4 = 2/3; scaled to a sum of 2."""
    assert class_weights(torch.tensor([1, 2]), 0.5).tolist() == pytest.approx([1.2, 0.8])
    assert class_weights(torch.tensor([3, 500]), 0.0).tolist() == [1.0, 1.0]
    inverse = class_weights(torch.tensor([10, 40]), 1 - 1e-9)
    assert inverse.tolist() == pytest.approx([1.6, 0.4], rel=1e-4)
    assert torch.equal(class_weights(torch.tensor([0, 5]), 0.9), class_weights(torch.tensor([1, 5]), 0.9))
    # K = 2000 beside 500 new images a class, as in the published runs: 200 of each old one
    weights = class_weights(torch.tensor([200] * 10 + [500] * 10), 0.96)
    assert float(weights.sum()) == pytest.approx(20)
    assert float(weights[0]) == pytest.approx(1.0001428, abs=1e-6)


def test_balanced_distillation_by_hand() -> None:
    student, teacher, weights = [1.0, -2.0], [0.0, 3.0], [1.5, 0.5]
    q, p = soft(teacher, 2.0), soft(student, 2.0)
    tilted = [a * w for a, w in zip(q, weights, strict=True)]
    expected = -sum(a / sum(tilted) * math.log(b) for a, b in zip(tilted, p, strict=True))
    found = balanced_distillation(torch.tensor([student]), torch.tensor([teacher]), torch.tensor(weights), 2.0)
    assert found.tolist() == pytest.approx([expected], rel=1e-6)


def test_balanced_distillation_with_equal_weights_is_distillation() -> None:
    z, q = torch.randn(5, 3), torch.randn(5, 3)
    torch.testing.assert_close(balanced_distillation(z, q, torch.ones(3), 2.0), distillation(z, q, 2.0))


# --- boosting


def test_the_loss_of_boosting_sample_by_sample(learned: Learned) -> None:
    net = foster(distill_weight=0.7, beta_boost=0.9)
    learned(net, 1)
    boosting, (inputs, targets) = learned(net, 2, train=False, first=1).phases[0], a_batch()
    pair = boosting.module
    assert isinstance(pair, Pair)
    assert boosting.data.labels.bincount().tolist() == [6, 6, checks.PER_CLASS, checks.PER_CLASS]
    raw = [(1 - 0.9) / (1 - 0.9**n) for n in (6, 6, 12, 12)]
    w = [4 * value / sum(raw) for value in raw]
    pair.eval()
    with torch.no_grad():
        joint, fresh, old = (part.tolist() for part in pair.views(inputs))
        assert (len(joint[0]), len(fresh[0]), len(old[0])) == (4, 4, 2)
        expected = []
        for i, target in enumerate(targets.tolist()):
            classified = -math.log(soft([z / weight for z, weight in zip(joint[i], w, strict=True)], 1.0)[target])
            sharpened = -math.log(soft(fresh[i], 1.0)[target])
            kept = -sum(q * math.log(p) for q, p in zip(soft(old[i], 2.0), soft(joint[i][:2], 2.0), strict=True))
            expected.append(classified + sharpened + 0.7 * kept)
        assert boosting.loss(inputs, targets).tolist() == pytest.approx(expected, rel=1e-5)


def test_the_pair_starts_from_the_old_network_twice(learned: Learned) -> None:
    net = foster()
    learned(net, 1)
    was, head = hashes(net.net.backbone), net.net.head
    assert head is not None
    rows, bias = head.weight.detach().clone(), head.bias.detach().clone()
    pair = learned(net, 2, train=False, first=1).phases[0].module
    assert hashes(pair.old.backbone) == hashes(pair.new) == was
    assert pair.head.weight.shape == (4, 2 * net.net.width)
    assert torch.equal(pair.head.weight[:2, : net.net.width], rows)
    assert torch.equal(pair.head.bias[:2], bias)
    assert not pair.head.bias[2:].any()


def test_the_old_network_is_frozen_with_its_statistics(learned: Learned) -> None:
    net = foster()
    learned(net, 1)
    was = hashes(net.net)
    pair = learned(net, 2, first=1).phases[0].module
    assert hashes(pair.old) == was
    assert all(p.grad is None for p in pair.old.parameters())
    assert hashes(pair.new) != hashes(pair.old.backbone)
    pair.train()
    assert (pair.new.training, pair.old.training, pair.old.backbone.training) == (True, False, False)


# --- compression


def test_the_student_starts_as_the_old_network_with_its_rows(learned: Learned) -> None:
    net = foster()
    learned(net, 1)
    assert net.net.head is not None
    was, rows = hashes(net.net.backbone), net.net.head.weight.detach().clone()
    learned(net, 2, train=False, first=1)
    assert hashes(net.net.backbone) == was
    assert torch.equal(net.net.head.weight[:2], rows)


def test_the_loss_of_compression_asks_the_pair(learned: Learned) -> None:
    net = foster(beta_compress=0.9)
    ctx, (inputs, targets) = learned(net, 2), a_batch()
    boosting, compression = ctx.phases
    (pair,) = compression.options["beside"]
    assert pair is boosting.module
    assert compression.module is net
    assert compression.recipe.weight_decay == 0
    weights = class_weights(torch.tensor([6, 6, 12, 12]), 0.9)
    net.eval()
    pair.eval()
    with torch.no_grad():
        expected = balanced_distillation(net.net(inputs), pair(inputs), weights, 2.0)
        assert torch.equal(compression.loss(inputs, targets), expected)
        assert torch.equal(compression.loss(inputs, targets.flip(0)), expected), "labels are not asked"


def test_compression_leaves_the_pair_as_it_is(learned: Learned, monkeypatch: pytest.MonkeyPatch) -> None:
    boosted: list[dict[str, str]] = []

    def watched(self: Pair, inputs: Tensor) -> Tensor:
        boosted.append(hashes(self))
        return self.views(inputs)[0]

    monkeypatch.setattr(Pair, "forward", watched)
    pair = learned(foster(), 2).phases[0].module
    assert len(boosted) > 2
    assert all(found == hashes(pair) for found in boosted)


# --- what is carried, options


def test_the_first_task_is_plain(learned: Learned) -> None:
    net = foster()
    (phase,) = learned(net, 1, train=False).phases
    inputs, targets = a_batch(classes=2)
    phase.module.eval()
    with torch.no_grad():
        assert torch.equal(phase.loss(inputs, targets), cross_entropy(net.net(inputs), targets, reduction="none"))


def test_one_network_is_carried(learned: Learned) -> None:
    net = foster()
    backbone = sum(t.nbytes for t in net.net.backbone.state_dict().values())
    learned(net, 3)
    found = sum(value.nbytes for value in net.state().values())
    assert found == backbone + 4 * 6 * (64 + 1) + 12 * (3 * 8 * 8 + 1)


def test_training_holds_two_networks_more(learned: Learned) -> None:
    """Beside the student: the pair with its heads, and the student's gradients and momenta."""
    net = foster()
    ctx = learned(net, 2)
    pair, mine = ctx.phases[0].module, sum(p.nbytes for p in net.parameters())
    beside = sum(t.nbytes for t in [*pair.parameters(), *pair.buffers()])
    assert ctx.cost.transient == beside + 2 * mine


def test_defaults_are_the_released_ones() -> None:
    net = Foster(INPUTS)
    assert (net.beta_boost, net.beta_compress, net.distill_weight, net.temperature) == (0.96, 0.97, 1.0, 2.0)
    recipes = [(r.epochs, r.schedule, r.weight_decay) for r in (net.first, net.later, net.compression)]
    assert recipes == [(200, "cosine", 5e-4), (170, "cosine", 5e-4), (130, "cosine", 0.0)]


def test_wrong_options_are_named_together() -> None:
    with pytest.raises(ConfigError, match=r"beta_boost=1.0 must be in \[0, 1\); temperature=-1 must be above 0"):
        Foster(INPUTS, "convnet2", beta_boost=1.0, temperature=-1)
