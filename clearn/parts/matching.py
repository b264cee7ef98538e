"""Which memories suit a question: cosines of keys that one trained compressor made of both, and the k best.

Self-matching and top-k aggregation of CMT (Li et al., AAAI 2025); the exact form is ours, since the paper's code was
never published (specs "cmt", sections 5 and 6). With Q the question's and M_i document i's memory, (m, D) each:

    q = unit(mean_rows(W_q Q)),   key_i = unit(mean_rows(W_k M_i)),   s_i = q . key_i,   p = softmax(s / tau)

Everything is computed in float32: cosines of bfloat16 tie by the dozen. Letters: b questions, N memories, k chosen.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from clearn.parts.vectors import unit

TAU = (0.01, 1.0)
"""Temperatures are kept within."""


class Matcher(nn.Module):
    """W_q, W_k and tau; before training, keys are the memories' own directions.

    Args:
        width: D.
        tau: temperature to start with.

    Attributes:
        query: (D, D), W_q.
        key: (D, D), W_k.
        log_tau: scalar, log of the temperature.
    """

    def __init__(self, width: int, tau: float = 0.05) -> None:
        super().__init__()
        self.query, self.key = nn.Parameter(torch.eye(width)), nn.Parameter(torch.eye(width))
        self.log_tau = nn.Parameter(torch.tensor(math.log(tau)))

    @property
    def tau(self) -> Tensor:
        """The temperature in force, a scalar within `TAU`; its gradient is that of one without bounds."""
        bounded = self.log_tau.detach().clamp(math.log(TAU[0]), math.log(TAU[1]))
        return (self.log_tau - self.log_tau.detach() + bounded).exp()

    @torch.no_grad()
    def confine(self) -> None:
        """Bring a temperature that a step took out of bounds back to them, lest it wander off."""
        self.log_tau.clamp_(math.log(TAU[0]), math.log(TAU[1]))

    def queries(self, memories: Tensor) -> Tensor:
        """(b, m, D) memories of questions -> (b, D) float32 of length 1."""
        return directions(memories, self.query)

    def keys(self, memories: Tensor) -> Tensor:
        """(N, m, D) memories of documents -> (N, D) float32 of length 1; the memories stay as they are."""
        return directions(memories, self.key)


def directions(memories: Tensor, weight: Tensor) -> Tensor:
    """Map the mean of each memory's rows, which is the mean of the mapped rows, and scale it to length 1.

    Args:
        memories: (n, m, D).
        weight: (D, D).

    Returns:
        (n, D) float32, outside of any autocast.
    """
    with torch.autocast(memories.device.type, enabled=False):
        return unit(memories.float().mean(1) @ weight.float().T)


def cosines(queries: Tensor, keys: Tensor) -> Tensor:
    """(b, D) and (N, D), both of length 1 -> (b, N) float32, outside of any autocast.

    >>> cosines(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]))
    tensor([[1.0000, 0.0000, 0.6000]])
    """
    with torch.autocast(queries.device.type, enabled=False):
        return queries.float() @ keys.float().T


def best(scores: Tensor, k: int, forced: Tensor | None = None) -> Tensor:
    """Pick the k largest of each row; of equal ones the first, which is the older document.

    Args:
        scores: (b, N).
        k: 1 or more; all are picked where there are fewer.
        forced: (b, N) bool. Where none of these is among the best, the best of them takes the last place.

    Returns:
        (b, min(k, N)) int64, best first but for a forced one, which comes last.

    >>> best(torch.tensor([[0.5, 0.9, 0.5, 0.5]]), 3)
    tensor([[1, 0, 2]])
    >>> best(torch.tensor([[0.5, 0.9, 0.5, 0.1]]), 2, torch.tensor([[False, False, False, True]]))
    tensor([[1, 3]])
    """
    scores = scores.detach()
    picked = _largest(scores, min(k, scores.shape[1]))
    if forced is None or not picked.shape[1]:
        return picked
    there = forced.gather(1, picked).any(1)
    missing = forced.any(1) & ~there  # a row that forces nothing misses nothing
    instead = _largest(scores.masked_fill(~forced, -torch.inf), 1)[:, 0]
    last = torch.where(missing, instead, picked[:, -1])
    return torch.cat([picked[:, :-1], last[:, None]], dim=1)


def _largest(scores: Tensor, k: int) -> Tensor:
    """The k largest of each row in order, the first of equals; a full sort only where the k-th has an equal outside."""
    values, found = scores.topk(k, dim=1)
    if k and bool(((scores >= values[:, -1:]).sum(1) > k).any()):
        return scores.sort(dim=1, descending=True, stable=True).indices[:, :k]
    found = found.sort(dim=1).values
    return found.gather(1, scores.gather(1, found).sort(dim=1, descending=True, stable=True).indices)


def log_shares(scores: Tensor, tau: Tensor | float) -> Tensor:
    """(b, k) cosines -> (b, k) log of softmax(s / tau): how much each memory is to count."""
    return (scores / tau).log_softmax(1)


def match_loss(scores: Tensor, tau: Tensor | float, positives: Tensor) -> Tensor:
    """Mean over questions of -log of the share that goes to the right memories; 0 where all are right.

    Args:
        scores: (b, N) cosines.
        tau: temperature.
        positives: (b, N) bool, at least one a row: memories of the question's document.

    >>> positives = torch.tensor([[True, False, False]])
    >>> round(float(match_loss(torch.tensor([[1.0, 0.0, 0.6]]), 0.2, positives)), 5)
    0.13285
    """
    right = log_shares(scores, tau).masked_fill(~positives, -torch.inf).logsumexp(1)
    return -right.mean()
