"""MEMO: one shared stack of general layers, and one specialised block per task (Zhou et al., ICLR 2023).

Da-Wei Zhou et al., "A Model or 603 Exemplars: Towards Memory-Efficient Class-Incremental Learning".

f(x) = [phi_s^1(g), ..., phi_s^b(g)] with g = phi_g(x); each task adds a copy of the newest block, which alone of the
blocks trains. Where the paper and its released code disagree we follow the code, by which its tables were made:
auxiliary label 0 is "old", the newest block is copied with its BatchNorm statistics, herding is greedy on normalised
features.

Carried after b tasks: G + b S parameters and buffers, a head of 4 C (b d + 1) bytes, and the exemplars: item bytes +
1 label byte.
"""

from __future__ import annotations

from typing import Literal

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


class Memo(Strategy):
    """Expand the last group of layers, share the rest.

    Args:
        inputs: what one input of the stream looks like.
        backbone: name of a backbone; it is cut before its last group of layers (section 4.2).
        pretrained: start from published weights: true for timm's, or a safetensors file.
        specialized: how many of the last groups are specialised (1 in the paper; 2 is its MEMO-2).
        train_base: whether phi_g goes on learning after the first task; "auto": yes up to 20 classes in the first
            task, where the paper's sweep crosses.
        aux_weight: of the auxiliary loss (1 in the paper).
        zero_corner: start the old classes' weights on the new block's features at 0; the paper leaves them random.
        memory: how many exemplars, how chosen, how stored; without a number they fill the byte budget.
        first: training of the first task.
        later: training of each later task.
    """

    def __init__(
        self,
        inputs: Inputs,
        backbone: str = "resnet32",
        pretrained: str | bool = False,
        specialized: int = 1,
        train_base: bool | Literal["auto"] = "auto",
        aux_weight: float = 1.0,
        zero_corner: bool = False,
        memory: Memory = Memory(),
        first: Recipe = FIRST_TASK,
        later: Recipe = Recipe(epochs=170, milestones=(80, 120, 150), weight_decay=2e-4),
    ) -> None:
        super().__init__(inputs)
        plan = blueprint(backbone, inputs, pretrained)
        general, self._new_block = plan.split(specialized)
        self.width = plan.width
        self.normalise = Normalise(inputs)
        self.general = general()
        self.blocks = nn.ModuleList()
        self.head: Head | None = None
        self.train_base, self.aux_weight, self.zero_corner = train_base, aux_weight, zero_corner
        self.memory: Rehearsal = Rehearsal(memory, inputs)
        self.first, self.later = first, later

    def grow(self, info: TaskInfo) -> None:
        """Add a block that starts as the newest one, and the head's rows and columns; freeze what no longer learns."""
        super().grow(info)
        block = self._new_block()
        if self.blocks:
            block.load_state_dict(self.blocks[-1].state_dict())
        self.blocks.append(block)
        self.head = grown_head(self.head, len(self.blocks) * self.width, len(self.classes), self.zero_corner)
        for module in self._frozen():
            module.requires_grad_(False)

    def _frozen(self) -> list[nn.Module]:
        base_learns = len(self.blocks) <= 1 or (
            len(self.seen[0].classes) <= 20 if self.train_base == "auto" else self.train_base
        )
        return [*self.blocks[:-1], *([] if base_learns else [self.general])]

    def train(self, mode: bool = True) -> Memo:
        """Set the mode; what is frozen stays in evaluation mode, so that its BatchNorm statistics don't move."""
        super().train(mode)
        for module in self._frozen():
            module.eval()
        return self

    def features(self, inputs: Tensor) -> Tensor:
        """(b, *shape) raw inputs -> (b, blocks x d), oldest block first."""
        shared = self.general(self.normalise(inputs))
        return torch.cat([block(shared) for block in self.blocks], dim=1)

    def learn(self, task: Task, ctx: Context) -> None:
        """Expand, train with the auxiliary head, align the head's new rows, choose exemplars (Algorithm 1)."""
        n_old = len(self.classes)
        self.grow(task.info)
        n_new = len(self.classes) - n_old
        auxiliary = fresh_head(self.width, n_new + 1)

        def loss(inputs: Tensor, targets: Tensor) -> Tensor:
            features = self.features(inputs)
            losses = cross_entropy(self._head(features), targets, reduction="none")
            if not n_old or not n_new:
                return losses
            sharpened = auxiliary(features[:, -self.width :])
            return losses + self.aux_weight * cross_entropy(
                sharpened, auxiliary_targets(targets, n_old), reduction="none"
            )

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
