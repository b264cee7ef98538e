"""CF-k: catastrophic forgetting of the last k layers (Goel et al. 2022).

All but the last k layers are frozen, BatchNorm statistics included; the rest is fine-tuned on what stays. What the
first layers hold of the forgotten samples stays there.

Kept from training until a request: nothing of its own. Read at a request: what stays, or the strategy's exemplars.
Cost: `epochs` epochs over what stays (10 by default), the backward pass through the last layers alone.
"""

from __future__ import annotations

from torch import Tensor

from clearn.context import Context
from clearn.parts.forgetting import split_layers, thawed
from clearn.recipe import Recipe
from clearn.strategy import Strategy
from clearn.stream import Forget
from clearn.unlearner import Unlearner, remaining


class CfK(Unlearner):
    """Fine-tune the last layers on what stays.

    Args:
        k: how many layers are trained, in the order in which they were registered, the head first; a norm belongs to
            the layer before it.
        recipe: of the training.
    """

    looks_back = True

    def __init__(
        self,
        k: int = 2,
        recipe: Recipe = Recipe(epochs=10, lr=0.01, schedule="constant", batch_size=256, weight_decay=5e-4),
    ) -> None:
        self.k, self.recipe = k, recipe

    def forget(self, strategy: Strategy, request: Forget, ctx: Context) -> None:
        """Freeze the first layers for the time of one training."""
        kept = remaining(strategy, request)
        frozen, _ = split_layers(strategy, self.k)

        def loss(inputs: Tensor, targets: Tensor) -> Tensor:
            for layer in frozen:
                layer.eval()  # training began with train()
            return strategy.losses(inputs, targets)

        with thawed(strategy):
            for layer in frozen:
                layer.requires_grad_(False)
            ctx.fit(strategy, kept, self.recipe, loss=loss)
