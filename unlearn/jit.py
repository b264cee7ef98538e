"""JiT: smooth the network around what goes, without reading anything else (Foster et al. 2024, zero-shot unlearning).

One pass over the forgotten samples minimises sum over x of 1/N sum over j of ||f(x) - sg f(x + xi_j)|| / ||xi_j||, with
xi ~ N(0, sigma^2) in the network's units, the noisy input clipped to the range of x, and the gradient through f(x)
alone. The loss is a sum over the batch, so the learning rate belongs to the batch size. Published (sigma, lr): VGG16
(0.5, 3e-4) for classes and (0.01, 3e-4) for samples, ViT (0.8, 1.5) and (0.5, 0.1). Noise would spoil BatchNorm
statistics, so the network stays in evaluation mode here.

Kept from training until a request: nothing. Read at a request: the forgotten samples alone, which come with it.
Cost: `epochs` epochs over them (1), N + 1 forward passes a step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from clearn.context import Context
from clearn.errors import ConfigError
from clearn.parts.forgetting import classifier, network_units, thawed
from clearn.recipe import Recipe
from clearn.strategy import Strategy
from clearn.stream import Forget
from clearn.unlearner import Unlearner


class JiT(Unlearner):
    """Make the outputs on what goes as insensitive as those on noise around it.

    Args:
        sigma: standard deviation of the noise, of inputs as the network normalises them.
        draws: N, noisy copies of each input.
        recipe: of the training.
    """

    def __init__(
        self,
        sigma: float = 0.5,
        draws: int = 25,
        recipe: Recipe = Recipe(epochs=1, lr=3e-4, schedule="constant", batch_size=64, momentum=0.0),
    ) -> None:
        if sigma <= 0 or draws < 1:
            raise ConfigError(f"sigma={sigma} must be above 0, and draws={draws} 1 or more")
        self.sigma, self.draws, self.recipe = sigma, draws, recipe

    def forget(self, strategy: Strategy, request: Forget, ctx: Context) -> None:
        """Minimise the local Lipschitz constant at the forgotten samples, as stored: without augmentation."""
        rng, (scale, _) = ctx.rng("noise"), network_units(strategy.inputs)

        def loss(inputs: Tensor, targets: Tensor) -> Tensor:
            strategy.eval()  # training began with train()
            clean = classifier(strategy, inputs)
            raw, total = inputs.float(), torch.zeros(len(inputs), device=inputs.device)
            for _ in range(self.draws):
                noise = self.sigma * torch.randn(inputs.shape, generator=rng)
                noisy = (raw + (noise / scale).to(raw.device)).clamp(raw.min(), raw.max())
                with torch.no_grad():
                    moved = classifier(strategy, noisy)
                length = noise.flatten(1).norm(dim=1).to(raw.device)
                total = total + (clean - moved).norm(dim=1) / length
            return total.sum() / self.draws

        with thawed(strategy):
            ctx.fit(strategy, request.forget, self.recipe, loss=loss, augment=False)
