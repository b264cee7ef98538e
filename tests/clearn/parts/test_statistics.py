"""Class statistics: exact forms give one distribution, weigh what the formula says, and survive a rebuild."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from clearn.errors import BudgetExceeded, ConfigError, StateError
from clearn.parts.samples import TensorSamples
from clearn.parts.statistics import FORMS, RIDGE, Gaussians, Sampler, Statistics, clusters, form_bytes, thin_factor

torch.set_num_threads(1)

EXACT = ("exact", "thin", "packed", "full")
BLOBS = ((0, 9, 1.0), (1, 5, 2.0), (2, 40, 0.5))


def blobs(d: int = 6, sizes: tuple[tuple[int, int, float], ...] = BLOBS) -> tuple[Tensor, Tensor]:
    """Correlated features, (label, how many, spread) each."""
    rng = torch.Generator().manual_seed(0)
    mixing = torch.randn(d, d, generator=rng)
    x = [spread * torch.randn(n, d, generator=rng) @ mixing + 3 * label for label, n, spread in sizes]
    return torch.cat(x), torch.cat([torch.full((n,), label) for label, n, _ in sizes])


def kept(mode: str, x: Tensor, y: Tensor, **options: Any) -> Gaussians:
    found = Gaussians(Statistics(mode=mode, **options), x.shape[1])  # type: ignore[arg-type]
    found.add(x, y)
    return found


def covariances(sampler: Sampler) -> Tensor:
    """(K, d, d) float64 that the sampler draws by."""
    return sampler.factors.double().mT @ sampler.factors.double() + torch.diag_embed(sampler.scales.double() ** 2)


def test_a_thin_factor_s_square_is_the_unbiased_covariance() -> None:
    x = torch.randn(5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    factor = thin_factor(x)
    torch.testing.assert_close(factor.T @ factor, torch.cov(x.T), rtol=0, atol=1e-12)


@pytest.mark.parametrize("mode", EXACT)
def test_every_exact_form_is_mean_and_covariance_with_ridge(mode: str) -> None:
    x, y = blobs()
    sampler = kept(mode, x, y).sampler()
    for label, mean, covariance in zip((0, 1, 2), sampler.means, covariances(sampler), strict=True):
        own = x[y == label].double()
        torch.testing.assert_close(mean.double(), own.mean(0), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(covariance, torch.cov(own.T) + RIDGE * torch.eye(6), rtol=1e-5, atol=1e-5)


def test_the_diagonal_is_that_of_the_covariance() -> None:
    x, y = blobs()
    (wanted, found) = (covariances(kept(mode, x, y).sampler()) for mode in ("full", "diagonal"))
    torch.testing.assert_close(found, torch.diag_embed(wanted.diagonal(dim1=1, dim2=2)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", [*EXACT, "diagonal"])
def test_draws_have_the_covariance_within_four_standard_errors(mode: str) -> None:
    x, y = blobs(d=4, sizes=((0, 3, 1.0),))
    sampler, n = kept(mode, x, y).sampler(), 200_000
    drawn, labels = sampler.draw(n, torch.Generator().manual_seed(2))
    assert drawn.shape == (n, 4)
    assert labels.unique().tolist() == [0]
    wanted = covariances(sampler)[0]
    assert bool(((drawn.double().mean(0) - sampler.means[0]).abs() < 4 * (wanted.diagonal() / n).sqrt()).all())
    errors = ((wanted.diagonal()[:, None] * wanted.diagonal() + wanted**2) / n).sqrt()
    assert bool(((torch.cov(drawn.double().T) - wanted).abs() < 4 * errors).all())


def test_the_ridge_alone_spreads_in_directions_without_data() -> None:
    x = torch.tensor([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    drawn, _ = kept("thin", x, torch.zeros(2, dtype=torch.int64)).sampler().draw(50_000, torch.Generator())
    variance = drawn.double().var(0)
    assert abs(float(variance[0]) - 2.0001) < 4 * 2.0001 * math.sqrt(2 / 50_000)
    assert bool(((variance[1:] - RIDGE).abs() < 4 * RIDGE * math.sqrt(2 / 50_000)).all())


def test_all_classes_are_drawn_alike_often_whatever_their_forms() -> None:
    x, y = blobs()
    found = kept("exact", x, y)
    assert [one.form for one in found.held] == ["packed", "packed", "packed"]
    mixed = kept("exact", *blobs(d=12))
    assert [one.form for one in mixed.held] == ["packed", "thin", "packed"]
    drawn, labels = mixed.sampler().draw(7, torch.Generator().manual_seed(0))
    again, _ = mixed.sampler().draw(7, torch.Generator().manual_seed(0))
    assert labels.bincount().tolist() == [7, 7, 7]
    assert torch.equal(drawn, again)


@pytest.mark.parametrize(("n", "form"), [(2, "thin"), (6, "thin"), (7, "packed"), (30, "packed")])
def test_exact_takes_the_smaller_form(n: int, form: str) -> None:
    x, y = blobs(d=13, sizes=((0, n, 1.0),))  # the triangle weighs as much as 7 rows
    assert kept("exact", x, y).held[0].form == form


def test_a_thin_factor_of_more_samples_than_features_has_as_many_rows_as_features() -> None:
    x, y = blobs(d=3, sizes=((0, 50, 1.0),))
    found = kept("thin", x, y)
    assert found.held[0].factor.shape == (3, 3)
    torch.testing.assert_close(
        covariances(found.sampler())[0], torch.cov(x.double().T) + RIDGE * torch.eye(3), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    ("form", "bytes_of_100", "rows"),
    [("full", 235_929_600, 0), ("packed", 118_118_400, 0), ("thin", 153_600_000, 500), ("diagonal", 307_200, 0)],
)
def test_bytes_are_the_published_formulas(form: Any, bytes_of_100: int, rows: int) -> None:
    """The column "CIFAR T=20, C=100" of section 5, at ViT-B's width."""
    assert 100 * form_bytes(form, 768, rows) == bytes_of_100
    n = rows or 5
    x = torch.randn(2 * n, 768, generator=torch.Generator().manual_seed(0))
    state = kept(form, x, torch.arange(2).repeat_interleave(n)).state()
    assert 50 * state[form].nbytes == bytes_of_100
    assert 50 * state["means"].nbytes == 307_200
    small = sum(state[name].nbytes for name in state if name not in (form, "means"))
    assert small == 2 * (1 + 1 + (2 if form == "thin" else 0))


def test_cub_s_thin_factors_weigh_29_mb() -> None:
    assert form_bytes("thin", 768, 9_430) == 28_968_960
    assert form_bytes("thin", 768, 24_000) == 73_728_000
    assert 200 * form_bytes("full", 768) == 471_859_200
    assert 200 * form_bytes("packed", 768) == 236_236_800


@pytest.mark.parametrize("mode", [*EXACT, "diagonal", "multi-centroid"])
def test_one_sample_gets_the_mean_covariance_of_the_task_s_other_classes(mode: str) -> None:
    x, y = blobs(sizes=((0, 9, 1.0), (1, 7, 2.0), (2, 1, 1.0)))
    sampler = kept(mode, x, y, centroids=1).sampler()
    torch.testing.assert_close(sampler.means[2], x[-1])
    wanted = (torch.cov(x[:9].double().T) + torch.cov(x[9:16].double().T)) / 2 + RIDGE * torch.eye(6)
    if mode in ("diagonal", "multi-centroid"):
        wanted = torch.diag(wanted.diagonal())
    torch.testing.assert_close(covariances(sampler)[2], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", [*EXACT, "diagonal", "multi-centroid"])
def test_one_sample_alone_is_spread_by_the_ridge(mode: str) -> None:
    found = kept(mode, torch.ones(1, 3), torch.tensor([4]))
    torch.testing.assert_close(
        covariances(found.sampler())[0], RIDGE * torch.eye(3, dtype=torch.float64), rtol=1e-5, atol=0
    )
    again = Gaussians(found.options, 3)
    again.load(found.state())
    assert again.classes == [4]


def test_centroids_are_means_and_variances_of_clusters_drawn_in_equal_shares() -> None:
    x = torch.cat([torch.randn(20, 2, generator=torch.Generator().manual_seed(k)) + 30 * k for k in range(3)])
    found = kept("multi-centroid", x, torch.zeros(60, dtype=torch.int64), centroids=3)
    assert found.means.shape == (3, 2)
    for one in found.held:
        k = round(float(one.mean[0]) / 30)
        own = x[20 * k : 20 * k + 20]
        torch.testing.assert_close(one.mean, own.mean(0))
        torch.testing.assert_close(one.factor, own.var(0, correction=0) + RIDGE)
    drawn, labels = found.sampler().draw(7, torch.Generator().manual_seed(0))
    assert len(labels) == 7
    assert sorted((drawn[:, 0] / 30).round().int().bincount().tolist()) == [2, 2, 3]


def test_centroids_without_variance_are_skipped() -> None:
    x = torch.tensor([[0.0], [0.1], [50.0]]).double()
    (one,) = clusters(0, x, 2, seed=0)
    assert float(one.mean) == pytest.approx(0.05)
    (whole,) = clusters(0, x, 3, seed=0)  # each sample alone: the class is one cluster
    assert float(whole.mean) == pytest.approx(float(x.mean()))
    (point,) = clusters(0, torch.ones(4, 2).double(), 3, seed=0)
    assert point.factor.tolist() == pytest.approx([RIDGE] * 2)


@pytest.mark.parametrize("mode", [*EXACT, "diagonal", "multi-centroid"])
def test_the_state_gives_the_same_draws(mode: str) -> None:
    x, y = blobs(d=12)
    found, again = kept(mode, x, y), Gaussians(Statistics(mode=mode), 12)  # type: ignore[arg-type]
    again.load(found.state())
    one, other = (part.sampler().draw(5, torch.Generator().manual_seed(3)) for part in (found, again))
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])
    assert again.nbytes == found.nbytes
    assert {name: value.dtype for name, value in again.state().items()} == {
        name: value.dtype for name, value in found.state().items()
    }


def test_nothing_is_carried_before_the_first_class() -> None:
    empty = Gaussians(Statistics(), 4)
    assert empty.state() == {}
    assert empty.means.shape == (0, 4)
    empty.load({})
    with pytest.raises(ValueError, match="nothing to draw from"):
        empty.sampler()


def test_a_foreign_state_is_refused() -> None:
    x, y = blobs(d=12)
    found = kept("exact", x, y)
    state = found.state()
    for name in state:
        with pytest.raises(StateError):
            Gaussians(Statistics(), 12).load({k: v for k, v in state.items() if k != name})
        with pytest.raises(StateError):
            Gaussians(Statistics(), 12).load(state | {name: state[name][:-1]})
    with pytest.raises(StateError, match="must hold"):
        Gaussians(Statistics(), 12).load(state | {"stranger": torch.zeros(1)})
    with pytest.raises(StateError, match="another width"):
        Gaussians(Statistics(), 11).load(state)


def test_a_class_that_comes_back_is_refused() -> None:
    x, y = blobs()
    found = kept("exact", x, y)
    with pytest.raises(ConfigError, match=r"classes \[1\] come back"):
        found.add(x[y == 1], y[y == 1])


def test_under_a_budget_it_falls_back_to_variances_and_stays_there() -> None:
    x, y = blobs(d=12)
    found = kept("exact", x, y, fallback="diagonal")
    free = found.nbytes
    found.fit_into(None)
    found.fit_into(free)
    assert {one.form for one in found.held} == {"thin", "packed"}
    found.fit_into(free - 1)
    assert {one.form for one in found.held} == {"diagonal"}
    torch.testing.assert_close(found.sampler().scales, kept("diagonal", x, y).sampler().scales, rtol=1e-5, atol=1e-6)
    found.add(x[:4], y[:4] + 3)
    assert found.held[-1].form == "diagonal"
    with pytest.raises(BudgetExceeded, match="budget leaves 10 bytes"):
        found.fit_into(10)


def test_without_a_fallback_it_refuses_with_the_numbers() -> None:
    x, y = blobs(d=12)
    found = kept("full", x, y)
    diagonal = kept("diagonal", x, y).nbytes
    with pytest.raises(BudgetExceeded) as refused:
        found.fit_into(diagonal)
    for number in (f"{found.nbytes:,}", f"{diagonal:,} bytes for them", "statistics.fallback: diagonal"):
        assert number in str(refused.value)
    assert {one.form for one in found.held} == {"full"}


def test_whole_classes_can_be_forgotten_and_single_samples_cannot() -> None:
    x, y = blobs()
    found = kept("exact", x, y)
    of_one = TensorSamples(x[y == 1], y[y == 1])
    with pytest.raises(ConfigError, match="forget whole classes"):
        found.forget(of_one)
    assert found.forget(of_one, classes=(1,)) == 1
    assert found.classes == [0, 2]
    assert found.sampler().draw(3, torch.Generator())[1].tolist() == [0, 0, 0, 2, 2, 2]
    assert found.forget(of_one, classes=(1,)) == 0


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="centroids=0"):
        Statistics(centroids=0)
    assert len(FORMS) == 4
