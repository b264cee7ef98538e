"""All simulated users of one collection, and what their devices carry from round to round.

`PerUser` runs every device; what it carries is what the devices would: their attribute, public draws, and memos. It is
right for every protocol, changing values and joint laws. For counts alone the aggregate engine costs less.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from clearn.errors import ConfigError, DataError
from clearn.frequency.coins import Ints, SimulatedCoins
from clearn.frequency.devices import Block, Devices, checked, nothing, tally
from clearn.frequency.mechanism import Array, Tally
from clearn.frequency.memo import MemoKind
from clearn.frequency.protocol import FrequencyProtocol
from clearn.state import State

if TYPE_CHECKING:
    from clearn.stream import Collection, Round


Watch = Callable[[int, Block], None]


class Population(ABC):
    """Simulated users.

    Attributes:
        engine: how they are simulated, "per_user" or "aggregate".
    """

    engine: str

    @abstractmethod
    def report(self, round: Round, rng: np.random.Generator, watch: Watch | None = None) -> list[Tally]:
        """Simulate one round: a tally per attribute.

        Args:
            round: the users' values.
            rng: of this round; nothing else is drawn from, so that a population rebuilt from `state` goes on alike.
            watch: is shown every block of reports, by attribute, where users report one by one.
        """

    @abstractmethod
    def answering(self) -> list[int]:
        """How many users answer each attribute truthfully."""

    @abstractmethod
    def cells(self, round: Round) -> list[Array]:
        """Memo keys that the users who answer hold in a round: (n_j,) unsigned per attribute, always the same users.

        It is what the accountant counts, and is asked for only where values change.
        """

    def client_bits(self) -> Ints | None:
        """(n,) int64: secret bits on each user's device now; None where devices are not simulated one by one."""
        return None

    @abstractmethod
    def state(self) -> State:
        """Exactly what later rounds need, arrays under 'client/...'."""

    @abstractmethod
    def load(self, state: State) -> None:
        """Replace what is carried.

        Raises:
            StateError: entries that are missing, or of another protocol or other users.
        """


class PerUser(Population):
    """Every user's device on its own, vectorised over users.

    Args:
        protocol: what users and server agree on.
        collection: the rounds, with values known user by user.
        setup_rng: of what devices draw once.
        memo: "table" of permanent answers, or "prf" with one secret key a device.

    Raises:
        ConfigError: the collection is known by its counts alone, or has other attributes than the protocol.
    """

    engine = "per_user"

    def __init__(
        self,
        protocol: FrequencyProtocol,
        collection: Collection,
        setup_rng: np.random.Generator,
        memo: MemoKind = "table",
    ) -> None:
        if not collection.rows:
            raise ConfigError(
                "the per-user engine needs the value of every user, and this collection is known by its counts alone: "
                "write engine: aggregate"
            )
        if collection.domains != protocol.domains:
            raise ConfigError(
                f"the protocol is made for domains {protocol.domains}, and the collection has {collection.domains}: "
                "make it for the collection's"
            )
        self.protocol = protocol
        self.devices = Devices(protocol, collection.n_users, SimulatedCoins(setup_rng), memo)

    def report(self, round: Round, rng: np.random.Generator, watch: Watch | None = None) -> list[Tally]:
        """Let every device report, attribute by attribute, and count.

        Raises:
            DataError: values that are missing, out of range, or of another number of users.
        """
        if round.values is None:
            raise DataError(f"round {round.index} has counts and no values user by user: write engine: aggregate")
        values, coins = checked(round.values, self.protocol.domains, self.devices.n), SimulatedCoins(rng)
        tallies = []
        for j, mechanism in enumerate(self.protocol.mechanisms):
            total = nothing(mechanism)
            for block in self.devices.answer(j, values[:, j], coins):
                total += tally(mechanism, block.public, block.reports)
                if watch is not None:
                    watch(j, block)
            tallies.append(total)
        return tallies

    def answering(self) -> list[int]:
        """Members of each attribute."""
        return [len(members) for members in self.devices.members]

    def cells(self, round: Round) -> list[Array]:
        """Each device's memo key."""
        assert round.values is not None
        return [
            self.devices.cell(j, round.values[:, j]).astype(np.min_scalar_type(mechanism.cells - 1))
            for j, mechanism in enumerate(self.protocol.mechanisms)
        ]

    def state(self) -> State:
        """What the devices carry."""
        return self.devices.state()

    def load(self, state: State) -> None:
        """Give the devices what they carried."""
        self.devices.load(state)

    def client_bits(self) -> Ints:
        """(n,) int64: secret bits on each user's device now, counted in the buffers that hold them."""
        return self.devices.memo.bits()
