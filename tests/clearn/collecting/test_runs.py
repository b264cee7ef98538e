"""`clearn run` on tables of users: what a run folder holds, for every kind of collection, and that it is right."""

from __future__ import annotations

import csv
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import clearn
from clearn.folder import ENVIRONMENT, LEDGER, SCORES, STATUS, RunFolder

N, ROUNDS = 600, 3  # users of every table, rounds of small.yaml
ROW = {
    "step", "kind", "probe", "attribute", "k", "n", "se", "running", "expected", "expected_running", "uniform",
    "headline", "engine",
}  # fmt: skip
FIGURES = {
    "kind", "step", "total", "shared", "delta", "framing", "budget", "slack", "seconds", "cpu_seconds", "rebuilt",
    "sha256", "engine", "exactness", "users", "repeats", "client", "setup_bits", "round_bits", "server_bytes", "loss",
    "distinct_mean", "budgets", "profile", "protocol", "choices", "warnings",
}  # fmt: skip
POSTS = {"none", "norm_mul", "norm_sub"}
SMP = "protocol={name: smp, of: l_osue, eps_inf: 2, alpha: 0.5}"
WHOLE = math.log(2 * (math.e - 1) + 1)  # what fakes for one of two attributes lose at eps = 1, between whole tuples
WEEKS = "stream={file: weeks.csv, rounds: [w0, w1, w2, w3]}"


def scores(path: str) -> list[dict[str, Any]]:
    return RunFolder(Path(path)).rows(SCORES)


def figures(path: str) -> list[dict[str, Any]]:
    return [row for row in RunFolder(Path(path)).rows(LEDGER) if row["kind"] == "figures"]


def hashes(path: str) -> list[str]:
    return [row["sha256"] for row in figures(path)]


def column(file: str, name: str) -> list[str]:
    with Path(file).open() as rows:
        return [row[name] for row in csv.DictReader(rows)]


def weeks() -> np.ndarray[Any, Any]:
    return np.array([column("weeks.csv", f"w{t}") for t in range(4)], int).T


def l_osue_loss(t: int) -> float:
    """Loss of t reports of an unchanged value at eps_inf = 2, eps_1 = 1: the spec's section 5.3."""
    p1, q1, p2 = 0.5, 1 / (math.e**2 + 1), 0.803388067
    q2 = 1 - p2
    one, zero = (lambda x: x * p2**t + (1 - x) * q2**t), (lambda x: (1 - x) * (1 - q2) ** t + x * (1 - p2) ** t)
    return math.log(one(p1) / one(q1) * zero(q1) / zero(p1))


# --- what a folder holds


def test_a_run_of_two_attributes_holds_what_is_promised(whole: Any) -> None:
    said = whole("run", "small.yaml", "out=run", "stream.file=people.csv", SMP)
    assert "small: round 3/3 · MSE " in said and "guessing uniform" in said
    rows = scores("run")
    assert [(row["step"], row["attribute"], row["probe"], row["k"]) for row in rows] == [
        (step, j, name, k) for step in (1, 2, 3) for j, (name, k) in enumerate([("city", 3), ("job", 5)])
    ]
    for row in rows:
        assert row.keys() >= ROW
        assert (row["kind"], row["headline"], row["engine"]) == ("frequencies", "norm_sub", "aggregate")
        assert row["se"].keys() == row["running"].keys() == POSTS
        errors = [error for found in (row["se"], row["running"]) for each in found.values() for error in each]
        assert len(errors) == 2 * 3 * 2 and all(error >= 0 for error in errors)
        held = np.unique(column("people.csv", row["probe"]), return_counts=True)[1] / N
        assert row["uniform"] == pytest.approx(np.mean((held - 1 / len(held)) ** 2))
    assert all(row["running"] == row["se"] and row["expected_running"] == row["expected"] for row in rows[:2])
    assert all(row["expected_running"] < row["expected"] for row in rows[2:])
    for city, job in zip(rows[::2], rows[1::2], strict=True):
        assert [a + b for a, b in zip(city["n"], job["n"], strict=True)] == [N, N], "one attribute a user"
        assert city["n"] == rows[0]["n"] and city["n"][0] != city["n"][1], "for ever, but drawn anew for a repeat"

    found = figures("run")
    assert [row["step"] for row in found] == [1, 2, 3]
    for t, row in enumerate(found, 1):
        assert row.keys() >= FIGURES
        assert {"now_mean", "worst", "public", "measured_mean", "measured_max"} <= row["client"].keys()
        assert row["seconds"].keys() == {"data", "report", "write", "rebuild", "evaluate"}
        assert {"static", "memo", "any", "literature"} <= row["loss"].keys()
        assert (row["users"], row["repeats"], row["rebuilt"]) == (N, 2, True)
        assert (row["engine"], row["exactness"]) == ("aggregate", "joint")
        assert (row["protocol"], row["profile"]) == ("smp", "best")
        assert row["client"]["worst"] == 5 * 5 + 5 and row["client"]["public"] == row["setup_bits"] == 1
        assert row["round_bits"] == (3 + 5) / 2
        assert row["server_bytes"] == 8 * t * (3 + 5 + 2)  # counts, and users of both attributes
        budgets = row["budgets"]
        assert (budgets["eps_inf"], budgets["eps_1"]) == (2, 1)
        assert budgets["eps_inf_effective"] == pytest.approx(2, abs=1e-8)
        assert budgets["eps_1_effective"] == pytest.approx(1, abs=1e-8)
        for loss in (row["loss"]["static"]["max"], row["loss"]["memo"]["mean"]):
            assert loss == pytest.approx(l_osue_loss(t))
    assert round(l_osue_loss(2), 5) == 1.64166

    assert RunFolder(Path("run")).get_json(STATUS) == {"state": "done", "step": 3, "steps": 3, "message": None}
    environment = RunFolder(Path("run")).get_json(ENVIRONMENT)
    assert environment is not None
    assert {"clearn", "numpy", "scipy", "safetensors", "python", "platform", "command", "started"} <= environment.keys()
    assert (environment["seed"], environment["device"], environment["engine"]) == (0, "cpu", "aggregate")
    assert "binomial draws" in environment["engine_why"]
    assert environment["data"]["users"] == N and environment["data"]["attributes"] == {"city": 3, "job": 5}
    assert len(environment["data"]["checksums"]["people.csv"]) == 64
    config = yaml.safe_load(Path("run/config.yaml").read_text())
    assert list(config) == ["name", "stream", "protocol", "budget", "runner", "seed"]
    assert config["protocol"]["of"] == "l_osue" and config["runner"]["memo"] == "table"
    assert (Path("run") / "report.html").read_text().startswith("<!")


def test_the_bytes_of_the_arrays_are_the_ledgers_total(works: Any) -> None:
    for engine in ("aggregate", "per_user"):
        works("run", "small.yaml", f"out={engine}", f"runner.engine={engine}", "stream.file=people.csv", SMP)
        folder = RunFolder(Path(engine), "numpy")
        for row in figures(engine):
            held = folder.read_state(row["step"]).frozen.tensors
            parts = [r for r in folder.rows(LEDGER) if r["kind"] == "bytes" and r["step"] == row["step"]]
            file = folder.state_path(row["step"]).read_bytes()
            assert row["total"] == sum(part["bytes"] for part in parts) == sum(a.nbytes for a in held.values())
            assert len(file) == row["total"] + row["framing"]
            owners = {(part["owner"], part["category"]) for part in parts}
            index = {("client", "index")} if engine == "per_user" else set()
            assert owners == {("client", "memo"), ("client", "meta"), ("server", "counts")} | index


# --- engines and repeats


@pytest.mark.parametrize("engine", ["aggregate", "per_user"])
def test_the_engine_is_named_in_every_row_and_rounds_are_not_alike(engine: str, works: Any) -> None:
    works("run", "small.yaml", "out=run", f"runner.engine={engine}", "runner.repeats=3")
    assert {row["engine"] for row in scores("run") + figures("run")} == {engine}
    errors = [error for row in scores("run") for error in row["se"]["none"]]
    assert len(set(errors)) == 3 * ROUNDS, "repeats and rounds have randomness of their own"
    environment = RunFolder(Path("run")).get_json(ENVIRONMENT)
    assert environment is not None and environment["engine_why"] == "asked for"


def test_a_repeat_more_changes_none_of_the_others(works: Any) -> None:
    works("run", "small.yaml", "out=two", "runner.repeats=2")
    works("run", "small.yaml", "out=three", "runner.repeats=3")
    for two, three in zip(scores("two"), scores("three"), strict=True):
        assert three["se"]["none"][:2] == two["se"]["none"]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(works: Any) -> None:
    for out, seed in (("a", 4), ("b", 4), ("c", 5)):
        works("run", "small.yaml", f"out={out}", f"seed={seed}")
    assert hashes("a") == hashes("b") and scores("a") == scores("b")
    assert not set(hashes("a")) & set(hashes("c"))


@pytest.mark.parametrize("engine", ["aggregate", "per_user"])
@pytest.mark.parametrize("stream", ["stream.file=value.csv", WEEKS], ids=["static", "changing"])
def test_without_the_rebuild_it_is_the_same_run(engine: str, stream: str, works: Any) -> None:
    for out, rebuild in (("rebuilt", "true"), ("kept", "false")):
        works("run", "small.yaml", f"out={out}", f"runner.rebuild={rebuild}", f"runner.engine={engine}", stream)
    assert hashes("rebuilt") == hashes("kept")
    assert scores("rebuilt") == scores("kept")
    assert {row["rebuilt"] for row in figures("rebuilt")} == {True}
    assert {row["rebuilt"] for row in figures("kept")} == {False}


# --- what devices keep


@pytest.mark.parametrize(
    ("protocol", "memo", "bits"),
    [
        ("{name: l_osue, eps_inf: 2}", "table", 5 + 5),  # a row of 5 bits, and which of the 5 values it is for
        ("{name: l_grr, eps_inf: 2}", "table", 3 + 5),
        ("{name: bi_loloha, eps_inf: 2}", "table", 1 + 2),
        ("{name: d_bit_flip_pm, eps_inf: 2}", "table", 5 + 6),
        ("{name: oue, eps: 1}", "table", 0),
        ("{name: l_osue, eps_inf: 2}", "prf", 256),
        ("{name: bi_loloha, eps_inf: 2}", "prf", 256),
        ("{name: oue, eps: 1}", "prf", 0),
    ],
)
def test_the_memory_of_a_device_is_measured_and_equals_the_formula(
    protocol: str, memo: str, bits: int, works: Any
) -> None:
    works("run", "small.yaml", "out=run", f"protocol={protocol}", f"runner.memo={memo}", "runner.engine=per_user")
    for row in figures("run"):
        client = row["client"]
        assert (client["now_mean"], client["measured_mean"], client["measured_max"]) == (bits, bits, bits)
        assert client["worst"] >= bits


def test_values_that_change_cost_memo_and_privacy_user_by_user(works: Any) -> None:
    works("run", "small.yaml", "out=run", WEEKS, "runner.engine=per_user")
    held = weeks()
    for t, row in enumerate(figures("run"), 1):
        distinct = np.array([len(set(values[:t])) for values in held.tolist()])
        assert row["distinct_mean"] == pytest.approx(distinct.mean())
        assert row["client"]["measured_mean"] == pytest.approx((5 + 5 * distinct).mean())
        assert row["client"]["measured_max"] == 5 + 5 * distinct.max()
        assert row["client"]["now_mean"] == pytest.approx(row["client"]["measured_mean"])
        loss = row["loss"]
        assert loss["literature"] == pytest.approx({"mean": 2 * distinct.mean(), "max": 2 * distinct.max()})
        assert loss["static"]["max"] <= loss["memo"]["max"] <= loss["literature"]["max"]
        longest = max(values[:t].count(v) for values in held.tolist() for v in values)
        assert loss["static"]["max"] == pytest.approx(l_osue_loss(longest))
    assert figures("run")[-1]["loss"]["memo"]["mean"] > 2, "more than eps_inf, since values change"
    assert all(row["running"] is None and row["expected_running"] is None for row in scores("run"))
    for t, row in enumerate(scores("run")):
        f = np.bincount(held[:, t], minlength=5) / N
        assert row["uniform"] == pytest.approx(np.mean((f - 0.2) ** 2))


@pytest.mark.parametrize("protocol", ["l_grr", "l_osue", "l_sue"])
def test_both_engines_cost_and_lose_the_same_where_values_change(protocol: str, works: Any) -> None:
    for engine in ("aggregate", "per_user"):
        works("run", "small.yaml", f"out={engine}", f"runner.engine={engine}", f"protocol={protocol}", WEEKS)
    for one, other in zip(figures("aggregate"), figures("per_user"), strict=True):
        for same in ("loss", "distinct_mean", "setup_bits", "round_bits", "budgets"):
            assert one[same] == pytest.approx(other[same]) if same != "loss" else one[same] == other[same]
        assert one["client"]["now_mean"] == pytest.approx(other["client"]["measured_mean"])
        assert one["client"]["measured_mean"] is None
        assert one["exactness"] == other["exactness"] == "joint"
    assert [r["expected"] for r in scores("aggregate")] == pytest.approx([r["expected"] for r in scores("per_user")])


@pytest.mark.parametrize(
    ("protocol", "why"), [("loloha", "share what was drawn once"), ("{name: d_bit_flip_pm, sampled: 2}", "no law")]
)
def test_hashes_and_buckets_of_users_who_change_go_per_user(protocol: str, why: str, works: Any) -> None:
    works("run", "small.yaml", "out=run", WEEKS, f"protocol={protocol}", "runner.repeats=1")
    assert {row["engine"] for row in scores("run") + figures("run")} == {"per_user"}
    environment = RunFolder(Path("run")).get_json(ENVIRONMENT)
    assert environment is not None and why in environment["engine_why"]


# --- several attributes


@pytest.mark.parametrize("engine", ["aggregate", "per_user"])
@pytest.mark.parametrize(
    ("protocol", "everyone", "spent"),
    [
        ("{name: spl, of: l_grr, eps_inf: 2, alpha: 0.5}", True, 1.0),
        ("{name: rs_fd, of: sue, eps: 1}", True, WHOLE),
        ("{name: rs_rfd, of: grr, eps: 1}", True, WHOLE),
        ("{name: allomfree, eps_inf: 2, alpha: 0.5}", False, 1.0),
        ("{name: auto, eps_inf: 2, alpha: 0.5}", False, 1.0),
    ],
    ids=lambda part: part.split(",")[0].removeprefix("{name: ") if isinstance(part, str) else None,
)
def test_solutions_for_several_attributes(protocol: str, everyone: bool, spent: float, engine: str, works: Any) -> None:
    works("run", "small.yaml", "out=run", "stream.file=people.csv", f"protocol={protocol}", f"runner.engine={engine}")
    for row in scores("run"):
        assert all(n == N for n in row["n"]) if everyone else sum(row["n"]) < 2 * N
        assert row["expected"] > 0
    assert figures("run")[0]["budgets"]["eps_1_effective"] == pytest.approx(spent, abs=1e-5)


def test_by_chance_nobody_answers_an_attribute(whole: Any) -> None:
    """Two users and two attributes: where both answer one, the other has no estimate, and that is said."""
    said = whole("run", "small.yaml", "out=run", "stream.file=people.csv", SMP, "stream.rows=2", "runner.repeats=8")
    rows = scores("run")
    empty = [n == 0 for n in rows[0]["n"]]
    assert any(empty) and not all(empty)
    for row in rows:
        for name in POSTS:
            assert [error is None for error in row["se"][name]] == [n == 0 for n in row["n"]]
        assert row["expected"] is not None and np.isfinite(row["expected"])
    assert f"'city' has no estimate in {sum(empty)} of 8 repeats, where nobody answers it" in said


def test_of_too_few_users_there_may_be_no_estimate_at_all(whole: Any) -> None:
    """Of three users with one bucket each out of five, two buckets at least have nobody."""
    said = whole("run", "small.yaml", "out=run", "stream.rows=3", "protocol={name: d_bit_flip_pm, sampled: 1}")
    assert "'v' has no estimate in 2 of 2 repeats" in said
    assert "round 3/3 · MSE – (guessing uniform" in said
    assert {error for row in scores("run") for name in POSTS for error in row["se"][name]} == {None}
    assert "report.html" in whole("report", "run", "--html", "report.html")


# --- folders and grids


def test_a_folder_is_named_by_the_config_and_by_nothing_else(works: Any) -> None:
    works("run", "small.yaml")
    (first,) = Path("runs").iterdir()
    assert first.name.startswith("small-")
    assert "is finished already" in works("run", "small.yaml")
    works("run", "small.yaml", "protocol.eps_inf=1")
    assert len(list(Path("runs").iterdir())) == 2
    Path("small.yaml").write_text(Path("small.yaml").read_text() + "out: mine\n")
    works("run", "small.yaml")
    assert hashes("mine") == hashes(str(first))


def test_a_grid_over_whole_protocols(whole: Any) -> None:
    grid = "grid={protocol: [{name: smp, of: l_osue}, {name: smp, of: l_grr}, {name: allomfree}], seed: [0, 1]}"
    said = whole("run", "small.yaml", "out=grid", "stream.file=people.csv", grid)
    labels = ["protocol=smp of=l_osue", "protocol=smp of=l_grr", "protocol=allomfree"]
    cells = [f"{label} seed={seed}" for label in labels for seed in (0, 1)]
    assert [line.partition(" ")[2] for line in said.splitlines() if line.partition(" ")[0] in NUMBERS] == cells
    folders = sorted(path.name.rpartition("-")[0] for path in Path("grid").iterdir() if path.is_dir())
    assert folders == sorted(cell.removeprefix("protocol=").replace(" ", "-") for cell in cells)
    page = Path("grid/report.html").read_text()
    assert "allomfree" in page and "l_osue" in page
    assert whole("resume", "grid").count("is finished already") == 6


NUMBERS = {f"{number}/6" for number in range(1, 7)}


def test_a_cell_that_cannot_be_made_does_not_hide_the_others(works: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from clearn import cli

    words = ["run", "small.yaml", "out=grid", "protocol=l_oue", "grid={protocol.alpha: [0.5, 0.95]}"]
    assert cli.main(words) == 1
    captured = capsys.readouterr()
    assert "failed: protocol l_oue: eps_1=1.9 is too near eps_inf=2" in captured.out
    assert "1 of 2 runs failed" in captured.out
    assert len(list(Path("grid").rglob(STATUS))) == 1
    words[-1] = "grid={protocol.alpha: [0.95, 0.96]}"
    assert cli.main([*words, "out=none"]) == 1
    said = capsys.readouterr().out
    assert "all 2 runs failed:\n  protocol.alpha=0.95: protocol l_oue: eps_1=1.9" in said


# --- from Python, and without torch


def test_arrays_of_ones_own_need_no_file(here: Path) -> None:
    values = np.random.default_rng(0).integers(0, 4, (300, 2), np.uint8)
    path = clearn.collect(values, "allomfree", out="run", rounds=2, runner={"repeats": 2}, progress=False, eps_inf=2.0)
    rows = scores(str(path))
    assert [(row["step"], row["k"]) for row in rows] == [(1, 4), (1, 4), (2, 4), (2, 4)]
    clearn.collect(values, "allomfree", out="run", rounds=2, runner={"repeats": 2}, progress=False, eps_inf=2.0)
    assert scores(str(path)) == rows
    with pytest.raises(ValueError, match="run holds a run of another config; it differs in"):
        clearn.collect(values[::-1], "allomfree", out="run", rounds=3, progress=False, eps_inf=2.0)


HEAVY = ("torch", "lightning", "torchvision", "sklearn", "timm", "scipy.stats")


def test_no_command_about_collections_loads_torch(here: Path) -> None:
    code = f"""
import sys
from clearn import cli
for words in (
    ["run", "small.yaml", "out=run"], ["run", "small.yaml", "out=changing", {WEEKS!r}, "protocol=loloha"],
    ["resume", "run"], ["show", "run"], ["show", "small.yaml"], ["show", "allomfree"],
    ["report", "run", "--html", "page.html", "--markdown", "page.md", "--csv", "table.csv"], ["list"],
    ["check", "l_osue"], ["audit", "grr", "--trials", "1000"],
):
    assert cli.main(words) == 0, words
    found = [name for name in {HEAVY!r} if name in sys.modules]
    assert not found, (words, found)
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "l_osue: conforms" in done.stdout and "Clopper-Pearson" in done.stdout
    assert json.loads(Path("run/status.json").read_text())["state"] == "done"
