"""Replay, EWC, LwF and iCaRL, ours and Avalanche's, on the same work: wall and CPU time of a later task.

Both sides learn task 2 of two (the second five classes of Fashion-MNIST) after task 1 and are timed there: training,
what the method computes after it, and choosing what to keep; not weighing, writing or scoring. The same images,
network, batches of 32, rate and number of steps (counted, and asserted to be equal); one process, one thread, in turns
whose order is shuffled. The ratio is Avalanche's time over ours: above 1, ours is faster.

    python benchmarks/avalanche_overhead.py            all four, some minutes on one core
    python benchmarks/avalanche_overhead.py ewc        only the cases whose name contains "ewc"
"""

from __future__ import annotations

import gc
import random
import sys
import time
from dataclasses import dataclass
from statistics import median
from typing import Any

import tables
import torch
import turned

from clearn import seeds
from clearn.parts.exemplars import Memory
from clearn.recipe import Recipe
from clearn.strategy import Strategy
from clearn.stream import Stream
from clearn.streams import class_incremental
from strategies.avalanche import Avalanche
from strategies.ewc import Ewc
from strategies.icarl import ICarl
from strategies.lwf import LwF
from strategies.replay import Replay

PER_CLASS, STORED, ROUNDS, BACKBONE = 200, 200, 7, "convnet2"
PHASE = Recipe(epochs=1, lr=0.01, schedule="constant", batch_size=32)
OURS: dict[str, tuple[type[Strategy], dict[str, Any]]] = {
    "replay": (Replay, {"memory": Memory(total=STORED, selection="random"), "stored_per_step": 32}),
    "ewc": (Ewc, {"weight": 2.0, "form": "separate", "fisher": "batch", "clip": None, "softmax_over": "seen"}),
    "lwf": (LwF, {"softmax_over": "seen"}),
    "icarl": (ICarl, {"memory": Memory(total=STORED), "loss": "bce"}),
}
THEIRS: dict[str, tuple[str, dict[str, Any], int | None]] = {
    "replay": ("Replay", {"mem_size": STORED}, None),
    "ewc": ("EWC", {"ewc_lambda": 1.0}, None),
    "lwf": ("LwF", {"alpha": 1.0, "temperature": 2.0}, None),
    "icarl": ("ICaRL", {"memory_size": STORED, "fixed_memory": True}, 10),
}


@dataclass(frozen=True)
class Taken:
    """What learning the second task took: seconds of wall and CPU, and optimiser steps."""

    wall: float
    cpu: float
    steps: int


def make(side: str, method: str, stream: Stream) -> Strategy:
    """A fresh learner of one side; its first weights are the same each time."""
    phases: dict[str, Any] = {"backbone": BACKBONE, "first": PHASE, "later": PHASE}
    with seeds.scope(0, 0, "build"):
        if side == "ours":
            cls, options = OURS[method]
            return cls(stream.inputs, **options, **phases)
        name, chosen, classes = THEIRS[method]
        return Avalanche(stream.inputs, name, chosen, classes=classes, **phases)


def second_task(side: str, method: str, stream: Stream) -> Taken:
    """Learn both tasks; clock the second."""
    learner = make(side, method, stream)
    for index in range(2):
        task, ctx = stream.task(index), turned.Services(stream, index)
        gc.collect()
        with seeds.scope(0, index, "learn"):
            wall, cpu = time.perf_counter(), time.process_time()
            learner.learn(task, ctx)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Taken(wall, cpu, ctx.cost.optimizer_steps)


def main() -> None:
    torch.set_num_threads(1)
    wanted = [word.lower() for word in sys.argv[1:]]
    methods = [name for name in OURS if not wanted or any(word in name for word in wanted)]
    stream = class_incremental.build(data="fashion_mnist", increment=5, per_class_train=PER_CLASS, per_class_test=10)
    for method in methods:
        for side in ("ours", "theirs"):  # imports and first allocations
            second_task(side, method, stream)

    turns = [(method, turn % 2 == 0) for method in methods for turn in range(ROUNDS)]
    random.Random(0).shuffle(turns)
    found: dict[str, list[dict[str, Taken]]] = {method: [] for method in methods}
    for method, ours_first in turns:
        sides = ("ours", "theirs") if ours_first else ("theirs", "ours")
        pair = {side: second_task(side, method, stream) for side in sides}
        assert pair["ours"].steps == pair["theirs"].steps, f"{method}: {pair} are not the same work"
        found[method].append(pair)

    rows = []
    for method, pairs in found.items():
        walls = sorted(pair["theirs"].wall / pair["ours"].wall for pair in pairs)
        cpus = sorted(pair["theirs"].cpu / pair["ours"].cpu for pair in pairs)
        steps = pairs[0]["ours"].steps
        rows.append(
            [
                method,
                f"{len(pairs)} x {steps}",
                *(f"{1000 * median(pair[side].cpu for pair in pairs) / steps:.2f}" for side in ("ours", "theirs")),
                f"{cpus[len(cpus) // 4]:.2f} .. {cpus[-1 - len(cpus) // 4]:.2f}",
                f"{median(cpus):.2f}",
                f"{median(walls):.2f}",
            ]
        )
    tables.show(
        f"The second task of two, {5 * PER_CLASS} images of Fashion-MNIST, {BACKBONE}, one thread: Avalanche's time "
        "over ours",
        ["", "rounds x steps", "CPU ms/step ours", "theirs", "middle half", "median CPU ratio", "median wall ratio"],
        rows,
    )


if __name__ == "__main__":
    main()
