"""The server's counters for linked decoding: how often each user's reports supported each value, over all rounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from clearn.frequency import linked
from clearn.frequency.devices import Block
from clearn.frequency.mechanism import Array, Floats
from clearn.frequency.population import PerUser
from clearn.frequency.protocol import FrequencyProtocol
from clearn.frequency.symbol import Symbol
from clearn.state import State


class Links:
    """What links one population's reports; where values never change it says more than the sum of all rounds.

    Args:
        protocol: whose mechanisms can all be linked.
        users: who answers; each answers the same attributes for ever.
        rounds: of the collection, which the counters have to hold.

    Attributes:
        scores: per attribute, (n_j, slots) counters, ascending by user.
    """

    def __init__(self, protocol: FrequencyProtocol, users: PerUser, rounds: int) -> None:
        self.protocol, self.members = protocol, users.devices.members
        self.scores: list[Array] = [
            linked.counters(len(members), mechanism.slots, rounds)
            for members, mechanism in zip(self.members, protocol.mechanisms, strict=True)
        ]

    def note(self, attribute: int, block: Block) -> None:
        """Count one block of a round's reports."""
        rows = np.searchsorted(self.members[attribute], block.users)
        self.scores[attribute][rows] += linked.supports(
            self.protocol.mechanisms[attribute], block.reports, block.public
        )

    def estimate(self, attribute: int, rounds: int) -> Floats:
        """(answers,) maximum-likelihood frequencies from all reports so far."""
        mechanism, scores = self.protocol.mechanisms[attribute], self.scores[attribute]
        if linked.scored(mechanism):
            return linked.decode_scores(linked.histogram(scores, rounds), mechanism)
        assert isinstance(mechanism, Symbol), "checked when the engine was chosen"
        return linked.decode_symbols(scores, mechanism)

    def state(self) -> State:
        """The counters."""
        return {f"server/links.{j}": scores for j, scores in enumerate(self.scores)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take the counters of `state`."""
        self.scores = [state[f"server/links.{j}"] for j in range(len(self.scores))]
