"""Finetune: go on training on what stays and hope that the rest fades (catastrophic forgetting put to use).

Warnecke et al. 2021 and most tables since; the values are those of the SSD authors' code: SGD, learning rate 0.02,
5 epochs. Other lineages take 0.01 and 10 epochs.

Kept from training until a request: nothing of its own. Read at a request: what stays, or the strategy's exemplars.
Cost: `epochs` epochs over what stays (5 by default).
"""

from __future__ import annotations

from clearn.context import Context
from clearn.parts.forgetting import thawed
from clearn.recipe import Recipe
from clearn.strategy import Strategy
from clearn.stream import Forget
from clearn.unlearner import Unlearner, remaining


class Finetune(Unlearner):
    """Train the whole network on the samples that stay.

    Args:
        recipe: of the training.
    """

    looks_back = True

    def __init__(self, recipe: Recipe = Recipe(epochs=5, lr=0.02, schedule="constant", weight_decay=5e-4)) -> None:
        self.recipe = recipe

    def forget(self, strategy: Strategy, request: Forget, ctx: Context) -> None:
        """Minimise the strategy's own loss on what stays."""
        with thawed(strategy):
            ctx.fit(strategy, remaining(strategy, request), self.recipe)
