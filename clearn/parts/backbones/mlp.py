"""A two-layer perceptron of 100 ReLU units each, for vectors and small images; torch's own initialisation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

WIDTH = 100


def stages(size: int) -> tuple[Callable[[], nn.Module], ...]:
    """Builders of the first layer, on `size` values an input, and the second; each call draws afresh."""
    return partial(layer, size), partial(layer, WIDTH)


def layer(size: int) -> nn.Sequential:
    """Build (b, ...) of `size` values each -> (b, 100)."""
    return nn.Sequential(nn.Flatten(), nn.Linear(size, WIDTH), nn.ReLU(inplace=True))
