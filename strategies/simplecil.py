"""SimpleCIL: class means of a frozen pretrained network, compared by cosine (Zhou et al., IJCV 2024, section 3.3).

Nothing is trained and every sample is looked at once, so the order of the tasks and how classes are split into them
change nothing; a class that comes back adds to its mean.

Carried: one prototype a class, 4 C d bytes. The backbone equals its checkpoint and is not carried.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from clearn.context import Context
from clearn.parts.cosine import Prototypes
from clearn.parts.frozen_vit import FrozenViT, Vit
from clearn.parts.nets import embed
from clearn.strategy import Strategy
from clearn.stream import Inputs, Task, TaskInfo


class SimpleCil(Strategy):
    """P_c = mean of phi(x) over class c; the answer is the class of the largest cos(phi(x), P_c).

    Args:
        inputs: what one input of the stream looks like.
        vit: the pretrained backbone.
    """

    categories: ClassVar[dict[str, str]] = {"model/prototypes": "prototypes"}

    def __init__(self, inputs: Inputs, vit: Vit = Vit()) -> None:
        super().__init__(inputs)
        self.vit = FrozenViT(inputs, vit)
        self.prototypes = Prototypes(self.vit.width)

    def grow(self, info: TaskInfo) -> None:
        """Make room for a prototype of each new class."""
        super().grow(info)
        self.prototypes.grow(len(self.classes))

    def learn(self, task: Task, ctx: Context) -> None:
        """Look at every sample once, as it is: without augmentation."""
        self.grow(task.info)
        with ctx.autocast():
            features = embed(self, self.vit, task.train, batch=100)
        self.prototypes.add(features, task.train.labels)

    def predict(self, inputs: Tensor) -> Tensor:
        """(b, C) cosines."""
        cosines: Tensor = self.prototypes(self.vit(inputs))
        return cosines
