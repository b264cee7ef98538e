"""APER with an adapter: plain and first-task-adapted features side by side, classified by their class means.

Zhou, Cai, Ye, Zhan, Liu, "Revisiting Class-Incremental Learning with Pre-Trained Models" (IJCV 2024; formerly ADAM),
sections 4.1 and 4.2. After the first task nothing is trained; a class that comes back adds to its mean.

Carried: one adapter set, 4 L (2dr + r + d) bytes, and one prototype a class, 4 C 2d. The backbone equals its checkpoint
and is not carried; the head that trains the adapter is thrown away. Two passes an image.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from clearn.context import Context
from clearn.parts.adaptation import adapt
from clearn.parts.adapters import Adapter
from clearn.parts.cosine import Prototypes
from clearn.parts.frozen_vit import FrozenViT, Vit
from clearn.parts.nets import embed
from clearn.recipe import Recipe
from clearn.strategy import Strategy
from clearn.stream import Inputs, Task, TaskInfo


class AperAdapter(Strategy):
    """P_c = mean of [phi(x; 0), phi(x; A)] over class c; one cosine over all 2d numbers, not one for each half.

    Args:
        inputs: what one input of the stream looks like.
        vit: the pretrained backbone.
        bottleneck: r of the adapter.
        first: training of the adapter, on the first task (these are CIFAR-100's; ImageNet-R: 10 epochs, lr 0.05,
            batches of 16, weight decay 0.005).
    """

    categories: ClassVar[dict[str, str]] = {"model/prototypes": "prototypes"}

    def __init__(
        self,
        inputs: Inputs,
        vit: Vit = Vit(),
        bottleneck: int = 64,
        first: Recipe = Recipe(epochs=20, lr=0.01, schedule="cosine", batch_size=48, weight_decay=5e-4),
    ) -> None:
        super().__init__(inputs)
        self.first = first
        self.vit = FrozenViT(inputs, vit)
        self.adapter = Adapter(self.vit.depth, self.vit.width, bottleneck)
        self.prototypes = Prototypes(2 * self.vit.width)

    def grow(self, info: TaskInfo) -> None:
        """Make room for a prototype of each new class."""
        super().grow(info)
        self.prototypes.grow(len(self.classes))

    def learn(self, task: Task, ctx: Context) -> None:
        """Train the adapter on the first task; then look at every sample once, without augmentation."""
        self.grow(task.info)
        if len(self.seen) == 1:
            adapt(self.vit, self.adapter, task, ctx, self.first)
        with ctx.autocast():
            features = embed(self, self.features, task.train, batch=100)
        self.prototypes.add(features, task.train.labels)

    def features(self, inputs: Tensor) -> Tensor:
        """(b, *shape) raw inputs -> (b, 2d)."""
        return torch.cat([self.vit(inputs), self.vit(inputs, self.adapter)], dim=1)

    def predict(self, inputs: Tensor) -> Tensor:
        """(b, C) cosines."""
        cosines: Tensor = self.prototypes(self.features(inputs))
        return cosines
