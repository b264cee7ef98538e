"""What a protocol costs: privacy per user over the rounds, and bits on the device, over the wire and at the server.

Three losses stand side by side, because values that change leak more than the literature's accounting says. With a memo
per cell the reports of different rounds are correlated, so no sum over rounds is the loss of a whole trajectory:

    static      between two users who never change: the exact loss of the longest block of one cell held so far
    memo        between two users who change at the same moments: the sum of the exact losses of all blocks
    any         between any two users: rounds times what one instantaneous step tells apart; often vacuous

`literature` is what papers print, distinct memoised cells times eps_inf. It bounds `memo`, not `any`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from clearn.frequency.coins import Ints
from clearn.frequency.mechanism import Array, Floats, Mechanism
from clearn.frequency.protocol import FrequencyProtocol

Memo = Literal["table", "prf"]
KEY_BITS = 256  # of the keyed function that replaces a table of permanent answers
BLOCK = 2**20  # cells sorted at a time


@dataclass(frozen=True)
class Figure:
    """A number that differs between users."""

    mean: float
    max: float


@dataclass(frozen=True)
class Summary:
    """What users have lost after a round, in eps, and how many memo keys (cells) they have met.

    Attributes:
        static: between users who never change.
        memo: between users who change at the same moments.
        any: between any two users; infinite where a change of the memo is seen at once.
        literature: distinct cells times eps_inf, or rounds times eps of a protocol that keeps nothing.
        distinct: cells met, over all attributes a user answers.
        met: (d,) mean of cells met by the users who answer an attribute, as `cost` takes it; 0 where nobody does.
    """

    static: Figure
    memo: Figure
    any: Figure
    literature: Figure
    distinct: Figure
    met: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Spent:
    """The same user by user; see `Summary`.

    Attributes:
        users: (m,) int64: how many users each entry stands for.
        static: (m,) float64, like memo, any and literature.
        distinct: (m,) int64.
        met: per attribute.
    """

    users: Ints
    static: Floats
    memo: Floats
    any: Floats
    literature: Floats
    distinct: Ints
    met: tuple[float, ...]

    def summary(self) -> Summary:
        """Mean and maximum over users."""

        def figure(values: Array) -> Figure:
            return Figure(float(np.average(values, weights=self.users)), float(values.max()))

        static, memo, most = figure(self.static), figure(self.memo), figure(self.any)
        return Summary(static, memo, most, figure(self.literature), figure(self.distinct), self.met)


class Accountant:
    """Adds up what users of a protocol lose; every loss is of the rounded probabilities in force.

    Args:
        protocol: whose mechanisms are spent. Losses add up where a user answers all attributes; where a user answers
            one, the others cost nothing.
        rounds: up to which losses are tabulated, once.
    """

    def __init__(self, protocol: FrequencyProtocol, rounds: int) -> None:
        self.protocol, self.rounds = protocol, rounds
        eps_inf = protocol.budgets.eps_inf / (len(protocol.domains) if protocol.asks == "all" else 1)
        self.prices = []
        for mechanism in protocol.mechanisms:
            of = protocol if protocol.asks == "hidden" else mechanism  # fakes guard the tuple, no attribute by itself
            losses = np.array([0.0, *(of.loss(t) for t in range(1, rounds + 1))])
            self.prices.append(_Prices(losses, of.loss_any(), eps_inf, mechanism.permanent is not None))

    def unchanged(self, users: Sequence[int]) -> Iterator[Spent]:
        """Give the losses after each round where no value ever changes; the number of users costs nothing.

        Args:
            users: how many answer each attribute; where all are answered, all users each time.
        """
        together = self.protocol.asks == "all"
        one_each = [np.zeros((1 if n or together else 0, self.rounds), np.uint8) for n in users]
        return self.over(one_each, np.asarray(users[:1] if together else [n for n in users if n], np.int64))

    def over(self, cells: Sequence[Array], users: Ints | None = None) -> Iterator[Spent]:
        """Give the losses after each round.

        Args:
            cells: per attribute, (n_j, rounds) memo keys that the users who answer it held. Where all attributes are
                answered, row i of every table is user i; else users come one attribute after the other.
            users: how many users each entry of the result stands for; one by default.
        """
        ledgers = [_Ledger(occurrences(held), prices) for held, prices in zip(cells, self.prices, strict=True)]
        for t in range(1, self.rounds + 1):
            columns = zip(*(ledger.after(t) for ledger in ledgers), strict=True)
            static, memo, most, literature, distinct = (
                np.sum(column, axis=0) if self.protocol.asks == "all" else np.concatenate(column) for column in columns
            )
            met = tuple(float(ledger.distinct.mean()) if len(ledger.distinct) else 0.0 for ledger in ledgers)
            counted = np.ones(len(static), np.int64) if users is None else users
            yield Spent(counted, static, memo, most, literature, distinct, met)


@dataclass(frozen=True, eq=False)
class _Prices:
    """What one attribute's reports cost: (rounds + 1,) loss of t reports of a cell, and eps a round and a cell."""

    losses: Floats
    any: float
    eps_inf: float
    keeps: bool


class _Ledger:
    """One attribute's running account: (n,) numbers, brought from round t - 1 to round t."""

    def __init__(self, ranks: Array, prices: _Prices) -> None:
        n = ranks.shape[1]
        self.ranks, self.prices, self.gains = ranks, prices, np.diff(prices.losses)
        self.longest, self.distinct, self.memo = np.zeros(n, ranks.dtype), np.zeros(n, np.int64), np.zeros(n)

    def after(self, t: int) -> tuple[Array, ...]:
        """The columns of `Spent`."""
        rank, prices = self.ranks[t - 1], self.prices
        self.longest = np.maximum(self.longest, rank)
        self.distinct = self.distinct + (rank == 1)
        self.memo = self.memo + self.gains[rank - 1]
        each = np.ones(len(rank))
        if not prices.keeps:
            fresh = prices.losses[t] * each
            return fresh, fresh, t * prices.any * each, t * prices.eps_inf * each, self.distinct
        static, literature = prices.losses[self.longest], prices.eps_inf * self.distinct
        return static, self.memo, t * prices.any * each, literature, self.distinct


def occurrences(cells: Array) -> Array:
    """Number each user's meetings with each cell from 1, in the order of rounds: (n, rounds) to (rounds, n).

    One stable sort a row, a block of users at a time; the result has the smallest dtype that counts the rounds.

    >>> occurrences(np.array([[3, 5, 3, 3, 5]])).T.tolist()
    [[1, 1, 2, 3, 2]]
    """
    n, rounds = cells.shape
    found = np.empty((rounds, n), np.min_scalar_type(rounds))
    place = np.arange(rounds)
    rows = max(1, BLOCK // rounds)
    for first in range(0, n, rows):
        block = cells[first : first + rows]
        order = block.argsort(axis=1, kind="stable")
        ordered = np.take_along_axis(block, order, axis=1)
        starts = np.where(ordered != np.roll(ordered, 1, axis=1), place, 0)  # the first run starts at place 0 anyway
        ranks = place + 1 - np.maximum.accumulate(starts, axis=1)
        here = np.empty_like(ranks)
        np.put_along_axis(here, order, ranks, axis=1)
        found[:, first : first + rows] = here.T
    return found


@dataclass(frozen=True)
class ProtocolCost:
    """What a user's device and the server pay in bits and bytes, privacy apart.

    Attributes:
        client_now: secret bits on a device that has met so many cells, mean over the attributes it may answer.
        client_worst: secret bits once every cell was met, of the costliest attribute.
        client_public: other bits a device keeps: hash seed, bucket indices, and which attribute it answers.
        bits_setup: sent once.
        bits_round: of one round's reports, mean over the attributes a device may answer.
        bits_round_worst: of the costliest attribute.
        server: bytes: the counts of all rounds, what users disclosed once, and counters of linked decoding.
    """

    client_now: float
    client_worst: int
    client_public: int
    bits_setup: int
    bits_round: float
    bits_round_worst: float
    server: int


def cost(
    protocol: FrequencyProtocol,
    n_users: int,
    rounds: int,
    met: float | Sequence[float] | None = None,
    memo: Memo = "table",
    linked: bool = False,
) -> ProtocolCost:
    """Work out the cost card of a collection before anyone is asked.

    Args:
        protocol: a user answers an attribute with probability `shares`, or all of them.
        n_users: all of them.
        rounds: whose counts the server keeps.
        met: mean cells that a user who answers has met, per attribute or the same for all; None: every cell.
        memo: "table" of permanent answers, or "prf": one key from which they are drawn anew.
        linked: whether the server counts each user's answers, for linked decoding.
    """
    mechanisms, d = protocol.mechanisms, len(protocol.mechanisms)
    true = np.ones(d) if protocol.asks == "all" else protocol.shares  # expected true answers of a user
    sent = protocol.shares if protocol.asks == "one" else np.ones(d)  # and reports, fakes among them
    index = 0 if protocol.asks == "all" else (d - 1).bit_length()
    one = protocol.asks == "one"

    def highest(figures: Sequence[float], single: bool) -> Any:
        return max(figures) if single else sum(figures)

    mets = [m.cells for m in mechanisms] if met is None else np.broadcast_to(np.asarray(met, np.float64), (d,))
    now = float(true @ [_stored(m, float(cells)) for m, cells in zip(mechanisms, mets, strict=True)])
    worst = highest([m.state_bits(m.cells) for m in mechanisms], protocol.asks != "all")
    if memo == "prf":
        now = worst = KEY_BITS if any(m.permanent is not None for m in mechanisms) else 0

    counter = np.min_scalar_type(rounds).itemsize if linked else 0
    disclosed = float(sent @ [m.public_bits / 8 + counter * m.slots for m in mechanisms])
    return ProtocolCost(
        client_now=round(now, 9),
        client_worst=worst,
        client_public=highest([m.public_bits for m in mechanisms], one) + index,
        bits_setup=highest([m.setup_bits for m in mechanisms], one) + one * index,
        bits_round=round(float(sent @ [m.round_bits for m in mechanisms]), 9),
        bits_round_worst=float(highest([m.round_bits for m in mechanisms], one)),
        server=8 * rounds * sum(m.slots for m in mechanisms) + _up(n_users * disclosed),
    )


def _up(amount: float) -> int:
    """Round up, but not for the last digits of a sum."""
    return math.ceil(round(amount, 6))


def _stored(mechanism: Mechanism, met: float) -> float:
    """Bits of a table after a mean number of cells: linear between whole ones."""
    below = math.floor(met)
    low, high = mechanism.state_bits(below), mechanism.state_bits(below + 1)
    return low + (met - below) * (high - low)
