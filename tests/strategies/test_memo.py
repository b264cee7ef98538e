"""MEMO: counts; what is copied, frozen and trained at each task; losses by hand; its limits (DER, plain training)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from clearn import checks
from clearn.errors import ConfigError
from clearn.folder import RunFolder
from clearn.parts.exemplars import Memory
from clearn.parts.heads import Head, align_rows, auxiliary_targets, grown_head
from clearn.recipe import Recipe
from clearn.state import content_hash
from clearn.stream import Inputs, TaskInfo
from strategies.finetune import Finetune
from strategies.memo import Memo

torch.set_num_threads(1)

Learned = Callable[..., Any]
BRIEF = Recipe(epochs=2, lr=0.1, batch_size=8, weight_decay=5e-4)
INPUTS = Inputs((3, 8, 8))


def memo(backbone: str = "convnet2", **options: Any) -> Memo:
    torch.manual_seed(0)
    return Memo(INPUTS, backbone, memory=options.pop("memory", Memory(total=12)), first=BRIEF, later=BRIEF, **options)


def grown(net: Memo, *sizes: int) -> Memo:
    """Grow for tasks of so many classes."""
    start = 0
    for index, size in enumerate(sizes):
        net.grow(TaskInfo(index, tuple(range(start, start + size))))
        start += size
    return net


def a_batch(n: int = 16, classes: int = 4) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (n, 3, 8, 8), generator=rng, dtype=torch.uint8), torch.arange(n) % classes


def hashes(module: nn.Module) -> dict[str, str]:
    return {name: content_hash(value) for name, value in module.state_dict().items()}


# --- 1. counts


def test_parameters_while_learning_two_classes_a_task(learned: Learned) -> None:
    """ResNet14 with the auxiliary head of 3 x 65 parameters, phi_g learning throughout."""
    everything, trainable = [], []
    net, stream = memo("resnet14"), checks.toy_stream(5)
    for task in range(5):
        ctx = learned(net, task + 1, stream, train=False, first=task)
        module = ctx.phases[0].module
        everything.append(sum(p.numel() for p in module.parameters()))
        trainable.append(sum(p.numel() for p in module.parameters() if p.requires_grad))
    assert everything == [172_181, 302_103, 432_281, 562_715, 693_405]
    assert trainable == [172_181, 172_567, 173_209, 174_107, 175_261]


def test_backbone_and_head_grow_as_counted() -> None:
    for tasks in (1, 2, 3):
        net = grown(memo("resnet14"), *[2] * tasks)
        backbone = sum(p.numel() for part in (net.general, net.blocks) for p in part.parameters())
        assert backbone == 42_320 + tasks * 129_536
        assert net.head is not None
        assert sum(p.numel() for p in net.head.parameters()) == 2 * tasks * (tasks * 64 + 1)


def test_the_auxiliary_head_is_not_carried(learned: Learned) -> None:
    net = memo()
    learned(net, 2, train=False)
    assert {name.split(".")[0] for name in net.state_dict()} == {"general", "blocks", "head"}


# --- 2. expanding


def test_a_new_block_starts_as_the_one_before_it_with_its_statistics(learned: Learned) -> None:
    net = memo()
    learned(net, 2)
    before = copy.deepcopy(net)
    net.grow(TaskInfo(2, (4, 5)))
    assert hashes(net.blocks[2]) == hashes(net.blocks[1]) == hashes(before.blocks[1])
    assert net.blocks[2] is not net.blocks[1]
    assert {name for name in hashes(net.blocks[1]) if "running_mean" in name}
    assert [p.data_ptr() for p in net.blocks[2].parameters()] != [p.data_ptr() for p in net.blocks[1].parameters()]


def test_old_logits_are_what_they_were_but_for_the_new_columns(learned: Learned) -> None:
    net = memo()
    learned(net, 2)
    inputs, _ = a_batch()
    net.eval()
    with torch.no_grad():
        before = net.predict(inputs)  # (b, 4)
        net.grow(TaskInfo(2, (4, 5)))
        net.eval()
        after, newest = net.predict(inputs), net.features(inputs)[:, -net.width :]  # (b, 6), (b, d)
        assert net.head is not None
        torch.testing.assert_close(after[:, :4] - newest @ net.head.weight[:4, -net.width :].T, before)
    assert (net.head.weight[:4, -net.width :] != 0).all(), "random, as in the reference"
    assert torch.equal(net.head.bias[4:], torch.zeros(2))


def test_with_a_zero_corner_old_logits_do_not_move_at_all(learned: Learned) -> None:
    net = memo(zero_corner=True)
    learned(net, 2)
    inputs, _ = a_batch()
    net.eval()
    with torch.no_grad():
        before = net.predict(inputs)
        net.grow(TaskInfo(2, (4, 5)))
        net.eval()
        torch.testing.assert_close(net.predict(inputs)[:, :4], before)


def test_fresh_head_entries_have_the_references_spread() -> None:
    """W ~ U(-sqrt(3 / width), sqrt(3 / width)), whose standard deviation is 1 / sqrt(width)."""
    torch.manual_seed(1)
    head = grown_head(None, 640, 100)
    bound = (3 / 640) ** 0.5
    assert 0.99 * bound < float(head.weight.detach().abs().max()) <= bound
    assert float(head.weight.detach().std()) == pytest.approx(640**-0.5, rel=0.01)


# --- 3. what is frozen


@pytest.mark.parametrize("train_base", [False, True])
def test_what_is_frozen_is_bit_equal_after_training(train_base: bool, learned: Learned) -> None:
    net = memo("resnet14", train_base=train_base)
    learned(net, 2)
    inputs, _ = a_batch()
    before = copy.deepcopy(net).eval()
    learned(net, 3, first=2)
    net.eval()
    for old in range(2):
        assert hashes(net.blocks[old]) == hashes(before.blocks[old])
    assert all(a != b for a, b in zip(hashes(net.blocks[2]).values(), hashes(before.blocks[1]).values(), strict=True))
    with torch.no_grad():
        was, now = before.features(inputs), net.features(inputs)[:, : 2 * net.width]
    if train_base:
        assert all(hashes(net.general)[name] != value for name, value in hashes(before.general).items())
        assert not torch.equal(was, now), "old blocks read drifting inputs"
    else:
        assert hashes(net.general) == hashes(before.general)
        assert torch.equal(was, now)


def test_the_base_learns_in_the_first_task_whatever_is_chosen() -> None:
    for choice in (True, False, "auto"):
        net = grown(memo(train_base=choice), 2)
        assert all(p.requires_grad for p in net.parameters())
        assert all(module.training for module in net.train().modules())


@pytest.mark.parametrize(("first", "learns"), [(2, True), (20, True), (21, False), (50, False)])
def test_auto_goes_on_training_the_base_up_to_twenty_first_classes(first: int, learns: bool) -> None:
    net = grown(memo(), first, 2).train()
    assert {p.requires_grad for p in net.general.parameters()} == {learns}
    assert {m.training for m in net.general.modules()} == {learns}
    assert {m.training for m in net.blocks[0].modules()} == {False}
    assert {m.training for m in net.blocks[1].modules()} == {True}
    net.eval()
    assert not any(module.training for module in net.modules())


# --- 4. weight alignment


def test_alignment_by_hand() -> None:
    head = Head(2, 4)
    head.weight.data = torch.tensor([[2.0, 0.0], [0.0, 2.0], [4.0, 0.0], [0.0, -4.0]])
    head.bias.data = torch.arange(4.0)
    assert align_rows(head, 2) == pytest.approx(0.5)
    assert head.weight.tolist() == [[2, 0], [0, 2], [2, 0], [0, -2]]
    assert head.bias.tolist() == [0, 1, 2, 3]
    assert align_rows(head, 2) == pytest.approx(1.0)
    assert align_rows(head, 0) == align_rows(head, 4) == 1.0


def test_new_rows_end_with_the_mean_norm_of_old_rows(learned: Learned) -> None:
    net = memo()
    ctx = learned(net, 1)
    assert ctx.cost.logged == {"wa/gamma": 1.0}
    ctx = learned(net, 2, first=1)
    assert net.head is not None
    norms = net.head.weight.detach().norm(dim=1)
    assert float(norms[:2].mean()) == pytest.approx(float(norms[2:].mean()), rel=1e-5)
    assert ctx.cost.logged["wa/gamma"] != 1.0


# --- 5. losses


def test_auxiliary_labels_by_hand() -> None:
    assert auxiliary_targets(torch.tensor([3, 10, 19]), 10).tolist() == [0, 1, 10]
    assert auxiliary_targets(torch.arange(6), 4).tolist() == [0, 0, 0, 0, 1, 2]


def test_the_loss_is_that_of_the_paper_sample_by_sample(learned: Learned) -> None:
    net = memo(aux_weight=0.7)
    learned(net, 1)
    ctx = learned(net, 2, train=False, first=1)
    phase, (inputs, targets) = ctx.phases[0], a_batch()
    phase.module.eval()
    auxiliary = phase.module[1]
    assert tuple(auxiliary.weight.shape) == (3, net.width), "two new classes and 'old'"
    with torch.no_grad():
        features = net.features(inputs)
        logits = net.predict(inputs)
        sharpened = auxiliary(features[:, -net.width :])
        expected = [
            float(
                -logits[i].log_softmax(0)[targets[i]]
                - 0.7 * sharpened[i].log_softmax(0)[max(int(targets[i]) - 2 + 1, 0)]
            )
            for i in range(len(inputs))
        ]
        assert phase.loss(inputs, targets).tolist() == pytest.approx(expected, rel=1e-5)
        old = targets < 2
        only_old = phase.loss(inputs[old], targets[old]) - cross_entropy(logits[old], targets[old], reduction="none")
        zeros = torch.zeros(int(old.sum()), dtype=torch.int64)
        torch.testing.assert_close(only_old, 0.7 * cross_entropy(sharpened[old], zeros, reduction="none"))


def test_the_first_task_has_no_auxiliary_loss(learned: Learned) -> None:
    net = memo()
    phase = learned(net, 1, train=False).phases[0]
    inputs, targets = a_batch(classes=2)
    phase.module.train()
    phase.loss(inputs, targets).mean().backward()
    assert all(p.grad is None for p in phase.module[1].parameters()), "so neither momentum nor decay touch it"
    assert all(p.grad is not None for p in net.parameters())


def test_training_sees_new_and_stored_samples(learned: Learned) -> None:
    ctx = learned(memo(), 2, train=False)
    labels = ctx.phases[0].data.labels
    assert labels.bincount().tolist() == [6, 6, 12, 12]
    assert ctx.phases[0].recipe is BRIEF
    assert ctx.phases[0].options == {}


# --- 6. small memories


@pytest.mark.parametrize("total", [0, 1, 5])
def test_fewer_exemplars_than_classes_give_no_nan(total: int, learned: Learned) -> None:
    net = memo(memory=Memory(total=total, remainder="floor"))
    learned(net, 3)
    kept = total // 6
    assert len(net.memory) == 6 * kept
    inputs, _ = a_batch()
    net.eval()
    with torch.no_grad():
        found = net.read(inputs)
    assert not any(bool(scores.isnan().any()) for scores in found.values())
    assert bool((found["nme"] == -torch.inf).all()) is (kept == 0)


# --- 8. limits


def test_with_all_groups_specialised_it_is_der_bit_for_bit() -> None:
    memo_run = checks.trace(checks.experiment(checks.subject("memo", ["specialized=2"])))
    der_run = checks.trace(checks.experiment(checks.subject("der_expand")))
    assert memo_run.scores == der_run.scores
    for step in range(1, checks.N_TASKS + 1):
        mine, other = (RunFolder(run.path).read_state(step).frozen.tensors for run in (memo_run, der_run))
        renamed = {name.replace("model/blocks.", "model/backbones."): value for name, value in mine.items()}
        assert renamed.keys() == other.keys()
        assert all(content_hash(renamed[name]) == content_hash(other[name]) for name in other)


def test_the_first_task_is_plain_training_bit_for_bit(learned: Learned, spy: Callable[..., Any]) -> None:
    stream, inputs = checks.toy_stream(), a_batch(classes=2)[0]
    net = memo()
    plain = Finetune(INPUTS, "convnet2", first=BRIEF)
    ctx = spy(stream, 0)

    def start_alike(_: nn.Module) -> None:
        plain.grow(stream.infos[0])
        plain.net.backbone.load_state_dict(
            nn.Sequential(*net.general.children(), *net.blocks[0].children()).state_dict()
        )
        assert plain.net.head is not None
        assert net.head is not None
        plain.net.head.load_state_dict(net.head.state_dict())
        plain.grow = lambda info: None  # type: ignore[method-assign]

    ctx.before = start_alike
    net.learn(stream.task(0), ctx)
    plain.learn(stream.task(0), spy(stream, 0))
    with torch.no_grad():
        assert torch.equal(net.eval().predict(inputs), plain.eval().predict(inputs))


def test_without_weight_the_auxiliary_head_learns_nothing(learned: Learned) -> None:
    net = memo(aux_weight=0.0)
    learned(net, 1)
    phase, (inputs, targets) = learned(net, 2, train=False, first=1).phases[0], a_batch()
    phase.module.train()
    phase.loss(inputs, targets).mean().backward()
    assert all(not bool(p.grad.any()) for p in phase.module[1].parameters())
    phase.module.eval()
    with torch.no_grad():
        torch.testing.assert_close(
            phase.loss(inputs, targets), cross_entropy(net.predict(inputs), targets, reduction="none")
        )


def test_it_needs_no_more_than_one_class_a_task(learned: Learned) -> None:
    net = memo()
    learned(net, 3, checks.toy_stream(3, 1))
    assert len(net.classes) == 3


# --- 9. gradients


@pytest.mark.parametrize("train_base", [False, True])
def test_gradients_reach_what_learns_and_nothing_else(train_base: bool, learned: Learned) -> None:
    net = memo("resnet14", train_base=train_base)
    learned(net, 1)
    phase, (inputs, targets) = learned(net, 2, train=False, first=1).phases[0], a_batch()
    phase.module.train()
    net.zero_grad(set_to_none=True)
    phase.loss(inputs, targets).mean().backward()
    assert all(p.grad is None for p in net.blocks[0].parameters())
    assert all(p.grad is not None and bool(p.grad.any()) for p in net.blocks[1].parameters())
    if train_base:
        assert all(p.grad is not None and bool(p.grad.any()) for p in net.general.parameters())
    else:
        assert all(p.grad is None for p in net.general.parameters())
    assert net.head is not None
    assert net.head.weight.grad is not None
    assert bool((net.head.weight.grad != 0).any(1).all()), "old rows of the head train too"


def test_gradients_reach_the_base_through_old_blocks(learned: Learned) -> None:
    """The base's gradient is that of all blocks, frozen ones included; without them it is another."""
    net = memo()
    learned(net, 1)
    phase, (inputs, targets) = learned(net, 2, train=False, first=1).phases[0], a_batch()
    phase.module.eval()

    def gradient() -> Tensor:
        net.zero_grad(set_to_none=True)
        phase.loss(inputs, targets).mean().backward()
        first = next(net.general.parameters()).grad
        assert first is not None
        return first.clone()

    whole = gradient()
    assert net.head is not None
    with torch.no_grad():
        net.head.weight[:, : net.width] = 0
    assert not torch.allclose(whole, gradient())


def test_options_out_of_range_are_named() -> None:
    with pytest.raises(ConfigError, match="specialized=3 must lie in"):
        memo(specialized=3)
