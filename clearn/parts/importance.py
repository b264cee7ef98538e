"""How much every parameter matters for a set of samples: the diagonal Fisher and its relatives, in bounded memory.

`exact` adds the squared gradients of single samples, as the papers define it; `batch` squares mean gradients of
batches, as their code does; `class_mean` squares mean gradients of classes. With `LENGTH` in place of `CROSS_ENTROPY`
the same three add absolute values of the gradients of ||f(x)||^2, which need no labels (LFSSD).

Sums and counts are kept apart, so results add: over shards, and for the forget set S_f and the retained samples S_r of
one pass, I_D = (S_r + S_f) / n and I_f = S_f / m. All passes run in eval mode at the parameters as they are, leave
modes, flags and buffers as they found them, and draw nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearn.parts.gradient_watch import EvalOnly
from clearn.parts.sample_gradients import Objective, SampleGradients, Way, gradients_of, untouched


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Give the loss of each sample: (b, C) and (b,) int64 -> (b,)."""
    return F.cross_entropy(logits, labels, reduction="none")


def squared_length(outputs: Tensor, targets: Tensor) -> Tensor:
    """Give ||f(x)||^2 of each sample, whatever its target: (b, ...) -> (b,)."""
    return outputs.flatten(1).square().sum(1)


CROSS_ENTROPY = Objective(cross_entropy, torch.square)
"""The empirical Fisher information (Foster et al. 2024, "Fast machine unlearning without retraining", Eq. 5)."""

LENGTH = Objective(squared_length, torch.abs)
"""The label-free importance (Foster et al. 2024, "Loss-free machine unlearning")."""


class Batch(NamedTuple):
    """Samples of one batch; a plain tuple of the first two or more will do.

    Attributes:
        inputs: (b, ...).
        targets: (b, ...), as the objective takes them.
        forget: (b,) bool, True in the forget set; None means none is.
        weights: (b,) float at least 0; None means 1. An exemplar that stands for its class weighs N_c / m_c.
    """

    inputs: Tensor
    targets: Tensor
    forget: Tensor | None = None
    weights: Tensor | None = None


Batches = Iterable[Batch | tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor]]


@dataclass(frozen=True)
class Sweep:
    """How a pass over samples is made.

    Attributes:
        objective: what is differentiated, and squared or not.
        chunk: at most so many samples are in a net at a time; the memory of their activations is what it bounds.
        names: of parameters, as in `named_parameters`; None means all that require a gradient.
        forward: inputs (b, ...) -> outputs; None calls the net.
    """

    objective: Objective = CROSS_ENTROPY
    chunk: int = 64
    names: Sequence[str] | None = None
    forward: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True, eq=False)
class Importance:
    """Importances before they are divided, so that they add.

    Attributes:
        sums: name -> (*shape of the parameter) float32 (float64 where the parameter is), at least 0; zeros for a
            parameter that no gradient reaches.
        count: weight of the samples summed over, their number where they weigh 1; for `batch`, the number of batches.
    """

    sums: dict[str, Tensor]
    count: float

    def __add__(self, other: Importance) -> Importance:
        if self.sums.keys() != other.sums.keys():
            odd = ", ".join(sorted(self.sums.keys() ^ other.sums.keys())[:3])
            raise ValueError(f"importances of different parameters do not add: only one has {odd}; use one net")
        return Importance({name: x + other.sums[name] for name, x in self.sums.items()}, self.count + other.count)

    def mean(self) -> dict[str, Tensor]:
        """Divide by the count: name -> importance.

        Raises:
            ValueError: nothing was summed.
        """
        if not self.count > 0:
            raise ValueError(f"importances over {self.count} samples have no mean: give at least one sample")
        return {name: x / self.count for name, x in self.sums.items()}


@dataclass(frozen=True, eq=False)
class Split:
    """Two importances from one pass."""

    forget: Importance
    retain: Importance

    @property
    def whole(self) -> Importance:
        """All samples: I_D = (S_r + S_f) / n."""
        return self.retain + self.forget


def exact(net: nn.Module, batches: Batches, sweep: Sweep = Sweep()) -> Importance:
    """Sum the squared gradients of single samples: S = sum over i of w_i g_i^2 (specs/unlearning.md, section 3).

    Neither the order nor the size of the batches matters beyond rounding. Samples cost about one training step each,
    and memory is that of `chunk` samples in the net, of the sums, and of the gradients of one sample in one layer.

    Args:
        net: any module; see `sample_gradients` for how its gradients are had, and `way` to ask.
        batches: samples; which of them are to be forgotten is not looked at.
        sweep: objective, chunk, parameters.

    Raises:
        ValueError: a batch norm in train mode, a malformed batch, or gradients that are not numbers.
    """
    return _exact(net, (Batch(*batch)._replace(forget=None) for batch in batches), sweep, 1)[0]


def exact_split(net: nn.Module, batches: Batches, sweep: Sweep = Sweep()) -> Split:
    """Sum `exact` over forget set and retained samples apart, in one pass."""
    retain, forget = _exact(net, (Batch(*batch) for batch in batches), sweep, 2)
    return Split(forget, retain)


def batch(net: nn.Module, batches: Batches, sweep: Sweep = Sweep()) -> Importance:
    """Sum the squared mean gradients of batches, as the authors' code does; a short last batch counts like any other.

    Order and size of the batches decide the result. With batches of one sample it is `exact`.

    Args:
        net: any module.
        batches: (inputs, targets); the reference gives 64 or 128 samples, unshuffled, retained ones before the others.
        sweep: `chunk` splits a batch for the net, and changes nothing.

    Raises:
        ValueError: weights or a forget mask, which a mean over the batch cannot honour; otherwise as `exact`.
    """
    passes, count = SampleGradients(net, sweep.objective, sweep.names, sweep.forward), 0
    sums = passes.zeros()
    with untouched(net), EvalOnly():
        for given in batches:
            inputs, targets, forget, weights = Batch(*given)
            if forget is not None or weights is not None:
                raise ValueError(
                    "mean gradients of batches take neither weights nor a forget mask, since a batch counts as one: "
                    "give batches of (inputs, targets), and a pass for each set"
                )
            if len(inputs):
                mean = passes.zeros()
                for rows in _chunks(len(inputs), sweep.chunk):
                    _add_gradient(mean, passes, inputs[rows], targets[rows], None)
                for name, x in mean.items():
                    sums[name] += sweep.objective.magnitude(x / len(inputs))
                count += 1
    return _finite(Importance(sums, float(count)))


def class_mean(net: nn.Module, batches: Batches, sweep: Sweep = Sweep(), class_sorted: bool = False) -> Importance:
    """Sum the squared mean gradients of classes: S = sum over c of m_c (mean of g_i in c)^2 (section 1.4).

    The limit of the authors' code for large batches of one class; neither order nor batch size matters. Only parts
    that share no class add up to the whole.

    Args:
        net: any module.
        batches: targets must be (b,) int64 classes. Which samples are to be forgotten is not looked at.
        sweep: objective, chunk, parameters.
        class_sorted: batches come class by class, so that one class is held at a time instead of all of them.

    Raises:
        ValueError: a class came back in sorted batches; otherwise as `exact`.
    """
    given = (Batch(*batch)._replace(forget=None) for batch in batches)
    return _class_mean(net, given, sweep, class_sorted)[0]


def class_mean_split(net: nn.Module, batches: Batches, sweep: Sweep = Sweep(), class_sorted: bool = False) -> Split:
    """Sum `class_mean` over forget set and retained samples apart, in one pass.

    A class that is forgotten in part counts as two, so that the parts add up to the whole and I_f / I_D <= n / m holds.
    The authors' code, which reads the retained samples first and then the others, has the same limit.
    """
    retain, forget = _class_mean(net, (Batch(*batch) for batch in batches), sweep, class_sorted)
    return Split(forget, retain)


def way(net: nn.Module, inputs: Tensor, targets: Tensor, sweep: Sweep = Sweep()) -> Way:
    """Tell how `exact` gets per-sample gradients: "rules" (about a training step), "vmap", or "loop" (slow).

    Args:
        net: any module.
        inputs: (b, ...), two samples suffice.
        targets: (b, ...).
        sweep: objective, parameters.
    """
    passes = SampleGradients(net, sweep.objective, sweep.names, sweep.forward)
    device = _device(net)
    with untouched(net):
        passes.add([passes.zeros()], inputs.to(device), targets.to(device), torch.ones(1, len(inputs)))
    return passes.way


def _exact(net: nn.Module, batches: Iterator[Batch], sweep: Sweep, n_sets: int) -> list[Importance]:
    """Give one importance, or that of the retained and that of the forget set."""
    passes, device = SampleGradients(net, sweep.objective, sweep.names, sweep.forward), _device(net)
    sums, counts = [passes.zeros() for _ in range(n_sets)], [0.0] * n_sets
    with untouched(net):
        for given in batches:
            weights = _set_weights(given, n_sets)  # (k, b)
            counts = [count + float(w.sum()) for count, w in zip(counts, weights, strict=True)]
            for rows in _chunks(len(given.inputs), sweep.chunk):
                inputs, targets = given.inputs[rows].to(device), given.targets[rows].to(device)
                passes.add(sums, inputs, targets, weights[:, rows])
    return [_finite(Importance(total, count)) for total, count in zip(sums, counts, strict=True)]


def _set_weights(given: Batch, n_sets: int) -> Tensor:
    """Give each sample's weight in each set: (1, b), or (2, b) with retained samples first and forget set second."""
    n = len(given.inputs)
    for what, vector in (("targets", given.targets), ("forget", given.forget), ("weights", given.weights)):
        if vector is not None and len(vector) != n:
            raise ValueError(f"{what} has {len(vector)} entries for {n} inputs: give one for each")
    weights = torch.ones(n, dtype=torch.float64) if given.weights is None else given.weights.detach().cpu().double()
    if not bool((weights >= 0).all()) or not bool(weights.isfinite().all()):
        raise ValueError(f"weights must be finite and at least 0, got {float(weights.min())}: see Batch.weights")
    if n_sets == 1:
        return weights[None]
    forget = torch.zeros(n, dtype=torch.bool) if given.forget is None else given.forget.cpu()
    if forget.dtype != torch.bool:
        raise TypeError(f"forget is {forget.dtype}, but must be torch.bool: True where a sample is to be forgotten")
    return torch.stack([weights * ~forget, weights * forget])


@dataclass
class _Group:
    """Gradients of one class in one set, before they are squared.

    Attributes:
        total: name -> weighted sum of gradients.
        count: sum of the weights.
    """

    total: dict[str, Tensor]
    count: float = 0.0


def _class_mean(net: nn.Module, batches: Iterator[Batch], sweep: Sweep, class_sorted: bool) -> list[Importance]:
    """Give importances of retained samples and of the forget set."""
    passes = SampleGradients(net, sweep.objective, sweep.names, sweep.forward)
    sums, counts = [passes.zeros() for _ in range(2)], [0.0, 0.0]
    open_groups: dict[tuple[int, int], _Group] = {}  # (class, set)
    closed: set[int] = set()

    def close(keys: list[tuple[int, int]]) -> None:
        for key in keys:
            group = open_groups.pop(key)
            for name, x in group.total.items():
                sums[key[1]][name] += sweep.objective.magnitude(x / group.count) * group.count
            counts[key[1]] += group.count
            closed.add(key[0])

    with untouched(net), EvalOnly():
        for given in batches:
            weights = _set_weights(given, 2)
            for label in dict.fromkeys(given.targets.tolist()):
                if class_sorted:
                    close([key for key in open_groups if key[0] != label])
                    if label in closed:
                        raise ValueError(
                            f"class {label} came back after others, but class_sorted says that batches come class by "
                            "class: sort them, or leave class_sorted out"
                        )
                for k, w in enumerate(weights):
                    rows = ((given.targets.cpu() == label) & (w > 0)).nonzero().flatten()
                    for part in rows.split(sweep.chunk) if len(rows) else ():
                        group = open_groups.setdefault((label, k), _Group(passes.zeros()))
                        _add_gradient(group.total, passes, given.inputs[part], given.targets[part], w[part])
                        group.count += float(w[part].sum())
        close(sorted(open_groups))
    return [_finite(Importance(total, count)) for total, count in zip(sums, counts, strict=True)]


def _add_gradient(
    total: dict[str, Tensor], passes: SampleGradients, inputs: Tensor, targets: Tensor, weights: Tensor | None
) -> None:
    """Add the gradient of the (weighted) sum of losses: one ordinary backward pass."""
    device = _device(passes.net)
    loss = partial(passes.loss, inputs.to(device), targets.to(device), None if weights is None else weights.to(device))
    for name, x in gradients_of(passes.parameters, loss).items():
        total[name] += x


def _chunks(n: int, size: int) -> Iterator[slice]:
    if size < 1:
        raise ValueError(f"chunk={size} must be 1 or more: it is how many samples are in the net at a time")
    return (slice(a, min(a + size, n)) for a in range(0, n, size))


def _device(net: nn.Module) -> torch.device:
    """Where the net is; a net without parameters is wherever its inputs come from."""
    return next((p.device for p in net.parameters()), torch.device("cpu"))


def _finite(found: Importance) -> Importance:
    """Refuse importances that are not numbers, which would select at random."""
    for name, x in found.sums.items():
        if not bool(x.isfinite().all()):
            raise ValueError(
                f"importances of '{name}' are not finite: the net or its inputs hold values that are not numbers, or "
                "the loss overflows; check them with the net's own predictions"
            )
    return found
