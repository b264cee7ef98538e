"""How a memory is shared out between groups of exemplars: by items, or by bytes where sizes differ."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal


def split_quota(total: int, available: Sequence[int], remainder: Literal["spread", "floor"] = "spread") -> list[int]:
    """Share `total` slots between groups, none getting more than it can fill.

    Args:
        total: K, slots to give, 0 or more.
        available: samples at hand in each of the C groups, in order of arrival.
        remainder: "spread" gives floor(K / C) to each group and one more to the first K mod C, then what a
            small group cannot use to the others, slot by slot in turn; "floor" gives min(floor(K / C),
            available) and leaves the rest unused, as published runs do (3312 slots for 100 classes keep 3300
            images).

    Returns:
        C quotas. With "spread" their sum is min(total, sum(available)), and none falls when total grows.

    >>> split_quota(7, [2, 5, 5]), split_quota(7, [2, 5, 5], "floor"), split_quota(2, [9, 9, 9])
    ([2, 3, 2], [2, 2, 2], [1, 1, 0])
    """
    if total < 0:
        raise ValueError(f"total={total} must be 0 or more: a memory cannot hold fewer than no exemplars")
    if not available:
        return []
    if remainder == "floor":
        return [min(total // len(available), n) for n in available]
    level = _water_level(total, available)
    quotas = [min(level, n) for n in available]
    spare = total - sum(quotas)  # fewer than the groups that could still take one, unless all are full
    for i, n in enumerate(available):
        if spare and n > level:
            quotas[i] += 1
            spare -= 1
    return quotas


def fill_bytes(
    queues: Sequence[Iterable[bytes]], room: int, overhead: int, shares: int, spread: bool = True
) -> list[list[bytes]]:
    """Take items from the front of each queue while they fit.

    Each queue first takes from its own share of floor(room / shares) bytes and stops before overflow. What is
    left is handed out in turn, an item at a time; a queue whose next item does not fit any more is out. So
    every queue gives a prefix of itself, and in the end no queue's next item fits what is left.

    Args:
        queues: encoded items of each group, best first; read lazily, one item beyond those taken.
        room: bytes for all of them, 0 or more.
        overhead: bytes that each item costs besides its own (label, length).
        shares: equal shares to cut room into, at least the number of queues.
        spread: whether what is left is handed out.

    Returns:
        The items taken from each queue.
    """
    share = room // shares if shares else 0
    sources = [iter(queue) for queue in queues]
    heads = [next(source, None) for source in sources]
    taken: list[list[bytes]] = [[] for _ in queues]

    def take(i: int, limit: int) -> int:
        """Move queue i's next item if it costs no more than limit; return its cost, 0 if it stays."""
        head = heads[i]
        if head is None or len(head) + overhead > limit:
            return 0
        taken[i].append(head)
        heads[i] = next(sources[i], None)
        return len(head) + overhead

    left = room
    for i in range(len(queues)):
        mine = share
        while cost := take(i, mine):
            mine -= cost
        left -= share - mine
    turns = list(range(len(queues))) if spread else []
    while turns:
        for i in list(turns):
            cost = take(i, left)
            left -= cost
            if not cost:
                turns.remove(i)
    return taken


def _water_level(total: int, available: Sequence[int]) -> int:
    """Find the largest level with sum(min(level, n)) <= total; where all fits, the largest group."""
    level = 0
    for full, n in enumerate(sorted(available)):
        open_groups = len(available) - full
        step = min(n - level, total // open_groups)
        level, total = level + step, total - step * open_groups
        if level < n:
            break
    return level
