"""A boundary between two steps: what the step took, and the learner rebuilt from what was written."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from clearn import seeds
from clearn.context import Context
from clearn.errors import StateError
from clearn.learner import Learner
from clearn.memory import Peak
from clearn.runner import cpu_seconds
from clearn.state import Frozen, State, thaw
from clearn.stream import TaskInfo

L = TypeVar("L", bound=Learner)


class Step:
    """What one step took: a context, clocks, and the high-water marks of memory."""

    def __init__(self, index: int, ctx: Context, device: torch.device) -> None:
        self.index, self.ctx, self.peak = index, ctx, Peak(device)
        self.cpu = cpu_seconds()
        self.seconds: dict[str, float] = {}
        self.peaks: dict[str, float | None] = {}

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Clock the method's own work: reading data, training, an observer, and all else: choosing what to keep."""
        started = time.perf_counter()
        yield
        cost = self.ctx.cost
        self.seconds = {"data": cost.data_seconds, "train": cost.train_seconds}
        if cost.observe_seconds:
            self.seconds["observe"] = cost.observe_seconds
        self.seconds["select"] = time.perf_counter() - started - sum(self.seconds.values())
        self.peaks = {"peak_host": self.peak.host(), "peak_device": self.peak.device()}

    def figures(self) -> dict[str, Any]:
        """For the ledger's row of figures."""
        cost = self.ctx.cost
        return {
            "transient": cost.transient,
            **self.peaks,
            "seconds": self.seconds,
            "cpu_seconds": cpu_seconds() - self.cpu,
            "optimizer_steps": cost.optimizer_steps,
            "samples": cost.samples,
            "logged": cost.logged,
        }


def rebuild(learner: L, frozen: Frozen, seen: Sequence[TaskInfo], seed: int, step: int) -> L:
    """Load a frozen state into a fresh learner, and check the pretrained weights that it leans on.

    Raises:
        StateError: the state does not fit, or the checkpoint it leans on is not the one it was written with.
    """
    state: State = {name: value for name, value in thaw(frozen).items() if not name.startswith("unlearner/")}
    with seeds.scope(seed, step, "rebuild"):
        learner.load(state, seen)
    untouched = learner.untouched()
    lost = sorted(untouched.keys() - frozen.shared.keys())
    if lost:
        raise StateError(
            f"{len(lost)} trained weights are missing in this state, first '{lost[0]}', and the pretrained ones would "
            "take their place: the file is damaged; go on from an earlier state"
        )
    gone = [name for name, facts in frozen.shared.items() if untouched.get(name) != facts]
    if gone:
        raise StateError(
            f"{len(gone)} pretrained weights that this run leans on are not what they were, first '{gone[0]}': "
            "the checkpoint was "
            "changed or replaced; put the old one back in its place"
        )
    return learner


@contextmanager
def threads(count: int | str) -> Iterator[None]:
    """Have torch use so many threads, and put the number back."""
    before = torch.get_num_threads()
    torch.set_num_threads(int(count))
    try:
        yield
    finally:
        torch.set_num_threads(before)
