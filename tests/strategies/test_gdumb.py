"""GDumb: a balanced random memory, a new network on nothing else, CutMix by hand."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from clearn import checks
from clearn.errors import ConfigError
from clearn.folder import LEDGER, RunFolder
from clearn.parts.exemplars import Memory
from clearn.recipe import Recipe
from clearn.stream import Inputs
from strategies.gdumb import GDumb, cut_mix

torch.set_num_threads(1)

Learned = Callable[..., Any]
BRIEF = Recipe(epochs=2, batch_size=8)
INPUTS = Inputs((3, 8, 8))


def gdumb(memory: Memory = Memory(total=15), **options: Any) -> GDumb:
    torch.manual_seed(0)
    return GDumb(INPUTS, "convnet2", memory=memory, recipe=BRIEF, **options)


def test_classes_have_equal_shares_and_training_sees_nothing_else(learned: Learned) -> None:
    net, stream = gdumb(), checks.toy_stream()
    expected = [[8, 7], [4, 4, 4, 3], [3, 3, 3, 2, 2, 2]]
    for task in range(3):
        ctx = learned(net, task + 1, stream, first=task)
        (phase,) = ctx.phases
        assert phase.recipe is BRIEF
        assert phase.data.labels.bincount().tolist() == expected[task]
        assert torch.equal(phase.data.fetch(torch.arange(15)), net.memory.samples().inputs)
        assert phase.options == {}


def test_what_stays_is_a_random_part_of_what_was_there(learned: Learned, spy: Callable[..., Any]) -> None:
    """Cut to a part; each sample of the class equally likely, by four standard errors over 200 seeds."""
    stream, picks, n_seeds = checks.toy_stream(1, 2), torch.zeros(checks.PER_CLASS), 200
    data = stream.task(0).train
    of_class_0 = data.fetch(torch.arange(checks.PER_CLASS)).flatten(1)
    for seed in range(n_seeds):
        net = gdumb(Memory(total=6))
        net.learn(stream.task(0), spy(stream, 0, train=False, seed=seed))
        held = net.memory.samples()
        for row in held.inputs[held.labels == 0].flatten(1):
            picks += (of_class_0 == row).all(1)
    assert int(picks.sum()) == 3 * n_seeds
    assert float((picks / n_seeds - 0.25).abs().max()) < 4 * (0.25 * 0.75 / n_seeds) ** 0.5


def test_the_past_weights_leave_no_trace(learned: Learned) -> None:
    stream, trained = checks.toy_stream(2), []
    for junk in (0.0, 9.0):
        net = gdumb()
        learned(net, 1, stream)
        with torch.no_grad():
            for p in net.parameters():
                p.add_(junk)
        learned(net, 2, stream, first=1)
        trained.append(net.state_dict())
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])


def test_cut_mix_pastes_one_box_of_the_partners_and_tells_the_exact_share() -> None:
    rng, shares = torch.Generator().manual_seed(0), []
    for _ in range(50):
        images = torch.arange(6, dtype=torch.uint8)[:, None, None, None].repeat(1, 2, 8, 10)
        mixed, others, share = cut_mix(images, rng)
        assert others.sort().values.tolist() == list(range(6)), "partners are a permutation"
        assert images[:, 0, 0, 0].tolist() == list(range(6)), "the batch is left as it is"
        pasted = torch.zeros(8, 10, dtype=torch.bool)
        for image, own, other in zip(mixed, range(6), others.tolist(), strict=True):
            assert set(image.unique().tolist()) <= {own, other}
            if own != other:
                pasted |= (image[0] == other) & (image[1] == other)
        if bool((others != torch.arange(6)).any()):
            assert share == pytest.approx(1 - float(pasted.float().mean()))
            rows, columns = pasted.any(1).sum(), pasted.any(0).sum()
            assert int(pasted.sum()) == int(rows * columns), "one box, the same in all"
        shares.append(share)
    assert min(shares) < 0.5 < max(shares)


def test_the_mixed_loss_weighs_both_labels(learned: Learned) -> None:
    net = gdumb(cutmix=1.0)
    ctx = learned(net, 1, train=False)
    inputs, targets = checks.toy_stream().task(0).train.fetch(torch.arange(24)), torch.arange(24) // 12
    net.eval()
    rng = ctx.rng("cutmix")
    torch.rand((), generator=rng)  # whether to mix
    mixed, others, share = cut_mix(inputs, rng)
    with torch.no_grad():
        z = net.net(mixed).log_softmax(1)
        expected = [-share * z[i, targets[i]] - (1 - share) * z[i, targets[others[i]]] for i in range(24)]
        torch.testing.assert_close(ctx.phases[0].loss(inputs, targets), torch.stack(expected))
    assert 0 < share < 1


def test_without_cutmix_the_loss_is_plain(learned: Learned) -> None:
    net = gdumb(cutmix=0.0)
    ctx = learned(net, 1, train=False)
    inputs, targets = checks.toy_stream().task(0).train.fetch(torch.arange(24)), torch.arange(24) // 12
    net.eval()
    with torch.no_grad():
        expected = cross_entropy(net.net(inputs), targets, reduction="none")
        assert torch.equal(ctx.phases[0].loss(inputs, targets), expected)


def test_a_share_of_batches_is_mixed(learned: Learned, monkeypatch: pytest.MonkeyPatch) -> None:
    mixed: list[int] = []

    def counted(images: torch.Tensor, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, float]:
        mixed.append(1)
        return cut_mix(images, rng)

    monkeypatch.setattr(sys.modules[GDumb.__module__], "cut_mix", counted)
    net = gdumb(cutmix=0.25)
    ctx = learned(net, 1, train=False)
    inputs, targets = checks.toy_stream().task(0).train.fetch(torch.arange(4)), torch.zeros(4, dtype=torch.int64)
    with torch.no_grad():
        for _ in range(400):
            ctx.phases[0].loss(inputs, targets)
    assert abs(len(mixed) / 400 - 0.25) < 4 * (0.25 * 0.75 / 400) ** 0.5


def test_a_memory_without_room_leaves_the_network_as_it_was_drawn(learned: Learned) -> None:
    net = gdumb(Memory(total=0))
    assert learned(net, 2).phases == []
    assert tuple(net.eval().predict(torch.zeros(1, 3, 8, 8, dtype=torch.uint8)).shape) == (1, 4)


def test_bytes_are_pixels_and_a_label_each() -> None:
    rows = RunFolder(checks.trace(checks.experiment(checks.subject("gdumb"))).path).rows(LEDGER)
    assert [row["bytes"] for row in rows if row.get("category") == "exemplars"] == [12 * (192 + 1)] * 3


def test_bad_options() -> None:
    with pytest.raises(ConfigError, match=r"cutmix=1\.5 must lie in \[0, 1\]"):
        gdumb(cutmix=1.5)
    with pytest.raises(ConfigError, match=r"cuts boxes out of images.* write cutmix: 0"):
        GDumb(Inputs((5,), "float32"), "mlp")


def test_defaults_are_the_papers_but_for_restarts() -> None:
    net = GDumb(INPUTS)
    assert (net.cutmix, net.recipe.epochs, net.recipe.lr, net.recipe.batch_size) == (0.5, 256, 0.05, 16)
    assert (net.recipe.schedule, net.recipe.weight_decay) == ("cosine", 1e-6)
