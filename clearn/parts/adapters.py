"""Adapters of a frozen vision transformer: sets that can be trained, and banks of sets that never change again.

The bottleneck (AdaptFormer, Chen et al. 2022) stands beside the MLP of every block. With x the residual stream after a
block's attention, not normalised, block l becomes

    y = x + mlp(norm2(x)) + s * Up_l(drop(relu(Down_l(x))))

(specs "mos", section 2; Sun et al., AAAI 2025). LoRA, at another place, is in clearn.parts.lora; who asks a bank for
its sets need not know which kind they are. Letters used below: L blocks, d width, r bottleneck, T stored sets, P
numbers of a set, k tensors a block, b images, N tokens.

What a bank carries, in bytes, by the form in which it stores sets:

    float32    4 T P
    float16    2 T P
    int8       2 P + (T - 1) (P + 4 k L)    A_1 in float16; A_t - A_1 in int8, with a float32 scale per tensor and block

A set is rounded once, when it is stored; all that comes later, the next set's start included, reads what is stored.
"""

from __future__ import annotations

import math
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from clearn.errors import ConfigError

Place = Literal["mlp", "qkv"]
Store = Literal["float32", "float16", "int8"]

SCALE = 0.1
"""s, fixed in every published config."""

DROPOUT = 0.1
"""On the r-dimensional activation, while training."""

LEVELS = 127
"""The largest step of an int8 delta, in both directions."""


class Adapters(Protocol):
    """What adds a branch to each block."""

    @property
    def at(self) -> Place:
        """What the branch stands beside: the block's MLP, or its projection to queries, keys and values."""

    def branch(self, l: int, x: Tensor) -> Tensor:  # noqa: E741 - the letter of the paper
        """Compute what is added in block `l`, from 0.

        Args:
            l: of the block.
            x: (b, N, d); at "mlp" the residual stream after the attention, at "qkv" what is projected.

        Returns:
            (b, N, d) at "mlp", (b, N, 3d) at "qkv".
        """


class AdapterSet(nn.Module):
    """One set that can be trained; `Adapters` says what its parts mean."""

    at: Place

    def branch(self, l: int, x: Tensor) -> Tensor:  # noqa: E741
        """See `Adapters`; in training mode with dropout, if the kind has any."""
        raise NotImplementedError


class Adapter(AdapterSet):
    """One set of bottlenecks: L (2dr + r + d) parameters. A fresh one is an exact no-op.

    Down's weights are drawn from U(-1/sqrt(d), 1/sqrt(d)) (Kaiming-uniform with a = sqrt(5)) by torch's global
    generator; all else starts at 0.

    Args:
        depth: L.
        width: d.
        bottleneck: r, 1 or more.

    Attributes:
        down: (L, d, r) float32.
        down_bias: (L, r).
        up: (L, r, d).
        up_bias: (L, d).

    Raises:
        ConfigError: a bottleneck below 1.
    """

    at: Place = "mlp"

    def __init__(self, depth: int, width: int, bottleneck: int) -> None:
        super().__init__()
        if bottleneck < 1:
            raise ConfigError(
                f"bottleneck={bottleneck} must be 1 or more: the width of the adapters; 16 or 64 are usual"
            )
        bound = 1 / math.sqrt(width)
        self.down = nn.Parameter(torch.empty(depth, width, bottleneck).uniform_(-bound, bound))
        self.down_bias = nn.Parameter(torch.zeros(depth, bottleneck))
        self.up = nn.Parameter(torch.zeros(depth, bottleneck, width))
        self.up_bias = nn.Parameter(torch.zeros(depth, width))

    def branch(self, l: int, x: Tensor) -> Tensor:  # noqa: E741
        """(b, N, d) -> (b, N, d); with dropout in training mode."""
        hidden = torch.relu(x @ self.down[l] + self.down_bias[l])  # (b, N, r)
        hidden = nn.functional.dropout(hidden, DROPOUT, self.training)
        return SCALE * (hidden @ self.up[l] + self.up_bias[l])


class Bank(nn.Module):
    """T stored sets of one kind, which nothing changes any more.

    They are buffers, so no optimiser finds them; a strategy that carries a bank names them in the ledger with
    `categories = {"model/bank": "params"}`. A tensor of a set holds all blocks.

    Args:
        shapes: (L, ...) of each tensor of a set, by name.
        store: in which form sets are kept.

    Attributes:
        at: see `Adapters`.
        <name>: (T, L, ...) float32 or float16 for each tensor; for int8 (1, L, ...) float16, the first set alone, and
            beside it <name>_delta (T - 1, L, ...) int8 and <name>_scale (T - 1, L) float32.
    """

    at: Place

    def __init__(self, shapes: dict[str, tuple[int, ...]], store: Store) -> None:
        super().__init__()
        self.names, self.store, self._n = tuple(shapes), store, 0
        for name, shape in shapes.items():
            dtype = torch.float32 if store == "float32" else torch.float16
            self.register_buffer(name, torch.empty(0, *shape, dtype=dtype))
            if store == "int8":
                self.register_buffer(f"{name}_delta", torch.empty(0, *shape, dtype=torch.int8))
                self.register_buffer(f"{name}_scale", torch.empty(0, shape[0]))

    def __len__(self) -> int:
        return self._n

    def fresh(self) -> AdapterSet:
        """Make a set that can be trained, an exact no-op at first; draws from torch's global generator."""
        raise NotImplementedError

    def apply_set(self, x: Tensor, tensors: dict[str, Tensor]) -> Tensor:
        """Compute the branch of one block, without dropout.

        Args:
            x: (b, N, d).
            tensors: of the block, by name: the same for all images, or with b in front.
        """
        raise NotImplementedError

    def stacked(self, adapter: AdapterSet) -> dict[str, Tensor]:
        """Put a trained set into the form of a stored one: (L, ...) by name."""
        return dict(adapter.named_parameters())

    def as_parameters(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Put a stored set into the form of a trained one: by the names and shapes of its parameters."""
        return tensors

    def grow(self) -> None:
        """Make room for one more set, of zeros, which is a no-op until `add` or a loaded state fills it."""
        ends = ("_delta", "_scale") if self.store == "int8" and self._n else ("",)
        for name in [name + end for name in self.names for end in ends]:
            stored = self.get_buffer(name)
            setattr(self, name, torch.cat([stored, stored.new_zeros(1, *stored.shape[1:])]))
        self._n += 1

    @torch.no_grad()
    def add(self, adapter: AdapterSet) -> None:
        """Copy a trained set into the newest place, T - 1, in the form in which sets are kept."""
        for name, value in self.stacked(adapter).items():
            stored = self.get_buffer(name)
            if self.store != "int8" or self._n == 1:
                stored[-1].copy_(value)
                continue
            delta, scale = quantised(value - stored[0].float())
            self.get_buffer(f"{name}_delta")[-1].copy_(delta)
            self.get_buffer(f"{name}_scale")[-1].copy_(scale)

    @torch.no_grad()
    def take(self, t: int, adapter: AdapterSet) -> None:
        """Copy set `t` into one that can be trained."""
        tensors = self.as_parameters(self.tensors(t))
        for name, parameter in adapter.named_parameters():
            parameter.copy_(tensors[name])

    def mean(self, n: int) -> dict[str, Tensor]:
        """The mean of the first `n` sets, 1 <= n <= T, by the names and shapes of a trained set's parameters."""
        return self.as_parameters({name: self.rows(name, torch.arange(n)).mean(0) for name in self.names})

    def tensors(self, t: int) -> dict[str, Tensor]:
        """Read set `t`: (L, ...) float32 by name."""
        return {name: self.rows(name, torch.tensor([t]))[0] for name in self.names}

    def distance(self, t: int, other: int) -> float:
        """Length of the difference of two sets, all their numbers in one vector."""
        ours, theirs = self.tensors(t), self.tensors(other)
        squares = [(ours[name] - theirs[name]).square().sum() for name in self.names]
        return float(torch.stack(squares).sum().sqrt())

    def rows(self, name: str, which: Tensor, blocks: int | slice = slice(None)) -> Tensor:
        """Read one tensor of some sets.

        Args:
            name: of the tensor.
            which: (b,) int64 in [0, T): the sets.
            blocks: one of them, or all.

        Returns:
            float32, (b, ...) of one block, (b, L, ...) of all.
        """
        stored = self.get_buffer(name)
        which = which.to(stored.device)
        if self.store != "int8":
            return stored[which, blocks].float()
        first = stored[torch.zeros_like(which), blocks].float()
        if self._n == 1:
            return first
        later = (which - 1).clamp(min=0)
        delta = self.get_buffer(f"{name}_delta")[later, blocks]
        scale = self.get_buffer(f"{name}_scale")[later, blocks]
        scale = scale * (which > 0).view(-1, *[1] * (scale.ndim - 1))
        return first + delta * scale.view(*scale.shape, *[1] * (delta.ndim - scale.ndim))

    def one(self, t: int) -> Adapters:
        """Set `t` for all images."""
        return _One(self, t)

    def select(self, which: Tensor) -> Adapters:
        """Each image's own set.

        Args:
            which: (b,) int64 in [0, T): the set of each image.
        """
        return _Own(self, which)


class AdapterBank(Bank):
    """Stored bottlenecks: P = L (2dr + r + d), k = 4.

    Args:
        depth: L.
        width: d.
        bottleneck: r.
        store: see `Bank`.

    Attributes:
        down: (T, L, d, r); the others have T in front of an `Adapter`'s shapes as well.
    """

    at: Place = "mlp"

    def __init__(self, depth: int, width: int, bottleneck: int, store: Store = "float32") -> None:
        self.depth, self.width, self.bottleneck = depth, width, bottleneck
        shapes = {
            "down": (depth, width, bottleneck),
            "down_bias": (depth, bottleneck),
            "up": (depth, bottleneck, width),
            "up_bias": (depth, width),
        }
        super().__init__(shapes, store)

    def fresh(self) -> Adapter:
        """Make a set that can be trained."""
        return Adapter(self.depth, self.width, self.bottleneck)

    def apply_set(self, x: Tensor, tensors: dict[str, Tensor]) -> Tensor:
        """(b, N, d) -> (b, N, d)."""
        down_bias, up_bias = (tensors[name].unsqueeze(-2) for name in ("down_bias", "up_bias"))  # (1, r) or (b, 1, r)
        hidden = torch.relu(x @ tensors["down"] + down_bias)  # (b, N, r)
        return SCALE * (hidden @ tensors["up"] + up_bias)


class _One:
    """One stored set for all images, read once."""

    def __init__(self, bank: Bank, t: int) -> None:
        self.at, self._bank, self._tensors = bank.at, bank, bank.tensors(t)

    def branch(self, l: int, x: Tensor) -> Tensor:  # noqa: E741
        """See `Adapters`."""
        return self._bank.apply_set(x, {name: value[l] for name, value in self._tensors.items()})


class _Own:
    """A stored set for each image, gathered block by block: b P / L numbers live at a time, not b P."""

    def __init__(self, bank: Bank, which: Tensor) -> None:
        self.at, self._bank, self._which = bank.at, bank, which

    def branch(self, l: int, x: Tensor) -> Tensor:  # noqa: E741
        """See `Adapters`."""
        bank = self._bank
        return bank.apply_set(x, {name: bank.rows(name, self._which, l) for name in bank.names})


def quantised(delta: Tensor) -> tuple[Tensor, Tensor]:
    """Round each block to the 255 levels between minus and plus its largest size.

    Args:
        delta: (L, ...) float32.

    Returns:
        (L, ...) int8 and (L,) float32 scales, so that delta is about int8 * scale, to half a scale; a block of zeros
        has scale 0.
    """
    scale = delta.flatten(1).abs().amax(1) / LEVELS
    steps = delta / scale.clamp(min=torch.finfo(scale.dtype).tiny).view(-1, *[1] * (delta.ndim - 1))
    return steps.round().clamp(-LEVELS, LEVELS).to(torch.int8), scale
