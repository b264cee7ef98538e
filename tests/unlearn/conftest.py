"""A small learner that has learned, requests to forget, and a context that keeps what a method asked for."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clearn import checks
from clearn.context import Context
from clearn.ledger import Budget
from clearn.options import TrainerOptions
from clearn.parts.exemplars import Memory
from clearn.parts.samples import Samples, concat
from clearn.progress import Progress
from clearn.recipe import Recipe
from clearn.strategy import Strategy
from clearn.stream import Forget, Request, Stream
from clearn.unlearner import Unlearner
from strategies.finetune import Finetune
from strategies.replay import Replay

torch.set_num_threads(1)

BRIEF = Recipe(epochs=3, lr=0.1, batch_size=8)


@dataclass(frozen=True)
class Phase:
    """One call of `fit`."""

    module: nn.Module
    data: Samples
    recipe: Recipe
    loss: Callable[[Tensor, Tensor], Tensor]
    options: dict[str, Any]
    before: dict[str, Tensor]


class Spy(Context):
    """Attributes: phases, as asked for, each with the module's values before it; train: whether it is trained."""

    phases: list[Phase]
    train: bool = True

    def fit(  # type: ignore[override]
        self, module: Any, data: Samples, recipe: Recipe | None = None, loss: Any = None, **options: Any
    ) -> None:
        before = {name: value.clone() for name, value in module.state_dict().items()}
        self.phases.append(Phase(module, data, recipe or Recipe(), loss or module.losses, options, before))
        if self.train:
            super().fit(module, data, recipe, loss, **options)


@dataclass
class Setting:
    """A strategy in evaluation mode, the stream it has learned, and services for a request."""

    strategy: Strategy
    stream: Stream
    make: Callable[[], Strategy]
    n_tasks: int

    def spy(self, seed: int = 0, train: bool = True) -> Spy:
        """A context of the step after the last task."""
        made = Spy(
            seed=seed,
            step=self.n_tasks,
            trainer=TrainerOptions(accelerator="cpu", threads=1),
            device=torch.device("cpu"),
            augment=self.stream.augment,
            budget=Budget(),
            planned=(),
            progress=Progress(),
            make=self.make,
        )
        made.phases, made.train = [], train
        return made

    def request(
        self, classes: tuple[int, ...] = (), rows: tuple[tuple[int, int], ...] = (), look_back: bool = True
    ) -> Forget:
        """Build a request as the stream does, and take what goes out of the memory as the engine does."""
        gone, past = [], []
        for index in range(self.n_tasks):
            task = self.stream.task(index)
            goes = torch.isin(task.train.labels, torch.tensor(classes, dtype=torch.int64))
            goes[[row for of, row in rows if of == index]] = True
            gone.append(task.train.take(goes.nonzero().flatten()))
            past.append(replace(task, train=task.train.take((~goes).nonzero().flatten())))
        forget = concat([part for part in gone if len(part)])
        if self.strategy.memory is not None:
            self.strategy.memory.forget(forget, classes)
        asked = Request(self.n_tasks, classes, rows, look_back)
        return Forget(asked, forget, tuple(past) if look_back else None, ())

    def show(self, unlearner: Unlearner) -> None:
        """Learn the stream once more with an unlearner looking on, by which no bit of the weights may differ."""
        again = learned(self, unlearner).state_dict()
        assert all(torch.equal(value, again[name]) for name, value in self.strategy.state_dict().items())

    def values(self) -> dict[str, Tensor]:
        """Copies of parameters and buffers."""
        return {name: value.clone() for name, value in self.strategy.state_dict().items()}

    def losses(self, samples: Samples) -> Tensor:
        """(n,) losses of samples."""
        with torch.no_grad():
            return self.strategy.losses(samples.fetch(torch.arange(len(samples))), samples.labels)


def learned(held: Setting, unlearner: Unlearner | None = None) -> Strategy:
    """Learn all tasks; what is drawn is the same each time."""
    unlearner = Unlearner() if unlearner is None else unlearner
    torch.manual_seed(0)
    strategy = held.make()
    for index in range(held.n_tasks):
        torch.manual_seed(index)
        task, ctx = held.stream.task(index), held.spy()
        ctx.step = index
        with unlearner.during(strategy, task, ctx):
            strategy.learn(task, ctx)
        unlearner.watch(strategy, task, ctx)
    strategy.eval().zero_grad(set_to_none=True)
    return strategy


def small_options() -> dict[str, Any]:
    """Options that make any of our strategies quick."""
    return {"backbone": "convnet2", "first": BRIEF, "later": BRIEF}


@pytest.fixture
def setting() -> Callable[..., Setting]:
    """Make a setting: setting(cls=Replay, n_tasks=2, **options of the strategy)."""

    def make(cls: type[Strategy] = Replay, n_tasks: int = 2, **options: Any) -> Setting:
        stream = checks.toy_stream(n_tasks)
        given = small_options() | ({"memory": Memory(total=12)} if cls is not Finetune else {}) | options
        build = partial(cls, stream.inputs, **given)
        key = (cls, n_tasks, repr(options))
        if key not in _LEARNED:
            _LEARNED[key] = learned(Setting(build(), stream, build, n_tasks))
        return Setting(copy.deepcopy(_LEARNED[key]), stream, build, n_tasks)

    return make


_LEARNED: dict[object, Strategy] = {}
