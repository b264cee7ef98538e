"""Importances against one backward pass per sample, written naively; numbers of specs/unlearning.md, section 12."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from scipy.stats import f as f_distribution
from torch import Tensor, nn

from clearn.parts.backbones import blueprint
from clearn.parts.importance import (
    CROSS_ENTROPY,
    LENGTH,
    Batch,
    Importance,
    Sweep,
    batch,
    class_mean,
    class_mean_split,
    exact,
    exact_split,
    way,
)
from clearn.parts.sample_gradients import Objective
from clearn.stream import Inputs

torch.set_num_threads(1)

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
N = 7


def naive(net: nn.Module, x: Tensor, y: Tensor, objective: Objective = CROSS_ENTROPY) -> dict[str, Tensor]:
    """One backward pass per sample; the sum is taken in float64."""
    sums = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in net.named_parameters()}
    for i in range(len(x)):
        net.zero_grad()
        objective.losses(net(x[i : i + 1]), y[i : i + 1]).sum().backward()
        for name, p in net.named_parameters():
            if p.grad is not None:
                sums[name] += objective.magnitude(p.grad.double())
    net.zero_grad()
    return sums


def batches(x: Tensor, y: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(x.split(size), y.split(size), strict=True)


def assert_equal(found: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float) -> None:
    """Compare every entry, relative to the largest of its tensor; where that is rounding, to the largest of the net."""
    assert found.keys() == wanted.keys()
    floor = max(float(x.max()) for x in wanted.values()) * tolerance
    for name, x in wanted.items():
        error = float((found[name].double() - x.double()).abs().max())
        assert error <= tolerance * max(float(x.max()), floor), f"{name}: {error} of {float(x.max())}"


def labels(n: int, classes: int = 5) -> Tensor:
    return torch.arange(n) % classes


def images(n: int, channels: int = 3, size: int = 8) -> Tensor:
    return torch.randn(n, channels, size, size)


# ---- nets


class Pooled(nn.Module):
    """Some layers, then the mean over positions of the last or of all but the first two dimensions, then a head."""

    def __init__(self, *layers: nn.Module, width: int, last: bool = False) -> None:
        super().__init__()
        self.layers, self.last, self.head = nn.Sequential(*layers), last, nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.layers(x)
        h = h.flatten(1, -2).mean(1) if self.last else h.flatten(2).mean(2)
        return self.head(h)


class Attention(nn.Module):
    """Single-head self-attention from Linears, with a residual and layer norms."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.norm, self.q, self.k, self.v = nn.LayerNorm(d), *(nn.Linear(d, d) for _ in range(3))
        self.out = nn.Linear(d, d)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        weights = (self.q(h) @ self.k(h).mT / math.sqrt(h.shape[-1])).softmax(-1)
        return x + self.out(weights @ self.v(h))


class Language(nn.Module):
    """Embedding whose table is the output layer too; positions as a raw parameter."""

    def __init__(self, pad: int | None = None) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 6, padding_idx=pad)
        self.positions = nn.Parameter(torch.randn(1, 9, 6))
        self.attention = Attention(6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        h = self.attention(self.table(ids) + self.positions[:, : ids.shape[1]])
        return self.head(h).mean(1)


class Twice(nn.Module):
    """One block and one scale used twice, and a bias that both a layer and a sum read."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.norm, self.head = nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 5)
        self.scale = nn.Parameter(torch.randn(6))

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = self.norm(F.gelu(self.block(x))) * self.scale + self.block.bias
        return self.head(x.mean(1))


class Functional(nn.Module):
    """Weights that reach the data through functions of parameters: transposes, norms, slices."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(6, 8))
        self.second = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
        self.prototypes = nn.Parameter(torch.randn(5, 8))
        self.temperature = nn.Parameter(torch.tensor(0.3))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.second(torch.relu(x @ self.first)))
        return self.temperature.exp() * F.linear(F.normalize(h, dim=1), F.normalize(self.prototypes, dim=1))


class InPlace(nn.Module):
    """In-place functions after the stem, whose input needs no gradient, and after others."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.next = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.next(self.norm(self.stem(x).relu_()).relu_())
        h += self.stem(x)
        return self.head(h.relu_().flatten(2).mean(2))


class Windows(nn.Module):
    """Positions folded into the batch, side by side (as Swin does) or samples last (as sequence-first code does)."""

    def __init__(self, side_by_side: bool) -> None:
        super().__init__()
        self.side_by_side, self.layer, self.head = side_by_side, nn.Linear(6, 6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        if self.side_by_side:
            h = self.layer(x.reshape(n * 2, t // 2, d)).reshape(n, t, d)
        else:
            h = self.layer(x.transpose(0, 1)).transpose(0, 1)
        return self.head(torch.tanh(h).mean(1))


class MultiHead(nn.Module):
    """torch's fused attention, whose output projection is never called as a module."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(6, 7, batch_first=True), nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])


class Doubled(torch.autograd.Function):
    """A function of its own with a parameter inside: no rule sees it, and vmap cannot run it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return 2 * F.linear(x, weight)

    @staticmethod
    def backward(ctx: Any, *deltas: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return 2 * deltas[0] @ weight, 2 * deltas[0].mT @ x


class Custom(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.head = nn.Parameter(torch.randn(6, 6)), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(Doubled.apply(x, self.weight)))


def settled(net: nn.Module) -> nn.Module:
    """Give norms statistics and scales that differ from where they start."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_()  # type: ignore[union-attr, operator]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr, operator]
    for name, p in net.named_parameters():
        if p.ndim == 1 and "norm" in name:
            nn.init.normal_(p, 1.0, 0.3)
    return net.eval()


def vit() -> nn.Module:
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, embed_dim=24, num_classes=5, init_values=0.5
    )


def backbone(name: str) -> nn.Module:
    plan = blueprint(name, Inputs((3, 8, 8)))
    return nn.Sequential(plan.whole(), nn.Linear(plan.width, 5))


NETS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Tensor]]] = {
    "linear": (lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5)), lambda n: torch.randn(n, 6)),
    "linear over positions": (
        lambda: Pooled(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), width=8, last=True),
        lambda n: torch.randn(n, 4, 6),
    ),
    "linear over two dimensions": (
        lambda: Pooled(nn.Linear(6, 8, bias=False), nn.Tanh(), width=8, last=True),
        lambda n: torch.randn(n, 3, 4, 6),
    ),
    "conv, groups 4, stride 2, dilation 2": (
        lambda: Pooled(
            nn.Conv2d(4, 8, 3, stride=2, dilation=2, padding=1, groups=4), nn.ReLU(), nn.Conv2d(8, 8, 1), width=8
        ),
        lambda n: images(n, 4, 9),
    ),
    "conv, oblong": (
        lambda: Pooled(
            nn.Conv2d(3, 8, (3, 1), stride=(1, 2), padding=(2, 0)), nn.GELU(), nn.Conv2d(8, 8, (2, 3)), width=8
        ),
        images,
    ),
    "conv, padded by name": (
        lambda: Pooled(
            nn.Conv2d(3, 6, (3, 5), dilation=(2, 1), padding="same"),
            nn.Tanh(),
            nn.Conv2d(6, 4, 3, padding="valid"),
            width=4,
        ),
        images,
    ),
    "conv, padded around": (lambda: Pooled(nn.Conv2d(3, 6, 3, padding=1, padding_mode="circular"), width=6), images),
    "depthwise conv": (lambda: Pooled(nn.Conv2d(6, 6, 3, groups=6), width=6), lambda n: images(n, 6)),
    "large conv": (lambda: Pooled(nn.Conv2d(96, 96, 3), nn.ReLU(), width=96), lambda n: images(n, 96, 5)),
    "conv1d": (
        lambda: Pooled(nn.Conv1d(4, 6, 3, stride=2, dilation=2, groups=2), width=6),
        lambda n: torch.randn(n, 4, 12),
    ),
    "batch norm": (
        lambda: Pooled(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), width=6),
        images,
    ),
    "batch norm of vectors": (
        lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 5)),
        lambda n: torch.randn(n, 6),
    ),
    "layer norm": (
        lambda: Pooled(nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), width=8, last=True),
        lambda n: torch.randn(n, 4, 6),
    ),
    "layer norm of maps": (lambda: Pooled(nn.Conv2d(3, 6, 3), nn.LayerNorm([6, 6, 6]), width=6), images),
    "group norm": (lambda: Pooled(nn.Conv2d(3, 6, 3), nn.GroupNorm(3, 6), nn.Tanh(), width=6), images),
    "rms norm": (
        lambda: Pooled(nn.Linear(6, 8), nn.RMSNorm(8), nn.Tanh(), width=8, last=True),
        lambda n: torch.randn(n, 4, 6),
    ),
    "embedding": (
        lambda: Pooled(nn.Embedding(5, 6), nn.Linear(6, 6), nn.Tanh(), width=6, last=True),
        lambda n: torch.randint(0, 5, (n, 7)),
    ),
    "attention": (lambda: Pooled(Attention(6), Attention(6), width=6, last=True), lambda n: torch.randn(n, 4, 6)),
    "tied embedding": (Language, lambda n: torch.randint(0, 11, (n, 7))),
    "tied embedding with padding": (lambda: Language(pad=2), lambda n: torch.randint(0, 4, (n, 7))),
    "shared block": (Twice, lambda n: torch.randn(n, 4, 6)),
    "functions of parameters": (Functional, lambda n: torch.randn(n, 6)),
    "in place": (InPlace, images),
    "windows": (lambda: Windows(side_by_side=True), lambda n: torch.randn(n, 4, 6)),
    "ViT": (vit, lambda n: images(n, 3, 32)),
    "resnet14": (lambda: backbone("resnet14"), images),
    "convnet2": (lambda: backbone("convnet2"), images),
}
OTHERS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Tensor], str]] = {
    "multi-head attention": (MultiHead, lambda n: torch.randn(n, 4, 8), "vmap"),
    "sequence first": (lambda: Windows(side_by_side=False), lambda n: torch.randn(n, 4, 6), "vmap"),
    "transposed conv": (lambda: Pooled(nn.ConvTranspose2d(3, 6, 3), width=6), images, "vmap"),
    "instance norm": (
        lambda: Pooled(nn.Conv2d(3, 6, 3), nn.InstanceNorm2d(6, affine=True), nn.Tanh(), width=6),
        images,
        "vmap",
    ),
    "custom function": (Custom, lambda n: torch.randn(n, 6), "loop"),
    "LSTM": (Recurrent, lambda n: torch.randn(n, 4, 6), "vmap"),
}
EVERY = {**{name: (*net, "rules") for name, net in NETS.items()}, **OTHERS}


def made(name: str, dtype: torch.dtype, n: int = N) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(1)
    build, inputs, _ = EVERY[name]
    net, x = settled(build()), inputs(n)
    return net.to(dtype), x.to(dtype) if x.is_floating_point() else x, labels(n)


# ---- exact


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", EVERY)
def test_exact_equals_one_backward_pass_per_sample(name: str, dtype: torch.dtype) -> None:
    net, x, y = made(name, dtype)
    wanted = naive(net, x, y)
    for size in (1, 3, N):  # 7 = 3 + 3 + 1: an uneven last batch of one sample
        found = exact(net, batches(x, y, size))
        assert found.count == N
        assert all(total.dtype == dtype for total in found.sums.values())
        assert_equal(found.sums, wanted, TOLERANCE[dtype])
    for chunk in (1, 4):
        assert_equal(exact(net, [(x, y)], Sweep(chunk=chunk)).sums, wanted, TOLERANCE[dtype])


@pytest.mark.parametrize("name", EVERY)
def test_each_net_takes_the_cheapest_way_that_is_exact(name: str) -> None:
    net, x, y = made(name, torch.float32)
    assert way(net, x, y) == EVERY[name][2]


@pytest.mark.parametrize(
    "name", ["linear over positions", "batch norm", "tied embedding", "ViT", "multi-head attention"]
)
def test_label_free_importances_equal_one_backward_pass_per_sample_and_need_no_labels(name: str) -> None:
    net, x, y = made(name, torch.float64)
    found = exact(net, batches(x, y, 3), Sweep(LENGTH))
    assert_equal(found.sums, naive(net, x, y, LENGTH), 1e-10)
    garbage = exact(net, batches(x, -1000 * torch.ones_like(y), 3), Sweep(LENGTH))
    assert all(torch.equal(found.sums[key], garbage.sums[key]) for key in found.sums)


@pytest.mark.parametrize("name", ["batch norm", "tied embedding", "ViT"])
def test_order_of_samples_changes_nothing_and_a_second_run_no_bit(name: str) -> None:
    net, x, y = made(name, torch.float64)
    first = exact(net, batches(x, y, 3)).sums
    again = exact(net, batches(x, y, 3)).sums
    assert all(torch.equal(first[key], again[key]) for key in first)
    order = torch.tensor([3, 0, 6, 5, 1, 2, 4])
    assert_equal(exact(net, batches(x[order], y[order], 4)).sums, first, 1e-12)


@pytest.mark.parametrize("name", ["resnet14", "multi-head attention", "custom function"])
def test_two_sets_in_one_pass_equal_a_pass_for_each(name: str) -> None:
    net, x, y = made(name, torch.float64)
    forget = torch.tensor([0, 1, 0, 0, 1, 1, 0]).bool()
    given = [Batch(x[:4], y[:4], forget[:4]), (x[4:6], y[4:6], forget[4:6]), (x[6:], y[6:])]
    found = exact_split(net, given)
    assert (found.forget.count, found.retain.count, found.whole.count) == (3, 4, 7)
    assert_equal(found.forget.sums, naive(net, x[forget], y[forget]), 1e-10)
    assert_equal(found.retain.sums, naive(net, x[~forget], y[~forget]), 1e-10)
    assert_equal(found.whole.sums, exact(net, given).sums, 1e-12)
    assert_equal(found.whole.mean(), {name: total / 7 for name, total in naive(net, x, y).items()}, 1e-10)


@pytest.mark.parametrize(
    "name", ["linear", "attention", "tied embedding", "batch norm", "instance norm", "custom function"]
)
@pytest.mark.parametrize("objective", [CROSS_ENTROPY, LENGTH], ids=["squares", "absolutes"])
def test_a_weight_counts_a_sample_as_often(name: str, objective: Objective) -> None:
    net, x, y = made(name, torch.float64)
    times = torch.tensor([1, 3, 0, 2, 1, 1, 5])
    found = exact(net, [Batch(x, y, weights=times)], Sweep(objective, chunk=4))
    repeated = exact(net, [(x.repeat_interleave(times, 0), y.repeat_interleave(times, 0))], Sweep(objective))
    assert found.count == repeated.count == 13
    assert_equal(found.sums, repeated.sums, 1e-12)


def test_two_shards_add_up_to_one_pass() -> None:
    net, x, y = made("conv1d", torch.float64)
    parts = exact(net, [(x[:3], y[:3])]) + exact(net, [(x[3:], y[3:])])
    assert parts.count == N
    assert_equal(parts.mean(), exact(net, [(x, y)]).mean(), 1e-12)


# ---- by hand


def single(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer


def test_two_class_example_of_the_spec() -> None:
    """W = 0, x = 1, labels (0, 0, 0, 1): exact ratio 1, batch ratio 4 with D as one batch and D_f as one."""
    net = single(torch.zeros(2, 1))
    x, y = torch.ones(4, 1, dtype=torch.float64), torch.tensor([0, 0, 0, 1])
    i_d, i_f = exact(net, [(x, y)]).mean()["weight"], exact(net, [(x[3:], y[3:])]).mean()["weight"]
    assert i_d.flatten().tolist() == i_f.flatten().tolist() == [0.25, 0.25]
    i_d, i_f = batch(net, [(x, y)]).mean()["weight"], batch(net, [(x[3:], y[3:])]).mean()["weight"]
    assert (i_d.flatten().tolist(), i_f.flatten().tolist()) == ([0.0625, 0.0625], [0.25, 0.25])


def test_positions_are_summed_before_squaring() -> None:
    """a = (1, 1), delta = (1, -1): 0, where squares over positions would give 2."""
    net = single(torch.zeros(1, 1))
    signs = Objective(lambda outputs, _: outputs[:, 0, 0] - outputs[:, 1, 0])
    assert exact(net, [(torch.ones(1, 2, 1).double(), torch.zeros(1))], Sweep(signs)).sums["weight"].item() == 0


def test_an_embedding_sums_equal_ids_before_squaring() -> None:
    """ids (3, 3), delta = 1, 1: 4, where squares over positions would give 2."""
    net = nn.Embedding(5, 1)
    total = Objective(lambda outputs, _: outputs.flatten(1).sum(1))
    found = exact(net, [(torch.tensor([[3, 3]]), torch.zeros(1))], Sweep(total)).sums["weight"]
    assert found.flatten().tolist() == [0, 0, 0, 4, 0]


def test_ratio_is_at_most_n_over_m() -> None:
    for name in ("linear", "batch norm", "attention"):
        net, x, y = made(name, torch.float64, n=20)
        forget = torch.arange(20) < 3
        for split in (exact_split, class_mean_split):
            for objective in (CROSS_ENTROPY, LENGTH):
                found = split(net, [(x[:9], y[:9], forget[:9]), (x[9:], y[9:], forget[9:])], Sweep(objective))
                i_d, i_f = found.whole.mean(), found.forget.mean()
                assert all(bool((i_f[key] <= 20 / 3 * (1 + 1e-9) * i_d[key]).all()) for key in i_d)


# ---- mean gradients


def test_batch_squares_mean_gradients_as_the_reference_does() -> None:
    net, x, y = made("batch norm", torch.float64)
    wanted = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
    for some, labels_ in batches(x, y, 3):  # the last has one sample, and weighs as much
        net.zero_grad()
        F.cross_entropy(net(some), labels_).backward()
        for name, p in net.named_parameters():
            wanted[name] += p.grad.detach() ** 2 / 3  # type: ignore[union-attr]
    for chunk in (64, 2):
        assert_equal(batch(net, batches(x, y, 3), Sweep(chunk=chunk)).mean(), wanted, 1e-12)


@pytest.mark.parametrize("objective", [CROSS_ENTROPY, LENGTH], ids=["squares", "absolutes"])
def test_batches_of_one_give_the_exact_importance(objective: Objective) -> None:
    net, x, y = made("conv1d", torch.float64)
    found, wanted = (f(net, batches(x, y, 1), Sweep(objective)) for f in (batch, exact))
    assert found.count == wanted.count == N
    assert_equal(found.sums, wanted.sums, 1e-12)


@pytest.mark.parametrize(("m", "share"), [(100, 0.0052), (83, 0.0109)])
def test_noise_that_the_batch_approximation_selects(m: int, share: float) -> None:
    """Gradients that are Gaussian noise: alpha = 10 selects erfc(sqrt(10 m / 256)); with 50 batches, a tail of F."""
    p, k, size = 20_000, 50, 128
    rng = torch.Generator().manual_seed(5)
    net, itself = nn.Linear(p, 1, bias=False), Sweep(Objective(lambda outputs, _: outputs[:, 0]))

    def noise(n: int) -> tuple[Tensor, Tensor]:
        return torch.randn(n, p, generator=rng), torch.zeros(n)

    assert math.erfc(math.sqrt(10 * m / 256)) == pytest.approx(share, rel=0.01)
    i_d = batch(net, (noise(size) for _ in range(k)), itself).mean()["weight"]
    i_f = batch(net, [noise(m)], itself).mean()["weight"]
    selected = float((i_f > 10 * i_d).double().mean())
    expected = float(f_distribution.sf(10 * m / size, 1, k))
    assert abs(selected - expected) < 4 * math.sqrt(expected * (1 - expected) / p)


@pytest.mark.parametrize("objective", [CROSS_ENTROPY, LENGTH], ids=["squares", "absolutes"])
def test_class_means_are_squared_and_weighed_by_class(objective: Objective) -> None:
    net, x, y = made("batch norm", torch.float64, n=11)
    wanted = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
    for label in range(5):
        rows = y == label
        net.zero_grad()
        objective.losses(net(x[rows]), y[rows]).mean().backward()
        for name, p in net.named_parameters():
            wanted[name] += objective.magnitude(p.grad.detach()) * rows.sum()  # type: ignore[union-attr]
    net.zero_grad()
    order = y.argsort()
    for found in (
        class_mean(net, batches(x, y, 4), Sweep(objective, chunk=2)),
        class_mean(net, batches(x[order], y[order], 4), Sweep(objective), class_sorted=True),
    ):
        assert found.count == 11
        assert_equal(found.sums, wanted, 1e-12)
    split = class_mean_split(net, [(x, y, y == 2)], Sweep(objective))  # a whole class: the definition's own parts
    assert (split.forget.count, split.retain.count) == (2, 9)
    assert_equal(split.whole.sums, wanted, 1e-12)


def test_class_means_refuse_a_class_that_comes_back() -> None:
    net, x, y = made("linear", torch.float32)
    with pytest.raises(ValueError, match="class 0 came back after others"):
        class_mean(net, batches(x, y, 1), class_sorted=True)


# ---- what stays as it was, and what is refused


class Stubborn(nn.BatchNorm1d):
    """Stays in train mode, as code that never freezes its statistics does."""

    def train(self, mode: bool = True) -> Stubborn:
        return super().train(True)


class Counting(nn.Module):
    """Counts its calls in a buffer, in any mode."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x


EACH: list[Callable[..., Any]] = [exact, batch, class_mean]


@pytest.mark.parametrize("importance", EACH)
@pytest.mark.parametrize(
    "norm", [Stubborn(6), nn.BatchNorm1d(6, track_running_stats=False)], ids=["stubborn", "no stats"]
)
def test_batch_statistics_are_refused(importance: Callable[..., Any], norm: nn.Module) -> None:
    net = nn.Sequential(nn.Linear(6, 6), norm, nn.Linear(6, 5))
    before = {name: x.clone() for name, x in net.state_dict().items()}
    with pytest.raises(ValueError, match="a batch norm uses the statistics of its batch"):
        importance(net, [(torch.randn(4, 6), labels(4))])
    assert all(torch.equal(x, before[name]) for name, x in net.state_dict().items())


@pytest.mark.parametrize("importance", EACH)
def test_modes_flags_buffers_gradients_and_generators_stay_as_they_were(importance: Callable[..., Any]) -> None:
    net = nn.Sequential(
        nn.Linear(6, 6), nn.BatchNorm1d(6), Counting(), nn.Dropout(0.5), nn.MultiheadAttention(6, 2), nn.Linear(6, 5)
    )
    net[4].forward = lambda x: x  # only there to have modules that are not used
    net.train()
    net[3].eval()
    net[0].bias.requires_grad_(False)
    net[5].weight.grad = torch.ones(5, 6)
    modes, flags = [m.training for m in net.modules()], [p.requires_grad for p in net.parameters()]
    before, drawn = {name: x.clone() for name, x in net.state_dict().items()}, torch.get_rng_state()
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    kept = x.clone()
    found = importance(net, [(x, labels(4))])
    assert [m.training for m in net.modules()] == modes
    assert [p.requires_grad for p in net.parameters()] == flags
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), drawn)
    assert torch.equal(x, kept)
    assert net[5].weight.grad.tolist() == torch.ones(5, 6).tolist()
    assert net[0].weight.grad is None
    assert "0.bias" not in found.sums  # it is frozen
    assert not found.sums["4.in_proj_weight"].any()  # no gradient reaches it
    assert not any(total.requires_grad for total in found.sums.values())


def test_names_choose_parameters_and_frozen_ones_too() -> None:
    net, x, y = made("batch norm", torch.float64)
    wanted = naive(net, x, y)
    net.requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter is chosen"):
        exact(net, [(x, y)])
    for name in ("head.weight", "layers.0.bias"):
        assert_equal(exact(net, [(x, y)], Sweep(names=[name])).sums, {name: wanted[name]}, 1e-10)
    with pytest.raises(LookupError, match="the net has no parameter 'wieght'"):
        exact(net, [(x, y)], Sweep(names=["wieght"]))


def test_another_forward_than_the_net_s_own() -> None:
    net, x, y = made("multi-head attention", torch.float64)
    doubled = exact(net, [(x, y)], Sweep(LENGTH, forward=lambda inputs: 2 * net(inputs)))
    assert_equal(doubled.sums, {name: 4 * total for name, total in naive(net, x, y, LENGTH).items()}, 1e-10)


def test_a_batch_with_other_calls_than_those_checked_is_exact_too() -> None:
    class Moody(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 5), nn.Linear(6, 5)

        def forward(self, x: Tensor) -> Tensor:
            return (self.a if x[0, 0] > 0 else self.b)(x) + self.a(x)

    torch.manual_seed(0)
    net, x = Moody().double(), torch.randn(9, 6).double()
    x[:3, 0], x[3:, 0] = 1, -1
    assert_equal(exact(net, batches(x, labels(9), 3)).sums, naive(net, x, labels(9)), 1e-10)


def test_autocast_and_small_floats_are_summed_in_float32() -> None:
    net, x, y = made("ViT", torch.float32)
    wanted = exact(net, [(x, y)]).sums
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = exact(net, [(x, y)]).sums
    assert all(total.dtype == torch.float32 for total in found.values())
    assert_equal(found, wanted, 0.2)
    assert any(not torch.equal(found[name], wanted[name]) for name in found)
    halved = exact(net.bfloat16(), [(x.bfloat16(), y)]).sums
    assert all(total.dtype == torch.float32 for total in halved.values())


def test_malformed_batches_and_values_are_refused() -> None:
    net, x, y = made("linear", torch.float32)
    for given, error, words in (
        (Batch(x, y[:3]), ValueError, "targets has 3 entries for 7 inputs"),
        (Batch(x, y, weights=-torch.ones(7)), ValueError, "weights must be finite and at least 0"),
        (Batch(x * math.nan, y), ValueError, "are not finite"),
    ):
        with pytest.raises(error, match=words):
            exact(net, [given])
    with pytest.raises(TypeError, match=r"forget is torch\.int64, but must be torch\.bool"):
        exact_split(net, [(x, y, y)])
    with pytest.raises(ValueError, match="neither weights nor a forget mask"):
        batch(net, [(x, y, y == 1)])
    with pytest.raises(ValueError, match=r"losses have shape \(2, 5\)|losses have shape \(1, 5\)"):
        exact(net, [(x, y)], Sweep(Objective(lambda outputs, _: outputs)))
    with pytest.raises(ValueError, match="chunk=0 must be 1 or more"):
        exact(net, [(x, y)], Sweep(chunk=0))


def test_nothing_summed_has_no_mean_and_other_nets_do_not_add() -> None:
    net, x, y = made("linear", torch.float32)
    nothing = exact(net, [(x[:0], y[:0])])
    assert nothing.count == 0
    assert not any(total.any() for total in nothing.sums.values())
    with pytest.raises(ValueError, match="have no mean"):
        nothing.mean()
    with pytest.raises(ValueError, match=r"only one has 0\.bias, 0\.weight, 2\.bias"):
        nothing + Importance({"other": torch.zeros(1)}, 1.0)
