"""COIL: optimal transport between classes starts the new rows and steadies the old (Zhou, Ye, Zhan, ACM MM 2021).

Da-Wei Zhou et al., "Co-Transport for Class-Incremental Learning". Classes with near means share their classifiers:
before a task the old rows are carried over to the new classes (prospective transport), and while it is learned the new
rows are carried back to the old ones and asked to answer as the old model does (retrospective transport).

The released code differs in ways that we don't follow: it takes the means of old classes from all of their training
data, which is gone here, so exemplars stand for them; and the masses of new classes add up to n_new / n_old, not 1.
Its factor of n_old on the transported rows falls out where their mean norm is matched to that of the old. As in it, the
means behind the retrospective transport are recomputed during the task, here at most every `refresh_every` steps of an
epoch. Classes without exemplars are left out; where a task brings no new class, or there is no exemplar, nothing is
transported, and without new classes lambda = 1 leaves distillation alone.

Carried: one backbone, a cosine head without biases of 4 C d + 4 bytes, and the exemplars: item bytes + 1 label byte
each. The teacher is the carried network itself, copied when a task starts: +1 network while training, nothing carried.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from clearn.context import Context
from clearn.errors import demand
from clearn.parts.cosine import cosines
from clearn.parts.exemplars import Memory
from clearn.parts.heads import distillation
from clearn.parts.herding import class_means
from clearn.parts.nets import GrowingHead, HeadedNet, embed
from clearn.parts.rehearsal import Rehearsal, with_memory
from clearn.parts.samples import Samples
from clearn.recipe import Recipe
from clearn.strategy import Strategy
from clearn.stream import Inputs, Task, TaskInfo

STAGE = Recipe(epochs=160, milestones=(80, 120), weight_decay=5e-4)
"""How every task is trained."""


class Coil(Strategy):
    """(1 - lambda) cross-entropy + lambda distillation, lambda = old classes / all classes, and two transports.

    Args:
        inputs: what one input of the stream looks like.
        backbone: name of a backbone; the published one has signed features, which suit cosines.
        pretrained: start from published weights, where the backbone has some: true, or a safetensors file.
        memory: how many exemplars, how chosen, how stored; without a number they fill the byte budget.
        temperature: of all distillation.
        reg: entropy's weight in the transport.
        norm: p of the distance between class means, which is the transport's cost.
        prospective: weight of the transported new rows' answers, in the first epoch of a task.
        retrospective: weight of the transported old rows' answers, times (epoch / epochs)^2 in all later ones.
        refresh_every: steps of an epoch after which the retrospective transport is solved anew; each takes a look at
            all samples of the task (200 in the survey's code, 30 in the toolbox).
        first: training of the first task.
        later: training of each later task.
    """

    def __init__(
        self,
        inputs: Inputs,
        backbone: str = "cosine_resnet32",
        pretrained: str | bool = False,
        memory: Memory = Memory(),
        temperature: float = 2.0,
        reg: float = 0.464,
        norm: float = 3.0,
        prospective: float = 1e-3,
        retrospective: float = 1e-3,
        refresh_every: int = 200,
        first: Recipe = STAGE,
        later: Recipe = STAGE,
    ) -> None:
        super().__init__(inputs)
        demand(
            ("temperature", temperature, 0 < temperature < math.inf, "above 0 and finite"),
            ("reg", reg, 0 < reg < math.inf, "above 0 and finite"),
            ("norm", norm, 1 <= norm < math.inf, "1 or more and finite"),
            ("prospective", prospective, 0 <= prospective < math.inf, "0 or more and finite"),
            ("retrospective", retrospective, 0 <= retrospective < math.inf, "0 or more and finite"),
            ("refresh_every", refresh_every, refresh_every >= 1, "1 or more"),
        )
        self.net = HeadedNet(inputs, backbone, pretrained, CosineRows)
        self.memory: Rehearsal = Rehearsal(memory, inputs)
        self.temperature, self.reg, self.norm = temperature, reg, norm
        self.prospective, self.retrospective, self.refresh_every = prospective, retrospective, refresh_every
        self.first, self.later = first, later

    def grow(self, info: TaskInfo) -> None:
        """Add a row to the head for each new class."""
        super().grow(info)
        self.net.grow(len(self.classes))

    def learn(self, task: Task, ctx: Context) -> None:
        """Transport rows to the new classes, train while transporting them back, choose exemplars."""
        n_old, teacher, stored = len(self.classes), copy.deepcopy(self.net), self.memory.samples()
        self.grow(task.info)
        data = with_memory(task.train, stored)
        if not n_old:
            ctx.fit(self, data, self.first)
        else:
            ends = Ends(data, n_old, len(self.classes), ctx)
            ahead = self.look_ahead(ends, teacher)
            self.train_between(ends, teacher, ahead, ctx)
        self.memory.keep(self, self.net.features, task, ctx)

    @torch.no_grad()
    def look_ahead(self, ends: Ends, teacher: HeadedNet[CosineRows]) -> Tensor | None:
        """Start the new rows as a transport of the old, by means under the old model.

        Returns:
            (n_new, d) the rows so started, or None where there is nothing to transport.
        """
        if not ends.both:
            return None
        rows, means = self.net.head.rows, ends.means(teacher)
        moved = transported(rows[ends.old], means[ends.old], means[ends.new], self.reg, self.norm)
        moved = moved * rows[: ends.n_old].norm(dim=1).mean() / moved.norm(dim=1).mean()
        rows[ends.new] = moved
        return moved

    @torch.no_grad()
    def look_back(self, ends: Ends) -> Tensor:
        """(old classes, d): the old rows as a transport of the new, by means under the model as it is."""
        means = ends.means(self.net)
        self.train()
        return transported(self.net.head.rows[ends.new], means[ends.new], means[ends.old], self.reg, self.norm)

    def train_between(self, ends: Ends, teacher: HeadedNet[CosineRows], ahead: Tensor | None, ctx: Context) -> None:
        """Train on all samples; which transport is asked depends on the epoch."""
        share, t = ends.n_old / len(self.classes), self.temperature
        per_epoch = math.ceil(len(ends.samples) / self.later.batch_size)
        step, back = 0, None

        def loss(inputs: Tensor, targets: Tensor) -> Tensor:
            features = self.net.features(inputs)
            logits: Tensor = self.net.head(features)
            with torch.no_grad():
                old = teacher(inputs)
            losses = (1 - share) * cross_entropy(logits, targets, reduction="none")
            losses = losses + share * distillation(logits[:, : ends.n_old], old, t)
            if step < per_epoch and ahead is not None:  # max(1 - (epoch / 2)^2, 0) is 1 in the only epoch it is asked
                wanted = cosines(features, ahead)
                losses = losses + self.prospective * distillation(logits[:, ends.new], wanted, t)
            elif back is not None:
                weight = self.retrospective * (step // per_epoch / self.later.epochs) ** 2
                losses = losses + weight * distillation(cosines(features, back), old[:, ends.old], t)
            return losses

        def after_step() -> None:
            nonlocal step, back
            step += 1
            epoch, batch = divmod(step, per_epoch)
            if ends.both and 0 < epoch < self.later.epochs and batch % self.refresh_every == 0:
                back = self.look_back(ends)

        ctx.fit(self, ends.samples, self.later, loss=loss, beside=[teacher], after_step=after_step)

    def predict(self, inputs: Tensor) -> Tensor:
        """(b, C) scaled cosines."""
        logits: Tensor = self.net(inputs)
        return logits

    def read(self, inputs: Tensor) -> dict[str, Tensor]:
        """Classifier and nearest mean of exemplars."""
        return self.memory.read(self, self.net.features, self.net.head, inputs)


class CosineRows(GrowingHead):
    """sigma cos(features, rows), with a learned scale: 4 C d + 4 bytes.

    Args:
        width: d.

    Attributes:
        rows: (C, d); new ones are drawn from U(-1/sqrt(d), 1/sqrt(d)).
        sigma: (), starts at 1.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.empty(0, width))
        self.sigma = nn.Parameter(torch.ones(()))

    def grow(self, n_classes: int) -> None:
        """Add rows, old ones kept."""
        more, width = n_classes - len(self.rows), self.rows.shape[1]
        if more:
            fresh = torch.empty(more, width).uniform_(-1 / math.sqrt(width), 1 / math.sqrt(width))
            self.rows = nn.Parameter(torch.cat([self.rows.detach(), fresh.to(self.rows)]))

    def forward(self, features: Tensor) -> Tensor:
        """(b, d) -> (b, C) float32 logits."""
        return self.sigma * cosines(features, self.rows)


class Ends:
    """The classes between which rows are transported, and the samples that stand for them; lives for one task.

    Args:
        samples: of the task and of the memory.
        n_old: classes seen before the task.
        n_classes: all classes.
        ctx: this step's services.

    Attributes:
        old: (o,) int64, old classes with samples.
        new: (k,) int64, new classes with samples.
        both: whether there are any of either.
    """

    def __init__(self, samples: Samples, n_old: int, n_classes: int, ctx: Context) -> None:
        self.samples, self.n_old, self.n_classes, self._ctx = samples, n_old, n_classes, ctx
        found = samples.labels.unique(sorted=True)
        self.old, self.new = found[found < n_old], found[found >= n_old]
        self.both = bool(len(self.old) and len(self.new))

    def means(self, net: HeadedNet[CosineRows]) -> Tensor:
        """(C, d) normalised class means under a network, which is left in evaluation mode."""
        with self._ctx.autocast():
            features = embed(net, net.features, self.samples)
        return class_means(features, self.samples.labels, self.n_classes).to(net.head.rows.device)


def transported(rows: Tensor, sources: Tensor, targets: Tensor, reg: float, norm: float) -> Tensor:
    """Mix normalised rows by the plan that carries source classes to target classes.

    Args:
        rows: (n, d) classifiers of the source classes.
        sources: (n, d) their class means.
        targets: (m, d) class means of the target classes.
        reg: of the transport.
        norm: p of the distance between means.

    Returns:
        (m, d) rows; their directions are what matters.
    """
    plan = sinkhorn(torch.cdist(sources.double(), targets.double(), p=norm), reg)  # (n, m)
    return plan.T.to(rows) @ normalize(rows, dim=1)


def sinkhorn(cost: Tensor, reg: float, tolerance: float = 1e-9, most: int = 1000) -> Tensor:
    """Solve optimal transport between uniform masses with an entropy term, in log space (Cuturi, NeurIPS 2013).

    Args:
        cost: (n, m).
        reg: weight of the entropy: towards 0 the cheapest plan, towards infinity the one that ignores the cost.
        tolerance: stop when the columns' masses are all this near to 1/m.
        most: or after so many rounds.

    Returns:
        (n, m) float64 >= 0; rows sum to 1/n, columns to 1/m within the tolerance.
    """
    n, m = cost.shape
    kernel = -cost.double() / reg
    left, right = kernel.new_zeros(n, 1), kernel.new_zeros(1, m)
    for _ in range(most):
        right = -math.log(m) - (kernel + left).logsumexp(0, keepdim=True)
        left = -math.log(n) - (kernel + right).logsumexp(1, keepdim=True)
        plan = (kernel + left + right).exp()
        if float((plan.sum(0) - 1 / m).abs().max()) < tolerance:
            break
    return plan
