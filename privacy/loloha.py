"""LOLOHA: longitudinal local hashing (Arcolezi, Pinzon, Palamidessi, Gambs, EDBT 2023, arXiv 2210.00262).

A user draws one hash of the values into g cells, for ever and told to the server. The cell is memoised by randomised
response at eps_inf, once per cell and not per value, and randomised again in every round (Alg. 1). So however often
values change, a device keeps at most g memos: g ceil(log2 g) bits and a bitmap of g, and by the paper's count never
loses more than g eps_inf. The server (Alg. 2) puts 1/g in place of q1, since another value shares one's cell so often.

    loloha      g = round(E) + 1 and the exact composition: the first report is that of olh at eps_1
    ololoha     the published g and the published composition, which leaves a part of eps_1 unused for g > 2
    bi_loloha   g = 2, where both agree: least memory, least loss by changes, most noise
"""

from __future__ import annotations

from math import exp, expm1, sqrt

from clearn.errors import ConfigError
from clearn.frequency import Budgets, FrequencyProtocol, Hashed, two_budgets
from clearn.frequency.calibrate import Rule, symbol, symbol_again

__methods__ = {"loloha": "LOLOHA", "ololoha": "OLOLOHA", "bi_loloha": "BiLOLOHA"}
WIDEST = 2**31  # cells of a hash, at most


class LOLOHA(FrequencyProtocol):
    """Local hashing with a memo per cell, composed exactly: the first report spends all of eps_1.

    Args:
        domains: values of the attribute.
        eps_inf: loss after infinitely many reports of one unchanged value.
        alpha: eps_1 / eps_inf; 0.5 where eps_1 is not given either.
        eps_1: loss with the first report.
        g: cells of the hash, at least 2; by default e^eps_1 rounded, plus 1, of least variance in a round.
    """

    def __init__(
        self,
        domains: tuple[int, ...],
        eps_inf: float = 1.0,
        alpha: float | None = None,
        eps_1: float | None = None,
        g: int | None = None,
    ) -> None:
        budgets = two_budgets(eps_inf, alpha, eps_1)
        self.g = min(round(exp(budgets.eps_1)) + 1, WIDEST) if g is None else g
        if not 2 <= self.g <= WIDEST:
            raise ConfigError(f"g={g} must lie in [2, 2^31]: it is how many cells values are hashed into")
        super().__init__(domains, _chains(domains, budgets, self.g, "exact"), budgets)


class OLOLOHA(FrequencyProtocol):
    """Local hashing with a memo per cell, with the published hash range and composition."""

    def __init__(
        self, domains: tuple[int, ...], eps_inf: float = 1.0, alpha: float | None = None, eps_1: float | None = None
    ) -> None:
        """Take the budgets.

        Args:
            domains: values of the attribute.
            eps_inf: loss after infinitely many reports of one unchanged value.
            alpha: eps_1 / eps_inf; 0.5 where eps_1 is not given either.
            eps_1: loss with the first report, at most.
        """
        budgets = two_budgets(eps_inf, alpha, eps_1)
        self.g = published_range(budgets)
        super().__init__(domains, _chains(domains, budgets, self.g, "published"), budgets)

    def warnings(self) -> list[str]:
        """The published rule leaves a part of eps_1 unused."""
        if self.g == 2:
            return []
        spent = f"ololoha by the published rule loses {self.loss(1):.3f} of eps_1={self.budgets.eps_1:.4g}"
        return [f"{spent} with g={self.g} cells: loloha spends all of it, at a smaller error"]


class BiLOLOHA(FrequencyProtocol):
    """Local hashing into two cells, with a memo per cell: four bits of secret state, however values change."""

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
        super().__init__(domains, _chains(domains, budgets, 2, "exact"), budgets)


def published_range(budgets: Budgets) -> int:
    """Hash range of least variance under the published composition, with A = e^eps_inf and E = e^eps_1.

    max(2, rint[(sqrt(A^4 - 14 A^2 - 12 A^2 E^2 + 12 A E + 12 A^3 E + 1) - A^2 + 6 A - 6 E + 1) / (6 (A - E))]), here
    without its difference of nearly equal numbers and divided through by A - E, which may be 0.
    """
    above, apart = expm1(2 * budgets.eps_inf), exp(budgets.eps_1) * expm1(budgets.eps_inf - budgets.eps_1)
    product = exp(budgets.eps_inf) * expm1(budgets.eps_inf + budgets.eps_1)  # A (A E - 1); above: A^2 - 1
    root = sqrt(above**2 + 12 * product * apart)
    return min(max(2, round(2 * (product + above - 3 * apart) / (root + above - 6 * apart))), WIDEST)


def _chains(domains: tuple[int, ...], budgets: Budgets, g: int, rule: Rule) -> list[Hashed]:
    return [Hashed(k, g, symbol(budgets.eps_inf, g), symbol_again(budgets, g, rule)) for k in domains]
