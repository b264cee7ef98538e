"""SMP: one attribute a user, with the whole budget."""

from __future__ import annotations

import numpy as np
import pytest

from clearn import plugins
from clearn.errors import ConfigError

NAMES = [
    name for name in plugins.names("privacy") if name not in ("smp", "spl", "rs_fd", "rs_rfd", "allomfree", "auto")
]


@pytest.mark.parametrize("of", NAMES)
def test_every_protocol_for_one_attribute_can_be_asked(of: str) -> None:
    protocol = plugins.find("privacy", "smp")((3, 5, 4), of=of)
    inner = plugins.find("privacy", of)
    assert protocol.asks == "one"
    assert protocol.one_shot == inner.one_shot
    assert protocol.budgets == inner((3,)).budgets
    for k, mechanism in zip((3, 5, 4), protocol.mechanisms, strict=True):
        alone = inner((k,)).mechanisms[0]
        assert (mechanism.k, mechanism.own, mechanism.other) == (k, alone.own, alone.other)
    assert protocol.loss(1) == max(inner((k,)).loss(1) for k in (3, 5, 4))
    assert protocol.shares.tolist() == [1 / 3] * 3
    assert protocol.split == "independent"


def test_there_are_protocols_to_ask() -> None:
    assert len(NAMES) >= 18


def test_variance_is_that_of_the_users_who_answer_with_the_whole_budget() -> None:
    protocol = plugins.find("privacy", "smp")((4, 9), of="l_osue", eps_inf=2.0, eps_1=1.0)
    alone = plugins.find("privacy", "l_osue")((9,), eps_inf=2.0, eps_1=1.0)
    assert float(protocol.variance(1, 500, 0.2)) == float(alone.variance(0, 500, 0.2))
    drawn = protocol.expected_mse(1, 500, 1000, np.full(9, 1 / 9))  # who answers is a sample: f (1-f)/n (N-n)/(N-1)
    fixed = float(np.mean(alone.variance(0, 500, np.full(9, 1 / 9))))
    assert drawn == pytest.approx(fixed + (1 / 9) * (8 / 9) / 500 * 500 / 999, rel=1e-12)


def test_options_reach_the_protocol() -> None:
    build = plugins.find("privacy", "smp")
    published = build((3, 16), of="l_grr", eps_inf=1.0, eps_1=0.5, rule="published", split="equal")
    assert published.nominal[1].loss(1) == pytest.approx(0.177, abs=5e-4)
    assert len(published.warnings()) == 2
    assert published.split == "equal"
    assert build((9, 9), of="loloha", eps_inf=2.0, options={"g": 7}).nominal[0].cells == 7
    assert build((9, 9), of="olh", eps=2.0).budgets.eps_1 == 2.0
    assert build((9, 9), of="l_osue", eps_inf=2.0, alpha=0.3).budgets.eps_1 == pytest.approx(0.6)


def test_options_that_the_protocol_lacks_are_refused_by_name() -> None:
    build = plugins.find("privacy", "smp")
    with pytest.raises(ConfigError, match=r"protocol of l_osue\.rule: got 'exact', but there is no such option"):
        build((3, 4), of="l_osue", rule="exact")
    with pytest.raises(ConfigError, match=r"protocol of l_osue\.eps: got 1.0, but there is no such option"):
        build((3, 4), of="l_osue", eps=1.0)
    with pytest.raises(ConfigError, match=r"protocol of loloha\.h: got 3, but there is no such option"):
        build((3, 4), of="loloha", options={"h": 3})
    with pytest.raises(ConfigError, match="of='spl' asks for several"):
        build((3, 4), of="spl")
    with pytest.raises(ConfigError, match="at least 2"):
        build((3, 1))
