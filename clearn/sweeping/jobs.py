"""One run of a sweep: what it is, what its launcher and its worker leave beside it, and how it ended."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from clearn.errors import UserError
from clearn.report import Run
from clearn.report import load as load_runs
from clearn.runner import Experiment
from clearn.state import write

State = Literal["done", "failed", "stopped", "lost"]


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        state: done; failed, by a fault of the config, of ours or of a limit; stopped, by a person; lost, through no
            fault of its own, so that it may be started again.
        message: why.
        log: what it printed, where that is a file.
    """

    state: State
    message: str = ""
    log: Path | None = None


@dataclass(frozen=True)
class Files:
    """What is known of a job besides its run folder, in `jobs/` of the sweep's folder.

    Attributes:
        stem: FOLDER/jobs/NAME.
    """

    stem: Path

    @property
    def config(self) -> Path:
        """What is to be run, as loaded, before any default is filled in."""
        return self._named("yaml")

    @property
    def record(self) -> Path:
        """Which launcher has it under which number."""
        return self._named("json")

    @property
    def result(self) -> Path:
        """What the worker says of its end."""
        return self._named("result.json")

    @property
    def log(self) -> Path:
        """What the worker printed."""
        return self._named("log")

    @property
    def lock(self) -> Path:
        """Held by the worker while it works."""
        return self._named("lock")

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.stem.parent.parent / self.stem.name

    def _named(self, ending: str) -> Path:
        return self.stem.with_name(f"{self.stem.name}.{ending}")

    def read(self, path: Path) -> dict[str, Any] | None:
        """Read one of the JSON files; None where it is missing or cut short."""
        try:
            found = json.loads(path.read_text())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def put(self, path: Path, value: Mapping[str, Any]) -> None:
        """Write one of the JSON files, whole or not at all."""
        write(path, (json.dumps(value) + "\n").encode())


@dataclass(frozen=True, eq=False)
class Job:
    """One of several runs.

    Attributes:
        label: what distinguishes it.
        folder: its run folder, in the sweep's.
        build: makes its experiment in this process.
        config: as loaded, for a worker to read; None for a run that only this process can make.
    """

    label: str
    folder: Path
    build: Callable[[], Experiment]
    config: Mapping[str, Any] | None = None

    @property
    def files(self) -> Files:
        """What lies beside its run folder."""
        return Files(self.folder.parent / "jobs" / self.folder.name)

    def prepare(self) -> None:
        """Write what its worker reads, and forget how an earlier one ended.

        Raises:
            UserError: the folder cannot be written.
        """
        from clearn.config import save

        assert self.config is not None, "a run without a config is run in this process"
        try:
            self.files.stem.parent.mkdir(parents=True, exist_ok=True)
            self.files.result.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot write {self.files.stem.parent}: {error.strerror}; choose another folder"
            ) from error
        save(self.config, self.files.config)


def finished(job: Job) -> Run | None:
    """Read a job's run where it went through its whole stream and nothing of it is amiss, else None."""
    try:
        (run,) = load_runs([job.folder])
    except (UserError, ValueError):
        return None
    return run if run.finished else None


def ended(job: Job, otherwise: Outcome) -> Outcome:
    """Say how a job ended: by its run folder, else by its worker's last words, else as the launcher knows it."""
    if finished(job):
        return Outcome("done")
    said = job.files.read(job.files.result) or {}
    message = str(said.get("message", ""))
    match said.get("state"):
        case "failed":
            return Outcome("failed", message, otherwise.log)
        case "stopped" if otherwise.state == "failed":
            return Outcome("failed", f"{message} from outside; its finished tasks are safe", otherwise.log)
        case "done":
            return Outcome("failed", f"{job.folder} is not whole: run the sweep again to mend it", otherwise.log)
        case _:
            return otherwise
