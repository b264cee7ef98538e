"""ALLOMFREE: one attribute a user, by the better of two longitudinal protocols (Arcolezi et al., arXiv 2111.04636).

A user draws one attribute, for ever (SMP), and answers it by l_grr where Var*(l_grr) <= Var*(l_osue), else by l_osue.
Var* is the variance of a value that nobody holds, which public numbers give: server and users come to the same choice.
With the exact l_grr that is the rule k <= 3 e^eps_1 + 2. A device keeps ceil(log2 d) bits for its attribute and what
the chosen protocol keeps: for every value met ceil(log2 k) bits or k bits, and a bitmap of k.

    profile    l_grr        attribute of a user    headline error after
    best       exact        independent draws      norm_sub
    paper      published    equal groups           norm_mul
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from clearn.frequency import FrequencyProtocol, two_budgets
from clearn.frequency.mechanism import Mechanism
from clearn.frequency.protocol import Split
from clearn.frequency.sharing import asked


class ALLOMFREE(FrequencyProtocol):
    """One attribute a user, by l_grr or l_osue, whichever has less variance there.

    Args:
        domains: values of each attribute.
        eps_inf: loss after infinitely many reports of unchanged values.
        alpha: eps_1 / eps_inf; 0.5 where eps_1 is not given either.
        eps_1: loss with the first report.
        profile: best, or paper to reproduce published figures.
        split: independent draws for each user, or equal groups; by the profile where it is not given.
        shares: equal chances of all attributes, or neyman: in proportion to sqrt(mean variance), at the same privacy.
    """

    for_several = True

    def __init__(
        self,
        domains: tuple[int, ...],
        eps_inf: float = 1.0,
        alpha: float | None = None,
        eps_1: float | None = None,
        profile: Literal["best", "paper"] = "best",
        split: Split | None = None,
        shares: Literal["equal", "neyman"] = "equal",
    ) -> None:
        budgets = two_budgets(eps_inf, alpha, eps_1)
        paper = profile == "paper"
        spent = {"eps_inf": budgets.eps_inf, "eps_1": budgets.eps_1}
        symbols = asked("l_grr", domains, {**spent, "rule": "published" if paper else "exact"})
        bits = asked("l_osue", domains, spent)
        rivals = [(symbol.nominal[0], bit.nominal[0]) for symbol, bit in zip(symbols, bits, strict=True)]
        by_symbol = [_rare(symbol) <= _rare(bit) for symbol, bit in rivals]
        chosen = [symbol if wins else bit for (symbol, bit), wins in zip(rivals, by_symbol, strict=True)]
        super().__init__(
            domains,
            chosen,
            budgets,
            asks="one",
            shares=_neyman(chosen) if shares == "neyman" else None,
            split=split or ("equal" if paper else "independent"),
            post="norm_mul" if paper else "norm_sub",
            profile=profile,
        )
        self._choices = {
            f"attribute {j} (k={k})": f"{'l_grr' if wins else 'l_osue'}: Var* {_rare(symbol):.4g} of l_grr, "
            f"{_rare(bit):.4g} of l_osue"
            for j, (k, wins, (symbol, bit)) in enumerate(zip(domains, by_symbol, rivals, strict=True))
        }
        self._warnings = [line for one, wins in zip(symbols, by_symbol, strict=True) if wins for line in one.warnings()]

    def choices(self) -> dict[str, str]:
        """The protocol of each attribute, and why: n times the variances at f = 0."""
        return self._choices

    def warnings(self) -> list[str]:
        """Those of the chosen l_grr."""
        return list(dict.fromkeys(self._warnings))


def _rare(mechanism: Mechanism) -> float:
    """n Var*: of a value that nobody holds."""
    return float(mechanism.variance(1))


def _neyman(mechanisms: list[Mechanism]) -> list[float]:
    """Shares in proportion to sqrt(Vbar), which make the sum of Vbar / share least."""
    roots = np.sqrt([mechanism.mean_variance(1) for mechanism in mechanisms])
    return list(roots / roots.sum())
