"""Rates that spend a given privacy budget, in closed form, for the steps that more than one protocol takes.

All of them are written with exp(-eps) and expm1: the same forms in exp(eps), or with differences of exponentials that
are nearly equal, lose their digits below eps = 0.01 and overflow above 100. Complements are computed, never subtracted.
"""

from __future__ import annotations

from math import exp, expm1
from typing import Literal

from clearn.frequency.budgets import Budgets
from clearn.frequency.rates import Rates

Rule = Literal["exact", "published"]


def symbol(eps: float, g: int) -> Rates:
    """One symbol of g with p = E / (E + g - 1), q = 1 / (E + g - 1): loses ln(p/q) = eps."""
    low = exp(-eps)
    whole = 1 + (g - 1) * low
    return Rates.of(1 / whole, low / whole, (g - 1) * low / whole, (1 + (g - 2) * low) / whole)


def symmetric(eps: float) -> Rates:
    """Bits with p = sqrt(E) / (sqrt(E) + 1) = 1 - q: two of them lose eps."""
    low = exp(-eps / 2)
    return Rates.of(1 / (1 + low), low / (1 + low), low / (1 + low), 1 / (1 + low))


def optimised(eps: float) -> Rates:
    """Bits with p = 1/2, q = 1 / (E + 1), of least variance for rare values: two of them lose eps."""
    low = exp(-eps)
    return Rates.of(0.5, low / (1 + low), 0.5, 1 / (1 + low))


def symbol_again(budgets: Budgets, g: int, rule: Rule) -> Rates | None:
    """Randomise a memo of `symbol(eps_inf, g)` once more, so that the first report loses eps_1.

    p = R / (R + g - 1), q = 1 / (R + g - 1), with A = e^eps_inf and E = e^eps_1. The published R = (A E - 1) / (A - E)
    counts one other symbol where there are g - 1 (Arcolezi et al., arXiv 2111.04636 and 2210.00262), so that for g > 2
    the first report loses less than eps_1. The exact R = (A E + (g-2) E - (g-1)) / (A - E) makes the two steps together
    `symbol(eps_1, g)`.

    Returns:
        None where eps_1 = eps_inf: the memo itself is sent.
    """
    if budgets.eps_1 == budgets.eps_inf:
        return None
    i, o = budgets.eps_inf, budgets.eps_1
    ours = -expm1(-i - o)  # R, both parts times exp(-i - o): (A E - 1) and (A - E)
    theirs = exp(-o) * -expm1(o - i)
    if rule == "exact":
        ours += (g - 2) * exp(-i) * -expm1(-o)
    whole = ours + (g - 1) * theirs
    return Rates.of(ours / whole, theirs / whole, (g - 1) * theirs / whole, (ours + (g - 2) * theirs) / whole)
