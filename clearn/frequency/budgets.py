"""The two privacy budgets of a longitudinal protocol, checked once for all of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from clearn.errors import ConfigError

LEAST, MOST = 1e-3, 30.0  # outside, closed forms lose digits or a threshold leaves 64 bits


@dataclass(frozen=True)
class Budgets:
    """What a protocol may lose.

    Attributes:
        eps_inf: after infinitely many reports of one unchanged value.
        eps_1: with the first report; equal to eps_inf where nothing is added to the memo, and of every report of a
            one-shot oracle.
    """

    eps_inf: float
    eps_1: float

    def split(self, d: int) -> Budgets:
        """The same for one of d attributes that share it in equal parts."""
        return Budgets(self.eps_inf / d, self.eps_1 / d)


def two_budgets(eps_inf: float, alpha: float | None = None, eps_1: float | None = None) -> Budgets:
    """Read eps_inf with eps_1, or with alpha = eps_1 / eps_inf; alpha is 0.5 where neither is given.

    Raises:
        ConfigError: a budget outside [0.001, 30], eps_1 above eps_inf, or both ways at once.
    """
    _check("eps_inf", eps_inf)
    if alpha is not None and eps_1 is not None:
        raise ConfigError(f"alpha={alpha} says the same as eps_1={eps_1}: give one of them")
    if alpha is not None and not 0 < alpha <= 1:
        raise ConfigError(f"alpha={alpha} must lie in (0, 1]: it is eps_1 / eps_inf")
    first = eps_1 if eps_1 is not None else (0.5 if alpha is None else alpha) * eps_inf
    _check("eps_1", first)
    if first > eps_inf:
        raise ConfigError(f"eps_1={first} must not exceed eps_inf={eps_inf}: one report cannot lose more than all do")
    return Budgets(eps_inf, first)


def one_budget(eps: float) -> Budgets:
    """The budget of a one-shot oracle, spent anew with every report.

    Raises:
        ConfigError: outside [0.001, 30].
    """
    _check("eps", eps)
    return Budgets(eps, eps)


def _check(name: str, value: float) -> None:
    if not (math.isfinite(value) and LEAST <= value <= MOST):
        raise ConfigError(f"{name}={value} must lie in [{LEAST:g}, {MOST:g}]: give a privacy budget in that range")
