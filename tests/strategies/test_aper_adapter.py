"""APER: an adapter of the first task alone; plain and adapted features side by side under one cosine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy

from clearn import checks
from clearn.ledger import account
from clearn.parts.cosine import CosineHead
from clearn.parts.frozen_vit import Vit
from clearn.recipe import Recipe
from clearn.state import content_hash, freeze
from clearn.stream import Inputs, Stream
from strategies.aper_adapter import AperAdapter

torch.set_num_threads(1)

Learned = Callable[..., Any]
Arranged = Callable[..., Stream]
INPUTS = Inputs((3, 8, 8))
BRIEF = Recipe(epochs=2, lr=0.05, batch_size=8)


def aper(**options: Any) -> AperAdapter:
    torch.manual_seed(0)
    return AperAdapter(INPUTS, Vit("test_vit", weights=False, image_size=16), 4, BRIEF, **options)


def images() -> tuple[Tensor, Tensor]:
    part = checks.toy_stream(1, 6).task(0).train
    return part.fetch(torch.arange(len(part))), part.labels


def hashes(net: AperAdapter) -> list[str]:
    return [content_hash(value.detach()) for value in net.adapter.parameters()]


def test_the_adapter_is_trained_on_the_first_task_alone(learned: Learned) -> None:
    net = aper()
    start = hashes(net)
    assert len(learned(net, 1).phases) == 1
    trained = hashes(net)
    assert all(a != b for a, b in zip(start, trained, strict=True))
    assert not learned(net, 3, first=1).phases
    assert hashes(net) == trained


def test_it_is_trained_by_cross_entropy_of_scaled_cosines(learned: Learned) -> None:
    net = aper()
    ctx = learned(net, 1, train=False)
    phase = ctx.phases[0]
    (head,) = [module for module in phase.module.modules() if isinstance(module, CosineHead)]
    trainable = {id(p) for p in phase.module.parameters() if p.requires_grad}
    assert trainable == {id(p) for p in [*net.adapter.parameters(), *head.parameters()]}
    x, y = images()
    x, y = x[y < 2], y[y < 2]
    with torch.no_grad():
        head.sigma.fill_(2.0)
        features = net.vit(x, net.adapter)
        cosines = cosine_similarity(features[:, None], head.weight[None], dim=2)
        torch.testing.assert_close(phase.loss(x, y), cross_entropy(2 * cosines, y, reduction="none"))


def test_a_fresh_adapter_gives_the_plain_features_twice(learned: Learned) -> None:
    net = aper()
    learned(net, 1, train=False)
    with torch.no_grad():
        features = net.eval().features(images()[0])
    assert torch.equal(features[:, :64], features[:, 64:])


def test_one_cosine_over_both_halves(learned: Learned) -> None:
    net = aper()
    learned(net, 3)
    x, y = images()
    with torch.no_grad():
        features = torch.cat([net.eval().vit(x), net.vit(x, net.adapter)], 1)
        means = torch.stack([features[y == label].mean(0) for label in range(6)])
        torch.testing.assert_close(net.predict(x), cosine_similarity(features[:, None], means[None], dim=2))
    assert not net.adapter.training


def test_later_tasks_may_come_in_any_order_and_split(learned: Learned, arranged: Arranged) -> None:
    one, other = aper(), aper()
    order = (0, 1, 5, 2, 4, 3)
    learned(one, 2, arranged(increment=[2, 4]))
    learned(other, 3, arranged(order, increment=[2, 1, 3]))
    with torch.no_grad():
        x = images()[0]
        expected = one.eval().predict(x)[:, list(order)]
        torch.testing.assert_close(other.eval().predict(x), expected, rtol=1e-6, atol=1e-6)


def test_a_first_task_of_one_class_adapts_nothing(learned: Learned, arranged: Arranged) -> None:
    net = aper()
    start = hashes(net)
    assert not learned(net, 2, arranged(increment=1)).phases
    assert hashes(net) == start
    with torch.no_grad():
        assert bool(net.eval().predict(images()[0]).isfinite().all())


def test_bytes_are_the_specs(learned: Learned) -> None:
    def expected(d: int, depth: int, r: int, n_classes: int) -> tuple[int, int]:
        return 4 * depth * (2 * d * r + r + d), 4 * n_classes * 2 * d

    assert sum(expected(768, 12, 64, 100)) == 5_372_928
    net = aper()
    learned(net, 3)
    rows = account(freeze(net.state(), net.untouched()), net.category).rows()
    weights = sum(value.nbytes for value in net.vit.state_dict().values())
    adapter, prototypes = expected(64, 6, 4, 6)
    assert rows == {("model", "params"): weights + adapter, ("model", "prototypes"): prototypes}


def test_defaults_are_the_toolboxs() -> None:
    net = AperAdapter(INPUTS, Vit("test_vit", weights=False, image_size=16))
    assert net.adapter.down.shape == (6, 64, 64)
    assert net.first == Recipe(epochs=20, lr=0.01, schedule="cosine", batch_size=48, weight_decay=5e-4)
