"""iCaRL: exemplars, distillation from the last model, nearest-mean-of-exemplars read-out (Rebuffi et al., CVPR 2017).

Carried: one backbone, a linear head, and the exemplars: item bytes + 1 label byte each. The teacher is the carried
    network itself,
copied when a task starts: +1 network while training, nothing carried.
"""

from __future__ import annotations

import copy
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot

from clearn.context import Context
from clearn.parts.exemplars import Memory
from clearn.parts.heads import distillation
from clearn.parts.nets import SingleNet
from clearn.parts.rehearsal import Rehearsal, with_memory
from clearn.recipe import FIRST_TASK, Recipe
from clearn.strategy import Strategy
from clearn.stream import Inputs, Task, TaskInfo


class ICarl(Strategy):
    """Classify the new, imitate the old model on its classes.

    Args:
        inputs: what one input of the stream looks like.
        backbone: name of a backbone.
        pretrained: start from published weights: true for timm's, or a safetensors file.
        memory: how many exemplars, how chosen, how stored; without a number they fill the byte budget.
        loss: "softmax" (cross-entropy + softened distillation, weight 1 each): the toolbox's form, by which the
            published tables were made; "bce" is the paper's: one sigmoid a class, the old model's outputs as targets
            of the old ones.
        temperature: of the softmax distillation.
        first: training of the first task.
        later: training of each later task.
    """

    readout: ClassVar[str] = "nme"

    def __init__(
        self,
        inputs: Inputs,
        backbone: str = "resnet32",
        pretrained: str | bool = False,
        memory: Memory = Memory(),
        loss: Literal["softmax", "bce"] = "softmax",
        temperature: float = 2.0,
        first: Recipe = FIRST_TASK,
        later: Recipe = Recipe(epochs=170, milestones=(80, 120), weight_decay=2e-4),
    ) -> None:
        super().__init__(inputs)
        self.net = SingleNet(inputs, backbone, pretrained)
        self.memory: Rehearsal = Rehearsal(memory, inputs)
        self.loss, self.temperature, self.first, self.later = loss, temperature, first, later

    def grow(self, info: TaskInfo) -> None:
        """Add a row to the head for each new class."""
        super().grow(info)
        self.net.grow(len(self.classes))

    def learn(self, task: Task, ctx: Context) -> None:
        """Copy the teacher, train on new and stored samples, then choose exemplars."""
        n_old, teacher = len(self.classes), copy.deepcopy(self.net)
        self.grow(task.info)

        def loss(inputs: Tensor, targets: Tensor) -> Tensor:
            logits = self.net(inputs)
            with torch.no_grad():
                old = teacher(inputs) if n_old else logits[:, :0]
            if self.loss == "bce":
                return bce_loss(logits, targets, old)
            losses = cross_entropy(logits, targets, reduction="none")
            return losses + distillation(logits[:, :n_old], old, self.temperature) if n_old else losses

        data = with_memory(task.train, self.memory.samples())
        ctx.fit(self, data, self.later if n_old else self.first, loss=loss, beside=[teacher] if n_old else [])
        self.memory.keep(self, self.net.features, task, ctx)

    def predict(self, inputs: Tensor) -> Tensor:
        """(b, C) minus squared distances to the means of exemplars (Alg. 1)."""
        return self.memory.nearest(self, self.net.features, self.net.features(inputs))

    def losses(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """(b,) cross-entropy of the classifier, which is what is trained."""
        return cross_entropy(self.net(inputs), targets, reduction="none")

    def read(self, inputs: Tensor) -> dict[str, Tensor]:
        """Classifier and nearest mean of exemplars."""
        return self.memory.read(self, self.net.features, self.net.head, inputs)


def bce_loss(logits: Tensor, targets: Tensor, old_logits: Tensor) -> Tensor:
    """One sigmoid per class; the old model's outputs are the targets of the old classes (Alg. 3).

    Args:
        logits: (b, C).
        targets: (b,) int64 labels.
        old_logits: (b, o) of the previous model, o < C; o = 0 in the first task.

    Returns:
        (b,) sum over classes.
    """
    wanted = one_hot(targets, logits.shape[1]).to(logits.dtype)
    wanted[:, : old_logits.shape[1]] = old_logits.sigmoid()
    return binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum(1)
