"""MAC's aggregator: a question's latents look at a whole bank of vectors and gather what they need of it.

Tack et al. 2024 (MAC), section 3; layer sizes as in their code (specs "mbc", section 4). No position, document or order
signal enters, so a bank is a set: an entry that is there n times acts as one whose attention logit is raised by log n.
That makes a bank of codes a histogram (specs "mbc", section 6), and the same weights carry CMT's log p.

Letters: b questions, T latents each, D width, S bank vectors, H heads of size h.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention


@dataclass(frozen=True)
class Cached:
    """A bank as the blocks see it: computed once for all questions that come one after another.

    Attributes:
        keys: a block each, (b or 1, H, S, h).
        values: likewise.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    @property
    def size(self) -> int:
        """S."""
        return self.keys[0].shape[2]


class Aggregator(nn.Module):
    """Pre-norm cross-attention blocks whose keys and values are the bank; a question's latents meet nothing else.

    `q <- q + Attn(LN(q), LN'(bank)); q <- q + W2 gelu(W1 LN(q))` in each block. Queries, keys and values have no bias.

    Args:
        width: D.
        blocks: how many; 4 in MAC.
        heads: H.
        head_size: h, whatever the width is; 96 in MAC.
        hidden: of the feed-forward layers; None for MAC's min(D, 768).
    """

    def __init__(
        self, width: int, blocks: int = 4, heads: int = 8, head_size: int = 96, hidden: int | None = None
    ) -> None:
        super().__init__()
        inner = min(width, 768) if hidden is None else hidden
        self.looks = nn.ModuleList(CrossAttention(width, heads, head_size) for _ in range(blocks))
        self.feeds = nn.ModuleList(FeedForward(width, inner) for _ in range(blocks))

    def forward(self, queries: Tensor, bank: Tensor | Cached, log_weights: Tensor | None = None) -> Tensor:
        """Gather from a bank.

        Args:
            queries: (b, T, D).
            bank: (b or 1, S, D), a bank for each question or one for all; or what `cache` made of it.
            log_weights: (b or 1, S), added to an entry's attention logits in all heads and blocks: the logarithm of
                how often it is there, or of how much it is to count; -inf for one that is absent. None for zeros.

        Returns:
            (b, T, D). Where nothing is in the bank, or all of it is absent, the queries as they are.
        """
        size = bank.size if isinstance(bank, Cached) else bank.shape[1]
        if not size:
            return queries
        cached = self.cache(bank) if isinstance(bank, Tensor) else bank
        z, found = queries, None
        if log_weights is not None:
            found = log_weights.isneginf().logical_not().any(dim=1, keepdim=True)  # (b or 1, 1)
            log_weights = torch.where(found, log_weights, 0.0)  # a softmax over nothing would be NaN, gradients too
        for look, feed, keys, values in zip(self.looks, self.feeds, cached.keys, cached.values, strict=True):
            z = z + look(z, keys, values, log_weights)
            z = z + feed(z)
        return z if found is None else torch.where(found[:, :, None], z, queries)

    def cache(self, bank: Tensor) -> Cached:
        """Compute keys and values of (b or 1, S, D) vectors once, for all questions that look at them."""
        pairs = [look.keys_values(bank) for look in self.looks]  # type: ignore[operator]  # modules of our own
        return Cached(tuple(keys for keys, _ in pairs), tuple(values for _, values in pairs))


def hierarchical(aggregator: Aggregator, queries: Tensor, bank: Tensor, size: int) -> Tensor:
    """Aggregate a bank part by part, then what came of the parts, until one part holds it all (MAC, section 3.3).

    Memory grows with `size` and no longer with the bank; the work stays about the same.

    Args:
        aggregator: of each step; the queries are always those given.
        queries: (b, T, D).
        bank: (b or 1, S, D).
        size: vectors a part, at least 2 T, or it would never end: M documents of T vectors.

    Returns:
        (b, T, D); that of the aggregator itself where S <= size.
    """
    assert size >= 2 * queries.shape[1], "a part must give fewer vectors than it has"
    while bank.shape[1] > size:
        bank = torch.cat([aggregator(queries, part) for part in bank.split(size, dim=1)], dim=1)
    out: Tensor = aggregator(queries, bank)
    return out


class CrossAttention(nn.Module):
    """Attention of latents (b, T, D) to vectors (b or 1, S, D), both normalised first.

    Args:
        width: D.
        heads: H.
        head_size: h.
    """

    def __init__(self, width: int, heads: int, head_size: int) -> None:
        super().__init__()
        inner = heads * head_size
        self.heads, self.head_size = heads, head_size
        self.norm, self.bank_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query = nn.Linear(width, inner, bias=False)
        self.key_value = nn.Linear(width, 2 * inner, bias=False)
        self.out = nn.Linear(inner, width)

    def keys_values(self, bank: Tensor) -> tuple[Tensor, Tensor]:
        """(b, S, D) -> keys and values, each (b, H, S, h)."""
        keys, values = self.key_value(self.bank_norm(bank)).chunk(2, dim=-1)
        return self._headed(keys), self._headed(values)

    def forward(self, z: Tensor, keys: Tensor, values: Tensor, log_weights: Tensor | None = None) -> Tensor:
        """What is to be added to the latents: (b, T, D).

        Args:
            z: (b, T, D).
            keys: (b or 1, H, S, h).
            values: likewise.
            log_weights: (b or 1, S), added to the logits; None for zeros.
        """
        b, t, _ = z.shape
        queries = self._headed(self.query(self.norm(z)))
        weights = None if log_weights is None else log_weights.to(queries.dtype)[:, None, None]  # (b or 1, 1, 1, S)
        if len(keys) == 1:  # one bank for all: their queries stand in one row, so that it is gone through once
            queries = queries.transpose(0, 1).reshape(1, self.heads, b * t, self.head_size)
            if weights is not None and len(weights) > 1:
                weights = weights.reshape(1, 1, b, -1).repeat_interleave(t, dim=2)  # (1, 1, b T, S)
        seen = scaled_dot_product_attention(queries, keys, values, attn_mask=weights)  # scaled by h^-1/2
        out: Tensor = self.out(seen.transpose(1, 2).reshape(b, t, -1))
        return out

    def _headed(self, x: Tensor) -> Tensor:
        """(b, n, H h) -> (b, H, n, h)."""
        return x.unflatten(-1, (self.heads, self.head_size)).transpose(1, 2)


class FeedForward(nn.Module):
    """`W2 gelu(W1 LN(x))`: (..., D) -> (..., out)."""

    def __init__(self, width: int, hidden: int, out: int | None = None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.into, self.back = nn.Linear(width, hidden), nn.Linear(hidden, width if out is None else out)

    def forward(self, x: Tensor) -> Tensor:
        """What is to be added to x."""
        out: Tensor = self.back(gelu(self.into(self.norm(x))))
        return out
