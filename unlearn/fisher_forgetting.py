"""Fisher forgetting: drown in noise every weight that what stays does not need (Golatkar et al., CVPR 2020).

F is the diagonal of the Fisher information of what stays with the model's own labels, mean over samples of
sum over y of p(y|x) (gradient of -ln p(y|x))^2. Each scalar is drawn from N(theta, v) with
v = alpha min(1 / (F + 1e-8), cap), cap 1e3 and 1e2 in the head, averaged over the input channels of a weight, times 10
in the head and in tensors of one dimension. For class requests the rows of the head that go have mean 0 and v = 1e-4
before the factor. These are the rules of the released code; F is the mean over samples as there, where the formula has
the sum.

Kept from training until a request: nothing of its own. Read at a request: inputs of what stays, or of the strategy's
exemplars. Cost: C passes over them, of one backward pass each: C times an epoch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from clearn.context import Context
from clearn.errors import ConfigError
from clearn.parts.forgetting import classifier, find_heads, thawed
from clearn.parts.importance import Sweep, exact
from clearn.parts.sample_gradients import Objective
from clearn.parts.samples import Samples
from clearn.strategy import Strategy
from clearn.stream import Forget
from clearn.unlearner import Unlearner, remaining

ROW_VARIANCE = 1e-4
"""Of the head's rows that go, before the head's factor of 10."""


class FisherForgetting(Unlearner):
    """Add noise by how little a weight matters to what stays.

    Args:
        alpha: scale of the variance.
        batch_size: samples a batch; moves no result beyond rounding.
    """

    looks_back = True

    def __init__(self, alpha: float = 1e-6, batch_size: int = 64) -> None:
        if alpha < 0 or batch_size < 1:
            raise ConfigError(f"alpha={alpha} must be 0 or more, and batch_size={batch_size} 1 or more")
        self.alpha, self.batch_size = alpha, batch_size

    def forget(self, strategy: Strategy, request: Forget, ctx: Context) -> None:
        """Measure F, then draw every weight."""
        kept, rng = remaining(strategy, request), ctx.rng("noise")
        in_head = {id(p) for head in find_heads(strategy) for p in head.parameters()}
        rows = list(request.request.classes)
        with thawed(strategy):
            information = true_fisher(strategy, kept, self.batch_size)
        with torch.no_grad():
            parameters: dict[str, nn.Parameter] = dict(strategy.named_parameters())
            for name, fisher in information.items():
                parameter = parameters[name]
                spread = variance(fisher, self.alpha, head=id(parameter) in in_head, rows=rows)
                if id(parameter) in in_head:
                    parameter[rows] = 0
                noise = torch.randn(parameter.shape, generator=rng).to(parameter.device)
                parameter.add_(spread.sqrt().to(parameter.dtype) * noise)
        ctx.log("unlearn/samples", len(kept) * len(strategy.classes))


def true_fisher(strategy: Strategy, samples: Samples, batch_size: int) -> dict[str, Tensor]:
    """Mean over samples of sum over y of p(y|x) (gradient of -ln p(y|x))^2, by parameter."""

    def of_label(label: int) -> Objective:
        def losses(logits: Tensor, targets: Tensor) -> Tensor:
            root = logits.detach().softmax(1)[:, label].sqrt()  # its square is the weight of the squared gradient
            return root * cross_entropy(logits, torch.full_like(targets, label), reduction="none")

        return Objective(losses)

    total: dict[str, Tensor] = {}
    for label in range(len(strategy.classes)):
        sweep = Sweep(of_label(label), forward=lambda inputs: classifier(strategy, inputs))
        for name, value in exact(strategy, samples.batches(batch_size), sweep).mean().items():
            total[name] = total[name] + value if name in total else value
    return total


def variance(fisher: Tensor, alpha: float, head: bool, rows: list[int]) -> Tensor:
    """Turn Fisher information into the variance of the noise.

    Args:
        fisher: of one parameter, at least 0.
        alpha: scale.
        head: whether the parameter is the head's, its first dimension the classes.
        rows: of the head that go.

    Returns:
        Float tensor of the parameter's shape.
    """
    spread = alpha * (1 / (fisher + 1e-8)).clamp(max=1e2 if head else 1e3)
    if spread.ndim > 1:
        spread = spread.mean(1, keepdim=True).expand_as(spread).clone()
    if head:
        spread[rows] = ROW_VARIANCE
    return spread * 10 if head or spread.ndim == 1 else spread
