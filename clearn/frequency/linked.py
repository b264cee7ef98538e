"""Better estimates at the same privacy: all reports of a user about one unchanged value, decoded together.

A server that averages rounds weighs every report alike. One that links them sees more: the more often s a user's t
reports support a value, the surer it is that the memo does, and s is all that the reports say of that bit of the memo.
So the share pi of memos that support a value has the likelihood of a mixture,

    S ~ pi Bin(t, p2) + (1 - pi) Bin(t, q2),    pi = q1 + f (p1 - q1),

which is concave in pi and maximised here by Newton's method, value by value. Where a memo is one symbol, s_1..s_k of a
user are decoded together by expectation maximisation over memos. The gain over the mean of rounds is 1.3 to 2 in
variance for L-OSUE at frequency 0.1; the price is a counter a user and value at the server, n k numbers up to t.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit, gammaln, xlog1py, xlogy

from clearn.frequency.coins import Bools, Ints
from clearn.frequency.lemmas import Bits, Pair, Symbols, lemma_of
from clearn.frequency.mechanism import Array, Floats, Mechanism
from clearn.frequency.symbol import Hashed, Symbol, hash_to

SMALLEST_CHANGE, MOST_ITERATIONS = 1e-12, 10_000
EDGE = 1e-15  # shares stay so far from 0 and 1, where a score may have no probability


def unlinkable(mechanism: Mechanism) -> str | None:
    """Say why reports of a user can't be decoded together, or None where they can."""
    lemma = lemma_of(mechanism)
    if not isinstance(lemma, Bits | Symbols):
        return f"reports of {type(mechanism).__name__} don't count up to evidence about one memo"
    if lemma.instant is None or lemma.instant in (1.0, (1.0, 0.0)):
        return f"{type(mechanism).__name__} sends its memo as it is, so that a second report says nothing new"
    return None


def scored(mechanism: Mechanism) -> bool:
    """Whether values are decoded one by one from scores; else all together from each user's counters."""
    return isinstance(lemma_of(mechanism), Bits)


def counters(users: int, slots: int, rounds: int) -> Array:
    """What a server keeps to link reports: (users, slots) zeros of the smallest type that holds `rounds`."""
    return np.zeros((users, slots), np.min_scalar_type(rounds))


def supports(mechanism: Mechanism, reports: Array, public: Array) -> Bools:
    """Which slots each of n reports supports: (n, slots) bool, to be added to the users' counters."""
    if isinstance(mechanism, Hashed):
        table = hash_to(public, np.arange(mechanism.k, dtype=np.uint64), mechanism.symbols)
        return np.asarray(table == reports[:, None])
    if isinstance(mechanism, Symbol):
        return np.asarray(reports[:, None] == np.arange(mechanism.slots))
    return reports


def histogram(scores: Array, rounds: int) -> Ints:
    """(n, k) counters -> (k, rounds + 1): how many users support each value 0, 1, .. rounds times."""
    k = scores.shape[1]
    places = np.arange(k) * (rounds + 1) + scores
    return np.bincount(places.ravel(), minlength=k * (rounds + 1)).reshape(k, rounds + 1)


def draw_histogram(mechanism: Mechanism, ones: Ints, users: int, rounds: int, rng: np.random.Generator) -> Ints:
    """Draw the histogram of scores for all users at once: Mult(m_v; Bin(t, p2)) + Mult(n - m_v; Bin(t, q2)).

    Args:
        mechanism: one that is `scored`.
        ones: (k,) how many memos support each value; what the aggregate engine carries.
        users: all of them.
        rounds: t.
        rng: to draw from.
    """
    _, (p2, q2) = _steps(mechanism)
    return rng.multinomial(ones, _binomial(rounds, p2)) + rng.multinomial(users - ones, _binomial(rounds, q2))


def decode_scores(found: Ints, mechanism: Mechanism) -> Floats:
    """Maximum-likelihood frequencies, value by value.

    Args:
        found: (k, rounds + 1) histogram of scores.
        mechanism: one that is `scored`.

    Returns:
        (k,) float64: nearly unbiased, so a little below 0 where f is 0; nan where nobody answered.
    """
    (p1, q1), instant = _steps(mechanism)
    share = _fit(found, _weights(found.shape[1] - 1, instant))
    return np.where(found.sum(axis=1) > 0, (share - q1) / (p1 - q1), np.nan)


def decode_symbols(scores: Array, mechanism: Symbol) -> Floats:
    """Maximum-likelihood frequencies where a memo is one symbol, by expectation maximisation over memos.

    A user's reports have likelihood R^(times the memo's symbol came), R = p2/q2, up to what all memos share.

    Args:
        scores: (n, k) counters.
        mechanism: without a hash.

    Returns:
        (k,) float64 of sum 1, below 0 where a symbol is rarer than noise makes it; nan where nobody answered.
    """
    n, k = scores.shape
    if not n:
        return np.full(k, np.nan)
    p1, q1 = _rates(mechanism, permanent=True)
    p2, q2 = _rates(mechanism, permanent=False)
    top = scores.max(axis=1).astype(np.int64)
    user, symbol = np.nonzero(scores)
    unseen = np.exp(-top * np.log(p2 / q2))  # (n,) likelihood of memos that were never sent, over that of the likeliest
    extra = np.exp((scores[user, symbol] - top[user]) * np.log(p2 / q2)) - unseen[user]
    theta = np.full(k, 1 / k)
    for _ in range(MOST_ITERATIONS):
        total = unseen + np.bincount(user, theta[symbol] * extra, minlength=n)
        weight = (unseen / total).sum() + np.bincount(symbol, extra / total[user], minlength=k)
        updated = theta * weight / n
        change = np.abs(updated - theta).max()
        theta = updated
        if change < SMALLEST_CHANGE:
            break
    return (theta - q1) / (p1 - q1)


def variance(mechanism: Mechanism, rounds: int, n: float, f: float | Floats = 0.0) -> Floats:
    """Variance of `decode_scores` for n fixed users and true frequency f, to the first order in 1/n.

    Given the data a user's score has one of two laws, so the variance of the likelihood's slope is f and 1 - f times
    the variances under those, over the squared curvature (White 1982).
    """
    (p1, q1), (p2, q2) = _steps(mechanism)
    held = np.asarray(f, np.float64)[..., None]
    one, zero = _binomial(rounds, p2), _binomial(rounds, q2)
    own, other = p1 * one + (1 - p1) * zero, q1 * one + (1 - q1) * zero
    mixed = held * own + (1 - held) * other
    slope = (one - zero) / mixed
    curvature = (mixed * slope**2).sum(-1)
    spread = [(law * slope**2).sum(-1) - (law * slope).sum(-1) ** 2 for law in (own, other)]
    noise = held[..., 0] * spread[0] + (1 - held[..., 0]) * spread[1]
    return np.asarray(noise / (n * (curvature * (p1 - q1)) ** 2))


def _steps(mechanism: Mechanism) -> tuple[Pair, Pair]:
    """(p1, q1) and (p2, q2) of one value's bit; without a permanent step the bit is whether the value is held."""
    lemma = lemma_of(mechanism)
    assert isinstance(lemma, Bits), "checked by scored"
    assert lemma.instant is not None, "checked by unlinkable"
    return lemma.permanent or (1.0, 0.0), lemma.instant


def _rates(mechanism: Symbol, permanent: bool) -> Pair:
    """(p, q) of a symbol's step; without a permanent step the memo is the value."""
    rates = mechanism.permanent if permanent else mechanism.instant
    return (1.0, 0.0) if rates is None else (rates.p, rates.not_p / (mechanism.k - 1))


def _binomial(rounds: int, p: float) -> Floats:
    """(rounds + 1,) probabilities of 0, 1, .. rounds successes."""
    s = np.arange(rounds + 1)
    choices = gammaln(rounds + 1) - gammaln(s + 1) - gammaln(rounds - s + 1)
    law = np.exp(choices + xlogy(s, p) + xlog1py(rounds - s, -p))
    return law / law.sum()


def _weights(rounds: int, instant: Pair) -> Floats:
    """(rounds + 1,) P(s | memo 1) / [P(s | memo 1) + P(s | memo 0)]: no power of a small number is formed."""
    (p, q), s = instant, np.arange(rounds + 1)
    return expit(xlogy(s, p) - xlogy(s, q) + xlog1py(rounds - s, -p) - xlog1py(rounds - s, -q))


def _fit(found: Ints, weights: Floats) -> Floats:
    """(k,) shares pi that maximise sum_s h_s log(pi w_s + (1 - pi)(1 - w_s)), by Newton's method kept in a bracket."""
    slope = 2 * weights - 1
    low, high = np.full(len(found), EDGE), np.full(len(found), 1 - EDGE)
    share = np.full(len(found), 0.5)
    for _ in range(100):
        ratio = slope / (1 - weights + share[:, None] * slope)  # (k, rounds + 1)
        first, second = (found * ratio).sum(axis=1), (found * ratio**2).sum(axis=1)
        low, high = np.where(first > 0, share, low), np.where(first > 0, high, share)
        newton = share + first / np.where(second > 0, second, 1)
        updated = np.where((newton >= low) & (newton <= high), newton, (low + high) / 2)
        change = np.abs(updated - share).max(initial=0)
        share = updated
        if change < SMALLEST_CHANGE:
            break
    return share
