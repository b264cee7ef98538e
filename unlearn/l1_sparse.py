"""l1-sparse: fine-tune on what stays while small weights are pressed to zero (Jia et al., NeurIPS 2023).

L = CE(kept) + gamma_e ||theta||_1, with gamma_e falling linearly from `gamma` in the first epoch to 0 in the last. The
paper's code starts at 5e-4 (later scripts 1e-4) with SGD at 0.01 for 10 epochs; its own ramp stops one step above 0.

Kept from training until a request: nothing of its own. Read at a request: what stays, or the strategy's exemplars.
Cost: `epochs` epochs over what stays (10 by default).
"""

from __future__ import annotations

from itertools import count

from torch import Tensor

from clearn.context import Context
from clearn.errors import ConfigError
from clearn.parts.forgetting import thawed
from clearn.recipe import Recipe
from clearn.strategy import Strategy
from clearn.stream import Forget
from clearn.unlearner import Unlearner, remaining


class L1Sparse(Unlearner):
    """Train on what stays under an l1 penalty that fades.

    Args:
        gamma: weight of the penalty in the first epoch.
        recipe: of the training.
    """

    looks_back = True

    def __init__(
        self,
        gamma: float = 5e-4,
        recipe: Recipe = Recipe(epochs=10, lr=0.01, schedule="constant", batch_size=256, weight_decay=5e-4),
    ) -> None:
        if gamma < 0:
            raise ConfigError(f"gamma={gamma} must be 0 or more")
        self.gamma, self.recipe = gamma, recipe

    def forget(self, strategy: Strategy, request: Forget, ctx: Context) -> None:
        """Minimise the strategy's own loss and the penalty of the epoch."""
        kept, step = remaining(strategy, request), count()
        steps_an_epoch = -(-len(kept) // self.recipe.batch_size)

        def loss(inputs: Tensor, targets: Tensor) -> Tensor:
            gamma = penalty(self.gamma, next(step) // steps_an_epoch, self.recipe.epochs)
            losses = strategy.losses(inputs, targets)
            if gamma:
                losses = losses + gamma * sum(p.abs().sum() for p in strategy.parameters())
            return losses

        with thawed(strategy):
            ctx.fit(strategy, kept, self.recipe, loss=loss)


def penalty(gamma: float, epoch: int, epochs: int) -> float:
    """Weight of the penalty in an epoch, counted from 0.

    >>> [penalty(1.0, e, 5) for e in range(5)]
    [1.0, 0.75, 0.5, 0.25, 0.0]
    """
    return gamma * (1 - epoch / (epochs - 1)) if epochs > 1 else gamma
