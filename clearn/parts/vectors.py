"""Vectors of length 1, and vectors in a byte a number."""

from __future__ import annotations

import torch
from torch import Tensor

LEVELS = 127
"""The largest step of an int8 vector, in both directions."""


def quantised(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Round each vector to the 255 levels between minus and plus its largest number.

    Args:
        vectors: (..., D) float32.

    Returns:
        (..., D) int8 and (...) float16 scales, so that a vector is about int8 * scale, to half a scale; a vector of
        zeros has scale 0.

    >>> steps, scale = quantised(torch.tensor([[254.0, -1.0, 0.9]]))
    >>> steps.tolist(), scale.tolist()
    ([[127, 0, 0]], [2.0])
    """
    most = torch.finfo(torch.float16).max
    scale = (vectors.float().abs().amax(-1) / LEVELS).clamp(max=most).half()
    steps = vectors.float() / scale.float().clamp(min=torch.finfo(torch.float32).tiny)[..., None]
    steps = steps.masked_fill((scale == 0)[..., None], 0.0)
    return steps.round().clamp(-LEVELS, LEVELS).to(torch.int8), scale


def unit(vectors: Tensor) -> Tensor:
    """Scale vectors (..., D) to length 1, in float32; a vector of zeros stays one.

    Doubles measure the length, so that sums of large squares do not overflow float32.
    """
    vectors = vectors.float()
    lengths = vectors.double().norm(dim=-1, keepdim=True).clamp(min=1e-12)
    return (vectors.double() / lengths).float()
