"""MOS at test: images routed in groups against the T + 1 passes of the plain way, paired in one run, at T = 5, 10, 20.

One stream is learned for 20 tasks (see turned.py), so the adapters, the head and the prototypes are those of real,
though brief, training. After tasks 5, 10 and 20 both ways answer the same batches of 50 test images of the classes
seen, in turns whose order is shuffled, timed in CPU seconds of one thread; the predictions must be identical, and are
asserted to be. Passes and accuracy are over all test images of the classes seen. The plain way is that of the released
code: the features of all T adapters, those of A_1 once more for the prototypes, then the walk on the table of logits;
its walk is done for all images at once, which favours it.

"work" is the backbone's share of what routing computes for an image, in multiplications and additions, over that of
one pass of timm's own network: adapters share the first block up to their branch, and the last block computes the
class token alone, without keys and values of the others. Its standard error is that of a mean over the images. How
many passes an image needs depends on how often the first guess of its task is confirmed, hence on how well tasks can be
told apart: the easier stream has --digits.

    python benchmarks/mos_inference.py --weights dinov2_small.safetensors [--digits] [--per-class 100]

A quarter of an hour on one core, with 300 images of a class twice that.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Sequence
from statistics import mean, median, stdev

import tables
import torch
import turned
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from clearn import seeds
from clearn.parts.adapters import Place
from clearn.parts.retrieval import ROUNDS, Retrieval, tasks_of, two_stages
from clearn.recipe import Recipe
from strategies.mos import Mos

MEASURED, TARGET = (5, 10, 20), {10: 3.0}
BATCH, N_BATCHES, ROUNDS_TIMED = 50, 2, 3
PER_CLASS_TEST = 20
BRIEF = Recipe(epochs=6, lr=0.03, schedule="cosine", batch_size=48, weight_decay=5e-4)
ALIGN = Recipe(epochs=10, lr=0.005, schedule="cosine", batch_size=240, weight_decay=5e-4)


def plain_way(net: Mos, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """T + 1 passes, then the walk; (b, C) scores, and (b,) evaluations of the head."""
    cosines = net.prototypes(net.vit(inputs, net.bank.one(0)))
    assert net.head is not None
    table = torch.stack([net.head(net.vit(inputs, net.bank.one(t))) for t in range(len(net.bank))], 1)  # (b, T, C)
    tasks, rows = tasks_of(net.seen), torch.arange(len(inputs))
    adapters, taken = tasks[cosines.argmax(1)], torch.zeros(len(inputs), dtype=torch.int64)
    settled = torch.zeros(len(inputs), dtype=torch.bool)
    logits = table[rows, adapters]
    for _ in range(ROUNDS):
        logits = torch.where(settled[:, None], logits, table[rows, adapters])
        taken += ~settled
        following = tasks[logits.argmax(1)]
        settled |= following == adapters
        adapters = torch.where(settled, adapters, following)
    return two_stages(logits, cosines, len(net.seen)), taken


class Nothing:
    """Adapters that take no work."""

    def __init__(self, at: Place) -> None:
        self.at = at

    def branch(self, _: int, x: Tensor) -> Tensor:
        return x.new_zeros(())


def work(net: Mos, inputs: Tensor) -> tuple[float, float]:
    """What is done once for an image, and at each pass, in passes of timm's own network; without adapters."""

    def counted(run: Callable[[], object]) -> int:
        with FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops()

    begun, nothing = net.vit.begin(inputs, net.bank.at), Nothing(net.bank.at)
    whole = counted(lambda: net.vit.net(net.vit.images(inputs)))
    first = counted(lambda: net.vit.begin(inputs, net.bank.at))
    return first / whole, counted(lambda: net.vit.resume(begun, nothing)) / whole


def grouped(net: Mos, inputs: Tensor) -> tuple[Tensor, Retrieval]:
    cosines, found = net.retrieve(inputs)
    return two_stages(found.logits, cosines, len(net.seen)), found


def answered(net: Mos, images: Tensor, labels: Tensor) -> dict[str, float]:
    """Passes and work an image and the accuracy, over all test images."""
    passes, right = list[int](), 0
    for inputs, wanted in zip(images.split(BATCH), labels.split(BATCH), strict=True):
        scores, found = grouped(net, inputs)
        passes += found.passes.tolist()
        right += int((scores.argmax(1) == wanted).sum())
    once, each = work(net, images[:BATCH])
    return {
        "images": len(images),
        "passes_grouped": mean(passes),
        "work_grouped": once + each * mean(passes),
        "work_error": each * stdev(passes) / len(passes) ** 0.5,
        "passes_plain": len(net.bank) + 1,
        "accuracy": right / len(images),
    }


def compare(net: Mos, batches: Sequence[Tensor]) -> dict[str, float]:
    """Answer the same batches both ways, some rounds in shuffled order."""
    seconds = {grouped: list[float](), plain_way: list[float]()}
    turns = [way for way in seconds for _ in range(ROUNDS_TIMED)]
    random.Random(0).shuffle(turns)
    for inputs in batches:  # these are the first allocations, too
        routed, found = grouped(net, inputs)
        wanted, taken = plain_way(net, inputs)
        assert torch.equal(routed.argmax(1), wanted.argmax(1)), "the two ways predict other classes"
        torch.testing.assert_close(routed, wanted, rtol=1e-3, atol=1e-4)
        assert torch.equal(found.rounds, taken), "the two ways walk otherwise"
    for way in turns:
        gc.collect()
        started = time.process_time()
        for inputs in batches:
            way(net, inputs)
        seconds[way].append((time.process_time() - started) / sum(map(len, batches)))
    ours, theirs = median(seconds[grouped]), median(seconds[plain_way])
    return {"ms_grouped": 1000 * ours, "ms_plain": 1000 * theirs, "ratio": theirs / ours}


def main() -> None:
    torch.set_num_threads(1)
    parser = turned.parser(__doc__)
    parser.add_argument("--digits", action="store_true", help="two turns of digits and clothes, not four of clothes")
    parser.add_argument("--per-class", type=int, default=100, metavar="N", help="training images of a class: 100")
    asked = parser.parse_args()
    stream = turned.stream(asked.per_class, PER_CLASS_TEST, asked.digits)
    with seeds.scope(0, 0, "fresh"):
        net = Mos(stream.inputs, turned.vit(asked.weights), first=BRIEF, later=BRIEF, align=ALIGN)
    figures, rng = [], torch.Generator().manual_seed(0)
    for step in range(turned.N_TASKS):
        with seeds.scope(0, step, "learn"):
            net.learn(stream.task(step), turned.Services(stream, step))
        if step + 1 not in MEASURED:
            continue
        net.eval()
        tests = [stream.task(t).probes[0].data for t in range(step + 1)]
        images = torch.cat([part.fetch(torch.arange(len(part))) for part in tests])
        labels = torch.cat([part.labels for part in tests])
        timed = torch.randperm(len(images), generator=rng)[: BATCH * N_BATCHES].split(BATCH)
        with torch.inference_mode():
            timings = compare(net, [images[rows] for rows in timed])
            figures.append({"tasks": len(net.bank), **answered(net, images, labels), **timings})
    rows = [
        [
            str(one["tasks"]),
            f"{one['passes_grouped']:.2f}",
            f"{one['work_grouped']:.2f} ± {one['work_error']:.2f}",
            str(one["passes_plain"]),
            f"{one['ms_grouped']:.1f}",
            f"{one['ms_plain']:.1f}",
            f"{one['ratio']:.2f}",
            f"{TARGET[int(one['tasks'])]:.1f}" if one["tasks"] in TARGET else "",
            f"{one['accuracy']:.0%}",
        ]
        for one in figures
    ]
    heads = ["T", "passes/image", "work", "plain", "ms/image", "plain", "x faster", "target", "accuracy"]
    tables.show("MOS at test, grouped routing over the T + 1 passes: CPU time, one thread", heads, rows)
    turned.keep({"mos_inference": figures}, asked.json)


if __name__ == "__main__":
    main()
