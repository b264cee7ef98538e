"""Who answers which attribute, where each user answers one: drawn user by user, or as counts where no user is known."""

from __future__ import annotations

import numpy as np

from clearn.frequency.coins import Ints
from clearn.frequency.mechanism import Array, Floats
from clearn.frequency.protocol import Split

BLOCK = 2**20  # users drawn at a time


def group_sizes(shares: Floats, n: int) -> Ints:
    """Whole numbers of users next to shares * n that add up to n: the largest remainders are rounded up.

    >>> group_sizes(np.array([0.5, 0.25, 0.25]), 10).tolist()
    [5, 3, 2]
    """
    sizes = np.floor(shares * n).astype(np.int64)
    sizes[np.argsort(sizes - shares * n, kind="stable")[: n - sizes.sum()]] += 1
    return sizes


def draw_attributes(shares: Floats, n: int, split: Split, rng: np.random.Generator) -> Array:
    """Draw the attribute of each user, "independent"ly or in groups of "equal" size: (n,) uint8, or uint16 if d > 256.

    Little more than the result is held in memory.
    """
    d = len(shares)
    dtype = np.uint8 if d <= 256 else np.uint16
    if split == "equal":
        attribute = np.repeat(np.arange(d, dtype=dtype), group_sizes(shares, n))
        rng.shuffle(attribute)
        return attribute
    edges = np.cumsum(shares[:-1])
    attribute = np.empty(n, dtype)
    for start in range(0, n, BLOCK):
        block = attribute[start : start + BLOCK]
        block[:] = np.searchsorted(edges, rng.random(len(block)), side="right")
    return attribute


def draw_sizes(shares: Floats, n: int, split: Split, rng: np.random.Generator) -> Ints:
    """How many users answer each attribute: (d,) int64, of sum n."""
    return group_sizes(shares, n) if split == "equal" else rng.multinomial(n, shares / shares.sum())


def draw_subset(counts: Ints, size: int, rng: np.random.Generator) -> Ints:
    """The histogram of `size` users drawn without replacement from a population known by its histogram.

    Everyone is taken with probability size / n; then as many as are too many are put back, or as many as are missing
    are added, uniformly. Given its size, a set of independent draws is uniform, and stays so. That is the multivariate
    hypergeometric law, for which numpy has no generator beyond 10^9 users; the correction takes about sqrt(size) draws.

    Args:
        counts: (k,) of n users.
        size: 0 <= size <= n.
        rng: to draw from.
    """
    total = int(counts.sum())
    taken = rng.binomial(counts, size / total if total else 0.0)
    excess = int(taken.sum()) - size
    return taken - _pick(taken, excess, rng) if excess > 0 else taken + _pick(counts - taken, -excess, rng)


def _pick(counts: Ints, size: int, rng: np.random.Generator) -> Ints:
    """The histogram of a few users drawn without replacement, one by one."""
    if not size:
        return np.zeros_like(counts)
    edges = counts.cumsum()
    users = rng.choice(int(edges[-1]), size, replace=False, shuffle=False)
    return np.bincount(np.searchsorted(edges, users, side="right"), minlength=len(counts))
