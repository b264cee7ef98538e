"""LwF: its two losses sample by sample, the teacher, and what it shares with iCaRL and finetuning."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from clearn import checks
from clearn.errors import ConfigError
from clearn.folder import LEDGER, RunFolder
from clearn.parts.exemplars import Memory
from clearn.parts.heads import open_to
from clearn.recipe import FIRST_TASK, Recipe
from clearn.state import content_hash
from clearn.stream import Inputs
from strategies.finetune import Finetune
from strategies.icarl import ICarl
from strategies.lwf import LwF

torch.set_num_threads(1)

Learned = Callable[..., Any]
BRIEF, LATER = Recipe(epochs=2, batch_size=8), Recipe(epochs=1, batch_size=8)
INPUTS = Inputs((3, 8, 8))


def lwf(**options: Any) -> LwF:
    torch.manual_seed(0)
    return LwF(INPUTS, "convnet2", first=BRIEF, later=options.pop("later", LATER), **options)


def a_batch(n: int = 12) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (n, 3, 8, 8), generator=rng, dtype=torch.uint8), 2 + torch.arange(n) % 2


def softmax(values: list[float], temperature: float = 1.0) -> list[float]:
    raised = [math.exp(value / temperature) for value in values]
    return [value / sum(raised) for value in raised]


@pytest.mark.parametrize(("over", "apart"), [("task", (2, 3)), ("seen", (0, 1, 2, 3))])
def test_the_loss_sample_by_sample(over: str, apart: tuple[int, ...], learned: Learned) -> None:
    net = lwf(softmax_over=over, weight=3.0, temperature=5.0)
    learned(net, 1)
    phase, (inputs, targets) = learned(net, 2, train=False, first=1).phases[0], a_batch()
    (teacher,) = phase.options["beside"]
    phase.module.eval()
    teacher.eval()
    with torch.no_grad():
        torch.nn.init.normal_(teacher.head.weight)  # tell it from the student
        z, old = net.net(inputs).tolist(), teacher(inputs).tolist()
        expected = []
        for i, target in enumerate(targets.tolist()):
            own = softmax([z[i][c] for c in apart])[apart.index(target)]
            q, p = softmax(old[i], 5.0), softmax(z[i][:2], 5.0)
            expected.append(-math.log(own) - 3 * sum(a * math.log(b) for a, b in zip(q, p, strict=True)))
        assert phase.loss(inputs, targets).tolist() == pytest.approx(expected, rel=1e-5)


def test_closed_classes_get_no_gradient() -> None:
    logits = torch.tensor([[1.0, 5.0, 2.0]], requires_grad=True)
    loss = torch.nn.functional.cross_entropy(open_to([0, 2], logits), torch.tensor([0]))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(math.log(1 + math.e))
    assert gradient[0, 1] == 0
    assert bool((gradient[0, [0, 2]] != 0).all())


def test_the_teacher_is_the_network_as_it_was_and_there_is_none_at_first(learned: Learned) -> None:
    net = lwf()
    ctx = learned(net, 1)
    assert ctx.phases[0].options["beside"] == []
    assert ctx.phases[0].recipe is BRIEF
    was = {name: content_hash(value) for name, value in net.net.state_dict().items()}
    ctx = learned(net, 2, first=1)
    (teacher,) = ctx.phases[0].options["beside"]
    assert {name: content_hash(value) for name, value in teacher.state_dict().items()} == was
    assert ctx.phases[0].recipe is LATER
    assert ctx.phases[0].data.labels.unique().tolist() == [2, 3]
    assert ctx.cost.transient > sum(value.nbytes for value in teacher.parameters()), "the teacher is weighed"


def test_over_all_classes_it_is_icarl_without_exemplars_bit_for_bit(learned: Learned) -> None:
    net = lwf(softmax_over="seen")
    other = ICarl(INPUTS, "convnet2", memory=Memory(total=0), first=BRIEF, later=LATER)
    other.net.load_state_dict(net.net.state_dict())
    for learner in (net, other):
        learned(learner, 3)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in net.state_dict().items())


def test_without_weight_it_is_finetuning_bit_for_bit(learned: Learned) -> None:
    net, other = lwf(softmax_over="seen", weight=0.0), Finetune(INPUTS, "convnet2", first=BRIEF, later=LATER)
    other.net.load_state_dict(net.net.state_dict())
    for learner in (net, other):
        learned(learner, 2)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in net.state_dict().items())


def test_a_heavy_weight_keeps_the_old_answers(learned: Learned) -> None:
    """The softened answers to the task's own samples move the less, the heavier the distillation."""
    drift = {}
    for weight in (0.0, 1000.0):
        net = lwf(weight=weight, later=Recipe(epochs=4, lr=1e-4, batch_size=8))
        learned(net, 1)
        inputs = checks.toy_stream().task(1).train.fetch(torch.arange(24))
        with torch.no_grad():
            before = (net.eval().net(inputs) / 2).softmax(1)
        learned(net, 2, first=1)
        with torch.no_grad():
            after = (net.eval().net(inputs)[:, :2] / 2).softmax(1)
        drift[weight] = float((after - before).abs().mean())
    assert drift[1000.0] < drift[0.0]


def test_bytes_are_those_of_finetuning() -> None:
    def carried(name: str) -> list[int]:
        rows = RunFolder(checks.trace(checks.experiment(checks.subject(name))).path).rows(LEDGER)
        return [row["delta"] for row in rows if row["kind"] == "figures"]

    assert carried("lwf") == carried("finetune")


def test_options_out_of_range_are_named_together() -> None:
    with pytest.raises(ConfigError, match=r"(?s)weight=-1 must be 0 or more.*temperature=0 must be above 0"):
        LwF(INPUTS, "convnet2", weight=-1, temperature=0)


def test_defaults() -> None:
    net = LwF(INPUTS)
    assert (net.softmax_over, net.weight, net.temperature, net.first) == ("task", 1.0, 2.0, FIRST_TASK)
    assert (net.later.epochs, net.later.milestones, net.later.weight_decay) == (170, (80, 120), 2e-4)
