"""One job in a process of its own: python -m clearn.sweeping.worker FOLDER/jobs/NAME.

It goes on with the run folder that is there, holds the job's lock while it works, so that two workers of one job come
one after the other, and leaves a last word for the sweep.
"""

from __future__ import annotations

import signal
import sys
import traceback
from pathlib import Path

from clearn.errors import UserError
from clearn.locks import in_turn
from clearn.sweeping.jobs import Files

WARNING = signal.SIGUSR2  # what a cluster sends shortly before a job's time is up
OVERTIME = (
    "killed by its time limit; its finished tasks are safe: give more with sweep.slurm.minutes and run the sweep again"
)
NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory")


def work(stem: str) -> int:
    """Run a job; give the exit code: 0 done, 1 a fault of ours, 2 a user's mistake, 130 stopped."""
    from clearn.runner import Stopped

    files, warned = Files(Path(stem)), _Warned()
    with in_turn(files.lock):
        files.result.unlink(missing_ok=True)  # of an earlier try
        try:
            _run(files)
        except Stopped as stop:
            if warned:
                return _last_word(files, 1, "failed", OVERTIME)
            return _last_word(files, 130, "stopped", f"stopped by {stop}")
        except UserError as error:
            return _last_word(files, 2, "failed", str(error))
        except Exception as error:
            said = f"{type(error).__name__}: {error}".splitlines()[0]
            scarce = isinstance(error, MemoryError) or any(word in str(error).lower() for word in NO_MEMORY)
            _last_word(files, 1, "failed", f"ran out of memory: {said}" if scarce else said)
            raise
        return _last_word(files, 0, "done", "")


class _Warned:
    """Becomes true with the signal that a cluster sends before a job's time is up; the job works on till the end."""

    def __init__(self) -> None:
        self._came = False
        signal.signal(WARNING, self._come)

    def _come(self, number: int, frame: object) -> None:
        self._came = True

    def __bool__(self) -> bool:
        return self._came


def _run(files: Files) -> None:
    from rich.console import Console

    from clearn.config import load
    from clearn.experiment import bind
    from clearn.folder import CONFIG
    from clearn.progress import ConsoleProgress
    from clearn.runner import run, stoppable

    with stoppable():  # also while data is read and the method is built
        begun = files.run / CONFIG
        experiment = bind(load(str(begun if begun.exists() else files.config)))
        run(experiment, files.run, ConsoleProgress(Console(width=200)))


def _last_word(files: Files, code: int, state: str, message: str) -> int:
    files.put(files.result, {"state": state, "message": message})
    return code


if __name__ == "__main__":
    try:
        sys.exit(work(sys.argv[1]))
    except Exception:  # noqa: BLE001 - the end of the program; all of it goes to the log
        traceback.print_exc()
        sys.exit(1)
