"""Jobs on a SLURM cluster: submitted through submitit, found again by their numbers, or by their names where a sweep
was killed before it had the number.

States come from `squeue`, which needs no accounting database; submitit's own watcher asks `sacct`, which does. The
latter is asked only for jobs that the queue has forgotten.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from clearn.errors import UserError
from clearn.options import SlurmOptions
from clearn.sweeping import worker
from clearn.sweeping.jobs import Job, Outcome, ended
from clearn.sweeping.launching import Launcher
from clearn.sweeping.local import few_threads

COMMANDS = ("sbatch", "srun", "squeue", "scancel")
GONE = {
    "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "DEADLINE", "OUT_OF_MEMORY",
    "NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "REVOKED",
}  # fmt: skip
LOST = {"NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "REVOKED"}  # no fault of the job's
MISSED = 3  # answers in a row that a job may be missing from before it counts as ended
SILENT = 20  # questions in a row that SLURM may leave without an answer
WARNED = 30  # seconds before its time is up that a job is told


class Submitted(Protocol):
    """What submitit gives for a job."""

    @property
    def job_id(self) -> str: ...


class Executor(Protocol):
    """What is used of submitit.SlurmExecutor."""

    def update_parameters(self, **parameters: Any) -> None: ...

    def submit(self, fn: Callable[..., Any], *args: Any) -> Submitted: ...


class Slurm(Launcher):
    """Gives every job to the cluster at once, which queues them."""

    name = "slurm"
    slots = 10_000
    pause = 5.0

    def __init__(self, options: SlurmOptions, executor: Callable[[Path], Executor] | None = None) -> None:
        """Look for SLURM.

        Args:
            options: section `sweep.slurm`.
            executor: makes what submits, for a folder; submitit's by default.

        Raises:
            UserError: SLURM or submitit is not here.
        """
        check_here()
        self._options, self._executor = options, executor or submitit_executor
        self._missed: dict[str, int] = {}
        self._silent = 0

    def submit(self, job: Job) -> None:
        """Submit a job under a name by which it can be found before its number is known."""
        job.prepare()
        name = _name(job)
        job.files.put(job.files.record, {"launcher": self.name, "id": None, "name": name})
        executor = self._executor(job.files.stem.parent / "slurm")
        executor.update_parameters(**self._parameters(name))
        try:
            number = executor.submit(worker.work, str(job.files.stem.resolve())).job_id
        except Exception as error:
            raise UserError(f"SLURM did not take the job: {' '.join(str(error).split())}") from error
        job.files.put(job.files.record, {"launcher": self.name, "id": str(number), "name": name})

    def _parameters(self, name: str) -> dict[str, Any]:
        """Say in submitit's words what a job needs."""
        options = self._options
        threads = few_threads(options.cpus).items()
        path = f"export PYTHONPATH={shlex.quote(os.pathsep.join(sys.path))}"
        return {
            "job_name": name,
            "time": options.minutes,
            "cpus_per_task": options.cpus,
            "mem": f"{int(options.memory_gb * 1024)}M",
            "signal_delay_s": WARNED,
            "stderr_to_stdout": True,
            "setup": [path, *(f"export {key}={value}" for key, value in threads)],
            **({"gpus_per_node": options.gpus} if options.gpus else {}),
            **{key: value for key in ("partition", "account", "qos") if (value := getattr(options, key)) is not None},
        }

    def find(self, job: Job) -> str | None:
        """Give the number of a job that still waits or runs."""
        record = job.files.read(job.files.record) or {}
        if record.get("launcher") != self.name:
            return None
        queue = _ask_queue()
        number = record.get("id") or next((n for n, (name, _) in queue.items() if name == record.get("name")), None)
        if number is None or number not in queue or queue[number][1] in GONE:
            return None
        job.files.put(job.files.record, {**record, "id": number})
        return f"SLURM job {number}"

    def poll(self, jobs: Sequence[Job]) -> Mapping[Job, Outcome]:
        """Ask the queue once for all jobs; one that SLURM does not answer changes nothing, for a while."""
        if not jobs:
            return {}
        try:
            queue = _ask_queue()
        except UserError:
            self._silent += 1
            if self._silent >= SILENT:
                raise
            return {}
        self._silent = 0
        numbers = {job: str((job.files.read(job.files.record) or {}).get("id")) for job in jobs}
        states = {number: state for number, (_, state) in queue.items()}
        forgotten = [number for number in numbers.values() if number not in states and self._is_missed(number)]
        states |= _ask_accounting(forgotten)
        found = {}
        for job, number in numbers.items():
            state = states.get(number)
            if state in GONE or (state is None and number in forgotten):
                log = job.files.stem.parent / "slurm" / f"{number}_0_log.out"
                found[job] = ended(job, self._verdict(state, number, log))
        return found

    def _is_missed(self, number: str) -> bool:
        self._missed[number] = self._missed.get(number, 0) + 1
        return self._missed[number] >= MISSED

    def _verdict(self, state: str | None, number: str, log: Path) -> Outcome:
        """Say what SLURM's state means."""
        options = self._options
        if state in LOST:
            return Outcome("lost", f"SLURM job {number} was lost with its node or place ({state})", log)
        told = {
            "TIMEOUT": worker.OVERTIME,
            "OUT_OF_MEMORY": f"killed for memory: it needed more than {options.memory_gb:g} GB; give more with "
            "sweep.slurm.memory_gb and run the sweep again",
            "CANCELLED": f"SLURM job {number} was cancelled from outside",
            None: f"SLURM job {number} is gone from the queue without a word",
        }
        return Outcome("failed", told.get(state, f"SLURM job {number} ended as {state}; its log says why"), log)

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Cancel them all at once, by number or name, and wait until the queue says so."""
        records = [job.files.read(job.files.record) or {} for job in jobs]
        numbers = [str(record["id"]) for record in records if record.get("id")]
        for some in (numbers[at : at + 200] for at in range(0, len(numbers), 200)):
            subprocess.run(["scancel", *some], capture_output=True, check=False)
        for record in records:
            if not record.get("id"):
                subprocess.run(["scancel", f"--name={record.get('name')}"], capture_output=True, check=False)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                queue = _ask_queue()
            except UserError:
                return
            if all(queue.get(number, ("", "CANCELLED"))[1] in GONE for number in numbers):
                return
            time.sleep(0.5)


def check_here() -> None:
    """Refuse where there is no SLURM, it does not answer, or submitit is missing.

    Raises:
        UserError: saying what was looked for, and what to do.
    """
    missing = [command for command in COMMANDS if shutil.which(command) is None]
    if missing:
        raise UserError(
            f"no SLURM on this machine: {', '.join(COMMANDS)} were looked for on PATH, and {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not there; log in to the cluster, or run here with --workers N"
        )
    try:
        import submitit  # noqa: F401
    except ImportError as error:
        raise UserError("--slurm needs submitit: pip install 'submitit>=1.5', or run here with --workers N") from error
    _ask_queue()


def submitit_executor(folder: Path) -> Executor:
    """Make submitit's executor, whose scripts and logs go into a folder that all nodes see."""
    from submitit import SlurmExecutor

    executor: Executor = SlurmExecutor(folder=folder)
    return executor


def _name(job: Job) -> str:
    """Name a job after the sweep's folder and its own, so that no two jobs of a cluster's user share one."""
    where = sha256(str(job.files.stem.parent.resolve()).encode()).hexdigest()[:8]
    return f"clearn-{where}-{job.folder.name}"


def _ask_queue() -> dict[str, tuple[str, str]]:
    """Give number -> (name, state) of our jobs that SLURM still knows, ended ones for some minutes too.

    Raises:
        UserError: SLURM does not answer.
    """
    done = subprocess.run(
        ["squeue", "--me", "--noheader", "--states=all", "--format=%i|%T|%j"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"squeue ended with {done.returncode}"
        raise UserError(f"SLURM does not answer ({said}): wait until it does, or run here with --workers N")
    rows = (line.split("|", 2) for line in done.stdout.splitlines() if line.count("|") >= 2)
    return {number.strip(): (name, state) for number, state, name in rows}


def _ask_accounting(numbers: Iterable[str]) -> dict[str, str]:
    """Give number -> state of jobs that the queue has forgotten; nothing where no accounting is kept."""
    listed = ",".join(numbers)
    if not listed or shutil.which("sacct") is None:
        return {}
    asked = ["sacct", "-X", "--noheader", "--parsable2", "--format=JobID,State", "-j", listed]
    rows = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.splitlines()
    return {number: state.split()[0] for number, _, state in (row.partition("|") for row in rows) if state}
