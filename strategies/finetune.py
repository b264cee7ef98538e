"""Finetune: train on each task as it comes and keep nothing but the network. The lower bound.

Carried: one backbone with BatchNorm buffers and a linear head, 4 C (d + 1) bytes.
"""

from __future__ import annotations

from torch import Tensor

from clearn.context import Context
from clearn.parts.nets import SingleNet
from clearn.recipe import FIRST_TASK, Recipe
from clearn.strategy import Strategy
from clearn.stream import Inputs, Task, TaskInfo


class Finetune(Strategy):
    """Cross-entropy on the current task alone.

    Args:
        inputs: what one input of the stream looks like.
        backbone: name of a backbone.
        pretrained: start from published weights: true for timm's, or a safetensors file.
        first: training of the first task.
        later: training of each later task (80 epochs in the toolbox).
    """

    def __init__(
        self,
        inputs: Inputs,
        backbone: str = "resnet32",
        pretrained: str | bool = False,
        first: Recipe = FIRST_TASK,
        later: Recipe = Recipe(epochs=80, milestones=(40, 70), weight_decay=2e-4),
    ) -> None:
        super().__init__(inputs)
        self.net = SingleNet(inputs, backbone, pretrained)
        self.first, self.later = first, later

    def grow(self, info: TaskInfo) -> None:
        """Add a row to the head for each new class."""
        super().grow(info)
        self.net.grow(len(self.classes))

    def learn(self, task: Task, ctx: Context) -> None:
        """Train on the task's samples."""
        self.grow(task.info)
        ctx.fit(self, task.train, self.later if task.info.index else self.first)

    def predict(self, inputs: Tensor) -> Tensor:
        """(b, C) logits."""
        logits: Tensor = self.net(inputs)
        return logits
