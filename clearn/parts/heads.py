"""Linear heads that grow with the classes, and what the expanding and aligning methods do to them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Head(nn.Linear):
    """A linear layer that computes in float32 also under mixed precision: logits in 8 bits would tie."""

    def forward(self, input: Tensor) -> Tensor:
        """(b, d) features -> (b, C) float32 logits."""
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.float())


def fresh_head(width: int, n_classes: int) -> Head:
    """Make a linear head with W ~ U(-sqrt(3/width), sqrt(3/width)), std 1/sqrt(width), and bias 0, as the reference."""
    head = Head(width, n_classes)
    nn.init.kaiming_uniform_(head.weight, nonlinearity="linear")
    nn.init.zeros_(head.bias)
    return head


def grown_head(old: Head | None, width: int, n_classes: int, zero_corner: bool = False) -> Head:
    """Make a wider or taller head that keeps the old one's rows and columns.

    Args:
        old: (o, w) head with o <= n_classes and w <= width, or None.
        width: features of the new head.
        n_classes: rows of the new head.
        zero_corner: start the old rows' weights on new columns at 0 instead of at random, so that old logits start
            where they were.
    """
    head = fresh_head(width, n_classes)
    if old is None:
        return head
    rows, columns = old.weight.shape
    with torch.no_grad():
        head.weight[:rows, :columns] = old.weight
        head.bias[:rows] = old.bias
        if zero_corner:
            head.weight[:rows, columns:] = 0
    return head


@torch.no_grad()
def align_rows(head: Head, n_old: int) -> float:
    """Scale the rows of new classes to the mean norm of the old ones (weight alignment, Zhao et al. 2020, Eq. 5-7).

    Biases stay. A second call finds gamma = 1.

    Args:
        head: (C, d) head; rows from `n_old` on are new.
        n_old: how many rows are old; 0, or C where a task brings no new class, changes nothing.

    Returns:
        gamma = mean norm of old rows / mean norm of new rows.
    """
    if not 0 < n_old < len(head.weight):
        return 1.0
    norms = head.weight.norm(dim=1)
    gamma = norms[:n_old].mean() / norms[n_old:].mean()
    head.weight[n_old:] *= gamma
    return float(gamma)


def auxiliary_targets(targets: Tensor, n_old: int) -> Tensor:
    """Number the new classes from 1 and call every old class 0 (DER and MEMO's auxiliary head).

    >>> auxiliary_targets(torch.tensor([3, 10, 19]), 10).tolist()
    [0, 1, 10]
    """
    return (targets - n_old + 1).clamp(min=0)


def distillation(logits: Tensor, teacher_logits: Tensor, temperature: float = 2.0) -> Tensor:
    """Cross-entropy of the student's softened answers against the teacher's; no T^2 factor, as in the toolbox.

    Args:
        logits: (b, o) of the old classes.
        teacher_logits: (b, o).
        temperature: T; both are divided by it.

    Returns:
        (b,) float.
    """
    soft = (teacher_logits / temperature).softmax(1)
    return -(soft * (logits / temperature).log_softmax(1)).sum(1)


def open_to(classes: Sequence[int], logits: Tensor) -> Tensor:
    """Close the other classes' logits, so that a softmax over the result is one over `classes` alone.

    Args:
        classes: labels that stay.
        logits: (b, C).

    Returns:
        (b, C), -inf outside `classes`.

    >>> open_to([0, 2], torch.tensor([[1.0, 5.0, 2.0]])).tolist()
    [[1.0, -inf, 2.0]]
    """
    closed = torch.ones(logits.shape[1], dtype=torch.bool, device=logits.device)
    closed[list(classes)] = False
    return logits.masked_fill(closed, -torch.inf)
