"""UNSIR: learn noise that stands against a class, impair with it, repair (Tarun et al. 2021, whole classes only).

For each forgotten class a batch of noise is learned that maximises its loss, -CE(f(z), y) + 0.1 mean ||z||^2, by Adam
at 0.1. One epoch on copies of that noise under the class's label, beside up to 500 samples of each class that stays,
impairs; one epoch on the latter repairs. Noise lives in the network's units, with ||z||^2 the sum over an input. The
forgotten samples themselves are never read.

Kept from training until a request: nothing of its own. Read at a request: up to 500 samples of each class that stays,
or the strategy's exemplars. Cost: two epochs over these, one with 80 x 32 noise images a class, and 25 small steps.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from clearn.context import Context
from clearn.errors import ConfigError
from clearn.parts.forgetting import classifier, network_units, thawed
from clearn.parts.samples import Samples, TensorSamples, concat
from clearn.recipe import Recipe
from clearn.strategy import Strategy
from clearn.stream import Forget
from clearn.unlearner import Unlearner, remaining


class Unsir(Unlearner):
    """Impair a class by noise learned against it, then repair the others.

    Args:
        noise: images learned for each class.
        steps: of learning them (250 for sub-classes in released code).
        copies: how often each noise image occurs in the impairing epoch.
        per_class: samples of each class that stays, at most.
        impair: training on noise and what stays.
        repair: training on what stays.
    """

    looks_back = True

    def __init__(
        self,
        noise: int = 32,
        steps: int = 25,
        copies: int = 80,
        per_class: int = 500,
        impair: Recipe = Recipe(epochs=1, lr=1e-4, schedule="constant", batch_size=32, optimizer="adam"),
        repair: Recipe = Recipe(epochs=1, lr=1e-4, schedule="constant", batch_size=128, optimizer="adam"),
    ) -> None:
        if min(noise, steps, copies, per_class) < 1:
            raise ConfigError(
                f"noise={noise}, steps={steps}, copies={copies} and per_class={per_class} must be 1 or more"
            )
        self.noise, self.steps, self.copies, self.per_class = noise, steps, copies, per_class
        self.impair, self.repair = impair, repair

    def check(self, request: Forget) -> None:
        """Refuse a request for single samples: noise stands against a class."""
        if not request.request.classes:
            raise ConfigError(
                f"unsir forgets whole classes, but this request names {len(request.forget)} single samples; forget by "
                "classes, or choose another unlearner"
            )

    def forget(self, strategy: Strategy, request: Forget, ctx: Context) -> None:
        """Learn noise, impair, repair."""
        kept = capped(remaining(strategy, request), self.per_class, ctx.rng("retained"))
        inputs = torch.cat([batch.float() for batch, _ in kept.batches(4096)])  # raw values, which noise has too
        classes = torch.tensor(request.request.classes, dtype=torch.int64).repeat_interleave(self.noise)
        learned = learn_noise(strategy, classes, self.steps, ctx.rng("noise"))
        noisy = TensorSamples(learned.repeat(self.copies, *[1] * (learned.ndim - 1)), classes.repeat(self.copies))
        with thawed(strategy):
            ctx.fit(strategy, concat([TensorSamples(inputs, kept.labels), noisy]), self.impair, augment=False)
            ctx.fit(strategy, kept, self.repair)


def learn_noise(strategy: Strategy, classes: Tensor, steps: int, rng: torch.Generator) -> Tensor:
    """Learn inputs that a network in evaluation mode finds least like their class.

    Args:
        strategy: left as it is.
        classes: (z,) int64 label of each noise image.
        steps: of Adam at 0.1.
        rng: draws the start, N(0, 1) in the network's units.

    Returns:
        (z, *shape) float32 raw inputs on the CPU.
    """
    device = next(strategy.parameters()).device
    scale, shift = (value.to(device) for value in network_units(strategy.inputs))
    noise = torch.randn((len(classes), *strategy.inputs.shape), generator=rng).to(device).requires_grad_()
    optimizer, classes = torch.optim.Adam([noise], lr=0.1), classes.to(device)
    for _ in range(steps):
        logits = classifier(strategy, (noise - shift) / scale)
        loss = -cross_entropy(logits, classes) + 0.1 * noise.square().flatten(1).sum(1).mean()
        (noise.grad,) = torch.autograd.grad(loss, [noise])
        optimizer.step()
    return ((noise.detach() - shift) / scale).cpu()


def capped(samples: Samples, per_class: int, rng: torch.Generator) -> Samples:
    """Keep at most so many samples of each class, drawn at random."""
    order = torch.randperm(len(samples), generator=rng)
    rows = [order[samples.labels[order] == label][:per_class] for label in samples.labels.unique().tolist()]
    return samples.take(torch.cat(rows))
