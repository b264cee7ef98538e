"""Linear discriminant analysis with one shared covariance on a frozen pretrained network (specs "mos", section 8).

Fisher's rule (1936) as streaming LDA has it (Hayes and Kanan, CVPR Workshops 2020), with exact sums: the order of the
tasks and how classes are split into them change nothing but rounding; a class that comes back moves its mean, and the
scatter by what that moves. Nothing is trained. The honest control beside anything that claims more.

Carried: one mean a class, 4 C d bytes; the within-class scatter as a triangle, 2 d (d + 1); a count a class, 4 C. The
backbone equals its checkpoint and is not carried.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import linear

from clearn.context import Context
from clearn.errors import ConfigError
from clearn.parts.frozen_vit import FrozenViT, Vit
from clearn.parts.nets import embed
from clearn.parts.triangles import packed, unpacked
from clearn.state import State
from clearn.strategy import Strategy
from clearn.stream import Inputs, Task, TaskInfo


class SharedLda(Strategy):
    """w_c = Sigma^-1 mu_c and b_c = -mu_c' Sigma^-1 mu_c / 2, all classes taken as equally likely.

    Args:
        inputs: what one input of the stream looks like.
        vit: the pretrained backbone.
        shrinkage: so many times the mean variance is added to the covariance's diagonal; above 0.

    Attributes:
        means: (C, d) float32.
        scatter: (d (d + 1) / 2,) float32: sum over samples of (x - mu_y)(x - mu_y)'.
        counts: (C,) int32 samples met.
    """

    categories: ClassVar[dict[str, str]] = {
        "model/means": "prototypes",
        "model/scatter": "covariances",
        "model/counts": "counts",
    }
    means: Tensor
    scatter: Tensor
    counts: Tensor

    def __init__(self, inputs: Inputs, vit: Vit = Vit(), shrinkage: float = 0.1) -> None:
        super().__init__(inputs)
        if not 0 < shrinkage < float("inf"):
            raise ConfigError(
                f"shrinkage={shrinkage} must be above 0 and finite: without it the covariance of fewer samples than "
                "dimensions has no inverse; 0.1 is the default"
            )
        self.shrinkage = shrinkage
        self.vit = FrozenViT(inputs, vit)
        d = self.vit.width
        self.register_buffer("means", torch.empty(0, d))
        self.register_buffer("scatter", torch.zeros(d * (d + 1) // 2))
        self.register_buffer("counts", torch.empty(0, dtype=torch.int32))
        self._rule: tuple[Tensor, Tensor] | None = None  # follows from the three; never carried

    def grow(self, info: TaskInfo) -> None:
        """Make room for a mean of each new class."""
        super().grow(info)
        more = len(self.classes) - len(self.means)
        self.means = torch.cat([self.means, self.means.new_zeros(more, self.means.shape[1])])
        self.counts = torch.cat([self.counts, self.counts.new_zeros(more)])
        self._rule = None

    def learn(self, task: Task, ctx: Context) -> None:
        """Look at every sample once, as it is: without augmentation."""
        self.grow(task.info)
        with ctx.autocast():
            features = embed(self, self.vit, task.train, batch=100)
        self.add(features, task.train.labels)

    def load(self, state: State, seen: Sequence[TaskInfo]) -> None:
        """Rebuild, and leave the rule to be derived."""
        super().load(state, seen)
        self._rule = None

    @torch.no_grad()
    def add(self, features: Tensor, labels: Tensor) -> None:
        """Merge the moments of new samples with those held (Chan, Golub, LeVeque 1979, Eq. 2.1), in float64.

        Args:
            features: (n, d) float.
            labels: (n,) int64 in [0, C).
        """
        x = features.double().to(self.means.device)  # (n, d)
        y = labels.to(self.means.device)
        n_old, old = self.counts.double()[:, None], self.means.double()  # (C, 1), (C, d)
        n_new = torch.bincount(y, minlength=len(old)).double()[:, None]
        new = torch.zeros_like(old).index_add_(0, y, x) / n_new.clamp(min=1)
        total = (n_old + n_new).clamp(min=1)
        moved, centred = (n_old * n_new / total).sqrt() * (new - old), x - new[y]
        self.scatter += packed(centred.T @ centred + moved.T @ moved).to(self.scatter)
        self.means.copy_(old + n_new / total * (new - old))
        self.counts += n_new[:, 0].to(self.counts)
        self._rule = None

    def rule(self) -> tuple[Tensor, Tensor]:
        """Derive the rule, in float64.

        Samples that do not differ within any class, one of each for instance, leave no covariance: then it is the
        identity, and the nearest mean answers.

        Returns:
            w (C, d) and b (C,), float32.
        """
        mu = self.means.double()
        freedom = max(1, int(self.counts.sum()) - int((self.counts > 0).sum()))
        covariance = unpacked(self.scatter.double(), self.vit.width) / freedom  # (d, d)
        variance = covariance.diagonal().mean()
        covariance.diagonal().add_(self.shrinkage * variance if variance > 0 else 1.0)
        w = torch.linalg.solve(covariance, mu.T).T  # (C, d)
        return w.float(), (-0.5 * (w * mu).sum(1)).float()

    def predict(self, inputs: Tensor) -> Tensor:
        """(b, C) log densities of the Gaussians up to a term that all classes share."""
        features = self.vit(inputs)
        if self._rule is None:
            self._rule = self.rule()
        w, b = (value.to(features.device) for value in self._rule)
        with torch.autocast(features.device.type, enabled=False):
            return linear(features.float(), w, b)
