"""What a person sees of a sweep: a live table on a terminal, a line a run elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from clearn.folder import STATUS, RunFolder
from clearn.report import Run
from clearn.sweeping.jobs import Job, Outcome, finished

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

HEADLINE = "average_incremental_accuracy.pooled"
INKS = {"done": "green", "failed": "red", "running": "cyan", "lost": "yellow"}


class View:
    """A line when a run ends, with what is left; the base of the live table."""

    def __init__(self, console: Console, jobs: int) -> None:
        self._console, self._jobs = console, jobs
        self._done = self._failed = self._known = 0
        self._began: dict[Job, float] = {}
        self._start = time.monotonic()
        self._messages: set[str] = set()

    def __enter__(self) -> View:
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the console as it was."""

    def known(self, job: Job, run: Run) -> None:
        """A run was finished before."""
        self._known += 1

    def taken_over(self, job: Job, where: str) -> None:
        """A run that an earlier sweep started goes on."""
        self._began[job] = time.monotonic()
        self.line(f"taken over: {job.label} ({where})")

    def begin(self, waiting: int, running: int) -> None:
        """What there is to do is known."""
        words = [f"{self._known} finished before"] if self._known else []
        words += [f"{running} running still"] if running else []
        self.line(", ".join([*words, f"{waiting} to run"]))
        self._start = time.monotonic()

    def started(self, job: Job) -> None:
        """A run is about to start."""
        self._began[job] = time.monotonic()

    def lost(self, job: Job, outcome: Outcome) -> None:
        """A run was lost and will be started again."""
        self.line(f"again: {job.label}: {outcome.message}")

    def ended(self, job: Job, outcome: Outcome) -> None:
        """A run ended."""
        self._done += outcome.state == "done"
        self._failed += outcome.state != "done"
        count = f"{self._known + self._done + self._failed}/{self._jobs}"
        if outcome.state == "done":
            words = [*result(job), f"{time.monotonic() - self._began[job]:.0f} s", *self.left()]
            self.line(f"{count} done {job.label}" + "".join(f" · {word}" for word in words))
        else:
            self.line(f"{count} failed {job.label}: {self.message(outcome)}")

    def tick(self, running: Iterable[Job]) -> None:
        """Some time went by."""

    def cancelling(self, running: int) -> None:
        """What runs is being stopped."""
        if running:
            self.line(f"stopping {running} runs")

    def line(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def message(self, outcome: Outcome) -> str:
        """Give why a run failed, in full the first time that it is said."""
        if outcome.message in self._messages:
            return "as before"
        self._messages.add(outcome.message)
        return outcome.message

    def left(self) -> list[str]:
        """Say how long the rest takes at this speed."""
        ended = self._done + self._failed
        rest = self._jobs - self._known - ended
        if not rest or not ended:
            return []
        seconds = (time.monotonic() - self._start) / ended * rest
        return ["about " + (f"{seconds / 60:.0f} min left" if seconds > 99 else f"{seconds:.0f} s left")]


class OneByOne(View):
    """Says what starts; the run itself shows the rest."""

    def __init__(self, console: Console, jobs: int) -> None:
        super().__init__(console, jobs)
        self._number = 0

    def known(self, job: Job, run: Run) -> None:
        """A run was finished before."""
        super().known(job, run)
        self._say(job)
        self.line("  is finished already")

    def begin(self, waiting: int, running: int) -> None:
        """Say nothing: every run says it for itself."""

    def started(self, job: Job) -> None:
        """A run starts now."""
        super().started(job)
        self._say(job)

    def ended(self, job: Job, outcome: Outcome) -> None:
        """A run ended; one that went well has said so."""
        if outcome.state != "done":
            self.line(f"  failed: {self.message(outcome)}")

    def _say(self, job: Job) -> None:
        self._number += 1
        self._console.print(f"[bold]{self._number}/{self._jobs}[/bold] ", end="", highlight=False)
        self.line(job.label)


class LiveTable(View):
    """A live table on a terminal: what runs, and above it what ended last, as many lines as there is room for."""

    def __init__(self, console: Console, jobs: int) -> None:
        super().__init__(console, jobs)
        self._live: Live | None = None
        self._rows: list[tuple[str, str, str, str]] = []
        self._running: list[Job] = []

    def __enter__(self) -> View:
        from rich.live import Live

        self._live = Live(console=self._console, refresh_per_second=5, get_renderable=self._table, transient=True)
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def known(self, job: Job, run: Run) -> None:
        """A run was finished before."""
        super().known(job, run)
        self._rows.append(("done", job.label, " · ".join(result(job, run)), "before"))

    def started(self, job: Job) -> None:
        """A run starts now."""
        super().started(job)
        self._running.append(job)

    def taken_over(self, job: Job, where: str) -> None:
        """A run that an earlier sweep started goes on."""
        super().taken_over(job, where)
        self._running.append(job)

    def lost(self, job: Job, outcome: Outcome) -> None:
        """A run was lost and will be started again."""
        super().lost(job, outcome)
        self._running.remove(job)

    def ended(self, job: Job, outcome: Outcome) -> None:
        """A run ended; failures stay above the table."""
        self._running.remove(job)
        self._done += outcome.state == "done"
        self._failed += outcome.state != "done"
        taken = f"{time.monotonic() - self._began[job]:.0f} s"
        if outcome.state == "done":
            self._rows.append(("done", job.label, " · ".join(result(job)), taken))
        else:
            self._rows.append(("failed", job.label, self.message(outcome), taken))

    def _table(self) -> Table:
        from rich.box import SIMPLE_HEAD
        from rich.markup import escape
        from rich.table import Table

        waiting = self._jobs - self._known - self._done - self._failed - len(self._running)
        counts = [f"{self._known + self._done} of {self._jobs} done", f"{len(self._running)} running"]
        counts += [f"{waiting} waiting"] if waiting else []
        counts += [f"[red]{self._failed} failed[/red]"] if self._failed else []
        table = Table(box=SIMPLE_HEAD, pad_edge=False, title=" · ".join([*counts, *self.left()]), title_justify="left")
        table.add_column("")
        table.add_column("run", overflow="ellipsis", no_wrap=True)
        table.add_column("", overflow="ellipsis", no_wrap=True)
        table.add_column("time", justify="right", no_wrap=True)
        room = max(self._console.height - 6, 4)
        now = time.monotonic()
        live = [("running", job.label, reached(job), f"{now - self._began[job]:.0f} s") for job in self._running]
        live = live[: room - 2]
        for state, *words in [*self._rows[-(room - len(live)) :], *live]:
            table.add_row(f"[{INKS[state]}]{state}[/{INKS[state]}]", *map(escape, words))
        return table


def view(console: Console, jobs: int, here: bool) -> View:
    """Choose what suits the console, and whether runs show themselves because they run here."""
    if here:
        return OneByOne(console, jobs)
    return LiveTable(console, jobs) if console.is_terminal else View(console, jobs)


def result(job: Job, run: Run | None = None) -> list[str]:
    """Give a finished run's figures in words: accuracy and carried bytes, where it has them."""
    run = run or finished(job)
    if run is None:
        return []
    accuracy = run.number(run.headline, HEADLINE) if run.headline else None
    words = [] if accuracy is None else [f"accuracy {accuracy:.1%}"]
    return words + ([f"{run.figures[-1].total:,} B"] if run.figures else [])


def reached(job: Job) -> str:
    """Say how far a running job is."""
    status = RunFolder(job.folder).get_json(STATUS)
    return (
        f"step {status['step'] + 1} of {status['steps']}" if status and status.get("state") == "running" else "starting"
    )
