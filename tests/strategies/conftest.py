"""A context that keeps what a method asked for, so that its losses can be held against naive ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clearn.checks import toy_stream
from clearn.context import Context
from clearn.ledger import Budget
from clearn.options import TrainerOptions
from clearn.parts.samples import Samples
from clearn.progress import Progress
from clearn.recipe import Recipe
from clearn.strategy import Strategy
from clearn.stream import Stream
from clearn.streams import from_arrays

torch.set_num_threads(1)


@dataclass(frozen=True)
class Phase:
    """One call of `fit`."""

    module: nn.Module
    data: Samples
    recipe: Recipe
    loss: Callable[[Tensor, Tensor], Tensor]
    options: dict[str, Any]


class Spy(Context):
    """Attributes: phases, as asked for; before: called with the module before it is trained; train: whether it is."""

    phases: list[Phase]
    train: bool
    before: Callable[[nn.Module], object] | None = None

    def fit(  # type: ignore[override]
        self, module: Any, data: Samples, recipe: Recipe | None = None, loss: Any = None, **options: Any
    ) -> None:
        """Keep what was asked for, and train if so wished."""
        self.phases.append(Phase(module, data, recipe or Recipe(), loss or module.losses, options))
        if self.before is not None:
            self.before(module)
        if self.train:
            super().fit(module, data, recipe, loss, **options)


@pytest.fixture
def spy() -> Callable[..., Spy]:
    """Make a context of a step: spy(stream, step, train=True, seed=0, **trainer options)."""

    def make(stream: Stream, step: int, train: bool = True, seed: int = 0, **trainer: Any) -> Spy:
        made = Spy(
            seed=seed,
            step=step,
            trainer=TrainerOptions(accelerator="cpu", threads=1, **trainer),
            device=torch.device("cpu"),
            augment=stream.augment,
            budget=Budget(),
            planned=(),
            progress=Progress(),
        )
        made.phases, made.train = [], train
        return made

    return make


@pytest.fixture
def learned(spy: Callable[..., Spy]) -> Callable[..., Spy]:
    """Have a learner learn the first `tasks` tasks of a stream; give the last step's context.

    learned(strategy, tasks, stream=..., train=True, first=0): tasks before `first` were learned earlier.
    """

    def learn(strategy: Strategy, tasks: int, stream: Stream | None = None, train: bool = True, first: int = 0) -> Spy:
        stream = stream or toy_stream()
        for index in range(first, tasks):
            ctx = spy(stream, index, train)
            torch.manual_seed(index)
            strategy.learn(stream.task(index), ctx)
        return ctx

    return learn


@pytest.fixture
def arranged() -> Callable[..., Stream]:
    """Cut the toy stream's six classes otherwise: arranged(order, increment); label j is the toy's label order[j]."""
    toy = toy_stream(1, 6).task(0)

    def cut(order: tuple[int, ...] = (0, 1, 2, 3, 4, 5), increment: int | list[int] = 2) -> Stream:
        x, test = (part.fetch(torch.arange(len(part))) for part in (toy.train, toy.probes[0].data))
        place = torch.tensor([order.index(label) for label in range(6)])
        y, y_test = place[toy.train.labels], place[toy.probes[0].data.labels]
        return from_arrays(x, y, test, y_test, increment=increment, layout="NCHW")

    return cut
