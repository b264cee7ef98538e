"""What the benchmarks on a pretrained network share: a stream of 20 tasks of real images, and DINOv2's ViT-S/14.

Fashion-MNIST has 10 classes; turned by quarter turns, each turn a class of its own, it has 40, so two in each of 20
tasks. Images are seen at 56 x 56 pixels, which are 4 x 4 patches and the class token.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch
from torch import Tensor

from clearn.context import Context
from clearn.ledger import Budget
from clearn.options import TrainerOptions
from clearn.parts.frozen_vit import Vit
from clearn.parts.samples import Samples
from clearn.progress import Progress
from clearn.stream import Stream
from clearn.streams import from_arrays
from clearn.streams.datasets import dataset

N_TASKS, N_CLASSES = 20, 40


def given(docstring: str) -> argparse.Namespace:
    """What the command line says: --weights FILE and --json FILE."""
    parser = argparse.ArgumentParser(description=docstring.splitlines()[0])
    parser.add_argument("--weights", help="of vit_small_patch14_dinov2, a .safetensors file; else they are fresh")
    parser.add_argument("--json", help="write the figures to this file, too; else they are printed last")
    return parser.parse_args()


def vit(weights: str | None) -> Vit:
    """The backbone that the command line asks for."""
    return Vit("vit_small_patch14_dinov2", weights or False, 56)


def stream(per_class: int, per_class_test: int) -> Stream:
    """20 tasks of two classes; the quarter turns of one task's classes differ from those of the next."""
    data = dataset("fashion_mnist", per_class_train=per_class, per_class_test=per_class_test)

    def turned(part: Samples) -> tuple[Tensor, Tensor]:
        images = part.fetch(torch.arange(len(part)))
        labels = 4 * part.labels  # class 4 c + k is c, turned k times
        return torch.cat([images.rot90(k, (2, 3)) for k in range(4)]), torch.cat([labels + k for k in range(4)])

    (x, y), (x_test, y_test) = turned(data.train), turned(data.test)
    order = torch.randperm(N_CLASSES, generator=torch.Generator().manual_seed(0))
    return from_arrays(x, order[y], x_test, order[y_test], increment=2, augment="none", layout="NCHW")


class Services(Context):
    """What the loop gives to a learner at a step, on one thread of the CPU."""

    def __init__(self, on: Stream, step: int) -> None:
        super().__init__(
            seed=0,
            step=step,
            trainer=TrainerOptions(accelerator="cpu", threads=1),
            device=torch.device("cpu"),
            augment=on.augment,
            budget=Budget(),
            planned=(),
            progress=Progress(),
        )


def keep(figures: dict[str, Any], file: str | None) -> None:
    """Give the figures as JSON."""
    text = json.dumps(figures, indent=1)
    if file is None:
        print(text, flush=True)
        return
    with open(file, "w") as out:
        out.write(text + "\n")
