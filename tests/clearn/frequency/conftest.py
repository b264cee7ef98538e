"""Mechanisms, protocols and collections for tests of the bricks, by the closed forms of Arcolezi et al. 2022."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from clearn.frequency import FrequencyProtocol, Hashed, Mechanism, Rates, Symbol, Unary, two_budgets


class Made:
    """Everything at eps_inf=2, eps_1=1 unless told otherwise."""

    def unary(self, k: int, eps_inf: float = 2.0, eps_1: float = 1.0) -> Unary:
        """L-OSUE."""
        whole = -math.expm1(-eps_inf) * (1 + math.exp(-eps_1))
        p2 = -math.expm1(-(eps_inf + eps_1)) / whole
        q2 = math.exp(-eps_1) * -math.expm1(-(eps_inf - eps_1)) / whole
        return Unary(k, Rates.of(0.5, 1 / (math.exp(eps_inf) + 1)), Rates.of(p2, q2))

    def symbol(self, k: int, eps_inf: float = 2.0, eps_1: float = 1.0) -> Symbol:
        """L-GRR, exact composition."""
        return Symbol(k, *self._steps(k, eps_inf, eps_1))

    def hashed(self, k: int, g: int, eps_inf: float = 2.0, eps_1: float = 1.0) -> Hashed:
        """LOLOHA, exact composition."""
        return Hashed(k, g, *self._steps(g, eps_inf, eps_1))

    def one_shot(self, mechanism: Symbol | Unary) -> Mechanism:
        """The same with nothing kept."""
        if isinstance(mechanism, Hashed):
            return Hashed(mechanism.k, mechanism.symbols, None, mechanism.instant)
        return type(mechanism)(mechanism.k, None, mechanism.instant)

    def memo_only(self, mechanism: Mechanism) -> Mechanism:
        """The same with no noise added to the memo."""
        mechanism.instant = None
        return mechanism

    def protocol(self, *mechanisms: Mechanism, eps_inf: float = 2.0, **options: Any) -> FrequencyProtocol:
        """A protocol of these mechanisms, that may answer all of several."""
        return Toy([m.k for m in mechanisms], mechanisms, two_budgets(eps_inf), **options)

    def collection(self, protocol: FrequencyProtocol, n: int) -> Any:
        """What an engine asks of a collection."""
        return SimpleNamespace(domains=protocol.domains, n_users=n, rows=True)

    def round(self, values: Any, index: int = 0) -> Any:
        """One round of values user by user; a vector is one attribute."""
        found = np.asarray(values)
        return SimpleNamespace(index=index, values=found[:, None] if found.ndim == 1 else found)

    def _steps(self, g: int, eps_inf: float, eps_1: float) -> tuple[Rates, Rates]:
        a, e = math.exp(eps_inf), math.exp(eps_1)
        r = (a * e + (g - 2) * e - (g - 1)) / (a - e)
        return Rates.of(a / (a + g - 1), 1 / (a + g - 1)), Rates.of(r / (r + g - 1), 1 / (r + g - 1))


class Toy(FrequencyProtocol):
    """Any mechanisms."""

    answers_all = True


@pytest.fixture
def make() -> Made:
    """Make mechanisms, protocols, collections and rounds."""
    return Made()


@pytest.fixture
def urandom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the operating system's coins repeat themselves, so that a test of chance passes always or never."""
    monkeypatch.setattr("clearn.frequency.coins.os.urandom", np.random.default_rng(2026).bytes)
