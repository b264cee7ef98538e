"""Reports on synthetic runs of protocols: errors over repeats, losses, costs, and how they keep apart from learning."""

from __future__ import annotations

import csv as csv_format
import io
import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console

from clearn import report
from clearn.report.collections.grouping import CollectionGroup
from clearn.report.collections.runs import CollectionRun
from clearn.report.columns import digits_text, error_text
from clearn.report.grouping import settings

USERS = 45_222
SIZES = {"workclass": 7, "education": 16, "country": 41}
VOID = {"meta", "link", "br", "hr", "img", "input"}


@dataclass(frozen=True)
class Rates:
    """Probabilities of the two steps, and those composed, of one attribute."""

    p1: float
    q1: float
    p2: float
    q2: float

    @property
    def own(self) -> float:
        return self.p1 * self.p2 + (1 - self.p1) * self.q2

    @property
    def other(self) -> float:
        return self.q1 * self.p2 + (1 - self.q1) * self.q2


def rates(protocol: str, k: int, eps_inf: float, eps_1: float) -> Rates:
    """Closed forms of l_grr (exact), l_sue and l_osue (spec, section 3)."""
    big, small = math.exp(eps_inf), math.exp(eps_1)
    if protocol == "l_grr":
        ratio = (big * small + (k - 2) * small - (k - 1)) / (big - small)
        return Rates(big / (big + k - 1), 1 / (big + k - 1), ratio / (ratio + k - 1), 1 / (ratio + k - 1))
    half = 2 if protocol == "l_sue" else 1
    a, e = big ** (1 / half), small ** (1 / half)
    p1, q1 = (a / (a + 1), 1 / (a + 1)) if protocol == "l_sue" else (0.5, 1 / (a + 1))
    p2 = (a * e - 1) / ((a - 1) * (e + 1))
    return Rates(p1, q1, p2, 1 - p2)


def variance(own: float, other: float, n: float, k: int) -> float:
    """Mean over the domain of the exact variance of one round (spec, section 4)."""
    return (other * (1 - other) + (own * (1 - own) - other * (1 - other)) / k) / (n * (own - other) ** 2)


def loss(protocol: str, k: int, one: Rates, eps_inf: float, t: int) -> float:
    """Loss after t reports of one value (spec, section 5.3)."""
    if protocol == "l_grr":
        grown = (one.p2 / one.q2) ** t
        return math.log((math.exp(eps_inf) * grown + k - 1) / (grown + math.exp(eps_inf) + k - 2))

    def ones(x: float) -> float:
        return x * one.p2**t + (1 - x) * one.q2**t

    def zeros(x: float) -> float:
        return (1 - x) * (1 - one.q2) ** t + x * (1 - one.p2) ** t

    return math.log(ones(one.p1) / ones(one.q1) * zeros(one.q1) / zeros(one.p1))


def make(
    folder: Path,
    protocol: str = "l_osue",
    eps_inf: float = 2.0,
    alpha: float = 0.5,
    seed: int = 0,
    *,
    sizes: dict[str, int] = SIZES,
    users: int = USERS,
    rounds: int = 1,
    repeats: int = 20,
    static: bool = True,
    state: str = "done",
    steps: int | None = None,
    data: str = "adult",
    unbounded: bool = False,
    headline: str = "norm_sub",
    warnings: tuple[str, ...] = (),
    changes: dict[str, Any] | None = None,
    **config: Any,
) -> Path:
    """Write a run folder in the runner's format, from closed forms with a little chance around them.

    Args:
        unbounded: a one-shot oracle: nothing is kept, every round spends anew.
        changes: put into every row of figures.
        config: sections of config.yaml.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng([seed, rounds, int(100 * eps_inf), int(100 * alpha), len(protocol)])
    whole = {
        "stream": {"name": "collections", "data": data, "rounds": rounds},
        "protocol": {"name": protocol} | ({"eps": eps_inf} if unbounded else {"eps_inf": eps_inf, "alpha": alpha}),
        "budget": {"client_bytes": None, "bits_per_round": None},
        "runner": {"rebuild": True, "engine": "auto", "repeats": repeats, "memo": "table"},
        "seed": seed,
        "name": folder.name,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(whole | config))
    facts = {"clearn": "0.1.0", "numpy": "2.3.4", "started": f"2025-02-0{seed % 9 + 1}T10:00:00", "engine": "aggregate"}
    (folder / "environment.json").write_text(json.dumps(facts | {"command": ["/home/someone/clearn", "run", protocol]}))
    eps_1 = eps_inf if unbounded else alpha * eps_inf
    scores, ledger = [], []
    for step in range(1, rounds + 1):
        for j, (name, k) in enumerate(sizes.items()):
            scores.append(score(step, j, name, k, protocol, eps_inf, eps_1, users, len(sizes), repeats, static, rng))
            scores[-1]["headline"] = headline
        weighed = {("client", "memo"): 900 * repeats, ("server", "counts"): 8 * step * sum(sizes.values()) * repeats}
        ledger += [
            {"kind": "bytes", "step": step, "owner": owner, "category": category, "bytes": size}
            for (owner, category), size in weighed.items()
        ]
        row = figures(step, sum(weighed.values()), protocol, eps_inf, eps_1, sizes, users, repeats, static, unbounded)
        ledger.append(row | {"warnings": list(warnings)} | (changes or {}))
    (folder / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in scores))
    (folder / "ledger.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ledger))
    status = {"state": state, "step": rounds, "steps": steps or rounds, "message": None}
    (folder / "status.json").write_text(json.dumps(status))
    return folder


def score(
    step: int,
    attribute: int,
    name: str,
    k: int,
    protocol: str,
    eps_inf: float,
    eps_1: float,
    users: int,
    d: int,
    repeats: int,
    static: bool,
    rng: np.random.Generator,
) -> dict[str, Any]:
    known = protocol if protocol in ("l_grr", "l_sue") else "l_osue"
    one, n = rates(known, k, eps_inf, min(eps_1, 0.999 * eps_inf)), users // d
    first, floor = variance(one.own, one.other, n, k), variance(one.p1, one.q1, n, k)
    mean = floor + (first - floor) / step
    frequency = 1 / np.arange(1, k + 1) / sum(1 / np.arange(1, k + 1))
    uniform = float(np.mean((frequency - 1 / k) ** 2))

    def posts(expected: float) -> dict[str, list[float]]:
        raw = expected * rng.chisquare(k, repeats) / k
        return {
            "none": raw.tolist(),
            "norm_mul": (1.1 * raw * uniform / (raw + uniform)).tolist(),
            "norm_sub": (raw * uniform / (raw + uniform)).tolist(),
        }

    return {
        "step": step,
        "kind": "frequencies",
        "probe": name,
        "attribute": attribute,
        "k": k,
        "n": [n] * repeats,
        "se": posts(first),
        "running": posts(mean) if static else None,
        "expected": first,
        "expected_running": mean if static else None,
        "uniform": uniform,
        "headline": "norm_sub",
        "engine": "aggregate",
    }


def figures(
    step: int,
    total: int,
    protocol: str,
    eps_inf: float,
    eps_1: float,
    sizes: dict[str, int],
    users: int,
    repeats: int,
    static: bool,
    unbounded: bool,
) -> dict[str, Any]:
    k = max(sizes.values())
    known = protocol if protocol in ("l_grr", "l_sue") else "l_osue"
    one = rates(known, k, eps_inf, min(eps_1, 0.999 * eps_inf))
    spent = step * eps_1 if unbounded else loss(known, k, one, eps_inf, step)
    met = 1 if static else 1 + 0.4 * (step - 1)
    lost = spent if unbounded else spent * met
    memo = math.ceil(math.log2(k)) if protocol == "l_grr" else k
    ratio = one.p2 / one.q2
    client = {"now_mean": met * memo + k, "worst": k * memo + k, "public": 0, "measured_mean": met * memo + k}
    return {
        "kind": "figures",
        "step": step,
        "total": total,
        "shared": 0,
        "delta": total,
        "framing": 100,
        "budget": None,
        "slack": None,
        "seconds": {"data": 0.01, "report": 0.2, "write": 0.02, "rebuild": 0.01, "evaluate": 0.05},
        "cpu_seconds": 0.3,
        "peak_host": 1e6 * step,
        "rebuilt": True,
        "sha256": "ab",
        "engine": "aggregate" if static else "per_user",
        "exactness": "joint",
        "users": users,
        "repeats": repeats,
        "client": {"now_mean": 0, "worst": 0, "public": 0, "measured_mean": None} if unbounded else client,
        "setup_bits": math.ceil(math.log2(max(len(sizes), 1))),
        "round_bits": memo,
        "server_bytes": 8 * step * sum(sizes.values()),
        "loss": {
            "static": {"mean": spent, "max": spent},
            "memo": {"mean": lost, "max": lost if static or unbounded else 1.5 * lost},
            "any": step * eps_1 if unbounded else step * math.log(ratio) if protocol == "l_grr" else None,
        },
        "distinct_mean": met,
        "budgets": {
            "eps_inf": eps_inf,
            "eps_1": eps_1,
            "eps_inf_effective": None if unbounded else eps_inf,
            "eps_1_effective": eps_1,
        },
        "profile": "best",
        "protocol": protocol,
        "choices": {},
        "warnings": [],
    }


def learned(folder: Path, seed: int = 0) -> Path:
    """Write a run folder of a strategy: one task, two classes."""
    folder.mkdir(parents=True)
    config = {"stream": {"name": "class_incremental", "data": "digits"}, "strategy": {"name": "replay"}, "seed": seed}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    scored = {"step": 1, "task": 1, "probe": "task 1", "readout": "classifier", "headline": True}
    counts = {"correct": 18, "total": 20, "classes": {"0": [9, 10], "1": [9, 10]}, "top5": 20}
    (folder / "scores.jsonl").write_text(json.dumps(scored | counts) + "\n")
    (folder / "ledger.jsonl").write_text(json.dumps({"kind": "figures", "step": 1, "total": 1000}) + "\n")
    (folder / "status.json").write_text(json.dumps({"state": "done", "step": 1, "steps": 1}))
    return folder


def rewrite(run: Path, name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    rows = [change(json.loads(line)) for line in (run / name).read_text().splitlines()]
    (run / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def grouped(path: Path) -> list[CollectionGroup]:
    found = report.groups(report.load([path]))
    assert all(isinstance(group, CollectionGroup) for group in found)
    return [group for group in found if isinstance(group, CollectionGroup)]


def terminal_text(path: Path, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    report.terminal(report.groups(report.load([path])), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def page(path: Path) -> str:
    runs = report.load([path])
    return report.html(report.groups(runs), runs, "A <comparison> & more")


def csv_rows(text: str) -> list[dict[str, str]]:
    return list(csv_format.DictReader(io.StringIO(text)))


class Checker(HTMLParser):
    """Checks nesting and unique ids, and collects what a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.refers: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        assert len(given) == len(attrs), f"{tag} repeats an attribute: {attrs}"
        self.ids += [given["id"]] if "id" in given else []
        self.refers += [given[name] for name in ("src", "href", "xlink:href", "data") if name in given]
        self.refers += re.findall(r"url\(([^)]*)\)", " ".join(given.values()))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes the wrong element"

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def checked(html: str) -> str:
    """Check a page and give its text."""
    checker = Checker()
    checker.feed(html)
    checker.close()
    assert checker.open == []
    assert len(checker.ids) == len(set(checker.ids))
    assert all(target.startswith("#") and target[1:] in checker.ids for target in checker.refers)
    return " ".join("".join(checker.text).split())


def titles(html: str) -> list[str]:
    return re.findall(r"<h3>(.*?)</h3>", html)


# Reading


def test_a_run_with_a_protocol_is_read_as_a_collection(tmp_path: Path) -> None:
    make(tmp_path / "b", rounds=3)
    learned(tmp_path / "a")
    runs = report.load([tmp_path])
    assert [(run.name, type(run).__name__) for run in runs] == [("a", "LearningRun"), ("b", "CollectionRun")]
    assert (runs[1].state, runs[1].step, runs[1].steps, runs[1].headline) == ("done", 3, 3, "norm_sub")
    assert set(runs[1].numbers) == {"none", "norm_mul", "norm_sub"}


def test_a_torn_last_line_leaves_the_rounds_before_it(tmp_path: Path) -> None:
    run = make(tmp_path / "run", rounds=4, state="running")
    for name in ("scores.jsonl", "ledger.jsonl"):
        text = (run / name).read_text()
        (run / name).write_text(text[: len(text) - 30])
    (found,) = report.load([run])
    assert (found.state, found.step, found.steps) == ("running", 3, 4)
    assert "running after round 3 of 4" in terminal_text(run)


def test_a_round_lacking_an_attribute_does_not_count(tmp_path: Path) -> None:
    run = make(tmp_path / "run", rounds=2, state="stopped")
    rows = (run / "scores.jsonl").read_text().splitlines(keepends=True)
    (run / "scores.jsonl").write_text("".join(rows[:-1]))
    (found,) = report.load([run])
    assert (found.step, found.finished) == (1, False)


def test_a_round_written_twice_counts_once(tmp_path: Path) -> None:
    make(tmp_path / "once" / "run", rounds=3)
    again = make(tmp_path / "twice" / "run", rounds=3)
    for name in ("scores.jsonl", "ledger.jsonl"):
        (again / name).write_text(2 * (again / name).read_text())
    once, twice = (report.csv(grouped(tmp_path / name)) for name in ("once", "twice"))
    assert once == twice


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("scores.jsonl", lambda row: row | {"se": {"none": [-1.0], "norm_sub": [1.0]}}, "negative squared error"),
        ("scores.jsonl", lambda row: row | {"se": {"none": [1.0, 2.0], "norm_sub": [1.0]}}, "[1, 2] repeats"),
        ("scores.jsonl", lambda row: row | {"se": {}}, "no post-processing that every row has"),
        ("scores.jsonl", lambda row: {key: row[key] for key in row if key != "attribute"}, "KeyError 'attribute'"),
        ("scores.jsonl", lambda row: row | {"step": 2}, "status says done, but scores.jsonl holds 0 and ledger"),
        ("ledger.jsonl", lambda row: row | {"loss": [1]}, "loss of ledger.jsonl, step 1, holds [1]"),
        ("ledger.jsonl", lambda row: row | {"step": 2}, "ledger.jsonl 0 whole rounds of 1"),
    ],
)
def test_a_damaged_run_is_named_and_spoils_no_mean(
    tmp_path: Path, name: str, change: Callable[[dict[str, Any]], dict[str, Any]], message: str
) -> None:
    good = make(tmp_path / "all" / "good")
    bad = make(tmp_path / "all" / "bad", seed=1)
    rewrite(bad, name, change)
    (damaged,) = report.load([bad])
    assert damaged.state == "damaged"
    assert message in (damaged.message or "")
    assert "leave the folder out" in (damaged.message or "")
    (group,) = grouped(tmp_path / "all")
    (alone,) = grouped(good)
    assert group.error("none") == alone.error("none")
    for text in (terminal_text(tmp_path), report.markdown([group]), checked(page(tmp_path))):
        assert "damaged after round 0" in text


@pytest.mark.parametrize("config", ["a: [1, 2", "- 1\n"])
def test_a_collection_without_a_config_is_known_by_its_scores(tmp_path: Path, config: str) -> None:
    make(tmp_path / "good")
    bad = make(tmp_path / "bad")
    (bad / "config.yaml").write_text(config)
    damaged = report.load([bad])[0]
    assert (type(damaged), damaged.state) == (CollectionRun, "damaged")
    assert "config.yaml" in checked(page(tmp_path))


def test_missing_small_files_and_optional_figures_are_survived(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    (run / "environment.json").unlink()
    rewrite(run, "ledger.jsonl", lambda row: {key: row[key] for key in row if key not in ("client", "loss", "budgets")})
    (group,) = grouped(run)
    assert (group.n, group.eps_inf, group.eps_1) == (1, 2.0, 1.0)  # from the config
    checked(page(run))
    (run / "status.json").unlink()
    assert report.load([run])[0].state == "unknown"


# Errors


def test_mse_avg_is_the_mean_over_rounds_and_attributes_of_each_repeat(tmp_path: Path) -> None:
    run = make(tmp_path / "run", sizes={"a": 3, "b": 5}, rounds=2, repeats=2)
    values = iter([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 10.0]])
    rewrite(run, "scores.jsonl", lambda row: row | {"se": {"none": next(values)}, "running": None, "headline": "none"})
    (group,) = grouped(run)
    found = group.error("none")
    assert found is not None
    assert (found.mean, found.n) == (4.75, 2)
    assert found.std == pytest.approx(math.sqrt(0.75**2 * 2))  # repeats have 4 and 5.5
    assert [one and one.mean for one in group.by_round("none")] == [2.5, 7.0]
    assert [one and one.mean for one in group.by_attribute("none")] == [3.5, 6.0]


def test_repeats_of_runs_that_differ_in_seeds_are_pooled(tmp_path: Path) -> None:
    make(tmp_path / "a", seed=0, repeats=20)
    make(tmp_path / "b", seed=1, repeats=20)
    (group,) = grouped(tmp_path)
    assert (group.n, group.repeats, group.repeats_text) == (2, 40, "2×20")
    squared = np.concatenate([errors.squared["norm_sub"] for errors in group.errors], axis=2).mean(axis=(0, 1))
    found = group.error("norm_sub")
    assert found is not None
    assert (found.mean, found.std) == pytest.approx((squared.mean(), squared.std(ddof=1)))


def test_runs_of_other_numbers_of_repeats_are_one_group(tmp_path: Path) -> None:
    make(tmp_path / "a", seed=0, repeats=20)
    make(tmp_path / "b", seed=1, repeats=5)
    (group,) = grouped(tmp_path)
    assert (group.repeats, group.repeats_text) == (25, "2: 25")


def test_an_attribute_that_nobody_answered_is_left_out_and_told(tmp_path: Path) -> None:
    run = make(tmp_path / "run", sizes={"a": 3, "b": 5}, repeats=2)
    rewrite(run, "scores.jsonl", lambda row: row | {"se": {"none": [None, 2.0] if row["attribute"] else [1.0, 4.0]}})
    rewrite(run, "scores.jsonl", lambda row: row | {"running": None, "headline": "none"})
    (group,) = grouped(run)
    assert group.errors[0].average("none") == [1.0, 3.0]
    for text in (terminal_text(run), report.markdown([group]), checked(page(run))):
        assert "nobody answered an attribute in 1 of 4 estimates" in text
        assert "nan" not in text.lower()


def test_the_floor_of_the_mean_of_rounds_is_the_permanent_step_s_variance(tmp_path: Path) -> None:
    make(tmp_path / "run", eps_inf=2.0, alpha=0.5, sizes={"a": 20}, users=10_000, rounds=6)
    (group,) = grouped(tmp_path)
    one = rates("l_osue", 20, 2.0, 1.0)
    assert group.floor() == pytest.approx(variance(one.p1, one.q1, 10_000, 20), rel=1e-9)
    make(tmp_path / "single", sizes={"a": 20})
    assert next(group for group in grouped(tmp_path) if group.rounds == 1).floor() is None


# Grouping


def test_budgets_have_columns_and_options_tell_the_rest(tmp_path: Path) -> None:
    for eps_inf in (1.0, 2.0):
        for memo in ("table", "prf"):
            runner = {"engine": "auto", "repeats": 20, "memo": memo}
            make(tmp_path / f"{eps_inf}{memo}", eps_inf=eps_inf, runner=runner)
    groups = grouped(tmp_path)
    assert {(group.eps_inf, group.eps_1, group.options["runner.memo"]) for group in groups} == {
        (1.0, 0.5, "table"),
        (1.0, 0.5, "prf"),
        (2.0, 1.0, "table"),
        (2.0, 1.0, "prf"),
    }
    assert {group.line for group in groups} == {"l_osue memo=table", "l_osue memo=prf"}
    assert groups[0].label.endswith("eps_inf=1 eps_1=0.5")
    assert [group.eps_inf for group in groups] == [1.0, 1.0, 2.0, 2.0]


def test_within_a_budget_the_smallest_error_comes_first(tmp_path: Path) -> None:
    for protocol in ("l_grr", "l_sue"):
        for eps_inf in (2.0, 4.0):
            make(tmp_path / f"{protocol}{eps_inf}", protocol, eps_inf, sizes={"a": 3})
    order = [(group.eps_inf, group.method) for group in grouped(tmp_path)]
    assert order == [(2.0, "l_grr"), (2.0, "l_sue"), (4.0, "l_grr"), (4.0, "l_sue")]


def test_lines_are_told_apart_by_alpha_where_it_differs(tmp_path: Path) -> None:
    for alpha in (0.3, 0.6):
        for eps_inf in (1.0, 2.0):
            make(tmp_path / f"{alpha}{eps_inf}", "l_sue", eps_inf, alpha)
    make(tmp_path / "one_shot", "oue", 1.0, unbounded=True)
    assert {group.line for group in grouped(tmp_path)} == {"l_sue alpha=0.3", "l_sue alpha=0.6", "oue"}


def test_lines_are_told_apart_by_eps_1_where_that_gives_fewer(tmp_path: Path) -> None:
    for eps_inf in (1.0, 2.0, 4.0):
        make(tmp_path / f"{eps_inf}", "l_sue", eps_inf, 0.5 / eps_inf)
    assert {group.line for group in grouped(tmp_path)} == {"l_sue eps_1=0.5"}


def test_collections_are_never_mixed(tmp_path: Path) -> None:
    make(tmp_path / "a")
    make(tmp_path / "b", data="nursery")
    make(tmp_path / "c", rounds=5)
    assert set(settings(grouped(tmp_path))) == {
        "collections · adult · rounds=1",
        "collections · adult · rounds=5",
        "collections · nursery",
    }


def test_two_runs_of_one_seed_count_once(tmp_path: Path) -> None:
    make(tmp_path / "a")
    make(tmp_path / "again")
    (group,) = grouped(tmp_path)
    assert (group.n, group.repeats) == (1, 20)
    assert "again (l_osue), has the seeds of a" in terminal_text(tmp_path)


def test_a_run_without_rebuild_says_so(tmp_path: Path) -> None:
    make(tmp_path / "run", changes={"rebuilt": False})
    assert "runner.rebuild=no" in terminal_text(tmp_path)
    assert "users and server were not rebuilt from them" in checked(page(tmp_path))


# Marks and warnings


def test_an_error_above_the_uniform_guess_is_marked(tmp_path: Path) -> None:
    make(tmp_path / "bad", "l_osue", 0.5, 0.3, users=500)
    make(tmp_path / "good", "l_osue", 4.0, 0.6, users=500_000)
    text = terminal_text(tmp_path)
    (line,) = [line for line in text.splitlines() if line.strip().startswith("none")]
    assert line.count("!") == 1
    assert "! Worse than guessing" in text
    html = page(tmp_path)
    assert html.count('<span class="flag">worse\N{NO-BREAK SPACE}than guessing</span>') >= 1
    assert "Worse than guessing" not in terminal_text(tmp_path / "good")
    assert '<span class="flag">' not in page(tmp_path / "good")


def test_a_loss_above_its_budget_is_marked(tmp_path: Path) -> None:
    budgets = {"eps_inf": 1.0, "eps_1": 1.0, "eps_inf_effective": None, "eps_1_effective": 1.49}
    make(tmp_path / "run", "rs_fd", 1.0, unbounded=True, changes={"budgets": budgets})
    html = page(tmp_path)
    assert html.count('<span class="flag">over\N{NO-BREAK SPACE}eps_1</span>') == 1
    assert "eps_inf</span>" not in html  # what is infinite speaks for itself
    assert "! Over eps" in terminal_text(tmp_path)
    rounding = {"eps_inf": 1.0, "eps_1": 0.5, "eps_inf_effective": 1 + 4e-10, "eps_1_effective": 0.5 + 4e-10}
    make(tmp_path / "fine" / "run", "l_sue", 1.0, changes={"budgets": rounding})
    assert "Over eps" not in terminal_text(tmp_path / "fine")


def test_warnings_are_listed_once_with_those_they_hold_for(tmp_path: Path) -> None:
    for protocol in ("l_grr", "l_sue"):
        make(tmp_path / protocol, protocol, rounds=3, warnings=("fakes hide less than claimed",))
    for text in (terminal_text(tmp_path), report.markdown(grouped(tmp_path)), checked(page(tmp_path))):
        assert text.count("fakes hide less than claimed") == 1
        plain = text.replace("\\", "")
        assert "(l_grr; l_sue)" in plain or "(l_sue; l_grr)" in plain


# Writing


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Several budgets and protocols, two seeds, values that change, a one-shot oracle, one that is going on."""
    root = tmp_path_factory.mktemp("collected") / "runs"
    for protocol in ("l_grr", "l_osue", "l_sue"):
        for eps_inf in (0.5, 1.0, 4.0):
            make(root / f"{protocol}-{eps_inf}", protocol, eps_inf, 0.6)
    make(root / "second", "l_grr", 4.0, 0.6, seed=1)
    make(root / "going", "l_grr", 4.0, 0.6, seed=2, state="running", steps=1)
    for protocol in ("l_grr", "l_osue"):
        make(root / f"visits-{protocol}", protocol, sizes={"state": 11}, rounds=7, static=False, data="visits")
    make(root / "visits-oue", "oue", 1.0, sizes={"state": 11}, rounds=7, static=False, data="visits", unbounded=True)
    for protocol in ("l_grr", "l_osue"):
        make(root / f"static-{protocol}", protocol, sizes={"x": 20}, rounds=12, data="synthetic")
    return root


@pytest.fixture(scope="module")
def collected_page(collected: Path) -> str:
    return page(collected)


@pytest.mark.parametrize("width", [60, 80, 110, 200])
def test_terminal_keeps_numbers_whole_at_any_width(collected: Path, width: int) -> None:
    text = terminal_text(collected, width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    found = next(group for group in grouped(collected) if (group.method, group.eps_inf) == ("l_sue", 4.0))
    error = found.error("norm_sub")
    assert error is not None
    for whole in (f"{error_text(error.mean)} ± {error_text(error.std or 0, error.mean)} *", "2×20", "∞", "l_osue"):
        assert whole in text
    assert "going (l_grr eps_inf=4 eps_1=2.4), running after round" in " ".join(text.split())


def test_few_groups_are_told_line_by_line(tmp_path: Path) -> None:
    make(tmp_path / "run", rounds=3)
    lines = terminal_text(tmp_path, 80).splitlines()
    names = ["none", "norm_mul", "norm_sub", "expected", "uniform guess", "engine", "first report", "any", "server"]
    starts = [line.strip() for line in lines]
    assert all(sum(line.startswith(name) for line in starts) == 1 for name in names)
    assert next(line for line in starts if line.startswith("engine")).split()[1:] == ["aggregate,", "joint"]
    assert next(line for line in starts if line.startswith("any")).split()[1:] == ["∞"]


def test_costs_that_no_budget_moves_share_a_row(collected: Path) -> None:
    text = report.markdown(grouped(collected))
    part = text[text.index("### Cost to users and server") :].split("\n\n")[1]
    rows = part.splitlines()[2:]
    assert len(rows) == 3  # of nine configurations
    assert all("| 0.5 to 4 | 0.3 to 2.4 |" in row for row in rows)


def test_markdown_tables_are_rectangular(collected: Path) -> None:
    blocks = re.findall(r"(?:^\|.*\|$\n?)+", report.markdown(grouped(collected)), re.MULTILINE)
    assert len(blocks) == 9  # error, privacy and cost of three collections
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_csv_holds_exact_numbers(collected: Path) -> None:
    groups = grouped(collected)
    text = report.csv(groups)
    rows = {row["label"]: row for row in csv_rows(text)}
    assert len(rows) == len(groups) == 14
    row = rows["l_grr eps_inf=4 eps_1=2.4"]
    group = next(group for group in groups if group.label == "l_grr eps_inf=4 eps_1=2.4" and "adult" in group.setting)
    error = group.error("norm_sub")
    assert error is not None
    assert (row["runs"], row["repeats"], row["unfinished"], row["headline"]) == ("2", "40", "1", "norm_sub")
    assert (row["eps_inf"], float(row["eps_1"]), row["engine"], row["exactness"]) == ("4", 2.4, "aggregate", "joint")
    assert float(row["mse_avg.norm_sub.mean"]) == error.mean
    assert float(row["mse_avg.norm_sub.std"]) == error.std
    assert row["mse_avg.norm_sub.n"] == "40"
    assert float(row["mse_avg.uniform_guess.mean"]) == group.uniform
    assert float(row["client_bytes_worst.mean"]) == (41 * 6 + 41) / 8
    oracle = rows["oue eps_inf=1 eps_1=1"]
    assert (oracle["eps_inf_effective.mean"], oracle["eps_inf_effective.std"]) == ("inf", "")
    assert float(oracle["loss_static.mean"]) == pytest.approx(7)
    assert "nan" not in text.lower()


def test_page_is_valid_and_fetches_nothing(collected: Path, collected_page: str) -> None:
    html = collected_page
    text = checked(html)
    assert not re.search(r"https?:|//cdn|@import|<link|<img", html)
    assert html.count("<figure") == html.count("<figcaption") > 8
    assert "A &lt;comparison&gt; &amp; more" in html
    assert str(collected) not in html
    assert "/home/someone" not in html
    assert "nan" not in text.lower()
    figures = "".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL))
    assert set(re.findall(r"#[0-9a-f]{6}\b", figures)) <= {"#ffffff"}  # the rest are variables, light or dark
    assert len(html.encode()) < 1_000_000


def test_page_is_the_same_for_the_same_runs(collected: Path, collected_page: str, tmp_path: Path) -> None:
    shutil.copytree(collected, tmp_path / "copy" / "runs")
    assert page(tmp_path / "copy" / "runs") == collected_page


def test_every_error_figure_has_the_uniform_guess(collected_page: str) -> None:
    html = collected_page
    drawn = [
        figure
        for figure in re.findall(r"<figure.*?</figure>", html, re.DOTALL)
        if re.search(r"<h3>Error (for|over)", figure)
    ]
    assert len(drawn) == 1 + 3 + 2  # for privacy: several budgets; for memory: all; over rounds: several rounds
    for figure in drawn:
        assert figure.count("uniform guess</text>") == figure.count("<svg")


def test_figures_suit_what_was_run(collected_page: str) -> None:
    sections = dict(re.findall(r"<section>\n<h2>(.*?)</h2>(.*?)</section>", collected_page, re.DOTALL))
    adult = titles(next(body for name, body in sections.items() if "adult" in name))
    visits = titles(next(body for name, body in sections.items() if "visits" in name))
    synthetic = titles(next(body for name, body in sections.items() if "synthetic" in name))
    assert {"Error for privacy", "Error for memory", "Attribute by attribute"} <= set(adult)
    assert not {"Privacy loss over rounds", "Error over rounds"} & set(adult)  # one round
    assert {"Privacy loss over rounds", "Error over rounds", "Error for memory"} <= set(visits)
    assert not {"Error for privacy", "Attribute by attribute"} & set(visits)  # one budget, one attribute
    body = next(body for name, body in sections.items() if "synthetic" in name)
    assert "Error over rounds" in synthetic
    assert body.count(">floor</text>") == 2
    assert "closed form" in body
    assert ">floor</text>" not in next(body for name, body in sections.items() if "visits" in name)


def test_a_uniform_population_has_no_line_of_the_guess(tmp_path: Path) -> None:
    for eps_inf in (1.0, 2.0):
        run = make(tmp_path / f"{eps_inf}", eps_inf=eps_inf, rounds=2)
        rewrite(run, "scores.jsonl", lambda row: row | {"uniform": 0.0})
    html = page(tmp_path)
    assert "has no error, and no line" in checked(html)
    assert "uniform guess</text>" not in html


def test_protocols_of_coarser_values_are_told_to_have_another_guess(tmp_path: Path) -> None:
    for protocol in ("l_grr", "l_sue", "d_bit_flip_pm"):
        for eps_inf in (1.0, 2.0):
            run = make(tmp_path / f"{protocol}{eps_inf}", protocol, eps_inf)
            if protocol == "d_bit_flip_pm":
                rewrite(run, "scores.jsonl", lambda row: row | {"uniform": 2 * row["uniform"]})
    assert checked(page(tmp_path)).count("have another guess") == 1
    (tmp_path / "fine").mkdir()
    assert "have another guess" not in page(make(tmp_path / "fine" / "run"))


def test_several_eps_1_under_one_eps_inf_are_the_x_axis(tmp_path: Path) -> None:
    for alpha in (0.2, 0.4, 0.6):
        make(tmp_path / f"{alpha}", eps_inf=2.0, alpha=alpha)
    html = page(tmp_path)
    assert "MSE_avg by eps_1" in html
    assert ">eps_1</text>" in html


def test_small_figures_are_of_one_budget_where_there_are_many(tmp_path: Path) -> None:
    for eps_inf in (0.5, 1.0, 2.0, 3.0, 4.0):
        for protocol in ("l_grr", "l_osue", "l_sue"):
            make(tmp_path / f"{protocol}{eps_inf}", protocol, eps_inf, rounds=2, sizes={"a": 5}, repeats=3)
    html = page(tmp_path)
    (figure,) = re.findall(r"<figure[^>]*>\s*<h3>Privacy loss over rounds.*?</figure>", html, re.DOTALL)
    assert figure.count("<svg") == 3
    assert "Shown at eps_inf=4 eps_1=2, of 5 budgets." in figure


def test_terms_are_defined(collected_page: str) -> None:
    text = checked(collected_page)
    for words in (
        "15 finished runs of 4 protocols in 14 configurations",
        "45,222 users, 3 attributes, 1 round",
        "no guarantee for arbitrary trajectories",
        "reports of one value share a memo and stop to agree with it when the value changes",
        "at a cost that does not depend on the number of users",
        "Sample standard deviation (divisor n - 1) over repeats",
        "MSE_avg of estimates projected onto frequencies",
        "2025-02-01 10:00 to 2025-02-03 10:00",
        "running after round 1 of 1",
    ):
        assert words in text, words


def test_nothing_finished_is_said(tmp_path: Path) -> None:
    make(tmp_path / "run", state="failed", rounds=2, steps=5)
    text = terminal_text(tmp_path)
    assert "failed after round 2 of 5" in text
    assert "±" not in text
    assert csv_rows(report.csv(grouped(tmp_path)))[0]["runs"] == "0"
    html = page(tmp_path)
    assert "failed after round 2 of 5" in checked(html)
    assert "<svg" not in html


def test_names_are_escaped(tmp_path: Path) -> None:
    make(tmp_path / "a<b>", "re[bold]port", sizes={"<script>|*": 3, "b": 2}, warnings=("a <b> [bold]",))
    make(tmp_path / "b", "re[bold]port", 1.0, sizes={"<script>|*": 3, "b": 2})
    assert "re[bold]port" in terminal_text(tmp_path)
    assert "a <b> [bold]" in terminal_text(tmp_path)
    html = page(tmp_path)
    assert "<script>|" not in html
    checked(html)


# Both kinds


def test_both_kinds_have_their_own_parts_and_files(tmp_path: Path) -> None:
    learned(tmp_path / "runs" / "a")
    alone = page(tmp_path / "runs")
    make(tmp_path / "runs" / "b")
    html = page(tmp_path / "runs")
    checked(html)
    parts = re.findall(r'<h2 class="part" id="part-\d">(.*?)</h2>', html)
    assert parts == ["Learning", "Private collections"]
    assert html.count("<h2>What the numbers mean</h2>") == 2
    for body in re.findall(r"<section>.*?</section>", alone, re.DOTALL):
        assert body in html  # the learning part is as it is by itself
    assert '<h2 class="part"' not in alone
    first, second = html.split('id="part-1"')
    assert "MSE_avg" not in first
    assert "forgetting" not in second
    text = terminal_text(tmp_path / "runs")
    assert "replay" in text
    assert "l_osue" in text
    groups = report.groups(report.load([tmp_path / "runs"]))
    files = report.csv_files(groups, tmp_path / "table.csv")
    assert [path.name for path in files] == ["table.learning.csv", "table.collections.csv"]
    assert [csv_rows(content)[0].get("method") for content in files.values()] == ["replay", None]
    with pytest.raises(ValueError, match="share no columns"):
        report.csv(groups)
    assert list(report.csv_files(groups[:1], tmp_path / "table.csv")) == [tmp_path / "table.csv"]


def test_a_loss_prints_infinity_and_few_digits() -> None:
    assert [digits_text(value) for value in (math.inf, 0.3, 2.31207, 71.128, 12345.6)] == [
        "∞",
        "0.3",
        "2.312",
        "71.13",
        "12,346",
    ]
    assert [error_text(value) for value in (0.0191312, 3.9e-5, 1.0, 0.0)] == ["1.91e-2", "3.90e-5", "1.00e0", "0"]
    assert error_text(0.00046, like=0.0191312) == "0.05e-2"
