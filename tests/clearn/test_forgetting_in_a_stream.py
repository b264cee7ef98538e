"""A request between two tasks: nothing of it is left in what is carried, and the run goes on, bit for bit."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from clearn import checks, cli, plugins
from clearn.errors import ConfigError, StateError
from clearn.folder import LEDGER, RunFolder
from clearn.learning import Learning
from clearn.ledger import Budget
from clearn.options import RunnerOptions
from clearn.parts.exemplars import Exemplars, Memory
from clearn.parts.samples import TensorSamples, occurring
from clearn.stream import Forget, Inputs
from clearn.streams.requests import RequestOptions, WithRequests
from clearn.unlearner import Unlearner

torch.set_num_threads(1)

CLASS = RequestOptions(after=2, classes=(0,))


class Idle(Unlearner):
    """Leaves the network as it is."""

    def forget(self, strategy: Any, request: Forget, ctx: Any) -> None:
        """Nothing."""


def experiment(name: str, *requests: RequestOptions, options: tuple[str, ...] = ()) -> Learning:
    what = checks.experiment(checks.subject(name, options), WithRequests(checks.toy_stream(), requests))
    asked = {**what.config["stream"], "asked": [str(request) for request in requests]}
    return replace(what, unlearner=Idle, config={**what.config, "stream": asked})


def carried(what: Learning, step: int) -> dict[str, Any]:
    path = checks.trace(what).path
    return RunFolder(path).read_state(step).frozen.tensors


@pytest.mark.parametrize("name", ["replay", "icarl", "memo", "finetune", "wa", "der_expand", "joint"])
def test_after_a_request_no_forgotten_sample_is_carried_and_later_tasks_train(name: str) -> None:
    what = experiment(name, CLASS)
    trace = checks.trace(what)
    assert len(trace.hashes) == 4
    folder, gone = RunFolder(trace.path), what.stream.forget(what.stream.requests[0]).forget
    pixels = {row.numpy().tobytes() for row in gone.fetch(torch.arange(len(gone)))}
    held_before = False
    for step, forgotten in ((2, False), (3, True), (4, True)):
        blob = folder.state_path(step).read_bytes()
        found = any(one in blob for one in pixels)
        labels = folder.read_state(step).frozen.tensors.get("memory/labels")
        held_before |= found and not forgotten
        assert not (forgotten and found), f"step {step}: a forgotten image lies in the state file"
        if forgotten and labels is not None:
            assert 0 not in labels.tolist()
    assert held_before == (name != "finetune"), "the class was in the memory before it was forgotten"


def test_the_ledger_shows_what_was_freed_to_the_byte() -> None:
    trace = checks.trace(experiment("replay", CLASS))
    rows = RunFolder(trace.path).rows(LEDGER)
    memory = {row["step"]: row["bytes"] for row in rows if row["kind"] == "bytes" and row["owner"] == "memory"}
    figures = {row["step"]: row for row in rows if row["kind"] == "figures"}
    item = 3 * 8 * 8 + 1
    freed = figures[3]["logged"]["forget/thrown_out"]
    assert freed > 0
    assert memory[2] - memory[3] == freed * item
    assert figures[2]["total"] - figures[3]["total"] == freed * item
    assert figures[3]["logged"]["forget/samples"] == checks.PER_CLASS


@pytest.mark.parametrize("name", ["replay", "icarl", "memo", "finetune"])
def test_rebuilt_resumed_and_kept_runs_are_bit_identical(name: str) -> None:
    requests = CLASS, RequestOptions(after=3, count=5, seed=1)
    whole = checks.trace(experiment(name, *requests))
    kept = checks.trace(replace(experiment(name, *requests), runner=RunnerOptions(rebuild=False)))
    checks.assert_same(whole, kept, "rebuilt", "kept", "a request leaves something outside the state")
    for until in (2, 3, 4):
        what = experiment(name, *requests)
        stopped = checks.trace(what, until=until)
        checks.run_experiment(what, stopped.path)
        checks.assert_same(whole, checks.read_trace(stopped.path), "undisturbed", "resumed", "state is missing")


def test_an_empty_request_changes_no_bit() -> None:
    trace = checks.trace(experiment("replay", RequestOptions(after=2, ids=())))
    assert trace.hashes[2] == trace.hashes[1]


def test_single_samples_leave_the_memory_whatever_codec_hides_them() -> None:
    for codec in ("raw", "jpeg:75", "png"):
        option = f"memory.codec={codec}"
        what = experiment("replay", RequestOptions(after=2, count=20, seed=3), options=(option,))
        folder = RunFolder(checks.trace(what).path)
        gone = what.stream.forget(what.stream.requests[0]).forget
        memory = Exemplars(Memory(total=12, codec=codec), what.stream.inputs)
        state = folder.read_state(3).frozen.tensors
        memory.load({k.removeprefix("memory/"): v for k, v in state.items() if k.startswith("memory/")})
        seen = Exemplars(Memory(total=1000, codec=codec, selection="random"), what.stream.inputs)
        seen.update(gone, lambda samples: torch.zeros(len(samples), 1), 6, None, torch.Generator())
        assert len(seen) == 20
        assert not bool(occurring(memory.samples(), seen.samples()).any())


def test_a_memory_forgets_classes_and_samples_and_counts_them() -> None:
    inputs = Inputs((1, 2, 2))
    images = torch.arange(24, dtype=torch.uint8).reshape(6, 1, 2, 2)
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    memory = Exemplars(Memory(total=6, selection="random"), inputs)
    memory.update(TensorSamples(images, labels), lambda s: torch.zeros(len(s), 1), 2, None, torch.Generator())
    nothing = TensorSamples(images[:0], labels[:0])
    assert memory.forget(nothing) == 0
    assert memory.forget(TensorSamples(images[[1]], torch.tensor([1]))) == 0, "the label counts as well"
    assert memory.forget(TensorSamples(images[[1, 4]], labels[[1, 4]])) == 2
    assert memory.forget(nothing, [1]) == 2
    assert sorted(memory.samples().inputs[:, 0, 0, 0].tolist()) == [0, 8]
    assert memory.groups() == [(0, 2)]


def test_a_memory_that_does_not_forget_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clearn.parts.rehearsal.Rehearsal.forget", lambda self, samples, classes=(): 0)
    with pytest.raises(StateError, match="forgotten samples are still in the memory"):
        checks.trace(experiment("replay", CLASS))


def test_an_unlearner_s_own_state_is_weighed_and_comes_back() -> None:
    class Counting(Idle):
        def __init__(self) -> None:
            self.tasks = torch.zeros(3, dtype=torch.int16)

        def watch(self, strategy: Any, task: Any, ctx: Any) -> None:
            self.tasks[task.info.index] += 1

        def forget(self, strategy: Any, request: Forget, ctx: Any) -> None:
            assert self.tasks.tolist() == [1, 1, 0]

        def state(self) -> dict[str, Any]:
            return {"unlearner/tasks": self.tasks}

        def load(self, state: Any, seen: Any) -> None:
            self.tasks = torch.as_tensor(state["unlearner/tasks"])

    what = replace(experiment("finetune", CLASS), unlearner=Counting)
    trace = checks.trace(what)
    rows = [row for row in RunFolder(trace.path).rows(LEDGER) if row["kind"] == "bytes" and row["owner"] == "unlearner"]
    assert [(row["step"], row["category"], row["bytes"]) for row in rows] == [
        (step, "importance", 6) for step in (1, 2, 3, 4)
    ]
    assert RunFolder(trace.path).read_state(4).frozen.tensors["unlearner/tasks"].tolist() == [1, 1, 1]


def test_requests_and_unlearner_need_one_another() -> None:
    with pytest.raises(ConfigError, match="name an unlearner"):
        checks.trace(replace(experiment("finetune", CLASS), unlearner=None))
    with pytest.raises(ConfigError, match="nothing is to be forgotten"):
        checks.trace(replace(checks.experiment(checks.subject("finetune")), unlearner=Idle))


def test_evidence_holds_answers_before_and_after() -> None:
    from safetensors.numpy import load_file

    trace = checks.trace(experiment("replay", CLASS))
    found = load_file(trace.path / "evidence" / "0003.safetensors")
    shapes = {name: value.shape for name, value in found.items()}
    assert shapes["before/forget"] == shapes["after/forget"] == (checks.PER_CLASS, 4)
    assert shapes["labels/stays"] == (3 * checks.PER_CLASS,)
    assert shapes["after/test"] == (4 * checks.PER_CLASS, 4)
    assert (found["before/stays"] == found["after/stays"]).all(), "the network was not touched"


def test_the_budget_holds_at_requests_too() -> None:
    what = experiment("replay", CLASS)
    bare = max(what.weights(what.plan()))
    subject = checks.subject("replay", ["memory.total=null"])
    filling = checks.experiment(subject, what.stream, Budget(bare + 5000))
    trace = checks.trace(replace(filling, unlearner=Idle))
    figures = [row for row in RunFolder(trace.path).rows(LEDGER) if row["kind"] == "figures"]
    assert [row["delta"] <= bare + 5000 for row in figures] == [True] * 4


@pytest.mark.parametrize("stored", [True, False])
def test_exemplars_leave_room_for_what_an_unlearner_keeps(stored: bool) -> None:
    what = experiment("replay", replace(CLASS, after=3, look_back=True))
    bare, options = max(what.weights(what.plan())), {"alpha": 1.5, "store": stored}
    filling = checks.experiment(
        checks.subject("replay", ["memory.total=null"]), what.stream, Budget((1 + stored) * bare + 5000)
    )
    made = partial(plugins.find("unlearn", "ssd"), **options)
    config = {**filling.config, "unlearner": {"name": "ssd", **options}}
    rows = RunFolder(checks.trace(replace(filling, unlearner=made, config=config)).path).rows(LEDGER)
    kept = [row["bytes"] for row in rows if row["kind"] == "bytes" and row["owner"] == "unlearner"]
    assert (min(kept) > 1000) == stored, "stored importances are heavy, counts are not"
    figures = {row["step"]: row for row in rows if row["kind"] == "figures"}
    assert 0 <= figures[3]["slack"] < 4 * (3 * 8 * 8 + 1)


CONFIG = """
stream: {name: class_incremental, data: digits, increment: 5}
strategy: {name: replay, backbone: mlp, first: {epochs: 1}, later: {epochs: 1}, memory: {total: 50}}
budget: {policy: none}
trainer: {threads: 1, accelerator: cpu}
"""


def test_a_finished_run_forgets_in_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(CONFIG)
    assert cli.main(["run", "mine.yaml", "out=old"]) == 0
    before = {path: path.read_bytes() for path in Path("old").rglob("*") if path.is_file()}
    (tmp_path / "ids.txt").write_text("0\n7\n")
    assert cli.main(["unlearn", "old", "--forget", "ids.txt", "--method", "nothing", "out=new"]) == 0
    assert {path: path.read_bytes() for path in Path("old").rglob("*") if path.is_file()} == before
    folder = RunFolder(Path("new"))
    assert json.loads((folder.path / "status.json").read_text())["state"] == "done"
    assert folder.read_state(2).sha256 == RunFolder(Path("old")).read_state(2).sha256
    assert (folder.path / "evidence" / "0003.safetensors").exists()
    assert cli.main(["unlearn", "new", "--classes", "3", "--method", "nothing", "out=newer"]) == 0
    capsys.readouterr()
    assert cli.main(["unlearn", "new", "--classes", "77", "--method", "nothing", "out=never"]) == 2
    assert "class 77 was not learned" in capsys.readouterr().err
    assert not Path("never").exists()
    (tmp_path / "ids.txt").write_text("7\n")
    assert cli.main(["unlearn", "new", "--forget", "ids.txt", "--method", "nothing", "out=never"]) == 2
    assert "sample 7 is forgotten already" in capsys.readouterr().err
    assert not Path("never").exists()


def test_many_runs_forget_by_many_methods_and_go_on_where_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(CONFIG)
    for seed in (0, 1):
        assert cli.main(["run", "mine.yaml", f"seed={seed}", f"out=old/s{seed}"]) == 0
    command = ["unlearn", "old", "--classes", "3", "--method", "nothing,head_row", "out=new"]
    assert cli.main(command) == 0
    found = sorted(str(path.parent.relative_to(tmp_path)) for path in tmp_path.glob("new/**/config.yaml"))
    assert found == ["new/head_row/s0", "new/head_row/s1", "new/nothing/s0", "new/nothing/s1"]
    assert "head_row" in (tmp_path / "new/report.html").read_text()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("new/**/evidence/*")}
    assert len(before) == 4
    assert cli.main(command) == 0, "what is done is not done again"
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("new/**/evidence/*")}
    capsys.readouterr()
    assert cli.main(["unlearn", "old", "--classes", "4", "--method", "nothing,head_row", "out=new"]) == 1
    assert "another config" in capsys.readouterr().out
    assert cli.main(["unlearn", str(tmp_path / "new/nothing/s0/state"), "--classes", "4", "--method", "nothing"]) == 2
    assert "no folder of them" in capsys.readouterr().err
    assert cli.main(["unlearn", "old", "--classes", "3", "--method", "nothing,sdd", "out=never"]) == 2
    assert "did you mean 'ssd'" in capsys.readouterr().err
    assert not Path("never").exists()
