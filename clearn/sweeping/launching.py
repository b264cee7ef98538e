"""What starts jobs, says which have ended, and cancels them; and the simplest such, which runs them itself."""

from __future__ import annotations

import traceback
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from clearn.errors import UserError
from clearn.sweeping.jobs import Job, Outcome, ended

if TYPE_CHECKING:
    from rich.console import Console

    from clearn.runner import Experiment


class Launcher(ABC):
    """Where jobs run.

    Attributes:
        name: under which a job's record says who has it.
        slots: how many it takes at a time.
        pause: seconds between two questions whether a job has ended.
    """

    name: ClassVar[str]
    slots: int = 1
    pause: float = 0.2

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Start a job and write down how to find it again.

        Raises:
            UserError: it cannot be started.
        """

    @abstractmethod
    def poll(self, jobs: Sequence[Job]) -> Mapping[Job, Outcome]:
        """Say which of these jobs have ended, and how."""

    @abstractmethod
    def cancel(self, jobs: Sequence[Job]) -> None:
        """End these jobs; each leaves a folder that can be gone on with."""

    def find(self, job: Job) -> str | None:
        """Say in words where a job that an earlier sweep submitted still waits or runs; None where it does not."""
        return None


class Here(Launcher):
    """Runs a job in this process while it is submitted, with progress on the console."""

    name = "here"

    def __init__(self, console: Console) -> None:
        self._console = console
        self._ended: dict[Job, Outcome] = {}

    def submit(self, job: Job) -> None:
        """Run a job to its end."""
        self._ended[job] = self._run(job)

    def _run(self, job: Job) -> Outcome:
        from clearn.runner import Stopped, stoppable

        try:
            with stoppable():  # also while data is read
                stopped = execute(job.build(), job.folder, self._console)
        except Stopped as stop:
            stopped = str(stop)
        except UserError as error:
            return Outcome("failed", str(error))
        except Exception as error:  # noqa: BLE001 - a fault of ours in one run must not hide the others
            self._console.print(traceback.format_exc(), highlight=False, markup=False, soft_wrap=True)
            return Outcome("failed", f"{type(error).__name__}: {error}")
        return Outcome("stopped", stopped) if stopped else ended(job, Outcome("done"))

    def poll(self, jobs: Sequence[Job]) -> Mapping[Job, Outcome]:
        """Give what `submit` found."""
        return {job: self._ended[job] for job in jobs if job in self._ended}

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Do nothing: what was submitted has ended."""


def execute(experiment: Experiment, path: Path, console: Console) -> str:
    """Run an experiment with progress on the console; give the signal that stopped it, empty where none did."""
    from clearn.progress import ConsoleProgress
    from clearn.runner import Stopped
    from clearn.runner import run as run_experiment

    try:
        run_experiment(experiment, path, ConsoleProgress(console))
    except Stopped as stop:
        return str(stop)
    return ""
