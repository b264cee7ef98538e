"""Exemplars as rehearsal methods use them: kept after training, mixed into the next, read out by nearest mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from clearn.parts.exemplars import Exemplars, Memory
from clearn.parts.herding import class_means, nearest_mean_scores
from clearn.parts.nets import embed
from clearn.parts.samples import Samples, TensorSamples, concat
from clearn.stream import Inputs, Task

if TYPE_CHECKING:
    from clearn.context import Context
    from clearn.strategy import Strategy

Features = Callable[[Tensor], Tensor]


class Rehearsal:
    """A store of exemplars, and the class means that follow from them.

    The means are never carried: they are computed from the decoded exemplars when first asked for.
    """

    def __init__(self, options: Memory, inputs: Inputs) -> None:
        self.exemplars = Exemplars(options, inputs)
        self._means: tuple[Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.exemplars)

    def state(self) -> dict[str, Tensor]:
        """The exemplars' tensors."""
        return self.exemplars.state()

    def load(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` returned."""
        self.exemplars.load(state)
        self._means = None

    @property
    def nominal_bytes(self) -> int:
        """Height x width x 3 bytes an image."""
        return len(self) * self.exemplars.paper_bytes

    def forget(self, samples: Samples, classes: Sequence[int] = ()) -> int:
        """Throw out the exemplars of some samples and of whole classes; the means follow. Gives how many."""
        self._means = None
        return self.exemplars.forget(samples, classes)

    def samples(self) -> TensorSamples:
        """All exemplars, decoded."""
        return self.exemplars.samples()

    def keep(self, learner: Strategy, features: Features, task: Task, ctx: Context) -> None:
        """Cut what is stored and herd the new classes, as many as the options or the bytes left allow.

        Args:
            learner: whose model weighs beside the exemplars.
            features: raw inputs -> (b, d), by which samples are chosen.
            task: what was just learned.
            ctx: this step's services.
        """
        self._means = None

        def embedded(samples: Samples) -> Tensor:
            with ctx.autocast():
                return embed(learner, features, samples)

        self.exemplars.update(
            task.train,
            embedded,
            n_classes=len(learner.classes),
            room=ctx.room(learner, learner.model_state()),
            rng=ctx.rng("exemplars"),
            paper=ctx.paper,
        )

    def read(self, learner: Strategy, features: Features, head: nn.Module | None, inputs: Tensor) -> dict[str, Tensor]:
        """Both read-outs, the classifier and the nearest mean of exemplars, from the same features.

        Args:
            learner: its classes are the columns.
            features: raw inputs -> (b, d).
            head: (b, d) -> (b, C) logits.
            inputs: (b, *shape) raw inputs.
        """
        assert head is not None, "grow first"
        found = features(inputs)
        return {"classifier": head(found), "nme": self.nearest(learner, features, found)}

    @torch.no_grad()
    def nearest(self, learner: Strategy, features: Features, queries: Tensor) -> Tensor:
        """Score by the nearest mean of exemplars (iCaRL, Rebuffi et al. 2017, Alg. 1).

        Args:
            learner: its classes are the columns.
            features: raw inputs -> (b, d).
            queries: (b, d) features to classify.

        Returns:
            (b, C) minus squared distances between normalised vectors; -inf for a class without exemplars.
        """
        if self._means is None:
            stored, n_classes = self.samples(), len(learner.classes)
            held = embed(learner, features, stored).reshape(len(stored), queries.shape[1])
            self._means = (
                class_means(held, stored.labels, n_classes),
                torch.bincount(stored.labels, minlength=n_classes) > 0,
            )
        means, present = (part.to(queries.device) for part in self._means)
        return nearest_mean_scores(queries, means, present)


def with_memory(new: Samples, stored: Samples) -> Samples:
    """New samples and stored ones, one after the other."""
    return concat([new, stored]) if len(stored) else new
