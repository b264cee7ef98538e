"""SPL: each user answers every attribute, with a d-th of the budget for each (Arcolezi et al., arXiv 2111.04636).

Losses of attributes add up to eps for the whole tuple. All n users count for each attribute, but eps/d is so much less
than eps that `smp` has the smaller error nearly always. A device keeps what the inner protocol keeps, d times.
"""

from __future__ import annotations

from typing import Any

from clearn.errors import ConfigError
from clearn.frequency import Budgets, FrequencyProtocol, one_budget, two_budgets
from clearn.frequency.sharing import asked, single
from clearn.signatures import Parameter, parameters


class SPL(FrequencyProtocol):
    """Every attribute of every user, with the budget in equal parts.

    Args:
        domains: values of each attribute.
        of: name of the protocol that asks for one.
        eps_inf: over all attributes, where the protocol has it; like eps_1 (longitudinal) and eps (one-shot).
        alpha: eps_1 / eps_inf.
        eps_1: loss with the first report.
        eps: loss of each report.
        rule: exact or published, where the protocol has both.
        options: its other options by name, e.g. {g: 4} for loloha.
    """

    answers_all = True

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
    ) -> None:
        known = parameters(single(of), skip=("domains",))
        budgets = _whole(of, known, eps_inf, alpha, eps_1, eps)
        part = budgets.split(max(len(domains), 1))
        parts = {"eps": part.eps_1, "eps_inf": part.eps_inf, "eps_1": part.eps_1}
        given = {"eps": eps, "eps_inf": eps_inf, "eps_1": eps_1}  # an option that it lacks is refused by name
        shared = {name: parts[name] for name in parts if name in known or given[name] is not None}
        self.inner = asked(of, domains, {**shared, "rule": rule, **(options or {})})
        self.one_shot = all(inner.one_shot for inner in self.inner)
        super().__init__(domains, [inner.nominal[0] for inner in self.inner], budgets, asks="all")

    def warnings(self) -> list[str]:
        """Those of the protocol, for each attribute, at its part of the budget."""
        return list(dict.fromkeys(warning for inner in self.inner for warning in inner.warnings()))


def _whole(
    of: str,
    known: dict[str, Parameter],
    eps_inf: float | None,
    alpha: float | None,
    eps_1: float | None,
    eps: float | None,
) -> Budgets:
    """The budget over all attributes, by the options that the inner protocol knows and its defaults for them."""
    if "eps" in known:
        return one_budget(known["eps"].default if eps is None else eps)
    if "eps_inf" not in known:
        raise ConfigError(f"of={of!r} has no budget that could be split: its losses follow from its other options")
    last = known["eps_inf"].default if eps_inf is None else eps_inf
    return two_budgets(last, alpha, eps_1) if "eps_1" in known else one_budget(last)
