"""The base of every method that learns a stream of tasks: structure, losses and read-outs.

A method's structure is a function of the classes seen (`grow`), its values are what `state` returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol

from torch import Tensor, nn

from clearn.learner import Carried, Learner
from clearn.stream import Inputs, Task, TaskInfo

if TYPE_CHECKING:
    from clearn.context import Context
    from clearn.parts.samples import Samples


class Store(Carried, Protocol):
    """A part that carries tensors of its own beside the network: exemplars, codes, statistics."""

    def forget(self, samples: Samples, classes: Sequence[int] = ()) -> int:
        """Throw out whatever it holds of some samples and of whole classes; give how many items went."""


class Strategy(Learner):
    """A continual learner of classes.

    Subclasses take the stream's `inputs` first and their options after it; the signature is the schema of their config.

    Attributes:
        readout: the name of the read-out that the method is judged by, a key of what `read` returns.
        inputs: what one input of the stream looks like.
    """

    readout: ClassVar[str] = "classifier"
    memory: Store | None

    def __init__(self, inputs: Inputs) -> None:
        super().__init__()
        self.inputs = inputs
        self._labels: set[int] = set()

    @property
    def classes(self) -> list[int]:
        """Labels seen so far, ascending."""
        return sorted(self._labels)

    def grow(self, info: TaskInfo) -> None:
        """Add the structure that a task needs; depends on `info`, earlier calls and the generator's seed alone."""
        super().grow(info)
        self._labels.update(info.classes)

    def learn(self, task: Task, ctx: Context) -> None:
        """Learn one task; a method with more phases spells them out."""
        self.grow(task.info)
        ctx.fit(self, task.train)
        self.finish(task, ctx)

    def finish(self, task: Task, ctx: Context) -> None:
        """Do what follows training: exemplars, prototypes, merges."""

    def predict(self, inputs: Tensor) -> Tensor:
        """Score the classes seen.

        Args:
            inputs: (b, *shape) raw inputs as stored.

        Returns:
            (b, C) float, higher is more likely; column j is label j. Changes nothing.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define predict")

    def read(self, inputs: Tensor) -> dict[str, Tensor]:
        """All read-outs of one batch: name -> (b, C) scores. The default has the classifier alone."""
        return {"classifier": self.predict(inputs)}

    def losses(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """(b,) loss of each sample; shared by training, unlearning and attacks. Default: cross-entropy of `predict`."""
        return nn.functional.cross_entropy(self.predict(inputs), targets, reduction="none")
