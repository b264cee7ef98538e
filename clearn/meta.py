"""Meta-training: what a reader learns before its stream begins, kept by content so that no run repeats it.

Epoch by epoch: one fresh Lightning Trainer each, a checkpoint after it, and an F1 on the validation split. A training
that was killed goes on after its last whole epoch with the same bits; one that is finished is taken from the cache by
every run of the same method, options, data and weights, whatever its budget, its stream or its own seed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from clearn import seeds
from clearn.errors import DataError, Diverged
from clearn.fit import quiet
from clearn.locks import in_turn
from clearn.parts.answers import f1
from clearn.preparations import History, Kept, Shelf
from clearn.recipe import MetaRecipe
from clearn.stream import Question, Row, Split, Upstream

if TYPE_CHECKING:
    from clearn.context import Context
    from clearn.options import TrainerOptions
    from clearn.progress import Progress
    from clearn.reader import Reader

Loss = Callable[[Sequence[Row]], Tensor]
AfterStep = Callable[[torch.optim.Optimizer], None]
Rates = Sequence[tuple[nn.Module, float]]


def meta_train(
    reader: Reader,
    upstream: Upstream,
    recipe: MetaRecipe,
    loss: Loss,
    *,
    ctx: Context,
    progress: Progress,
    shelf: Shelf,
    options: TrainerOptions,
    after_step: AfterStep | None = None,
    rates: Rates = (),
) -> History:
    """Train a reader's trainable parameters on upstream rows, or take what an equal training learned.

    Args:
        reader: what is trained; afterwards it has the weights of its best epoch.
        upstream: rows of its train split are trained on, its val split is read and asked after each epoch.
        recipe: epochs, rates, when to stop.
        loss: of a batch of rows, scalar.
        ctx: of the step.
        progress: what a person sees.
        shelf: where it is kept.
        options: of the trainer.
        after_step: called after each step of the optimiser, with it.
        rates: parts that learn at another rate: (part, factor of the recipe's rate).

    Raises:
        DataError: there is nothing to train or to validate on.
        Diverged: the loss stopped being finite.
    """
    rows = documented_rows(upstream.train)
    if not rows or not upstream.val.questions:
        raise DataError(
            f"the upstream split has {len(rows)} training rows and {len(upstream.val.questions)} validation questions, "
            "but meta-training needs both: give upstream data, or a method that needs none (bm25, closed_book)"
        )
    if not recipe.epochs:
        return History()
    training = _Training(reader, upstream, recipe, loss, ctx, progress, options, after_step, rates)
    folder = shelf.folder(reader, upstream, recipe)
    with nullcontext() if folder is None else in_turn(folder / "lock"):
        return training.run(folder)


def documented_rows(split: Split) -> list[list[Row]]:
    """The rows of each document that has questions."""
    return [[Row(document, question) for question in asked] for document, asked in split.documented()]


def batches(rows: Sequence[Sequence[Row]], size: int, rng: torch.Generator) -> list[list[Row]]:
    """One epoch: every row once, in batches whose documents are distinct, in a drawn order.

    The k-th rows of all documents that have so many are cut into batches; a batch at the end of such a round may be
    smaller. How many batches there are does not depend on the draw.
    """
    shuffled = [[one[i] for i in torch.randperm(len(one), generator=rng).tolist()] for one in rows]
    found: list[list[Row]] = []
    for round_ in range(max(map(len, shuffled), default=0)):
        of = [one[round_] for one in shuffled if len(one) > round_]
        order = torch.randperm(len(of), generator=rng).split(size)
        found += [[of[i] for i in part.tolist()] for part in order]
    return [found[i] for i in torch.randperm(len(found), generator=rng).tolist()]


class _Training:
    """One training on its way."""

    def __init__(
        self,
        reader: Reader,
        upstream: Upstream,
        recipe: MetaRecipe,
        loss: Loss,
        ctx: Context,
        progress: Progress,
        options: TrainerOptions,
        after_step: AfterStep | None,
        rates: Rates,
    ) -> None:
        self.reader, self.upstream, self.recipe, self.loss = reader, upstream, recipe, loss
        self.ctx, self.progress, self.options, self.after_step, self.rates = ctx, progress, options, after_step, rates
        self.rows = documented_rows(upstream.train)
        self.asked = evenly(upstream.val.questions, recipe.val_questions)
        self.history = History()
        self.moments: dict[str, Tensor] = {}

    def run(self, folder: Path | None) -> History:
        """Train until done; with a folder, go on from and leave checkpoints there."""
        kept = Kept(folder) if folder is not None else None
        found = kept.prepared() if kept else None
        if found is not None:
            weights, self.history = found
            self.progress.note(f"prepared before: validation F1 {100 * max(self.history.f1):.1f}, taken from the cache")
            self._take(weights)
            return self.history
        best: dict[str, Tensor] | None = None
        if kept and (newest := kept.newest()) is not None:
            weights, self.moments, best, self.history = newest
            self._take(weights)
            self.progress.note(f"meta-training goes on after epoch {len(self.history.f1)} of {self.recipe.epochs}")
        while not self.history.done(self.recipe):
            self._epoch(len(self.history.f1))
            if self.history.best == len(self.history.f1) - 1:
                best = self._weights()
            if kept:
                assert best is not None
                kept.put(self._weights(), self.moments, best, self.history)
        assert best is not None
        self._take(best)
        if kept:
            kept.finish(best, self.history)
        return self.history

    def _epoch(self, epoch: int) -> None:
        started = time.perf_counter()
        drawn = batches(self.rows, self.recipe.batch_size, seeds.generator(self.recipe.seed, epoch, "meta/order"))
        phase = _Phase(self, epoch, len(drawn))
        self.progress.prepare(epoch, self.recipe.epochs, sum(map(len, drawn)))
        with seeds.scope(self.recipe.seed, epoch, "meta/epoch"), quiet():
            trainer = Trainer(
                accelerator="gpu" if self.ctx.device.type == "cuda" else "cpu",
                devices=1,
                precision=self.options.precision,  # type: ignore[arg-type]
                max_epochs=1,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                use_distributed_sampler=False,
            )
            apart = torch.Generator()  # or the loader would draw from what dropout draws from
            trainer.fit(phase, train_dataloaders=DataLoader(_Batches(drawn), batch_size=None, generator=apart))
        self.reader.to(self.ctx.device)
        self.moments = phase.kept_moments()
        for inner in phase.modules():
            if isinstance(inner, LightningModule):
                inner._trainer = None
        mean = float(phase.running) / len(drawn)
        with seeds.scope(self.recipe.seed, epoch, "meta/validate"):
            score = self._validate()
        cost = self.ctx.cost
        seconds = time.perf_counter() - started
        cost.train_seconds += seconds
        cost.optimizer_steps += phase.steps
        cost.samples += phase.samples
        cost.transient = max(cost.transient, phase.transient)
        history = self.history
        history.losses.append(mean)
        history.f1.append(score)
        history.seconds.append(seconds)
        history.samples, history.steps = history.samples + phase.samples, history.steps + phase.steps
        self.progress.prepared(epoch, self.recipe.epochs, mean, score, seconds)

    @torch.no_grad()
    def _validate(self) -> float:
        """Mean F1 of the validation questions, after reading the validation documents into an empty memory."""
        reader = self.reader.eval()
        if reader.memory is not None:
            reader.clear()
            reader.take_in(self.upstream.val.documents, self.ctx)
        answers = reader.answer([question.query for question in self.asked])
        if reader.memory is not None:
            reader.clear()
        return sum(f1(said, asked.answer) for said, asked in zip(answers, self.asked, strict=True)) / len(self.asked)

    def _weights(self) -> dict[str, Tensor]:
        return {
            name: torch.as_tensor(value).detach().cpu().clone() for name, value in self.reader.model_state().items()
        }

    def _take(self, weights: dict[str, Tensor]) -> None:
        self.reader.load_state_dict(
            {name.removeprefix("model/"): value for name, value in weights.items()}, strict=False
        )


class _Phase(LightningModule):
    """Optimises a reader for one epoch."""

    def __init__(self, training: _Training, epoch: int, n_batches: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.reader = training.reader
        self.recipe, self.loss, self.after_step = training.recipe, training.loss, training.after_step
        self.factors = {id(p): factor for inner, factor in training.rates for p in inner.parameters()}
        self.moments, self.progress = training.moments, training.progress.tick
        self.epoch, self.n_batches = epoch, n_batches
        per_epoch = -(-n_batches // self.recipe.accumulate)
        self.before, self.all_steps = epoch * per_epoch, self.recipe.epochs * per_epoch
        self.steps = self.samples = self.transient = 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make an optimiser over what is trainable, with the moments of the epoch before."""
        groups: dict[float, list[nn.Parameter]] = {}
        self.trained = [p for p in self.reader.parameters() if p.requires_grad]
        if not self.trained:
            raise ValueError(
                f"{type(self.reader).__name__} has nothing to train: take the option meta out, or epochs: 0"
            )
        for parameter in self.trained:
            groups.setdefault(self.factors.get(id(parameter), 1.0), []).append(parameter)
        optimizer = self.recipe.optimizer_for([{"params": own, "factor": factor} for factor, own in groups.items()])
        for name, value in self.moments.items():
            index, _, key = name.partition("/")
            parameter = self.trained[int(index)]
            optimizer.state[parameter][key] = value.to(parameter.device if value.ndim else "cpu").clone()
        return optimizer

    def kept_moments(self) -> dict[str, Tensor]:
        """The optimiser's state, 'number of the parameter/name'."""
        state = self._optimizer().state
        return {
            f"{index}/{key}": value.detach().cpu().clone()
            for index, parameter in enumerate(self.trained)
            for key, value in sorted(state.get(parameter, {}).items())
        }

    def on_fit_start(self) -> None:
        """Set the mode here: Lightning leaves a module in evaluation mode between fits."""
        self.reader.train()
        self.running = torch.zeros((), device=self.device)

    def training_step(self, batch: _Batch, index: int) -> None:
        """Backward for a batch; a step of the optimiser after every `accumulate` of them and at the end."""
        group = index - index % self.recipe.accumulate
        end = min(group + self.recipe.accumulate, self.n_batches)
        loss = self.loss(batch.rows)
        (loss / (end - group)).backward()
        torch.clear_autocast_cache()  # an epoch lies within one autocast: casts made before a step are stale
        self.running += loss.detach()
        self.samples += len(batch.rows)
        if index + 1 == end:
            self._step()
        self.progress(self.epoch, self.samples)

    def on_train_epoch_end(self) -> None:
        """Look at the loss once."""
        if not bool(torch.isfinite(self.running)):
            raise Diverged(
                f"the loss of meta-training became {float(self.running)} in epoch {self.epoch + 1} "
                f"(lr={self.recipe.lr}): choose a smaller lr"
            )

    def _step(self) -> None:
        optimizer = self._optimizer()
        rate = self.recipe.rate(self.before + self.steps, self.all_steps)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        if self.recipe.clip:
            nn.utils.clip_grad_norm_(self.trained, self.recipe.clip)
        optimizer.step()
        if not self.transient:
            gradients = sum(p.grad.nbytes for p in self.trained if p.grad is not None)
            slots = [v for entry in optimizer.state.values() for v in entry.values() if isinstance(v, Tensor)]
            self.transient = gradients + sum(v.nbytes for v in slots)
        optimizer.zero_grad(set_to_none=True)
        if self.after_step is not None:
            self.after_step(optimizer)
        self.steps += 1

    def _optimizer(self) -> torch.optim.Optimizer:
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        return optimizer


class _Batch:
    """Rows as Lightning may carry them: it would look for tensors inside a list."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows

    def to(self, _: torch.device, **__: Any) -> _Batch:
        """Stay: a reader puts its own tensors where it is."""
        return self


class _Batches(Dataset[_Batch]):
    """An epoch's batches as items."""

    def __init__(self, drawn: Sequence[list[Row]]) -> None:
        self.drawn = drawn

    def __len__(self) -> int:
        return len(self.drawn)

    def __getitem__(self, index: int) -> _Batch:
        return _Batch(self.drawn[index])


def evenly(questions: Sequence[Question], most: int) -> list[Question]:
    """At most so many, evenly spaced.

    >>> [q.text for q in evenly([Question(str(i), "") for i in range(5)], 3)]
    ['0', '2', '4']
    """
    n = len(questions)
    if n <= most:
        return list(questions)
    return [questions[round(i * (n - 1) / max(most - 1, 1))] for i in range(most)]
