"""Who gives way in a memory that is full, as numbers of its rows; the rows themselves are held elsewhere.

Rows are numbered in the order of reading. Whoever gives way leaves a gap that closes, so the order stays.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from clearn.parts.vectors import unit

Evict = Literal["reservoir", "fifo", "merge"]
"""What gives way when there is no room for one more."""

AT_ONCE = 1024
"""Rows whose cosines with all others are compared at once."""


def admitted(
    held: int, coming: int, capacity: int | None, evict: Evict, met: int, rng: torch.Generator | None
) -> tuple[list[int], list[int]]:
    """Choose which held rows stay and which coming ones enter, each as if it had come alone.

    Args:
        held: rows in the memory.
        coming: rows that want to enter.
        capacity: rows at most from now on, so that held ones may have to go first; None = not limited.
        evict: "fifo": the oldest goes; "reservoir": each row met is as likely as any other to be held (Vitter 1985,
            algorithm R).
        met: rows that came by before.
        rng: of a reservoir, which draws one number for each coming row, and a permutation where held ones must go.

    Returns:
        Held rows that stay, in [0, held), and coming rows that enter, in [0, coming), both ascending.
    """
    if capacity is None:
        return list(range(held)), list(range(coming))
    everyone = list(range(held + coming))
    if evict == "fifo":
        slots = everyone[max(0, len(everyone) - capacity) :]
    else:
        assert rng is not None, "a reservoir draws"
        slots = everyone[:held]
        if held > capacity:
            slots = sorted(torch.randperm(held, generator=rng)[:capacity].tolist())
        places = torch.rand(coming, generator=rng, dtype=torch.float64)
        places *= torch.arange(met + 1, met + coming + 1)  # row i is the (met + i + 1)-th that comes by
        for row, place in zip(everyone[held:], places.long().tolist(), strict=True):
            if len(slots) < capacity:
                slots.append(row)
            elif place < capacity:
                slots.pop(place)
                slots.append(row)
    return [row for row in slots if row < held], [row - held for row in slots if row >= held]


def closest(vectors: Tensor) -> tuple[int, int]:
    """Find the two rows of largest cosine, the older first.

    All pairs are compared, block by block: N^2 multiply-adds by the width.

    Args:
        vectors: (N, D), two or more.
    """
    units = unit(vectors)
    best, pair = -torch.inf, (0, 1)
    for start in range(0, len(units), AT_ONCE):
        cosines = units[start : start + AT_ONCE] @ units.T
        mine = torch.arange(start, start + len(cosines))
        cosines = cosines.masked_fill(torch.arange(len(units)) <= mine[:, None], -torch.inf)
        most = int(cosines.flatten().argmax())
        row, column = divmod(most, len(units))
        if float(cosines[row, column]) > best:
            best, pair = float(cosines[row, column]), (start + row, column)
    return pair
