"""What a training step costs as tasks go by: `replay` in a fixed byte budget stays flat, `memo` grows by one block.

Ten tasks of one class each, from Fashion-MNIST where it is found and from digits where it is not. Learners are trained
as the runner does it and rebuilt from their frozen state after each task; a step's time is CPU time of the process
inside `Context.fit`, the Trainer included, for 64 samples. For `memo` the growth is set against one more specialised
block, measured alone: its forward pass and the gradient of its input, all that an old, frozen block does in training.

    python benchmarks/growth.py        about a minute and a half on one core
"""

from __future__ import annotations

import time
from functools import partial
from statistics import linear_regression, median
from typing import Any

import tables
import torch

from clearn.context import Context
from clearn.errors import DataError
from clearn.learning import Learning, rebuild
from clearn.ledger import Budget
from clearn.options import TrainerOptions
from clearn.parts.backbones import blueprint
from clearn.parts.exemplars import Memory
from clearn.progress import Progress
from clearn.recipe import Recipe
from clearn.seeds import scope
from clearn.state import freeze
from clearn.stream import Inputs, Stream
from clearn.streams.class_incremental import build
from strategies.memo import Memo
from strategies.replay import Replay

REPEATS, BATCH, BACKBONE, BUDGET_BYTES = 3, 64, "convnet2", 400_000
RECIPE = Recipe(epochs=1, lr=0.01, schedule="constant", batch_size=BATCH)
CPU = torch.device("cpu")


class TimedContext(Context):
    """Takes the CPU seconds of training."""

    seconds = 0.0

    def fit(self, *args: Any, **options: Any) -> None:
        """Train one phase, and time it."""
        started = time.process_time()
        super().fit(*args, **options)
        self.seconds += time.process_time() - started


def stream() -> Stream:
    try:
        return build(data="fashion_mnist", increment=1, per_class_train=10 * BATCH, per_class_test=10)
    except DataError:
        return build(data="digits", increment=1)


def milliseconds_per_step(experiment: Learning) -> list[float]:
    """CPU time of training on one batch of 64, task by task."""
    planned, found = experiment.weights(experiment.plan()), []
    strategy = experiment.build()
    for task in experiment.stream:
        index = task.info.index
        ctx = TimedContext(
            seed=experiment.seed,
            step=index,
            trainer=experiment.trainer,
            device=CPU,
            augment=None,
            budget=experiment.budget,
            planned=planned,
            progress=Progress(),
        )
        with scope(experiment.seed, index, "learn"):
            strategy.learn(task, ctx)
        frozen = freeze(strategy.state())
        strategy = rebuild(experiment.build(), frozen, experiment.stream.infos[: index + 1], experiment.seed, index + 1)
        found.append(1000 * ctx.seconds / ctx.cost.samples * BATCH)
    return found


def milliseconds_of_one_block(inputs: Inputs) -> float:
    """CPU time of one specialised block, frozen: forward, and backward to its input."""
    general, specialised = (part() for part in blueprint(BACKBONE, inputs).split())
    images = torch.randn(BATCH, *inputs.shape, generator=torch.Generator().manual_seed(0))
    shared = general(images).detach().requires_grad_()
    block = specialised.requires_grad_(False).eval()
    runs = []
    for _ in range(30):
        started = time.process_time()
        block(shared).sum().backward()
        runs.append(1000 * (time.process_time() - started))
        shared.grad = None
    return median(runs)


def main() -> None:
    torch.set_num_threads(1)
    tasks = stream()
    memory = Memory(total=5 * BATCH, selection="random")
    options = {"backbone": BACKBONE, "first": RECIPE, "later": RECIPE}
    trainer = TrainerOptions(accelerator="cpu", threads=1)
    filling = partial(Replay, tasks.inputs, memory=Memory(selection="random"), **options)
    expanding = partial(Memo, tasks.inputs, memory=memory, **options)
    experiments = {
        f"replay, {BUDGET_BYTES:,} bytes": Learning(tasks, filling, Budget(BUDGET_BYTES), trainer=trainer),
        "memo": Learning(tasks, expanding, trainer=trainer),
    }
    found: dict[str, list[list[float]]] = {name: [] for name in experiments}
    blocks = []
    for _ in range(REPEATS):  # in turns, so that a slow minute of the machine falls on all
        for name, experiment in experiments.items():
            found[name].append(milliseconds_per_step(experiment))
        blocks.append(milliseconds_of_one_block(tasks.inputs))
    curves = {name: [median(task) for task in zip(*runs, strict=True)] for name, runs in found.items()}
    tables.show(
        f"Milliseconds a step of {BATCH} samples, {BACKBONE} on {tasks.about['data']}, median of {REPEATS} runs",
        ["task", *curves],
        [[str(t + 1), *(f"{curve[t]:.1f}" for curve in curves.values())] for t in range(len(tasks))],
    )
    flat, growing = curves.values()
    # The first task has no exemplars, no auxiliary head and no old block.
    slopes = [linear_regression(range(2, len(tasks) + 1), curve[1:]).slope for curve in (flat, growing)]
    block = median(blocks)
    tables.show(
        "Growth of a step with each further task (fit to tasks 2 to 10)",
        ["", "ms a task", "relative", "expected"],
        [
            ["replay", f"{slopes[0]:+.2f}", f"{slopes[0] / median(flat):+.1%} of a step", "0 ms"],
            [
                "memo",
                f"{slopes[1]:+.2f}",
                f"{slopes[1] / block:.2f} of a block",
                f"{block:.2f} ms, a block",
            ],
        ],
    )


if __name__ == "__main__":
    main()
