"""Attack real devices, and bound the privacy loss from below by how often the attack is right.

Devices are given v1, or v2; the attack says "v1" where every report of a device tells of v1, the event of the largest
likelihood ratio (`Mechanism.telling`). With TPR and FPR the rates at which it says so, ln(TPR / FPR) <= loss. One-sided
Clopper-Pearson bounds, half of the error on each, make ln(TPR_low / FPR_high) a lower bound of the loss that holds with
the stated confidence. The scheme is LDP-Auditor's (Arcolezi et al., PETS 2024), whose own event, a random supported
value, is far from tight for bits and hashes. Here the bound reaches the exact loss as trials grow, so a device that
spends more than it says is found, and one whose randomness is broken the other way falls short.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv

from clearn.errors import ConfigError
from clearn.frequency.budgets import MOST, Budgets
from clearn.frequency.client import Fleet
from clearn.frequency.coins import Ints
from clearn.frequency.mechanism import Mechanism
from clearn.frequency.memo import MemoKind
from clearn.frequency.protocol import WIDE, FrequencyProtocol

DEVICES = 2**16  # attacked together, which bounds memory


@dataclass(frozen=True)
class Audit:
    """What an attack showed.

    Attributes:
        trials: devices given v1, and as many given v2.
        rounds: reports of each.
        events: how often the attack said v1 of those given v1, and of those given v2.
        confidence: with which `eps_lower` holds.
        eps_lower: proven loss, at least 0.
        eps_exact: loss by the formula.
        ceiling: the most that so many trials can prove.
    """

    trials: int
    rounds: int
    events: tuple[int, int]
    confidence: float
    eps_lower: float
    eps_exact: float
    ceiling: float

    @property
    def tpr(self) -> float:
        """Share of devices given v1 of which the attack said v1."""
        return self.events[0] / self.trials

    @property
    def fpr(self) -> float:
        """Share of devices given v2 of which the attack said v1."""
        return self.events[1] / self.trials

    @property
    def holds(self) -> bool:
        """Whether the proven loss stays within the formula's."""
        return self.eps_lower <= self.eps_exact


def audit(
    protocol: FrequencyProtocol | Mechanism,
    v1: int | Sequence[int],
    v2: int | Sequence[int],
    trials: int = 1_000_000,
    rounds: int = 1,
    confidence: float = 0.99,
    memo: MemoKind = "table",
) -> Audit:
    """Attack devices that keep one value for so many rounds.

    Args:
        protocol: the protocol, or one attribute's rounded mechanism.
        v1: a value for each attribute, or one value for all.
        v2: the same; it differs from v1 in every attribute, which is the worst that two users can.
        trials: devices of either kind.
        rounds: reports of each device.
        confidence: of the lower bound.
        memo: how devices keep permanent answers.

    Raises:
        ConfigError: values that agree, or no trials.
        DataError: a value outside its attribute's domain.
    """
    whole = _alone(protocol) if isinstance(protocol, Mechanism) else protocol
    first, second = (np.broadcast_to(value, len(whole.domains)).astype(np.int64) for value in (v1, v2))
    if (first == second).any() or min(trials, rounds) < 1 or not 0 < confidence < 1:
        raise ConfigError(
            f"v1={v1} and v2={v2} must differ in every attribute, trials={trials} and rounds={rounds} be at least 1, "
            f"and confidence={confidence} lie between 0 and 1"
        )
    events = (
        _said(whole, first, first, second, trials, rounds, memo),
        _said(whole, second, first, second, trials, rounds, memo),
    )
    return Audit(
        trials=trials,
        rounds=rounds,
        events=events,
        confidence=confidence,
        eps_lower=bound(*events, trials, confidence),
        eps_exact=whole.loss(rounds),
        ceiling=bound(trials, 0, trials, confidence),
    )


def bound(right: int, wrong: int, trials: int, confidence: float) -> float:
    """max(0, ln(TPR_low / FPR_high)) by one-sided Clopper-Pearson, with half of the error on either side."""
    half = (1 - confidence) / 2
    low = float(betaincinv(right, trials - right + 1, half)) if right else 0.0
    high = float(betaincinv(wrong + 1, trials - wrong, 1 - half)) if wrong < trials else 1.0
    return max(0.0, math.log(low / high)) if low else 0.0


def _said(protocol: FrequencyProtocol, held: Ints, v1: Ints, v2: Ints, trials: int, rounds: int, memo: MemoKind) -> int:
    """Of how many devices that hold `held` every report tells of v1 against v2."""
    total = 0
    for start in range(0, trials, DEVICES):
        n = min(DEVICES, trials - start)
        fleet, told = Fleet(protocol, n, memo), np.ones(n, bool)
        values = np.broadcast_to(held, (n, len(held)))
        for _ in range(rounds):
            for j, sent in enumerate(fleet.report(values)):
                for block in sent:
                    told[block.users] &= protocol.mechanisms[j].telling(
                        block.reports, block.public, int(v1[j]), int(v2[j])
                    )
        total += int(told.sum())
    return total


def _alone(mechanism: Mechanism) -> FrequencyProtocol:
    """A protocol of one attribute; its budget only says how many bits words have, so that nothing is rounded again."""
    wide = any(rates is not None and rates.bits == 64 for rates in (mechanism.permanent, mechanism.instant))
    eps = MOST if wide else WIDE
    return FrequencyProtocol((mechanism.k,), (mechanism,), Budgets(eps, eps))
