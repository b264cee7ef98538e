"""Jobs in processes of their own on this machine. They outlive a sweep that is killed, and the next one finds them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from clearn.errors import UserError
from clearn.locks import is_held
from clearn.sweeping.jobs import Job, Outcome, ended
from clearn.sweeping.launching import Launcher
from clearn.sweeping.processes import killed_for_memory, started

GRACE = 20.0  # seconds that a worker has to write what it is at, before it is killed


def cores() -> int:
    """Count the processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Local(Launcher):
    """Starts a process a job, so many at a time.

    Attributes:
        slots: how many at a time.
        threads: for each, where its config leaves them to the machine.
    """

    name = "local"

    def __init__(self, slots: int) -> None:
        self.slots, self.threads = slots, max(1, cores() // max(slots, 1))
        self._children: dict[Job, subprocess.Popen[bytes]] = {}
        self._killed_before = killed_for_memory()

    def submit(self, job: Job) -> None:
        """Start a worker, in a session of its own: Ctrl-C is the sweep's to pass on, and a closed terminal no end."""
        job.prepare()
        environment = {**os.environ, **few_threads(self.threads), "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-m", "clearn.sweeping.worker", str(job.files.stem)]
        try:
            with job.files.log.open("ab") as log:
                child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env=environment,
                )
        except OSError as error:
            raise UserError(f"cannot start a worker ({error.strerror}): take fewer with --workers") from error
        record = {"launcher": self.name, "id": child.pid, "started": started(child.pid), "host": socket.gethostname()}
        job.files.put(job.files.record, record)
        self._children[job] = child

    def find(self, job: Job) -> str | None:
        """Name the process that still works on a job."""
        if not self._lives(job):
            return None
        record = self._record(job)
        return f"process {record['id']}" + ("" if self._is_mine(job) else f" on {record.get('host')}")

    def poll(self, jobs: Sequence[Job]) -> Mapping[Job, Outcome]:
        """Ask each process."""
        found = {}
        for job in jobs:
            child = self._children.get(job)
            code = child.poll() if child else None
            if code is None and (child or self._lives(job)):
                continue
            found[job] = ended(job, Outcome("failed", self._last_words(code), job.files.log))
        return found

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Ask each process to stop, wait, and kill what is left."""
        for job in jobs:
            self._signal(job, signal.SIGTERM)
        until = time.monotonic() + GRACE
        while time.monotonic() < until and any(self._lives(job) for job in jobs):
            time.sleep(self.pause / 2)
        for job in jobs:
            self._signal(job, signal.SIGKILL)

    def _record(self, job: Job) -> dict[str, object]:
        record = job.files.read(job.files.record) or {}
        return record if record.get("launcher") == self.name and isinstance(record.get("id"), int) else {}

    def _is_mine(self, job: Job) -> bool:
        return self._record(job).get("host") == socket.gethostname()

    def _lives(self, job: Job) -> bool:
        """Whether a job's process runs: by its number and start on this machine, by its lock on another."""
        if child := self._children.get(job):
            return child.poll() is None
        record = self._record(job)
        if not record:
            return False
        if not self._is_mine(job):
            return is_held(job.files.lock)
        number = record["id"]
        assert isinstance(number, int)
        return record.get("started") is not None and started(number) == record["started"]

    def _signal(self, job: Job, number: signal.Signals) -> None:
        if not self._lives(job) or not self._is_mine(job):
            return
        process = self._record(job)["id"]
        assert isinstance(process, int)
        with suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(process, number)  # with what it may have started; a worker leads a group of its own
            else:
                os.kill(process, number)

    def _last_words(self, code: int | None) -> str:
        """Say what is known of a worker that ended without a last word."""
        before, now = self._killed_before, killed_for_memory()
        scarce = before is not None and now is not None and now > before
        if code in (None, -signal.SIGKILL) and scarce:
            self._killed_before = now
            return "killed for memory: this machine ran out of it; take fewer with --workers, or a smaller config"
        if code is None:
            return "ended without a word while no sweep watched it; run the sweep again, it goes on"
        if code < 0:
            name = signal.Signals(-code).name
            return f"killed by {name} from outside; its finished tasks are safe, run the sweep again"
        return f"ended with exit code {code}; its log says why"


def few_threads(count: int) -> dict[str, str]:
    """Give the environment in which torch and numpy take so many threads by themselves."""
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(count))
