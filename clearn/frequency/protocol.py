"""The base of every protocol: public facts that users and server agree on. It holds no user's state and draws nothing.

A protocol says how each attribute is randomised (`mechanisms`), which attributes a user answers (`asks`), and what it
promises (`budgets`). Simulation, accounting, costs, planning and audits follow from that, for any protocol.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from clearn.errors import ConfigError
from clearn.frequency.budgets import Budgets
from clearn.frequency.coins import Coins
from clearn.frequency.mechanism import Array, Floats, Mechanism, Tally

if TYPE_CHECKING:
    from clearn.frequency.accounting import ProtocolCost

Post = Literal["none", "norm", "norm_mul", "norm_sub", "norm_cut", "base_cut", "mle_grr", "ibu"]
Asks = Literal["all", "one", "hidden"]
Split = Literal["independent", "equal"]
WIDE = 12.0  # eps_inf above which 32 random bits round a probability too coarsely


class Fakes(Protocol):
    """Reports about attributes that a user does not answer truthfully (RS+FD, RS+RFD)."""

    def draw(self, n: int, coins: Coins) -> Array:
        """n fake reports, in the form of the mechanism's."""

    def aggregate(self, n: int, rng: np.random.Generator) -> Array:
        """(slots,) support counts of n fake reports."""

    @property
    def support(self) -> Floats:
        """(slots,) P(a fake report supports a slot)."""


class FrequencyProtocol(ABC):  # noqa: B024 - a subclass is a constructor: it says which mechanisms, and overrides little
    """How frequencies are asked for.

    Args:
        domains: (d,) number of values of each attribute.
        mechanisms: one per attribute, with unrounded rates.
        budgets: what is promised, over all attributes of a user.
        asks: "all": every user answers every attribute. "one": one attribute a user, drawn once, kept for ever and
            disclosed. "hidden": one true answer a user, fakes for the others, nobody told which.
        shares: (d,) public probabilities with which an attribute is drawn; equal by default.
        split: "independent": each user draws for itself. "equal": groups of fixed size, as in published notebooks.
        post: name of the post-processing that this protocol's headline error is taken after.
        profile: "paper" or "best", where a protocol has both.

    Raises:
        ConfigError: no attribute, an attribute with fewer than 2 values, or several where the protocol answers one.
    """

    one_shot: bool = False  # whether it keeps nothing and spends eps anew in every round
    answers_all: bool = False  # whether asks="all" is meant for several attributes, as SPL does
    for_several: bool = False  # whether it takes any number of attributes without naming another protocol
    chooses: bool = False  # whether it only picks one of the others

    def __init__(
        self,
        domains: Sequence[int],
        mechanisms: Sequence[Mechanism],
        budgets: Budgets,
        asks: Asks = "all",
        shares: Sequence[float] | None = None,
        split: Split = "independent",
        post: Post = "norm_sub",
        profile: str = "best",
    ) -> None:
        if not domains:
            raise ConfigError("there is no attribute to ask for: give at least one domain")
        if asks == "all" and len(domains) > 1 and not self.answers_all:
            raise ConfigError(
                f"this protocol answers one attribute, and the data have {len(domains)}: "
                "write protocol: {name: smp, of: NAME} (one attribute a user) or {name: spl, of: NAME} (all of them)"
            )
        self.domains = tuple(int(k) for k in domains)
        self.width = 64 if budgets.eps_inf > WIDE else 32
        self.nominal = tuple(mechanisms)
        self.mechanisms = tuple(mechanism.rounded(self.width) for mechanism in mechanisms)
        self.budgets, self.asks, self.split = budgets, asks, split
        self.shares = np.full(len(domains), 1 / len(domains)) if shares is None else np.asarray(shares, np.float64)
        self.post, self.profile = post, profile

    reason: str = ""  # why it was picked, where something picked it

    def fakes(self, attribute: int) -> Fakes | None:
        """What users report about an attribute they were not asked; None but for RS+FD and RS+RFD."""
        return None

    def estimate(self, attribute: int, tally: Tally) -> Floats:
        """Unbiased frequencies of one attribute from a round's tally: (answers,) float64, nan where nobody answered."""
        return self.mechanisms[attribute].estimate(tally)

    def variance(self, attribute: int, n: float, f: float | Floats = 0.0) -> Floats:
        """Exact variance of `estimate` for n answering users and true frequency f."""
        return self.mechanisms[attribute].variance(n, f)

    def expected_mse(self, attribute: int, n: float, n_users: int, f: Floats, rounds: int = 1) -> float:
        """Closed-form mean squared error of raw estimates at the true frequencies, averaged over values.

        Args:
            attribute: which.
            n: users who answered it.
            n_users: the whole population, whose frequencies f are.
            f: (answers,) true frequencies.
            rounds: the estimate is the mean of so many rounds in which nobody's value changed: the permanent step's
                part of the variance stays, the rest is divided by them.

        Returns:
            nan where nobody answered, and for the mean of several rounds with fakes, which has no closed form here.
        """
        if n <= 0 or (self.asks == "hidden" and rounds > 1):
            return float("nan")
        first = self.variance(attribute, n, f)
        floor = self.mechanisms[attribute].permanent_variance(n, f) if rounds > 1 else first
        spread = floor + (first - floor) / rounds
        if self.asks == "one" and n_users > 1:  # the answering users are a sample without replacement
            spread = spread + f * (1 - f) / n * (n_users - n) / (n_users - 1)
        return float(np.mean(spread))

    def within(
        self, over: Callable[[ProtocolCost], str | None], n_users: int, rounds: int, memo: Literal["table", "prf"]
    ) -> FrequencyProtocol:
        """The protocol to run under a device's budget: itself, to be refused if it does not fit; `auto` chooses.

        Args:
            over: says what a cost is over, or None where it fits.
            n_users: of the collection.
            rounds: of the collection.
            memo: where devices keep their permanent answers.
        """
        return self

    def loss_for_ever(self) -> float:
        """Exact loss of one user who keeps all values for ever, the rounded thresholds counted."""
        losses = [mechanism.loss_for_ever() for mechanism in self.mechanisms]
        return sum(losses) if self.asks == "all" else max(losses)

    def loss(self, rounds: int) -> float:
        """Exact loss of one user who keeps all values, after so many reports, the rounded thresholds counted.

        "all" adds over attributes; "one" is the worst attribute's, since two tuples may differ there.
        """
        losses = [mechanism.loss(rounds) for mechanism in self.mechanisms]
        return sum(losses) if self.asks == "all" else max(losses)

    def loss_any(self) -> float:
        """Loss a round between two arbitrary trajectories; see `Mechanism.loss_any`."""
        losses = [mechanism.loss_any() for mechanism in self.mechanisms]
        return sum(losses) if self.asks == "all" else max(losses)

    def choices(self) -> dict[str, str]:
        """What the protocol decided from public numbers, to be printed: name -> text. Nothing by default."""
        return {}

    def warnings(self) -> list[str]:
        """Where a published claim and the exact loss differ, a sentence each."""
        return []
