"""What a simulated collection costs, all users at once and one by one, and how that grows with users, values, rounds.

CPU seconds of one process and one thread. Reports of a round include a fresh generator, as in a run; a run's writing,
rebuilding and scoring are not in it. The billion users come first, so that the peak memory shown is theirs.

    python benchmarks/collecting.py            about fifteen seconds on one core
"""

from __future__ import annotations

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import resource
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import tables

from clearn import plugins
from clearn.frequency import FrequencyProtocol, engines
from clearn.frequency.aggregate import Aggregate
from clearn.frequency.coins import Ints
from clearn.frequency.groups import whole_groups
from clearn.frequency.lemmas import Lemma, lemma_of
from clearn.frequency.population import PerUser, Population
from clearn.stream import Collection
from clearn.streams.collections import synthetic

EPS_INF, EPS_1 = 2.0, 1.0


def protocol(name: str, k: int) -> FrequencyProtocol:
    """A protocol of one attribute, by its name."""
    cls: Any = plugins.find("privacy", name)
    made: FrequencyProtocol = cls((k,), eps_inf=EPS_INF, eps_1=EPS_1)
    return made


def seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Median CPU seconds."""
    taken = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return median(taken)


def simulate(engine: Callable[..., Population], asked: FrequencyProtocol, collection: Collection) -> None:
    """All rounds, set-up included."""
    population = engine(asked, collection, np.random.default_rng(0))
    for round in collection:
        population.report(round, np.random.default_rng(round.index))


def per_round(engine: Callable[..., Population], asked: FrequencyProtocol, collection: Collection) -> list[float]:
    """CPU seconds of the first round, which draws the memos, and the median of later ones."""
    population = engine(asked, collection, np.random.default_rng(0))
    first, *later = [
        seconds(partial(population.report, round, np.random.default_rng(round.index)), repeats=1)
        for round in collection
    ]
    return [first, median(later)]


def all_draws(lemma: Lemma, held: Ints, rounds: int, rng: np.random.Generator) -> None:
    """What an engine draws, in two calls: memos, then all rounds."""
    users = int(held.sum())
    memos = lemma.settle(held[None], rng)
    lemma.send(np.repeat(memos, rounds, axis=0), users, rng)


def peak_mb() -> float:
    """Resident memory of the process at its largest, interpreter and libraries included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def billion() -> None:
    """The promise: under two seconds and 200 MB."""
    before, rows = peak_mb(), []
    for name in ("l_osue", "l_grr"):
        collection, asked = synthetic(10**9, [1000], 100), protocol(name, 1000)
        taken = seconds(partial(simulate, Aggregate, asked, collection), repeats=3)
        rows.append([name, f"{taken:.3f}", f"{peak_mb():.0f}", f"{10**11 / taken:.1e}"])
    title = f"10^9 users, k=1000, 100 rounds, aggregate (the process weighs {before:.0f} MB before)"
    tables.show(title, ["protocol", "seconds", "peak MB", "users x rounds / s"], rows)


def published_size() -> None:
    """88,935 users, k=37, 100 rounds: the engine round by round, and its draws alone for all rounds together."""
    rows = []
    for name in ("l_osue", "l_grr", "loloha"):
        collection, asked = synthetic(88_935, [37], 100), protocol(name, 37)
        lemma = known_lemma(asked)
        bare = seconds(partial(all_draws, lemma, collection[0].counts[0], 100, np.random.default_rng(0)), 20)
        whole = seconds(partial(simulate, Aggregate, asked, collection), 10)
        rows.append([name, f"{bare * 1e3:.2f}", f"{whole * 1e3:.2f}", f"{88_935 * 100 / whole:.1e}"])
    heads = ["protocol", "draws alone, ms", "engine, ms", "users x rounds / s"]
    tables.show("88,935 users, k=37, 100 rounds, aggregate", heads, rows)


def growth() -> None:
    """One thing grows, the others stay."""
    rows = []
    for title, n, k, rounds in (
        *(("users", 10**power, 100, 100) for power in (3, 5, 7, 9)),
        *(("values", 10**9, k, 100) for k in (10, 100, 1000, 10_000)),
        *(("rounds", 10**9, 100, rounds) for rounds in (1, 10, 100, 1000)),
    ):
        row = [title, f"{n:.0e}", str(k), str(rounds)]
        for name in ("l_osue", "l_grr"):
            work = partial(simulate, Aggregate, protocol(name, k), synthetic(n, [k], rounds))
            row.append(f"{1e3 * seconds(work, 3):.2f}")
        rows.append(row)
    tables.show("Growth, aggregate", ["grows", "users", "k", "rounds", "l_osue, ms", "l_grr, ms"], rows)


def one_by_one() -> None:
    """The per-user engine, whose cost is all in users and values."""
    rows = []
    for n, k in ((10_000, 37), (100_000, 37), (100_000, 370), (1_000_000, 37)):
        for name in ("l_osue", "l_grr", "loloha"):
            asked, collection = protocol(name, k), synthetic(n, [k], 4)
            first, later = per_round(PerUser, asked, collection)
            _, whole = per_round(Aggregate, asked, collection)
            each = [f"{first * 1e3:.1f}", f"{later * 1e3:.1f}", f"{later / n / k * 1e9:.2f}", f"{n / later:.1e}"]
            rows.append([name, f"{n:,}", str(k), *each, f"{n / whole:.1e}"])
    heads = ["protocol", "users", "k", "round 1, ms", "later, ms", "ns / user-value", "users x rounds / s", "aggregate"]
    tables.show("Per user, static values (last column: the aggregate engine's users x rounds / s)", heads, rows)


def changing() -> None:
    """Users who change: groups of pieces, and where the rule puts the border."""
    rows = []
    for n, k, rounds, change in ((88_935, 11, 7, 0.45), (10**6, 37, 10, 0.05), (10_000, 360, 120, 0.25)):
        collection, asked = synthetic(n, [k], rounds, change), protocol("l_osue", k)
        started = time.process_time()
        engine, why = engines.choose(asked, collection)
        choosing = time.process_time() - started
        groups = whole_groups(collection, 0, known_lemma(asked))
        assert groups is not None
        whole = seconds(partial(simulate, Aggregate, asked, collection), 1)
        single = seconds(partial(simulate, PerUser, asked, collection), 1)
        name = f"{n:,} users, k={k}, {rounds} rounds, {change:.0%} change"
        rows.append([name, f"{len(groups.rounds):,}", f"{choosing:.2f}", f"{whole:.3f}", f"{single:.2f}", engine])
        print(f"{name}: {engine}, for {why}")
    heads = ["l_osue", "groups", "choosing, s", "aggregate, s", "per user, s", "chosen"]
    tables.show("Changing values (choosing cuts users into groups, once for a collection)", heads, rows)


def known_lemma(asked: FrequencyProtocol) -> Lemma:
    """The lemma of its first attribute."""
    lemma = lemma_of(asked.mechanisms[0])
    assert lemma is not None
    return lemma


def main() -> None:
    billion()
    published_size()
    growth()
    one_by_one()
    changing()


if __name__ == "__main__":
    main()
