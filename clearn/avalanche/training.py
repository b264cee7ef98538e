"""One task of an Avalanche strategy under our recipe: its optimiser, rates, augmentation, clocks and counts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from clearn.errors import Diverged, UserError
from clearn.recipe import Recipe

if TYPE_CHECKING:
    from clearn.context import Context


class Phase:
    """What happens around the steps of one task.

    Args:
        recipe: epochs, rates.
        augment: changes a batch of raw inputs, or None.
        ctx: this step's services.
        tick: is told (epoch, samples so far).
        floats: hand inputs over as float32, for methods that keep them so.
    """

    def __init__(
        self,
        recipe: Recipe,
        augment: Callable[[Tensor], Tensor] | None,
        ctx: Context,
        tick: Callable[[int, int], None],
        floats: bool = False,
    ) -> None:
        self.floats = floats
        self.recipe, self.augment, self.cost, self.tick = recipe, augment, ctx.cost, tick
        self.epoch = self.samples = 0
        self.running = torch.zeros(())

    def begin_epoch(self, strategy: Any) -> None:
        """Set the rate of the epoch."""
        self.running = torch.zeros((), device=strategy.device)
        for group in strategy.optimizer.param_groups:
            group["lr"] = self.recipe.rate(self.epoch)

    def begin_step(self, strategy: Any) -> None:
        """Change the batch."""
        if self.augment is not None:
            pixels = strategy.mbatch[0]  # floats where a memory that holds floats, of whole numbers, joined the batch
            strategy.mbatch[0] = self.augment(pixels if pixels.dtype == torch.uint8 else pixels.round().byte())
        if self.floats:
            strategy.mbatch[0] = strategy.mbatch[0].float()

    def end_step(self, strategy: Any) -> None:
        """Count."""
        self.running += strategy.loss.detach().sum()
        self.samples += len(strategy.mb_y)
        self.cost.optimizer_steps += 1
        self.cost.samples += len(strategy.mb_y)
        self.tick(self.epoch, self.samples)

    def end_epoch(self, strategy: Any) -> None:
        """Look at the loss, and after the first epoch at gradients and optimiser.

        Raises:
            Diverged: the loss stopped being finite.
        """
        if not bool(torch.isfinite(self.running)):
            raise Diverged(
                f"the training loss of {type(strategy).__name__} became {float(self.running)} in epoch "
                f"{self.epoch + 1} of {self.recipe.epochs} (lr={self.recipe.lr}): choose a smaller lr, or a smaller "
                "weight of the method's own term"
            )
        if self.epoch == 0:
            gradients = [p.grad for p in strategy.model.parameters() if p.grad is not None]
            slots = [v for one in strategy.optimizer.state.values() for v in one.values() if isinstance(v, Tensor)]
            self.cost.transient = max(self.cost.transient, sum(t.nbytes for t in (*gradients, *slots)))
        self.epoch += 1


def hook(strategy: Any) -> Any:
    """Add the plugin that calls a phase; the method's own plugins come after it. Its `phase` is None between tasks."""
    found = _plugin_class()()
    strategy.plugins.insert(0, found)
    return found


@cache
def _plugin_class() -> Any:
    from avalanche.training.plugins import SupervisedPlugin

    class PhasePlugin(SupervisedPlugin):
        """Hands Avalanche's callbacks to the phase at hand."""

        phase: Phase | None = None

        def before_training_epoch(self, strategy: Any, **_: Any) -> None:
            """Begin an epoch."""
            if self.phase is not None:
                self.phase.begin_epoch(strategy)

        def before_training_iteration(self, strategy: Any, **_: Any) -> None:
            """Begin a step."""
            if self.phase is not None:
                self.phase.begin_step(strategy)

        def after_training_iteration(self, strategy: Any, **_: Any) -> None:
            """End a step."""
            if self.phase is not None:
                self.phase.end_step(strategy)

        def after_training_epoch(self, strategy: Any, **_: Any) -> None:
            """End an epoch."""
            if self.phase is not None:
                self.phase.end_epoch(strategy)

    return PhasePlugin


@contextmanager
def silent() -> Iterator[None]:
    """Silence what Avalanche says of its own older interfaces, which it still uses itself; pass all else on.

    Where it sets its own filters while it warns, a filter of ours would not do: those warnings are caught.
    """
    with warnings.catch_warnings(record=True) as said:
        warnings.filterwarnings("ignore", module=r"avalanche\.")
        yield
    for one in said:
        if "avalanche" not in Path(one.filename).parts:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


def train(strategy: Any, plugin: Any, experience: Any, recipe: Recipe, phase: Phase, device: torch.device) -> None:
    """Train on an experience with a fresh optimiser, and leave neither it nor gradients behind.

    Args:
        strategy: Avalanche's.
        plugin: as `hook` made it.
        experience: of the task.
        recipe: how to train.
        phase: called around steps.
        device: where to compute.
    """
    as_made = strategy.train_epochs, strategy.train_mb_size
    strategy.device = device
    strategy.train_epochs, strategy.train_mb_size = recipe.epochs, recipe.batch_size
    strategy.optimizer, strategy.optimized_param_id = _optimizer(strategy.model, recipe), None
    plugin.phase = phase
    try:
        with silent():
            strategy.train(experience, eval_streams=[])
    except UserError:
        raise
    except Exception as error:
        error.add_note(f"raised while {type(strategy).__name__} of Avalanche trained, in that library's own code")
        raise
    finally:
        plugin.phase = None
        strategy.model.zero_grad(set_to_none=True)
        strategy.optimizer = strategy.optimized_param_id = None
        strategy.train_epochs, strategy.train_mb_size = as_made


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    return recipe.optimizer_for(p for p in model.parameters() if p.requires_grad)
