"""A step of learning: a task or a request to forget; freeze, weigh, write, rebuild from the bytes, score.

The law of the ledger: what a learner carries from one task to the next is exactly what was weighed. Scores are taken
from the rebuilt learner, so they too rest on nothing but those bytes, and a run can be killed at any moment and gone
on with.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch

from clearn import seeds
from clearn.boundary import Step, rebuild, threads
from clearn.context import Context
from clearn.folder import LEDGER, SCORES, RunFolder
from clearn.learning.examining import Examination
from clearn.learning.forgetting import forget
from clearn.ledger import account
from clearn.memory import keep_freed_memory
from clearn.precision import autocast
from clearn.progress import Progress
from clearn.runner import Loop, ledger_rows
from clearn.scoring import score
from clearn.state import Frozen, decode, encode, freeze, thaw
from clearn.strategy import Strategy
from clearn.stream import Probe, TaskInfo
from clearn.unlearner import Unlearner

if TYPE_CHECKING:
    from clearn.learning.experiment import Learning

BATCH_NORM = (
    "BatchNorm sees each process's share of a batch and not all of it, so results differ from one process's; the "
    "running statistics that are kept are rank 0's"
)


class LearningLoop(Loop):
    """A strategy on its way through a stream of tasks and requests to forget."""

    def __init__(self, experiment: Learning, folder: RunFolder, progress: Progress) -> None:
        super().__init__(folder, progress, experiment.steps)
        self.experiment = experiment
        self.events = experiment.stream.events
        self.planned = experiment.weights(experiment.plan())
        self.device = torch.device("cuda" if experiment.trainer.accelerator == "gpu" else "cpu")
        self.strategy: Strategy | None = None
        self.unlearner: Unlearner | None = None
        self.probes: list[Probe] = []

    def running(self) -> AbstractContextManager[None]:
        """Torch's number of threads, and memory kept for the next batch."""
        keep_freed_memory()
        if self.experiment.trainer.processes > 1 and self.experiment.has_batch_norm():
            self.progress.note(BATCH_NORM)
        return threads(self.experiment.trainer.threads)

    def recover(self) -> int:
        """Take up the newest whole state, unless a strategy that cannot be rebuilt has steps left: it starts anew."""
        if self.experiment.rebuilds:
            return super().recover()
        whole, _ = self.folder.newest()
        reached = whole.step if whole else 0
        finished = any(row["step"] == self.steps and row["kind"] == "figures" for row in self.folder.rows(LEDGER))
        if reached == self.steps and finished:
            return reached
        if reached:
            self.progress.note(f"{self.experiment.no_resume(reached)}; starting anew with task 1")
        self.folder.drop_after(0)
        return 0

    def restore(self, frozen: Frozen, step: int) -> None:
        """Rebuild strategy and unlearner, and look up the probes of the tasks seen."""
        self._rebuild(frozen, step)
        for info in self.experiment.stream.learned(step):
            self.probes += self.experiment.stream.task(info.index).probes

    def reset(self) -> None:
        """No strategy, no unlearner, no probes."""
        self.probes, self.strategy, self.unlearner = [], None, None

    def step(self, index: int) -> None:
        """Learn one task, or answer one request, and leave it behind."""
        event, stream = self.events[index], self.experiment.stream
        done = Step(index, self._context(index), self.device)
        if self.unlearner is None and self.experiment.unlearner is not None:
            self.unlearner = self.experiment.unlearner()
        strategy = (self.strategy or self.experiment.build()).to(self.device)
        self.strategy = None
        if isinstance(event, TaskInfo):
            task = stream.task(event.index)
            self.probes += task.probes
            self.progress.task(index, len(event.classes), len(task.train))
            with seeds.scope(self.experiment.seed, index, "learn"), done.timed():
                unlearner = self.unlearner
                with nullcontext() if unlearner is None else unlearner.during(strategy, task, done.ctx):
                    strategy.learn(task, done.ctx)
                if unlearner is not None:
                    unlearner.watch(strategy, task, done.ctx)
            self.strategy = strategy
            del strategy
            self._leave(done)
            return
        assert self.unlearner is not None, "checked before the run"
        asked = stream.forget(event)
        self.progress.forget(index, len(asked.forget))
        order = seeds.generator(self.experiment.seed, index, "relearn")
        examination = Examination(asked, stream.staying(event), order)
        with autocast(self.experiment.trainer.precision, self.device):
            examination.before(strategy)
        with seeds.scope(self.experiment.seed, index, "forget"), done.timed():
            self.strategy = forget(strategy, self.unlearner, asked, done.ctx)
        del strategy

        def judge(rebuilt: Strategy) -> None:
            examination.after(rebuilt, self._untrained(index))
            self.folder.write_evidence(index + 1, examination.arrays)

        self._leave(done, judge)

    def _untrained(self, index: int) -> Strategy:
        """Make a learner of the classes seen so far whose weights are fresh and like no other's."""
        with seeds.scope(self.experiment.seed, index, "untrained"):
            strategy = self.experiment.make()
            for info in self.experiment.stream.learned(index):
                strategy.grow(info)
        return strategy.to(self.device)

    def _context(self, index: int) -> Context:
        experiment = self.experiment
        return Context(
            seed=experiment.seed,
            step=index,
            trainer=experiment.trainer,
            device=self.device,
            augment=experiment.stream.augment,
            budget=experiment.budget,
            planned=self.planned,
            progress=self.progress,
            make=experiment.make,
            beside=lambda strategy: 0 if self.unlearner is None else self.unlearner.planned_bytes(strategy),
        )

    def _leave(self, done: Step, judge: Callable[[Strategy], None] | None = None) -> None:
        """Freeze, weigh, write, throw the object away, rebuild it from the bytes, score.

        Args:
            done: what the step took.
            judge: looks at the rebuilt one before the step counts as done, which its ledger rows say.
        """
        experiment, index, seconds, strategy = self.experiment, done.index, done.seconds, self.strategy
        assert strategy is not None
        clock = time.perf_counter()
        kept = {} if self.unlearner is None else self.unlearner.state()
        frozen = freeze(strategy.state() | kept, strategy.untouched())
        weights = account(frozen, self._categories(strategy))
        nominal = 0 if strategy.memory is None else strategy.memory.nominal_bytes
        weight = experiment.budget.counted(weights, nominal)
        experiment.budget.check(weight, index, self.steps)
        blob = encode(frozen)
        digest = self.folder.write_state(index + 1, blob)
        seconds["write"] = time.perf_counter() - clock

        clock = time.perf_counter()
        held = 0 if strategy.memory is None else len(strategy.memory)
        rebuilt = experiment.runner.rebuild and strategy.rebuilds
        if rebuilt:
            self.strategy = strategy = None
            strategy = self._rebuild(decode(blob), index + 1)
        seconds["rebuild"] = time.perf_counter() - clock

        clock = time.perf_counter()
        with autocast(experiment.trainer.precision, self.device):
            if judge is not None:
                judge(strategy)
            rows = score(strategy, self.probes, index + 1, experiment.trainer.eval_batch, self.device)
        seconds["evaluate"] = time.perf_counter() - clock
        self.folder.add_rows(SCORES, rows)
        limit = experiment.budget.at(index, self.steps)
        figures = {
            "framing": len(blob) - weights.carried,
            "budget": limit,
            "slack": None if limit is None else limit - weight,
            "paper": weights.paper(nominal),
            "exemplars": held,
            **done.figures(),
            "rebuilt": rebuilt,
            **({} if experiment.rebuilds else {"weighed": "by inspection, not rebuilt"}),
            "sha256": digest,
        }
        self.folder.add_rows(LEDGER, ledger_rows(index + 1, weights, figures))
        self.progress.boundary(_accuracy(rows), weight, limit)

    def _categories(self, strategy: Strategy) -> Callable[[str], str]:
        unlearner = self.unlearner
        if unlearner is None:
            return strategy.category
        return lambda name: (unlearner if name.startswith("unlearner/") else strategy).category(name)

    def _rebuild(self, frozen: Frozen, step: int) -> Strategy:
        """Make a fresh learner and give it what was written; the unlearner too, where there is one."""
        experiment, seen = self.experiment, self.experiment.stream.learned(step)
        strategy = rebuild(experiment.build(), frozen, seen, experiment.seed, step).to(self.device)
        self.strategy = strategy
        if experiment.unlearner is not None:
            self.unlearner = experiment.unlearner()
            kept = {name: value for name, value in thaw(frozen).items() if name.startswith("unlearner/")}
            self.unlearner.load(kept, seen)
        return strategy


def _accuracy(rows: list[dict[str, Any]]) -> float | None:
    """Pooled accuracy of the headline read-out."""
    judged = [row for row in rows if row["headline"]]
    total = sum(row["total"] for row in judged)
    return sum(row["correct"] for row in judged) / total if total else None
