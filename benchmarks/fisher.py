"""What exact per-sample importances cost: a batch of `exact` against a plain backward pass of the same batch.

Both sides run in one process and one thread, in turns whose order is shuffled, and are timed in CPU seconds of the
process. The plain side is a forward pass and the gradient of the mean loss by every parameter, as the batch
approximation needs it; ours is what `exact` does with every batch, squares and sums included. Once a pass, `exact` also
checks its way on two samples; that is told in samples. Brute force, one backward pass per sample, stands beside it, and
the sums of both are compared. Memory is the peak of a process of its own, above net and sums (Linux).

    python benchmarks/fisher.py        about a minute and a half on one core
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import tables
import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from clearn.parts.backbones.layers import ChannelsLast
from clearn.parts.importance import CROSS_ENTROPY, Sweep, exact
from clearn.parts.sample_gradients import SampleGradients, untouched

CLASSES, BATCH, ROUNDS, BRUTE_FORCE = 10, 32, 5, 8


def resnet18() -> nn.Module:
    """ResNet18 for 32 x 32 images: 3 x 3 stem of stride 1, no max pool; 11,173,962 parameters."""
    net = timm.create_model("resnet18", num_classes=CLASSES)
    net.conv1, net.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return nn.Sequential(ChannelsLast(), net)


def vit(patch: int) -> nn.Module:
    return timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=patch, depth=4, num_classes=CLASSES)


@dataclass(frozen=True)
class Case:
    """A net, and the ratio not to be exceeded."""

    name: str
    build: Callable[[], nn.Module]
    target: float


CASES = (
    Case("ResNet18, 3x32x32", resnet18, 1.5),
    Case("ViT, width 192, depth 4, 17 tokens", lambda: vit(8), 2.0),
    Case("ViT, width 192, depth 4, 65 tokens", lambda: vit(4), 2.0),
)


def material(n: int = BATCH) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    return torch.randn(n, 3, 32, 32, generator=rng), torch.randint(0, CLASSES, (n,), generator=rng)


def plain(net: nn.Module, x: Tensor, y: Tensor) -> None:
    torch.autograd.grad(cross_entropy(net(x), y), list(net.parameters()))


def brute_force(net: nn.Module, x: Tensor, y: Tensor) -> list[Tensor]:
    sums = [torch.zeros_like(p) for p in net.parameters()]
    for i in range(len(x)):
        found = torch.autograd.grad(cross_entropy(net(x[i : i + 1]), y[i : i + 1]), list(net.parameters()))
        for total, gradient in zip(sums, found, strict=True):
            total.addcmul_(gradient, gradient)
    return sums


def seconds(run: Callable[[], object]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


def compare(case: Case) -> list[str]:
    """Time the sides in turns, and give a row of the table."""
    torch.manual_seed(0)
    net, (x, y) = case.build().eval(), material()
    few = x[:BRUTE_FORCE], y[:BRUTE_FORCE]
    slow = seconds(lambda: brute_force(net, *few)) / BRUTE_FORCE
    pairs = zip(exact(net, [few]).sums.values(), brute_force(net, *few), strict=True)
    error = max(float((mine - brute).abs().max() / brute.max().clamp(min=1e-30)) for mine, brute in pairs)
    assert error < 1e-3, f"{case.name}: the sums differ from brute force by {error}"

    gradients = SampleGradients(net, CROSS_ENTROPY)
    one, two = [gradients.zeros()], [gradients.zeros(), gradients.zeros()]
    forget = torch.arange(BATCH) % CLASSES == 0

    def ours(sums: list[dict[str, Tensor]], weights: Tensor) -> None:
        with untouched(net):
            gradients.add(sums, x, y, weights)

    sides: dict[str, Callable[[], object]] = {
        "plain": lambda: plain(net, x, y),
        "exact": lambda: ours(one, torch.ones(1, BATCH)),
        "two sets": lambda: ours(two, torch.stack([~forget, forget]).float()),
    }
    first = seconds(sides["exact"])
    assert gradients.way == "rules"
    found: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(ROUNDS):
        order = list(sides)
        random.Random(turn).shuffle(order)
        for side in order:
            found[side].append(seconds(sides[side]) / BATCH)
    each, ours_each = median(found["plain"]), median(found["exact"])
    ratios = {side: sorted(a / b for a, b in zip(found[side], found["plain"], strict=True)) for side in sides}
    return [
        case.name,
        *(f"{1000 * value:.2f}" for value in (each, ours_each, slow)),
        f"{median(ratios['exact']):.2f}",
        f"{ratios['exact'][0]:.2f}-{ratios['exact'][-1]:.2f}",
        f"{median(ratios['two sets']):.2f}",
        f"{slow / each:.2f}",
        f"{case.target:.1f}",
        f"{first / ours_each - BATCH:.0f}",
        f"{error:.0e}",
    ]


def resident(field: str) -> int:
    """Read VmRSS (now) or VmHWM (the most so far) of this process, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])


def peak_of(case: Case, chunk: int) -> None:
    """Print how much one batch adds to the memory of this process at most, in MB; chunk 0 is the plain pass."""
    torch.set_num_threads(1)
    net, (x, y) = case.build().eval(), material()
    plain(net, x[:1], y[:1])  # what torch itself takes for a first pass
    before = resident("VmRSS") + 4 * sum(p.numel() for p in net.parameters())
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the start
    if chunk:
        exact(net, [(x, y)], Sweep(chunk=chunk))
    else:
        plain(net, x, y)
    print((resident("VmHWM") - before) / 1e6)


def peaks(case: Case) -> list[str]:
    """Measure in processes of their own, since a peak never falls."""
    found = []
    for chunk in (0, 4, 16, 32):
        command = [sys.executable, __file__, "peak", str(CASES.index(case)), str(chunk)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append(f"{float(done.stdout):.0f}")
    return [case.name, *found]


def main() -> None:
    torch.set_num_threads(1)
    tables.show(
        f"CPU milliseconds a sample, batches of {BATCH}, median of {ROUNDS} paired rounds; ratios to the plain pass",
        ["", "plain", "exact", "brute", "ratio", "range", "two sets", "brute ratio", "target", "check", "error"],
        [compare(case) for case in CASES],
    )
    tables.show(
        f"MB added to the peak by one batch of {BATCH}, beyond net and sums",
        ["", "plain", "chunk 4", "chunk 16", "chunk 32"],
        [peaks(case) for case in CASES],
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["peak"]:
        peak_of(CASES[int(sys.argv[2])], int(sys.argv[3]))
    else:
        main()
