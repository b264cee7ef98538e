"""One-shot frequency oracles: what users send when they are asked once; eps is spent anew with every report.

Wang, Blocki, Li, Jha, "Locally Differentially Private Protocols for Frequency Estimation" (USENIX Security 2017), with
subset selection (Ye, Barg 2018) and Hadamard response (Acharya, Sun, Zhang 2019). Nothing is kept on a device. With
E = e^eps, and n times the variance of a value that nobody holds:

    grr   the value, or another one                             (E + k - 2) / (E - 1)^2        ceil(log2 k) bits
    sue   k bits, each flipped with 1 / (sqrt(E) + 1)           sqrt(E) / (sqrt(E) - 1)^2      k
    oue   k bits, the 1 kept with 1/2, a 0 set with 1/(E+1)     4 E / (E - 1)^2                k
    blh   one bit of a hash                                     (E + 1)^2 / (E - 1)^2          1, and a seed once
    olh   one of g = E + 1 cells of a hash                      about 4 E / (E - 1)^2          ceil(log2 g), and a seed
    ss    a set of k / (E + 1) values                           the least of all               log2 C(k, w)
    the   k bits: whether 0/1 plus Laplace noise exceeds th     about that of sue              k
    she   k numbers, 0/1 plus Laplace noise; simulation only    8 / eps^2                      64 k
    hr    an index into a Hadamard matrix, for eps <= 1         ((E + 1) / (E - 1))^2          log2 K
"""

from __future__ import annotations

from abc import abstractmethod
from math import exp, expm1, sqrt

from clearn.errors import ConfigError
from clearn.frequency import FrequencyProtocol, Hashed, Mechanism, Rates, Symbol, Unary, one_budget
from clearn.frequency.calibrate import optimised, symbol, symmetric
from clearn.frequency.hadamard import Hadamard
from clearn.frequency.laplace import Laplace
from clearn.frequency.subset import Subset

__methods__ = {
    "grr": "GRR",
    "sue": "SUE",
    "oue": "OUE",
    "blh": "BLH",
    "olh": "OLH",
    "ss": "SS",
    "the": "THE",
    "she": "SHE",
    "hr": "HR",
}
WIDEST = 2**31  # cells of a hash, at most
GOLDEN = (sqrt(5) - 1) / 2


class _Oracle(FrequencyProtocol):
    """One randomiser of one attribute, with one budget."""

    one_shot = True

    def __init__(self, domains: tuple[int, ...], eps: float = 1.0) -> None:
        """Take the budget.

        Args:
            domains: values of the attribute.
            eps: loss of each report.
        """
        budgets = one_budget(eps)
        self.eps = eps
        super().__init__(domains, [self.mechanism(k, eps) for k in domains], budgets)

    @staticmethod
    @abstractmethod
    def mechanism(k: int, eps: float) -> Mechanism:
        """The randomiser of k values."""


class GRR(_Oracle):
    """Generalised randomised response: the value, or with less chance any other."""

    @staticmethod
    def mechanism(k: int, eps: float) -> Mechanism:
        """p = E / (E + k - 1), q = 1 / (E + k - 1)."""
        return Symbol(k, None, symbol(eps, k))


class SUE(_Oracle):
    """Symmetric unary encoding, RAPPOR's basic one-time form: a bit a value, each flipped alike."""

    @staticmethod
    def mechanism(k: int, eps: float) -> Mechanism:
        """p = sqrt(E) / (sqrt(E) + 1) = 1 - q."""
        return Unary(k, None, symmetric(eps))


class OUE(_Oracle):
    """Optimised unary encoding: a bit a value, of least variance for rare values."""

    @staticmethod
    def mechanism(k: int, eps: float) -> Mechanism:
        """p = 1/2, q = 1 / (E + 1)."""
        return Unary(k, None, optimised(eps))


class BLH(_Oracle):
    """Binary local hashing: one bit of a public hash of the value."""

    @staticmethod
    def mechanism(k: int, eps: float) -> Mechanism:
        """Randomised response over g = 2 cells."""
        return Hashed(k, 2, None, symbol(eps, 2))


class OLH(_Oracle):
    """Optimised local hashing: a public hash of the value into about E + 1 cells."""

    @staticmethod
    def mechanism(k: int, eps: float) -> Mechanism:
        """Randomised response over g = round(E) + 1 cells, at most 2^31."""
        g = min(round(exp(eps)) + 1, WIDEST)
        return Hashed(k, g, None, symbol(eps, g))


class SS(_Oracle):
    """Subset selection: a random set of values that holds one's own with probability p."""

    @staticmethod
    def mechanism(k: int, eps: float) -> Mechanism:
        """Sets of w = k / (E + 1) values, rounded, with p = w E / (w E + k - w), q = (w - p) / (k - 1)."""
        w = max(1, round(k / (exp(eps) + 1)))
        odds = (k - w) / w * exp(-eps)  # (1 - p) / p
        p, not_p = 1 / (1 + odds), odds / (1 + odds)
        others = max(k - 1, 1)  # Subset refuses k = 1 in better words than a division by 0
        return Subset(k, w, Rates.of(p, (w - p) / others, not_p))


class THE(_Oracle):
    """Thresholded histogram encoding: whether 0/1 plus Laplace noise of scale 2/eps exceeds the best threshold.

    Only bits leave the device, drawn from their two probabilities and not from floating-point noise.
    """

    @staticmethod
    def mechanism(k: int, eps: float) -> Mechanism:
        """p = 1 - e^(eps (th - 1) / 2) / 2, q = e^(-eps th / 2) / 2."""
        return Unary(k, None, _exceed(eps, best_threshold(eps)))

    def warnings(self) -> list[str]:
        """The noise pays for numbers, and bits tell less."""
        told = f"the loses {self.loss(1):.3f} of the eps={self.eps:g} that its noise is scaled for"
        return [f"{told}: bits tell less than the numbers would; oue at that loss has less error"]


class SHE(_Oracle):
    """Summed histogram encoding: 0/1 plus Laplace noise of scale 2/eps for every value; for simulation only.

    The low-order bits of floating-point noise tell the number it was added to (Mironov 2012): no client is offered.
    """

    @staticmethod
    def mechanism(k: int, eps: float) -> Mechanism:
        """Two one-hot rows lie 2 apart."""
        return Laplace(k, 2 / eps)

    def warnings(self) -> list[str]:
        """Not for devices."""
        return ["she is for simulation only: the low bits of floating-point noise tell the value; use oue or olh"]


class HR(_Oracle):
    """Hadamard response in its high-privacy form: an index that falls into the value's half with probability p."""

    @staticmethod
    def mechanism(k: int, eps: float) -> Mechanism:
        """p = E / (E + 1), q = 1/2."""
        if eps > 1:
            raise ConfigError(
                f"eps={eps} must not exceed 1 for hr: its form for larger budgets is no pure protocol and not offered; "
                "use ss for the least error, or olh for as few bits"
            )
        rates = symbol(eps, 2)
        return Hadamard(k, Rates.of(rates.p, 0.5, rates.not_p))


def best_threshold(eps: float) -> float:
    """The threshold in [1/2, 1] of least q (1 - q) / (p - q)^2, by golden-section search."""

    def spread(threshold: float) -> float:
        rates = _exceed(eps, threshold)
        apart = -(expm1(eps * (threshold - 1) / 2) + expm1(-eps * threshold / 2)) / 2  # p - q
        return rates.q * rates.not_q / apart**2

    low, high = 0.5, 1.0
    for _ in range(60):
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        low, high = (low, right) if spread(left) < spread(right) else (left, high)
    return (low + high) / 2


def _exceed(eps: float, threshold: float) -> Rates:
    """P(1 + noise > threshold) and P(noise > threshold), for a threshold in [0, 1]."""
    not_p, q = exp(eps * (threshold - 1) / 2) / 2, exp(-eps * threshold / 2) / 2
    return Rates.of(1 - not_p, q, not_p, 1 - q)
