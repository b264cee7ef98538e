"""Who gives way, in numbers of rows."""

from __future__ import annotations

import torch

from clearn.parts.eviction import AT_ONCE, admitted, closest


def test_without_a_limit_everyone_stays_and_enters_and_nothing_is_drawn() -> None:
    for evict in ("fifo", "reservoir", "merge"):
        assert admitted(2, 3, None, evict, 2, None) == ([0, 1], [0, 1, 2])  # type: ignore[arg-type]


def test_the_newest_stay() -> None:
    assert admitted(3, 2, 4, "fifo", 9, None) == ([1, 2], [0, 1])
    assert admitted(3, 2, 1, "fifo", 9, None) == ([], [1])
    assert admitted(3, 2, 0, "fifo", 9, None) == ([], [])
    assert admitted(3, 2, 9, "fifo", 9, None) == ([0, 1, 2], [0, 1])
    assert admitted(5, 0, 2, "fifo", 9, None) == ([3, 4], [])


def test_a_reservoir_takes_one_draw_a_coming_row() -> None:
    draws = torch.rand(40, generator=torch.Generator().manual_seed(7), dtype=torch.float64).tolist()
    held = list(range(4))  # algorithm R as it is written down, for one row after the other
    for i, draw in enumerate(draws):
        place = int(draw * (4 + i + 1))
        if place < 4:
            held.pop(place)
            held.append(4 + i)
    stay, enter = admitted(4, 40, 4, "reservoir", 4, torch.Generator().manual_seed(7))
    assert [*stay, *(4 + i for i in enter)] == held


def test_the_closest_are_found_over_blocks() -> None:
    rows = torch.randn(AT_ONCE + 76, 16, generator=torch.Generator().manual_seed(0))
    rows[AT_ONCE + 66] = 3 * rows[AT_ONCE + 26]
    assert closest(rows) == (AT_ONCE + 26, AT_ONCE + 66)
    rows[2] = rows[AT_ONCE + 26] + 1e-3  # of two that are as good as equal, the closest
    assert closest(rows) == (AT_ONCE + 26, AT_ONCE + 66)
