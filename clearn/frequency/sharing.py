"""What solutions for several attributes share: another protocol asked attribute by attribute, and fake answers.

Under RS+FD (Arcolezi et al., CIKM 2021) a user answers one attribute and sends fakes for the others, so that nobody
sees which answer is true. What that hides is worked out here exactly, for it is less than the papers claim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from math import log
from typing import Any

import numpy as np

from clearn import plugins
from clearn.binding import bind
from clearn.errors import ConfigError
from clearn.frequency.coins import Coins, Ints
from clearn.frequency.mechanism import Array, Floats
from clearn.frequency.protocol import FrequencyProtocol
from clearn.frequency.symbol import Symbol
from clearn.frequency.unary import Unary
from clearn.mistakes import Mistake, raise_all
from clearn.signatures import parameters


def asked(of: str, domains: Sequence[int], options: Mapping[str, Any]) -> list[FrequencyProtocol]:
    """Make a protocol by its name for each attribute on its own.

    Args:
        of: its name.
        domains: (d,) values of each attribute.
        options: its own, the same for all; those that are None are left to its defaults.

    Raises:
        ConfigError: no attributes, no such protocol, an option that it lacks, or one for several attributes itself.
    """
    if not domains:
        raise ConfigError("there is no attribute to ask for: give at least one domain")
    cls = single(of)
    errors: list[Mistake] = []
    given = {name: value for name, value in options.items() if value is not None}
    bound = bind(cls, given, f"protocol of {of}", errors, skip=("domains",))
    raise_all(errors)
    return [cls((k,), **bound) for k in domains]


def single(of: str) -> type[FrequencyProtocol]:
    """Find a protocol that asks for one attribute.

    Raises:
        ConfigError: there is none of that name, or it asks for several attributes itself.
    """
    cls: type[FrequencyProtocol] = plugins.find("privacy", of)
    if cls.for_several or cls.chooses or "of" in parameters(cls):
        raise ConfigError(f"of={of!r} asks for several attributes itself: name one that asks for a single attribute")
    return cls


@dataclass(frozen=True)
class Contrast:
    """How far a true answer about an attribute stands out.

    Attributes:
        own: likelihood of the report that speaks most for a value, where that value is held.
        other: of the same report where another value is held.
        fake: of the same report as a fake.
        least: smallest ratio of a report's likelihoods, as a true answer to as a fake.
    """

    own: float
    other: float
    fake: float
    least: float


class SymbolFakes:
    """Symbols drawn from a public prior and sent bare.

    Args:
        mechanism: whose reports they pass for, with rounded rates.
        prior: (k,) probabilities.
    """

    def __init__(self, mechanism: Symbol, prior: Floats) -> None:
        self.mechanism, self.prior = mechanism, prior

    def draw(self, n: int, coins: Coins) -> Array:
        """(n,) symbols."""
        return drawn(self.prior, n, coins).astype(self.mechanism.dtype)

    def aggregate(self, n: int, rng: np.random.Generator) -> Array:
        """A multinomial histogram."""
        return rng.multinomial(n, self.prior)

    @property
    def support(self) -> Floats:
        """The prior itself."""
        return self.prior

    @property
    def contrast(self) -> Contrast:
        """One's own symbol, where it is the rarest of fakes; another's, where it is the commonest."""
        p, q = self.mechanism.own, self.mechanism.other
        return Contrast(p, q, float(self.prior.min()), q / float(self.prior.max()))


class BitFakes:
    """Rows of bits, randomised like true ones, of a value drawn from a public prior or of no value.

    Args:
        mechanism: whose reports they pass for, with rounded rates and no permanent step.
        prior: (k,) probabilities; None for rows of zeros.
    """

    def __init__(self, mechanism: Unary, prior: Floats | None) -> None:
        assert mechanism.instant is not None
        self.mechanism, self.rates, self.prior = mechanism, mechanism.instant, prior

    def draw(self, n: int, coins: Coins) -> Array:
        """(n, k) bool."""
        if self.prior is None:
            rows = np.zeros((n, self.mechanism.k), bool)
        else:
            rows = self.mechanism.signal(drawn(self.prior, n, coins), np.empty((n, 0), np.uint8))
        return self.mechanism.step(rows, self.rates, coins)

    def aggregate(self, n: int, rng: np.random.Generator) -> Array:
        """Ones of each position: the values' histogram, its ones kept with p, the rest set with q."""
        ones = np.zeros(self.mechanism.k, np.int64) if self.prior is None else rng.multinomial(n, self.prior)
        return rng.binomial(ones, self.rates.p) + rng.binomial(n - ones, self.rates.q)

    @property
    def support(self) -> Floats:
        """q + (p - q) prior."""
        prior = np.zeros(self.mechanism.k) if self.prior is None else self.prior
        return self.rates.q + (self.rates.p - self.rates.q) * prior

    @property
    def contrast(self) -> Contrast:
        """A 1 for one's own value and zeros elsewhere; least of all a 0 for one's own and ones elsewhere.

        Likelihoods are taken relative to those of a row of zeros: p/q for a value whose bit is 1, else (1-p)/(1-q).
        """
        one, zero = self.rates.p / self.rates.q, self.rates.not_p / self.rates.not_q
        if self.prior is None:
            return Contrast(one, zero, 1.0, zero)
        rare = float(self.prior.min())
        return Contrast(one, zero, rare * one + (1 - rare) * zero, zero / (rare * zero + (1 - rare) * one))


def attribute_loss(contrasts: Sequence[Contrast], rounds: int) -> float:
    """Exact loss between two users who differ in one attribute, after so many reports of unchanged values.

    A report's likelihood is the mean over attributes r of [true to fake, of r's answer], times what does not depend on
    the values. So the loss in attribute i is ln[(own + S fake) / (other + S fake)], where S adds up what the other
    attributes give at the least. With reports of one true attribute, likelihoods become powers.
    """
    least = [contrast.least**rounds for contrast in contrasts]
    found = []
    for i, contrast in enumerate(contrasts):
        masked = (sum(least) - least[i]) * contrast.fake**rounds
        found.append(log((contrast.own**rounds + masked) / (contrast.other**rounds + masked)))
    return max(found)


def drawn(prior: Floats, n: int, coins: Coins) -> Ints:
    """Values of n users from public probabilities, each right to 2^-64: (n,) int64."""
    sums = list(accumulate(map(Fraction, prior.tolist())))
    edges = np.array([min(int(edge / sums[-1] * 2**64), 2**64 - 1) for edge in sums[:-1]], np.uint64)
    return np.searchsorted(edges, coins.words((n,), 64), side="right")
