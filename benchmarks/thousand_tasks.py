"""A thousand tasks in one run: what a step, a state file and the process weigh at the end as at the start.

Two streams of 8x8 images. In "domains" every task has the same ten classes under another permutation of the pixels,
so that nothing has a reason to grow. In "classes", a third as long, every task brings one class, so that the head
grows by a row a task; what a head of that size costs is measured alone and set beside it. Scoring looks at all past
probes, and rebuilding regrows task by task: both grow with the number of tasks, by design, and are reported apart.

    python benchmarks/thousand_tasks.py            about five minutes on one core
    python benchmarks/thousand_tasks.py 200        fewer tasks, 30 at least
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import tables
import torch
from torch.nn.functional import cross_entropy

from clearn.folder import LEDGER, RunFolder
from clearn.learning import Learning
from clearn.options import TrainerOptions
from clearn.parts.exemplars import Memory
from clearn.parts.heads import Head
from clearn.progress import Progress
from clearn.recipe import Recipe
from clearn.runner import run
from clearn.state import write
from clearn.strategy import Strategy
from clearn.stream import Stream
from clearn.streams import domain_incremental, from_arrays
from strategies.finetune import Finetune
from strategies.replay import Replay

BATCH, STEPS, WIDTH = 16, 10, 100
RECIPE = Recipe(epochs=1, lr=0.01, schedule="constant", batch_size=BATCH)
MEMORY = Memory(total=200, selection="random")


class Watch(Progress):
    """Takes, task by task, CPU time of training, resident memory, and the time of two fixed pieces of work.

    The latter show what the machine itself does meanwhile, its processor and its disk: other work falls on them too.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.training: list[float] = []
        self.resident: list[float] = []
        self.control: list[float] = []
        self.disk: list[float] = []
        self._started = self._trained = 0.0

    def phase(self, epochs: int, samples: int) -> None:
        """Training starts; the Trainer is not made yet."""
        self._started = time.process_time()

    def tick(self, epoch: int, samples: int) -> None:
        """Training went on."""
        self._trained = time.process_time()

    def boundary(self, accuracy: float | None, carried: int, limit: int | None) -> None:
        """A task is done."""
        self.training.append(1000 * (self._trained - self._started) / STEPS)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.resident.append(4096 * pages)
        with torch.random.fork_rng():
            self.control.append(milliseconds_of_a_head(10, repeats=9))
        started = time.perf_counter()
        for name in ("state", "checksum"):
            write(self.folder / name, bytes(40_000))
        self.disk.append(1000 * (time.perf_counter() - started))


@dataclass(frozen=True)
class Found:
    """What one run left, task by task: the ledger's figures, and what was watched."""

    figures: list[dict[str, Any]]
    watch: Watch


def domains(n_tasks: int) -> Stream:
    """Scikit-learn's digits under a new permutation in each task: 160 training images and 10 probes."""
    n = STEPS * BATCH // 10
    return domain_incremental.build(transform="permute", tasks=n_tasks, per_class_train=n, per_class_test=1)


def classes(n_tasks: int) -> Stream:
    """Made-up images, a class a task: 160 of noise around a picture of its own, and one probe."""
    rng = torch.Generator().manual_seed(0)
    pictures = torch.randint(40, 216, (n_tasks, 1, 8, 8), generator=rng, dtype=torch.int16)
    labels = torch.arange(n_tasks).repeat_interleave(STEPS * BATCH)
    noise = torch.randint(-30, 31, (len(labels), 1, 8, 8), generator=rng, dtype=torch.int16)
    images = (pictures[labels] + noise).to(torch.uint8)
    return from_arrays(images, labels, pictures.to(torch.uint8), torch.arange(n_tasks), increment=1, layout="NCHW")


def watched(make: Callable[[], Strategy], stream: Stream) -> Found:
    """Run to the end in a folder that is gone afterwards."""
    experiment = Learning(
        stream, make, trainer=TrainerOptions(accelerator="cpu", threads=1), config={"name": "thousand"}
    )
    with tempfile.TemporaryDirectory() as folder:
        watch = Watch(Path(folder))
        path = run(experiment, Path(folder, "run"), watch)
        figures = [row for row in RunFolder(path).rows(LEDGER) if row["kind"] == "figures"]
    return Found(figures, watch)


def milliseconds_of_a_head(n_classes: int, repeats: int = 100) -> float:
    """A training step of a head alone, on as many features as a step of replay has."""
    head, features = Head(WIDTH, n_classes), torch.randn(2 * BATCH, WIDTH, requires_grad=True)
    targets = torch.zeros(2 * BATCH, dtype=torch.int64)
    optimizer, taken = RECIPE.optimizer_for(head.parameters()), []
    for _ in range(repeats):
        started = time.process_time()
        loss = cross_entropy(head(features), targets, reduction="none").mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        taken.append(1000 * (time.process_time() - started))
    return median(taken)


def report(title: str, found: Found) -> None:
    """Print the first tenth of the tasks against the last."""
    tenth = len(found.figures) // 10
    ends = slice(0, tenth), slice(-tenth, None)

    def line(name: str, values: list[float], form: str, promise: str) -> list[str]:
        first, last = (median(values[end]) for end in ends)
        return [name, form.format(first), form.format(last), f"{last / first:.2f}", promise]

    def part(*names: str) -> list[float]:
        return [1000 * sum(row["seconds"][name] for name in names) for row in found.figures]

    tables.show(
        f"{title}: medians of the first {tenth} and the last {tenth} of {len(found.figures)} tasks",
        ["", "first", "last", "ratio", "should be"],
        [
            line("CPU ms of a fixed piece of work", found.watch.control, "{:.3f}", "flat, or the machine drifts"),
            line("ms two small files, written and synced", found.watch.disk, "{:.2f}", "flat, or the disk drifts"),
            line("CPU ms a training step, Trainer included", found.watch.training, "{:.2f}", "flat, but for the head"),
            line("ms state file: freeze, weigh, write, sync", part("write"), "{:.2f}", "flat, but for the head"),
            line("MB resident", [size / 1e6 for size in found.watch.resident], "{:.0f}", "flat"),
            line("ms choosing exemplars, growing", part("select"), "{:.2f}", "flat, but for the head"),
            line("bytes carried", [row["delta"] for row in found.figures], "{:,.0f}", "flat, but for the head"),
            line("ms rebuild", part("rebuild"), "{:.2f}", "grows: regrown task by task"),
            line("ms scoring all probes so far", part("evaluate"), "{:.2f}", "grows with the probes"),
        ],
    )


def main() -> None:
    torch.set_num_threads(1)
    n_tasks = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    options = {"backbone": "mlp", "first": RECIPE, "later": RECIPE}
    replaying = {**options, "memory": MEMORY, "stored_per_step": BATCH}
    same, new = domains(n_tasks), classes(n_tasks // 3)
    report("finetune, domains", watched(partial(Finetune, same.inputs, **options), same))
    report("replay, domains", watched(partial(Replay, same.inputs, **replaying), same))
    report("replay, classes", watched(partial(Replay, new.inputs, **replaying), new))
    sizes = max(1, len(new) // 20), len(new) - len(new) // 20
    head = " and ".join(f"{milliseconds_of_a_head(size):.2f} ms with {size} rows" for size in sizes)
    print(f"A step of the head alone, of the steps in classes: {head}.")


if __name__ == "__main__":
    main()
