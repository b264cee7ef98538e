"""RS+FD and RS+RFD: estimators, variances and losses; whole channels are enumerated beside the others."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from clearn import plugins
from clearn.errors import ConfigError
from clearn.frequency import Tally
from clearn.frequency.coins import SimulatedCoins

EPS = math.log(2 * (math.e - 1) + 1)  # of the true answer, d = 2 and eps = 1


def rs_fd(*domains: int, **options: Any) -> Any:
    return plugins.find("privacy", "rs_fd")(domains, **options)


def test_the_true_answer_has_the_larger_budget() -> None:
    assert rs_fd(3, 4).eps_true == pytest.approx(1.490, abs=5e-4)
    assert rs_fd(3, 4, 5).eps_true == pytest.approx(1.817, abs=5e-4)
    assert rs_fd(3, 4).nominal[0].loss(1) == pytest.approx(EPS, rel=1e-12)
    assert rs_fd(3, 4).choices() == {"eps of the true answer": "1.49"}


@pytest.mark.parametrize(
    "domains, options, wanted",
    [
        ((2, 10), {"of": "grr"}, 1.194),
        ((2, 41), {"of": "grr"}, 1.240),
        ((3, 3), {"of": "sue"}, 1.125),
        ((3, 3), {"of": "oue"}, 1.125),
        ((3, 9), {"of": "oue", "fakes": "zero"}, 1.0),
        ((5, 5), {"of": "grr"}, 1.0),
    ],
)
def test_true_losses_are_worked_out_and_printed(domains, options, wanted) -> None:
    protocol = rs_fd(*domains, **options)
    assert protocol.attribute_loss(1) == pytest.approx(wanted, abs=5e-4)
    assert protocol.loss(1) == pytest.approx(1.490, abs=5e-4)
    assert protocol.warnings() == [
        "fakes hide less than claimed: eps=1, but users who differ in all attributes are told apart by 1.490, and "
        f"those who differ in a single one by {wanted:.3f}"
    ]


def test_attribute_loss_of_symbols_in_closed_form() -> None:
    """max_r ln[(c_r E' + S_r) / (c_r + S_r)] with c_i = k_i / (E' + k_i - 1)."""
    domains, high = (2, 5, 9), math.exp(rs_fd(2, 5, 9).eps_true)
    c = [k / (high + k - 1) for k in domains]
    wanted = max(math.log((one * high + sum(c) - one) / sum(c)) for one in c)
    assert rs_fd(*domains).attribute_loss(1) == pytest.approx(wanted, abs=1e-6)


def test_estimators_are_those_of_the_papers() -> None:
    """Each variant's own formula against the generic one, from the same counts."""
    domains, n, counts = (4, 6), 1000, np.array([300, 150, 250, 400])
    d, k, tally = 2, 4, Tally(1000, counts, np.full(4, 1000))
    grr = rs_fd(*domains, of="grr")
    p, q = grr.mechanisms[0].own, grr.mechanisms[0].other
    near = {"rel": 1e-9}
    assert grr.estimate(0, tally) == pytest.approx((counts * d * k - n * (d - 1 + q * k)) / (n * k * (p - q)), **near)
    for of in ("sue", "oue"):
        zero = rs_fd(*domains, of=of, fakes="zero")
        p, q = zero.mechanisms[0].own, zero.mechanisms[0].other
        assert zero.estimate(0, tally) == pytest.approx(d * (counts - n * q) / (n * (p - q)), **near)
        random = rs_fd(*domains, of=of)
        wanted = (counts * d * k - n * (q * k + (p - q) * (d - 1) + q * k * (d - 1))) / (n * k * (p - q))
        assert random.estimate(0, tally) == pytest.approx(wanted, **near)
        prior = np.array([0.4, 0.3, 0.2, 0.1])
        real = plugins.find("privacy", "rs_rfd")(domains, of=of, prior=[prior.tolist(), [1 / 6] * 6])
        wanted = (d * counts - n * (q + (p - q) * (d - 1) * prior + q * (d - 1))) / (n * (p - q))
        assert real.estimate(0, tally) == pytest.approx(wanted, **near)
    real = plugins.find("privacy", "rs_rfd")(domains, of="grr", prior=[prior.tolist(), [1 / 6] * 6])
    p, q = real.mechanisms[0].own, real.mechanisms[0].other
    assert real.estimate(0, tally) == pytest.approx((d * counts - n * q - n * (d - 1) * prior) / (n * (p - q)), **near)
    assert np.isnan(grr.estimate(0, Tally(0, counts * 0, counts * 0))).all()


def test_variance_is_the_papers_less_the_draw_of_values() -> None:
    """d^2 s (1 - s) / (n (p - q)^2) with the mean support s counts values drawn anew; ours is for fixed users."""
    d, k, f, n = 2, 4, 0.3, 1000
    for options in ({"of": "grr"}, {"of": "oue"}, {"of": "oue", "fakes": "zero"}):
        protocol = rs_fd(k, 6, **options)
        p, q = protocol.mechanisms[0].own, protocol.mechanisms[0].other
        fake = {"grr": 1 / k, "oue": p / k + q * (k - 1) / k}[options["of"]]
        s = (q + f * (p - q) + (d - 1) * fake) / d if "fakes" not in options else q + f * (p - q) / d
        papers = d * d * s * (1 - s) / (n * (p - q) ** 2)
        assert protocol.variance(0, n, f) == pytest.approx(papers - f * (1 - f) / n, rel=1e-9)


@pytest.mark.parametrize(
    "options", [{"of": "grr"}, {"of": "sue"}, {"of": "oue", "fakes": "zero"}, {"of": "oue", "prior": 1}]
)
def test_estimates_are_unbiased_and_err_as_the_variance_says(options: dict[str, Any]) -> None:
    if options.get("prior"):
        prior = [[0.5, 0.3, 0.15, 0.05], [0.2] * 5]
        protocol = plugins.find("privacy", "rs_rfd")((4, 5), of="oue", eps=2.0, prior=prior)
    else:
        protocol = rs_fd(4, 5, eps=2.0, **options)
    mechanism, fakes = protocol.mechanisms[0], protocol.fakes(0)
    counts, runs = np.array([500, 300, 200, 0]), 400
    n, values = 1000, np.repeat(np.arange(4), counts)
    coins, found = SimulatedCoins(np.random.default_rng(16)), []
    for _ in range(runs):
        true = values[coins.below(2, (n,)) == 0]
        sent = mechanism.send(mechanism.signal(true, np.empty((len(true), 0))), coins)
        fake = fakes.draw(n - len(true), coins)
        support = mechanism.support(sent, np.empty((len(true), 0))) + mechanism.support(fake, np.empty((len(fake), 0)))
        found.append(protocol.estimate(0, Tally(n, support, np.full(4, n))))
    variance = protocol.variance(0, n, counts / n)
    assert (np.abs(np.mean(found, axis=0) - counts / n) < 4 * np.sqrt(variance / runs)).all()
    errors = ((np.array(found) - counts / n) ** 2).mean(axis=0)
    assert (np.abs(errors / variance - 1) < 4 * math.sqrt(2 / runs)).all()


def test_realistic_fakes_without_a_prior_are_uniform_ones() -> None:
    uniform = rs_fd(4, 5, of="sue")
    real = plugins.find("privacy", "rs_rfd")((4, 5), of="sue")
    assert real.fakes(1).support.tolist() == uniform.fakes(1).support.tolist()
    assert real.attribute_loss(3) == uniform.attribute_loss(3)


@pytest.mark.parametrize("eps", [1e-3, 0.1, 1.0, 12.0, 30.0])
@pytest.mark.parametrize("of", ["grr", "sue", "oue"])
def test_every_budget_in_range_gives_probabilities_that_can_be_drawn(of: str, eps: float) -> None:
    protocol = rs_fd(3, 7, 4, of=of, eps=eps)
    for mechanism in (*protocol.nominal, *protocol.mechanisms):
        assert 0 < mechanism.other < mechanism.own < 1
    assert eps < protocol.attribute_loss(1) * (1 + 1e-6)
    assert protocol.attribute_loss(1) < protocol.loss(1) * (1 + 1e-9)


@pytest.mark.parametrize(
    "name, domains, options, said",
    [
        ("rs_fd", (3, 4), {"fakes": "zero"}, "fakes='zero' must be 'uniform' for of=grr"),
        ("rs_fd", (3, 4), {"of": "olh"}, "of='olh' must be grr, sue or oue"),
        ("rs_fd", (3,), {}, "fakes hide which of several answers is true, and the data have d=1"),
        ("rs_fd", (3, 4), {"eps": 0.0}, "eps=0.0 must lie in"),
        ("rs_fd", (3, 1), {}, "at least 2"),
        ("rs_rfd", (3, 4), {"prior": [[1, 0, 0]]}, "prior has 1 attributes, and the data have 2"),
        ("rs_rfd", (2, 2), {"prior": [[0.5, 0.5], [0.5, 0.4]]}, "prior of attribute 1 has 2 numbers with sum 0.9"),
        ("rs_rfd", (2, 2), {"prior": [[0.5, 0.5, 0], [0.5, 0.5]]}, "prior of attribute 0 has 3 numbers .* must have 2"),
        ("rs_rfd", (2, 2), {"prior": [[1.5, -0.5], [0.5, 0.5]]}, "prior of attribute 0 .* not negative"),
        ("rs_rfd", (2, 2), {"prior": [[math.nan, 0.5], [0.5, 0.5]]}, "prior of attribute 0 .* sum nan"),
    ],
)
def test_bad_options_are_refused(name: str, domains: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        plugins.find("privacy", name)(domains, **options)
