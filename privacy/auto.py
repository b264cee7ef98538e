"""The most accurate longitudinal protocol that a device's budget allows.

Every protocol that keeps the promise (eps_inf for ever, eps_1 with the first report) is weighed by its closed forms; of
those that fit `budget.client_bytes` and `budget.bits_per_round` the one with the smallest expected error is taken. All
of it rests on public numbers, so users and server come to the same choice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from clearn.errors import BudgetExceeded, ConfigError
from clearn.frequency import FrequencyProtocol, two_budgets
from clearn.frequency.accounting import ProtocolCost, cost
from clearn.frequency.candidates import candidates, keeps_budgets, planned_mse


class Auto(FrequencyProtocol):
    """Pick among all others.

    Args:
        domains: values of each attribute.
        eps_inf: loss after infinitely many reports of one unchanged value.
        alpha: eps_1 / eps_inf; 0.5 where eps_1 is not given either.
        eps_1: loss with the first report.
        goal: whose error is made small: round (each round's estimates) or mean (of all rounds, values unchanged).
    """

    chooses = True
    for_several = True
    answers_all = True

    def __init__(
        self,
        domains: tuple[int, ...],
        eps_inf: float = 1.0,
        alpha: float | None = None,
        eps_1: float | None = None,
        goal: Literal["round", "mean"] = "round",
    ) -> None:
        budgets = two_budgets(eps_inf, alpha, eps_1)
        self.goal = goal
        self.kept = [
            (one.name, one.protocol)
            for one in candidates(domains, budgets)
            if one.protocol is not None and keeps_budgets(one.protocol, budgets)
        ]
        if not self.kept:
            raise ConfigError(f"no protocol keeps eps_inf={eps_inf} and eps_1={budgets.eps_1} on these attributes")
        some = self.kept[0][1]
        super().__init__(domains, some.nominal, budgets, some.asks)

    def within(
        self,
        over: Callable[[ProtocolCost], str | None],
        n_users: int,
        rounds: int,
        memo: Literal["table", "prf"],
    ) -> FrequencyProtocol:
        """The best of those that fit.

        Raises:
            BudgetExceeded: none fits; names the cheapest.
        """
        horizon = rounds if self.goal == "mean" else 1
        best: tuple[float, str, FrequencyProtocol] | None = None
        too_dear: list[tuple[int, float, str]] = []
        for name, protocol in self.kept:
            card = cost(protocol, n_users, rounds, memo=memo)
            problem = over(card)
            if problem is not None:
                too_dear.append((card.client_worst, card.bits_round_worst, f"{name} {problem}"))
                continue
            error = planned_mse(protocol, n_users, horizon)
            if best is None or error < best[0]:
                best = error, name, protocol
        if best is None:
            key = any(over(cost(protocol, n_users, rounds, memo="prf")) is None for _, protocol in self.kept)
            remedy = ", or write runner.memo=prf, with which a device keeps 32 bytes whatever it meets" if key else ""
            raise BudgetExceeded(
                f"none of {len(self.kept)} protocols fits the device; the cheapest, {min(too_dear)[2]}: raise the "
                f"budget{remedy}"
            )
        error, name, protocol = best
        what = "a round's" if horizon == 1 else f"the mean of {rounds} rounds'"
        fits = f"{len(self.kept) - len(too_dear)} of {len(self.kept)} protocols fit the device"
        protocol.reason = f"{name}, expected MSE of {what} estimates {error:.3e}; {fits}"
        return protocol
