"""DualPrompt: whose prefixes an image takes while training and at test, the loss by hand, bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, log_softmax

from clearn import checks
from clearn.errors import ConfigError
from clearn.ledger import account
from clearn.parts.frozen_vit import Vit
from clearn.parts.prompts import Prefix
from clearn.recipe import Recipe
from clearn.state import freeze
from clearn.stream import Inputs
from strategies.dualprompt import DualPrompt

torch.set_num_threads(1)

Learned = Callable[..., Any]
INPUTS, TINY = Inputs((3, 8, 8)), Vit("test_vit", weights=False, image_size=16)
BRIEF = Recipe(epochs=2, lr=0.01, schedule="constant", batch_size=8, optimizer="adam")
D = 64


def dual(**options: Any) -> DualPrompt:
    torch.manual_seed(0)
    return DualPrompt(INPUTS, TINY, **({"recipe": BRIEF} | options)).eval()


def images(*labels: int) -> tuple[Tensor, Tensor]:
    part = checks.toy_stream(1, 6).task(0).train
    keep = torch.isin(part.labels, torch.tensor(labels or range(6))).nonzero().flatten()
    return part.fetch(keep), part.labels[keep]


def scores(net: DualPrompt, image: Tensor, version: int) -> Tensor:
    """(C,) logits of one image with one task's prefixes, spelt out block by block."""
    assert net.head is not None
    prefixes = {block: Prefix(*net.shared.rows[i, :, :1]) for i, block in enumerate((0, 1))}
    prefixes |= {block: Prefix(*net.own.rows[i, :, version : version + 1]) for i, block in enumerate((2, 3, 4))}
    logits: Tensor = net.head(net.vit(image[None], prefixes=prefixes))[0]
    return logits


def matches(net: DualPrompt, x: Tensor) -> list[int]:
    return [int(cosine_similarity(q[None], net.keys).argmax()) for q in net.vit(x)]


@pytest.mark.parametrize("pool", [10, 1])
def test_the_loss_is_that_of_the_new_classes_with_the_tasks_own_prefixes(pool: int, learned: Learned) -> None:
    net = dual(pool=pool, pull=0.3)
    learned(net, 1)
    ctx = learned(net, 2, first=1, train=False)
    x, y = images(2, 3)
    version = 1 if pool == 10 else 0
    queries = net.vit(x)
    expected = [
        -log_softmax(scores(net, image, version)[2:], 0)[label - 2]
        - 0.3 * cosine_similarity(query[None], net.keys[version][None])[0]
        for image, label, query in zip(x, y, queries, strict=True)
    ]
    torch.testing.assert_close(ctx.phases[0].loss(x, y), torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_with_all_prefixes_given_out_later_tasks_match_by_key_while_training(learned: Learned) -> None:
    net = dual(pool=2, pull=0.0)
    learned(net, 2)
    ctx = learned(net, 3, first=2, train=False)
    x, y = images(4, 5)
    with torch.no_grad():
        net.keys[0], net.keys[1] = net.vit(x[:1])[0], net.vit(x[-1:])[0]
        which = matches(net, x)
        assert set(which) == {0, 1}
        expected = [
            -log_softmax(scores(net, image, version)[4:], 0)[label - 4]
            for image, label, version in zip(x, y, which, strict=True)
        ]
        torch.testing.assert_close(ctx.phases[0].loss(x, y), torch.stack(expected), rtol=1e-4, atol=1e-5)
    assert len(net.own) == 2


def test_at_test_each_image_takes_the_prefixes_of_the_nearest_key(learned: Learned) -> None:
    net = dual()
    learned(net, 3)
    x, _ = images()
    with torch.no_grad():
        for key, image in zip(net.keys, (0, 30, 60), strict=True):
            key.copy_(net.eval().vit(x[image : image + 1])[0])
        which = matches(net, x)
        assert set(which) == {0, 1, 2}
        expected = torch.stack([scores(net, image, version) for image, version in zip(x, which, strict=True)])
        torch.testing.assert_close(net.predict(x), expected, rtol=1e-4, atol=1e-5)


def test_what_earlier_tasks_own_does_not_change_and_what_is_shared_does(learned: Learned) -> None:
    net = dual()
    learned(net, 1)
    assert net.head is not None
    own, key, shared = (value.detach().clone() for value in (net.own.rows, net.keys, net.shared.rows))
    head = net.head.weight.detach().clone()
    ctx = learned(net, 2, first=1)
    assert len(ctx.phases) == 1
    assert torch.equal(net.own.rows[:, :, 0], own[:, :, 0])
    assert torch.equal(net.keys[0], key[0])
    assert torch.equal(net.head.weight[:2], head)
    assert not torch.equal(net.own.rows[:, :, 1], own[:, :, 0])
    assert not torch.equal(net.shared.rows, shared)


def test_a_new_tasks_prefixes_begin_as_those_before(learned: Learned) -> None:
    net = dual()
    learned(net, 1)
    learned(net, 2, first=1, train=False)
    assert torch.equal(net.own.rows[:, :, 1], net.own.rows[:, :, 0])
    assert not torch.equal(net.keys[1], net.keys[0])


def test_bytes_are_the_specs(learned: Learned) -> None:
    def expected(d: int, versions: int, n_classes: int) -> int:
        return 4 * (2 * 2 * 5 * d + 3 * 2 * versions * 5 * d + versions * d + n_classes * (d + 1))

    assert expected(768, 10, 100) == 1_321_360
    for pool, versions in ((10, 3), (2, 2)):
        net = dual(pool=pool)
        learned(net, 3, train=False)
        rows = account(freeze(net.state(), net.untouched()), net.category).rows()
        weights = sum(value.nbytes for value in net.vit.state_dict().values())
        head = 4 * 6 * (D + 1)
        assert rows == {("model", "params"): weights + expected(D, versions, 6) - head, ("model", "head"): head}


def test_defaults_are_the_toolboxs() -> None:
    net = DualPrompt(INPUTS, TINY)
    assert net.recipe == Recipe(epochs=5, lr=0.001, schedule="constant", batch_size=24, optimizer="adam")
    assert (net.shared.blocks, net.own.blocks, net.pool, net.pull) == ((0, 1), (2, 3, 4), 10, 0.1)


def test_all_that_is_wrong_is_said_together_before_weights_are_looked_for() -> None:
    absent = Vit("test_vit", weights="absent.safetensors")
    with pytest.raises(ConfigError, match=r"^length=0 must be 1 or more; pull=nan must be 0 or more and finite$"):
        DualPrompt(INPUTS, absent, length=0, pull=float("nan"))
    words = (
        r"^shared_blocks and task_blocks together=\[0, 2, 2, 3, 4\] must be one or more different blocks in \[0, 5\]$"
    )
    with pytest.raises(ConfigError, match=words):
        DualPrompt(INPUTS, TINY, shared_blocks=(0, 2))
