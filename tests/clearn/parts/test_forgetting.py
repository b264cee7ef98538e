"""What unlearning methods share: heads, logits, thawing, copies, wrong labels, the last layers."""

from __future__ import annotations

import contextlib
from collections import Counter

import pytest
import torch
from torch import nn

from clearn import checks
from clearn.errors import ConfigError
from clearn.parts.exemplars import Memory
from clearn.parts.forgetting import (
    Relabelled,
    classifier,
    find_heads,
    frozen_copy,
    network_units,
    split_layers,
    thawed,
    wrong_labels,
)
from clearn.parts.samples import DatasetSamples, TensorSamples, concat
from clearn.strategy import Strategy
from clearn.stream import Inputs
from strategies.icarl import ICarl
from strategies.memo import Memo
from strategies.replay import Replay

torch.set_num_threads(1)

INPUTS = Inputs((3, 8, 8))


def grown(cls: type[Strategy], n_tasks: int = 2) -> Strategy:
    torch.manual_seed(0)
    made = cls(INPUTS, backbone="convnet2", memory=Memory(total=4))  # type: ignore[call-arg]
    for info in checks.toy_stream(n_tasks).infos:
        made.grow(info)
    return made.eval()


def images(n: int = 5) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def test_the_head_is_found_in_every_kind_of_net_and_its_absence_said() -> None:
    assert [len(head.weight) for head in find_heads(grown(Replay))] == [4]
    assert [head.in_features for head in find_heads(grown(Memo))] == [128]

    class Headless(Strategy):
        def predict(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs

    with pytest.raises(ConfigError, match="Headless has no linear head"):
        find_heads(Headless(INPUTS))


def test_logits_are_the_classifiers_also_where_nearest_means_judge() -> None:
    for cls in (Replay, Memo, ICarl):
        strategy, inputs = grown(cls), images()
        logits = classifier(strategy, inputs)
        assert logits.requires_grad
        losses = nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 3, 0]), reduction="none")
        torch.testing.assert_close(losses, strategy.losses(inputs, torch.tensor([0, 1, 2, 3, 0])))
        assert not find_heads(strategy)[0]._forward_hooks


def test_thawed_blocks_learn_and_are_frozen_again_also_after_an_error() -> None:
    strategy = grown(Memo)
    flags = [p.requires_grad for p in strategy.parameters()]
    assert not all(flags)
    strategy.train()
    modes = [module.training for module in strategy.modules()]
    assert not all(modes)
    with contextlib.suppress(RuntimeError), thawed(strategy):
        assert all(p.requires_grad for p in strategy.parameters())
        classifier(strategy.eval(), images()).sum().backward()
        assert all(p.grad is not None for p in strategy.parameters())
        raise RuntimeError("stop")
    assert [p.requires_grad for p in strategy.parameters()] == flags
    assert [module.training for module in strategy.modules()] == modes
    assert all(p.grad is None for p in strategy.parameters())


def test_pretrained_weights_that_nothing_has_changed_stay_frozen() -> None:
    strategy = grown(Replay)
    name = next(n for n, _ in strategy.named_parameters())
    strategy.untouched = lambda: {f"model/{name}": ("hash", 4)}  # type: ignore[method-assign]
    strategy.requires_grad_(False)
    with thawed(strategy):
        assert [n for n, p in strategy.named_parameters() if not p.requires_grad] == [name]


def test_a_frozen_copy_has_values_of_its_own_and_shares_the_memory() -> None:
    strategy = grown(Replay).train()
    twin = frozen_copy(strategy)
    assert twin.memory is strategy.memory
    assert not any(module.training for module in twin.modules())
    assert not any(p.requires_grad for p in twin.parameters())
    assert all(p.requires_grad and module.training for p in strategy.parameters() for module in strategy.modules())
    find_heads(twin)[0].weight.data.zero_()
    assert bool(find_heads(strategy)[0].weight.any())


def test_other_labels_for_every_kind_of_samples() -> None:
    stored = TensorSamples(images(4), torch.arange(4))
    decoded = DatasetSamples([(image, 0) for image in images(4)], torch.arange(4), torch.arange(4))
    for samples in (stored, decoded, concat([stored, decoded])):
        twin = Relabelled(samples, samples.labels + 10)
        assert torch.equal(samples.labels, twin.labels - 10)
        (inputs, labels), *_ = twin.batches(3)
        assert labels.tolist() == [10, 11, 12]
        assert torch.equal(inputs, samples.fetch(torch.arange(3)))
        assert twin.take(torch.tensor([2])).labels.tolist() == [12]


def test_wrong_labels_are_never_true_never_forgotten_and_even() -> None:
    rng = torch.Generator().manual_seed(3)
    labels = torch.tensor([0, 2, 5]).repeat_interleave(3000)
    drawn = wrong_labels(labels, [0, 1, 2, 4, 5], [], rng)
    assert not bool((drawn == labels).any())
    for true in (0, 2, 5):
        counts = Counter(drawn[labels == true].tolist())
        assert set(counts) == {0, 1, 2, 4, 5} - {true}
        assert all(abs(count - 750) < 4 * (3000 * 0.25 * 0.75) ** 0.5 for count in counts.values())
    of_class = wrong_labels(torch.zeros(3000, dtype=torch.int64), [0, 1, 2, 4], [0, 2], rng)
    assert set(of_class.tolist()) == {1, 4}
    with pytest.raises(ConfigError, match="no wrong label is left"):
        wrong_labels(torch.tensor([1]), [0, 1], [0], rng)


def test_the_last_layers_take_the_norms_that_follow_them() -> None:
    norm, head = nn.BatchNorm1d(4), nn.Linear(4, 2)
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 4), norm), head)
    assert split_layers(network, 1)[1] == [head]
    first, last = split_layers(network, 2)
    assert (first, last) == ([network[0]], [network[2][0], norm, head])
    for k in (0, 3):
        with pytest.raises(ConfigError, match=r"must lie in \[1, 2\]: this network has 3 layers"):
            split_layers(network, k)


def test_the_networks_units() -> None:
    scale, shift = network_units(Inputs((2, 4, 4), "uint8", (0.5, 0.25), (0.5, 0.125)))
    raw = torch.tensor([255.0, 0.0]).view(1, 2, 1, 1)
    torch.testing.assert_close((raw * scale + shift).flatten(), torch.tensor([1.0, -2.0]))
