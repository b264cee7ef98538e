"""EWC, elastic weight consolidation: weights that mattered are held where they were (Kirkpatrick et al., PNAS 2017).

Cross-entropy on the task plus weight/2 * sum over i of F_i (theta_i - theta*_i)^2, where F is the diagonal Fisher
information of earlier tasks at the weights theta* that they ended with (their Eq. 3).

Carried beside the backbone (P parameters) and head, bP + 4 C (d + 1) bytes, with p = P + C (d + 1):
- `form: online` (Schwarz et al. 2018, "Progress & compress", section 3): one running Fisher, 4 p. Its anchor is the
  network as a task finds it, so it is not carried.
- `form: separate` (Kirkpatrick): a Fisher and an anchor for each task, 8 p with the C of that task.
Transient: online, a copy of the weights as anchor, 4 p.

Where this differs from papers and toolbox (PyCIL):
- The Fisher is the empirical one (labels of the data, softmax over all classes seen) in all of them. `exact` squares
  gradients of single samples, as it is defined; `batch` squares those of batch means, as the toolbox does, which is
  smaller by up to the batch size. Both in evaluation mode on samples as stored; the toolbox augments them and lets
  BatchNorm run.
- As in the toolbox, Fisher values are cut at `clip`: without it lr * weight * F passes 2 and training diverges. And
  online values are mixed by the share of old classes, unless `decay` gives Schwarz's F <- decay F + F_task; where
  classes come back, each task counts its own. Rows of new classes have no past to be mixed with.
- Both papers and the toolbox tell a new task's classes apart from each other alone: `softmax_over: task`.

What is forgotten on request leaves the Fisher as it is, a mean of squared gradients over a task; online, the anchor
is what the unlearner left. Separate anchors are older and pull towards what they knew: prefer online where requests
come.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from clearn.context import Context
from clearn.errors import ConfigError
from clearn.parts import importance
from clearn.parts.heads import open_to
from clearn.parts.nets import SingleNet
from clearn.parts.samples import Samples
from clearn.recipe import FIRST_TASK, Recipe
from clearn.strategy import Strategy
from clearn.stream import Inputs, Task, TaskInfo

Values = dict[str, Tensor]


class Ewc(Strategy):
    """Cross-entropy on the task, and a quadratic penalty on moving weights that mattered.

    Args:
        inputs: what one input of the stream looks like.
        backbone: name of a backbone.
        pretrained: start from published weights: true for timm's, or a safetensors file.
        weight: of the penalty (lambda), 1000 in the toolbox.
        form: "online", one Fisher for all tasks, or "separate", one for each, with an anchor.
        decay: online, how much of the old Fisher stays when a task's is added; null mixes by the share of classes.
        fisher: "exact", squared gradients of single samples, or "batch", of batches as large as training's.
        clip: largest value of a task's Fisher; null leaves them as they are.
        softmax_over: classes that the cross-entropy tells apart: "task", those of the task, or "seen", all so far.
        first: training of the first task.
        later: training of each later task.
    """

    categories: ClassVar[dict[str, str]] = {"model/fisher": "importance", "model/anchors": "importance"}

    def __init__(
        self,
        inputs: Inputs,
        backbone: str = "resnet32",
        pretrained: str | bool = False,
        weight: float = 1000.0,
        form: Literal["online", "separate"] = "online",
        decay: float | None = None,
        fisher: Literal["exact", "batch"] = "exact",
        clip: float | None = 1e-4,
        softmax_over: Literal["task", "seen"] = "task",
        first: Recipe = FIRST_TASK,
        later: Recipe = Recipe(epochs=180, milestones=(70, 120, 150), weight_decay=2e-4),
    ) -> None:
        super().__init__(inputs)
        wrong = []
        if not 0 <= weight < math.inf:
            wrong.append(f"weight={weight} must be 0 or more and finite: 0 is finetuning")
        if decay is not None and not 0 <= decay <= 1:
            wrong.append(f"decay={decay} must lie in [0, 1], or be null for the share of classes")
        if decay is not None and form == "separate":
            wrong.append(f"decay={decay} is of the online form, but form is separate: leave it out")
        if clip is not None and not 0 < clip < math.inf:
            wrong.append(f"clip={clip} must be above 0 and finite, or null for no limit")
        if wrong:
            raise ConfigError("\n".join(wrong))
        self.net = SingleNet(inputs, backbone, pretrained)
        self.fisher, self.anchors = nn.ModuleList(), nn.ModuleList()  # online: one Fisher and no anchor
        self.weight, self.form, self.decay, self.clip, self.kind = weight, form, decay, clip, fisher
        self.softmax_over, self.first, self.later = softmax_over, first, later

    def grow(self, info: TaskInfo) -> None:
        """Add a row to the head for each new class, and room for the task's Fisher; new values are 0."""
        super().grow(info)
        self.net.grow(len(self.classes))
        if self.form == "separate":
            self.fisher.append(Kept(parameters(self.net)))
            self.anchors.append(Kept(parameters(self.net)))
            return
        wider = Kept(parameters(self.net))
        for old in self.fisher:
            assert isinstance(old, Kept)
            for name, value in old.items():
                wider[name][: len(value)] = value
        self.fisher = nn.ModuleList([wider])

    def learn(self, task: Task, ctx: Context) -> None:
        """Anchor, train with the penalty, measure what matters now."""
        n_old = len(self.classes)
        self.grow(task.info)
        self.to(ctx.device)
        told_apart = task.info.classes if self.softmax_over == "task" else self.classes
        terms = self._terms() if n_old else []

        def loss(inputs: Tensor, targets: Tensor) -> Tensor:
            losses = cross_entropy(open_to(told_apart, self.net(inputs)), targets, reduction="none")
            now = dict(self.net.named_parameters())
            for fisher, anchor in terms:
                losses = losses + self.weight * penalty(now, fisher, anchor)
            return losses

        recipe = self.later if n_old else self.first
        ctx.fit(self, task.train, recipe, loss=loss)
        self._consolidate(self._measured(task.train, recipe.batch_size, ctx), n_old)

    def predict(self, inputs: Tensor) -> Tensor:
        """(b, C) logits."""
        logits: Tensor = self.net(inputs)
        return logits

    def _terms(self) -> list[tuple[Values, Values]]:
        """Fisher and anchor of each term of the penalty, before a task is trained."""
        if self.form == "online":
            return [(dict(self._kept(self.fisher, 0).items()), parameters(self.net))]
        past = range(len(self.seen) - 1)
        return [(dict(self._kept(self.fisher, t).items()), dict(self._kept(self.anchors, t).items())) for t in past]

    def _measured(self, samples: Samples, batch_size: int, ctx: Context) -> Values:
        """The Fisher of a task at the weights as they are, cut at `clip`."""
        measure = importance.exact if self.kind == "exact" else importance.batch
        device = next(self.net.parameters()).device
        with ctx.autocast():
            found = measure(self.net, ((x.to(device), y.to(device)) for x, y in samples.batches(batch_size))).mean()
        ctx.log("ewc/largest", max(float(value.max()) for value in found.values()))
        return found if self.clip is None else {name: value.clamp(max=self.clip) for name, value in found.items()}

    def _consolidate(self, found: Values, n_old: int) -> None:
        """Mix a task's Fisher into the running one, or keep it and the weights apart.

        Args:
            found: of the task just learned.
            n_old: classes seen before it: rows of the head from there on are new.
        """
        if self.form == "separate":
            for kept, values in ((self.fisher, found), (self.anchors, parameters(self.net))):
                for name, value in values.items():
                    self._kept(kept, -1)[name].copy_(value)
            return
        for name, running in self._kept(self.fisher, 0).items():
            old = running[:n_old] if name.startswith("head.") else running
            new = found[name][: len(old)]
            mixed = self._share_of_old() * old + (1 - self._share_of_old()) * new
            mixed = mixed if self.decay is None else self.decay * old + new
            running.copy_(torch.cat([mixed, found[name][len(old) :]]))

    def _share_of_old(self) -> float:
        """Classes of earlier tasks by those of all; a class that came back counts again."""
        counts = [len(info.classes) for info in self.seen]
        return sum(counts[:-1]) / sum(counts)

    @staticmethod
    def _kept(of: nn.ModuleList, index: int) -> Kept:
        kept = of[index]
        assert isinstance(kept, Kept)
        return kept


class Kept(nn.Module):
    """A tensor for each parameter of a network, carried as buffers; zeros when made.

    Args:
        like: parameters by name.
    """

    def __init__(self, like: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, value in like.items():
            self.register_buffer(name.replace(".", "/"), torch.zeros_like(value))  # a buffer's name holds no dot

    def __getitem__(self, name: str) -> Tensor:
        return self.get_buffer(name.replace(".", "/"))

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """Name of the parameter, tensor."""
        return ((name.replace("/", "."), value) for name, value in self.named_buffers())


def parameters(net: nn.Module) -> Values:
    """Copies of the parameters that are trained, by name."""
    return {name: p.detach().clone() for name, p in net.named_parameters() if p.requires_grad}


def penalty(now: Mapping[str, Tensor], fisher: Mapping[str, Tensor], anchor: Mapping[str, Tensor]) -> Tensor:
    """Weigh how far parameters have moved: 1/2 sum over i of F_i (theta_i - theta*_i)^2, a scalar.

    Args:
        now: parameters by name; the head may have grown rows, which are free.
        fisher: values of at least 0, of the shapes they had.
        anchor: where they were.
    """
    moved = [(f * (now[name][: len(f)] - anchor[name][: len(f)]).square()).sum() for name, f in fisher.items()]
    return torch.stack(moved).sum() / 2
