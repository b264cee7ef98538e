"""The runner: take up what a folder holds, go on step by step, and leave a folder that can always be gone on with.

What a step does is the experiment's business: `clearn.learning` trains on a task, `clearn.collecting` asks for a round
of reports. Both freeze what is carried, weigh it, write it, forget the object and rebuild it from the written bytes.
No torch is loaded here.
"""

from __future__ import annotations

import platform
import resource
import signal
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from clearn.distributed import SharedFolder, agree, join
from clearn.errors import ConfigError, StateError
from clearn.folder import CONFIG, ENVIRONMENT, LEDGER, SCORES, RunFolder
from clearn.launch import check_started, this_process
from clearn.ledger import Account
from clearn.locks import alone_in
from clearn.options import TrainerOptions
from clearn.progress import Progress
from clearn.state import Frozen
from clearn.tracking.logs import following


class Stopped(BaseException):
    """A person asked the run to stop (Ctrl-C or SIGTERM). Not an Exception, so that nothing on the way swallows it."""


class Experiment(ABC):
    """What the runner runs: so many steps, each leaving a state behind.

    Attributes:
        title: what a person sees.
        seed: of everything random but the stream.
        config: resolved, as written into the run folder.
    """

    title: str
    seed: int
    config: dict[str, Any]

    @property
    @abstractmethod
    def steps(self) -> int:
        """How many steps the stream has."""

    @property
    @abstractmethod
    def about(self) -> dict[str, Any]:
        """JSON-able facts of the stream for the run folder."""

    @property
    @abstractmethod
    def environment(self) -> dict[str, Any]:
        """More facts for environment.json: versions of what computes, device, threads."""

    @property
    def asks_for(self) -> TrainerOptions | None:
        """What says how many processes carry it out together; None where one alone can."""
        return None

    def no_resume(self, step: int) -> str:
        """Say why a run that stopped after so many steps cannot be gone on with; empty where it can."""
        return ""

    @abstractmethod
    def check(self) -> None:
        """Refuse before anything is written what cannot be run.

        Raises:
            BudgetExceeded: the bare structure outweighs the budget.
            ConfigError: settings that contradict one another or the stream.
        """

    @abstractmethod
    def loop(self, folder: RunFolder, progress: Progress) -> Loop:
        """Make what carries out the steps."""


class Loop(ABC):
    """The learner and what is known of it between steps."""

    arrays = "torch"  # what state files are read as: "torch" or "numpy"

    def __init__(self, folder: RunFolder, progress: Progress, steps: int) -> None:
        self.folder, self.progress, self.steps = folder, progress, steps

    def running(self) -> AbstractContextManager[None]:
        """Settings of the process that hold while steps are carried out."""
        return nullcontext()

    @abstractmethod
    def restore(self, frozen: Frozen, step: int) -> None:
        """Take up what was carried after `step` steps."""

    @abstractmethod
    def reset(self) -> None:
        """Be as new."""

    @abstractmethod
    def step(self, index: int) -> None:
        """Carry out step `index`, from 0: learn, freeze, weigh, write, rebuild, score."""

    def recover(self) -> int:
        """Take up the newest whole state, if any; give the number of steps carried out."""
        whole, wrong = self.folder.newest()
        step = whole.step if whole else 0
        if step > self.steps:
            raise ConfigError(
                f"{self.folder.path} holds a state after {step} tasks, but this stream has {self.steps}: it is "
                "another run's folder; choose another with out=FOLDER"
            )
        for problem in wrong:
            self.progress.note(f"{problem}; going on after task {step}")
        self.folder.drop_after(step)
        if whole is None:
            return 0
        self.restore(whole.frozen, step)
        if step and (
            not any(row["step"] == step for row in self.folder.rows(SCORES))
            or not any(row["step"] == step and row["kind"] == "figures" for row in self.folder.rows(LEDGER))
        ):  # killed between writing a state and its rows: repeat that step, which gives the same bytes
            self.folder.drop_after(step - 1)
            self.reset()
            return self.recover()
        return step


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
        UserError: another process is writing into the folder.
        Stopped: after Ctrl-C; the run can be gone on with.
    """
    return run_until(experiment, path, experiment.steps, progress, extra)


def run_until(
    experiment: Experiment,
    path: Path,
    until: int,
    progress: Progress | None = None,
    extra: dict[str, Any] | None = None,
) -> Path:
    """Run as `run` does, but stop after `until` steps, as a person might; calling it again goes on."""
    progress, process = progress or Progress(), this_process()
    check_started(experiment.asks_for, process)
    own = folder = RunFolder(path)
    if process.first:
        _check_same(experiment, own)
    experiment.check()
    if experiment.asks_for and process.count > 1:
        join(experiment.asks_for, process)
        agree(_flat({**experiment.config, "out": None, "data": experiment.about}))
        folder = SharedFolder(path, process)
        progress = progress if process.first else Progress()
    loop = experiment.loop(folder, progress)
    folder.arrays = loop.arrays
    folder.create()
    with alone_in(path) if process.first else nullcontext():
        if process.first:
            _write_facts(experiment, own, extra or {})
        tracked = following(experiment.config, own, progress) if process.first else nullcontext(lambda: None)
        _carry_out(experiment, loop, until, tracked)
    return path


def _carry_out(
    experiment: Experiment, loop: Loop, until: int, tracked: AbstractContextManager[Callable[[], None]]
) -> None:
    """Take up what is there, go on until a step, and say in the folder how it ended."""
    folder, progress, steps = loop.folder, loop.progress, experiment.steps
    done = loop.recover()
    progress.begin(experiment.title, steps, done)
    try:
        with stoppable(), loop.running(), tracked as log:
            for index in range(done, until):
                folder.put_status("running", index, steps)
                loop.step(index)
                done = index + 1
                log()
        folder.put_status("done" if done == steps else "stopped", done, steps)
    except Stopped:
        folder.put_status("stopped", done, steps, "stopped by a signal")
        raise
    except Exception as error:
        _put_failed(folder, done, steps, error)
        raise
    finally:
        progress.end()


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


def _check_same(experiment: Experiment, folder: RunFolder) -> None:
    """Refuse a folder that holds another config's run."""
    if not (folder.path / CONFIG).exists():
        return
    from clearn.config import load

    there = load(str(folder.path / CONFIG))
    mine = experiment.config
    differing = sorted(_flat(there).items() ^ _flat(mine).items())
    keys = sorted(
        {key for key, _ in differing if key not in ("out", "name") and not key.startswith("tracker.")},
        key=lambda key: (".name" not in key, key),
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
            **{name: package_version(name) for name in ("clearn", "numpy", "safetensors")},
            **experiment.environment,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "seed": experiment.seed,
            "command": before.get("command") or sys.argv,
            "data": experiment.about,
            "started": before.get("started") or datetime.now(UTC).isoformat(timespec="seconds"),
            **{k: v for k, v in before.items() if k == "forked_from"},
            **extra,
        },
    )


def package_version(package: str) -> str | None:
    """The installed version of a package, or None."""
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


def cpu_seconds() -> float:
    """Processor seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
