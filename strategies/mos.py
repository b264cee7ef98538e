"""MOS: an adapter a task, tied together while they are trained, and retrieved by the image itself.

Sun, Zhou, Zhao, Gan, Zhan, Ye, "MOS: Model Surgery for Pre-Trained Model-Based Class-Incremental Learning" (AAAI 2025).
phi(x; A) are the features of a frozen vision transformer with adapter set A; A_1 bridges from the pretraining to the
stream's images once, and its prototypes choose the adapter to begin with.

The paper is followed in that stored adapters never change again; the released code pulls them at test, too. The code is
followed in how strongly a new adapter is tied to them: it merges once a block and once a step, so `merges_per_step` is
L + 1 by default, and 1 is the letter of the paper. Old classes' logits are sliced away, not set to -inf, and the head
grows with the classes.

Carried after T tasks and C classes, in bytes: adapters 4 T L (2dr + r + d) (other forms: clearn.parts.adapters and
lora), head 4 C (d + 1), prototypes 4 C d, means 4 C d, covariances up to 4 C d^2 (see clearn.parts.statistics). Which
task brought a class follows from the tasks seen. The backbone equals its checkpoint and is not carried.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, nll_loss

from clearn.context import Context
from clearn.errors import demand
from clearn.parts.adapters import AdapterBank, AdapterSet, Bank, Store
from clearn.parts.alignment import Drawn, instance_loss, merge, merge_rate
from clearn.parts.cosine import Prototypes
from clearn.parts.frozen_vit import FrozenViT, Vit
from clearn.parts.heads import Head, grown_head
from clearn.parts.lora import LoraBank
from clearn.parts.nets import embed
from clearn.parts.retrieval import Retrieval, refine, tasks_of, two_stages
from clearn.parts.statistics import CATEGORIES, Gaussians, Statistics
from clearn.recipe import Recipe
from clearn.strategy import Strategy
from clearn.stream import Inputs, Task, TaskInfo

CIFAR = Recipe(epochs=20, lr=0.03, schedule="cosine", batch_size=48, weight_decay=5e-4)


class Mos(Strategy):
    """Train an adapter while merging it, describe the new classes, align the head; retrieve adapters at test.

    Args:
        inputs: what one input of the stream looks like.
        vit: the pretrained backbone.
        adapter: the paper's bottlenecks beside the MLPs, or LoRA on queries, keys and values (through peft).
        bottleneck: r of the adapters.
        store: form of the stored adapters; see clearn.parts.adapters for their bytes.
        alpha: rate of one merge with the mean of the stored adapters; 0 lets them run free, 1 keeps the first.
        merges_per_step: merges after each step of the optimiser, done as one; null: L + 1, the strength of the released
            code; 1: the paper.
        reg: weight of the instance term, which the paper does not mention; 0 leaves it out.
        init: a new adapter begins as the previous one, fresh, or as the mean of all.
        later_adapters: train an adapter for later tasks too; off: the first serves them all, and nothing is retrieved.
        statistics: in which form classes are described.
        ensemble: add the first adapter's cosines to the retrieved adapter's answer.
        head_rate: the head's learning rate over that of the adapter.
        first: training of the first task (these are CIFAR-100's).
        later: training of each later task.
        align: training of the head on drawn features; `batch_size` are drawn of each class for an epoch, and go into a
            step: five times the batches of images.
    """

    categories: ClassVar[dict[str, str]] = {"model/bank": "params", "model/prototypes": "prototypes", **CATEGORIES}

    def __init__(
        self,
        inputs: Inputs,
        vit: Vit = Vit(),
        adapter: Literal["bottleneck", "lora"] = "bottleneck",
        bottleneck: int = 16,
        store: Store = "float32",
        alpha: float = 0.1,
        merges_per_step: int | None = None,
        reg: float = 0.1,
        init: Literal["previous", "fresh", "mean"] = "previous",
        later_adapters: bool = True,
        statistics: Statistics = Statistics(),
        ensemble: bool = True,
        head_rate: float = 0.1,
        first: Recipe = CIFAR,
        later: Recipe = CIFAR,
        align: Recipe = Recipe(epochs=30, lr=0.005, schedule="cosine", batch_size=240, weight_decay=5e-4),
    ) -> None:
        super().__init__(inputs)
        demand(
            ("bottleneck", bottleneck, bottleneck >= 1, "1 or more"),
            ("alpha", alpha, 0 <= alpha <= 1, "in [0, 1]"),
            (
                "merges_per_step",
                merges_per_step,
                merges_per_step is None or merges_per_step >= 1,
                "1 or more, or null for L + 1",
            ),
            ("reg", reg, 0 <= reg < float("inf"), "0 or more and finite"),
            ("head_rate", head_rate, 0 < head_rate < float("inf"), "above 0 and finite"),
        )
        self.vit = FrozenViT(inputs, vit)
        self.width = self.vit.width
        kind = LoraBank if adapter == "lora" else AdapterBank
        self.bank: Bank = kind(self.vit.depth, self.width, bottleneck, store)
        self.prototypes = Prototypes(self.width)
        self.head: Head | None = None
        self.memory: Gaussians = Gaussians(statistics, self.width)
        self.rate = merge_rate(alpha, self.vit.depth + 1 if merges_per_step is None else merges_per_step)
        self.reg, self.init, self.later_adapters, self.ensemble = reg, init, later_adapters, ensemble
        self.alone = "its loss tells each image of a batch from all others (reg: 0 does without)" if reg else ""
        self.head_rate, self.first, self.later, self.align = head_rate, first, later, align

    def grow(self, info: TaskInfo) -> None:
        """Make room for an adapter and for prototypes; new rows of the head are small (std 0.02), with bias 0."""
        tasks_of([*self.seen, info])  # refuses classes that come back
        super().grow(info)
        if self.later_adapters or len(self.seen) == 1:
            self.bank.grow()
        n_old, n_classes = len(self.prototypes.sums), len(self.classes)
        self.prototypes.grow(n_classes)
        self.head = grown_head(self.head, self.width, n_classes)
        nn.init.trunc_normal_(self.head.weight[n_old:], std=0.02)

    def learn(self, task: Task, ctx: Context) -> None:
        """Train and store A_t, describe the new classes by it and by A_1, align the head."""
        n_old = len(self.classes)
        self.grow(task.info)
        self.to(ctx.device)
        if len(self.bank) == len(self.seen):
            self.bank.add(self._trained(task, n_old, ctx))
            ctx.log("mos/distance_to_first", self.bank.distance(len(self.bank) - 1, 0))
        with ctx.autocast():
            first = embed(self, lambda x: self.vit(x, self.bank.one(0)), task.train, batch=100)
            newest = len(self.bank) - 1
            own = embed(self, lambda x: self.vit(x, self.bank.one(newest)), task.train, batch=100) if newest else first
        self.prototypes.add(first, task.train.labels)
        self.memory.add(own, task.train.labels, ctx.rng("centroids").initial_seed())
        self.memory.fit_into(None if ctx.paper else ctx.room(self, self.model_state()))
        if n_old:
            self._align(ctx)

    def _trained(self, task: Task, n_old: int, ctx: Context) -> AdapterSet:
        """Train A_t and the head by the new classes alone; after each step pull A_t towards the mean of all before."""
        t, head = len(self.bank) - 1, self._head
        adapter = self.bank.fresh().to(ctx.device)
        mean, means = self.bank.mean(t) if t else {}, self.memory.means.to(ctx.device)
        if t and self.init == "previous":
            self.bank.take(t - 1, adapter)
        elif t and self.init == "mean":
            merge(adapter, mean, 1.0)

        def loss(inputs: Tensor, targets: Tensor) -> Tensor:
            features = self.vit(inputs, adapter)
            task_loss = cross_entropy(head(features)[:, n_old:], targets - n_old)
            return task_loss + self.reg * instance_loss(features, means) if self.reg else task_loss

        def pull() -> None:
            merge(adapter, mean, self.rate)

        ctx.fit(
            nn.ModuleList([adapter, head]),
            task.train,
            self.later if t else self.first,
            loss=loss,
            rates=[(head, self.head_rate)],
            after_step=pull if t and self.rate else None,
        )
        return adapter

    def _align(self, ctx: Context) -> None:
        """Retrain the head on features drawn for all classes seen, new ones in each epoch."""
        head, drawn = self._head, Drawn(self.memory.sampler(), self.align.batch_size, ctx.rng("alignment"))
        ctx.fit(head, drawn, self.align, loss=lambda x, y: cross_entropy(head(x), y), augment=False)

    def retrieve(self, inputs: Tensor) -> tuple[Tensor, Retrieval]:
        """Read images by A_1, then each by the adapter of the task that its own answer points to, until that stays.

        Args:
            inputs: (b, *shape) raw inputs.

        Returns:
            (b, C) cosines of phi(x; A_1) with the prototypes, and where each image came to rest.
        """
        begun, head = self.vit.begin(inputs, self.bank.at), self._head
        features = self.vit.resume(begun, self.bank.one(0))
        cosines: Tensor = self.prototypes(features)
        tasks = tasks_of(self.seen).to(inputs.device).clamp(max=len(self.bank) - 1)  # A_1 alone serves all

        def evaluate(rows: Tensor, which: Tensor) -> Tensor:
            logits: Tensor = head(self.vit.resume(begun[rows], self.bank.select(which)))
            return logits

        return cosines, refine(tasks[cosines.argmax(1)], head(features), tasks, evaluate)

    def predict(self, inputs: Tensor) -> Tensor:
        """(b, C) softmax of the retrieved adapter's logits, plus that of the cosines; each row's sum is 2, or 1."""
        return self.read(inputs)["classifier"]

    def read(self, inputs: Tensor) -> dict[str, Tensor]:
        """Both stages together, and the first alone: cosines of A_1's features with its prototypes."""
        cosines, found = self.retrieve(inputs)
        scores = two_stages(found.logits, cosines, len(self.seen)) if self.ensemble else found.logits.softmax(1)
        return {"classifier": scores, "prototypes": cosines}

    def losses(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """(b,) minus the logarithm of the share that the label has of what `predict` gives."""
        shares = self.predict(inputs) / (2 if self.ensemble else 1)
        return nll_loss(shares.clamp(min=torch.finfo(shares.dtype).tiny).log(), targets, reduction="none")

    @property
    def _head(self) -> Head:
        assert self.head is not None, "grow first"
        return self.head
