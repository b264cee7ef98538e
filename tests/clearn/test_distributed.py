"""Two processes that torchrun starts end where one ends: the same scores and exemplars, weights within float error."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from clearn import cli
from clearn.config import load
from clearn.errors import ConfigError, UserError
from clearn.experiment import bind
from clearn.folder import LEDGER, SCORES, RunFolder
from clearn.launch import Process, check_started, launched, this_process
from clearn.options import TrainerOptions
from clearn.runner import run
from clearn.shares import frozen, share

torch.set_num_threads(1)

ROOT = Path(__file__).parents[2]
TWO = ["trainer.devices=2", "trainer.strategy=ddp"]
BASE = """
name: tiny
stream: {name: class_incremental, data: digits, increment: [5, 5], per_class_train: 20, per_class_test: 10}
strategy:
  name: finetune
  backbone: mlp
  first: {epochs: 2, lr: 0.05, batch_size: 13, weight_decay: 1e-2}
  later: {epochs: 2, lr: 0.05, batch_size: 13, weight_decay: 1e-2}
trainer: {threads: 1, accelerator: cpu}
"""
# 100 samples in batches of 13 leave a last batch of 9: shares of unequal weight, as in every other batch. In batches of
# 33 they leave one of 1, of which the second process has no share.
CASES: dict[str, list[str]] = {
    "finetune": [],
    "no_share": ["strategy.first.batch_size=33", "strategy.later.batch_size=33"],
    "replay": [
        "strategy=replay",
        "strategy.memory.total=16",
        "strategy.stored_per_step=5",
        "stream.augment={crop: 1, brightness: 0.3}",
        "strategy.later.optimizer=adamw",
    ],
    "icarl": ["strategy=icarl", "strategy.memory={total: 16, selection: herding}"],
    "ewc": ["strategy=ewc"],
    "der_expand": ["strategy=der_expand", "strategy.memory.total=16"],
    "wa": ["strategy=wa", "strategy.memory.total=16"],
    "batch_norm": ["strategy.backbone=convnet2"],
    "bfloat16": ["strategy=replay", "strategy.memory.total=16", "trainer.precision=bf16-mixed"],
}
APART = ("batch_norm", "bfloat16")  # ranks agree, which the engine checks; one process rounds or normalises otherwise
EQUAL = [name for name in CASES if name not in APART]

BY_ALL = """
import json, sys
from pathlib import Path
import torch
from clearn.config import load
from clearn.launch import this_process
from clearn.errors import UserError
from clearn.experiment import bind
from clearn.progress import Progress
from clearn.runner import run
from strategies.finetune import Finetune

class Heard(Progress):
    def note(self, text):
        said.append(text)

class Apart(Finetune):
    def finish(self, task, ctx):
        pass
    def learn(self, task, ctx):
        super().learn(task, ctx)
        with torch.no_grad():
            self.net.head.bias += this_process().rank

rank, cases, found = this_process().rank, json.loads(sys.argv[1]), {}
for name, overrides in cases.items():
    said = []
    run(bind(load("base.yaml", overrides)), Path("two") / name, Heard())
    found[name] = said
try:
    from dataclasses import replace
    experiment = bind(load("base.yaml", cases["finetune"]))
    inputs = experiment.stream.inputs
    run(replace(experiment, make=lambda: Apart(inputs, backbone="mlp")), Path("two") / "apart")
except UserError as error:
    found["apart"] = str(error)
try:
    run(bind(load("base.yaml", [*cases["finetune"], f"seed={rank}"])), Path("two") / "odd")
except UserError as error:
    found["odd"] = str(error)
Path(f"rank{rank}.json").write_text(json.dumps(found))
"""


@contextmanager
def torchrun(words: list[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Start two processes of a program, on a free port; none is left behind."""
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        line, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as agent:
        try:
            yield agent
        finally:
            if agent.poll() is None:
                agent.terminate()  # it ends the others


def states(path: Path) -> list[dict[str, Tensor]]:
    found = sorted((path / "state").glob("*.safetensors"))
    assert found, f"no states in {path}"
    return [load_file(one) for one in found]


def scores(path: Path) -> list[dict[str, Any]]:
    return RunFolder(path).rows(SCORES)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders one/CASE and two/CASE, and what either rank of the two found: rank0.json, rank1.json."""
    folder = tmp_path_factory.mktemp("both")
    (folder / "base.yaml").write_text(BASE)
    (folder / "all.py").write_text(BY_ALL)
    with torchrun(["all.py", json.dumps({k: [*v, *TWO] for k, v in CASES.items()})], folder) as together:
        for name in EQUAL:
            run(bind(load(str(folder / "base.yaml"), CASES[name])), folder / "one" / name)
        said, _ = together.communicate(timeout=280)
    assert together.returncode == 0, said
    return folder


@pytest.mark.parametrize("name", EQUAL)
def test_two_processes_end_where_one_ends(name: str, both: Path) -> None:
    one, two = states(both / "one" / name), states(both / "two" / name)
    assert len(one) == len(two) == 2
    for mine, theirs in zip(one, two, strict=True):
        assert mine.keys() == theirs.keys()
        for key in mine:
            if key.startswith("memory/"):
                assert torch.equal(mine[key], theirs[key]), f"other exemplars: {key}"
            else:
                torch.testing.assert_close(theirs[key], mine[key], atol=1e-5, rtol=1e-5, msg=key)
    assert scores(both / "one" / name) == scores(both / "two" / name)


def test_training_moved_the_weights_far_beyond_the_tolerance(both: Path) -> None:
    """Otherwise the comparison above would hold for anything."""
    for name in EQUAL:
        first, last = states(both / "two" / name)
        moved = [
            last[key][tuple(slice(n) for n in before.shape)] - before  # a head grows
            for key, before in first.items()
            if key.startswith("model/")
        ]
        assert max(float(one.abs().max()) for one in moved) > 1e-2, name


@pytest.mark.parametrize("name", CASES)
def test_there_is_one_folder_one_ledger_and_no_row_twice(name: str, both: Path) -> None:
    path = both / "two" / name
    rows = RunFolder(path).rows(LEDGER)
    assert [row["step"] for row in rows if row["kind"] == "figures"] == [1, 2]
    keys = [(row["step"], row.get("owner"), row.get("category")) for row in rows]
    assert len(keys) == len(set(keys))
    assert RunFolder(path).get_json("status.json") == {"state": "done", "step": 2, "steps": 2, "message": None}
    assert RunFolder(path).get_json("environment.json")["processes"] == 2  # type: ignore[index]


def test_steps_and_samples_are_those_of_one_process(both: Path) -> None:
    for name in EQUAL:
        counts = [
            [
                (row["optimizer_steps"], row["samples"])
                for row in RunFolder(both / who / name).rows(LEDGER)
                if "samples" in row
            ]
            for who in ("one", "two")
        ]
        assert counts[0] == counts[1]
        assert counts[0][0][0] > 0


def test_only_the_first_rank_speaks_and_says_what_batch_norm_means_there(both: Path) -> None:
    mine, theirs = (json.loads((both / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert all(theirs[name] == [] for name in CASES)
    assert [name for name in CASES if any("BatchNorm" in text for text in mine[name])] == ["batch_norm"]


def test_ranks_that_carry_something_else_are_an_error_on_both_and_leave_no_state(both: Path) -> None:
    mine, theirs = (json.loads((both / f"rank{rank}.json").read_text())["apart"] for rank in (0, 1))
    assert mine == theirs
    assert "after step 1 rank 1 carries something else than rank 0 in 1 entries, first 'model/net.head.bias'" in mine
    assert not list((both / "two" / "apart" / "state").iterdir())
    assert RunFolder(both / "two" / "apart").get_json("status.json")["state"] == "failed"  # type: ignore[index]


def test_ranks_with_another_config_are_refused_before_anything_is_written(both: Path) -> None:
    mine, theirs = (json.loads((both / f"rank{rank}.json").read_text())["odd"] for rank in (0, 1))
    assert mine == theirs
    assert mine.startswith("rank 1 has seed=1 where rank 0 has 0: every process must be given the same config")
    assert not (both / "two" / "odd").exists()


# --- a process that dies


def workers(agent: int) -> list[int]:
    """Processes that torchrun started, in order of ranks."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            variables = dict(part.split(b"=", 1) for part in path.read_bytes().split(b"\0") if b"=" in part)
            parent = int((path.parent / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if parent == agent and b"LOCAL_RANK" in variables:
            found[int(variables[b"LOCAL_RANK"])] = int(path.parent.name)
    return [found[rank] for rank in sorted(found)]


def wait(agent: subprocess.Popen[str], what: Callable[[], bool]) -> None:
    until = time.monotonic() + 300
    while not what():
        assert agent.poll() is None, agent.communicate()[0]
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("stop", ["SIGKILL of a rank", "SIGINT"])
def test_what_is_stopped_ends_as_a_whole_and_goes_on_under_torchrun(stop: str, tmp_path: Path) -> None:
    longer = ["stream.increment=[2, 2, 3, 3]", "strategy=replay", "strategy.memory.total=16"]
    longer.append("strategy.later.epochs=40")
    (tmp_path / "base.yaml").write_text(BASE)
    run(bind(load(str(tmp_path / "base.yaml"), longer)), tmp_path / "one")

    with torchrun(["-m", "clearn", "run", "base.yaml", *longer, *TWO, "out=two"], tmp_path) as begun:
        wait(begun, lambda: (tmp_path / "two/state/0002.safetensors.sha256").exists())
        if stop == "SIGINT":
            begun.send_signal(signal.SIGINT)
        else:
            os.kill(workers(begun.pid)[1], signal.SIGKILL)
        said, _ = begun.communicate(timeout=90)
    assert begun.returncode != 0
    status = RunFolder(tmp_path / "two").get_json("status.json")
    assert status is not None
    assert status["state"] != "done"
    whole, _ = RunFolder(tmp_path / "two").newest()
    assert whole is not None
    if stop == "SIGINT":
        assert status["state"] == "stopped", said
        assert said.count("go on with\n  torchrun --standalone --nproc-per-node 2 -m clearn resume two") == 1, said

    with torchrun(["-m", "clearn", "resume", "two"], tmp_path) as resumed:
        said, _ = resumed.communicate(timeout=400)
    assert resumed.returncode == 0, said
    kept = [whole.step - 1, whole.step]  # a step whose rows were not written yet is repeated
    assert sum(said.count(f"goes on after task {step} of 4") for step in kept) == 1, said
    assert said.count("tiny: task 4/4") == 1, said
    assert said.count("report two/report.html") == 1, said
    assert "Warning" not in said, said
    assert scores(tmp_path / "one") == scores(tmp_path / "two")
    for mine, theirs in zip(states(tmp_path / "one"), states(tmp_path / "two"), strict=True):
        torch.testing.assert_close(theirs, mine, atol=1e-4, rtol=1e-4)


# --- the arithmetic of shares


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("n", [1, 2, 4, 7, 16])
def test_shares_are_all_of_a_batch_and_their_means_weigh_what_they_should(n: int, count: int) -> None:
    values = torch.arange(1.0, n + 1, dtype=torch.float64)
    dealt = [share(n, rank, count) for rank in range(count)]
    rows = sorted(row for part, weight in dealt if weight for row in values[part].tolist())
    assert rows == values.tolist()
    assert all(len(values[part]) for part, _ in dealt), "a rank would meet an empty batch"
    mean = sum(weight * values[part].mean() for part, weight in dealt)
    torch.testing.assert_close(mean, values.mean())


def test_each_rank_gets_as_many_new_samples_as_stored_ones() -> None:
    batch = torch.tensor([0] * 8 + [1] * 4)  # new ones first, as replay puts them together
    for rank in range(4):
        assert batch[share(12, rank, 4)[0]].tolist() == [0, 0, 1]


def test_networks_beside_ask_for_no_gradient_meanwhile_and_for_what_they_did_afterwards() -> None:
    shared = nn.Linear(2, 2)
    beside, trained = nn.Sequential(nn.Linear(2, 2), shared), nn.Sequential(shared)
    beside[0].bias.requires_grad_(False)
    with frozen([beside], trained):
        assert [p.requires_grad for p in beside.parameters()] == [False, False, True, True]
    assert [p.requires_grad for p in beside.parameters()] == [True, False, True, True]


# --- what is refused before training


def test_two_devices_without_torchrun_give_the_line_that_starts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text(BASE)
    words = ["run", "base.yaml", "trainer.devices=2", "out=run"]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/clearn", *words])
    assert cli.main(words) == 2
    assert capsys.readouterr().err == (
        "clearn: trainer.devices=2 on num_nodes=1 makes 2 processes, but this one was started alone: start them with\n"
        "  torchrun --standalone --nproc-per-node 2 -m clearn run base.yaml trainer.devices=2 out=run\n"
    )
    assert not (tmp_path / "run").exists()


def test_the_line_of_several_nodes_names_a_meeting_point() -> None:
    assert launched(TrainerOptions(devices=4, num_nodes=2), ["my.py"]) == (
        "torchrun --nnodes 2 --rdzv-backend c10d --rdzv-endpoint HOST:29500 --nproc-per-node 4 my.py"
    )
    assert launched(TrainerOptions(), ["-m", "clearn", "resume", "a b"]) == "clearn resume 'a b'"


def started(monkeypatch: pytest.MonkeyPatch, count: int, per_node: int | None = None, rank: int = 0) -> None:
    per_node = per_node or count
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    for name, value in (("RANK", rank), ("WORLD_SIZE", count), ("LOCAL_RANK", rank), ("LOCAL_WORLD_SIZE", per_node)):
        monkeypatch.setenv(name, str(value))


def test_a_process_knows_itself_by_what_torchrun_says_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "7")  # some other launcher's
    assert this_process() == Process()
    started(monkeypatch, 4, per_node=2, rank=1)
    assert this_process() == Process(1, 4, 1, 2)
    assert not this_process().first


@pytest.mark.parametrize(
    ("asked", "process", "message"),
    [
        (
            TrainerOptions(),
            Process(0, 2, 0, 2),
            "write trainer.devices=2 trainer.num_nodes=1, or .*\n  clearn run",
        ),
        (TrainerOptions(devices=2), Process(0, 4, 0, 4), "torchrun started 4 processes, 4 of them on this node, but"),
        (TrainerOptions(devices=4), Process(0, 4, 0, 2), "write trainer.devices=2 trainer.num_nodes=2"),
        (TrainerOptions(num_nodes=2), Process(), "trainer.devices=1 on num_nodes=2 makes 2 processes"),
        (None, Process(0, 2, 0, 2), "this run is one process's work: start it without torchrun"),
    ],
)
def test_a_launch_that_does_not_fit_the_config_is_refused(
    asked: TrainerOptions | None, process: Process, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["clearn", "run", "my.yaml"])
    with pytest.raises(ConfigError, match=message):
        check_started(asked, process)


@pytest.mark.parametrize("asked", [TrainerOptions(), TrainerOptions(devices=2), TrainerOptions(devices=2, num_nodes=2)])
def test_a_launch_that_fits_is_not(asked: TrainerOptions) -> None:
    check_started(asked, Process(0, asked.processes, 0, asked.devices))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["strategy=dark_er"],
            "dark_er cannot be trained in shares of a batch: its loss tells new samples",
        ),
        (["strategy=gdumb"], "gdumb cannot be trained in shares of a batch: cutmix pastes .*cutmix: 0 does without"),
        (
            ["unlearner=finetune", "stream.requests=[{after: 1, classes: [0]}]"],
            "requests to forget are answered by",
        ),
    ],
)
def test_what_cannot_be_shared_out_says_so_before_training(overrides: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(BASE.replace("first:", "#").replace("later:", "#"))
    experiment = bind(load(str(tmp_path / "base.yaml"), [*overrides, *TWO]))
    with pytest.raises(ConfigError, match=message) as refused:
        experiment.check()
    assert "trainer.devices=2 and num_nodes=1 make 2 processes" in str(refused.value)
    assert "write trainer.devices=1" in str(refused.value)


def test_options_decide_where_they_do(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(BASE.replace("first:", "#").replace("later:", "#"))
    bind(load(str(tmp_path / "base.yaml"), ["strategy=gdumb", "strategy.cutmix=0", *TWO])).check()


def test_documents_are_read_by_one_process() -> None:
    with pytest.raises(ConfigError, match=r"trainer\.devices.*but one process reads documents"):
        bind({"stream": {"name": "documents"}, "strategy": {"name": "bm25"}, "trainer": {"devices": 2}})


def test_commands_that_are_one_process_s_work_are_refused_under_torchrun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grid.yaml").write_text(BASE + "grid: {seed: [0, 1]}\n")
    started(monkeypatch, 2)
    for words, name in ((["sweep", "grid.yaml"], "sweep"), (["run", "grid.yaml"], "a grid"), (["list"], "list")):
        assert cli.main(words) == 2
        assert f"torchrun started 2 processes of '{name}'" in capsys.readouterr().err


def test_another_rank_leaves_it_to_the_first_to_complain(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started(monkeypatch, 2, rank=1)
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    assert cli.main(["list"]) == 2
    assert capsys.readouterr().err.startswith("clearn: rank 1: ")
    assert slept == [cli.RANK_WAITS]


def test_folders_from_before_these_options_are_found_again() -> None:
    trainer = bind(
        {"stream": {"name": "class_incremental", "data": "digits"}, "strategy": {"name": "finetune", "backbone": "mlp"}}
    ).config["trainer"]
    assert "num_nodes" not in trainer
    assert "strategy" not in trainer


def test_trainer_options_are_checked() -> None:
    with pytest.raises(UserError, match="num_nodes=0 must be at least 1"):
        TrainerOptions(num_nodes=0)
    assert TrainerOptions(devices=3, num_nodes=2).processes == 6


def test_python_dash_m_clearn_is_the_command_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "clearn", "--help"], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.startswith("usage: clearn ")
