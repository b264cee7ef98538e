"""Layers that have weights of their own at every position: n of them side by side, computed together.

Letters: b rows, n positions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm


class OwnLinear(nn.Module):
    """A linear layer for each position: (b, n, into) -> (b, n, out); drawn as `nn.Linear` draws each.

    Args:
        n: positions.
        into: width that comes in.
        out: width that goes out.
    """

    def __init__(self, n: int, into: int, out: int) -> None:
        super().__init__()
        bound = into**-0.5
        self.weight = nn.Parameter(torch.empty(n, into, out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n, out).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Each position through its own."""
        return torch.baddbmm(self.bias[:, None], x.transpose(0, 1), self.weight).transpose(0, 1)


class OwnNorm(nn.Module):
    """A layer norm for each position: (b, n, width) -> (b, n, width).

    Args:
        n: positions.
        width: of each vector.
    """

    def __init__(self, n: int, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(n, width)), nn.Parameter(torch.zeros(n, width))

    def forward(self, x: Tensor) -> Tensor:
        """Each position through its own."""
        return layer_norm(x, x.shape[-1:]) * self.weight + self.bias
