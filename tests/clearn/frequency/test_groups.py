"""Pieces against a dictionary that is filled user by user."""

from collections import Counter

import numpy as np
import pytest

from clearn.frequency import groups
from clearn.frequency.groups import group


def by_hand(held):
    return Counter((tuple((row == key).tolist()), key) for row in held for key in set(row.tolist()))


@pytest.mark.parametrize("block", [8, 2**20])  # users and groups a few at a time, or all together
@pytest.mark.parametrize(
    ("n", "tau", "k"), [(40, 3, 2), (300, 70, 5), (10, 1, 3), (7, 64, 300), (30, 62, 4), (5, 130, 2), (9, 4, 1)]
)
def test_pieces_are_those_of_a_dictionary(n, tau, k, block, monkeypatch):
    monkeypatch.setattr(groups, "BLOCK", block)
    held = np.random.default_rng(tau).integers(k, size=(n, tau)).astype(np.uint16)
    held[: n // 2, 1:] = held[: n // 2, :1]  # half of them never change
    found = group(held)
    sets = [tuple(row) for row in found.rounds.tolist()]
    assert len(set(sets)) == len(sets)
    pieces = zip(found.group.tolist(), found.key.tolist(), found.pieces.tolist(), strict=True)
    assert {(sets[of], key): count for of, key, count in pieces} == dict(by_hand(held))
    assert found.draws == sum(1 + sum(rounds) for rounds in sets)


@pytest.mark.parametrize("block", [8, 2**20])
def test_blocks_of_groups_add_up_to_what_is_held_in_each_round(block, monkeypatch):
    monkeypatch.setattr(groups, "BLOCK", block)
    held = np.random.default_rng(0).integers(3, size=(50, 4))
    total = np.zeros((4, 3), np.int64)
    for rounds, counts in group(held).held(3):
        assert len(rounds) <= max(1, block // 3)
        total += rounds.T.astype(np.int64) @ counts
    assert total.tolist() == [np.bincount(held[:, t], minlength=3).tolist() for t in range(4)]


def test_users_who_never_change_are_one_group():
    found = group(np.array([[2, 2], [0, 0], [2, 2]], np.uint8))
    assert found.rounds.tolist() == [[True, True]]
    assert (found.key.tolist(), found.pieces.tolist(), found.draws) == ([0, 2], [1, 2], 3)


def test_grouping_is_given_up_beyond_a_limit():
    held = np.array([[0, 1], [0, 0]])  # rounds {0}, {1} and {0, 1}
    assert group(held, most=2) is None
    assert len(group(held, most=3).rounds) == 3


def test_nobody_is_no_group():
    assert group(np.zeros((0, 3), np.uint8)).draws == 0
