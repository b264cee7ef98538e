"""RS+FD and RS+RFD: one true answer a user, fakes for all other attributes, nobody told which (Arcolezi et al.).

"Random Sampling Plus Fake Data" (CIKM 2021, arXiv 2109.07269); with realistic fakes from a prior (RS+RFD, 2022). Since
the true attribute is hidden, the papers claim eps for a true answer randomised with the larger eps' = ln(d (e^eps - 1)
+ 1). That holds only for users who differ in one attribute, and there only for bits with fakes of zeros, or symbols
where all attributes have as many values. Two users who differ in all of them are told apart by eps', always. Both true
numbers are worked out and printed; rank these protocols against others by them. Nothing is kept but the hidden index.

With p, q at eps', and phi(v) = P(a fake supports v), from C supports among n users:

    f(v) = (d C / n - q - (d - 1) phi) / (p - q)
"""

from __future__ import annotations

from collections.abc import Sequence
from math import expm1, log1p
from typing import Literal

import numpy as np

from clearn.errors import ConfigError
from clearn.frequency import FrequencyProtocol, Symbol, Tally, Unary, one_budget
from clearn.frequency.calibrate import optimised, symbol, symmetric
from clearn.frequency.mechanism import Floats, Mechanism
from clearn.frequency.sharing import BitFakes, SymbolFakes, attribute_loss

__methods__ = {"rs_fd": "RSFD", "rs_rfd": "RSRFD"}
Oracle = Literal["grr", "sue", "oue"]


class _FakeData(FrequencyProtocol):
    """A true answer at eps' among fakes."""

    one_shot = True
    for_several = True

    def __init__(self, domains: tuple[int, ...], of: Oracle, eps: float, priors: Sequence[Floats | None]) -> None:
        d = len(domains)
        if d < 2:
            raise ConfigError(f"fakes hide which of several answers is true, and the data have d={d}: use {of} itself")
        if of not in ("grr", "sue", "oue"):
            raise ConfigError(f"of={of!r} must be grr, sue or oue: for these it is known what a fake looks like")
        budgets = one_budget(eps)
        self.eps, self.eps_true = eps, log1p(d * expm1(eps))
        super().__init__(domains, [_answer(of, k, self.eps_true) for k in domains], budgets, asks="hidden")
        self._fakes = [_fake(mechanism, prior) for mechanism, prior in zip(self.mechanisms, priors, strict=True)]

    def fakes(self, attribute: int) -> SymbolFakes | BitFakes:
        """What the users send who answer another attribute truly."""
        return self._fakes[attribute]

    def estimate(self, attribute: int, tally: Tally) -> Floats:
        """Unbiased frequencies from the reports of all users, true or fake; nan where nobody answered."""
        mechanism, d = self.mechanisms[attribute], len(self.domains)
        if tally.n == 0:
            return np.full(mechanism.answers, np.nan)
        faked = (d - 1) * self.fakes(attribute).support
        return np.asarray((d * tally.counts / tally.n - mechanism.other - faked) / (mechanism.own - mechanism.other))

    def variance(self, attribute: int, n: float, f: float | Floats = 0.0) -> Floats:
        """Exact variance for fixed users, each answering an attribute at random: (k,) where fakes differ by value.

        d^2 [f s1 (1 - s1) + (1 - f) s0 (1 - s0)] / (n (p - q)^2), with s1 = (p + (d-1) phi) / d for users who hold the
        value and s0 = (q + (d-1) phi) / d for the others.
        """
        mechanism, d, held = self.mechanisms[attribute], len(self.domains), np.asarray(f)
        if n <= 0:
            return np.full(np.shape(f), np.nan)
        faked = (d - 1) * self.fakes(attribute).support
        own, other = (mechanism.own + faked) / d, (mechanism.other + faked) / d
        spread = held * own * (1 - own) + (1 - held) * other * (1 - other)
        return np.asarray(spread * d**2 / (n * (mechanism.own - mechanism.other) ** 2))

    def attribute_loss(self, rounds: int) -> float:
        """Exact loss between two users who differ in one attribute; `loss` is that between any two users."""
        return attribute_loss([fakes.contrast for fakes in self._fakes], rounds)

    def choices(self) -> dict[str, str]:
        """The larger budget of the true answer."""
        return {"eps of the true answer": f"{self.eps_true:.4g}"}

    def warnings(self) -> list[str]:
        """What is lost in truth."""
        whole, one = self.loss(1), self.attribute_loss(1)
        return [
            f"fakes hide less than claimed: eps={self.eps:g}, but users who differ in all attributes are told apart by "
            f"{whole:.3f}, and those who differ in a single one by {one:.3f}"
        ]


class RSFD(_FakeData):
    """A true answer about one attribute among uniform fakes, or rows of zeros, about the others.

    Args:
        domains: values of each attribute, at least two of them.
        of: oracle of the true answer: grr, sue or oue.
        eps: as claimed.
        fakes: uniform: a random value, for sue and oue randomised like a true one; zero (sue and oue): no value at all.
    """

    def __init__(
        self,
        domains: tuple[int, ...],
        of: Oracle = "grr",
        eps: float = 1.0,
        fakes: Literal["uniform", "zero"] = "uniform",
    ) -> None:
        if of == "grr" and fakes == "zero":
            raise ConfigError("fakes='zero' must be 'uniform' for of=grr: a symbol cannot stand for no value")
        super().__init__(domains, of, eps, [None if fakes == "zero" else np.full(k, 1 / k) for k in domains])


class RSRFD(_FakeData):
    """A true answer about one attribute among fakes that follow public priors.

    Args:
        domains: values of each attribute, at least two of them.
        of: oracle of the true answer: grr, sue or oue.
        eps: as claimed.
        prior: for each attribute the probabilities of its values, e.g. of a former census; uniform by default.
    """

    def __init__(
        self,
        domains: tuple[int, ...],
        of: Oracle = "grr",
        eps: float = 1.0,
        prior: Sequence[Sequence[float]] | None = None,
    ) -> None:
        super().__init__(domains, of, eps, _priors(domains, prior))


def _answer(of: Oracle, k: int, eps: float) -> Symbol | Unary:
    match of:
        case "grr":
            return Symbol(k, None, symbol(eps, k))
        case "sue":
            return Unary(k, None, symmetric(eps))
        case "oue":
            return Unary(k, None, optimised(eps))


def _fake(mechanism: Mechanism, prior: Floats | None) -> SymbolFakes | BitFakes:
    if isinstance(mechanism, Unary):
        return BitFakes(mechanism, prior)
    assert isinstance(mechanism, Symbol)
    assert prior is not None
    return SymbolFakes(mechanism, prior)


def _priors(domains: tuple[int, ...], prior: Sequence[Sequence[float]] | None) -> list[Floats]:
    """Check priors.

    Raises:
        ConfigError: not one for each attribute, of as many probabilities as it has values.
    """
    if prior is None:
        return [np.full(k, 1 / k) for k in domains]
    if len(prior) != len(domains):
        raise ConfigError(f"prior has {len(prior)} attributes, and the data have {len(domains)}: give one for each")
    found = []
    for j, (k, given) in enumerate(zip(domains, prior, strict=True)):
        one = np.asarray(given, np.float64)
        if one.shape != (k,) or not (one >= 0).all() or not abs(one.sum() - 1) < 1e-6:
            raise ConfigError(
                f"prior of attribute {j} has {len(one)} numbers with sum {one.sum():.6g}, and must have {k} that are "
                "not negative and sum to 1: give the probability of each value"
            )
        found.append(one / one.sum())
    return found
