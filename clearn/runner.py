"""The loop: learn, freeze, weigh, write, forget the object, rebuild it from the written bytes, score.

The law of the ledger: what a learner carries from one task to the next is exactly what was weighed. Scores are taken
from the rebuilt learner, so they too rest on nothing but those bytes, and a run can be killed at any moment and gone
on with.
"""

from __future__ import annotations

import platform
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from clearn import seeds
from clearn.context import Context
from clearn.errors import ConfigError, StateError
from clearn.experiment import Experiment
from clearn.folder import CONFIG, ENVIRONMENT, LEDGER, SCORES, RunFolder
from clearn.ledger import Account, account
from clearn.memory import Peak
from clearn.precision import autocast
from clearn.progress import Progress
from clearn.scoring import score
from clearn.state import Frozen, State, decode, encode, freeze, thaw
from clearn.strategy import Strategy
from clearn.stream import Probe, TaskInfo


class Stopped(BaseException):
    """A person asked the run to stop (Ctrl-C or SIGTERM). Not an Exception, so that nothing on the way swallows it."""


def run(
    experiment: Experiment, path: Path, progress: Progress | None = None, extra: dict[str, Any] | None = None
) -> Path:
    """Run an experiment into a folder, or go on with the run of the same experiment that is there.

    Args:
        experiment: what to run.
        path: the run folder.
        progress: what a person sees; nothing by default.
        extra: more facts for environment.json.

    Returns:
        The run folder.

    Raises:
        ConfigError: the folder holds a run of another config.
        BudgetExceeded: the carried state outweighs the budget.
        StateError: something could not be written.
        Stopped: after Ctrl-C; the run can be gone on with.
    """
    return run_until(experiment, path, len(experiment.stream), progress, extra)


def run_until(
    experiment: Experiment,
    path: Path,
    until: int,
    progress: Progress | None = None,
    extra: dict[str, Any] | None = None,
) -> Path:
    """Run as `run` does, but stop after `until` tasks, as a person might; calling it again goes on."""
    folder = RunFolder(path)
    progress = progress or Progress()
    _check_same(experiment, folder)
    plan = experiment.plan()
    experiment.check_budget(plan)
    folder.create()
    _write_facts(experiment, folder, extra or {})
    loop = _Loop(experiment, folder, plan, progress)
    n_tasks = len(experiment.stream)
    done = loop.recover()
    progress.begin(experiment.title, n_tasks, done)
    try:
        with stoppable(), _threads(experiment.trainer.threads):
            for index in range(done, until):
                folder.put_status("running", index, n_tasks)
                loop.step(index)
                done = index + 1
        folder.put_status("done" if done == n_tasks else "stopped", done, n_tasks)
    except Stopped:
        folder.put_status("stopped", done, n_tasks, "stopped by a signal")
        raise
    except Exception as error:
        _put_failed(folder, done, n_tasks, error)
        raise
    finally:
        progress.end()
    return path


class _Loop:
    """The learner and what is known of it between steps."""

    def __init__(self, experiment: Experiment, folder: RunFolder, plan: list[Account], progress: Progress) -> None:
        self.experiment = experiment
        self.folder = folder
        self.progress = progress
        self.planned = experiment.weights(plan)
        self.device = torch.device("cuda" if experiment.trainer.accelerator == "gpu" else "cpu")
        self.strategy: Strategy | None = None
        self.probes: list[Probe] = []

    def recover(self) -> int:
        """Take up the newest whole state, if any; give the number of tasks learned."""
        whole, wrong = self.folder.newest()
        step = whole.step if whole else 0
        if step > len(self.experiment.stream):
            raise ConfigError(
                f"{self.folder.path} holds a state after {step} tasks, but this stream has "
                f"{len(self.experiment.stream)}: it is "
                "another run's folder; choose another with out=FOLDER"
            )
        for problem in wrong:
            self.progress.note(f"{problem}; going on after task {step}")
        self.folder.drop_after(step)
        if whole is None:
            return 0
        self.strategy = self._rebuild(whole.frozen, step)
        for index in range(step):
            self.probes += self.experiment.stream.task(index).probes
        if not any(row["step"] == step for row in self.folder.rows(SCORES)) or not any(
            row["step"] == step and row["kind"] == "figures" for row in self.folder.rows(LEDGER)
        ):
            return self._without_rows(step)
        return step

    def _without_rows(self, step: int) -> int:
        """Killed between writing a state and its rows: repeat that step, which gives the same bytes."""
        self.folder.drop_after(step - 1)
        self.probes = []
        self.strategy = None
        return self.recover()

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
        peak, cpu, started = Peak(device), _cpu_seconds(), time.perf_counter()
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
            "cpu_seconds": _cpu_seconds() - cpu,
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


def ledger_rows(step: int, weights: Account, figures: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The ledger's rows of one boundary: bytes by owner and category, then one row of figures."""
    for (owner, category), size in weights.rows().items():
        yield {"kind": "bytes", "step": step, "owner": owner, "category": category, "bytes": size}
    totals = {"total": weights.carried + weights.shared, "shared": weights.shared, "delta": weights.carried}
    yield {"kind": "figures", "step": step, **totals, **figures}


@contextmanager
def stoppable() -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into `Stopped`, which no library catches; a second one ends the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: object) -> None:
        for caught in before:
            signal.signal(caught, signal.SIG_DFL)
        raise Stopped(signal.Signals(number).name)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _threads(count: int | str) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(int(count))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _check_same(experiment: Experiment, folder: RunFolder) -> None:
    """Refuse a folder that holds another config's run."""
    if not (folder.path / CONFIG).exists():
        return
    from clearn.config import load

    there = load(str(folder.path / CONFIG))
    mine = experiment.config
    differing = sorted(_flat(there).items() ^ _flat(mine).items())
    keys = sorted(
        {key for key, _ in differing if key not in ("out", "name")}, key=lambda key: (".name" not in key, key)
    )
    if keys:
        shown = ", ".join(f"{key} ({_flat(there).get(key)} there, {_flat(mine).get(key)} here)" for key in keys[:3])
        raise ConfigError(
            f"{folder.path} holds a run of another config; it differs in "
            f"{shown}{' and more' if len(keys) > 3 else ''}: choose "
            "another folder with out=FOLDER, or remove that one"
        )


def _flat(config: Any, prefix: str = "") -> dict[str, str]:
    if isinstance(config, dict) and config:
        return {
            k: v
            for name, value in config.items()
            for k, v in _flat(value, f"{prefix}.{name}" if prefix else str(name)).items()
        }
    return {prefix: str(config)}


def _write_facts(experiment: Experiment, folder: RunFolder, extra: dict[str, Any]) -> None:
    from clearn.config import save

    config = folder.path / CONFIG
    if not config.exists():
        save(experiment.config, config)
    before = folder.get_json(ENVIRONMENT) or {}
    folder.put_json(
        ENVIRONMENT,
        {
            **{
                name: _version(name)
                for name in ("clearn", "torch", "torchvision", "lightning", "timm", "numpy", "safetensors")
            },
            "python": platform.python_version(),
            "platform": platform.platform(),
            "device": experiment.trainer.accelerator,
            "threads": experiment.trainer.threads,
            "seed": experiment.seed,
            "command": before.get("command") or sys.argv,
            "data": experiment.stream.about,
            "started": before.get("started") or datetime.now(UTC).isoformat(timespec="seconds"),
            **{k: v for k, v in before.items() if k == "forked_from"},
            **extra,
        },
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _put_failed(folder: RunFolder, done: int, steps: int, error: Exception) -> None:
    """Say in the run folder why the run failed; a full disk may refuse even that, and the error matters more."""
    try:
        folder.put_status("failed", done, steps, f"{type(error).__name__}: {error}")
    except StateError:
        return


def _accuracy(rows: list[dict[str, Any]]) -> float | None:
    """Pooled accuracy of the headline read-out."""
    judged = [row for row in rows if row["headline"]]
    total = sum(row["total"] for row in judged)
    return sum(row["correct"] for row in judged) / total if total else None


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
