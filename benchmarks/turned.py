"""What the benchmarks on a pretrained network share: a stream of 20 tasks of real images, and DINOv2's ViT-S/14.

Fashion-MNIST has 10 classes; turned by quarter turns, each turn a class of its own, it has 40, so two in each of 20
tasks. Some of them can hardly be told from others, such as a bag from one that stands on its head. Scikit-learn's
digits beside it, each set upright and turned by one quarter, are 40 classes as well, and easier ones. Images are seen
at 56 x 56 pixels, which are 4 x 4 patches and the class token.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from clearn.context import Context
from clearn.ledger import Budget
from clearn.options import TrainerOptions
from clearn.parts.frozen_vit import Vit
from clearn.parts.samples import Samples
from clearn.progress import Progress
from clearn.stream import Stream
from clearn.streams import from_arrays
from clearn.streams.datasets import dataset

N_TASKS, N_CLASSES, SIDE = 20, 40, 28


def parser(docstring: str) -> argparse.ArgumentParser:
    """What these benchmarks' command lines share: --weights FILE and --json FILE."""
    found = argparse.ArgumentParser(description=docstring.splitlines()[0])
    found.add_argument("--weights", help="of vit_small_patch14_dinov2, a .safetensors file; else they are fresh")
    found.add_argument("--json", help="write the figures to this file, too; else they are printed last")
    return found


def vit(weights: str | None) -> Vit:
    """The backbone that the command line asks for."""
    return Vit("vit_small_patch14_dinov2", weights or False, 56)


def stream(per_class: int, per_class_test: int, digits: bool = False) -> Stream:
    """20 tasks of two classes; where clothes are turned by all four quarters, tasks mix turns as they mix clothes."""
    sets = [dataset("fashion_mnist", per_class_train=per_class, per_class_test=per_class_test)]
    sets += [dataset("digits", per_class_train=per_class, per_class_test=per_class_test)] if digits else []
    train, test = ([getattr(data, part) for data in sets] for part in ("train", "test"))
    order = torch.randperm(N_CLASSES, generator=torch.Generator().manual_seed(0))
    (x, y), (x_test, y_test) = _turned(train), _turned(test)
    return from_arrays(x, order[y], x_test, order[y_test], increment=2, augment="none", layout="NCHW")


def _turned(parts: list[Samples]) -> tuple[Tensor, Tensor]:
    """Class T c + k of a set is its class c, turned k times; the second set's classes follow the first's."""
    turns, images, labels = 4 // len(parts), list[Tensor](), list[Tensor]()
    for index, part in enumerate(parts):
        x = part.fetch(torch.arange(len(part)))
        if x.shape[-1] != SIDE:  # digits are 8 x 8
            x = interpolate(x.float(), (SIDE, SIDE), mode="bicubic", antialias=True).round().clamp(0, 255).byte()
        images += [x.rot90(k, (2, 3)) for k in range(turns)]
        labels += [turns * part.labels + k + index * N_CLASSES // 2 for k in range(turns)]
    return torch.cat(images), torch.cat(labels)


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
