"""BiC: distillation by the share of old classes, then two numbers that undo the bias to the new (Wu et al., CVPR 2019).

Yue Wu et al., "Large Scale Incremental Learning". Stage 1 trains the network on all samples but a few; stage 2 freezes
it and fits z <- alpha z + beta for the newest classes' logits on those few, as many of each class. Corrections of
earlier tasks stay where they are, in the student and in its teacher.

The released code on which the published tables rest takes the softmax twice in stage 2 and lets BatchNorm's statistics
move there; we do neither unless `double_softmax` asks for both. It reads the size of the held-out part off a nominal
number of exemplars and breaks where that gives none; here it is what is stored, and at least one sample a class.
Where a task brings no new class there is nothing to correct, and lambda = 1 leaves distillation alone.

Carried: one backbone, a linear head, 8 bytes of alpha and beta for each task that brought classes, and the exemplars:
item bytes + 1 label byte each; the held-out samples are among them. The teacher is the carried network itself, copied
when a task starts: +1 network while training, nothing carried.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from clearn.context import Context
from clearn.errors import ConfigError
from clearn.parts.exemplars import Memory
from clearn.parts.heads import Head, distillation, grown_head
from clearn.parts.nets import GrowingHead, HeadedNet
from clearn.parts.rehearsal import Rehearsal, with_memory
from clearn.parts.samples import Samples
from clearn.recipe import Recipe
from clearn.strategy import Strategy
from clearn.stream import Inputs, Task, TaskInfo

STAGE = Recipe(epochs=170, milestones=(60, 100, 140), weight_decay=2e-4)
"""How the survey's code trains both stages of every task, the first included."""


class BiC(Strategy):
    """(1 - lambda) cross-entropy + lambda distillation, lambda = old classes / all classes; then bias correction.

    Args:
        inputs: what one input of the stream looks like.
        backbone: name of a backbone.
        pretrained: start from published weights: true for timm's, or a safetensors file.
        memory: how many exemplars, how chosen, how stored; without a number they fill the byte budget.
        temperature: of the distillation.
        held_out: share of the exemplars of a class that stage 2 gets, and as many samples of each new class.
        double_softmax: repeat two mistakes of the released code in stage 2: cross-entropy of the softmax instead of
            the logits, and BatchNorm in training mode.
        first: training of the first task.
        later: stage 1 of each later task.
        correction: stage 2, on the few held-out samples.
    """

    def __init__(
        self,
        inputs: Inputs,
        backbone: str = "resnet32",
        pretrained: str | bool = False,
        memory: Memory = Memory(),
        temperature: float = 2.0,
        held_out: float = 0.1,
        double_softmax: bool = False,
        first: Recipe = STAGE,
        later: Recipe = STAGE,
        correction: Recipe = STAGE,
    ) -> None:
        super().__init__(inputs)
        wrong = [
            *([] if temperature > 0 else [f"temperature={temperature} must be above 0"]),
            *([] if 0 < held_out < 1 else [f"held_out={held_out} must be in (0, 1)"]),
        ]
        if wrong:
            raise ConfigError("; ".join(wrong))
        self.net = HeadedNet(inputs, backbone, pretrained, CorrectedHead)
        self.memory: Rehearsal = Rehearsal(memory, inputs)
        self.temperature, self.held_out, self.double_softmax = temperature, held_out, double_softmax
        self.first, self.later, self.correction = first, later, correction

    def grow(self, info: TaskInfo) -> None:
        """Add a row to the head for each new class, and a correction for the new rows together."""
        super().grow(info)
        self.net.grow(len(self.classes))

    def learn(self, task: Task, ctx: Context) -> None:
        """Hold out a balanced few, train on the rest, correct the bias on the few, choose exemplars."""
        n_old, teacher, stored = len(self.classes), copy.deepcopy(self.net), self.memory.samples()
        self.grow(task.info)
        data, few = with_memory(task.train, stored), None
        if len(stored) and n_old < len(self.classes):
            count = max(1, int(self.held_out * len(stored) / n_old))
            few, data = held_out(data, count, ctx.rng("bic/held-out"))

        share = n_old / len(self.classes)

        def loss(inputs: Tensor, targets: Tensor) -> Tensor:
            logits = self.net(inputs)
            losses = cross_entropy(logits, targets, reduction="none")
            if not n_old:
                return losses
            with torch.no_grad():
                old = teacher(inputs)
            return (1 - share) * losses + share * distillation(logits[:, :n_old], old, self.temperature)

        self.net.head.corrections.requires_grad_(False)
        ctx.fit(self, data, self.later if n_old else self.first, loss=loss, beside=[teacher] if n_old else [])
        if few is not None:
            self.correct(few, ctx)
        self.requires_grad_(True)
        self.memory.keep(self, self.net.features, task, ctx)

    def correct(self, few: Samples, ctx: Context) -> None:
        """Fit alpha and beta of the newest classes with everything else frozen."""
        newest = self.net.head.corrections[-1]
        assert isinstance(newest, Correction)
        self.requires_grad_(False)
        newest.requires_grad_(True)

        def loss(inputs: Tensor, targets: Tensor) -> Tensor:
            logits = self.net(inputs)
            return cross_entropy(logits.softmax(1) if self.double_softmax else logits, targets, reduction="none")

        self.net.train(self.double_softmax)
        ctx.fit(newest, few, self.correction, loss=loss)
        ctx.log("bic/alpha", newest.alpha.item())
        ctx.log("bic/beta", newest.beta.item())

    def predict(self, inputs: Tensor) -> Tensor:
        """(b, C) corrected logits."""
        logits: Tensor = self.net(inputs)
        return logits

    def read(self, inputs: Tensor) -> dict[str, Tensor]:
        """Classifier and nearest mean of exemplars."""
        return self.memory.read(self, self.net.features, self.net.head, inputs)


class Correction(nn.Module):
    """alpha z + beta: 8 bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1))
        self.beta = nn.Parameter(torch.zeros(1))

    def forward(self, logits: Tensor) -> Tensor:
        """(b, k) logits of one task's classes -> the same, corrected."""
        return self.alpha * logits + self.beta


class CorrectedHead(GrowingHead):
    """A linear head, and a correction for the rows that came together.

    Args:
        width: d.

    Attributes:
        corrections: one for each task that brought classes; the first task's stays at alpha 1, beta 0.
        sizes: how many rows each of them corrects.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.linear: Head | None = None
        self.corrections = nn.ModuleList()
        self.sizes: list[int] = []

    def grow(self, n_classes: int) -> None:
        """Add rows, old ones kept, and their correction; without new classes do nothing."""
        more = n_classes - sum(self.sizes)
        if not more:
            return
        self.linear = grown_head(self.linear, self.width, n_classes)
        self.corrections.append(Correction())
        self.sizes.append(more)

    def forward(self, features: Tensor) -> Tensor:
        """(b, d) -> (b, C) corrected logits."""
        assert self.linear is not None, "grow first"
        parts = self.linear(features).split(self.sizes, dim=1)
        return torch.cat([correct(part) for correct, part in zip(self.corrections, parts, strict=True)], dim=1)


def held_out(samples: Samples, count: int, rng: torch.Generator) -> tuple[Samples, Samples]:
    """Draw `count` samples of each class, but never the last of one.

    Args:
        samples: n of them.
        count: of each class, 1 or more.
        rng: draws one permutation for each class.

    Returns:
        The drawn samples and the others, both in the order of `samples`.
    """
    drawn = torch.zeros(len(samples), dtype=torch.bool)
    for label in samples.labels.unique(sorted=True):
        rows = (samples.labels == label).nonzero().flatten()
        order = torch.randperm(len(rows), generator=rng)
        drawn[rows[order[: min(count, len(rows) - 1)]]] = True
    return samples.take(drawn.nonzero().flatten()), samples.take((~drawn).nonzero().flatten())
