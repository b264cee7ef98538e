"""SalUn: random labels, but only for the weights that matter to what goes (Fan et al., ICLR 2024).

Saliency is |sum of gradients of the loss over the forgotten samples|; the most salient half of all scalars, pooled over
layers, is trained, each epoch first on the forgotten samples under wrong labels and then on what stays. All other
parameters are put back after every step, which for optimisers that work scalar by scalar equals masking gradients and
momentum, and keeps them bit for bit also under weight decay. Buffers (BatchNorm statistics) follow the training. Wrong
labels are drawn anew each epoch; released code may draw the true one, here never. Each pass has an optimiser of its
own here, released code keeps one.

Kept from training until a request: nothing of its own. Read at a request: the forgotten samples and what stays, or
the strategy's exemplars. Cost: one pass over what goes, then `epochs` epochs over both (10); a mask (1 byte a scalar)
and a copy of the parameters while it runs.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from clearn.context import Context
from clearn.errors import ConfigError
from clearn.parts.forgetting import Relabelled, thawed, wrong_labels
from clearn.parts.samples import Samples
from clearn.recipe import Recipe
from clearn.strategy import Strategy
from clearn.stream import Forget
from clearn.unlearner import Unlearner, remaining


class SalUn(Unlearner):
    """Train the salient weights on wrong labels and on what stays.

    Args:
        share: of all scalars that is trained, in (0, 1].
        recipe: of the training.
    """

    looks_back = True

    def __init__(
        self,
        share: float = 0.5,
        recipe: Recipe = Recipe(epochs=10, lr=0.013, schedule="constant", batch_size=256, weight_decay=5e-4),
    ) -> None:
        if not 0 < share <= 1:
            raise ConfigError(f"share={share} must lie in (0, 1]")
        self.share, self.recipe = share, recipe

    def forget(self, strategy: Strategy, request: Forget, ctx: Context) -> None:
        """Find the mask, then alternate between what goes and what stays."""
        kept, forgotten, rng = remaining(strategy, request), request.request.classes, ctx.rng("wrong labels")
        with thawed(strategy):
            parameters = [p for p in strategy.parameters() if p.requires_grad]
            with ctx.autocast():
                saliency = summed_gradients(strategy, parameters, request.forget)
            masks = most_salient(saliency, self.share)
            ctx.log("unlearn/samples", len(request.forget))
            ctx.log("unlearn/selected", sum(int(m.sum()) for m in masks) / sum(m.numel() for m in masks))
            start = [p.detach().clone() for p in parameters]

            @torch.no_grad()
            def put_back() -> None:
                for parameter, mask, origin in zip(parameters, masks, start, strict=True):
                    parameter.copy_(torch.where(mask, parameter, origin))

            def loss(inputs: Tensor, targets: Tensor) -> Tensor:
                put_back()  # after the last step, before this one
                return strategy.losses(inputs, targets)

            for epoch in range(self.recipe.epochs):
                once = replace(self.recipe, epochs=1, lr=self.recipe.rate(epoch), schedule="constant")
                wrong = wrong_labels(request.forget.labels, strategy.classes, forgotten, rng)
                for data in (Relabelled(request.forget, wrong), kept):
                    ctx.fit(strategy, data, once, loss=loss)
                    put_back()


def summed_gradients(
    strategy: Strategy, parameters: list[nn.Parameter], samples: Samples, batch: int = 256
) -> list[Tensor]:
    """Add up the gradients of the strategy's own loss over samples, in evaluation mode and without augmentation."""
    strategy.eval()
    device, total = parameters[0].device, [torch.zeros_like(p) for p in parameters]
    for inputs, targets in samples.batches(batch):
        loss = strategy.losses(inputs.to(device), targets.to(device)).sum()
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        for i, gradient in enumerate(found):
            if gradient is not None:
                total[i] += gradient
    return total


def most_salient(saliency: list[Tensor], share: float) -> list[Tensor]:
    """Mark the given share of all scalars, those of the largest magnitude, pooled over the tensors.

    Returns:
        One bool mask a tensor, round(share x P) true in all.
    """
    pooled = torch.cat([s.abs().flatten() for s in saliency])  # (P,)
    mask = torch.zeros_like(pooled, dtype=torch.bool)
    mask[pooled.topk(max(1, round(share * len(pooled)))).indices] = True
    parts = mask.split([s.numel() for s in saliency])
    return [part.view_as(s) for part, s in zip(parts, saliency, strict=True)]
