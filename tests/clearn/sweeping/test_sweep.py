"""A sweep runs what is left, tells what failed, survives its own death, and never runs anything twice."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from clearn import cli
from clearn.folder import STATUS, RunFolder
from clearn.locks import is_held
from clearn.sweeping.locks import alone
from clearn.sweeping.planning import plan
from clearn.sweeping.processes import started

from .conftest import LONG, Spawn, until

LONG_WORDS = ("sweep", "small.yaml", "out=runs", f"stream.rounds={LONG}")


def run_folders(path: str) -> dict[str, Path]:
    return {one.parent.name: one.parent for one in sorted(Path(path).glob("*/config.yaml"))}


def states(path: str) -> dict[str, dict[str, bytes]]:
    return {
        name: {one.name: one.read_bytes() for one in sorted(folder.glob("state/*"))}
        for name, folder in run_folders(path).items()
    }


def records(path: str) -> dict[str, dict[str, Any]]:
    found = Path(path).glob("jobs/*[!t].json")
    return {one.stem: json.loads(one.read_text()) for one in found if not one.name.endswith(".result.json")}


def sweep(*words: str) -> int:
    return cli.main(["sweep", "small.yaml", "--workers", "2", *words])


# --- what is run


def test_workers_leave_the_bytes_of_a_grid_run_in_one_process(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "small.yaml", "out=alone"]) == 0
    capsys.readouterr()
    assert sweep("out=workers") == 0
    said = capsys.readouterr().out
    assert "4 runs into workers, by 2 workers" in said
    assert "4/4 done" in said
    assert states("workers") == states("alone")
    assert len(states("workers")) == 4
    assert "l_osue" in Path("workers/report.html").read_text()


def test_what_is_finished_is_never_run_again(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep("out=runs", "grid.seed=[0]") == 0
    written = {name: folder.stat().st_mtime_ns for name, folder in run_folders("runs").items()}
    capsys.readouterr()
    other = "grid=[{protocol.name: [l_grr, l_osue], seed: [0, 1], protocol.eps_inf: 2.0}]"
    assert sweep("out=runs", "grid=null") == 2
    assert sweep("out=runs", other) == 0
    assert "2 finished before, 2 to run" in capsys.readouterr().out
    assert len(run_folders("runs")) == 4
    assert all(run_folders("runs")[name].stat().st_mtime_ns == when for name, when in written.items())
    assert cli.main(["sweep", "runs"]) == 0
    assert "4 finished before, 0 to run" in capsys.readouterr().out
    assert cli.main(["resume", "runs"]) == 0
    assert capsys.readouterr().out.count("is finished already") == 4


def test_a_list_of_grids_runs_one_after_the_other_and_repeats_nothing(here: Path) -> None:
    listed = "grid=[{protocol: l_grr, seed: [0, 1]}, {protocol: {name: l_osue, alpha: 0.4}}, {protocol: l_grr}]"
    jobs = plan("small.yaml", [listed]).jobs
    assert [job.label for job in jobs] == [
        "protocol=l_grr seed=0",
        "protocol=l_grr seed=1",
        "protocol.name=l_osue protocol.alpha=0.4",
    ]


@pytest.mark.parametrize(
    ("words", "labels"),
    [
        (["seed=1"], ["protocol.name=l_grr seed=1", "protocol.name=l_osue seed=1"]),
        (["protocol=l_osue", "seed=0"], ["protocol.name=l_osue seed=0"]),
        (["grid=[{protocol: l_grr, seed: [0, 1]}, {protocol: {name: l_osue, alpha: 0.4}}]", "seed=1"], None),
    ],
)
def test_an_option_that_the_grid_has_picks_cells(words: list[str], labels: list[str] | None, here: Path) -> None:
    found = [job.label for job in plan("small.yaml", words).jobs]
    # the second entry of the list says nothing of seeds, so the option is its own
    assert found == (labels or ["protocol=l_grr seed=1", "protocol.name=l_osue protocol.alpha=0.4"])


def test_what_is_picked_is_the_sweep_unless_its_folder_has_more(here: Path) -> None:
    assert sweep("out=some", "seed=1") == 0
    assert len(plan("some").jobs) == len(run_folders("some")) == 2
    assert sweep("out=all", "protocol.name=l_grr", "seed=1") == 0
    assert cli.main(["sweep", "small.yaml", "out=all"]) == 0
    assert cli.main(["sweep", "all", "seed=0"]) == 0
    assert len(plan("all").jobs) == len(run_folders("all")) == 4


def test_a_cell_says_the_same_on_every_machine(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from clearn.sweeping.naming import anywhere, digest

    def resolved(accelerator: str, threads: int) -> dict[str, Any]:
        return {"seed": 0, "trainer": {"accelerator": accelerator, "threads": threads, "block": 16}}

    auto = {"trainer": {"accelerator": "auto"}}
    fixed = {"trainer": {"accelerator": "cpu", "threads": 4}}
    assert digest(anywhere(resolved("cpu", 2), auto)) == digest(anywhere(resolved("gpu", 64), auto))
    assert digest(anywhere(resolved("cpu", 4), fixed)) == digest(resolved("cpu", 4))


# --- what goes wrong


def test_failed_cells_are_told_at_the_end_and_do_not_hide_the_rest(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("out=runs", "protocol=l_oue", "grid=[{protocol.alpha: [0.5, 0.95]}]")
    assert sweep(*words) == 1
    said = capsys.readouterr().out
    assert "l_oue" in said[said.index("2/2") :], "the table of what is finished"
    assert "1 of 2 runs failed:\n  protocol.alpha=0.95: protocol l_oue: eps_1=1.9 is too near eps_inf=2" in said
    assert "(log: runs/jobs/protocol.alpha=0.95-" in said
    assert Path("runs/report.html").exists()
    assert sweep(*words[:2], "grid=[{protocol.alpha: [0.95, 0.96]}]") == 1, "one that always fails"
    assert "all 2 runs failed:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ("grid=null", "small.yaml has an empty grid, so there is nothing to sweep: write e.g. grid: {seed: [0, 1, 2]}"),
        ("grid=[]", "has an empty grid"),
        ("grid={seed: []}", "grid.seed=[] must be a list with at least one value"),
        ("grid=[{seed: [0]}, 3]", "grid[1]=3 must name at least one option"),
        ("grid=[{seed: [0]}, {seed: []}]", "grid[1].seed=[] must be a list with at least one value"),
        ("seed=7", "seed=7 picks nothing out of the grid, which has seed of 0, 1: take one of these, or write"),
        ("sweep.workers=0", "workers=0 must be at least 1"),
        ("sweep.worker=2", "sweep.worker: got 2, but there is no such option; did you mean 'workers'?"),
        ("sweep.slurm.minutes=soon", "sweep.slurm.minutes: got 'soon', must be an int"),
        ("sweep.slurm.memory_gb=0", "memory_gb=0 must be above 0"),
    ],
)
def test_bad_input_is_one_message(grid: str, said: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep("out=runs", grid) == 2
    assert said in capsys.readouterr().err
    assert not Path("runs").exists()


def test_all_wrong_cells_are_told_before_anything_starts(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep("out=runs", "grid={protocol.name: [l_grr, l_gr], seed: [0, x]}") == 2
    said = capsys.readouterr().err
    assert "3 of 4 cells cannot be run, and none was started:" in said
    assert "protocol.name=l_grr seed=x: " in said
    assert "seed: got 'x', must be an int" in said
    assert "protocol.name=l_gr seed=0 and 1 more: " in said or "protocol 'l_gr' is unknown" in said
    assert not Path("runs").exists()


def test_a_worker_that_is_killed_is_told_and_run_again(
    here: Path, spawn: Spawn, capsys: pytest.CaptureFixture[str]
) -> None:
    first = spawn(*LONG_WORDS, "--workers", "1", "grid=[{seed: [0]}]")
    (record,) = until(lambda: records("runs").values() if records("runs") else None)
    until(lambda: list(Path("runs").glob("*/state/0002.safetensors")))
    os.kill(record["id"], signal.SIGKILL)
    said, _ = first.communicate(timeout=120)
    assert first.returncode == 1
    assert "killed by SIGKILL from outside" in said or "killed for memory" in said
    assert sweep("out=runs", "stream.rounds=400", "grid=[{seed: [0]}]") == 0
    assert "goes on after task" in next(Path("runs/jobs").glob("*.log")).read_text()


# --- one sweep a folder, and what becomes of its runs when it dies


def test_a_second_sweep_is_refused_and_a_dead_one_holds_nothing(
    here: Path, spawn: Spawn, capsys: pytest.CaptureFixture[str]
) -> None:
    first = spawn(*LONG_WORDS, "--workers", "1", "grid=[{seed: [0]}]")
    until(lambda: records("runs"))
    assert sweep("out=runs") == 2
    said = capsys.readouterr().err
    assert f"another sweep runs into runs (process {first.pid} on " in said
    assert "choose another folder with out=FOLDER" in said
    assert cli.main(["run", "small.yaml", "out=runs"]) == 2
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=60)
    with alone(Path("runs")):
        assert is_held(Path("runs/sweep.lock"))
    assert not is_held(Path("runs/sweep.lock"))


def test_a_killed_sweep_s_runs_are_taken_over_and_started_once(here: Path, spawn: Spawn) -> None:
    words = (*LONG_WORDS, "--workers", "2", "grid=[{seed: [0, 1, 2]}]")
    first = spawn(*words)
    before = until(lambda: len(found := records("runs")) == 2 and found)
    until(lambda: len(run_folders("runs")) == 2)
    first.kill()
    first.wait()
    assert all(started(record["id"]) == record["started"] for record in before.values()), "they live on"
    second = spawn(*words)
    said, _ = second.communicate(timeout=280)
    assert second.returncode == 0, said
    for record in before.values():
        assert f"(process {record['id']})" in said
    assert "2 running still, 1 to run" in said
    after = records("runs")
    assert {name: after[name] for name in before} == before, "nothing was started in their place"
    assert len(after) == 3
    logs = [one.read_text() for one in Path("runs/jobs").glob("*.log")]
    assert len(logs) == 3
    assert not any("goes on after" in log for log in logs), "none was begun twice"


def test_ctrl_c_stops_what_runs_and_leaves_what_goes_on(here: Path, spawn: Spawn) -> None:
    process = spawn(*LONG_WORDS, "--workers", "2")
    until(lambda: len([one for one in run_folders("runs").values() if (one / STATUS).exists()]) == 2)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopping 2 runs" in said
    assert "stopped by SIGINT: every finished task is safe; go on with\n  clearn sweep runs" in said
    assert not any(started(record["id"]) == record["started"] for record in records("runs").values())
    for folder in run_folders("runs").values():
        status = RunFolder(folder).get_json(STATUS)
        assert status is not None
        assert status["state"] == "stopped"


@pytest.mark.slow
def test_learning_runs_in_workers_and_its_curve_is_printed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "strategy.first.epochs=1",
        "strategy.later.epochs=1",
        "grid.seed=[0]",
        "grid.strategy.name=[replay, icarl]",
    ]
    small = ["stream.per_class_train=20", "stream.per_class_test=10", "grid.budget.bytes=[80KiB, 100KiB]"]
    assert cli.main(["sweep", "sweeps/budget_curve_digits", "--workers", "2", "out=runs", *words, *small]) == 0
    said = capsys.readouterr().out
    assert "accuracy " in said
    assert len(run_folders("runs")) == 4
    assert cli.main(["report", "runs", "--curve"]) == 0
    said = capsys.readouterr().out
    assert "AUC-A" in said
    assert "icarl" in said
