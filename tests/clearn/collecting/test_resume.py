"""A collection can be stopped or killed at any moment: what goes on from the folder ends with the same bytes."""

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

from clearn import cli
from clearn.collecting import loop
from clearn.config import load
from clearn.experiment import bind
from clearn.folder import LEDGER, SCORES, STATUS, RunFolder
from clearn.runner import run, run_until

ROUNDS = 3
WEEKS = "stream={file: weeks.csv, rounds: [w0, w1, w2]}"
KINDS = {  # what is carried differs: memo sums, tables, keys, group sizes and attributes, public draws
    "aggregate": ["runner.engine=aggregate"],
    "table": ["runner.engine=per_user"],
    "changing": ["runner.engine=per_user", WEEKS],
    "sums of groups": ["runner.engine=aggregate", WEEKS],
    "prf": ["runner.engine=per_user", "runner.memo=prf", WEEKS],
    "buckets": [WEEKS, "protocol={name: d_bit_flip_pm, sampled: 3}"],
    "hashes": [WEEKS, "protocol=loloha"],
    "attributes": ["stream.file=people.csv", "protocol={name: allomfree}"],
    "fakes": ["stream.file=people.csv", "protocol={name: rs_fd}", "runner.engine=per_user"],
    "numbers": ["protocol=she"],
    "linked": ["runner.decode=linked"],
}


class Killed(BaseException):
    """Stands in for SIGKILL within this process: like it, nothing on the way handles it."""


def what_counts(path: Path) -> dict[str, Any]:
    """All of a run folder that must not depend on how it came about: states, scores, and bytes of the ledger."""
    folder = RunFolder(path)
    timed = ("seconds", "cpu_seconds")
    return {
        "states": {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted((path / "state").iterdir())},
        "scores": (path / SCORES).read_text(),
        "ledger": [{k: v for k, v in row.items() if k not in timed} for row in folder.rows(LEDGER)],
        "status": folder.get_json(STATUS),
        "config": (path / "config.yaml").read_text(),
    }


def every_file(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def states(path: Path) -> dict[str, bytes]:
    return {name: data for name, data in every_file(path).items() if "state/" in name or name.endswith("jsonl")}


# --- stopped


@pytest.mark.parametrize("words", KINDS.values(), ids=KINDS.keys())
def test_stopped_after_any_round_it_ends_the_same(words: list[str], works: Any) -> None:
    works("run", "small.yaml", "out=whole", *words)
    expected = what_counts(Path("whole"))
    for until in range(1, ROUNDS):
        path = Path(f"stopped-{until}")
        run_until(bind(load("small.yaml", words)), path, until)
        assert RunFolder(path).get_json(STATUS) == {
            "state": "stopped", "step": until, "steps": ROUNDS, "message": None
        }  # fmt: skip
        assert f"goes on after task {until} of {ROUNDS}" in works("resume", str(path))
        assert what_counts(path) == expected
    before = states(Path("whole"))
    assert "is finished already" in works("run", "small.yaml", "out=whole", *words)
    assert states(Path("whole")) == before


@pytest.mark.parametrize("engine", ["aggregate", "per_user"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("inside", ["account", "postprocess"], ids=["before writing", "after writing"])
def test_a_signal_ends_the_run_cleanly_and_it_can_be_gone_on_with(
    inside: str,
    number: signal.Signals,
    engine: str,
    works: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ["run", "small.yaml", f"runner.engine={engine}"]
    works(*words, "out=whole")
    before, real, calls = signal.getsignal(number), getattr(loop, inside), []

    def interrupted(*args: Any) -> Any:
        calls.append(0)
        if len(calls) == (2 if inside == "account" else 10):  # of the second round
            os.kill(os.getpid(), number)
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(loop, inside, interrupted)
        assert cli.main([*words, "out=run"]) == 130
    said = capsys.readouterr().out
    assert f"stopped by {number.name}" in said
    assert "clearn resume run" in said
    assert signal.getsignal(number) is before
    status = RunFolder(Path("run")).get_json(STATUS)
    assert status is not None
    assert (status["state"], status["step"]) == ("stopped", 1)
    works("resume", "run")
    assert what_counts(Path("run")) == what_counts(Path("whole"))


# --- killed


def killed_at(moment: int, action: Callable[[], object]) -> list[str]:
    """Do something until it is killed before the write numbered `moment`; give the writes, that one last."""
    calls: list[str] = []

    def watched(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(first: Any, *rest: Any, **options: Any) -> Any:
            name = os.path.realpath(f"/proc/self/fd/{first}" if isinstance(first, int) else first)
            calls.append(f"{real.__name__} {name}")
            if len(calls) - 1 == moment:
                raise Killed
            return real(first, *rest, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", watched(os.fsync))
        patch.setattr(os, "replace", watched(os.replace))
        patch.setattr(Path, "replace", watched(Path.replace))
        patch.setattr(Path, "unlink", watched(Path.unlink))
        with contextlib.suppress(Killed):
            action()
    return calls


def tear(call: str, rng: random.Random) -> None:
    """Do what a kill may do to bytes that were not yet synced: cut the new file, or the new rows, anywhere."""
    kind, _, name = call.partition(" ")
    path = Path(name)
    if kind != "fsync" or not path.is_file():
        return
    content, start = path.read_bytes(), 0
    if path.suffix == ".jsonl":
        step = json.loads(content.splitlines()[-1])["step"]
        start = content.rfind(b"\n", 0, content.find(f'"step":{step},'.encode())) + 1
    path.write_bytes(content[: rng.randint(start, len(content))])


@pytest.mark.parametrize("first", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_killed_before_any_one_write_it_ends_the_same(first: int, works: Any) -> None:
    works("run", "small.yaml", "out=whole")
    expected, rng = what_counts(Path("whole")), random.Random(0)
    total = len(killed_at(-1, lambda: run(bind(load("small.yaml")), Path("counted"))))
    assert total >= ROUNDS * 9, "a state, its checksum, two files of rows and the status, each synced"
    for moment in range(first, total, 3):
        path = Path(f"killed-{moment}")
        calls = killed_at(moment, lambda path=path: run(bind(load("small.yaml")), path))  # type: ignore[misc]
        tear(calls[-1], rng)
        config = path / "config.yaml"
        run(bind(load(str(config) if config.exists() else "small.yaml")), path)
        assert what_counts(path) == expected, f"killed before write {moment}: {calls[-1]}"
        assert not list(path.rglob("*.part*")), moment


ZYGOTE = """
import os, sys
from clearn import cli
out, null = os.dup(1), os.open(os.devnull, os.O_RDWR)
os.dup2(null, 1)
cli.main(["run", "small.yaml", "out=warm"])  # imports all that a run takes
os.write(out, b"ready\\n")
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        for stream in (0, 2): os.dup2(null, stream)
        code = 1
        try: code = cli.main(line.split("\\t")[:-1])
        finally: os._exit(code)
    os.write(out, f"{child}\\n".encode())
    os.write(out, f"{os.waitpid(child, 0)[1]}\\n".encode())
os._exit(0)
"""
Spawn = Callable[..., int]


@pytest.fixture
def spawn(here: Path) -> Iterator[Spawn]:
    """Run a command in a process forked from one that has imported all: spawn(words, meanwhile) -> status."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    pipe = subprocess.PIPE
    zygote = subprocess.Popen([sys.executable, "-c", ZYGOTE], stdin=pipe, stdout=pipe, text=True, env=environment)
    assert zygote.stdin is not None and zygote.stdout is not None
    stdin, stdout = zygote.stdin, zygote.stdout
    assert stdout.readline() == "ready\n"

    def spawn(words: list[str], meanwhile: Callable[[int], None] = lambda _: None) -> int:
        stdin.write("\t".join(words) + "\t\n")
        stdin.flush()
        meanwhile(int(stdout.readline()))
        return int(stdout.readline())

    yield spawn
    zygote.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["aggregate", "per_user"])
def test_killed_again_and_again_at_random_moments_it_ends_the_same(engine: str, spawn: Spawn) -> None:
    words = ["run", "small.yaml", f"runner.engine={engine}", "stream.rounds=40"]
    started = time.monotonic()
    assert spawn([*words, "out=whole"]) == 0
    whole, rng, killed = time.monotonic() - started, random.Random(1), 0
    expected = what_counts(Path("whole"))
    for attempt in range(3):
        path = Path(f"run-{attempt}")
        for _ in range(4):
            delay = rng.uniform(0, 0.5 * whole)

            def after_a_while(process: int, delay: float = delay) -> None:
                time.sleep(delay)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)

            begun = (path / "config.yaml").exists()
            status = spawn(["resume", str(path)] if begun else [*words, f"out={path}"], after_a_while)
            assert status in (0, signal.SIGKILL)
            killed += status == signal.SIGKILL
        assert spawn([*words, f"out={path}"]) == 0
        assert what_counts(path) == expected
    assert killed >= 6


# --- damage, and folders of others


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize("at", [3, 200, -1], ids=["length", "header", "last byte"])
def test_a_flipped_byte_is_named_and_costs_one_round(at: int, works: Any) -> None:
    works("run", "small.yaml", "out=run")
    expected = what_counts(Path("run"))
    flip(RunFolder(Path("run")).state_path(3), at)
    said = works("resume", "run")
    assert "run/state/0003.safetensors is damaged: its SHA-256 is" in said
    assert "going on after task 2" in said
    assert "round 3/3" in said and "round 2/3" not in said
    assert what_counts(Path("run")) == expected


def test_with_every_state_damaged_it_starts_over(works: Any) -> None:
    works("run", "small.yaml", "out=run")
    expected, folder = what_counts(Path("run")), RunFolder(Path("run"))
    flip(folder.state_path(1), 100)
    folder.state_path(2).write_bytes(b"")
    Path("run/state/0003.safetensors.sha256").unlink()
    said = works("resume", "run")
    assert all(f"run/state/000{step}.safetensors" in said for step in (1, 2, 3))
    assert "round 1/3" in said
    assert what_counts(Path("run")) == expected


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path / SCORES).unlink(),
        lambda path: (path / LEDGER).write_bytes((path / LEDGER).read_bytes()[:-30]),
        lambda path: (path / STATUS).write_bytes(b"\x00"),
        lambda path: (path / "state/0004.safetensors.part").write_bytes(b"half"),
    ],
    ids=["no scores", "ledger cut", "status", "half a state"],
)
def test_damage_to_the_other_files_is_mended(damage: Callable[[Path], object], works: Any) -> None:
    works("run", "small.yaml", "out=run")
    expected = what_counts(Path("run"))
    damage(Path("run"))
    works("resume", "run")
    assert what_counts(Path("run")) == expected


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "small.yaml", "out=run", "seed=7"], "differs in seed (0 there, 7 here)"),
        (["run", "small.yaml", "out=run", "protocol=l_sue"], "differs in protocol.name (l_osue there, l_sue here)"),
        (["run", "small.yaml", "out=run", "protocol.eps_inf=1"], "protocol.eps_inf (2.0 there, 1.0 here)"),
        (["run", "small.yaml", "out=run", "runner.memo=prf"], "runner.memo (table there, prf here)"),
        (["run", "small.yaml", "out=run", "budget.client_bytes=1kB"], "budget.client_bytes (None there, 1kB here)"),
        (["run", "small.yaml", "out=run", "stream.rounds=4"], "stream.rounds (3 there, 4 here)"),
        (["fork", "run", "--after", "1", "seed=3", "out=branch"], "start a new run"),
        (["fork", "run", "--after", "2", "protocol=l_sue"], "must both be runs of a strategy"),
        (["fork", "run", "--after", "2", "strategy=replay"], "must both be runs of a strategy"),
    ],
)
def test_what_cannot_go_on_there_is_refused_and_the_folder_left_alone(
    words: list[str], said: str, works: Any, fails: Any
) -> None:
    works("run", "small.yaml", "out=run")
    before = every_file(Path("run"))
    assert said in fails(*words)
    assert every_file(Path("run")) == before
    if words[0] == "run":
        assert "choose another folder with out=FOLDER" in fails(*words)


def test_states_of_another_length_or_another_round_are_refused(works: Any, fails: Any) -> None:
    works("run", "small.yaml", "out=run")
    folder = RunFolder(Path("run"))
    folder.write_state(4, folder.state_path(3).read_bytes())
    assert "run holds a state after 4 tasks, but this stream has 3" in fails("resume", "run")
    assert folder.state_path(4).exists()
    folder.drop_after(3)
    folder.write_state(3, folder.state_path(2).read_bytes())
    assert "'server/answered' is int64 of shape (2, 2, 1), and int64 of (2, 3, 1) is needed" in fails("resume", "run")


def test_a_grid_goes_on_with_the_cell_that_was_killed(works: Any) -> None:
    words = ["run", "small.yaml", "grid={protocol.name: [l_grr, l_osue], seed: [0, 1]}"]
    works(*words, "out=whole")
    cells = sorted(path.name for path in Path("whole").iterdir() if path.is_dir())
    assert len(cells) == 4
    killed_at(80, lambda: cli.main([*words, "out=killed"]))
    assert 2 <= len([path for path in Path("killed").iterdir() if path.is_dir()]) <= 3, "in the second or third cell"
    works("resume", "killed")
    assert sorted(path.name for path in Path("killed").iterdir() if path.is_dir()) == cells
    assert [what_counts(Path("killed", cell)) for cell in cells] == [what_counts(Path("whole", cell)) for cell in cells]
