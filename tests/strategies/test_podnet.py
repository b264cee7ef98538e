"""PODNet: proxies, NCA and POD losses by hand, frozen old proxies, and the balanced training."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy

from clearn import checks
from clearn.errors import ConfigError
from clearn.parts.exemplars import Memory
from clearn.recipe import Recipe
from clearn.state import content_hash
from clearn.stream import Inputs
from strategies.podnet import PodNet, ProxyHead, nca, pod_spatial, released_nca

torch.set_num_threads(1)

Learned = Callable[..., Any]
BRIEF = Recipe(epochs=2, lr=0.1, batch_size=8)
INPUTS = Inputs((3, 8, 8))


def podnet(backbone: str = "convnet2", **options: Any) -> PodNet:
    torch.manual_seed(0)
    memory = options.pop("memory", Memory(total=12))
    return PodNet(INPUTS, backbone, memory=memory, first=BRIEF, later=BRIEF, balance=BRIEF, **options)


def a_batch(n: int = 16, classes: int = 4) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (n, 3, 8, 8), generator=rng, dtype=torch.uint8), torch.arange(n) % classes


def hashes(module: torch.nn.Module) -> dict[str, str]:
    return {name: content_hash(value) for name, value in module.state_dict().items()}


# --- the head


def test_a_score_is_the_softmax_weighted_mean_of_a_classs_cosines() -> None:
    head = ProxyHead(2, 2)
    head.grow(2)
    with torch.no_grad():
        head.rows[0].copy_(torch.tensor([[3.0, 0.0], [0.0, 5.0], [-1.0, 0.0], [-2.0, 0.0]]))
        head.sigma.fill_(4.0)
        found = head(torch.tensor([[7.0, 0.0]])).tolist()  # cosines 1, 0 and -1, -1
    e = math.e
    assert found[0] == pytest.approx([4 * e / (e + 1), -4.0])


def test_growing_keeps_rows_and_scale() -> None:
    head = ProxyHead(3, 10)
    head.grow(2)
    was = head.rows[0].detach().clone()
    head.grow(2)
    head.grow(5)
    assert [tuple(rows.shape) for rows in head.rows] == [(20, 3), (30, 3)]
    assert torch.equal(head.rows[0], was)
    assert [len(head.old_rows(n)) for n in (0, 2, 5)] == [0, 1, 2]
    assert all(bool((rows.abs() <= 1 / math.sqrt(3)).all()) for rows in head.rows)


# --- losses


def test_nca_by_hand() -> None:
    scores = [0.2, -0.5, 0.1]
    expected = math.log(math.exp(-0.5) + math.exp(0.1)) - (0.2 - 0.6)
    assert nca(torch.tensor([scores]), torch.tensor([0]), 0.6).tolist() == pytest.approx([expected])
    assert nca(torch.tensor([[9.0, 0.0]]), torch.tensor([0]), 0.6).tolist() == [0.0], "far enough"
    assert nca(torch.tensor([[9.0]]), torch.tensor([0]), 0.6).tolist() == [0.0], "no other class"


def test_released_nca_has_no_margin_and_is_cross_entropy_where_right() -> None:
    scores, targets = torch.tensor([[2.0, 1.0, -1.0], [2.0, 1.0, -1.0]]), torch.tensor([0, 1])
    found = released_nca(scores, targets)
    assert found[0].item() == pytest.approx(cross_entropy(scores[:1], targets[:1]).item())
    # less the highest: 0, -1, -3; the right one's place in the sum holds exp(0)
    assert found[1].item() == pytest.approx(1 + math.log(1 + 1 + math.exp(-3)))
    assert released_nca(torch.tensor([[3.0]]), torch.tensor([0])).tolist() == [0.0]


def test_pod_spatial_by_hand() -> None:
    """One channel, 1 x 2 pixels: sums over width 1, over height 2 values."""
    new, old = torch.tensor([[[[3.0, 4.0]]]]), torch.tensor([[[[0.0, 1.0]]]])
    a, b = [25.0, 9.0, 16.0], [1.0, 0.0, 1.0]
    norm_a, norm_b = math.sqrt(sum(v * v for v in a)), math.sqrt(sum(v * v for v in b))
    gap = math.sqrt(sum((x / norm_a - y / norm_b) ** 2 for x, y in zip(a, b, strict=True)))
    assert pod_spatial([new], [old]).tolist() == pytest.approx([gap])
    assert pod_spatial([new, old], [old, old]).tolist() == pytest.approx([gap / 2])
    assert pod_spatial([5 * new], [new]).tolist() == pytest.approx([0], abs=1e-6), "blind to scale"


@pytest.mark.parametrize(("task", "factor"), [(1, math.sqrt(4 / 2)), (2, math.sqrt(6 / 2))])
def test_the_loss_of_a_later_task(task: int, factor: float, learned: Learned) -> None:
    net = podnet(flat=0.5, spatial=3.0)
    learned(net, task)
    phase, (inputs, targets) = learned(net, task + 1, train=False, first=task).phases[0], a_batch(classes=2 * task + 2)
    (teacher,) = phase.options["beside"]
    phase.module.eval()
    teacher.eval()
    with torch.no_grad():
        for parameter in teacher.backbone.parameters():
            parameter.mul_(-0.5)
        features, maps = net.net.features_and_maps(inputs)
        old_features, old_maps = teacher.features_and_maps(inputs)
        flat = 1 - cosine_similarity(features, old_features)
        expected = nca(net.net(inputs), targets, 0.6) + factor * (0.5 * flat + 3 * pod_spatial(maps, old_maps))
        assert float(flat.mean()) > 0.01
        torch.testing.assert_close(phase.loss(inputs, targets), expected)
        assert phase.loss is not net.losses
        torch.testing.assert_close(net.losses(inputs, targets), nca(net.predict(inputs), targets, 0.6))


def test_the_first_task_is_nca_alone(learned: Learned) -> None:
    net = podnet(loss="released")
    (phase,) = learned(net, 1, train=False).phases
    inputs, targets = a_batch(classes=2)
    phase.module.eval()
    with torch.no_grad():
        assert torch.equal(phase.loss(inputs, targets), released_nca(net.net(inputs), targets))
    assert phase.options["beside"] == []


# --- what learns


def test_old_proxies_stay_as_they_are(learned: Learned) -> None:
    net = podnet()
    learned(net, 1)
    was = hashes(net.net)
    learned(net, 2, first=1)
    now = hashes(net.net)
    assert now["head.rows.0"] == was["head.rows.0"]
    assert now["head.sigma"] != was["head.sigma"]
    assert all(p.requires_grad for p in net.parameters())
    second = now["head.rows.1"]
    learned(net, 3, first=2)
    assert hashes(net.net)["head.rows.1"] == second


def test_the_balanced_training_has_as_many_of_each_class(learned: Learned) -> None:
    """12 exemplars of 2 classes: 6 of each, and 6 herded of each new one, though only 3 will be kept."""
    net = podnet()
    training, balance = learned(net, 2).phases
    assert training.data.labels.bincount().tolist() == [6, 6, checks.PER_CLASS, checks.PER_CLASS]
    assert balance.data.labels.bincount().tolist() == [6, 6, 6, 6]
    assert balance.recipe is net.balance
    assert balance.loss is training.loss
    assert balance.options["beside"] == training.options["beside"]
    assert net.memory.samples().labels.bincount().tolist() == [3, 3, 3, 3]
    ((only,),) = [learned(podnet(memory=Memory(total=0)), 2).phases]
    assert only.recipe == BRIEF


def test_on_the_published_backbone_three_stages_are_held(learned: Learned) -> None:
    net = podnet("cosine_resnet32")
    features, maps = net.eval().net.features_and_maps(a_batch()[0])
    assert [found.shape[1] for found in maps] == [16, 32, 64]
    assert features.shape == (16, 64)
    assert sum(p.numel() for p in net.net.backbone.parameters()) == 466_256


# --- what is carried, options


def test_ten_proxies_a_class_are_carried(learned: Learned) -> None:
    net = podnet()
    backbone = sum(t.nbytes for t in net.net.backbone.state_dict().values())
    learned(net, 3)
    sizes = {name: value.nbytes for name, value in net.state().items()}
    assert sum(sizes.values()) == backbone + 4 * 10 * 6 * 64 + 4 + 12 * (3 * 8 * 8 + 1)
    assert {net.category(name) for name in sizes if "head" in name} == {"head"}


def test_defaults_are_the_papers() -> None:
    net = PodNet(INPUTS)
    assert (net.loss, net.margin, net.flat, net.spatial, net.net.head.proxies) == ("nca", 0.6, 1.0, 5.0, 10)
    recipes = [(r.epochs, r.lr, r.schedule, r.weight_decay) for r in (net.first, net.later, net.balance)]
    assert recipes == [(160, 0.1, "cosine", 5e-4)] * 2 + [(20, 0.005, "cosine", 5e-4)]


def test_wrong_options_are_named_together() -> None:
    with pytest.raises(ConfigError, match="proxies=0 must be 1 or more; spatial=-1 must be 0 or more"):
        PodNet(INPUTS, "convnet2", proxies=0, spatial=-1)
    with pytest.raises(ConfigError, match="backbone='mlp' has no feature maps"):
        PodNet(INPUTS, "mlp")
