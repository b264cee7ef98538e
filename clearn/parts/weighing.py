"""The importances that a dampening compares: those of what goes, and those of a reference, measured or carried.

Measuring takes one pass over both sets (two where batches are squared as the authors' code does). What is carried from
training until a request: how many samples of each class were met, 8 bytes a class, and with `store` the importances
of all training data met so far, 4 bytes a scalar (2 in bfloat16), so that a request reads what goes alone.

Stored importances are a running mean over tasks, each at the weights of its own time: exact after one task, stale
after more; the bound I_f / I_D <= n / m is kept all the same. What goes is taken out of them at a request, as far as
that can be done.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from clearn.errors import ConfigError, StateError
from clearn.parts.forgetting import classifier, thawed
from clearn.parts.importance import (
    Batch,
    Importance,
    Split,
    Sweep,
    batch,
    class_mean,
    class_mean_split,
    exact,
    exact_split,
)
from clearn.parts.sample_gradients import Objective
from clearn.parts.samples import Samples, concat

if TYPE_CHECKING:
    from clearn.strategy import Strategy

Kind = Literal["exact", "batch", "class_mean"]


@dataclass(frozen=True)
class Weighing:
    """How importances are had; options of a method, see there.

    Attributes:
        objective: what is differentiated.
        kind: "exact" sums squares of single samples, "batch" of batches, "class_mean" of classes.
        remaining: compare with the samples that stay instead of with all.
        store: carry the importances of the training data.
        precision: of what is stored.
        batch_size: samples a batch; only "batch" depends on it.
    """

    objective: Objective
    kind: Kind
    remaining: bool
    store: bool
    precision: Literal["float32", "bfloat16"]
    batch_size: int

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch_size={self.batch_size} must be 1 or more")
        if self.store and self.remaining:
            raise ConfigError(
                "store: true carries the importances of all data met, so the reference cannot be 'remaining': leave it "
                "at 'all', or store nothing"
            )

    def sweep(self, strategy: Strategy) -> Sweep:
        """Gradients of the classifier."""
        return Sweep(self.objective, forward=lambda inputs: classifier(strategy, inputs))


@dataclass(frozen=True)
class Weighed:
    """Two importances to compare.

    Attributes:
        forget: I_f, by parameter.
        reference: I_D, or I_r.
        samples: read for them.
    """

    forget: dict[str, Tensor]
    reference: dict[str, Tensor]
    samples: int


class Scales:
    """Counts of the samples met, stored importances, and the passes that a request needs."""

    def __init__(self, how: Weighing) -> None:
        self.how = how
        self._counts = torch.zeros(0, dtype=torch.int64)  # (C,) training samples met and not forgotten, by class
        self._means: dict[str, Tensor] = {}  # stored importances
        self._weight = 0.0  # how many samples they are the mean over; batches, where these are squared

    @property
    def counted(self) -> bool:
        """Whether the training samples met so far were counted; not where a model was learned without an unlearner."""
        return len(self._counts) > 0

    def watch(self, strategy: Strategy, train: Samples) -> None:
        """Count a task's training samples, and where it is wished add their importances to what is stored."""
        self._counts = _padded_sum(self._counts, torch.bincount(train.labels))
        if self.how.store and len(train):
            with thawed(strategy):
                new = _measured(strategy, train, self.how)
            self._keep({n: self._sum(n, x) + x.cpu() for n, x in new.sums.items()}, self._weight + new.count)

    def size(self, kept: int, n_gone: int) -> int:
        """How many samples the reference stands for: those met or, where nobody counted, those at hand.

        Args:
            kept: samples at hand that stay.
            n_gone: samples that go.
        """
        return max(int(self._counts.sum()), kept + n_gone)

    def weigh(self, strategy: Strategy, gone: Samples, kept: Samples | None, stand_in: bool) -> Weighed:
        """Measure what goes, and the reference where it is not stored. The strategy is left as it is.

        Args:
            strategy: its parameters that were ever trained are weighed.
            gone: samples that go.
            kept: samples that stay; None where the stored importances are the reference.
            stand_in: whether those are exemplars that stand for all samples of their classes.

        Raises:
            StateError: importances should have been stored and were not.
        """
        with thawed(strategy):
            if kept is None:
                return self._against_stored(strategy, gone)
            weights = self._weights(gone, kept) if stand_in else None
            if self.how.kind == "batch":
                whole = kept if self.how.remaining else concat([kept, gone])
                forget, reference = (_measured(strategy, one, self.how) for one in (gone, whole))
                return Weighed(forget.mean(), reference.mean(), len(gone) + len(whole))
            split = _split(strategy, gone, kept, weights, self.how)
        reference = split.retain if self.how.remaining else split.whole
        return Weighed(split.forget.mean(), reference.mean(), len(gone) + len(kept))

    def forget(self, gone: Samples, importances: dict[str, Tensor]) -> None:
        """Take samples out of the counts and, as far as stale values allow, out of what is stored.

        Args:
            gone: samples that went.
            importances: I_f as measured.
        """
        self._counts = _padded_sum(self._counts, -torch.bincount(gone.labels)).clamp(min=0)
        if self.how.store:
            taken = -(-len(gone) // self.how.batch_size) if self.how.kind == "batch" else len(gone)
            left = {n: (self._sum(n, x) - taken * x.cpu()).clamp(min=0) for n, x in importances.items()}
            self._keep(left, max(self._weight - taken, 0.0))

    def state(self) -> dict[str, Tensor]:
        """`counts` (C,) int64; with importances stored `weight` () float64 and one `importance/NAME` a parameter."""
        state = {"unlearner/counts": self._counts} if len(self._counts) else {}
        if self._means:
            state["unlearner/weight"] = torch.tensor(self._weight, dtype=torch.float64)
            state |= {f"unlearner/importance/{name}": value for name, value in self._means.items()}
        return state

    def planned_bytes(self, strategy: Strategy) -> int:
        """Bytes of `state` once the task at hand was watched."""
        n_bytes = 8 * len(strategy.classes)
        if self.how.store:
            with thawed(strategy):
                scalars = sum(p.numel() for p in strategy.parameters() if p.requires_grad)
            n_bytes += 8 + getattr(torch, self.how.precision).itemsize * scalars
        return n_bytes

    def load(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave.

        Raises:
            StateError: other entries.
        """
        left = {name.removeprefix("unlearner/"): torch.as_tensor(value) for name, value in state.items()}
        counts = left.pop("counts", torch.zeros(0, dtype=torch.int64))
        weight = float(left.pop("weight", torch.zeros(())))
        means = {name.removeprefix("importance/"): value for name, value in left.items()}
        unknown = sorted(name for name in left if not name.startswith("importance/"))
        if unknown or (means and not self.how.store):
            raise StateError(
                f"this state holds {unknown or 'stored importances'}, which an unlearner with store: "
                f"{str(self.how.store).lower()} does not keep: resume it with the config in its own run folder"
            )
        self._counts, self._means, self._weight = counts, means, weight

    def _against_stored(self, strategy: Strategy, gone: Samples) -> Weighed:
        if not self._means:
            raise StateError(
                "no importances are stored: with store: true they are measured after each task, and this model was "
                "learned without; set store: false, and the data or exemplars are read instead"
            )
        sums = _measured(strategy, gone, self.how)
        forget, share = sums.mean(), sums.count / max(self._weight, 1)
        stored = {n: (self._sum(n, x) / max(self._weight, 1)).to(x.device) for n, x in forget.items()}
        # All data hold what goes, so I_D >= p I_f: what is stale, or of weights that grew later, is brought up to it.
        return Weighed(forget, {n: torch.maximum(x, share * forget[n]) for n, x in stored.items()}, len(gone))

    def _weights(self, gone: Samples, kept: Samples) -> Tensor | None:
        """Weigh an exemplar of class c by N_c / m_c: samples of the class that stay, over its exemplars."""
        if not len(self._counts) or self.how.kind == "batch":
            return None
        left = _padded_sum(self._counts, -torch.bincount(gone.labels)).clamp(min=0)
        held = _padded_sum(torch.zeros_like(left), torch.bincount(kept.labels))
        return (left / held.clamp(min=1))[kept.labels].float()

    def _sum(self, name: str, like: Tensor) -> Tensor:
        """The stored sum of a parameter, float32 of the shape that it has by now: what grew starts at 0."""
        total = torch.zeros(like.shape)
        if name in self._means:
            mean = self._means[name].float()
            total[tuple(slice(size) for size in mean.shape)] = mean * self._weight
        return total

    def _keep(self, sums: dict[str, Tensor], weight: float) -> None:
        dtype = getattr(torch, self.how.precision)
        self._means = {name: (total / max(weight, 1)).to(dtype) for name, total in sums.items()}
        self._weight = weight


def _measured(strategy: Strategy, samples: Samples, how: Weighing) -> Importance:
    """Sum over one set."""
    if how.kind == "batch":
        return batch(strategy, samples.batches(how.batch_size), how.sweep(strategy))
    if how.kind == "exact":
        return exact(strategy, samples.batches(how.batch_size), how.sweep(strategy))
    by_class = samples.take(samples.labels.argsort(stable=True))
    return class_mean(strategy, by_class.batches(how.batch_size), how.sweep(strategy), class_sorted=True)


def _split(strategy: Strategy, gone: Samples, kept: Samples, weights: Tensor | None, how: Weighing) -> Split:
    """Sum over both sets apart, in one pass."""
    both = concat([kept, gone])
    goes = torch.arange(len(both)) >= len(kept)
    weights = torch.ones(len(both)) if weights is None else torch.cat([weights, torch.ones(len(gone))])
    order = both.labels.argsort(stable=True) if how.kind == "class_mean" else torch.arange(len(both))

    def batches() -> Iterator[Batch]:
        rows = order.split(how.batch_size)
        for (inputs, targets), index in zip(both.loader(rows), rows, strict=True):
            yield Batch(inputs, targets, goes[index], weights[index])

    if how.kind == "exact":
        return exact_split(strategy, batches(), how.sweep(strategy))
    return class_mean_split(strategy, batches(), how.sweep(strategy), class_sorted=True)


def _padded_sum(a: Tensor, b: Tensor) -> Tensor:
    """Add two tensors of the same dimensions but other sizes, the smaller one filled up with zeros."""
    total = torch.zeros([max(sizes) for sizes in zip(a.shape, b.shape, strict=True)], dtype=b.dtype)
    for one in (a, b):
        total[tuple(slice(size) for size in one.shape)] += one
    return total
