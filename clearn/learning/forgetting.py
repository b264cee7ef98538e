"""Answering a request to forget: the memory first, then the network."""

from __future__ import annotations

import torch

from clearn.context import Context
from clearn.errors import StateError
from clearn.parts.samples import Samples, occurring
from clearn.strategy import Strategy
from clearn.stream import Forget
from clearn.unlearner import Unlearner


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
