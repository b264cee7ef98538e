"""First-task adaptation: an adapter trained once bridges from the pretraining to the stream's images, for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from clearn.parts.adapters import Adapter
from clearn.parts.cosine import CosineHead
from clearn.parts.frozen_vit import FrozenViT
from clearn.stream import Task

if TYPE_CHECKING:
    from clearn.context import Context
    from clearn.recipe import Recipe


def adapt(vit: FrozenViT, adapter: Adapter, task: Task, ctx: Context, recipe: Recipe) -> None:
    """Train an adapter by cross-entropy of a cosine head over the task's classes; the head is thrown away.

    (Zhou et al., IJCV 2024, section 4.1; specs "mos", section 8.) A task of one class tells nothing apart, so the
    adapter stays as it is.

    Args:
        vit: the backbone, which stays as it is.
        adapter: trained, and left in evaluation mode.
        task: the first of the stream.
        ctx: trains it.
        recipe: of training.
    """
    adapter.eval()
    if len(task.info.classes) < 2:
        return
    head = CosineHead(vit.width, len(task.info.classes))
    classes = torch.tensor(task.info.classes)

    def loss(inputs: Tensor, targets: Tensor) -> Tensor:
        local = torch.searchsorted(classes.to(targets.device), targets)
        return cross_entropy(head(vit(inputs, adapter)), local, reduction="none")

    ctx.fit(nn.ModuleList([vit, adapter, head]), task.train, recipe, loss=loss)
    adapter.eval()
