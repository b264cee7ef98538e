"""The small convolution nets that MEMO (Zhou et al. 2023) gives to expanding methods at the least budget.

A block is convolution (with bias), batch norm, ReLU, 2x2 max pool. ConvNet2 has two blocks of 64 channels,
ConvNet4 a 7x7 block of stride 2 and three more, with 128, 128, 128 and 512 channels; the last block and the
average over positions are the specialized part. Weights are drawn by torch's own rule, since the paper names
none.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from clearn.parts.backbones.layers import ChannelsLast, GlobalPool

WIDTHS = {"convnet2": 64, "convnet4": 512}
LEAST = {"convnet2": 4, "convnet4": 31}
"""Name -> smallest height and width that leaves one position for the average."""


def stages(name: str, channels: int) -> tuple[Callable[[], nn.Module], ...]:
    """Builders of the groups, one block each; every call draws fresh weights."""
    if name == "convnet2":
        return partial(first, channels, 64, 3, 1), partial(last, 64, 64)
    return (
        partial(first, channels, 128, 7, 2),
        partial(block, 128, 128),
        partial(block, 128, 128),
        partial(last, 128, 512),
    )


def block(channels: int, out: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Build (b, channels, h, w) -> (b, out, h', w') with h' = floor(ceil(h / stride) / 2)."""
    convolution = nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2)
    # Published as norm, ReLU, pool; the maximum of ReLUs is the ReLU of the maximum, on a quarter of the pixels.
    return nn.Sequential(convolution, nn.BatchNorm2d(out), nn.MaxPool2d(2), nn.ReLU(inplace=True))


def first(channels: int, out: int, kernel: int, stride: int) -> nn.Sequential:
    """Build the block that meets the images."""
    return nn.Sequential(ChannelsLast(), *block(channels, out, kernel, stride))


def last(channels: int, out: int) -> nn.Sequential:
    """Build (b, channels, h, w) -> features (b, out)."""
    return nn.Sequential(*block(channels, out), GlobalPool())
