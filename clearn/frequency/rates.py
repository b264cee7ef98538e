"""The two probabilities of a randomised step, their complements, and the integer thresholds that realise them.

p = P(output supports a value | it is the value held), q = P(output supports a value | another is held). Complements are
kept beside them, since 1 - p loses all digits where p is next to 1 (Arcolezi et al., arXiv 2111.04636, need eps = 30).
A coin is a word of 32 or 64 bits compared with a threshold, so what a program does is p rounded to T / 2^bits. Whoever
publishes a privacy loss has to publish that of the rounded numbers: `exact` gives them as fractions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from clearn.errors import ConfigError


@dataclass(frozen=True)
class Rates:
    """Probabilities of one step.

    Attributes:
        p: P(supports the value held).
        q: P(supports a given other value), q <= p.
        not_p: 1 - p, to full precision.
        not_q: 1 - q, to full precision.
        bits: width of the words that are compared with thresholds; None while nothing is rounded.
    """

    p: float
    q: float
    not_p: float
    not_q: float
    bits: int | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.q < self.p <= 1 and math.isfinite(self.p)):
            raise ValueError(f"p={self.p!r}, q={self.q!r} must satisfy 0 <= q < p <= 1")

    @classmethod
    def of(cls, p: float, q: float, not_p: float | None = None, not_q: float | None = None) -> Rates:
        """Two probabilities; complements are computed where they are not given."""
        return cls(p, q, 1 - p if not_p is None else not_p, 1 - q if not_q is None else not_q)

    def rounded(self, bits: int) -> Rates:
        """The rates that words of `bits` bits realise.

        Raises:
            ConfigError: a probability other than 0 and 1 that rounds to one of them, which would lose all privacy, or
                two that round to the same, which would say nothing.
        """
        p, q = self._threshold(self.p, self.not_p, bits, "p"), self._threshold(self.q, self.not_q, bits, "q")
        whole = 2**bits
        if p <= q:
            raise ConfigError(
                f"p={self.p!r} and q={self.q!r} round to the same threshold with {bits} random bits, so that reports "
                "would say nothing: raise the budget or ask for fewer values"
            )
        return Rates(p / whole, q / whole, (whole - p) / whole, (whole - q) / whole, bits)

    @property
    def thresholds(self) -> tuple[int, int]:
        """(T_p, T_q): a word below T_p is a success with probability T_p / 2^bits; rounded rates only."""
        assert self.bits is not None, "round first"
        return (
            self._threshold(self.p, self.not_p, self.bits, "p"),
            self._threshold(self.q, self.not_q, self.bits, "q"),
        )

    def exact(self) -> tuple[Fraction, Fraction]:
        """(p, q) as fractions: of the thresholds where they are rounded, else of the floats."""
        if self.bits is None:
            p = Fraction(self.p) if self.p <= 0.5 else 1 - Fraction(self.not_p)
            q = Fraction(self.q) if self.q <= 0.5 else 1 - Fraction(self.not_q)
            return p, q
        p_count, q_count = self.thresholds
        return Fraction(p_count, 2**self.bits), Fraction(q_count, 2**self.bits)

    @staticmethod
    def _threshold(value: float, complement: float, bits: int, name: str) -> int:
        whole = 2**bits
        near_one = complement < value  # then it is the complement that holds the digits
        found = whole - round(Fraction(complement) * whole) if near_one else round(Fraction(value) * whole)
        if (found == 0 and value > 0) or (found == whole and complement > 0):
            raise ConfigError(
                f"{name}={value!r} rounds to {found // whole} with {bits} random bits, which would lose all privacy: "
                "choose budgets that are equal, further apart, or lower"
            )
        return found


def log_ratio(numerator: Fraction | int, denominator: Fraction | int) -> float:
    """ln(numerator / denominator) of exact positive numbers; inf where the denominator is 0.

    Big integers keep every digit: ln of a quotient next to 1 goes through log1p.
    """
    above = numerator.numerator * denominator.denominator
    below = numerator.denominator * denominator.numerator
    if below == 0:
        return math.inf
    if below < 2 * above and above < 2 * below:
        return math.log1p((above - below) / below)
    if abs(above.bit_length() - below.bit_length()) < 1000:
        return math.log(above / below)  # correctly rounded, however long the integers are
    return math.log(above) - math.log(below)


def integers(*numbers: Fraction) -> tuple[int, ...]:
    """Fractions times their least common denominator, so that powers and sums of them need no reducing."""
    common = math.lcm(*(number.denominator for number in numbers))
    return tuple(number.numerator * (common // number.denominator) for number in numbers)
