"""DER and DER++: replay samples together with what the network once answered to them (Buzzega et al., NeurIPS 2020).

Dark experience replay, not the expandable network that MEMO's tables call DER (`der_expand`). Eq. 6: cross-entropy on
the stream, plus alpha times the squared distance of the network's logits from those that were stored with replayed
samples; DER++ (Eq. 7) adds beta times the cross-entropy of other replayed samples. The memory is a reservoir, and the
logits are taken along the way of training.

Carried: one backbone, a linear head, per exemplar item bytes + 1 label byte + 4 C bytes of logits, and 8 bytes that
count the samples met: b P + 4 C (d + 1) + K (e + 4 C) + 8. Nothing transient but the new logits, 4 C bytes an item.

Where this differs from paper and released code (mammoth):
- As in the code, the distance is the mean over classes, not the sum that the paper writes; and logits come from
  augmented samples in training mode, while the sample is stored as it came.
- Each sample of a task is offered to the reservoir once, not once an epoch, and kept with its answer in an epoch drawn
  at random: the code's odds, without an item twice. What the task brings is replayed from the next task on, since a
  phase replays what is there when it begins; so what goes is replayed to the task's end.
- The head grows, where theirs has all classes from the start: a class has no target in the logits of an item that was
  stored before it came (-inf there, which still weighs its 4 bytes).
- One forward pass for all samples of a step, where the code makes three: BatchNorm then sees old and new together, as
  in prediction.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from clearn.context import Context
from clearn.errors import ConfigError
from clearn.parts.exemplars import Memory
from clearn.parts.nets import SingleNet, embed
from clearn.parts.reservoir import Reservoir, Traced
from clearn.parts.samples import Samples
from clearn.recipe import FIRST_TASK, Recipe
from clearn.strategy import Strategy
from clearn.stream import Inputs, Task, TaskInfo


class DarkEr(Strategy):
    """Cross-entropy on the task, stored logits matched, and in DER++ stored labels too.

    Args:
        inputs: what one input of the stream looks like.
        backbone: name of a backbone.
        pretrained: start from published weights: true for timm's, or a safetensors file.
        memory: how many exemplars, how stored; without a number they fill the byte budget, logits included. A
            reservoir is drawn by chance: `selection` and `remainder` are not asked.
        alpha: weight of the distance between logits, above 0; the paper's grid has 0.1 to 1.
        beta: weight of the replayed labels; 0 is DER, above it is DER++ (paper: 0.5 or 1).
        stored_per_step: exemplars drawn for each of the two terms beside a batch; null takes as many as the batch
            size, as in the paper.
        logits: of new exemplars: "trajectory", on the way through training, or "final", of the trained network.
        first: training of the first task.
        later: training of each later task.
    """

    categories: ClassVar[dict[str, str]] = {"memory/met": "index"}
    alone = "its loss tells new samples from stored ones by their place in the batch, and notes logits of all of them"

    def __init__(
        self,
        inputs: Inputs,
        backbone: str = "resnet32",
        pretrained: str | bool = False,
        memory: Memory = Memory(),
        alpha: float = 0.1,
        beta: float = 0.5,
        stored_per_step: int | None = None,
        logits: Literal["trajectory", "final"] = "trajectory",
        first: Recipe = FIRST_TASK,
        later: Recipe = Recipe(epochs=70, milestones=(30, 50), weight_decay=2e-4),
    ) -> None:
        super().__init__(inputs)
        wrong = []
        if not 0 < alpha < math.inf:
            wrong.append(f"alpha={alpha} must be above 0 and finite: without stored logits this is replay")
        if not 0 <= beta < math.inf:
            wrong.append(f"beta={beta} must be 0 (DER) or more (DER++), and finite")
        if stored_per_step is not None and stored_per_step < 1:
            wrong.append(f"stored_per_step={stored_per_step} must be 1 or more, or null for the batch size")
        if wrong:
            raise ConfigError("\n".join(wrong))
        self.net = SingleNet(inputs, backbone, pretrained)
        self.memory: Reservoir = Reservoir(memory, inputs)
        self.alpha, self.beta, self.stored_per_step, self.logits = alpha, beta, stored_per_step, logits
        self.first, self.later = first, later

    def grow(self, info: TaskInfo) -> None:
        """Add a row to the head for each new class."""
        super().grow(info)
        self.net.grow(len(self.classes))

    def learn(self, task: Task, ctx: Context) -> None:
        """Draw who enters the reservoir, train, and store them with their logits."""
        recipe = self.first if task.info.index == 0 else self.later
        self.grow(task.info)
        room = ctx.room(self, self.model_state() | {"memory/met": torch.tensor(self.memory.met)})
        capacity = self.memory.capacity(room, len(self.classes), ctx.paper)
        kept, taken = self.memory.draw(capacity, len(task.train), ctx.rng("reservoir"))

        stored, targets_of = Traced(self.memory.samples()), self.memory.logits
        arriving = Traced(task.train)
        diary = Diary(taken, len(task.train), len(self.classes), recipe.epochs, ctx.rng("diary"))
        each = self.stored_per_step or recipe.batch_size
        count = 0 if not len(stored) else 2 * each if self.beta else each

        def loss(inputs: Tensor, targets: Tensor) -> Tensor:
            outputs, n_new = self.net(inputs), len(inputs) - count
            diary.note(arriving.rows(), outputs[:n_new])
            total = cross_entropy(outputs[:n_new], targets[:n_new])
            if count:
                once = targets_of[stored.rows()[:each]].to(outputs.device)
                total = total + self.alpha * distance(outputs[n_new : n_new + each], once).mean()
            if count and self.beta:
                total = total + self.beta * cross_entropy(outputs[n_new + each :], targets[n_new + each :])
            return total

        ctx.fit(self, arriving, recipe, loss=loss, replay=(stored, count) if count else None)
        new = task.train.take(taken)
        logits = diary.logits if self.logits == "trajectory" else self._answers(new, ctx)
        self.memory.store(kept, new, logits, len(task.train), room, ctx.paper)

    def predict(self, inputs: Tensor) -> Tensor:
        """(b, C) logits."""
        logits: Tensor = self.net(inputs)
        return logits

    def read(self, inputs: Tensor) -> dict[str, Tensor]:
        """Classifier and nearest mean of exemplars."""
        return self.memory.read(self, self.net.features, self.net.head, inputs)

    def _answers(self, samples: Samples, ctx: Context) -> Tensor:
        """(m, C) logits of the network as it is, in evaluation mode, of samples as they will come out of storage."""
        with ctx.autocast():
            answers = embed(self, self.net, self.memory.exemplars.as_read(samples))
        return answers.reshape(len(samples), len(self.classes))


def distance(logits: Tensor, stored: Tensor) -> Tensor:
    """Square the differences of logits, and average them over the classes that were known when they were stored.

    Args:
        logits: (b, C) of the network now.
        stored: (b, w) with w <= C; -inf for classes that were not known. At least one was.

    Returns:
        (b,) float.
    """
    known = stored.isfinite()
    gaps = torch.where(known, logits[:, : stored.shape[1]] - stored.where(known, 0), 0)
    return gaps.square().sum(1) / known.sum(1)


class Diary:
    """The logits of some samples, each noted in an epoch drawn at random.

    Args:
        rows: (m,) int64, samples to note.
        n: samples in all; each comes by once an epoch.
        n_classes: width of the logits.
        epochs: of training.
        rng: draws the epochs.

    Attributes:
        logits: (m, C) float32 on the CPU, complete after the last epoch.
    """

    def __init__(self, rows: Tensor, n: int, n_classes: int, epochs: int, rng: torch.Generator) -> None:
        self.logits = torch.zeros(len(rows), n_classes)
        self._place = torch.zeros(n, dtype=torch.int64)  # (n,) where a sample's logits go
        self._place[rows] = torch.arange(len(rows))
        self._left = torch.zeros(n, dtype=torch.int64)  # (n,) visits until it is noted; 0 or less: never, or done
        self._left[rows] = torch.randint(1, epochs + 1, (len(rows),), generator=rng)

    def note(self, rows: Tensor, logits: Tensor) -> None:
        """Be told of a batch: (b,) int64 rows and their (b, C) logits."""
        due = self._left[rows] == 1
        self._left[rows] -= 1
        if bool(due.any()):
            self.logits[self._place[rows[due]]] = logits.detach()[due.to(logits.device)].float().cpu()
