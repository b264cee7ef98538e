"""WA: the share of old classes weighs distillation against cross-entropy; new rows are scaled to the old norm."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from clearn import checks
from clearn.parts.exemplars import Memory
from clearn.recipe import FIRST_TASK, Recipe
from clearn.state import content_hash
from clearn.stream import Inputs
from strategies.wa import WeightAligning

torch.set_num_threads(1)

Learned = Callable[..., Any]
BRIEF = Recipe(epochs=2, lr=0.1, batch_size=8)
INPUTS = Inputs((3, 8, 8))


def wa(**options: Any) -> WeightAligning:
    torch.manual_seed(0)
    return WeightAligning(INPUTS, "convnet2", memory=Memory(total=12), first=BRIEF, later=BRIEF, **options)


def a_batch(n: int = 16, classes: int = 4) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (n, 3, 8, 8), generator=rng, dtype=torch.uint8), torch.arange(n) % classes


def soft(values: list[float], temperature: float) -> list[float]:
    raised = [math.exp(value / temperature) for value in values]
    return [value / sum(raised) for value in raised]


@pytest.mark.parametrize(("task", "share"), [(1, 1 / 2), (2, 2 / 3)])
def test_the_loss_weighs_old_against_all_classes(task: int, share: float, learned: Learned) -> None:
    net = wa()
    learned(net, task)
    phase, (inputs, targets) = learned(net, task + 1, train=False, first=task).phases[0], a_batch(classes=2 * task + 2)
    (teacher,) = phase.options["beside"]
    phase.module.eval()
    teacher.eval()
    with torch.no_grad():
        torch.nn.init.normal_(teacher.head.weight)
        z, old = net.net(inputs).tolist(), teacher(inputs).tolist()
        expected = []
        for i, target in enumerate(targets.tolist()):
            plain = -math.log(soft(z[i], 1.0)[target])
            q, p = soft(old[i], 2.0), soft(z[i][: 2 * task], 2.0)
            taught = -sum(a * math.log(b) for a, b in zip(q, p, strict=True))
            expected.append((1 - share) * plain + share * taught)
        assert phase.loss(inputs, targets).tolist() == pytest.approx(expected, rel=1e-5)


def test_the_first_task_is_plain_and_its_head_untouched(learned: Learned) -> None:
    net = wa()
    ctx = learned(net, 1, train=False)
    phase, (inputs, targets) = ctx.phases[0], a_batch(classes=2)
    phase.module.eval()
    with torch.no_grad():
        assert torch.equal(phase.loss(inputs, targets), cross_entropy(net.net(inputs), targets, reduction="none"))
    assert phase.options["beside"] == []
    assert ctx.cost.logged == {"wa/gamma": 1.0}


def test_only_new_rows_are_scaled_and_biases_stay(learned: Learned, monkeypatch: pytest.MonkeyPatch) -> None:
    net, unscaled = wa(), wa()
    learned(net, 1)
    gamma = learned(net, 2, first=1).cost.logged["wa/gamma"]
    monkeypatch.setitem(WeightAligning.learn.__globals__, "align_rows", lambda head, n_old: 1.0)
    learned(unscaled, 2)  # the same training without the last step
    assert net.net.head is not None
    assert unscaled.net.head is not None
    before, after = unscaled.net.head.weight.detach(), net.net.head.weight.detach()
    assert gamma == pytest.approx(float(before[:2].norm(dim=1).mean() / before[2:].norm(dim=1).mean()), rel=1e-6)
    assert gamma != 1.0
    assert torch.equal(after[:2], before[:2])
    torch.testing.assert_close(after[2:], gamma * before[2:])
    assert torch.equal(net.net.head.bias, unscaled.net.head.bias)


def test_the_teacher_is_the_aligned_network(learned: Learned) -> None:
    net = wa()
    learned(net, 2)
    aligned = {name: content_hash(value) for name, value in net.net.state_dict().items()}
    (teacher,) = learned(net, 3, first=2).phases[0].options["beside"]
    assert {name: content_hash(value) for name, value in teacher.state_dict().items()} == aligned


def test_it_trains_on_new_and_stored_and_is_judged_by_the_classifier(learned: Learned) -> None:
    net = wa()
    phase = learned(net, 2).phases[0]
    assert phase.data.labels.bincount().tolist() == [6, 6, checks.PER_CLASS, checks.PER_CLASS]
    assert WeightAligning.readout == "classifier"
    with torch.no_grad():
        read = net.eval().read(a_batch()[0])
        assert torch.equal(read["classifier"], net.predict(a_batch()[0]))
    assert sorted(read) == ["classifier", "nme"]


def test_defaults_are_the_toolboxs() -> None:
    net = WeightAligning(INPUTS)
    assert (net.temperature, net.first) == (2.0, FIRST_TASK)
    assert (net.later.epochs, net.later.milestones, net.later.weight_decay) == (170, (60, 100, 140), 2e-4)
