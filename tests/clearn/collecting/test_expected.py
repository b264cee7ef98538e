"""The closed-form errors in every row of scores are those that simulated repeats have, by z tests at fixed seeds."""

from __future__ import annotations

from collections.abc import Sequence
from math import e
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clearn.collecting import on_collection
from clearn.folder import SCORES, RunFolder
from clearn.frequency.engines import Engine
from clearn.runner import run
from clearn.stream import Collection
from clearn.streams.collections import synthetic
from clearn.streams.values import Static

ROUNDS = 5
WIDE = 4.0  # standard errors
BUDGETS = {"eps_inf": 2.0, "eps_1": 1.0}


def scores(
    collection: Collection, protocol: str, folder: Path, engine: Engine, repeats: int, **options: Any
) -> list[dict[str, Any]]:
    runner = {"engine": engine, "repeats": repeats, "rebuild": False}
    return RunFolder(run(on_collection(collection, protocol, options, {}, runner, seed=1), folder)).rows(SCORES)


def z(errors: Sequence[float], expected: float) -> float:
    """How many standard errors the mean of squared errors lies off."""
    found = np.array(errors)
    return float((found.mean() - expected) / (found.std(ddof=1) / np.sqrt(len(found))))


def skewed(n: int, k: int, d: int = 1) -> Static:
    values = (np.random.default_rng(2).random((n, d)) ** 3 * k).astype(np.uint8)
    return Static(values, [k] * d, ROUNDS)


@pytest.mark.parametrize(("engine", "repeats"), [("aggregate", 600), ("per_user", 80)])
@pytest.mark.parametrize("protocol", ["l_osue", "l_grr"])
def test_static_values_round_by_round_and_on_average(
    protocol: str, engine: Engine, repeats: int, tmp_path: Path
) -> None:
    """One round has V_1; the mean of t rounds V_PRR + (V_1 - V_PRR) / t, since users keep their memos."""
    k, n = 6, 1000
    collection = skewed(n, k)
    rows = scores(collection, protocol, tmp_path, engine, repeats, **BUDGETS)
    f = collection.round(0).counts[0] / n
    big = e**2
    rates = {  # composed at eps_1 = 1, and permanent at eps_inf = 2
        "l_osue": ((0.5, 1 / (e + 1)), (0.5, 1 / (big + 1))),
        "l_grr": ((e / (e + k - 1), 1 / (e + k - 1)), (big / (big + k - 1), 1 / (big + k - 1))),
    }[protocol]
    first, floor = (float(np.mean(f * p * (1 - p) + (1 - f) * q * (1 - q)) / (n * (p - q) ** 2)) for p, q in rates)
    for t, row in enumerate(rows, 1):
        assert row["expected"] == pytest.approx(first, rel=1e-6)
        assert row["expected_running"] == pytest.approx(floor + (first - floor) / t, rel=1e-6)
        assert abs(z(row["se"]["none"], first)) < WIDE
        assert abs(z(row["running"]["none"], row["expected_running"])) < WIDE
    last = rows[-1]["running"]["none"]
    assert z(last, first / ROUNDS) > 0.3 * repeats**0.5, "memos are kept, so that noise does not average away"
    assert z(last, first) < -0.3 * repeats**0.5, "but part of it does"


def test_a_long_mean_stops_at_the_floor(tmp_path: Path) -> None:
    collection = Static((np.arange(2000)[:, None] % 4).astype(np.uint8), [4], 40)
    rows = scores(collection, "l_sue", tmp_path, "aggregate", 100, eps_inf=1.0, eps_1=0.5)
    p = np.exp(0.5) / (np.exp(0.5) + 1)  # of the memo alone
    floor = p * (1 - p) / (2000 * (2 * p - 1) ** 2)
    assert floor < rows[-1]["expected_running"] < 1.1 * floor
    assert abs(z(rows[-1]["running"]["none"], rows[-1]["expected_running"])) < WIDE
    assert z(rows[-1]["running"]["none"], rows[-1]["expected"] / 40) > 10


@pytest.mark.parametrize(
    ("protocol", "options"),
    [
        ("smp", {"of": "l_osue", **BUDGETS}),
        ("allomfree", {**BUDGETS, "shares": "neyman"}),
        ("allomfree", {**BUDGETS, "profile": "paper"}),
        ("spl", {"of": "l_grr", **BUDGETS}),
        ("rs_fd", {"of": "grr", "eps": 1.0}),
        ("rs_fd", {"of": "oue", "eps": 1.0, "fakes": "zero"}),
    ],
    ids=lambda part: part if isinstance(part, str) else " ".join(map(str, part.values())),
)
def test_several_attributes_with_who_is_asked_drawn_anew(
    protocol: str, options: dict[str, Any], tmp_path: Path
) -> None:
    """With one attribute a user the answering ones are a random sample, which errs by f (1-f) / n_j as well."""
    rows = scores(skewed(600, 4, d=2), protocol, tmp_path, "aggregate", 300, **options)
    assert len(rows) == 2 * ROUNDS
    for row in rows:
        assert abs(z(row["se"]["none"], row["expected"])) < WIDE, (row["step"], row["attribute"])
        if row["expected_running"] is not None:
            assert abs(z(row["running"]["none"], row["expected_running"])) < WIDE
    assert (rows[-1]["expected_running"] is None) == (protocol == "rs_fd"), "fakes have no closed form over rounds"


@pytest.mark.parametrize("protocol", ["l_osue", "l_grr", "loloha"])
def test_values_that_change(protocol: str, tmp_path: Path) -> None:
    collection = synthetic(300, [5], ROUNDS, change=0.4, law="zipf")
    engine: Engine = "per_user" if protocol == "loloha" else "aggregate"
    for row in scores(collection, protocol, tmp_path, engine, 120, **BUDGETS):
        assert abs(z(row["se"]["none"], row["expected"])) < WIDE
        assert row["running"] is None and row["expected_running"] is None


def test_linked_decoding_gains_what_the_spec_says(tmp_path: Path) -> None:
    """At (2, 1) after 5 rounds the linear mean has 1.3 times the variance (spec 12.3, item 3)."""
    runner = {"engine": "per_user", "repeats": 150, "rebuild": False, "decode": "linked"}
    experiment = on_collection(skewed(1000, 6), "l_osue", BUDGETS, {}, runner, seed=1)
    rows = RunFolder(run(experiment, tmp_path)).rows(SCORES)
    assert rows[0]["linked"]["none"] == pytest.approx(rows[0]["se"]["none"], rel=0.02), "one report holds no more"
    linear, linked = np.array(rows[-1]["running"]["none"]), np.array(rows[-1]["linked"]["none"])
    ratio = linear.mean() / linked.mean()
    spread = ratio * np.std(linear / linear.mean() - linked / linked.mean(), ddof=1) / np.sqrt(len(linear))
    assert abs(ratio - 1.3) < WIDE * spread + 0.05, (ratio, spread)
    assert ratio - WIDE * spread > 1
