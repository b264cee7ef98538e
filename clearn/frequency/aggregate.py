"""All users at once: what a server counts, drawn from its exact distribution at a cost that their number does not move.

Tallies have the very law of `PerUser`'s, over values and over rounds: users keep their memos, so the noise of the
permanent step is shared by all rounds. Of the memos is kept how they add up over the users who hold them in a round,
which is all that a round's counts depend on (see `lemmas`). Where values change, users are cut into pieces by the exact
set of rounds in which they hold a value (see `groups`), and the sums of a round's memos are put together from those.

Carried between rounds, with r = 1 where no value ever changes and else the number of rounds:

    client/memo_counts.J   (r, w) int64: sums of the memos that are in use in a round
    client/attribute       (n,) uint8 or uint16: the attribute that a user answers, where users answer one
    client/group_users     (d,) int64: how many answer each instead, where users are too many or known by counts alone
    client/held_counts.J   (1, k) int64: what those hold, where nothing is kept of their answers
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clearn.errors import ConfigError, DataError
from clearn.frequency.coins import Ints
from clearn.frequency.groups import group, keys_held, paths, whole_groups
from clearn.frequency.lemmas import Lemma, lemma_of
from clearn.frequency.mechanism import Array, Tally
from clearn.frequency.memo import entry
from clearn.frequency.population import Population, Watch
from clearn.frequency.protocol import FrequencyProtocol
from clearn.frequency.splitting import draw_attributes, draw_sizes, draw_subset
from clearn.state import State

if TYPE_CHECKING:
    from clearn.stream import Collection, Round

MOST_USERS = 50_000_000  # whose attributes are drawn one by one, a byte each; beyond, as counts


@dataclass(frozen=True, eq=False)
class Crowd:
    """What all users together carry.

    Attributes:
        attribute: (n,) which one each answers; None where they answer all, or where only `users` is known.
        users: (d,) int64: how many answer each.
        memos: per attribute, (r, w) sums of memos in use, or of what is held; None where the round itself says it.
    """

    attribute: Array | None
    users: Ints
    memos: list[Ints | None]


class Aggregate(Population):
    """Every user at once.

    Args:
        protocol: what users and server agree on.
        collection: the rounds.
        setup_rng: of what is drawn once: who answers which attribute, then permanent answers, attribute by attribute.
            It is drawn from when first needed, so that a population that is loaded instead costs nothing.

    Raises:
        ConfigError: aggregate counts would be wrong, or the collection has other attributes than the protocol.
    """

    engine = "aggregate"

    def __init__(self, protocol: FrequencyProtocol, collection: Collection, setup_rng: np.random.Generator) -> None:
        if collection.domains != protocol.domains:
            raise ConfigError(
                f"the protocol is made for domains {protocol.domains}, and the collection has {collection.domains}: "
                "make it for the collection's"
            )
        why = obstacle(protocol, collection)
        if why is not None:
            raise ConfigError(f"the aggregate engine would be wrong here: {why}; write engine: per_user")
        self.protocol, self.collection, self.setup_rng = protocol, collection, setup_rng
        self.lemmas = [lemma for lemma in map(lemma_of, protocol.mechanisms) if lemma is not None]
        self.sampled = samples(protocol)
        self.by_user = self.sampled and collection.rows and (collection.n_users <= MOST_USERS or not collection.static)
        self._crowd: Crowd | None = None

    @property
    def crowd(self) -> Crowd:
        """What users carry, drawn now if it was not before."""
        if self._crowd is None:
            self._crowd = self._draw(self.setup_rng)
        return self._crowd

    def report(self, round: Round, rng: np.random.Generator, watch: Watch | None = None) -> list[Tally]:
        """Draw the counts of every attribute; no single report exists that could be watched.

        Raises:
            DataError: counts that are not of these users.
        """
        assert watch is None, "engines.choose takes the per-user engine where reports are watched"
        crowd, n, tallies = self.crowd, self.collection.n_users, []
        for j, lemma in enumerate(self.lemmas):
            users, found = int(crowd.users[j]), crowd.memos[j]
            memos = self._held(round, j, crowd.attribute) if found is None else found[self._row(round.index)]
            counts, trials = lemma.send(memos, users, rng), lemma.trials(memos, users)
            fakes = self.protocol.fakes(j)
            if fakes is not None and self.sampled:
                counts, trials, users = counts + fakes.aggregate(n - users, rng), trials + (n - users), n
            tallies.append(Tally(users, counts, trials))
        return tallies

    def answering(self) -> list[int]:
        """Users who answer each attribute truthfully."""
        return [int(users) for users in self.crowd.users]

    def cells(self, round: Round) -> list[Array]:
        """What the users who answer hold; 0 where nothing is kept."""
        crowd = self.crowd
        return [
            keys_held(round, j, lemma, crowd.attribute) if lemma.keeps else np.zeros(crowd.users[j], np.uint8)
            for j, lemma in enumerate(self.lemmas)
        ]

    def state(self) -> State:
        """Sums of memos, and who answers what."""
        crowd = self.crowd
        state: State = {}
        if crowd.attribute is not None:
            state["client/attribute"] = crowd.attribute
        elif self.sampled:
            state["client/group_users"] = crowd.users
        return state | {self._name(j): memos for j, memos in enumerate(crowd.memos) if memos is not None}

    def load(self, state: State) -> None:
        """Take sums of memos, and who answers what."""
        n, d = self.collection.n_users, len(self.lemmas)
        attribute, users = None, np.full(d, n, np.int64)
        if self.by_user:
            attribute = entry(state, "client/attribute", (n,), np.uint8 if d <= 256 else np.uint16)
            users = np.bincount(attribute, minlength=d)
        elif self.sampled:
            users = entry(state, "client/group_users", (d,), np.int64)
        memos = [self._load_memos(state, j) for j in range(d)]
        self._crowd = Crowd(attribute, users, memos)

    def _load_memos(self, state: State, attribute: int) -> Ints | None:
        lemma = self.lemmas[attribute]
        if not self._carries(lemma):
            return None
        rows = 1 if self.collection.static else len(self.collection)
        width = lemma.width if lemma.keeps else lemma.keys
        return entry(state, self._name(attribute), (rows, width), np.int64)

    def _name(self, attribute: int) -> str:
        return f"client/{'memo' if self.lemmas[attribute].keeps else 'held'}_counts.{attribute}"

    def _carries(self, lemma: Lemma) -> bool:
        """Whether the round itself and the attribute of each user don't say all that a report depends on."""
        return lemma.keeps or (self.sampled and not self.by_user)

    def _row(self, index: int) -> int:
        return 0 if self.collection.static else index

    def _draw(self, rng: np.random.Generator) -> Crowd:
        n, d, shares, split = self.collection.n_users, len(self.lemmas), self.protocol.shares, self.protocol.split
        attribute, users = None, np.full(d, n, np.int64)
        if self.by_user:
            attribute = draw_attributes(shares, n, split, rng)
            users = np.bincount(attribute, minlength=d)
        elif self.sampled:
            users = draw_sizes(shares, n, split, rng)
        memos: list[Ints | None] = [None] * d
        for j, lemma in enumerate(self.lemmas):
            if not self._carries(lemma):
                continue
            if self.collection.static:
                held = self._held(self.collection[0], j, attribute)
                if self.sampled and not self.by_user:
                    held = draw_subset(held, int(users[j]), rng)
                memos[j] = lemma.settle(held[None], rng)
            else:
                memos[j] = self._settle_groups(j, attribute, rng)
        return Crowd(attribute, users, memos)

    def _settle_groups(self, attribute: int, members: Array | None, rng: np.random.Generator) -> Ints:
        """(tau, w): the memos of all groups, added up over those that are in use in each round."""
        lemma = self.lemmas[attribute]
        of = self.collection, attribute, lemma
        groups = whole_groups(*of) if members is None else group(paths(*of, members))
        assert groups is not None, "no limit was set"
        total = np.zeros((len(self.collection), lemma.width))
        for rounds, held in groups.held(lemma.keys):
            total += rounds.T.astype(np.float64) @ lemma.settle(held, rng)  # whole numbers below 2^53 are exact
        return total.astype(np.int64)

    def _held(self, round: Round, attribute: int, members: Array | None) -> Ints:
        """(keys,) how many users hold each memo key: of all, or of those who answer the attribute."""
        lemma, k = self.lemmas[attribute], self.protocol.domains[attribute]
        if members is not None:
            return np.bincount(keys_held(round, attribute, lemma, members), minlength=lemma.keys)
        counts = np.asarray(round.counts[attribute])
        if counts.shape != (k,) or counts.dtype.kind not in "iu" or counts.sum() != self.collection.n_users:
            raise DataError(
                f"round {round.index} has counts of shape {counts.shape} and sum {counts.sum()} for attribute "
                f"{attribute}: give whole numbers of users of all {k} values, {self.collection.n_users:,} together"
            )
        return lemma.fold(counts.astype(np.int64))


def samples(protocol: FrequencyProtocol) -> bool:
    """Whether a user answers one attribute out of several."""
    return protocol.asks != "all" and len(protocol.domains) > 1


def obstacle(protocol: FrequencyProtocol, collection: Collection) -> str | None:
    """Say why aggregate counts would be wrong, or None where they are right."""
    for j, mechanism in enumerate(protocol.mechanisms):
        name, lemma = type(mechanism).__name__, lemma_of(mechanism)
        if mechanism.aggregate == "none" or lemma is None:
            return f"no law is known of the counts of {name} (attribute {j}) that does without single users"
        if not collection.static and not lemma.changes:
            return (
                f"values change, and with {name} (attribute {j}) the values of one user share what was drawn once, "
                "so that counts depend on each user's path"
            )
        if not collection.static and not collection.rows and (lemma.keeps or samples(protocol)):
            kept = "their memos" if lemma.keeps else "the attribute they answer"
            return f"values change, users keep {kept}, and counts alone do not say who changed"
    return None
