"""A run can be killed at any moment: what goes on from the folder ends with the bytes and scores of one left alone."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from clearn import cli
from clearn.config import load
from clearn.errors import StateError
from clearn.experiment import bind
from clearn.folder import ENVIRONMENT, LEDGER, SCORES, STATUS, RunFolder
from clearn.runner import run
from clearn.scoring import score

torch.set_num_threads(1)

CONFIG = """
name: tiny
stream: {name: class_incremental, data: digits, increment: [4, 3, 3], per_class_train: 20, per_class_test: 10}
strategy:
  name: memo
  backbone: mlp
  first: {epochs: 2, lr: 0.05, batch_size: 16}
  later: {epochs: 2, lr: 0.05, batch_size: 16}
budget: 200KiB
trainer: {threads: 1, accelerator: cpu}
"""
TASKS = 3


class Killed(BaseException):
    """Stands in for SIGKILL within this process: like it, nothing on the way handles it."""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    return "tiny.yaml"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "tiny.yaml").write_text(CONFIG)
    assert cli.main(["run", str(folder / "tiny.yaml"), f"out={folder / 'run'}"]) == 0
    return folder / "run"


def what_counts(path: Path) -> dict[str, Any]:
    """All of a run folder that must not depend on how it came about: states, scores, and bytes of the ledger."""
    folder = RunFolder(path)
    states = sorted((path / "state").iterdir())
    timed = ("seconds", "cpu_seconds", "peak_host", "peak_device")
    return {
        "states": {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in states},
        "scores": (path / SCORES).read_text(),
        "ledger": [{k: v for k, v in row.items() if k not in timed} for row in folder.rows(LEDGER)],
        "status": folder.get_json(STATUS),
        "config": (path / "config.yaml").read_text(),
    }


def every_file(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def resume(path: Path | str) -> int:
    return cli.main(["resume", str(path)])


# --- two runs, and a run again


def test_two_runs_give_the_same_bytes(config: str, undisturbed: Path) -> None:
    torch.rand(13)
    assert cli.main(["run", config, "out=again"]) == 0
    assert what_counts(Path("again")) == what_counts(undisturbed)
    assert RunFolder(undisturbed).get_json(STATUS) == {"state": "done", "step": TASKS, "steps": TASKS, "message": None}


def test_another_seed_gives_other_bytes(config: str, undisturbed: Path) -> None:
    assert cli.main(["run", config, "out=other", "seed=1"]) == 0
    assert what_counts(Path("other"))["states"] != what_counts(undisturbed)["states"]


def test_a_finished_run_is_gone_on_with_by_doing_nothing(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", config, "out=run"]) == 0
    before = {
        name: data
        for name, data in every_file(Path("run")).items()
        if name.startswith("state/") or name.endswith("jsonl")
    }
    capsys.readouterr()
    for command in (["resume", "run"], ["run", config, "out=run"]):
        assert cli.main(command) == 0
        assert "is finished already" in capsys.readouterr().out
        after = every_file(Path("run"))
        assert {name: after[name] for name in before} == before


def test_environment_keeps_what_the_first_start_said(config: str) -> None:
    assert cli.main(["run", config, "out=run"]) == 0
    first = RunFolder(Path("run")).get_json(ENVIRONMENT)
    assert first is not None
    assert {"clearn", "torch", "python", "seed", "threads", "device", "data", "command", "started"} <= first.keys()
    assert resume("run") == 0
    assert RunFolder(Path("run")).get_json(ENVIRONMENT) == first


# --- killed at every single write


def writes(monkeypatch: pytest.MonkeyPatch, stop_at: int | None) -> list[str]:
    """Count the calls by which anything reaches the disk; be killed just before the one numbered `stop_at`."""
    calls: list[str] = []

    def watched(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(first: Any, *rest: Any, **options: Any) -> Any:
            calls.append(f"{real.__name__} {written(first)}")
            if len(calls) - 1 == stop_at:
                raise Killed
            return real(first, *rest, **options)

        return call

    monkeypatch.setattr(os, "fsync", watched(os.fsync))
    monkeypatch.setattr(os, "replace", watched(os.replace))
    monkeypatch.setattr(Path, "replace", watched(Path.replace))
    monkeypatch.setattr(Path, "unlink", watched(Path.unlink))
    return calls


def killed_at(moment: int, action: Callable[[], object]) -> list[str]:
    """Do something until it is killed before write `moment`; give the writes, that one last."""
    with pytest.MonkeyPatch.context() as patch:
        calls = writes(patch, moment)
        with pytest.raises(Killed):
            action()
    return calls


def written(file: Any) -> str:
    """The path of a file or of its number."""
    return os.path.realpath(f"/proc/self/fd/{file}" if isinstance(file, int) else file)


def tear(call: str, rng: random.Random) -> None:
    """Do what a kill may do to bytes that were not yet synced: cut the new file, or the new rows, anywhere."""
    kind, _, name = call.partition(" ")
    path = Path(name)
    if kind != "fsync" or not path.is_file():
        return
    content, start = path.read_bytes(), 0
    if path.suffix == ".jsonl":
        step = json.loads(content.splitlines()[-1])["step"]
        start = content.find(f'"step":{step},'.encode())
        start = content.rfind(b"\n", 0, start) + 1
    path.write_bytes(content[: rng.randint(start, len(content))])


def begin_or_go_on(path: Path, config: str) -> list[str]:
    return ["resume", str(path)] if (path / "config.yaml").exists() else ["run", config, f"out={path}"]


@pytest.mark.parametrize("first", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_killed_before_any_one_write_it_ends_the_same(first: int, config: str, undisturbed: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        calls = writes(patch, None)
        run(bind(load(config)), Path("whole"))
    total = len(calls)
    assert total >= TASKS * 9, "a state, its checksum, two files of rows and the status, each synced"
    expected, rng = what_counts(undisturbed), random.Random(0)
    for moment in range(first, total, 3):
        path = Path(f"killed-{moment}")
        calls = killed_at(moment, lambda path=path: run(bind(load(config)), path))  # type: ignore[misc]
        tear(calls[-1], rng)
        run(bind(load(str(path / "config.yaml") if (path / "config.yaml").exists() else config)), path)
        assert what_counts(path) == expected, f"killed before write {moment}: {calls[-1]}"
        assert not list(path.rglob("*.part*")), moment


# --- killed for good


ZYGOTE = """
import os, sys
import torch; torch.set_num_threads(1)
from clearn import cli
out, null = os.dup(1), os.open(os.devnull, os.O_RDWR)
os.dup2(null, 1)
cli.main(["run", "tiny.yaml", "out=warm"])  # imports all that a run takes
os.write(out, b"ready\\n")
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        for stream in (0, 2): os.dup2(null, stream)
        code = 1
        try: code = cli.main(line.split())
        finally: os._exit(code)
    os.write(out, f"{child}\\n".encode())
    os.write(out, f"{os.waitpid(child, 0)[1]}\\n".encode())
os._exit(0)
"""
Spawn = Callable[..., int]


@pytest.fixture(scope="module")
def spawn(undisturbed: Path) -> Iterator[Spawn]:
    """Run a command in a process forked from one that has imported torch: spawn(words, meanwhile) -> status."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    pipe = subprocess.PIPE
    zygote = subprocess.Popen(
        [sys.executable, "-c", ZYGOTE], stdin=pipe, stdout=pipe, text=True, cwd=undisturbed.parent, env=environment
    )

    assert zygote.stdin is not None
    assert zygote.stdout is not None
    assert zygote.stdout.readline() == "ready\n"

    def spawn(words: list[str], meanwhile: Callable[[int], None] = lambda _: None) -> int:
        assert zygote.stdin is not None
        assert zygote.stdout is not None
        zygote.stdin.write(" ".join(words) + "\n")
        zygote.stdin.flush()
        meanwhile(int(zygote.stdout.readline()))
        return int(zygote.stdout.readline())

    yield spawn
    zygote.communicate()


def kill(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def test_killed_again_and_again_at_random_moments_it_ends_the_same(
    undisturbed: Path, spawn: Spawn, tmp_path: Path
) -> None:
    config = str(undisturbed.parent / "tiny.yaml")
    expected, rng, killed = what_counts(undisturbed), random.Random(1), 0
    started = time.monotonic()
    assert spawn(["run", config, f"out={tmp_path / 'timed'}"]) == 0
    whole = time.monotonic() - started
    for attempt in range(4):
        path = tmp_path / f"run-{attempt}"
        for _ in range(4):
            delay = rng.uniform(0.0, 0.7 * whole)

            def after_a_while(process: int, delay: float = delay) -> None:
                time.sleep(delay)
                kill(process)

            status = spawn(begin_or_go_on(path, config), after_a_while)
            assert status in (0, signal.SIGKILL)
            killed += status == signal.SIGKILL
        assert spawn(begin_or_go_on(path, config)) == 0
        assert what_counts(path) == expected
    assert killed >= 8


def test_killed_while_a_state_is_being_written_it_ends_the_same(
    undisturbed: Path, spawn: Spawn, tmp_path: Path
) -> None:
    config = str(undisturbed.parent / "tiny.yaml")
    expected, caught = what_counts(undisturbed), 0
    for attempt, name in enumerate(
        ["0001.safetensors", "0002.safetensors", "0003.safetensors", "0002.safetensors.sha256"] * 2
    ):
        path = tmp_path / f"run-{attempt}"

        def at_the_write(process: int, part: Path = path / "state" / f"{name}.part") -> None:
            """Watch for the half-written file without a pause; it is there for a few milliseconds."""
            until = time.monotonic() + 30
            while time.monotonic() < until and not part.exists() and not part.with_suffix("").exists():
                pass
            kill(process)

        assert spawn(["run", config, f"out={path}"], at_the_write) in (0, signal.SIGKILL)
        caught += bool(list(path.rglob("*.part")))
        assert spawn(begin_or_go_on(path, config)) == 0
        assert what_counts(path) == expected
    assert caught >= 1, "no kill fell into a write"


def test_ctrl_c_says_how_to_go_on(config: str, undisturbed: Path, tmp_path: Path) -> None:
    """In a cold process, as from a shell: exit code 130, one line with the command that goes on, no traceback."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "200"}
    command = [sys.executable, "-m", "clearn.cli", "run", config, "out=run", "strategy.later.epochs=100000"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment
    ) as process:
        until = time.monotonic() + 120
        while time.monotonic() < until and not (tmp_path / "run/state/0001.safetensors.sha256").exists():
            time.sleep(0.02)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "stopped by SIGINT: every finished task is safe; go on with\n  clearn resume run" in out
    assert err == ""
    status = RunFolder(Path("run")).get_json(STATUS)
    assert status == {"state": "stopped", "step": 1, "steps": TASKS, "message": "stopped by a signal"}
    first = "0001.safetensors.sha256"
    assert (tmp_path / "run/state" / first).read_text() == (undisturbed / "state" / first).read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_within_a_task_and_the_handlers_are_put_back(
    number: signal.Signals,
    config: str,
    undisturbed: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before, real, calls = signal.getsignal(number), score, []

    def interrupted(*args: Any) -> Any:
        calls.append(0)
        if len(calls) == 2:
            os.kill(os.getpid(), number)
        return real(*args)

    monkeypatch.setattr("clearn.learning.loop.score", interrupted)
    assert cli.main(["run", config, "out=run"]) == 130
    assert f"stopped by {number.name}" in capsys.readouterr().out
    assert signal.getsignal(number) is before
    assert resume("run") == 0, "the second task was learned and written, but not scored: it is repeated"
    assert what_counts(Path("run")) == what_counts(undisturbed)


# --- damage


def damaged_run(config: str, name: str) -> RunFolder:
    assert cli.main(["run", config, f"out={name}"]) == 0
    return RunFolder(Path(name))


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize("at", [3, 200, -1], ids=["length", "header", "last byte"])
def test_a_flipped_byte_is_named_and_costs_one_task(
    at: int, config: str, undisturbed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    folder = damaged_run(config, "run")
    flip(folder.state_path(3), at)
    capsys.readouterr()
    assert resume("run") == 0
    said = capsys.readouterr().out
    assert "run/state/0003.safetensors is damaged: its SHA-256 is" in said
    assert "going on after task 2" in said
    assert "task 3/3" in said
    assert "task 2/3" not in said
    assert what_counts(Path("run")) == what_counts(undisturbed)


def test_with_every_state_damaged_it_starts_over(
    config: str, undisturbed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    folder = damaged_run(config, "run")
    flip(folder.state_path(1), 100)
    folder.state_path(2).write_bytes(b"")
    (Path("run") / "state/0003.safetensors.sha256").unlink()
    capsys.readouterr()
    assert resume("run") == 0
    said = capsys.readouterr().out
    assert all(f"run/state/000{step}.safetensors" in said for step in (1, 2, 3))
    assert "task 1/3" in said
    assert what_counts(Path("run")) == what_counts(undisturbed)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path / SCORES).unlink(),
        lambda path: (path / LEDGER).write_bytes((path / LEDGER).read_bytes()[:-30]),
        lambda path: (path / SCORES).write_bytes(b"\xff\xfe" + (path / SCORES).read_bytes()),
        lambda path: (path / STATUS).write_bytes(b"\x00"),
        lambda path: (path / ENVIRONMENT).write_text("{"),
        lambda path: (path / "state/0004.safetensors.part").write_bytes(b"half"),
    ],
    ids=["no scores", "ledger cut", "scores no text", "status", "environment", "half a state"],
)
def test_damage_to_the_other_files_is_mended(damage: Callable[[Path], object], config: str, undisturbed: Path) -> None:
    damaged_run(config, "run")
    damage(Path("run"))
    assert resume("run") == 0
    assert what_counts(Path("run")) == what_counts(undisturbed)


def test_a_folder_without_a_config_is_no_run(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    for where, said in (("empty", "has no config.yaml"), ("nowhere", "is no folder")):
        assert resume(where) == 2
        assert said in capsys.readouterr().err


def test_another_configs_folder_is_refused_and_left_alone(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    damaged_run(config, "run")
    before = every_file(Path("run"))
    for change, key in (
        ("seed=7", "seed"),
        ("budget=1MiB", "budget.bytes"),
        ("strategy=icarl", "strategy.name"),
        ("stream.order_seed=3", "order_seed"),
    ):
        capsys.readouterr()
        assert cli.main(["run", config, "out=run", change]) == 2
        said = capsys.readouterr().err
        assert "run holds a run of another config; it differs in" in said
        assert key in said
        assert "choose another folder with out=FOLDER" in said
    assert every_file(Path("run")) == before


def test_a_state_of_more_tasks_than_the_stream_has_is_refused(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = damaged_run(config, "run")
    folder.write_state(4, folder.state_path(3).read_bytes())
    capsys.readouterr()
    assert resume("run") == 2
    assert "holds a state after 4 tasks, but this stream has 3" in capsys.readouterr().err
    assert folder.state_path(4).exists()


def test_a_state_of_another_structure_is_refused(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = damaged_run(config, "run")
    folder.write_state(3, folder.state_path(2).read_bytes())
    capsys.readouterr()
    assert resume("run") == 2
    assert "this state does not fit Memo after 3 tasks: missing ['blocks.2." in capsys.readouterr().err


# --- fork


def test_a_fork_leaves_the_old_run_as_it_is(config: str, undisturbed: Path) -> None:
    damaged_run(config, "run")
    before = every_file(Path("run"))
    assert cli.main(["fork", "run", "--after", "1", "strategy.later.lr=0.001", "out=branch"]) == 0
    assert every_file(Path("run")) == before
    old, new = what_counts(Path("run")), what_counts(Path("branch"))
    assert new["states"]["0001.safetensors"] == old["states"]["0001.safetensors"]
    assert new["states"]["0002.safetensors"] != old["states"]["0002.safetensors"]
    assert new["status"] == {"state": "done", "step": TASKS, "steps": TASKS, "message": None}
    rows = [json.loads(line) for line in new["scores"].splitlines()]
    assert [row for row in rows if row["step"] == 1] == [json.loads(line) for line in old["scores"].splitlines()][:2]
    forked = RunFolder(Path("branch")).get_json(ENVIRONMENT)
    assert forked is not None
    digest = RunFolder(Path("run")).read_state(1).sha256
    assert forked["forked_from"] == {"run": "run", "after": 1, "sha256": digest}
    assert resume("branch") == 0
    assert what_counts(Path("branch")) == new


def test_a_fork_may_cut_the_tasks_to_come_otherwise(config: str) -> None:
    damaged_run(config, "run")
    assert cli.main(["fork", "run", "--after", "1", "stream.increment=[4, 2, 2, 2]", "out=branch"]) == 0
    assert RunFolder(Path("branch")).get_json(STATUS) == {"state": "done", "step": 4, "steps": 4, "message": None}
    assert what_counts(Path("branch"))["states"]["0001.safetensors"] == RunFolder(Path("run")).read_state(1).sha256


def test_a_fork_with_nothing_changed_ends_the_same(config: str, undisturbed: Path) -> None:
    damaged_run(config, "run")
    assert cli.main(["fork", "run", "--after", "2", "out=branch"]) == 0
    assert what_counts(Path("branch")) == what_counts(undisturbed)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--after", "0"], "--after 0 must lie in [1, 3]"),
        (["--after", "4"], "--after 4 must lie in [1, 3]"),
        (
            ["--after", "1", "stream.increment=[3, 4, 3]"],
            "the changed stream differs from run within the first 1 tasks",
        ),
        (["--after", "1", "stream.order_seed=3"], "the changed stream differs from run"),
        (["--after", "1", "stream.per_class_train=10"], "the changed stream differs from run"),
        (["--after", "1", "out=run"], "run already holds a run"),
        (["--after", "1", "strategy=icarl"], "does not fit ICarl after 1 tasks"),
    ],
    ids=["0", "4", "sizes", "class order", "samples", "itself", "method"],
)
def test_a_fork_that_cannot_be_is_refused(
    words: list[str], said: str, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged_run(config, "run")
    before = every_file(Path("run"))
    capsys.readouterr()
    where = [] if any(word.startswith("out=") for word in words) else ["out=branch"]
    assert cli.main(["fork", "run", *words, *where]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert "Traceback" not in captured.err
    assert every_file(Path("run")) == before
    assert not Path("branch").exists()


def test_a_fork_from_a_damaged_state_is_refused(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = damaged_run(config, "run")
    flip(folder.state_path(2), -1)
    capsys.readouterr()
    assert cli.main(["fork", "run", "--after", "2", "seed=3", "out=branch"]) == 2
    assert "0002.safetensors is damaged" in capsys.readouterr().err
    with pytest.raises(StateError):
        folder.read_state(2)


def test_a_fork_that_was_killed_can_be_made_again(config: str, undisturbed: Path) -> None:
    damaged_run(config, "run")
    command = ["fork", "run", "--after", "2", "out=branch"]
    expected, moment = what_counts(undisturbed), 0
    while not (Path("branch") / "config.yaml").exists():
        killed_at(moment, lambda: cli.main(command))
        moment += 1
    assert moment >= 3
    assert resume("branch") == 0
    assert what_counts(Path("branch")) == expected


# --- grids


def test_a_grid_goes_on_with_the_cell_that_was_killed(config: str) -> None:
    Path("grid.yaml").write_text(f"{CONFIG}grid: {{strategy.name: [finetune, memo], seed: [0, 1]}}\n")
    assert cli.main(["run", "grid.yaml", "out=whole"]) == 0
    cells = sorted(p.name for p in Path("whole").iterdir() if p.is_dir())
    assert len(cells) == 4
    killed_at(80, lambda: cli.main(["run", "grid.yaml", "out=killed"]))
    begun = [p for p in Path("killed").iterdir() if p.is_dir()]
    assert 2 <= len(begun) <= 3, "killed within the second or third cell"
    assert resume("killed") == 0
    assert sorted(p.name for p in Path("killed").iterdir() if p.is_dir()) == cells
    assert [what_counts(Path("killed") / c) for c in cells] == [what_counts(Path("whole") / c) for c in cells]
