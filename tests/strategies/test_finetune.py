"""Finetune: plain training on the task alone; the head grows by rows, and nothing is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from clearn import checks
from clearn.recipe import FIRST_TASK, Recipe
from clearn.stream import Inputs, TaskInfo
from strategies.finetune import Finetune

torch.set_num_threads(1)

Learned = Callable[..., Any]
FIRST, LATER = Recipe(epochs=1, batch_size=8), Recipe(epochs=2, batch_size=6)
INPUTS = Inputs((3, 8, 8))


def finetune() -> Finetune:
    torch.manual_seed(0)
    return Finetune(INPUTS, "convnet2", first=FIRST, later=LATER)


def test_old_rows_of_the_head_stay_and_new_ones_are_drawn() -> None:
    net = finetune()
    net.grow(TaskInfo(0, (0, 1)))
    assert net.net.head is not None
    old, bias = net.net.head.weight.detach().clone(), torch.tensor([0.5, -0.5])
    net.net.head.bias.data = bias.clone()
    net.grow(TaskInfo(1, (2, 3, 4)))
    head = net.net.head
    assert tuple(head.weight.shape) == (5, 64)
    assert torch.equal(head.weight[:2], old)
    assert head.bias.tolist() == [0.5, -0.5, 0, 0, 0]
    assert bool((head.weight[2:] != 0).all())


def test_classes_that_come_back_leave_the_head_alone() -> None:
    net = finetune()
    net.grow(TaskInfo(0, (0, 1)))
    head = net.net.head
    net.grow(TaskInfo(1, (0, 1)))
    assert net.net.head is head
    assert net.classes == [0, 1]


def test_each_task_is_trained_alone_with_its_recipe(learned: Learned) -> None:
    net, stream = finetune(), checks.toy_stream()
    for task, recipe in enumerate((FIRST, LATER, LATER)):
        ctx = learned(net, task + 1, stream, first=task)
        assert len(ctx.phases) == 1
        assert ctx.phases[0].recipe is recipe
        assert ctx.phases[0].data.labels.unique().tolist() == [2 * task, 2 * task + 1]
        assert ctx.cost.samples == recipe.epochs * 2 * checks.PER_CLASS
    assert net.memory is None
    assert all(name.startswith("model/net.") for name in net.state())


def test_it_forgets(learned: Learned) -> None:
    """The lower bound: after the second task nothing is called by a name of the first."""
    net, stream = finetune(), checks.toy_stream(2)
    net.later = Recipe(epochs=10, batch_size=6)
    learned(net, 2, stream)
    probe = stream.task(0).probes[0].data
    with torch.no_grad():
        answers = net.eval().predict(probe.fetch(torch.arange(len(probe)))).argmax(1)
    assert bool((answers >= 2).all())


def test_defaults_are_the_toolboxs() -> None:
    net = Finetune(INPUTS)
    assert net.first == FIRST_TASK
    assert (net.later.epochs, net.later.milestones, net.later.weight_decay) == (80, (40, 70), 2e-4)
