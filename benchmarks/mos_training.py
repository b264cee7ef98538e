"""What MOS costs in training: its step against a plain one with one adapter, and its tasks 2, 5, 10 and 20 by phase.

The step: task 10's own training phase by the real path (`Context.fit`, a Lightning Trainer made anew, merging after
each step, the instance term over the means of all old classes), against the loop one would write by hand for one
adapter beside the frozen backbone: cross-entropy of a linear head on the same batches, SGD, no merging and no other
term. Both run in one process, in turns whose order is shuffled, and are timed in CPU seconds of one thread.

The tasks: learners are rebuilt from the bytes that they carried into tasks 2, 5, 10 and 20, and learn them in shuffled
order, some rounds. All tasks have as many images, so that only three things may grow with the tasks: steps and draws of
the head's alignment (C of them an epoch), passes an image takes at test, and the bytes that are frozen.

    python benchmarks/mos_training.py --weights dinov2_small.safetensors         about five minutes on one core
"""

from __future__ import annotations

import gc
import random
import time
from dataclasses import replace
from statistics import median
from typing import Any

import tables
import torch
import turned
from torch import nn
from torch.nn.functional import cross_entropy

from clearn import seeds
from clearn.parts.adapters import Adapter
from clearn.parts.frozen_vit import Vit
from clearn.parts.heads import Head
from clearn.parts.samples import Samples
from clearn.recipe import Recipe
from clearn.state import Frozen, freeze, thaw
from clearn.stream import Stream
from strategies.mos import Mos

MEASURED, STEP_TASK, ROUNDS_TIMED, TARGET = (2, 5, 10, 20), 10, 3, 1.15
PER_CLASS, BATCH, EPOCHS = 24, 48, 2
BRIEF = Recipe(epochs=1, lr=0.03, schedule="cosine", batch_size=BATCH, weight_decay=5e-4)
ALIGN = Recipe(epochs=10, lr=0.005, schedule="cosine", batch_size=5 * BATCH, weight_decay=5e-4)
STEP_ROUNDS, STEP_EPOCHS = 7, 3


class Timed(turned.Services):
    """Times what is asked of it, and hands the first phase out instead of training it where that is wished."""

    def __init__(self, on: Stream, step: int, stop: bool = False) -> None:
        super().__init__(on, step)
        self.stop, self.phases, self.asked = stop, list[float](), dict[str, Any]()

    def fit(self, module: nn.Module, data: Samples, recipe: Recipe | None = None, **options: Any) -> None:  # type: ignore[override]
        """Train, or stop before."""
        if self.stop:
            self.asked = {"module": module, "data": data, **options}
            raise StopIteration
        started = time.process_time()
        super().fit(module, data, recipe, **options)
        self.phases.append(time.process_time() - started)


def learner(stream: Stream, vit: Vit, carried: Frozen | None, n_seen: int, recipe: Recipe, align: Recipe) -> Mos:
    """Rebuild one that has seen some tasks, as the loop does."""
    with seeds.scope(0, 0, "fresh"):
        net = Mos(stream.inputs, vit, first=recipe, later=recipe, align=align)
    if carried is not None:
        net.load(thaw(carried), stream.infos[:n_seen])
    return net


def boundaries(stream: Stream, vit: Vit) -> dict[int, Frozen]:
    """What is carried into each task that is measured; learned in one step a task, which changes no cost."""
    net, found = learner(stream, vit, None, 0, BRIEF, replace(ALIGN, epochs=1)), {}
    for step in range(max(MEASURED)):
        if step + 1 in MEASURED:
            found[step + 1] = freeze(net.state(), net.untouched())
        with seeds.scope(0, step, "learn"):
            net.learn(stream.task(step), turned.Services(stream, step))
    return found


def steps(stream: Stream, vit: Vit, carried: Frozen) -> dict[str, float]:
    """Milliseconds of a step of MOS and of a plain one."""
    net, ctx = learner(stream, vit, carried, STEP_TASK - 1, BRIEF, ALIGN), Timed(stream, STEP_TASK - 1, stop=True)
    try:
        net.learn(stream.task(STEP_TASK - 1), ctx)
    except StopIteration:
        asked = ctx.asked
    data, n_old, recipe = asked["data"], len(net.classes) - 2, replace(BRIEF, epochs=STEP_EPOCHS, schedule="constant")

    def of_mos() -> None:
        services = turned.Services(stream, STEP_TASK - 1)
        services.fit(asked["module"], recipe=recipe, **{k: v for k, v in asked.items() if k != "module"})

    def plain() -> None:
        adapter, head = Adapter(net.vit.depth, net.width, 16), Head(net.width, 2)
        optimizer = recipe.optimizer_for([*adapter.parameters(), *head.parameters()])
        rng = torch.Generator().manual_seed(0)
        for _ in range(STEP_EPOCHS):
            for rows in torch.randperm(len(data), generator=rng).split(BATCH):
                inputs, targets = data.fetch(rows), data.labels[rows]
                loss = cross_entropy(head(net.vit(inputs, adapter)), targets - n_old)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()

    count = STEP_EPOCHS * -(-len(data) // BATCH)
    pairs = []
    for turn in range(-1, STEP_ROUNDS):
        seconds = {}
        for side in (of_mos, plain) if turn % 2 else (plain, of_mos):
            gc.collect()
            started = time.process_time()
            side()
            seconds[side] = time.process_time() - started
        if turn >= 0:  # the first pair is for allocations and imports
            pairs.append((seconds[of_mos] / count, seconds[plain] / count))
    ratios = sorted(ours / theirs for ours, theirs in pairs)
    return {
        "steps": count * STEP_ROUNDS,
        "ms_mos": 1000 * median(ours for ours, _ in pairs),
        "ms_plain": 1000 * median(theirs for _, theirs in pairs),
        "ratio": median(ratios),
        "lower_quartile": ratios[len(ratios) // 4],
        "upper_quartile": ratios[-1 - len(ratios) // 4],
    }


def one_task(stream: Stream, vit: Vit, carried: Frozen, number: int) -> dict[str, float]:
    """CPU seconds of one task's phases."""
    step, recipe = number - 1, replace(BRIEF, epochs=EPOCHS)
    net, ctx = learner(stream, vit, carried, step, recipe, ALIGN), Timed(stream, step)
    started = time.process_time()
    with seeds.scope(0, step, "learn"):
        net.learn(stream.task(step), ctx)
    learned = time.process_time() - started
    train, align = ctx.phases
    started = time.process_time()
    weight = freeze(net.state(), net.untouched()).nbytes
    frozen = time.process_time() - started
    images = stream.task(step).probes[0].data.fetch(torch.arange(20))
    started = time.process_time()
    with torch.inference_mode():
        net.eval().predict(images)
    predicted = time.process_time() - started
    return {
        "train": train,
        "align": align,
        "describe": learned - train - align,
        "freeze": frozen,
        "predict_20": predicted,
        "carried": weight,
    }


def tasks(stream: Stream, vit: Vit, carried: dict[int, Frozen]) -> list[dict[str, float]]:
    """Medians of each measured task's phases."""
    turns = [number for number in MEASURED for _ in range(ROUNDS_TIMED)]
    random.Random(0).shuffle(turns)
    found: dict[int, list[dict[str, float]]] = {number: [] for number in MEASURED}
    for number in turns:
        gc.collect()
        found[number].append(one_task(stream, vit, carried[number], number))
    return [
        {"task": number, "classes": 2 * number}
        | {key: median(one[key] for one in rounds) for key in rounds[0]}
        | {"align_ms_a_step": 1000 * median(one["align"] for one in rounds) / (ALIGN.epochs * 2 * number)}
        for number, rounds in found.items()
    ]


def main() -> None:
    torch.set_num_threads(1)
    asked = turned.parser(__doc__).parse_args()
    stream, vit = turned.stream(PER_CLASS, 10), turned.vit(asked.weights)
    carried = boundaries(stream, vit)
    step = steps(stream, vit, carried[STEP_TASK])
    tables.show(
        f"A training step of MOS in task {STEP_TASK} over a plain one with one adapter: CPU time, one thread, batch 48",
        ["", "steps", "ms MOS", "ms plain", "middle half", "median ratio", "target"],
        [
            [
                "ViT-S/14 at 56 px",
                str(step["steps"]),
                f"{step['ms_mos']:.0f}",
                f"{step['ms_plain']:.0f}",
                f"{step['lower_quartile']:.3f} .. {step['upper_quartile']:.3f}",
                f"{step['ratio']:.3f}",
                f"{TARGET:.2f}",
            ]
        ],
    )
    by_task = tasks(stream, vit, carried)
    tables.show(
        f"A task of {2 * PER_CLASS} images by phase, in CPU seconds: {EPOCHS} epochs of the adapter, {ALIGN.epochs} of "
        "the alignment",
        [
            "task",
            "classes",
            "adapter",
            "features, statistics",
            "alignment",
            "ms a step of it",
            "ms freezing",
            "ms/image at test",
            "bytes carried",
        ],
        [
            [
                str(one["task"]),
                str(one["classes"]),
                f"{one['train']:.2f}",
                f"{one['describe']:.2f}",
                f"{one['align']:.2f}",
                f"{one['align_ms_a_step']:.2f}",
                f"{1000 * one['freeze']:.0f}",
                f"{50 * one['predict_20']:.1f}",
                f"{one['carried']:,.0f}",
            ]
            for one in by_task
        ],
    )
    turned.keep({"mos_step": step, "mos_tasks": by_task}, asked.json)


if __name__ == "__main__":
    main()
