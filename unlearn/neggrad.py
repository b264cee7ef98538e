"""NegGrad: gradient ascent on the loss of the forgotten samples (Golatkar, Achille, Soatto, CVPR 2020, as a baseline).

The objective has no bound, so it is stopped by the number of epochs, and the learning rate (1e-6 to 1e-4 in
published tables) is small; too much of either destroys the model.

Kept from training until a request: nothing. Read at a request: the forgotten samples alone, which come with it.
Cost: `epochs` epochs over the forgotten samples (5 by default).
"""

from __future__ import annotations

from torch import Tensor

from clearn.context import Context
from clearn.parts.forgetting import thawed
from clearn.recipe import Recipe
from clearn.strategy import Strategy
from clearn.stream import Forget
from clearn.unlearner import Unlearner


class NegGrad(Unlearner):
    """Raise the loss on what has to go.

    Args:
        recipe: of the ascent; its number of epochs is what stops it.
    """

    def __init__(self, recipe: Recipe = Recipe(epochs=5, lr=1e-4, schedule="constant")) -> None:
        self.recipe = recipe

    def forget(self, strategy: Strategy, request: Forget, ctx: Context) -> None:
        """Minimise minus the strategy's own loss on the forgotten samples."""

        def ascent(inputs: Tensor, targets: Tensor) -> Tensor:
            return -strategy.losses(inputs, targets)

        with thawed(strategy):
            ctx.fit(strategy, request.forget, self.recipe, loss=ascent)
