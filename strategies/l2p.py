"""L2P: a pool of prompts for a frozen vision transformer, of which each image takes those whose keys it resembles.

Wang, Zhang, Lee, Zhang, Sun, Ren, Su, Perot, Dy, Pfister, "Learning to Prompt for Continual Learning" (CVPR 2022). The
query is phi(x), the class token of the untouched network; the five nearest of ten prompts, five tokens each, stand
behind the class token, and the head sees the mean of what becomes of them. Two passes an image.

The released code gives all images of a batch the prompts that most of them chose, while training and at test, where the
answer to an image then hangs on its neighbours. Here that is done while training alone (`batchwise`); the paper does it
nowhere. Old classes' logits are sliced away instead of set to -inf, and the head grows with the classes.

Carried, with M prompts of l tokens: 4 (M l d + M d + C (d + 1)) bytes, 491,920 for ViT-B and 100 classes. The backbone
equals its checkpoint and is not carried.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from clearn.context import Context
from clearn.errors import ConfigError, demand
from clearn.parts.frozen_vit import FrozenViT, Vit
from clearn.parts.heads import Head, grown_head
from clearn.parts.prompts import PromptPool, majority, nearest
from clearn.recipe import Recipe
from clearn.strategy import Strategy
from clearn.stream import Inputs, Task, TaskInfo


class L2p(Strategy):
    """Train prompts, keys and head by cross-entropy over the new classes, and pull chosen keys to the queries.

    Args:
        inputs: what one input of the stream looks like.
        vit: the pretrained backbone; it must have a class token.
        pool: M, prompts.
        length: l, tokens of a prompt.
        top: k, prompts that an image takes.
        pull: weight of the cosines between an image's query and the keys of its prompts.
        batchwise: while training, all images of a batch take the prompts that were chosen most often.
        recipe: training of each task (these are CIFAR-100's; ImageNet-R: 10 epochs, batches of 32).
    """

    def __init__(
        self,
        inputs: Inputs,
        vit: Vit = Vit(),
        pool: int = 10,
        length: int = 5,
        top: int = 5,
        pull: float = 0.1,
        batchwise: bool = True,
        recipe: Recipe = Recipe(epochs=5, lr=0.001875, schedule="constant", batch_size=16, optimizer="adam"),
    ) -> None:
        super().__init__(inputs)
        demand(
            ("pool", pool, pool >= 1, "1 or more"),
            ("length", length, length >= 1, "1 or more"),
            ("top", top, 1 <= top <= pool, f"in [1, {max(pool, 1)}], the prompts of the pool"),
            ("pull", pull, 0 <= pull < float("inf"), "0 or more and finite"),
        )
        self.vit = FrozenViT(inputs, vit)
        if wrong := self.vit.cannot_take_tokens():
            raise ConfigError("; ".join(wrong))
        self.pool = PromptPool(pool, length, self.vit.width)
        self.head: Head | None = None
        self.top, self.pull, self.batchwise, self.recipe = top, pull, batchwise, recipe
        self.alone = "images of a batch choose their prompts together (batchwise: false)" if batchwise else ""

    def grow(self, info: TaskInfo) -> None:
        """Add a row to the head for each new class, small (std 0.02), with bias 0."""
        n_old = len(self.classes)
        super().grow(info)
        self.head = grown_head(self.head, self.vit.width, len(self.classes))
        nn.init.trunc_normal_(self.head.weight[n_old:], std=0.02)

    def learn(self, task: Task, ctx: Context) -> None:
        """Train on the task's samples."""
        self.grow(task.info)
        classes = torch.tensor(task.info.classes)

        def loss(inputs: Tensor, targets: Tensor) -> Tensor:
            own = classes.to(targets.device)
            cosines = self.pool.cosines(self.vit(inputs))  # (b, M)
            rows = nearest(cosines, self.top)  # (b, k)
            if self.batchwise:
                rows = majority(rows, cosines.shape[1])
            logits = self.logits(inputs, rows)[:, own]
            task_loss = cross_entropy(logits, torch.searchsorted(own, targets), reduction="none")
            return task_loss - self.pull * cosines.gather(1, rows).sum(1)

        ctx.fit(self, task.train, self.recipe, loss=loss)

    def logits(self, inputs: Tensor, rows: Tensor) -> Tensor:
        """(b, *shape) raw inputs and (b, k) int64 prompts of each -> (b, C)."""
        assert self.head is not None, "grow first"
        features = self.vit.prompted(inputs, self.pool.tokens(rows)).mean(1)  # (b, d) of the k l prompt tokens
        logits: Tensor = self.head(features)
        return logits

    def predict(self, inputs: Tensor) -> Tensor:
        """(b, C) logits; each image takes its own prompts, whatever `batchwise` says."""
        return self.logits(inputs, nearest(self.pool.cosines(self.vit(inputs)), self.top))
