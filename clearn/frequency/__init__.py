"""Frequencies under local differential privacy: the bricks that every protocol in `privacy/` is put together from.

A protocol is a `FrequencyProtocol`: it names one `Mechanism` per attribute. No torch is loaded by anything here.
"""

from __future__ import annotations

from clearn.frequency.budgets import Budgets, one_budget, two_budgets
from clearn.frequency.coins import Coins
from clearn.frequency.mechanism import Mechanism, Tally
from clearn.frequency.protocol import Fakes, FrequencyProtocol
from clearn.frequency.rates import Rates
from clearn.frequency.symbol import Hashed, Symbol
from clearn.frequency.unary import Unary

__all__ = [
    "Budgets",
    "Coins",
    "Fakes",
    "FrequencyProtocol",
    "Hashed",
    "Mechanism",
    "Rates",
    "Symbol",
    "Tally",
    "Unary",
    "one_budget",
    "two_budgets",
]
