"""Classifying by cosine: against class means that are never trained, and with rows that are.

Letters: b samples, d feature width, C classes seen, k classes of one task.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize


class Prototypes(nn.Module):
    """One class mean a class, compared by cosine (SimpleCIL: Zhou et al., IJCV 2024, Eq. 5): 4 C d bytes.

    A cosine does not see length, so sums are kept instead of means: a class that comes back adds to its own, and the
    result is what all its samples at once would give. In the ledger a strategy names them by
    `categories = {"model/prototypes": "prototypes"}`.

    Args:
        width: d.

    Attributes:
        sums: (C, d) float32; row c is n_c times the mean of class c.
    """

    sums: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("sums", torch.empty(0, width))

    def grow(self, n_classes: int) -> None:
        """Make room for all classes seen; new rows are 0, and so are their cosines until samples are added."""
        more = n_classes - len(self.sums)
        self.sums = torch.cat([self.sums, self.sums.new_zeros(more, self.sums.shape[1])])

    @torch.no_grad()
    def add(self, features: Tensor, labels: Tensor) -> None:
        """Add samples to their classes.

        Args:
            features: (n, d) float.
            labels: (n,) int64 in [0, C).
        """
        new = torch.zeros(self.sums.shape, dtype=torch.float64).index_add_(0, labels.cpu(), features.double().cpu())
        self.sums.add_(new.to(self.sums))

    def forward(self, features: Tensor) -> Tensor:
        """(b, d) -> (b, C) float32 cosines."""
        return cosines(features, self.sums)


class CosineHead(nn.Module):
    """sigma cos(features, rows) with a learned scale, as APER, RanPAC and EASE train their adapters by.

    Args:
        width: d.
        n_classes: k.

    Attributes:
        weight: (k, d), drawn from U(-1/sqrt(d), 1/sqrt(d)).
        sigma: (), starts at 1.
    """

    def __init__(self, width: int, n_classes: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(width)
        self.weight = nn.Parameter(torch.empty(n_classes, width).uniform_(-bound, bound))
        self.sigma = nn.Parameter(torch.ones(()))

    def forward(self, features: Tensor) -> Tensor:
        """(b, d) -> (b, k) float32 logits."""
        return self.sigma * cosines(features, self.weight)


def cosines(features: Tensor, rows: Tensor) -> Tensor:
    """Cosine of every feature with every row, in float32 also under mixed precision; 0 where either is 0.

    Args:
        features: (b, d).
        rows: (C, d).

    Returns:
        (b, C) float32 in [-1, 1].
    """
    with torch.autocast(features.device.type, enabled=False):
        return normalize(features.float(), dim=1) @ normalize(rows.float(), dim=1).T
