"""RanPAC: random features of a first-task-adapted network, and ridge regression on all of them in closed form.

McDonnell, Gong, Parvaneh, Abbasnejad, van den Hengel, "RanPAC: Random Projections and Pre-trained Models for Continual
Learning" (NeurIPS 2023), section 4 and Alg. 1, in the original form: the LAMDA-PILOT toolbox feeds the weights through
a cosine head, which divides every class's by its norm; the paper does not. The sums are those of one regression on all
tasks at once, so order and split do not matter beyond the adapter; a class that comes back adds to its sums.

Carried: G as a triangle, 2 M (M + 1) bytes; Q, 4 M C; the projection as a seed, 8, or stored, 4 d M; the adapter,
4 L (2dr + r + d); the ridge, 8. `ridge: all_seen` carries G and Q twice. The weights follow from these and are not
carried, nor is the backbone, which equals its checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import linear, one_hot

from clearn.context import Context
from clearn.errors import ConfigError, Diverged
from clearn.parts.adaptation import adapt
from clearn.parts.adapters import Adapter
from clearn.parts.frozen_vit import FrozenViT, Vit
from clearn.parts.nets import embed
from clearn.parts.projection import Projection, RandomFeatures
from clearn.parts.triangles import packed, unpacked
from clearn.recipe import Recipe
from clearn.state import State
from clearn.strategy import Strategy
from clearn.stream import Inputs, Task, TaskInfo

RIDGES = tuple(10.0**power for power in range(-8, 9))
"""Among which the paper chooses lambda."""


class RanPac(Strategy):
    """h = relu(phi(x; A) R), W = (G + lambda I)^-1 Q with G = sum h'h and Q = sum h'onehot(y).

    Args:
        inputs: what one input of the stream looks like.
        vit: the pretrained backbone.
        adapt: train an adapter on the first task; otherwise the plain network's features are projected.
        bottleneck: r of the adapter.
        projection: the random features.
        ridge: lambda. "current" is the paper's: of 10^-8 ... 10^8 the one with the least squared error on a fifth of
            the current task's samples after a fit on the others; on an easy task it can be far too small for all
            classes. "all_seen" takes that fifth of every task seen, by sums that are carried, and costs an
            eigendecomposition of G a task. A number is taken as it is.
        first: training of the adapter, on the first task.

    Attributes:
        gram: (M (M + 1) / 2,) float32, G of all samples; of four fifths under "all_seen".
        cross: (C, M) float32, Q transposed, of the same samples.
        held_gram: like `gram`, of the other fifth; under "all_seen" alone, like `held_cross`.
        chosen: () float64, lambda; not there where it is given.
    """

    categories: ClassVar[dict[str, str]] = {
        "model/gram": "covariances",
        "model/cross": "prototypes",
        "model/held_gram": "covariances",
        "model/held_cross": "prototypes",
        "model/random.seed": "rng",
        "model/random.matrix": "buffers",
        "model/chosen": "meta",
    }
    gram: Tensor
    cross: Tensor
    held_gram: Tensor
    held_cross: Tensor
    chosen: Tensor

    def __init__(
        self,
        inputs: Inputs,
        vit: Vit = Vit(),
        adapt: bool = True,
        bottleneck: int = 64,
        projection: Projection = Projection(),
        ridge: float | Literal["current", "all_seen"] = "current",
        first: Recipe = Recipe(epochs=20, lr=0.01, schedule="cosine", batch_size=48, weight_decay=5e-4),
    ) -> None:
        super().__init__(inputs)
        if not isinstance(ridge, str) and not 0 < ridge < float("inf"):
            raise ConfigError(f"ridge={ridge} must be above 0 and finite, or one of current, all_seen")
        self.ridge, self.first = ridge, first
        self.vit = FrozenViT(inputs, vit)
        self.adapter = Adapter(self.vit.depth, self.vit.width, bottleneck) if adapt else None
        self.random = RandomFeatures(self.vit.width, projection)
        self.size = m = projection.features
        self.register_buffer("gram", torch.zeros(m * (m + 1) // 2))
        self.register_buffer("cross", torch.empty(0, m))
        held = ridge == "all_seen"
        self.register_buffer("held_gram", torch.zeros(m * (m + 1) // 2 if held else 0), persistent=held)
        self.register_buffer("held_cross", torch.empty(0, m), persistent=held)
        given = not isinstance(ridge, str)
        initial = torch.tensor(ridge if given else 1.0, dtype=torch.float64)
        self.register_buffer("chosen", initial, persistent=not given)
        self._weights: Tensor | None = None  # (C, M) float32; follow from what is carried

    def grow(self, info: TaskInfo) -> None:
        """Make room for the sums of each new class."""
        super().grow(info)
        more = len(self.classes) - len(self.cross)
        empty = self.cross.new_zeros(more, self.size)
        self.cross = torch.cat([self.cross, empty])
        if self.ridge == "all_seen":
            self.held_cross = torch.cat([self.held_cross, empty])
        self._weights = None

    def learn(self, task: Task, ctx: Context) -> None:
        """Train the adapter on the first task; then project every sample once, choose lambda, add to the sums."""
        self.grow(task.info)
        if self.adapter is not None and len(self.seen) == 1:
            adapt(self.vit, self.adapter, task, ctx, self.first)
        with ctx.autocast():
            features = embed(self, self.features, task.train, batch=100)
        order = torch.randperm(len(features), generator=ctx.rng("ranpac/split"))
        fit, held = order.tensor_split([len(order) * 4 // 5])
        h = torch.cat([self.random(part.to(self.gram.device)) for part in features.split(500)])  # (n, M)
        y = one_hot(task.train.labels, len(self.classes)).to(h)  # (n, C)
        if self.ridge == "current" and len(fit) and len(held):
            self.chosen.fill_(best_ridge(h[fit], y[fit], h[held], y[held]))
        self.add(h, y, fit, held)
        if self.ridge == "all_seen":
            self.chosen.fill_(
                best_ridge_of_sums(
                    unpacked(self.gram, self.size), self.cross, unpacked(self.held_gram, self.size), self.held_cross
                )
            )
        ctx.log("ranpac/ridge", float(self.chosen))

    @torch.no_grad()
    def add(self, h: Tensor, y: Tensor, fit: Tensor, held: Tensor) -> None:
        """Add samples to the sums.

        Args:
            h: (n, M) random features.
            y: (n, C) one-hot labels.
            fit: rows of the four fifths.
            held: rows of the other fifth, which have sums of their own under "all_seen".
        """
        if self.ridge == "all_seen":
            self.held_gram += packed(h[held].T @ h[held])
            self.held_cross += y[held].T @ h[held]
            h, y = h[fit], y[fit]
        self.gram += packed(h.T @ h)
        self.cross += y.T @ h
        self._weights = None

    def load(self, state: State, seen: Sequence[TaskInfo]) -> None:
        """Rebuild; draw the projection from the seed that was carried."""
        super().load(state, seen)
        if "model/random.seed" in state:
            self.random.redraw()
        self._weights = None

    def features(self, inputs: Tensor) -> Tensor:
        """(b, *shape) raw inputs -> (b, d)."""
        features: Tensor = self.vit(inputs, self.adapter)
        return features

    def weights(self) -> Tensor:
        """Solve for W': (C, M) float32, from sums over all samples."""
        gram, cross = self.gram, self.cross
        if self.ridge == "all_seen":
            gram, cross = gram + self.held_gram, cross + self.held_cross
        return solved(unpacked(gram, self.size), cross, float(self.chosen)).float()

    def predict(self, inputs: Tensor) -> Tensor:
        """(b, C) regressed indicators."""
        h = self.random(self.features(inputs))
        if self._weights is None:
            self._weights = self.weights()
        with torch.autocast(h.device.type, enabled=False):
            return linear(h, self._weights.to(h.device))


@torch.no_grad()
def solved(gram: Tensor, cross: Tensor, ridge: float) -> Tensor:
    """Solve W' = Q' (G + lambda I)^-1 in float64.

    Sums that were rounded to float32 need not be positive definite with a tiny lambda, which can't be resolved then:
    the next larger power of ten at which they are is taken.

    Args:
        gram: (M, M).
        cross: (C, M).
        ridge: lambda.

    Returns:
        (C, M) float64.

    Raises:
        Diverged: the sums are not finite.
    """
    if not bool(gram.isfinite().all()):
        raise Diverged("the sums of RanPAC are not finite: look at the adapter's lr, or at images that are not finite")
    square = gram.to(torch.float64, copy=True)
    square.diagonal().add_(ridge)
    factor, failed = torch.linalg.cholesky_ex(square)
    while bool(failed):
        square.diagonal().add_(9 * ridge)
        ridge *= 10
        factor, failed = torch.linalg.cholesky_ex(square)
    return torch.cholesky_solve(cross.double().T, factor).T


@torch.no_grad()
def best_ridge(h: Tensor, y: Tensor, held_h: Tensor, held_y: Tensor) -> float:
    """Choose lambda by the squared error on samples held out; of equals the smallest.

    One eigendecomposition serves all candidates, of h h' (n, n) or of h'h (M, M), whichever is smaller: with
    h h' = V diag(e) V', the predictions are held_h h' V diag(1 / (e + lambda)) V' y.

    Args:
        h: (n, M) that is fitted.
        y: (n, C) its one-hot labels.
        held_h: (v, M) held out.
        held_y: (v, C).
    """
    h, y, held_h, held_y = h.double(), y.double(), held_h.double(), held_y.double()
    if len(h) <= h.shape[1]:
        values, vectors = torch.linalg.eigh(h @ h.T)
        left, right = held_h @ (h.T @ vectors), vectors.T @ y
    else:
        values, vectors = torch.linalg.eigh(h.T @ h)
        left, right = held_h @ vectors, vectors.T @ (h.T @ y)
    values = values.clamp(min=0)[:, None]
    errors = [float((held_y - left @ (right / (values + ridge))).square().mean()) for ridge in RIDGES]
    return RIDGES[errors.index(min(errors))]


@torch.no_grad()
def best_ridge_of_sums(gram: Tensor, cross: Tensor, held_gram: Tensor, held_cross: Tensor) -> float:
    """Choose lambda by the squared error on samples of which only sums are left: tr(W'GW) - 2 tr(W'Q), up to n.

    Args:
        gram: (M, M) of what is fitted.
        cross: (C, M).
        held_gram: (M, M) of what is held out.
        held_cross: (C, M).
    """
    values, vectors = torch.linalg.eigh(gram.double())
    values, right = values.clamp(min=0)[:, None], vectors.T @ cross.double().T  # (M, 1), (M, C)
    held, wanted = vectors.T @ held_gram.double() @ vectors, vectors.T @ held_cross.double().T
    weights = [right / (values + ridge) for ridge in RIDGES]
    errors = [float((w * (held @ w)).sum() - 2 * (w * wanted).sum()) for w in weights]
    return RIDGES[errors.index(min(errors))]
