"""GDumb: keep a balanced memory, and train a new network on nothing else (Prabhu, Torr, Dokania, ECCV 2020).

A control for all that learn continually: the greedy sampler takes what comes while classes are even and throws out
items of the largest class otherwise; the dumb learner starts afresh on the memory whenever it is asked.

Carried: one backbone, a linear head, and the exemplars: item bytes + 1 label byte each. Nothing transient.

Where this differs from paper and released code: the sampler's outcome is drawn a task at a time (equal shares for all
classes seen, random samples of each, cut at random when more come), where the paper goes sample by sample to the same
odds and the code takes the first of each class. One cosine over the phase instead of warm restarts, which end in one
of half the epochs; gradients are not clipped. CutMix is the code's: one box a batch, with probability 1/2.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from clearn.context import Context
from clearn.errors import ConfigError
from clearn.parts.exemplars import Memory
from clearn.parts.nets import SingleNet
from clearn.parts.rehearsal import Rehearsal
from clearn.recipe import Recipe
from clearn.strategy import Strategy
from clearn.stream import Inputs, Task, TaskInfo


class GDumb(Strategy):
    """Greedy sampler and dumb learner.

    Args:
        inputs: what one input of the stream looks like.
        backbone: name of a backbone.
        pretrained: start from published weights: true for timm's, or a safetensors file.
        memory: how many exemplars, how stored; without a number they fill the byte budget. The sampler draws by
            chance: `selection` is not asked.
        cutmix: probability that a batch is mixed, images only; 0.5 in the paper for all but MNIST.
        recipe: training on the memory, after every task.
    """

    def __init__(
        self,
        inputs: Inputs,
        backbone: str = "resnet32",
        pretrained: str | bool = False,
        memory: Memory = Memory(),
        cutmix: float = 0.5,
        recipe: Recipe = Recipe(epochs=256, lr=0.05, schedule="cosine", batch_size=16, weight_decay=1e-6),
    ) -> None:
        super().__init__(inputs)
        if not 0 <= cutmix <= 1:
            raise ConfigError(f"cutmix={cutmix} must lie in [0, 1]: the probability that a batch is mixed")
        if cutmix and len(inputs.shape) != 3:
            raise ConfigError(
                f"cutmix={cutmix} cuts boxes out of images, but inputs are {inputs.shape}: write cutmix: 0"
            )
        self.backbone, self.pretrained, self.cutmix, self.recipe = backbone, pretrained, cutmix, recipe
        self.alone = "cutmix pastes other images of the batch into each (cutmix: 0 does without)" if cutmix else ""
        self.net = SingleNet(inputs, backbone, pretrained)
        self.memory: Rehearsal = Rehearsal(replace(memory, selection="random"), inputs)

    def grow(self, info: TaskInfo) -> None:
        """Begin with a new network, its head with a row for each class seen."""
        super().grow(info)
        if info.index:
            self.net = SingleNet(self.inputs, self.backbone, self.pretrained)
        self.net.grow(len(self.classes))

    def learn(self, task: Task, ctx: Context) -> None:
        """Balance the memory, then train the new network on it."""
        self.grow(task.info)
        self.memory.keep(self, self.net.features, task, ctx)
        rng = ctx.rng("cutmix")

        def loss(inputs: Tensor, targets: Tensor) -> Tensor:
            if not self.cutmix or float(torch.rand((), generator=rng)) >= self.cutmix:
                return cross_entropy(self.net(inputs), targets, reduction="none")
            mixed, others, share = cut_mix(inputs, rng)
            logits = self.net(mixed)
            own = cross_entropy(logits, targets, reduction="none")
            return share * own + (1 - share) * cross_entropy(logits, targets[others], reduction="none")

        if len(self.memory):  # a budget may leave no room for any
            ctx.fit(self, self.memory.samples(), self.recipe, loss=loss)

    def predict(self, inputs: Tensor) -> Tensor:
        """(b, C) logits."""
        logits: Tensor = self.net(inputs)
        return logits

    def read(self, inputs: Tensor) -> dict[str, Tensor]:
        """Classifier and nearest mean of exemplars."""
        return self.memory.read(self, self.net.features, self.net.head, inputs)


def cut_mix(images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """Paste a box of another image of the batch into each, the same box for all (Yun et al. 2019, alpha = 1).

    Args:
        images: (b, c, H, W), left as they are.
        rng: draws the share, the partners, and the box's centre, in this order.

    Returns:
        (b, c, H, W) mixed images, (b,) int64 whose box each one got, and the share of its own pixels that it kept.
    """
    height, width = images.shape[-2:]
    size = float(1 - torch.rand((), generator=rng)) ** 0.5  # sqrt(1 - lambda), lambda ~ Beta(1, 1)
    others = torch.randperm(len(images), generator=rng)
    spans = []
    for length in (height, width):
        centre, half = int(torch.randint(length, (), generator=rng)), int(length * size) // 2
        spans.append(slice(max(centre - half, 0), min(centre + half, length)))
    rows, columns = spans
    mixed = images.clone()
    mixed[:, :, rows, columns] = images[others.to(images.device), :, rows, columns]
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    return mixed, others.to(images.device), 1 - area / (height * width)
