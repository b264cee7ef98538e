"""SLCA: the whole network learns slowly, and the classifier is aligned on class statistics after each task.

Zhang, Wang, Kang, Chen, Wei, "SLCA: Slow Learner with Classifier Alignment for Continual Learning on a Pre-trained
Model" (ICCV 2023). Every task trains the backbone at a hundredth of the rate of a linear head of its own, by
cross-entropy among the new classes; then all heads are trained together on features drawn from the Gaussians of all
classes seen. The next task begins with the heads as they were before that.

The original release is followed: 5 epochs of alignment (the LAMDA-PILOT toolbox: 3), means scaled by
0.9 + 0.1 (i + 1) / T for a class of task i, T the tasks seen so far, not those of the whole stream; logits divided by
the mean over tasks of the norm of that task's logits. Departures: i is the task of the class, where the release divides
its label by the size of the newest task; a task of one class, whose cross-entropy is 0 whatever happens, does not train
the network.

Carried after C classes, in bytes: the backbone without leaves that equal their checkpoint (343 MB of ViT-B), heads
before and after the alignment 2 x 4 C (d + 1), means 4 C d, covariances up to 4 C d^2 (see clearn.parts.statistics).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from clearn.context import Context
from clearn.errors import demand
from clearn.parts.alignment import Drawn
from clearn.parts.frozen_vit import Vit
from clearn.parts.heads import Head, grown_head
from clearn.parts.nets import embed
from clearn.parts.retrieval import tasks_of
from clearn.parts.statistics import CATEGORIES, Gaussians, Sampler, Statistics
from clearn.parts.tuned_vit import TunedViT
from clearn.recipe import Recipe
from clearn.strategy import Strategy
from clearn.stream import Inputs, Task, TaskInfo


class Slca(Strategy):
    """Train backbone and new head, describe the new classes, align a copy of all heads; that copy answers.

    Args:
        inputs: what one input of the stream looks like.
        vit: the pretrained backbone.
        backbone_rate: the backbone's learning rate over that of the head.
        temperature: of the normalised logits in the alignment; null: plain logits, as the paper's control.
        statistics: in which form classes are described.
        tune: training of each task (these are CIFAR-100's; ImageNet-R: 50 epochs, milestone 40).
        align: training of the heads on drawn features; `batch_size` are drawn of each class for an epoch, and go into a
            step.

    Attributes:
        head: (C, d) linear, aligned.
        unaligned: holds the head of all classes, under the same name, as their tasks left their rows.
    """

    categories: ClassVar[dict[str, str]] = CATEGORIES

    def __init__(
        self,
        inputs: Inputs,
        vit: Vit = Vit(),
        backbone_rate: float = 0.01,
        temperature: float | None = 0.1,
        statistics: Statistics = Statistics(),
        tune: Recipe = Recipe(epochs=20, lr=0.01, milestones=(18,), batch_size=64, weight_decay=5e-4),
        align: Recipe = Recipe(epochs=5, lr=0.01, schedule="cosine", batch_size=256, weight_decay=5e-4),
    ) -> None:
        super().__init__(inputs)
        demand(
            ("backbone_rate", backbone_rate, 0 < backbone_rate < float("inf"), "above 0 and finite"),
            (
                "temperature",
                temperature,
                temperature is None or 0 < temperature < float("inf"),
                "above 0 and finite, or null",
            ),
        )
        self.vit = TunedViT(inputs, vit)
        self.head: Head | None = None
        self.unaligned = nn.ModuleDict()
        self.memory: Gaussians = Gaussians(statistics, self.vit.width)
        self.backbone_rate, self.temperature, self.tune, self.align = backbone_rate, temperature, tune, align

    def grow(self, info: TaskInfo) -> None:
        """Give both heads rows for the new classes; before training they are small (std 0.02), with bias 0."""
        tasks_of([*self.seen, info])  # refuses classes that come back
        n_old = len(self.classes)
        super().grow(info)
        before = self._heads[1] if n_old else None
        self.head = grown_head(self.head, self.vit.width, len(self.classes))
        self.unaligned["head"] = grown = grown_head(before, self.vit.width, len(self.classes))
        nn.init.trunc_normal_(grown.weight[n_old:], std=0.02)

    def learn(self, task: Task, ctx: Context) -> None:
        """Train, describe the new classes by what the backbone is then, align a copy of the heads."""
        n_old = len(self.classes)
        self.grow(task.info)
        self.to(ctx.device)
        self._leave_forgotten(n_old)
        self._tune(task, n_old, ctx)
        with ctx.autocast():
            features = embed(self, self.vit, task.train, batch=100)
        self.memory.add(features, task.train.labels, ctx.rng("centroids").initial_seed())
        self.memory.fit_into(None if ctx.paper else ctx.room(self, self.model_state()))
        head, unaligned = self._heads
        head.load_state_dict(unaligned.state_dict())
        if n_old:
            self._align(ctx)

    @torch.no_grad()
    def _leave_forgotten(self, n_old: int) -> None:
        """Have rows of classes whose statistics were forgotten as the unlearner left them, before the alignment too."""
        gone = sorted(set(range(n_old)) - set(self.memory.classes))
        head, unaligned = self._heads
        for name, value in unaligned.state_dict().items():
            value[gone] = head.state_dict()[name][gone]

    def _tune(self, task: Task, n_old: int, ctx: Context) -> None:
        """Train the backbone and the newest rows by the new classes alone; older rows see not even weight decay."""
        k = len(task.info.classes)
        if k < 2:
            return
        _, unaligned = self._heads
        newest = Head(self.vit.width, k).to(ctx.device)
        rows = {name: value[n_old:] for name, value in unaligned.state_dict().items()}  # views
        newest.load_state_dict(rows)

        def loss(inputs: Tensor, targets: Tensor) -> Tensor:
            return cross_entropy(newest(self.vit(inputs)), targets - n_old, reduction="none")

        rates = [(self.vit, self.backbone_rate)]
        ctx.fit(nn.ModuleList([self.vit, newest]), task.train, self.tune, loss=loss, rates=rates)
        for name, value in newest.state_dict().items():
            rows[name].copy_(value)

    def _align(self, ctx: Context) -> None:
        """Train the copy of the heads on features drawn for all classes seen, new ones in each epoch."""
        head, _ = self._heads
        sizes = [len(info.classes) for info in self.seen]
        sampler = drifted(self.memory.sampler(), tasks_of(self.seen))

        def loss(features: Tensor, targets: Tensor) -> Tensor:
            logits = head(features)
            if self.temperature is not None:
                logits = normalised(logits, sizes) / self.temperature
            return cross_entropy(logits, targets, reduction="none")

        drawn = Drawn(sampler, self.align.batch_size, ctx.rng("alignment"))
        ctx.fit(head, drawn, self.align, loss=loss, augment=False)

    def predict(self, inputs: Tensor) -> Tensor:
        """(b, C) logits of the aligned heads, not normalised: that would change no order."""
        logits: Tensor = self._heads[0](self.vit(inputs))
        return logits

    def read(self, inputs: Tensor) -> dict[str, Tensor]:
        """Logits of the aligned heads, and of those before the alignment."""
        features = self.vit(inputs)
        aligned, unaligned = self._heads
        return {"classifier": aligned(features), "unaligned": unaligned(features)}

    @property
    def _heads(self) -> tuple[Head, Head]:
        """Aligned, and as it was before."""
        unaligned = self.unaligned["head"]
        assert self.head is not None, "grow first"
        assert isinstance(unaligned, Head)
        return self.head, unaligned


def drifted(sampler: Sampler, tasks: Tensor) -> Sampler:
    """Scale means by 0.9 + 0.1 (i + 1) / T: the older a class, the farther the backbone has moved from its features.

    Args:
        sampler: of all classes seen.
        tasks: (C,) int64 in [0, T): i of each class; every task so far occurs.
    """
    scale = 0.9 + 0.1 * (tasks[sampler.labels] + 1) / (int(tasks.max()) + 1)  # (K,)
    return replace(sampler, means=sampler.means * scale[:, None])


def normalised(logits: Tensor, sizes: Sequence[int]) -> Tensor:
    """Divide logits by the mean over tasks of the norm of each task's logits (+ 1e-7).

    Args:
        logits: (b, C).
        sizes: how many classes each task brought, in the order of the columns.

    >>> normalised(torch.tensor([[3.0, 4.0, 0.0, 1.0]]), [2, 2])  # norms 5 and 1
    tensor([[1.0000, 1.3333, 0.0000, 0.3333]])
    """
    norms = torch.stack([own.norm(dim=1) for own in logits.split(list(sizes), dim=1)], dim=1)  # (b, T)
    return logits / (norms.mean(1, keepdim=True) + 1e-7)
