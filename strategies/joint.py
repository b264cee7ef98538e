"""Joint: train a new network on all data so far, for every task. The upper bound, and what it truly costs to keep.

Carried: one backbone, a linear head, and every training sample met. It knows no byte budget: run it with
    `budget.policy: none`.
"""

from __future__ import annotations

from torch import Tensor

from clearn.context import Context
from clearn.errors import BudgetExceeded
from clearn.parts.archive import Archive
from clearn.parts.nets import SingleNet
from clearn.parts.rehearsal import with_memory
from clearn.recipe import FIRST_TASK, Recipe
from clearn.strategy import Strategy
from clearn.stream import Inputs, Task, TaskInfo


class Joint(Strategy):
    """Cross-entropy on the union of all tasks so far.

    Args:
        inputs: what one input of the stream looks like.
        backbone: name of a backbone.
        pretrained: start from published weights: true for timm's, or a safetensors file.
        from_scratch: begin each task with fresh weights; otherwise go on from the last task's.
        recipe: training of every task.
    """

    def __init__(
        self,
        inputs: Inputs,
        backbone: str = "resnet32",
        pretrained: str | bool = False,
        from_scratch: bool = True,
        recipe: Recipe = FIRST_TASK,
    ) -> None:
        super().__init__(inputs)
        self.backbone, self.pretrained, self.from_scratch, self.recipe = backbone, pretrained, from_scratch, recipe
        self.net = SingleNet(inputs, backbone, pretrained)
        self.memory: Archive = Archive(inputs)

    def grow(self, info: TaskInfo) -> None:
        """Add a row to the head for each new class."""
        super().grow(info)
        self.net.grow(len(self.classes))

    def learn(self, task: Task, ctx: Context) -> None:
        """Train on everything met so far, then add the task's samples to it."""
        room = ctx.room(self, self.state())
        if room is not None:
            raise BudgetExceeded(
                f"joint keeps every sample and does not fit a budget ({room:,} bytes would be left before this "
                "task): it is the "
                "upper bound the others are held against; run it with budget.policy=none"
            )
        if self.from_scratch:
            self.net = SingleNet(self.inputs, self.backbone, self.pretrained)
        self.grow(task.info)
        ctx.fit(self, with_memory(task.train, self.memory.samples()), self.recipe)
        self.memory.add(task.train)

    def predict(self, inputs: Tensor) -> Tensor:
        """(b, C) logits."""
        logits: Tensor = self.net(inputs)
        return logits
