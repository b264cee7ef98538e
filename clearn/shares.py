"""A training step shared out among processes: each looks at its share of every batch, and gradients are averaged.

A recipe's batch is the batch of all processes together. Every rank draws the same rows and the same augmentation for
all of it, from the same generators as one process would, and then takes its share: so the pictures are the same
whatever the number of processes.

The backward pass goes through Lightning's DDP strategy and nothing else. Lightning routes `training_step` through DDP's
forward, inside of which every loss runs, whatever parts of the module it asks; `manual_backward` then tells DDP from
the loss itself which parameters it used, and DDP averages their gradients. Parameters that no rank used keep no
gradient, so that the optimiser leaves them alone as it does in one process. A network that is asked beside the trained
one is frozen meanwhile: DDP would send gradients for it around, which nobody has.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, distributed, nn

from clearn.fit import Block, Phase


def share(n: int, rank: int, count: int) -> tuple[slice, float]:
    """Deal out the rows of a batch in turn, so that every rank gets as many of the new samples as of the stored ones.

    Args:
        n: rows of the batch, at least 1.
        rank: whose share, from 0.
        count: of ranks.

    Returns:
        Its rows, and what the mean over them weighs in the mean over the batch; weights add up to 1. Where there are
        fewer rows than ranks, a rank without any looks at the first with weight 0: no network meets an empty batch.

    >>> share(5, 0, 2), share(5, 1, 2)
    ((slice(0, None, 2), 0.6), (slice(1, None, 2), 0.4))
    >>> share(1, 1, 2)
    (slice(0, 1, None), 0.0)
    """
    held = math.ceil((n - rank) / count) if rank < n else 0
    return (slice(rank, None, count), held / n) if held else (slice(0, 1), 0.0)


class ShareBlock(Block):
    """A block whose batches are drawn and augmented whole; what is put onto the device is this rank's share."""

    def shares(self) -> Iterator[tuple[Tensor, Tensor, float, int]]:
        """This rank's inputs and targets of each batch, what their mean weighs, and the rows of the whole batch."""
        device, self._device = self._device, torch.device("cpu")  # the whole batch stays where it was augmented
        rank, count = distributed.get_rank(), distributed.get_world_size()
        for inputs, targets in self:
            rows, weight = share(len(targets), rank, count)
            yield inputs[rows].to(device), targets[rows].to(device), weight, len(targets)


class SharePhase(Phase):
    """A phase in which every rank steps with the same gradient: that of the whole batch."""

    def training_step(self, block: Block, _: int) -> None:
        """Step once for each batch of a block."""
        assert isinstance(block, ShareBlock)
        optimizer, count = self._optimizer(), self.trainer.world_size
        for inputs, targets, weight, n in block.shares():
            loss = self.loss(inputs, targets)
            loss = weight * (loss.mean() if loss.ndim else loss)  # summed over ranks: the mean over the batch
            optimizer.zero_grad(set_to_none=True)
            self.manual_backward(count * loss)  # DDP divides the sum of gradients by the number of ranks
            optimizer.step()
            if self.after_step is not None:
                self.after_step()
            torch.clear_autocast_cache()
            self.running += loss.detach()
            self.steps += 1
            self.samples += n
        self.progress.tick(self.current_epoch, self.samples)

    def on_train_epoch_end(self) -> None:
        """Add up the loss, so that all ranks stop together where it is not finite."""
        distributed.all_reduce(self.running)
        super().on_train_epoch_end()


def strategy() -> DDPStrategy:
    """Lightning's DDP. Buffers are not sent around before each step: they are made alike once, by `same_buffers`."""
    return DDPStrategy(find_unused_parameters=True, broadcast_buffers=False)


@contextmanager
def frozen(beside: Sequence[nn.Module], trained: nn.Module) -> Iterator[None]:
    """Have networks beside ask for no gradients, and put their flags back; what is also trained stays as it is."""
    own = set(trained.parameters())
    asking = [p for module in beside for p in module.parameters() if p.requires_grad and p not in own]
    for parameter in asking:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)


def same_buffers(module: nn.Module) -> None:
    """Have every rank take rank 0's buffers: running statistics are all that shares of a batch make different."""
    for buffer in module.buffers():
        distributed.broadcast(buffer, src=0)
