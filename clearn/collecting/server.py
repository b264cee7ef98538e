"""The server's end of a collection: counts, and nothing else."""

from __future__ import annotations

import numpy as np

from clearn.frequency.mechanism import Array, Tally
from clearn.frequency.memo import entry
from clearn.state import State


class Server:
    """What the server has counted, over all rounds and repeats.

    Attributes:
        counts: (repeats, rounds so far, slots of all attributes) int64, or float64 where reports are real numbers.
        answered: (repeats, rounds so far, d) int64.
        trials: the same shape as counts where users can't support every slot, else None.
    """

    def __init__(self, repeats: int, slots: tuple[int, ...]) -> None:
        self.edges = np.cumsum((0, *slots))
        self.counts: Array = np.empty((repeats, 0, self.edges[-1]), np.int64)
        self.answered: Array = np.empty((repeats, 0, len(slots)), np.int64)
        self.trials: Array | None = None

    def add(self, tallies: list[list[Tally]]) -> None:
        """Append a round: one tally per attribute, for each repeat."""
        counts = np.stack([np.concatenate([tally.counts for tally in one]) for one in tallies])
        trials = np.stack([np.concatenate([tally.trials for tally in one]) for one in tallies])
        answered = np.array([[tally.n for tally in one] for one in tallies], np.int64)
        sampled = any(np.any(tally.trials != tally.n) for one in tallies for tally in one)
        before = self.counts if len(self.counts[0]) else self.counts.astype(counts.dtype)
        self.counts = np.concatenate([before, counts[:, None]], axis=1)
        self.answered = np.concatenate([self.answered, answered[:, None]], axis=1)
        if sampled or self.trials is not None:
            old = np.empty_like(self.counts[:, :0]) if self.trials is None else self.trials
            self.trials = np.concatenate([old, trials[:, None]], axis=1)

    def tally(self, repeat: int, attribute: int, rounds: slice) -> Tally:
        """One attribute's tally, summed over rounds."""
        span = slice(self.edges[attribute], self.edges[attribute + 1])
        n = int(self.answered[repeat, rounds, attribute].sum())
        counts = self.counts[repeat, rounds, span].sum(axis=0)
        if self.trials is None:
            return Tally(n, counts, np.full(len(counts), n, np.int64))
        return Tally(n, counts, self.trials[repeat, rounds, span].sum(axis=0))

    def state(self) -> State:
        """The arrays."""
        found: State = {"server/counts": self.counts, "server/answered": self.answered}
        return found if self.trials is None else {**found, "server/trials": self.trials}

    def load(self, state: State, rounds: int) -> None:
        """Take the arrays of `state`.

        Raises:
            StateError: they are not of so many rounds, or of other repeats or another protocol.
        """
        repeats, shape = len(self.counts), (len(self.counts), rounds, int(self.edges[-1]))
        real = getattr(state.get("server/counts"), "dtype", None) == np.float64
        answered = entry(state, "server/answered", (repeats, rounds, len(self.edges) - 1), np.int64)
        counts = entry(state, "server/counts", shape, np.float64 if real else np.int64)
        trials = entry(state, "server/trials", shape, np.int64) if "server/trials" in state else None
        self.counts, self.answered, self.trials = counts, answered, trials
