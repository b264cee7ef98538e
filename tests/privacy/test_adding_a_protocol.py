"""Adding a protocol is one class in one file: found by name, set by its signature, asked, simulated and weighed."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from clearn import plugins
from clearn.binding import bind
from clearn.frequency.accounting import cost
from clearn.frequency.population import PerUser
from clearn.mistakes import Mistake
from clearn.signatures import describe

TOY = '''"""Warner's coin, twice: the truth with probability keep, in the memo and in each round."""

from __future__ import annotations

from math import log

from clearn.errors import ConfigError
from clearn.frequency import Budgets, FrequencyProtocol, Rates, Symbol


class Coin(FrequencyProtocol):
    """Tell the truth with one probability.

    Args:
        domains: values of the attribute.
        keep: that probability, above 1/2.
    """

    def __init__(self, domains: tuple[int, ...], keep: float = 0.8) -> None:
        if not 0.5 < keep < 1:
            raise ConfigError(f"keep={keep} must lie between 1/2 and 1")
        both = keep**2 + (1 - keep) ** 2
        rates = [Rates.of(keep, (1 - keep) / (k - 1)) for k in domains]
        budgets = Budgets(log(keep / (1 - keep)), log(both / (1 - both)))
        super().__init__(domains, [Symbol(k, one, one) for k, one in zip(domains, rates)], budgets)
'''


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package that somebody else installed, with a protocol in it."""
    (tmp_path / "toy_coin.py").write_text(TOY)
    monkeypatch.syspath_prepend(str(tmp_path))
    point = importlib.metadata.EntryPoint(name="coin", value="toy_coin:Coin", group="clearn.privacy")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point] if group == "clearn.privacy" else [])
    importlib.invalidate_caches()
    yield "coin"
    sys.modules.pop("toy_coin", None)


def test_it_is_found_by_name_and_by_reference(toy: str) -> None:
    assert plugins.names("privacy")[toy] == "from module toy_coin (toy_coin:Coin)"
    cls = plugins.find("privacy", toy)
    assert cls is plugins.find_reference("privacy", "toy_coin:Coin") is plugins.find_reference("privacy", "toy_coin")


def test_its_options_are_its_signature(toy: str) -> None:
    cls, errors = plugins.find("privacy", toy), list[Mistake]()
    assert bind(cls, {"keep": 0.9}, "protocol", errors, skip=("domains",)) == {"keep": 0.9}
    assert not errors
    bind(cls, {"kep": 0.9}, "protocol", errors, skip=("domains",))
    assert "did you mean 'keep'?" in str(errors[0])
    assert [(row.name, row.about) for row in describe(cls, ("domains",))] == [("keep", "that probability, above 1/2.")]


def test_it_is_simulated_accounted_and_weighed_without_another_line(toy: str) -> None:
    protocol, n = plugins.find("privacy", toy)((2,), keep=0.9), 20_000
    assert protocol.loss(1) == pytest.approx(protocol.budgets.eps_1, abs=1e-6)
    assert protocol.loss_for_ever() == pytest.approx(protocol.budgets.eps_inf, abs=1e-6)
    counts = np.array([15_000, 5_000])
    collection = SimpleNamespace(domains=(2,), n_users=n, rows=True, static=True)
    users = PerUser(protocol, collection, np.random.default_rng(1))  # type: ignore[arg-type]
    one = SimpleNamespace(index=0, counts=(counts,), values=np.repeat([0, 1], counts)[:, None])
    found = protocol.estimate(0, users.report(one, np.random.default_rng(2))[0])  # type: ignore[arg-type]
    error = np.sqrt(protocol.variance(0, n, counts / n))
    assert (np.abs(found - counts / n) < 4 * error).all()
    assert cost(protocol, n, rounds=3).client_worst == 2 * 1 + 2


def test_it_can_be_asked_about_several_attributes(toy: str) -> None:
    protocol = plugins.find("privacy", "smp")((2, 2, 2), of=toy, options={"keep": 0.7})
    assert protocol.mechanisms[2].own == pytest.approx(0.7**2 + 0.3**2, abs=1e-6)
