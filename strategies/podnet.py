"""PODNet: pooled outputs of every stage are held, and each class has several proxies (Douillard et al., ECCV 2020).

Arthur Douillard et al., "PODNet: Pooled Outputs Distillation for Small-Tasks Incremental Learning". Three losses: NCA
over cosines to proxies, a distance between height- and width-wise sums of the maps (POD-spatial), and one between
features (POD-flat); then a short training on as many samples of each class.

The released code (the toolbox's) means the paper's NCA, but takes the margin off every class, so that it has no effect,
and leaves an extra exp(0) in the sum of the others; `loss: released` repeats that. With a learned scale NCA has no
lower bound, so it stops at 0, as the paper's hinge does. As in the toolbox, new proxies are drawn at random (the
authors imprint them), and old ones no longer learn. Where a task brings no new class, none do.

Carried: one backbone, a head of 4 P C d + 4 bytes with P proxies a class (P = 10: 256,000 bytes at 100 classes of 64
features), and the exemplars: item bytes + 1 label byte each. The teacher is the carried network itself, copied when a
task starts. The balanced training has more samples of new classes than will be kept, while their data are there.
"""

from __future__ import annotations

import copy
import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize, one_hot

from clearn.context import Context
from clearn.errors import ConfigError, demand
from clearn.parts.cosine import cosines
from clearn.parts.exemplars import Memory
from clearn.parts.herding import herd, normalise
from clearn.parts.nets import GrowingHead, HeadedNet, embed
from clearn.parts.rehearsal import Rehearsal, with_memory
from clearn.parts.samples import Samples
from clearn.recipe import Recipe
from clearn.strategy import Strategy
from clearn.stream import Inputs, Task, TaskInfo

STAGE = Recipe(epochs=160, schedule="cosine", weight_decay=5e-4)
"""How every task is trained."""


class PodNet(Strategy):
    """Hold what the stages show, pooled; classify by proxies.

    Args:
        inputs: what one input of the stream looks like.
        backbone: name of a backbone with feature maps; the published one has signed features, which suit cosines.
        pretrained: start from published weights, where the backbone has some: true, or a safetensors file.
        memory: how many exemplars, how chosen, how stored; without a number they fill the byte budget.
        proxies: P, for each class.
        loss: "nca" is the paper's; "released" what was run for the published tables.
        margin: delta of the NCA loss.
        flat: weight of POD-flat, times sqrt(all classes / the task's classes).
        spatial: weight of POD-spatial, times the same.
        first: training of the first task.
        later: training of each later task.
        balance: training on as many samples of each class, after each later task.
    """

    def __init__(
        self,
        inputs: Inputs,
        backbone: str = "cosine_resnet32",
        pretrained: str | bool = False,
        memory: Memory = Memory(),
        proxies: int = 10,
        loss: Literal["nca", "released"] = "nca",
        margin: float = 0.6,
        flat: float = 1.0,
        spatial: float = 5.0,
        first: Recipe = STAGE,
        later: Recipe = STAGE,
        balance: Recipe = Recipe(epochs=20, lr=0.005, schedule="cosine", weight_decay=5e-4),
    ) -> None:
        super().__init__(inputs)
        demand(
            ("proxies", proxies, proxies >= 1, "1 or more"),
            ("margin", margin, 0 <= margin < float("inf"), "0 or more and finite"),
            ("flat", flat, 0 <= flat < float("inf"), "0 or more and finite"),
            ("spatial", spatial, 0 <= spatial < float("inf"), "0 or more and finite"),
        )
        self.net = HeadedNet(inputs, backbone, pretrained, lambda width: ProxyHead(width, proxies))
        if self.net.first_stage is None:
            raise ConfigError(f"backbone={backbone!r} has no feature maps to hold: take a convnet or a resnet")
        self.memory: Rehearsal = Rehearsal(memory, inputs)
        self.loss, self.margin, self.flat, self.spatial = loss, margin, flat, spatial
        self.first, self.later, self.balance = first, later, balance

    def grow(self, info: TaskInfo) -> None:
        """Add the proxies of each new class."""
        super().grow(info)
        self.net.grow(len(self.classes))

    def learn(self, task: Task, ctx: Context) -> None:
        """Copy the teacher, train, train on as many of each class, choose exemplars."""
        n_old, teacher, stored = len(self.classes), copy.deepcopy(self.net), self.memory.samples()
        self.grow(task.info)
        factor = math.sqrt(len(self.classes) / len(task.info.classes))

        def loss(inputs: Tensor, targets: Tensor) -> Tensor:
            features, maps = self.net.features_and_maps(inputs)
            losses = self.classify(self.net.head(features), targets)
            if not n_old:
                return losses
            with torch.no_grad():
                old_features, old_maps = teacher.features_and_maps(inputs)
            flat = 1 - cosine_similarity(features.float(), old_features.float())
            return losses + factor * (self.flat * flat + self.spatial * pod_spatial(maps, old_maps))

        for rows in self.net.head.old_rows(n_old):
            rows.requires_grad_(False)
        data = with_memory(task.train, stored)
        ctx.fit(self, data, self.later if n_old else self.first, loss=loss, beside=[teacher] if n_old else [])
        if len(stored):
            with ctx.autocast():
                chosen = herded(self, task.train, max(1, len(stored) // n_old))
            ctx.fit(self, with_memory(chosen, stored), self.balance, loss=loss, beside=[teacher])
        self.requires_grad_(True)
        self.memory.keep(self, self.net.features, task, ctx)

    def classify(self, scores: Tensor, targets: Tensor) -> Tensor:
        """(b, C) scores, (b,) labels -> (b,) NCA loss of the form chosen."""
        return released_nca(scores, targets) if self.loss == "released" else nca(scores, targets, self.margin)

    def predict(self, inputs: Tensor) -> Tensor:
        """(b, C) scaled scores."""
        scores: Tensor = self.net(inputs)
        return scores

    def losses(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """(b,) NCA loss, by which the classifier is trained."""
        return self.classify(self.net(inputs), targets)

    def read(self, inputs: Tensor) -> dict[str, Tensor]:
        """Classifier and nearest mean of exemplars."""
        return self.memory.read(self, self.net.features, self.net.head, inputs)


class ProxyHead(GrowingHead):
    """Several proxies a class; a class's score is a mean of its cosines, weighted towards the nearest.

    Args:
        width: d.
        proxies: P.

    Attributes:
        rows: a (k P, d) parameter for each task that brought k classes, U(-1/sqrt(d), 1/sqrt(d)) at first.
        sigma: (), learned scale of the scores; starts at 1.
    """

    def __init__(self, width: int, proxies: int) -> None:
        super().__init__()
        self.width, self.proxies = width, proxies
        self.rows = nn.ParameterList()
        self.sigma = nn.Parameter(torch.ones(()))

    def grow(self, n_classes: int) -> None:
        """Draw the proxies of new classes."""
        more = n_classes * self.proxies - sum(len(rows) for rows in self.rows)
        if more:
            bound = 1 / math.sqrt(self.width)
            self.rows.append(nn.Parameter(torch.empty(more, self.width).uniform_(-bound, bound)))

    def old_rows(self, n_old: int) -> list[Tensor]:
        """Give the parameters that belong to the first `n_old` classes."""
        found, classes = [], 0
        for rows in self.rows:
            classes += len(rows) // self.proxies
            if classes <= n_old:
                found.append(rows)
        return found

    def forward(self, features: Tensor) -> Tensor:
        """(b, d) -> (b, C) float32, sigma times a value in [-1, 1]."""
        near = cosines(features, torch.cat(list(self.rows)))
        near = near.reshape(len(features), -1, self.proxies)  # (b, C, P)
        return self.sigma * (near.softmax(2) * near).sum(2)


def nca(scores: Tensor, targets: Tensor, margin: float) -> Tensor:
    """Ask the right class's score to beat the others' by a margin: [log sum_{c != y} e^t_c - t_y + margin]_+.

    Args:
        scores: (b, C).
        targets: (b,) int64 labels.
        margin: delta.

    Returns:
        (b,); 0 where there is one class only.
    """
    if scores.shape[1] == 1:
        return 0 * scores[:, 0]
    right = one_hot(targets, scores.shape[1]).bool()
    others = scores.masked_fill(right, -torch.inf).logsumexp(1)
    return (others - scores[right] + margin).clamp(min=0)


def released_nca(scores: Tensor, targets: Tensor) -> Tensor:
    """NCA as it was released: no margin, scores less their highest, and exp(0) in the right one's place in the sum.

    Where the right class is the highest it is the cross-entropy.

    Args:
        scores: (b, C).
        targets: (b,) int64 labels.

    Returns:
        (b,).
    """
    t = scores - scores.amax(1, keepdim=True)
    right = one_hot(targets, scores.shape[1]).bool()
    return t.masked_fill(right, 0).logsumexp(1) - t[right]


def pod_spatial(maps: list[Tensor], old_maps: list[Tensor]) -> Tensor:
    """Compare squared maps, summed along either side (POD-spatial), averaged over the stages.

    Args:
        maps: one (b, c, h, w) for each stage.
        old_maps: the teacher's.

    Returns:
        (b,) mean distance between vectors of unit norm, in [0, sqrt(2)].
    """

    def pooled(found: Tensor) -> Tensor:
        squares = found.float().square()
        sides = [squares.sum(3).flatten(1), squares.sum(2).flatten(1)]  # (b, c h), (b, c w)
        return normalize(torch.cat(sides, dim=1), dim=1)

    stages = zip(maps, old_maps, strict=True)
    return torch.stack([(pooled(new) - pooled(old)).norm(dim=1) for new, old in stages]).mean(0)


def herded(learner: PodNet, samples: Samples, keep: int) -> Samples:
    """Take the best `keep` samples of each class in herding order, fewer where a class has fewer."""
    chosen = []
    for label in samples.labels.unique(sorted=True):
        rows = (samples.labels == label).nonzero().flatten()
        features = embed(learner, learner.net.features, samples.take(rows))
        chosen.append(rows[herd(normalise(features), min(keep, len(rows)))])
    return samples.take(torch.cat(chosen))
