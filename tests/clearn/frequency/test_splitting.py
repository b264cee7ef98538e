"""Who answers what: sizes, and the laws of drawing with and without replacement."""

import numpy as np
import pytest

from clearn.frequency.splitting import draw_attributes, draw_sizes, draw_subset, group_sizes


def test_equal_groups_differ_by_one_user_at_most():
    assert group_sizes(np.full(3, 1 / 3), 11).tolist() == [4, 4, 3]
    assert group_sizes(np.full(49, 1 / 49), 49).tolist() == [1] * 49  # 49 * (1 / 49) is below 1
    for n in (0, 1, 7, 45222):
        sizes = group_sizes(np.full(9, 1 / 9), n)
        assert sizes.sum() == n and np.ptp(sizes) <= 1


def test_equal_attributes_are_a_shuffle():
    attribute = draw_attributes(np.array([0.5, 0.3, 0.2]), 1000, "equal", np.random.default_rng(0))
    assert attribute.dtype == np.uint8
    assert np.bincount(attribute).tolist() == [500, 300, 200]
    assert abs(attribute[:500].mean() - 0.7) < 4 * np.sqrt(0.61 / 1000)


def test_independent_attributes_have_their_shares(monkeypatch):
    shares, n = np.array([0.5, 0.3, 0.2]), 20_000
    monkeypatch.setattr("clearn.frequency.splitting.BLOCK", 999)
    attribute = draw_attributes(shares, n, "independent", np.random.default_rng(0))
    assert (np.abs(np.bincount(attribute) - n * shares) < 4 * np.sqrt(n * shares * (1 - shares))).all()
    assert draw_attributes(np.full(300, 1 / 300), 10, "independent", np.random.default_rng(0)).dtype == np.uint16


def test_sizes_add_up():
    rng = np.random.default_rng(0)
    assert draw_sizes(np.full(3, 1 / 3), 10**10, "independent", rng).sum() == 10**10
    assert draw_sizes(np.full(3, 1 / 3), 11, "equal", rng).tolist() == [4, 4, 3]


@pytest.mark.parametrize("size", [1, 12, 29])
def test_subset_has_the_hypergeometric_law(size):
    """Mean m N_v/n, variance m N_v/n (1 - N_v/n)(n - m)/(n - 1), covariance with the sign turned."""
    counts, rng, repeats = np.array([20, 0, 7, 3]), np.random.default_rng(1), 4000
    drawn = np.array([draw_subset(counts, size, rng) for _ in range(repeats)])
    assert (drawn.sum(axis=1) == size).all() and (drawn >= 0).all() and (drawn <= counts).all()
    share, scale = counts / 30, size * (30 - size) / 29
    covariance = scale * (np.diag(share) - np.outer(share, share))
    assert (np.abs(drawn.mean(axis=0) - size * share) <= 4 * np.sqrt(np.diag(covariance) / repeats)).all()
    error = np.sqrt((np.outer(np.diag(covariance), np.diag(covariance)) + covariance**2) / repeats)
    assert (np.abs(np.cov(drawn.T) - covariance) <= 4 * error + 1e-12).all()


def test_subset_of_all_none_and_of_billions():
    rng = np.random.default_rng(0)
    counts = np.array([3 * 10**9, 0, 10**9])
    assert draw_subset(counts, 0, rng).tolist() == [0, 0, 0]
    assert draw_subset(counts, 4 * 10**9, rng).tolist() == counts.tolist()
    assert draw_subset(np.zeros(2, np.int64), 0, rng).tolist() == [0, 0]
    drawn = draw_subset(counts, 10**9, rng)
    assert drawn.sum() == 10**9
    assert abs(drawn[0] - 75e7) < 4 * np.sqrt(1e9 * 0.75 * 0.25 * 0.75)
