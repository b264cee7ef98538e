"""L2P: the loss by hand, what trains, votes that never reach the test, bytes."""

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
from clearn.recipe import Recipe
from clearn.state import freeze
from clearn.stream import Inputs, TaskInfo
from strategies.l2p import L2p

torch.set_num_threads(1)

Learned = Callable[..., Any]
INPUTS, TINY = Inputs((3, 8, 8)), Vit("test_vit", weights=False, image_size=16)
BRIEF = Recipe(epochs=2, lr=0.01, schedule="constant", batch_size=8, optimizer="adam")
D = 64


def l2p(**options: Any) -> L2p:
    torch.manual_seed(0)
    return L2p(INPUTS, TINY, **({"recipe": BRIEF} | options)).eval()


def images() -> tuple[Tensor, Tensor]:
    part = checks.toy_stream(1, 6).task(0).train
    return part.fetch(torch.arange(len(part))), part.labels


def one_by_one(net: L2p, x: Tensor) -> tuple[list[list[int]], Tensor]:
    """Each image's prompts, nearest first, and the cosines of all, by the definition."""
    queries = net.vit(x)
    cosines = torch.stack([cosine_similarity(q[None], net.pool.keys) for q in queries])
    return [sorted(range(cosines.shape[1]), key=lambda m: -row[m])[: net.top] for row in cosines.tolist()], cosines


@pytest.mark.parametrize("batchwise", [False, True])
def test_the_loss_is_that_of_the_new_classes_less_the_chosen_cosines(batchwise: bool, learned: Learned) -> None:
    net = l2p(batchwise=batchwise, pool=6, top=2, length=3, pull=0.3)
    learned(net, 1)
    ctx = learned(net, 2, first=1, train=False)
    phase = ctx.phases[0]
    assert phase.module is net
    x, y = images()
    x, y = x[(y == 2) | (y == 3)], y[(y == 2) | (y == 3)]
    chosen, cosines = one_by_one(net, x)
    if batchwise:
        votes = [sum(m in rows for rows in chosen) for m in range(6)]
        chosen = [sorted(range(6), key=lambda m: -votes[m])[:2]] * len(x)
    assert net.head is not None
    expected = []
    for image, label, rows, row in zip(x, y, chosen, cosines, strict=True):
        tokens = torch.cat([net.pool.prompts[m] for m in rows])  # (6, d)
        logits = net.head(net.vit.prompted(image[None], tokens[None]).mean(1))[0, 2:]
        expected.append(-log_softmax(logits, 0)[label - 2] - 0.3 * sum(row[m] for m in rows))
    torch.testing.assert_close(phase.loss(x, y), torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_chosen_prompts_their_keys_and_the_new_rows_get_gradients(learned: Learned) -> None:
    net = l2p(top=2)
    learned(net, 1)
    ctx = learned(net, 2, first=1, train=False)
    x, y = images()
    x, y = x[(y == 2) | (y == 3)], y[(y == 2) | (y == 3)]
    ctx.phases[0].loss(x, y).mean().backward()
    votes = torch.bincount(torch.tensor(one_by_one(net, x)[0]).flatten(), minlength=10)
    chosen = set(votes.sort(descending=True, stable=True).indices[:2].tolist())
    assert net.pool.prompts.grad is not None
    assert net.pool.keys.grad is not None
    assert net.head is not None
    assert set(net.pool.prompts.grad.flatten(1).any(1).nonzero().flatten().tolist()) == chosen
    assert set(net.pool.keys.grad.any(1).nonzero().flatten().tolist()) == chosen
    assert net.head.weight.grad is not None
    assert not bool(net.head.weight.grad[:2].any())
    assert bool(net.head.weight.grad[2:].any())
    assert not any(parameter.requires_grad for parameter in net.vit.parameters())


def test_old_rows_of_the_head_and_prompts_not_chosen_stay_as_they_are(learned: Learned) -> None:
    net = l2p(top=1)
    learned(net, 1)
    assert net.head is not None
    rows, prompts = net.head.weight.detach().clone(), net.pool.prompts.detach().clone()
    learned(net, 2, first=1)
    assert torch.equal(net.head.weight[:2], rows)
    same = (net.pool.prompts == prompts).flatten(1).all(1)
    assert 0 < int(same.sum()) < 10


def test_at_test_nobody_votes(learned: Learned) -> None:
    """Crowds of one kind would outvote a single image of another; its answer is the same among them."""
    net = l2p(top=1)
    learned(net, 1)
    x, _ = images()
    with torch.no_grad():
        queries = net.vit(x)
        net.pool.keys[0] = queries[0]
        net.pool.keys[1] = queries[40]
        net.pool.keys[2:] = -queries.mean(0)
        crowd = torch.cat([x[40:41], x[:1].expand(20, -1, -1, -1)])
        assert one_by_one(net, crowd)[0] == [[1]] + [[0]] * 20
        torch.testing.assert_close(net.predict(crowd)[:1], net.predict(x[40:41]))
        wrong = net.logits(x[40:41], torch.tensor([[0]]))
        assert not torch.allclose(net.predict(crowd)[:1], wrong, atol=1e-4)


def test_a_pool_with_fewer_prompts_than_classes_or_one_class_a_task_works(learned: Learned) -> None:
    net = l2p(pool=1, top=1)
    learned(net, 2, stream=checks.toy_stream(2, 1))
    with torch.no_grad():
        assert bool(net.eval().predict(images()[0]).isfinite().all())


def test_bytes_are_the_specs(learned: Learned) -> None:
    def expected(d: int, pool: int, length: int, n_classes: int) -> int:
        return 4 * (pool * length * d + pool * d + n_classes * (d + 1))

    assert expected(768, 10, 5, 100) == 491_920
    net = l2p(pool=7, length=3)
    learned(net, 3)
    rows = account(freeze(net.state(), net.untouched()), net.category).rows()
    weights = sum(value.nbytes for value in net.vit.state_dict().values())
    head = 4 * 6 * (D + 1)
    assert rows == {("model", "params"): weights + expected(D, 7, 3, 6) - head, ("model", "head"): head}


def test_defaults_are_the_toolboxs() -> None:
    net = L2p(INPUTS, TINY)
    assert net.pool.prompts.shape == (10, 5, D)
    assert (net.top, net.pull) == (5, 0.1)
    assert net.recipe == Recipe(epochs=5, lr=0.001875, schedule="constant", batch_size=16, optimizer="adam")
    net.grow(TaskInfo(0, tuple(range(100))))
    assert net.head is not None
    assert float(net.head.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert not bool(net.head.bias.any())


def test_all_that_is_wrong_is_said_together() -> None:
    with pytest.raises(ConfigError) as caught:
        L2p(INPUTS, TINY, length=0, top=11, pull=-1.0)
    assert str(caught.value) == (
        "length=0 must be 1 or more; top=11 must be in [1, 10], the prompts of the pool; "
        "pull=-1.0 must be 0 or more and finite"
    )
    with pytest.raises(ConfigError, match="no class token"):
        L2p(INPUTS, Vit("vit_wee_patch16_reg1_gap_256", False, 32))
