"""Symmetric matrices as their upper triangle: 2 d (d + 1) bytes in float32 where the square has 4 d^2."""

from __future__ import annotations

import torch
from torch import Tensor


def packed(square: Tensor) -> Tensor:
    """Keep the upper triangle, row by row.

    Args:
        square: (d, d), symmetric.

    Returns:
        (d (d + 1) / 2,) of the same dtype.

    >>> packed(torch.tensor([[1, 2, 3], [2, 4, 5], [3, 5, 6]])).tolist()
    [1, 2, 3, 4, 5, 6]
    """
    return square[_upper(len(square), square.device)]


def unpacked(triangle: Tensor, d: int) -> Tensor:
    """Put a square together again.

    Args:
        triangle: (d (d + 1) / 2,), as `packed` gives it.
        d: rows of the square.

    Returns:
        (d, d), symmetric, of the same dtype.
    """
    square = triangle.new_zeros(d, d)
    square.masked_scatter_(_upper(d, triangle.device), triangle)
    return square + square.triu(1).T


def _upper(d: int, device: torch.device) -> Tensor:
    """(d, d) bool: a mask has 1 byte an entry, where a list of indices has 16 for each that is kept."""
    return torch.ones(d, d, dtype=torch.bool, device=device).triu()
