"""DER, dynamically expandable representation: a whole new backbone for every task (Yan, Xie, He, CVPR 2021).

Not dark experience replay, which other frameworks call DER. As in the code behind MEMO's tables: each backbone starts
as a copy of the newest, old ones are frozen, an auxiliary head sharpens the newest, and weight alignment replaces the
original's masks, pruning and balanced retraining.

Carried after b tasks: b whole backbones with buffers, a head of 4 C (b d + 1) bytes, and the exemplars: item bytes +
1 label byte.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from clearn.context import Context
from clearn.parts.backbones import blueprint
from clearn.parts.backbones.normalise import Normalise
from clearn.parts.exemplars import Memory
from clearn.parts.heads import Head, align_rows, auxiliary_targets, fresh_head, grown_head
from clearn.parts.rehearsal import Rehearsal, with_memory
from clearn.recipe import FIRST_TASK, Recipe
from clearn.strategy import Strategy
from clearn.stream import Inputs, Task, TaskInfo


class DerExpand(Strategy):
    """One backbone per task, their features side by side.

    Args:
        inputs: what one input of the stream looks like.
        backbone: name of a backbone.
        pretrained: start from published weights: true for timm's, or a safetensors file.
        aux_weight: of the auxiliary loss.
        memory: how many exemplars, how chosen, how stored; without a number they fill the byte budget.
        first: training of the first task.
        later: training of each later task.
    """

    def __init__(
        self,
        inputs: Inputs,
        backbone: str = "resnet32",
        pretrained: str | bool = False,
        aux_weight: float = 1.0,
        memory: Memory = Memory(),
        first: Recipe = FIRST_TASK,
        later: Recipe = Recipe(epochs=170, milestones=(80, 120, 150), weight_decay=2e-4),
    ) -> None:
        super().__init__(inputs)
        self.plan = blueprint(backbone, inputs, pretrained)
        self.normalise = Normalise(inputs)
        self.backbones = nn.ModuleList()
        self.head: Head | None = None
        self.aux_weight = aux_weight
        self.memory: Rehearsal = Rehearsal(memory, inputs)
        self.first, self.later = first, later

    def grow(self, info: TaskInfo) -> None:
        """Add a backbone that starts as the newest one, and the head's rows and columns; freeze the old backbones."""
        super().grow(info)
        newest = self.plan.whole()
        if self.backbones:
            newest.load_state_dict(self.backbones[-1].state_dict())
            self.backbones[-1].requires_grad_(False)
        self.backbones.append(newest)
        self.head = grown_head(self.head, len(self.backbones) * self.plan.width, len(self.classes))

    def train(self, mode: bool = True) -> DerExpand:
        """Set the mode; old backbones stay in evaluation mode, so that their BatchNorm statistics don't move."""
        super().train(mode)
        for old in self.backbones[:-1]:
            old.eval()
        return self

    def features(self, inputs: Tensor) -> Tensor:
        """(b, *shape) raw inputs -> (b, backbones x d), oldest first."""
        normalised = self.normalise(inputs)
        return torch.cat([backbone(normalised) for backbone in self.backbones], dim=1)

    def learn(self, task: Task, ctx: Context) -> None:
        """Expand, train with the auxiliary head, align the head's new rows, choose exemplars."""
        n_old = len(self.classes)
        self.grow(task.info)
        n_new = len(self.classes) - n_old
        auxiliary = fresh_head(self.plan.width, n_new + 1)

        def loss(inputs: Tensor, targets: Tensor) -> Tensor:
            features = self.features(inputs)
            losses = cross_entropy(self._head(features), targets, reduction="none")
            if not n_old or not n_new:
                return losses
            newest = auxiliary(features[:, -self.plan.width :])
            return losses + self.aux_weight * cross_entropy(newest, auxiliary_targets(targets, n_old), reduction="none")

        data = with_memory(task.train, self.memory.samples())
        ctx.fit(nn.ModuleList([self, auxiliary]), data, self.later if n_old else self.first, loss=loss)
        ctx.log("wa/gamma", align_rows(self._head, n_old))
        self.memory.keep(self, self.features, task, ctx)

    def predict(self, inputs: Tensor) -> Tensor:
        """(b, C) logits."""
        logits: Tensor = self._head(self.features(inputs))
        return logits

    def read(self, inputs: Tensor) -> dict[str, Tensor]:
        """Classifier and nearest mean of exemplars."""
        return self.memory.read(self, self.features, self.head, inputs)

    @property
    def _head(self) -> Head:
        assert self.head is not None, "grow first"
        return self.head
