"""Training phases: the only place that builds a Lightning Trainer and its data.

A phase is one fresh Trainer (about 10 ms) over a wrapper module that loops, with manual optimisation, over blocks of
batches, so that Lightning's bookkeeping is paid once a block and not once a step. The block's size changes no bit of
the weights.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from clearn.errors import Diverged
from clearn.parts.samples import Samples
from clearn.recipe import Recipe

if TYPE_CHECKING:
    from lightning.pytorch.strategies import Strategy

    from clearn.context import Cost, Observer
    from clearn.options import TrainerOptions
    from clearn.progress import Progress
    from clearn.stream import Augment

Loss = Callable[[Tensor, Tensor], Tensor]
Rates = Sequence[tuple[nn.Module, float]]


class Epoch:
    """The batches of one epoch, in a drawn order.

    Attributes:
        data: new samples, each met once an epoch.
        batch_size: of new samples a step.
        replay: (stored samples, how many of them join each batch), or None.
    """

    def __init__(self, data: Samples, batch_size: int, replay: tuple[Samples, int] | None) -> None:
        self.data = data
        self.batch_size = batch_size
        self.replay = replay if replay and len(replay[0]) and replay[1] else None

    def __len__(self) -> int:
        return -(-len(self.data) // self.batch_size)

    def draw(self, rng: torch.Generator) -> list[tuple[Tensor, Tensor | None]]:
        """Draw an order: per step the rows of the new data and, with replay, the rows of the stored."""
        order = torch.randperm(len(self.data), generator=rng).split(self.batch_size)
        if self.replay is None:
            return [(rows, None) for rows in order]
        stored, count = self.replay
        drawn = torch.randint(len(stored), (len(order), count), generator=rng)
        return list(zip(order, drawn, strict=True))

    def batches(
        self, steps: list[tuple[Tensor, Tensor | None]], cuts: torch.Generator | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Fetch (b, *shape) raw inputs and (b,) int64 labels, step by step; files are decoded ahead by workers.

        Args:
            steps: as drawn.
            cuts: draws where new samples are cut out of their pictures, if they are; None takes them as stored.
        """
        order = (rows for rows, _ in steps)
        fresh = self.data.loader(order) if cuts is None else self.data.training_loader(order, cuts)
        if self.replay is None:
            yield from fresh
            return
        stored = self.replay[0]
        for (inputs, targets), (_, rows) in zip(fresh, steps, strict=True):
            assert rows is not None
            yield torch.cat([inputs, stored.fetch(rows)]), torch.cat([targets, stored.labels[rows]])


class Watch:
    """An observer at one phase: it is shown the steps whose batches hold a marked sample.

    Args:
        observer: marks the samples first.
        epoch: what the phase trains on.
        cost: gets the seconds that the observer takes.
    """

    def __init__(self, observer: Observer, epoch: Epoch, cost: Cost) -> None:
        self._observer, self._cost = observer, cost
        self._ahead: deque[Tensor] = deque()  # (b,) marks of each batch that is drawn and not trained on yet
        started = time.perf_counter()
        self._marks = observer.begin([epoch.data] if epoch.replay is None else [epoch.data, epoch.replay[0]])
        cost.observe_seconds += time.perf_counter() - started

    def drawn(self, steps: Iterable[tuple[Tensor, Tensor | None]]) -> None:
        """Take note of the rows that the coming steps will be about, in order."""
        for step in steps:
            rows = (rows for rows in step if rows is not None)
            self._ahead.append(torch.cat([marks[index] for marks, index in zip(self._marks, rows, strict=True)]))

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Step for the next batch."""
        marks, clock = self._ahead.popleft(), time.perf_counter
        if not bool(marks.any()):
            optimizer.step()
            return
        started = clock()
        with self._observer.step(marks):
            stepping = clock()
            optimizer.step()
            stepped = clock()
        self._cost.observe_seconds += clock() - stepped + stepping - started


class Block:
    """K batches, fetched and augmented one by one while the step loops over them."""

    def __init__(
        self, batches: Iterable[tuple[Tensor, Tensor]], augment: Augment | None, rng: torch.Generator, cost: Cost
    ) -> None:
        self._batches = batches
        self._augment = augment
        self._rng = rng
        self._cost = cost
        self._device = torch.device("cpu")

    def to(self, device: torch.device, **_: Any) -> Block:
        """Have the batches put onto a device; Lightning calls this where it would move a tensor."""
        self._device = device
        return self

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        clock = time.perf_counter
        started = clock()
        for inputs, targets in self._batches:
            changed = inputs if self._augment is None else self._augment(inputs, self._rng)
            batch = changed.to(self._device), targets.to(self._device)
            self._cost.data_seconds += clock() - started
            yield batch
            started = clock()


class Blocks(IterableDataset[Block]):
    """An epoch's batches in blocks of `size`; each pass draws a new order."""

    def __init__(
        self,
        epoch: Epoch,
        size: int,
        order: torch.Generator,
        cuts: torch.Generator | None,
        block: Callable[[Iterable[tuple[Tensor, Tensor]]], Block],
        watch: Watch | None,
    ) -> None:
        self.epoch, self.size, self.order, self.cuts, self.block, self.watch = epoch, size, order, cuts, block, watch

    def __iter__(self) -> Iterator[Block]:
        steps = self.epoch.draw(self.order)
        if self.watch is not None:
            self.watch.drawn(steps)
        batches = self.epoch.batches(steps, self.cuts)
        for _ in range(0, len(steps), self.size):
            yield self.block(islice(batches, self.size))


class PhaseData(LightningDataModule):
    """One phase's training data."""

    def __init__(self, blocks: Blocks) -> None:
        super().__init__()
        self.blocks = blocks

    def train_dataloader(self) -> DataLoader[Block]:
        """Blocks as they come; fetching happens inside the step's own loop."""
        return DataLoader(self.blocks, batch_size=None, num_workers=0)


class Phase(LightningModule):
    """Optimises one module over blocks of batches."""

    def __init__(
        self,
        module: nn.Module,
        loss: Loss,
        recipe: Recipe,
        beside: Sequence[nn.Module],
        progress: Progress,
        watch: Watch | None,
        rates: Rates,
        after_step: Callable[[], None] | None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.module = module
        self.beside = nn.ModuleList(beside)
        self.loss = loss
        self.recipe = recipe
        self.progress = progress
        self.watch = watch
        self.factors = {id(parameter): factor for inner, factor in rates for parameter in inner.parameters()}
        self.after_step = after_step
        self.steps = self.samples = 0
        self.transient = 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """A fresh optimiser over what is trainable now: a group of parameters for each factor of the rate."""
        groups: dict[float, list[nn.Parameter]] = {}
        for parameter in self.module.parameters():
            if parameter.requires_grad:
                groups.setdefault(self.factors.get(id(parameter), 1.0), []).append(parameter)
        return self.recipe.optimizer_for([{"params": own, "factor": factor} for factor, own in groups.items()])

    def on_fit_start(self) -> None:
        """Set modes here: Lightning leaves a module in evaluation mode between fits; BatchNorm then trains wrong."""
        self.module.train()
        self.beside.eval()

    def on_train_epoch_start(self) -> None:
        """Set the epoch's learning rate and forget the last epoch's loss."""
        self.running = torch.zeros((), device=self.device)
        for group in self._optimizer().param_groups:
            group["lr"] = self.recipe.rate(self.current_epoch) * group["factor"]

    def training_step(self, block: Block, _: int) -> None:
        """Step once for each batch of a block."""
        optimizer, running, watch, after_step = self._optimizer(), self.running, self.watch, self.after_step
        # Lightning's hooks around the backward pass would cost 40 us a step; only float16 needs its loss scaling.
        for inputs, targets in block:
            loss = self.loss(inputs, targets)
            if loss.ndim:
                loss = loss.mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if watch is None:
                optimizer.step()
            else:
                watch.step(optimizer)
            if after_step is not None:
                after_step()
            torch.clear_autocast_cache()  # a block lies within one autocast: casts made before this step are stale
            running += loss.detach()
            self.steps += 1
            self.samples += len(targets)
        self.progress.tick(self.current_epoch, self.samples)

    def on_train_epoch_end(self) -> None:
        """Look at the loss once an epoch, and at the memory of training once."""
        if not bool(torch.isfinite(self.running)):
            raise Diverged(
                f"the training loss became {float(self.running)} in epoch {self.current_epoch + 1} of "
                f"{self.recipe.epochs} "
                f"(lr={self.recipe.lr}, {self.recipe.optimizer}): choose a smaller lr, or look at the data for "
                "values that are not "
                "finite"
            )
        if self.current_epoch == 0:
            self.transient = self._training_bytes()

    def _optimizer(self) -> torch.optim.Optimizer:
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        return optimizer

    def _training_bytes(self) -> int:
        """Gradients, optimiser, and the networks beside: what exists only while training."""
        gradients = [p.grad for p in self.module.parameters() if p.grad is not None]
        slots = [v for entry in self._optimizer().state.values() for v in entry.values() if isinstance(v, Tensor)]
        beside = [*self.beside.parameters(), *self.beside.buffers()]
        return sum(t.nbytes for t in (*gradients, *slots, *beside))


def fit(
    module: nn.Module,
    data: Samples,
    recipe: Recipe,
    *,
    loss: Loss | None,
    beside: Sequence[nn.Module],
    replay: tuple[Samples, int] | None,
    augment: Augment | None,
    rng: Callable[[str], torch.Generator],
    scope: AbstractContextManager[None],
    options: TrainerOptions,
    device: torch.device,
    cost: Cost,
    progress: Progress,
    observer: Observer | None,
    rates: Rates,
    after_step: Callable[[], None] | None,
) -> None:
    """Train one phase; see `Context.fit` for the arguments that are a method's to choose.

    Raises:
        Diverged: the loss stopped being finite.
        ValueError: no samples, or a module without anything to train.
    """
    if not len(data):
        raise ValueError("there is nothing to train on: this task has 0 training samples; check the stream's split")
    if not any(p.requires_grad for p in module.parameters()):
        raise ValueError(f"{type(module).__name__} has no trainable parameter: set requires_grad before ctx.fit")
    epoch = Epoch(data, recipe.batch_size, replay)
    watch = None if observer is None else Watch(observer, epoch, cost)
    draws = rng("augment")
    way = _way(options)

    def block(batches: Iterable[tuple[Tensor, Tensor]]) -> Block:
        return way.block(batches, augment, draws, cost)

    cuts = None if augment is None else rng("augment/cuts")  # apart from `draws`: workers read ahead
    blocks = Blocks(epoch, way.size, rng("order"), cuts, block, watch)
    asked: Any = loss or module.losses  # whatever is trained without a loss has its own
    phase = way.phase(module, asked, recipe, beside, progress, watch, rates, after_step)
    progress.phase(recipe.epochs, len(data) * recipe.epochs)
    started, elsewhere = time.perf_counter(), cost.data_seconds + cost.observe_seconds
    with scope, quiet(), way.around(beside, module):
        trainer = Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=options.devices,
            num_nodes=options.num_nodes,
            strategy=way.strategy(),
            precision=options.precision,  # type: ignore[arg-type]
            max_epochs=recipe.epochs,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
        trainer.fit(phase, datamodule=PhaseData(blocks))
    module.to(device)
    way.after(module)
    cost.train_seconds += time.perf_counter() - started - (cost.data_seconds + cost.observe_seconds - elsewhere)
    cost.optimizer_steps += phase.steps
    cost.samples += phase.samples
    cost.transient = max(cost.transient, phase.transient)
    for inner in phase.modules():
        if isinstance(inner, LightningModule):
            inner._trainer = None  # the Trainer is this phase's: nothing may hold it afterwards


@dataclass(frozen=True)
class Way:
    """How a phase is carried out: in this process alone, or in shares by several.

    Attributes:
        block: what holds batches.
        phase: what steps.
        size: batches a block.
        strategy: makes Lightning's.
        around: holds while a phase is trained; is given the networks beside and the module.
        after: called with the module when it is back on its device.
    """

    block: type[Block]
    phase: type[Phase]
    size: int
    strategy: Callable[[], Strategy | str] = lambda: "auto"
    around: Callable[[Sequence[nn.Module], nn.Module], AbstractContextManager[None]] = lambda *_: nullcontext()
    after: Callable[[nn.Module], None] = lambda _: None


def _way(options: TrainerOptions) -> Way:
    if options.processes == 1:
        return Way(Block, Phase, options.block)
    from clearn import shares

    # One batch a block: DDP prepares for one backward pass each time that Lightning calls `training_step`.
    return Way(shares.ShareBlock, shares.SharePhase, 1, shares.strategy, shares.frozen, shares.same_buffers)


class quiet(warnings.catch_warnings):
    """Silence what Lightning says of choices made here on purpose: no logger, no workers, blocks without a length."""

    def __enter__(self) -> None:
        super().__enter__()
        for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
            logging.getLogger(name).setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        warnings.filterwarnings("ignore", message=".*`srun` command is available.*")  # on every machine of a cluster
        warnings.filterwarnings("ignore", message=".*Experiment logs directory.*")
        warnings.filterwarnings("ignore", message=".*`broadcast_buffers` is deprecated.*")  # older torch has only that
        warnings.filterwarnings(
            "ignore", message=".*is already in eval mode.*|.*in eval mode at the start of training.*"
        )
