"""Losses of an answer that reward what a memory adds (specs "cmt", section 8).

Letters used below: b rows, r tokens of the longest answer, V tokens that the language model knows; l1 and l0 are its
logits with memory and without, p1 and p0 their softmax.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from clearn.parts.language.contrast import contrasted


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """(b, r, V) and (b, r) -> (b, r), -log p of each target."""
    return cross_entropy(logits.transpose(1, 2), targets, reduction="none")


def mean_over(values: Tensor, mask: Tensor) -> Tensor:
    """(b, r) -> (b,), the mean over each row's real tokens."""
    return (values * mask).sum(1) / mask.sum(1)


def aware(with_memory: Tensor, without: Tensor, targets: Tensor, mask: Tensor, alpha: float) -> Tensor:
    """The memory-aware loss: -log softmax((1 + alpha) l1 - alpha l0) of the target, mean over tokens.

    Where the memory does nothing it is the frozen model's own loss, whatever alpha is; its gradient at l1 is
    (1 + alpha) (softmax - onehot), little for tokens that the question alone explains.

    Args:
        with_memory: (b, r, V) l1, with gradient.
        without: (b, r, V) l0, without.
        targets: (b, r) int64.
        mask: (b, r) bool, which are real.
        alpha: 0 or more; 0 is the plain answer loss.

    Returns:
        (b,).
    """
    return mean_over(token_losses(contrasted(with_memory, without, alpha), targets), mask)


def margin(with_memory: Tensor, without: Tensor, targets: Tensor, mask: Tensor, gamma: float, nats: float) -> Tensor:
    """CE(l1) + gamma max(0, nats - (log p1(y) - log p0(y)) / r): the memory is to gain so many nats a token.

    Args:
        with_memory: see `aware`.
        without: likewise.
        targets: likewise.
        mask: likewise.
        gamma: weight.
        nats: what the gain is to reach.
    """
    ours, theirs = (mean_over(token_losses(logits, targets), mask) for logits in (with_memory, without))
    return ours + gamma * (nats - (theirs - ours)).clamp(min=0)


def distill(with_memory: Tensor, taught: Tensor, targets: Tensor, mask: Tensor, gamma: float) -> Tensor:
    """CE(l1) + gamma KL(softmax(ld) || softmax(l1)), mean over tokens; ld of the model that has read the document.

    Args:
        with_memory: see `aware`.
        taught: (b, r, V) ld, without gradient.
        targets: see `aware`.
        mask: likewise.
        gamma: weight.
    """
    teacher = taught.log_softmax(-1)
    divergence = (teacher.exp() * (teacher - with_memory.log_softmax(-1))).sum(-1)  # (b, r)
    return mean_over(token_losses(with_memory, targets) + gamma * divergence, mask)


def stacked(rows: Sequence[Tensor], reach: int) -> Tensor:
    """Pad (r, V) logits of single rows with zeros to (b, reach, V); what is padded is masked by whoever reads it."""
    return torch.stack([pad(row, (0, 0, 0, reach - len(row))) for row in rows])
