"""EWC: the penalty by hand, the Fisher against a naive loop, how tasks are mixed or kept apart, bytes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from clearn import checks
from clearn.errors import ConfigError
from clearn.folder import LEDGER, RunFolder
from clearn.recipe import FIRST_TASK, Recipe
from clearn.stream import Inputs, TaskInfo
from strategies.ewc import Ewc, Kept, parameters, penalty
from strategies.finetune import Finetune

torch.set_num_threads(1)

Learned = Callable[..., Any]
FIRST, LATER = Recipe(epochs=2, batch_size=8), Recipe(epochs=1, batch_size=10)
INPUTS = Inputs((3, 8, 8))


def ewc(**options: Any) -> Ewc:
    torch.manual_seed(0)
    return Ewc(INPUTS, "convnet2", first=options.pop("first", FIRST), later=options.pop("later", LATER), **options)


def values(net: Ewc, index: int = 0) -> dict[str, torch.Tensor]:
    kept = net.fisher[index]
    assert isinstance(kept, Kept)
    return {name: value.clone() for name, value in kept.items()}


def naive(net: Ewc, task: int, size: int) -> dict[str, torch.Tensor]:
    """Mean over groups of `size` samples of the squared gradient of their mean loss, one backward pass each."""
    data = checks.toy_stream().task(task).train
    net.eval()
    total = {name: torch.zeros_like(p) for name, p in net.net.named_parameters()}
    groups = torch.arange(len(data)).split(size)
    for rows in groups:
        loss = cross_entropy(net.net(data.fetch(rows)), data.labels[rows])
        found = torch.autograd.grad(loss, list(net.net.parameters()))
        for value, gradient in zip(total.values(), found, strict=True):
            value += gradient.square() / len(groups)
    return total


# --- the penalty


def test_penalty_by_hand() -> None:
    """(2 * 1^2 + 4 * 2^2) / 2 + 6 * 3^2 / 2; the second row is new and free."""
    now = {"w": torch.tensor([[1.0, 2.0], [9.0, 9.0]]), "b": torch.tensor([3.0, 9.0])}
    fisher, anchor = {"w": torch.tensor([[2.0, 4.0]]), "b": torch.tensor([6.0])}, {n: x * 0 for n, x in now.items()}
    assert float(penalty(now, fisher, anchor)) == (2 + 16) / 2 + 54 / 2


@pytest.mark.parametrize("form", ["online", "separate"])
@pytest.mark.parametrize(("over", "apart"), [("task", [4, 5]), ("seen", [0, 1, 2, 3, 4, 5])])
def test_the_loss_is_cross_entropy_and_one_term_for_each_fisher(
    form: str, over: str, apart: list[int], learned: Learned
) -> None:
    net = ewc(form=form, softmax_over=over, weight=7.0, clip=None)
    anchors, fishers = [], []
    for task in range(2):
        learned(net, task + 1, first=task)
        anchors.append(parameters(net.net))
        fishers.append(values(net, -1))
    phase = learned(net, 3, train=False, first=2).phases[0]
    if form == "online":  # what followed training has mixed the task's own into the running Fisher
        for name, value in fishers[-1].items():
            kept = net.fisher[0]
            assert isinstance(kept, Kept)
            kept[name].zero_()[: len(value)] = value
    terms = list(zip(fishers, anchors, strict=True)) if form == "separate" else [(fishers[-1], anchors[-1])]
    inputs, targets = checks.toy_stream().task(2).train.fetch(torch.arange(24)), torch.arange(24) // 12 + 4
    net.eval()
    with torch.no_grad():
        for p in net.net.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)), alpha=0.01)
        held = 0.0
        for fisher, anchor in terms:
            for name, f in fisher.items():
                now = dict(net.net.named_parameters())[name][: len(f)]
                held += 3.5 * float((f * (now - anchor[name]) ** 2).sum())
        logits = net.net(inputs)
        own = torch.tensor([apart.index(t) for t in targets.tolist()])
        expected = held - logits[:, apart].log_softmax(1)[torch.arange(24), own]
        assert held > 0
        torch.testing.assert_close(phase.loss(inputs, targets), expected, rtol=1e-4, atol=1e-6)


def test_the_first_task_is_plain_and_a_weight_of_0_is_finetuning_bit_for_bit(learned: Learned) -> None:
    net, other = ewc(weight=0.0, softmax_over="seen"), Finetune(INPUTS, "convnet2", first=FIRST, later=LATER)
    other.net.load_state_dict(net.net.state_dict())
    for learner in (net, other):
        learned(learner, 3)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in other.state_dict().items())


def test_a_heavy_penalty_holds_what_mattered(learned: Learned) -> None:
    """Weighted by the Fisher, weights move less with the penalty than without."""
    moved = {}
    for weight in (0.0, 1000.0):
        net = ewc(weight=weight, clip=0.01, later=Recipe(epochs=10, lr=0.01, batch_size=8))
        learned(net, 1)
        before, fisher = parameters(net.net), values(net)
        learned(net, 2, first=1)
        moved[weight] = float(penalty(parameters(net.net), fisher, before))
    assert 0 < moved[1000.0] < moved[0.0] / 2


# --- the Fisher


@pytest.mark.parametrize(("kind", "size"), [("exact", 1), ("batch", 8)])
def test_the_fisher_against_a_naive_loop(kind: str, size: int, learned: Learned) -> None:
    net = ewc(fisher=kind, clip=None)
    learned(net, 1)
    for name, value in naive(net, 0, size).items():
        torch.testing.assert_close(values(net)[name], value, rtol=1e-3, atol=1e-8)


def test_the_fisher_is_cut(learned: Learned) -> None:
    whole, cut = ewc(clip=None), ewc(clip=1e-3)
    for net in (whole, cut):
        learned(net, 1)
    for name, value in values(whole).items():
        assert torch.equal(values(cut)[name], value.clamp(max=1e-3))
    assert any(float(value.max()) > 1e-3 for value in values(whole).values())


@pytest.mark.parametrize(("decay", "old", "new"), [(None, 2 / 3, 1 / 3), (0.5, 0.5, 1.0), (0.0, 0.0, 1.0)])
def test_online_mixes_old_and_new_and_new_rows_are_the_tasks_own(
    decay: float | None, old: float, new: float, learned: Learned
) -> None:
    net = ewc(decay=decay, clip=None)
    learned(net, 2)
    before = values(net)
    learned(net, 3, first=2)
    assert len(net.fisher) == 1
    for name, task in naive(net, 2, 1).items():
        n, own = len(before[name]), values(net)[name]
        torch.testing.assert_close(own[:n], old * before[name] + new * task[:n], rtol=1e-3, atol=1e-8)
        torch.testing.assert_close(own[n:], task[n:], rtol=1e-3, atol=1e-8)
        assert (len(own) > n) == name.startswith("head.")


def test_classes_that_come_back_count_as_a_task_of_their_own() -> None:
    net = ewc()
    for index in range(3):
        net.grow(TaskInfo(index, (0, 1)))
    assert net._share_of_old() == 2 / 3


def test_separate_keeps_a_fisher_and_the_weights_of_each_task(learned: Learned) -> None:
    net, were = ewc(form="separate"), []
    for task in range(2):
        learned(net, task + 1, first=task)
        were.append((values(net, task), parameters(net.net)))
    learned(net, 3, first=2)
    for task, (fisher, weights) in enumerate(were):
        anchor = net.anchors[task]
        assert isinstance(anchor, Kept)
        assert all(torch.equal(value, fisher[name]) for name, value in values(net, task).items())
        assert all(torch.equal(value, weights[name]) for name, value in anchor.items())
        assert len(fisher["head.weight"]) == 2 * (task + 1)


# --- what is carried


@pytest.mark.parametrize("form", ["online", "separate"])
def test_bytes_follow_the_formula(form: str) -> None:
    found = checks.trace(checks.experiment(checks.subject("ewc", (f"form={form}",))))
    rows = [row for row in RunFolder(found.path).rows(LEDGER) if row.get("category") == "importance"]
    net = ewc()
    net.grow(TaskInfo(0, (0, 1)))
    P = sum(p.numel() for p in net.net.backbone.parameters())
    d, p = net.net.width, []
    for n_classes in (2, 4, 6):
        p.append(P + n_classes * (d + 1))
    expected = [4 * one for one in p] if form == "online" else [8 * sum(p[:t]) for t in (1, 2, 3)]
    assert [row["bytes"] for row in rows] == expected


def test_options_out_of_range_are_named_together() -> None:
    with pytest.raises(ConfigError, match=r"(?s)weight=-1 .*decay=2 must lie.*decay=2 is of the online form.*clip=0 "):
        Ewc(INPUTS, "convnet2", weight=-1, decay=2, form="separate", clip=0)
    with pytest.raises(ConfigError, match="weight=inf"):
        Ewc(INPUTS, "convnet2", weight=math.inf)


def test_defaults_are_the_toolboxs_but_for_the_exact_fisher() -> None:
    net = Ewc(INPUTS)
    assert (net.weight, net.form, net.decay, net.clip, net.kind) == (1000.0, "online", None, 1e-4, "exact")
    assert (net.softmax_over, net.first) == ("task", FIRST_TASK)
    assert (net.later.epochs, net.later.milestones, net.later.weight_decay) == (180, (70, 120, 150), 2e-4)
