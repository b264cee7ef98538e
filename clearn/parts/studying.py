"""A language model that studies documents, one step of Adam each, and is then asked without them.

What uniform and salient-span fine-tuning share; they differ in which tokens count.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING

from clearn.errors import ConfigError, demand
from clearn.parts.language.options import Lm
from clearn.parts.prompting import Prompting
from clearn.parts.tuned_lm import TunedLM, Weigh, read
from clearn.stream import Document

if TYPE_CHECKING:
    from clearn.context import Context


class Studying(Prompting):
    """A language model all of whose weights are trained on what it reads.

    Args:
        lm: the language model, with weights in float32.
        lr: of Adam, above 0 and finite.
        clip: the gradient's norm is cut to this; 0 leaves it.

    Raises:
        ConfigError: lr or clip is out of range.
    """

    def __init__(self, lm: Lm, lr: float, clip: float) -> None:
        demand(
            ("lr", lr, lr > 0 and isfinite(lr), "above 0 and finite"),
            ("clip", clip, clip >= 0 and isfinite(clip), "0 or more and finite"),
        )
        super().__init__(lm, make=TunedLM)
        self.lr, self.clip = lr, clip

    @property
    def student(self) -> TunedLM:
        """The language model, as one that is trained."""
        assert isinstance(self.lm, TunedLM)
        return self.lm

    def study(self, documents: Sequence[Document], ctx: Context, weigh: Weigh | None = None) -> None:
        """Train on each document once, in order, and count what it cost.

        Args:
            documents: one that comes again is trained on again.
            ctx: told of steps, samples and transient bytes.
            weigh: a weight for each token of a document; None weighs all 1.

        Raises:
            Diverged: a loss or a weight is not finite.
        """
        with ctx.autocast():
            done = read(self.student, [document.text for document in documents], self.lr, self.clip, weigh)
        ctx.cost.optimizer_steps += done.steps
        ctx.cost.samples += done.steps
        ctx.cost.transient = max(ctx.cost.transient, done.transient)

    def restart(self, tuned: bool, method: str) -> None:
        """Have the checkpoint's weights again.

        Args:
            tuned: whether the weights were trained on questions before the first document.
            method: by which name a message speaks of the learner.

        Raises:
            ConfigError: they were tuned, and no copy of that is kept.
        """
        if tuned:
            raise ConfigError(
                f"{method} with tune keeps no second copy of its weights (4 bytes each) to go back to: load the state "
                "that was written before the first document"
            )
        self.student.reset()
