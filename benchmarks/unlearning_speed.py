"""SSD against retraining, paired in one process: importances measured at the request, and importances carried.

The model of a finished run (one task) is rebuilt from its bytes for each turn; what is timed is the method's own work
for a request to forget classes. Turns of the two kinds of SSD alternate, retraining comes once between them, since it
takes as long as training did. Wall and CPU seconds; quote the ratios.

    clearn run unlearning/common/fashion_mnist out=runs/original
    python benchmarks/unlearning_speed.py runs/original 3        some minutes on two cores
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from tables import show

from clearn.config import load
from clearn.context import Context
from clearn.experiment import bind
from clearn.folder import RunFolder
from clearn.learning import Learning, rebuild
from clearn.memory import keep_freed_memory
from clearn.plugins import find
from clearn.progress import Progress
from clearn.strategy import Strategy
from clearn.unlearner import Unlearner

TURNS = 3
RETRAIN, MEASURED, CARRIED = "retrain", "ssd, importances measured", "ssd, importances carried"


class Request:
    """A request to forget classes, of the model in a run folder."""

    def __init__(self, run: Path, classes: list[int]) -> None:
        config = load(str(run / "config.yaml"), ["unlearner=ssd", "unlearner.select_fraction=0.01"])
        config["stream"] = {**config["stream"], "requests": [{"after": 1, "classes": classes, "look_back": True}]}
        found = bind(config)
        assert isinstance(found, Learning)
        self.experiment, self.stream = found, found.stream
        self.asked = self.stream.forget(self.stream.requests[0])
        self.frozen = RunFolder(run).read_state(1).frozen

    def learner(self) -> Strategy:
        """The model before the request."""
        experiment = self.experiment
        return rebuild(experiment.build(), self.frozen, self.stream.learned(1), experiment.seed, 1).eval()

    def context(self) -> Context:
        """What the loop would give."""
        experiment = self.experiment
        return Context(
            seed=experiment.seed,
            step=1,
            trainer=experiment.trainer,
            device=torch.device("cpu"),
            augment=self.stream.augment,
            budget=experiment.budget,
            planned=[0, 0],
            progress=Progress(),
            make=experiment.make,
        )

    def answer(self, unlearner: Unlearner) -> tuple[float, float]:
        """Wall and CPU seconds of an answer."""
        strategy, ctx = self.learner(), self.context()
        unlearner.check(self.asked)
        wall, cpu = time.perf_counter(), time.process_time()
        unlearner.forget(strategy, self.asked, ctx)
        return time.perf_counter() - wall, time.process_time() - cpu


def main() -> int:
    """Time, print the table, and say whether both targets hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a finished run of one task")
    parser.add_argument("classes", type=int, nargs="+")
    given = parser.parse_args()
    request = Request(given.run, given.classes)
    torch.set_num_threads(int(request.experiment.trainer.threads))
    keep_freed_memory()
    task, ssd = request.stream.task(0), find("unlearn", "ssd")
    carried = ssd(select_fraction=0.01, store=True)
    carried.watch(request.learner(), task, request.context())
    kept = carried.state()

    def with_state() -> Unlearner:
        fresh: Unlearner = ssd(select_fraction=0.01, store=True)
        fresh.load(kept, request.stream.learned(1))
        return fresh

    makers: dict[str, Callable[[], Unlearner]] = {
        MEASURED: lambda: ssd(select_fraction=0.01),
        CARRIED: with_state,
        RETRAIN: find("unlearn", "retrain"),
    }
    for make in (makers[MEASURED], makers[CARRIED]):
        request.answer(make())
    turns = [MEASURED, CARRIED] * TURNS
    turns.insert(len(turns) // 2, RETRAIN)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in makers}
    for name in turns:
        taken[name].append(request.answer(makers[name]()))
        print(f"{name}: {taken[name][-1][0]:.3f} s", file=sys.stderr, flush=True)
    walls, cpus = ({name: median(one[at] for one in found) for name, found in taken.items()} for at in (0, 1))
    rows = [
        [name, str(len(taken[name])), f"{walls[name]:.3f}", f"{cpus[name]:.3f}"]
        + [f"{seconds[RETRAIN] / seconds[name]:.1f}" for seconds in (walls, cpus)]
        for name in (RETRAIN, MEASURED, CARRIED)
    ]
    heads = ["method", "turns", "wall s", "CPU s", "x faster, wall", "x faster, CPU"]
    show(f"Forgetting classes {given.classes} of {given.run}, {len(task.train):,} training samples", heads, rows)
    measured, stored = (walls[RETRAIN] / walls[name] for name in (MEASURED, CARRIED))
    print(f"measured at the request: {measured:.1f} (target 5); carried: {stored:.1f} (target 50)")
    return 0 if measured >= 5 and stored >= 50 else 1


if __name__ == "__main__":
    raise SystemExit(main())
