"""Fake answers as they are drawn, and other protocols asked attribute by attribute."""

from __future__ import annotations

import numpy as np
import pytest

from clearn.errors import ConfigError
from clearn.frequency import Symbol, Unary
from clearn.frequency.calibrate import optimised, symbol
from clearn.frequency.coins import SimulatedCoins
from clearn.frequency.sharing import BitFakes, SymbolFakes, asked, drawn

PRIOR = np.array([0.5, 0.0, 0.3, 0.2])
SYMBOLS = Symbol(4, None, symbol(1.0, 4)).rounded(32)
BITS = Unary(4, None, optimised(1.0)).rounded(32)
NOTHING = np.empty((20_000, 0), np.uint8)
FAKES = {
    "symbols": SymbolFakes(SYMBOLS, PRIOR),
    "uniform symbols": SymbolFakes(SYMBOLS, np.full(4, 0.25)),
    "bits": BitFakes(BITS, PRIOR),
    "zeros": BitFakes(BITS, None),
}


@pytest.mark.parametrize("name", FAKES)
def test_fakes_support_values_as_often_as_said_one_by_one_and_all_together(name: str) -> None:
    fakes, n = FAKES[name], len(NOTHING)
    single = fakes.mechanism.support(fakes.draw(n, SimulatedCoins(np.random.default_rng(8))), NOTHING)
    together = fakes.aggregate(n, np.random.default_rng(9))
    error = np.sqrt(n * fakes.support * (1 - fakes.support))
    for counts in (single, together):
        assert (np.abs(counts - n * fakes.support) <= 4 * error).all()
    assert fakes.draw(3, SimulatedCoins(np.random.default_rng(8))).dtype == (np.uint8 if "symbols" in name else bool)


def test_values_follow_the_prior_to_the_last_word() -> None:
    prior = np.array([0.25, 0.5, 0.0, 0.25])

    class Words(SimulatedCoins):
        def words(self, shape, bits):
            assert bits == 64
            return np.array([0, 2**62 - 1, 2**62, 3 * 2**62 - 1, 3 * 2**62, 2**64 - 1], np.uint64)

    assert drawn(prior, 6, Words(np.random.default_rng(0))).tolist() == [0, 0, 1, 1, 3, 3]
    assert drawn(np.array([1.0, 0.0]), 6, Words(np.random.default_rng(0))).tolist()[:5] == [0] * 5


@pytest.mark.parametrize("of", ["smp", "spl", "allomfree", "rs_fd", "auto"])
def test_only_protocols_for_one_attribute_can_be_asked(of: str) -> None:
    with pytest.raises(ConfigError, match=f"of='{of}' asks for several attributes itself"):
        asked(of, (3, 4), {})


def test_unknown_names_and_options_are_told() -> None:
    with pytest.raises(ConfigError, match="protocol 'l_grrr' is unknown; did you mean 'l_grr'"):
        asked("l_grrr", (3,), {})
    with pytest.raises(ConfigError, match=r"protocol of grr\.eps_inf: got 1.0, but there is no such option"):
        asked("grr", (3,), {"eps_inf": 1.0})
    with pytest.raises(ConfigError, match=r"protocol of l_grr\.rule: got 'exactly', must be one of"):
        asked("l_grr", (3,), {"rule": "exactly"})
    with pytest.raises(ConfigError, match="no attribute"):
        asked("grr", (), {})


def test_options_left_open_are_the_protocols_own() -> None:
    made = asked("loloha", (3, 4), {"eps_inf": 2.0, "eps_1": None, "g": 5})
    assert [one.domains for one in made] == [(3,), (4,)]
    assert all((one.budgets.eps_inf, one.budgets.eps_1) == (2.0, 1.0) for one in made)
    assert all(one.nominal[0].cells == 5 for one in made)
