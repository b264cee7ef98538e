"""Replay: train on each task together with stored exemplars (experience replay, Ratcliff 1990; Chaudhry et al. 2019).

Carried: one backbone, a linear head, and the exemplars: item bytes + 1 label byte each.
"""

from __future__ import annotations

from torch import Tensor

from clearn.context import Context
from clearn.parts.exemplars import Memory
from clearn.parts.nets import SingleNet
from clearn.parts.rehearsal import Rehearsal, with_memory
from clearn.recipe import FIRST_TASK, Recipe
from clearn.strategy import Strategy
from clearn.stream import Inputs, Task, TaskInfo


class Replay(Strategy):
    """Cross-entropy on the task and the exemplars.

    Args:
        inputs: what one input of the stream looks like.
        backbone: name of a backbone.
        pretrained: start from published weights: true for timm's, or a safetensors file.
        memory: how many exemplars, how chosen, how stored; without a number they fill the byte budget.
        stored_per_step: draw that many exemplars beside each batch of new samples; null joins both sets and shuffles,
            as the toolbox does.
        first: training of the first task.
        later: training of each later task (70 epochs in the toolbox: fewer than the other methods).
    """

    def __init__(
        self,
        inputs: Inputs,
        backbone: str = "resnet32",
        pretrained: str | bool = False,
        memory: Memory = Memory(),
        stored_per_step: int | None = None,
        first: Recipe = FIRST_TASK,
        later: Recipe = Recipe(epochs=70, milestones=(30, 50), weight_decay=2e-4),
    ) -> None:
        super().__init__(inputs)
        self.net = SingleNet(inputs, backbone, pretrained)
        self.memory: Rehearsal = Rehearsal(memory, inputs)
        self.stored_per_step, self.first, self.later = stored_per_step, first, later

    def grow(self, info: TaskInfo) -> None:
        """Add a row to the head for each new class."""
        super().grow(info)
        self.net.grow(len(self.classes))

    def learn(self, task: Task, ctx: Context) -> None:
        """Train on new and stored samples, then choose exemplars."""
        self.grow(task.info)
        recipe, stored = self.later if task.info.index else self.first, self.memory.samples()
        if self.stored_per_step is None:
            ctx.fit(self, with_memory(task.train, stored), recipe)
        else:
            ctx.fit(self, task.train, recipe, replay=(stored, self.stored_per_step))
        self.memory.keep(self, self.net.features, task, ctx)

    def predict(self, inputs: Tensor) -> Tensor:
        """(b, C) logits."""
        logits: Tensor = self.net(inputs)
        return logits

    def read(self, inputs: Tensor) -> dict[str, Tensor]:
        """Classifier and nearest mean of exemplars."""
        return self.memory.read(self, self.net.features, self.net.head, inputs)
