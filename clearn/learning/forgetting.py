"""Answering a request to forget: the memory first, then the network; and the evidence of what came of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clearn.context import Context
from clearn.errors import StateError
from clearn.parts.samples import Samples, concat, occurring
from clearn.strategy import Strategy
from clearn.stream import Forget, Task
from clearn.unlearner import Unlearner

MOST_STAYING = 10_000  # of the training samples that stay, evenly spaced: enough for an attack to be fitted on


def forget(strategy: Strategy, unlearner: Unlearner, asked: Forget, ctx: Context) -> Strategy:
    """Take the samples out of the memory, let the unlearner change the network, and look whether anything stayed.

    An empty request changes nothing.

    Raises:
        StateError: a forgotten sample is still in the memory.
    """
    ctx.log("forget/samples", len(asked.forget))
    if not len(asked.forget):
        return strategy
    unlearner.check(asked)
    strategy.eval()
    if strategy.memory is not None:
        ctx.log("forget/thrown_out", strategy.memory.forget(asked.forget, asked.request.classes))
    found = unlearner.forget(strategy, asked, ctx) or strategy
    found.eval()
    _check_memory(found, asked)
    return found


def _check_memory(strategy: Strategy, asked: Forget) -> None:
    """Search the memory for the forgotten samples and classes, by content."""
    samples = getattr(strategy.memory, "samples", None)
    held: Samples | None = samples() if callable(samples) else None
    if held is None or not len(held):
        return
    left = int(occurring(held, asked.forget).sum())
    left += int(torch.isin(held.labels, torch.tensor(asked.request.classes, dtype=torch.int64)).sum())
    if left:
        raise StateError(
            f"{left} forgotten samples are still in the memory of {type(strategy).__name__}: its store's `forget` does "
            "not throw out what it is told to"
        )


def evidence(
    strategy: Strategy, asked: Forget, staying: Sequence[Task], device: torch.device
) -> dict[str, tuple[Tensor, Tensor]]:
    """Answers that measures of unlearning are computed from: name -> ((n, C) float32 scores, (n,) int64 labels).

    "forget" are the samples that had to go, "stays" an even choice of those that stay, "test" all test samples so far.
    """
    strategy.eval()
    kept = concat([task.train for task in staying if len(task.train)])
    spaced = torch.linspace(0, len(kept) - 1, min(MOST_STAYING, len(kept))).long()
    parts: dict[str, Samples] = {
        "forget": asked.forget,
        "stays": kept.take(spaced),
        "test": concat([probe.data for probe in asked.probes]),
    }
    return {name: (_scores(strategy, samples, device), samples.labels) for name, samples in parts.items()}


@torch.no_grad()
def _scores(strategy: Strategy, samples: Samples, device: torch.device) -> Tensor:
    parts = [strategy.predict(inputs.to(device)).float().cpu() for inputs, _ in samples.batches(500)]
    return torch.cat(parts) if parts else torch.empty(0, len(strategy.classes))
