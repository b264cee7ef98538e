"""The commands that run many: choose a launcher, hold the folder, sweep, and end with table, page and failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clearn.errors import UserError
from clearn.sweeping.jobs import Job, Outcome, finished
from clearn.sweeping.launching import Here, Launcher
from clearn.sweeping.local import Local, cores
from clearn.sweeping.locks import alone
from clearn.sweeping.loop import Sweep
from clearn.sweeping.planning import Plan, keep, plan
from clearn.sweeping.showing import view

if TYPE_CHECKING:
    from rich.console import Console

STOPPED = 130  # the exit code after Ctrl-C


def sweep(source: str, overrides: Sequence[str], workers: int | None, slurm: bool, console: Console) -> int:
    """Run a grid in processes of their own, on this machine or on a cluster; give the exit code."""
    what = plan(source, overrides)
    launcher = _slurm(what) if slurm else Local(_workers(what, workers))
    where = "on SLURM" if slurm else f"by {launcher.slots} worker{'s' if launcher.slots > 1 else ''}"
    console.print(f"{len(what.jobs)} runs into {what.folder}, {where}", highlight=False, soft_wrap=True)
    again = f"clearn sweep {what.folder}" + (" --slurm" if slurm else "")
    return _run(what, source, overrides, launcher, again, console)


def sweep_here(source: str, overrides: Sequence[str], console: Console) -> int:
    """Run a grid one after the other in this process."""
    what = plan(source, overrides)
    console.print(f"{len(what.jobs)} runs into {what.folder}", highlight=False, soft_wrap=True)
    return _run(what, source, overrides, Here(console), f"clearn resume {what.folder}", console)


def one_by_one(jobs: Sequence[Job], folder: Path, title: str, console: Console) -> int:
    """Run jobs that only this process can make, one after the other."""
    console.print(f"{len(jobs)} runs into {folder}", highlight=False, soft_wrap=True)
    _make(folder)
    with alone(folder):
        return _carry_out(jobs, folder, title, Here(console), {}, "the same command", console)


def _run(what: Plan, source: str, overrides: Sequence[str], launcher: Launcher, again: str, console: Console) -> int:
    _make(what.folder)
    with alone(what.folder):
        keep(what, source, overrides)
        others = _others(what, launcher)
        return _carry_out(what.jobs, what.folder, what.title, launcher, others, again, console)


def _carry_out(
    jobs: Sequence[Job],
    folder: Path,
    title: str,
    launcher: Launcher,
    others: Mapping[str, Launcher],
    again: str,
    console: Console,
) -> int:
    """Sweep; the finished runs are compared whatever became of the others."""
    one = Sweep(jobs, launcher, others, view(console, len(jobs), launcher.name == "here"))
    one.run()
    if one.stopped_by:
        console.print(stopped_words(one.stopped_by, again), highlight=False, soft_wrap=True)
        return STOPPED
    failed = {job: outcome for job, outcome in one.ended.items() if outcome.state != "done"}
    if len(failed) < len(jobs):
        summary(folder, title, console)
    if failed:
        _tell(failed, len(jobs), console)
    return 1 if failed else 0


def _tell(failed: Mapping[Job, Outcome], jobs: int, console: Console) -> None:
    """List what failed, each reason once."""
    many = f"all {jobs} runs failed" if len(failed) == jobs else f"{len(failed)} of {jobs} runs failed"
    console.print(f"{many}:", highlight=False)
    said: set[str] = set()
    for job, outcome in failed.items():
        why = "as before" if outcome.message in said else outcome.message
        said.add(outcome.message)
        log = f" (log: {outcome.log})" if outcome.log else ""
        console.print(f"  {job.label}: {why}{log}", highlight=False, markup=False, soft_wrap=True)


def stopped_words(signal: str, again: str) -> str:
    """Say that a person stopped it, and how to go on."""
    return f"\nstopped by {signal}: every finished task is safe; go on with\n  {again}"


def summary(path: Path, title: str, console: Console) -> None:
    """Print the table, and write the page beside the runs."""
    from clearn import report as reports

    runs = reports.load([path])
    groups = reports.groups(runs)
    reports.terminal(groups, console)
    page = path / "report.html"
    write_text(page, reports.html(groups, runs, title))
    console.print(f"runs   {path}\nreport {page}", highlight=False, soft_wrap=True)


def write_text(path: Path, text: str) -> None:
    """Write a file that a person asked for.

    Raises:
        UserError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; choose another file") from error


def _workers(what: Plan, asked: int | None) -> int:
    """Say how many runs go side by side: as asked, else as many as the cores are enough for."""
    workers = asked or what.options.workers
    if workers == "auto":
        busy = what.on_gpu or not what.threads
        workers = 1 if busy else max(1, cores() // what.threads)
    return min(int(workers), len(what.jobs))


def _slurm(what: Plan) -> Launcher:
    from clearn.sweeping.slurm import Slurm

    return Slurm(what.options.slurm)


def _others(what: Plan, launcher: Launcher) -> dict[str, Launcher]:
    """Give those that may have jobs of an earlier sweep of this folder.

    Raises:
        UserError: SLURM has some, and cannot be asked.
    """
    others: dict[str, Launcher] = {Local.name: Local(1), launcher.name: launcher}
    theirs = [job for job in what.jobs if (job.files.read(job.files.record) or {}).get("launcher") == "slurm"]
    if any(not finished(job) for job in theirs) and "slurm" not in others:
        try:
            others["slurm"] = _slurm(what)
        except UserError as error:
            raise UserError(
                f"runs of {what.folder} were given to SLURM, which may still have them: {error}; once it is certain "
                f"that none runs any more, remove {what.folder / 'jobs'}"
            ) from error
    return others


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {folder}: {error.strerror}; choose another place with out=FOLDER") from error
