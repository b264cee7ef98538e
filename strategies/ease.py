"""EASE: an adapter a task, each a subspace of its own; prototypes that cannot be measured any more are synthesised.

Zhou, Sun, Ye, Zhan, "Expandable Subspace Ensemble for Pre-Trained Model-Based Class-Incremental Learning" (CVPR 2024).
phi(x; A_j) are the features of a frozen vision transformer with adapter set A_j, which task j trained and nothing
changes afterwards. An image is described in all T subspaces; a new class has a mean in each of them, an old class in
those that were there when its images were.

The released code is followed where it says more than the paper: old classes are synthesised anew after each task, from
all classes of the subspace's own and later tasks (`recalc_sim`), and the plain network is no subspace of its own
(`use_init_ptm: false`). Departures: a task of one class, whose cross-entropy is 0 whatever happens, leaves its adapter
as it was drawn, which is a no-op.

Carried after T tasks, in bytes: adapters 4 T L (2dr + r + d); measured prototypes 4 d sum_t t n_t, n_t classes brought
by task t = 1..T. Synthesised ones follow from these in every prediction and are not carried. The backbone equals its
checkpoint and is not carried; the heads that train the adapters are thrown away. T passes an image.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from clearn.context import Context
from clearn.errors import demand
from clearn.parts.adaptation import adapt
from clearn.parts.adapters import Adapter, AdapterBank
from clearn.parts.cosine import cosines
from clearn.parts.frozen_vit import FrozenViT, Vit
from clearn.parts.retrieval import tasks_of
from clearn.parts.samples import Samples
from clearn.recipe import Recipe
from clearn.strategy import Strategy
from clearn.stream import Inputs, Task, TaskInfo

CIFAR = Recipe(epochs=20, lr=0.025, schedule="cosine", batch_size=48, weight_decay=5e-4)


class Ease(Strategy):
    """P_{c,j} = mean of phi(x; A_j) over class c of task i, measured for j <= i and synthesised for j > i.

    Args:
        inputs: what one input of the stream looks like.
        vit: the pretrained backbone.
        bottleneck: r of the adapters.
        alpha: weight of all subspaces together that are not of the class's own task; 0 or more.
        first: training of the first task's adapter (these are CIFAR-100's; ImageNet-R: lr 0.05, batches of 16, weight
            decay 0.005).
        later: training of each later one.

    Attributes:
        measured: (K, d) float32, class by class the means of a class of task i in subspaces 0..i.
    """

    categories: ClassVar[dict[str, str]] = {"model/bank": "params", "model/measured": "prototypes"}
    measured: Tensor

    def __init__(
        self,
        inputs: Inputs,
        vit: Vit = Vit(),
        bottleneck: int = 64,
        alpha: float = 0.1,
        first: Recipe = CIFAR,
        later: Recipe = CIFAR,
    ) -> None:
        super().__init__(inputs)
        demand(
            ("bottleneck", bottleneck, bottleneck >= 1, "1 or more"),
            ("alpha", alpha, 0 <= alpha < float("inf"), "0 or more and finite"),
        )
        self.vit = FrozenViT(inputs, vit)
        self.bottleneck, self.alpha, self.first, self.later = bottleneck, alpha, first, later
        self.bank = AdapterBank(self.vit.depth, self.vit.width, bottleneck)
        self.register_buffer("measured", torch.empty(0, self.vit.width))

    def grow(self, info: TaskInfo) -> None:
        """Make room for an adapter, and for a mean of each new class in every subspace so far."""
        tasks_of([*self.seen, info])  # refuses classes that come back
        super().grow(info)
        self.bank.grow()
        more = self.measured.new_zeros(len(info.classes) * len(self.bank), self.vit.width)
        self.measured = torch.cat([self.measured, more])

    def learn(self, task: Task, ctx: Context) -> None:
        """Train a fresh adapter by the new classes alone and store it; then look at every sample in all subspaces."""
        self.grow(task.info)
        self.to(ctx.device)
        adapter = Adapter(self.vit.depth, self.vit.width, self.bottleneck).to(ctx.device)
        adapt(self.vit, adapter, task, ctx, self.later if len(self.bank) > 1 else self.first)
        self.bank.add(adapter)
        with ctx.autocast():
            means = self._means(task.train, task.info.classes)  # (k, T, d)
        self.measured[-means.shape[0] * means.shape[1] :] = means.flatten(0, 1).to(self.measured)

    @torch.no_grad()
    def _means(self, samples: Samples, classes: tuple[int, ...]) -> Tensor:
        """(k, T, d) float64: means of k classes in all subspaces, in one reading of the images."""
        self.eval()
        sums = torch.zeros(len(classes), len(self.bank), self.vit.width, dtype=torch.float64)
        for inputs, labels in samples.batches(100):
            features = self.features(inputs.to(self.measured.device)).double().cpu()
            sums.index_add_(0, torch.searchsorted(torch.tensor(classes), labels), features)
        counts = torch.stack([(samples.labels == label).sum() for label in classes])
        return sums / counts.clamp(min=1)[:, None, None]

    def features(self, inputs: Tensor) -> Tensor:
        """(b, *shape) raw inputs -> (b, T, d) float32; one subspace after the other, so that one is in memory."""
        return torch.stack([self.vit(inputs, self.bank.one(t)).float() for t in range(len(self.bank))], dim=1)

    def prototypes(self) -> Tensor:
        """(C, T, d): measured where they could be, otherwise synthesised."""
        tasks = tasks_of(self.seen).to(self.measured.device)  # (C,)
        known = torch.arange(len(self.bank), device=tasks.device) <= tasks[:, None]  # (C, T)
        table = self.measured.new_zeros(*known.shape, self.vit.width)
        table[known] = self.measured
        return synthesised(table, tasks)

    def predict(self, inputs: Tensor) -> Tensor:
        """(b, C) weighted sums of cosines, within [-1 - alpha, 1 + alpha]."""
        features = self.features(inputs)
        with torch.autocast(features.device.type, enabled=False):
            weights = subspace_weights(tasks_of(self.seen).to(features.device), self.alpha)
            return weighted_cosines(features, self.prototypes(), weights)


def synthesised(table: Tensor, tasks: Tensor) -> Tensor:
    """Estimate old classes in newer subspaces by their likeness to newer classes in their own subspace.

    P_{o,j} = sum over classes n of tasks >= j of softmax_n(cos(P_{o,i}, P_{n,i})) P_{n,j}, o of task i < j.

    Args:
        table: (C, T, d) float, right where j <= task(c).
        tasks: (C,) int64 in [0, T).

    Returns:
        (C, T, d); what was right is unchanged.
    """
    table, n_tasks = table.clone(), table.shape[1]
    likeness = table.new_zeros(len(tasks), len(tasks))  # (C, C) in the subspace of the row's own task
    for i in range(n_tasks):
        own = tasks == i
        likeness[own] = cosines(table[own, i], table[:, i])
    for j in range(1, n_tasks):
        old, new = tasks < j, tasks >= j
        table[old, j] = likeness[old][:, new].softmax(1) @ table[new, j]
    return table


def subspace_weights(tasks: Tensor, alpha: float) -> Tensor:
    """Weigh subspaces for each class: 1 for that of its own task, alpha / (T - 1) for each other.

    Args:
        tasks: (C,) int64, every one of 0..T-1 occurs.
        alpha: of all others together.

    Returns:
        (C, T) float32.

    >>> subspace_weights(torch.tensor([0, 1, 2]), 0.1)[1]
    tensor([0.0500, 1.0000, 0.0500])
    """
    n_tasks = int(tasks.max()) + 1
    weights = torch.full((len(tasks), n_tasks), alpha / max(n_tasks - 1, 1), device=tasks.device)
    return weights.scatter(1, tasks[:, None], 1.0)


def weighted_cosines(features: Tensor, prototypes: Tensor, weights: Tensor) -> Tensor:
    """Sum the subspaces' cosines with weights, in one product.

    Args:
        features: (b, T, d).
        prototypes: (C, T, d).
        weights: (C, T).

    Returns:
        (b, C).
    """
    rows = weights[:, :, None] * normalize(prototypes, dim=2)
    return normalize(features, dim=2).flatten(1) @ rows.flatten(1).T
