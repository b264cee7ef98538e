"""iCaRL: both losses against naive loops, the teacher, and the nearest mean of exemplars by which it is judged."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from clearn import checks
from clearn.parts.exemplars import Memory
from clearn.parts.heads import distillation
from clearn.recipe import FIRST_TASK, Recipe
from clearn.state import content_hash
from clearn.stream import Inputs
from strategies.icarl import ICarl, bce_loss

torch.set_num_threads(1)

Learned = Callable[..., Any]
BRIEF = Recipe(epochs=2, lr=0.1, batch_size=8)
INPUTS = Inputs((3, 8, 8))


def icarl(**options: Any) -> ICarl:
    torch.manual_seed(0)
    return ICarl(
        INPUTS, "convnet2", memory=options.pop("memory", Memory(total=12)), first=BRIEF, later=BRIEF, **options
    )


def a_batch(n: int = 16, classes: int = 4) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (n, 3, 8, 8), generator=rng, dtype=torch.uint8), torch.arange(n) % classes


def softmax(values: list[float], temperature: float = 1.0) -> list[float]:
    raised = [math.exp(value / temperature) for value in values]
    return [value / sum(raised) for value in raised]


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


# --- losses


def test_distillation_by_hand_and_without_the_square_of_the_temperature() -> None:
    student, teacher = [1.0, -2.0, 0.5], [0.0, 3.0, -1.0]
    for t in (1.0, 2.0, 5.0):
        q, p = softmax(teacher, t), softmax(student, t)
        expected = -sum(a * math.log(b) for a, b in zip(q, p, strict=True))
        found = distillation(torch.tensor([student]), torch.tensor([teacher]), t)
        assert found.tolist() == pytest.approx([expected], rel=1e-6)


def test_distillation_of_itself_has_no_gradient_and_the_teachers_entropy() -> None:
    logits = torch.tensor([[1.0, 2.0, -1.0]], requires_grad=True)
    loss = distillation(logits, logits.detach(), 2.0)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert float(gradient.abs().max()) < 1e-7
    q = softmax([1.0, 2.0, -1.0], 2.0)
    assert float(loss.detach()) == pytest.approx(-sum(a * math.log(a) for a in q))


def test_the_softmax_form_sample_by_sample(learned: Learned) -> None:
    net = icarl(temperature=3.0)
    learned(net, 1)
    phase, (inputs, targets) = learned(net, 2, train=False, first=1).phases[0], a_batch()
    (teacher,) = phase.options["beside"]
    phase.module.eval()
    teacher.eval()
    with torch.no_grad():
        torch.nn.init.normal_(teacher.head.weight)  # tell it from the student
        z, old = net.net(inputs).tolist(), teacher(inputs).tolist()
        assert (len(z[0]), len(old[0])) == (4, 2)
        expected = []
        for i, target in enumerate(targets.tolist()):
            q, p = softmax(old[i], 3.0), softmax(z[i][:2], 3.0)  # over the old classes alone
            expected.append(-math.log(softmax(z[i])[target]) - sum(a * math.log(b) for a, b in zip(q, p, strict=True)))
        assert phase.loss(inputs, targets).tolist() == pytest.approx(expected, rel=1e-5)


def test_the_sigmoid_form_sample_by_sample(learned: Learned) -> None:
    net = icarl(loss="bce")
    learned(net, 1)
    phase, (inputs, targets) = learned(net, 2, train=False, first=1).phases[0], a_batch()
    (teacher,) = phase.options["beside"]
    phase.module.eval()
    teacher.eval()
    with torch.no_grad():
        torch.nn.init.normal_(teacher.head.weight)
        z, old = net.net(inputs).tolist(), teacher(inputs).tolist()
        expected = []
        for i, target in enumerate(targets.tolist()):
            wanted = [sigmoid(value) for value in old[i]] + [float(target == c) for c in (2, 3)]
            expected.append(
                -sum(
                    w * math.log(sigmoid(v)) + (1 - w) * math.log(1 - sigmoid(v))
                    for w, v in zip(wanted, z[i], strict=True)
                )
            )
        assert phase.loss(inputs, targets).tolist() == pytest.approx(expected, rel=1e-5)


def test_the_sigmoid_form_by_hand() -> None:
    """Logit 0 costs log 2 whatever is wanted; a certain right answer costs nothing."""
    zero = bce_loss(torch.zeros(2, 3), torch.tensor([0, 2]), torch.zeros(2, 0))
    assert zero.tolist() == pytest.approx([3 * math.log(2)] * 2)
    sure = bce_loss(torch.tensor([[50.0, -50.0, -50.0]]), torch.tensor([0]), torch.zeros(1, 0))
    assert float(sure) == pytest.approx(0, abs=1e-6)
    taught = bce_loss(torch.tensor([[50.0, -50.0, 50.0]]), torch.tensor([2]), torch.tensor([[50.0, -50.0]]))
    assert float(taught) == pytest.approx(0, abs=1e-6), "old targets are the teacher's, whatever the label"


@pytest.mark.parametrize("loss", ["softmax", "bce"])
def test_the_first_task_has_no_teacher(loss: str, learned: Learned) -> None:
    net = icarl(loss=loss)
    phase = learned(net, 1, train=False).phases[0]
    inputs, targets = a_batch(classes=2)
    phase.module.eval()
    assert phase.options["beside"] == []
    with torch.no_grad():
        z = net.net(inputs).tolist()
        for i, value in enumerate(phase.loss(inputs, targets).tolist()):
            if loss == "softmax":
                assert value == pytest.approx(-math.log(softmax(z[i])[targets[i]]), rel=1e-5)
            else:
                right = [sigmoid(v) if c == targets[i] else 1 - sigmoid(v) for c, v in enumerate(z[i])]
                assert value == pytest.approx(-sum(map(math.log, right)), rel=1e-5)


# --- the teacher


def test_the_teacher_is_the_network_as_it_was_and_learns_nothing(learned: Learned) -> None:
    net = icarl()
    learned(net, 1)
    was = {name: content_hash(value) for name, value in net.net.state_dict().items()}
    (teacher,) = learned(net, 2, first=1).phases[0].options["beside"]
    assert {name: content_hash(value) for name, value in teacher.state_dict().items()} == was
    assert all(p.grad is None for p in teacher.parameters())
    assert {name.split(".")[0] for name in net.state()} == {"model/net", "memory/images", "memory/labels"}


# --- nearest mean of exemplars


def naive_nearest(net: ICarl, inputs: Tensor) -> list[list[float]]:
    def unit(rows: Tensor) -> Tensor:
        return rows / (rows.norm(dim=1, keepdim=True) + 1e-8)

    stored = net.memory.samples()
    held, queries = unit(net.net.features(stored.inputs)), unit(net.net.features(inputs))
    answers = []
    for query in queries:
        row = []
        for label in net.classes:
            mean = unit(held[stored.labels == label].mean(0, keepdim=True))[0]
            row.append(-float((query - mean).square().sum()))
        answers.append(row)
    return answers


def test_predictions_are_the_nearest_class_mean_of_the_exemplars(learned: Learned) -> None:
    net = icarl()
    learned(net, 2)
    inputs, _ = a_batch()
    net.eval()
    with torch.no_grad():
        found = net.predict(inputs)
        torch.testing.assert_close(found, torch.tensor(naive_nearest(net, inputs)), rtol=1e-4, atol=1e-5)
        read = net.read(inputs)
    assert torch.equal(read["nme"], found)
    assert ICarl.readout == "nme"
    assert read["classifier"].argmax(1).tolist() != found.argmax(1).tolist(), "two different read-outs"


def test_means_follow_the_exemplars_and_are_never_carried(learned: Learned) -> None:
    """They are computed when first asked for; training, keeping and loading each make them anew."""
    net, (inputs, _) = icarl(), a_batch()
    for task in range(3):
        learned(net, task + 1, first=task)
        net.eval()
        with torch.no_grad():
            expected = torch.tensor(naive_nearest(net, inputs))
            for _ in range(2):
                torch.testing.assert_close(net.predict(inputs), expected, rtol=1e-4, atol=1e-5)
    fresh = icarl()
    fresh.load(net.state(), checks.toy_stream().infos)
    with torch.no_grad():
        assert torch.equal(fresh.eval().predict(inputs), net.predict(inputs))


def test_lossy_exemplars_are_what_is_trained_on_and_averaged(learned: Learned) -> None:
    net = icarl(memory=Memory(total=12, codec="kbit:2"))
    learned(net, 1)
    stored = net.memory.samples()
    phase = learned(net, 2, train=False, first=1).phases[0]
    rows = (phase.data.labels < 2).nonzero().flatten()
    assert torch.equal(phase.data.fetch(rows), stored.inputs)
    assert all(len(image.unique()) <= 4 for image in stored.inputs), "2 bits a value"


def test_losses_are_the_classifiers(learned: Learned) -> None:
    net = icarl()
    learned(net, 1)
    inputs, targets = a_batch(classes=2)
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(net.eval().net(inputs), targets, reduction="none")
        assert torch.equal(net.losses(inputs, targets), expected)


def test_defaults_are_the_toolboxs() -> None:
    net = ICarl(INPUTS)
    assert (net.loss, net.temperature, net.first) == ("softmax", 2.0, FIRST_TASK)
    assert (net.later.epochs, net.later.milestones, net.later.weight_decay) == (170, (80, 120), 2e-4)
