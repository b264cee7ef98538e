"""Replay: new and stored samples in one shuffle, or some stored ones beside every batch; exemplars by herding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from clearn import checks
from clearn.parts.exemplars import Memory
from clearn.parts.herding import herd, normalise
from clearn.recipe import FIRST_TASK, Recipe
from clearn.stream import Inputs
from strategies.finetune import Finetune
from strategies.replay import Replay

torch.set_num_threads(1)

Learned = Callable[..., Any]
FIRST, LATER = Recipe(epochs=1, batch_size=8), Recipe(epochs=2, batch_size=8)
INPUTS = Inputs((3, 8, 8))


def replay(memory: Memory = Memory(total=12), **options: Any) -> Replay:
    torch.manual_seed(0)
    return Replay(INPUTS, "convnet2", memory=memory, first=FIRST, later=LATER, **options)


def test_both_sets_are_joined_and_shuffled(learned: Learned) -> None:
    net, stream = replay(), checks.toy_stream()
    expected = [[12, 12], [6, 6, 12, 12], [3, 3, 3, 3, 12, 12]]
    for task in range(3):
        ctx = learned(net, task + 1, stream, first=task)
        assert ctx.phases[0].data.labels.bincount().tolist() == expected[task]
        assert ctx.phases[0].recipe is (LATER if task else FIRST)
        assert ctx.phases[0].options == {}


def test_a_fixed_number_of_stored_samples_joins_each_batch(learned: Learned) -> None:
    net, stream = replay(stored_per_step=5), checks.toy_stream()
    for task in range(2):
        held = len(net.memory)
        ctx = learned(net, task + 1, stream, first=task)
        assert ctx.phases[0].data.labels.unique().tolist() == [2 * task, 2 * task + 1]
        stored, count = ctx.phases[0].options["replay"]
        assert (len(stored), count) == (held, 5)
    assert ctx.cost.optimizer_steps == 2 * 3
    assert ctx.cost.samples == 2 * (24 + 3 * 5)


def test_exemplars_are_herded_on_the_trained_networks_features_and_cut_to_prefixes(learned: Learned) -> None:
    net, stream = replay(), checks.toy_stream()
    learned(net, 1, stream)
    data = stream.task(0).train
    first: dict[int, torch.Tensor] = {}
    for label in (0, 1):
        mine = data.take((data.labels == label).nonzero().flatten())
        pixels = mine.fetch(torch.arange(len(mine)))
        with torch.no_grad():
            order = herd(normalise(net.eval().net.features(pixels)), 6)
        first[label] = pixels[order]
        stored = net.memory.samples()
        assert torch.equal(stored.inputs[stored.labels == label], first[label])
    learned(net, 3, stream, first=1)
    stored = net.memory.samples()
    for label in (0, 1):
        assert torch.equal(stored.inputs[stored.labels == label], first[label][:2])
    assert stored.labels.bincount().tolist() == [2] * 6


def test_without_a_memory_it_is_finetuning_bit_for_bit(learned: Learned) -> None:
    net, plain = replay(Memory(total=0)), Finetune(INPUTS, "convnet2", first=FIRST, later=LATER)
    plain.net.load_state_dict(net.net.state_dict())
    for learner in (net, plain):
        learned(learner, 3)
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize(("memory", "kept"), [(Memory(per_class=3), [6, 12, 18]), (Memory(total=7), [7, 7, 7])])
def test_quotas_per_class_and_in_all(memory: Memory, kept: list[int], learned: Learned) -> None:
    net, stream = replay(memory), checks.toy_stream()
    for task in range(3):
        learned(net, task + 1, stream, first=task)
        assert len(net.memory) == kept[task]


def test_it_remembers_what_finetuning_forgets(learned: Learned) -> None:
    stream, right = checks.toy_stream(2), {}
    longer = Recipe(epochs=30, lr=0.05, batch_size=6)
    for learner in (replay(Memory(total=24)), Finetune(INPUTS, "convnet2")):
        learner.first = learner.later = longer
        learned(learner, 2, stream)
        probe = stream.task(0).probes[0].data
        with torch.no_grad():
            answers = learner.eval().predict(probe.fetch(torch.arange(len(probe)))).argmax(1)
        right[type(learner)] = float((answers == probe.labels).float().mean())
    assert right[Finetune] == 0
    assert right[Replay] > 0.8


def test_defaults_are_the_toolboxs() -> None:
    net = Replay(INPUTS)
    assert (net.stored_per_step, net.first) == (None, FIRST_TASK)
    assert (net.later.epochs, net.later.milestones, net.later.weight_decay) == (70, (30, 50), 2e-4)
