"""SMP: each user answers one attribute, with the whole budget (Arcolezi et al., arXiv 2111.04636).

The attribute is drawn once, kept for ever and told to the server; drawn anew in every round, budgets would add up over
attributes. Any two users are told apart by eps at most, whatever their other attributes are. An attribute is estimated
from the n/d users who answer it: for most protocols a smaller error than all n of them at eps/d (`spl`). A device keeps
what the inner protocol keeps for one attribute, and ceil(log2 d) bits for its index.
"""

from __future__ import annotations

from typing import Any

from clearn.frequency import FrequencyProtocol
from clearn.frequency.protocol import Split
from clearn.frequency.sharing import asked


class SMP(FrequencyProtocol):
    """One attribute a user, with the whole budget.

    Args:
        domains: values of each attribute.
        of: name of the protocol that asks for it.
        eps_inf: its option, where it has it; like alpha, eps_1 (longitudinal) and eps (one-shot).
        alpha: eps_1 / eps_inf.
        eps_1: loss with the first report.
        eps: loss of each report.
        rule: exact or published, where the protocol has both.
        options: its other options by name, e.g. {g: 4} for loloha.
        split: independent draws for each user, or equal groups as in published notebooks.
    """

    def __init__(
        self,
        domains: tuple[int, ...],
        of: str = "l_osue",
        eps_inf: float | None = None,
        alpha: float | None = None,
        eps_1: float | None = None,
        eps: float | None = None,
        rule: str | None = None,
        options: dict[str, Any] | None = None,
        split: Split = "independent",
    ) -> None:
        budget = {"eps_inf": eps_inf, "alpha": alpha, "eps_1": eps_1, "eps": eps}
        self.inner = asked(of, domains, {**budget, "rule": rule, **(options or {})})
        self.one_shot = all(inner.one_shot for inner in self.inner)
        mechanisms = [inner.nominal[0] for inner in self.inner]
        super().__init__(domains, mechanisms, self.inner[0].budgets, asks="one", split=split)

    def warnings(self) -> list[str]:
        """Those of the protocol, for each attribute."""
        return list(dict.fromkeys(warning for inner in self.inner for warning in inner.warnings()))
