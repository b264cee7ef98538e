"""What simulating every device costs: nanoseconds a user and value, of one round of 100,000 users and 37 values.

A round looks up memos, draws fresh noise, and counts; the first one draws the memos too. With a keyed memo every round
hashes once a user. Timed in CPU seconds of one thread, after one population that warms up.

    python benchmarks/per_user.py            about ten seconds; the target is 20 ns with a table, for bits
"""

from __future__ import annotations

import time
from statistics import median

import numpy as np
import tables

from clearn import plugins
from clearn.frequency.memo import MemoKind
from clearn.frequency.population import PerUser
from clearn.streams.collections import build

USERS, VALUES, ROUNDS, POPULATIONS = 100_000, 37, 8, 3
CASES: tuple[tuple[str, MemoKind], ...] = (
    ("l_osue", "table"),
    ("l_grr", "table"),
    ("loloha", "table"),
    ("l_osue", "prf"),
    ("l_grr", "prf"),
)
BUDGETS = {"eps_inf": 2.0, "eps_1": 1.0}


def nanoseconds(name: str, memo: MemoKind) -> list[float]:
    """CPU time of each round, a user and value."""
    collection = build(data="synthetic", n=USERS, k=VALUES, rounds=ROUNDS)
    protocol = plugins.find("privacy", name)(collection.domains, **BUDGETS)
    population, found = PerUser(protocol, collection, np.random.default_rng(0), memo), []
    for asked in collection:
        started = time.process_time()
        population.report(asked, np.random.default_rng(asked.index))
        found.append(1e9 * (time.process_time() - started) / (USERS * VALUES))
    return found


def main() -> None:
    rows = []
    for name, memo in CASES:
        runs = [nanoseconds(name, memo) for _ in range(POPULATIONS + 1)][1:]
        first, later = median(run[0] for run in runs), median(t for run in runs for t in run[1:])
        rows.append([f"{name}, {memo}", f"{first:.1f}", f"{later:.1f}", f"{1e9 / later / VALUES / 1e6:.1f}"])
    tables.show(
        f"One round of {USERS:,} users, {VALUES} values, median of {POPULATIONS} populations, {ROUNDS} rounds each",
        ["protocol, memo", "ns, first round", "ns, later rounds", "million users a second"],
        rows,
    )


if __name__ == "__main__":
    main()
