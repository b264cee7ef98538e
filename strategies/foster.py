"""FOSTER: boost the old model with a second network, then compress both into one (Wang, Zhou, Ye, Zhan, ECCV 2022).

Fu-Yun Wang et al., "FOSTER: Feature Boosting and Compression for Class-Incremental Learning". Boosting: the old network
is frozen, a copy of it learns what it lacks, and one head reads both side by side. Compression: a student that starts
as the old network imitates the pair, with the classes' weights evened out. The student is what is scored and carried.

As in the released code, the logits are divided by the class weights, and both heads of the pair are fresh but for the
old rows. Departures from it: n_c counts the samples at hand (it takes 500 or, but for CIFAR, a sum of sample numbers,
and a nominal count for old classes), and an absent class counts as one sample. Its optional weight alignments, which
its configs turn off, and the original's CutMix in compression are left out.

Carried: one backbone, a linear head, and the exemplars: item bytes + 1 label byte each. While training two networks
more: the frozen old one and the boosted one; heads and optimisers beside them.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from clearn.context import Context
from clearn.errors import demand
from clearn.parts.exemplars import Memory
from clearn.parts.heads import distillation, fresh_head, grown_head
from clearn.parts.nets import SingleNet
from clearn.parts.rehearsal import Rehearsal, with_memory
from clearn.recipe import Recipe
from clearn.strategy import Strategy
from clearn.stream import Inputs, Task, TaskInfo


class Foster(Strategy):
    """Two networks while boosting, one afterwards.

    Args:
        inputs: what one input of the stream looks like.
        backbone: name of a backbone.
        pretrained: start from published weights: true for timm's, or a safetensors file.
        memory: how many exemplars, how chosen, how stored; without a number they fill the byte budget.
        beta_boost: of the effective number of samples, by which boosting weighs classes; 0 weighs all alike.
        beta_compress: the same for compression.
        distill_weight: of the old network's answers in boosting.
        temperature: of all distillation.
        first: training of the first task.
        later: boosting, in each later task.
        compression: of the pair into the student.
    """

    def __init__(
        self,
        inputs: Inputs,
        backbone: str = "resnet32",
        pretrained: str | bool = False,
        memory: Memory = Memory(),
        beta_boost: float = 0.96,
        beta_compress: float = 0.97,
        distill_weight: float = 1.0,
        temperature: float = 2.0,
        first: Recipe = Recipe(epochs=200, schedule="cosine", weight_decay=5e-4),
        later: Recipe = Recipe(epochs=170, schedule="cosine", weight_decay=5e-4),
        compression: Recipe = Recipe(epochs=130, schedule="cosine"),
    ) -> None:
        super().__init__(inputs)
        demand(
            ("beta_boost", beta_boost, 0 <= beta_boost < 1, "in [0, 1)"),
            ("beta_compress", beta_compress, 0 <= beta_compress < 1, "in [0, 1)"),
            ("distill_weight", distill_weight, 0 <= distill_weight < float("inf"), "0 or more and finite"),
            ("temperature", temperature, 0 < temperature < float("inf"), "above 0 and finite"),
        )
        self.net = SingleNet(inputs, backbone, pretrained)
        self.memory: Rehearsal = Rehearsal(memory, inputs)
        self.beta_boost, self.beta_compress = beta_boost, beta_compress
        self.distill_weight, self.temperature = distill_weight, temperature
        self.first, self.later, self.compression = first, later, compression

    def grow(self, info: TaskInfo) -> None:
        """Add a row to the head for each new class."""
        super().grow(info)
        self.net.grow(len(self.classes))

    def learn(self, task: Task, ctx: Context) -> None:
        """Boost the old network by another, compress both into one, choose exemplars."""
        n_old, old = len(self.classes), copy.deepcopy(self.net)
        self.grow(task.info)
        data = with_memory(task.train, self.memory.samples())
        if not n_old:
            ctx.fit(self, data, self.first)
        else:
            counts = torch.bincount(data.labels, minlength=len(self.classes))
            pair = Pair(old, len(self.classes)).to(ctx.device)

            boost_weights = class_weights(counts, self.beta_boost).to(ctx.device)

            def boosting(inputs: Tensor, targets: Tensor) -> Tensor:
                logits, new_logits, old_logits = pair.views(inputs)
                losses = cross_entropy(logits / boost_weights, targets, reduction="none")
                losses = losses + cross_entropy(new_logits, targets, reduction="none")
                kept = distillation(logits[:, :n_old], old_logits, self.temperature)
                return losses + self.distill_weight * kept

            ctx.fit(pair, data, self.later, loss=boosting)

            even_weights = class_weights(counts, self.beta_compress).to(ctx.device)

            def compressing(inputs: Tensor, targets: Tensor) -> Tensor:
                with torch.no_grad():
                    taught = pair(inputs)
                return balanced_distillation(self.net(inputs), taught, even_weights, self.temperature)

            ctx.fit(self, data, self.compression, loss=compressing, beside=[pair])
        self.memory.keep(self, self.net.features, task, ctx)

    def predict(self, inputs: Tensor) -> Tensor:
        """(b, C) logits."""
        logits: Tensor = self.net(inputs)
        return logits

    def read(self, inputs: Tensor) -> dict[str, Tensor]:
        """Classifier and nearest mean of exemplars."""
        return self.memory.read(self, self.net.features, self.net.head, inputs)


class Pair(nn.Module):
    """The frozen old network and a new one that starts as its copy, with one head over both; lives for one task.

    Args:
        old: the network of the last task, o classes; it is frozen and stays in evaluation mode.
        n_classes: C, all classes seen.
    """

    def __init__(self, old: SingleNet, n_classes: int) -> None:
        super().__init__()
        self.new = copy.deepcopy(old.backbone)
        self.old = old.requires_grad_(False)
        self.head = grown_head(old.head, 2 * old.width, n_classes)
        self.auxiliary = fresh_head(old.width, n_classes)

    def train(self, mode: bool = True) -> Pair:
        """Set the mode; the old network stays in evaluation mode, so that its BatchNorm statistics don't move."""
        super().train(mode)
        self.old.eval()
        return self

    def views(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(b, *shape) raw inputs -> logits of both (b, C), of the new network (b, C), of the old one (b, o)."""
        normalised = self.old.normalise(inputs)
        with torch.no_grad():
            before = self.old.backbone(normalised)  # (b, d)
            assert self.old.head is not None
            old_logits = self.old.head(before)
        after = self.new(normalised)  # (b, d)
        return self.head(torch.cat([before, after], dim=1)), self.auxiliary(after), old_logits

    def forward(self, inputs: Tensor) -> Tensor:
        """(b, *shape) raw inputs -> (b, C) logits of both."""
        return self.views(inputs)[0]


def class_weights(counts: Tensor, beta: float) -> Tensor:
    """Weigh classes by their effective number of samples (Cui et al., CVPR 2019): rare ones weigh more.

    Args:
        counts: (C,) samples of each class; 0 counts as 1.
        beta: in [0, 1); 0 weighs all alike, towards 1 by the inverse of the counts.

    Returns:
        (C,) float32, (1 - beta) / (1 - beta^n), scaled to a sum of C.
    """
    raw = (1 - beta) / (1 - beta ** counts.clamp(min=1).double())
    return (raw * len(counts) / raw.sum()).float()


def balanced_distillation(logits: Tensor, teacher_logits: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """Cross-entropy against the teacher's softened answers, each class's share times its weight.

    Args:
        logits: (b, C).
        teacher_logits: (b, C).
        weights: (C,) positive; all alike gives `distillation`.
        temperature: T; both are divided by it.

    Returns:
        (b,) float.
    """
    wanted = (teacher_logits / temperature).softmax(1) * weights
    wanted = wanted / wanted.sum(1, keepdim=True)
    return -(wanted * (logits / temperature).log_softmax(1)).sum(1)
