"""Bad teacher: imitate ignorance on what goes and the original on what stays (Chundawat et al., AAAI 2023).

A student that starts as the original learns KL(random network || student) on the forgotten samples and
KL(original || student) on a part of those that stay. The paper's formula has the sum over classes; released code takes
the mean over all elements, which makes the step C times smaller: we follow the formula, with the mean over the batch.

Kept from training until a request: nothing of its own (the bad teacher is drawn from a seed). Read at a request: the
forgotten samples and 30 % of what stays, or of the strategy's exemplars. Cost: `epochs` epochs over these (1), three
forward passes a step, two more networks while it runs.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from clearn.context import Context
from clearn.errors import ConfigError
from clearn.parts.forgetting import Relabelled, classifier, frozen_copy, thawed
from clearn.parts.samples import concat
from clearn.recipe import Recipe
from clearn.strategy import Strategy
from clearn.stream import Forget
from clearn.unlearner import Unlearner, remaining

GONE = -1
"""Label that marks a forgotten sample; the losses read no others."""


class BadTeacher(Unlearner):
    """Learn from a random network what has to go, and from the original what stays.

    Args:
        share: of what stays that is read, in (0, 1].
        temperature: both distributions are softened by it.
        recipe: of the training (batch 128 for the paper's ViT).
    """

    looks_back = True

    def __init__(
        self,
        share: float = 0.3,
        temperature: float = 1.0,
        recipe: Recipe = Recipe(epochs=1, lr=1e-4, schedule="constant", batch_size=256, optimizer="adam"),
    ) -> None:
        if not 0 < share <= 1 or temperature <= 0:
            raise ConfigError(f"share={share} must lie in (0, 1], and temperature={temperature} above 0")
        self.share, self.temperature, self.recipe = share, temperature, recipe

    def forget(self, strategy: Strategy, request: Forget, ctx: Context) -> None:
        """Train the strategy as the student of two teachers."""
        kept = remaining(strategy, request)
        n_read = max(1, round(self.share * len(kept)))
        kept = kept.take(torch.randperm(len(kept), generator=ctx.rng("share"))[:n_read])
        good, bad = frozen_copy(strategy), ctx.fresh()
        for info in strategy.seen:
            bad.grow(info)
        bad = bad.to(ctx.device).eval().requires_grad_(False)

        def loss(inputs: Tensor, targets: Tensor) -> Tensor:
            with torch.no_grad():
                taught = classifier(good, inputs)
                goes = targets == GONE
                taught[goes] = classifier(bad, inputs[goes]).to(taught.dtype)
            return divergence(taught, classifier(strategy, inputs), self.temperature)

        data = concat([kept, Relabelled(request.forget, torch.full_like(request.forget.labels, GONE))])
        with thawed(strategy):
            ctx.fit(strategy, data, self.recipe, loss=loss, beside=[good, bad])


def divergence(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) of softened distributions, from (b, C) logits: (b,)."""
    wanted = (teacher / temperature).log_softmax(1)
    return kl_div((student / temperature).log_softmax(1), wanted, reduction="none", log_target=True).sum(1)
