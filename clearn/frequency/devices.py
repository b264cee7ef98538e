"""What users' devices hold and do: the lines that a simulation, an audit and a telephone all run.

A device draws once which attribute it answers and what it discloses (hash seeds, buckets); each round it looks up or
draws the memo of its value's cell, adds fresh noise, and sends. Where nothing is kept, it draws a new hash with every
report. Where the coins come from is its owner's business: `PerUser` passes a seeded generator, `Client` and `Fleet` the
operating system's. Of a round's reports nothing is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate

import numpy as np

from clearn.errors import ConfigError, DataError
from clearn.frequency.coins import Coins, Ints
from clearn.frequency.mechanism import Array, Mechanism, Tally
from clearn.frequency.memo import KEY_BYTES, Memo, MemoKind, PrfMemo, TableMemo, entry
from clearn.frequency.packing import Bytes, blocks, unpack
from clearn.frequency.protocol import FrequencyProtocol
from clearn.frequency.splitting import group_sizes
from clearn.state import State


@dataclass(frozen=True, eq=False)
class Block:
    """Reports of some users about one attribute.

    Attributes:
        users: (b,) int64, ascending.
        public: (b, width) what they disclosed, once or with the report.
        reports: (b, ...) in the form of the mechanism's.
    """

    users: Ints
    public: Array
    reports: Array


class Devices:
    """The devices of n users.

    Args:
        protocol: what they and the server agree on.
        n: users.
        coins: what is drawn once: the attribute of each user, public draws by attribute, keys; in this order.
        memo: how permanent answers are kept.

    Attributes:
        attribute: (n,) uint8 or uint16, the one that a user answers truthfully; None where all are.
        members: (n_j,) int64, ascending: the users who answer attribute j truthfully, for each j.
        public: (n_j, width) what they disclosed once, for each j; of no width where nothing is kept.

    Raises:
        ConfigError: an unknown kind of memo, or fakes beside answers that are kept, which would stand out.
    """

    def __init__(self, protocol: FrequencyProtocol, n: int, coins: Coins, memo: MemoKind) -> None:
        if memo not in ("table", "prf"):
            raise ConfigError(f"memo={memo!r} must be 'table' or 'prf'")
        kept = [mechanism.permanent is not None for mechanism in protocol.mechanisms]
        if protocol.asks == "hidden" and any(kept):
            raise ConfigError(
                "fakes are drawn anew in every round, and true answers that are kept would stand out among them: "
                "hide attributes with one-shot mechanisms only"
            )
        self.protocol, self.n = protocol, n
        self.attribute = None
        if protocol.asks != "all" and len(protocol.domains) > 1:
            self.attribute = _attributes(protocol, n, coins)
        self.members = self._members()
        self.public = [
            mechanism.public(len(members), coins) if keeps else np.empty((0, 0), np.uint8)
            for mechanism, members, keeps in zip(protocol.mechanisms, self.members, kept, strict=True)
        ]
        self._keys = _keys(n, coins) if any(kept) and memo == "prf" else None
        self.memo = self._memo()

    def answer(self, attribute: int, values: Ints, coins: Coins) -> Iterator[Block]:
        """Report one attribute for one round: truthful users first, in blocks, then those who fake.

        New hashes are drawn first, then new memos, then instantaneous noise, each in the order of users; then fakes.
        Unary reports take one word a bit and so do not depend on how users are cut into blocks. Symbols take words of
        two sizes by turns and do: blocks follow from `BLOCK` and the mechanism alone.

        Args:
            attribute: which.
            values: (n,) int64 values of all users, in range.
            coins: of this round.
        """
        mechanism, members = self.protocol.mechanisms[attribute], self.members[attribute]
        keeps = mechanism.permanent is not None
        public = self.public[attribute] if keeps else mechanism.public(len(members), coins)
        cells = mechanism.cell(values[members], public)
        rows = self.memo.memos(attribute, cells, public, coins) if keeps else None
        for block in blocks(len(members), mechanism.lanes):
            memos = mechanism.signal(cells[block], public[block]) if rows is None else unpack(mechanism, rows[block])
            yield Block(members[block], public[block], mechanism.send(memos, coins))
        fakes = self.protocol.fakes(attribute)
        if fakes is not None and self.attribute is not None:
            others = np.flatnonzero(self.attribute != attribute)
            public = mechanism.public(len(others), coins)
            for block in blocks(len(others), mechanism.lanes):
                yield Block(others[block], public[block], fakes.draw(block.stop - block.start, coins))

    def cell(self, attribute: int, values: Array) -> Ints:
        """(n,) values of all users -> (n_j,) memo keys of those who answer the attribute; 0 where nothing is kept."""
        mechanism, members = self.protocol.mechanisms[attribute], self.members[attribute]
        if mechanism.permanent is None:
            return np.zeros(len(members), np.int64)
        return mechanism.cell(values[members].astype(np.int64), self.public[attribute])

    def state(self) -> State:
        """All that devices carry between rounds."""
        state: State = {} if self.attribute is None else {"client/attribute": self.attribute}
        state |= {f"client/public.{j}": public for j, public in enumerate(self.public) if public.shape[1]}
        return state | self.memo.state()

    def load(self, state: State) -> None:
        """Replace all that devices carry.

        Raises:
            StateError: entries that are missing, or of another protocol or other users.
        """
        if self.attribute is not None:
            self.attribute = entry(state, "client/attribute", (self.n,), self.attribute.dtype)
            self.members = self._members()
        for j, (public, members) in enumerate(zip(self.public, self.members, strict=True)):
            name, shape = f"client/public.{j}", (len(members), public.shape[1])
            self.public[j] = entry(state, name, shape, public.dtype) if shape[1] else np.empty(shape, public.dtype)
        self.memo = self._memo()
        self.memo.load(state)

    def _members(self) -> list[Ints]:
        d = len(self.protocol.domains)
        if self.attribute is None:
            return [np.arange(self.n)] * d
        return [np.flatnonzero(self.attribute == j) for j in range(d)]

    def _memo(self) -> Memo:
        mechanisms, members = self.protocol.mechanisms, self.members
        if self._keys is None:
            return TableMemo(mechanisms, members, self.n)
        return PrfMemo(mechanisms, members, self.n, self._keys, fingerprint(self.protocol))


def tally(mechanism: Mechanism, public: Array, reports: Array) -> Tally:
    """Count reports of one attribute."""
    return Tally(len(public), mechanism.support(reports, public), mechanism.trials(public))


def nothing(mechanism: Mechanism) -> Tally:
    """The tally of nobody, to add to."""
    return Tally(0, np.zeros(mechanism.slots, np.int64), np.zeros(mechanism.slots, np.int64))


def checked(values: object, domains: tuple[int, ...], n: int) -> Ints:
    """Values of n users as (n, d) int64.

    Raises:
        DataError: another shape, no integers, or a value outside its attribute's domain.
    """
    found = np.asarray(values)
    if found.shape != (n, len(domains)):
        raise DataError(
            f"values have shape {found.shape}, and {n} users with {len(domains)} attributes need {(n, len(domains))}: "
            "every user answers in every round, so give one row a user"
        )
    if found.dtype.kind not in "iu":
        raise DataError(f"values are {found.dtype}, and integers from 0 are needed: number the categories from 0")
    wrong = (found < 0) | (found >= np.asarray(domains))
    if wrong.any():
        user, j = (int(i) for i in np.argwhere(wrong)[0])
        raise DataError(
            f"value {found[user, j]} of user {user} must lie in [0, {domains[j] - 1}], for attribute {j} has "
            f"{domains[j]} values ({int(wrong.sum())} values are outside): number the categories from 0"
        )
    return found.astype(np.int64)


def fingerprint(protocol: FrequencyProtocol) -> bytes:
    """8 bytes by which two sides notice that they run different protocols.

    Numbers enter with 9 digits, since exp may differ in the last one between machines.
    """
    facts: list[object] = [protocol.domains, protocol.asks, [f"{share:.9g}" for share in protocol.shares]]
    for mechanism in protocol.mechanisms:
        facts += [type(mechanism).__name__, mechanism.k, mechanism.cells, mechanism.slots, mechanism.memo_bits]
        facts += [f"{number:.9g}" for number in (mechanism.own, mechanism.other, mechanism.loss(1))]
        for rates in (mechanism.permanent, mechanism.instant):
            facts.append(None if rates is None else (f"{rates.p:.9g}", f"{rates.q:.9g}", rates.bits))
    return hashlib.sha256(repr(facts).encode()).digest()[:8]


def _attributes(protocol: FrequencyProtocol, n: int, coins: Coins) -> Array:
    """Draw the attribute of each user: on its own, or by a shuffle into groups of fixed sizes."""
    d = len(protocol.domains)
    dtype = np.uint8 if d <= 256 else np.uint16
    words = coins.words((n,), 64)
    if protocol.split == "independent":
        shares = accumulate(Fraction(float(share)) for share in protocol.shares[:-1])
        edges = np.array([min(int(2**64 * share), 2**64 - 1) for share in shares], np.uint64)
        return np.searchsorted(edges, words, side="right").astype(dtype)
    attribute = np.empty(n, dtype)
    attribute[np.argsort(words, kind="stable")] = np.repeat(np.arange(d), group_sizes(protocol.shares, n))
    return attribute


def _keys(n: int, coins: Coins) -> Bytes:
    return coins.words((n, KEY_BYTES // 8), 64).astype("<u8").view(np.uint8)
