"""LwF, learning without forgetting: distillation from the last model on new samples alone (Li & Hoiem, ECCV 2016).

New samples stand in for old ones: the network keeps answering to them, on the old classes, as it did before the task.

Carried: one backbone with buffers and a linear head: bP + 4 C (d + 1) bytes, what finetuning carries. The teacher is
the carried network itself, copied when a task starts: +1 network while training, nothing carried.

Where this differs from paper and toolbox (PyCIL): the paper first trains the new rows of the head alone; the toolbox
leaves that out, and so do we. Both take the cross-entropy over the task's own classes (the default, without which old
logits sink under every new sample); `softmax_over: seen` takes all classes, which is iCaRL without exemplars. The
distillation weighs 1 in the paper and 3 in the toolbox, which trains later tasks for 250 epochs: the settings of the
published tables are in configs/class_incremental/published.
"""

from __future__ import annotations

import copy
import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from clearn.context import Context
from clearn.errors import ConfigError
from clearn.parts.heads import distillation, open_to
from clearn.parts.nets import SingleNet
from clearn.recipe import FIRST_TASK, Recipe
from clearn.strategy import Strategy
from clearn.stream import Inputs, Task, TaskInfo


class LwF(Strategy):
    """Classify the new, imitate the old model on its classes, without exemplars.

    Args:
        inputs: what one input of the stream looks like.
        backbone: name of a backbone.
        pretrained: start from published weights: true for timm's, or a safetensors file.
        softmax_over: classes that the cross-entropy tells apart: "task", those of the task, or "seen", all so far.
        weight: of the distillation (lambda_o in the paper's Alg. 1).
        temperature: of the distillation.
        first: training of the first task.
        later: training of each later task.
    """

    def __init__(
        self,
        inputs: Inputs,
        backbone: str = "resnet32",
        pretrained: str | bool = False,
        softmax_over: Literal["task", "seen"] = "task",
        weight: float = 1.0,
        temperature: float = 2.0,
        first: Recipe = FIRST_TASK,
        later: Recipe = Recipe(epochs=170, milestones=(80, 120), weight_decay=2e-4),
    ) -> None:
        super().__init__(inputs)
        wrong = []
        if not 0 <= weight < math.inf:
            wrong.append(f"weight={weight} must be 0 or more and finite: 0 is finetuning")
        if not 0 < temperature < math.inf:
            wrong.append(f"temperature={temperature} must be above 0 and finite: logits are divided by it")
        if wrong:
            raise ConfigError("\n".join(wrong))
        self.net = SingleNet(inputs, backbone, pretrained)
        self.softmax_over, self.weight, self.temperature = softmax_over, weight, temperature
        self.first, self.later = first, later

    def grow(self, info: TaskInfo) -> None:
        """Add a row to the head for each new class."""
        super().grow(info)
        self.net.grow(len(self.classes))

    def learn(self, task: Task, ctx: Context) -> None:
        """Copy the teacher, then train on the task's samples."""
        n_old, teacher = len(self.classes), copy.deepcopy(self.net)
        self.grow(task.info)
        told_apart = task.info.classes if self.softmax_over == "task" else self.classes

        def loss(inputs: Tensor, targets: Tensor) -> Tensor:
            logits = self.net(inputs)
            losses = cross_entropy(open_to(told_apart, logits), targets, reduction="none")
            if not n_old:
                return losses
            with torch.no_grad():
                old = teacher(inputs)
            return losses + self.weight * distillation(logits[:, :n_old], old, self.temperature)

        recipe = self.later if n_old else self.first
        ctx.fit(self, task.train, recipe, loss=loss, beside=[teacher] if n_old else [])

    def predict(self, inputs: Tensor) -> Tensor:
        """(b, C) logits."""
        logits: Tensor = self.net(inputs)
        return logits
