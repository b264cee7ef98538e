"""What tests of engine and methods share: the services a method is given while it learns, without a run around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from clearn.context import Context
    from clearn.stream import Stream

MakeContext = Callable[..., "Context"]


@pytest.fixture
def context() -> MakeContext:
    """Make a `Context` on the CPU: context(stream, step=0, seed=0, budget=..., planned=..., **trainer options)."""
    import torch

    from clearn.context import Context
    from clearn.ledger import Budget
    from clearn.options import TrainerOptions
    from clearn.progress import Progress

    torch.set_num_threads(1)

    def make(
        stream: Stream | None = None,
        step: int = 0,
        seed: int = 0,
        budget: Budget = Budget(),
        planned: tuple[int, ...] = (),
        **trainer: Any,
    ) -> Context:
        return Context(
            seed=seed,
            step=step,
            trainer=TrainerOptions(accelerator="cpu", threads=1, **trainer),
            device=torch.device("cpu"),
            augment=stream.augment if stream is not None else None,
            budget=budget,
            planned=planned,
            progress=Progress(),
        )

    return make
