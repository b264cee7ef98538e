"""The attention of timm's transformers, computed other than `attn(x)` does: with a prefix, or for some tokens alone.

Where few rows are read, they need no keys and values of all N tokens. With q a query, W_k and W_v a head's projections,

    q . (W_k x_j + b_k) = (W_k^T q) . x_j + const        sum_j a_j (W_v x_j + b_v) = W_v (sum_j a_j x_j) + b_v

since softmax cancels the constant and the a_j sum to one: the right sides project the rows that are read alone.
"""

from __future__ import annotations

import torch
from timm.layers.attention import Attention
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from clearn.parts.prompts import Prefix


def attend(attn: Attention, x: Tensor, prefix: Prefix | None = None, n_read: int | None = None) -> Tensor:
    """Compute timm's attention with a prefix; none, or an empty one, gives what `attn(x)` gives.

    Only keys and values are longer, so the tokens stay as many as they were. Where a network normalises its keys, the
    prefix's are normalised like them. Nothing is dropped out: timm's networks have no dropout unless it is asked for.

    Args:
        attn: of a block, with queries, keys and values in one projection.
        x: (b, N, d), normalised as the block does.
        prefix: of the same b images.
        n_read: how many of the first tokens attend; None for all.

    Returns:
        (b, N, d), or (b, n_read, d).
    """
    b = len(x)

    def heads(rows: Tensor) -> Tensor:
        return rows.reshape(b, -1, attn.num_heads, attn.head_dim).transpose(1, 2)  # (b, heads, rows, d / heads)

    q, k, v = (heads(part) for part in attn.qkv(x).chunk(3, dim=2))
    q = q[:, :, :n_read]
    if prefix is not None:
        k = torch.cat([heads(prefix.keys).to(k.dtype), k], dim=2)
        v = torch.cat([heads(prefix.values).to(v.dtype), v], dim=2)
    return _put_together(attn, x, scaled_dot_product_attention(attn.q_norm(q), attn.k_norm(k), v))


def attend_unprojected(attn: Attention, x: Tensor, n_read: int) -> Tensor:
    """Compute the first rows of timm's attention without keys and values; see the top of this file.

    For one row of N it takes 3 d^2 + 2 h N d multiplications before the last projection, where computing the keys and
    values takes 2 N d^2 more than the query's d^2.

    Args:
        attn: of a block, one that can (`can_stay_unprojected`).
        x: (b, N, d), normalised as the block does.
        n_read: how many of the first tokens attend.

    Returns:
        (b, n_read, d).
    """
    b, heads, size = len(x), attn.num_heads, attn.head_dim
    query, key, value = attn.qkv.weight.chunk(3)  # (h d', d) each
    biases = (None, None, None) if attn.qkv.bias is None else attn.qkv.bias.chunk(3)
    q = linear(x[:, :n_read], query, biases[0]).view(b, n_read, heads, size).transpose(1, 2)  # (b, h, n_read, d')
    sought = (q * attn.scale) @ key.view(heads, size, -1)  # (b, h, n_read, d): W_k^T q
    shares = (sought.flatten(1, 2) @ x.mT).softmax(2)  # (b, h n_read, N)
    met = (shares @ x).view(sought.shape)
    out = met @ value.view(heads, size, -1).mT  # (b, h, n_read, d')
    return _put_together(attn, x, out if biases[2] is None else out + biases[2].view(heads, 1, size))


def can_stay_unprojected(attn: Attention) -> bool:
    """Say whether plain weights alone make queries and keys: no norm between them, no layer of peft's around them."""
    plain = isinstance(attn.q_norm, nn.Identity) and isinstance(attn.k_norm, nn.Identity)
    return plain and type(attn.qkv) is nn.Linear


def _put_together(attn: Attention, x: Tensor, out: Tensor) -> Tensor:
    """Join heads (b, h, n, d') to (b, n, d), and project; n of the tokens x (b, N, d) are read."""
    joined = attn.norm(out.transpose(1, 2).flatten(2))
    if attn.gate is not None:
        joined = joined * attn.gate(x[:, : joined.shape[1]]).sigmoid()
    projected: Tensor = attn.proj(joined)
    return projected
