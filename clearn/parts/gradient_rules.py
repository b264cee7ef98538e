"""Per-sample gradients by layer: what each sample alone asks of a parameter, from one backward pass over a batch.

A rule belongs to a function of torch, not to a module, so it holds wherever that function is called. It gets the
function's arguments and, after the backward pass, delta = d(sum of losses) / d(output); with a = the input, i = the
sample and t = the position inside it, the gradient of sample i is the sum over t of what (a_it, delta_it) give.
Positions are summed first and squared afterwards.

Shapes: n samples, T positions of a sample, `shape` of the parameter. The first dimension of an input is n, or n * m
with the m rows of a sample side by side (windows of an image, say).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def summed_dtype(x: Tensor) -> torch.dtype:
    """Add in float32, or in float64 where the parameter is: squared gradients of a trained net underflow in less."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


Magnitude = Callable[[Tensor], Tensor]
"""torch.square or torch.abs; both are multiplicative, |xy| = |x||y|, which `Outer` relies on."""


class NoRule(Exception):
    """No rule says how this call's parameters get their per-sample gradients."""


@dataclass(frozen=True)
class Sets:
    """Which sum every sample goes to, and how heavy.

    Attributes:
        weights: (k, n) float, on the device of the sums; 0 where a sample is not in the set.
        values: the same numbers as lists, so that asking for one does not wait for the device.
    """

    weights: Tensor
    values: list[list[float]]


class Use(ABC):
    """One use of one parameter in one forward pass: the gradients it gives, sample by sample."""

    @abstractmethod
    def gradients(self, rows: slice, spare: Tensor | None = None) -> Tensor:
        """Give (b, *shape) gradients of the b samples in `rows`; they may lie in `spare`, a tensor like them."""

    def add_directly(self, sums: Sequence[Tensor], sets: Sets, magnitude: Magnitude) -> bool:
        """Add to the sums without making per-sample gradients, where that is possible; say whether it was."""
        return False


@dataclass(frozen=True)
class Plain(Use):
    """Gradients that are there already: (n, *shape)."""

    values: Tensor

    def gradients(self, rows: slice, spare: Tensor | None = None) -> Tensor:
        return self.values[rows].clone()


@dataclass(frozen=True)
class Outer(Use):
    """The weight of a linear map: G_i = sum over t of delta_it a_it^T.

    Attributes:
        inputs: a, (n, T, in).
        deltas: (n, T, out).
    """

    inputs: Tensor
    deltas: Tensor

    def gradients(self, rows: slice, spare: Tensor | None = None) -> Tensor:
        return torch.bmm(self.deltas[rows].mT, self.inputs[rows], out=spare)

    def add_directly(self, sums: Sequence[Tensor], sets: Sets, magnitude: Magnitude) -> bool:
        """With one position, G_i^2 = (delta_i^2)(a_i^2)^T, so that one product sums over all samples."""
        if self.inputs.shape[1] != 1:
            return False
        a, d = magnitude(self.inputs[:, 0]), magnitude(self.deltas[:, 0])  # (n, in), (n, out)
        for total, w, values in zip(sums, sets.weights, sets.values, strict=True):
            if any(values):
                total.addmm_((d * w[:, None].to(d.dtype)).mT, a)
        return True


@dataclass(frozen=True)
class Kernel(Use):
    """The weight of a convolution: the weight gradient of every sample alone, samples folded into groups.

    Attributes:
        inputs: (n, m, C, *space), already padded where padding has a name.
        deltas: (n, m, out, *space').
        weight: (out, C / groups, *kernel); only its shape matters.
        stride, padding, dilation: one number for each dimension of space.
        groups: of the convolution itself.
    """

    inputs: Tensor
    deltas: Tensor
    weight: Tensor
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def gradients(self, rows: slice, spare: Tensor | None = None) -> Tensor:
        a, d = self.inputs[rows], self.deltas[rows]
        if self._few_positions():
            patches = F.unfold(a[:, 0], self.weight.shape[2:], self.dilation, self.padding, self.stride)  # (b, in, T)
            flat = None if spare is None else spare.flatten(2)
            return torch.bmm(d[:, 0].flatten(2), patches.mT, out=flat).view(-1, *self.weight.shape)
        b = len(a)
        folded = [x[0] if b == 1 else x.transpose(0, 1).flatten(1, 2) for x in (a, d)]  # (m, b * channels, *space)
        weight = self.weight if b == 1 else self.weight.repeat(b, *[1] * (self.weight.ndim - 1))
        gradient: Tensor = torch.ops.aten.convolution_backward(
            *(folded[1], folded[0], weight, None, self.stride, self.padding, self.dilation),
            *(False, [0], b * self.groups, [False, True, False]),
        )[1]
        return gradient.view(b, *self.weight.shape)

    def _few_positions(self) -> bool:
        """Whether a product of matrices over patches is faster: it is where there are many channels on a small map.

        Measured for 16 samples, one thread: 29 against 39 ms with 512 channels on 4 x 4, but 50 against 15 ms with 64
        on 32 x 32.
        """
        simple = self.groups == 1 and self.weight.ndim == 4 and self.inputs.shape[1] == 1
        return simple and self.deltas.shape[3:].numel() < len(self.weight)


@dataclass(frozen=True)
class Rows(Use):
    """The table of an embedding: row v of sample i gets the deltas of the positions of i that hold v.

    Attributes:
        ids: (n, T) int64.
        deltas: (n, T, d).
        shape: of the table, (V, d).
    """

    ids: Tensor
    deltas: Tensor
    shape: torch.Size

    def gradients(self, rows: slice, spare: Tensor | None = None) -> Tensor:
        ids, deltas = self.ids[rows], self.deltas[rows]
        dense = deltas.new_zeros(len(ids), *self.shape)
        return dense.scatter_add_(1, ids[:, :, None].expand_as(deltas), deltas)

    def add_directly(self, sums: Sequence[Tensor], sets: Sets, magnitude: Magnitude) -> bool:
        """Sum by (sample, row) first: at most n * T pairs instead of n * V rows."""
        keys = self.ids + self.shape[0] * torch.arange(len(self.ids), device=self.ids.device)[:, None]
        found, place = keys.flatten().unique(return_inverse=True)
        summed = self.deltas.new_zeros(len(found), self.shape[1]).index_add_(0, place, self.deltas.flatten(0, 1))
        sample, row = found // self.shape[0], found % self.shape[0]
        for total, w, values in zip(sums, sets.weights, sets.values, strict=True):
            if any(values):
                total.index_add_(0, row, magnitude(summed) * w[sample, None].to(summed.dtype))
        return True


@dataclass(frozen=True)
class Pulled(Use):
    """A parameter behind a tensor that was made of parameters alone, such as a slice, a transpose or a norm.

    Attributes:
        use: of the tensor.
        made: the tensor, with its graph.
        leaf: the parameter, as that graph knows it.
    """

    use: Use
    made: Tensor
    leaf: Tensor

    def gradients(self, rows: slice, spare: Tensor | None = None) -> Tensor:
        outer = self.use.gradients(rows).to(self.made.dtype)
        (inner,) = torch.autograd.grad(self.made, self.leaf, outer, retain_graph=True, is_grads_batched=True)
        return inner.contiguous()


def add_up(uses: Sequence[Use], sums: Sequence[Tensor], sets: Sets, magnitude: Magnitude) -> None:
    """Add the magnitudes of the per-sample gradients, all uses of the parameter summed before.

    Bounded in memory: gradients are made for a few samples at a time, never for all. On a CPU a tile that stays in
    the cache decides: with 512 x 512 x 3 x 3 weights, one sample at a time takes 19 + 4 ms for 16 samples, four at a
    time 287 + 18 ms, and the ordinary weight gradient 30 ms.

    Args:
        uses: of one parameter.
        sums: k tensors (*shape), float32 or float64; changed.
        sets: of the n samples.
        magnitude: torch.square or torch.abs.
    """
    if len(uses) == 1 and uses[0].add_directly(sums, sets, magnitude):
        return
    n = sets.weights.shape[1]
    limit = 2**16 if sums[0].device.type == "cpu" else 2**24
    tile = max(1, limit // max(1, sums[0].numel()))
    spare = None  # large tensors made anew for each sample go back to the system each time
    for a in range(0, n, tile):
        rows = slice(a, min(a + tile, n))
        gradients = uses[0].gradients(rows, spare)
        for use in uses[1:]:
            gradients = gradients + use.gradients(rows)
        spare = gradients if len(uses) == 1 and tile == 1 else None
        sizes = None
        for total, w, values in zip(sums, sets.weights, sets.values, strict=True):
            if len(gradients) == 1 and magnitude is torch.square:
                if values[a]:
                    total.addcmul_(gradients[0], gradients[0], value=values[a])
            elif any(values[rows]):
                sizes = magnitude(gradients).reshape(len(gradients), -1) if sizes is None else sizes  # (b, numel)
                total.view(-1).addmv_(sizes.mT.to(total.dtype), w[rows].to(total.dtype))


Make = Callable[[Tensor], Use]
"""From delta, in the dtype of the sums, to the use."""

Rule = Callable[..., list[tuple[Tensor | None, Make]]]
"""(n, dtype, arguments of the function) -> its parameters, each with what makes its use. Raises `NoRule`."""


def by_sample(x: Tensor, n: int, tail: int) -> Tensor:
    """Give every sample its rows: (n * m, ..., *tail) -> (n, T, *tail), `tail` counting the last dimensions."""
    if x.ndim <= tail or x.shape[0] % n:
        raise NoRule(f"an input of shape {tuple(x.shape)} for {n} samples")
    return x.reshape(n, -1, *x.shape[x.ndim - tail :])


def linear(n: int, dtype: torch.dtype, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    """x W^T + b at every position."""
    x = by_sample(input, n, 1)  # (n, T, in)
    return [
        (weight, lambda d: Outer(x.to(dtype), by_sample(d, n, 1))),
        (bias, lambda d: Plain(by_sample(d, n, 1).sum(1))),
    ]


def matmul(n: int, dtype: torch.dtype, input: Tensor, other: Tensor) -> Any:
    """x W at every position, W of two dimensions."""
    if other.ndim != 2:
        raise NoRule(f"a product with a parameter of shape {tuple(other.shape)}")
    x = by_sample(input, n, 1)
    return [(other, lambda d: Outer(by_sample(d, n, 1), x.to(dtype)))]


def convolution(
    n: int,
    dtype: torch.dtype,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """Convolve in one, two or three dimensions, with groups, stride, dilation, and padding by number or by name."""
    space = weight.ndim - 2
    if input.ndim != weight.ndim or len(input) % n:
        raise NoRule(f"an input of shape {tuple(input.shape)} for {n} samples")
    steps, rates = (_each(value, space) for value in (stride, dilation))

    def kernel(d: Tensor) -> Use:
        x, margin = input.to(dtype), padding
        if isinstance(margin, str):
            x, margin = F.pad(x, _named_padding(margin, weight.shape[2:], rates)), 0
        a, d = (y.contiguous().unflatten(0, (n, -1)) for y in (x, d))
        return Kernel(a, d, weight.detach().to(dtype), steps, _each(margin, space), rates, groups)

    return [(weight, kernel), (bias, lambda d: Plain(_over_positions(d, n)))]


def _each(value: int | Sequence[int], space: int) -> tuple[int, ...]:
    """Give one number for each dimension."""
    return (value,) * space if isinstance(value, int) else tuple(value) * (space if len(value) == 1 else 1)


def _named_padding(name: str, kernel: Sequence[int], dilation: Sequence[int]) -> list[int]:
    """Spell "same" or "valid" out, last dimension first, as `torch.nn.functional.pad` wants it."""
    totals = [(size - 1) * step if name == "same" else 0 for size, step in zip(kernel, dilation, strict=True)]
    return [side for total in reversed(totals) for side in (total // 2, total - total // 2)]


def _over_positions(x: Tensor, n: int) -> Tensor:
    """Sum what a sample has in each channel: (n * m, C, *space) -> (n, C)."""
    if x.ndim < 2 or len(x) % n:
        raise NoRule(f"an input of shape {tuple(x.shape)} for {n} samples")
    rows = x.sum(dim=tuple(range(2, x.ndim))) if x.ndim > 2 else x  # (n * m, C)
    return rows.unflatten(0, (n, -1)).sum(1)


def batch_norm(
    n: int,
    dtype: torch.dtype,
    input: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """Normalise by running statistics; in train mode it couples samples, and is refused before it comes here."""
    _check_channels(input, n)
    channels = (-1,) + (1,) * (input.ndim - 2)

    def scale(d: Tensor) -> Use:
        centred = input.to(dtype) - running_mean.to(dtype).view(channels)
        return Plain(_over_positions(centred.mul_(d), n) * (running_var.to(dtype) + eps).rsqrt())

    return [(weight, scale), (bias, lambda d: Plain(_over_positions(d, n)))]


def group_norm(
    n: int,
    dtype: torch.dtype,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Any:
    """Normalise groups of channels of each sample."""
    _check_channels(input, n)

    def scale(d: Tensor) -> Use:
        return Plain(_over_positions(F.group_norm(input.to(dtype), num_groups, eps=eps).mul_(d), n))

    return [(weight, scale), (bias, lambda d: Plain(_over_positions(d, n)))]


def _check_channels(x: Tensor, n: int) -> None:
    if x.ndim < 2 or len(x) % n:
        raise NoRule(f"an input of shape {tuple(x.shape)} for {n} samples")


def layer_norm(
    n: int,
    dtype: torch.dtype,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Any:
    """Normalise the last dimensions."""
    tail = len(normalized_shape)
    by_sample(input, n, tail)

    def scale(d: Tensor) -> Use:
        normal = F.layer_norm(input.to(dtype), list(normalized_shape), eps=eps)
        return Plain(by_sample(normal.mul_(d), n, tail).sum(1))

    return [(weight, scale), (bias, lambda d: Plain(by_sample(d, n, tail).sum(1)))]


def rms_norm(
    n: int,
    dtype: torch.dtype,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Any:
    """Divide the last dimensions by their root mean square."""
    tail = len(normalized_shape)
    by_sample(input, n, tail)
    least = torch.finfo(input.dtype).eps if eps is None else eps

    def scale(d: Tensor) -> Use:
        normal = F.rms_norm(input.to(dtype), list(normalized_shape), eps=least)
        return Plain(by_sample(normal.mul_(d), n, tail).sum(1))

    return [(weight, scale)]


def embedding(
    n: int,
    dtype: torch.dtype,
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Any:
    """Look rows up; the row of `padding_idx` gets no gradient."""
    if max_norm is not None or scale_grad_by_freq:
        raise NoRule("an embedding that rescales rows or gradients")
    ids = by_sample(input, n, 0)  # (n, T)

    def rows(d: Tensor) -> Use:
        deltas = by_sample(d, n, 1)
        if padding_idx is not None:
            deltas = deltas.masked_fill((ids == padding_idx % len(weight))[:, :, None], 0)
        return Rows(ids, deltas, weight.shape)

    return [(weight, rows)]


RULES: dict[Callable[..., Any], Rule] = {
    F.linear: linear,
    torch.matmul: matmul,
    Tensor.matmul: matmul,
    Tensor.__matmul__: matmul,
    torch.conv1d: convolution,
    torch.conv2d: convolution,
    torch.conv3d: convolution,
    F.batch_norm: batch_norm,
    F.group_norm: group_norm,
    F.layer_norm: layer_norm,
    F.rms_norm: rms_norm,
    F.embedding: embedding,
}
"""By the function as torch's overrides name it."""
