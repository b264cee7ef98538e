"""What a method may ask for while it learns: training, randomness by purpose, the bytes left, and a place to log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from clearn import seeds
from clearn.ledger import Budget, account
from clearn.recipe import Recipe
from clearn.state import freeze

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from clearn.learner import Learner
    from clearn.options import TrainerOptions
    from clearn.parts.samples import Samples
    from clearn.preparations import Shelf
    from clearn.progress import Progress
    from clearn.reader import Reader
    from clearn.recipe import MetaRecipe
    from clearn.state import State
    from clearn.strategy import Strategy
    from clearn.stream import Augment, Row, Upstream


@dataclass
class Cost:
    """What learning one task took, outside the byte budget.

    Attributes:
        data_seconds: building batches and augmenting them.
        train_seconds: all of training without `data_seconds` and `observe_seconds`.
        observe_seconds: what an observer of the steps took.
        optimizer_steps: of all phases.
        samples: samples trained on, repeats counted.
        transient: bytes of tensors that existed only while training: gradients, optimiser, teachers, auxiliary heads.
        logged: values a method logged, by name; the newest wins.
    """

    data_seconds: float = 0.0
    train_seconds: float = 0.0
    observe_seconds: float = 0.0
    optimizer_steps: int = 0
    samples: int = 0
    transient: int = 0
    logged: dict[str, float] = field(default_factory=dict)


class Observer(Protocol):
    """Looks on while networks are trained, and changes no bit of training.

    A batch is augmented, so its samples cannot be told by what is in it; they are told beforehand, by their rows.
    """

    def begin(self, sources: Sequence[Samples]) -> Sequence[Tensor]:
        """Mark the samples of a phase, before its first step.

        Args:
            sources: what the phase trains on, as stored, and what is replayed beside it where anything is.

        Returns:
            For each source (n,) int64, 0 where a sample is of no interest; what other marks mean is the observer's.
        """

    def step(self, marks: Tensor) -> AbstractContextManager[None]:
        """Be entered before an optimiser's step for a batch that holds a marked sample, and left after it.

        Args:
            marks: (b,) int64, of the batch's samples.
        """


class Context:
    """One step's services. A new one is made for every task; nothing of it is carried.

    Attributes:
        seed: of training.
        step: index of the task being learned, from 0.
        device: where networks and batches go.
        paper: whether the budget counts as published (parameters and nominal images only).
        cost: filled while learning.
    """

    def __init__(
        self,
        *,
        seed: int,
        step: int,
        trainer: TrainerOptions,
        device: torch.device,
        augment: Augment | None,
        budget: Budget,
        planned: Sequence[int],
        progress: Progress,
        make: Callable[[], Strategy] | None = None,
        beside: Callable[[Any], int] | None = None,
        shelf: Shelf | None = None,
    ) -> None:
        self.seed = seed
        self.step = step
        self.device = device
        self.paper = budget.count == "paper"
        self.cost = Cost()
        self._trainer = trainer
        self._augment = augment
        self._budget = budget
        self._planned = planned
        self._progress = progress
        self._make = make
        self._beside = beside
        self._shelf = shelf
        self._fits = 0
        self._observer: Observer | None = None

    def fit(
        self,
        module: nn.Module,
        data: Samples,
        recipe: Recipe | None = None,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        beside: Sequence[nn.Module] = (),
        replay: tuple[Samples, int] | None = None,
        augment: bool = True,
        rates: Sequence[tuple[nn.Module, float]] = (),
        after_step: Callable[[], None] | None = None,
    ) -> None:
        """Train a module's trainable parameters for one phase, with a fresh optimiser and a fresh Lightning Trainer.

        Args:
            module: what is trained; put into training mode first.
            data: samples, shuffled anew each epoch.
            recipe: epochs, optimiser, schedule.
            loss: (inputs, targets) -> (b,), or a scalar that is a mean over the batch; default is the module's own
                `losses`. Several processes call it with a share of the batch each: a loss in which samples of a batch
                meet is a reason for the learner's `alone`.
            beside: networks that the loss asks but that are not trained, such as a teacher: moved along, evaluated,
                weighed as transient.
            replay: (stored samples, how many are drawn from them, with replacement, beside each batch).
            augment: apply the stream's augmentation.
            rates: parts of the module that learn at another rate: (part, factor of the recipe's rate).
            after_step: called after each step of the optimiser; may change weights, as a merge or a projection does.
        """
        from clearn.fit import fit
        from clearn.launch import this_process

        self._fits += 1
        rank = this_process().rank
        fit(
            module,
            data,
            recipe or Recipe(),
            loss=loss,
            beside=beside,
            replay=replay,
            augment=self._augment if augment else None,
            rng=lambda purpose: self.rng(f"fit{self._fits}/{purpose}"),
            scope=seeds.scope(self.seed, self.step, f"fit{self._fits}" + (f"/rank{rank}" if rank else "")),
            options=self._trainer,
            device=self.device,
            cost=self.cost,
            progress=self._progress,
            observer=self._observer,
            rates=rates,
            after_step=after_step,
        )

    @contextmanager
    def elsewhere(
        self, epochs: int, samples: int
    ) -> Iterator[tuple[Callable[[Tensor], Tensor] | None, Callable[[int, int], None]]]:
        """Clock and show a training phase that foreign code carries out, in the precision of training.

        Args:
            epochs: of the phase.
            samples: of one epoch.

        Yields:
            (the stream's augmentation of a batch with draws of this phase, or None; what is to be told the epoch, from
            0, and the samples trained on so far).
        """
        self._fits += 1
        augment, draws = self._augment, self.rng(f"fit{self._fits}/augment")
        self._progress.phase(epochs, samples * epochs)
        started = time.perf_counter()
        with self.autocast():
            yield None if augment is None else (lambda batch: augment(batch, draws)), self._progress.tick
        self.cost.train_seconds += time.perf_counter() - started

    def meta_train(
        self,
        reader: Reader,
        upstream: Upstream,
        recipe: MetaRecipe,
        loss: Callable[[Sequence[Row]], Tensor],
        after_step: Callable[[torch.optim.Optimizer], None] | None = None,
        rates: Sequence[tuple[nn.Module, float]] = (),
    ) -> None:
        """Train a reader before its stream begins, or take what an equal training learned from the cache.

        Args:
            reader: has the weights of its best epoch afterwards, and an empty memory.
            upstream: rows of the train split are trained on; the val split is read, and asked, after each epoch.
            recipe: epochs, rates, when to stop.
            loss: of a batch of rows whose documents are distinct, scalar; called in training mode with seeded dropout.
            after_step: called after each step of the optimiser, with it.
            rates: parts that learn at another rate: (part, factor of the recipe's rate).
        """
        from clearn.meta import meta_train
        from clearn.preparations import Shelf

        history = meta_train(
            reader,
            upstream,
            recipe,
            loss,
            ctx=self,
            progress=self._progress,
            shelf=self._shelf or Shelf(),
            options=self._trainer,
            after_step=after_step,
            rates=rates,
        )
        if history.f1:
            self.log("meta/epochs", len(history.f1))
            self.log("meta/best_epoch", history.best + 1)
            self.log("meta/f1", max(history.f1))
            self.log("meta/loss", history.losses[history.best])
            self.log("meta/seconds", sum(history.seconds))
            self.log("meta/rows", history.samples)

    @contextmanager
    def observed(self, observer: Observer) -> Iterator[None]:
        """Have an observer look on at the steps of every `fit` inside."""
        before, self._observer = self._observer, observer
        try:
            yield
        finally:
            self._observer = before

    def autocast(self) -> AbstractContextManager[object]:
        """Forward passes outside of `fit` in the precision of training."""
        from clearn.precision import autocast

        return autocast(self._trainer.precision, self.device)

    def rng(self, purpose: str) -> torch.Generator:
        """A generator for one purpose in this step; the same purpose gives the same draws again."""
        return seeds.generator(self.seed, self.step, purpose)

    def fresh(self) -> Strategy:
        """A learner of the same config that has learned nothing; its first weights are drawn anew for this step."""
        assert self._make is not None, "this context was made without an experiment"
        with seeds.scope(self.seed, self.step, "fresh"):
            return self._make().to(self.device)

    def room(self, learner: Learner, state: State) -> int | None:
        """Bytes left beside what is given and what an unlearner keeps, in the budget's own counting; None: no limit.

        Args:
            learner: names the categories of the entries.
            state: everything else that will be carried over the coming boundary, e.g. `strategy.model_state()`.
        """
        counted = self._budget.counted(account(freeze(state), learner.category))
        if self._beside is not None and not self.paper:
            counted += self._beside(learner)
        return self._budget.room(counted, self.step, self._planned)

    def log(self, name: str, value: float) -> None:
        """Keep a figure of this step for the run folder."""
        self.cost.logged[name] = float(value)
