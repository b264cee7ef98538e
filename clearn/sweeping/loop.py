"""The sweep: take over what runs, start what is left, say what has ended, until all is done or a person stops it."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from clearn.errors import UserError
from clearn.sweeping.jobs import Job, Outcome, finished
from clearn.sweeping.launching import Launcher
from clearn.sweeping.showing import View

TRIES = 3  # how often a job may be lost, through no fault of its own, and started again


class Sweep:
    """Jobs on their way.

    Attributes:
        ended: how each ended, in that order.
        running: who has those that have not.
        waiting: those not yet started.
        stopped_by: the signal that stopped the sweep; empty where none did.
    """

    def __init__(self, jobs: Sequence[Job], launcher: Launcher, others: Mapping[str, Launcher], view: View) -> None:
        """Prepare a sweep; nothing is started.

        Args:
            jobs: what to run.
            launcher: what starts them.
            others: by name, those that may have jobs of an earlier sweep.
            view: what a person sees.
        """
        self.ended: dict[Job, Outcome] = {}
        self.running: dict[Job, Launcher] = {}
        self.waiting = deque(jobs)
        self.stopped_by = ""
        self._launcher, self._others, self._view = launcher, others, view
        self._lost: Counter[Job] = Counter()

    def run(self) -> None:
        """Run to the end, or until a signal comes; then cancel what runs.

        Raises:
            UserError: a launcher that has jobs can no longer be asked.
        """
        with self._view, self._signals():
            self._take_over()
            while (self.waiting or self.running) and not self.stopped_by:
                self._start()
                self._collect()
                self._rest()
            if self.stopped_by:
                self._cancel()

    def _take_over(self) -> None:
        """Leave out what is finished, and find what an earlier sweep started and still runs."""
        for _ in range(len(self.waiting)):
            job = self.waiting.popleft()
            record = job.files.read(job.files.record) or {}
            owner = self._others.get(str(record.get("launcher")))
            # A folder that is named by its config's hash holds that run; one that a person named is looked into first.
            if job.config is not None and (run := finished(job)):
                self.ended[job] = Outcome("done", "is finished already")
                self._view.known(job, run)
            elif owner and (where := owner.find(job)):
                self.running[job] = owner
                self._view.taken_over(job, where)
            else:
                self.waiting.append(job)
        self._view.begin(len(self.waiting), len(self.running))

    def _start(self) -> None:
        while self.waiting and len(self.running) < self._launcher.slots and not self.stopped_by:
            job = self.waiting.popleft()
            self._view.started(job)
            try:
                self._launcher.submit(job)
            except UserError as error:
                self._end(job, Outcome("failed", str(error)))
                continue
            self.running[job] = self._launcher

    def _collect(self) -> None:
        """Note what has ended; what was lost waits again."""
        for owner in dict.fromkeys(self.running.values()):
            for job, outcome in owner.poll([job for job, its in self.running.items() if its is owner]).items():
                del self.running[job]
                if outcome.state == "lost" and self._lost[job] < TRIES:
                    self._lost[job] += 1
                    self._view.lost(job, outcome)
                    self.waiting.append(job)
                elif outcome.state == "stopped":
                    self.stopped_by = outcome.message
                else:
                    self._end(job, outcome)

    def _end(self, job: Job, outcome: Outcome) -> None:
        self.ended[job] = outcome
        self._view.ended(job, outcome)

    def _rest(self) -> None:
        """Wait for the next question, and show meanwhile what runs."""
        pause = max((owner.pause for owner in self.running.values()), default=0.0)
        until = time.monotonic() + pause
        while self.running and not self.stopped_by and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))
            self._view.tick(self.running)

    def _cancel(self) -> None:
        """End what runs, and say of each what became of it."""
        for owner in dict.fromkeys(self.running.values()):
            jobs = [job for job, its in self.running.items() if its is owner]
            self._view.cancelling(len(jobs))
            owner.cancel(jobs)
            for job in jobs:
                if finished(job):  # in the meantime
                    self._end(job, Outcome("done"))
        self.running.clear()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Note Ctrl-C and SIGTERM instead of dying of them; a second one ends the process at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, _: object) -> None:
            self.stopped_by = signal.Signals(number).name
            for caught in before:
                signal.signal(caught, signal.SIG_DFL)

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
