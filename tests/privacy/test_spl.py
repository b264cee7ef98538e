"""SPL: all attributes of every user, with the budget in equal parts."""

from __future__ import annotations

import pytest

from clearn import plugins
from clearn.errors import ConfigError
from clearn.frequency import Budgets


def test_both_budgets_are_split_in_equal_parts() -> None:
    protocol = plugins.find("privacy", "spl")((4, 9, 3), of="l_osue", eps_inf=3.0, eps_1=1.5)
    alone = plugins.find("privacy", "l_osue")((9,), eps_inf=1.0, eps_1=0.5)
    assert protocol.budgets == Budgets(3.0, 1.5)
    assert (protocol.nominal[1].own, protocol.nominal[1].other) == (alone.nominal[0].own, alone.nominal[0].other)
    assert float(protocol.variance(1, 500, 0.2)) == pytest.approx(float(alone.variance(0, 500, 0.2)), rel=1e-12)
    assert protocol.asks == "all"
    assert protocol.loss(1) == pytest.approx(1.5, abs=1e-6)
    assert protocol.loss_for_ever() == pytest.approx(3.0, abs=1e-6)


@pytest.mark.parametrize(
    "of, options, whole, part",
    [
        ("grr", {"eps": 2.0}, Budgets(2.0, 2.0), {"eps": 1.0}),
        ("grr", {}, Budgets(1.0, 1.0), {"eps": 0.5}),
        ("l_osue", {}, Budgets(1.0, 0.5), {"eps_inf": 0.5, "eps_1": 0.25}),
        ("l_grr", {"eps_inf": 2.0, "alpha": 0.3}, Budgets(2.0, 0.6), {"eps_inf": 1.0, "eps_1": 0.3}),
        ("d_bit_flip_pm", {"eps_inf": 2.0}, Budgets(2.0, 2.0), {"eps_inf": 1.0}),
    ],
)
def test_the_inner_protocol_s_own_options_and_defaults_are_split(of, options, whole, part) -> None:
    protocol = plugins.find("privacy", "spl")((4, 9), of=of, **options)
    alone = plugins.find("privacy", of)((9,), **part)
    assert protocol.budgets == whole
    assert protocol.one_shot == alone.one_shot
    assert (protocol.nominal[1].own, protocol.nominal[1].other) == (alone.nominal[0].own, alone.nominal[0].other)


def test_smp_errs_less_on_the_same_users() -> None:
    options = {"of": "l_osue", "eps_inf": 2.0, "eps_1": 1.0}
    smp, spl = (plugins.find("privacy", name)((4,) * 5, **options) for name in ("smp", "spl"))
    assert float(smp.variance(0, 1000 / 5)) < float(spl.variance(0, 1000))


def test_what_cannot_be_split_is_refused() -> None:
    build = plugins.find("privacy", "spl")
    with pytest.raises(ConfigError, match="of='rappor' has no budget that could be split"):
        build((4, 9), of="rappor")
    with pytest.raises(ConfigError, match=r"protocol of grr\.eps_inf: .* but there is no such option"):
        build((4, 9), of="grr", eps_inf=2.0)
    with pytest.raises(ConfigError, match=r"eps_1=0.0005 must lie in"):
        build((4, 9), of="l_osue", eps_inf=0.01, eps_1=0.001)
    with pytest.raises(ConfigError, match=r"eps_1=2.0 must not exceed eps_inf=1.0"):
        build((4, 9), of="l_osue", eps_inf=1.0, eps_1=2.0)
    with pytest.raises(ConfigError, match="no attribute"):
        build(())
