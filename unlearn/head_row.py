"""Zeroed head row: the control that says what class forgetting looks like when nothing but a label is masked.

The rows of weights and the biases of the forgotten classes are set to zero; every other bit stays. Accuracies on
forgotten and kept classes come out like a successful unlearning's, so a method has to beat this row on a probe of the
features, on relearn time, or on the distance of its outputs to those of a retrained model.

Kept from training until a request: nothing. Read at a request: nothing. Cost: 0 epochs; features + 1 scalars a class.
"""

from __future__ import annotations

import torch

from clearn.context import Context
from clearn.errors import ConfigError
from clearn.parts.forgetting import find_heads
from clearn.strategy import Strategy
from clearn.stream import Forget
from clearn.unlearner import Unlearner


class HeadRow(Unlearner):
    """Zero the output rows of the forgotten classes."""

    def check(self, request: Forget) -> None:
        """Refuse a request for single samples: no row is theirs."""
        if not request.request.classes:
            raise ConfigError(
                f"head_row forgets whole classes, but this request names {len(request.forget)} single samples: no row "
                "of the head is theirs; forget by classes, or choose another unlearner"
            )

    @torch.no_grad()
    def forget(self, strategy: Strategy, request: Forget, ctx: Context) -> None:
        """Zero exactly (features + 1) scalars a class."""
        rows, changed = list(request.request.classes), 0
        for head in find_heads(strategy):
            head.weight[rows] = 0
            head.bias[rows] = 0
            changed += len(rows) * (head.in_features + 1)
        ctx.log("unlearn/scalars", changed)
