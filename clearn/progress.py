"""What a long run shows while it works: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status


MANY = 20  # steps from which not every one gets a line


class Progress:
    """Shows nothing; the base of what shows something, and what tests use."""

    def begin(self, title: str, n_tasks: int, done: int) -> None:
        """A run starts, `done` tasks of it finished earlier."""

    def task(self, index: int, classes: int, samples: int) -> None:
        """Task `index` (from 0) starts."""

    def read(self, index: int, documents: int) -> None:
        """Task `index` (from 0) starts: so many documents to read."""

    def prepare(self, epoch: int, epochs: int, rows: int) -> None:
        """Epoch `epoch` (from 0) of at most so many of meta-training starts, with so many rows."""

    def prepared(self, epoch: int, epochs: int, loss: float, f1: float, seconds: float) -> None:
        """An epoch of meta-training is over: its mean loss, its F1 on the validation split, and what it took."""

    def forget(self, index: int, samples: int) -> None:
        """Step `index` (from 0) is a request to forget so many samples."""

    def phase(self, epochs: int, samples: int) -> None:
        """A training phase starts; `samples` are its samples times its epochs."""

    def tick(self, epoch: int, samples: int) -> None:
        """Training went on: `samples` so far in this phase."""

    def boundary(self, accuracy: float | None, carried: int, limit: int | None) -> None:
        """A task is learned, weighed, written, rebuilt and scored."""

    def round(self, index: int, users: int, repeats: int) -> None:
        """Round `index` (from 0) of a collection starts: so many users, so many independent repeats."""

    def collected(self, error: float, guess: float, worst_bytes: int) -> None:
        """A round is counted, weighed, written, rebuilt and scored.

        Args:
            error: mean squared error after the headline's post-processing; nan where nobody answered.
            guess: that of guessing a uniform distribution.
            worst_bytes: secret bytes that a device keeps at worst.
        """

    def note(self, text: str) -> None:
        """Something a person should know."""

    def end(self) -> None:
        """The run is over, for whatever reason."""


class ConsoleProgress(Progress):
    """A live line at most 5 times a second on a terminal; one line a task where there is none."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status: Status | None = None
        self._title, self._n, self._i = "", 0, 0
        self._epochs, self._expected, self._unit = 0, 0, "images"
        self._started = self._task_started = self._phase_started = self._shown = self._printed = 0.0
        self._at_start = 0

    def begin(self, title: str, n_tasks: int, done: int) -> None:
        """A run starts, `done` tasks of it finished earlier."""
        self._title, self._n, self._at_start, self._started = title, n_tasks, done, time.monotonic()
        if done:
            words = "is finished already" if done == n_tasks else f"goes on after task {done} of {n_tasks}"
            self._console.print(f"{title}: {words}", highlight=False)
        if self._console.is_terminal:
            from rich.status import Status

            self._status = Status(f"{title}: starting", console=self._console, refresh_per_second=5)
            self._status.start()

    def task(self, index: int, classes: int, samples: int) -> None:
        """Task `index` (from 0) starts."""
        self._i, self._task_started = index, time.monotonic()
        self._show(f"{classes} classes, {samples:,} samples")

    def read(self, index: int, documents: int) -> None:
        """Task `index` (from 0) starts: so many documents to read."""
        self._i, self._task_started = index, time.monotonic()
        self._show(f"reading {documents:,} documents")

    def prepare(self, epoch: int, epochs: int, rows: int) -> None:
        """Epoch `epoch` (from 0) of at most so many of meta-training starts, with so many rows."""
        self.phase(epochs, rows)
        self._unit = "rows"

    def prepared(self, epoch: int, epochs: int, loss: float, f1: float, seconds: float) -> None:
        """An epoch of meta-training is over: its mean loss, its F1 on the validation split, and what it took."""
        now = time.monotonic()
        if epoch + 1 < epochs and epoch and now - self._printed < 1:
            return
        self._printed = now
        words = [
            f"{self._title}: prepared epoch {epoch + 1}/{epochs}",
            f"loss {loss:.3f}",
            f"validation F1 {100 * f1:.1f}",
        ]
        words.append(f"{seconds:.1f} s")
        if epoch + 1 < epochs:
            words.append(f"at most {seconds * (epochs - epoch - 1):.0f} s left")
        self._console.print(" · ".join(words), highlight=False, soft_wrap=True)

    def forget(self, index: int, samples: int) -> None:
        """Step `index` (from 0) is a request to forget so many samples."""
        self._i, self._task_started = index, time.monotonic()
        self._show(f"forgetting {samples:,} samples")

    def phase(self, epochs: int, samples: int) -> None:
        """A training phase starts; `samples` are its samples times its epochs."""
        self._epochs, self._expected, self._unit = epochs, samples, "images"
        self._phase_started, self._shown = time.monotonic(), 0.0

    def tick(self, epoch: int, samples: int) -> None:
        """Training went on: `samples` so far in this phase."""
        now = time.monotonic()
        if self._status is None or now - self._shown < 0.2:
            return
        self._shown = now
        rate = samples / max(now - self._phase_started, 1e-9)
        done = min(samples / self._expected, 1.0)  # replayed samples may come on top of those announced
        self._show(f"epoch {epoch + 1}/{self._epochs} · {done:.0%} of this training · {rate:,.0f} {self._unit}/s")

    def boundary(self, accuracy: float | None, carried: int, limit: int | None) -> None:
        """A task is learned, weighed, written, rebuilt and scored."""
        words = ["accuracy –" if accuracy is None else f"accuracy {accuracy:.1%}"]
        words.append(f"carries {carried:,} B" + (f" of {limit:,}" if limit is not None else ""))
        self._done("task", words)

    def round(self, index: int, users: int, repeats: int) -> None:
        """Round `index` (from 0) of a collection starts: so many users, so many independent repeats."""
        self._i, self._task_started = index, time.monotonic()
        self._show(f"{users:,} users" + (f", {repeats} times" if repeats > 1 else ""), "round")

    def collected(self, error: float, guess: float, worst_bytes: int) -> None:
        """A round is counted, weighed, written, rebuilt and scored."""
        shown = "–" if math.isnan(error) else f"{error:.3g}"
        words = [f"MSE {shown} (guessing uniform {guess:.3g})", f"{worst_bytes:,} B on a device at worst"]
        self._done("round", words)

    def _done(self, unit: str, words: list[str]) -> None:
        """One line a step; of many short ones, those a fifth of a second apart, and the last."""
        done, now = self._i + 1, time.monotonic()
        if self._n > MANY and done < self._n and now - self._printed < 0.2:
            return
        self._printed = now
        left = (now - self._started) / max(done - self._at_start, 1) * (self._n - done)
        line = [f"{self._title}: {unit} {done}/{self._n}", *words, f"{now - self._task_started:.1f} s"]
        if done < self._n:
            line.append(f"about {left:.0f} s left")
        self._console.print(" · ".join(line), highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """Something a person should know."""
        self._console.print(f"{self._title or 'note'}: {text}", highlight=False, markup=False, soft_wrap=True)

    def end(self) -> None:
        """The run is over, for whatever reason."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _show(self, text: str, unit: str = "task") -> None:
        if self._status is not None:
            self._status.update(f"{self._title}: {unit} {self._i + 1}/{self._n} · {text}")
