"""The ImageNet ResNets of MEMO (Zhou et al. 2023), built by timm, cut into stem and layers 1 to 4.

7x7 convolution of stride 2, norm, ReLU and 3x3 max pool; four layers of basic (10, 18, 34) or bottleneck
blocks (50, stride in the 3x3 convolution). Fresh weights are Kaiming-normal by fan-out, norms are 1 and 0;
unlike timm's default, the last norm of a branch does not start at 0, as in the papers' code.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import timm
import torch
from torch import nn

from clearn.errors import ConfigError
from clearn.parts.backbones.timm_models import Group, Options, cut, pretrained_stages

GROUPS = 5

RECIPES: dict[str, tuple[str, Options]] = {
    "resnet10": ("resnet18", {"layers": (1, 1, 1, 1)}),
    "resnet18": ("resnet18", {}),
    "resnet34": ("resnet34", {}),
    "resnet50": ("resnet50", {}),
}
"""Name -> timm's model, and how ours differs from it."""

WIDTHS = {"resnet10": 512, "resnet18": 512, "resnet34": 512, "resnet50": 2048}


def stages(
    name: str, shape: tuple[int, int, int], pretrained: str | bool = False
) -> tuple[Callable[[], nn.Module], ...]:
    """Builders of the five groups; fresh ones draw only their own weights, pretrained ones draw nothing.

    Raises:
        ConfigError: weights are asked for that were never published.
        DataError: the weights cannot be had, or are those of another network.
    """
    arch, options = RECIPES[name]
    if pretrained is True and options:
        raise ConfigError(
            f"{name} has no published weights, got pretrained=True: give a .safetensors file, or take resnet18"
        )
    if pretrained:
        return pretrained_stages(arch, shape, pretrained, options)
    return tuple(partial(fresh, name, shape[0], i) for i in range(GROUPS))


def fresh(name: str, channels: int, index: int) -> Group:
    """Build one group on torch's default device; the rest of the net is only ever sketched."""
    arch, options = RECIPES[name]
    with torch.device("meta"):
        model = timm.create_model(arch, num_classes=0, in_chans=channels, zero_init_last=False, **options)
    group = cut(model)[index]
    group.to_empty(device=torch.get_default_device())
    group.apply(initialise)
    return group


def initialise(module: nn.Module) -> None:
    """Draw a convolution from N(0, 2 / (k k out)); set a norm to weight 1, bias 0, mean 0, variance 1."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.BatchNorm2d):
        module.reset_parameters()
