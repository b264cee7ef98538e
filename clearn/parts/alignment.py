"""What keeps adapters and classifier of successive tasks together: merging, the instance term, classifier alignment.

From Sun et al. 2025 ("MOS"); where the released code differs from the paper, see specs "mos", 3.1 to 3.3.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from clearn.parts.samples import Samples, TensorSamples
from clearn.parts.statistics import Sampler

TEMPERATURE = 0.8


def merge_rate(alpha: float, merges: int) -> float:
    """Rate of one pull that equals several of rate alpha: 1 - (1 - alpha)^merges.

    >>> round(merge_rate(0.1, 13), 6)
    0.745813
    """
    return 1 - (1 - alpha) ** merges


@torch.no_grad()
def merge(module: nn.Module, towards: Mapping[str, Tensor], rate: float) -> None:
    """Pull parameters towards other values, in place: A <- (1 - rate) A + rate Abar.

    Args:
        module: whose parameters move.
        towards: a value for each of its parameters, by name.
        rate: in [0, 1]; 0 changes nothing.
    """
    if not rate:
        return
    for name, parameter in module.named_parameters():
        parameter.lerp_(towards[name].to(parameter), rate)


def instance_loss(features: Tensor, means: Tensor) -> Tensor:
    """Tell every feature from all others and from the means of old classes, by inner products (released code).

    M = [means; features], Z = M M^T / 0.8, cross-entropy of row i with target i. Features are neither centred nor
    normalised, so its size depends on the network.

    Args:
        features: (b, d) of a batch.
        means: (K, d) of old classes, or of their centroids; K = 0 in the first task.

    Returns:
        () the mean over K + b rows.
    """
    with torch.autocast(features.device.type, enabled=False):  # inner products in the hundreds would tie in 8 bits
        both = torch.cat([means.to(features.device).float(), features.float()])
        return cross_entropy(both @ both.T / TEMPERATURE, torch.arange(len(both), device=both.device))


class Drawn(Samples):
    """Features drawn from class statistics, other ones in each epoch: what a classifier is aligned on.

    Args:
        sampler: of all classes seen.
        n_per_class: drawn of each class for an epoch.
        rng: draws them.
    """

    def __init__(self, sampler: Sampler, n_per_class: int, rng: torch.Generator) -> None:
        self._sampler, self._n_per_class, self._rng = sampler, n_per_class, rng
        self._draw()

    def _draw(self) -> None:
        self.features, self.labels = self._sampler.draw(self._n_per_class, self._rng)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.features.shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        return self.features.dtype

    def fetch(self, index: Tensor) -> Tensor:
        return self.features.index_select(0, index)

    def take(self, index: Tensor) -> TensorSamples:
        """Keep rows as they are in this epoch."""
        return TensorSamples(self.fetch(index), self.labels[index])

    def loader(self, order: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Draw anew, then yield (features, labels) for each index batch of `order`: one epoch."""
        self._draw()
        return super().loader(order)
