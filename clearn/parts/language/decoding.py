"""Greedy decoding of a batch, apart from any network."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def greedy(
    first: Tensor, go_on: Callable[[Tensor, int], Tensor], ended: Callable[[list[int]], bool], limit: int
) -> list[list[int]]:
    """Take the likeliest token again and again.

    Args:
        first: (b, V) logits of each row's first new token.
        go_on: from tokens (b,) int64 and how many came before them, 0 at first, to the next logits (b, V); rows
            that have ended are still asked, what they get is not read.
        ended: whether a row of new tokens is complete.
        limit: at most so many tokens a row, 1 or more.

    Returns:
        b rows of tokens, with the one that ended each. Ties go to the smaller token.

    >>> import torch
    >>> table = torch.tensor([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]])  # 0 is followed by 1, 1 by 2, 2 by 0
    >>> greedy(table[:2], lambda tokens, _: table[tokens], lambda row: row[-1] == 0, limit=3)
    [[1, 2, 0], [2, 0]]
    """
    rows: list[list[int]] = [[] for _ in range(len(first))]
    open_rows, logits = set(range(len(first))), first
    for step in range(limit):
        tokens = logits.argmax(-1)  # (b,)
        for row, token in enumerate(tokens.tolist()):
            if row in open_rows:
                rows[row].append(token)
                if ended(rows[row]):
                    open_rows.remove(row)
        if not open_rows or step + 1 == limit:
            break
        logits = go_on(tokens, step)
    return rows
