"""One backbone and one growing head: the network of every method that does not expand its features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from clearn.parts.backbones import blueprint
from clearn.parts.backbones.normalise import Normalise
from clearn.parts.heads import Head, grown_head
from clearn.parts.samples import Samples
from clearn.stream import Inputs


class SingleNet(nn.Module):
    """Normalisation, backbone, linear head.

    Attributes:
        backbone: normalised inputs -> (b, d) features.
        head: (C, d) linear, None before the first class.
    """

    def __init__(self, inputs: Inputs, backbone: str, pretrained: str | bool = False) -> None:
        super().__init__()
        plan = blueprint(backbone, inputs, pretrained)
        self.normalise = Normalise(inputs)
        self.backbone = plan.whole()
        self.width = plan.width
        self.head: Head | None = None

    def grow(self, n_classes: int) -> None:
        """Give the head one row a class seen, old rows kept."""
        if self.head is None or len(self.head.weight) != n_classes:
            self.head = grown_head(self.head, self.width, n_classes)

    def features(self, inputs: Tensor) -> Tensor:
        """(b, *shape) raw inputs -> (b, d)."""
        features: Tensor = self.backbone(self.normalise(inputs))
        return features

    def forward(self, inputs: Tensor) -> Tensor:
        """(b, *shape) raw inputs -> (b, C) logits."""
        assert self.head is not None, "grow first"
        logits: Tensor = self.head(self.features(inputs))
        return logits


class GrowingHead(nn.Module):
    """A classifier that makes its own rows, where a linear layer is not enough: (b, d) features -> (b, C) logits."""

    def grow(self, n_classes: int) -> None:
        """Make room for all classes seen; draws fresh rows and keeps the old ones."""
        raise NotImplementedError(f"{type(self).__name__} does not define grow")


H = TypeVar("H", bound=GrowingHead)


class HeadedNet(nn.Module, Generic[H]):
    """Normalisation, backbone, and a head of the method's own.

    Args:
        inputs: what one input of the stream looks like.
        backbone: name of a backbone.
        pretrained: as for `blueprint`.
        head: makes the head from the width d of its features.

    Attributes:
        backbone: normalised inputs -> (b, d) features.
        head: without classes until `grow`.
    """

    def __init__(self, inputs: Inputs, backbone: str, pretrained: str | bool, head: Callable[[int], H]) -> None:
        super().__init__()
        plan = blueprint(backbone, inputs, pretrained)
        self.normalise = Normalise(inputs)
        self.backbone = plan.whole()
        self.first_stage = plan.first_stage
        self.head = head(plan.width)

    def grow(self, n_classes: int) -> None:
        """Have the head make room for all classes seen."""
        self.head.grow(n_classes)

    def features_and_maps(self, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(b, *shape) raw inputs -> (b, d), and the maps (b, c, h, w) after each stage, the last before its pooling."""
        assert self.first_stage is not None, "this backbone has no feature maps"
        x, maps = self.normalise(inputs), []
        for group in self.backbone[:-1]:
            x = group(x)
            maps.append(x)
        *blocks, pool = self.backbone[-1].children()
        for block in blocks:
            x = block(x)
        return pool(x), [*maps[self.first_stage :], x]

    def features(self, inputs: Tensor) -> Tensor:
        """(b, *shape) raw inputs -> (b, d)."""
        features: Tensor = self.backbone(self.normalise(inputs))
        return features

    def forward(self, inputs: Tensor) -> Tensor:
        """(b, *shape) raw inputs -> (b, C) logits."""
        logits: Tensor = self.head(self.features(inputs))
        return logits


@torch.no_grad()
def embed(module: nn.Module, features: Callable[[Tensor], Tensor], samples: Samples, batch: int = 500) -> Tensor:
    """Compute the features of all samples in evaluation mode, in order.

    Args:
        module: what `features` computes with; put into evaluation mode.
        features: raw inputs (b, *shape) -> (b, d).
        samples: n of them.
        batch: how many at a time.

    Returns:
        (n, d) float32 on the CPU.
    """
    module.eval()
    device = next(module.parameters()).device
    parts = [features(inputs.to(device)).float().cpu() for inputs, _ in samples.batches(batch)]
    return torch.cat(parts) if parts else torch.empty(0, 0)
