"""A step of learning: learn a task, freeze, weigh, write, forget the object, rebuild it from the bytes, score.

The law of the ledger: what a learner carries from one task to the next is exactly what was weighed. Scores are taken
from the rebuilt learner, so they too rest on nothing but those bytes, and a run can be killed at any moment and gone
on with.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import torch

from clearn import seeds
from clearn.context import Context
from clearn.errors import StateError
from clearn.folder import LEDGER, SCORES, RunFolder
from clearn.ledger import account
from clearn.memory import Peak
from clearn.precision import autocast
from clearn.progress import Progress
from clearn.runner import Loop, cpu_seconds, ledger_rows
from clearn.scoring import score
from clearn.state import Frozen, State, decode, encode, freeze, thaw
from clearn.strategy import Strategy
from clearn.stream import Probe, TaskInfo

if TYPE_CHECKING:
    from clearn.learning.experiment import Learning


class LearningLoop(Loop):
    """A strategy on its way through a stream of tasks."""

    def __init__(self, experiment: Learning, folder: RunFolder, progress: Progress) -> None:
        super().__init__(folder, progress, experiment.steps)
        self.experiment = experiment
        self.planned = experiment.weights(experiment.plan())
        self.device = torch.device("cuda" if experiment.trainer.accelerator == "gpu" else "cpu")
        self.strategy: Strategy | None = None
        self.probes: list[Probe] = []

    def running(self) -> AbstractContextManager[None]:
        """Torch's number of threads."""
        return _threads(self.experiment.trainer.threads)

    def restore(self, frozen: Frozen, step: int) -> None:
        """Rebuild the strategy, and look up the probes of the tasks seen."""
        self.strategy = self._rebuild(frozen, step)
        for index in range(step):
            self.probes += self.experiment.stream.task(index).probes

    def reset(self) -> None:
        """No strategy, no probes."""
        self.probes, self.strategy = [], None

    def step(self, index: int) -> None:
        """Learn one task and leave it behind."""
        experiment, device = self.experiment, self.device
        task = experiment.stream.task(index)
        self.progress.task(index, len(task.info.classes), len(task.train))
        strategy = (self.strategy or experiment.build()).to(device)
        self.strategy = None
        ctx = Context(
            seed=experiment.seed,
            step=index,
            trainer=experiment.trainer,
            device=device,
            augment=experiment.stream.augment,
            budget=experiment.budget,
            planned=self.planned,
            progress=self.progress,
        )
        peak, cpu, started = Peak(device), cpu_seconds(), time.perf_counter()
        with seeds.scope(experiment.seed, index, "learn"):
            strategy.learn(task, ctx)
        seconds = {"data": ctx.cost.data_seconds, "train": ctx.cost.train_seconds}
        seconds["select"] = time.perf_counter() - started - sum(seconds.values())
        peaks = {"peak_host": peak.host(), "peak_device": peak.device()}

        clock = time.perf_counter()
        frozen = freeze(strategy.state(), strategy.untouched())
        weights = account(frozen, strategy.category)
        nominal = 0 if strategy.memory is None else strategy.memory.nominal_bytes
        weight = weights.paper(nominal) if experiment.budget.count == "paper" else weights.carried
        experiment.budget.check(weight, index, len(experiment.stream))
        blob = encode(frozen)
        digest = self.folder.write_state(index + 1, blob)
        seconds["write"] = time.perf_counter() - clock

        clock = time.perf_counter()
        held = 0 if strategy.memory is None else len(strategy.memory)
        if experiment.runner.rebuild:
            del strategy
            strategy = self._rebuild(decode(blob), index + 1)
        seconds["rebuild"] = time.perf_counter() - clock

        clock = time.perf_counter()
        self.probes += task.probes
        with autocast(experiment.trainer.precision, device):
            rows = score(strategy, self.probes, index + 1, experiment.trainer.eval_batch, device)
        seconds["evaluate"] = time.perf_counter() - clock
        self.folder.add_rows(SCORES, rows)
        limit = experiment.budget.at(index, len(experiment.stream))
        figures = {
            "framing": len(blob) - weights.carried,
            "budget": limit,
            "slack": None if limit is None else limit - weight,
            "paper": weights.paper(nominal),
            "exemplars": held,
            "transient": ctx.cost.transient,
            **peaks,
            "seconds": seconds,
            "cpu_seconds": cpu_seconds() - cpu,
            "optimizer_steps": ctx.cost.optimizer_steps,
            "samples": ctx.cost.samples,
            "logged": ctx.cost.logged,
            "rebuilt": experiment.runner.rebuild,
            "sha256": digest,
        }
        self.folder.add_rows(LEDGER, ledger_rows(index + 1, weights, figures))
        self.strategy = strategy
        self.progress.boundary(_accuracy(rows), weight, limit)

    def _rebuild(self, frozen: Frozen, step: int) -> Strategy:
        """Make a fresh learner and give it what was written, after so many tasks."""
        strategy = self.experiment.build()
        return rebuild(strategy, frozen, self.experiment.stream.infos[:step], self.experiment.seed, step).to(
            self.device
        )


def rebuild(strategy: Strategy, frozen: Frozen, seen: tuple[TaskInfo, ...], seed: int, step: int) -> Strategy:
    """Load a frozen state into a fresh learner, and check the pretrained weights that it leans on.

    Raises:
        StateError: the state does not fit, or the checkpoint it leans on is not the one it was written with.
    """
    state: State = thaw(frozen)
    with seeds.scope(seed, step, "rebuild"):
        strategy.load(state, seen)
    untouched = strategy.untouched() if frozen.shared else {}
    gone = [name for name, facts in frozen.shared.items() if untouched.get(name) != facts]
    if gone:
        raise StateError(
            f"{len(gone)} pretrained weights that this run leans on are not what they were, first '{gone[0]}': "
            "the checkpoint was "
            "changed or replaced; put the old one back in its place"
        )
    return strategy


@contextmanager
def _threads(count: int | str) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(int(count))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _accuracy(rows: list[dict[str, Any]]) -> float | None:
    """Pooled accuracy of the headline read-out."""
    judged = [row for row in rows if row["headline"]]
    total = sum(row["total"] for row in judged)
    return sum(row["correct"] for row in judged) / total if total else None
