"""Fixed random features: h = relu(x R) with R ~ N(0, 1) (RanPAC: McDonnell et al., NeurIPS 2023, Eq. 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from clearn.errors import ConfigError


@dataclass(frozen=True)
class Projection:
    """Random features.

    Attributes:
        features: M, how many there are.
        carry: "seed": the 8 bytes that the matrix is drawn from, anew in every process; "stored": all 4 d M bytes of
            it, which do not hang on torch drawing the same numbers in its next version.
    """

    features: int = 10_000
    carry: Literal["seed", "stored"] = "seed"

    def __post_init__(self) -> None:
        if self.features < 1:
            raise ConfigError(f"features={self.features} must be 1 or more: the width of the random projection")


class RandomFeatures(nn.Module):
    """Project and rectify.

    Args:
        width: d of what is projected.
        options: how many features, and what of the matrix is carried.

    Attributes:
        seed: () int64, carried under "seed"; drawn from torch's global generator.
        matrix: (d, M) float32, carried under "stored".
    """

    seed: Tensor
    matrix: Tensor

    def __init__(self, width: int, options: Projection) -> None:
        super().__init__()
        stored = options.carry == "stored"
        self.register_buffer("seed", torch.randint(2**62, ()), persistent=not stored)
        self.register_buffer("matrix", torch.empty(width, options.features), persistent=stored)
        self.redraw()

    def redraw(self) -> None:
        """Draw the matrix from the seed: to be called after a seed was loaded."""
        drawn = torch.randn(self.matrix.shape, generator=torch.Generator().manual_seed(int(self.seed)))
        self.matrix.copy_(drawn)

    def forward(self, features: Tensor) -> Tensor:
        """(b, d) -> (b, M) float32, in float32 also under mixed precision."""
        with torch.autocast(features.device.type, enabled=False):
            return (features.float() @ self.matrix).relu_()
