"""Which task's adapter an image is read with: self-refined retrieval, and the ensemble of two stages.

From Sun et al. 2025 ("MOS"), Eq. of section "Training-free self-refined adapter retrieval"; details of the released
code where the paper is silent (specs "mos", 3.4). Letters used below: n images, C classes, T adapters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clearn.errors import ConfigError
from clearn.stream import TaskInfo

Evaluate = Callable[[Tensor, Tensor], Tensor]
"""(rows (m,) int64 of images, which (m,) int64 adapters) -> (m, C) logits; asks the network."""

ROUNDS = 4


@dataclass(frozen=True)
class Retrieval:
    """Where the images came to rest.

    Attributes:
        logits: (n, C) of the last adapter evaluated.
        adapters: (n,) int64, that adapter.
        rounds: (n,) int64, evaluations of the head until there, 1 to 4.
        passes: (n,) int64, passes through the network: the first adapter's, and one for each other adapter met.
    """

    logits: Tensor
    adapters: Tensor
    rounds: Tensor
    passes: Tensor


def tasks_of(seen: Sequence[TaskInfo]) -> Tensor:
    """Map each class to the task that brought it: (C,) int64 indices into `seen`; labels are 0..C-1.

    Raises:
        ConfigError: a class comes back in a later task, so that two adapters would be its own.
    """
    owners: dict[int, int] = {}
    for index, info in enumerate(seen):
        again = sorted(set(info.classes) & owners.keys())
        if again:
            raise ConfigError(
                f"classes {again} of task {info.index + 1} came before, but each class is routed to the one task that "
                "brought it: use a class_incremental stream, or another method"
            )
        owners |= dict.fromkeys(info.classes, index)
    return torch.tensor([owners[label] for label in sorted(owners)], dtype=torch.int64)


def refine(first: Tensor, logits: Tensor, tasks: Tensor, evaluate: Evaluate, rounds: int = ROUNDS) -> Retrieval:
    """Follow a_k = task(argmax logits under adapter a_{k-1}) until it stays, for at most `rounds` evaluations.

    The network is asked for images that have not settled, and never twice for the same image and adapter; adapter 0
    is never asked for, its features are known from choosing the start. On a two-cycle i, j, i, j the logits of the
    last evaluation are returned, as the released code does.

    Args:
        first: (n,) int64, the adapter a_0 to start with.
        logits: (n, C) under adapter 0.
        tasks: (C,) int64, the adapter of each class.
        evaluate: gives logits of rows under adapters.
        rounds: evaluations of the head at most.
    """
    n = len(first)
    met = first.new_zeros(n, 1)  # (n, slots) adapters whose logits are known, the first of them adapter 0
    known = logits[:, None]  # (n, slots, C); a slot that an image did not need repeats adapter 0
    slot = torch.zeros_like(first)  # (n,) where the last evaluated one stands
    adapters, taken = first.clone(), torch.zeros_like(first)
    open_rows, wanted = torch.arange(n, device=first.device), first
    for _ in range(rounds):
        same = met[open_rows] == wanted[:, None]  # (m, slots)
        new = ~same.any(1)
        slot[open_rows] = same.int().argmax(1)
        if bool(new.any()):
            rows = open_rows[new]
            met = torch.cat([met, torch.zeros_like(met[:, :1])], dim=1)
            known = torch.cat([known, known[:, :1]], dim=1)
            met[rows, -1], slot[rows] = wanted[new], known.shape[1] - 1
            known[rows, -1] = evaluate(rows, wanted[new]).to(known.dtype)
        adapters[open_rows] = wanted
        taken[open_rows] += 1
        following = tasks[known[open_rows, slot[open_rows]].argmax(1)]
        moved = following != wanted
        open_rows, wanted = open_rows[moved], following[moved]
        if not len(open_rows):
            break
    return Retrieval(known[torch.arange(n, device=first.device), slot], adapters, taken, 1 + (met[:, 1:] > 0).sum(1))


def two_stages(logits: Tensor, cosines: Tensor, n_tasks: int) -> Tensor:
    """Add the softmaxes of both stages; the cosines' temperature is one over the tasks learned so far.

    As the released code: the paper adds logits, which cosines in [-1, 1] would hardly move.

    Args:
        logits: (b, C) of the retrieved adapter.
        cosines: (b, C) between first-adapter features and prototypes.
        n_tasks: learned so far.

    >>> two_stages(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.1, 0.3]]), 2).round(decimals=4)
    tensor([[1.2821, 0.7179]])
    """
    return logits.softmax(1) + (n_tasks * cosines).softmax(1)
