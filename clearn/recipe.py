"""How one training phase goes: epochs, optimiser and learning-rate schedule, as plain values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from clearn.errors import demand

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch


@dataclass(frozen=True)
class Recipe:
    """One training phase.

    Attributes:
        epochs: passes over the phase's data.
        lr: learning rate of the first epoch.
        milestones: the rate is multiplied by `decay` after that many epochs (schedule "step").
        decay: see milestones.
        schedule: "step", "cosine" (to 0 over the phase, stepped once an epoch), "quarter_cosine" (along the first
            quarter of its wave, to 0.016 in the last epoch) or "constant".
        batch_size: samples a step; the last batch of an epoch is kept, however small.
        optimizer: "sgd" (momentum, weight decay, optionally Nesterov), "adam" or "adamw".
        momentum: of SGD.
        weight_decay: on every trained parameter, biases and BatchNorm included.
        nesterov: of SGD.
    """

    epochs: int = 10
    lr: float = 0.1
    milestones: tuple[int, ...] = ()
    decay: float = 0.1
    schedule: Literal["step", "cosine", "quarter_cosine", "constant"] = "step"
    batch_size: int = 128
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    momentum: float = 0.9
    weight_decay: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        demand(
            ("epochs", self.epochs, 1 <= self.epochs <= 10**6, "in [1, 10^6]"),
            ("lr", self.lr, self.lr > 0 and math.isfinite(self.lr), "above 0 and finite"),
            ("decay", self.decay, 0 < self.decay <= 1, "in (0, 1]"),
            ("batch_size", self.batch_size, 1 <= self.batch_size < 2**31, "in [1, 2^31)"),
            ("momentum", self.momentum, 0 <= self.momentum < 1, "in [0, 1)"),
            ("weight_decay", self.weight_decay, 0 <= self.weight_decay < math.inf, "0 or more and finite"),
            ("milestones", self.milestones, all(m >= 1 for m in self.milestones), "epochs of 1 or later"),
            ("nesterov", self.nesterov, not self.nesterov or self.momentum > 0, "false where momentum is 0"),
        )

    def optimizer_for(
        self, parameters: Iterable[torch.nn.Parameter] | Iterable[dict[str, Any]]
    ) -> torch.optim.Optimizer:
        """A fresh optimiser over the parameters given, or over torch's groups of them."""
        import torch

        if self.optimizer == "sgd":
            return torch.optim.SGD(
                parameters,
                lr=self.lr,
                momentum=self.momentum,
                weight_decay=self.weight_decay,
                nesterov=self.nesterov,
                fused=True,
            )
        kind = torch.optim.Adam if self.optimizer == "adam" else torch.optim.AdamW
        return kind(parameters, lr=self.lr, weight_decay=self.weight_decay, fused=True)

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0.

        >>> [round(Recipe(epochs=4, lr=1.0, milestones=(2, 3)).rate(e), 4) for e in range(4)]
        [1.0, 1.0, 0.1, 0.01]

        "quarter_cosine" is cos(99 pi e / (200 (E - 1))), as CODA-Prompt's code has it (Smith et al. 2023).

        >>> [round(Recipe(epochs=3, lr=1.0, schedule="quarter_cosine").rate(e), 4) for e in range(3)]
        [1.0, 0.7126, 0.0157]
        """
        if self.schedule == "constant":
            return self.lr
        if self.schedule == "cosine":
            return self.lr * (1 + math.cos(math.pi * epoch / self.epochs)) / 2
        if self.schedule == "quarter_cosine":
            return self.lr * math.cos(0.495 * math.pi * epoch / max(self.epochs - 1, 1))
        return self.lr * self.decay ** sum(epoch >= milestone for milestone in self.milestones)


@dataclass(frozen=True)
class MetaRecipe:
    """Training before a document stream begins: a step is a batch of rows, each a document and a question about it.

    Attributes:
        epochs: at most so many passes over the upstream questions; 0 trains nothing.
        lr: learning rate after the warm-up.
        optimizer: "adam" or "adamw".
        weight_decay: on every trained parameter.
        batch_size: rows a step; their documents are distinct, so that each is a distractor for the others.
        accumulate: batches whose gradients are averaged before a step of the optimiser.
        warmup: share of all steps in which the rate rises to `lr`.
        schedule: "constant", or "cosine" to a tenth of `lr` over all steps.
        clip: the gradient's norm is cut to this; 0 leaves it.
        patience: training ends after so many epochs without a better F1 on the validation split; 0 never ends it
            early. The weights of the best epoch are kept either way.
        val_questions: so many questions of the validation split, evenly spaced, are asked after each epoch.
        seed: of the order and all draws; the run's own seed does not move it, so runs share one preparation.
    """

    epochs: int = 10
    lr: float = 3e-4
    optimizer: Literal["adam", "adamw"] = "adam"
    weight_decay: float = 0.0
    batch_size: int = 8
    accumulate: int = 1
    warmup: float = 0.01
    schedule: Literal["constant", "cosine"] = "constant"
    clip: float = 1.0
    patience: int = 3
    val_questions: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        demand(
            ("epochs", self.epochs, 0 <= self.epochs <= 10**6, "in [0, 10^6]"),
            ("lr", self.lr, self.lr > 0 and math.isfinite(self.lr), "above 0 and finite"),
            ("weight_decay", self.weight_decay, 0 <= self.weight_decay < math.inf, "0 or more and finite"),
            ("batch_size", self.batch_size, 1 <= self.batch_size < 2**31, "in [1, 2^31)"),
            ("accumulate", self.accumulate, 1 <= self.accumulate < 2**31, "in [1, 2^31)"),
            ("warmup", self.warmup, 0 <= self.warmup <= 1, "in [0, 1]"),
            ("clip", self.clip, 0 <= self.clip < math.inf, "0 or more and finite"),
            ("patience", self.patience, 0 <= self.patience < 2**31, "0 or more"),
            ("val_questions", self.val_questions, 1 <= self.val_questions < 2**31, "1 or more"),
            ("seed", self.seed, 0 <= self.seed < 2**63, "in [0, 2^63)"),
        )

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step of the optimiser, counted from 0, of so many in all.

        >>> [round(MetaRecipe(lr=1.0, warmup=0.5, schedule="cosine").rate(s, 4), 3) for s in range(4)]
        [0.5, 1.0, 1.0, 0.55]
        """
        rising = round(self.warmup * steps)
        if step < rising:
            return self.lr * (step + 1) / rising
        if self.schedule == "constant":
            return self.lr
        along = (step - rising) / max(steps - rising, 1)
        return self.lr * (0.1 + 0.9 * (1 + math.cos(math.pi * along)) / 2)

    def optimizer_for(
        self, parameters: Iterable[torch.nn.Parameter] | Iterable[dict[str, Any]]
    ) -> torch.optim.Optimizer:
        """A fresh optimiser over the parameters given, or over torch's groups of them."""
        import torch

        kind = torch.optim.Adam if self.optimizer == "adam" else torch.optim.AdamW
        return kind(parameters, lr=self.lr, weight_decay=self.weight_decay, fused=True)


FIRST_TASK = Recipe(epochs=200, milestones=(60, 120, 170), weight_decay=5e-4)
"""How the PyCIL toolbox and MEMO's code train the first task for every method."""
