"""Permanent answers: what a device keeps so that the same cell is always answered from the same memo.

`TableMemo` keeps the answers themselves, one per cell that was met: true chance, and bits that grow with the cells.
`PrfMemo` keeps 32 secret bytes and draws every answer anew from a keyed function of the cell: no growth, and a promise
that holds against whoever cannot tell SHAKE-256 from chance. A lost key, like a lost table, is a second memo of every
cell, and costs eps_inf again.

Carried between rounds, n_j users answering attribute j and m cells met by all of them together:

    client/known.J   ceil(n_j cells / 8) uint8: a bitmap of the cells met, users in order, first cell in the high bit
    client/memo.J    ceil(m memo_bits / 8) uint8: their memos in the same order, packed without gaps, padded at the end
    client/key       (n, 32) uint8, instead of both
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from clearn.errors import StateError
from clearn.frequency.coins import Coins, Ints, StreamCoins, Words
from clearn.frequency.mechanism import Array, Mechanism
from clearn.frequency.packing import Bytes, bitmap, blocks, loosen, pack, positions, tighten
from clearn.state import State

MemoKind = Literal["table", "prf"]
KEY_BYTES = 32
DOMAIN = b"clearn permanent answer 1"


class Memo(ABC):
    """The permanent answers of a population of users.

    Args:
        mechanisms: one per attribute.
        members: (n_j,) ascending: the users who answer attribute j truthfully, for each j.
        n: users.
    """

    def __init__(self, mechanisms: Sequence[Mechanism], members: Sequence[Ints], n: int) -> None:
        self.mechanisms, self.members, self.n = mechanisms, members, n
        self.kept = [j for j, mechanism in enumerate(mechanisms) if mechanism.permanent is not None]

    @abstractmethod
    def memos(self, attribute: int, cells: Ints, public: Array, coins: Coins) -> Bytes:
        """Look up the memo of one cell of every member, drawing those that are not there.

        Args:
            attribute: one with a permanent step.
            cells: (n_j,) the cell that each member's value falls in.
            public: (n_j, width) what each member disclosed once.
            coins: what a new memo is drawn from.

        Returns:
            (n_j, ceil(memo_bits / 8)) uint8 packed memos; see `unpack`.
        """

    @abstractmethod
    def bits(self) -> Ints:
        """(n,) int64: secret bits that each user's device holds now."""

    @abstractmethod
    def state(self) -> State:
        """All that is carried between rounds."""

    @abstractmethod
    def load(self, state: State) -> None:
        """Replace what is carried.

        Raises:
            StateError: entries that are missing, or of other users.
        """


class TableMemo(Memo):
    """Answers drawn once and kept, for the cells met only, ordered by (user, cell)."""

    def __init__(self, mechanisms: Sequence[Mechanism], members: Sequence[Ints], n: int) -> None:
        super().__init__(mechanisms, members, n)
        self.keys: dict[int, Ints] = {j: np.empty(0, np.int64) for j in self.kept}  # member * cells + cell, ascending
        self.rows: dict[int, Bytes] = {j: _rows(mechanisms[j], 0) for j in self.kept}  # packed, in the same order

    def memos(self, attribute: int, cells: Ints, public: Array, coins: Coins) -> Bytes:
        """Draw the cells not yet met, in the order of users, and merge them in."""
        mechanism, keys = self.mechanisms[attribute], self.keys[attribute]
        wanted = np.arange(len(cells)) * mechanism.cells + cells  # ascending
        at = np.searchsorted(keys, wanted)
        known = np.zeros(len(cells), bool)
        inside = at < len(keys)
        known[inside] = keys[at[inside]] == wanted[inside]
        if not known.all():
            new = ~known
            drawn = _draw(mechanism, cells[new], public[new], coins)
            self.keys[attribute] = np.insert(keys, at[new], wanted[new])
            self.rows[attribute] = np.insert(self.rows[attribute], at[new], drawn, axis=0)
            at += np.cumsum(new) - new  # a row moves up by the new ones before it
        return self.rows[attribute][at]

    def bits(self) -> Ints:
        """A bit a possible cell, and the memos of those met."""
        total = np.zeros(self.n, np.int64)
        for j in self.kept:
            mechanism, members = self.mechanisms[j], self.members[j]
            met = np.bincount(self.keys[j] // mechanism.cells, minlength=len(members))
            total[members] += met * mechanism.memo_bits + mechanism.cells
        return total

    def state(self) -> State:
        """A bitmap of the cells met and their memos, for each attribute."""
        state: State = {}
        for j in self.kept:
            mechanism = self.mechanisms[j]
            state[f"client/known.{j}"] = bitmap(self.keys[j], len(self.members[j]) * mechanism.cells)
            state[f"client/memo.{j}"] = tighten(self.rows[j], mechanism.memo_bits)
        return state

    def load(self, state: State) -> None:
        """Unpack both."""
        for j in self.kept:
            mechanism = self.mechanisms[j]
            known = entry(state, f"client/known.{j}", (-(-len(self.members[j]) * mechanism.cells // 8),))
            keys = positions(known)
            memos = entry(state, f"client/memo.{j}", (-(-len(keys) * mechanism.memo_bits // 8),))
            self.keys[j], self.rows[j] = keys, loosen(memos, len(keys), mechanism.memo_bits)


class PrfMemo(Memo):
    """Answers drawn anew each time from SHAKE-256 of a user's secret key, a tag, the attribute and the cell.

    Args:
        mechanisms, members, n: as for any memo.
        keys: (n, 32) uint8 secret bytes.
        tag: of fixed length; two protocols with one key must not share their answers.
    """

    def __init__(
        self, mechanisms: Sequence[Mechanism], members: Sequence[Ints], n: int, keys: Bytes, tag: bytes
    ) -> None:
        super().__init__(mechanisms, members, n)
        self.keys, self.tag = keys, tag

    def memos(self, attribute: int, cells: Ints, public: Array, coins: Coins) -> Bytes:
        """Feed the stream of every user's key to the very step that a table is drawn with; `coins` are not touched.

        The loop over users is Python's because hashlib takes one message at a time; its cost is the hash's own.
        """
        mechanism, members = self.mechanisms[attribute], self.members[attribute]
        length, rows = _stream_bytes(mechanism), _rows(mechanism, len(cells))
        prefix = DOMAIN + self.tag + attribute.to_bytes(4, "little")
        for block in blocks(len(cells), mechanism.lanes):
            drawn = b"".join(
                hashlib.shake_256(key.tobytes() + prefix + cell.to_bytes(8, "little")).digest(length)
                for key, cell in zip(self.keys[members[block]], cells[block].tolist(), strict=True)
            )
            stream = StreamCoins(np.frombuffer(drawn, np.uint8).reshape(-1, length))
            rows[block] = pack(mechanism, mechanism.memoise(cells[block], public[block], stream))
        return rows

    def bits(self) -> Ints:
        """The key."""
        return np.full(self.n, 8 * self.keys.shape[1], np.int64)

    def state(self) -> State:
        """The keys alone."""
        return {"client/key": self.keys}

    def load(self, state: State) -> None:
        """Take the keys."""
        self.keys = entry(state, "client/key", (self.n, KEY_BYTES))


def entry(state: State, name: str, shape: tuple[int, ...], dtype: Any = np.uint8) -> Array:
    """Take one array out of a state.

    Raises:
        StateError: it is missing, or not of this shape and type.
    """
    found = state.get(name)
    if not isinstance(found, np.ndarray):
        raise StateError(f"the state has no array '{name}': it was written by another protocol or another memo")
    if found.shape != shape or found.dtype != dtype:
        raise StateError(
            f"'{name}' is {found.dtype} of shape {found.shape}, and {np.dtype(dtype)} of {shape} is needed: "
            "it was written for other users or another protocol"
        )
    return found


def _rows(mechanism: Mechanism, count: int) -> Bytes:
    return np.empty((count, -(-mechanism.memo_bits // 8)), np.uint8)


def _draw(mechanism: Mechanism, cells: Ints, public: Array, coins: Coins) -> Bytes:
    """Draw new memos, packed."""
    rows = _rows(mechanism, len(cells))
    for block in blocks(len(cells), mechanism.lanes):
        rows[block] = pack(mechanism, mechanism.memoise(cells[block], public[block], coins))
    return rows


class _Meter(Coins):
    """Counts the bytes that are asked for."""

    def __init__(self) -> None:
        self.bytes = 0

    def words(self, shape: tuple[int, ...], bits: int) -> Words:
        self.bytes += int(np.prod(shape, dtype=np.int64)) * bits // 8
        return np.zeros(shape, f"<u{bits // 8}")


def _stream_bytes(mechanism: Mechanism) -> int:
    """Bytes of randomness that one memo takes, found by drawing one."""
    meter = _Meter()
    mechanism.memoise(np.zeros(1, np.int64), mechanism.public(1, _Meter()), meter)
    return meter.bytes
