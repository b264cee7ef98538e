"""CODA-Prompt: prefixes mixed from components, each weighted by an attention to the image that is trained with it.

Smith, Karlinsky, Gutta, Cascante-Bonilla, Kim, Arbelle, Panda, Feris, Kira, "CODA-Prompt: COntinual Decomposed
Attention-based Prompting for Rehearsal-Free Continual Learning" (CVPR 2023). In each of the first five blocks an image
with query q = phi(x) gets the prefix sum_m cos(q * A_m, K_m) p_m. Every task brings components of its own, at right
angles to all before, which still take part but are trained no more. Two passes an image.

The components are dealt out evenly, so the number of tasks must be known in advance. Departures from the released
code: components come into being with their task; new ones are exactly orthogonal to the old, where the code subtracts
projections one by one, which is exact only for old ones that training left orthogonal; our fit keeps the last batch of
an epoch, where the code drops it; old classes' logits are sliced away instead of set to -inf, and the head grows.

Carried, with B blocks and M = t floor(components / tasks) components of l rows after t tasks: 4 (B M (l + 2) d +
C (d + 1)) bytes, 15,667,600 for ViT-B, all of 100 components and 100 classes. The backbone equals its checkpoint and is
not carried.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from clearn.context import Context
from clearn.errors import ConfigError, demand
from clearn.parts.frozen_vit import FrozenViT, Vit
from clearn.parts.heads import Head, grown_head
from clearn.parts.prompts import Components
from clearn.recipe import Recipe
from clearn.strategy import Strategy
from clearn.stream import Inputs, Task, TaskInfo


class CodaPrompt(Strategy):
    """Train the newest components and the head by cross-entropy over the new classes.

    Args:
        inputs: what one input of the stream looks like.
        vit: the pretrained backbone.
        tasks: how many tasks the stream has; with fewer than this, some components never come into being.
        components: of all tasks together; each gets the same number, and what is left over is not used.
        length: l, rows of a component: half of them stand before the keys, half before the values.
        blocks: which blocks get a prefix, from 0.
        orthogonality: weight of how far all components are from right angles (L_ortho); 0 in the published configs.
        recipe: training of each task (these are CIFAR-100's; ImageNet-R: 50 epochs).
    """

    categories: ClassVar[dict[str, str]] = {"model/components": "params"}

    def __init__(
        self,
        inputs: Inputs,
        vit: Vit = Vit(),
        tasks: int = 10,
        components: int = 100,
        length: int = 8,
        blocks: tuple[int, ...] = (0, 1, 2, 3, 4),
        orthogonality: float = 0.0,
        recipe: Recipe = Recipe(epochs=20, lr=0.001, schedule="quarter_cosine", batch_size=128, optimizer="adam"),
    ) -> None:
        super().__init__(inputs)
        demand(
            ("tasks", tasks, tasks >= 1, "1 or more"),
            ("components", components, components >= tasks, f"{tasks} or more, one for each task"),
            ("length", length, length >= 2 and length % 2 == 0, "even, half for keys and half for values"),
            ("orthogonality", orthogonality, 0 <= orthogonality < float("inf"), "0 or more and finite"),
        )
        self.vit = FrozenViT(inputs, vit)
        if wrong := self.vit.cannot_take_prefixes("blocks", blocks):
            raise ConfigError("; ".join(wrong))
        self.components = Components(blocks, length, self.vit.width)
        self.head: Head | None = None
        self.tasks, self.each, self.orthogonality, self.recipe = tasks, components // tasks, orthogonality, recipe

    def grow(self, info: TaskInfo) -> None:
        """Add the task's components, and small rows to the head (std 0.02), with bias 0."""
        self._check_room()
        n_old = len(self.classes)
        super().grow(info)
        self.components.grow(self.each)
        self.head = grown_head(self.head, self.vit.width, len(self.classes))
        nn.init.trunc_normal_(self.head.weight[n_old:], std=0.02)

    def learn(self, task: Task, ctx: Context) -> None:
        """Set the new components at right angles to the old, and train them on the task's samples."""
        self.grow(task.info)
        self.components.orthogonalise()
        classes = torch.tensor(task.info.classes)

        def loss(inputs: Tensor, targets: Tensor) -> Tensor:
            own = classes.to(targets.device)
            task_loss = cross_entropy(self.predict(inputs)[:, own], torch.searchsorted(own, targets))
            return task_loss + self.orthogonality * self.components.skew() if self.orthogonality else task_loss

        ctx.fit(self, task.train, self.recipe, loss=loss)

    def predict(self, inputs: Tensor) -> Tensor:
        """(b, C) logits."""
        assert self.head is not None, "grow first"
        prefixes = self.components.mix(self.vit(inputs))
        logits: Tensor = self.head(self.vit(inputs, prefixes=prefixes))
        return logits

    def _check_room(self) -> None:
        """Refuse a task that there are no components for, or no dimensions that are still free."""
        t, total = len(self.seen) + 1, len(self.components) + self.each
        if t > self.tasks:
            raise ConfigError(
                f"task {t} came, but the components were dealt out to tasks={self.tasks}: set tasks to how many the "
                "stream has"
            )
        if total > self.components.width:
            raise ConfigError(
                f"task {t} would make {total} components, but their keys have {self.components.width} dimensions, in "
                f"which no more can be at right angles: set components to {self.components.width} or fewer"
            )
