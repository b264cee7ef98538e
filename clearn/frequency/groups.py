"""Users who change values, cut into pieces: a user and a memo key are a piece, with the set T of rounds it is held in.

Memos of different keys are independent, so pieces are, even those of one user; and pieces with the same T may be merged
over users. Whoever never changes is one piece whose T is all rounds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from clearn.errors import DataError
from clearn.frequency.coins import Bools, Ints
from clearn.frequency.lemmas import Lemma
from clearn.frequency.mechanism import Array

if TYPE_CHECKING:
    from clearn.stream import Collection, Round

WORD = 64  # rounds in one word of a bit set
BLOCK = 2**20  # entries of users x rounds, or of groups x keys, that are worked on at a time

_WHOLE: WeakKeyDictionary[Collection, dict[tuple[int, bytes], Groups]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Groups:
    """Merged pieces.

    Attributes:
        rounds: (G, tau) bool, distinct rows: the set T of each group.
        group: (m,) int64, ascending: to which group an entry belongs.
        key: (m,) int64: its memo key.
        pieces: (m,) int64: how many users hold that key in exactly those rounds.
    """

    rounds: Bools
    group: Ints
    key: Ints
    pieces: Ints

    @property
    def draws(self) -> int:
        """Binomial draws a value that simulating each group on its own takes: sum over groups of 1 + |T|."""
        return len(self.rounds) + int(self.rounds.sum())

    def held(self, keys: int) -> Iterator[tuple[Bools, Ints]]:
        """Blocks of groups: their rounds (g, tau), and how many of their pieces hold each key (g, keys) int64."""
        size = max(1, BLOCK // keys)
        for start in range(0, len(self.rounds), size):
            block = slice(*np.searchsorted(self.group, [start, start + size]))
            held = np.zeros((min(size, len(self.rounds) - start), keys), np.int64)
            held[self.group[block] - start, self.key[block]] = self.pieces[block]
            yield self.rounds[start : start + size], held


def group(held: Array, most: float = math.inf) -> Groups | None:
    """Cut users into pieces and merge them.

    A piece is one long number: the key in its lowest bits, above them a bit per round; equal ones are found by sorting.

    Args:
        held: (n, tau) integers from 0: the memo key that each user holds in each round.
        most: groups beyond which merging is given up, and None returned.
    """
    n, tau = held.shape
    low = int(held.max(initial=0)).bit_length()
    rows, pieces = np.empty((0, -(-(low + tau) // WORD)), np.uint64), np.empty(0, np.int64)
    size = max(1, BLOCK // tau)
    for start in range(0, n, size):
        found = _pieces(held[start : start + size], low)
        found, counts = _merge(found, np.ones(len(found), np.int64))
        rows, pieces = _merge(np.concatenate([rows, found]), np.concatenate([pieces, counts]))
        if _begins(_sets(rows, low)).sum() > most:
            return None
    key = (rows[:, 0] & _bottom(low)).astype(np.int64)
    rows = _sets(rows, low)
    begins = _begins(rows)
    bits = np.unpackbits(rows[begins].astype("<u8").view(np.uint8), axis=1, count=low + tau, bitorder="little")
    return Groups(bits[:, low:].view(bool), begins.cumsum() - 1, key, pieces)


def keys_held(round: Round, attribute: int, lemma: Lemma, members: Array | None) -> Array:
    """(n_j,) unsigned memo keys of the users who answer; `members` (n,) says who answers which attribute, None all.

    Raises:
        DataError: a value outside the attribute's domain.
    """
    assert round.values is not None
    k = len(round.counts[attribute])
    column = round.values[:, attribute] if members is None else round.values[members == attribute, attribute]
    if len(column) and not 0 <= column.min() <= column.max() < k:
        raise DataError(
            f"round {round.index} has values from {column.min()} to {column.max()} for attribute {attribute}: they "
            f"must lie in [0, {k - 1}]"
        )
    return column if lemma.key is None else lemma.key.astype(np.min_scalar_type(lemma.keys - 1))[column]


def paths(collection: Collection, attribute: int, lemma: Lemma, members: Array | None) -> Array:
    """(n_j, tau): the memo key of each user who answers, in each round."""
    return np.stack([keys_held(round, attribute, lemma, members) for round in collection], axis=1)


def whole_groups(collection: Collection, attribute: int, lemma: Lemma, most: float = math.inf) -> Groups | None:
    """Groups of all users of one attribute, None where they are more than `most`.

    They depend on the data alone and are worked out once for a collection, however often it is simulated.
    """
    known = _WHOLE.setdefault(collection, {})
    name = attribute, b"" if lemma.key is None else lemma.key.tobytes()
    if name not in known:
        found = group(paths(collection, attribute, lemma, None), most)
        if found is None:
            return None
        known[name] = found
    return known[name]


def _pieces(held: Array, low: int) -> Array:
    """(n, tau) keys below 2^low -> (pieces, words) uint64, lowest word first."""
    n, tau = held.shape
    order = held.argsort(axis=1, kind="stable")
    ordered = np.take_along_axis(held, order, axis=1)
    begins = np.ones((n, tau), bool)
    begins[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    begin = np.flatnonzero(begins)
    place = (order + low).ravel()
    words = -(-(low + tau) // WORD)
    rows = np.empty((len(begin), words), np.uint64)
    for word in range(words):
        bit = np.where(place // WORD == word, np.uint64(1) << (place % WORD).astype(np.uint64), np.uint64(0))
        rows[:, word] = np.bitwise_or.reduceat(bit, begin)
    rows[:, 0] |= ordered.ravel()[begin].astype(np.uint64)
    return rows


def _merge(rows: Array, pieces: Ints) -> tuple[Array, Ints]:
    """Add up the pieces of equal rows; rows come out ordered, the highest word first."""
    order = rows[:, 0].argsort() if rows.shape[1] == 1 else np.lexsort(rows.T)
    rows, pieces = rows[order], pieces[order]
    begin = np.flatnonzero(_begins(rows))
    return rows[begin], np.add.reduceat(pieces, begin)


def _bottom(low: int) -> np.uint64:
    return np.uint64((1 << low) - 1)


def _sets(rows: Array, low: int) -> Array:
    """Rows without their keys."""
    found = rows.copy()
    found[:, 0] &= ~_bottom(low)
    return found


def _begins(rows: Array) -> Bools:
    """Which of some ordered rows differ from the one before."""
    begins = np.ones(len(rows), bool)
    begins[1:] = (rows[1:] != rows[:-1]).any(axis=1)
    return begins
