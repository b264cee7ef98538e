"""EU-k: exact unlearning of the last k layers (Goel et al. 2022).

The last k layers are drawn anew and trained by a full schedule on what stays; all others are frozen, BatchNorm
statistics included. Exact for the last layers as far as the first ones hold nothing of the forgotten samples.

Kept from training until a request: nothing of its own, since first weights come from a seed. Read at a request: what
stays, or the strategy's exemplars. Cost: `epochs` epochs over what stays (200 by default, the recipe of a first
task), the backward pass through the last layers alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from clearn.context import Context
from clearn.parts.forgetting import split_layers, thawed
from clearn.recipe import FIRST_TASK, Recipe
from clearn.strategy import Strategy
from clearn.stream import Forget
from clearn.unlearner import Unlearner, remaining


class EuK(Unlearner):
    """Retrain the last layers from fresh weights on what stays.

    Args:
        k: how many layers are drawn anew, in the order in which they were registered, the head first; a norm belongs
            to the layer before it.
        recipe: of the training; give it the schedule that the network was trained by.
    """

    looks_back = True

    def __init__(self, k: int = 2, recipe: Recipe = FIRST_TASK) -> None:
        self.k, self.recipe = k, recipe

    def forget(self, strategy: Strategy, request: Forget, ctx: Context) -> None:
        """Give the last layers the values of a fresh strategy, then train them."""
        kept = remaining(strategy, request)
        frozen, last = split_layers(strategy, self.k)
        fresh = ctx.fresh()
        for info in strategy.seen:
            fresh.grow(info)
        with torch.no_grad():
            for layer, drawn in zip(last, split_layers(fresh, self.k)[1], strict=True):
                mine, new = ([*m.parameters(recurse=False), *m.buffers(recurse=False)] for m in (layer, drawn))
                for value, first in zip(mine, new, strict=True):
                    value.copy_(first)

        def loss(inputs: Tensor, targets: Tensor) -> Tensor:
            for layer in frozen:
                layer.eval()  # training began with train()
            return strategy.losses(inputs, targets)

        with thawed(strategy):
            for layer in frozen:
                layer.requires_grad_(False)
            ctx.fit(strategy, kept, self.recipe, loss=loss)
