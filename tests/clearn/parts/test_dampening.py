"""Dampening as arithmetic, by hand (specs/unlearning.md section 12; the item's number stands in each name)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from clearn.errors import ConfigError, StateError
from clearn.parts.dampening import (
    Dampened,
    Threshold,
    adaptive_percentile,
    against_all,
    against_rest,
    alpha_at_percentile,
    alpha_for_share,
    bound,
    dampen,
    damping,
    largest_ratio,
    select,
)

torch.set_num_threads(1)


def sums(seed: int, m: int, n: int) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """(I_f, I_D, I_r) of made-up per-sample gradients of two tensors, the first m of n samples going; float64."""
    rng = torch.Generator().manual_seed(seed)
    found: tuple[dict[str, Tensor], ...] = ({}, {}, {})
    for name, shape in (("a", (30, 4)), ("b", (50,))):
        squares = torch.randn(n, *shape, generator=rng, dtype=torch.float64).square()
        squares[:m] *= 20 * torch.rand(shape, generator=rng, dtype=torch.float64)
        for part, values in zip(found, (squares[:m], squares, squares[m:]), strict=True):
            part[name] = values.mean(0)
    return found


def test_1_by_hand() -> None:
    reference = {"w": torch.tensor([1.0, 1, 1, 0, 0])}
    forget = {"w": torch.tensor([5.0, 10, 20, 1, 0])}
    theta = {"w": torch.ones(5)}
    done = dampen(theta, forget, reference, alpha=10, lam=1)
    torch.testing.assert_close(theta["w"], torch.tensor([1.0, 1, 0.05, 0, 1]))
    assert done.selected == {"w": 2}
    assert (done.zeroed, done.total, done.share, done.largest) == (1, 5, 0.4, math.inf)
    theta = {"w": torch.ones(5)}
    dampen(theta, forget, reference, alpha=10, lam=30)
    assert theta["w"].tolist() == [1, 1, 1, 0, 1]


def test_1_only_what_is_selected_changes_a_bit() -> None:
    forget, reference, _ = sums(0, 4, 20)
    rng = torch.Generator().manual_seed(1)
    theta = {name: torch.randn(value.shape, generator=rng) for name, value in forget.items()} | {"no": torch.ones(3)}
    before = {name: value.clone() for name, value in theta.items()}
    chosen = select(forget, reference, 2.0)
    done = dampen(theta, forget, reference, 2.0, 1.0)
    assert sum(done.selected.values()) == sum(int(mask.sum()) for mask in chosen.values()) > 0
    for name, mask in chosen.items():
        assert torch.equal(theta[name][~mask], before[name][~mask])
        assert bool((theta[name][mask].abs() < before[name][mask].abs()).all()), "never grows"
        assert bool((theta[name].sign() == before[name].sign()).all()), "signs stay"
    assert torch.equal(theta["no"], before["no"])
    assert set(done.selected) == {name for name, mask in chosen.items() if bool(mask.any())}


def test_4_the_ratio_never_exceeds_n_over_m() -> None:
    for seed, (m, n) in enumerate(((1, 10), (3, 30), (5, 20), (20, 20))):
        forget, whole, _ = sums(seed, m, n)
        assert largest_ratio(forget, whole) <= bound(n, m) * (1 + 1e-9)
    only = {"w": torch.tensor([4.0])}  # one of four samples goes, and it alone has a gradient
    whole = {"w": torch.tensor([1.0])}
    assert largest_ratio(only, whole) == bound(4, 1)
    assert not bool(select(only, whole, alpha=4.0)["w"].any()), "alpha = n / m selects nothing"
    assert bound(10, 0) == math.inf


def test_4_both_thresholds_select_the_same_set() -> None:
    for m, n, alpha in ((3, 30, 3.0), (5, 20, 1.5), (2, 40, 12.0)):
        forget, whole, rest = sums(m, m, n)
        other = against_rest(alpha, m / n)
        assert against_all(other, m / n) == pytest.approx(alpha)
        for name, mask in select(forget, whole, alpha).items():
            assert torch.equal(mask, select(forget, rest, other)[name])
    assert against_rest(10, 100 / 50_000) == pytest.approx(10.18, abs=0.005)
    with pytest.raises(ValueError, match="below 1 / p = 10"):
        against_rest(10, 0.1)


def test_4_a_threshold_that_selects_nothing_is_refused_with_the_numbers() -> None:
    with pytest.raises(ConfigError, match=r"alpha=10 is at or above n / m = 600 / 60 = 10.*choose alpha below 10"):
        Threshold(10.0).refuse_no_op(600, 60)
    with pytest.warns(UserWarning, match=r"n / m = 600 / 60 = 10.*noise of batches"):
        Threshold(10.0).refuse_no_op(600, 60, strict=False)
    Threshold(9.99).refuse_no_op(600, 60)
    Threshold(10.0, rest_alpha=50.0).refuse_no_op(600, 60)
    Threshold(10.0, select_fraction=0.01).refuse_no_op(600, 60)


def test_5_factors_lie_in_their_range_and_are_numbers() -> None:
    m, n, alpha, lam = 4, 24, 1.5, 1.0
    forget, whole, _ = sums(3, m, n)
    chosen = select(forget, whole, alpha)
    for name, beta in damping(forget, whole, alpha, lam).items():
        assert bool((beta[~chosen[name]] == 1).all())
        picked = beta[chosen[name]]
        assert len(picked)
        assert float(picked.min()) >= lam * m / n * (1 - 1e-12)
        assert float(picked.max()) < lam / alpha
    nothing = {"w": torch.zeros(4)}
    theta = {"w": torch.tensor([1.0, -2, 0, 3])}
    done = dampen(theta, nothing, nothing, alpha=0.0, lam=1.0)
    assert theta["w"].tolist() == [1, -2, 0, 3], "0/0 is no ratio"
    assert (done.share, done.largest) == (0.0, 0.0)


def test_6_a_common_factor_changes_nothing() -> None:
    forget, whole, _ = sums(5, 4, 24)
    for factor in (2.0**-40, 8.0):
        scaled = ({n: x * factor for n, x in side.items()} for side in (forget, whole))
        for name, beta in damping(*scaled, alpha=2.0, lam=1.0).items():
            assert torch.equal(beta, damping(forget, whole, 2.0, 1.0)[name])
    tiny = {"w": torch.tensor([3e-30, 1e-30])}
    base = {"w": torch.tensor([1e-30, 1e-30])}
    assert select(tiny, base, 2.0)["w"].tolist() == [True, False], "squares of gradients of a converged net"


@pytest.mark.parametrize(("n", "m", "q"), [(10, 1, 97.602105), (100, 1, 99.306853), (100_000, 166, 99.846)])
def test_8_the_percentile(n: int, m: int, q: float) -> None:
    assert adaptive_percentile(n, m) == pytest.approx(q, abs=1e-3 if n == 100_000 else 1e-6)


@pytest.mark.parametrize("q", [0.0, 12.3, 50.0, 97.6, 99.99, 100.0])
def test_8_the_threshold_is_numpys_percentile_of_the_finite_ratios(q: float) -> None:
    forget, whole, _ = sums(6, 4, 24)
    whole["a"][0] = 0  # infinite
    forget["b"][:5] = whole["b"][:5] = 0  # 0/0
    pooled = np.concatenate([(forget[n] / whole[n]).numpy().ravel() for n in forget])
    finite = pooled[np.isfinite(pooled)]
    alpha = alpha_at_percentile(forget, whole, q)
    assert alpha == pytest.approx(np.percentile(finite, q), rel=1e-12)
    share = float((finite > alpha).mean())
    assert share == pytest.approx((100 - q) / 100, abs=1.001 / len(finite))


def test_8_one_ratio_or_none() -> None:
    one = {"w": torch.tensor([6.0, 0.0])}, {"w": torch.tensor([2.0, 0.0])}
    assert alpha_at_percentile(*one, 97.0) == 3.0
    none = {"w": torch.zeros(3)}
    assert alpha_at_percentile(none, none, 97.0) == math.inf
    assert not bool(select(none, none, math.inf)["w"].any())


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.999, 1.0])
def test_a_share_selects_that_many_of_the_largest_ratios(share: float) -> None:
    forget, whole, _ = sums(7, 4, 24)
    alpha = alpha_for_share(forget, whole, share)
    assert sum(int(mask.sum()) for mask in select(forget, whole, alpha).values()) == round(share * 170)


def test_a_share_leaves_ties_and_zeros_out() -> None:
    forget, reference = {"w": torch.tensor([0.0, 0, 2, 2, 2, 3])}, {"w": torch.ones(6)}
    for share, expected in ((1 / 6, 1), (2 / 6, 1), (4 / 6, 4), (1.0, 4)):
        assert int(select(forget, reference, alpha_for_share(forget, reference, share))["w"].sum()) == expected


def test_14_no_effect_is_shown_or_fails() -> None:
    done = Dampened({}, 0, 100, 9.0, 3.5)
    assert done.figures()["unlearn/selected"] == 0.0
    with pytest.warns(UserWarning, match=r"largest ratio of importances is 3.5 and alpha=9"):
        done.show_effect(required=False)
    with pytest.raises(StateError, match="no scalar was selected"):
        done.show_effect(required=True)
    Dampened({"w": 1}, 0, 100, 9.0, 10.0).show_effect(required=True)


def test_figures_are_finite_and_name_the_layers() -> None:
    figures = Dampened({"net.w": 3}, 1, 10, 2.0, math.inf).figures()
    assert figures == {
        "unlearn/selected": 0.3,
        "unlearn/zeroed": 1.0,
        "unlearn/alpha": 2.0,
        "unlearn/selected/net.w": 3.0,
    }


@pytest.mark.parametrize(
    "options", [(-1.0,), (1.0, -1.0), (1.0, None, 1.5), (1.0, 2.0, 0.1)], ids=["alpha", "rest", "share", "both"]
)
def test_options_that_cannot_be(options: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError):
        Threshold(*options)
