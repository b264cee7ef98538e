"""WA: distillation by the share of old classes, then new rows of the head aligned to the old (Zhao et al., CVPR 2020).

Carried: one backbone, a linear head, and the exemplars: item bytes + 1 label byte each. The teacher is the carried
    network itself,
copied when a task starts: +1 network while training, nothing carried.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from clearn.context import Context
from clearn.parts.exemplars import Memory
from clearn.parts.heads import align_rows, distillation
from clearn.parts.nets import SingleNet
from clearn.parts.rehearsal import Rehearsal, with_memory
from clearn.recipe import FIRST_TASK, Recipe
from clearn.strategy import Strategy
from clearn.stream import Inputs, Task, TaskInfo


class WeightAligning(Strategy):
    """(1 - lambda) cross-entropy + lambda distillation with lambda = old classes / all classes, then weight alignment.

    Args:
        inputs: what one input of the stream looks like.
        backbone: name of a backbone.
        pretrained: start from published weights: true for timm's, or a safetensors file.
        memory: how many exemplars, how chosen, how stored; without a number they fill the byte budget.
        temperature: of the distillation.
        first: training of the first task.
        later: training of each later task.
    """

    def __init__(
        self,
        inputs: Inputs,
        backbone: str = "resnet32",
        pretrained: str | bool = False,
        memory: Memory = Memory(),
        temperature: float = 2.0,
        first: Recipe = FIRST_TASK,
        later: Recipe = Recipe(epochs=170, milestones=(60, 100, 140), weight_decay=2e-4),
    ) -> None:
        super().__init__(inputs)
        self.net = SingleNet(inputs, backbone, pretrained)
        self.memory: Rehearsal = Rehearsal(memory, inputs)
        self.temperature, self.first, self.later = temperature, first, later

    def grow(self, info: TaskInfo) -> None:
        """Add a row to the head for each new class."""
        super().grow(info)
        self.net.grow(len(self.classes))

    def learn(self, task: Task, ctx: Context) -> None:
        """Copy the teacher, train, align the head, then choose exemplars."""
        n_old, teacher = len(self.classes), copy.deepcopy(self.net)
        self.grow(task.info)
        share = n_old / len(self.classes)

        def loss(inputs: Tensor, targets: Tensor) -> Tensor:
            logits = self.net(inputs)
            losses = cross_entropy(logits, targets, reduction="none")
            if not n_old:
                return losses
            with torch.no_grad():
                old = teacher(inputs)
            return (1 - share) * losses + share * distillation(logits[:, :n_old], old, self.temperature)

        data = with_memory(task.train, self.memory.samples())
        ctx.fit(self, data, self.later if n_old else self.first, loss=loss, beside=[teacher] if n_old else [])
        assert self.net.head is not None
        ctx.log("wa/gamma", align_rows(self.net.head, n_old))
        self.memory.keep(self, self.net.features, task, ctx)

    def predict(self, inputs: Tensor) -> Tensor:
        """(b, C) logits."""
        logits: Tensor = self.net(inputs)
        return logits

    def read(self, inputs: Tensor) -> dict[str, Tensor]:
        """Classifier and nearest mean of exemplars."""
        return self.memory.read(self, self.net.features, self.net.head, inputs)
