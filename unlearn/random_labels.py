"""Random labels: learn wrong answers for what goes, beside the right ones for what stays (Golatkar et al. 2020).

Each forgotten sample is given once a label drawn uniformly from the other classes (for class requests: from the
classes that stay), then the network is trained on both sets together. The SSD authors' code calls it "amnesiac",
though Amnesiac unlearning (Graves et al. 2021) takes logged updates back. Adam, 1e-4, batch 128, 3 epochs as there.

Kept from training until a request: nothing of its own. Read at a request: the forgotten samples and what stays, or
the strategy's exemplars. Cost: `epochs` epochs over both (3 by default).
"""

from __future__ import annotations

from clearn.context import Context
from clearn.parts.forgetting import Relabelled, thawed, wrong_labels
from clearn.parts.samples import concat
from clearn.recipe import Recipe
from clearn.strategy import Strategy
from clearn.stream import Forget
from clearn.unlearner import Unlearner, remaining


class RandomLabels(Unlearner):
    """Train on what stays and on what goes under wrong labels.

    Args:
        recipe: of the training.
    """

    looks_back = True

    def __init__(
        self, recipe: Recipe = Recipe(epochs=3, lr=1e-4, schedule="constant", batch_size=128, optimizer="adam")
    ) -> None:
        self.recipe = recipe

    def forget(self, strategy: Strategy, request: Forget, ctx: Context) -> None:
        """Relabel once, then minimise the strategy's own loss on everything."""
        forgotten, rng = request.request.classes, ctx.rng("wrong labels")
        wrong = wrong_labels(request.forget.labels, strategy.classes, forgotten, rng)
        data = concat([remaining(strategy, request), Relabelled(request.forget, wrong)])
        with thawed(strategy):
            ctx.fit(strategy, data, self.recipe)
