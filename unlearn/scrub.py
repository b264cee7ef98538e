"""SCRUB: turn away from the original on what goes, stay with it on what stays (Kurmanji et al., NeurIPS 2023, Alg. 1).

Teacher: the original. In the first `ascents` epochs one pass over the forgotten samples raises KL(teacher || student)
before the pass over what stays; every epoch lowers gamma CE + alpha KL(teacher || student) on what stays. KL has the
factor T^2, as in released code. The defaults are its large setting; the small one is gamma 1, alpha 0.5, temperature 2,
Adam at 5e-4 with weight decay 0.1, 10 epochs with decay after 5, 8 and 9, 3 ascents. Each pass has an optimiser of its
own here, released code keeps one. The variant that rewinds to a checkpoint (SCRUB+R) is another method.

Kept from training until a request: nothing of its own. Read at a request: the forgotten samples and what stays, or
the strategy's exemplars. Cost: `epochs` epochs over what stays (3) and `ascents` (2) over what goes, two forward
passes a step, one more network while it runs.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div

from clearn.context import Context
from clearn.errors import ConfigError
from clearn.parts.forgetting import classifier, frozen_copy, thawed
from clearn.recipe import Recipe
from clearn.strategy import Strategy
from clearn.stream import Forget
from clearn.unlearner import Unlearner, remaining


class Scrub(Unlearner):
    """Alternate between unlearning from a teacher and keeping to it.

    Args:
        gamma: weight of the cross-entropy on what stays.
        alpha: weight of the divergence from the original on what stays.
        temperature: T of the divergence.
        ascents: so many first epochs begin with a pass over what goes.
        forget_batch: batch size of that pass.
        recipe: of the passes over what stays; its schedule and optimiser are also those of the ascents.
    """

    looks_back = True

    def __init__(
        self,
        gamma: float = 0.99,
        alpha: float = 0.001,
        temperature: float = 4.0,
        ascents: int = 2,
        forget_batch: int = 32,
        recipe: Recipe = Recipe(epochs=3, lr=5e-4, weight_decay=5e-4),
    ) -> None:
        if not 0 <= ascents <= recipe.epochs or temperature <= 0 or forget_batch < 1:
            raise ConfigError(
                f"ascents={ascents} must lie in [0, recipe.epochs={recipe.epochs}], temperature={temperature} above 0 "
                f"and forget_batch={forget_batch} at 1 or more"
            )
        self.gamma, self.alpha, self.temperature = gamma, alpha, temperature
        self.ascents, self.forget_batch, self.recipe = ascents, forget_batch, recipe

    def forget(self, strategy: Strategy, request: Forget, ctx: Context) -> None:
        """Epoch by epoch: a pass of ascent while they last, then a pass of descent."""
        kept, teacher = remaining(strategy, request), frozen_copy(strategy)

        def divergence(inputs: Tensor, logits: Tensor) -> Tensor:
            with torch.no_grad():
                taught = classifier(teacher, inputs)
            soft, wanted = ((z / self.temperature).log_softmax(1) for z in (logits, taught))
            return kl_div(soft, wanted, reduction="none", log_target=True).sum(1) * self.temperature**2

        def ascent(inputs: Tensor, targets: Tensor) -> Tensor:
            return -divergence(inputs, classifier(strategy, inputs))

        def descent(inputs: Tensor, targets: Tensor) -> Tensor:
            logits = classifier(strategy, inputs)
            losses = cross_entropy(logits, targets, reduction="none")
            return self.gamma * losses + self.alpha * divergence(inputs, logits)

        with thawed(strategy):
            for epoch in range(self.recipe.epochs):
                once = replace(self.recipe, epochs=1, lr=self.recipe.rate(epoch), schedule="constant")
                if epoch < self.ascents:
                    turned = replace(once, batch_size=self.forget_batch)
                    ctx.fit(strategy, request.forget, turned, loss=ascent, beside=[teacher])
                ctx.fit(strategy, kept, once, loss=descent, beside=[teacher])
