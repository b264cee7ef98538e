"""Whatever a user gets wrong is one message with the remedy and exit code 2, never a traceback or half a file."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from clearn import cli
from clearn.folder import STATUS, RunFolder
from clearn.locks import alone_in

torch.set_num_threads(1)

CONFIG: dict[str, Any] = {
    "name": "tiny",
    "stream": {
        "name": "class_incremental",
        "data": "digits",
        "increment": 5,
        "per_class_train": 10,
        "per_class_test": 5,
    },
    "strategy": {
        "name": "replay",
        "backbone": "mlp",
        "memory": {"total": 20},
        "first": {"epochs": 1, "lr": 0.05, "batch_size": 16},
        "later": {"epochs": 1, "lr": 0.05, "batch_size": 16},
    },
    "budget": {"bytes": "100KiB", "policy": "every"},
    "trainer": {"threads": 1, "accelerator": "cpu"},
    "seed": 0,
}

Fails = Callable[..., str]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("CLEARN_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    return tmp_path


@pytest.fixture
def fails(here: Path, capsys: pytest.CaptureFixture[str]) -> Fails:
    """Run a command that must fail as a user's mistake; give its message."""

    def run(*words: str) -> str:
        capsys.readouterr()
        assert cli.main(list(words)) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith("clearn: ")
        assert captured.err.count("clearn: ") == 1
        assert "Traceback" not in captured.out + captured.err
        return captured.err

    return run


def works(*words: str) -> None:
    assert cli.main(list(words)) == 0


def halves(path: Path) -> list[str]:
    """Files that were being written."""
    return [p.name for p in path.rglob("*") if ".part" in p.name or p.name == ".writable"]


# --- the config


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("strategy.exemplers=3", "command line: strategy.exemplers: got 3, but there is no such option"),
        (
            "strategy.memry.total=3",
            "strategy.memry: got {'total': 3}, but there is no such option; did you mean 'memory'?",
        ),
        ("sede=1", "sede: got 1, but there is no such section; did you mean 'seed'?"),
        ("seed=many", "command line: seed: got 'many', must be an int"),
        ("strategy.first.lr=fast", "strategy.first.lr: got 'fast', must be a number"),
        ("strategy.first.epochs=0", "epochs=0 must be in [1, 10^6]"),
        ("strategy.memory.total=-1", "memory.total=-1 must be a whole number, 0 or more"),
        ("strategy.memory.codec=gif", "memory.codec='gif' is not one of"),
        ("strategy=replai", "strategy 'replai' is unknown; did you mean 'replay'?"),
        ("strategy.name=os.system", "a config holds no import path"),
        ("strategy.backbone=resnet33", "no backbone 'resnet33'; did you mean 'resnet3"),
        ("strategy.pretrained=true", "mlp has no pretrained weights, got pretrained=True"),
        (
            "stream.name=classes",
            "stream.name: got classes, but there is no such stream; it is one of class_incremental, domain_",
        ),
        (
            "stream.increment=3",
            "increment=3 leaves 1 of the 10 classes of the data set over; right are increment 2 or 5",
        ),
        ("stream.increment=[5, 6]", "increment=[5, 6] has sizes that sum to 11"),
        ("stream.increment=0", "increment must be 1 or more"),
        ("stream.base=11", "base must lie in [0, 10]"),
        ("stream.order_seed=-1", "order_seed=-1 must lie in"),
        ("stream.data=imagenet21k", "imagenet21k"),
        ("stream.augment=spin", "spin"),
        ("budget=4M", "can be read in two ways: write 4MB for 4,000,000 bytes or 4MiB for 4,194,304"),
        ("budget.policy=always", "budget.policy: got 'always', must be one of"),
        ("budget.step=3", "step=3 has no effect under policy every"),
        ("trainer.devices=0", "devices=0 must be at least 1"),
        ("trainer.block=5000000000", "block=5000000000 must be at least 1 and below 2^31"),
        ("trainer.devices=2", "trainer.devices=2 on num_nodes=1 makes 2 processes, but this one was started alone"),
        ("trainer.precision=8-bit", "precision='8-bit' is not"),
        ("trainer.threads=0", "threads=0 must be at least 1"),
        ("runner.rebuild=maybe", "runner.rebuild: got 'maybe', must be true or false"),
        ("unlearner=ssd", "an unlearner is named, but nothing is to be forgotten: write stream.requests"),
        ("grid={}", "grid: got {}, must name options: an empty mapping changes none; grid=null takes it away"),
        ("grid={seed: 3}", "grid.seed=3 must be a list with at least one value"),
        ("grid={seed: []}", "grid.seed=[] must be a list with at least one value"),
        ("grid={seed: [0, x]}", "seed: got 'x', must be an int"),
        ("strategy=", "write strategy=null for no value"),
        ("strategy.first.lr", "write strategy.first.lr=VALUE"),
    ],
)
def test_a_mistake_in_the_config_is_named_with_the_remedy(override: str, said: str, fails: Fails) -> None:
    assert said in fails("run", "tiny.yaml", "out=run", override)
    assert not Path("run").exists(), "nothing is made before the config is sound"


def test_all_mistakes_are_told_at_once_with_their_lines(fails: Fails) -> None:
    wrong = {**CONFIG, "strategy": {"name": "replay", "lr": 1, "memory": {"total": "many"}}, "sede": 3}
    Path("wrong.yaml").write_text(yaml.safe_dump({key: wrong[key] for key in wrong if key != "sede"}, sort_keys=False))
    said = fails("run", "wrong.yaml", "trainer.devices=none")
    lines = Path("wrong.yaml").read_text().splitlines()
    assert "3 mistakes in the config:" in said
    assert f"wrong.yaml:{lines.index('  lr: 1') + 1}: strategy.lr: got 1, but there is no such option" in said
    assert (
        f"wrong.yaml:{lines.index('    total: many') + 1}: strategy.memory.total: got 'many', must be an int or null"
        in said
    )
    assert "command line: trainer.devices: got 'none', must be an int" in said


@pytest.mark.parametrize(
    "text", ["", "[1, 2]", "a: [", "\tname: x", "a: !!python/object/apply:os.system [ls]", "x\x00y: 1", "- "]
)
def test_a_file_that_is_no_config_is_one_message(text: str, fails: Fails) -> None:
    Path("broken.yaml").write_text(text)
    assert "broken.yaml" in fails("run", "broken.yaml")


def test_a_config_that_does_not_exist_names_the_nearest(fails: Fails) -> None:
    assert "did you mean 'quickstart'?" in fails("run", "quickstrat")
    Path("folder").mkdir()
    fails("run", "folder")
    fails("run", "")
    fails("run", "x" * 5000)
    fails("show", "memoo")
    fails("check", "no_such_module:Thing")
    fails("reproduce", "quickstart")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([], 2),
        (["fly"], 2),
        (["run"], 2),
        (["fork", "run"], 2),
        (["list", "planets"], 2),
        (["run", "tiny.yaml", "--fast"], 2),
        (["--help"], 0),
        (["run", "--help"], 0),
    ],
    ids=str,
)
def test_words_that_are_no_command_show_the_usage(
    words: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        found = cli.main(words)
    except SystemExit as stop:
        found = int(stop.code or 0)
    captured = capsys.readouterr()
    assert found == code
    assert "usage: clearn" in captured.out + captured.err


# --- budgets


def test_a_budget_below_the_bare_model_is_refused_before_training(fails: Fails) -> None:
    said = fails("run", "tiny.yaml", "out=run", "budget=10kB")
    assert "after task 1 the model alone weighs" in said
    assert "raise budget.bytes, choose a smaller backbone or fewer exemplars" in said
    assert not Path("run").exists()


def test_a_number_of_exemplars_that_does_not_fit_says_what_is_left(fails: Fails) -> None:
    said = fails("run", "tiny.yaml", "out=run", "budget=72kB", "strategy.memory.total=1000")
    assert "memory.total=1000 keeps 100 exemplars of 6500 bytes, but the budget leaves" in said
    assert RunFolder(Path("run")).get_json(STATUS)["state"] == "failed"  # type: ignore[index]
    assert halves(Path("run")) == []


def test_a_memory_without_any_limit_is_refused(fails: Fails) -> None:
    said = fails("run", "tiny.yaml", "out=run", "budget.policy=none", "strategy.memory.total=null")
    assert "give memory.total, memory.per_class or budget.bytes" in said


def test_joint_training_refuses_a_budget(fails: Fails) -> None:
    assert "run it with budget.policy=none" in fails("run", "tiny.yaml", "out=run", "strategy=joint")


# --- data


def test_a_data_set_that_is_not_there_says_where_it_was_looked_for(here: Path, fails: Fails) -> None:
    said = fails("run", "tiny.yaml", "stream.data=cifar10", "strategy.backbone=resnet14")
    assert "cifar-10-batches-py" in said
    assert str(here / "data") in said
    said = fails("run", "tiny.yaml", "stream.data=arrays", "stream.file=mine.npz")
    assert "mine.npz" in said


def test_a_damaged_data_file_is_named(fails: Fails) -> None:
    Path("mine.npz").write_bytes(b"PK no zip")
    assert "mine.npz" in fails("run", "tiny.yaml", "stream.data=arrays", "stream.file=mine.npz")
    Path("mine.csv").write_text("a,b,label\n1,2,x\n3,oops,y\n")
    assert "mine.csv" in fails("run", "tiny.yaml", "stream.data=csv", "stream.file=mine.csv")


# --- the disk


def test_a_file_in_the_place_of_the_run_folder_is_left_alone(fails: Fails) -> None:
    Path("taken").write_text("mine")
    for out in ("taken", "taken/run"):
        said = fails("run", "tiny.yaml", f"out={out}")
        assert f"cannot write the run folder {out}" in said
        assert "choose another place with out=FOLDER" in said
    assert Path("taken").read_text() == "mine"


def test_two_processes_never_write_into_one_run_folder(here: Path, fails: Fails) -> None:
    works("run", "tiny.yaml", "out=run")
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    with alone_in(Path("run")):  # as a run does, for as long as it writes
        for words in (("run", "tiny.yaml", "out=run"), ("resume", "run")):
            assert "another process is writing into run: wait until that run has ended" in fails(*words)
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before
    works("resume", "run")


def test_a_folder_in_the_place_of_a_report_is_named(here: Path, fails: Fails) -> None:
    works("run", "tiny.yaml", "out=run")
    Path("page.html").mkdir()
    assert "cannot write page.html: Is a directory; choose another file" in fails(
        "report", "run", "--html", "page.html"
    )
    fails("report", "nowhere")


def full_after(monkeypatch: pytest.MonkeyPatch, writes: int) -> None:
    """Have the disk fill up: only so many more files can be opened for writing or synced, then ENOSPC."""
    left = [writes]

    def spend() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    real_open, real_sync = Path.open, os.fsync

    def opened(self: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        if set(mode) & set("wax"):
            spend()
        return real_open(self, mode, *args, **options)

    def synced(number: int) -> None:
        spend()
        real_sync(number)

    monkeypatch.setattr(Path, "open", opened)
    monkeypatch.setattr(os, "fsync", synced)


@pytest.mark.parametrize("first", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_a_disk_that_fills_up_at_any_write_is_one_message_and_resumed_later(
    first: int, here: Path, fails: Fails, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    works("run", "tiny.yaml", "out=whole")
    expected = [RunFolder(Path("whole")).state_path(step).read_bytes() for step in (1, 2)]
    refused = 0
    for room in range(first, 150, 3):
        path = Path(f"run-{room}")
        with monkeypatch.context() as patch:
            full_after(patch, room)
            capsys.readouterr()
            code = cli.main(["run", "tiny.yaml", f"out={path}"])
            said = capsys.readouterr().err
        if code == 0:
            break
        refused += 1
        assert code == 2, said
        assert said.count("clearn: cannot write") == 1
        assert "No space left on device" in said
        assert "Traceback" not in said
        assert halves(path) == []
        if refused % 4 == 0:
            works("run", "tiny.yaml", f"out={path}")
            assert [RunFolder(path).state_path(step).read_bytes() for step in (1, 2)] == expected
    assert refused >= 10


def test_a_truncated_state_is_named_and_gone_over(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    works("run", "tiny.yaml", "out=run")
    state = RunFolder(Path("run")).state_path(2)
    whole = state.read_bytes()
    state.write_bytes(whole[: len(whole) // 2])
    capsys.readouterr()
    works("resume", "run")
    assert "run/state/0002.safetensors is damaged" in capsys.readouterr().out
    assert state.read_bytes() == whole


def test_a_config_in_the_run_folder_that_was_cut_is_named(fails: Fails) -> None:
    works("run", "tiny.yaml", "out=run")
    config = Path("run/config.yaml")
    config.write_text(config.read_text()[:-40] + "\n  ][")
    assert "run/config.yaml" in fails("resume", "run")
    assert "run/config.yaml" in fails("run", "tiny.yaml", "out=run")
    config.write_bytes(b"\xff\xfe\x00")
    assert "run/config.yaml" in fails("resume", "run")


# --- training


def test_a_loss_that_is_not_finite_stops_with_the_remedy(fails: Fails) -> None:
    said = fails("run", "tiny.yaml", "out=run", "strategy.later.lr=1e30", "strategy.later.epochs=3")
    assert "the training loss became" in said
    assert "(lr=1e+30, sgd): choose a smaller lr" in said
    status = RunFolder(Path("run")).get_json(STATUS)
    assert status is not None
    assert (status["state"], status["step"]) == ("failed", 1)
    assert status["message"].startswith("Diverged: the training loss became")
    assert halves(Path("run")) == []


def test_a_cell_that_fails_does_not_hide_the_others(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(
        ["run", "tiny.yaml", "out=grid", "grid={strategy.later.lr: [0.05, 1.0e30]}", "strategy.later.epochs=3"]
    )
    captured = capsys.readouterr()
    assert code == 1
    assert "failed: the training loss became" in captured.out
    assert "1 of 2 runs failed" in captured.out
    assert "Traceback" not in captured.out + captured.err
    assert Path("grid/report.html").exists()


# --- anything at all


VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 3, 10**18, -(10**30), 0.5, -0.1, 1e300, float("inf"), float("nan"),
    "", "x", "memo", "null", "12", "1e-3", "10MiB", "5x", "every", "${seed}", "${", "???", "a.b", "../..",
    "/etc/passwd", "\u0000", "ä" * 50, "2001-01-01", [], [1], [2, 3, 5], ["a"], [[1]],
    {}, {"a": 1}, {"name": "replay"}, {"total": 5}, {"epochs": 0}, {1: 2},
]  # fmt: skip


def places(tree: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [at] if at else []
    for key, value in tree.items() if isinstance(tree, dict) else ():
        found += places(value, (*at, key))
    return found


def mutated(rng: random.Random) -> dict[str, Any]:
    """The config with one to three changes: a value replaced, an option removed, renamed, added or moved."""
    config: dict[Any, Any] = yaml.safe_load(yaml.safe_dump(CONFIG))
    for _ in range(rng.randint(1, 3)):
        *path, last = rng.choice(places(config))
        around = config
        for key in path:
            around = around[key]
        match rng.choice(["replace", "replace", "replace", "remove", "rename", "add", "move"]):
            case "replace":
                around[last] = rng.choice(VALUES)
            case "remove":
                del around[last]
            case "rename":
                around[rng.choice([f"{last}s", str(last)[::-1], last[:-1] or "q", 7, "name"])] = around.pop(last)
            case "add":
                around[rng.choice(["name", "extends", "out", "bytes", "total", "x", "like", "step", "grid"])] = (
                    rng.choice(VALUES)
                )
            case "move":
                config[rng.choice(["budget", "stream", "strategy", "trainer", "runner", "extra"])] = around.pop(last)
    return config


def test_no_config_whatever_gives_a_traceback(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """320 mutations of a sound config, through the command line: done, or one message and exit code 2."""
    from clearn.sweeping import commanding, launching

    def planned(experiment: Any, path: Path, console: Any) -> str:
        """Up to the first task: the rest is training as usual."""
        experiment.check_budget(experiment.plan())
        return ""

    monkeypatch.setattr(launching, "execute", planned)
    monkeypatch.setattr(commanding, "summary", lambda *_: None)
    rng, codes = random.Random(0), []
    for number in range(320):
        config = mutated(rng)
        Path("fuzzed.yaml").write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        capsys.readouterr()
        try:
            code = cli.main(["run", "fuzzed.yaml"])
        except BaseException as error:
            raise AssertionError(f"mutation {number} raised {type(error).__name__}: {error}\n{config}") from error
        captured = capsys.readouterr()
        assert code in (0, 2) or (code == 1 and "runs failed" in captured.out), config
        assert "Traceback" not in captured.out + captured.err
        assert (captured.err != "") == (code == 2) or "runs failed" in captured.out, config
        codes.append(code)
    assert codes.count(2) > 160
    assert codes.count(0) > 20
