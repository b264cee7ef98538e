"""The CIFAR ResNet-(6n+2) of class-incremental learning (He et al. 2016, section 4.2), cut into four groups.

Stem (3x3 convolution to 16 channels), then three stages of n basic blocks with 16, 32 and 64 channels, then
the average over positions: 64 features, all >= 0, because a ReLU follows the last sum too. Where the width
doubles, the shortcut has no parameters ("option A"): every second pixel, then zero channels. This is the
network of MEMO (Zhou et al. 2023) and PyCIL.

`cosine_resnet32` is that of UCIR (Hou et al. 2019), PODNet and COIL: its two wider shortcuts are 1x1 convolutions
with a norm, 2,752 parameters more, and no ReLU follows the last sum, so that features have either sign.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from clearn.parts.backbones.layers import ChannelsLast, GlobalPool

DEPTHS = {"resnet8": 1, "resnet14": 2, "resnet20": 3, "resnet26": 4, "resnet32": 5}
"""Name -> n, the basic blocks in each of the three stages."""

WIDTH = 64


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution without bias, padded by 1; weights ~ N(0, 2 / (9 out)), drawn once."""

    def __init__(self, channels: int, out: int, stride: int = 1) -> None:
        super().__init__(channels, out, kernel_size=3, stride=stride, padding=1, bias=False)

    def reset_parameters(self) -> None:
        """Draw the weights, in place of torch's own rule."""
        nn.init.normal_(self.weight, 0.0, math.sqrt(2 / (9 * self.out_channels)))


class BasicBlock(nn.Module):
    """Convolution, norm, ReLU, convolution, norm, plus the shortcut, ReLU.

    Args:
        channels: of the input.
        out: of the output.
        stride: of the first convolution.
        projected: put a 1x1 convolution with a norm into a shortcut that changes width or stride.
        signed: leave the last ReLU out.
    """

    def __init__(self, channels: int, out: int, stride: int, projected: bool = False, signed: bool = False) -> None:
        super().__init__()
        self.conv1 = Conv3x3(channels, out, stride)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = Conv3x3(out, out)
        self.bn2 = nn.BatchNorm2d(out)
        self.stride, self.grown, self.signed = stride, out - channels, signed
        changes = stride > 1 or out != channels
        self.projection = projection(channels, out, stride) if projected and changes else None

    def forward(self, x: Tensor) -> Tensor:
        """(b, channels, h, w) -> (b, out, ceil(h / stride), ceil(w / stride))."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))  # in place below is safe: no backward pass reads the output of a norm or of a sum
        y += self.shortcut(x)
        return y if self.signed else F.relu(y, inplace=True)

    def shortcut(self, x: Tensor) -> Tensor:
        """Option A of He et al. 2016: every `stride`-th pixel, zeros for channels that x does not have.

        A pool over one pixel is the slice x[:, :, ::stride, ::stride], but its gradient keeps the layout of x; the
        slice's does not, and each ReLU and norm below it then works on mixed layouts.
        """
        if self.projection is not None:
            projected: Tensor = self.projection(x)
            return projected
        if self.stride > 1:
            x = F.avg_pool2d(x, 1, self.stride)
        return F.pad(x, (0, 0, 0, 0, 0, self.grown)) if self.grown else x


def projection(channels: int, out: int, stride: int) -> nn.Sequential:
    """Build the shortcut with parameters (option B of He et al. 2016): 1x1 convolution ~ N(0, 2 / out), norm."""
    convolution = nn.Conv2d(channels, out, 1, stride, bias=False)
    nn.init.normal_(convolution.weight, 0.0, math.sqrt(2 / out))
    return nn.Sequential(convolution, nn.BatchNorm2d(out))


def stages(name: str, channels: int) -> tuple[Callable[[], nn.Module], ...]:
    """Builders of stem, stage 1, stage 2, and stage 3 with pooling; every call draws fresh weights."""
    blocks, cosine = DEPTHS[name.removeprefix("cosine_")], name.startswith("cosine_")
    return (
        partial(stem, channels),
        partial(stage, 16, 16, 1, blocks),
        partial(stage, 16, 32, 2, blocks, cosine),
        partial(last_stage, blocks, cosine),
    )


def stem(channels: int) -> nn.Sequential:
    """Build (b, channels, h, w) -> (b, 16, h, w)."""
    return nn.Sequential(ChannelsLast(), Conv3x3(channels, 16), nn.BatchNorm2d(16), nn.ReLU(inplace=True))


def stage(
    channels: int, out: int, stride: int, blocks: int, projected: bool = False, signed: bool = False
) -> nn.Sequential:
    """Build a row of basic blocks; only the first changes width and stride, only the last may be signed."""
    shapes = [(channels, stride)] + [(out, 1)] * (blocks - 1)
    return nn.Sequential(
        *(
            BasicBlock(width, out, step, projected, signed and i == blocks)
            for i, (width, step) in enumerate(shapes, start=1)
        )
    )


def last_stage(blocks: int, cosine: bool = False) -> nn.Sequential:
    """Build (b, 32, h, w) -> features (b, 64); with a projected shortcut and signed features for `cosine`."""
    return nn.Sequential(*stage(32, WIDTH, 2, blocks, cosine, cosine), GlobalPool())
