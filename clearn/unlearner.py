"""The base of every method that makes a learned strategy forget samples.

A request comes between two tasks. The engine first takes the forgotten samples out of the strategy's memory, then asks
the unlearner to change the network, then weighs, writes and rebuilds as after a task. What an unlearner has to keep
from training until the request (stored importances, say) is state of its own, weighed beside the strategy's. It may
look at a task once it was learned (`watch`), or be there while it is learned and see single steps (`during`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, ClassVar

import torch

from clearn.errors import StateError
from clearn.ledger import account
from clearn.state import State, freeze
from clearn.stream import Forget, Request, Task, TaskInfo

if TYPE_CHECKING:
    from clearn.context import Context
    from clearn.parts.samples import Samples
    from clearn.strategy import Strategy


class Unlearner:
    """Makes a strategy forget; its constructor's signature is the schema of a config's section `unlearner`.

    Attributes:
        looks_back: whether it needs training samples that stay; where a request does not let it look back and the
            strategy keeps none, it is refused before anything runs.
        categories: ledger category of its state entries by name; "importance" where nothing is said.
    """

    looks_back: bool = False
    categories: ClassVar[dict[str, str]] = {}

    def foresee(self, requests: Sequence[Request]) -> None:
        """Refuse, before anything is learned, requests that can never be answered. Nothing by default.

        Raises:
            ConfigError: with the numbers, and what would work.
        """

    def during(self, strategy: Strategy, task: Task, ctx: Context) -> AbstractContextManager[None]:
        """Be entered before a task is learned and left after it. Nothing by default.

        What has to see single steps gives `ctx.observed(observer)`, or enters it in a context of its own.
        """
        return nullcontext()

    def watch(self, strategy: Strategy, task: Task, ctx: Context) -> None:
        """Keep, after a task was learned, what a later request will need. Nothing by default."""

    def forget(self, strategy: Strategy, request: Forget, ctx: Context) -> Strategy | None:
        """Change the strategy in place so that it forgets, or give another one that takes its place.

        Args:
            strategy: in evaluation mode, on the device; the forgotten samples are out of its memory already.
            request: what has to go, and what may still be read.
            ctx: training, randomness by purpose, and a log for figures such as the share of weights changed.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define forget")

    def check(self, request: Forget) -> None:
        """Refuse a request that cannot work, before any pass over data.

        Raises:
            ConfigError: with the numbers, and what would work.
        """

    def state(self) -> State:
        """What is kept between tasks and requests, under 'unlearner/name'."""
        return {}

    def load(self, state: State, seen: Sequence[TaskInfo]) -> None:
        """Take back what `state` returned.

        Raises:
            StateError: entries that this unlearner does not keep.
        """
        if state:
            raise StateError(f"{type(self).__name__} keeps nothing, and this state holds {sorted(state)}")

    def planned_bytes(self, strategy: Strategy) -> int:
        """Bytes that its state will weigh once the task at hand was watched: no room for exemplars.

        By default what its state weighs now.
        """
        return account(freeze(self.state()), self.category).carried

    def category(self, name: str) -> str:
        """The ledger category of a state entry."""
        return self.categories.get(name.removeprefix("unlearner/"), "importance")


def remaining(strategy: Strategy, request: Forget) -> Samples:
    """Training samples that stay and may be read: those of past tasks, or else the exemplars that the strategy keeps.

    Raises:
        StateError: there are none.
    """
    from clearn.parts.rehearsal import Rehearsal
    from clearn.parts.samples import concat

    if request.past is not None:
        return concat([task.train for task in request.past if len(task.train)])
    if isinstance(strategy.memory, Rehearsal) and len(strategy.memory):
        return strategy.memory.samples()
    raise StateError(
        "no sample that stays may be read: looking back is not allowed and the strategy keeps no exemplars; "
        "write look_back: true in the request, or choose a method that needs none, e.g. ssd with stored importances"
    )


def labels_of(samples: Samples) -> list[int]:
    """Labels that occur, ascending."""
    return [int(label) for label in torch.unique(samples.labels)]
