"""What unlearning methods share: the head, the classifier's logits, thawing, copies, labels, the last layers.

Letters used below: b samples in a batch, C classes, P trainable scalars.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from clearn.errors import ConfigError
from clearn.parts.backbones.normalise import Normalise
from clearn.parts.heads import Head
from clearn.parts.samples import Samples
from clearn.stream import Inputs

if TYPE_CHECKING:
    from clearn.strategy import Strategy


def find_heads(strategy: Strategy) -> list[Head]:
    """Find the classifier: every module named `head` that is a `Head`, rows in the order of the labels.

    Raises:
        ConfigError: there is none, so no row belongs to a class.
    """
    found = [m for name, m in strategy.named_modules() if name.rpartition(".")[2] == "head" and isinstance(m, Head)]
    if not found:
        raise ConfigError(
            f"{type(strategy).__name__} has no linear head (a module named 'head' of type clearn.parts.heads.Head), "
            "so no row of weights belongs to a class: choose another unlearner, e.g. ssd or finetune"
        )
    return found


def classifier(strategy: Strategy, inputs: Tensor) -> Tensor:
    """Compute the classifier's logits, also where another read-out is what the strategy is judged by.

    Args:
        strategy: grown; `predict` is used where it is the classifier, otherwise what the head gives while `losses`
            runs (iCaRL's nearest means have no gradient).
        inputs: (b, *shape) raw inputs.

    Returns:
        (b, C) float logits, differentiable.
    """
    if strategy.readout == "classifier":
        return strategy.predict(inputs)
    logits: list[Tensor] = []
    caught = find_heads(strategy)[0].register_forward_hook(lambda _module, _args, output: logits.append(output))
    try:
        strategy.losses(inputs, torch.zeros(len(inputs), dtype=torch.int64, device=inputs.device))
    finally:
        caught.remove()
    return logits[-1]


@contextmanager
def thawed(strategy: Strategy) -> Iterator[None]:
    """Let every parameter that was ever trained be changed: frozen blocks saw forgotten samples too.

    Pretrained weights that are still as their checkpoint has them stay frozen. Afterwards `requires_grad` and the
    mode of every module are as they were, and no gradient is left.
    """
    learnable = [(parameter, parameter.requires_grad) for parameter in strategy.parameters()]
    modes = [(module, module.training) for module in strategy.modules()]
    untouched = strategy.untouched()
    for name, parameter in strategy.named_parameters():
        if f"model/{name}" not in untouched:
            parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter, learns in learnable:
            parameter.requires_grad_(learns).grad = None
        for module, mode in modes:
            module.training = mode


def frozen_copy(strategy: Strategy) -> Strategy:
    """Copy the network as a teacher in evaluation mode; the memory beside it is shared, not copied."""
    twin = copy.deepcopy(strategy, {id(strategy.memory): strategy.memory})
    return twin.eval().requires_grad_(False)


class Relabelled(Samples):
    """The same inputs under other labels.

    Args:
        base: n samples, left as they are.
        labels: (n,) int64.
    """

    def __init__(self, base: Samples, labels: Tensor) -> None:
        assert labels.shape == base.labels.shape
        self.base, self.labels = base, labels
        self.in_memory, self.workers, self.varied = base.in_memory, base.workers, base.varied

    @property
    def shape(self) -> tuple[int, ...]:
        return self.base.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.base.dtype

    def fetch(self, index: Tensor) -> Tensor:
        return self.base.fetch(index)

    def fetch_varied(self, index: Tensor, seeds: Tensor) -> Tensor:
        return self.base.fetch_varied(index, seeds)

    def take(self, index: Tensor) -> Relabelled:
        return Relabelled(self.base.take(index), self.labels[index])

    def loader(self, order: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        steps = list(order)
        for (inputs, _), index in zip(self.base.loader(steps), steps, strict=True):
            yield inputs, self.labels[index]


def wrong_labels(labels: Tensor, classes: Sequence[int], forgotten: Sequence[int], rng: torch.Generator) -> Tensor:
    """Draw for each sample a label that is neither its own nor of a forgotten class, all others equally likely.

    Args:
        labels: (m,) int64 true labels.
        classes: seen so far.
        forgotten: classes that go as a whole; empty where single samples go.
        rng: one draw a sample.

    Returns:
        (m,) int64.

    Raises:
        ConfigError: no other class is left.
    """
    allowed = torch.tensor(sorted(set(classes) - set(forgotten)), dtype=torch.int64)
    own = torch.searchsorted(allowed, labels)  # (m,) place of the true label, where it is allowed at all
    is_allowed = torch.isin(labels, allowed)
    choices = len(allowed) - is_allowed.long()  # (m,)
    if bool((choices < 1).any()):
        raise ConfigError(
            f"no wrong label is left to draw: {len(allowed)} of the classes seen stay and a forgotten sample is of "
            "that class; random labels need two classes"
        )
    drawn = (torch.rand(len(labels), generator=rng, dtype=torch.float64) * choices).long()
    return allowed[drawn + (is_allowed & (drawn >= own)).long()]


def split_layers(network: nn.Module, k: int) -> tuple[list[nn.Module], list[nn.Module]]:
    """Split a network before its last k layers, in the order in which modules were registered.

    A layer is a module with a weight of two or more dimensions (linear, convolution, embedding), together with the
    normalisations and other small modules that follow it.

    Args:
        network: grown.
        k: how many layers are last, 1 or more.

    Returns:
        The modules that hold parameters or buffers themselves: those of the first layers, those of the last k.

    Raises:
        ConfigError: the network has no more than k layers.
    """
    leaves = [m for m in network.modules() if [*m.parameters(recurse=False), *m.buffers(recurse=False)]]
    starts = [i for i, leaf in enumerate(leaves) if any(p.ndim > 1 for p in leaf.parameters(recurse=False))]
    if not 1 <= k < len(starts):
        raise ConfigError(
            f"k={k} must lie in [1, {len(starts) - 1}]: this network has {len(starts)} layers with weights, and at "
            "least one has to stay frozen"
        )
    return leaves[: starts[-k]], leaves[starts[-k] :]


def network_units(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Give (scale, shift) so that raw x is x * scale + shift for the network; both broadcast over a batch."""
    normalise = Normalise(inputs)
    return normalise.scale, normalise.shift
