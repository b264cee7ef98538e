"""DualPrompt: prefixes that all tasks share in the first blocks, and a task's own prefixes, found by key, behind them.

Wang, Zhang, Ebrahimi, Sun, Zhang, Lee, Ren, Su, Perot, Dy, Pfister, "DualPrompt: Complementary Prompting for
Rehearsal-free Continual Learning" (ECCV 2022). Task t trains the shared prefixes, its own ones, their key and the head
on phi(x) with both in place; at test an image takes the prefixes whose key is nearest to phi(x) without any. A new
task's prefixes begin as a copy of the previous task's. From task `pool` + 1 on, images are matched while training, too.
Two passes an image.

Departures from the released code: there is a key for each task seen, so that nothing untrained is ever matched (the
code makes the whole pool at once); images are matched one by one, where the code lets a batch vote, also at test; the
keys and values of different images are not mixed (see `PrefixBank.select`); old classes' logits are sliced away instead
of set to -inf, and the head grows with the classes.

Carried, with G shared and E task blocks: 4 (2 G l d + min(T, pool) (2 E l + 1) d + C (d + 1)) bytes, 1,321,360 for
ViT-B, ten tasks and 100 classes. The backbone equals its checkpoint and is not carried.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from clearn.context import Context
from clearn.errors import ConfigError, demand
from clearn.parts.cosine import cosines
from clearn.parts.frozen_vit import FrozenViT, Vit
from clearn.parts.heads import Head, grown_head
from clearn.parts.prompts import PrefixBank, nearest
from clearn.recipe import Recipe
from clearn.strategy import Strategy
from clearn.stream import Inputs, Task, TaskInfo


class DualPrompt(Strategy):
    """Train prefixes, a key and the head by cross-entropy over the new classes, and pull the key to the queries.

    Args:
        inputs: what one input of the stream looks like.
        vit: the pretrained backbone.
        shared_blocks: G blocks with the prefixes of all tasks, from 0.
        task_blocks: E blocks with a task's own.
        length: l, rows of every prefix.
        pool: how many tasks get prefixes of their own; later ones go on with those that their images match.
        pull: weight of the cosine between an image's query and the key of its prefixes.
        recipe: training of each task (these are CIFAR-100's; ImageNet-R: 10 epochs).
    """

    def __init__(
        self,
        inputs: Inputs,
        vit: Vit = Vit(),
        shared_blocks: tuple[int, ...] = (0, 1),
        task_blocks: tuple[int, ...] = (2, 3, 4),
        length: int = 5,
        pool: int = 10,
        pull: float = 0.1,
        recipe: Recipe = Recipe(epochs=5, lr=0.001, schedule="constant", batch_size=24, optimizer="adam"),
    ) -> None:
        super().__init__(inputs)
        demand(
            ("length", length, length >= 1, "1 or more"),
            ("pool", pool, pool >= 1, "1 or more"),
            ("pull", pull, 0 <= pull < float("inf"), "0 or more and finite"),
        )
        self.vit = FrozenViT(inputs, vit)
        blocks = (*shared_blocks, *task_blocks)
        if wrong := self.vit.cannot_take_prefixes("shared_blocks and task_blocks together", blocks):
            raise ConfigError("; ".join(wrong))
        self.shared = PrefixBank(shared_blocks, length, self.vit.width)
        self.shared.grow()
        self.own = PrefixBank(task_blocks, length, self.vit.width)
        self.keys = nn.Parameter(torch.empty(0, self.vit.width))  # (min(T, pool), d)
        self.head: Head | None = None
        self.pool, self.pull, self.recipe = pool, pull, recipe

    def grow(self, info: TaskInfo) -> None:
        """Add the task's prefixes and its key (U(-1, 1)), and small rows to the head (std 0.02), with bias 0."""
        n_old = len(self.classes)
        super().grow(info)
        if len(self.own) < self.pool:
            self.own.grow()
            key = torch.empty(1, self.vit.width).uniform_(-1, 1).to(self.keys)
            self.keys = nn.Parameter(torch.cat([self.keys.detach(), key]))
        self.head = grown_head(self.head, self.vit.width, len(self.classes))
        nn.init.trunc_normal_(self.head.weight[n_old:], std=0.02)

    def learn(self, task: Task, ctx: Context) -> None:
        """Train on the task's samples, with the task's own prefixes for all of them."""
        self.grow(task.info)
        classes, t = torch.tensor(task.info.classes), len(self.seen) - 1

        def loss(inputs: Tensor, targets: Tensor) -> Tensor:
            own = classes.to(targets.device)
            similarities = cosines(self.vit(inputs), self.keys)  # (b, M)
            which = torch.full_like(targets, t) if t < self.pool else nearest(similarities, 1)[:, 0]
            logits = self.logits(inputs, which)[:, own]
            task_loss = cross_entropy(logits, torch.searchsorted(own, targets), reduction="none")
            return task_loss - self.pull * similarities.gather(1, which[:, None])[:, 0]

        ctx.fit(self, task.train, self.recipe, loss=loss)

    def logits(self, inputs: Tensor, which: Tensor) -> Tensor:
        """(b, *shape) raw inputs and (b,) int64 whose prefixes each takes -> (b, C)."""
        assert self.head is not None, "grow first"
        prefixes = self.shared.select(torch.zeros_like(which)) | self.own.select(which)
        logits: Tensor = self.head(self.vit(inputs, prefixes=prefixes))
        return logits

    def predict(self, inputs: Tensor) -> Tensor:
        """(b, C) logits; each image takes the prefixes of the key nearest to it."""
        return self.logits(inputs, nearest(cosines(self.vit(inputs), self.keys), 1)[:, 0])
