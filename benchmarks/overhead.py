"""What the engine costs: training by clearn against the loop one would write by hand, and the ledger's share of a run.

Both sides compute the same weights, bit for bit (asserted), from the same batches in the same order; they run in one
process and one thread, in turns whose order is shuffled, and are timed in CPU seconds of the process. clearn's side is
the real path: a strategy, `Context.fit`, a Lightning Trainer made anew, all of it inside the measured time. The loop by
hand has a net of plain layers, all images in one uint8 tensor, and no bookkeeping, not even a sum of its losses.

    python benchmarks/overhead.py            all of it, about ten minutes on one core
    python benchmarks/overhead.py mlp        only the cases whose name contains "mlp"; "ledger" is the last table
"""

from __future__ import annotations

import gc
import random
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import tables
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from clearn import seeds
from clearn.context import Context
from clearn.folder import LEDGER, RunFolder
from clearn.learning import Learning
from clearn.ledger import Budget
from clearn.options import TrainerOptions
from clearn.parts.augment import Augment
from clearn.parts.exemplars import Memory
from clearn.parts.samples import TensorSamples
from clearn.progress import Progress
from clearn.recipe import Recipe
from clearn.runner import run
from clearn.strategy import Strategy
from clearn.stream import Inputs, TaskInfo
from clearn.streams import from_arrays
from strategies.finetune import Finetune
from strategies.replay import Replay

BATCH, N_CLASSES, SEED, LR, MOMENTUM = 128, 10, 1, 0.01, 0.9
TRAINER = TrainerOptions(accelerator="cpu", threads=1)


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        name: as printed.
        backbone: by clearn's name.
        inputs: of the made-up images.
        samples: of them; with `epochs` they give the optimiser steps of a round.
        epochs: of a round.
        target: the ratio not to be exceeded.
        rounds: how often both sides train.
        augment: of the batches.
        stored: 0, or how many stored images replay draws 128 of beside each batch.
    """

    name: str
    backbone: str
    inputs: Inputs
    samples: int
    epochs: int
    target: float
    rounds: int = 7
    augment: Augment | None = None
    stored: int = 0

    @property
    def steps(self) -> int:
        """Optimiser steps of a round."""
        return self.epochs * -(-self.samples // BATCH)


GREY = Inputs((1, 28, 28), "uint8", (0.2860,), (0.3530,))
COLOUR = Inputs((3, 32, 32), "uint8", (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
CASES = (
    Case("ResNet32, 3x32x32, crop and flip", "resnet32", COLOUR, 12 * BATCH, 1, 1.03, 9, Augment(crop=4, flip=True)),
    Case("ConvNet2, 1x28x28", "convnet2", GREY, 24 * BATCH, 1, 1.05, rounds=9),
    # As many images as two classes of Fashion-MNIST have.
    Case("MLP 784-100-100-10", "mlp", GREY, 12000, 10, 1.25, rounds=15),
    Case("replay: MLP, 128 new + 128 of 500", "mlp", GREY, 12000, 10, 1.3, rounds=15, stored=500),
)


@dataclass(frozen=True)
class Material:
    """Made-up images and labels: new ones (n, C, H, W) uint8 and (n,) int64, and stored ones alike."""

    images: Tensor
    labels: Tensor
    stored_images: Tensor
    stored_labels: Tensor


def material(case: Case) -> Material:
    rng = torch.Generator().manual_seed(0)

    def images(n: int) -> Tensor:
        return torch.randint(0, 256, (n, *case.inputs.shape), dtype=torch.uint8, generator=rng)

    def labels(n: int) -> Tensor:
        return torch.randint(0, N_CLASSES, (n,), generator=rng)

    return Material(images(case.samples), labels(case.samples), images(case.stored), labels(case.stored))


def learner(case: Case, given: Material) -> Strategy:
    """A strategy of ours, grown for ten classes; the same weights each time."""
    torch.manual_seed(0)
    if case.stored:
        strategy: Strategy = Replay(case.inputs, case.backbone, memory=Memory(total=case.stored), stored_per_step=BATCH)
        assert isinstance(strategy, Replay)
        strategy.memory.load({"images": given.stored_images, "labels": given.stored_labels.to(torch.uint8)})
    else:
        strategy = Finetune(case.inputs, case.backbone)
    strategy.grow(TaskInfo(0, tuple(range(N_CLASSES))))
    return strategy


def train_by_clearn(case: Case, strategy: Strategy, given: Material) -> None:
    """One phase, as the strategies' own `learn` asks for it."""
    ctx = Context(
        seed=SEED,
        step=0,
        trainer=TRAINER,
        device=torch.device("cpu"),
        augment=case.augment,
        budget=Budget(),
        planned=(),
        progress=Progress(),
    )
    recipe = Recipe(epochs=case.epochs, lr=LR, schedule="constant", batch_size=BATCH, momentum=MOMENTUM)
    replay = (strategy.memory.samples(), BATCH) if isinstance(strategy, Replay) else None
    ctx.fit(strategy, TensorSamples(given.images, given.labels), recipe, replay=replay)


class Scaled(nn.Module):
    """(b, C, H, W) uint8 -> float32, (x / 255 - mean) / std as one product and one sum."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        exact_mean, exact_std = (torch.tensor(v, dtype=torch.float64).view(-1, 1, 1) for v in (mean, std))
        self.scale, self.shift = (1 / (255 * exact_std)).float(), (-exact_mean / exact_std).float()

    def forward(self, x: Tensor) -> Tensor:
        """Scale each channel."""
        return (x * self.scale).add_(self.shift)


def net_by_hand(case: Case, strategy: Strategy) -> nn.Sequential:
    """Plain layers with the strategy's first weights: an MLP, or the same convolutions with a linear layer on top."""
    assert isinstance(strategy, Finetune | Replay)
    assert strategy.net.head is not None
    backbone = strategy.net.backbone
    if case.backbone == "mlp":
        pixels = case.inputs.shape[0] * case.inputs.shape[1] * case.inputs.shape[2]
        layers = [
            nn.Flatten(),
            nn.Linear(pixels, 100),
            nn.ReLU(inplace=True),
            nn.Linear(100, 100),
            nn.ReLU(inplace=True),
        ]
        backbone = nn.Sequential(*layers)
    net = nn.Sequential(Scaled(case.inputs.mean, case.inputs.std), backbone, nn.Linear(strategy.net.width, N_CLASSES))
    with torch.no_grad():
        for mine, theirs in zip(net.parameters(), strategy.parameters(), strict=True):
            mine.copy_(theirs)
    return net


def train_by_hand(case: Case, net: nn.Module, given: Material, order: torch.Generator, draws: torch.Generator) -> None:
    """The loop one would write."""
    images, labels, augment = given.images, given.labels, case.augment
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=MOMENTUM, fused=True)
    net.train()
    for _ in range(case.epochs):
        for rows in torch.randperm(len(labels), generator=order).split(BATCH):
            batch = images.index_select(0, rows)
            if augment is not None:
                batch = augment(batch, draws)
            loss = cross_entropy(net(batch), labels[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()


def replay_by_hand(case: Case, net: nn.Module, given: Material, order: torch.Generator) -> None:
    """The same with stored images beside each batch."""
    images, labels = given.images, given.labels
    stored_images, stored_labels = given.stored_images, given.stored_labels
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=MOMENTUM, fused=True)
    net.train()
    for _ in range(case.epochs):
        batches = torch.randperm(len(labels), generator=order).split(BATCH)
        drawn = torch.randint(len(stored_labels), (len(batches), BATCH), generator=order)
        for new, old in zip(batches, drawn, strict=True):
            batch = torch.cat([images.index_select(0, new), stored_images.index_select(0, old)])
            loss = cross_entropy(net(batch), torch.cat([labels[new], stored_labels[old]]))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()


def one_round(case: Case, given: Material, ours_first: bool) -> tuple[float, float]:
    """CPU seconds of clearn and of the loop by hand, once each; their weights must be equal at the end."""
    strategy = learner(case, given)
    net = net_by_hand(case, learner(case, given))
    order, draws = (seeds.generator(SEED, 0, f"fit1/{purpose}") for purpose in ("order", "augment"))

    def ours() -> None:
        train_by_clearn(case, strategy, given)

    def by_hand() -> None:
        if case.stored:
            replay_by_hand(case, net, given, order)
        else:
            train_by_hand(case, net, given, order, draws)

    seconds = {}
    for side in (ours, by_hand) if ours_first else (by_hand, ours):
        gc.collect()
        started = time.process_time()
        side()
        seconds[side] = time.process_time() - started
    pairs = zip(strategy.state_dict().values(), net.state_dict().values(), strict=True)
    assert all(torch.equal(mine, theirs) for mine, theirs in pairs), (
        f"{case.name}: the two sides end with other weights"
    )
    return seconds[ours], seconds[by_hand]


def compare(cases: list[Case]) -> None:
    """Train all rounds of all cases in shuffled order, and print the ratios."""
    given = {case: material(case) for case in cases}
    for case in cases:
        one_round(replace(case, samples=BATCH, epochs=1), given[case], ours_first=True)  # imports and first allocations
    turns = [(case, turn % 2 == 0) for case in cases for turn in range(case.rounds)]
    random.Random(0).shuffle(turns)
    found: dict[Case, list[tuple[float, float]]] = {case: [] for case in cases}
    for case, ours_first in turns:
        found[case].append(one_round(case, given[case], ours_first))
    rows = []
    for case, seconds in found.items():
        ratios = sorted(ours / by_hand for ours, by_hand in seconds)
        rows.append(
            [
                case.name,
                f"{len(seconds)} x {case.steps}",
                f"{case.steps / median(by_hand for _, by_hand in seconds):.1f}",
                f"{case.steps / median(ours for ours, _ in seconds):.1f}",
                f"{median((ours - by_hand) / case.steps * 1e6 for ours, by_hand in seconds):.0f}",
                f"{ratios[len(ratios) // 4]:.3f} .. {ratios[-1 - len(ratios) // 4]:.3f}",
                f"{median(ratios):.3f}",
                f"{case.target:.2f}",
            ]
        )
    tables.show(
        "Training by clearn over the same loop by hand: CPU time, one thread, batches of 128, equal weights at the end",
        [
            "",
            "rounds x steps",
            "steps/s by hand",
            "steps/s clearn",
            "us/step more",
            "middle half",
            "median ratio",
            "target",
        ],
        rows,
    )


def ledger_share() -> None:
    """Run replay with ResNet32 on a short stream, and read from its ledger what writing and rebuilding took."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(6).repeat_interleave(2 * BATCH)
    images = torch.randint(0, 256, (len(labels), 3, 32, 32), dtype=torch.uint8, generator=rng)
    stream = from_arrays(images, labels, images[::16], labels[::16], increment=2, augment="crop_flip", layout="NCHW")
    phase = Recipe(epochs=2, lr=LR, schedule="constant")

    def make() -> Strategy:
        return Replay(stream.inputs, "resnet32", memory=Memory(total=500, selection="random"), first=phase, later=phase)

    with tempfile.TemporaryDirectory() as folder:
        path = run(
            Learning(stream, make, seed=SEED, trainer=TRAINER, config={"strategy": {"name": "replay"}}),
            Path(folder, "run"),
        )
        figures = [row for row in RunFolder(path).rows(LEDGER) if row["kind"] == "figures"]
    rows = []
    for row in figures:
        seconds = row["seconds"]
        share = (seconds["write"] + seconds["rebuild"]) / sum(seconds.values())
        parts = [f"{1000 * seconds[part]:.1f}" for part in ("write", "rebuild")]
        rows.append(
            [
                str(row["step"]),
                str(row["optimizer_steps"]),
                f"{row['delta']:,}",
                f"{sum(seconds.values()):.2f}",
                *parts,
                f"{share:.2%}",
            ]
        )
    total = sum(sum(row["seconds"].values()) for row in figures)
    spent = sum(row["seconds"]["write"] + row["seconds"]["rebuild"] for row in figures)
    steps = sum(row["optimizer_steps"] for row in figures)
    rows.append(["all", str(steps), "", f"{total:.2f}", "", "", f"{spent / total:.2%}"])
    tables.show(
        "Ledger, state file and rebuild in a short run of replay with ResNet32 (target: under 2 % of it)",
        ["after task", "steps", "bytes carried", "seconds in all", "ms write", "ms rebuild", "share"],
        rows,
    )


def main() -> None:
    torch.set_num_threads(1)
    wanted = [word.lower() for word in sys.argv[1:]]
    if cases := [case for case in CASES if not wanted or any(word in case.name.lower() for word in wanted)]:
        compare(cases)
    if not wanted or "ledger" in wanted:
        ledger_share()


if __name__ == "__main__":
    main()
