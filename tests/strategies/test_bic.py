"""BiC: what is held out, the loss of stage 1 by hand, and two numbers a task that alone are fitted in stage 2."""

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
from clearn.parts.heads import Head
from clearn.parts.samples import TensorSamples
from clearn.recipe import Recipe
from clearn.state import content_hash
from clearn.stream import Inputs
from strategies.bic import BiC, CorrectedHead, Correction, held_out

torch.set_num_threads(1)

Learned = Callable[..., Any]
BRIEF = Recipe(epochs=2, lr=0.1, batch_size=8)
INPUTS = Inputs((3, 8, 8))


def bic(**options: Any) -> BiC:
    torch.manual_seed(0)
    memory = options.pop("memory", Memory(total=12))
    return BiC(INPUTS, "convnet2", memory=memory, first=BRIEF, later=BRIEF, correction=BRIEF, **options)


def a_batch(n: int = 16, classes: int = 4) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (n, 3, 8, 8), generator=rng, dtype=torch.uint8), torch.arange(n) % classes


def line(head: CorrectedHead, index: int) -> Correction:
    found = head.corrections[index]
    assert isinstance(found, Correction)
    return found


def hashes(module: torch.nn.Module) -> dict[str, str]:
    return {name: content_hash(value) for name, value in module.state_dict().items()}


def soft(values: list[float], temperature: float) -> list[float]:
    raised = [math.exp(value / temperature) for value in values]
    return [value / sum(raised) for value in raised]


# --- the head


def test_each_tasks_logits_get_their_own_line() -> None:
    head = CorrectedHead(2)
    head.grow(1)
    head.grow(3)
    assert isinstance(head.linear, Head)
    with torch.no_grad():
        head.linear.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
        line(head, 0).alpha.fill_(2.0)
        line(head, 1).alpha.fill_(0.5)
        line(head, 1).beta.fill_(-1.0)
        assert head(torch.tensor([[3.0, 4.0]])).tolist() == [[6.0, 4 / 2 - 1, 7 / 2 - 1]]


def test_growing_keeps_rows_and_lines_and_starts_new_ones_at_identity() -> None:
    head = CorrectedHead(3)
    head.grow(2)
    assert head.linear is not None
    rows = head.linear.weight.detach().clone()
    with torch.no_grad():
        line(head, 0).alpha.fill_(0.7)
    head.grow(2)
    assert len(head.corrections) == 1, "no new class, no new line"
    head.grow(5)
    assert torch.equal(head.linear.weight[:2], rows)
    lines = [(line(head, i).alpha.item(), line(head, i).beta.item()) for i in range(2)]
    assert lines == [(pytest.approx(0.7), 0.0), (1.0, 0.0)]
    assert sum(p.nbytes for p in head.corrections.parameters()) == 2 * 8


# --- what is held out


def test_as_many_of_each_class_are_held_out_and_nothing_is_lost() -> None:
    labels = torch.tensor([0] * 7 + [1] * 5 + [2])
    samples = TensorSamples(torch.arange(13).byte().reshape(13, 1), labels)
    few, rest = held_out(samples, 3, torch.Generator().manual_seed(0))
    assert few.labels.bincount(minlength=3).tolist() == [3, 3, 0], "the only sample of a class is trained on"
    everything = torch.cat([few.fetch(torch.arange(len(few))), rest.fetch(torch.arange(len(rest)))])
    assert sorted(everything.flatten().tolist()) == list(range(13))
    assert held_out(samples, 99, torch.Generator())[1].labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize(("share", "count"), [(0.1, 1), (0.5, 3), (0.34, 2)])
def test_the_share_is_of_a_classs_exemplars(share: float, count: int, learned: Learned) -> None:
    """12 exemplars of 2 classes: floor(share * 6), at least one, of old and new classes alike."""
    net = bic(held_out=share)
    stage1, stage2 = learned(net, 2).phases
    assert stage2.data.labels.bincount().tolist() == [count] * 4
    assert stage1.data.labels.bincount().tolist() == [6 - count] * 2 + [checks.PER_CLASS - count] * 2


# --- stage 1


@pytest.mark.parametrize(("task", "share"), [(1, 1 / 2), (2, 2 / 3)])
def test_the_loss_weighs_old_against_all_classes(task: int, share: float, learned: Learned) -> None:
    net = bic()
    learned(net, task)
    phase, (inputs, targets) = learned(net, task + 1, train=False, first=task).phases[0], a_batch(classes=2 * task + 2)
    (teacher,) = phase.options["beside"]
    phase.module.eval()
    teacher.eval()
    with torch.no_grad():
        teacher.head.linear.weight.mul_(-1)
        z, old = net.net(inputs).tolist(), teacher(inputs).tolist()
        expected = []
        for i, target in enumerate(targets.tolist()):
            plain = -math.log(soft(z[i], 1.0)[target])
            q, p = soft(old[i], 2.0), soft(z[i][: 2 * task], 2.0)
            expected.append((1 - share) * plain - share * sum(a * math.log(b) for a, b in zip(q, p, strict=True)))
        assert phase.loss(inputs, targets).tolist() == pytest.approx(expected, rel=1e-5)


def test_teacher_and_student_keep_the_corrections_of_earlier_tasks(learned: Learned) -> None:
    net = bic()
    learned(net, 2)
    was, kept = hashes(net.net), [p.detach().clone() for p in net.net.head.corrections[1].parameters()]
    assert kept[0].item() != 1.0, "stage 2 has moved it"
    stage1, stage2 = learned(net, 3, first=2).phases
    assert hashes(stage1.options["beside"][0]) == was
    assert all(torch.equal(a, b) for a, b in zip(kept, net.net.head.corrections[1].parameters(), strict=True))
    assert stage2.module is net.net.head.corrections[2]


def test_the_first_task_is_plain_and_has_no_second_stage(learned: Learned) -> None:
    net = bic()
    (phase,) = learned(net, 1, train=False).phases
    inputs, targets = a_batch(classes=2)
    phase.module.eval()
    with torch.no_grad():
        assert torch.equal(phase.loss(inputs, targets), cross_entropy(net.net(inputs), targets, reduction="none"))
    assert phase.options["beside"] == []
    assert len(phase.data) == 2 * checks.PER_CLASS


def test_an_empty_memory_holds_nothing_out(learned: Learned) -> None:
    (phase,) = learned(bic(memory=Memory(total=0)), 2).phases
    assert len(phase.data) == 2 * checks.PER_CLASS


# --- stage 2


def test_stage_2_moves_two_numbers_and_no_statistic(learned: Learned, monkeypatch: pytest.MonkeyPatch) -> None:
    net, uncorrected = bic(), bic()
    ctx = learned(net, 2)
    monkeypatch.setattr(BiC, "correct", lambda self, few, ctx: None)
    learned(uncorrected, 2)
    changed = {k for k, v in hashes(net.net).items() if v != hashes(uncorrected.net)[k]}
    assert changed == {"head.corrections.1.alpha", "head.corrections.1.beta"}
    assert ctx.cost.logged == {
        "bic/alpha": line(net.net.head, 1).alpha.item(),
        "bic/beta": line(net.net.head, 1).beta.item(),
    }
    assert all(p.requires_grad for p in net.parameters())


def test_stage_2_ends_where_new_classes_get_their_share(
    learned: Learned, spy: Callable[..., Any], arranged: Callable[..., Any]
) -> None:
    """The loss is flat in beta exactly where half of the mass, on as many old as new samples, is on the new."""
    net, stream = bic(), arranged()  # without augmentation
    learned(net, 2, stream=stream)
    assert net.net.head.linear is not None
    with torch.no_grad():
        net.net.head.linear.bias[2:] += 3.0
    few = net.memory.samples()  # 3 of each class

    def mass() -> float:
        with torch.no_grad():
            return float(net.eval().predict(few.inputs).softmax(1)[:, 2:].sum(1).mean())

    assert mass() > 0.8
    net.correction = Recipe(epochs=300, lr=0.1, batch_size=12)
    net.correct(few, spy(stream, 1))
    assert mass() == pytest.approx(0.5, abs=0.05)  # alpha still creeps


@pytest.mark.parametrize("double", [False, True])
def test_the_loss_of_stage_2_by_hand(double: bool, learned: Learned) -> None:
    net = bic(double_softmax=double)
    stage2, (inputs, targets) = learned(net, 2, train=False).phases, a_batch()
    net.net.eval()
    with torch.no_grad():
        z = net.net(inputs).tolist()
        expected = [
            -math.log(soft(soft(row, 1.0) if double else row, 1.0)[target])
            for row, target in zip(z, targets.tolist(), strict=True)
        ]
        assert stage2[1].loss(inputs, targets).tolist() == pytest.approx(expected, rel=1e-5)


def test_the_released_mistake_moves_statistics(learned: Learned, monkeypatch: pytest.MonkeyPatch) -> None:
    net, uncorrected = bic(double_softmax=True), bic()
    learned(net, 2)
    monkeypatch.setattr(BiC, "correct", lambda self, few, ctx: None)
    learned(uncorrected, 2)
    changed = {k for k, v in hashes(net.net).items() if v != hashes(uncorrected.net)[k]}
    assert any("running_mean" in name for name in changed)
    assert not any("weight" in name for name in changed)


# --- what is carried, options


def test_eight_bytes_a_task_beside_one_network(learned: Learned) -> None:
    net = bic()
    backbone = sum(t.nbytes for t in net.net.backbone.state_dict().values())
    learned(net, 3)
    sizes = {name: value.nbytes for name, value in net.state().items()}
    assert sum(sizes.values()) == backbone + 4 * 6 * (64 + 1) + 3 * 8 + 12 * (3 * 8 * 8 + 1)
    assert {net.category(name) for name in sizes if "corrections" in name} == {"head"}


def test_both_readouts_are_of_corrected_logits_and_raw_features(learned: Learned) -> None:
    net = bic()
    learned(net, 2)
    inputs, _ = a_batch()
    with torch.no_grad():
        read = net.eval().read(inputs)
        assert torch.equal(read["classifier"], net.predict(inputs))
    assert (net.readout, sorted(read)) == ("classifier", ["classifier", "nme"])


def test_defaults_are_the_surveys() -> None:
    net = BiC(INPUTS)
    assert (net.temperature, net.held_out, net.double_softmax) == (2.0, 0.1, False)
    assert net.first == net.later == net.correction
    assert (net.later.epochs, net.later.milestones, net.later.weight_decay) == (170, (60, 100, 140), 2e-4)


def test_wrong_options_are_named_together() -> None:
    with pytest.raises(ConfigError, match=r"temperature=0 must be above 0; held_out=1.0 must be in \(0, 1\)"):
        BiC(INPUTS, "convnet2", temperature=0, held_out=1.0)
