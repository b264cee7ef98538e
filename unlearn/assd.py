"""ASSD, adaptive dampening: SSD whose threshold follows from the share that goes, without a parameter to tune.

Schoepf, Foster, Brintrup, "Parameter-Tuning-Free Data Entry Error Unlearning with Adaptive Selective Synaptic
Dampening" (2024). With r = I_f / I_D of all scalars pooled, alpha is the percentile 100 - ln(1 + 100 m / n) of the
finite ratios; lambda is 1. So about ln(1 + 100 m / n) % of them are dampened whatever the data: it cannot abstain.
Released code takes what stays as the reference (`reference: remaining`, n still all samples) and gradients of batches
(importance "batch"); the defaults here are those of SSD.

Kept from training until a request: with `store`, one importance a scalar, 4 P bytes (2 P in bfloat16); always 8 bytes
a class. Read at a request: what goes; and unless importances are stored, what stays, or the strategy's exemplars, each
weighed by the samples of its class over its exemplars. Cost: one pass over what is read, with `store` one pass over
each task after it was learned; ratios above the percentile are held in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from clearn.context import Context
from clearn.parts.dampening import adaptive_percentile, alpha_at_percentile, dampen
from clearn.parts.importance import CROSS_ENTROPY
from clearn.parts.weighing import Kind, Scales, Weighing
from clearn.state import State
from clearn.strategy import Strategy
from clearn.stream import Forget, Task, TaskInfo
from clearn.unlearner import Unlearner, remaining


class Assd(Unlearner):
    """Dampen by importance, the more scalars the more goes.

    Args:
        importance: "exact" sums squares over samples, "batch" over batches, "class_mean" over classes.
        reference: "all" data, or "remaining": what stays alone, as in released code.
        store: measure the importances of the data after each task and carry them, so that a request reads what goes
            alone; stale as soon as another task was learned.
        precision: of what is stored.
        batch_size: samples a batch; only "batch" depends on it.
        require_effect: fail where nothing was selected, instead of warning.
    """

    def __init__(
        self,
        importance: Kind = "exact",
        reference: Literal["all", "remaining"] = "all",
        store: bool = False,
        precision: Literal["float32", "bfloat16"] = "float32",
        batch_size: int = 64,
        require_effect: bool = False,
    ) -> None:
        self.looks_back = not store
        self.require_effect = require_effect
        self.scales = Scales(
            Weighing(CROSS_ENTROPY, importance, reference == "remaining", store, precision, batch_size)
        )

    def watch(self, strategy: Strategy, task: Task, ctx: Context) -> None:
        """Count the task's samples, and measure their importances where they are to be stored."""
        self.scales.watch(strategy, task.train)

    def forget(self, strategy: Strategy, request: Forget, ctx: Context) -> None:
        """Weigh what goes against the reference, take the percentile, dampen."""
        gone = request.forget
        kept = None if self.scales.how.store else remaining(strategy, request)
        n = self.scales.size(0 if kept is None else len(kept), len(gone))
        found = self.scales.weigh(strategy, gone, kept, stand_in=request.past is None)
        alpha = alpha_at_percentile(found.forget, found.reference, adaptive_percentile(n, len(gone)))
        done = dampen(dict(strategy.named_parameters()), found.forget, found.reference, alpha, lam=1.0)
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
