"""What SSD and its relatives share as unlearners: weigh what goes against a reference, dampen, carry the counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from clearn.parts.dampening import dampen
from clearn.parts.weighing import Scales, Weighed, Weighing
from clearn.state import State
from clearn.stream import Forget, Task, TaskInfo
from clearn.unlearner import Unlearner, remaining

if TYPE_CHECKING:
    from clearn.context import Context
    from clearn.strategy import Strategy


class Dampener(Unlearner):
    """Dampens scalars by the ratio of two importances; what threshold that takes is for the method to say.

    Args:
        how: how importances are had; 8 bytes a class are carried, and a scalar's importance where they are stored.
        lam: lambda of the factors.
        require_effect: fail where nothing was selected, instead of warning.
    """

    def __init__(self, how: Weighing, lam: float, require_effect: bool) -> None:
        self.looks_back = not how.store
        self.scales = Scales(how)
        self.lam, self.require_effect = lam, require_effect

    def threshold_for(self, found: Weighed, n: int, m: int) -> float:
        """Give the ratio of importances above which a scalar is selected.

        Args:
            found: both importances.
            n: samples that the reference stands for, those that go among them.
            m: samples that go.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define threshold_for")

    def size(self, n_kept: int, n_gone: int) -> int:
        """Count the samples that the reference stands for, as soon as they are known; may refuse them."""
        return self.scales.size(n_kept, n_gone)

    def watch(self, strategy: Strategy, task: Task, ctx: Context) -> None:
        """Count the task's samples, and measure their importances where they are to be stored."""
        self.scales.watch(strategy, task.train)

    def forget(self, strategy: Strategy, request: Forget, ctx: Context) -> None:
        """Weigh what goes against the reference, choose the threshold, dampen."""
        gone = request.forget
        kept = None if self.scales.how.store else remaining(strategy, request)
        n = self.size(0 if kept is None else len(kept), len(gone))
        found = self.scales.weigh(strategy, gone, kept, stand_in=request.past is None)
        alpha = self.threshold_for(found, n, len(gone))
        done = dampen(dict(strategy.named_parameters()), found.forget, found.reference, alpha, self.lam)
        done.show_effect(self.require_effect)
        self.scales.forget(gone, found.forget)
        for name, value in done.figures().items():
            ctx.log(name, value)
        ctx.log("unlearn/samples", found.samples)

    def planned_bytes(self, strategy: Strategy) -> int:
        """Counts of the classes seen, and what is stored a scalar."""
        return self.scales.planned_bytes(strategy)

    def state(self) -> State:
        """Counts by class, and stored importances."""
        return dict(self.scales.state())

    def load(self, state: State, seen: Sequence[TaskInfo]) -> None:
        """Take both back."""
        self.scales.load(state)
