"""Hand-computed cases, the simplex, and the likelihood's own conditions."""

from typing import get_args

import numpy as np
import pytest

from clearn.errors import ConfigError
from clearn.frequency import Budgets, FrequencyProtocol, Hashed, Rates, Symbol, Unary
from clearn.frequency.postprocess import (
    MOST_ITERATIONS,
    Post,
    base_cut,
    ibu,
    mle_grr,
    norm,
    norm_cut,
    norm_mul,
    norm_sub,
    postprocess,
)

NAMES = get_args(Post)
ON_SIMPLEX = ("norm_mul", "norm_sub", "norm_cut", "mle_grr", "ibu")


def grr(k, eps=1.0):
    p = np.exp(eps) / (np.exp(eps) + k - 1)
    return FrequencyProtocol((k,), [Symbol(k, None, Rates.of(p, (1 - p) / (k - 1)))], Budgets(eps, eps))


def raw_estimates(rows=50, k=6, n=200, eps=1.0, seed=0):
    """Raw GRR estimates of skewed data: many are negative, each row sums to 1."""
    rng, mechanism = np.random.default_rng(seed), grr(k, eps).mechanisms[0]
    channel = np.where(np.eye(k, dtype=bool), mechanism.own, mechanism.other)
    phi = rng.multinomial(n, np.array([0.5, 0.3, 0.2] + [0.0] * (k - 3)) @ channel, rows) / n
    return (phi - mechanism.other) / (mechanism.own - mechanism.other)


def test_by_hand():
    f = np.array([0.7, 0.5, -0.1])
    assert norm(f).tolist() == pytest.approx([0.7 - 0.1 / 3, 0.5 - 0.1 / 3, -0.1 - 0.1 / 3])
    assert norm_mul(f).tolist() == pytest.approx([0.7 / 1.2, 0.5 / 1.2, 0])
    assert norm_sub(f).tolist() == pytest.approx([0.6, 0.4, 0])  # shift -0.1
    assert norm_sub(np.array([0.2, 0.2, 0.0])).tolist() == pytest.approx([0.4, 0.4, 0.2])  # shift +0.2
    assert norm_cut(np.array([0.7, 0.5, 0.05])).tolist() == pytest.approx([0.7 / 1.2, 0.5 / 1.2, 0])
    assert norm_cut(np.array([0.1, 0.5, -0.2])).tolist() == pytest.approx([1 / 6, 5 / 6, 0])
    # Phi^-1(1 - .05/2) = 1.959964 and a standard deviation of 0.1
    assert base_cut(np.array([0.195, 0.197]), 0.01).tolist() == [0, 0.197]


def test_mle_by_hand():
    """k=2, p=.75: phi=(.8, .2) lies outside the channel's image, so the likelihood peaks at the corner."""
    p, q = 0.75, 0.25
    inside, outside = np.array([0.6, 0.4]), np.array([0.8, 0.2])
    assert mle_grr((outside - q) / (p - q), p, q).tolist() == pytest.approx([1, 0])
    assert mle_grr((inside - q) / (p - q), p, q).tolist() == pytest.approx([0.7, 0.3])


def test_norm_mul_of_nothing_positive_is_uniform():
    assert norm_mul(np.array([[-1.0, -2.0], [0.0, 0.0], [-1.0, 3.0]])).tolist() == [[0.5, 0.5], [0.5, 0.5], [0, 1]]
    assert norm_cut(np.array([-1.0, -2.0])).tolist() == [0.5, 0.5]


def test_none_is_a_copy():
    f = np.array([0.5, 0.5])
    assert postprocess("none", f, grr(2), 0, 10) is not f
    assert np.array_equal(postprocess("none", f, grr(2), 0, 10), f)


@pytest.mark.parametrize("name", ON_SIMPLEX)
def test_result_lies_on_the_simplex(name):
    f = raw_estimates()
    assert (f < 0).any() and f.sum(1) == pytest.approx(1)  # raw estimates of GRR-type sum to 1
    found = postprocess(name, f, grr(6), 0, 200)
    assert (found >= 0).all()
    assert found.sum(-1) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("name", ["norm", "norm_mul", "norm_sub", "mle_grr"])
def test_points_of_the_simplex_stay_where_they_are(name):
    f = np.random.default_rng(0).dirichlet(np.ones(6), 20)
    f[0], f[1] = np.eye(6)[2], [0.5, 0.5, 0, 0, 0, 0]
    assert postprocess(name, f, grr(6), 0, 200) == pytest.approx(f, abs=1e-12)


def test_norm_sub_is_idempotent_and_the_nearest_point():
    f = raw_estimates()
    found = norm_sub(f)
    assert norm_sub(found) == pytest.approx(found, abs=1e-14)
    # the projection makes an obtuse angle with every corner: <f - found, corner - found> <= 0
    gap = f - found
    assert ((gap - (gap * found).sum(-1, keepdims=True)) <= 1e-12).all()


@pytest.mark.parametrize("eps", [0.3, 1.0, 3.0])
def test_mle_meets_the_conditions_of_a_maximum(eps):
    """sum_w phi_w M_wv / (M theta)_w is 1 where theta_v > 0 and at most 1 elsewhere (Karush-Kuhn-Tucker)."""
    f, mechanism = raw_estimates(eps=eps), grr(6, eps).mechanisms[0]
    p, q = mechanism.own, mechanism.other
    theta, phi = mle_grr(f, p, q), q + f * (p - q)
    ratio = phi / (q + (p - q) * theta)
    gradient = q * ratio.sum(-1, keepdims=True) + (p - q) * ratio
    assert gradient[theta > 0] == pytest.approx(1, abs=1e-9)
    assert (gradient <= 1 + 1e-9).all()
    assert (theta == 0).any()


@pytest.mark.parametrize("eps", [0.3, 1.0, 2.0, 3.0])
def test_mle_equals_the_limit_of_ibu(eps):
    """After t steps from the uniform guess, EM of a mixture lacks at most ln(k) / t of the best likelihood a user."""
    f, mechanism = raw_estimates(eps=eps), grr(6, eps).mechanisms[0]
    p, q = mechanism.own, mechanism.other
    best, reached, phi = mle_grr(f, p, q), ibu(f, p, q), q + f * (p - q)
    lack = (phi * np.log((q + (p - q) * best) / (q + (p - q) * reached))).sum(-1)
    assert (lack >= -1e-12).all() and (lack <= np.log(6) / MOST_ITERATIONS).all()
    if eps >= 2:  # no estimate is next to the boundary's edge here, where EM crawls
        assert reached == pytest.approx(best, abs=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_nan_in_is_nan_out_and_its_neighbours_do_not_notice(name):
    f = raw_estimates(rows=3)
    broken = f.copy()
    broken[1, 2] = np.nan
    found, whole = postprocess(name, broken, grr(6), 0, 200), postprocess(name, f, grr(6), 0, 200)
    assert np.isnan(found[1]).any() if name == "none" else np.isnan(found[1]).all()
    assert np.array_equal(found[[0, 2]], whole[[0, 2]])
    assert np.isnan(postprocess(name, np.full(6, np.nan), grr(6), 0, 0)).all()


@pytest.mark.parametrize("name", NAMES)
def test_leading_axes_are_batched(name):
    f = raw_estimates(rows=6).reshape(2, 3, 6)
    found = postprocess(name, f, grr(6), 0, 200)
    one = np.stack([postprocess(name, row, grr(6), 0, 200) for row in f.reshape(6, 6)]).reshape(2, 3, 6)
    assert found == pytest.approx(one, abs=1e-9)


def test_base_cut_takes_the_protocol_s_own_variance():
    protocol = grr(4)
    deviation = float(np.sqrt(protocol.variance(0, 100)))
    f = np.array([2.2, 2.3, -1.0, 0.0]) * deviation  # Phi^-1(1 - .05/4) = 2.2414
    assert postprocess("base_cut", f, protocol, 0, 100).tolist() == [0, f[1], 0, 0]


def test_refusals_say_what_to_write():
    rates = Rates.of(0.7, 0.1)
    unary = FrequencyProtocol((4,), [Unary(4, None, rates)], Budgets(1, 1))
    hashed = FrequencyProtocol((4,), [Hashed(4, 4, None, rates)], Budgets(1, 1))
    hidden = FrequencyProtocol((4,), [Symbol(4, None, rates)], Budgets(1, 1), asks="hidden")
    for protocol in (unary, hashed, hidden):
        with pytest.raises(ConfigError, match="write post: norm_sub"):
            postprocess("mle_grr", np.full(4, 0.25), protocol, 0, 10)
    with pytest.raises(ConfigError, match="choose one of none, norm, norm_mul"):
        postprocess("norm_max", np.full(4, 0.25), unary, 0, 10)
