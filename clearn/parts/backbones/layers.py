"""Two parameter-free layers that the small convolution nets share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ChannelsLast(nn.Module):
    """Lay images out with channels last when they are on a CPU; values and shape stay as they are.

    The convolutions that follow keep the layout. Measured, ResNet32, batch 128, one thread: a training step
    takes 0.65 s instead of 0.84 to 1.0 s. Weights keep torch's own layout, so that a reloaded net gives the
    same bits.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> the same."""
        return x.to(memory_format=torch.channels_last) if x.device.type == "cpu" else x


class GlobalPool(nn.Module):
    """The mean over positions: (b, c, h, w) -> (b, c). At the papers' image sizes, their last pool."""

    def forward(self, x: Tensor) -> Tensor:
        """Average over height and width; pooling, unlike `mean`, hands its gradient back in the layout of x."""
        return F.avg_pool2d(x, (x.shape[2], x.shape[3])).flatten(1)
