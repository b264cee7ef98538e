"""RAPPOR: Bloom filters in cohorts, with permanent and instantaneous noise (Erlingsson, Pihur, Korolova, CCS 2014).

A value sets h bits of a filter. Once per value, each bit is replaced by a fair coin with probability f, and memoised;
in every round a bit is sent as 1 with probability q_r where the memo's is 1, and p_r where it is 0 (the paper's letters
p and q stand the other way round than ours). So a bit that is set is sent as 1 with q* = f (p_r + q_r) / 2 + (1-f) q_r,
another with p* = f (p_r + q_r) / 2 + (1-f) p_r, and

    eps_inf = 2 h ln((1 - f/2) / (f/2))        eps_1 = h ln[q* (1 - p*) / (p* (1 - q*))]        (Theorems 1 and 2)

for two values that set h bits each and none in common. A device keeps, for every value it has met, a memo of `bits`
bits, and a bitmap of k. Its basic form, one bit a value, is `l_sue` for longitudinal and `sue` for one-time use.
"""

from __future__ import annotations

from math import log, log1p

from clearn.errors import ConfigError
from clearn.frequency import Budgets, FrequencyProtocol, Rates
from clearn.frequency.bloom import Bloom
from clearn.frequency.budgets import LEAST, MOST

MOST_BITS = 2**16  # of all cohorts together; decoding inverts a matrix of so many rows


class RAPPOR(FrequencyProtocol):
    """Bloom filters in cohorts; its budgets follow from its probabilities.

    Args:
        domains: values of the attribute.
        f: P(a bit of the memo is a fair coin), in (0, 1).
        p_r: P(1 is sent | the memo's bit is 0).
        q_r: P(1 is sent | the memo's bit is 1), above p_r.
        hashes: h, bits that a value sets.
        bits: of a filter.
        cohorts: of users, with hash functions of their own; bits times cohorts should be several times k.
    """

    def __init__(
        self,
        domains: tuple[int, ...],
        f: float = 0.5,
        p_r: float = 0.5,
        q_r: float = 0.75,
        hashes: int = 2,
        bits: int = 128,
        cohorts: int = 8,
    ) -> None:
        _check(f, p_r, q_r, hashes, bits, cohorts)
        budgets = promised(f, p_r, q_r, hashes)
        permanent = Rates.of(1 - f / 2, f / 2, f / 2, 1 - f / 2)
        instant = None if (p_r, q_r) == (0, 1) else Rates.of(q_r, p_r)
        chains = [Bloom(k, bits, hashes, cohorts, permanent, instant) for k in domains]
        super().__init__(domains, chains, budgets)


def promised(f: float, p_r: float, q_r: float, hashes: int) -> Budgets:
    """eps_inf and eps_1.

    >>> promised(0.5, 0.5, 0.75, 2)  # doctest: +ELLIPSIS
    Budgets(eps_inf=4.394449..., eps_1=1.074285...)

    Raises:
        ConfigError: outside [0.001, 30].
    """
    low = f * (p_r + q_r) / 2 + (1 - f) * p_r
    high = f * (p_r + q_r) / 2 + (1 - f) * q_r
    eps_inf = 2 * hashes * (log1p(-f / 2) - log(f / 2))
    eps_1 = hashes * (log(high) - log(low) + log1p(-low) - log1p(-high))
    for name, eps in (("eps_inf", eps_inf), ("eps_1", eps_1)):
        if not LEAST <= eps <= MOST:
            raise ConfigError(
                f"f={f}, p_r={p_r}, q_r={q_r} and hashes={hashes} give {name}={eps:.4g}, which must lie in "
                f"[{LEAST:g}, {MOST:g}]: move f, or q_r from p_r"
            )
    return Budgets(eps_inf, eps_1)


def _check(f: float, p_r: float, q_r: float, hashes: int, bits: int, cohorts: int) -> None:
    if not 0 < f < 1:
        raise ConfigError(f"f={f} must lie between 0 and 1: at 0 there is no privacy in the long run, at 1 no data")
    if not 0 <= p_r < q_r <= 1:
        raise ConfigError(f"p_r={p_r} and q_r={q_r} must satisfy 0 <= p_r < q_r <= 1")
    if bits * cohorts > MOST_BITS:
        raise ConfigError(f"bits={bits} times cohorts={cohorts} must be at most {MOST_BITS:,}: decoding inverts them")
    if not 1 <= hashes < bits or cohorts < 1:
        raise ConfigError(
            f"hashes={hashes} must lie in [1, bits={bits}), and cohorts={cohorts} be at least 1: a value sets so many "
            "bits of a filter, and each cohort has hash functions of its own"
        )
