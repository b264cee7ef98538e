"""Merging, the instance term and classifier alignment, with the numbers of specs "mos", section 9."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from clearn.context import Context
from clearn.ledger import Budget
from clearn.options import TrainerOptions
from clearn.parts.adapters import Adapter, AdapterBank
from clearn.parts.alignment import Drawn, instance_loss, merge, merge_rate
from clearn.parts.heads import Head
from clearn.parts.statistics import Sampler
from clearn.progress import Progress
from clearn.recipe import Recipe

torch.set_num_threads(1)


class Scalar(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(value, dtype=torch.float64))


def merged(raw: float, mean: float, rate: float) -> float:
    module = Scalar(raw)
    merge(module, {"a": torch.tensor(mean)}, rate)
    return float(module.a.detach())


def test_merges_by_hand() -> None:
    second = merged(3.0, 1.0, merge_rate(0.1, 1))
    assert second == pytest.approx(2.8)
    assert merged(5.0, (1 + second) / 2, 0.1) == pytest.approx(4.69)


def test_thirteen_merges_are_one_of_rate_0_746() -> None:
    assert merge_rate(0.1, 13) == pytest.approx(0.745813, abs=5e-7)
    module = Scalar(3.0)
    for n in range(1, 14):
        merge(module, {"a": torch.tensor(1.0)}, 0.1)
        assert float(module.a.detach()) - 1 == pytest.approx(2 * 0.9**n)
    assert merged(3.0, 1.0, merge_rate(0.1, 13)) == pytest.approx(float(module.a.detach()), abs=1e-12)


def test_rate_0_keeps_every_bit_and_rate_1_takes_every_bit() -> None:
    torch.manual_seed(0)
    adapter, bank = Adapter(2, 6, 3), AdapterBank(2, 6, 3)
    for value in adapter.parameters():
        nn.init.normal_(value)
    before = {name: value.detach().clone() for name, value in adapter.named_parameters()}
    bank.grow()
    bank.add(Adapter(2, 6, 3))
    merge(adapter, bank.mean(1), merge_rate(0.0, 13))
    assert all(torch.equal(value, before[name]) for name, value in adapter.named_parameters())
    merge(adapter, bank.mean(1), merge_rate(1.0, 13))
    assert all(torch.equal(value, getattr(bank, name)[0]) for name, value in adapter.named_parameters())


def test_merging_leaves_gradients_and_momentum_alone() -> None:
    module = Scalar(1.0)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    (module.a * 3).backward()
    optimizer.step()
    merge(module, {"a": torch.tensor(0.0)}, 0.5)
    assert float(module.a.grad) == 3  # type: ignore[arg-type]
    assert float(optimizer.state[module.a]["momentum_buffer"]) == 3
    assert float(module.a.detach()) == pytest.approx(0.35)


def test_instance_term_by_hand() -> None:
    alone = float(instance_loss(torch.eye(2), torch.empty(0, 2)))
    assert alone == pytest.approx(-math.log(math.exp(1.25) / (math.exp(1.25) + 1)), rel=1e-6)
    assert alone == pytest.approx(0.251929, abs=5e-7)
    with_mean = instance_loss(torch.eye(2), torch.tensor([[2.0, 0.0]]))
    assert float(with_mean) == pytest.approx(0.700623, abs=5e-7)
    both = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    rows = cross_entropy(both @ both.T / 0.8, torch.arange(3), reduction="none")
    torch.testing.assert_close(rows, torch.tensor([0.0851, 1.5638, 0.4530]), rtol=0, atol=5e-5)


def test_old_means_get_no_gradient_but_features_do() -> None:
    features = torch.eye(2, requires_grad=True)
    instance_loss(features, torch.tensor([[2.0, 0.0]])).backward()
    assert features.grad is not None
    assert bool(features.grad.any())


def two_gaussians(d: int = 4) -> Sampler:
    """Means +-2 e_1, covariance I."""
    means = torch.zeros(2, d)
    means[:, 0] = torch.tensor([-2.0, 2.0])
    return Sampler(torch.arange(2), means, torch.eye(d).expand(2, d, d), torch.zeros(2, d))


def context() -> Context:
    return Context(
        seed=0,
        step=0,
        trainer=TrainerOptions(accelerator="cpu", threads=1),
        device=torch.device("cpu"),
        augment=None,
        budget=Budget(),
        planned=(),
        progress=Progress(),
    )


def test_alignment_reaches_bayes_rule() -> None:
    sampler, head, n_s = two_gaussians(), Head(4, 2), 240
    nn.init.trunc_normal_(head.weight, std=0.02)
    nn.init.zeros_(head.bias)
    ctx = context()
    recipe = Recipe(epochs=30, lr=0.005, schedule="cosine", batch_size=n_s)
    ctx.fit(head, Drawn(sampler, n_s, ctx.rng("align")), recipe, loss=lambda x, y: cross_entropy(head(x), y))
    assert ctx.cost.optimizer_steps == 30 * 2
    x, y = sampler.draw(100_000, torch.Generator().manual_seed(9))
    accuracy = float((head(x).argmax(1) == y).float().mean())
    bayes = (1 + math.erf(2 / math.sqrt(2))) / 2  # Phi(2) = 0.97725
    assert bayes == pytest.approx(0.977, abs=5e-4)
    assert abs(accuracy - bayes) < 4 * math.sqrt(bayes * (1 - bayes) / len(y))


def test_each_epoch_draws_other_features_of_the_same_classes() -> None:
    drawn = Drawn(two_gaussians(), 3, torch.Generator().manual_seed(0))
    assert drawn.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert (drawn.shape, drawn.dtype, len(drawn)) == ((4,), torch.float32, 6)
    order = [torch.tensor([5, 0]), torch.tensor([1, 2, 3, 4])]

    def epoch() -> tuple[Tensor, Tensor]:
        x, y = zip(*drawn.loader(order), strict=True)
        return torch.cat(x), torch.cat(y)

    (one, labels), (other, again) = epoch(), epoch()
    assert labels.tolist() == again.tolist() == [1, 0, 0, 0, 1, 1]
    assert not torch.equal(one, other)
    assert torch.equal(drawn.fetch(torch.tensor([5, 0, 1, 2, 3, 4])), other)
    kept = drawn.take(torch.tensor([5, 0]))
    epoch()
    assert torch.equal(kept.inputs, other[:2])
    assert kept.labels.tolist() == [1, 0]
