"""NegGrad+: descend on what stays and ascend on what goes, in one step (Kurmanji et al., NeurIPS 2023, section 4).

L = a CE(kept batch) - (1 - a) CE(forgotten batch) [+ pull ||theta - theta_o||^2 / 2], a close to 1: 0.95 for small
nets and forget sets, 0.9999 for large ones. The two batches pass the network one after the other, so that BatchNorm
does not mix them. Released code cycles through the forgotten samples; here each step draws its forgotten batch with
replacement, which has the same mean.

Kept from training until a request: nothing of its own. Read at a request: the forgotten samples and what stays, or
the strategy's exemplars. Cost: `epochs` epochs over what stays, each with as many forgotten samples again (10 -> 20).
"""

from __future__ import annotations

from torch import Tensor

from clearn.context import Context
from clearn.errors import ConfigError
from clearn.parts.forgetting import Relabelled, thawed
from clearn.recipe import Recipe
from clearn.strategy import Strategy
from clearn.stream import Forget
from clearn.unlearner import Unlearner, remaining


class NegGradPlus(Unlearner):
    """Weigh descent on what stays against ascent on what goes.

    Args:
        keep: a, the weight of what stays, in (0, 1); the ascent has 1 - a.
        pull: weight of the squared distance to the weights at the request; 0 leaves it out.
        recipe: of the training; a step takes `batch_size` kept samples and as many forgotten ones.
    """

    looks_back = True

    def __init__(
        self,
        keep: float = 0.95,
        pull: float = 0.0,
        recipe: Recipe = Recipe(epochs=10, lr=0.01, schedule="constant", weight_decay=5e-4),
    ) -> None:
        if not 0 < keep < 1 or pull < 0:
            raise ConfigError(f"keep={keep} must lie in (0, 1), and pull={pull} must be 0 or more")
        self.keep, self.pull, self.recipe = keep, pull, recipe

    def forget(self, strategy: Strategy, request: Forget, ctx: Context) -> None:
        """Train on kept batches, each with a forgotten batch beside it whose labels are marked as -1 - label."""
        start = [p.detach().clone() for p in strategy.parameters()] if self.pull else []

        def loss(inputs: Tensor, targets: Tensor) -> Tensor:
            goes = targets < 0
            kept = strategy.losses(inputs[~goes], targets[~goes]).mean()
            gone = strategy.losses(inputs[goes], -1 - targets[goes]).mean()
            total: Tensor = self.keep * kept - (1 - self.keep) * gone
            for parameter, origin in zip(strategy.parameters(), start, strict=bool(start)):
                total = total + self.pull / 2 * (parameter - origin).square().sum()
            return total

        marked = Relabelled(request.forget, -1 - request.forget.labels)
        with thawed(strategy):
            beside = (marked, min(self.recipe.batch_size, len(marked)))
            ctx.fit(strategy, remaining(strategy, request), self.recipe, loss=loss, replay=beside)
