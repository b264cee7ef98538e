"""Longitudinal protocols: a permanent answer, memoised for each value, and fresh noise on it in every round.

Arcolezi, Couchot, Al Bouna, Xiao, "Improving the Utility of Locally Differentially Private Protocols for Longitudinal
and Multidimensional Frequency Estimates" (arXiv 2111.04636, DCN 2022); L-SUE is RAPPOR's basic form (Erlingsson et al.,
CCS 2014). The permanent step spends eps_inf, however many reports of a value follow; the instantaneous one is set so
that both together make the first report lose eps_1. With A = e^eps_inf, E = e^eps_1, a = sqrt(A), e = sqrt(E):

               permanent p1, q1            instantaneous p2, q2            together
    l_grr      A, 1 over A + k - 1         R, 1 over R + k - 1             grr at eps_1 (exact rule)
    l_sue      a, 1 over a + 1             (a e - 1), (a - e) over ..      sue at eps_1
    l_osue     1/2, 1 / (A + 1)            (A E - 1), (A - E) over ..      oue at eps_1
    l_oue      1/2, 1 / (A + 1)            1/2, q2                         exists for E < (2 A + 1) / 3
    l_soue     a, 1 over a + 1             1/2, q2                         exists for E < a (2 a + 1) / (a + 2)

A device keeps one memo for each value it has met: ceil(log2 k) bits (l_grr) or k bits (the others), and a bitmap of k.
Closed forms are ours where the reference code has long symbolic ones, which lose digits below eps = 0.01 and overflow
at 100; they agree to 5e-13 in between.
"""

from __future__ import annotations

from abc import abstractmethod
from math import exp, expm1, floor, log1p, log10, sqrt

from clearn.errors import ConfigError
from clearn.frequency import Budgets, FrequencyProtocol, Rates, Symbol, Unary, two_budgets
from clearn.frequency.calibrate import Rule, optimised, symbol, symbol_again, symmetric

__methods__ = {"l_grr": "LGRR", "l_sue": "LSUE", "l_osue": "LOSUE", "l_oue": "LOUE", "l_soue": "LSOUE"}


class LGRR(FrequencyProtocol):
    """Randomised response twice: the value or another one is memoised, and again that or another one is sent.

    Args:
        domains: values of the attribute.
        eps_inf: loss after infinitely many reports of one unchanged value.
        alpha: eps_1 / eps_inf; 0.5 where eps_1 is not given either.
        eps_1: loss with the first report.
        rule: exact spends all of eps_1; published counts one other value where there are k - 1, and so spends less.
    """

    def __init__(
        self,
        domains: tuple[int, ...],
        eps_inf: float = 1.0,
        alpha: float | None = None,
        eps_1: float | None = None,
        rule: Rule = "exact",
    ) -> None:
        budgets = two_budgets(eps_inf, alpha, eps_1)
        self.rule = rule
        chains = [Symbol(k, symbol(eps_inf, k), symbol_again(budgets, k, rule)) for k in domains]
        super().__init__(domains, chains, budgets)

    def warnings(self) -> list[str]:
        """The published rule leaves a part of eps_1 unused."""
        if self.rule == "exact" or self.domains == (2,):
            return []
        spent = f"l_grr by the published rule loses {self.loss(1):.3f} of eps_1={self.budgets.eps_1:.4g}"
        return [f"{spent} with k={self.domains[0]} values: the exact rule spends all of it, at a smaller error"]


class _Bits(FrequencyProtocol):
    """A bit a value, randomised twice."""

    def __init__(
        self, domains: tuple[int, ...], eps_inf: float = 1.0, alpha: float | None = None, eps_1: float | None = None
    ) -> None:
        """Take the budgets.

        Args:
            domains: values of the attribute.
            eps_inf: loss after infinitely many reports of one unchanged value.
            alpha: eps_1 / eps_inf; 0.5 where eps_1 is not given either.
            eps_1: loss with the first report.
        """
        budgets = two_budgets(eps_inf, alpha, eps_1)
        permanent, instant = self.steps(budgets)
        super().__init__(domains, [Unary(k, permanent, instant) for k in domains], budgets)

    @staticmethod
    @abstractmethod
    def steps(budgets: Budgets) -> tuple[Rates, Rates | None]:
        """Rates of the permanent step and of the instantaneous one; None where the memo itself is sent."""


class LSUE(_Bits):
    """Symmetric bits twice, which is RAPPOR's basic form: the first report is that of sue at eps_1."""

    @staticmethod
    def steps(budgets: Budgets) -> tuple[Rates, Rates | None]:
        """p2 = (a e - 1) / ((a - 1) (e + 1)) = 1 - q2."""
        return symmetric(budgets.eps_inf), _down_to(budgets.eps_inf / 2, budgets.eps_1 / 2)


class LOSUE(_Bits):
    """Optimised bits, then symmetric ones: the first report is that of oue at eps_1."""

    @staticmethod
    def steps(budgets: Budgets) -> tuple[Rates, Rates | None]:
        """p2 = (A E - 1) / ((A - 1) (E + 1)) = 1 - q2."""
        return optimised(budgets.eps_inf), _down_to(budgets.eps_inf, budgets.eps_1)


class LOUE(_Bits):
    """Optimised bits twice; a first report cannot lose nearly as much as all do."""

    @staticmethod
    def steps(budgets: Budgets) -> tuple[Rates, Rates | None]:
        """q2 = c / (B + sqrt(B^2 - 4 A (E - 1) c)), B = 3 A E - A - E - 1, c = 2 A + 1 - 3 E.

        Written with x = A - 1 and y = E - 1, B^2 - 4 A (E - 1) c is a sum of positive terms.
        """
        x, y = expm1(budgets.eps_inf), expm1(budgets.eps_1)
        b, c = 2 * x + 2 * y + 3 * x * y, 2 * x - 3 * y
        _check("l_oue", budgets, c, largest=log1p(2 * x / 3))
        root = sqrt(4 * x * x + 16 * y * y + x * y * (9 * x * y + 4 * x + 24 * y))
        return optimised(budgets.eps_inf), Rates.of(0.5, c / (b + root))


class LSOUE(_Bits):
    """Symmetric bits, then optimised ones; a first report cannot lose nearly as much as all do."""

    @staticmethod
    def steps(budgets: Budgets) -> tuple[Rates, Rates | None]:
        """q2 = c / (B + sqrt(B^2 - 4 a (E - 1) c)), B = E (a^2 + 2 a - 1) + a^2 - 2 a - 1, c = 2 a^2 + a - E (a + 2).

        Written with x = a - 1, y = E - 1 and s = a^2 - 1, B^2 - 4 a (E - 1) c is a sum of positive terms.
        """
        x, y, s = expm1(budgets.eps_inf / 2), expm1(budgets.eps_1), expm1(budgets.eps_inf)
        b, c = 2 * s + y * (2 + 2 * x + s), 2 * s - y * (3 + x)
        _check("l_soue", budgets, c, largest=log1p(2 * s / (3 + x)))
        root = sqrt(4 * s * s * (1 + y) + y * y * ((2 + 2 * x + s) ** 2 + 4 * (1 + x) * (3 + x)))
        return symmetric(budgets.eps_inf), Rates.of(0.5, c / (b + root))


def _down_to(last: float, first: float) -> Rates | None:
    """Symmetric bits after which odds of e^last, on average over the bits, become e^first."""
    if first == last:
        return None
    whole = -expm1(-last) * (1 + exp(-first))
    p, q = -expm1(-last - first) / whole, exp(-first) * -expm1(first - last) / whole
    p = min(p, 1.0)  # the quotient of two numbers next to 1 may come out above it in its last digit
    return Rates.of(p, q, q, p)


def _check(name: str, budgets: Budgets, c: float, largest: float) -> None:
    """Refuse budgets without a solution; the number named is rounded down, so that it works."""
    if c <= 0:
        digit = 10.0 ** (floor(log10(largest)) - 3)
        raise ConfigError(
            f"eps_1={budgets.eps_1:g} is too near eps_inf={budgets.eps_inf:g} for {name}: the largest feasible "
            f"eps_1 is {floor(largest / digit) * digit:.4g}; lower it, or use l_osue, which has no such limit"
        )
