"""Bottleneck adapters beside the MLP of every block of a frozen vision transformer (AdaptFormer, Chen et al. 2022).

With x the residual stream after a block's attention, not normalised, block l becomes

    y = x + mlp(norm2(x)) + s * Up_l(drop(relu(Down_l(x))))

(specs "mos", section 2; Sun et al., AAAI 2025). Letters used below: L blocks, d width, r bottleneck, T stored sets,
b images, N tokens.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from clearn.errors import ConfigError

SCALE = 0.1
"""s, fixed in every published config."""

DROPOUT = 0.1
"""On the r-dimensional activation, while training."""


class Adapters(Protocol):
    """What adds a branch to each block."""

    def branch(self, l: int, x: Tensor) -> Tensor:  # noqa: E741 - the letter of the paper
        """(b, N, d) residual stream after the attention of block `l`, from 0 -> (b, N, d) to be added to it."""


class Adapter(nn.Module):
    """One set that can be trained: L (2dr + r + d) parameters. A fresh one is an exact no-op.

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


class AdapterBank(nn.Module):
    """T stored sets, which nothing changes any more.

    They are buffers, so no optimiser finds them; a strategy that carries a bank names them in the ledger with
    `categories = {"model/bank": "params"}`.

    Args:
        depth: L.
        width: d.
        bottleneck: r.

    Attributes:
        down: (T, L, d, r) float32; the others have T in front of an `Adapter`'s shapes as well.
    """

    down: Tensor
    down_bias: Tensor
    up: Tensor
    up_bias: Tensor

    def __init__(self, depth: int, width: int, bottleneck: int) -> None:
        super().__init__()
        self.register_buffer("down", torch.empty(0, depth, width, bottleneck))
        self.register_buffer("down_bias", torch.empty(0, depth, bottleneck))
        self.register_buffer("up", torch.empty(0, depth, bottleneck, width))
        self.register_buffer("up_bias", torch.empty(0, depth, width))

    def __len__(self) -> int:
        return len(self.down)

    def grow(self) -> None:
        """Make room for one more set, of zeros, which is a no-op until `add` or a loaded state fills it."""
        for name, stored in list(self.named_buffers()):
            setattr(self, name, torch.cat([stored, stored.new_zeros(1, *stored.shape[1:])]))

    @torch.no_grad()
    def add(self, adapter: Adapter) -> None:
        """Copy a trained set into the newest place, T - 1."""
        for name, stored in self.named_buffers():
            stored[-1].copy_(getattr(adapter, name))

    @torch.no_grad()
    def take(self, t: int, adapter: Adapter) -> None:
        """Copy set `t` into one that can be trained."""
        for name, parameter in adapter.named_parameters():
            parameter.copy_(getattr(self, name)[t])

    def mean(self, n: int) -> dict[str, Tensor]:
        """The mean of the first `n` sets, 1 <= n <= T, by the names and shapes of an `Adapter`'s parameters."""
        return {name: stored[:n].mean(0) for name, stored in self.named_buffers()}

    def one(self, t: int) -> Adapters:
        """Set `t` for all images."""
        return _One(self, t)

    def select(self, which: Tensor) -> Adapters:
        """Each image's own set.

        Args:
            which: (b,) int64 in [0, T): the set of each image.
        """
        return _Own(self, which)


class _One:
    """One stored set for all images."""

    def __init__(self, bank: AdapterBank, t: int) -> None:
        self._bank, self._t = bank, t

    def branch(self, l: int, x: Tensor) -> Tensor:  # noqa: E741
        """(b, N, d) -> (b, N, d)."""
        bank, t = self._bank, self._t
        hidden = torch.relu(x @ bank.down[t, l] + bank.down_bias[t, l])  # (b, N, r)
        return SCALE * (hidden @ bank.up[t, l] + bank.up_bias[t, l])


class _Own:
    """A stored set for each image, gathered block by block: b d r numbers live at a time, not b L d r."""

    def __init__(self, bank: AdapterBank, which: Tensor) -> None:
        self._bank, self._which = bank, which

    def branch(self, l: int, x: Tensor) -> Tensor:  # noqa: E741
        """(b, N, d) -> (b, N, d)."""
        bank, which = self._bank, self._which
        hidden = torch.relu(torch.baddbmm(bank.down_bias[which, l, None], x, bank.down[which, l]))  # (b, N, r)
        return SCALE * torch.baddbmm(bank.up_bias[which, l, None], hidden, bank.up[which, l])
